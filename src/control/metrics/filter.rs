//! Which part of the metrics a request asks for (contract §3).

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// What metrics are about; MediaMTX's names of `type=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Category {
    Paths,
    ForwardDests,
    HlsSessions,
    HlsMuxers,
    RtspConns,
    RtspSessions,
    RtspsConns,
    RtspsSessions,
    RtmpConns,
    RtmpsConns,
    SrtConns,
    WebrtcSessions,
    MoqSessions,
}

/// Each category with the word of `type=` and the key that picks one item of it.
const CATEGORIES: [(Category, &str, &str); 13] = [
    (Category::Paths, "paths", "path"),
    (Category::ForwardDests, "forward_dests", "forward_dest"),
    (Category::HlsSessions, "hls_sessions", "hls_session"),
    (Category::HlsMuxers, "hls_muxers", "hls_muxer"),
    (Category::RtspConns, "rtsp_conns", "rtsp_conn"),
    (Category::RtspSessions, "rtsp_sessions", "rtsp_session"),
    (Category::RtspsConns, "rtsps_conns", "rtsps_conn"),
    (Category::RtspsSessions, "rtsps_sessions", "rtsps_session"),
    (Category::RtmpConns, "rtmp_conns", "rtmp_conn"),
    (Category::RtmpsConns, "rtmps_conns", "rtmps_conn"),
    (Category::SrtConns, "srt_conns", "srt_conn"),
    (Category::WebrtcSessions, "webrtc_sessions", "webrtc_session"),
    (Category::MoqSessions, "moq_sessions", "moq_session"),
];

/// See the module. The default is everything, in sums.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Value of `type=`, known to us or not.
    kind: Option<String>,
    /// One item per category at most.
    items: Vec<(Category, String)>,
    /// `sessions=1`: a series per connection and session.
    pub sessions: bool,
}

/// How much of a category is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share<'a> {
    None,
    All,
    /// The one with this name or id.
    Item(&'a str),
}

impl Share<'_> {
    pub fn takes(self, item: &str) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Item(wanted) => wanted == item,
        }
    }
}

impl Filter {
    /// Reads a query without its `?`. As MediaMTX does, it goes by the first of several values, and an empty value or
    /// an unknown key says nothing.
    pub fn parse(query: &str) -> Self {
        let mut filter = Self::default();
        for pair in query.split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (key, value) = (decode(key), decode(value));
            if value.is_empty() {
                continue;
            }
            if key == "type" {
                filter.kind.get_or_insert_with(|| value.into_owned());
            } else if key == "sessions" {
                filter.sessions |= matches!(&*value, "1" | "true" | "yes");
            } else if let Some(&(category, ..)) = CATEGORIES.iter().find(|(.., item)| *item == key)
                && filter.item(category).is_none()
            {
                filter.items.push((category, value.into_owned()));
            }
        }
        filter
    }

    /// Nothing is left out.
    pub fn is_all(&self) -> bool {
        self.kind.is_none() && self.items.is_empty()
    }

    /// Both have to agree: `type=`, and the items, of which each adds its own category.
    pub fn share(&self, category: Category) -> Share<'_> {
        if self.kind.as_deref().is_some_and(|kind| kind != word(category)) {
            return Share::None;
        }
        match self.item(category) {
            Some(item) => Share::Item(item),
            None if self.items.is_empty() => Share::All,
            None => Share::None,
        }
    }

    /// The category was asked for by its name: then its items are shown one by one.
    pub fn names(&self, category: Category) -> bool {
        self.kind.as_deref() == Some(word(category)) || self.item(category).is_some()
    }

    fn item(&self, category: Category) -> Option<&str> {
        self.items.iter().find(|(of, _)| *of == category).map(|(_, item)| item.as_str())
    }
}

fn word(category: Category) -> &'static str {
    CATEGORIES.iter().find(|(other, ..)| *other == category).map_or("", |(_, word, _)| word)
}

/// A word of a query, `+` for a space.
fn decode(word: &str) -> Cow<'_, str> {
    if !word.contains(['+', '%']) {
        return Cow::Borrowed(word);
    }
    let spaced = word.replace('+', " ");
    Cow::Owned(percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
}
