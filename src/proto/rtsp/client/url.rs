//! Where a source is, and who we are to it.

use std::fmt;

/// User and password of a source; either may be empty. Shows neither.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Credentials {
    pub user: String,
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

/// The URL of a source in its parts. `Display` is the form that requests carry: without user and password, but with a
/// query, which may hold others. What people read gets [`SourceUrl::shown`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceUrl {
    /// `rtsps`
    pub encrypted: bool,
    /// A name or an address; IPv6 without brackets.
    pub host: String,
    pub port: u16,
    pub credentials: Option<Credentials>,
    /// Path and query from the slash on, as given; may be empty.
    pub tail: String,
}

/// Why a text is no URL of a source. None of them repeats it, for it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SourceUrlError {
    #[error("the URL's scheme is neither rtsp nor rtsps")]
    Scheme,
    #[error("the URL names no host")]
    Host,
    #[error("the URL's port is no number from 1 to 65535")]
    Port,
}

impl fmt::Display for SourceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.encrypted { "rtsps" } else { "rtsp" };
        match self.host.contains(':') {
            true => write!(f, "{scheme}://[{}]:{}{}", self.host, self.port, self.tail),
            false => write!(f, "{scheme}://{}:{}{}", self.host, self.port, self.tail),
        }
    }
}

impl SourceUrl {
    /// The form for people: scheme, host, port and path. Passwords of some cameras are in the query, or in a path that
    /// looks like one; they are left out.
    pub fn shown(&self) -> String {
        let path = &self.tail[..self.tail.find(['?', '#', '&', ';']).unwrap_or(self.tail.len())];
        let is_secret = |segment: &str| {
            let segment = segment.to_ascii_lowercase();
            segment.contains('=') && ["pass", "pwd"].iter().any(|word| segment.contains(word))
        };
        let segments: Vec<_> =
            path.split('/').map(|segment| if is_secret(segment) { "…" } else { segment }).collect();
        Self { tail: segments.join("/"), ..self.clone() }.to_string()
    }

    /// Reads a URL, percent-encoding in user and password resolved. 554 and 322 are the ports of those that name none.
    ///
    /// # Errors
    /// See [`SourceUrlError`].
    pub fn parse(text: &str) -> Result<Self, SourceUrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(SourceUrlError::Scheme)?;
        let encrypted = match scheme.to_ascii_lowercase().as_str() {
            "rtsp" => false,
            "rtsps" => true,
            _ => return Err(SourceUrlError::Scheme),
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at(end);
        let (userinfo, place) = match authority.rsplit_once('@') {
            Some((userinfo, place)) => (Some(userinfo), place),
            None => (None, authority),
        };
        let (host, port) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, rest)) => (host, rest.strip_prefix(':')),
            None => place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
        };
        if host.is_empty() {
            return Err(SourceUrlError::Host);
        }
        let port = match port {
            None => {
                if encrypted {
                    322
                } else {
                    554
                }
            }
            Some(port) => port.parse().ok().filter(|&port| port != 0).ok_or(SourceUrlError::Port)?,
        };
        let decode = |text: &str| super::super::url::percent_decode(text).into_owned();
        let credentials = userinfo.map(|userinfo| {
            let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
            Credentials { user: decode(user), password: decode(password) }
        });
        Ok(Self { encrypted, host: printable(host), port, credentials, tail: printable(tail) })
    }
}

/// Control characters in a URL would break the line it is sent in.
pub(super) fn printable(url: &str) -> String {
    url.trim().chars().filter(|c| !c.is_control()).collect()
}

/// Why a server's word of where a stream has gone is not followed. None of them repeats it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RedirectError {
    #[error(transparent)]
    Url(#[from] SourceUrlError),
    #[error("it leads from rtsps to rtsp, where all could be read on the way")]
    Downgrade,
}

impl SourceUrl {
    /// Where a `Location` leads from here: a URL, a path, or the last segment of one. Credentials go with it unless it
    /// names others: servers send viewers to another host of theirs that has the same users, and who may see the
    /// credentials can send them anywhere as it is.
    ///
    /// # Errors
    /// See [`RedirectError`].
    pub fn redirected(&self, location: &str) -> Result<Self, RedirectError> {
        let location = printable(location);
        let location = location.as_str();
        if let Some((scheme, _)) = location.split_once("://")
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric())
        {
            let mut url = Self::parse(location)?;
            if self.encrypted && !url.encrypted {
                return Err(RedirectError::Downgrade);
            }
            url.credentials = url.credentials.or_else(|| self.credentials.clone());
            return Ok(url);
        }
        let path = &self.tail[..self.tail.find('?').unwrap_or(self.tail.len())];
        let tail = match location.starts_with(['/', '?']) {
            true if location.starts_with('?') => format!("{path}{location}"),
            true => location.to_owned(),
            false => format!("{}/{location}", &path[..path.rfind('/').unwrap_or(0)]),
        };
        Ok(Self { tail, ..self.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart_and_shown_without_secrets() {
        for (text, shown, credentials) in [
            ("rtsp://cam", "rtsp://cam:554", None),
            ("RTSP://cam:8554/a/b?x=1", "rtsp://cam:8554/a/b?x=1", None),
            ("rtsps://cam/a", "rtsps://cam:322/a", None),
            ("rtsp://u:p@cam/a", "rtsp://cam:554/a", Some(("u", "p"))),
            ("rtsp://admin:@cam/a", "rtsp://cam:554/a", Some(("admin", ""))),
            ("rtsp://u:p%40%2F@x@[::1]:99/a", "rtsp://[::1]:99/a", Some(("u", "p@/@x"))),
            ("rtsp://cam?x=1", "rtsp://cam:554?x=1", None),
        ] {
            let url = SourceUrl::parse(text).unwrap();
            assert_eq!(url.to_string(), shown, "{text}");
            let found = url.credentials.map(|it| (it.user, it.password));
            assert_eq!(found, credentials.map(|(user, password)| (user.to_owned(), password.to_owned())));
        }
        for (text, error) in [
            ("http://cam", SourceUrlError::Scheme),
            ("cam", SourceUrlError::Scheme),
            ("rtsp://", SourceUrlError::Host),
            ("rtsp://u:p@:554/", SourceUrlError::Host),
            ("rtsp://cam:0/", SourceUrlError::Port),
            ("rtsp://cam:x/", SourceUrlError::Port),
        ] {
            assert_eq!(SourceUrl::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn people_see_no_query_and_nothing_that_may_be_a_password() {
        for (text, shown) in [
            ("rtsp://u:p@cam/a/b?user=u&password=p", "rtsp://cam:554/a/b"),
            ("rtsp://cam?x=1", "rtsp://cam:554"),
            ("rtsps://[::1]/a#b", "rtsps://[::1]:322/a"),
            ("rtsp://cam/user=u&password=p&channel=1", "rtsp://cam:554/user=u"),
            ("rtsp://cam/user=u_password=p_channel=1.sdp/x", "rtsp://cam:554/…/x"),
            (
                "rtsp://cam/Streaming/Channels/101/trackID=1",
                "rtsp://cam:554/Streaming/Channels/101/trackID=1",
            ),
        ] {
            assert_eq!(SourceUrl::parse(text).unwrap().shown(), shown, "{text}");
        }
    }

    #[test]
    fn a_location_leads_to_a_url_a_path_or_a_neighbour() {
        let from = SourceUrl::parse("rtsp://u:p@cam/live/main?x=1").unwrap();
        for (location, shown, user) in [
            ("rtsp://other:8554/a", "rtsp://other:8554/a", "u"),
            (" rtsps://v:q@other/a ", "rtsps://other:322/a", "v"),
            ("/b?y=2", "rtsp://cam:554/b?y=2", "u"),
            ("sub", "rtsp://cam:554/live/sub", "u"),
            ("?x=2", "rtsp://cam:554/live/main?x=2", "u"),
        ] {
            let url = from.redirected(location).unwrap();
            assert_eq!((url.to_string().as_str(), url.credentials.unwrap().user.as_str()), (shown, user));
        }
        let bare = SourceUrl::parse("rtsp://cam").unwrap();
        assert_eq!(bare.redirected("a").unwrap().to_string(), "rtsp://cam:554/a");
        let encrypted = SourceUrl::parse("rtsps://cam/a").unwrap();
        assert_eq!(encrypted.redirected("rtsp://cam/a"), Err(RedirectError::Downgrade));
        assert_eq!(encrypted.redirected("/b").unwrap().to_string(), "rtsps://cam:322/b");
        for (location, error) in [
            ("http://cam/a", SourceUrlError::Scheme),
            ("rtsp:///a", SourceUrlError::Host),
            ("rtsp://cam:0/", SourceUrlError::Port),
        ] {
            assert_eq!(from.redirected(location), Err(error.into()), "{location}");
        }
    }
}
