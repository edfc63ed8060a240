//! Which schedule a kernel of a run has. A stored winner may take longer to compile than it saves in many runs: such a
//! one waits, its kernel having the default meanwhile, until it is compiled between two runs (`background`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::gpu::Device;
use crate::kernel::{Caps, KernelSpec, Schedule, broken_rule, default_schedule};
use crate::tune::{Key, Platform, Store};

/// A stored winner that is to be compiled before runs use it.
#[derive(Clone, Debug, PartialEq)]
pub struct Waiting {
    pub key: Key,
    pub schedule: Schedule,
}

/// How far a winner is that had to wait.
enum Standing {
    /// Somebody will compile it.
    Taken,
    /// Runs use it.
    Ready,
}

/// The stored winners of a session.
pub struct Winners {
    store: Arc<Mutex<Store>>,
    platform: Platform,
    /// Whether all are used from the first run on.
    at_once: bool,
    standings: Mutex<HashMap<Key, Standing>>,
}

impl Winners {
    pub fn new(store: &Arc<Mutex<Store>>, device: &Device, at_once: bool) -> Winners {
        let platform = Platform::from(device.info());
        Winners { store: store.clone(), platform, at_once, standings: Mutex::default() }
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        // Records are added whole: a panic between two of them does no harm.
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn standings(&self) -> MutexGuard<'_, HashMap<Key, Standing>> {
        self.standings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The schedule that was measured to be the fastest, where there is one, it is legal here and need not wait; else the
    /// default, with what waits.
    pub fn choose(&self, spec: &KernelSpec, sizes: &[i64], caps: &Caps) -> (Schedule, Option<Waiting>) {
        let default = default_schedule(spec, sizes, caps);
        let store = self.store();
        if store.is_empty() {
            return (default, None);
        }
        let key = Key::new(spec, sizes, &self.platform);
        let Some(record) = store.get(&key) else { return (default, None) };
        let Some(winner) = record.winner().map(|trial| trial.schedule.clone()) else {
            return (default, None);
        };
        if winner == default || broken_rule(spec, &winner, sizes, caps).is_some() {
            return (default, None);
        }
        let is_ready = || matches!(self.standings().get(&key), Some(Standing::Ready));
        if self.at_once || record.pays_at_once() || is_ready() {
            return (winner, None);
        }
        (default, Some(Waiting { key, schedule: winner }))
    }

    /// Those of `waiting` that nobody has taken on yet; they are the caller's from now on.
    pub fn take(&self, waiting: &[Waiting]) -> Vec<Waiting> {
        let mut standings = self.standings();
        let mut is_new = |one: &&Waiting| {
            let is_new = !standings.contains_key(&one.key);
            if is_new {
                standings.insert(one.key.clone(), Standing::Taken);
            }
            is_new
        };
        waiting.iter().filter(|one| is_new(one)).cloned().collect()
    }

    /// Runs may use the winner of this key: it is compiled.
    pub fn ready(&self, key: &Key) {
        self.standings().insert(key.clone(), Standing::Ready);
    }

    /// What was taken and not compiled waits again.
    pub fn give_back(&self, key: &Key) {
        self.standings().remove(key);
    }

    /// A winner does not work here: the store is told, and the next best has to wait in its turn.
    ///
    /// # Errors
    /// [`Error::Io`] where the store's file cannot be written.
    pub fn fail(&self, key: &Key, schedule: &Schedule, label: &str, error: &Error) -> Result<()> {
        tracing::warn!(
            kernel = label, %schedule, %error,
            "a stored winner does not work here; the next best takes its place"
        );
        self.give_back(key);
        self.store().fail(key, schedule, &error.to_string())
    }

    /// The key of a kernel here.
    pub fn key(&self, spec: &KernelSpec, sizes: &[i64]) -> Key {
        Key::new(spec, sizes, &self.platform)
    }
}
