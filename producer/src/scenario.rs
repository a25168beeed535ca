//! Incidents on demand: for a span of the run, what is sent is not what it should be. Pure: due times and rows come in.
//!
//! ```text
//! due time ─► in the span? ─┬─ no ──► the run's own source
//!                           └─ yes ─► Another source   fraud spike, distribution shift
//!                                     Poison           the own source, some values spoiled
//!                                     Stall            nothing until the span ends, then all that was due
//! ```
//!
//! The span is counted in due times from the run's start, so a slow broker does not move it. With a fixed `--rate` and
//! `--seed` the same records are affected in every run.

use std::time::Duration;

use clap::ValueEnum;
use fraud_wire::reference::Reference;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::pacing::{LONGEST_PAUSE, SHORTEST_PAUSE, Schedule};
use crate::source::{Format, Source};

/// The stream of the seed's generator that incidents are drawn from; the profile draws from 0, keys from 1, the
/// direction of a drift from 2.
const SCENARIO_STREAM: u64 = 3;

/// Levels between which a normal distribution's mean plus and minus one standard deviation lie.
const ONE_DEVIATION: (f64, f64) = (0.1587, 0.8413);

/// What goes wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ScenarioKind {
    /// Nothing
    #[default]
    Normal,
    /// The share of fraud becomes --scenario-strength [0.05]
    FraudSpike,
    /// Every feature moves up by --scenario-strength standard deviations [1]
    DistributionShift,
    /// A share of the records, --scenario-strength [0.05], is malformed
    Poison,
    /// Nothing is sent; what was due in the meantime goes out at once when it ends
    Stall,
}

impl ScenarioKind {
    /// How strong it is where nobody says: a share, or standard deviations.
    pub fn default_strength(self) -> f64 {
        match self {
            ScenarioKind::Normal | ScenarioKind::Stall => 0.0,
            ScenarioKind::FraudSpike | ScenarioKind::Poison => 0.05,
            ScenarioKind::DistributionShift => 1.0,
        }
    }
}

/// A span of the run, by due time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its start, after the run's.
    pub start: Duration,
    /// Its length; `None` lasts to the run's end.
    pub length: Option<Duration>,
}

impl Span {
    /// Whether what is due this long after the run's start belongs to it: the start does, the end does not.
    pub fn contains(self, due: Duration) -> bool {
        due >= self.start && due < self.end()
    }

    /// Its end, after the run's start.
    fn end(self) -> Duration {
        self.length.map_or(Duration::MAX, |length| self.start.saturating_add(length))
    }
}

/// What happens within the span.
pub enum Effect {
    /// Rows come from here instead of the run's own source. It must have the same features.
    Another(Box<dyn Source>),
    /// Some rows are spoiled.
    Poison(Box<Poison>),
    /// Nothing is sent.
    Stall,
}

/// An incident: what happens, and when.
pub struct Scenario {
    /// When.
    pub span: Span,
    /// What.
    pub effect: Effect,
}

impl Scenario {
    /// The source of the row that is due at `due`: the run's own one, or that of the incident.
    pub(crate) fn source<'a>(&'a mut self, due: Duration, own: &'a mut dyn Source) -> &'a mut dyn Source {
        match &mut self.effect {
            Effect::Another(source) if self.span.contains(due) => source.as_mut(),
            _ => own,
        }
    }

    /// Spoils the row that is due at `due`, if it is its turn, and says whether it did.
    pub(crate) fn spoil(&mut self, due: Duration, value: &mut Vec<u8>) -> bool {
        match &mut self.effect {
            Effect::Poison(poison) if self.span.contains(due) => poison.spoil(value),
            _ => false,
        }
    }

    /// How many of the `due` records may be sent once `elapsed` has passed: during a stall, those from before it.
    pub(crate) fn released(&self, schedule: Schedule, elapsed: Duration, due: u64) -> u64 {
        if !self.stalls(elapsed) {
            return due;
        }
        due.min(schedule.within(self.span.start).unwrap_or(due))
    }

    /// How long to sleep before looking at the clock again, while a stall holds records back that are due.
    pub(crate) fn pause(&self, elapsed: Duration) -> Option<Duration> {
        self.stalls(elapsed).then(|| (self.span.end() - elapsed).clamp(SHORTEST_PAUSE, LONGEST_PAUSE))
    }

    fn stalls(&self, elapsed: Duration) -> bool {
        matches!(self.effect, Effect::Stall) && self.span.contains(elapsed)
    }
}

/// A seed for the incident's own source, so that its transactions' ids are none of the run's own.
pub fn another_seed(seed: u64) -> u64 {
    generator(seed).random()
}

fn generator(seed: u64) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(SCENARIO_STREAM);
    random
}

/// Spoils a share of the rows, each in one of the ways of [`Poison::WAYS`], evenly and at random.
pub struct Poison {
    share: f64,
    random: ChaCha8Rng,
    /// The last feature as a row spells its name, with the colon; nothing in the split form.
    last_name: Vec<u8>,
    /// What follows the last feature's value.
    ending: &'static [u8],
}

impl Poison {
    /// How many different ways there are to spoil a row.
    pub const WAYS: u32 = 8;

    /// Spoils this share (0 to 1) of rows of such features, which must not be none, in this form.
    pub fn new(share: f64, seed: u64, names: &[String], format: Format) -> Poison {
        let (last_name, ending): (Vec<u8>, &'static [u8]) = match format {
            // Rust's quotes are JSON's for every name that a feature has in practice.
            Format::Object => {
                let name = names.last().map(|name| format!("{name:?}:")).unwrap_or_default();
                (name.into_bytes(), b"}")
            }
            Format::Split => (Vec::new(), b"]]}"),
        };
        Poison { share, random: generator(seed), last_name, ending }
    }

    fn spoil(&mut self, value: &mut Vec<u8>) -> bool {
        if self.random.random::<f64>() >= self.share {
            return false;
        }
        let way = self.random.random_range(0..Poison::WAYS);
        self.spoil_in(way, value);
        true
    }

    fn spoil_in(&self, way: u32, value: &mut Vec<u8>) {
        match way {
            // Cut off in the middle, as by a writer that died.
            0 => value.truncate(value.len() / 2),
            // Not JSON at all.
            1 => replace(value, b"0.1,0.2,0.3"),
            // JSON of another shape.
            2 => replace(value, b"[1,2,3]"),
            // Bytes that are no text.
            3 => replace(value, &[0xff, 0xfe, 0x00, 0x80]),
            // The last feature is missing, is text, or is no number.
            4 => self.replace_last(value, None),
            5 => self.replace_last(value, Some(b"\"a lot\"")),
            // Fewer values than columns.
            6 => replace(value, br#"{"columns":["V1","V2"],"data":[[0.5]]}"#),
            _ => self.replace_last(value, Some(b"NaN")),
        }
    }

    /// Replaces the last feature, the only thing after the last comma, or leaves it out.
    fn replace_last(&self, value: &mut Vec<u8>, by: Option<&[u8]>) {
        value.truncate(value.iter().rposition(|&byte| byte == b',').unwrap_or_default());
        if let Some(by) = by {
            value.push(b',');
            value.extend_from_slice(&self.last_name);
            value.extend_from_slice(by);
        }
        value.extend_from_slice(self.ending);
    }
}

fn replace(value: &mut Vec<u8>, by: &[u8]) {
    value.clear();
    value.extend_from_slice(by);
}

/// Moves every feature of a bundle's profile up by `deviations` standard deviations of its legitimate transactions. A
/// standard deviation is taken as half the range of the middle 68 %, which a few huge amounts do not stretch. A
/// reference without a profile stays as it is.
pub fn shift(reference: &mut Reference, deviations: f64) {
    let Some(profile) = &mut reference.profile else { return };
    let level = |wanted: f64| profile.levels.partition_point(|&level| level < wanted).min(profile.levels.len() - 1);
    let (low, high) = (level(ONE_DEVIATION.0), level(ONE_DEVIATION.1));
    // The largest component is a legitimate one wherever fraud is rare.
    let Some(largest) = profile.components.iter().max_by(|one, other| one.share.total_cmp(&other.share)) else {
        return;
    };
    let half_range = |quantiles: &[f64]| (quantiles[high] - quantiles[low]) / 2.0;
    let steps: Vec<f64> = largest.features.iter().map(|feature| deviations * half_range(&feature.quantiles)).collect();
    for component in &mut profile.components {
        for (feature, step) in component.features.iter_mut().zip(&steps) {
            feature.quantiles.iter_mut().for_each(|value| *value += step);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SPAN: Span = Span { start: Duration::from_secs(2), length: Some(Duration::from_secs(3)) };

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_span_holds_its_start_but_not_its_end() {
        let held: Vec<u64> = (0..8).filter(|&second| SPAN.contains(seconds(second))).collect();
        assert_eq!(held, [2, 3, 4]);
        let endless = Span { start: seconds(2), length: None };
        assert!(!endless.contains(seconds(1)) && endless.contains(seconds(1_000_000)));
    }

    #[test]
    fn a_stall_holds_back_what_is_due_within_it_and_releases_it_at_its_end() {
        let schedule = Schedule::new(10);
        let stall = Scenario { span: SPAN, effect: Effect::Stall };
        let released = |elapsed| stall.released(schedule, elapsed, schedule.due_by(elapsed));
        assert_eq!(released(seconds(1)), 11);
        assert_eq!(released(seconds(2)), 20, "record 20 is due at the stall's start, and waits");
        assert_eq!(released(seconds(4)), 20);
        assert_eq!(released(seconds(5)), 51, "all that was due goes out at once");
        assert_eq!(stall.pause(seconds(1)), None);
        assert_eq!(stall.pause(seconds(3)), Some(LONGEST_PAUSE));
        assert_eq!(stall.pause(seconds(5)), None);
    }

    fn spoiled(format: Format, row: &str) -> Vec<Vec<u8>> {
        let names = ["V1".to_owned(), "Amount".to_owned()];
        let poison = Poison::new(1.0, 1, &names, format);
        (0..Poison::WAYS)
            .map(|way| {
                let mut value = row.as_bytes().to_vec();
                poison.spoil_in(way, &mut value);
                value
            })
            .collect()
    }

    #[test]
    fn poison_is_of_many_kinds_in_both_forms() {
        let row = r#"{"transaction_id":"row-1","event_time":5,"V1":0.25,"Amount":1.5}"#;
        let values = spoiled(Format::Object, row);
        assert!(serde_json::from_slice::<serde_json::Value>(&values[0]).is_err(), "cut off");
        assert!(std::str::from_utf8(&values[3]).is_err(), "no text");
        let text = |way: usize| String::from_utf8(values[way].clone()).unwrap();
        assert_eq!(text(4), r#"{"transaction_id":"row-1","event_time":5,"V1":0.25}"#);
        assert_eq!(text(5), r#"{"transaction_id":"row-1","event_time":5,"V1":0.25,"Amount":"a lot"}"#);
        assert_eq!(text(7), r#"{"transaction_id":"row-1","event_time":5,"V1":0.25,"Amount":NaN}"#);

        let values = spoiled(Format::Split, r#"{"columns":["V1","Amount"],"data":[[0.25,1.5]]}"#);
        let text = |way: usize| String::from_utf8(values[way].clone()).unwrap();
        assert_eq!(text(4), r#"{"columns":["V1","Amount"],"data":[[0.25]]}"#);
        assert_eq!(text(5), r#"{"columns":["V1","Amount"],"data":[[0.25,"a lot"]]}"#);
        assert_eq!(text(7), r#"{"columns":["V1","Amount"],"data":[[0.25,NaN]]}"#);
    }

    #[test]
    fn poison_hits_its_share_and_the_same_rows_for_the_same_seed() {
        let hits = |seed: u64| -> Vec<bool> {
            let mut poison = Poison::new(0.05, seed, &["V1".to_owned()], Format::Object);
            (0..20_000).map(|_| poison.spoil(&mut br#"{"event_time":5,"V1":1}"#.to_vec())).collect()
        };
        let share = hits(1).iter().filter(|hit| **hit).count() as f64 / 20_000.0;
        // Five standard errors.
        assert!((share - 0.05).abs() < 0.008, "{share}");
        assert_eq!(hits(1), hits(1));
        assert_ne!(hits(1), hits(2));
    }

    #[test]
    fn a_shift_moves_every_feature_of_every_component_by_its_deviations() {
        let path = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/fraud/reference.json"));
        let before = Reference::read(path).unwrap();
        let mut after = Reference::read(path).unwrap();
        shift(&mut after, 1.0);
        let (before, after) = (before.profile.unwrap(), after.profile.unwrap());
        after.validate().unwrap();
        let middle = before.levels.partition_point(|&level| level < 0.5);
        let low = before.levels.partition_point(|&level| level < 0.05);
        let high = before.levels.partition_point(|&level| level < 0.95);
        let steps = |component: usize| -> Vec<f64> {
            let pairs = before.components[component].features.iter().zip(&after.components[component].features);
            pairs.map(|(before, after)| after.quantiles[middle] - before.quantiles[middle]).collect()
        };
        for (feature, step) in before.components[0].features.iter().zip(steps(0)) {
            let range = feature.quantiles[high] - feature.quantiles[low];
            assert!(step > 0.1 * range && step < 0.7 * range, "{}: {step} of {range}", feature.name);
        }
        for component in 1..before.components.len() {
            for (one, other) in steps(0).iter().zip(steps(component)) {
                assert!((one - other).abs() < 1e-6 * (1.0 + one.abs()), "{one} and {other}");
            }
        }
    }

    #[test]
    fn an_incident_of_a_run_has_ids_of_its_own() {
        assert_ne!(another_seed(1), 1);
        assert_eq!(another_seed(1), another_seed(1));
        assert_ne!(another_seed(1), another_seed(2));
    }
}
