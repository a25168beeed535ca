//! Offsets with the epoch of the leader whose log they are of, as librdkafka takes them.

use std::ffi::CString;

use rdkafka::bindings as sys;
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};

use crate::kafka::position::{NO_EPOCH, Next};

/// A list of `topic`'s partitions with the next offset of each, and a note beside it.
pub(super) fn list<'a>(
    topic: &str,
    next: impl Iterator<Item = (i32, Next, &'a str)>,
) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for (partition, next, note) in next {
        let mut element = list.add_partition(topic, partition);
        element.set_offset(Offset::Offset(next.offset))?;
        if !note.is_empty() {
            element.set_metadata(note);
        }
        set_epoch(&list, topic, partition, next.epoch);
    }
    Ok(list)
}

/// Notes the epoch of the leader whose log a list's offset is of: the bindings have no word for it.
fn set_epoch(list: &TopicPartitionList, topic: &str, partition: i32, epoch: i32) {
    let Ok(topic) = CString::new(topic) else { return };
    // SAFETY: list and topic are valid for the calls; what is found is the list's own, and null is not written to.
    unsafe {
        let element = sys::rd_kafka_topic_partition_list_find(list.ptr(), topic.as_ptr(), partition);
        if !element.is_null() && epoch != NO_EPOCH {
            sys::rd_kafka_topic_partition_set_leader_epoch(element, epoch);
        }
    }
}
