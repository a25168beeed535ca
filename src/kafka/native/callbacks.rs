//! What librdkafka calls: interceptors for every message on its way in and out, log lines, errors. The parent module says
//! why each use of the opaque pointer is sound.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::null_mut;

use rdkafka::bindings as sys;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::headers::list_size;
use super::standing::Standing;
use crate::kafka::client;

/// What librdkafka tells of messages and of itself, on its own threads.
pub trait Reports: Send + Sync {
    /// A message that carried `tag` was delivered, or failed for good; `size` in bytes of key, value and headers.
    fn settled(&self, tag: usize, outcome: Result<(), RDKafkaErrorCode>, size: impl FnOnce() -> usize);

    /// An error of the client, not of one message.
    fn error(&self, error: KafkaError, reason: &str);

    /// Statistics of the client, as librdkafka writes them; on the thread that serves it.
    fn statistics(&self, json: &[u8]);
}

/// What the interceptors see.
pub(super) struct Interceptors<R> {
    pub(super) reports: R,
    pub(super) standing: Standing,
}

/// The interceptors' name in librdkafka's log.
pub(super) const NAME: &CStr = c"fraud-scorer";

const DONE: sys::rd_kafka_resp_err_t = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;

pub(super) unsafe extern "C" fn on_new<R: Reports>(
    client: *mut sys::rd_kafka_t,
    _conf: *const sys::rd_kafka_conf_t,
    opaque: *mut c_void,
    _text: *mut c_char,
    _size: usize,
) -> sys::rd_kafka_resp_err_t {
    // SAFETY: within rd_kafka_new, where interceptors are added.
    unsafe {
        sys::rd_kafka_interceptor_add_on_send(client, NAME.as_ptr(), Some(on_send::<R>), opaque);
        sys::rd_kafka_interceptor_add_on_acknowledgement(client, NAME.as_ptr(), Some(on_acknowledgement::<R>), opaque)
    }
}

/// Every message on its way in, on the thread that produces.
unsafe extern "C" fn on_send<R: Reports>(
    _client: *mut sys::rd_kafka_t,
    message: *mut sys::rd_kafka_message_t,
    opaque: *mut c_void,
) -> sys::rd_kafka_resp_err_t {
    // SAFETY: `opaque` is the interceptors' (alive as long as the client); the message is librdkafka's own.
    unsafe {
        let interceptors = &*opaque.cast::<Interceptors<R>>();
        let mut own = null_mut();
        if sys::rd_kafka_message_headers(message, &mut own) != DONE {
            sys::rd_kafka_message_set_headers(message, interceptors.standing.list());
        }
    }
    DONE
}

/// Every message on its way out, on librdkafka's threads.
unsafe extern "C" fn on_acknowledgement<R: Reports>(
    _client: *mut sys::rd_kafka_t,
    message: *mut sys::rd_kafka_message_t,
    opaque: *mut c_void,
) -> sys::rd_kafka_resp_err_t {
    // SAFETY: as above.
    unsafe {
        let interceptors = &*opaque.cast::<Interceptors<R>>();
        let (mut headers, mut headers_bytes) = (null_mut(), 0);
        if sys::rd_kafka_message_headers(message, &mut headers) == DONE {
            if let Some(lending) = interceptors.standing.lending_of(headers) {
                sys::rd_kafka_message_detach_headers(message, &mut headers);
                headers_bytes = lending.give_back();
            } else if (*message).err != DONE {
                headers_bytes = list_size(headers);
            }
        }
        let message = &*message;
        let outcome = if message.err == DONE { Ok(()) } else { Err(message.err.into()) };
        let size = || message.key_len + message.len + headers_bytes;
        interceptors.reports.settled(message._private as usize, outcome, size);
    }
    DONE
}

pub(super) unsafe extern "C" fn on_log(
    _client: *const sys::rd_kafka_t,
    level: c_int,
    facility: *const c_char,
    text: *const c_char,
) {
    // SAFETY: librdkafka's strings, valid for the call.
    let (facility, text) =
        unsafe { (CStr::from_ptr(facility).to_string_lossy(), CStr::from_ptr(text).to_string_lossy()) };
    let level = if level <= 2 {
        RDKafkaLogLevel::Critical
    } else if level >= 7 {
        RDKafkaLogLevel::Debug
    } else {
        RDKafkaLogLevel::Info
    };
    client::log(level, &facility, &text);
}

pub(super) unsafe extern "C" fn on_statistics<R: Reports>(
    _client: *mut sys::rd_kafka_t,
    json: *mut c_char,
    length: usize,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: `opaque` is the interceptors'; the text has this length and is valid for the call.
    let (interceptors, json) =
        unsafe { (&*opaque.cast::<Interceptors<R>>(), std::slice::from_raw_parts(json.cast::<u8>(), length)) };
    interceptors.reports.statistics(json);
    // librdkafka frees the text.
    0
}

pub(super) unsafe extern "C" fn on_error<R: Reports>(
    _client: *mut sys::rd_kafka_t,
    code: c_int,
    reason: *const c_char,
    opaque: *mut c_void,
) {
    let code = sys::rd_kafka_resp_err_t::try_from(code).unwrap_or(sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_UNKNOWN);
    // SAFETY: `opaque` is the interceptors'; the text is valid for the call.
    let (interceptors, reason) =
        unsafe { (&*opaque.cast::<Interceptors<R>>(), CStr::from_ptr(reason).to_string_lossy()) };
    interceptors.reports.error(KafkaError::Global(code.into()), &reason);
}
