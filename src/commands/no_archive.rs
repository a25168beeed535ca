//! `fraud-scorer archive` in a build without the feature `archive`: says so.

use super::Failure;

/// Whatever is asked for.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _any: Vec<String>,
}

/// Refuses.
pub fn execute(_: Arguments) -> Result<(), Failure> {
    Err(Failure::configuration(anyhow::anyhow!(fraud_storage::ABSENT)))
}
