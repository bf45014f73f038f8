//! Requests and their answers: numbers, credentials, and what every request carries.

use std::{collections::VecDeque, fmt};

use super::{
    super::{Method, Request, Response, Status},
    ClientError, Credentials,
    credentials::Login,
    sentences::refused,
    transport::Asked,
};

const USER_AGENT: &str = "corecast";
/// Requests whose answers are awaited. Only keep-alives come to more than one; of them the oldest is forgotten.
const PENDING_MAX: usize = 4;
/// Bytes that wait to be sent before answers to the server's own requests are dropped.
const OUT_BYTES_MAX: usize = 64 * 1024;

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Options,
    Describe,
    Setup {
        track: usize,
        asked: Asked,
    },
    Play {
        /// Whether it names a range that nobody configured.
        usual_range: bool,
    },
    KeepAlive,
}

/// A request that was sent.
#[derive(Debug)]
pub(super) struct Pending {
    cseq: u32,
    pub purpose: Purpose,
    pub method: Method,
    url: String,
    /// Those that are its own: not number, credentials, session and name.
    headers: Vec<(&'static str, String)>,
    /// How often it was answered 401.
    refusals: u8,
}

/// See the module.
pub(super) struct Exchange {
    out: Vec<u8>,
    cseq: u32,
    pending: VecDeque<Pending>,
    login: Login,
    /// Identifier of the session that the server has for us.
    pub session: Option<String>,
    /// Answers that belong to no request.
    pub strays: u64,
}

/// Without what is sent: it holds credentials.
impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").field("pending", &self.pending).field("session", &self.session).finish()
    }
}

impl Exchange {
    pub fn new(credentials: Option<Credentials>) -> Self {
        Self {
            out: Vec::new(),
            cseq: 0,
            pending: VecDeque::new(),
            login: Login::new(credentials),
            session: None,
            strays: 0,
        }
    }

    pub fn take_outgoing(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.out);
    }

    /// Whether all that was said has been taken away.
    pub fn is_drained(&self) -> bool {
        self.out.is_empty()
    }

    pub fn ask(&mut self, purpose: Purpose, method: Method, url: &str, headers: Vec<(&'static str, String)>) {
        self.send(Pending { cseq: 0, purpose, method, url: url.to_owned(), headers, refusals: 0 });
    }

    fn send(&mut self, pending: Pending) {
        let cseq = self.write(&pending.method, &pending.url, &pending.headers);
        if self.pending.len() == PENDING_MAX {
            self.pending.pop_front();
        }
        self.pending.push_back(Pending { cseq, ..pending });
    }

    fn write(&mut self, method: &Method, url: &str, headers: &[(&'static str, String)]) -> u32 {
        self.cseq = self.cseq.wrapping_add(1);
        let mut request = Request::new(method.clone(), url).header("CSeq", self.cseq.to_string());
        if let Some(value) = self.login.authorization(method.as_str(), url) {
            request = request.header("Authorization", value);
        }
        if let Some(session) = &self.session {
            request = request.header("Session", session);
        }
        for (name, value) in headers {
            request = request.header(name, value);
        }
        request.header("User-Agent", USER_AGENT).write_to(&mut self.out);
        self.cseq
    }

    /// The request that an answer belongs to. There are cameras that count wrong or not at all: an answer to the only
    /// request is taken for what it is. What belongs to none is left.
    pub fn answered(&mut self, response: &Response) -> Option<Pending> {
        let cseq = response.headers.get("CSeq").and_then(|value| value.trim().parse().ok());
        let at = self.pending.iter().position(|it| Some(it.cseq) == cseq);
        let at = at.or((self.pending.len() == 1).then_some(0));
        let Some(at) = at else {
            self.strays = self.strays.saturating_add(1);
            return None;
        };
        // Servers answer in order (RFC 2326 §9.1): those before it will not be answered any more.
        self.pending.drain(..=at).next_back()
    }

    /// Asks again with credentials, after a 401.
    ///
    /// # Errors
    /// When it is no use.
    pub fn ask_again(&mut self, mut pending: Pending, response: &Response) -> Result<(), ClientError> {
        pending.refusals = pending.refusals.saturating_add(1);
        self.login
            .on_unauthorized(&response.headers, pending.refusals)
            .map_err(|error| ClientError(format!("{}: {error}", refused(&pending.method, response))))?;
        self.send(pending);
        Ok(())
    }

    /// A request whose answer is not awaited: the last one.
    pub fn say(&mut self, method: &Method, url: &str) {
        self.write(method, url, &[]);
    }

    /// No answer is awaited any more.
    pub fn forget_pending(&mut self) {
        self.pending.clear();
    }

    /// Answers a request of the server.
    pub fn answer(&mut self, request: &Request) {
        if self.out.len() > OUT_BYTES_MAX {
            return;
        }
        let status = match request.method {
            Method::Options | Method::GetParameter | Method::SetParameter | Method::Teardown => Status::OK,
            // A new description or place would mean a new session, which is what follows when this one ends.
            _ => Status::NOT_IMPLEMENTED,
        };
        let mut response = Response::new(status);
        for name in ["CSeq", "Session"] {
            if let Some(value) = request.headers.get(name) {
                response = response.header(name, value);
            }
        }
        if status == Status::NOT_IMPLEMENTED || request.method == Method::Options {
            response = response.header("Public", "OPTIONS, GET_PARAMETER, SET_PARAMETER");
        }
        response.header("User-Agent", USER_AGENT).write_to(&mut self.out);
    }
}
