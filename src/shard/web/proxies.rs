//! Whose word is taken for where a request comes from.

use std::net::IpAddr;

use http::HeaderMap;
use ipnet::IpNet;

/// The client's address: the peer's, or, when a trusted proxy is the peer, the last address in `X-Forwarded-For` that
/// is not another trusted proxy's. What stands before it may have been made up by the client.
pub fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |ip: IpAddr| trusted.iter().any(|net| net.contains(&ip));
    if !is_trusted(peer) {
        return peer;
    }
    let mut client = peer;
    let values: Vec<_> = headers.get_all("x-forwarded-for").iter().filter_map(|v| v.to_str().ok()).collect();
    for value in values.iter().rev().flat_map(|value| value.rsplit(',')) {
        let Ok(ip) = value.trim().parse::<IpAddr>() else { break };
        client = ip.to_canonical();
        if !is_trusted(client) {
            break;
        }
    }
    client
}

/// Whether a trusted proxy says that its client spoke TLS with it: the last value of `X-Forwarded-Proto`.
pub fn was_secure(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> bool {
    let said = headers.get_all("x-forwarded-proto").iter().next_back().and_then(|value| value.to_str().ok());
    let last = said.and_then(|value| value.rsplit(',').next());
    trusted.iter().any(|net| net.contains(&peer))
        && last.is_some_and(|scheme| scheme.trim().eq_ignore_ascii_case("https"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(peer: &str, forwarded: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("X-Forwarded-For", value.parse().unwrap());
        }
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap(), "127.0.0.1/32".parse().unwrap()];
        client(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn only_proxies_are_believed() {
        assert_eq!(of("192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(of("10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(of("10.0.0.1", &["1.1.1.1, 198.51.100.7, 10.2.3.4"]), "198.51.100.7");
        assert_eq!(of("10.0.0.1", &["1.1.1.1", "198.51.100.7"]), "198.51.100.7");
        assert_eq!(of("10.0.0.1", &["198.51.100.7, nonsense"]), "10.0.0.1");
        assert_eq!(of("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(of("127.0.0.1", &["2001:db8::1"]), "2001:db8::1");
        assert_eq!(of("127.0.0.1", &["::ffff:192.0.2.9"]), "192.0.2.9");
    }

    #[test]
    fn only_a_proxy_can_say_that_its_client_encrypts() {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
        let secure = |peer: &str, said: &str| {
            let mut headers = HeaderMap::new();
            headers.append("X-Forwarded-Proto", said.parse().unwrap());
            was_secure(peer.parse().unwrap(), &headers, &trusted)
        };
        assert!(secure("10.0.0.1", "https") && secure("10.0.0.1", "http, HTTPS"));
        assert!(!secure("10.0.0.1", "https, http") && !secure("192.0.2.1", "https"));
        assert!(!was_secure("10.0.0.1".parse().unwrap(), &HeaderMap::new(), &trusted));
    }
}
