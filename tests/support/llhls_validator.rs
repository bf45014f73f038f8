//! Our own reading of rfc8216bis as a judge of a live presentation; the program has it as `corecast check-hls`.

use std::time::Duration;

use corecast::control::check_hls;

/// Watches for some time and fails the test with everything that is against a rule.
#[track_caller]
pub fn assert_keeps_rules(url: &str, time: Duration) {
    let report = check_hls::run(url, time).unwrap();
    let looked_at = report.looked_at;
    assert!(looked_at.playlists > 2 && looked_at.segments > 2, "{looked_at:?}");
    assert!(!report.has_errors(), "{report}");
}
