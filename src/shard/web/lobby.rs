//! What all HTTP connections of a shard share: where their requests come together, and how their servers are set up.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    sync::Arc,
    time::Instant,
};

use corecast_hub::{
    gauges::{ShardGauges, WebGauges},
    registry::ShardId,
    settings::WebSettings,
};
use http::{HeaderValue, StatusCode};
use ipnet::IpNet;

use super::{Ticket, WebRequest, WebService, origins::Origins};

/// Bytes per receive.
const SCRATCH_BYTES: usize = 16 << 10;

/// See the module. Connections have it behind an `Rc`; it never leaves its shard.
pub struct Lobby {
    pub shard: ShardId,
    /// For bytes on their way from a socket to their connection.
    pub scratch: RefCell<Vec<u8>>,
    /// Requests that have arrived and were not routed yet.
    pub arrived: RefCell<VecDeque<WebRequest>>,
    /// Requests whose clients are gone.
    pub gone: RefCell<Vec<Ticket>>,
    now: Cell<Instant>,
    sites: RefCell<[Option<Rc<Site>>; WebService::ALL.len()]>,
    gauges: Arc<ShardGauges>,
}

/// One server, as its settings have it.
pub struct Site {
    pub origins: Origins,
    pub trusted_proxies: Vec<IpNet>,
    /// Answers to preflight requests.
    pub cors_methods: HeaderValue,
    pub cors_headers: HeaderValue,
}

impl Site {
    pub fn new(service: WebService, settings: &WebSettings) -> Self {
        let (methods, headers) = match service {
            WebService::Hls => ("OPTIONS, GET", "Authorization, Range"),
        };
        Self {
            origins: Origins::new(&settings.allow_origins),
            trusted_proxies: settings.trusted_proxies.clone(),
            cors_methods: HeaderValue::from_static(methods),
            cors_headers: HeaderValue::from_static(headers),
        }
    }
}

impl Lobby {
    pub fn new(shard: ShardId, now: Instant, gauges: Arc<ShardGauges>) -> Self {
        Self {
            shard,
            scratch: RefCell::new(vec![0; SCRATCH_BYTES]),
            arrived: RefCell::default(),
            gone: RefCell::default(),
            now: Cell::new(now),
            sites: RefCell::default(),
            gauges,
        }
    }

    /// The time of this turn.
    pub fn now(&self) -> Instant {
        self.now.get()
    }

    pub fn set_now(&self, now: Instant) {
        self.now.set(now);
    }

    pub fn site(&self, service: WebService) -> Option<Rc<Site>> {
        self.sites.borrow()[service as usize].clone()
    }

    pub fn set_site(&self, service: WebService, settings: Option<&WebSettings>) {
        let site = settings.map(|settings| Rc::new(Site::new(service, settings)));
        self.sites.borrow_mut()[service as usize] = site;
    }

    pub fn gauges(&self, service: WebService) -> &WebGauges {
        match service {
            WebService::Hls => &self.gauges.hls,
        }
    }

    pub fn count_answer(&self, service: WebService, status: StatusCode) {
        self.gauges(service).count_answer(status.as_u16());
    }
}
