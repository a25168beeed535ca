//! What verdicts were worth: the sum of amounts by decision, counted by a thread, added here when the work is committed.
//!
//! Rendered here and not by the exporter: amounts are fractions, its counters are whole numbers.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use fraud_wire::verdict::Decision;

use super::catalogue::definitions::VERDICT_AMOUNT;

/// Sums by decision, in the amount's currency.
pub(super) type ByDecision = [f64; Decision::ALL.len()];

/// What an amount adds to a counter, which never falls and never stops: nothing for a refund, for one that is missing, or
/// for one beyond all numbers.
#[inline]
pub(super) fn counted(amount: f32) -> f64 {
    if amount > 0.0 && amount < f32::INFINITY { f64::from(amount) } else { 0.0 }
}

/// The process's sums; none before a model with an amount served.
#[derive(Debug, Default)]
pub struct Amounts {
    sums: Mutex<Option<ByDecision>>,
}

/// The ones of this process.
pub(super) fn amounts() -> &'static Arc<Amounts> {
    static AMOUNTS: OnceLock<Arc<Amounts>> = OnceLock::new();
    AMOUNTS.get_or_init(Arc::default)
}

impl Amounts {
    /// A model that reads an amount serves: the sums are shown from now on, be they zero.
    pub fn show(&self) {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default();
    }

    /// Adds what a thread counted and empties it.
    pub(super) fn committed(&self, tally: &mut ByDecision) {
        if *tally == ByDecision::default() {
            return;
        }
        let mut sums = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
        for (sum, counted) in sums.get_or_insert_default().iter_mut().zip(std::mem::take(tally)) {
            *sum += counted;
        }
    }

    /// Prometheus text format; nothing where no model had an amount.
    pub(super) fn render(&self, text: &mut String) {
        let sums = *self.sums.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sums) = sums {
            VERDICT_AMOUNT.describe(text);
            for (decision, sum) in Decision::ALL.into_iter().zip(sums) {
                VERDICT_AMOUNT.sample(text, &[decision.as_str()], sum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_of_money_never_falls_and_is_not_spoilt() {
        for (amount, adds) in [(12.5, 12.5), (0.0, 0.0), (-3.0, 0.0), (f32::NAN, 0.0), (f32::INFINITY, 0.0)] {
            assert_eq!(counted(amount), adds, "{amount}");
        }
    }

    #[test]
    fn sums_show_once_a_model_has_an_amount() {
        let amounts = Amounts::default();
        let mut text = String::new();
        amounts.committed(&mut ByDecision::default());
        amounts.render(&mut text);
        assert_eq!(text, "");
        amounts.show();
        let mut tally = [0.25, 0.0, 100.5];
        amounts.committed(&mut tally);
        assert_eq!(tally, ByDecision::default());
        amounts.committed(&mut tally);
        amounts.show();
        amounts.render(&mut text);
        let series: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let line =
            |decision: &str, sum: &str| format!("fraud_scorer_verdict_amount_total{{decision=\"{decision}\"}} {sum}");
        assert_eq!(series, [line("approve", "0.25"), line("review", "0"), line("decline", "100.5")]);
    }
}
