//! Other settings while everything runs: what they leave as it is loses no packet.

use std::{os::fd::AsRawFd, sync::Arc};

use corecast_hub::{
    demand::StopReason,
    roster::rtsp_server,
    settings::{BroughtBy, PathSettings, RtspSettings, Settings},
};
use uuid::Uuid;

use super::{
    Kind, Shard, boot,
    paths::stream_limits,
    sessions::{Flow, SessionEntry},
    slots::Key,
};

/// What other settings do to a path.
enum Fate {
    Stays(Arc<PathSettings>),
    Ends(&'static str),
}

fn brought_by(settings: &PathSettings) -> Option<&BroughtBy> {
    settings.demand.as_ref().map(|demand| &demand.brought_by)
}

impl Shard {
    /// Goes by `settings` from now on. The answer is what could not be had: a sentence for the operator.
    pub(super) fn apply_settings(&mut self, settings: Arc<Settings>) -> Result<(), String> {
        let old = std::mem::replace(&mut self.settings, settings);
        let mut keys = Vec::new();
        self.paths.keys_into(&mut keys);
        for key in keys {
            self.apply_to_path(key);
        }
        self.hls_settings_changed(old.hls.as_ref());
        self.rebind(&old).map_err(|error| error.to_string())
    }

    fn apply_to_path(&mut self, key: Key) {
        let limits = stream_limits(&self.settings.engine);
        let Some(path) = self.paths.get_mut(key) else { return };
        let fate = match self.settings.paths.lookup(&path.name) {
            Err(_) => Fate::Ends("path configuration removed"),
            Ok(new) if new.source != path.settings.source => Fate::Ends("its source was changed"),
            Ok(new) if path.pull.is_some() && brought_by(new) != brought_by(&path.settings) => {
                Fate::Ends("its source was changed")
            }
            // It would be placed on another core now.
            Ok(new) if new.core != path.settings.core && new.core.is_some_and(|core| core != self.core) => {
                Fate::Ends("its core was changed")
            }
            Ok(new) => Fate::Stays(Arc::clone(new)),
        };
        match fate {
            Fate::Ends(reason) => self.end_path(key, reason),
            Fate::Stays(settings) => {
                self.change_demand(key, &settings);
                let Some(path) = self.paths.get_mut(key) else { return };
                if let Some(live) = &mut path.live {
                    live.publication.stream.set_limits(limits);
                    if settings.active != path.settings.active {
                        // Another entry counts it from now on; it was let in already.
                        live.active = settings.active.enter(None);
                    }
                }
                path.settings = settings;
                self.release_path(key);
            }
        }
    }

    /// Ends everything about a path: its publication, and all sessions that are about it.
    fn end_path(&mut self, key: Key, reason: &str) {
        // First, so that nobody waits for the stream to come back.
        self.end_muxer(key, reason);
        self.end_demand(key, StopReason::PathDestroyed);
        let Some(path) = self.paths.get(key) else { return };
        let sessions: Vec<_> = path.readers.iter().chain(&path.publishers).copied().collect();
        self.demos.retain(|camera| camera.path != key);
        for session in sessions {
            self.end_session_and_connection(session, reason);
        }
        self.stop_pull(key, reason, false);
        // The built-in camera's has no session to end with.
        self.end_publication(key, reason);
        if let Some(path) = self.paths.get(key) {
            self.pull_memory.drop_path(&path.name);
        }
        self.release_path(key);
    }

    /// Closes what is not served any more, with all who use it, and opens what is served now.
    fn rebind(&mut self, old: &Settings) -> Result<(), boot::BootError> {
        let settings = Arc::clone(&self.settings);
        let (is, was) = (&settings.rtsp, &old.rtsp);
        let listens_anew = is.address != was.address;
        if listens_anew {
            self.close_listener(Kind::Listener);
        }
        let listens_anew_for_tls = is.tls_address != was.tls_address;
        if listens_anew_for_tls {
            self.close_listener(Kind::TlsListener);
        }
        if was.tcp && !is.tcp {
            let by_tcp = |entry: &SessionEntry| matches!(entry.flow, Flow::TcpReader(_) | Flow::TcpPublisher);
            self.end_sessions("transport TCP was switched off", by_tcp);
        }
        let udp = |rtsp: &RtspSettings| {
            (rtsp.address.is_some() && rtsp.udp).then_some((rtsp.rtp_address, rtsp.rtcp_address))
        };
        if udp(is) != udp(was) || settings.udp_read_buffer_bytes != old.udp_read_buffer_bytes {
            self.close_ports();
        }
        if self.listener.is_none()
            && let Some(address) = is.address
        {
            let listener = boot::open_listener(address)?;
            self.io.watch(listener.as_raw_fd(), Kind::Listener.only()).map_err(boot::BootError::MediaIo)?;
            self.listener = Some(listener);
        }
        if self.tls_listener.is_none()
            && let Some(address) = is.tls_address
        {
            let listener = boot::open_tls_listener(address)?;
            self.io
                .watch(listener.as_raw_fd(), Kind::TlsListener.only())
                .map_err(boot::BootError::MediaIo)?;
            self.tls_listener = Some(listener);
        }
        if self.ports.is_none() && udp(is).is_some() {
            let ports = boot::open_ports(&settings)?;
            ports.watch(&mut self.io).map_err(boot::BootError::MediaIo)?;
            self.ports = Some(ports);
            if self.id == 0 {
                self.check_receive_buffer();
            }
        }
        if listens_anew && self.id == 0 {
            self.log_listeners();
        }
        if listens_anew_for_tls && self.id == 0 {
            self.log_tls_listener();
        }
        self.rebind_web()
    }

    fn close_listener(&mut self, kind: Kind) {
        let encrypted = kind == Kind::TlsListener;
        let listener = if encrypted { self.tls_listener.take() } else { self.listener.take() };
        if let Some(listener) = listener {
            self.io.unwatch(listener.as_raw_fd(), kind.only());
        }
        let reason = format!("the {} listener was closed", rtsp_server(encrypted));
        let mut keys = Vec::new();
        self.connections.keys_into(&mut keys);
        for key in keys {
            if self.connections.get(key).is_some_and(|connection| connection.is_encrypted() == encrypted) {
                self.close(key, &reason);
            }
        }
        self.end_sessions(&reason, |entry| entry.encrypted == encrypted);
    }

    fn close_ports(&mut self) {
        let by_udp = |entry: &SessionEntry| matches!(entry.flow, Flow::UdpReader(_) | Flow::UdpPublisher(_));
        self.end_sessions("the RTP ports were closed", by_udp);
        if let Some(ports) = self.ports.take() {
            ports.unwatch(&mut self.io);
        }
    }

    pub(super) fn end_sessions(&mut self, reason: &str, which: impl Fn(&SessionEntry) -> bool) {
        let mut keys = Vec::new();
        self.sessions.keys_into(&mut keys);
        for key in keys {
            if self.sessions.get(key).is_some_and(&which) {
                self.end_session_and_connection(key, reason);
            }
        }
    }

    /// Ends a session, and its connection, because an operator wants it. The news of its end is the answer.
    pub(super) fn kick(&mut self, session: Uuid) {
        if self.kick_viewer(session) {
            return;
        }
        let found = self.sessions.iter().find(|(_, entry)| entry.id == session);
        if let Some((key, _)) = found {
            self.end_session_and_connection(key, "kicked");
        }
    }
}
