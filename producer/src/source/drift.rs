//! Drift: the profile's classes move over event time, so that a model of yesterday gets worse while a new one, trained
//! on what is drawn today, gets about as good as the old one was. Pure: event times come in, parameters go out.
//!
//! ```text
//! event time t ─► factor f = strength · clamp((t - start) / over, 0, 1) ─► every parameter = (1 - f) · from + f · to
//! ```
//!
//! `from` is the bundle's profile. `to` is drawn from a seed. Features that are never negative (amounts) scale; all
//! others move. With m and s a feature's mean and standard deviation over all legitimate components:
//!
//! ```text
//! legitimate   Q(u) + shift,             shift = ±0.1 s … ±0.4 s                        amounts: 1.5 · Q(u)
//! fraud        m + shift + sign · s · R(u or 1 - u),  R(u) = (Q′(u) - m′) / s′          amounts: 2 · Q(u)
//! correlation  legitimate: half C, half P C Pᵀ;  fraud: its own C in the order of its partners, with their signs
//! share        of fraud: twice what it was, at most a half
//! ```
//!
//! Q is a component's quantile function, P a random order of the features with random signs. Q′, m′ and s′ belong to the
//! feature's *partner*: features are ranked by how far fraud lies from legitimate transactions, |mean - m| / s, and each
//! of the upper half is paired at random with one of the lower half. Fraud so looks ordinary where it was conspicuous,
//! and is conspicuous where it looked ordinary: what a model has learnt about it is gone, and as much is there to be
//! learnt anew.
//!
//! What lies between stays valid: a mean of two ascending quantile functions ascends, and a mean of two correlation
//! matrices is one. Its triangle is computed anew for each of [`STEPS`] steps of the ramp, not for each row.

use std::time::Duration;

use fraud_wire::reference::{Component, Profile};
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::profile::FRAUD;
use crate::event_time::milliseconds;

/// Steps of the ramp. One of them moves no parameter by more than 1/256 of its way: less than a day's chance does.
const STEPS: u32 = 256;

/// The stream of the seed's generator that the direction is drawn from; the profile draws from 0, keys from 1.
const DIRECTION_STREAM: u64 = 2;

const LEGITIMATE_AMOUNTS: f64 = 1.5;
const FRAUD_AMOUNTS: f64 = 2.0;
const FRAUD_SHARE: f64 = 2.0;

/// How far, how fast and in which direction a profile moves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drift {
    /// How far of the way to the other profile: 0 is no drift, 1 all of it.
    pub strength: f64,
    /// Event time from the drift's start to its end; from then on nothing moves.
    pub over: Duration,
    /// When it starts.
    pub start: DriftStart,
    /// Which way it goes: runs with the same seed drift towards the same profile.
    pub seed: u64,
}

/// When a drift starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriftStart {
    /// This much event time after the first transaction.
    After(Duration),
    /// At this event time, in milliseconds since 1970-01-01 UTC: the same in every run.
    At(i64),
}

/// The parameters of one component, as far as they move.
struct Shape {
    share: f64,
    /// The values at the profile's levels, feature after feature.
    quantiles: Vec<Vec<f64>>,
    /// The correlation of the normal scores, row after row, all n × n of it.
    correlation: Vec<f64>,
}

/// A drift on its way.
pub(super) struct Course {
    drift: Drift,
    /// Event time at which it starts, once the first row has said when that is.
    start: Option<i64>,
    /// Of [`STEPS`].
    step: u32,
    from: Vec<Shape>,
    to: Vec<Shape>,
    /// The correlation on the way, n × n, used again for each component.
    blended: Vec<f64>,
}

impl Course {
    /// Works out where the profile goes. `shares` are the components', adding up to 1.
    pub(super) fn new(profile: &Profile, shares: &[f64], drift: Drift) -> Course {
        let from: Vec<Shape> =
            profile.components.iter().zip(shares).map(|(component, &share)| Shape::of(component, share)).collect();
        let to = destination(profile, &from, drift.seed);
        let blended = vec![0.0; from.first().map_or(0, |shape| shape.correlation.len())];
        Course { drift, start: None, step: 0, from, to, blended }
    }

    /// The factor at an event time, when it differs from the one before.
    pub(super) fn moved(&mut self, event_time: i64) -> Option<f64> {
        let start = *self.start.get_or_insert(match self.drift.start {
            DriftStart::After(offset) => event_time.saturating_add(milliseconds(offset)),
            DriftStart::At(moment) => moment,
        });
        let passed = event_time.saturating_sub(start);
        let progress = match passed {
            i64::MIN..0 => 0.0,
            _ => (passed as f64 / milliseconds(self.drift.over).max(1) as f64).min(1.0),
        };
        let step = (progress * f64::from(STEPS)) as u32;
        if step == self.step {
            return None;
        }
        self.step = step;
        Some(self.drift.strength * f64::from(step) / f64::from(STEPS))
    }

    /// A component's share at a factor.
    pub(super) fn share(&self, component: usize, factor: f64) -> f64 {
        between(self.from[component].share, self.to[component].share, factor)
    }

    /// A component's values at the levels, for one feature, at a factor.
    pub(super) fn quantiles(&self, component: usize, feature: usize, factor: f64) -> impl Iterator<Item = f64> {
        let ends = self.from[component].quantiles[feature].iter().zip(&self.to[component].quantiles[feature]);
        ends.map(move |(from, to)| between(*from, *to, factor))
    }

    /// Replaces `triangle` (row i has i + 1 numbers) by that of a component's correlation at a factor.
    pub(super) fn triangle(&mut self, component: usize, factor: f64, triangle: &mut [f64]) {
        let ends = self.from[component].correlation.iter().zip(&self.to[component].correlation);
        for (blended, (from, to)) in self.blended.iter_mut().zip(ends) {
            *blended = between(*from, *to, factor);
        }
        cholesky(&self.blended, triangle);
    }
}

fn between(from: f64, to: f64, factor: f64) -> f64 {
    from + factor * (to - from)
}

impl Shape {
    fn of(component: &Component, share: f64) -> Shape {
        let triangle = &component.correlation_cholesky;
        // Row i has i + 1 numbers, so the shorter of the two rows ends the sum where the other meets zeros.
        let product = |(left, right): (&Vec<f64>, &Vec<f64>)| left.iter().zip(right).map(|(a, b)| a * b).sum();
        Shape {
            share,
            quantiles: component.features.iter().map(|feature| feature.quantiles.clone()).collect(),
            correlation: triangle
                .iter()
                .flat_map(|row| triangle.iter().map(move |other| (row, other)))
                .map(product)
                .collect(),
        }
    }
}

/// What legitimate transactions look like in one feature: what fraud's place is measured by.
struct Yardstick {
    mean: f64,
    deviation: f64,
}

/// Where each component goes.
fn destination(profile: &Profile, from: &[Shape], seed: u64) -> Vec<Shape> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(DIRECTION_STREAM);
    let yardsticks = yardsticks(profile, from);
    let is_amount: Vec<bool> = (0..yardsticks.len())
        .map(|feature| from.iter().all(|shape| shape.quantiles[feature].first().is_some_and(|&least| least >= 0.0)))
        .collect();

    let shifts: Vec<f64> = yardsticks
        .iter()
        .map(|yardstick| sign(&mut random) * random.random_range(0.1..0.4) * yardstick.deviation)
        .collect();
    let partners = partners(profile, from, &yardsticks, &is_amount, &mut random);
    let mut order: Vec<usize> = (0..yardsticks.len()).collect();
    let mut moving: Vec<usize> = order.iter().copied().filter(|&feature| !is_amount[feature]).collect();
    let places = moving.clone();
    moving.shuffle(&mut random);
    for (place, feature) in places.into_iter().zip(moving) {
        order[place] = feature;
    }
    let mixed: Vec<(usize, f64)> = order.into_iter().map(|feature| (feature, sign(&mut random))).collect();

    let fraud: f64 = from
        .iter()
        .zip(&profile.components)
        .filter(|(_, component)| component.label == FRAUD)
        .map(|(s, _)| s.share)
        .sum();
    let wanted = (fraud * FRAUD_SHARE).min(fraud.max(0.5));
    let fraud_scale = if fraud > 0.0 { wanted / fraud } else { 1.0 };
    let legitimate_scale = if fraud < 1.0 { (1.0 - wanted) / (1.0 - fraud) } else { 1.0 };

    let moved = |(shape, component): (&Shape, &Component)| {
        let is_fraud = component.label == FRAUD;
        let quantiles = (0..yardsticks.len()).map(|feature| {
            let own = shape.quantiles[feature].iter();
            if is_amount[feature] {
                let scale = if is_fraud { FRAUD_AMOUNTS } else { LEGITIMATE_AMOUNTS };
                return own.map(|value| value * scale).collect();
            }
            if !is_fraud {
                return own.map(|value| value + shifts[feature]).collect();
            }
            let (partner, sign) = partners[feature];
            let (here, there) = (&yardsticks[feature], &yardsticks[partner]);
            let place = |value: &f64| {
                let standardised = (value - there.mean) / there.deviation;
                here.mean + shifts[feature] + sign * here.deviation * standardised
            };
            let theirs = &shape.quantiles[partner];
            if sign > 0.0 { theirs.iter().map(place).collect() } else { theirs.iter().rev().map(place).collect() }
        });
        Shape {
            share: shape.share * if is_fraud { fraud_scale } else { legitimate_scale },
            quantiles: quantiles.collect(),
            correlation: if is_fraud {
                reordered(&shape.correlation, &partners)
            } else {
                let other = reordered(&shape.correlation, &mixed);
                shape.correlation.iter().zip(other).map(|(own, other)| between(*own, other, 0.5)).collect()
            },
        }
    };
    from.iter().zip(&profile.components).map(moved).collect()
}

/// Mean and standard deviation of each feature over all legitimate components, by their shares; over all components
/// where there is no legitimate one.
fn yardsticks(profile: &Profile, from: &[Shape]) -> Vec<Yardstick> {
    let is_legitimate = |component: &Component| component.label != FRAUD;
    let has_legitimate = profile.components.iter().any(is_legitimate);
    let chosen: Vec<(&Component, f64)> = profile
        .components
        .iter()
        .zip(from)
        .filter(|(component, _)| is_legitimate(component) || !has_legitimate)
        .map(|(component, shape)| (component, shape.share.max(f64::MIN_POSITIVE)))
        .collect();
    let total: f64 = chosen.iter().map(|(_, share)| share).sum();
    (0..profile.names().count())
        .map(|feature| {
            let moment = |of: &dyn Fn(f64, f64) -> f64| -> f64 {
                let terms = chosen.iter().map(|(component, share)| {
                    let feature = &component.features[feature];
                    share / total * of(feature.mean, feature.standard_deviation)
                });
                terms.sum()
            };
            let mean = moment(&|mean, _| mean);
            let square = moment(&|mean, deviation| deviation * deviation + mean * mean);
            let deviation = (square - mean * mean).max(0.0).sqrt();
            // A feature that never varies gives no unit; 1 keeps what is measured by it finite.
            Yardstick { mean, deviation: if deviation > 0.0 { deviation } else { 1.0 } }
        })
        .collect()
}

/// Each feature's partner and sign: itself for amounts and for the one in the middle of an odd number.
fn partners(
    profile: &Profile,
    from: &[Shape],
    yardsticks: &[Yardstick],
    is_amount: &[bool],
    random: &mut ChaCha8Rng,
) -> Vec<(usize, f64)> {
    let distance = |feature: usize| -> f64 {
        let frauds = profile.components.iter().zip(from).filter(|(component, _)| component.label == FRAUD);
        let distances = frauds.map(|(component, shape)| {
            let apart = (component.features[feature].mean - yardsticks[feature].mean).abs();
            shape.share * apart / yardsticks[feature].deviation
        });
        distances.sum()
    };
    let mut ranked: Vec<usize> = (0..yardsticks.len()).filter(|&feature| !is_amount[feature]).collect();
    ranked.sort_by(|&left, &right| distance(right).total_cmp(&distance(left)).then(left.cmp(&right)));
    let half = ranked.len() / 2;
    let strong = &ranked[..half];
    let mut weak = ranked[ranked.len() - half..].to_vec();
    weak.shuffle(random);
    let mut partners: Vec<(usize, f64)> = (0..yardsticks.len()).map(|feature| (feature, 1.0)).collect();
    for (&strong, weak) in strong.iter().zip(weak) {
        let sign = sign(random);
        partners[strong] = (weak, sign);
        partners[weak] = (strong, sign);
    }
    partners
}

fn sign(random: &mut ChaCha8Rng) -> f64 {
    if random.random::<bool>() { 1.0 } else { -1.0 }
}

/// P C Pᵀ: the correlation between what stands at the given places, with the given signs.
fn reordered(correlation: &[f64], order: &[(usize, f64)]) -> Vec<f64> {
    let size = order.len();
    let entry = |(&(row, left), &(column, right)): (&(usize, f64), &(usize, f64))| {
        left * right * correlation[row * size + column]
    };
    order.iter().flat_map(|row| order.iter().map(move |column| (row, column))).map(entry).collect()
}

/// The lower triangle L with L Lᵀ = `matrix`, row i with i + 1 numbers.
fn cholesky(matrix: &[f64], triangle: &mut [f64]) {
    /// What rounding leaves of a feature that others determine: its own part must not become the root of a negative.
    const LEAST_PIVOT: f64 = 1e-12;
    let at = |row: usize, column: usize| row * (row + 1) / 2 + column;
    let mut size = 0;
    while size * size < matrix.len() {
        size += 1;
    }
    for row in 0..size {
        for column in 0..=row {
            let (left, right) = (&triangle[at(row, 0)..], &triangle[at(column, 0)..]);
            let known: f64 = left[..column].iter().zip(&right[..column]).map(|(a, b)| a * b).sum();
            let rest = matrix[row * size + column] - known;
            triangle[at(row, column)] =
                if row == column { rest.max(LEAST_PIVOT).sqrt() } else { rest / triangle[at(column, column)] };
        }
    }
}

#[cfg(test)]
#[path = "drift_tests.rs"]
mod tests;
