//! Header lists: ours as values, librdkafka's as an owned pointer.

use std::borrow::Cow;
use std::ffi::{CStr, c_void};
use std::ptr::NonNull;

use rdkafka::bindings as sys;

use crate::kafka::message::slice;

/// Headers of a message: names with values, in order.
pub type Headers<'a> = Vec<(Cow<'a, str>, Option<Cow<'a, [u8]>>)>;

/// Bytes of names and values.
pub fn headers_size(headers: &Headers<'_>) -> usize {
    headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, |value| value.len())).sum()
}

/// An owned header list of librdkafka.
pub(super) struct HeaderList(pub(super) NonNull<sys::rd_kafka_headers_t>);

impl HeaderList {
    /// A list of copies.
    pub(super) fn new(headers: &Headers<'_>) -> HeaderList {
        // SAFETY: librdkafka allocates or aborts; names and values are copied within each call.
        let list = unsafe { sys::rd_kafka_headers_new(headers.len()) };
        let list = NonNull::new(list).expect("librdkafka allocates a header list or aborts");
        for (name, value) in headers {
            let (pointer, size) = match value {
                Some(value) => (value.as_ptr().cast::<c_void>(), value.len() as isize),
                None => (std::ptr::null(), 0),
            };
            unsafe {
                sys::rd_kafka_header_add(list.as_ptr(), name.as_ptr().cast(), name.len() as isize, pointer, size);
            }
        }
        HeaderList(list)
    }
}

impl Drop for HeaderList {
    fn drop(&mut self) {
        // SAFETY: ours, and freed once.
        unsafe { sys::rd_kafka_headers_destroy(self.0.as_ptr()) }
    }
}

/// Bytes of a list's names and values.
///
/// # Safety
///
/// The list is valid.
pub(super) unsafe fn list_size(headers: *const sys::rd_kafka_headers_t) -> usize {
    let mut bytes = 0;
    // SAFETY: the list belongs to a message that is alive; indices are below its count.
    unsafe {
        for index in 0..sys::rd_kafka_header_cnt(headers) {
            let (mut name, mut value, mut size) = (std::ptr::null(), std::ptr::null(), 0);
            if sys::rd_kafka_header_get_all(headers, index, &mut name, &mut value, &mut size)
                == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
            {
                bytes += CStr::from_ptr(name).count_bytes() + size;
            }
        }
    }
    bytes
}

/// The last value of this name.
///
/// # Safety
///
/// The list is valid and lives as long as `'a`.
pub(super) unsafe fn header<'a>(headers: *const sys::rd_kafka_headers_t, name: &CStr) -> Option<&'a [u8]> {
    let (mut value, mut size) = (std::ptr::null(), 0);
    // SAFETY: the caller's promise; the value points into the list.
    unsafe {
        let code = sys::rd_kafka_header_get_last(headers, name.as_ptr(), &mut value, &mut size);
        if code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR { slice(value, size) } else { None }
    }
}
