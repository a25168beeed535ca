//! Tokens for SASL/OAUTHBEARER: fetched and kept fresh by a thread of their own, handed to every client that asks.
//!
//! ```text
//!  properties ─► Method::take ─► start ─► thread: fetch, wait, fetch … ─► the latest token ◄─ clients' callbacks
//! ```
//!
//! OIDC's client credentials (KIP-768; RFC 6749 §4.4) go over the worker's own HTTP client: librdkafka's way needs libcurl.
//! Unsecured tokens (RFC 7519 §6), which Kafka's default validator takes, are for trying. The properties are librdkafka's.

use std::collections::BTreeMap;
use std::ffi::{CString, c_char};
use std::sync::RwLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rdkafka::ClientConfig;
use rdkafka::bindings as sys;
use rdkafka::client::OAuthToken;
use reqwest::{StatusCode, Url, header};
use serde::Deserialize;

use crate::http_client;
use crate::log_events;
use crate::shutdown::Shutdown;
use crate::telemetry::readiness::Readiness;

#[cfg(test)]
mod tests;

/// Under which readiness knows that there is no token.
const NAME: &str = "token";

/// Longest time for one answer of the token endpoint.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// Pause after a token that was not to be had.
const RETRY: Duration = Duration::from_secs(2);

/// Largest answer of the token endpoint, bytes.
const MOST_BYTES: usize = 1 << 20;

/// Lifetime of an unsecured token where none is set, as librdkafka's.
const UNSECURED_SECONDS: u64 = 3600;

/// What every property begins with that is read here.
const PREFIX: &str = "sasl.oauthbearer.";
const UNSECURED: &str = "enable.sasl.oauthbearer.unsecure.jwt";

/// Whether a property is read here and not by librdkafka.
pub fn is_ours(key: &str) -> bool {
    key.starts_with(PREFIX) || key == UNSECURED || key == "https.ca.location"
}

/// How tokens are made.
#[derive(Clone)]
pub enum Method {
    /// By a token endpoint.
    Oidc(Box<Oidc>),
    /// Here, and not signed.
    Unsecured {
        /// Claims of its own.
        claims: BTreeMap<String, String>,
        /// Who it is about.
        principal: String,
        /// How long it is good.
        lifetime: Duration,
        /// SASL extensions (KIP-342).
        extensions: BTreeMap<String, String>,
    },
}

/// OIDC's client credentials.
#[derive(Clone)]
pub struct Oidc {
    endpoint: Url,
    client_id: String,
    client_secret: String,
    scope: Option<String>,
    extensions: BTreeMap<String, String>,
    certificates: Option<Vec<u8>>,
}

/// A token, until it ends.
#[derive(Clone)]
struct Token {
    value: String,
    principal: String,
    /// Epoch milliseconds.
    expires: i64,
    extensions: BTreeMap<String, String>,
}

/// Why there is no token.
#[derive(Debug, PartialEq, Eq)]
pub enum NoToken {
    /// The endpoint refuses the client: asking again will not help.
    Refused(String),
    /// It does not answer, or not with a token.
    NotNow(String),
}

impl std::fmt::Display for NoToken {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NoToken::Refused(reason) | NoToken::NotNow(reason) => formatter.write_str(reason),
        }
    }
}

/// The latest token of this process: its clients all log in as the same user.
static LATEST: RwLock<Option<Token>> = RwLock::new(None);

impl Method {
    /// Takes the properties that are read here out of `config`. `None` where clients log in otherwise.
    ///
    /// # Errors
    /// Names the property, and what it should be.
    pub fn take(config: &mut ClientConfig) -> Result<Option<Method>, String> {
        let mechanism = ["sasl.mechanism", "sasl.mechanisms"].iter().find_map(|key| config.get(key)).map(str::trim);
        if !mechanism.is_some_and(|mechanism| mechanism.eq_ignore_ascii_case("OAUTHBEARER")) {
            return Ok(None);
        }
        let ours: Vec<String> =
            config.config_map().keys().filter(|key| is_ours(key)).map(|key| (*key).to_owned()).collect();
        let mut set = BTreeMap::new();
        for key in ours {
            if let Some(value) = config.get(&key) {
                set.insert(key.clone(), value.trim().to_owned());
            }
            config.remove(&key);
        }
        let method = match set.remove("sasl.oauthbearer.method").as_deref() {
            Some("oidc") => Method::Oidc(Box::new(Oidc::take(&mut set)?)),
            None | Some("default") if set.remove(UNSECURED).as_deref() == Some("true") => {
                unsecured(&set.remove("sasl.oauthbearer.config").unwrap_or_default())?
            }
            _ => {
                return Err(
                    "sasl.mechanism=OAUTHBEARER: set sasl.oauthbearer.method=oidc, with sasl.oauthbearer.client.id, \
                            sasl.oauthbearer.client.secret and sasl.oauthbearer.token.endpoint.url"
                        .to_owned(),
                );
            }
        };
        match set.keys().next() {
            Some(key) => Err(format!(
                "{key}: only client credentials are supported (client.id, client.secret, scope, \
                                      extensions, token.endpoint.url; https.ca.location)"
            )),
            None => Ok(Some(method)),
        }
    }
}

impl Oidc {
    fn take(set: &mut BTreeMap<String, String>) -> Result<Oidc, String> {
        let mut required = |names: [&str; 2]| {
            let value = names.iter().find_map(|name| set.remove(&format!("{PREFIX}{name}")));
            value
                .filter(|value| !value.is_empty())
                .ok_or(format!("{PREFIX}{}: is needed with sasl.oauthbearer.method=oidc", names[0]))
        };
        let client_id = required(["client.id", "client.credentials.client.id"])?;
        let client_secret = required(["client.secret", "client.credentials.client.secret"])?;
        let endpoint = required(["token.endpoint.url", "token.endpoint.url"])?;
        let key = "sasl.oauthbearer.token.endpoint.url";
        let endpoint = http_client::address(&endpoint)
            .map_err(|reason| format!("{key}: {reason}"))?
            .ok_or(format!("{key}={endpoint}: expected http(s)://HOST/PATH"))?;
        match set.remove("sasl.oauthbearer.grant.type").as_deref() {
            None | Some("client_credentials" | "urn:ietf:params:oauth:grant-type:client_credentials") => {}
            Some(other) => {
                return Err(format!("sasl.oauthbearer.grant.type={other}: only client_credentials is supported"));
            }
        }
        let certificates = match set.remove("https.ca.location") {
            None => None,
            Some(path) => Some(std::fs::read(&path).map_err(|error| format!("https.ca.location={path}: {error}"))?),
        };
        let extensions = set.remove("sasl.oauthbearer.extensions").unwrap_or_default();
        let extensions = pairs(&extensions, ',')
            .map_err(|pair| format!("sasl.oauthbearer.extensions: {pair:?} is not NAME=VALUE"))?;
        let scope = set.remove("sasl.oauthbearer.scope").filter(|scope| !scope.is_empty());
        Ok(Oidc { endpoint, client_id, client_secret, scope, extensions, certificates })
    }

    /// Asks the endpoint.
    async fn fetch(&self, now: Duration) -> Result<Token, NoToken> {
        let not_now = |reason: String| NoToken::NotNow(format!("{}: {reason}", self.endpoint));
        let client = http_client::builder(self.certificates.as_deref()).map_err(NoToken::Refused)?;
        let client = client.timeout(TIME_LIMIT).build().map_err(|error| not_now(error.to_string()))?;
        let mut form = vec![("grant_type", "client_credentials")];
        form.extend(self.scope.as_deref().map(|scope| ("scope", scope)));
        let request = client
            .post(self.endpoint.clone())
            .basic_auth(encoded(&[(&self.client_id, "")]), Some(encoded(&[(&self.client_secret, "")])))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json")
            .body(encoded(&form));
        let mut response = request.send().await.map_err(|error| not_now(causes(&error)))?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| not_now(causes(&error)))? {
            if body.len() + chunk.len() > MOST_BYTES {
                return Err(not_now(format!("its answer is larger than {MOST_BYTES} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        if !status.is_success() {
            let answer = serde_json::from_slice::<Refusal>(&body).unwrap_or_default();
            let reason = format!("status {status}, {}", [answer.error, answer.error_description].join(" ").trim());
            let is_ours = status.is_client_error()
                && !matches!(
                    status,
                    StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS | StatusCode::NOT_FOUND
                );
            return Err(if is_ours {
                NoToken::Refused(format!("{}: {reason}", self.endpoint))
            } else {
                not_now(reason)
            });
        }
        let answer: Answer =
            serde_json::from_slice(&body).map_err(|error| not_now(format!("its answer is no token: {error}")))?;
        let claims = claims(&answer.access_token);
        let now_seconds = now.as_secs_f64();
        let expires = claims.exp.or(answer.expires_in.map(|seconds| now_seconds + seconds));
        let expires = expires.ok_or_else(|| not_now("its answer does not say when the token ends".to_owned()))?;
        Ok(Token {
            value: answer.access_token,
            principal: claims.sub.unwrap_or_else(|| self.client_id.clone()),
            expires: (expires * 1000.0) as i64,
            extensions: self.extensions.clone(),
        })
    }
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    expires_in: Option<f64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Refusal {
    error: String,
    error_description: String,
}

#[derive(Default, Deserialize)]
struct Claims {
    exp: Option<f64>,
    sub: Option<String>,
}

/// What a token says of itself; nothing where it is no JWT.
fn claims(token: &str) -> Claims {
    let payload =
        token.split('.').nth(1).and_then(|payload| URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok());
    payload.and_then(|payload| serde_json::from_slice(&payload).ok()).unwrap_or_default()
}

/// As an HTML form, which is what RFC 6749 wants of bodies and of credentials.
fn encoded(pairs: &[(&str, &str)]) -> String {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
    const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'*');
    let text = |text: &str| utf8_percent_encode(text, KEPT).to_string();
    let pair = |(key, value): &(&str, &str)| {
        if value.is_empty() { text(key) } else { format!("{}={}", text(key), text(value)) }
    };
    pairs.iter().map(pair).collect::<Vec<_>>().join("&")
}

fn pairs(text: &str, separator: char) -> Result<BTreeMap<String, String>, String> {
    let pairs = text.split(separator).map(str::trim).filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())).ok_or(pair.to_owned()))
        .collect()
}

/// Reads `principal=… lifeSeconds=… scope=… extension_NAME=…`, as librdkafka does.
fn unsecured(config: &str) -> Result<Method, String> {
    let mut set = pairs(config, ' ').map_err(|pair| format!("sasl.oauthbearer.config: {pair:?} is not NAME=VALUE"))?;
    let mut take = |name: &str| set.remove(name);
    let principal = take("principal").ok_or("sasl.oauthbearer.config: principal=NAME is missing")?;
    let (claim, scope_claim) = (take("principalClaimName"), take("scopeClaimName"));
    let scope = take("scope");
    let seconds = match take("lifeSeconds") {
        None => UNSECURED_SECONDS,
        Some(text) => text
            .parse()
            .ok()
            .filter(|seconds| *seconds > 0)
            .ok_or("sasl.oauthbearer.config: lifeSeconds is no number")?,
    };
    let mut claims = BTreeMap::from([(claim.unwrap_or("sub".to_owned()), principal.clone())]);
    claims.extend(scope.map(|scope| (scope_claim.unwrap_or("scope".to_owned()), scope)));
    let mut extensions = BTreeMap::new();
    for (key, value) in set {
        match key.strip_prefix("extension_") {
            Some(name) => extensions.insert(name.to_owned(), value),
            None => return Err(format!("sasl.oauthbearer.config: {key} is not known")),
        };
    }
    Ok(Method::Unsecured { claims, principal, lifetime: Duration::from_secs(seconds), extensions })
}

impl Method {
    async fn fetch(&self, now: Duration) -> Result<Token, NoToken> {
        match self {
            Method::Oidc(oidc) => oidc.fetch(now).await,
            Method::Unsecured { claims, principal, lifetime, extensions } => {
                let expires = now + *lifetime;
                let mut payload: serde_json::Map<_, _> =
                    claims.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect();
                payload.insert("iat".to_owned(), now.as_secs_f64().into());
                payload.insert("exp".to_owned(), expires.as_secs_f64().into());
                let part = |json: &str| URL_SAFE_NO_PAD.encode(json);
                let payload = serde_json::Value::Object(payload).to_string();
                Ok(Token {
                    value: format!("{}.{}.", part(r#"{"alg":"none"}"#), part(&payload)),
                    principal: principal.clone(),
                    expires: i64::try_from(expires.as_millis()).unwrap_or(i64::MAX),
                    extensions: extensions.clone(),
                })
            }
        }
    }
}

/// The error with what caused it: reqwest says why in its sources.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

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

/// For clients of the rdkafka crate: their `generate_oauth_token`. Such tokens have no extensions.
///
/// # Errors
/// There is none that is good.
pub fn token() -> Result<OAuthToken, Box<dyn std::error::Error>> {
    let Token { value, principal, expires, .. } = current().ok_or(NONE)?;
    Ok(OAuthToken { token: value, principal_name: principal, lifetime_ms: expires })
}

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
