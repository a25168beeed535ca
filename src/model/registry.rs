//! The registry: bundles that come from an MLflow server, and an alias that is followed.
//!
//! ```text
//!  at start    Registry::open ─► which version? ─► in the cache, or fetched into it ─► Candidate ─► the worker
//!  from then   Follower: every --model-poll, or when woken ─► policy ─► fetched ─► Offer ─► swapped or refused
//! ```
//!
//! | module | what is in it |
//! |---|---|
//! | [`client`] | MLflow's REST interface |
//! | [`answers`] | what it answers, as far as that is believed: pure |
//! | [`location`] | where a version's files are, and whether they may be read there: pure |
//! | `artifact` | how they come here |
//! | [`cache`] | what was fetched, on disk |
//! | [`policy`] | what to do with an answer: pure |
//! | [`follower`] | the task that asks, over and over |
//!
//! The server is needed to start for the first time and to move on; never to go on. While it is down a worker scores with
//! what it has, and a restarted one begins with what the alias last named here.

pub mod answers;
mod artifact;
pub mod cache;
pub mod client;
pub mod follower;
pub mod location;
pub mod policy;

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;

use self::answers::ModelVersion;
use self::cache::Cache;
use self::client::{Credentials, MlflowClient};
use self::location::Store;
use super::source::{Candidate, Pointer, Registered, RegisteredModel};
use crate::http_client;
use crate::log_events;
use crate::shutdown::Shutdown;
use crate::telemetry::readiness::Readiness;

/// First pause between two attempts while waiting for the server at the start; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Longest of these pauses.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// How often a wait looks whether the process shall end.
const SHUTDOWN_INTERVAL: Duration = Duration::from_millis(50);

/// Why the registry gave no bundle. Every message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A setting that cannot be.
    #[error("{0}")]
    Settings(String),
    /// No answer, or "not now".
    #[error("{server} does not answer ({reason}): is it running, is the address in MLFLOW_TRACKING_URI right?")]
    Unreachable {
        /// The server or the store.
        server: String,
        /// What the network said.
        reason: String,
    },
    /// The version's files do not come: the store does not answer, or too slowly.
    #[error("{uri} does not give the model's files ({reason})")]
    Store {
        /// Where they are.
        uri: String,
        /// What the network said, and what to look at.
        reason: String,
    },
    /// It knows us not, or not well enough.
    #[error("{server} refuses access: {reason}")]
    Denied {
        /// The server or the store.
        server: String,
        /// Its answer, and where credentials come from.
        reason: String,
    },
    /// No such model, version or alias.
    #[error("{model} names nothing at {server} ({message}): {fix}")]
    Nothing {
        /// As in `--model`.
        model: String,
        /// The server.
        server: String,
        /// Its words.
        message: String,
        /// How to set it.
        fix: String,
    },
    /// The version is being written.
    #[error("version {version} of {model} is {status}, not READY: the registration is under way or has failed")]
    NotReady {
        /// As in `--model`.
        model: String,
        /// The registry's number.
        version: String,
        /// MLflow's word.
        status: String,
    },
    /// An error of MLflow's that is none of the above.
    #[error("{server} refuses the question: {code}: {message}")]
    Refused {
        /// The server.
        server: String,
        /// MLflow's error code.
        code: String,
        /// Its words.
        message: String,
    },
    /// Something else than MLflow answers.
    #[error(
        "{server} does not answer as an MLflow server does ({reason}): is the address in MLFLOW_TRACKING_URI right?"
    )]
    Unexpected {
        /// The server.
        server: String,
        /// What is odd.
        reason: String,
    },
    /// The version's files cannot be a bundle here.
    #[error("version {version} of {name} cannot be fetched: {reason}")]
    Artifact {
        /// Name of the registered model.
        name: String,
        /// The registry's number.
        version: String,
        /// Why.
        reason: String,
    },
    /// Our own disk.
    #[error("cannot write the model cache at {path}: {source}; choose another place with --model-cache")]
    Cache {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl RegistryError {
    /// Waiting may mend it.
    pub fn is_temporary(&self) -> bool {
        matches!(self, RegistryError::Unreachable { .. } | RegistryError::Store { .. } | RegistryError::NotReady { .. })
    }

    /// The server did its part: it answered as one that is well.
    fn is_answer(&self) -> bool {
        !matches!(
            self,
            RegistryError::Unreachable { .. } | RegistryError::Denied { .. } | RegistryError::Unexpected { .. }
        )
    }

    /// Turns MLflow's "not found", in its several spellings, into [`RegistryError::Nothing`] about `model`.
    fn or_nothing(self, model: &RegisteredModel) -> RegistryError {
        match self {
            // An alias that is missing is an invalid parameter to MLflow, a missing model a missing resource.
            RegistryError::Refused { server, code, message }
                if code == "RESOURCE_DOES_NOT_EXIST"
                    || (code == "INVALID_PARAMETER_VALUE" && message.contains("not found")) =>
            {
                let name = &model.name;
                let fix = match &model.pointer {
                    Pointer::Alias(alias) => format!(
                        "register a bundle with `fraud-training register`, or set the alias in MLflow's interface or with \
                         MlflowClient().set_registered_model_alias({name:?}, {alias:?}, VERSION)"
                    ),
                    Pointer::Version(_) => format!("choose a version that {name} has, or follow an alias of it"),
                };
                RegistryError::Nothing { model: model.to_string(), server, message, fix }
            }
            other => other,
        }
    }
}

/// Where the registry is and how it is used; no environment is looked at after this.
#[derive(Clone)]
pub struct RegistrySettings {
    /// The MLflow server.
    pub server: Url,
    /// Who we are to it.
    pub credentials: Credentials,
    /// PEM text of further authorities to trust.
    pub certificates: Option<Vec<u8>>,
    /// Where fetched bundles are kept; `None` for the default place.
    pub cache: Option<PathBuf>,
    /// Time between two questions after an alias.
    pub poll: Duration,
    /// Where versions' files may lie beside the server.
    pub stores: Vec<Store>,
}

impl RegistrySettings {
    /// Settings from what the flags say and from MLflow's own environment variables, which `environment` answers for.
    ///
    /// # Errors
    /// [`RegistryError::Settings`], naming the flag or the variable and the fix.
    pub fn new(
        server: Option<&str>,
        cache: Option<PathBuf>,
        poll: Duration,
        stores: &[String],
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<RegistrySettings, RegistryError> {
        let environment = |name: &str| environment(name).filter(|value| !value.is_empty());
        let server = match server.map(str::to_owned).or_else(|| environment("MLFLOW_TRACKING_URI")) {
            Some(server) => server_address(&server)?,
            None => {
                let message =
                    "--model names an MLflow registry: set MLFLOW_TRACKING_URI (or --mlflow-uri) to its address";
                return Err(RegistryError::Settings(message.into()));
            }
        };
        let user = match (environment("MLFLOW_TRACKING_USERNAME"), environment("MLFLOW_TRACKING_PASSWORD")) {
            (Some(name), Some(password)) => Some((name, password)),
            (None, None) => None,
            _ => {
                let message = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD go together: set both or none";
                return Err(RegistryError::Settings(message.into()));
            }
        };
        let certificates = match environment("MLFLOW_TRACKING_SERVER_CERT_PATH") {
            Some(path) => Some(std::fs::read(&path).map_err(|error| {
                RegistryError::Settings(format!("cannot read {path} of MLFLOW_TRACKING_SERVER_CERT_PATH: {error}"))
            })?),
            None => None,
        };
        let credentials = Credentials { token: environment("MLFLOW_TRACKING_TOKEN"), user };
        if (credentials.token.is_some() || credentials.user.is_some()) && http_client::is_in_the_clear(&server) {
            log_events::lifecycle::InTheClear { setting: "MLFLOW_TRACKING_URI", url: server.as_str() }.log();
        }
        let stores = stores.iter().map(|uri| Store::parse(uri)).collect::<Result<_, _>>();
        let stores = stores.map_err(|reason| RegistryError::Settings(format!("--model-store: {reason}")))?;
        Ok(RegistrySettings { server, credentials, certificates, cache, poll, stores })
    }
}

/// An address without secrets in it: it stands in logs and, as a flag, in the process list.
fn server_address(text: &str) -> Result<Url, RegistryError> {
    let settings =
        |reason: String| Err(RegistryError::Settings(format!("--mlflow-uri (MLFLOW_TRACKING_URI): {reason}")));
    match http_client::address(text) {
        Err(reason) => settings(reason),
        Ok(Some(url)) if !url.username().is_empty() || url.password().is_some() => {
            settings("holds credentials: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead".into())
        }
        Ok(Some(url)) if url.query().is_none() => Ok(url),
        _ => settings("must be the http or https address of an MLflow server, as in http://127.0.0.1:5000".into()),
    }
}

/// One MLflow server, and the cache of what came from it.
pub struct Registry {
    client: MlflowClient,
    cache: Cache,
    poll: Duration,
    stores: Vec<Store>,
}

/// A version that was fetched.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// To be offered.
    pub candidate: Candidate,
    /// What it is.
    pub version: ModelVersion,
}

impl Registry {
    /// Opens the cache; asks the server nothing yet.
    ///
    /// # Errors
    /// [`RegistryError::Settings`] and [`RegistryError::Cache`].
    pub fn new(settings: RegistrySettings) -> Result<Registry, RegistryError> {
        let cache = Cache::open(settings.cache)?;
        let client = MlflowClient::new(settings.server, settings.credentials, settings.certificates.as_deref())?;
        Ok(Registry { client, cache, poll: settings.poll, stores: settings.stores })
    }

    /// The server's address.
    pub fn server(&self) -> &str {
        self.client.server().as_str()
    }

    /// The server's host, as the audit has it.
    pub fn host(&self) -> &str {
        self.client.server().host_str().unwrap_or_default()
    }

    /// Which version `model` names now.
    ///
    /// # Errors
    /// Any but [`RegistryError::Artifact`] and [`RegistryError::Cache`].
    pub async fn version(&self, model: &RegisteredModel) -> Result<ModelVersion, RegistryError> {
        self.client.version(model).await
    }

    /// The version's files: from the cache where they lie there unchanged.
    ///
    /// # Errors
    /// Any but [`RegistryError::Nothing`].
    pub async fn fetch(&self, model: &RegisteredModel, version: ModelVersion) -> Result<Fetched, RegistryError> {
        let directory = match self.cached(&version).await {
            Some(directory) => {
                let version = &version.version;
                log_events::model::Cached { model, version, directory: &directory.display() }.log();
                directory
            }
            None => {
                let partial = self.cache.begin(&version)?;
                let began = std::time::Instant::now();
                let files = artifact::fetch(&self.client, &self.stores, &version, partial.path()).await?;
                let (count, bytes) = (files.len(), files.iter().map(|file| file.size).sum::<u64>());
                let directory = partial.publish(self.server(), &version, files)?;
                let took = began.elapsed();
                let (version, shown) = (&version.version, directory.display());
                log_events::model::Fetched { model, version, count, bytes, took, directory: &shown }.log();
                directory
            }
        };
        Ok(Fetched { candidate: candidate(model, &version, directory), version })
    }

    /// Off the runtime's thread: all files are hashed.
    async fn cached(&self, version: &ModelVersion) -> Option<PathBuf> {
        let (cache, server, version) = (self.cache.clone(), self.server().to_owned(), version.clone());
        tokio::task::spawn_blocking(move || cache.find(&server, &version)).await.ok().flatten()
    }

    /// What `model` names now, once.
    ///
    /// # Errors
    /// All.
    pub async fn get(&self, model: &RegisteredModel) -> Result<Fetched, RegistryError> {
        let version = self.version(model).await?;
        self.fetch(model, version).await
    }

    /// The bundle to start with. While the server is down: what `model` last named here, else it waits, and `readiness`
    /// says why. `None` where the process shall end before there is one.
    ///
    /// # Errors
    /// Those that waiting does not mend.
    pub async fn open(
        &self,
        model: &RegisteredModel,
        readiness: &Readiness,
        shutdown: &Shutdown,
    ) -> Result<Option<Fetched>, RegistryError> {
        tokio::select! {
            outcome = self.wait_for(model, readiness) => outcome.map(Some),
            () = requested(shutdown) => Ok(None),
        }
    }

    /// The version of `model` that served last here, as it lies in the cache.
    pub fn last(&self, model: &RegisteredModel) -> Option<Fetched> {
        let (version, directory) = self.cache.pointed(self.server(), model)?;
        Some(Fetched { candidate: candidate(model, &version, directory), version })
    }

    async fn wait_for(&self, model: &RegisteredModel, readiness: &Readiness) -> Result<Fetched, RegistryError> {
        readiness.hold("start", format!("fetching {model} from {}", self.server()));
        let mut pause = FIRST_PAUSE;
        let mut told = false;
        loop {
            let error = match self.get(model).await {
                Ok(fetched) => return Ok(fetched),
                Err(error) if error.is_temporary() => error,
                Err(error) => return Err(error),
            };
            if let Some(last) = self.last(model) {
                let (version, shown) = (&last.version.version, last.candidate.directory.display());
                log_events::model::StartedFromCache { model, version, directory: &shown, error: &error }.log();
                return Ok(last);
            }
            readiness.hold("start", format!("waiting for the model registry: {error}"));
            if !std::mem::replace(&mut told, true) {
                log_events::model::WaitingForRegistry { model, error: &error }.log();
            }
            tokio::time::sleep(pause).await;
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }
}

fn candidate(model: &RegisteredModel, version: &ModelVersion, directory: PathBuf) -> Candidate {
    let registered = Registered { name: version.name.clone(), version: version.version.clone() };
    Candidate { directory, registered: Some(registered), origin: model.to_string() }
}

/// Ends when the process shall.
async fn requested(shutdown: &Shutdown) {
    while !shutdown.is_requested() {
        tokio::time::sleep(SHUTDOWN_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(server: Option<&str>, environment: &[(&str, &str)]) -> Result<RegistrySettings, RegistryError> {
        let environment =
            |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        RegistrySettings::new(server, None, Duration::from_secs(30), &[], environment)
    }

    #[test]
    fn the_flag_beats_mlflows_variable() {
        let variable = [("MLFLOW_TRACKING_URI", "http://variable:5000/"), ("MLFLOW_TRACKING_TOKEN", "t")];
        assert_eq!(settings(None, &variable).expect("valid").server.as_str(), "http://variable:5000/");
        let both = settings(Some("https://flag/ml"), &variable).expect("valid");
        assert_eq!((both.server.as_str(), both.credentials.token.as_deref()), ("https://flag/ml", Some("t")));
    }

    #[test]
    fn settings_that_cannot_be_name_the_variable_and_show_no_secret() {
        for (server, environment, says) in [
            (None, &[][..], "MLFLOW_TRACKING_URI"),
            (Some("sqlite:///mlflow.db"), &[], "http://127.0.0.1:5000"),
            (Some("mlflow:5000"), &[], "http://127.0.0.1:5000"),
            (Some("http://me:hush@mlflow:5000"), &[], "MLFLOW_TRACKING_PASSWORD"),
            (Some("http://mlflow:5000"), &[("MLFLOW_TRACKING_PASSWORD", "hush")], "MLFLOW_TRACKING_USERNAME"),
            (Some("http://mlflow:5000"), &[("MLFLOW_TRACKING_SERVER_CERT_PATH", "/none")], "CERT_PATH"),
        ] {
            let error = settings(server, environment).err().expect(says).to_string();
            assert!(error.contains(says) && !error.contains("hush"), "{error}");
        }
    }

    #[test]
    fn mlflows_ways_to_say_not_found_are_one() {
        let refused = |code: &str, message: &str| RegistryError::Refused {
            server: "http://mlflow:5000/".into(),
            code: code.into(),
            message: message.into(),
        };
        let model: RegisteredModel = "fraud@champion".parse().expect("a model");
        for error in [
            refused("INVALID_PARAMETER_VALUE", "Registered model alias champion not found."),
            refused("RESOURCE_DOES_NOT_EXIST", "Registered Model with name=fraud not found"),
        ] {
            let error = error.or_nothing(&model);
            assert!(matches!(error, RegistryError::Nothing { .. }), "{error}");
            assert!(error.to_string().contains("set_registered_model_alias(\"fraud\", \"champion\""), "{error}");
        }
        let other = refused("INVALID_PARAMETER_VALUE", "name is too long").or_nothing(&model);
        assert!(matches!(other, RegistryError::Refused { .. }), "{other}");
    }
}
