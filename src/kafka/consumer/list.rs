//! librdkafka's lists of partitions, as plain memory.

use std::ffi::c_int;

use rdkafka::bindings as sys;

use super::succeeded;
use crate::kafka::failure::Failure;

/// One partition of a list.
pub struct ListEntry {
    /// The partition.
    pub partition: i32,
    /// Its offset; negative where there is none.
    pub offset: i64,
    /// Epoch of the leader whose log the offset is of (KIP-320); negative where there is none.
    pub epoch: i32,
    /// What was noted beside it; empty where nothing was.
    pub note: String,
    error: c_int,
}

impl ListEntry {
    /// What the broker said of this partition alone.
    pub(super) fn check(&self) -> Result<(), Failure> {
        succeeded(self.error)
    }
}

/// The partitions of a list, as plain memory.
pub(super) fn entries(list: &sys::rd_kafka_topic_partition_list_t) -> impl Iterator<Item = ListEntry> {
    (0..usize::try_from(list.cnt).unwrap_or(0)).map(|index| {
        // SAFETY: a list holds `cnt` elements; each field is read by itself, the code as the integer it is.
        unsafe {
            let element = list.elems.add(index);
            let (note, length) = ((*element).metadata.cast::<u8>(), (*element).metadata_size);
            let note = if note.is_null() { &[] } else { std::slice::from_raw_parts(note, length) };
            ListEntry {
                partition: (*element).partition,
                offset: (*element).offset,
                epoch: sys::rd_kafka_topic_partition_get_leader_epoch(element),
                note: String::from_utf8_lossy(note).into_owned(),
                error: (&raw const (*element).err).cast::<c_int>().read(),
            }
        }
    })
}
