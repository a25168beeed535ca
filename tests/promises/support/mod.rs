//! Real parts for the tests: brokers, workers, producers, subscribers.

pub mod broker;
pub mod bundles;
pub mod certificates;
pub mod lake;
pub mod mlflow;
pub mod process;
pub mod s3;
pub mod topics;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The checkout.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Polls until `ready` gives something; panics with `what` after `limit`.
pub fn wait_for<T>(what: &str, limit: Duration, mut ready: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = ready() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A name no other test uses.
pub fn unique(prefix: &str) -> String {
    format!("{prefix}-{}", uuid::Uuid::new_v4().simple())
}

/// Runs one of the project's scripts; panics with its output when it fails.
pub fn script(name: &str, arguments: &[&str]) -> String {
    let output = Command::new("bash").arg(root().join("scripts").join(name)).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{name} {arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// The first 7,972 rows of the card data where they are at hand, else as many drawn rows, as a CSV file's path.
pub fn card_rows() -> Option<PathBuf> {
    let path = root().join("../shared/data/creditcard/creditcard_head7972.csv.gz");
    path.is_file().then_some(path)
}

/// How many rows [`card_rows`] has.
pub const CARD_ROWS: usize = 7972;

/// The Python environment of `training/`, made on first use.
pub fn python_tool() -> &'static Path {
    static TOOL: OnceLock<PathBuf> = OnceLock::new();
    TOOL.get_or_init(|| {
        script("python-env.sh", &[]);
        root().join(".runtime/venv/bin/fraud-training")
    })
}
