//! From hyper's request to ours, and from our answer to hyper's.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Poll, Waker},
    time::Instant,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header, request::Parts};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use percent_encoding::percent_decode_str;
use tracing::debug;

use super::{
    Ticket, WebAnswer, WebRequest, WebService,
    finish::{AnswerBody, Manner, finish},
    lobby::{Lobby, Site},
    proxies,
    wire::Link,
};
use crate::shard::slots::Key;

/// Largest body of a request, bytes (contract §6.1).
const BODY_BYTES_MAX: usize = 128 << 10;
/// Largest bodies of one connection's requests together, bytes.
const BODIES_BYTES_MAX: usize = 512 << 10;

/// The client of a connection, and what it waits for.
pub struct Guest {
    pub service: WebService,
    pub connection: Key,
    pub peer: SocketAddr,
    pub link: Rc<Link>,
    lobby: Rc<Lobby>,
    visits: RefCell<Vec<Rc<Visit>>>,
    requests: Cell<u64>,
    bodies_bytes: Cell<usize>,
    /// When the last answer was given.
    pub answered_at: Cell<Option<Instant>>,
}

/// A request, from the end of its head to the end of its answer.
pub struct Visit {
    request: u64,
    stage: Cell<Stage>,
    answer: RefCell<Option<WebAnswer>>,
    waker: RefCell<Option<Waker>>,
}

/// How far a request is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Its body is awaited.
    Arriving { since: Instant },
    /// Its answer is.
    Waiting,
    /// Its client takes the answer; it took some of it last at that time.
    Sending { moved_at: Instant },
}

impl Guest {
    pub fn new(
        service: WebService,
        connection: Key,
        peer: SocketAddr,
        link: Rc<Link>,
        lobby: Rc<Lobby>,
    ) -> Rc<Self> {
        Rc::new(Self {
            service,
            connection,
            peer,
            link,
            lobby,
            visits: RefCell::default(),
            requests: Cell::new(0),
            bodies_bytes: Cell::new(0),
            answered_at: Cell::new(None),
        })
    }

    /// Gives the answer to one of its requests. False when that is not waited for.
    pub fn answer(&self, request: u64, answer: WebAnswer) -> bool {
        let visits = self.visits.borrow();
        let visit =
            visits.iter().find(|visit| visit.request == request && visit.stage.get() == Stage::Waiting);
        let Some(visit) = visit else { return false };
        *visit.answer.borrow_mut() = Some(answer);
        if let Some(waker) = visit.waker.borrow_mut().take() {
            waker.wake();
        }
        true
    }

    /// Numbers of the requests that wait for an answer.
    pub fn waiting(&self) -> Vec<u64> {
        let visits = self.visits.borrow();
        visits.iter().filter(|visit| visit.stage.get() == Stage::Waiting).map(|visit| visit.request).collect()
    }

    /// No request is under way.
    pub fn is_idle(&self) -> bool {
        self.visits.borrow().is_empty()
    }

    pub fn any_stage(&self, which: impl Fn(Stage) -> bool) -> bool {
        self.visits.borrow().iter().any(|visit| which(visit.stage.get()))
    }

    pub fn ticket(&self, request: u64) -> Ticket {
        Ticket { shard: self.lobby.shard, connection: self.connection, request }
    }
}

/// Ends a [`Visit`] when it is dropped, and says so if it was still waiting.
pub struct Stay {
    guest: Rc<Guest>,
    visit: Rc<Visit>,
    /// Bytes that its body may take.
    reserved: Cell<usize>,
}

impl Stay {
    fn begin(guest: &Rc<Guest>) -> Self {
        let now = guest.lobby.now();
        guest.link.request_since.set(None);
        guest.requests.set(guest.requests.get() + 1);
        let visit = Rc::new(Visit {
            request: guest.requests.get(),
            stage: Cell::new(Stage::Arriving { since: now }),
            answer: RefCell::default(),
            waker: RefCell::default(),
        });
        guest.visits.borrow_mut().push(Rc::clone(&visit));
        Self { guest: Rc::clone(guest), visit, reserved: Cell::new(0) }
    }

    /// The client takes the answer.
    pub fn moves(&self) {
        self.visit.stage.set(Stage::Sending { moved_at: self.guest.lobby.now() });
    }

    fn reserve(&self, bytes: usize) -> bool {
        let taken = self.guest.bodies_bytes.get() + bytes;
        if taken > BODIES_BYTES_MAX {
            return false;
        }
        self.guest.bodies_bytes.set(taken);
        self.reserved.set(self.reserved.get() + bytes);
        true
    }

    async fn body(&self, parts: &Parts, body: Incoming) -> Result<Bytes, WebAnswer> {
        if body.is_end_stream() || matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS) {
            return Ok(Bytes::new());
        }
        let too_large = || {
            let reason = format!("the body of the request is larger than {} KiB", BODY_BYTES_MAX >> 10);
            WebAnswer::failure(StatusCode::PAYLOAD_TOO_LARGE, &reason)
        };
        let bytes = match body.size_hint().exact() {
            Some(bytes) if bytes > BODY_BYTES_MAX as u64 => return Err(too_large()),
            Some(bytes) => bytes as usize,
            None => BODY_BYTES_MAX,
        };
        if !self.reserve(bytes) {
            let reason = "too many requests with a body at once on this connection";
            return Err(WebAnswer::busy(reason));
        }
        match Limited::new(body, BODY_BYTES_MAX).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
            Err(_) => {
                Err(WebAnswer::failure(StatusCode::BAD_REQUEST, "the body of the request is broken off"))
            }
        }
    }

    /// Lets the shard answer.
    async fn ask(&self, parts: Parts, body: Incoming, site: &Site) -> WebAnswer {
        let guest = &*self.guest;
        let path = match percent_decode_str(parts.uri.path()).decode_utf8() {
            Ok(path) if path.starts_with('/') => path.into_owned(),
            _ => return WebAnswer::failure(StatusCode::BAD_REQUEST, "invalid path"),
        };
        let body = match self.body(&parts, body).await {
            Ok(body) => body,
            Err(answer) => return answer,
        };
        let ip = guest.peer.ip();
        let request = WebRequest {
            ticket: guest.ticket(self.visit.request),
            service: guest.service,
            // What HEAD is answered with is what GET would be, but for the body.
            method: if parts.method == Method::HEAD { Method::GET } else { parts.method },
            path,
            uri: parts.uri,
            remote: SocketAddr::new(
                proxies::client(ip, &parts.headers, &site.trusted_proxies),
                guest.peer.port(),
            ),
            secure: guest.link.is_encrypted()
                || proxies::was_secure(ip, &parts.headers, &site.trusted_proxies),
            headers: parts.headers,
            body,
        };
        self.visit.stage.set(Stage::Waiting);
        guest.lobby.arrived.borrow_mut().push_back(request);
        poll_fn(|cx| match self.visit.answer.borrow_mut().take() {
            Some(answer) => Poll::Ready(answer),
            None => {
                *self.visit.waker.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
        })
        .await
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        let guest = &self.guest;
        guest.visits.borrow_mut().retain(|visit| !Rc::ptr_eq(visit, &self.visit));
        guest.bodies_bytes.set(guest.bodies_bytes.get() - self.reserved.get());
        guest.answered_at.set(Some(guest.lobby.now()));
        // What came meanwhile was this one's body.
        guest.link.request_since.set(None);
        if self.visit.stage.get() == Stage::Waiting {
            guest.lobby.gone.borrow_mut().push(guest.ticket(self.visit.request));
        }
    }
}

/// What hyper calls for every request of a connection.
pub struct Door(pub Rc<Guest>);

impl hyper::service::Service<Request<Incoming>> for Door {
    type Response = Response<AnswerBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let stay = Stay::begin(&self.0);
        Box::pin(async move { Ok(serve(stay, request).await) })
    }
}

async fn serve(stay: Stay, request: Request<Incoming>) -> Response<AnswerBody> {
    let (parts, body) = request.into_parts();
    let guest = Rc::clone(&stay.guest);
    let (server, peer) = (guest.service.name(), guest.peer);
    // The query may hold a token.
    debug!("[{server}] [conn {peer}] [c->s] {} {}", parts.method, parts.uri.path());
    let site = guest.lobby.site(guest.service);
    let origins = site.as_ref().map(|site| &site.origins);
    let manner = Manner {
        is_head: parts.method == Method::HEAD,
        range: parts.headers.get(header::RANGE).cloned(),
        origin: origins.and_then(|origins| origins.answer(parts.headers.get(header::ORIGIN))),
    };
    let answer = match &site {
        // The server was closed.
        None => WebAnswer::page_not_found(),
        Some(site) if is_preflight(&parts) => WebAnswer::new(StatusCode::NO_CONTENT)
            .header(header::ACCESS_CONTROL_ALLOW_METHODS, site.cors_methods.clone())
            .header(header::ACCESS_CONTROL_ALLOW_HEADERS, site.cors_headers.clone()),
        Some(site) => stay.ask(parts, body, site).await,
    };
    stay.moves();
    let response = finish(answer, manner, stay);
    debug!("[{server}] [conn {peer}] [s->c] {}", response.status());
    guest.lobby.count_answer(guest.service, response.status());
    response
}

fn is_preflight(parts: &Parts) -> bool {
    parts.method == Method::OPTIONS && parts.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}
