//! Checks of argon2 hashes, which take a core and much memory for a while each: few at a time, on threads of their own,
//! and none twice for what was right a moment ago.

use std::time::{Duration, Instant};

use argon2::{Argon2, PasswordVerifier as _, password_hash::phc::PasswordHash};
use tokio::sync::Semaphore;

use super::remembered::Remembered;

/// Checks at a time.
const RUNNING_MAX: usize = 2;
/// Checks that run or wait for their turn.
const PLACES: usize = 1024;
/// A check waits for its turn at most this long.
const TURN_WAIT_MAX: Duration = Duration::from_secs(10);

/// See the module.
pub(super) struct Hashes {
    places: Semaphore,
    running: Semaphore,
    right: Remembered,
}

/// Why a hash was not checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unchecked {
    /// There is too much to check.
    Busy,
    /// Nobody wants to know any more.
    GivenUp,
}

impl Default for Hashes {
    fn default() -> Self {
        Self {
            places: Semaphore::new(PLACES),
            running: Semaphore::new(RUNNING_MAX),
            right: Remembered::default(),
        }
    }
}

impl Hashes {
    /// Whether it was found lately that `secret` is what the PHC string was made of.
    pub(super) fn remember(&self, phc: &str, secret: &str) -> bool {
        self.right.knows(&[phc, secret], Instant::now())
    }

    /// Whether `secret` is what the PHC string was made of. `given_up` is asked when its turn has come: meanwhile it
    /// may not be worth the effort any more.
    pub(super) async fn check(
        &self,
        phc: &str,
        secret: &str,
        given_up: &(impl Fn() -> bool + Sync),
    ) -> Result<bool, Unchecked> {
        let _place = self.places.try_acquire().map_err(|_| Unchecked::Busy)?;
        let turn = tokio::time::timeout(TURN_WAIT_MAX, self.running.acquire()).await;
        let Ok(Ok(_turn)) = turn else { return Err(Unchecked::Busy) };
        // Of many that come with the same password, one is checked.
        if self.remember(phc, secret) {
            return Ok(true);
        }
        if given_up() {
            return Err(Unchecked::GivenUp);
        }
        let (hash, given) = (phc.to_owned(), secret.to_owned());
        let checked = tokio::task::spawn_blocking(move || {
            PasswordHash::new(&hash)
                .is_ok_and(|hash| Argon2::default().verify_password(given.as_bytes(), &hash).is_ok())
        });
        let right = checked.await.map_err(|_| Unchecked::Busy)?;
        if right {
            self.right.remember(&[phc, secret], Instant::now());
        }
        Ok(right)
    }
}
