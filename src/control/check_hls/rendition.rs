//! One media playlist and what it names, watched as a player watches it.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use corecast_packagers::hls::check::{self, Finding, Fragments, MediaPlaylist, MediaSegment};
use reqwest::Url;
use tokio::task::JoinHandle;

use super::{Report, error, fetch::Fetcher};

/// Every so many reloads a delta update is looked at, too.
const DELTA_ROUNDS: u64 = 5;
/// Bodies of parts that are remembered, to be compared with their segment.
const BODIES_MAX: usize = 64;
/// A playlist that cannot be had so often in a row ends the watching.
const FAILURES_MAX: u32 = 5;

/// See the module.
pub struct Watch {
    fetcher: Fetcher,
    url: Url,
    report: Report,
    before: Option<MediaPlaylist>,
    fragments: Fragments,
    /// The initialisation section that was read last.
    map: Option<String>,
    /// What was judged last: segment, and parts of it.
    judged: Option<(u64, usize)>,
    /// Bodies of parts, by URI.
    bodies: HashMap<String, Vec<u8>>,
    body_order: VecDeque<String>,
    hint: Option<(String, JoinHandle<Result<super::fetch::Fetched, String>>)>,
    /// When each segment of the playlist was seen in it first, if it was not there from the start.
    appeared: HashMap<u64, Instant>,
    /// The longest playlist so far.
    longest: Duration,
    /// Segments that have left the playlist, and until when they have to be there.
    departed: VecDeque<(String, Instant)>,
    rounds: u64,
}

impl Watch {
    pub fn new(fetcher: Fetcher, url: Url) -> Self {
        Self {
            fetcher,
            url,
            report: Report::default(),
            before: None,
            fragments: Fragments::default(),
            map: None,
            judged: None,
            bodies: HashMap::new(),
            body_order: VecDeque::new(),
            hint: None,
            appeared: HashMap::new(),
            longest: Duration::ZERO,
            departed: VecDeque::new(),
            rounds: 0,
        }
    }

    /// # Errors
    /// When there is nothing to judge any more: a sentence.
    pub async fn run(mut self, until: Instant) -> Result<Report, String> {
        let mut failures = 0;
        let first = self.load("").await?;
        self.judge(first).await?;
        self.try_odd_requests().await?;
        while Instant::now() < until {
            let Some(before) = &self.before else { break };
            if before.ended {
                break;
            }
            let blocks = before.control.as_ref().is_some_and(|control| control.can_block_reload);
            let reloaded = match blocks {
                true => self.reload_blocking().await?,
                false => {
                    let target = before.target_duration.unwrap_or(1).unsigned_abs();
                    tokio::time::sleep(Duration::from_secs(target)).await;
                    self.load("").await?
                }
            };
            match reloaded {
                Some(playlist) => {
                    failures = 0;
                    self.judge(Some(playlist)).await?;
                }
                None => failures += 1,
            }
            if failures > FAILURES_MAX {
                return Err(format!("{} cannot be had any more", self.url));
            }
            self.rounds += 1;
            if self.rounds.is_multiple_of(DELTA_ROUNDS) {
                self.look_at_delta().await?;
            }
            self.look_after_departed().await?;
        }
        Ok(self.report)
    }

    fn note(&mut self, found: impl IntoIterator<Item = Finding>) {
        let name = name_of(&self.url);
        self.report.note(&name, found);
    }

    fn with(&self, query: &str) -> Url {
        let mut url = self.url.clone();
        if !query.is_empty() {
            let joined = match url.query() {
                Some(own) if !own.is_empty() => format!("{own}&{query}"),
                _ => query.to_owned(),
            };
            url.set_query(Some(&joined));
        }
        url
    }

    async fn load(&mut self, query: &str) -> Result<Option<MediaPlaylist>, String> {
        let answer = self.fetcher.get(&self.with(query)).await?;
        self.report.looked_at.playlists += 1;
        if answer.status != 200 {
            if answer.status != 503 {
                self.note([error("6.2.1", format!("the playlist is answered with {}", answer.status))]);
            }
            return Ok(None);
        }
        let known = ["application/vnd.apple.mpegurl", "audio/mpegurl"];
        if !known.iter().any(|kind| answer.content_type.to_ascii_lowercase().starts_with(kind)) {
            self.note([error("4", format!("the playlist is of type {:?}", answer.content_type))]);
        }
        let (playlist, found) = check::parse(&answer.text()?);
        self.note(found);
        Ok(Some(playlist))
    }

    /// Asks for the next part, which the server has to keep until it is there (§6.2.5.2).
    async fn reload_blocking(&mut self) -> Result<Option<MediaPlaylist>, String> {
        let Some(before) = &self.before else { return Ok(None) };
        let (msn, part) = position(before);
        let target = Duration::from_secs(before.target_duration.unwrap_or(1).unsigned_abs());
        let query = match before.part_target {
            Some(_) => format!("_HLS_msn={msn}&_HLS_part={part}"),
            None => format!("_HLS_msn={msn}"),
        };
        let since = Instant::now();
        let Some(playlist) = self.load(&query).await? else { return Ok(None) };
        self.report.looked_at.blocking_reloads += 1;
        if position(&playlist) <= (msn, part) {
            self.note([error(
                "6.2.5.2",
                "a blocking reload was answered without what it asked for".to_owned(),
            )]);
        }
        if since.elapsed() > 3 * target + Duration::from_secs(1) {
            self.note([error(
                "6.2.5.2",
                "a blocking reload was held for more than three Target Durations".to_owned(),
            )]);
        }
        Ok(Some(playlist))
    }

    /// What must be answered at once, and what must be refused (§6.2.5.2).
    async fn try_odd_requests(&mut self) -> Result<(), String> {
        let Some(before) = &self.before else { return Ok(()) };
        if !before.control.as_ref().is_some_and(|control| control.can_block_reload) {
            return Ok(());
        }
        let (msn, _) = position(before);
        let old = before.media_sequence.saturating_sub(1);
        let target = Duration::from_secs(before.target_duration.unwrap_or(1).unsigned_abs());
        for (query, status, what) in [
            (format!("_HLS_msn={old}"), 200, "an _HLS_msn that is over"),
            (format!("_HLS_msn={}", msn + 1000), 400, "an _HLS_msn that is far ahead"),
            ("_HLS_part=0".to_owned(), 400, "an _HLS_part without _HLS_msn"),
        ] {
            let answer = self.fetcher.get(&self.with(&query)).await?;
            if answer.status != status {
                let text = format!("{what} is answered with {} instead of {status}", answer.status);
                self.note([error("6.2.5.2", text)]);
            }
            if answer.took > target.max(Duration::from_secs(1)) {
                self.note([error("6.2.5.2", format!("{what} is not answered at once"))]);
            }
        }
        Ok(())
    }

    async fn look_at_delta(&mut self) -> Result<(), String> {
        let can_skip = |playlist: &MediaPlaylist| {
            playlist.control.as_ref().is_some_and(|control| control.can_skip_until.is_some())
        };
        if !self.before.as_ref().is_some_and(can_skip) {
            return Ok(());
        }
        // The playlist may move on in between: only what lies between two equal ones can be compared.
        let (Some(full), Some(delta), Some(again)) =
            (self.load("").await?, self.load("_HLS_skip=YES").await?, self.load("").await?)
        else {
            return Ok(());
        };
        if full == again {
            self.report.looked_at.delta_updates += 1;
            self.note(check::delta(&full, &delta));
        }
        Ok(())
    }

    async fn judge(&mut self, playlist: Option<MediaPlaylist>) -> Result<(), String> {
        let Some(playlist) = playlist else { return Ok(()) };
        self.note(check::playlist(&playlist));
        if let Some(before) = &self.before {
            let found = check::update(before, &playlist);
            for (msn, segment) in before.numbered().filter(|(msn, _)| *msn < playlist.media_sequence) {
                let duration = Duration::from_micros(segment.duration.unsigned_abs());
                if let (Some(since), Some(uri)) = (self.appeared.remove(&msn), segment.uri.clone()) {
                    self.departed.push_back((uri, since + duration + self.longest));
                }
            }
            let newest = before.numbered().filter(|(_, segment)| segment.uri.is_some()).last();
            let newest = newest.map_or(0, |(msn, _)| msn);
            let is_new = |(msn, segment): &(u64, &MediaSegment)| *msn > newest && segment.uri.is_some();
            for (msn, _) in playlist.numbered().filter(is_new) {
                self.appeared.insert(msn, Instant::now());
            }
            self.note(found);
        }
        self.longest = self.longest.max(Duration::from_micros(playlist.duration().unsigned_abs()));
        self.take_hint(&playlist).await?;
        self.judge_media(&playlist).await?;
        self.before = Some(playlist);
        Ok(())
    }

    /// What was hinted has to come, whole, under that name (§6.2.6).
    async fn take_hint(&mut self, playlist: &MediaPlaylist) -> Result<(), String> {
        let next = playlist.part_hints.first().cloned();
        if self.hint.as_ref().map(|(uri, _)| uri) == next.as_ref() {
            return Ok(());
        }
        if let Some((uri, fetching)) = self.hint.take() {
            let answer = fetching.await.map_err(|error| error.to_string())??;
            self.report.looked_at.hints += 1;
            if answer.status != 200 || answer.body.is_empty() {
                self.note([error(
                    "6.2.6",
                    format!("{uri} was hinted and is answered with {}", answer.status),
                )]);
            } else {
                self.remember(uri, answer.body);
            }
        }
        if let Some(uri) = next {
            let (fetcher, url) = (self.fetcher.clone(), self.join(&uri)?);
            self.hint = Some((uri, tokio::spawn(async move { fetcher.get(&url).await })));
        }
        Ok(())
    }

    fn join(&self, uri: &str) -> Result<Url, String> {
        self.url.join(uri).map_err(|error| format!("{uri} is no URI: {error}"))
    }

    fn remember(&mut self, uri: String, body: Vec<u8>) {
        if self.bodies.insert(uri.clone(), body).is_none() {
            self.body_order.push_back(uri);
        }
        while self.body_order.len() > BODIES_MAX {
            if let Some(oldest) = self.body_order.pop_front() {
                self.bodies.remove(&oldest);
            }
        }
    }

    /// A file that is in the playlist.
    async fn body(&mut self, uri: &str) -> Result<Option<Vec<u8>>, String> {
        if let Some(body) = self.bodies.get(uri) {
            return Ok(Some(body.clone()));
        }
        let answer = self.fetcher.get(&self.join(uri)?).await?;
        if answer.status != 200 {
            self.note([error("6.2.1", format!("{uri} is listed and is answered with {}", answer.status))]);
            return Ok(None);
        }
        Ok(Some(answer.body))
    }

    /// Reads what has been added since the last time, in order: the parts where there are any, else segments.
    async fn judge_media(&mut self, playlist: &MediaPlaylist) -> Result<(), String> {
        let start = playlist.numbered().map(|(msn, _)| msn).last().map_or(0, |last| last.saturating_sub(1));
        let (from, parts_done) = self.judged.unwrap_or((start, 0));
        for (msn, segment) in playlist.numbered().filter(|(msn, _)| *msn >= from) {
            let done = if msn == from { parts_done } else { 0 };
            if done == 0 {
                self.enter(msn, segment).await?;
            }
            self.judge_segment(msn, segment, done).await?;
        }
        Ok(())
    }

    /// A segment begins: the initialisation section that it needs, and whether it goes on where the last one ended.
    async fn enter(&mut self, msn: u64, segment: &MediaSegment) -> Result<(), String> {
        let skipped = self.judged.is_some_and(|(last, _)| msn > last + 1);
        if segment.discontinuity || skipped {
            self.fragments.break_here();
        }
        if let Some(map) = segment.map.as_ref().filter(|map| self.map.as_ref() != Some(map)) {
            if let Some(body) = self.body(map).await? {
                let found = self.fragments.init(&body);
                self.note(found);
            }
            self.map = Some(map.clone());
        }
        Ok(())
    }

    async fn judge_segment(&mut self, msn: u64, segment: &MediaSegment, done: usize) -> Result<(), String> {
        let fragmented = segment.map.is_some();
        for part in segment.parts.iter().skip(done) {
            let Some(body) = self.body(&part.uri).await? else { continue };
            self.report.looked_at.parts += 1;
            let (media, found) = self.fragments.media(&part.uri, &body, part.duration);
            self.note(found);
            if part.independent && !media.has_independent {
                let text = format!("{} is INDEPENDENT and has no picture that needs no other", part.uri);
                self.note([error("4.4.4.9", text)]);
            }
            self.remember(part.uri.clone(), body);
        }
        let seen = segment.parts.len().max(done);
        let Some(uri) = &segment.uri else {
            self.judged = Some((msn, seen));
            return Ok(());
        };
        if let Some(body) = self.body(uri).await? {
            self.report.looked_at.segments += 1;
            let of_parts: Vec<_> =
                segment.parts.iter().map_while(|part| self.bodies.get(&part.uri)).collect();
            if segment.parts.is_empty() {
                if fragmented && done == 0 {
                    let (_, found) = self.fragments.media(uri, &body, segment.duration);
                    self.note(found);
                } else if done > 0 {
                    self.fragments.break_here();
                }
            } else if of_parts.len() == segment.parts.len() && of_parts.into_iter().flatten().ne(&body) {
                self.note([error("3.2", format!("{uri} differs from its parts"))]);
            }
        }
        self.judged = Some((msn + 1, 0));
        Ok(())
    }

    /// From when it appears, a segment stays for as long as it lasts and the longest playlist that it was in (§6.2.2).
    async fn look_after_departed(&mut self) -> Result<(), String> {
        let now = Instant::now();
        while let Some((uri, until)) = self.departed.pop_front() {
            // What it takes to ask, and for an answer to arrive.
            if now + Duration::from_millis(200) > until {
                continue;
            }
            let answer = self.fetcher.get(&self.join(&uri)?).await?;
            self.report.looked_at.departed += 1;
            if answer.status != 200 {
                let text =
                    format!("{uri} left the playlist and is answered with {} too early", answer.status);
                self.note([error("6.2.2", text)]);
            }
        }
        Ok(())
    }
}

/// The segment that is open, and how many parts it has.
fn position(playlist: &MediaPlaylist) -> (u64, u64) {
    let complete = playlist.complete().count() as u64 + playlist.skipped.unwrap_or(0);
    let parts = playlist.open().map_or(0, |open| open.parts.len() as u64);
    (playlist.media_sequence + complete, parts)
}

fn name_of(url: &Url) -> String {
    let name = url.path_segments().and_then(|mut segments| segments.next_back());
    name.unwrap_or_default().to_owned()
}
