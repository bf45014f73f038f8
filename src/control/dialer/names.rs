//! The addresses of hosts. Each name is asked about by one look-up at a time, however many wait for it, and what came of
//! it is remembered for a while; one that hangs is waited for no longer than its limit, and only by who wants that name.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, timeout},
};

use super::turns::Place;

/// A name that is not resolved by then is given up.
const LOOKUP_MAX: Duration = Duration::from_secs(5);
/// Answers are good for so long, and failures.
const ANSWER_KEPT: Duration = Duration::from_secs(10);
const FAILURE_KEPT: Duration = Duration::from_secs(2);
/// Look-ups at a time. The system's take a thread each, of which the control plane has twice as many.
const LOOKUPS_MAX: usize = 256;
/// Names that are remembered, beside those that are being asked about.
const NAMES_MAX: usize = 4096;
/// Addresses of a host that are tried.
const ADDRESSES_MAX: usize = 8;

/// Finds the addresses of a host.
pub trait Resolve: Send + Sync + 'static {
    fn resolve(&self, host: &str) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send;
}

/// As this host is configured.
#[derive(Debug, Clone, Copy)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    async fn resolve(&self, host: &str) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((host, 0)).await?.collect())
    }
}

type Outcome = Result<Arc<[SocketAddr]>, String>;

/// What came of a look-up.
#[derive(Debug, Clone)]
struct Known {
    outcome: Outcome,
    until: Instant,
}

impl Known {
    fn new(outcome: Outcome) -> Self {
        let kept = if outcome.is_ok() { ANSWER_KEPT } else { FAILURE_KEPT };
        Self { outcome, until: Instant::now() + kept }
    }
}

/// Its sender lives as long as the look-up.
type Seen = watch::Receiver<Option<Known>>;

fn is_good(known: &Option<Known>) -> bool {
    known.as_ref().is_some_and(|known| known.until > Instant::now())
}

fn is_running(seen: &Seen) -> bool {
    seen.has_changed().is_ok()
}

/// See the module.
pub struct Names<R> {
    resolver: Arc<R>,
    table: Mutex<HashMap<Arc<str>, Seen>>,
    lookups: Arc<Semaphore>,
}

impl<R: Resolve> Names<R> {
    pub fn new(resolver: R) -> Self {
        Self {
            resolver: Arc::new(resolver),
            table: Mutex::default(),
            lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)),
        }
    }

    /// Where to connect to, in the order in which to try. Takes five seconds at most.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub async fn addresses(&self, place: &Place) -> Result<Vec<SocketAddr>, String> {
        if let Ok(ip) = place.host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, place.port)]);
        }
        let mut seen = self.look_up(&place.host);
        let known = match seen.wait_for(is_good).await {
            Ok(known) => known.as_ref().map(|known| known.outcome.clone()),
            Err(_) => None,
        };
        let found = known.unwrap_or_else(|| Err(format!("the look-up of {} broke off", place.host)))?;
        let with_port = |address: &SocketAddr| {
            let mut address = *address;
            address.set_port(place.port);
            address
        };
        Ok(found.iter().map(with_port).collect())
    }

    /// What is known of a name, or will be.
    fn look_up(&self, host: &Arc<str>) -> Seen {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seen) = table.get(host)
            && (is_running(seen) || is_good(&seen.borrow()))
        {
            return seen.clone();
        }
        if table.len() >= NAMES_MAX {
            table.retain(|_, seen| is_running(seen) || is_good(&seen.borrow()));
            if table.len() >= NAMES_MAX {
                table.retain(|_, seen| is_running(seen));
            }
        }
        let (say, seen) = watch::channel(None);
        table.insert(Arc::clone(host), seen.clone());
        let (host, resolver) = (Arc::clone(host), Arc::clone(&self.resolver));
        let lookups = Arc::clone(&self.lookups);
        tokio::spawn(async move {
            let mut lookup = pin!(async {
                let _turn = lookups.acquire().await;
                resolver.resolve(&host).await
            });
            let found = loop {
                match timeout(LOOKUP_MAX, &mut lookup).await {
                    Ok(found) => break found,
                    // The system's own goes on in its thread, so that a second one would only take another.
                    Err(_) => {
                        let seconds = LOOKUP_MAX.as_secs();
                        let reason = format!("the name {host} was not resolved within {seconds} seconds");
                        say.send_replace(Some(Known::new(Err(reason))));
                    }
                }
            };
            let outcome = match found.map(interleaved) {
                Ok(addresses) if addresses.is_empty() => Err(format!("the name {host} has no addresses")),
                Ok(addresses) => Ok(addresses.into()),
                Err(error) => Err(format!("the name {host} cannot be resolved: {error}")),
            };
            say.send_replace(Some(Known::new(outcome)));
        });
        seen
    }
}

/// The two families in turn, beginning with that of the first (RFC 8305 §4): a host of which one does not work is
/// reached by the second attempt.
fn interleaved(found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = found.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut all = Vec::new();
    while all.len() < ADDRESSES_MAX {
        let turn = if all.len() % 2 == 0 { (&mut first, &mut second) } else { (&mut second, &mut first) };
        match turn.0.next().or_else(|| turn.1.next()) {
            Some(address) => all.push(address),
            None => break,
        }
    }
    all
}
