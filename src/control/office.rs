//! What the servers of the control plane share, and the one place where a change of the configuration takes effect.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use corecast_hub::gauges::ShardGauges;
use tokio::sync::{Mutex, broadcast};
use tracing::{error, info, warn};
use uuid::Uuid;

use super::{
    auth::Auth,
    config::store::{self, Edit, EditError, View},
    desk::DeskHandle,
    dialer::Dialer,
    directory::{Directory, Event},
    hooks::Hooks,
    servers::Servers,
    shard_tls::ShardTls,
};
use crate::{observe::log, shard::boot};

/// Events that a slow listener of `GET /v3/events` may be behind before it misses some.
const EVENTS_KEPT: usize = 4096;

/// See the module.
pub struct Office {
    pub started: SystemTime,
    pub directory: Arc<Directory>,
    pub auth: Arc<Auth>,
    /// By shard.
    pub gauges: Vec<Arc<ShardGauges>>,
    view: ArcSwap<View>,
    events: broadcast::Sender<Event>,
    /// Held while the configuration changes: one change at a time.
    changing: Arc<Mutex<()>>,
    reloads: ArcSwap<ReloadStatus>,
    /// Nobody has to be told of a change before the relay runs.
    plane: OnceLock<Plane>,
}

/// Those who have to be told when the configuration changes.
pub struct Plane {
    pub desk: DeskHandle,
    pub hooks: Arc<Hooks>,
    pub log: log::Handle,
    pub servers: Servers,
    pub shard_tls: ShardTls,
    pub dialer: Dialer,
}

/// How reading the file anew went. A change through the API does not mend a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReloadStatus {
    /// The last attempt.
    pub success: bool,
    /// When the file was last put into effect.
    pub at: SystemTime,
}

impl Office {
    pub fn new(view: View, directory: Arc<Directory>, gauges: Vec<Arc<ShardGauges>>) -> Self {
        let started = SystemTime::now();
        let (events, _) = broadcast::channel(EVENTS_KEPT);
        Self {
            started,
            directory,
            auth: Arc::new(Auth::new(Arc::clone(&view.control.auth))),
            gauges,
            view: ArcSwap::from_pointee(view),
            events,
            changing: Arc::default(),
            reloads: ArcSwap::from_pointee(ReloadStatus { success: true, at: started }),
            plane: OnceLock::new(),
        }
    }

    /// The relay runs: changes have to be told to `plane` from now on.
    pub fn open(&self, plane: Plane) -> &Plane {
        self.plane.get_or_init(|| plane)
    }

    pub fn plane(&self) -> Option<&Plane> {
        self.plane.get()
    }

    /// The configuration that is in effect.
    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Tells listeners of [`Self::events`]. Never waits.
    pub fn announce(&self, event: &Event) {
        if self.events.receiver_count() > 0 {
            // It fails when the last listener has just left.
            let _ = self.events.send(event.clone());
        }
    }

    pub fn reload_status(&self) -> ReloadStatus {
        **self.reloads.load()
    }

    /// Closes a session; false when there is no such. Returns when it is gone.
    pub async fn kick(&self, session: Uuid) -> bool {
        match self.plane() {
            Some(plane) => plane.desk.kick(session).await,
            None => false,
        }
    }

    /// Returns when the directory knows all that has happened by now.
    pub async fn settle(&self) {
        if let Some(plane) = self.plane() {
            plane.desk.settle().await;
        }
    }

    /// Changes the configuration; returns when every shard and server goes by it.
    ///
    /// # Errors
    /// Nothing was changed.
    pub async fn edit(self: &Arc<Self>, edits: &[Edit]) -> Result<(), EditError> {
        let changing = Arc::clone(&self.changing).lock_owned().await;
        let before = self.view();
        let view = before.edited(edits)?;
        info!("reloading configuration (API request)");
        let pulled = before.newly_pulled(&view);
        if !pulled.is_empty() {
            info!("{pulled}");
        }
        // Once begun it is carried through, whether or not the client waits for it.
        let office = Arc::clone(self);
        let work = tokio::spawn(async move {
            let _changing = changing;
            office.put_into_effect(view).await
        });
        work.await.unwrap_or_else(|failure| Err(failure.to_string())).map_err(EditError::Invalid)
    }

    /// Reads the file anew and changes what it changes. A file that cannot be is said in the log, and the old
    /// configuration goes on. `why` is for the log.
    pub async fn reload(&self, why: &str) {
        info!("reloading configuration ({why})");
        let _changing = self.changing.lock().await;
        let view = self.view();
        let loaded = tokio::task::spawn_blocking(move || view.reload()).await;
        let result = match loaded {
            Ok(Ok(loaded)) => {
                loaded.warnings.iter().for_each(|warning| warn!("{warning}"));
                self.put_into_effect(loaded.view).await
            }
            Ok(Err(errors)) => Err(errors.to_string()),
            Err(failure) => Err(failure.to_string()),
        };
        let status = match result {
            Ok(()) => ReloadStatus { success: true, at: SystemTime::now() },
            Err(reason) => {
                error!("the configuration was not reloaded, the old one goes on: {reason}");
                ReloadStatus { success: false, at: self.reload_status().at }
            }
        };
        self.reloads.store(Arc::new(status));
    }

    /// All or nothing: what could not be had is a sentence for the operator, and all is as it was.
    async fn put_into_effect(&self, view: View) -> Result<(), String> {
        let (old, view) = (self.view(), Arc::new(view));
        if let Some(plane) = self.plane() {
            let changes = old.diff(&view);
            let of_paths = changes.of_paths();
            if !of_paths.is_empty() {
                info!("{of_paths}");
            }
            if !changes.needs_restart.is_empty() {
                warn!(
                    "changed, and not in effect before the next start: {}",
                    changes.needs_restart.join(", ")
                );
            }
            let (settings, held) = (Arc::clone(&view.settings), Arc::clone(&old.settings));
            let free =
                tokio::task::spawn_blocking(move || boot::check_addresses(&settings, Some(&held))).await;
            free.map_err(|failure| failure.to_string())?.map_err(|taken| taken.to_string())?;
            if let Err(reason) = self.go_over_to(plane, &view).await {
                if let Err(failure) = self.go_over_to(plane, &old).await {
                    error!("the old configuration could not be taken up again in full: {failure}");
                }
                return Err(reason);
            }
            plane.hooks.reconfigure(Arc::clone(&view));
            plane.dialer.set_per_host(view.control.dials_per_host);
            if changes.log {
                let (log, settings) = (plane.log.clone(), view.control.log.clone());
                // A destination that is stuck is given time to take its last lines.
                let result = tokio::task::spawn_blocking(move || log.reconfigure(&settings)).await;
                if let Ok(Err(failure)) = result {
                    warn!("the log goes on as before: {failure}");
                }
            }
        }
        self.view.store(Arc::clone(&view));
        let saved = tokio::task::spawn_blocking(move || store::save_state(&view)).await;
        if let Ok(Err(failure)) = saved {
            warn!("paths of the API are not kept over a restart: engine.stateDir: {failure}");
        }
        Ok(())
    }

    /// What may fail of a change, in an order in which none of it is needed before it is there. May end half-way.
    async fn go_over_to(&self, plane: &Plane, view: &View) -> Result<(), String> {
        plane.servers.follow(view).await?;
        // Before a shard listens that needs it.
        plane.shard_tls.follow(&view.control).await?;
        // Before the shards ask by the new rules.
        self.auth.reconfigure(Arc::clone(&view.control.auth));
        plane.desk.apply(Arc::clone(&view.settings)).await
    }

    /// Ends servers and hooks. What runs as a hook has `grace` to end.
    pub async fn close(&self, grace: Duration) {
        let Some(plane) = self.plane() else { return };
        plane.servers.stop().await;
        plane.hooks.shutdown(grace).await;
    }
}
