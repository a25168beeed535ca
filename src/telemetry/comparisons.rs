//! Champion against challenger, as metrics: how far scores differ, which decisions would change, and how much money that
//! concerns. Counted by a thread in plain memory, added here when the work is committed.
//!
//! Rendered here and not by the exporter: amounts are sums of fractions, its counters are whole numbers. Nothing is shown
//! before there was a challenger.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use fraud_wire::verdict::Decision;

use super::histogram::{Buckets, Histogram};
use crate::pipeline::compare::Comparison;

/// Upper bounds of the challenger's score less the champion's: finest around no difference.
const DIFFERENCE_BOUNDS: &[f64] = &[
    -0.5, -0.2, -0.1, -0.05, -0.02, -0.01, -0.005, -0.001, -0.0001, 0.0001, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2,
    0.5, 1.0,
];

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
        let difference = Buckets::new(DIFFERENCE_BOUNDS);
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
            // A counter never falls: a refund counts as nothing at stake.
            self.flip_amounts[champion][challenger] += f64::from(amount.max(0.0));
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
        let name = "fraud_scorer_challenger_score_difference";
        let help = "The challenger's score less the champion's, of rows whose verdicts were committed.";
        Comparisons {
            difference: Histogram::new(name, help, "", DIFFERENCE_BOUNDS),
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
        let mut describe = |name: &str, help: &str, series: &str| {
            // Writing to a String cannot fail.
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} counter\n{series}");
        };
        let name = "fraud_scorer_challenger_decisions_total";
        let lines = pairs().map(|(champion, challenger)| {
            format!("{name}{} {}\n", labels(champion, challenger), count(champion, challenger))
        });
        describe(name, "Rows by the decision of the champion and that of the challenger", &lines.collect::<String>());
        let name = "fraud_scorer_challenger_flip_amount_total";
        let amounts = *self.flip_amounts.lock().unwrap_or_else(PoisonError::into_inner);
        let flips = pairs().filter(|(champion, challenger)| champion != challenger);
        let lines = flips.map(|(champion, challenger)| {
            format!("{name}{} {}\n", labels(champion, challenger), amounts[champion][challenger])
        });
        describe(
            name,
            "Sum of the amounts of rows that the challenger decides differently",
            &lines.collect::<String>(),
        );
        let name = "fraud_scorer_challenger_failures_total";
        describe(name, "Rows for which the challenger gave no probability", &format!("{name} {failures}\n"));
    }
}

fn pairs() -> impl Iterator<Item = (usize, usize)> {
    (0..DECISIONS).flat_map(|champion| (0..DECISIONS).map(move |challenger| (champion, challenger)))
}

fn labels(champion: usize, challenger: usize) -> String {
    let [champion, challenger] = [champion, challenger].map(|index| Decision::ALL[index].as_str());
    format!("{{champion=\"{champion}\",challenger=\"{challenger}\"}}")
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
