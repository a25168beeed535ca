//! `fraud-scorer verify`: what `run` and `check` start to verify a bundle (model/exchange/verification.rs). Hidden: `check`
//! is for people.

use std::io::Write;
use std::path::PathBuf;

use super::Failure;
use crate::audit::Audit;
use crate::drift::DriftSettings;
use crate::model::choice::KernelChoice;
use crate::model::exchange::{ChallengerSettings, ExchangeSettings, verify_here};
use crate::model::source::{Candidate, Registered};
use crate::model::trust::ModelKey;
use crate::pipeline::shadow::Share;

/// Arguments of `verify`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Directory of the bundle
    #[arg(long)]
    directory: PathBuf,

    /// Name under which a registry has it
    #[arg(long, requires = "registered_version")]
    registered_name: Option<String>,

    /// Version under which a registry has it
    #[arg(long)]
    registered_version: Option<String>,

    #[arg(long, value_enum)]
    kernel: KernelChoice,

    #[arg(long)]
    model_key: Option<ModelKey>,

    #[arg(long)]
    threads: usize,

    #[arg(long)]
    max_message_bytes: usize,

    #[arg(long)]
    max_batch: usize,

    /// Memory that this process may take
    #[arg(long)]
    most_bytes: u64,
}

/// Verifies; a refusal is a line on standard output.
pub fn execute(arguments: Arguments) -> Result<(), Failure> {
    let registered = arguments.registered_name.zip(arguments.registered_version);
    let registered = registered.map(|(name, version)| Registered { name, version });
    let candidate = Candidate { registered, ..Candidate::of_directory(arguments.directory) };
    let settings = ExchangeSettings {
        kernel: arguments.kernel,
        key: arguments.model_key,
        threads: arguments.threads,
        max_message_bytes: arguments.max_message_bytes,
        max_batch: arguments.max_batch,
        input_topic: String::new(),
        challenger: ChallengerSettings { share: Share::ALL },
        drift: DriftSettings::default(),
        verification: None,
        audit: Audit::default(),
    };
    verify_here(&settings, candidate, arguments.most_bytes).map_err(|refusal| {
        let _ = writeln!(std::io::stdout(), "{refusal}");
        Failure::at_run_time(anyhow::anyhow!("refused"))
    })
}
