//! `corecast check-hls URL`: watches a live HLS presentation, anybody's, and says what is against
//! draft-pantos-hls-rfc8216bis. The rules are those of [`corecast_packagers::hls::check`]; what can only be seen on the
//! wire (blocking, hints, what is still there) is looked at here.

mod fetch;
mod rendition;

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use corecast_packagers::hls::check::{self, Finding, MediaPlaylist, Severity};
use reqwest::Url;
use tokio::task::JoinSet;

use fetch::Fetcher;
use rendition::Watch;

/// What was found, and what was looked at.
#[derive(Debug, Default)]
pub struct Report {
    /// Each with where it was seen first, and how often.
    findings: BTreeMap<String, (Finding, u64)>,
    pub looked_at: LookedAt,
}

/// How much a verdict rests on.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct LookedAt {
    pub playlists: u64,
    pub delta_updates: u64,
    pub blocking_reloads: u64,
    pub hints: u64,
    pub parts: u64,
    pub segments: u64,
    /// Segments that were fetched after they had left the playlist.
    pub departed: u64,
}

impl std::ops::AddAssign for LookedAt {
    fn add_assign(&mut self, other: Self) {
        self.playlists += other.playlists;
        self.delta_updates += other.delta_updates;
        self.blocking_reloads += other.blocking_reloads;
        self.hints += other.hints;
        self.parts += other.parts;
        self.segments += other.segments;
        self.departed += other.departed;
    }
}

impl Report {
    /// Notes what was found at a URI. The same in other words counts once: numbers differ from time to time.
    fn note(&mut self, at: &str, found: impl IntoIterator<Item = Finding>) {
        for finding in found {
            let kind: String = finding.text.chars().filter(|c| !c.is_ascii_digit()).collect();
            let key = format!("{} {kind}", finding.section);
            let text = format!("{at}: {}", finding.text);
            let entry = self.findings.entry(key).or_insert((Finding { text, ..finding }, 0));
            entry.1 += 1;
        }
    }

    fn merge(&mut self, other: Self) {
        for (key, (finding, count)) in other.findings {
            self.findings.entry(key).or_insert((finding, 0)).1 += count;
        }
        self.looked_at += other.looked_at;
    }

    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.findings.values().map(|(finding, _)| finding)
    }

    /// Whether a MUST was broken.
    pub fn has_errors(&self) -> bool {
        self.findings().any(|finding| finding.severity == Severity::Error)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (finding, count) in self.findings.values() {
            let times = if *count > 1 { format!(" [{count} times]") } else { String::new() };
            writeln!(f, "{finding}{times}")?;
        }
        let LookedAt { playlists, delta_updates, blocking_reloads, hints, parts, segments, departed } =
            self.looked_at;
        writeln!(
            f,
            "{playlists} playlists ({blocking_reloads} blocking reloads, {delta_updates} delta updates), {hints} hints, \
             {parts} parts, {segments} segments, {departed} of them after they had left the playlist"
        )?;
        let count = |severity| self.findings().filter(|finding| finding.severity == severity).count();
        let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
        write!(f, "{errors} rules broken, {warnings} recommendations not kept")
    }
}

fn error(section: &'static str, text: impl Into<String>) -> Finding {
    Finding { severity: Severity::Error, section, text: text.into() }
}

/// As [`watch`], for a thread that has no runtime.
///
/// # Errors
/// As of [`watch`].
pub fn run(url: &str, time: Duration) -> Result<Report, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| format!("cannot start: {error}"))?.block_on(watch(url, time))
}

/// Watches a multivariant playlist, or one media playlist, for some time.
///
/// # Errors
/// When there is nothing to watch: a sentence.
pub async fn watch(url: &str, time: Duration) -> Result<Report, String> {
    let url = Url::parse(url).map_err(|error| format!("{url} is no URL: {error}"))?;
    let fetcher = Fetcher::new()?;
    let until = Instant::now() + time;
    let first = fetcher.get(&url).await?;
    if first.status != 200 {
        return Err(format!("{url} is answered with {}", first.status));
    }
    let text = first.text()?;
    let mut report = Report::default();
    let playlists = if text.contains("#EXT-X-TARGETDURATION") {
        vec![first.url]
    } else {
        let (uris, found) = check::multivariant(&text);
        report.note("the multivariant playlist", found);
        let mut urls = Vec::new();
        for uri in uris {
            urls.push(first.url.join(&uri).map_err(|error| format!("{uri} is no URI: {error}"))?);
        }
        urls.dedup();
        urls
    };
    if playlists.is_empty() {
        return Err(format!("{url} names no playlist"));
    }
    compare(&fetcher, &playlists, &mut report).await?;
    let mut watches = JoinSet::new();
    for playlist in playlists.clone() {
        let fetcher = fetcher.clone();
        watches.spawn(async move { Watch::new(fetcher, playlist).run(until).await });
    }
    while let Some(watched) = watches.join_next().await {
        report.merge(watched.map_err(|error| error.to_string())??);
    }
    compare(&fetcher, &playlists, &mut report).await?;
    Ok(report)
}

/// Fetches all media playlists at the same time, and judges what they say of each other.
async fn compare(fetcher: &Fetcher, urls: &[Url], report: &mut Report) -> Result<(), String> {
    let mut fetched: Vec<(String, MediaPlaylist)> = Vec::new();
    for url in urls {
        let text = fetcher.get(url).await?.text()?;
        let name = url.path_segments().and_then(|mut segments| segments.next_back()).unwrap_or_default();
        fetched.push((name.to_owned(), check::parse(&text).0));
    }
    let named: Vec<_> = fetched.iter().map(|(name, playlist)| (name.as_str(), playlist)).collect();
    report.note("the media playlists", check::renditions(&named));
    Ok(())
}
