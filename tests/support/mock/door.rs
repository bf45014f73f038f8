//! Who is let in: challenges, and whether an answer to one is right (RFC 2617, RFC 7616). Written against the RFCs, not
//! against the code under test.

use std::collections::HashMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use md5::{Digest, Md5};
use sha2::Sha256;

use super::plan::{Plan, Scheme};

const REALM: &str = "mock camera";

/// What a connection knows of its client.
pub struct Door {
    nonce: String,
    uses: u32,
    /// Tells nonces of connections and of turns apart.
    seed: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Open,
    /// 401 with these values of `WWW-Authenticate`.
    Challenged(Vec<String>),
}

impl Door {
    pub fn new(connection: usize) -> Self {
        let mut door = Self { nonce: String::new(), uses: 0, seed: connection as u64 };
        door.renew();
        door
    }

    fn renew(&mut self) {
        self.seed = self.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(0x1234_5678_9ABC_DEF1);
        self.nonce = format!("{:016x}", self.seed);
        self.uses = 0;
    }

    pub fn ask(&mut self, plan: &Plan, method: &str, url: &str, authorization: Option<&str>) -> Verdict {
        if plan.auth.is_empty() || (method == "OPTIONS" && !plan.protect_options) {
            return Verdict::Open;
        }
        let mut stale = false;
        if let Some(said) = authorization
            && !plan.refuse_login
        {
            if plan.auth.contains(&Scheme::Basic) && basic_is_right(plan, said) {
                return Verdict::Open;
            }
            if self.digest_is_right(plan, method, url, said) {
                self.uses += 1;
                if plan.stale_after.is_none_or(|limit| self.uses <= limit) {
                    return Verdict::Open;
                }
                self.renew();
                stale = true;
            }
        }
        Verdict::Challenged(plan.auth.iter().map(|scheme| self.challenge(plan, *scheme, stale)).collect())
    }

    fn challenge(&self, plan: &Plan, scheme: Scheme, stale: bool) -> String {
        let algorithm = match scheme {
            Scheme::Basic => return format!("Basic realm=\"{REALM}\""),
            // Most cameras leave the name of their only algorithm away.
            Scheme::Md5 => "",
            Scheme::Sha256 => ", algorithm=SHA-256",
        };
        let qop = if plan.qop { ", qop=\"auth\"" } else { "" };
        let stale = if stale { ", stale=TRUE" } else { "" };
        format!("Digest realm=\"{REALM}\", nonce=\"{}\"{algorithm}{qop}{stale}", self.nonce)
    }

    fn digest_is_right(&self, plan: &Plan, method: &str, url: &str, said: &str) -> bool {
        let Some(fields) = said.strip_prefix("Digest ").map(fields) else { return false };
        let field = |name: &str| fields.get(name).map_or("", String::as_str);
        let scheme = match field("algorithm") {
            "" | "MD5" => Scheme::Md5,
            "SHA-256" => Scheme::Sha256,
            _ => return false,
        };
        let known = plan.auth.contains(&scheme) && field("realm") == REALM && field("nonce") == self.nonce;
        if !known || field("username") != plan.user || field("uri") != url {
            return false;
        }
        let hash = |text: String| match scheme {
            Scheme::Sha256 => hex(&Sha256::digest(text)),
            _ => hex(&Md5::digest(text)),
        };
        let who = hash(format!("{}:{REALM}:{}", plan.user, plan.password));
        let what = hash(format!("{method}:{url}"));
        let middle = match field("qop") {
            "" if plan.qop => return false,
            "" => self.nonce.clone(),
            qop => format!("{}:{}:{}:{qop}", self.nonce, field("nc"), field("cnonce")),
        };
        field("response") == hash(format!("{who}:{middle}:{what}"))
    }
}

fn basic_is_right(plan: &Plan, said: &str) -> bool {
    let wanted = BASE64_STANDARD.encode(format!("{}:{}", plan.user, plan.password));
    said.strip_prefix("Basic ").is_some_and(|said| said == wanted)
}

/// `name="value", name=value`
fn fields(text: &str) -> HashMap<String, String> {
    let mut found = HashMap::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once('=') {
        let (value, behind) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        found.insert(name.trim_matches([' ', ',']).to_ascii_lowercase(), value.trim().to_owned());
        rest = behind;
    }
    found
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

mod it_sees {
    use super::{Door, Plan, Verdict};

    /// Right answers of Digest are what ffmpeg and GStreamer give in `mock.rs`.
    #[test]
    fn wrong_answers() {
        let plan = Plan::read("auth md5");
        let mut door = Door::new(1);
        let Verdict::Challenged(challenges) = door.ask(&plan, "DESCRIBE", "rtsp://h/a", None) else {
            panic!("it is open to anybody")
        };
        assert_eq!(challenges.len(), 1);
        let wrong = "Digest username=\"admin\", realm=\"mock camera\", nonce=\"1\", uri=\"rtsp://h/a\", response=\"0\"";
        assert_ne!(door.ask(&plan, "DESCRIBE", "rtsp://h/a", Some(wrong)), Verdict::Open);
        let basic = Plan::read("auth basic\nlogin admin");
        assert_eq!(door.ask(&basic, "DESCRIBE", "rtsp://h/a", Some("Basic YWRtaW46")), Verdict::Open);
        assert_ne!(door.ask(&basic, "DESCRIBE", "rtsp://h/a", Some("Basic YWRtaW46eA==")), Verdict::Open);
        assert_eq!(door.ask(&basic, "OPTIONS", "rtsp://h/a", None), Verdict::Open);
    }
}
