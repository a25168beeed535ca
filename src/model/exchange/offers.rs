//! The registry's followers at the exchange: one for the model that serves, one for the challenger.

use super::Exchange;
use crate::model::source::{Candidate, Offer, Registered};
use crate::telemetry::metrics::{Instruments, SwapResult};

impl Offer for Exchange {
    fn offer(&self, candidate: Candidate) -> Result<(), String> {
        Exchange::offer(self, candidate).map_err(|refusal| refusal.to_string())
    }

    fn serving(&self) -> Option<Registered> {
        Exchange::serving(self).candidate.registered.clone()
    }

    fn unfit(&self) {
        Instruments::default().swap(SwapResult::Refused);
    }
}

/// The challenger's place: empty where its alias names no version.
pub struct ChallengerSlot(pub Exchange);

impl Offer for ChallengerSlot {
    fn offer(&self, candidate: Candidate) -> Result<(), String> {
        self.0.challenge(Some(candidate)).map_err(|refusal| refusal.to_string())
    }

    fn serving(&self) -> Option<Registered> {
        self.0.challenger()?.model.candidate.registered.clone()
    }

    fn withdrawn(&self) {
        // Nobody passes every gate.
        let _ = self.0.challenge(None);
    }

    fn may_be_empty(&self) -> bool {
        true
    }
}
