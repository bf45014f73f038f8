//! The control thread: owns the registry of paths, answers the shards' questions, starts the built-in cameras.

use std::{
    io,
    os::fd::AsRawFd,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use corecast_hub::{
    registry::Registry,
    settings::{Settings, Source},
};

use crate::shard::{
    Mail,
    media_io::{BackendKind, MediaIo, WakeFd},
    mesh::Mesh,
};

/// How long the thread sleeps at most; mail wakes it at once.
const NAP: Duration = Duration::from_secs(1);

/// A shard that takes no mail for this many milliseconds is not waited for at the end.
const STOP_TRIES: u32 = 2000;

/// The running control thread.
pub struct Desk {
    thread: JoinHandle<io::Result<()>>,
    stop: Arc<WakeFd>,
}

impl Desk {
    /// Starts the thread. The shards must be running.
    ///
    /// # Errors
    /// When the system refuses a thread or a descriptor.
    pub fn start(settings: Arc<Settings>, mesh: Mesh<Mail>) -> io::Result<Self> {
        let stop = Arc::new(WakeFd::new()?);
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || run(&settings, mesh, &stopped))?;
        Ok(Self { thread, stop })
    }

    /// Tells every shard to end, and ends.
    ///
    /// # Errors
    /// When the thread failed.
    pub fn stop(self) -> io::Result<()> {
        self.stop.ring();
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("the control thread panicked")))
    }
}

const MAIL: u64 = 1;
const STOP: u64 = 2;

fn run(settings: &Settings, mut mesh: Mesh<Mail>, stop: &WakeFd) -> io::Result<()> {
    // Not the media plane, but the same small loop serves: readiness of two descriptors.
    let mut io = MediaIo::new(BackendKind::Epoll)?;
    io.watch(mesh.wake_fd().as_raw_fd(), MAIL)?;
    io.watch(stop.as_raw_fd(), STOP)?;
    let mut registry = Registry::new(mesh.others().count());
    start_demos(settings, &mut registry, &mut mesh);
    let mut events = Vec::new();
    loop {
        while let Some((shard, mail)) = mesh.take() {
            answer(&mut registry, &mut mesh, shard, mail);
        }
        let waits = mesh.flush();
        let nap = match (mesh.about_to_sleep(), waits) {
            (false, _) => Duration::ZERO,
            (true, true) => Duration::from_millis(1),
            (true, false) => NAP,
        };
        events.clear();
        io.wait(Some(nap), &mut events)?;
        mesh.awake();
        for event in &events {
            match event {
                crate::shard::media_io::Event::Readable(MAIL) => mesh.wake_fd().reset(),
                crate::shard::media_io::Event::Readable(STOP) => {
                    for shard in mesh.others() {
                        mesh.send(shard, Mail::Stop);
                    }
                    for _ in 0..STOP_TRIES {
                        if !mesh.flush() {
                            break;
                        }
                        thread::sleep(Duration::from_millis(1));
                    }
                    return Ok(());
                }
                _ => {}
            }
        }
    }
}

fn answer(registry: &mut Registry, mesh: &mut Mesh<Mail>, shard: usize, mail: Mail) {
    match mail {
        Mail::Claim { path, pinned, connection } => {
            let home = registry.claim(&path, pinned);
            mesh.send(shard, Mail::Home { connection, path, home });
        }
        Mail::Release { path, claims } => registry.release(&path, claims),
        Mail::Load { permille } => registry.measured(shard, permille),
        // Mail between shards, and to them.
        Mail::Home { .. }
        | Mail::Orphan { .. }
        | Mail::Connection(_)
        | Mail::Heard { .. }
        | Mail::Demo { .. }
        | Mail::Stop => {}
    }
}

fn start_demos(settings: &Settings, registry: &mut Registry, mesh: &mut Mesh<Mail>) {
    for path in settings.paths.exact().filter(|path| path.source == Source::Demo) {
        let pinned = path.core.and_then(|core| settings.engine.cores.iter().position(|&other| other == core));
        let home = registry.claim(&path.conf_name, pinned);
        mesh.send(home, Mail::Demo { path: Arc::clone(&path.conf_name) });
    }
}
