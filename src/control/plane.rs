//! Starts the control plane and ends it: the desk on its thread, and a runtime for everything that waits.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use corecast_hub::gauges::ShardGauges;
use tokio::runtime::{self, Runtime};

use super::{
    config::store::View,
    desk::{AuthRequest, Desk, Neighbours},
    dialer::{Dialer, SystemResolver},
    directory::Directory,
    hooks::Hooks,
    office::{Office, Plane},
    servers::Servers,
    shard_tls::ShardTls,
};
use crate::{
    observe::log,
    shard::{Mail, mesh::Mesh},
};

/// Threads for servers and authentication.
const WORKERS: usize = 2;
/// They run on the shards' cores, and only when a shard does not: a page of metrics must not make a picture late.
const OFFICE_NICE: i32 = 10;
/// How often the configuration file is looked at.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// A file that was changed is read when it has been the same for this long.
const SETTLE: Duration = Duration::from_millis(50);
const SETTLE_TRIES: u32 = 20;
/// Hooks have this long to end when the relay ends.
const HOOK_GRACE: Duration = Duration::from_secs(5);

/// The running control plane.
pub struct ControlPlane {
    runtime: Runtime,
    commands: Runtime,
    office: Arc<Office>,
    desk: Desk,
}

impl ControlPlane {
    /// Starts everything; the shards must be running, on the certificates of `shard_tls`. `file` is watched for changes.
    ///
    /// # Errors
    /// A sentence for the operator: an address that cannot be had, a system that refuses a thread.
    pub fn start(
        view: View,
        file: Option<PathBuf>,
        mesh: Mesh<Mail>,
        gauges: Vec<Arc<ShardGauges>>,
        log: log::Handle,
        shard_tls: ShardTls,
    ) -> Result<Self, String> {
        let said = |error: io::Error| format!("the control plane cannot start: {error}");
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .thread_name("office")
            .on_thread_start(|| {
                // Where it is not allowed, pages are as urgent as pictures.
                let _ = rustix::process::nice(OFFICE_NICE);
            })
            .enable_all()
            .build()
            .map_err(said)?;
        // On a thread of its own, since children inherit how urgent their parent is.
        let commands = runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("hooks")
            .enable_all()
            .build()
            .map_err(said)?;
        let directory = Arc::new(Directory::default());
        let office = Arc::new(Office::new(view, Arc::clone(&directory), gauges));
        let view = office.view();
        let hooks = Arc::new(Hooks::new(Arc::clone(&view), commands.handle().clone()));
        let (dialer, requests) = Dialer::new();
        let neighbours = Neighbours {
            directory,
            events: Box::new({
                let (office, hooks) = (Arc::clone(&office), Arc::clone(&hooks));
                move |event| {
                    hooks.on_event(event);
                    office.announce(event);
                }
            }),
            auth: Box::new({
                let (auth, runtime) = (Arc::clone(&office.auth), runtime.handle().clone());
                move |request: AuthRequest| match auth.at_once(&request.question) {
                    Some(verdict) => request.answer(verdict),
                    None => {
                        let auth = Arc::clone(&auth);
                        runtime.spawn(async move {
                            let verdict = auth.decide(request.question.clone()).await;
                            request.answer(verdict);
                        });
                    }
                }
            }),
            dial: Box::new({
                let dialer = dialer.clone();
                move |request| dialer.take(request)
            }),
        };
        let desk = Desk::start(Arc::clone(&view.settings), mesh, neighbours).map_err(said)?;
        runtime.spawn(requests.serve(view.control.dials_per_host, SystemResolver, {
            let desk = desk.handle();
            move |shard, pull, addresses| desk.dialable(shard, pull, addresses)
        }));
        let plane =
            Plane { desk: desk.handle(), hooks, log, servers: Servers::new(&office), shard_tls, dialer };
        let plane = office.open(plane);
        let follow = async {
            plane.servers.follow(&view).await?;
            plane.shard_tls.follow(&view.control).await
        };
        if let Err(reason) = runtime.block_on(follow) {
            desk.stop().map_err(said)?;
            return Err(reason);
        }
        plane.hooks.reconfigure(view);
        if let Some(file) = file {
            runtime.spawn(watch(Arc::clone(&office), file));
        }
        Ok(Self { runtime, commands, office, desk })
    }

    /// Reads the configuration file anew, in the background.
    pub fn reload(&self, why: &'static str) {
        let office = Arc::clone(&self.office);
        self.runtime.spawn(async move { office.reload(why).await });
    }

    /// Ends servers, shards and hooks. The shards are told; they have to be waited for.
    ///
    /// # Errors
    /// When the desk's thread failed.
    pub fn stop(self) -> io::Result<()> {
        let ended = self.desk.stop();
        self.runtime.block_on(self.office.close(HOOK_GRACE));
        self.runtime.shutdown_timeout(Duration::from_secs(1));
        self.commands.shutdown_timeout(Duration::from_secs(1));
        ended
    }
}

/// What tells one state of a file from another. Looking is cheap, works on every file system, and sees a link that leads
/// elsewhere now.
#[derive(PartialEq, Eq)]
struct Fingerprint {
    file: (u64, u64),
    changed: (i64, i64),
    bytes: u64,
}

fn fingerprint(file: &Path) -> Option<Fingerprint> {
    let meta = fs::metadata(file).ok()?;
    Some(Fingerprint {
        file: (meta.dev(), meta.ino()),
        changed: (meta.mtime(), meta.mtime_nsec()),
        bytes: meta.len(),
    })
}

/// Reloads whenever the file has changed. A file that is gone changes nothing.
async fn watch(office: Arc<Office>, file: PathBuf) {
    let mut known = fingerprint(&file);
    loop {
        tokio::time::sleep(WATCH_INTERVAL).await;
        let mut found = fingerprint(&file);
        if found.is_none() || found == known {
            continue;
        }
        // Somebody may still be writing; one who never ends is not waited for.
        for _ in 0..SETTLE_TRIES {
            tokio::time::sleep(SETTLE).await;
            let again = fingerprint(&file);
            if again == found {
                break;
            }
            found = again;
        }
        if found.is_some() {
            known = found;
            office.reload("file changed").await;
        }
    }
}
