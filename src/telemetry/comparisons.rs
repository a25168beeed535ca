//! Champion against challenger, as metrics: how far scores differ, which decisions would change, and how much money that
//! concerns. Counted by a thread in plain memory, added here when the work is committed.
//!
//! Rendered here and not by the exporter: amounts are sums of fractions, its counters are whole numbers. Nothing is shown
//! before there was a challenger.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use fraud_wire::verdict::Decision;

use super::amounts::counted;
use super::catalogue::definitions::{
    CHALLENGER_DECISIONS, CHALLENGER_DIFFERENCE, CHALLENGER_FAILURES, CHALLENGER_FLIP_AMOUNT,
};
use super::histogram::{Buckets, Histogram};
use crate::pipeline::compare::Comparison;

const DECISIONS: usize = Decision::ALL.len();

/// By the champion's decision, then the challenger's.
type ByDecisions<T> = [[T; DECISIONS]; DECISIONS];

/// What one thread compared since its last commit.
#[derive(Debug)]
pub struct ComparisonTally {
    difference: Buckets,
    decisions: ByDecisions<u64>,
    flip_amounts: ByDecisions<f64>,
    count: u64,
}

impl Default for ComparisonTally {
    fn default() -> Self {
        let difference = Buckets::of(&CHALLENGER_DIFFERENCE);
        ComparisonTally { difference, decisions: Default::default(), flip_amounts: Default::default(), count: 0 }
    }
}

impl ComparisonTally {
    /// Counts one row.
    #[inline]
    pub(super) fn add(&mut self, comparison: &Comparison) {
        let (champion, challenger) = (comparison.champion as usize, comparison.challenger as usize);
        self.count += 1;
        self.difference.add(f64::from(comparison.difference));
        self.decisions[champion][challenger] += 1;
        if champion != challenger
            && let Some(amount) = comparison.amount
        {
            self.flip_amounts[champion][challenger] += counted(amount);
        }
    }

    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.count) > 0 {
            self.difference.clear();
            self.decisions = Default::default();
            self.flip_amounts = Default::default();
        }
    }
}

/// The process's comparisons.
#[derive(Debug)]
pub struct Comparisons {
    difference: Histogram,
    decisions: ByDecisions<AtomicU64>,
    flip_amounts: Mutex<ByDecisions<f64>>,
    failures: AtomicU64,
}

impl Default for Comparisons {
    fn default() -> Self {
        Comparisons {
            difference: Histogram::of(&CHALLENGER_DIFFERENCE, &[]),
            decisions: Default::default(),
            flip_amounts: Mutex::default(),
            failures: AtomicU64::new(0),
        }
    }
}

/// The ones of this process.
pub(super) fn comparisons() -> &'static Arc<Comparisons> {
    static COMPARISONS: OnceLock<Arc<Comparisons>> = OnceLock::new();
    COMPARISONS.get_or_init(Arc::default)
}

impl Comparisons {
    /// The challenger gave no probability for so many rows.
    pub fn failed(&self, rows: usize) {
        if rows > 0 {
            self.failures.fetch_add(rows as u64, Ordering::Relaxed);
        }
    }

    /// Adds what a thread counted and empties it.
    pub(super) fn committed(&self, tally: &mut ComparisonTally) {
        if tally.count == 0 {
            return;
        }
        self.difference.drain(&mut tally.difference);
        let mut flip_amounts = self.flip_amounts.lock().unwrap_or_else(PoisonError::into_inner);
        for (champion, challenger) in pairs() {
            self.decisions[champion][challenger].fetch_add(tally.decisions[champion][challenger], Ordering::Relaxed);
            flip_amounts[champion][challenger] += tally.flip_amounts[champion][challenger];
        }
        tally.clear();
    }

    /// Prometheus text format; nothing where nothing was compared.
    pub(super) fn render(&self, text: &mut String) {
        let failures = self.failures.load(Ordering::Relaxed);
        let count = |champion: usize, challenger: usize| self.decisions[champion][challenger].load(Ordering::Relaxed);
        if failures == 0 && pairs().all(|(champion, challenger)| count(champion, challenger) == 0) {
            return;
        }
        self.difference.render(text, true);
        CHALLENGER_DECISIONS.describe(text);
        for (champion, challenger) in pairs() {
            CHALLENGER_DECISIONS.sample(text, &labels(champion, challenger), count(champion, challenger));
        }
        let amounts = *self.flip_amounts.lock().unwrap_or_else(PoisonError::into_inner);
        CHALLENGER_FLIP_AMOUNT.describe(text);
        for (champion, challenger) in pairs().filter(|(champion, challenger)| champion != challenger) {
            CHALLENGER_FLIP_AMOUNT.sample(text, &labels(champion, challenger), amounts[champion][challenger]);
        }
        CHALLENGER_FAILURES.describe(text);
        CHALLENGER_FAILURES.sample(text, &[], failures);
    }
}

fn pairs() -> impl Iterator<Item = (usize, usize)> {
    (0..DECISIONS).flat_map(|champion| (0..DECISIONS).map(move |challenger| (champion, challenger)))
}

fn labels(champion: usize, challenger: usize) -> [&'static str; 2] {
    [champion, challenger].map(|index| Decision::ALL[index].as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flips_and_their_amounts_add_up_and_nothing_shows_before() {
        let shared = Comparisons::default();
        let mut text = String::new();
        shared.render(&mut text);
        assert_eq!(text, "");
        let comparison = |champion, challenger, difference, amount| Comparison {
            champion,
            score: 0.5,
            challenger,
            difference,
            amount,
        };
        let mut tally = ComparisonTally::default();
        tally.add(&comparison(Decision::Decline, Decision::Decline, 0.5, Some(1.0)));
        tally.clear();
        tally.add(&comparison(Decision::Approve, Decision::Decline, 0.7, Some(100.5)));
        tally.add(&comparison(Decision::Approve, Decision::Decline, 0.0, Some(-3.0)));
        tally.add(&comparison(Decision::Review, Decision::Approve, -0.3, None));
        tally.add(&comparison(Decision::Approve, Decision::Approve, 0.0, Some(7.0)));
        shared.committed(&mut tally);
        shared.committed(&mut tally);
        shared.failed(3);
        shared.render(&mut text);
        for line in [
            "fraud_scorer_challenger_score_difference_bucket{le=\"-0.2\"} 1",
            "fraud_scorer_challenger_score_difference_bucket{le=\"-0.0001\"} 1",
            "fraud_scorer_challenger_score_difference_bucket{le=\"0.0001\"} 3",
            "fraud_scorer_challenger_score_difference_count 4",
            "fraud_scorer_challenger_decisions_total{champion=\"approve\",challenger=\"decline\"} 2",
            "fraud_scorer_challenger_decisions_total{champion=\"approve\",challenger=\"approve\"} 1",
            "fraud_scorer_challenger_decisions_total{champion=\"decline\",challenger=\"decline\"} 0",
            "fraud_scorer_challenger_flip_amount_total{champion=\"approve\",challenger=\"decline\"} 100.5",
            "fraud_scorer_challenger_flip_amount_total{champion=\"review\",challenger=\"approve\"} 0",
            "fraud_scorer_challenger_failures_total 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in:\n{text}");
        }
        assert!(!text.contains("flip_amount_total{champion=\"approve\",challenger=\"approve\"}"));
    }
}
