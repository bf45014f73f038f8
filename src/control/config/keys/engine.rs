//! The keys of the `engine:` block, which MediaMTX does not have.

use super::{COUNT, Key, Kind, served};

pub(in super::super) const ENGINE: &[Key] = &[
    served("cores", Kind::Cores, "auto"),
    served("mediaIo", Kind::Word(&["auto", "io_uring", "epoll"]), "auto"),
    served("park", Kind::Word(&["ring", "executor"]), "ring"),
    served("flushBytes", Kind::Size, "64K"),
    served("flushAfter", Kind::Duration, "5ms"),
    served("ringMax", Kind::Size, "16M"),
    served("readerLagMax", Kind::Duration, "10s"),
    served("reorderWait", Kind::Duration, "100ms"),
    served("maxStreams", COUNT, "0"),
    served("maxReaders", COUNT, "0"),
    served("nativePull", Kind::Bool, "yes"),
    served("dialsPerHost", Kind::Int(1, 1000), "10"),
    served("stateDir", Kind::Text, ""),
    served("metricsSessions", Kind::Bool, "no"),
];
