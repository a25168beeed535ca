//! Where a version's files lie, by the URI that the server answers with, and whether they may be read there. Pure.
//!
//! | URI | location |
//! |---|---|
//! | `mlflow-artifacts:/PATH` | the MLflow server's own store |
//! | `s3://BUCKET/PREFIX` | a bucket |
//! | `file:///PATH`, `/PATH` | a file system that this process shares with the server |
//! | `runs:/ID/PATH` | wherever the run keeps its files: one of the above |

use std::path::{Component, Path, PathBuf};

/// Longest file name, bytes.
const MAX_NAME_BYTES: usize = 200;

/// Where a URI says that files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// Below the MLflow server's own store; the path's parts.
    Proxied(Vec<String>),
    /// In a bucket of S3.
    Bucket {
        /// Its name.
        bucket: String,
        /// The parts of what all keys begin with.
        prefix: Vec<String>,
    },
    /// In a file system that this process shares with the server.
    Local(PathBuf),
    /// Where a run keeps its files: to be asked of the server.
    Run {
        /// The run.
        run: String,
        /// Parts of the path below there.
        below: Vec<String>,
    },
}

/// A place beside the MLflow server where versions' files may lie: those who register a model write the URI, and this process reads
/// there with its own rights and credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store(Location);

impl Store {
    /// `s3://BUCKET/PREFIX` or `file:///PATH`.
    ///
    /// # Errors
    /// What it must be.
    pub fn parse(uri: &str) -> Result<Store, String> {
        // No server's own store can be named here.
        let location = match uri.split_once(':') {
            Some(("s3" | "s3a" | "file", _)) => Location::parse(uri, None)?,
            _ => return Err(format!("{uri:?} must be s3://BUCKET, s3://BUCKET/PREFIX or file:///PATH")),
        };
        Ok(Store(location))
    }

    fn holds(&self, location: &Location) -> bool {
        match (&self.0, location) {
            (Location::Local(store), Location::Local(path)) => {
                let is_plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
                path.components().all(is_plain) && path.starts_with(store)
            }
            (Location::Bucket { bucket: store, prefix: within }, Location::Bucket { bucket, prefix }) => {
                store == bucket && prefix.starts_with(within)
            }
            _ => false,
        }
    }
}

impl Location {
    /// The location that `uri` names, as `server` (the MLflow server, if it is asked) answers.
    ///
    /// # Errors
    /// It is no URI, leads out of where it begins, or to where this process does not read.
    pub fn parse(uri: &str, server: Option<&reqwest::Url>) -> Result<Location, String> {
        if uri.starts_with('/') {
            return Ok(Location::Local(PathBuf::from(uri)));
        }
        let (scheme, rest) = uri.split_once(':').ok_or_else(|| format!("{uri:?} is no URI"))?;
        let (host, path) = match rest.strip_prefix("//") {
            Some(rest) => rest.split_once('/').unwrap_or((rest, "")),
            None => ("", rest),
        };
        match scheme {
            "mlflow-artifacts" => {
                // Our credentials are for one server: another one's name in an answer must not get them.
                let own = server.is_some_and(|server| {
                    server.host_str().is_some_and(|name| match server.port() {
                        Some(port) => host == format!("{name}:{port}"),
                        None => host == name,
                    })
                });
                if host.is_empty() || own {
                    return segments(path).map(Location::Proxied);
                }
                let server = server.map_or("the one that is asked", reqwest::Url::as_str);
                Err(format!("{uri} names another server than {server}; start the server so that it names itself"))
            }
            "s3" | "s3a" if !host.is_empty() => {
                segments(path).map(|prefix| Location::Bucket { bucket: host.to_owned(), prefix })
            }
            "file" if host.is_empty() || host == "localhost" => {
                Ok(Location::Local(Path::new("/").join(path.trim_start_matches('/'))))
            }
            "runs" => {
                let mut below = segments(path)?;
                if below.is_empty() {
                    return Err(format!("{uri} names no run"));
                }
                let run = below.remove(0);
                Ok(Location::Run { run, below })
            }
            _ => Err(format!(
                "{uri} lies where this worker cannot read; it reads mlflow-artifacts:, s3: and file: (let the MLflow \
                 server serve artefacts: --serve-artifacts)"
            )),
        }
    }

    /// The location of `below` within this one.
    ///
    /// # Errors
    /// This one is a run's.
    pub fn join(self, below: Vec<String>) -> Result<Location, String> {
        match self {
            Location::Proxied(mut path) => {
                path.extend(below);
                Ok(Location::Proxied(path))
            }
            Location::Bucket { bucket, mut prefix } => {
                prefix.extend(below);
                Ok(Location::Bucket { bucket, prefix })
            }
            Location::Local(path) => Ok(Location::Local(below.iter().fold(path, |path, name| path.join(name)))),
            Location::Run { run, .. } => Err(format!("the files of run {run} lie in a run")),
        }
    }

    /// Whether files may be read here: from the server's own store and from `stores` alone.
    pub fn is_allowed(&self, stores: &[Store]) -> bool {
        matches!(self, Location::Proxied(_)) || stores.iter().any(|store| store.holds(self))
    }
}

/// A path's parts, each a plain name.
fn segments(path: &str) -> Result<Vec<String>, String> {
    path.split('/').filter(|part| !part.is_empty()).map(|part| plain_name(part).map(str::to_owned)).collect()
}

/// A name that stays where it is put.
pub(super) fn plain_name(name: &str) -> Result<&str, String> {
    let unfit = |character: char| matches!(character, '/' | '\\') || character.is_control();
    if name.is_empty() || name == "." || name == ".." || name.len() > MAX_NAME_BYTES || name.contains(unfit) {
        return Err(format!("{name:?} is no plain file name"));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(uri: &str) -> Result<Location, String> {
        Location::parse(uri, Some(&"http://mlflow.example:5000/base".parse().expect("a URL")))
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_uri_says_where_files_are() {
        for (uri, location) in [
            ("mlflow-artifacts:/0/ab/artifacts/bundle", Location::Proxied(names(&["0", "ab", "artifacts", "bundle"]))),
            ("mlflow-artifacts://mlflow.example:5000/0/ab", Location::Proxied(names(&["0", "ab"]))),
            ("s3://models/a/b/", Location::Bucket { bucket: "models".into(), prefix: names(&["a", "b"]) }),
            ("file:///srv/mlflow/a", Location::Local("/srv/mlflow/a".into())),
            ("/srv/mlflow/a", Location::Local("/srv/mlflow/a".into())),
            ("runs:/ab12/bundle", Location::Run { run: "ab12".into(), below: names(&["bundle"]) }),
        ] {
            assert_eq!(parse(uri), Ok(location), "{uri}");
        }
    }

    #[test]
    fn a_uri_that_leads_elsewhere_is_refused_with_the_reason() {
        for (uri, says) in [
            ("mlflow-artifacts://other.example/0/ab", "another server"),
            ("mlflow-artifacts://mlflow.example/0/ab", "another server"),
            ("mlflow-artifacts:/0/../../etc", "\"..\""),
            ("s3://models/../x", "\"..\""),
            ("gs://models/a", "mlflow-artifacts:"),
            ("runs:/", "no run"),
            ("models/a", "no URI"),
        ] {
            let error = parse(uri).expect_err(uri);
            assert!(error.contains(says), "{uri}: {error}");
        }
    }

    #[test]
    fn only_named_stores_hold_files() {
        for (store, held, not_held) in [
            (
                "s3://models/fraud",
                ["s3://models/fraud", "s3a://models/fraud/1/a"].as_slice(),
                ["s3://models", "s3://models/fraudulent", "s3://others/fraud", "file:///models/fraud"].as_slice(),
            ),
            ("s3://models", &["s3://models/a"], &["s3://models2/a"]),
            (
                "file:///srv/mlflow",
                &["/srv/mlflow/1", "file:///srv/mlflow/1"],
                &["/srv", "/srv/mlflow2/1", "/srv/mlflow/../../etc", "file:///etc", "s3://srv/mlflow"],
            ),
        ] {
            let store = Store::parse(store).expect("a store");
            for (uris, is_held) in [(held, true), (not_held, false)] {
                for uri in uris {
                    assert_eq!(parse(uri).is_ok_and(|location| store.holds(&location)), is_held, "{uri}");
                }
            }
        }
        for uri in ["", "/srv/mlflow", "mlflow-artifacts:/", "gs://models", "runs:/1/a"] {
            assert!(Store::parse(uri).is_err(), "{uri}");
        }
    }

    #[test]
    fn files_of_a_run_lie_below_where_the_run_keeps_its_own() {
        let root = parse("s3://models/1/ab/artifacts").and_then(|root| root.join(names(&["bundle"])));
        assert_eq!(
            root,
            Ok(Location::Bucket { bucket: "models".into(), prefix: names(&["1", "ab", "artifacts", "bundle"]) })
        );
        assert!(parse("runs:/a/b").and_then(|root| root.join(names(&["c"]))).is_err());
    }

    #[test]
    fn names_from_outside_stay_where_they_are_put() {
        for name in ["", ".", "..", "a/b", "/etc/passwd", "a\\b", "a\0b", "a\nb", &"x".repeat(201)] {
            assert!(plain_name(name).is_err(), "{name:?}");
        }
        for name in ["model.onnx", "...", ".hidden", "MODEL CARD.md", "Modell-ü"] {
            assert_eq!(plain_name(name), Ok(name));
        }
    }
}
