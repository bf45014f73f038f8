//! The HTTP servers that run, and those that should.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::sync::Mutex;

use super::{
    api,
    config::store::View,
    http::{Server, Site},
    metrics,
    office::Office,
    settings::{ControlSettings, HttpSettings},
};

/// The kinds of server, in the order in which they start.
const KINDS: [Kind; 2] = [
    Kind { settings: |control| control.api.as_ref(), site: api::site, router: api::router },
    Kind { settings: |control| control.metrics.as_ref(), site: metrics::site, router: metrics::router },
];

struct Kind {
    settings: fn(&ControlSettings) -> Option<&HttpSettings>,
    site: fn(HttpSettings, &ControlSettings) -> Site,
    router: fn(Arc<Office>) -> axum::Router,
}

/// See the module.
pub struct Servers {
    office: Weak<Office>,
    running: Mutex<[Option<Running>; KINDS.len()]>,
}

struct Running {
    server: Server,
    settings: HttpSettings,
    timeouts: [Duration; 2],
}

impl Servers {
    /// None yet: the first [`Self::follow`] starts them.
    pub fn new(office: &Arc<Office>) -> Self {
        Self { office: Arc::downgrade(office), running: Mutex::default() }
    }

    /// Starts, stops and replaces servers until they are those of `view`. Others are left alone.
    ///
    /// # Errors
    /// A sentence for the operator on what could not be had. The servers are then as they were, unless that cannot be
    /// had any more either.
    pub async fn follow(&self, view: &View) -> Result<(), String> {
        let Some(office) = self.office.upgrade() else { return Ok(()) };
        let control = &view.control;
        let timeouts = [control.read_timeout, control.write_timeout];
        let mut running = self.running.lock().await;
        for (kind, slot) in KINDS.iter().zip(running.iter_mut()) {
            let wanted = (kind.settings)(control);
            let same = |running: &Running| Some(&running.settings) == wanted && running.timeouts == timeouts;
            if slot.as_ref().is_some_and(same) {
                continue;
            }
            let start = |settings: &HttpSettings, control: &ControlSettings| {
                let site = (kind.site)(settings.clone(), control);
                Server::start(site, (kind.router)(Arc::clone(&office)), Arc::clone(&office))
                    .map_err(|failure| failure.to_string())
            };
            // A server whose successor cannot be is left alone.
            if let Some(settings) = wanted {
                Server::check(&(kind.site)(settings.clone(), control))
                    .map_err(|failure| failure.to_string())?;
            }
            let old = slot.take();
            let moves =
                old.as_ref().is_some_and(|old| wanted.is_some_and(|new| new.address != old.settings.address));
            // One that moves is started at its new place before the old one goes.
            let (early, old) = match (wanted, old) {
                (Some(settings), Some(old)) if moves => match start(settings, control) {
                    Ok(server) => (Some(server), Some(old)),
                    Err(reason) => {
                        *slot = Some(old);
                        return Err(reason);
                    }
                },
                (_, old) => (None, old),
            };
            let before = match old {
                Some(Running { server, settings, .. }) => {
                    server.retire().await;
                    Some(settings)
                }
                None => None,
            };
            let Some(settings) = wanted else { continue };
            let server = match early.map_or_else(|| start(settings, control), Ok) {
                Ok(server) => server,
                Err(reason) => {
                    let again = before.and_then(|settings| {
                        Some((start(&settings, &office.view().control).ok()?, settings))
                    });
                    *slot = again.map(|(server, settings)| Running { server, settings, timeouts });
                    return Err(reason);
                }
            };
            *slot = Some(Running { server, settings: settings.clone(), timeouts });
        }
        Ok(())
    }

    /// Ends all of them.
    pub async fn stop(&self) {
        let servers: Vec<_> = self.running.lock().await.iter_mut().filter_map(Option::take).collect();
        for running in servers {
            running.server.stop().await;
        }
    }
}
