//! Which web pages may use a service from a browser (contract §5.7).

use http::HeaderValue;

/// The `*AllowOrigins` of a service, ready to be asked.
#[derive(Debug, Default)]
pub struct Origins {
    all: bool,
    allowed: Vec<Origin>,
}

#[derive(Debug, PartialEq, Eq)]
struct Origin {
    scheme: String,
    /// May hold `*`, if it is one of the configuration.
    host: String,
    port: u16,
}

impl Origins {
    pub fn new(configured: &[String]) -> Self {
        Self {
            all: configured.iter().any(|origin| origin == "*"),
            allowed: configured.iter().filter_map(|origin| Origin::parse(origin)).collect(),
        }
    }

    /// Value of `Access-Control-Allow-Origin` for a request with this `Origin`. One that is named wins over `*`.
    pub fn answer(&self, origin: Option<&HeaderValue>) -> Option<HeaderValue> {
        let asked = origin.and_then(|value| Some((value, Origin::parse(value.to_str().ok()?)?)));
        if let Some((value, asked)) = asked
            && self.allowed.iter().any(|allowed| allowed.covers(&asked))
        {
            return Some(value.clone());
        }
        self.all.then(|| HeaderValue::from_static("*"))
    }
}

impl Origin {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.trim_end_matches('/').split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let default_port = match scheme.as_str() {
            "http" => 80,
            "https" => 443,
            _ => 0,
        };
        // The last colon, but not one inside of `[::1]`.
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
            _ => (rest, default_port),
        };
        (!host.is_empty()).then(|| Self { scheme, host: host.to_ascii_lowercase(), port })
    }

    fn covers(&self, asked: &Self) -> bool {
        if self.scheme != asked.scheme || self.port != asked.port {
            return false;
        }
        match self.host.strip_prefix("*.") {
            // Any subdomain, or none.
            Some(domain) => {
                let before = asked.host.strip_suffix(domain);
                before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
            }
            None => self.host == "*" || self.host == asked.host,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(configured: &[&str], origin: &str) -> String {
        let configured: Vec<_> = configured.iter().map(|&origin| origin.to_owned()).collect();
        let origin = (!origin.is_empty()).then(|| HeaderValue::from_str(origin).unwrap());
        let answer = Origins::new(&configured).answer(origin.as_ref());
        answer.map_or("-".to_owned(), |value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn as_mediamtx_answers() {
        let two = ["https://*.example.com", "http://b.org:80"];
        for (origin, expected) in [
            ("https://a.example.com", "https://a.example.com"),
            ("https://a.b.example.com", "https://a.b.example.com"),
            ("https://example.com", "https://example.com"),
            ("https://example.com:443", "https://example.com:443"),
            ("https://badexample.com", "-"),
            ("http://a.example.com", "-"),
            ("https://a.example.com:8443", "-"),
            ("http://b.org", "http://b.org"),
            ("http://c.org", "-"),
            ("null", "-"),
            ("", "-"),
        ] {
            assert_eq!(answer(&two, origin), expected, "{origin}");
        }
        assert_eq!(answer(&["*"], ""), "*");
        assert_eq!(answer(&["*"], "http://c.org"), "*");
        assert_eq!(answer(&["*", "http://c.org"], "http://c.org"), "http://c.org");
        assert_eq!(answer(&["http://[::1]:80"], "http://[::1]"), "http://[::1]");
        assert_eq!(answer(&[], "http://c.org"), "-");
    }
}
