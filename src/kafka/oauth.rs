//! Tokens for SASL/OAUTHBEARER: fetched and kept fresh by a thread of their own, handed to every client that asks.
//!
//! ```text
//!  properties ─► Method::take ─► start ─► thread: fetch, wait, fetch … ─► the latest token ◄─ clients' callbacks
//! ```

use std::ffi::{CString, c_char};
use std::sync::RwLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rdkafka::ClientConfig;
use rdkafka::bindings as sys;

use crate::log_events;
use crate::shutdown::Shutdown;
use crate::telemetry::readiness::Readiness;

mod method;

use self::method::Token;
pub use self::method::{Method, NoToken};

/// Under which readiness knows that there is no token.
const NAME: &str = "token";

/// Pause after a token that was not to be had.
const RETRY: Duration = Duration::from_secs(2);

/// Whether clients of `config` log in by tokens.
pub fn is_used(config: &ClientConfig) -> bool {
    let mechanism = config.get("sasl.mechanism").or_else(|| config.get("sasl.mechanisms"));
    mechanism.is_some_and(|name| name.trim().eq_ignore_ascii_case("OAUTHBEARER"))
}

/// The latest token of this process: its clients all log in as the same user.
static LATEST: RwLock<Option<Token>> = RwLock::new(None);

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Fetches one token; for those who only want to know whether it can be had.
///
/// # Errors
/// Why not.
pub fn fetch_once(method: &Method) -> Result<(), NoToken> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| NoToken::NotNow(error.to_string()))?;
    let token = runtime.block_on(method.fetch(now()))?;
    publish(token);
    Ok(())
}

/// Waits for the first token, then keeps it fresh from a thread of its own until `shutdown`. `false`: asked to stop.
///
/// # Errors
/// The endpoint refuses these credentials.
pub fn start(method: Method, readiness: &Readiness, shutdown: &Shutdown) -> Result<bool, String> {
    loop {
        match fetch_once(&method) {
            Ok(()) => break,
            Err(NoToken::Refused(reason)) => return Err(format!("no token: {reason}")),
            Err(NoToken::NotNow(reason)) => {
                log_events::kafka::NoToken { reason: &reason }.log();
                readiness.hold(NAME, reason);
            }
        }
        if shutdown.wait(RETRY) {
            return Ok(false);
        }
    }
    readiness.clear(NAME);
    let (readiness, shutdown) = (readiness.clone(), shutdown.clone());
    let thread =
        std::thread::Builder::new().name("tokens".into()).spawn(move || keep_fresh(&method, &readiness, &shutdown));
    thread.map(|_| true).map_err(|error| format!("cannot start a thread: {error}"))
}

fn keep_fresh(method: &Method, readiness: &Readiness, shutdown: &Shutdown) {
    let mut wait = refresh_in();
    // A drain still commits, and may have to log in again.
    while !shutdown.is_aborted() {
        if shutdown.wait(wait) {
            std::thread::sleep(wait);
        }
        wait = match fetch_once(method) {
            Ok(()) => {
                readiness.clear(NAME);
                refresh_in()
            }
            Err(no_token) => {
                let reason = no_token.to_string();
                log_events::kafka::NoToken { reason: &reason }.log();
                if current().is_none() {
                    readiness.hold(NAME, reason);
                }
                RETRY
            }
        };
    }
}

fn publish(token: Token) {
    *LATEST.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(token);
}

/// The latest token, while it is good.
fn current() -> Option<Token> {
    let latest = LATEST.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
    latest.filter(|token| token.expires > i64::try_from(now().as_millis()).unwrap_or(i64::MAX))
}

/// When the latest token is to be replaced: before clients ask for another, which they do at four fifths of its life.
fn refresh_in() -> Duration {
    let left = current().map_or(0, |token| token.expires - i64::try_from(now().as_millis()).unwrap_or(i64::MAX));
    Duration::from_millis(u64::try_from(left).unwrap_or(0) * 3 / 5).max(Duration::from_millis(500))
}

const NONE: &str = "no token: the token endpoint gave none in time";

/// Hands the latest token to a client that logs in by one.
///
/// # Safety
/// `client` is alive.
pub(super) unsafe fn hand_to(client: *mut sys::rd_kafka_t) {
    let set = || -> Result<(), String> {
        let Token { value, principal, expires, extensions } = current().ok_or(NONE)?;
        let text = |text: String| CString::new(text).map_err(|_| "the token holds a zero byte".to_owned());
        let (value, principal) = (text(value)?, text(principal)?);
        let extensions = extensions.into_iter().flat_map(|(name, value)| [name, value]).map(text);
        let extensions: Vec<CString> = extensions.collect::<Result<_, _>>()?;
        let mut pointers: Vec<*const c_char> = extensions.iter().map(|text| text.as_ptr()).collect();
        let mut error = [0 as c_char; 256];
        // SAFETY: client (the caller's promise), strings and array are valid for the call, which copies them.
        let code = unsafe {
            let (list, count) = (pointers.as_mut_ptr(), pointers.len());
            let (text, size) = (error.as_mut_ptr(), error.len());
            sys::rd_kafka_oauthbearer_set_token(
                client,
                value.as_ptr(),
                expires,
                principal.as_ptr(),
                list,
                count,
                text,
                size,
            )
        };
        if code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            Ok(())
        } else {
            Err(format!("no token: {code:?}"))
        }
    };
    if let Err(reason) = set()
        && let Ok(reason) = CString::new(reason)
    {
        // SAFETY: as above. The client keeps a token that is still good, and asks again in ten seconds.
        unsafe { sys::rd_kafka_oauthbearer_set_token_failure(client, reason.as_ptr()) };
    }
}
