//! The doorway of `fraud-producer`: settings in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(fraud_producer::execute(fraud_settings::parse("FRAUD_PRODUCER")))
}
