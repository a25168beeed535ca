//! The doorway of `fraud-scorer`: settings in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    fraud_scorer::commands::execute(fraud_settings::parse("FRAUD_SCORER"))
}
