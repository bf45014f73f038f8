//! From what was written to what runs: the last stage, for a file as for an edit.

use std::{collections::BTreeMap, sync::Arc};

use corecast_hub::settings::{PathTable, Settings};

use super::{
    access, checks, conf,
    error::{At, Report},
    expand::Environment,
    ffmpeg_shape, http, legacy, path_checks, paths,
    section::{Layers, Scope},
    store::{Documents, Origin, PathConf, View},
};
use crate::control::settings::{AuthMethod, ControlSettings, Hook};

/// Most entries of `paths:`: far more than one machine serves, so that a client of the API that adds without end is
/// stopped before the memory is.
const PATHS_MAX: usize = 100_000;

/// What a view is made of.
pub(super) struct Draft<'a> {
    pub documents: Documents,
    pub paths: BTreeMap<Arc<str>, Arc<PathConf>>,
    pub globals: Globals<'a>,
    pub origin: Origin,
}

/// What the top level and the engine amount to.
pub(super) enum Globals<'a> {
    New(Box<(Settings, ControlSettings)>),
    /// As they were.
    Like(&'a View),
}

impl Globals<'_> {
    pub fn settings(&self) -> &Settings {
        match self {
            Self::New(new) => &new.0,
            Self::Like(view) => &view.settings,
        }
    }
}

/// Everything but the paths, and but for whom they let in.
pub(super) fn globals(
    documents: &Documents,
    origin: &Origin,
    before: Option<&View>,
    report: &mut Report,
) -> Globals<'static> {
    let global = Layers::new(Scope::Global, &documents.global);
    let engine = Layers::new(Scope::Engine, &documents.engine);
    let before = before.map(|view| &view.settings.engine);
    let engine_settings = conf::engine(engine, &origin.available, before, report);
    let settings = conf::settings(global, engine_settings, report);
    checks::global(global, &origin.env, report);
    let hook = |command: &str, restart: bool| Hook { command: global.text(command).to_owned(), restart };
    let control = ControlSettings {
        log: conf::log_settings(global),
        api: http::server(global, "api", report),
        metrics: http::server(global, "metrics", report),
        auth: Arc::new(access::auth(global, &origin.env, report)),
        on_connect: hook("runOnConnect", global.bool("runOnConnectRestart")),
        on_disconnect: hook("runOnDisconnect", false),
        rtsp_port: conf::rtsp_port(global),
        rtsp_tls: settings.rtsp.tls_address.map(|_| http::tls_files(global, "rtsp", report)),
        hls_tls: settings
            .hls
            .as_ref()
            .filter(|hls| hls.web.encrypted)
            .map(|_| http::tls_files(global, "hls", report)),
        dials_per_host: conf::dials_per_host(engine),
        state_dir: conf::state_dir(engine, report),
        metrics_sessions: engine.bool("metricsSessions"),
        read_timeout: settings.read_timeout,
        write_timeout: settings.write_timeout,
    };
    Globals::New(Box::new((settings, control)))
}

/// What decides whether a command is served by a pull.
pub(super) fn native<'a>(documents: &Documents, env: &'a Environment) -> ffmpeg_shape::Server<'a> {
    ffmpeg_shape::Server {
        native_pull: Layers::new(Scope::Engine, &documents.engine).bool("nativePull"),
        rtsp_port: conf::rtsp_port(Layers::new(Scope::Global, &documents.global)),
        env,
    }
}

/// Mistakes in `pathDefaults` are mistakes even while there is no path.
pub(super) fn check_defaults(documents: &Documents, cores: &[usize], env: &Environment, report: &mut Report) {
    let defaults = Layers::new(Scope::Path, &documents.path_defaults);
    legacy::check_values(defaults, env, report);
    path_checks::values(defaults, report);
    paths::core(defaults.get("core"), cores, report);
}

/// Puts the parts together: the table of paths, and whom they let in.
pub(super) fn view(draft: Draft<'_>, report: &mut Report) -> View {
    let Draft { documents, paths, globals, origin } = draft;
    let global = Layers::new(Scope::Global, &documents.global);
    let has_credentials = any_credentials(&paths);
    let (mut settings, mut control, before) = match globals {
        Globals::New(new) => (new.0, new.1, None),
        Globals::Like(view) => {
            (without_paths(&view.settings), ControlSettings::clone(&view.control), Some(view))
        }
    };
    let had_credentials = before.is_some_and(|view| any_credentials(&view.paths));
    if paths.len() > PATHS_MAX {
        report.error(
            &At::Nowhere,
            format!("more than {PATHS_MAX} paths: use entries that serve many, or remove some"),
        );
    }
    let none = PathTable::default();
    let table = before.map_or(&none, |view| &view.settings.paths);
    settings.paths = paths::table(paths.values(), table, report);
    if has_credentials || had_credentials {
        let mut auth = access::auth(global, &origin.env, report);
        if has_credentials {
            add_credentials(&mut auth.method, global, &paths, report);
        }
        control.auth = Arc::new(auth);
    }
    settings.access = access::access(global, &control.auth, report);
    View { settings: Arc::new(settings), control: Arc::new(control), paths, documents, origin }
}

fn any_credentials(paths: &BTreeMap<Arc<str>, Arc<PathConf>>) -> bool {
    paths.values().any(|path| path.credentials.is_some())
}

/// All settings but the table, which is large and about to be replaced.
fn without_paths(settings: &Settings) -> Settings {
    Settings {
        read_timeout: settings.read_timeout,
        write_timeout: settings.write_timeout,
        udp_payload_bytes_max: settings.udp_payload_bytes_max,
        udp_read_buffer_bytes: settings.udp_read_buffer_bytes,
        rtsp: settings.rtsp.clone(),
        hls: settings.hls.clone(),
        engine: settings.engine.clone(),
        access: settings.access.clone(),
        paths: Default::default(),
    }
}

fn add_credentials(
    method: &mut AuthMethod,
    global: Layers<'_>,
    paths: &BTreeMap<Arc<str>, Arc<PathConf>>,
    report: &mut Report,
) {
    match method {
        AuthMethod::Internal { users } => {
            let entries = paths.iter().map(|(key, path)| (key, path.credentials.as_ref()));
            *users = legacy::users(entries, std::mem::take(users));
        }
        AuthMethod::Http { .. } | AuthMethod::Jwt { .. } => {
            let message = "'authMethod' is not internal: credentials of paths (publishUser, readUser and their like) \
                           are not looked at";
            report.warn(global.at("authMethod"), message);
        }
    }
}
