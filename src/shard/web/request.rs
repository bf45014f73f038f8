//! What a client asks for.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Uri, header};

use super::{Ticket, WebService};

/// A request whose body has arrived. It may go from shard to shard.
#[derive(Debug)]
pub struct WebRequest {
    pub ticket: Ticket,
    pub service: WebService,
    pub method: Method,
    /// Of the URL, percent-decoded; begins with `/`.
    pub path: String,
    /// As it was sent.
    pub uri: Uri,
    pub headers: HeaderMap,
    /// The client: the peer, or whom a trusted proxy names, with the peer's port.
    pub remote: SocketAddr,
    /// The client spoke TLS, with us or with a trusted proxy.
    pub secure: bool,
    pub body: Bytes,
}

/// What a path of a URL is about: `/site/cam1/index.m3u8` is `index.m3u8` of `site/cam1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'path> {
    /// Name of the path whose stream is wanted; empty for what belongs to none.
    pub name: &'path str,
    /// What stands behind its last slash; empty when that is the last character.
    pub file: &'path str,
    /// Id of the viewer, between the two: `/cam1/~id/video1_stream.m3u8`. No name of a path has that character in it.
    pub session: Option<&'path str>,
}

impl<'path> Place<'path> {
    /// `path` begins behind the first slash of a URL's.
    pub fn of(path: &'path str) -> Self {
        let (name, file) = path.rsplit_once('/').unwrap_or(("", path));
        let (name, session) = match name.rsplit_once('/') {
            Some((name, last)) if last.starts_with('~') => (name, last.strip_prefix('~')),
            _ => (name, None),
        };
        Self { name, file, session }
    }

    /// The page of a path, or what that needs.
    pub fn is_page(self) -> bool {
        matches!(self.file, "" | "hls.min.js")
    }

    /// A playlist, a segment or a part (contract §5.1).
    pub fn is_media(self) -> bool {
        let (_, extension) = self.file.rsplit_once('.').unwrap_or_default();
        matches!(extension, "m3u8" | "ts" | "mp4" | "mp")
    }
}

impl WebRequest {
    /// Of the URL, as it was sent, without `?`.
    pub fn query(&self) -> &str {
        self.uri.query().unwrap_or_default()
    }

    /// Value of a header field, if there is one and it is text.
    pub fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Host and port as the client knows them; empty when it did not say.
    pub fn host(&self) -> &str {
        self.header(&header::HOST)
            .or(self.uri.authority().map(http::uri::Authority::as_str))
            .unwrap_or_default()
    }

    pub fn place(&self) -> Place<'_> {
        Place::of(self.path.strip_prefix('/').unwrap_or(&self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_path_viewer_and_file() {
        let place = |path: &str| {
            let uri = Uri::from_static("/");
            let request = WebRequest {
                ticket: Ticket { shard: 0, connection: crate::shard::slots::Key::from_bits(0), request: 0 },
                service: WebService::Hls,
                method: Method::GET,
                path: path.to_owned(),
                uri,
                headers: HeaderMap::new(),
                remote: ([127, 0, 0, 1], 1).into(),
                secure: false,
                body: Bytes::new(),
            };
            let Place { name, file, session } = request.place();
            (name.to_owned(), file.to_owned(), session.map(str::to_owned))
        };
        let of = |name: &str, file: &str, session: Option<&str>| {
            (name.to_owned(), file.to_owned(), session.map(str::to_owned))
        };
        assert_eq!(place("/cam1/index.m3u8"), of("cam1", "index.m3u8", None));
        assert_eq!(place("/site/cam1/"), of("site/cam1", "", None));
        assert_eq!(place("/cam1"), of("", "cam1", None));
        assert_eq!(place("/a/b/~00ff/x.mp4"), of("a/b", "x.mp4", Some("00ff")));
        assert_eq!(place("/cam1/~/x.mp4"), of("cam1", "x.mp4", Some("")));
        assert_eq!(place("/~00ff/x.mp4"), of("~00ff", "x.mp4", None));
    }
}
