//! Read back by a parser that knows the rules of the text format and forgives nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

type Labels = BTreeMap<String, String>;

/// Every sample by name and labels.
fn parse(text: &str) -> BTreeMap<(String, Labels), f64> {
    let mut found = BTreeMap::new();
    let mut families = BTreeSet::new();
    let mut family = (String::new(), String::new());
    assert!(text.is_empty() || text.ends_with('\n'));
    for line in text.lines() {
        if let Some(head) = line.strip_prefix("# TYPE ") {
            let (name, kind) = head.split_once(' ').unwrap();
            assert!(["gauge", "counter", "untyped", "histogram"].contains(&kind), "{line}");
            assert!(families.insert(name.to_owned()), "{name} comes twice");
            family = (name.to_owned(), kind.to_owned());
        } else if !line.is_empty() && !line.starts_with('#') {
            let (name, labels, value) = sample(line);
            let of_family = if family.1 == "histogram" {
                ["_bucket", "_sum", "_count"].iter().any(|part| name == format!("{}{part}", family.0))
            } else {
                name == family.0
            };
            assert!(of_family, "{line} stands under {family:?}");
            assert!(found.insert((name, labels), value).is_none(), "{line} comes twice");
        }
    }
    found
}

fn sample(line: &str) -> (String, Labels, f64) {
    let name_len = line.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap();
    let (name, mut rest) = line.split_at(name_len);
    let mut labels = Labels::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        while !rest.starts_with('}') {
            let (key, after) = rest.split_once("=\"").unwrap();
            let mut value = String::new();
            let mut chars = after.char_indices();
            let end = loop {
                match chars.next().unwrap() {
                    (at, '"') => break at,
                    (_, '\\') => value.push(match chars.next().unwrap().1 {
                        'n' => '\n',
                        escaped @ ('"' | '\\') => escaped,
                        other => panic!("\\{other} in {line}"),
                    }),
                    (_, plain) => value.push(plain),
                }
            };
            // The bound of a bucket goes last, whatever it is called.
            let is_in_order = labels.last_key_value().is_none_or(|(last, _)| last.as_str() < key);
            assert!(key == "le" || is_in_order, "order: {line}");
            labels.insert(key.to_owned(), value);
            rest = &after[end + 1..];
            rest = rest.strip_prefix(',').unwrap_or(rest);
        }
        rest = &rest[1..];
    }
    let value = rest.strip_prefix(' ').unwrap();
    (name.to_owned(), labels, value.parse().unwrap_or_else(|_| panic!("{line}")))
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn every_page_is_read_back() {
    for snapshot in [small(), unused()] {
        for query in [
            "",
            "sessions=1",
            "type=paths",
            "type=hls_sessions",
            "hls_muxer=cam/1",
            "type=rtsp_sessions",
            "path=cam/1",
            "type=forward_dests",
        ] {
            let text = scrape(&snapshot, query);
            assert_eq!(parse(&text).len(), samples(&text).len());
        }
    }
    let all = parse(&scrape(&small(), "sessions=1"));
    let series = labels(&[("name", "cam/1"), ("readerType", "rtspSession"), ("state", "ready")]);
    assert_eq!(all[&("paths_readers".to_owned(), series)], 2.0);
    let series =
        labels(&[("id", &id(1)), ("path", "cam/1"), ("remoteAddr", "192.0.2.1:5001"), ("state", "publish")]);
    assert_eq!(all[&("rtsp_sessions_inbound_rtp_packets_jitter".to_owned(), series)], 1.5);
}

#[test]
fn a_label_can_hold_anything() {
    let wild = "a\"b\\c\nd{e}=\"f\",#é\\n";
    let totals = PathTotals { inbound_bytes: 7, ..PathTotals::default() };
    let snapshot = Snapshot {
        paths: vec![path(wild, true, 0)],
        totals: [(Arc::from(wild), totals)].into(),
        rtsp: Some(Rtsp { sessions: vec![session(1, wild, SessionState::Read)], ..Rtsp::default() }),
        ..small()
    };
    let text = scrape(&snapshot, "sessions=1");
    assert!(text.contains(r#"paths{name="a\"b\\c\nd{e}=\"f\",#é\\n",state="ready"} 1"#), "{text}");
    let all = parse(&text);
    let series = labels(&[("name", wild), ("state", "ready")]);
    assert_eq!(all[&("paths_inbound_bytes".to_owned(), series)], 7.0);
    assert_eq!(all[&("mediamtx_path_bytes_received".to_owned(), labels(&[("path", wild)]))], 7.0);
    assert!(all.keys().any(|(name, labels)| name == "rtsp_sessions" && labels["path"] == wild));
}

#[test]
fn large_numbers_keep_every_digit() {
    let totals = PathTotals { inbound_bytes: u64::MAX, ..PathTotals::default() };
    let snapshot = Snapshot { totals: [(Arc::from("cam/1"), totals)].into(), ..small() };
    let text = scrape(&snapshot, "path=cam/1");
    assert!(text.contains("paths_inbound_bytes{name=\"cam/1\",state=\"ready\"} 18446744073709551615\n"));
}

#[test]
fn buckets_are_cumulative_and_in_seconds() {
    let text = scrape(&small(), "");
    let bucket = |le: &str| value(&text, &format!("corecast_relay_latency_seconds_bucket{{le=\"{le}\"}}"));
    assert_eq!([bucket("0.00005"), bucket("0.0001"), bucket("0.001"), bucket("10")], [1.0, 3.0, 6.0, 6.0]);
    assert_eq!(bucket("+Inf"), 7.0);
    assert_eq!(value(&text, "corecast_relay_latency_seconds_count"), 7.0);
    assert_eq!(value(&text, "corecast_relay_latency_seconds_sum"), 11.234567);
}

#[test]
fn ten_thousand_sessions_fit_on_a_page() {
    let (paths, sessions) = (500, 10_000);
    let snapshot = Snapshot {
        paths: (0..paths).map(|n| path(&format!("cam{n:03}"), true, sessions / paths)).collect(),
        rtsp: Some(Rtsp {
            conns: (0..sessions as u64).map(conn).collect(),
            sessions: (0..sessions as u64)
                .map(|n| session(n, &format!("cam{:03}", n % 500), SessionState::Read))
                .collect(),
            retired: Retired::default(),
        }),
        ..small()
    };
    let each = samples(&scrape(&snapshot, "sessions=1")).len();
    assert!(each > sessions * 28, "{each}");
    let together = samples(&scrape(&snapshot, "")).len();
    assert!(together < paths * 10 + 250, "{together}");
    assert_eq!(value(&scrape(&snapshot, ""), "rtsp_sessions{state=\"read\"}"), sessions as f64);
}
