//! What librdkafka calls: an interceptor for every message on its way out, log lines, errors. The parent module says why
//! each use of the opaque pointer is sound.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::null_mut;

use rdkafka::bindings as sys;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::RDKafkaErrorCode;

use super::headers::{header, list_size};
use crate::kafka::client;
use crate::kafka::failure;
use crate::kafka::message::{Message, slice};
use crate::kafka::oauth;

/// What librdkafka reports of itself.
pub trait Reports: Send + Sync {
    /// A line of its log, on any of its threads.
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        client::log(level, facility, line);
    }

    /// An error of the client, not of one message; on the thread that serves it.
    fn error(&self, code: RDKafkaErrorCode, reason: &str);

    /// Statistics of the client, as librdkafka writes them; on the thread that serves it.
    fn statistics(&self, _json: &[u8]) {}
}

/// What librdkafka reports of messages on their way out, on its own threads.
pub trait Deliveries: Reports {
    /// A message was delivered, or failed for good.
    fn settled(&self, message: Settled<'_>);
}

/// A message on its way out.
pub struct Settled<'a>(&'a Message);

impl Settled<'_> {
    /// The tag it was queued with.
    pub fn tag(&self) -> usize {
        self.0.opaque as usize
    }

    /// Why it was not delivered: librdkafka's number; `None` where it was.
    pub fn error(&self) -> Option<c_int> {
        (self.0.err != 0).then_some(self.0.err)
    }

    /// Where it was to go.
    pub fn partition(&self) -> i32 {
        self.0.partition
    }

    /// Its value.
    pub fn value(&self) -> Option<&[u8]> {
        // SAFETY: librdkafka's message, alive for the call that lends it.
        unsafe { slice(self.0.payload, self.0.len) }
    }

    /// Its last header of this name.
    pub fn header(&self, name: &CStr) -> Option<&[u8]> {
        // SAFETY: as above; what comes back points into the message.
        self.headers().and_then(|headers| unsafe { header(headers, name) })
    }

    /// Bytes of key, value and headers.
    pub fn size(&self) -> usize {
        // SAFETY: the list belongs to the message.
        self.0.key_len + self.0.len + self.headers().map_or(0, |headers| unsafe { list_size(headers) })
    }

    fn headers(&self) -> Option<*mut sys::rd_kafka_headers_t> {
        let mut headers = null_mut();
        // SAFETY: message and out-parameter are valid for the call.
        let code = unsafe { sys::rd_kafka_message_headers(self.0.as_native(), &mut headers) };
        (code == DONE && !headers.is_null()).then_some(headers)
    }
}

/// The interceptors' name in librdkafka's log.
pub(super) const NAME: &CStr = c"fraud-scorer";

const DONE: sys::rd_kafka_resp_err_t = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;

pub(super) unsafe extern "C" fn on_new<R: Deliveries>(
    client: *mut sys::rd_kafka_t,
    _conf: *const sys::rd_kafka_conf_t,
    opaque: *mut c_void,
    _text: *mut c_char,
    _size: usize,
) -> sys::rd_kafka_resp_err_t {
    // SAFETY: within rd_kafka_new, where interceptors are added.
    unsafe {
        sys::rd_kafka_interceptor_add_on_acknowledgement(client, NAME.as_ptr(), Some(on_acknowledgement::<R>), opaque)
    }
}

/// Every message on its way out, on librdkafka's threads.
unsafe extern "C" fn on_acknowledgement<R: Deliveries>(
    _client: *mut sys::rd_kafka_t,
    message: *mut sys::rd_kafka_message_t,
    opaque: *mut c_void,
) -> sys::rd_kafka_resp_err_t {
    // SAFETY: `opaque` is the reports (alive as long as the client); the message is librdkafka's own, alive for the call.
    let (reports, message) = unsafe { (&*opaque.cast::<R>(), &*message.cast::<Message>()) };
    reports.settled(Settled(message));
    DONE
}

pub(in crate::kafka) unsafe extern "C" fn on_log<R: Reports>(
    client: *const sys::rd_kafka_t,
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
    // SAFETY: where there is a client, its opaque pointer is the reports; a line of a configuration has none.
    match unsafe { client.as_ref().and_then(|client| sys::rd_kafka_opaque(client).cast::<R>().as_ref()) } {
        Some(reports) => reports.log(level, facility.trim(), text.trim()),
        None => client::log(level, facility.trim(), text.trim()),
    }
}

/// The client logs in by tokens, and needs another one.
pub(in crate::kafka) unsafe extern "C" fn on_token(
    client: *mut sys::rd_kafka_t,
    _config: *const c_char,
    _opaque: *mut c_void,
) {
    // SAFETY: librdkafka's own client, alive for the call.
    unsafe { oauth::hand_to(client) }
}

pub(in crate::kafka) unsafe extern "C" fn on_statistics<R: Reports>(
    _client: *mut sys::rd_kafka_t,
    json: *mut c_char,
    length: usize,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: `opaque` is the reports; the text has this length and is valid for the call.
    let (reports, json) = unsafe { (&*opaque.cast::<R>(), std::slice::from_raw_parts(json.cast::<u8>(), length)) };
    reports.statistics(json);
    // librdkafka frees the text.
    0
}

pub(in crate::kafka) unsafe extern "C" fn on_error<R: Reports>(
    _client: *mut sys::rd_kafka_t,
    code: c_int,
    reason: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: `opaque` is the reports; the text is valid for the call.
    let (reports, reason) = unsafe { (&*opaque.cast::<R>(), CStr::from_ptr(reason).to_string_lossy()) };
    reports.error(failure::code(code), reason.trim());
}
