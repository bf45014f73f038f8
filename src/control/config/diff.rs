//! What a new configuration touches, so that a reload restarts nothing else.

use std::sync::Arc;

use corecast_hub::settings::{BroughtBy, Source};

use super::{
    ffmpeg_shape,
    store::{PathConf, View},
};

/// What differs between two views. Whatever is not named here is swapped without anybody noticing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    pub log: bool,
    pub api: bool,
    pub metrics: bool,
    /// Who may do what, or how they are asked.
    pub auth: bool,
    /// Where RTSP listens, over what, and with which certificate.
    pub rtsp: bool,
    /// The HLS server, what it serves, or its certificate.
    pub hls: bool,
    /// Commands of the top level: `runOnConnect` and its opposite.
    pub connect_hooks: bool,
    /// Keys whose new value waits for a restart of the program.
    pub needs_restart: Vec<&'static str>,
    /// Keys of `paths:`, in order.
    pub paths_added: Vec<Arc<str>>,
    pub paths_removed: Vec<Arc<str>>,
    /// What the shards know of them differs.
    pub paths_changed: Vec<Arc<str>>,
    /// Their commands differ, whether or not they are in [`Self::paths_changed`].
    pub hooks_changed: Vec<Arc<str>>,
}

impl Changes {
    /// What an operator reads of it: `paths: 2 added, 1 changed`; empty when no path is touched.
    pub fn of_paths(&self) -> String {
        let counts = [
            (self.paths_added.len(), "added"),
            (self.paths_removed.len(), "removed"),
            (self.paths_changed.len(), "changed"),
        ];
        let told: Vec<_> = counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        if told.is_empty() { String::new() } else { format!("paths: {}", told.join(", ")) }
    }
}

impl View {
    /// What is different in `new`.
    pub fn diff(&self, new: &Self) -> Changes {
        let (old_control, new_control) = (&*self.control, &*new.control);
        let (old, now) = (&*self.settings, &*new.settings);
        let mut changes = Changes {
            log: old_control.log != new_control.log,
            api: old_control.api != new_control.api,
            metrics: old_control.metrics != new_control.metrics,
            auth: old_control.auth != new_control.auth || old.access != now.access,
            rtsp: old.rtsp != now.rtsp
                || old.udp_read_buffer_bytes != now.udp_read_buffer_bytes
                || old_control.rtsp_tls != new_control.rtsp_tls,
            hls: old.hls != now.hls || old_control.hls_tls != new_control.hls_tls,
            connect_hooks: (&old_control.on_connect, &old_control.on_disconnect)
                != (&new_control.on_connect, &new_control.on_disconnect),
            ..Changes::default()
        };
        let at_start_only = [
            ("engine.cores", old.engine.cores != now.engine.cores),
            ("engine.mediaIo", old.engine.media_io != now.engine.media_io),
            ("engine.park", old.engine.park != now.engine.park),
        ];
        changes.needs_restart =
            at_start_only.into_iter().filter(|(_, is_changed)| *is_changed).map(|(key, _)| key).collect();
        self.diff_paths(new, &mut changes);
        changes
    }

    /// What an operator is to know of commands of `new` that are served by a pull and were not here; empty when there are
    /// none. One sentence, however many there are.
    pub fn newly_pulled(&self, new: &Self) -> String {
        let is_pulled = |path: &PathConf| {
            let by_demand = path.settings.demand.as_ref().map(|demand| &demand.brought_by);
            path.settings.source == Source::Publisher && matches!(by_demand, Some(BroughtBy::Pull(_)))
        };
        let was_pulled = |key: &Arc<str>| self.paths.get(key).is_some_and(|path| is_pulled(path));
        let mut newly = new.paths.iter().filter(|(key, path)| is_pulled(path) && !was_pulled(key));
        let Some((first, _)) = newly.next() else { return String::new() };
        let notice = ffmpeg_shape::notice(first);
        match newly.count() {
            0 => notice,
            more => format!("{notice} (and {more} more)"),
        }
    }

    /// Both maps are in order: one pass over each.
    fn diff_paths(&self, new: &Self, changes: &mut Changes) {
        let mut before = self.paths.iter().peekable();
        for (key, path) in &new.paths {
            while let Some((gone, _)) = before.next_if(|(old, _)| *old < key) {
                changes.paths_removed.push(Arc::clone(gone));
            }
            let Some((_, old)) = before.next_if(|(old, _)| *old == key) else {
                changes.paths_added.push(Arc::clone(key));
                continue;
            };
            if Arc::ptr_eq(old, path) {
                continue;
            }
            if old.settings != path.settings {
                changes.paths_changed.push(Arc::clone(key));
            }
            if old.hooks != path.hooks {
                changes.hooks_changed.push(Arc::clone(key));
            }
        }
        changes.paths_removed.extend(before.map(|(gone, _)| Arc::clone(gone)));
    }
}
