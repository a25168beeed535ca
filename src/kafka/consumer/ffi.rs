//! librdkafka's functions as the bindings declare them, but for the codes they return or are given: a broker's answer may be
//! one that the bindings' enum does not list.

#![allow(clashing_extern_declarations)]

use std::ffi::{c_char, c_int, c_void};

use rdkafka::bindings as sys;
use rdkafka::bindings::{
    rd_kafka_conf_t, rd_kafka_event_t, rd_kafka_t, rd_kafka_topic_partition_list_t, rd_kafka_topic_result_t,
    rd_kafka_topic_t,
};

/// As librdkafka calls about a member's partitions, and about a commit's outcome.
pub(in crate::kafka) type ListCallback =
    unsafe extern "C" fn(*mut rd_kafka_t, c_int, *mut rd_kafka_topic_partition_list_t, *mut c_void);

unsafe extern "C" {
    pub(in crate::kafka) fn rd_kafka_conf_set_rebalance_cb(conf: *mut rd_kafka_conf_t, callback: Option<ListCallback>);
    pub(in crate::kafka) fn rd_kafka_conf_set_offset_commit_cb(
        conf: *mut rd_kafka_conf_t,
        callback: Option<ListCallback>,
    );
    pub(in crate::kafka) fn rd_kafka_subscribe(
        client: *mut rd_kafka_t,
        topics: *const rd_kafka_topic_partition_list_t,
    ) -> c_int;
    pub(in crate::kafka) fn rd_kafka_unsubscribe(client: *mut rd_kafka_t) -> c_int;
    pub(in crate::kafka) fn rd_kafka_assign(
        client: *mut rd_kafka_t,
        list: *const rd_kafka_topic_partition_list_t,
    ) -> c_int;
    pub(in crate::kafka) fn rd_kafka_pause_partitions(
        client: *mut rd_kafka_t,
        list: *mut rd_kafka_topic_partition_list_t,
    ) -> c_int;
    pub(in crate::kafka) fn rd_kafka_resume_partitions(
        client: *mut rd_kafka_t,
        list: *mut rd_kafka_topic_partition_list_t,
    ) -> c_int;
    pub(in crate::kafka) fn rd_kafka_commit(
        client: *mut rd_kafka_t,
        list: *const rd_kafka_topic_partition_list_t,
        is_async: c_int,
    ) -> c_int;
    pub(in crate::kafka) fn rd_kafka_committed(
        client: *mut rd_kafka_t,
        list: *mut rd_kafka_topic_partition_list_t,
        timeout: c_int,
    ) -> c_int;
    pub(in crate::kafka) fn rd_kafka_offsets_for_times(
        client: *mut rd_kafka_t,
        list: *mut rd_kafka_topic_partition_list_t,
        timeout: c_int,
    ) -> c_int;
    pub(in crate::kafka) fn rd_kafka_query_watermark_offsets(
        client: *mut rd_kafka_t,
        topic: *const c_char,
        partition: i32,
        low: *mut i64,
        high: *mut i64,
        timeout: c_int,
    ) -> c_int;
    pub(in crate::kafka) fn rd_kafka_get_watermark_offsets(
        client: *mut rd_kafka_t,
        topic: *const c_char,
        partition: i32,
        low: *mut i64,
        high: *mut i64,
    ) -> c_int;
    pub(in crate::kafka) fn rd_kafka_metadata(
        client: *mut rd_kafka_t,
        all_topics: c_int,
        topic: *mut rd_kafka_topic_t,
        metadata: *mut *const sys::rd_kafka_metadata,
        timeout: c_int,
    ) -> c_int;
    pub(in crate::kafka) fn rd_kafka_consumer_close(client: *mut rd_kafka_t) -> c_int;
    pub(in crate::kafka) fn rd_kafka_event_error(event: *mut rd_kafka_event_t) -> c_int;
    pub(in crate::kafka) fn rd_kafka_topic_result_error(result: *const rd_kafka_topic_result_t) -> c_int;
}
