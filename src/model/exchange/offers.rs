//! The registry's followers at the exchange: one for the model that serves, one for the challenger.

use super::Exchange;
use crate::audit::{Action, Actor};
use crate::model::source::{Candidate, Offer, Registered};
use crate::telemetry::metrics::{Instruments, SwapResult};

/// The serving model's place, with who offers.
pub struct ChampionSlot(pub Exchange, pub Actor);

impl Offer for ChampionSlot {
    fn offer(&self, candidate: Candidate) -> Result<(), String> {
        self.0.offer(candidate, &self.1).map_err(|refusal| refusal.to_string())
    }

    fn serving(&self) -> Option<Registered> {
        self.0.serving().candidate.registered.clone()
    }

    fn unfit(&self, origin: &str, reason: &str) {
        Instruments::default().swap(SwapResult::Refused);
        self.0.inner.refused(&self.1, Action::Swap, origin, Some(&self.0.serving()), reason);
    }
}

/// The challenger's place, with who offers: empty where its alias names no version.
pub struct ChallengerSlot(pub Exchange, pub Actor);

impl Offer for ChallengerSlot {
    fn offer(&self, candidate: Candidate) -> Result<(), String> {
        self.0.challenge(Some(candidate), &self.1).map_err(|refusal| refusal.to_string())
    }

    fn serving(&self) -> Option<Registered> {
        self.0.challenger()?.model.candidate.registered.clone()
    }

    fn unfit(&self, origin: &str, reason: &str) {
        let challenger = self.0.challenger();
        let before = challenger.as_ref().map(|challenger| &challenger.model);
        self.0.inner.refused(&self.1, Action::Challenger, origin, before, reason);
    }

    fn withdrawn(&self) {
        // Nobody passes every gate.
        let _ = self.0.challenge(None, &self.1);
    }

    fn may_be_empty(&self) -> bool {
        true
    }
}
