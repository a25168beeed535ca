//! The challenger's side of the exchange: who scores in the shadow, or nobody.
//!
//! A challenger passes the gates of its bundle, and has to get by with the rows that the serving model decodes. What is
//! refused, or withdrawn, concerns no verdict. It is exchanged as the serving model is, "nobody" being one more item on
//! every thread's shelf. When another model begins to serve that does not read what the challenger wants, the challenger
//! rests until one does.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use serde::Serialize;

use super::gates::{self, Gate, Refusal};
use super::history::Happened;
use super::loaded::{LoadedModel, Shown};
use super::shelves::{Numbered, Shelves};
use super::{Exchange, Inner, TAKE_UP_PATIENCE, lock, wait_until_taken_up};
use crate::audit::{Action, Actor};
use crate::log_events;
use crate::model::bundle::Bundle;
use crate::model::source::Candidate;
use crate::pipeline::decode::{Decoder, Rows};
use crate::pipeline::shadow::{Challenger, Columns, Shadow, Share};
use crate::telemetry::metrics::Instruments;

/// How challengers run.
#[derive(Clone, Copy, Debug)]
pub struct ChallengerSettings {
    /// Which records they score.
    pub share: Share,
}

/// What one scoring thread has of the challenger.
pub struct ThreadChallenger {
    number: u64,
    /// `None`: there is no challenger now.
    pub shadow: Option<Box<Shadow>>,
}

impl Numbered for ThreadChallenger {
    fn number(&self) -> u64 {
        self.number
    }
}

/// Number of the item that is nobody, at the start.
const NOBODY: u64 = 0;

/// Shelves on which every thread finds that there is no challenger.
pub(super) fn nobody(threads: usize) -> Shelves<ThreadChallenger> {
    let shelves = Shelves::new(threads);
    shelves.stock((0..threads).map(|_| ThreadChallenger { number: NOBODY, shadow: None }).collect());
    shelves.want(NOBODY);
    shelves
}

/// The challenger as `GET /model` shows it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ShownChallenger {
    #[serde(flatten)]
    model: Shown,
    /// Whether it scores.
    active: bool,
    /// Why it does not.
    reason: Option<String>,
}

impl ShownChallenger {
    pub(super) fn new(challenger: &Challenger, serving: &LoadedModel) -> ShownChallenger {
        let reason = match challenger.is_given_up() {
            true => Some("it failed too often: the log says how".to_owned()),
            false => unfit(serving, &challenger.model),
        };
        ShownChallenger { model: Shown::from(&challenger.model), active: reason.is_none(), reason }
    }
}

fn model_of(challenger: &Option<Arc<Challenger>>) -> Option<&LoadedModel> {
    challenger.as_ref().map(|challenger| &challenger.model)
}

/// Why the challenger cannot score the serving model's rows.
fn unfit(serving: &LoadedModel, challenger: &LoadedModel) -> Option<String> {
    Columns::between(&serving.manifest.features, &challenger.manifest.features).err()
}

impl Exchange {
    /// Lets the candidate score in the shadow from now on if it passes the gates, or nobody. Takes seconds of computing,
    /// as [`Exchange::offer`] does. What is refused changes nothing. `actor` is who asks for it.
    pub fn challenge(&self, candidate: Option<Candidate>, actor: &Actor) -> Result<(), Refusal> {
        let inner = &*self.inner;
        let _offering = lock(&inner.offering);
        let began = Instant::now();
        let (serving, before) = {
            let state = inner.state();
            (state.serving.clone(), state.challenger.clone())
        };
        let id = |challenger: &Option<Arc<Challenger>>| {
            challenger.as_ref().map_or("nobody".to_owned(), |challenger| challenger.model.id())
        };
        if candidate.is_none() && before.is_none() {
            return Ok(());
        }
        let from = id(&before);
        let number = inner.numbers.fetch_add(1, Ordering::Relaxed);
        let origin = candidate.as_ref().map_or("withdrawn".to_owned(), |candidate| candidate.origin.clone());
        let (challenger, items) = match inner.prepare_challenger(candidate, number, &serving) {
            Ok(prepared) => prepared,
            Err(refusal) => {
                log_events::model::ChallengerRefused {
                    from: &from,
                    to: &origin,
                    gate: &refusal.gate,
                    reason: &refusal.reason,
                    took: began.elapsed(),
                }
                .log();
                let (reason, took) = (refusal.to_string(), began.elapsed());
                inner.refused(actor, Action::Challenger, &origin, model_of(&before), &reason);
                inner.state().history.add(Happened::ChallengerRefused, from, origin, reason, took);
                return Err(refusal);
            }
        };
        inner.challengers.stock(items);
        let (to, took) = (id(&challenger), began.elapsed());
        let labels = challenger.as_ref().map(|challenger| challenger.model.labels());
        let target = model_of(&challenger).or(model_of(&before)).map_or("", |model| &model.candidate.origin);
        let reason = if challenger.is_some() { "passed the gates" } else { "withdrawn" };
        inner.changed(actor, Action::Challenger, target, (model_of(&before), model_of(&challenger)), reason);
        {
            let mut state = inner.state();
            state.challenger = challenger;
            inner.challengers.want(number);
            state.history.add(Happened::ChallengerChanged, from.clone(), to.clone(), origin.clone(), took);
        }
        Instruments::default().models().challenger(labels);
        let threads_behind = wait_until_taken_up(&inner.challengers, number, TAKE_UP_PATIENCE);
        inner.challengers.keep(&[number]);
        let took = began.elapsed();
        log_events::model::ChallengerChanged { from: &from, to: &to, why: &origin, took, threads_behind }.log();
        Ok(())
    }
}

impl Inner {
    /// Takes a challenger through the gates and makes one for every thread.
    fn prepare_challenger(
        &self,
        candidate: Option<Candidate>,
        number: u64,
        serving: &LoadedModel,
    ) -> Result<(Option<Arc<Challenger>>, Vec<ThreadChallenger>), Refusal> {
        let threads = 0..self.settings.threads;
        let Some(candidate) = candidate else {
            return Ok((None, threads.map(|_| ThreadChallenger { number, shadow: None }).collect()));
        };
        let origin = candidate.origin.clone();
        let refuse = |refusal: Refusal| refusal.of(&origin);
        self.settings.verify(&candidate)?;
        let model = LoadedModel::load(candidate, &self.settings, number)?;
        let bundle = model.bundle.clone();
        gates::compatible(&model, serving).map_err(refuse)?;
        if let Some(reason) = unfit(serving, &model) {
            return Err(refuse(Refusal::new(Gate::Compatible, reason)));
        }
        let challenger = Arc::new(Challenger::new(model));
        let rows = self.rows_for(&challenger.model, serving);
        let prepare = |_| self.shadow(&challenger, &bundle, serving, &rows).map_err(refuse);
        let shadows: Vec<Shadow> = threads.map(prepare).collect::<Result<_, _>>()?;
        let item = |shadow| ThreadChallenger { number, shadow: Some(Box::new(shadow)) };
        Ok((Some(challenger), shadows.into_iter().map(item).collect()))
    }

    /// Recent transactions as the serving model's decoder leaves them; golden records where there are none.
    fn rows_for(&self, challenger: &LoadedModel, serving: &LoadedModel) -> Rows {
        let mut decoder = Decoder::new(&serving.manifest.features, self.settings.max_message_bytes);
        let mut rows = Rows::default();
        let recent = self.samples.copy();
        let payloads = match recent.is_empty() {
            true => {
                let limit = self.settings.max_message_bytes;
                gates::own_payloads(&challenger.candidate.directory, &challenger.manifest, limit)
            }
            false => recent,
        };
        for (index, payload) in payloads.iter().enumerate() {
            // Golden records of another feature set may lack what the serving model wants: those say nothing here.
            let _ = decoder.decode(Some(payload), index as u32, &mut rows);
        }
        rows
    }

    /// One thread's, warmed up; refused where it gives no probability for a row.
    fn shadow(
        &self,
        challenger: &Arc<Challenger>,
        bundle: &Bundle,
        serving: &LoadedModel,
        rows: &Rows,
    ) -> Result<Shadow, Refusal> {
        let shadow = Shadow::new(challenger.clone(), bundle, self.settings.challenger.share);
        let mut shadow = shadow.map_err(|error| Refusal::new(Gate::WarmUp, error.to_string()))?;
        shadow.fit(serving).map_err(|reason| Refusal::new(Gate::Compatible, reason))?;
        shadow
            .try_on(rows, self.settings.max_batch.min(gates::LARGEST_WARM_UP))
            .map_err(|reason| Refusal::new(Gate::Canary, reason))?;
        Ok(shadow)
    }

    /// After another model began to serve: says so where the challenger has to rest, or can go on.
    pub(super) fn look_at_challenger(&self, serving: &LoadedModel) {
        let Some(challenger) = self.state().challenger.clone() else { return };
        if let Some(reason) = unfit(serving, &challenger.model) {
            let (challenger, serving) = (challenger.model.id(), serving.id());
            log_events::model::ChallengerRests { challenger: &challenger, serving: &serving, reason: &reason }.log();
        }
    }
}
