//! MLflow's REST interface, as much of it as a reader of registered models needs.
//!
//! | question | path under `/api/2.0/mlflow/` |
//! |---|---|
//! | which version does an alias stand at | `registered-models/alias?name&alias` |
//! | a version by its number | `model-versions/get?name&version` |
//! | where a version's files are | `model-versions/get-download-uri?name&version` |
//! | where a run's files are, for sources `runs:/ID/…` | `runs/get?run_id` |
//!
//! Credentials travel in one header that is marked as sensitive, and are shown nowhere. Answers are bounded in size and
//! time. Every failure becomes one kind of [`RegistryError`], because what to do depends on that alone.

use std::time::Duration;

use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};
use serde::de::DeserializeOwned;

use super::RegistryError;
use super::answers::{DownloadUri, ModelVersion, Refusal, RunAnswer, Unfit, VersionAnswer};
use crate::http_client;
use crate::model::source::{Pointer, RegisteredModel};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the server may be silent in the middle of an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a whole JSON answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest JSON answer that is read; a model version is some kilobytes.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// How much of a server's message stands in an error.
const MAX_MESSAGE_CHARACTERS: usize = 300;

/// Who we are to the server; not shown, not even by `Debug`.
#[derive(Clone, Default)]
pub struct Credentials {
    /// `MLFLOW_TRACKING_TOKEN`: sent as a bearer token.
    pub token: Option<String>,
    /// `MLFLOW_TRACKING_USERNAME` and `MLFLOW_TRACKING_PASSWORD`: sent as basic authentication, before a token.
    pub user: Option<(String, String)>,
}

/// A client of one MLflow server.
#[derive(Clone)]
pub struct MlflowClient {
    server: Url,
    http: Client,
    credentials: Credentials,
}

impl MlflowClient {
    /// A client of `server`; `certificates` are PEM text of further authorities to trust
    /// (`MLFLOW_TRACKING_SERVER_CERT_PATH`).
    ///
    /// # Errors
    /// [`RegistryError::Settings`] for credentials that fit no header and for certificates that cannot be read.
    pub fn new(server: Url, credentials: Credentials, certificates: Option<&[u8]>) -> Result<Self, RegistryError> {
        credentials.check()?;
        let settings = |error| {
            RegistryError::Settings(format!("MLFLOW_TRACKING_SERVER_CERT_PATH names no PEM certificates: {error}"))
        };
        let builder = http_client::builder(certificates)
            .map_err(settings)?
            // The server closes idle connections after some seconds: one kept from poll to poll would be dead, or die just now.
            .pool_max_idle_per_host(0)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT);
        let http = builder.build().map_err(|error| RegistryError::Settings(format!("no HTTP client: {error}")))?;
        Ok(MlflowClient { server, http, credentials })
    }

    /// The server's address.
    pub fn server(&self) -> &Url {
        &self.server
    }

    /// The version that `model` names now.
    pub async fn version(&self, model: &RegisteredModel) -> Result<ModelVersion, RegistryError> {
        let (path, key) = match &model.pointer {
            Pointer::Alias(_) => ("registered-models/alias", "alias"),
            Pointer::Version(_) => ("model-versions/get", "version"),
        };
        let query = [("name", model.name.as_str()), (key, model.pointer.text())];
        let answer: Result<VersionAnswer, _> = self.ask(path, &query).await;
        match answer.map_err(|error| error.or_nothing(model))?.version_of(model) {
            Ok(version) => Ok(version),
            Err(Unfit::NotReady { version, status }) => {
                Err(RegistryError::NotReady { model: model.to_string(), version, status })
            }
            Err(Unfit::Unasked(reason)) => Err(self.unexpected(reason)),
        }
    }

    /// Where the version's files are: a URI of one of many schemes.
    pub async fn download_uri(&self, version: &ModelVersion) -> Result<String, RegistryError> {
        let query = [("name", version.name.as_str()), ("version", version.version.as_str())];
        let answer: DownloadUri = self.ask("model-versions/get-download-uri", &query).await?;
        Ok(answer.artifact_uri)
    }

    /// Where a run's files are.
    pub async fn run_artifacts(&self, run: &str) -> Result<String, RegistryError> {
        let answer: RunAnswer = self.ask("runs/get", &[("run_id", run)]).await?;
        Ok(answer.artifact_uri())
    }

    async fn ask<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> Result<T, RegistryError> {
        let mut url = self.path(&["api", "2.0", "mlflow"]);
        // The paths are ours and plain.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.extend(path.split('/'));
        }
        url.query_pairs_mut().extend_pairs(query);
        let answer = async { self.json(self.get(url).await?).await };
        match tokio::time::timeout(ANSWER_TIMEOUT, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(self.unavailable(format!("no whole answer within {ANSWER_TIMEOUT:?}"))),
        }
    }

    /// The URL of `segments` on the server, each encoded, below the path that the server's address has.
    pub(super) fn path(&self, segments: &[&str]) -> Url {
        let mut url = self.server.clone();
        // Cannot fail: the address is checked to be http or https, which have segments.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    /// GET; the answer's head says that there is something.
    pub(super) async fn get(&self, url: Url) -> Result<Response, RegistryError> {
        let response =
            self.credentials.add(self.http.get(url)).send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        match status {
            StatusCode::OK => Ok(response),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let reason = format!(
                    "it answered {status}; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or \
                     MLFLOW_TRACKING_TOKEN, of someone who may read the model"
                );
                Err(RegistryError::Denied { server: self.server.to_string(), reason })
            }
            StatusCode::TOO_MANY_REQUESTS => Err(self.unavailable(format!("it answered {status}"))),
            _ if status.is_server_error() => Err(self.unavailable(format!("it answered {status}"))),
            _ => {
                let body = self.body(response).await?;
                match serde_json::from_slice::<Refusal>(&body) {
                    Ok(refusal) => Err(RegistryError::Refused {
                        server: self.server.to_string(),
                        code: shorten(&refusal.error_code),
                        message: shorten(&refusal.message),
                    }),
                    Err(_) => Err(self.unexpected(format!("it answered {status}"))),
                }
            }
        }
    }

    /// The JSON of an answer.
    pub(super) async fn json<T: DeserializeOwned>(&self, response: Response) -> Result<T, RegistryError> {
        let body = self.body(response).await?;
        serde_json::from_slice(&body).map_err(|error| self.unexpected(error.to_string()))
    }

    async fn body(&self, mut response: Response) -> Result<Vec<u8>, RegistryError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(&error))? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(self.unexpected(format!("an answer of more than {MAX_ANSWER_BYTES} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// The network's error with its causes: "error sending request" alone helps nobody.
    pub(super) fn unreachable(&self, error: &reqwest::Error) -> RegistryError {
        let mut reason = String::new();
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            reason = error.to_string();
            cause = error.source();
        }
        let reason = if error.is_timeout() { "no answer in time".to_owned() } else { reason };
        self.unavailable(reason)
    }

    fn unavailable(&self, reason: String) -> RegistryError {
        RegistryError::Unreachable { server: self.server.to_string(), reason }
    }

    pub(super) fn unexpected(&self, reason: String) -> RegistryError {
        RegistryError::Unexpected { server: self.server.to_string(), reason: shorten(&reason) }
    }
}

impl Credentials {
    fn check(&self) -> Result<(), RegistryError> {
        let fit = |token: &String| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        if self.token.as_ref().is_none_or(fit) {
            return Ok(());
        }
        let message = "MLFLOW_TRACKING_TOKEN holds characters that no HTTP header can carry (a line break?)";
        Err(RegistryError::Settings(message.into()))
    }

    /// The header is marked as sensitive by the library, so that it does not show in its own logs either.
    fn add(&self, request: RequestBuilder) -> RequestBuilder {
        match (&self.user, &self.token) {
            (Some((name, password)), _) => request.basic_auth(name, Some(password)),
            (None, Some(token)) => request.bearer_auth(token),
            (None, None) => request,
        }
    }
}

/// A server's message, made fit for one log line.
fn shorten(text: &str) -> String {
    text.chars()
        .map(|character| if character.is_control() { ' ' } else { character })
        .take(MAX_MESSAGE_CHARACTERS)
        .collect()
}
