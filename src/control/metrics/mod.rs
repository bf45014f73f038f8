//! `GET /metrics` (contract §3): the state of the relay in Prometheus' text format, collected anew for every scrape.
//!
//! Four sets of names: the customer's (`mediamtx_…`), MediaMTX's, those that MediaMTX has replaced but still prints,
//! and ours (`corecast_…`, `process_…`), which only a request without a filter gets.
//!
//! **Types.** Names are given: a counter of MediaMTX's has no `_total`, and `mediamtx_paths_count` ends as only
//! histograms may. Under `# TYPE … counter` or `gauge` `promtool check metrics` fails such names; it lets `untyped`
//! pass, which is also what MediaMTX's own metrics are to Prometheus, since they have no types: whoever goes by type
//! sees no change. All other metrics have their true type. One complaint of promtool is left, about the label names
//! `readerType` and `remoteAddr`, which dashboards know.
//!
//! **Sums.** MediaMTX has 23 lines for every RTSP session and 5 for every connection: with 10,000 readers more than a
//! quarter million lines, of series that live as long as a viewer does. So sessions appear in sums, one line per
//! state, connections and HLS sessions in one; `sum(rtsp_sessions)` is right either way. `?sessions=1`, `engine.metricsSessions` and
//! filters that name the category (`type=rtsp_sessions`, `rtsp_session=ID`) bring a series for each. Sums hold what
//! ended sessions have moved, and paths what their earlier streams have: none goes back.

mod families;
mod filter;
mod own;
mod process;
mod sheet;
mod snapshot;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::{
    Router,
    extract::{RawQuery, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
pub use filter::Filter;
use tokio::{sync::Semaphore, task};

use self::{sheet::Sheet, snapshot::Snapshot};
use super::{
    http::{Site, answer::page_not_found},
    office::Office,
    settings::{Action, ControlSettings, HttpSettings},
};

/// Prometheus' text format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page can be tens of megabytes long: one is made at a time.
static PAGES: Semaphore = Semaphore::const_new(1);

/// The page that `query` asks for.
pub fn render(office: &Office, query: &Filter) -> String {
    let one_by_one = query.sessions || office.view().control.metrics_sessions;
    page(&Snapshot::gather(office), query, one_by_one)
}

/// The service that [`router`] is for.
pub fn site(settings: HttpSettings, control: &ControlSettings) -> Site {
    Site {
        name: "metrics",
        action: Action::Metrics,
        cors_methods: "OPTIONS, GET",
        cors_headers: "Authorization",
        settings,
        read_timeout: control.read_timeout,
        write_timeout: control.write_timeout,
    }
}

/// All there is.
pub fn router(office: Arc<Office>) -> Router {
    let nowhere = || async { page_not_found() };
    Router::new()
        .route("/metrics", get(handler))
        .fallback(nowhere)
        .method_not_allowed_fallback(nowhere)
        .with_state(office)
}

/// `GET /metrics`, for a client that may have it.
pub async fn handler(State(office): State<Arc<Office>>, RawQuery(query): RawQuery) -> Response {
    let filter = Filter::parse(query.as_deref().unwrap_or_default());
    // The semaphore is never closed.
    let _turn = PAGES.acquire().await;
    match task::spawn_blocking(move || render(&office, &filter)).await {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// `one_by_one`: a series for each connection and session.
fn page(snapshot: &Snapshot, filter: &Filter, one_by_one: bool) -> String {
    let mut sheet = Sheet::default();
    families::write(&mut sheet, snapshot, filter, one_by_one);
    if filter.is_all() {
        own::write(&mut sheet, snapshot);
    }
    sheet.into_text()
}
