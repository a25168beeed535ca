//! The follower: asks which version an alias stands at, and offers what it moved to.
//!
//! ```text
//!  pause (poll ± 10 %, or woken) ─► ask ─► policy ─► Keep │ Offer ─► fetch ─► offer, off this runtime │ Withdraw
//! ```
//!
//! Nothing that goes wrong here stops the worker: what serves goes on. Readiness carries a warning that says what is
//! the matter, the log says it when it begins, in reminders, and when it is over.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::answers::ModelVersion;
use super::policy::{self, Answer, Memory, Step};
use super::{Fetched, Registry, RegistryError, requested};
use crate::log_events;
use crate::model::source::{Offer, RegisteredModel};
use crate::shutdown::Shutdown;
use crate::telemetry::metrics::Instruments;
use crate::telemetry::readiness::Readiness;

/// How often an ongoing trouble is logged again.
const REMINDER: Duration = Duration::from_secs(10 * 60);

/// Bundles that serve or may serve again at once: the last two accepted.
const IN_USE: usize = 2;

/// Follows one alias until the process ends.
pub struct Follower {
    registry: Arc<Registry>,
    model: RegisteredModel,
    offer: Arc<dyn Offer>,
    readiness: Readiness,
    wake: Arc<Notify>,
    memory: Memory,
    /// Where the last accepted bundles lie, oldest first: the one a rollback would bring back, and the one that serves.
    in_use: Vec<PathBuf>,
    /// Why the version the alias stands at was refused.
    refused: Option<String>,
    trouble: Option<Trouble>,
    /// Turns in a row that came to nothing.
    failures: u32,
    instruments: Instruments,
    /// Whose warnings ours are.
    who: String,
}

/// Something that goes on.
struct Trouble {
    text: String,
    told: Instant,
}

impl Follower {
    /// Follows `model` from what the process has begun with, `None` where the slot is empty.
    pub fn new(
        registry: Arc<Registry>,
        model: RegisteredModel,
        begun: Option<Fetched>,
        offer: Arc<dyn Offer>,
        readiness: Readiness,
    ) -> Follower {
        let who = format!("registry {model}");
        let mut follower = Follower {
            memory: Memory::settled_at(begun.as_ref().map(|begun| begun.version.version.clone())),
            registry,
            model,
            offer,
            readiness,
            wake: Arc::new(Notify::new()),
            in_use: Vec::new(),
            refused: None,
            trouble: None,
            failures: 0,
            instruments: Instruments::default(),
            who,
        };
        if let Some(begun) = begun {
            follower.accepted(&begun);
        }
        follower
    }

    /// Ends the pause: for whoever knows that the alias has moved.
    pub fn wake(&self) -> Arc<Notify> {
        self.wake.clone()
    }

    /// Follows until the process shall end.
    pub async fn run(mut self, shutdown: Shutdown) {
        let wake = self.wake.clone();
        loop {
            let work = async {
                let pause = policy::pause(self.registry.poll, self.failures, random_unit());
                // Woken or not, it asks.
                let _ = tokio::time::timeout(pause, wake.notified()).await;
                self.turn().await;
            };
            tokio::select! {
                () = work => {}
                () = requested(&shutdown) => return,
            }
        }
    }

    /// Asks once and does what follows.
    pub async fn turn(&mut self) {
        let answer = self.registry.version(&self.model).await;
        self.instruments.registry_reachable(answer.as_ref().map_or_else(RegistryError::is_answer, |_| true));
        let trouble = match answer {
            Ok(version) => self.stands_at(version).await,
            Err(error @ RegistryError::Nothing { .. }) => {
                self.failures = 0;
                if self.memory.step(Answer::Nothing, None) == Step::Withdraw {
                    self.blocking(|offer| offer.withdrawn()).await;
                }
                (!self.offer.may_be_empty()).then(|| format!("registry alias is gone: {error}"))
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                let what = if error.is_answer() { "answers with an error" } else { "unreachable" };
                Some(format!("registry {what}: {error}"))
            }
        };
        self.tell(trouble);
    }

    /// The alias stands at `version`; gives what is the matter with that, if anything.
    async fn stands_at(&mut self, version: ModelVersion) -> Option<String> {
        let serving = self.offer.serving().filter(|serving| serving.name == version.name);
        let serving = serving.map(|serving| serving.version);
        let number = version.version.clone();
        if serving.as_ref() == Some(&number) {
            self.refused = None;
        }
        if let Step::Offer(_) = self.memory.step(Answer::At(number.clone()), serving.as_deref()) {
            self.refused = match self.registry.fetch(&self.model, version).await {
                Ok(fetched) => self.offer(fetched).await.err(),
                Err(error @ RegistryError::Artifact { .. }) => {
                    let reason = error.to_string();
                    self.offer.unfit(&self.model.to_string(), &reason);
                    Some(reason)
                }
                Err(error) => {
                    self.failures = self.failures.saturating_add(1);
                    return Some(format!("registry version {number} is not fetched yet: {error}"));
                }
            };
            self.memory.settle(number.clone());
        }
        self.failures = 0;
        self.refused.as_ref().map(|reason| format!("registry version {number} was refused: {reason}"))
    }

    /// Offers what was fetched; a refusal is no reason to keep its files.
    async fn offer(&mut self, fetched: Fetched) -> Result<(), String> {
        let candidate = fetched.candidate.clone();
        log_events::model::AliasMoved { model: &self.model, version: &fetched.version.version }.log();
        let outcome = self.blocking(move |offer| offer.offer(candidate)).await;
        match outcome.unwrap_or_else(|| Err("verifying it panicked".to_owned())) {
            Ok(()) => {
                self.accepted(&fetched);
                Ok(())
            }
            Err(reason) => {
                if !self.in_use.contains(&fetched.candidate.directory) {
                    self.registry.cache.discard(&fetched.candidate.directory);
                }
                Err(reason)
            }
        }
    }

    /// What serves now is what the next start begins with where the server is down then.
    fn accepted(&mut self, fetched: &Fetched) {
        let (cache, server) = (&self.registry.cache, self.registry.server());
        if let Err(error) = cache.point(server, &self.model, &fetched.version) {
            log_events::model::CacheNotPointed { error: &error }.log();
        }
        self.in_use.retain(|directory| *directory != fetched.candidate.directory);
        self.in_use.push(fetched.candidate.directory.clone());
        if self.in_use.len() > IN_USE {
            self.in_use.remove(0);
        }
        cache.prune(&self.model.name, &self.in_use);
    }

    /// Runs what takes long outside the runtime's thread; `None` where it panicked.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&dyn Offer) -> T + Send + 'static) -> Option<T> {
        let offer = self.offer.clone();
        tokio::task::spawn_blocking(move || work(&*offer)).await.ok()
    }

    /// Shows what is the matter, and that it is over.
    fn tell(&mut self, trouble: Option<String>) {
        let serving = self.offer.serving().map_or_else(|| "what serves".to_owned(), |serving| serving.to_string());
        match trouble {
            None => {
                self.readiness.clear_warning(&self.who);
                if self.trouble.take().is_some() {
                    log_events::model::RegistryWell { model: &self.model, serving: &serving }.log();
                }
            }
            Some(text) => {
                self.readiness.warn(&self.who, format!("{text}; {serving} goes on"));
                let known = self.trouble.as_ref().filter(|known| known.text == text);
                if known.is_none_or(|known| known.told.elapsed() >= REMINDER) {
                    log_events::model::RegistryTrouble { model: &self.model, serving: &serving, trouble: &text }.log();
                    self.trouble = Some(Trouble { text, told: Instant::now() });
                }
            }
        }
    }
}

/// A random number in [0, 1).
fn random_unit() -> f64 {
    // The upper 32 of the random bits; a uuid of this kind is random, and at hand.
    f64::from((uuid::Uuid::new_v4().as_u128() >> 96) as u32) / (f64::from(u32::MAX) + 1.0)
}
