//! What a mock camera does, in words: a line per trait, so that scenario files can be read by whoever knows cameras.
//!
//! | line | means |
//! |---|---|
//! | `auth basic`, `auth md5 sha256` | asks for credentials, with these challenges in this order |
//! | `login USER [PASSWORD]` | the credentials that are right; `admin secret` without this line |
//! | `protect options` | OPTIONS needs credentials too |
//! | `qop` | challenges of Digest offer `qop="auth"` |
//! | `stale after N` | a nonce is good for N requests |
//! | `refuse login` | no credentials are right |
//! | `only PATH…` | other paths are not found |
//! | `hang PREFIX` | DESCRIBE of a path that begins so is never answered |
//! | `tracks h264 aac pcma opus backchannel metadata` | what is described, in this order |
//! | `video fps=25 gop=25 frame=3000 key=12000` | pictures: how many a second, bytes of each |
//! | `key after TIME` | the first keyframe comes that late, other pictures before it |
//! | `silent for TIME` | nothing comes until then |
//! | `quiet after TIME` | nothing comes from then on, the connection stays and answers |
//! | `cut after TIME fin\|rst\|half-open` | so the connection ends; half-open: it stays, and nothing is read or sent |
//! | `dribble` | all is written byte by byte |
//! | `udp yes\|refuse\|swallow`, `tcp refuse` | transports; swallow: accepted, but no packet comes |
//! | `udp drop N`, `udp swap N` | every Nth packet is not sent; is sent after the next |
//! | `multicast GROUP` | what a client that asks for multicast gets; others are refused |
//! | `listen yes\|refuse\|blackhole\|mute\|garbage` | what a client finds that connects; mute: accepts and never speaks |
//! | `accepts N` | takes that many connections a second, the others wait |
//! | `timeout SECONDS [enforced]` | announced session timeout; enforced: who is not heard of for that long is closed |
//! | `stamps TIME every N` | every Nth picture is stamped that far off |
//! | `clock jumps TIME after TIME`, `ssrc changes after TIME`, `sps changes after TIME` | once, for all that follows |
//! | `on METHOD drop HEADER`, `on METHOD set HEADER: VALUE` | alters answers to it; `*` is any method |
//! | `on METHOD status CODE`, `on METHOD hang`, `on METHOD close`, `on METHOD delay TIME` | instead of an answer |
//! | `on METHOD redirect CODE URL` | `{self}` in it is this camera's base URL, `{n}` a number that grows |

use std::time::Duration;

use crate::support::CameraPlan;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Basic,
    Md5,
    Sha256,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    H264,
    Aac,
    Pcma,
    Opus,
    /// Audio that we are to send (ONVIF back-channel).
    BackChannel,
    /// ONVIF metadata: no audio, no video.
    Metadata,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    Serve,
    Refuse,
    BlackHole,
    Mute,
    Garbage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutBy {
    Fin,
    Rst,
    HalfOpen,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Udp {
    Serve,
    Refuse,
    Swallow,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Drop(String),
    Set(String, String),
    Status(u16),
    Redirect(u16, String),
    Delay(Duration),
    Hang,
    Close,
}

/// What is done to answers to a method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quirk {
    pub method: String,
    pub change: Change,
}

#[derive(Debug, Clone)]
pub struct Plan {
    pub auth: Vec<Scheme>,
    pub user: String,
    pub password: String,
    pub protect_options: bool,
    pub qop: bool,
    pub stale_after: Option<u32>,
    pub refuse_login: bool,
    pub only: Vec<String>,
    pub hangs: Option<String>,
    pub tracks: Vec<Kind>,
    pub video: CameraPlan,
    pub key_after: Duration,
    pub silent_for: Duration,
    pub quiet_after: Option<Duration>,
    pub cut: Option<(Duration, CutBy)>,
    pub dribble: bool,
    pub udp: Udp,
    pub tcp: bool,
    pub udp_drop: Option<u32>,
    pub udp_swap: Option<u32>,
    pub multicast: Option<std::net::Ipv4Addr>,
    pub listen: Listen,
    pub accepts_per_second: Option<u32>,
    pub timeout_s: u64,
    pub timeout_enforced: bool,
    /// Signed milliseconds, and every how many pictures.
    pub stamps: Option<(i64, u32)>,
    pub clock_jump: Option<(i64, Duration)>,
    pub ssrc_change: Option<Duration>,
    pub sps_change: Option<Duration>,
    pub quirks: Vec<Quirk>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            auth: Vec::new(),
            user: "admin".to_owned(),
            password: "secret".to_owned(),
            protect_options: false,
            qop: false,
            stale_after: None,
            refuse_login: false,
            only: Vec::new(),
            hangs: None,
            tracks: vec![Kind::H264],
            video: CameraPlan::default(),
            key_after: Duration::ZERO,
            silent_for: Duration::ZERO,
            quiet_after: None,
            cut: None,
            dribble: false,
            udp: Udp::Serve,
            tcp: true,
            udp_drop: None,
            udp_swap: None,
            multicast: None,
            listen: Listen::Serve,
            accepts_per_second: None,
            timeout_s: 60,
            timeout_enforced: false,
            stamps: None,
            clock_jump: None,
            ssrc_change: None,
            sps_change: None,
            quirks: Vec::new(),
        }
    }
}

/// `250ms`, `3s`
pub fn duration(text: &str) -> Duration {
    let (number, unit) = text.split_at(text.find(char::is_alphabetic).expect(text));
    let number: u64 = number.parse().unwrap_or_else(|_| panic!("no duration: {text:?}"));
    match unit {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        _ => panic!("no duration: {text:?}"),
    }
}

/// The same with a sign, in milliseconds.
fn offset_ms(text: &str) -> i64 {
    let ms = |text| i64::try_from(duration(text).as_millis()).unwrap();
    text.strip_prefix('-').map_or_else(|| ms(text), |text| -ms(text))
}

impl Plan {
    /// Reads a plan: a trait per line.
    pub fn read(text: &str) -> Self {
        let mut plan = Self::default();
        text.lines().map(str::trim).filter(|line| !line.is_empty()).for_each(|line| plan.apply(line));
        plan
    }

    /// Lays one more line over it.
    pub fn apply(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |word: &str| word.parse().unwrap_or_else(|_| panic!("no number in {line:?}"));
        match words[..] {
            ["auth", ref schemes @ ..] => self.auth = schemes.iter().map(|name| scheme(name)).collect(),
            ["login", user, ref password @ ..] => {
                self.user = user.to_owned();
                self.password = password.first().copied().unwrap_or_default().to_owned();
            }
            ["protect", "options"] => self.protect_options = true,
            ["qop"] => self.qop = true,
            ["stale", "after", n] => self.stale_after = Some(number(n)),
            ["refuse", "login"] => self.refuse_login = true,
            ["hang", prefix] => self.hangs = Some(prefix.to_owned()),
            ["only", ref paths @ ..] => self.only = paths.iter().map(|path| (*path).to_owned()).collect(),
            ["tracks", ref kinds @ ..] => self.tracks = kinds.iter().map(|name| kind(name)).collect(),
            ["video", ref pairs @ ..] => pairs.iter().for_each(|pair| self.video_trait(pair)),
            ["key", "after", time] => self.key_after = duration(time),
            ["silent", "for", time] => self.silent_for = duration(time),
            ["quiet", "after", "never"] => self.quiet_after = None,
            ["quiet", "after", time] => self.quiet_after = Some(duration(time)),
            ["cut", "never"] => self.cut = None,
            ["cut", "after", time, how] => self.cut = Some((duration(time), cut_by(how))),
            ["dribble"] => self.dribble = true,
            ["udp", "drop", n] => self.udp_drop = Some(number(n)),
            ["udp", "swap", n] => self.udp_swap = Some(number(n)),
            ["udp", how] => {
                self.udp = match how {
                    "yes" => Udp::Serve,
                    "refuse" => Udp::Refuse,
                    "swallow" => Udp::Swallow,
                    _ => panic!("what is {line:?}?"),
                }
            }
            ["tcp", "refuse"] => self.tcp = false,
            ["multicast", group] => self.multicast = Some(group.parse().expect(line)),
            ["listen", how] => self.listen = listen(how),
            ["accepts", n] => self.accepts_per_second = Some(number(n)),
            ["timeout", seconds, ref rest @ ..] => {
                self.timeout_s = number(seconds).into();
                self.timeout_enforced = rest == ["enforced"];
            }
            ["stamps", time, "every", n] => self.stamps = Some((offset_ms(time), number(n))),
            ["clock", "jumps", time, "after", after] => {
                self.clock_jump = Some((offset_ms(time), duration(after)));
            }
            ["ssrc", "changes", "after", time] => self.ssrc_change = Some(duration(time)),
            ["sps", "changes", "after", time] => self.sps_change = Some(duration(time)),
            ["on", method, ..] => {
                let change = change(line.split_once(method).unwrap().1.trim());
                self.quirks.push(Quirk { method: method.to_owned(), change });
            }
            _ => panic!("no trait of a camera: {line:?}"),
        }
    }

    fn video_trait(&mut self, pair: &str) {
        let (name, value) = pair.split_once('=').expect(pair);
        let value: u32 = value.parse().expect(pair);
        match name {
            "fps" => self.video.fps = value,
            "gop" => self.video.gop = value,
            "frame" => self.video.frame_bytes = value as usize,
            "key" => self.video.key_bytes = value as usize,
            _ => panic!("no trait of a picture: {pair:?}"),
        }
    }

    pub fn quirks_of<'a>(&'a self, method: &str) -> impl Iterator<Item = &'a Change> {
        let concerns = move |quirk: &&Quirk| quirk.method == "*" || quirk.method == method;
        self.quirks.iter().filter(concerns).map(|quirk| &quirk.change).collect::<Vec<_>>().into_iter()
    }
}

fn scheme(name: &str) -> Scheme {
    match name {
        "basic" => Scheme::Basic,
        "md5" => Scheme::Md5,
        "sha256" => Scheme::Sha256,
        _ => panic!("no way to authenticate: {name:?}"),
    }
}

fn kind(name: &str) -> Kind {
    match name {
        "h264" => Kind::H264,
        "aac" => Kind::Aac,
        "pcma" => Kind::Pcma,
        "opus" => Kind::Opus,
        "backchannel" => Kind::BackChannel,
        "metadata" => Kind::Metadata,
        _ => panic!("no kind of track: {name:?}"),
    }
}

fn cut_by(name: &str) -> CutBy {
    match name {
        "fin" => CutBy::Fin,
        "rst" => CutBy::Rst,
        "half-open" => CutBy::HalfOpen,
        _ => panic!("no way to end: {name:?}"),
    }
}

fn listen(name: &str) -> Listen {
    match name {
        "yes" => Listen::Serve,
        "refuse" => Listen::Refuse,
        "blackhole" => Listen::BlackHole,
        "mute" => Listen::Mute,
        "garbage" => Listen::Garbage,
        _ => panic!("no way to listen: {name:?}"),
    }
}

fn change(text: &str) -> Change {
    let (what, rest) = text.split_once(' ').unwrap_or((text, ""));
    match what {
        "drop" => Change::Drop(rest.to_owned()),
        "set" => {
            let (name, value) = rest.split_once(':').expect(text);
            Change::Set(name.to_owned(), value.trim().to_owned())
        }
        "status" => Change::Status(rest.parse().expect(text)),
        "redirect" => {
            let (code, url) = rest.split_once(' ').expect(text);
            Change::Redirect(code.parse().expect(text), url.to_owned())
        }
        "delay" => Change::Delay(duration(rest)),
        "hang" => Change::Hang,
        "close" => Change::Close,
        _ => panic!("no change to an answer: {text:?}"),
    }
}
