//! Our own reading of draft-pantos-hls-rfc8216bis as a judge of playlists and of the media they name: anybody's, not
//! only ours. Knows nothing of the muxer.
//!
//! [`parse`] reads a media playlist and finds what is wrong with its lines; [`playlist`] judges one playlist,
//! [`update`] two that were fetched one after the other, [`delta`] a delta update against the full text,
//! [`renditions`] the playlists of one presentation, [`multivariant`] the multivariant playlist; [`Fragments`] judges
//! the fMP4 behind them. Each finding names the section that says so.

mod fragments;
mod parse;
mod rules;

pub use fragments::{Fragments, Media};
pub use parse::{Control, MediaPlaylist, MediaSegment, PartTag, Report, parse};
pub use rules::{delta, multivariant, playlist, renditions, update};

/// How much a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// A SHOULD was not kept, or a rule could not be kept by any means.
    Warning,
    /// A MUST was not kept.
    Error,
}

/// Something that is against a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    /// Of rfc8216bis, or of another document where it says so.
    pub section: &'static str,
    /// What is wrong and where, in a sentence.
    pub text: String,
}

impl Finding {
    fn error(section: &'static str, text: impl Into<String>) -> Self {
        Self { severity: Severity::Error, section, text: text.into() }
    }

    fn warning(section: &'static str, text: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, section, text: text.into() }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let weight = if self.severity == Severity::Error { "error" } else { "warning" };
        write!(f, "{weight}: {} (§{})", self.text, self.section)
    }
}
