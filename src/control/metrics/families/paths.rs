//! Paths, under MediaMTX's names.
//!
//! The API tells what the present stream of a path moved; here are totals, which do not go back when a stream ends.

use crate::control::{
    directory::{PathTotals, ReaderKind},
    metrics::{
        families::{Item, rows},
        filter::Share,
        sheet::{Family, Number::Whole, Sheet, gauge, label, untyped},
        snapshot::{PathRow, Snapshot},
    },
};

const PATHS: Family = gauge("paths", "Paths, live, wanted or configured by name.");
const READERS: Family = gauge("paths_readers", "Readers of a path, by type.");
const INBOUND: Family =
    untyped("paths_inbound_bytes", "Bytes received by a path, all of its streams together.");
const OUTBOUND: Family =
    untyped("paths_outbound_bytes", "Bytes sent to readers of a path, all of its streams together.");
const IN_ERROR: Family =
    untyped("paths_inbound_frames_in_error", "Frames received by a path that could not be read.");
const INBOUND_OLD: Family = untyped("paths_bytes_received", "The same as paths_inbound_bytes.");
const OUTBOUND_OLD: Family = untyped("paths_bytes_sent", "The same as paths_outbound_bytes.");

pub fn write(sheet: &mut Sheet, snapshot: &Snapshot, share: Share<'_>) {
    if share == Share::None {
        return;
    }
    let shown = || snapshot.paths.iter().filter(|path| share.takes(&path.name));
    let items = shown().map(|path| Item {
        labels: vec![label("name", &*path.name), label("state", state(path))],
        count: 1,
        numbers: snapshot.totals.get(&path.name).copied().unwrap_or_default(),
    });
    let paths = rows::<PathTotals>(items.collect(), share);
    let of_type = |path: &PathRow, kind: &str, count: usize| Item {
        labels: vec![label("name", &*path.name), label("readerType", kind), label("state", state(path))],
        count: count as u64,
        numbers: (),
    };
    let items = shown().flat_map(|path| {
        let kinds = ReaderKind::ALL.into_iter().zip(path.readers).filter(|(_, count)| *count > 0);
        // MediaMTX has a line for a path without readers too.
        let none = path.readers.iter().all(|count| *count == 0).then(|| of_type(path, "", 0));
        kinds.map(move |(kind, count)| of_type(path, kind.as_str(), count)).chain(none)
    });
    let readers = rows::<()>(items.collect(), share);

    sheet.section("Paths");
    sheet.family(PATHS, &paths, |item| Whole(item.count));
    sheet.family(READERS, &readers, |item| Whole(item.count));
    sheet.family(INBOUND, &paths, |item| Whole(item.numbers.inbound_bytes));
    sheet.family(OUTBOUND, &paths, |item| Whole(item.numbers.outbound_bytes));
    sheet.family(IN_ERROR, &paths, |item| Whole(item.numbers.inbound_frames_in_error));
    sheet.section("Paths (deprecated)");
    sheet.family(INBOUND_OLD, &paths, |item| Whole(item.numbers.inbound_bytes));
    sheet.family(OUTBOUND_OLD, &paths, |item| Whole(item.numbers.outbound_bytes));
}

fn state(path: &PathRow) -> &'static str {
    if path.ready { "ready" } else { "notReady" }
}
