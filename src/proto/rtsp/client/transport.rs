//! What a server answers about transport (RFC 2326 §12.39): read for what it can only mean, for few cameras write it by
//! the book.

use std::net::IpAddr;

use super::{PulledMedia, Route};

/// What a SETUP asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Tcp { channel: u8 },
    Udp { ours: (u16, u16) },
    Multicast,
}

impl Asked {
    /// Value of the Transport header.
    pub fn header(self) -> String {
        match self {
            Self::Tcp { channel } => {
                format!("RTP/AVP/TCP;unicast;interleaved={channel}-{}", channel.saturating_add(1))
            }
            Self::Udp { ours: (rtp, rtcp) } => format!("RTP/AVP;unicast;client_port={rtp}-{rtcp}"),
            Self::Multicast => "RTP/AVP;multicast".to_owned(),
        }
    }
}

/// Why what was granted cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mismatch {
    /// Something else than the unicast UDP that was asked for; TCP may do.
    NotUdp,
    NotTcp,
    NotMulticast,
    /// Multicast without a group and ports that can be joined.
    NoGroup,
}

/// The route that follows from what was asked for and what was granted. Without a Transport header in the answer, it
/// is what was asked for. `others` are those that are set up already.
pub(super) fn route(asked: Asked, header: Option<&str>, others: &[PulledMedia]) -> Result<Route, Mismatch> {
    let granted = header.map(Granted::read).unwrap_or_default();
    let named_ports = granted.server_port.or(granted.client_port).is_some();
    match asked {
        Asked::Tcp { channel } => {
            // `RTP/AVP;unicast;interleaved=0-1` means TCP, whatever it says.
            if granted.multicast || granted.interleaved.is_none() && !granted.tcp && named_ports {
                return Err(Mismatch::NotTcp);
            }
            let is_free = |channel: &u8| {
                let near = |other: u8| other.abs_diff(*channel) < 2;
                *channel < u8::MAX
                    && !others.iter().any(|it| matches!(it.route, Route::Tcp { channel } if near(channel)))
            };
            // Who names the same channels for every track uses those that were asked for.
            let channel = granted.interleaved.filter(is_free).or(Some(channel).filter(is_free));
            channel.map(|channel| Route::Tcp { channel }).ok_or(Mismatch::NotTcp)
        }
        Asked::Udp { ours } => {
            if granted.multicast || granted.tcp || granted.interleaved.is_some() {
                return Err(Mismatch::NotUdp);
            }
            Ok(Route::Udp { ours, theirs: granted.server_port, source: granted.source })
        }
        Asked::Multicast => {
            let group = granted.destination.filter(IpAddr::is_multicast);
            if !granted.multicast && group.is_none() {
                return Err(Mismatch::NotMulticast);
            }
            let ports = granted.port.or(granted.client_port).or(granted.server_port);
            let (group, ports) = group.zip(ports).ok_or(Mismatch::NoGroup)?;
            Ok(Route::Multicast { group, ports, source: granted.source })
        }
    }
}

/// The first alternative of a Transport header; what cannot be read is as if absent.
#[derive(Debug, Default, PartialEq, Eq)]
struct Granted {
    tcp: bool,
    multicast: bool,
    interleaved: Option<u8>,
    port: Option<(u16, u16)>,
    client_port: Option<(u16, u16)>,
    server_port: Option<(u16, u16)>,
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
}

impl Granted {
    fn read(value: &str) -> Self {
        let mut granted = Self::default();
        for part in value.split(',').next().unwrap_or_default().split(';') {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let value = value.trim().trim_matches('"');
            match name.trim().to_ascii_lowercase().as_str() {
                "multicast" => granted.multicast = true,
                "interleaved" => granted.interleaved = number(value.split('-').next().unwrap_or_default()),
                "port" => granted.port = ports(value),
                "client_port" => granted.client_port = ports(value),
                "server_port" => granted.server_port = ports(value),
                // Who names no host of its own means the one that was dialled.
                "source" => {
                    granted.source = address(value)
                        .filter(|it| !it.is_unspecified() && !it.is_loopback() && !it.is_multicast());
                }
                "destination" => granted.destination = address(value),
                name if name.starts_with("rtp/") => granted.tcp = name.ends_with("/tcp"),
                _ => {}
            }
        }
        granted
    }
}

/// `a-b`, or a lone `a` that stands for itself and the one after it. No port is 0.
fn ports(value: &str) -> Option<(u16, u16)> {
    let (rtp, rtcp) = value.split_once('-').unwrap_or((value, ""));
    let rtp = number(rtp).filter(|&port: &u16| port != 0)?;
    let rtcp = number(rtcp).filter(|&port: &u16| port != 0).or(rtp.checked_add(1))?;
    Some((rtp, rtcp))
}

fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.trim().parse().ok()
}

fn address(text: &str) -> Option<IpAddr> {
    text.trim_matches(['[', ']']).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: Asked = Asked::Tcp { channel: 2 };
    const UDP: Asked = Asked::Udp { ours: (5000, 5001) };

    fn udp(theirs: Option<(u16, u16)>, source: Option<&str>) -> Result<Route, Mismatch> {
        Ok(Route::Udp { ours: (5000, 5001), theirs, source: source.map(|it| it.parse().unwrap()) })
    }

    #[test]
    fn answers_over_tcp_name_channels_or_mean_those_asked_for() {
        let tcp = |channel| Ok(Route::Tcp { channel });
        let first = PulledMedia { track: 0, route: Route::Tcp { channel: 0 } };
        for (header, want) in [
            (None, tcp(2)),
            (Some(""), tcp(2)),
            (Some("RTP/AVP/TCP;unicast;interleaved=2-3;ssrc= 1f"), tcp(2)),
            (Some("RTP/AVP/TCP;unicast;interleaved=6-7"), tcp(6)),
            (Some("RTP/AVP/TCP;unicast;interleaved=4"), tcp(4)),
            (Some("RTP/AVP/TCP; unicast; interleaved = \"4-5\""), tcp(4)),
            (Some("RTP/AVP;unicast;interleaved=4-5"), tcp(4)),
            (Some("RTP/AVP/TCP;unicast;interleaved=0-1"), tcp(2)),
            (Some("RTP/AVP/TCP;unicast;interleaved=1-2"), tcp(2)),
            (Some("RTP/AVP/TCP;unicast;interleaved=255-256"), tcp(2)),
            (Some("RTP/AVP/TCP;unicast;interleaved=x"), tcp(2)),
            (Some("RTP/AVP/TCP;unicast;server_port=1-2"), tcp(2)),
            (Some("RTP/AVP;unicast;client_port=1-2;server_port=3-4"), Err(Mismatch::NotTcp)),
            (Some("RTP/AVP;multicast;destination=239.0.0.1;port=4-5"), Err(Mismatch::NotTcp)),
        ] {
            assert_eq!(route(TCP, header, &[first]), want, "{header:?}");
        }
    }

    #[test]
    fn answers_over_udp_name_the_servers_ports_as_far_as_they_can_be_read() {
        for (header, want) in [
            (None, udp(None, None)),
            (
                Some("RTP/AVP;unicast;client_port=5000-5001;server_port=8000-8001;ssrc=x"),
                udp(Some((8000, 8001)), None),
            ),
            (
                Some("RTP/AVP/UDP;unicast;source=192.0.2.9;server_port=8000"),
                udp(Some((8000, 8001)), Some("192.0.2.9")),
            ),
            (Some("RTP/AVP;unicast;server_port=0-0;source=0.0.0.0"), udp(None, None)),
            (Some("RTP/AVP;unicast;server_port=65535"), udp(None, None)),
            (Some("RTP/AVP;unicast;server_port=70000-70001;source=camera.local"), udp(None, None)),
            (Some("RTP/AVP;unicast;source=[2001:db8::1]"), udp(None, Some("2001:db8::1"))),
            (Some("RTP/AVP/TCP;unicast;interleaved=0-1"), Err(Mismatch::NotUdp)),
            (Some("RTP/AVP/TCP;unicast"), Err(Mismatch::NotUdp)),
            (Some("RTP/AVP;multicast;destination=239.0.0.1;port=4-5"), Err(Mismatch::NotUdp)),
        ] {
            assert_eq!(route(UDP, header, &[]), want, "{header:?}");
        }
    }

    #[test]
    fn multicast_needs_a_group_and_ports() {
        let group = |ports, source: Option<&str>| {
            let source = source.map(|it| it.parse().unwrap());
            Ok(Route::Multicast { group: "239.0.0.1".parse().unwrap(), ports, source })
        };
        for (header, want) in [
            (
                Some("RTP/AVP;multicast;destination=239.0.0.1;port=40000-40001;ttl=1"),
                group((40000, 40001), None),
            ),
            (
                Some("RTP/AVP;multicast;destination=239.0.0.1;source=192.0.2.1;port=40000"),
                group((40000, 40001), Some("192.0.2.1")),
            ),
            (Some("RTP/AVP/UDP;destination=239.0.0.1;client_port=4-5"), group((4, 5), None)),
            (Some("RTP/AVP;multicast;destination=192.0.2.1;port=4-5"), Err(Mismatch::NoGroup)),
            (Some("RTP/AVP;multicast;destination=239.0.0.1"), Err(Mismatch::NoGroup)),
            (Some("RTP/AVP;unicast;server_port=4-5"), Err(Mismatch::NotMulticast)),
            (None, Err(Mismatch::NotMulticast)),
        ] {
            assert_eq!(route(Asked::Multicast, header, &[]), want, "{header:?}");
        }
    }
}
