//! The key set of `authMethod: jwt` (RFC 7517): fetched when it is first needed, and anew when it is old or does not hold
//! the key of a token.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse},
};
use serde_json::Value;
use tokio::sync::Mutex;

use super::{complaints::Complaints, web};

/// A key set is fetched anew after this long.
const LIFETIME: Duration = Duration::from_secs(60 * 60);
/// A failure is believed for this long.
const FAILURE_LIFETIME: Duration = Duration::from_secs(5);
/// Fetches for the sake of keys that are not known are so far apart.
const SEARCH_INTERVAL: Duration = Duration::from_secs(10);
const BODY_BYTES_MAX: usize = 1 << 20;
const KEYS_MAX: usize = 100;

/// See the module.
pub(super) struct Keys {
    url: String,
    web: web::Web,
    known: ArcSwapOption<KeySet>,
    /// Held while the set is fetched: once, however many need it.
    fetching: Mutex<Attempt>,
    complaints: Complaints,
}

#[derive(Default)]
struct Attempt {
    last: Option<Instant>,
    failed: Option<(Instant, String)>,
}

pub(super) struct KeySet {
    keys: Vec<Key>,
    fetched: Instant,
}

pub(super) struct Key {
    id: Option<String>,
    /// Those that the key is for, and no others: a public key must not be taken for a shared secret.
    algorithms: Vec<Algorithm>,
    pub(super) key: DecodingKey,
}

impl KeySet {
    fn is_fresh(&self, now: Instant) -> bool {
        now.duration_since(self.fetched) < LIFETIME
    }

    /// Whether there is a key with this id. A token that names none may be of any.
    pub(super) fn has(&self, id: Option<&str>) -> bool {
        id.is_none() || self.keys.iter().any(|key| key.id.as_deref() == id)
    }

    pub(super) fn candidates(&self, id: Option<&str>, algorithm: Algorithm) -> impl Iterator<Item = &Key> {
        self.keys.iter().filter(move |key| {
            (id.is_none() || key.id.as_deref() == id) && key.algorithms.contains(&algorithm)
        })
    }
}

impl Keys {
    pub(super) fn new(url: &str, fingerprint: Option<[u8; 32]>, timeout: Duration) -> Self {
        Self {
            url: url.to_owned(),
            web: web::Web::new(url, fingerprint, timeout),
            known: ArcSwapOption::empty(),
            fetching: Mutex::default(),
            complaints: Complaints::default(),
        }
    }

    /// The set, no older than it may be.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub(super) async fn get(&self) -> Result<Arc<KeySet>, String> {
        if let Some(fresh) = self.fresh() {
            return Ok(fresh);
        }
        let mut attempt = self.fetching.lock().await;
        if let Some(fresh) = self.fresh() {
            return Ok(fresh);
        }
        if let Some((at, reason)) = &attempt.failed
            && at.elapsed() < FAILURE_LIFETIME
        {
            return Err(reason.clone());
        }
        self.fetch(&mut attempt).await
    }

    /// The set, fetched for the sake of a key that `old` does not hold; `old` when that was tried a moment ago.
    pub(super) async fn search(&self, old: Arc<KeySet>) -> Arc<KeySet> {
        let mut attempt = self.fetching.lock().await;
        match self.known.load_full() {
            // Somebody else has fetched it meanwhile.
            Some(known) if !Arc::ptr_eq(&known, &old) => known,
            _ if attempt.last.is_some_and(|last| last.elapsed() < SEARCH_INTERVAL) => old,
            _ => self.fetch(&mut attempt).await.unwrap_or(old),
        }
    }

    /// Fetches the set whatever is known.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub(super) async fn refresh(&self) -> Result<(), String> {
        let mut attempt = self.fetching.lock().await;
        self.fetch(&mut attempt).await.map(drop)
    }

    fn fresh(&self) -> Option<Arc<KeySet>> {
        self.known.load_full().filter(|known| known.is_fresh(Instant::now()))
    }

    async fn fetch(&self, attempt: &mut Attempt) -> Result<Arc<KeySet>, String> {
        attempt.last = Some(Instant::now());
        match self.request().await {
            Ok(keys) => {
                attempt.failed = None;
                let set = Arc::new(KeySet { keys, fetched: Instant::now() });
                self.known.store(Some(Arc::clone(&set)));
                Ok(set)
            }
            Err(reason) => {
                let reason = format!("the key set (authJWTJWKS) cannot be had: {reason}");
                self.complaints.say(&reason);
                attempt.failed = Some((Instant::now(), reason.clone()));
                Err(reason)
            }
        }
    }

    async fn request(&self) -> Result<Vec<Key>, String> {
        let response = self.web.client()?.get(&self.url).send().await.map_err(web::reason)?;
        let status = response.status();
        if !status.is_success() {
            return Err(format!("its server answered {}", status.as_u16()));
        }
        let body = web::body(response, BODY_BYTES_MAX).await.map_err(web::reason)?;
        parse(&body)
    }
}

/// Keys that cannot be used (of other kinds, for encryption) are left out.
fn parse(body: &[u8]) -> Result<Vec<Key>, String> {
    let set: Value = serde_json::from_slice(body).map_err(|error| format!("it is no JSON: {error}"))?;
    let keys = set.get("keys").and_then(Value::as_array).ok_or("it has no list 'keys'")?;
    let keys: Vec<_> = keys.iter().take(KEYS_MAX).filter_map(key).collect();
    if keys.is_empty() {
        return Err("it holds no key that can be used".to_owned());
    }
    Ok(keys)
}

fn key(value: &Value) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(value.clone()).ok()?;
    if jwk.common.public_key_use.as_ref().is_some_and(|purpose| *purpose != PublicKeyUse::Signature) {
        return None;
    }
    let mut algorithms = algorithms(&jwk.algorithm);
    if let Some(named) = jwk.common.key_algorithm {
        let named = Algorithm::try_from(named).ok()?;
        algorithms.retain(|algorithm| *algorithm == named);
    }
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    (!algorithms.is_empty()).then_some(Key { id: jwk.common.key_id, algorithms, key })
}

fn algorithms(parameters: &AlgorithmParameters) -> Vec<Algorithm> {
    use Algorithm::{ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512};
    match parameters {
        AlgorithmParameters::RSA(_) => vec![RS256, RS384, RS512, PS256, PS384, PS512],
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => vec![ES256],
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P384 => vec![ES384],
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => vec![EdDSA],
        AlgorithmParameters::OctetKey(_) => vec![HS256, HS384, HS512],
        _ => Vec::new(),
    }
}
