//! The exchange: which model serves, and how another takes its place between two batches.
//!
//! ```text
//!  follower, POST /admin/reload ─► offer ─► gates ─► one ThreadModel per scoring thread ─► shelves ─► wanted: 7
//!  POST /admin/rollback ───────────────────────────────────────────────────────────────────────────► wanted: 6
//!                                                                                                       │ one atomic
//!                             scoring thread, at the top of a turn: exchange(mine for what is wanted) ◄─┘
//! ```
//!
//! Everything that takes time (reading, verifying, compiling, warming up) happens on the thread that offers, and first of all in
//! a process of its own (`verification.rs`). A scoring thread looks at one number per turn and swaps one prepared value for
//! another; what it gives back stays prepared on its shelf until the model is neither the serving one nor the one before, so a
//! rollback is as quick as a swap. Verdicts that are already encoded keep the version that scored them.
//!
//! A challenger has shelves of its own and goes the same way (`challenger.rs`).
//!
//! Offers come one after the other; a rollback waits for none of them. What was refused changes nothing but the history.

mod challenger;
mod gates;
mod history;
mod loaded;
mod offers;
mod samples;
mod shelves;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod verification;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use self::challenger::ShownChallenger;
pub use self::challenger::{ChallengerSettings, ThreadChallenger};
pub use self::gates::{Gate, Refusal};
use self::history::{Event, Happened, History};
pub use self::loaded::{LoadedModel, Shown, ThreadModel};
pub use self::offers::{ChallengerSlot, ChampionSlot};
pub use self::samples::Samples;
use self::shelves::{Numbered, Shelves};
pub use self::verification::{Verification, verify_here};
use super::choice::KernelChoice;
use super::source::Candidate;
use super::trust::ModelKey;
use crate::audit::{Action, Actor, Audit, Change, Outcome};
use crate::drift::{self, DriftSettings};
use crate::log_events;
use crate::pipeline::shadow::Challenger;
use crate::telemetry::{
    self,
    metrics::{Instruments, SwapResult},
};

/// How long an exchange waits to see every thread at work with the new model, for its log line and its answer.
const TAKE_UP_PATIENCE: Duration = Duration::from_secs(5);

/// And a rollback, which is in a hurry.
const ROLLBACK_PATIENCE: Duration = Duration::from_millis(500);

/// What is the same for every model of a worker.
#[derive(Clone, Debug)]
pub struct ExchangeSettings {
    /// What computes models.
    pub kernel: KernelChoice,
    /// Whose signature models must have; none: whoever may put them there.
    pub key: Option<ModelKey>,
    /// Scoring threads.
    pub threads: usize,
    /// Largest value that is parsed, bytes.
    pub max_message_bytes: usize,
    /// Most records taken at once.
    pub max_batch: usize,
    /// Named by the verdicts.
    pub input_topic: String,
    /// How challengers run.
    pub challenger: ChallengerSettings,
    /// How drift is watched.
    pub drift: DriftSettings,
    /// Where candidates are verified before they are loaded; `None`: here alone.
    pub verification: Option<Verification>,
    /// Where changes are told.
    pub audit: Audit,
}

/// There is no model to go back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no other model has served since the start, so there is none to go back to")]
pub struct NoPrevious;

/// The worker's models; a handle to be cloned.
#[derive(Clone)]
pub struct Exchange {
    inner: Arc<Inner>,
}

struct Inner {
    settings: ExchangeSettings,
    shelves: Shelves<ThreadModel>,
    challengers: Shelves<ThreadChallenger>,
    samples: Samples,
    /// Held through a whole offer.
    offering: Mutex<()>,
    /// Held while another model takes over.
    turn: Mutex<()>,
    /// Held for moments.
    state: Mutex<State>,
    numbers: AtomicU64,
}

struct State {
    serving: Arc<LoadedModel>,
    previous: Option<Arc<LoadedModel>>,
    rolled_back_from: Option<Arc<LoadedModel>>,
    challenger: Option<Arc<Challenger>>,
    history: History,
}

/// What `GET /model` answers.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    serving: Shown,
    /// Scoring threads that do not use it yet: they do before their next batch.
    threads_behind: usize,
    previous: Option<Shown>,
    challenger: Option<ShownChallenger>,
    /// The model that a rollback took out of service, until the next swap.
    rolled_back_from: Option<String>,
    history: Vec<Event>,
}

impl Exchange {
    /// Verifies the first model and prepares it for every thread.
    pub fn open(settings: ExchangeSettings, candidate: Candidate) -> Result<Exchange, Refusal> {
        let origin = candidate.origin.clone();
        let start = |outcome, after: Option<&str>, reason: &str| {
            let change = Change { action: Action::Start, outcome, target: &origin, before: None, after, reason };
            settings.audit.record(&Actor::configuration(), &change);
        };
        let prepared = prepare(&settings, &Samples::default(), candidate, 1, &[]);
        let (model, items) = prepared.inspect_err(|refusal| start(Outcome::Refused, None, &refusal.to_string()))?;
        start(Outcome::Done, Some(&model.described()), "the first model");
        let shelves = Shelves::new(settings.threads);
        shelves.stock(items);
        shelves.want(model.number);
        show(&model);
        let history = History::default();
        let state = State { serving: model, previous: None, rolled_back_from: None, challenger: None, history };
        let challengers = challenger::nobody(settings.threads);
        let inner = Inner {
            settings,
            shelves,
            challengers,
            samples: Samples::default(),
            offering: Mutex::new(()),
            turn: Mutex::new(()),
            state: Mutex::new(state),
            numbers: AtomicU64::new(2),
        };
        Ok(Exchange { inner: Arc::new(inner) })
    }

    /// A scoring thread's place, by its number from 0.
    pub fn seat(&self, thread: usize) -> Seat {
        Seat { inner: self.inner.clone(), thread }
    }

    /// Largest value that its engines parse, bytes.
    pub fn max_message_bytes(&self) -> usize {
        self.inner.settings.max_message_bytes
    }

    /// The model that serves.
    pub fn serving(&self) -> Arc<LoadedModel> {
        self.inner.state().serving.clone()
    }

    /// The challenger, if there is one.
    pub fn challenger(&self) -> Option<Arc<Challenger>> {
        self.inner.state().challenger.clone()
    }

    /// The model that a rollback took out of service, until the next swap: not to be offered again unasked.
    pub fn rolled_back_from(&self) -> Option<Arc<LoadedModel>> {
        self.inner.state().rolled_back_from.clone()
    }

    /// Puts the candidate into service if it passes every gate. Takes seconds of computing: not to be called on a
    /// scoring thread. A candidate that is what serves changes nothing. `actor` is who offers it.
    pub fn offer(&self, candidate: Candidate, actor: &Actor) -> Result<(), Refusal> {
        let inner = &*self.inner;
        let _offering = lock(&inner.offering);
        let began = Instant::now();
        let origin = candidate.origin.clone();
        let (serving, previous) = {
            let state = inner.state();
            (state.serving.clone(), state.previous.clone())
        };
        let number = inner.numbers.fetch_add(1, Ordering::Relaxed);
        let known: Vec<_> = [Some(serving.clone()), previous].into_iter().flatten().collect();
        let (model, items) = match prepare(&inner.settings, &inner.samples, candidate, number, &known) {
            Ok(prepared) => prepared,
            Err(refusal) => {
                let (from, reason) = (serving.id(), refusal.to_string());
                log_events::model::Refused {
                    from: &from,
                    to: &origin,
                    gate: &refusal.gate,
                    reason: &refusal.reason,
                    took: began.elapsed(),
                }
                .log();
                Instruments::default().swap(SwapResult::Refused);
                inner.refused(actor, Action::Swap, &origin, Some(&serving), &reason);
                inner.state().history.add(Happened::Refused, from, origin, reason, began.elapsed());
                return Err(refusal);
            }
        };
        let turn = lock(&inner.turn);
        // A rollback may have come meanwhile.
        let serving = inner.state().serving.clone();
        if model.id() == serving.id() {
            log_events::model::Unchanged { model: &model.id(), origin: &origin }.log();
            return Ok(());
        }
        inner.shelves.stock(items);
        let prepared = began.elapsed();
        {
            let mut state = inner.state();
            state.previous = Some(std::mem::replace(&mut state.serving, model.clone()));
            state.rolled_back_from = None;
            inner.shelves.want(model.number);
            state.history.add(Happened::Swapped, serving.id(), model.id(), origin.clone(), prepared);
        }
        show(&model);
        inner.look_at_challenger(&model);
        Instruments::default().swap(SwapResult::Swapped);
        inner.changed(actor, Action::Swap, &origin, (Some(&serving), Some(&model)), "passed the gates");
        drop(turn);
        let behind = wait_until_taken_up(&inner.shelves, model.number, TAKE_UP_PATIENCE);
        // Not before: the way back must stay prepared, and what is given back late is dropped the next time. A rollback
        // exchanges these two and no others.
        inner.shelves.keep(&[model.number, serving.number]);
        log_events::model::Swapped {
            from: &serving.id(),
            to: &model.id(),
            why: &origin,
            engine: model.engine,
            prepared,
            took: began.elapsed(),
            threads_behind: behind,
        }
        .log();
        Ok(())
    }

    /// Verifies the directory of the serving model again, and swaps to what it holds now.
    pub fn reload(&self, actor: &Actor) -> Result<(), Refusal> {
        let serving = self.serving();
        let candidate = serving.candidate.clone();
        if candidate.registered.is_some() {
            let reason = "what serves comes from the registry: move its alias, or go back by POST /admin/rollback";
            self.inner.refused(actor, Action::Swap, &candidate.origin, Some(&serving), reason);
            return Err(Refusal::new(Gate::Manifest, reason).of(&candidate.origin));
        }
        self.offer(candidate, actor)
    }

    /// Puts the model before this one back into service; `actor` stands in log and history.
    pub fn rollback(&self, actor: &Actor) -> Result<Arc<LoadedModel>, NoPrevious> {
        let inner = &*self.inner;
        let why = format!("asked for by {}", actor.peer);
        let turn = lock(&inner.turn);
        let began = Instant::now();
        let previous = inner.state().previous.clone();
        let Some(model) = previous else {
            let serving = self.serving();
            let reason = NoPrevious.to_string();
            inner.refused(actor, Action::Rollback, &serving.candidate.origin, Some(&serving), &reason);
            return Err(NoPrevious);
        };
        let from = {
            let mut state = inner.state();
            let from = std::mem::replace(&mut state.serving, model.clone());
            state.previous = Some(from.clone());
            state.rolled_back_from = Some(from.clone());
            inner.shelves.want(model.number);
            state.history.add(Happened::RolledBack, from.id(), model.id(), why.clone(), began.elapsed());
            from
        };
        show(&model);
        inner.look_at_challenger(&model);
        Instruments::default().swap(SwapResult::RolledBack);
        let target = &model.candidate.origin;
        inner.changed(actor, Action::Rollback, target, (Some(&from), Some(&model)), "the model before is asked for");
        drop(turn);
        let behind = wait_until_taken_up(&inner.shelves, model.number, ROLLBACK_PATIENCE);
        let (took, threads_behind) = (began.elapsed(), behind);
        log_events::model::RolledBack { from: &from.id(), to: &model.id(), why: &why, took, threads_behind }.log();
        Ok(model)
    }

    /// What serves, what did, and what happened.
    pub fn status(&self) -> Status {
        let state = self.inner.state();
        Status {
            serving: Shown::from(&*state.serving),
            threads_behind: self.inner.shelves.behind(state.serving.number),
            previous: state.previous.as_deref().map(Shown::from),
            challenger: state.challenger.as_deref().map(|challenger| ShownChallenger::new(challenger, &state.serving)),
            rolled_back_from: state.rolled_back_from.as_ref().map(|model| model.id()),
            history: state.history.latest(),
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Tells the audit of a change, from the one model to the other.
    fn changed(
        &self,
        actor: &Actor,
        action: Action,
        target: &str,
        (before, after): (Option<&LoadedModel>, Option<&LoadedModel>),
        reason: &str,
    ) {
        let (before, after) = (before.map(LoadedModel::described), after.map(LoadedModel::described));
        let (before, after) = (before.as_deref(), after.as_deref());
        self.settings.audit.record(actor, &Change { action, outcome: Outcome::Done, target, before, after, reason });
    }

    /// Tells the audit that the model there is stays, and why.
    fn refused(&self, actor: &Actor, action: Action, target: &str, before: Option<&LoadedModel>, reason: &str) {
        let before = before.map(LoadedModel::described);
        let (outcome, before) = (Outcome::Refused, before.as_deref());
        self.settings.audit.record(actor, &Change { action, outcome, target, before, after: None, reason });
    }
}

/// Waits a while for the threads; says how many have not taken `number` up. A thread that waits for its broker does so
/// when it goes on.
fn wait_until_taken_up<T: Numbered>(shelves: &Shelves<T>, number: u64, patience: Duration) -> usize {
    let began = Instant::now();
    loop {
        let behind = shelves.behind(number);
        if behind == 0 || began.elapsed() > patience {
            return behind;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Takes a candidate through the gates, in another process first where the settings say so; `known` are the models that a verdict of the last time may name.
fn prepare(
    settings: &ExchangeSettings,
    samples: &Samples,
    candidate: Candidate,
    number: u64,
    known: &[Arc<LoadedModel>],
) -> Result<(Arc<LoadedModel>, Vec<ThreadModel>), Refusal> {
    settings.verify(&candidate)?;
    let origin = candidate.origin.clone();
    let mut model = LoadedModel::load(candidate, settings, number)?;
    model.drift = drift::open(&model.bundle.directory, &model.manifest, settings.drift);
    let model = Arc::new(model);
    let refuse = |refusal: Refusal| refusal.of(&origin);
    for other in known {
        gates::compatible(&model, other).map_err(refuse)?;
    }
    let own = gates::own_payloads(&model.candidate.directory, &model.manifest, settings.max_message_bytes);
    let recent = samples.copy();
    let mut items = Vec::with_capacity(settings.threads);
    for _ in 0..settings.threads {
        let item = ThreadModel::new(model.clone(), settings.max_message_bytes, &settings.input_topic);
        items.push(item.map_err(|error| refuse(Refusal::new(Gate::WarmUp, error.to_string())))?);
    }
    if let Some(first) = items.first_mut() {
        gates::canary(first, "golden records", &own).map_err(refuse)?;
        gates::canary(first, "recent transactions", &recent).map_err(refuse)?;
    }
    let payloads = if recent.is_empty() { &own } else { &recent };
    for item in &mut items {
        gates::warm_up(item, payloads, settings.max_batch);
    }
    Ok((model, items))
}

/// The model that serves from now on, for the metrics.
fn show(model: &LoadedModel) {
    Instruments::default().models().serving(model.labels());
    telemetry::drift::show(model.drift.clone());
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A scoring thread's place at the exchange.
pub struct Seat {
    inner: Arc<Inner>,
    thread: usize,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.inner.shelves.leave(self.thread);
        self.inner.challengers.leave(self.thread);
    }
}

impl Seat {
    /// What the thread begins with.
    pub fn first(&self) -> Option<ThreadModel> {
        self.inner.shelves.take(self.thread)
    }

    /// Whether another model than this one is to score: one look at an atomic.
    #[inline]
    pub fn is_outdated(&self, mine: &ThreadModel) -> bool {
        self.inner.shelves.wanted() != mine.model.number
    }

    /// Gives `mine` for the model that is to score; says whether it did, else the next turn will.
    pub fn exchange(&self, mine: &mut ThreadModel) -> bool {
        self.inner.shelves.exchange(self.thread, mine)
    }

    /// The challenger that the thread begins with, be there one or not.
    pub fn first_challenger(&self) -> Option<ThreadChallenger> {
        self.inner.challengers.take(self.thread)
    }

    /// Whether another challenger than this one, or none, is to run: one look at an atomic.
    #[inline]
    pub fn has_other_challenger(&self, mine: &ThreadChallenger) -> bool {
        self.inner.challengers.wanted() != mine.number()
    }

    /// Gives `mine` for the challenger that is to run; says whether it did, else the next turn will.
    pub fn exchange_challenger(&self, mine: &mut ThreadChallenger) -> bool {
        self.inner.challengers.exchange(self.thread, mine)
    }

    /// Where payloads are left for candidates to try.
    pub fn samples(&self) -> &Samples {
        &self.inner.samples
    }
}
