//! The join's judgement: reading one input partition forward, is the record that a verdict names here, gone, or yet to
//! come? Pure; [`super::inputs`] does the reading.
//!
//! ```text
//!   offsets   …  known to hold nothing        the record read last      not read yet …
//!             ▲ empty_from                    ▲ current                 ▲ passed
//! ```
//!
//! A worker writes verdicts in the order of its input, so the offsets asked for ascend and one forward pass finds all
//! of them: a merge join that holds one record per partition. Going back happens after a rebalance only.

/// What to do for the offset asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is the record read last.
    Here,
    /// The partition does not hold it any more (or never did).
    Gone,
    /// Read on.
    Read,
    /// Go to it first: it lies before everything that is known, or nothing is known yet.
    Seek,
}

/// Where one input partition is being read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Offset of the record read last.
    current: Option<i64>,
    /// From here to the current record, or to `passed` where there is none, the partition holds nothing.
    empty_from: i64,
    /// Everything below was read.
    passed: i64,
    /// There was a first seek.
    begun: bool,
}

impl Cursor {
    /// What to do for the record at `offset`.
    pub fn step(&self, offset: i64) -> Step {
        if !self.begun {
            Step::Seek
        } else if self.current == Some(offset) {
            Step::Here
        } else if offset >= self.passed {
            Step::Read
        } else if offset >= self.empty_from {
            Step::Gone
        } else {
            Step::Seek
        }
    }

    /// Reading goes on at `offset`.
    pub fn sought(&mut self, offset: i64) {
        *self = Cursor { current: None, empty_from: offset, passed: offset, begun: true };
    }

    /// A record was read. Its offset is higher than all since the last seek.
    pub fn read(&mut self, offset: i64) {
        if let Some(before) = self.current {
            self.empty_from = before + 1;
        }
        self.current = Some(offset);
        self.passed = offset + 1;
    }

    /// A record was read and not kept: the one asked for lies behind it.
    pub fn skip(&mut self, offset: i64) {
        self.sought(offset + 1);
    }

    /// Nothing is left before `offset`: the partition's end, or what is not waited for any longer.
    pub fn ended(&mut self, offset: i64) {
        self.passed = self.passed.max(offset);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn records_are_found_in_one_pass_and_missing_ones_told() {
        let mut cursor = Cursor::default();
        assert_eq!(cursor.step(5), Step::Seek);
        cursor.sought(5);
        assert_eq!(cursor.step(5), Step::Read);
        cursor.read(7);
        assert_eq!([5, 6, 7, 8].map(|offset| cursor.step(offset)), [Step::Gone, Step::Gone, Step::Here, Step::Read]);
        cursor.read(9);
        assert_eq!([7, 8, 9].map(|offset| cursor.step(offset)), [Step::Seek, Step::Gone, Step::Here]);
        cursor.ended(12);
        assert_eq!([11, 12].map(|offset| cursor.step(offset)), [Step::Gone, Step::Read]);
    }

    #[test]
    fn a_partition_without_a_record_ends() {
        let mut cursor = Cursor::default();
        assert_eq!(cursor.step(0), Step::Seek);
        cursor.sought(3);
        cursor.ended(3);
        assert_eq!(cursor.step(3), Step::Read);
        cursor.ended(4);
        assert_eq!(cursor.step(3), Step::Gone);
    }

    proptest! {
        /// Whatever a partition holds and whatever is asked for: found exactly if it is there.
        #[test]
        fn found_if_and_only_if_there(
            held in proptest::collection::btree_set(0i64..60, 0..40),
            asked in proptest::collection::vec(0i64..60, 0..40),
        ) {
            let mut cursor = Cursor::default();
            let mut reader = 0;
            for offset in asked {
                let found = loop {
                    match cursor.step(offset) {
                        Step::Here => break true,
                        Step::Gone => break false,
                        Step::Seek => {
                            cursor.sought(offset);
                            reader = offset;
                        }
                        Step::Read => match held.range(reader..).next() {
                            Some(&next) => {
                                if next < offset { cursor.skip(next) } else { cursor.read(next) }
                                reader = next + 1;
                            }
                            None => cursor.ended(60),
                        },
                    }
                };
                prop_assert_eq!(found, held.contains(&offset));
            }
        }
    }
}
