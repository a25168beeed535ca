//! What decoding knows of features and gives of rows.

use std::ops::Range;

/// A feature as the bundle's manifest lists it.
#[derive(Clone, Debug)]
pub struct Feature {
    /// Its key in the transaction.
    pub name: String,
    /// Used where the transaction lacks it or has null; `None`: required. NaN: the model has a way of its own with what is
    /// missing (`missing = "nan"` in the manifest).
    pub default: Option<f32>,
}

impl PartialEq for Feature {
    /// A default of NaN is the same as another.
    fn eq(&self, other: &Feature) -> bool {
        self.name == other.name && self.default.map(f32::to_bits) == other.default.map(f32::to_bits)
    }
}

/// Keys of a transaction that mean something else than a feature.
pub const RESERVED_KEYS: [&str; 5] = ["transaction_id", "event_time", "columns", "data", "dataframe_split"];

/// Where a row's transaction id comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TransactionId {
    /// The transaction had none: `topic-partition-offset-row` takes its place.
    #[default]
    Absent,
    /// Bytes of the payload, valid as the inside of a JSON string.
    Payload(Range<u32>),
}

impl TransactionId {
    /// Bytes of the transaction's own id, as the payload spells it.
    #[inline]
    pub fn bytes(&self) -> usize {
        match self {
            TransactionId::Absent => 0,
            TransactionId::Payload(range) => range.len(),
        }
    }
}

/// Where a row's event time comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EventTime {
    /// The transaction had none: the record's Kafka timestamp takes its place.
    #[default]
    Absent,
    /// Epoch milliseconds.
    Milliseconds(i64),
}

/// What a verdict needs of a row beside its score.
#[derive(Clone, Debug)]
pub struct RowMeta {
    /// Index of the record in the batch.
    pub record: u32,
    /// Row within the message.
    pub row: u32,
    /// The transaction's id.
    pub transaction_id: TransactionId,
    /// The transaction's time.
    pub event_time: EventTime,
}

impl RowMeta {
    /// Takes what the row does not say itself from what its message says.
    #[inline]
    pub(super) fn inherit(&mut self, message: &RowMeta) {
        if self.transaction_id == TransactionId::Absent {
            self.transaction_id = message.transaction_id.clone();
        }
        if self.event_time == EventTime::Absent {
            self.event_time = message.event_time;
        }
    }
}

/// Decoded rows of a batch, in input order; reused from batch to batch.
#[derive(Debug, Default)]
pub struct Rows {
    /// Row-major, `width` features a row.
    pub features: Vec<f32>,
    /// One per row.
    pub meta: Vec<RowMeta>,
}

impl Rows {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.meta.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.meta.is_empty()
    }

    /// Forgets the rows, keeps the memory.
    pub fn clear(&mut self) {
        self.features.clear();
        self.meta.clear();
    }
}
