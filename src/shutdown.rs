//! Shutdown as an argument: who works looks here, who decides calls [`Shutdown::request`].

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// How urgent it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Running,
    Draining,
    Aborted,
}

/// Shared by everything that runs until told to stop. First request: drain. Second: abort.
#[derive(Clone, Debug)]
pub struct Shutdown {
    state: Arc<(Mutex<Stage>, Condvar)>,
}

impl Default for Shutdown {
    fn default() -> Self {
        Shutdown { state: Arc::new((Mutex::new(Stage::Running), Condvar::new())) }
    }
}

impl Shutdown {
    /// Asks for a drain; asked again, for an end without one.
    pub fn request(&self) {
        self.advance(|stage| if stage == Stage::Running { Stage::Draining } else { Stage::Aborted });
    }

    /// Asks for an end without a drain.
    pub fn abort(&self) {
        self.advance(|_| Stage::Aborted);
    }

    fn advance(&self, next: impl FnOnce(Stage) -> Stage) {
        let (stage, changed) = &*self.state;
        let mut stage = stage.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *stage = next(*stage);
        changed.notify_all();
    }

    fn stage(&self) -> Stage {
        *self.state.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Whether an end was asked for. A lock, taken once per batch.
    pub fn is_requested(&self) -> bool {
        self.stage() > Stage::Running
    }

    /// Whether the end shall not wait for the drain.
    pub fn is_aborted(&self) -> bool {
        self.stage() == Stage::Aborted
    }

    /// Sleeps up to `time`, less if an end is asked for; tells whether it is.
    pub fn wait(&self, time: Duration) -> bool {
        let (stage, changed) = &*self.state;
        let deadline = Instant::now() + time;
        let mut stage = stage.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        while *stage == Stage::Running {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            stage = changed.wait_timeout(stage, left).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_request_aborts() {
        let shutdown = Shutdown::default();
        assert!(!shutdown.is_requested());
        shutdown.request();
        assert!(shutdown.is_requested() && !shutdown.is_aborted());
        shutdown.request();
        assert!(shutdown.is_aborted());
    }

    #[test]
    fn a_sleeper_is_woken() {
        let shutdown = Shutdown::default();
        let sleeper = std::thread::spawn({
            let shutdown = shutdown.clone();
            move || shutdown.wait(Duration::from_secs(60))
        });
        shutdown.request();
        assert!(sleeper.join().expect("no panic"));
        assert!(!Shutdown::default().wait(Duration::from_millis(1)));
    }
}
