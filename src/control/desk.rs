//! The control thread: owns the registry of paths, answers the shards' questions, takes their news into the directory,
//! hands them new settings, starts the built-in cameras.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::SocketAddr,
    os::fd::AsRawFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use corecast_hub::{
    registry::{Registry, ShardId},
    roster::News,
    settings::{Challenge, PathSettings, Settings, Source},
};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::{
    auth::{Credentials, Protocol, Question, Verdict},
    dialer::DialRequest,
    directory::{Directory, Event},
    http::credentials,
    settings::Action,
};
use crate::shard::{
    Asker, Mail,
    access::{AccessOutcome, AccessQuestion, AccessTo, Presented, REALM},
    boot,
    media_io::{BackendKind, MediaIo, WakeFd},
    mesh::Mesh,
    slots::Key,
    web::WebService,
};

/// How long the thread sleeps at most; mail wakes it at once.
const NAP: Duration = Duration::from_secs(1);

/// A shard that does not end within this many milliseconds is not waited for.
const STOP_TRIES: u32 = 2000;

/// A session that an operator closes is waited for this long.
const KICK_WAIT_MAX: Duration = Duration::from_secs(2);

/// What the thread needs of the rest of the control plane. What is called here must return at once.
pub struct Neighbours {
    pub directory: Arc<Directory>,
    /// Told of everything that happens, in order.
    pub events: Box<dyn Fn(&Event) + Send>,
    /// Asked who may do what. An unanswered request is denied when it is dropped.
    pub auth: Box<dyn Fn(AuthRequest) + Send>,
    /// Told which pulls want to reach their hosts; see [`super::dialer`].
    pub dial: Box<dyn Fn(DialRequest) + Send>,
}

/// A shard's question about a client.
pub struct AuthRequest {
    pub question: Question,
    reply: Reply,
}

struct Reply {
    handle: DeskHandle,
    shard: ShardId,
    asker: Asker,
    answered: bool,
}

impl AuthRequest {
    pub fn answer(mut self, verdict: Verdict) {
        self.reply.answered = true;
        self.reply.handle.verdict(self.reply.shard, self.reply.asker, verdict);
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.answered {
            let reason = "nobody could check the credentials".to_owned();
            self.handle.verdict(self.shard, self.asker, Verdict::Denied { reason });
        }
    }
}

/// The running control thread.
pub struct Desk {
    thread: JoinHandle<io::Result<()>>,
    handle: DeskHandle,
}

/// The way to the control thread from others of the control plane.
#[derive(Clone)]
pub struct DeskHandle {
    inbox: Arc<Inbox>,
    directory: Arc<Directory>,
}

struct Inbox {
    /// `None` once the thread has ended: who still asks is told so at once.
    commands: Mutex<Option<VecDeque<Command>>>,
    wake: WakeFd,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Option<VecDeque<Command>>> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who waits for settings to take effect.
type Done = oneshot::Sender<Result<(), String>>;

enum Command {
    Apply { settings: Arc<Settings>, done: Done },
    Kick { session: Uuid, done: oneshot::Sender<()> },
    Verdict { shard: ShardId, asker: Asker, outcome: AccessOutcome },
    Dialable { shard: ShardId, pull: Key, addresses: Result<Vec<SocketAddr>, String> },
    Settle(oneshot::Sender<()>),
    Stop,
}

impl DeskHandle {
    fn send(&self, command: Command) {
        if let Some(commands) = self.inbox.lock().as_mut() {
            commands.push_back(command);
            self.inbox.wake.ring();
        }
    }

    /// Puts `settings` into effect; returns when every shard goes by them. Changes are applied one after the other.
    /// What cannot change while the relay runs (`engine.cores`, `engine.mediaIO`, `engine.park`) stays as it was.
    ///
    /// # Errors
    /// A sentence for the operator on what could not be had, an address for one. All else is in effect.
    pub async fn apply(&self, settings: Arc<Settings>) -> Result<(), String> {
        let (done, result) = oneshot::channel();
        self.send(Command::Apply { settings, done });
        result.await.unwrap_or_else(|_| Err("the relay is ending".to_owned()))
    }

    /// Closes a session, of RTSP with its connection; false when there is no such session. Returns when it is gone, after two
    /// seconds at the latest.
    pub async fn kick(&self, session: Uuid) -> bool {
        if self.directory.shard_of(session).is_none() {
            return false;
        }
        let (done, gone) = oneshot::channel();
        self.send(Command::Kick { session, done });
        let _ = tokio::time::timeout(KICK_WAIT_MAX, gone).await;
        true
    }

    /// Returns when the directory knows all that shards have told by now.
    pub async fn settle(&self) {
        let (done, settled) = oneshot::channel();
        self.send(Command::Settle(done));
        // A desk that is ending drops the question.
        let _ = settled.await;
    }

    /// Answers a shard's question.
    pub fn verdict(&self, shard: ShardId, asker: Asker, verdict: Verdict) {
        let outcome = match verdict {
            Verdict::Allowed { user } => AccessOutcome::Allowed { user },
            Verdict::Challenge => AccessOutcome::Challenge,
            Verdict::Denied { reason } => AccessOutcome::Denied { reason },
        };
        self.send(Command::Verdict { shard, asker, outcome });
    }
}

impl DeskHandle {
    /// Tells a shard that it is the turn of one of its pulls to reach its host.
    pub fn dialable(&self, shard: ShardId, pull: Key, addresses: Result<Vec<SocketAddr>, String>) {
        self.send(Command::Dialable { shard, pull, addresses });
    }
}

impl Desk {
    /// Starts the thread. The shards must be running, on `settings`.
    ///
    /// # Errors
    /// When the system refuses a thread or a descriptor.
    pub fn start(settings: Arc<Settings>, mesh: Mesh<Mail>, neighbours: Neighbours) -> io::Result<Self> {
        let inbox = Arc::new(Inbox { commands: Mutex::new(Some(VecDeque::new())), wake: WakeFd::new()? });
        let handle = DeskHandle { inbox, directory: Arc::clone(&neighbours.directory) };
        let own_handle = handle.clone();
        let thread = thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || Loop::new(settings, mesh, neighbours, own_handle).run())?;
        Ok(Self { thread, handle })
    }

    pub fn handle(&self) -> DeskHandle {
        self.handle.clone()
    }

    /// Tells every shard to end, and ends.
    ///
    /// # Errors
    /// When the thread failed.
    pub fn stop(self) -> io::Result<()> {
        self.handle.send(Command::Stop);
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("the control thread panicked")))
    }
}

/// Settings on their way to the shards.
struct Applying {
    generation: u64,
    before: Arc<Settings>,
    /// Shards that have not answered yet.
    missing: usize,
    errors: Vec<String>,
    done: Done,
}

/// The thread's own state.
struct Loop {
    settings: Arc<Settings>,
    registry: Registry,
    mesh: Mesh<Mail>,
    neighbours: Neighbours,
    handle: DeskHandle,
    generation: u64,
    applying: Option<Applying>,
    /// Changes that wait for the one before them.
    queue: VecDeque<(Arc<Settings>, Done)>,
    /// Sessions that are being closed, and who waits for it.
    kicks: HashMap<Uuid, Vec<oneshot::Sender<()>>>,
}

const MAIL: u64 = 1;
const COMMANDS: u64 = 2;

impl Loop {
    fn new(settings: Arc<Settings>, mesh: Mesh<Mail>, neighbours: Neighbours, handle: DeskHandle) -> Self {
        Self {
            settings,
            registry: Registry::new(mesh.others().count()),
            mesh,
            neighbours,
            handle,
            generation: 0,
            applying: None,
            queue: VecDeque::new(),
            kicks: HashMap::new(),
        }
    }

    fn run(mut self) -> io::Result<()> {
        // Not the media plane, but the same small loop serves: readiness of two descriptors.
        let mut io = MediaIo::new(BackendKind::Epoll)?;
        io.watch(self.mesh.wake_fd().as_raw_fd(), MAIL)?;
        io.watch(self.handle.inbox.wake.as_raw_fd(), COMMANDS)?;
        self.begin_paths(None);
        let mut events = Vec::new();
        loop {
            self.take_mail();
            let waits = self.mesh.flush();
            let nap = match (self.mesh.about_to_sleep(), waits) {
                (false, _) => Duration::ZERO,
                (true, true) => Duration::from_millis(1),
                (true, false) => NAP,
            };
            events.clear();
            io.wait(Some(nap), &mut events)?;
            self.mesh.awake();
            for event in &events {
                match event {
                    crate::shard::media_io::Event::Readable(MAIL) => self.mesh.wake_fd().reset(),
                    crate::shard::media_io::Event::Readable(COMMANDS) => {
                        self.handle.inbox.wake.reset();
                        if self.take_commands() == Next::End {
                            return Ok(());
                        }
                    }
                    _ => {}
                }
            }
            self.kicks.retain(|_, waiting| waiting.iter().any(|done| !done.is_closed()));
        }
    }

    fn take_mail(&mut self) {
        while let Some((shard, mail)) = self.mesh.take() {
            self.on_mail(shard, mail);
        }
    }

    fn take_commands(&mut self) -> Next {
        // What was told before a command was given comes before it.
        self.take_mail();
        let commands = self.handle.inbox.lock().as_mut().map(std::mem::take).unwrap_or_default();
        for command in commands {
            match command {
                Command::Apply { settings, done } => {
                    self.queue.push_back((settings, done));
                    self.apply_next();
                }
                Command::Kick { session, done } => self.kick(session, done),
                Command::Verdict { shard, asker, outcome } => {
                    self.mesh.send(shard, Mail::Verdict { asker, outcome });
                }
                Command::Dialable { shard, pull, addresses } => {
                    self.mesh.send(shard, Mail::Dialable { pull, addresses });
                }
                // Nobody may wait for it any more.
                Command::Settle(done) => drop(done.send(())),
                Command::Stop => {
                    self.stop_shards();
                    return Next::End;
                }
            }
        }
        Next::GoOn
    }

    /// Ends the shards, and hears them out: of the end of every stream and session, hooks have to be told.
    fn stop_shards(&mut self) {
        for shard in self.mesh.others() {
            self.mesh.send(shard, Mail::Stop);
        }
        let mut missing = self.mesh.others().count();
        for _ in 0..STOP_TRIES {
            self.mesh.flush();
            while let Some((shard, mail)) = self.mesh.take() {
                match mail {
                    Mail::Stopped => missing -= 1,
                    mail => self.on_mail(shard, mail),
                }
            }
            if missing == 0 {
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn on_mail(&mut self, shard: ShardId, mail: Mail) {
        match mail {
            Mail::Claim { path, pinned, asker } => {
                let home = self.registry.claim(&path, pinned);
                self.mesh.send(shard, Mail::Home { asker, path, home });
            }
            Mail::Release { path, claims } => self.registry.release(&path, claims),
            Mail::Load { permille } => self.registry.measured(shard, permille),
            Mail::News(news) => self.on_news(shard, *news),
            Mail::Authenticate { asker, question } => {
                let reply = Reply { handle: self.handle.clone(), shard, asker, answered: false };
                let question = asked(*question, &self.settings);
                (self.neighbours.auth)(AuthRequest { question, reply });
            }
            Mail::SettingsApplied { generation, result } => self.on_applied(generation, result),
            Mail::Dial { pull, host, port, urgent, suspect } => {
                (self.neighbours.dial)(DialRequest::Wanted { shard, pull, host, port, urgent, suspect });
            }
            Mail::Dialed { pull } => (self.neighbours.dial)(DialRequest::Done { shard, pull }),
            // Mail between shards, and to them.
            Mail::Home { .. }
            | Mail::Orphan { .. }
            | Mail::Connection(_)
            | Mail::Heard { .. }
            | Mail::Begin { .. }
            | Mail::Verdict { .. }
            | Mail::WebConnection { .. }
            | Mail::WebRequest { .. }
            | Mail::WebAnswer { .. }
            | Mail::WebGone { .. }
            | Mail::Dialable { .. }
            | Mail::Settings { .. }
            | Mail::Kick { .. }
            | Mail::Stop
            // Of a shard that failed: the process is told to end.
            | Mail::Stopped => {}
        }
    }

    fn on_news(&mut self, shard: ShardId, news: News) {
        let ended = match &news {
            News::SessionClosed { id, .. } | News::HlsSessionClosed { id, .. } => Some(*id),
            _ => None,
        };
        for event in self.neighbours.directory.apply(shard, news) {
            (self.neighbours.events)(&event);
        }
        let waiting = ended.and_then(|session| self.kicks.remove(&session));
        for done in waiting.into_iter().flatten() {
            let _ = done.send(());
        }
    }

    fn kick(&mut self, session: Uuid, done: oneshot::Sender<()>) {
        // One that ended meanwhile is gone: `done` is dropped, which says so.
        if let Some(shard) = self.neighbours.directory.shard_of(session) {
            self.mesh.send(shard, Mail::Kick { session });
            self.kicks.entry(session).or_default().push(done);
        }
    }

    fn apply_next(&mut self) {
        if self.applying.is_some() {
            return;
        }
        let Some((settings, done)) = self.queue.pop_front() else { return };
        let settings = boot::for_this_host(&keeping_engine(settings, &self.settings));
        self.generation += 1;
        let generation = self.generation;
        let mut missing = 0;
        for shard in self.mesh.others() {
            self.mesh.send(shard, Mail::Settings { settings: Arc::clone(&settings), generation });
            missing += 1;
        }
        let before = std::mem::replace(&mut self.settings, settings);
        self.applying = Some(Applying { generation, before, missing, errors: Vec::new(), done });
    }

    fn on_applied(&mut self, generation: u64, result: Result<(), String>) {
        let Some(applying) = self.applying.as_mut().filter(|applying| applying.generation == generation)
        else {
            return;
        };
        applying.missing -= 1;
        // Every shard misses the same address: it is said once.
        applying.errors.extend(result.err().filter(|error| !applying.errors.contains(error)));
        if applying.missing > 0 {
            return;
        }
        let Some(Applying { before, errors, done, .. }) = self.applying.take() else { return };
        // Only now: what shards gave up is placed anew.
        self.begin_paths(Some(&before));
        let result = if errors.is_empty() { Ok(()) } else { Err(errors.join("; ")) };
        let _ = done.send(result);
        self.apply_next();
    }

    /// Begins what needs nobody to ask for it, the built-in camera and sources that are always pulled, and did not run
    /// with the settings before.
    fn begin_paths(&mut self, before: Option<&Settings>) {
        let runs = |path: &PathSettings| {
            let begins = match path.source {
                Source::Demo => true,
                Source::Rtsp(_) => path.demand.is_none(),
                Source::Publisher | Source::Redirect(_) | Source::Unserved(_) => false,
            };
            begins && path.enabled
        };
        let Self { settings, registry, mesh, .. } = self;
        for path in settings.paths.exact().filter(|path| runs(path)) {
            let earlier = before.and_then(|before| before.paths.exact_entry(&path.conf_name));
            let goes_on = |earlier: &PathSettings| {
                runs(earlier) && earlier.core == path.core && earlier.source == path.source
            };
            if earlier.is_some_and(|earlier| goes_on(earlier)) {
                continue;
            }
            let pinned =
                path.core.and_then(|core| settings.engine.cores.iter().position(|&other| other == core));
            let home = registry.claim(&path.conf_name, pinned);
            mesh.send(home, Mail::Begin { path: Arc::clone(&path.conf_name) });
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // Dropped outside of the lock: a command may hold what asks again.
        let rest = self.handle.inbox.lock().take();
        drop(rest);
    }
}

#[derive(PartialEq, Eq)]
enum Next {
    GoOn,
    End,
}

/// `settings`, but with what a running relay cannot change as it is in `running`.
fn keeping_engine(settings: Arc<Settings>, running: &Settings) -> Arc<Settings> {
    let (new, now) = (&settings.engine, &running.engine);
    if (&new.cores, new.media_io, new.park) == (&now.cores, now.media_io, now.park) {
        return settings;
    }
    let mut settings = Settings::clone(&settings);
    settings.engine.cores.clone_from(&now.cores);
    (settings.engine.media_io, settings.engine.park) = (now.media_io, now.park);
    Arc::new(settings)
}

/// A shard's question in the words of the control plane.
fn asked(question: AccessQuestion, settings: &Settings) -> Question {
    let AccessQuestion { to, path, query, ip, id, user_agent, presented } = question;
    let (protocol, credentials) = match presented {
        Presented::Rtsp { authorization, method, url, nonce } => {
            let authorization = authorization.filter(|value| may_present(value, &settings.access.challenges));
            let realm = REALM.to_owned();
            (Protocol::Rtsp, Credentials::Rtsp { authorization, method, url, nonce, realm })
        }
        Presented::Web { service, authorization } => {
            let protocol = match service {
                WebService::Hls => Protocol::Hls,
            };
            (protocol, credentials::presented(authorization.as_ref()))
        }
    };
    Question {
        action: match to {
            AccessTo::Publish => Action::Publish,
            AccessTo::Read => Action::Read,
        },
        entry: settings.paths.lookup(&path).ok().map(|entry| Arc::clone(&entry.conf_name)),
        path,
        query,
        ip,
        protocol,
        id: Some(id),
        user_agent,
        credentials,
    }
}

/// Where only digests are wanted (`rtspAuthMethods`), a password that is sent anyway is not looked at. The reverse needs
/// no rule: who was not given a nonce cannot answer it.
fn may_present(authorization: &str, challenges: &[Challenge]) -> bool {
    let is_basic =
        authorization.trim_start().get(..6).is_some_and(|name| name.eq_ignore_ascii_case("basic "));
    !is_basic || challenges.contains(&Challenge::Basic)
}

#[cfg(test)]
mod tests;
