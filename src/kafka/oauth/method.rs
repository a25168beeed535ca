//! How tokens are made, by librdkafka's own properties.
//!
//! OIDC's client credentials (KIP-768; RFC 6749 §4.4) go over the worker's own HTTP client: librdkafka's way needs libcurl.
//! Unsecured tokens (RFC 7519 §6), which Kafka's default validator takes, are for trying.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rdkafka::ClientConfig;
use reqwest::{StatusCode, Url, header};
use serde::Deserialize;

use crate::http_client;
use crate::log_events;

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

/// Longest time for one answer of the token endpoint.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// Largest answer of the token endpoint, bytes.
const MOST_BYTES: usize = 1 << 20;

/// Lifetime of an unsecured token where none is set, as librdkafka's.
const UNSECURED_SECONDS: u64 = 3600;

/// What every property begins with that is read here.
const PREFIX: &str = "sasl.oauthbearer.";
const UNSECURED: &str = "enable.sasl.oauthbearer.unsecure.jwt";

/// Whether a property is read here and not by librdkafka.
fn is_ours(key: &str) -> bool {
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
pub(super) struct Token {
    pub(super) value: String,
    pub(super) principal: String,
    /// Epoch milliseconds.
    pub(super) expires: i64,
    /// SASL extensions (KIP-342).
    pub(super) extensions: BTreeMap<String, String>,
}

/// Why there is no token.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoToken {
    /// The endpoint refuses the client: asking again will not help.
    #[error("{0}")]
    Refused(String),
    /// It does not answer, or not with a token.
    #[error("{0}")]
    NotNow(String),
}

impl Method {
    /// Takes the properties that are read here out of `config`. `None` where clients log in otherwise.
    ///
    /// # Errors
    /// Names the property, and what it should be.
    pub fn take(config: &mut ClientConfig) -> Result<Option<Method>, String> {
        if !super::is_used(config) {
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
        if http_client::is_in_the_clear(&endpoint) {
            log_events::lifecycle::InTheClear { setting: key, url: endpoint.as_str() }.log();
        }
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
            .basic_auth(encoded(&self.client_id), Some(encoded(&self.client_secret)))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json")
            .body(form_of(&form));
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

/// As in an HTML form, which is what RFC 6749 wants of bodies and of credentials.
fn encoded(text: &str) -> String {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
    const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'*');
    utf8_percent_encode(text, KEPT).to_string()
}

fn form_of(pairs: &[(&str, &str)]) -> String {
    pairs.iter().map(|(key, value)| format!("{}={}", encoded(key), encoded(value))).collect::<Vec<_>>().join("&")
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
    /// Makes a token, or has it made.
    pub(super) async fn fetch(&self, now: Duration) -> Result<Token, NoToken> {
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
