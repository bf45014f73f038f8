//! Who reads a path, over whatever protocol.

use std::{net::SocketAddr, sync::Arc};

use corecast_hub::roster::rtsp_server;
use uuid::Uuid;

use super::{HlsSession, Session};

/// The session of a reader.
#[derive(Debug, Clone)]
pub enum Reader {
    Rtsp(Arc<Session>),
    Hls(Arc<HlsSession>),
}

/// Of which kind the session of a reader is; in the order of their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReaderKind {
    Hls,
    Rtsp,
    /// RTSP over TLS.
    Rtsps,
}

impl ReaderKind {
    pub const ALL: [Self; 3] = [Self::Hls, Self::Rtsp, Self::Rtsps];

    pub fn of_rtsp(encrypted: bool) -> Self {
        if encrypted { Self::Rtsps } else { Self::Rtsp }
    }

    /// As the API, hooks and metrics call it (contract §2.3).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hls => "hlsSession",
            Self::Rtsp => "rtspSession",
            Self::Rtsps => "rtspsSession",
        }
    }

    /// As the log calls its server.
    pub fn server(self) -> &'static str {
        match self {
            Self::Hls => "HLS",
            Self::Rtsp => rtsp_server(false),
            Self::Rtsps => rtsp_server(true),
        }
    }
}

impl Reader {
    pub fn kind(&self) -> ReaderKind {
        match self {
            Self::Rtsp(session) => ReaderKind::of_rtsp(session.encrypted),
            Self::Hls(_) => ReaderKind::Hls,
        }
    }

    pub fn id(&self) -> Uuid {
        match self {
            Self::Rtsp(session) => session.id,
            Self::Hls(session) => session.id,
        }
    }

    pub fn path(&self) -> &Arc<str> {
        match self {
            Self::Rtsp(session) => &session.facts.path,
            Self::Hls(session) => &session.path,
        }
    }

    pub fn remote(&self) -> SocketAddr {
        match self {
            Self::Rtsp(session) => session.remote,
            Self::Hls(session) => session.remote,
        }
    }

    /// Of the URL, without `?`.
    pub fn query(&self) -> &str {
        match self {
            Self::Rtsp(session) => &session.facts.query,
            Self::Hls(session) => &session.query,
        }
    }

    /// Empty when nobody had to say who they are.
    pub fn user(&self) -> &str {
        match self {
            Self::Rtsp(session) => &session.facts.user,
            Self::Hls(session) => &session.user,
        }
    }

    pub fn user_agent(&self) -> &str {
        match self {
            Self::Rtsp(session) => &session.facts.user_agent,
            Self::Hls(session) => &session.user_agent,
        }
    }
}
