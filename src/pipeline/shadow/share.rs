//! Which records a challenger scores: a share of them, the same ones each time they are read. Pure.

/// The share of records.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// A record takes part whose hash is below; `None`: every record.
    below: Option<u64>,
}

impl Share {
    /// Every record.
    pub const ALL: Share = Share { below: None };

    /// A share of 0 to 1; the error says what is wrong with it.
    pub fn new(share: f64) -> Result<Share, String> {
        if !(0.0..=1.0).contains(&share) {
            return Err(format!("{share} is no share: expected a number from 0 to 1"));
        }
        // As a number of hashes; 1.0 would be one too many to count.
        let below = (share < 1.0).then_some((share * (u64::MAX as f64)) as u64);
        Ok(Share { below })
    }

    /// Whether every record takes part.
    pub fn is_all(self) -> bool {
        self.below.is_none()
    }

    /// Whether the record at this place takes part.
    #[inline]
    pub fn takes(self, partition: i32, offset: i64) -> bool {
        self.below.is_none_or(|below| hash(partition, offset) < below)
    }
}

/// splitmix64's finisher over both numbers: neighbouring offsets are far apart.
#[inline]
fn hash(partition: i32, offset: i64) -> u64 {
    let mut bits = (offset as u64) ^ (partition as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    bits = bits.wrapping_add(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_records_takes_part_and_always_the_same() {
        for share in [0.0, 0.1, 0.5, 0.99, 1.0] {
            let policy = Share::new(share).expect("a share");
            for partition in [0, 1, 17] {
                let takes = |offset| policy.takes(partition, offset);
                let taken = (0..20_000).filter(|&offset| takes(offset)).count() as f64 / 20_000.0;
                assert!((taken - share).abs() < 0.015, "{share} of partition {partition}: {taken}");
                assert!((0..100).all(|offset| takes(offset) == takes(offset)));
            }
        }
        let half = Share::new(0.5).expect("a share");
        assert!((0..100).any(|offset| half.takes(0, offset) != half.takes(1, offset)), "partitions differ");
        assert!(Share::new(1.0).expect("a share").is_all());
        assert!(Share::new(1.1).is_err() && Share::new(-0.1).is_err() && Share::new(f64::NAN).is_err());
    }
}
