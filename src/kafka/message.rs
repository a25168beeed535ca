//! librdkafka's message, as plain memory.
//!
//! The bindings type `err` as a Rust enum of the codes that were known when they were made. A broker may send a code of a
//! later Kafka, and reading that as the enum is undefined behaviour. Here it is an integer, like everything that comes
//! from outside; [`super::failure::code`] says which known code it is, if any.

use std::ffi::{c_int, c_void};
use std::mem::offset_of;

use rdkafka::bindings as sys;

/// `rd_kafka_message_t`.
#[repr(C)]
pub(super) struct Message {
    pub(super) err: c_int,
    pub(super) topic: *mut sys::rd_kafka_topic_t,
    pub(super) partition: i32,
    pub(super) payload: *mut c_void,
    pub(super) len: usize,
    pub(super) key: *mut c_void,
    pub(super) key_len: usize,
    pub(super) offset: i64,
    pub(super) opaque: *mut c_void,
}

const _: () = {
    type Theirs = sys::rd_kafka_message_t;
    assert!(size_of::<Message>() == size_of::<Theirs>() && align_of::<Message>() == align_of::<Theirs>());
    assert!(offset_of!(Message, err) == offset_of!(Theirs, err));
    assert!(offset_of!(Message, topic) == offset_of!(Theirs, rkt));
    assert!(offset_of!(Message, partition) == offset_of!(Theirs, partition));
    assert!(offset_of!(Message, payload) == offset_of!(Theirs, payload));
    assert!(offset_of!(Message, len) == offset_of!(Theirs, len));
    assert!(offset_of!(Message, key) == offset_of!(Theirs, key));
    assert!(offset_of!(Message, key_len) == offset_of!(Theirs, key_len));
    assert!(offset_of!(Message, offset) == offset_of!(Theirs, offset));
    assert!(offset_of!(Message, opaque) == offset_of!(Theirs, _private));
};

impl Message {
    /// As the bindings' functions take it; they look at `err` on librdkafka's side only.
    pub(super) fn as_native(&self) -> *const sys::rd_kafka_message_t {
        std::ptr::from_ref(self).cast()
    }
}

/// `None` for null, as librdkafka means it (an empty value has a pointer).
///
/// # Safety
///
/// Where the pointer is not null, it points to `length` bytes that live as long as `'a`.
pub(super) unsafe fn slice<'a>(pointer: *const c_void, length: usize) -> Option<&'a [u8]> {
    // SAFETY: the caller's promise.
    (!pointer.is_null()).then(|| unsafe { std::slice::from_raw_parts(pointer.cast(), length) })
}
