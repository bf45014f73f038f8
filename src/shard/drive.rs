//! The loop of a shard: take what the ring brought, let it be worked on, send what is due, wait.

use std::{io, os::fd::AsRawFd, time::Duration};

use corecast_hub::{demand::StopReason, settings::Park};
use tracing::error;

use super::{
    Asker, Kind, Mail, Shard, clock,
    media_io::{Event, RECEIVE_BYTES_MAX},
    runtime::{self, Readiness},
};
use crate::sources::publication::Plane;

/// Room for one receive that is not a stream's.
pub const SCRATCH_BYTES: usize = RECEIVE_BYTES_MAX;

/// At the end, a control thread that takes no mail for this many milliseconds is not waited for.
const LAST_MAIL_TRIES: u32 = 1000;

impl Shard {
    /// Runs until told to stop.
    ///
    /// # Errors
    /// When the media ring fails. A relay that has lost a core must not go on with half its cameras: the process is
    /// told to end, so that its supervisor starts it anew.
    pub(super) async fn run(mut self) -> io::Result<()> {
        self.work.scratch = vec![0; SCRATCH_BYTES];
        let reactor = match self.settings.engine.park {
            Park::Ring => None,
            Park::Executor => self.io.eventfd().ok().flatten().map(Readiness::of_eventfd),
        };
        let mut result = Ok(());
        while !self.stopping && result.is_ok() {
            self.turn();
            result = self.wait(reactor.as_ref()).await;
        }
        if let Err(failure) = &result {
            error!("[engine] core {}: the media ring failed: {failure}", self.core);
            signal_hook::low_level::raise(signal_hook::consts::SIGTERM)?;
        }
        self.end_everything();
        result
    }

    fn turn(&mut self) {
        self.now = clock::now();
        self.web.set_now(self.now.instant);
        self.work.handshakes = 0;
        let mut events = std::mem::take(&mut self.work.events);
        // First of all what did not go out: its bytes are overwritten by the next receive.
        for event in &events {
            if let Event::Unsent { token, sent } = *event {
                self.on_unsent(token, sent);
            }
        }
        for event in events.drain(..) {
            self.on_event(event);
        }
        // Keep the buffer, and what was put off to the next turn.
        events.append(&mut self.work.events);
        self.work.events = events;
        let mut unread = std::mem::take(&mut self.work.unread);
        for key in unread.drain(..) {
            self.resume(key);
        }
        unread.append(&mut self.work.unread);
        self.work.unread = unread;
        while let Some((_, mail)) = self.mesh.take() {
            self.on_mail(mail);
        }
        self.run_demos();
        self.run_demands();
        self.expire_reordering();
        self.run_pulls();
        self.upkeep();
        self.run_web();
    }

    fn on_event(&mut self, event: Event) {
        let token = match event {
            Event::Readable(token) | Event::Hangup(token) | Event::Writable(token) => token,
            Event::Rewatch(token) => {
                self.watch_again(token);
                token
            }
            Event::Unsent { .. } => return,
        };
        let Some((kind, key)) = Kind::of(token) else { return };
        match (kind, event) {
            (Kind::Listener | Kind::TlsListener, _) => self.accept(kind),
            (Kind::Wake, _) => self.mesh.wake_fd().reset(),
            (Kind::RtpPort, _) => self.receive_shared(Plane::Rtp),
            (Kind::RtcpPort, _) => self.receive_shared(Plane::Rtcp),
            (Kind::Connection, Event::Writable(_)) => self.writable(key),
            (Kind::Connection, Event::Hangup(_)) => self.hang_up(key),
            (Kind::Connection, _) => self.receive(key),
            (Kind::UdpSourceRtp, _) => self.receive_source(key, Plane::Rtp),
            (Kind::UdpSourceRtcp, _) => self.receive_source(key, Plane::Rtcp),
            (Kind::Pull, event) => self.on_pull_event(key, event),
            (Kind::WebListener, _) => self.web.on_knock(key),
            (Kind::Web, event) => {
                let (hung_up, has_room) =
                    (matches!(event, Event::Hangup(_)), matches!(event, Event::Writable(_)));
                self.web.on_ready(key, hung_up, has_room);
            }
            (Kind::UdpSeat, _) => {}
        }
    }

    fn watch_again(&mut self, token: u64) {
        let Some((kind, key)) = Kind::of(token) else { return };
        let fd = match kind {
            Kind::Listener => self.listener.as_ref().map(AsRawFd::as_raw_fd),
            Kind::TlsListener => self.tls_listener.as_ref().map(AsRawFd::as_raw_fd),
            Kind::Wake => Some(self.mesh.wake_fd().as_raw_fd()),
            Kind::RtpPort => self.ports.as_ref().map(|ports| ports.sockets().rtp),
            Kind::RtcpPort => self.ports.as_ref().map(|ports| ports.sockets().rtcp),
            Kind::Connection => self.connections.get(key).map(super::connection::Connection::fd),
            Kind::UdpSourceRtp => self.udp_sources.get(key).map(|source| source.track.rtp.as_raw_fd()),
            Kind::UdpSourceRtcp => self.udp_sources.get(key).map(|source| source.track.rtcp.as_raw_fd()),
            Kind::Pull => self.pull_fd(key),
            Kind::WebListener => self.web.listener_fd(key),
            Kind::Web => self.web.connection_fd(key),
            Kind::UdpSeat => None,
        };
        if let Some(fd) = fd
            && let Err(failure) = self.io.watch(fd, token)
        {
            error!("[engine] core {}: a socket cannot be watched any more: {failure}", self.core);
        }
    }

    fn on_mail(&mut self, mail: Mail) {
        match mail {
            Mail::Home { asker: Asker::Connection(connection), path, home } => {
                self.on_home(connection, &path, home);
            }
            Mail::Home { asker: Asker::Web(ticket), path, home } => self.on_web_home(ticket, &path, home),
            Mail::Connection(handover) => self.take_over(*handover),
            Mail::Orphan { path } => self.take_orphan(&path),
            Mail::Heard { from, loss } => self.heard_from(from, loss, false),
            Mail::Begin { path } => self.begin_path(&path),
            Mail::Dialable { pull, addresses } => self.on_dialable(pull, addresses),
            Mail::Verdict { asker: Asker::Connection(connection), outcome } => {
                self.on_verdict(connection, outcome);
            }
            Mail::Verdict { asker: Asker::Web(ticket), outcome } => self.on_web_verdict(ticket, outcome),
            Mail::Home { asker: Asker::WebConnection(key), path, home } => {
                self.on_web_connection_home(key, &path, home);
            }
            Mail::WebConnection { handover, claim } => self.take_web_over(*handover, claim),
            Mail::WebRequest { request, claim } => self.take_web_request(*request, claim),
            Mail::WebAnswer { ticket, answer } => self.web_answer(ticket, *answer),
            Mail::WebGone { ticket } => self.web_gone(ticket),
            Mail::Settings { settings, generation } => {
                let result = self.apply_settings(settings);
                let control = self.control();
                self.mesh.send(control, Mail::SettingsApplied { generation, result });
            }
            Mail::Kick { session } => self.kick(session),
            Mail::Stop => self.stopping = true,
            // A connection has no verdict of its own; questions and reports to the control thread, none comes here.
            Mail::Verdict { asker: Asker::WebConnection(_), .. }
            | Mail::Claim { .. }
            | Mail::Release { .. }
            | Mail::Load { .. }
            | Mail::Dial { .. }
            | Mail::Dialed { .. }
            | Mail::News(_)
            | Mail::Authenticate { .. }
            | Mail::SettingsApplied { .. }
            | Mail::Stopped => {}
        }
    }

    async fn wait(&mut self, reactor: Option<&Readiness>) -> io::Result<()> {
        let mail_waits = self.mesh.flush();
        let busy = self.stopping
            || !self.work.events.is_empty()
            || !self.work.unread.is_empty()
            || self.web.has_work();
        let wait = if busy || !self.mesh.about_to_sleep() {
            Duration::ZERO
        } else if mail_waits {
            Duration::from_millis(1)
        } else {
            self.until_deadline()
        };
        let result = match reactor {
            None => self.send_and_wait(Some(wait)),
            Some(reactor) => match self.send_and_wait(Some(Duration::ZERO)) {
                Ok(()) if self.work.events.is_empty() && self.work.behind.is_empty() && !wait.is_zero() => {
                    runtime::wait_at_most(reactor.wait(), wait).await;
                    Ok(())
                }
                result => result,
            },
        };
        self.mesh.awake();
        result
    }

    fn until_deadline(&self) -> Duration {
        let deadlines = [
            self.work.next_upkeep,
            self.work.pulls_due,
            self.fan_out_deadline(),
            self.work.demands.next(),
            self.demos.iter().map(|camera| camera.demo.deadline()).min(),
            self.work.reordering.iter().filter_map(|&key| self.udp_sources.get(key)?.track.deadline()).min(),
        ];
        let next = deadlines.into_iter().flatten().min();
        next.map_or(super::upkeep::INTERVAL, |at| at.saturating_duration_since(self.now.instant))
    }

    /// The end: publishers and readers are told by their connections' end.
    fn end_everything(&mut self) {
        self.end_all_muxers("terminated");
        let mut keys = Vec::new();
        self.paths.keys_into(&mut keys);
        for &key in &keys {
            self.end_demand(key, StopReason::Terminated);
        }
        self.connections.keys_into(&mut keys);
        for &key in &keys {
            self.close(key, "terminated");
        }
        self.end_sessions("terminated", |_| true);
        self.paths.keys_into(&mut keys);
        for &key in &keys {
            self.stop_pull(key, "terminated", false);
            self.end_publication(key, "terminated");
        }
        self.end_web();
        let control = self.control();
        self.mesh.send(control, Mail::Stopped);
        // The listening ports are free for the next start only when the ring has let go of them.
        for (kind, listener) in
            [(Kind::Listener, self.listener.take()), (Kind::TlsListener, self.tls_listener.take())]
        {
            if let Some(listener) = listener {
                self.io.unwatch(listener.as_raw_fd(), kind.only());
            }
        }
        if let Some(ports) = self.ports.take() {
            ports.unwatch(&mut self.io);
        }
        let _ = self.io.wait(Some(Duration::ZERO), &mut Vec::new());
        for _ in 0..LAST_MAIL_TRIES {
            if !self.mesh.flush() {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
