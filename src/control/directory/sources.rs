//! What sources that are pulled are doing, and why they last failed.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use corecast_hub::roster::SourceState;

/// Sources that are remembered for their failure alone: whoever asks for names that exist nowhere makes one each. The
/// oldest are forgotten.
const FAILED_MAX: usize = 20_000;
/// Longest failure that is kept, bytes.
const ERROR_BYTES_MAX: usize = 512;

/// A source as it was last told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFacts {
    pub state: SourceState,
    /// Why it last failed; forgotten when it runs again.
    pub error: Option<Arc<str>>,
}

#[derive(Debug, Default)]
pub(super) struct Sources {
    known: HashMap<Arc<str>, Known>,
    /// Those that are stopped and had failed, by when.
    failed: BTreeMap<u64, Arc<str>>,
    stops: u64,
}

#[derive(Debug)]
struct Known {
    facts: SourceFacts,
    /// Its place in `failed`.
    stopped: Option<u64>,
}

impl Sources {
    /// One that is stopped without a failure is forgotten.
    pub fn changed(&mut self, path: &Arc<str>, state: SourceState, error: Option<&str>) {
        let before = self.known.remove(path);
        if let Some(stop) = before.as_ref().and_then(|known| known.stopped) {
            self.failed.remove(&stop);
        }
        let error = match (state, error) {
            (_, Some(error)) => Some(error[..error.floor_char_boundary(ERROR_BYTES_MAX)].into()),
            // The next attempt has begun, and has not ended well yet.
            (SourceState::Connecting, None) => before.and_then(|known| known.facts.error),
            (SourceState::Running | SourceState::Stopped, None) => None,
        };
        let mut stopped = None;
        if state == SourceState::Stopped {
            if error.is_none() {
                return;
            }
            self.stops += 1;
            stopped = Some(self.stops);
            self.failed.insert(self.stops, Arc::clone(path));
        }
        self.known.insert(Arc::clone(path), Known { facts: SourceFacts { state, error }, stopped });
        if self.failed.len() > FAILED_MAX
            && let Some((_, oldest)) = self.failed.pop_first()
        {
            self.known.remove(&oldest);
        }
    }

    pub fn get(&self, path: &str) -> Option<&SourceFacts> {
        self.known.get(path).map(|known| &known.facts)
    }

    /// Those that are not stopped, in no order.
    pub fn active(&self) -> impl Iterator<Item = (&Arc<str>, SourceState)> {
        let all = self.known.iter().map(|(path, known)| (path, known.facts.state));
        all.filter(|(_, state)| *state != SourceState::Stopped)
    }

    pub fn is_active(&self, path: &str) -> bool {
        self.get(path).is_some_and(|facts| facts.state != SourceState::Stopped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STOPPED: SourceState = SourceState::Stopped;

    #[test]
    fn a_failure_is_known_until_it_runs_again() {
        let mut sources = Sources::default();
        let path: Arc<str> = "cam".into();
        let mut told = |state, error| {
            sources.changed(&path, state, error);
            sources.get("cam").map(|facts| (facts.state, facts.error.as_deref().map(str::to_owned)))
        };
        let refused = || Some("refused".to_owned());
        use SourceState::{Connecting, Running};
        assert_eq!(told(Connecting, None), Some((Connecting, None)));
        assert_eq!(told(Connecting, Some("refused")), Some((Connecting, refused())));
        assert_eq!(told(Connecting, None), Some((Connecting, refused())), "it is tried again");
        assert_eq!(told(STOPPED, Some("refused")), Some((STOPPED, refused())));
        assert_eq!(told(Connecting, None), Some((Connecting, refused())));
        assert_eq!(told(Running, None), Some((Running, None)));
        assert_eq!(told(STOPPED, None), None);
        let long = "é".repeat(ERROR_BYTES_MAX);
        assert_eq!(told(Connecting, Some(&long)).unwrap().1.unwrap().len(), ERROR_BYTES_MAX);
    }

    #[test]
    fn so_many_failures_are_kept_and_no_more() {
        let mut sources = Sources::default();
        sources.changed(&"runs".into(), SourceState::Running, None);
        for n in 0..FAILED_MAX + 100 {
            sources.changed(&format!("no{n}").into(), STOPPED, Some("refused"));
        }
        assert_eq!((sources.known.len(), sources.failed.len()), (FAILED_MAX + 1, FAILED_MAX));
        assert!(sources.get("no99").is_none() && sources.get("no100").is_some());
        assert_eq!(sources.active().count(), 1);
        assert!(sources.is_active("runs") && !sources.is_active("no100"));
        for n in 0..FAILED_MAX + 100 {
            sources.changed(&format!("no{n}").into(), STOPPED, None);
        }
        assert_eq!((sources.known.len(), sources.failed.len()), (1, 0));
    }
}
