//! The house rules of ARCHITECTURE.md that a compiler does not check: who may import whom, where `unsafe`, clocks
//! and sockets may be, and how long a file may grow.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Each folder of `src/` and what of ours it may use. Only `main.rs` uses `control`. The shard drives sources and
/// readers; of it they know [`SHARD_FOR_ALL`] and nothing of its loop.
const USES: &[(&str, &[&str])] = &[
    ("media", &[]),
    ("fanout", &[]),
    ("observe", &[]),
    ("proto", &["media"]),
    ("hub", &["media", "fanout"]),
    ("packagers", &["media", "proto"]),
    ("sources", &["media", "proto", "hub", "fanout", "shard"]),
    ("readers", &["media", "proto", "hub", "fanout", "packagers", "sources", "shard"]),
    ("shard", &["media", "proto", "hub", "fanout", "packagers", "observe", "sources", "readers"]),
    ("control", &["media", "fanout", "observe", "proto", "hub", "packagers", "shard", "sources", "readers"]),
];

/// All that these folders may use of `shard`.
const SHARD_FOR_ALL: &str = "media_io";
const DRIVEN_BY_SHARD: &[&str] = &["sources", "readers"];

/// Crates that never wait, never read a clock, never open a socket.
const DRY: &[&str] = &["media", "proto", "fanout", "hub", "packagers"];

/// What a dry crate may not depend on: executors, sockets, clocks.
const WET_DEPENDENCIES: &[&str] = &[
    "glommio", "tokio", "mio", "socket2", "io-uring", "async-io", "smol", "polling", "time", "chrono",
    "quanta",
];

const UNSAFE_HOMES: &[&str] = &["src/fanout/", "src/shard/media_io"];
const LINES_MAX: usize = 900;
const TRACKED_BYTES_MAX: u64 = 1_000_000;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

struct Source {
    /// From the root of the repository, with `/`.
    name: String,
    text: String,
}

fn sources(folders: &[&str]) -> Vec<Source> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        let Ok(entries) = fs::read_dir(dir) else { return };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "target") {
                    walk(&path, found);
                }
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    folders.iter().for_each(|folder| walk(&root().join(folder), &mut found));
    found.sort();
    let relative = |path: &Path| path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
    found
        .iter()
        .map(|path| Source { name: relative(path), text: fs::read_to_string(path).unwrap() })
        .collect()
}

/// The code without comments, strings and character literals.
fn code_only(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (String::new(), 0);
    while at < bytes.len() {
        let rest = &text[at..];
        if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
        } else if rest.starts_with("/*") {
            at += rest.find("*/").map_or(rest.len(), |n| n + 2);
        } else if let Some(hashes) = raw_string_hashes(rest) {
            let end = format!("\"{}", "#".repeat(hashes));
            let open = hashes + 2 + usize::from(rest.starts_with('b'));
            at += rest[open..].find(&end).map_or(rest.len(), |n| open + n + end.len());
            out.push_str("\"\"");
        } else if rest.starts_with('"') {
            let mut end = 1;
            while end < rest.len() && rest.as_bytes()[end] != b'"' {
                end += if rest.as_bytes()[end] == b'\\' { 2 } else { 1 };
            }
            at += (end + 1).min(rest.len());
            out.push_str("\"\"");
        } else if let Some(length) = char_literal(rest) {
            at += length;
            out.push_str("''");
        } else {
            let next = rest.chars().next().unwrap();
            out.push(next);
            at += next.len_utf8();
        }
    }
    out
}

fn raw_string_hashes(rest: &str) -> Option<usize> {
    let rest = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'))?;
    let hashes = rest.bytes().take_while(|b| *b == b'#').count();
    rest[hashes..].starts_with('"').then_some(hashes)
}

/// The length of `'x'` or `'\n'`; a lifetime is none.
fn char_literal(rest: &str) -> Option<usize> {
    let inner = rest.strip_prefix('\'')?;
    if inner.starts_with('\\') {
        return inner[2..].find('\'').map(|n| n + 4);
    }
    let first = inner.chars().next()?;
    inner[first.len_utf8()..].starts_with('\'').then(|| first.len_utf8() + 2)
}

/// Up to the unit tests, which stand at the end of their file.
fn without_tests(code: &str) -> &str {
    &code[..code.find("#[cfg(test)]").unwrap_or(code.len())]
}

fn is_test_file(name: &str) -> bool {
    name.ends_with("/tests.rs")
        || name.contains("/tests/")
        || name.contains("/fuzz/")
        || name.ends_with("/fuzzing.rs")
}

fn has_word(code: &str, word: &str) -> bool {
    let edge = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
    code.match_indices(word)
        .any(|(at, _)| edge(code[..at].chars().next_back()) && edge(code[at + word.len()..].chars().next()))
}

/// The folder of `src/` that a file belongs to; `None` for `main.rs` and `lib.rs`.
fn folder_of(name: &str) -> Option<&str> {
    name.strip_prefix("src/")?.split_once('/').map(|(folder, _)| folder)
}

/// The names that follow `prefix::`, alone or in braces.
fn heads_after<'a>(code: &'a str, prefix: &str) -> Vec<&'a str> {
    let ident = |text: &'a str| {
        let text = text.trim_start();
        &text[..text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())]
    };
    let mut heads = Vec::new();
    for (at, _) in code.match_indices(&format!("{prefix}::")) {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = code[at + prefix.len() + 2..].trim_start();
        let Some(group) = rest.strip_prefix('{') else {
            heads.push(ident(rest));
            continue;
        };
        let (mut depth, mut start) = (0, 0);
        for (n, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => {
                    heads.push(ident(&group[start..n]));
                    break;
                }
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    heads.push(ident(&group[start..n]));
                    start = n + 1;
                }
                _ => {}
            }
        }
    }
    heads
}

/// The folders of ours that this code names.
fn used_folders(folder: &str, code: &str) -> Vec<&'static str> {
    let is_crate = DRY.contains(&folder);
    let mut used = Vec::new();
    for (other, _) in USES {
        let by_crate = has_word(code, &format!("corecast_{other}"));
        // In a dry crate `crate::` is the crate itself, not the house.
        let by_module = !is_crate
            && ["crate", "super", "corecast"].iter().any(|prefix| heads_after(code, prefix).contains(other));
        if *other != folder && (by_crate || by_module) {
            used.push(*other);
        }
    }
    used
}

fn import_faults(name: &str, text: &str) -> Vec<String> {
    let Some(folder) = folder_of(name) else { return Vec::new() };
    let Some((_, allowed)) = USES.iter().find(|(known, _)| *known == folder) else {
        return vec![format!("{name}: tests/tidy.rs does not know the folder {folder}")];
    };
    let code = code_only(text);
    let used = used_folders(folder, &code);
    let foreign = used.iter().filter(|other| !allowed.contains(other));
    let mut faults: Vec<_> = foreign.map(|other| format!("{name}: {folder} may not use {other}")).collect();
    if DRIVEN_BY_SHARD.contains(&folder) && used.contains(&"shard") && !names_only_media_io(&code) {
        faults.push(format!("{name}: {folder} may use only {SHARD_FOR_ALL} of shard"));
    }
    faults
}

/// Every `shard` in the code leads to `shard::media_io`: none is imported as a whole, to be followed elsewhere.
fn names_only_media_io(code: &str) -> bool {
    let edge = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
    let bare = code.match_indices("shard").any(|(at, word)| {
        let rest = &code[at + word.len()..];
        edge(code[..at].chars().next_back()) && edge(rest.chars().next()) && !rest.starts_with("::")
    });
    !bare && heads_after(code, "shard").iter().all(|head| *head == SHARD_FOR_ALL)
}

#[track_caller]
fn none(faults: &[String]) {
    assert!(faults.is_empty(), "{} fault(s):\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn each_folder_uses_only_what_it_may() {
    let sources = sources(&["src"]);
    assert!(sources.len() > 5, "there is little to look at in {}", root().display());
    let faults: Vec<_> = sources.iter().flat_map(|s| import_faults(&s.name, &s.text)).collect();
    none(&faults);
}

/// The keys of every dependency table of a manifest.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if let Some(table) = line.strip_prefix('[') {
            let table = table.trim_end_matches(']');
            inside =
                table.ends_with("dependencies") && !table.contains("dev-") && !table.contains("workspace");
        } else if inside && !line.starts_with('#') {
            let key = line.split(['.', '=', ' ']).next().unwrap();
            if !key.is_empty() {
                found.push(key.to_owned());
            }
        }
    }
    found
}

#[test]
fn dry_crates_depend_on_nothing_that_waits() {
    let mut faults = Vec::new();
    for dry in DRY {
        let Ok(manifest) = fs::read_to_string(root().join("src").join(dry).join("Cargo.toml")) else {
            continue; // packagers come later
        };
        let allowed = USES.iter().find(|(name, _)| name == dry).unwrap().1;
        for dependency in dependencies(&manifest) {
            let ours = dependency.strip_prefix("corecast-");
            if WET_DEPENDENCIES.contains(&dependency.as_str())
                || ours.is_some_and(|name| !allowed.contains(&name))
            {
                faults.push(format!("src/{dry}/Cargo.toml: {dry} may not depend on {dependency}"));
            }
        }
    }
    none(&faults);
}

fn clock_and_socket_faults(name: &str, text: &str) -> Vec<String> {
    if is_test_file(name) || !folder_of(name).is_some_and(|folder| DRY.contains(&folder)) {
        return Vec::new();
    }
    let code = code_only(text);
    let code = without_tests(&code);
    let clocks = ["Instant::now", "SystemTime::now", "thread::sleep"];
    let sockets = ["TcpStream", "TcpListener", "UdpSocket", "UnixStream", "UnixListener", "UnixDatagram"];
    let found = clocks.iter().chain(&sockets).filter(|word| has_word(code, word));
    found.map(|word| format!("{name}: {word} in a dry crate")).collect()
}

#[test]
fn dry_crates_read_no_clock_and_open_no_socket() {
    none(
        &sources(&["src"]).iter().flat_map(|s| clock_and_socket_faults(&s.name, &s.text)).collect::<Vec<_>>(),
    );
}

fn unsafe_faults(name: &str, text: &str) -> Option<String> {
    let home = UNSAFE_HOMES.iter().any(|home| name.starts_with(home));
    (!home && has_word(&code_only(text), "unsafe")).then(|| format!("{name}: unsafe outside of its homes"))
}

#[test]
fn unsafe_stays_in_fanout_and_media_io() {
    none(&sources(&["src"]).iter().filter_map(|s| unsafe_faults(&s.name, &s.text)).collect::<Vec<_>>());
}

fn manner_faults(name: &str, text: &str) -> Vec<String> {
    let code = code_only(text);
    let mut faults = Vec::new();
    if !text.starts_with("//! ") && !name.contains("/fuzz_targets/") {
        faults.push(format!("{name}: does not begin with a `//!` line that says what it is"));
    }
    if name.starts_with("src/") && text.lines().count() > LINES_MAX {
        faults.push(format!("{name}: {} lines, {LINES_MAX} are the limit", text.lines().count()));
    }
    for word in ["todo!", "unimplemented!", "dbg!"] {
        if code.contains(word) {
            faults.push(format!("{name}: {word}"));
        }
    }
    if code.contains("#[ignore") {
        faults.push(format!("{name}: a test that is ignored"));
    }
    faults
}

#[test]
fn every_file_says_what_it_is_and_nothing_is_left_to_do() {
    let sources = sources(&["src", "tests", "benches", "perf"]);
    none(&sources.iter().flat_map(|s| manner_faults(&s.name, &s.text)).collect::<Vec<_>>());
}

#[test]
fn every_test_file_is_part_of_the_one_binary_or_has_a_reason_to_be_its_own() {
    let main = fs::read_to_string(root().join("tests/main.rs")).unwrap();
    // A global allocator is a matter of a whole binary.
    let own = ["main", "allocations"];
    for entry in fs::read_dir(root().join("tests")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some(module) = name.strip_suffix(".rs").filter(|module| !own.contains(module)) {
            assert!(
                main.contains(&format!("\nmod {module};")),
                "tests/{name} is not in tests/main.rs: it never runs"
            );
        }
    }
}

#[test]
fn no_tracked_file_is_large() {
    let args = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let listed = Command::new("git").args(args).current_dir(root()).output().expect("git");
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let names = String::from_utf8(listed.stdout).unwrap();
    assert!(names.contains("tests/tidy.rs"), "git does not list this very file");
    let sizes =
        names.split('\0').filter_map(|name| Some((name, fs::metadata(root().join(name)).ok()?.len())));
    let large = sizes.filter(|(_, size)| *size > TRACKED_BYTES_MAX);
    none(&large.map(|(name, size)| format!("{name}: {size} bytes")).collect::<Vec<_>>());
}

#[test]
fn readme_gives_the_two_commands_of_a_newcomer() {
    let readme = fs::read_to_string(root().join("README.md")).expect("README.md");
    for command in ["cargo run --release -- --demo", "rtsp://127.0.0.1:8554/demo"] {
        assert!(readme.contains(command), "README.md does not show `{command}`");
    }
}

/// The rules above would pass an empty house: here they meet the faults they are for.
#[test]
fn the_rules_find_what_they_look_for() {
    let may_not = |name: &str, text: &str| import_faults(name, text);
    assert_eq!(
        may_not("src/media/lib.rs", "use corecast_proto::rtp;"),
        ["src/media/lib.rs: media may not use proto"]
    );
    assert_eq!(may_not("src/shard/mod.rs", "use crate::{observe::x, control::{a, b}};").len(), 1);
    assert_eq!(may_not("src/observe/mod.rs", "use super::sources;").len(), 1);
    assert_eq!(may_not("src/sources/a/b.rs", "fn f() { crate::readers::g() }").len(), 1);
    assert!(may_not("src/shard/a.rs", "use crate::{readers::x, sources::y};").is_empty());
    for wrong in [
        "use crate::shard;",
        "use crate::{shard as s};",
        "use crate::shard::*;",
        "use crate::{shard::{media_io::Batch, mesh::Mail}, sources::x};",
        "use super::shard::drive;",
        "use crate::shard::media_io::Batch; fn f() { crate::shard::Shard::new() }",
    ] {
        let want = ["src/readers/a.rs: readers may use only media_io of shard"];
        assert_eq!(may_not("src/readers/a.rs", wrong), want, "{wrong}");
    }
    for right in
        ["use crate::{shard::media_io::{Batch, Group}, sources::x};", "use crate::shard::{media_io};"]
    {
        assert!(may_not("src/readers/a.rs", right).is_empty(), "{right}");
    }
    assert_eq!(may_not("src/nowhere/mod.rs", "").len(), 1);
    assert!(
        may_not(
            "src/shard/mod.rs",
            "// crate::control\nuse crate::observe; const S: &str = \"crate::control\";"
        )
        .is_empty()
    );
    assert!(may_not("src/proto/lib.rs", "use crate::control::x; use corecast_media::y;").is_empty());
    assert!(may_not("src/main.rs", "use corecast::control;").is_empty());

    assert_eq!(
        dependencies("[dependencies]\na.workspace = true\nb = \"1\"\n[dev-dependencies]\nc = \"1\"\n"),
        ["a", "b"]
    );

    assert_eq!(clock_and_socket_faults("src/hub/a.rs", "let t = Instant::now();").len(), 1);
    assert_eq!(clock_and_socket_faults("src/proto/a.rs", "use std::net::{IpAddr, UdpSocket};").len(), 1);
    assert!(
        clock_and_socket_faults("src/hub/a.rs", "#[cfg(test)]\nmod tests { fn t() { Instant::now(); } }")
            .is_empty()
    );
    assert!(clock_and_socket_faults("src/shard/a.rs", "Instant::now()").is_empty());

    assert!(unsafe_faults("src/hub/a.rs", "let c = '\"'; unsafe { f() }").is_some());
    assert!(unsafe_faults("src/fanout/ring.rs", "unsafe { f() }").is_none());
    assert!(
        unsafe_faults("src/hub/a.rs", "#![deny(unsafe_code)] // unsafe\nlet s = r#\"unsafe\"#;").is_none()
    );

    assert_eq!(manner_faults("src/a.rs", "fn f() { todo!() }").len(), 2);
    assert_eq!(manner_faults("src/a.rs", &format!("//! x\n{}", "\n".repeat(LINES_MAX))).len(), 1);
    assert_eq!(manner_faults("tests/a.rs", "//! x\n#[test]\n#[ignore = \"slow\"]\nfn f() {}").len(), 1);
}
