//! Transactions that look like the training data, drawn from the profile in a bundle's `reference.json`.
//!
//! ```text
//! component by share ─► g ~ N(0,1)ⁿ ─► z = L·g ─► u = Φ(z) ─► quantiles interpolated at u ─► rounded ─► JSON
//! ```
//!
//! Everything that does not change from draw to draw (packed triangle, slopes between quantiles, where a level lies)
//! is prepared once; a draw then costs about as much as printing its digits. Where the profile drifts, what has moved is
//! prepared anew at each step of the drift, in place (`drift`).

use fraud_wire::reference::{Component, Profile, Reference};
use fraud_wire::transaction::Columns;
use rand::{Rng, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, StandardNormal};

use super::drift::{Course, Drift};
use super::normal::NormalTable;
use super::{Format, Row, Source, SourceError, TransactionId};

/// The label of fraud.
pub(super) const FRAUD: u32 = 1;

/// Cells of the table that tells where among the levels a probability lies.
const GUIDE_CELLS: usize = 4_096;

/// Draws transactions; the same seed draws the same transactions with the same ids.
pub struct ProfileSource {
    draw: Draw,
    names: Vec<String>,
    columns: Columns,
    format: Format,
    values: Vec<f64>,
}

impl ProfileSource {
    /// Prepares a bundle's profile, which stays as it is. `fraud_share` (0..=1) replaces the profile's own share of fraud.
    ///
    /// # Errors
    /// [`SourceError::Profile`] when the reference has no profile, or no fraud whose share could be set.
    pub fn new(
        reference: &Reference,
        fraud_share: Option<f64>,
        format: Format,
        seed: u64,
    ) -> Result<ProfileSource, SourceError> {
        ProfileSource::drifting(reference, fraud_share, format, seed, None)
    }

    /// The same, and the profile moves over event time.
    ///
    /// # Errors
    /// As [`ProfileSource::new`].
    pub fn drifting(
        reference: &Reference,
        fraud_share: Option<f64>,
        format: Format,
        seed: u64,
        drift: Option<Drift>,
    ) -> Result<ProfileSource, SourceError> {
        let profile = reference.profile.as_ref().ok_or_else(|| {
            SourceError::Profile(
                "the model bundle's reference.json has no profile to draw transactions from".to_owned(),
            )
        })?;
        profile.validate().map_err(|error| SourceError::Profile(error.to_string()))?;
        let names: Vec<String> = profile.names().map(str::to_owned).collect();
        let columns = Columns::new(&names);
        let draw = Draw::new(profile, fraud_share, seed, drift)?;
        Ok(ProfileSource { values: vec![0.0; columns.len()], draw, names, columns, format })
    }
}

impl Source for ProfileSource {
    fn next(&mut self, event_time: i64, row: &mut Row) -> Result<bool, SourceError> {
        self.draw.advance(event_time);
        let identifier = random_uuid(&mut self.draw.random);
        let component = self.draw.draw(&mut self.values);
        row.transaction = Some(TransactionId::Uuid(identifier));
        row.event_time = event_time;
        row.label = Some(self.draw.classes[component].label);
        let value = &mut row.value;
        value.clear();
        let values = self.values.iter().copied();
        match self.format {
            Format::Object => {
                let mut text = uuid::Uuid::encode_buffer();
                let text = identifier.hyphenated().encode_lower(&mut text);
                self.columns.write_object(value, text, event_time, values);
            }
            Format::Split => self.columns.write_split(value, values),
        }
        Ok(true)
    }

    fn names(&self) -> &[String] {
        &self.names
    }

    fn features(&self, values: &mut Vec<f64>) {
        values.extend_from_slice(&self.values);
    }
}

/// A version 4 uuid from the given generator.
pub(crate) fn random_uuid(random: &mut impl Rng) -> uuid::Uuid {
    let mut bytes = [0; 16];
    random.fill_bytes(&mut bytes);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

/// The numbers, without their JSON.
struct Draw {
    random: ChaCha8Rng,
    normal: NormalTable,
    levels: Vec<f64>,
    /// For each of `GUIDE_CELLS` equal cells of 0..1: the last level at or below the cell's start.
    guide: Vec<u32>,
    classes: Vec<Class>,
    normals: Vec<f64>,
    course: Option<Course>,
}

/// A component, prepared.
struct Class {
    /// 1 for fraud, 0 for all else.
    label: u8,
    /// Sum of the shares up to and including this component.
    cumulative_share: f64,
    /// Row after row of the lower triangle L: row i has i + 1 numbers.
    triangle: Vec<f64>,
    marginals: Vec<Marginal>,
}

/// One feature's inverse distribution function: a straight line between each two levels.
struct Marginal {
    /// Value at the level and slope from there to the next.
    segments: Vec<(f64, f64)>,
    /// 10^decimals for values that are to be rounded.
    scale: Option<f64>,
}

impl Draw {
    fn new(profile: &Profile, fraud_share: Option<f64>, seed: u64, drift: Option<Drift>) -> Result<Draw, SourceError> {
        let shares = shares(profile, fraud_share)?;
        let course = drift.map(|drift| Course::new(profile, &shares, drift));
        let mut cumulative = 0.0;
        let mut classes = Vec::with_capacity(profile.components.len());
        for (component, share) in profile.components.iter().zip(shares) {
            cumulative += share;
            classes.push(Class::new(component, &profile.levels, cumulative));
        }
        let start = |cell: usize| cell as f64 / GUIDE_CELLS as f64;
        let last_segment = profile.levels.len().saturating_sub(2);
        let guide = (0..=GUIDE_CELLS)
            .map(|cell| {
                profile.levels.partition_point(|&level| level <= start(cell)).saturating_sub(1).min(last_segment)
            })
            .map(|index| index as u32)
            .collect();
        Ok(Draw {
            random: ChaCha8Rng::seed_from_u64(seed),
            normal: NormalTable::new(),
            levels: profile.levels.clone(),
            guide,
            normals: vec![0.0; profile.names().count()],
            classes,
            course,
        })
    }

    /// Moves the classes to where they are at an event time, if the profile drifts and they are not there yet.
    #[inline]
    fn advance(&mut self, event_time: i64) {
        if let Some(course) = &mut self.course
            && let Some(factor) = course.moved(event_time)
        {
            let mut cumulative = 0.0;
            for (index, class) in self.classes.iter_mut().enumerate() {
                cumulative += course.share(index, factor);
                class.cumulative_share = cumulative;
                for (feature, marginal) in class.marginals.iter_mut().enumerate() {
                    marginal.move_to(course.quantiles(index, feature, factor), &self.levels);
                }
                course.triangle(index, factor, &mut class.triangle);
            }
        }
    }

    /// Fills `values` with one transaction and says which component it came from.
    fn draw(&mut self, values: &mut [f64]) -> usize {
        let point: f64 = self.random.random();
        let index = self.classes.iter().position(|class| point < class.cumulative_share);
        // Shares that add up to a little less than 1 leave a sliver to the last component.
        let index = index.unwrap_or(self.classes.len() - 1);
        let class = &self.classes[index];
        for normal in &mut self.normals {
            *normal = StandardNormal.sample(&mut self.random);
        }
        let mut rest = class.triangle.as_slice();
        for (row, (value, marginal)) in values.iter_mut().zip(&class.marginals).enumerate() {
            let (coefficients, after) = rest.split_at(row + 1);
            rest = after;
            let z = dot(coefficients, &self.normals);
            let probability = self.normal.cumulative(z);
            let segment = self.segment(probability);
            *value = marginal.at(segment, probability - self.levels[segment]);
        }
        index
    }

    /// The level that starts the segment in which a probability lies.
    #[inline]
    fn segment(&self, probability: f64) -> usize {
        let mut segment = self.guide[(probability * GUIDE_CELLS as f64) as usize] as usize;
        while segment + 2 < self.levels.len() && self.levels[segment + 1] < probability {
            segment += 1;
        }
        segment
    }
}

/// The sum of products over the shorter slice. Four sums side by side, because one would wait for itself.
#[inline]
fn dot(left: &[f64], right: &[f64]) -> f64 {
    let right = &right[..left.len()];
    let (left_chunks, left_rest) = left.as_chunks::<4>();
    let (right_chunks, right_rest) = right.as_chunks::<4>();
    let mut sums = [0.0; 4];
    for (left, right) in left_chunks.iter().zip(right_chunks) {
        for lane in 0..4 {
            sums[lane] += left[lane] * right[lane];
        }
    }
    let rest: f64 = left_rest.iter().zip(right_rest).map(|(left, right)| left * right).sum();
    (sums[0] + sums[1]) + (sums[2] + sums[3]) + rest
}

/// The components' shares: the profile's, or the wanted share of fraud with the others in their old proportions.
fn shares(profile: &Profile, fraud_share: Option<f64>) -> Result<Vec<f64>, SourceError> {
    let total = |is_fraud: bool| -> f64 {
        let chosen = profile.components.iter().filter(|component| (component.label == FRAUD) == is_fraud);
        chosen.map(|component| component.share).sum()
    };
    let Some(wanted) = fraud_share else {
        return Ok(profile.components.iter().map(|component| component.share).collect());
    };
    let (fraud, legitimate) = (total(true), total(false));
    if !(0.0..=1.0).contains(&wanted) {
        return Err(SourceError::Profile(format!("the share of fraud must lie in 0..=1, not {wanted}")));
    }
    if (fraud == 0.0 && wanted > 0.0) || (legitimate == 0.0 && wanted < 1.0) {
        return Err(SourceError::Profile(
            "the profile has only one class: its share of fraud cannot be set".to_owned(),
        ));
    }
    let scale = |component: &Component| match component.label {
        FRAUD if fraud > 0.0 => component.share * wanted / fraud,
        _ if legitimate > 0.0 => component.share * (1.0 - wanted) / legitimate,
        _ => 0.0,
    };
    Ok(profile.components.iter().map(scale).collect())
}

impl Class {
    fn new(component: &Component, levels: &[f64], cumulative_share: f64) -> Class {
        let marginals = component.features.iter().map(|feature| {
            let scale = feature.decimals.map(|decimals| 10_f64.powi(decimals as i32));
            let mut marginal = Marginal { segments: vec![(0.0, 0.0); levels.len().saturating_sub(1)], scale };
            marginal.move_to(feature.quantiles.iter().copied(), levels);
            marginal
        });
        let label = u8::from(component.label == FRAUD);
        Class {
            label,
            cumulative_share,
            triangle: component.correlation_cholesky.concat(),
            marginals: marginals.collect(),
        }
    }
}

impl Marginal {
    /// Replaces the segments by those between these values at the levels.
    fn move_to(&mut self, mut values: impl Iterator<Item = f64>, levels: &[f64]) {
        let mut left = values.next().unwrap_or_default();
        for ((segment, levels), right) in self.segments.iter_mut().zip(levels.windows(2)).zip(values) {
            *segment = (left, (right - left) / (levels[1] - levels[0]));
            left = right;
        }
    }

    #[inline]
    fn at(&self, segment: usize, beyond: f64) -> f64 {
        let (value, slope) = self.segments[segment];
        let exact = value + slope * beyond;
        match self.scale {
            None => exact,
            Some(scale) => (exact * scale).round() / scale,
        }
    }
}

#[cfg(test)]
#[path = "profile_tests.rs"]
mod tests;
