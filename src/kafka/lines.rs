//! What librdkafka tells in lines of its log and in no other way. Pure.

/// The highest version in a line of `debug=feature`, `ApiKey TxnOffsetCommit (28) Versions 0..5`: librdkafka sends offsets
/// without their member's generation to a broker that knows no version 3, and does not tell.
pub(super) fn offset_commit_version(facility: &str, line: &str) -> Option<i16> {
    let (_, versions) =
        line.split_once("ApiKey TxnOffsetCommit (28) Versions ").filter(|_| facility == "APIVERSION")?;
    versions.split_once("..")?.1.trim().parse().ok()
}

/// The id of no topic, as librdkafka writes it.
pub(super) const NO_TOPIC_ID: &str = "AAAAAAAAAAAAAAAAAAAAAA";

/// Topic, old and new id in a line of `debug=metadata`, `Topic TOPIC changed id from ID to ID`: librdkafka reads on at its old
/// offsets when a topic is deleted and made again, and tells in no other way.
pub(super) fn changed_topic_id<'a>(facility: &str, line: &'a str) -> Option<(&'a str, &'a str, &'a str)> {
    let (before, id) = line.rsplit_once(" to ").filter(|_| facility == "METADATA")?;
    let (topic, old) = before.rsplit_once(" changed id from ")?;
    Some((topic.rsplit_once("Topic ").map_or(topic, |(_, topic)| topic), old.trim(), id.trim()))
}

/// Whether a line of `debug=metadata`, `0 brokers, COUNT topics`, says that a broker's answer named no broker at all, as when a
/// pause of the controller has fenced all of them. librdkafka 2.12 then drops those it knows, and may be left without any
/// for good, or with partitions that none of its threads serves (confluentinc/librdkafka#5301, of 2.13).
pub(super) fn names_no_broker(facility: &str, line: &str) -> bool {
    facility == "METADATA" && line.contains(": 0 brokers, ")
}

/// The partition of a line that says that librdkafka goes on elsewhere: `TOPIC [PARTITION]: offset reset (at …`, the only
/// way in which it tells.
pub(super) fn reset_partition(facility: &str, line: &str) -> Option<i32> {
    let (before, _) = line.split_once("]: offset reset (at ").filter(|_| facility == "OFFSET")?;
    before.rsplit_once('[')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topics_new_id_is_read_from_librdkafkas_line_and_from_no_other() {
        let (old, new) = (NO_TOPIC_ID, "pBq1Dl7xQ_yIMK9bK7HbCQ");
        let line = format!("[thrd:main]: Topic transactions.v2 changed id from {old} to {new}");
        assert_eq!(changed_topic_id("METADATA", &line), Some(("transactions.v2", old, new)));
        assert_eq!(changed_topic_id("TOPIC", &line), None);
        assert_eq!(changed_topic_id("METADATA", "Topic transactions.v2 [0] Leader 1 Epoch 0"), None);
    }

    #[test]
    fn an_answer_without_brokers_is_read_from_librdkafkas_line_and_from_no_other() {
        assert!(names_no_broker("METADATA", "[thrd:main]: 127.0.0.1:9092/1: 0 brokers, 1 topics"));
        assert!(!names_no_broker("METADATA", "[thrd:main]: 127.0.0.1:9092/1: 10 brokers, 1 topics"));
        assert!(!names_no_broker("BROKER", "[thrd:main]: 127.0.0.1:9092/1: 0 brokers, 1 topics"));
    }

    #[test]
    fn a_version_is_read_from_librdkafkas_line_and_from_no_other() {
        let line = "[thrd:127.0.0.1:9092/bootstrap]: 127.0.0.1:9092/1:   ApiKey TxnOffsetCommit (28) Versions 0..2";
        assert_eq!(offset_commit_version("APIVERSION", line), Some(2));
        assert_eq!(offset_commit_version("FEATURE", line), None);
        assert_eq!(offset_commit_version("APIVERSION", "  ApiKey OffsetCommit (8) Versions 2..9"), None);
    }

    #[test]
    fn a_reset_is_read_from_librdkafkas_line_and_from_no_other() {
        let line =
            "transactions.v2 [31]: offset reset (at offset 50 (leader epoch 0), broker 1) to cached BEGINNING offset";
        assert_eq!(reset_partition("OFFSET", line), Some(31));
        assert_eq!(reset_partition("FETCH", line), None);
        assert_eq!(reset_partition("OFFSET", "transactions [3]: something else"), None);
    }
}
