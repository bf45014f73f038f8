//! What ten thousand configured paths cost: one look-up, as for every request that names a path, and one path added, as
//! through the API.

use std::{fmt::Write as _, hint::black_box};

use corecast::control::config::store::{Edit, View};
use criterion::{Criterion, criterion_group, criterion_main};

const EXACT: usize = 10_000;
const PATTERNS: usize = 200;

/// A view of `EXACT` names and `PATTERNS` patterns.
fn estate() -> View {
    let mut text = "paths:\n".to_owned();
    for number in 0..EXACT {
        let _ = writeln!(text, "  cam{number}:");
    }
    for number in 0..PATTERNS {
        let _ = writeln!(text, "  site{number}_~id:");
    }
    let file = std::env::temp_dir().join(format!("corecast-bench-{}.yml", std::process::id()));
    std::fs::write(&file, text).unwrap_or_else(|error| panic!("{error}"));
    let loaded = View::load(Some(&file), [], &[0]).unwrap_or_else(|errors| panic!("{errors}"));
    let _ = std::fs::remove_file(file);
    loaded.view
}

fn paths(c: &mut Criterion) {
    let view = estate();
    let table = &view.settings.paths;
    let mut group = c.benchmark_group("paths");
    for (what, name) in [
        ("lookup of a name", "cam7777"),
        ("lookup by the last pattern", "site199_4711"),
        ("lookup of what is not there", "nowhere/at/all"),
    ] {
        group.bench_function(what, |bench| bench.iter(|| table.lookup(black_box(name)).is_ok()));
    }
    group.sample_size(20);
    let edit = [Edit::AddPath { name: "new".to_owned(), body: serde_json::Map::new() }];
    group.bench_function("one path added", |bench| bench.iter(|| view.edited(black_box(&edit)).is_ok()));
    group.finish();
}

criterion_group!(benches, paths);
criterion_main!(benches);
