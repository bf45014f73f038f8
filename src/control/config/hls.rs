//! The HLS server's keys (contract §1.3).

use std::{net::SocketAddr, num::NonZeroUsize, sync::Arc};

use corecast_hub::settings::{CdnSecret, HlsSessionMode, HlsSettings, HlsVariant, WebSettings};

use super::{
    conf,
    error::Report,
    section::Layers,
    typed::{self, Typed},
};

/// `None` when it is off.
pub(super) fn settings(global: Layers<'_>, report: &mut Report) -> Option<HlsSettings> {
    if !global.bool("hls") {
        return None;
    }
    let Typed::Size(segment_bytes_max) = global.get("hlsSegmentMaxSize").value else {
        unreachable!("the table of keys makes 'hlsSegmentMaxSize' a size")
    };
    let text = |key: &str| Some(global.text(key)).filter(|text| !text.is_empty());
    Some(HlsSettings {
        web: WebSettings {
            address: address(global, report),
            encrypted: global.bool("hlsEncryption"),
            allow_origins: global.words("hlsAllowOrigins").map(str::to_owned).collect(),
            trusted_proxies: global.words("hlsTrustedProxies").filter_map(typed::parsed_network).collect(),
        },
        always_remux: global.bool("hlsAlwaysRemux"),
        variant: match global.text("hlsVariant") {
            "mpegts" => HlsVariant::MpegTs,
            "fmp4" => HlsVariant::Fmp4,
            _ => HlsVariant::LowLatency,
        },
        segment_count: usize::try_from(global.int("hlsSegmentCount"))
            .ok()
            .and_then(NonZeroUsize::new)
            .unwrap_or(NonZeroUsize::MIN),
        segment_duration: conf::duration(global, "hlsSegmentDuration"),
        part_duration: conf::duration(global, "hlsPartDuration"),
        segment_bytes_max,
        muxer_close_after: conf::duration(global, "hlsMuxerCloseAfter"),
        cdn_secret: text("hlsCDNSecret").map(|secret| CdnSecret(Arc::from(secret))),
        session_mode: match global.text("hlsSessionMode") {
            "cookie" => HlsSessionMode::Cookie,
            _ => HlsSessionMode::Url,
        },
    })
}

/// MediaMTX listens on sockets of the file system, too; the shards do not.
fn address(global: Layers<'_>, report: &mut Report) -> SocketAddr {
    let text = global.text("hlsAddress");
    if text.starts_with("unix:") {
        let message =
            format!("'hlsAddress' is '{text}': HLS is served over TCP only, expected host:port or :port");
        report.error(global.at("hlsAddress"), message);
        return conf::UNSPECIFIED;
    }
    conf::address(global, "hlsAddress", true, report)
}
