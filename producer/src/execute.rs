//! The whole run of the binary, from parsed arguments to the exit code.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use fraud_settings::{SettingsError, exit_code, initialise_logging};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::arguments::Arguments;
use crate::display::Display;
use crate::job::{Report, run};

/// Sends what the arguments ask for, prints the closing line on standard output, and returns the exit code: 0 when
/// everything sent was delivered, 1 when anything failed, 2 and 64 for arguments that make no job.
///
/// The first SIGINT or SIGTERM ends the sending and waits for the delivery reports still due; the second one aborts.
pub fn execute(arguments: Arguments) -> u8 {
    let quiet = arguments.quiet;
    // The client's own lines about lost connections repeat what ours say once.
    initialise_logging(arguments.log_format, if quiet { "warn,librdkafka=off" } else { "info,librdkafka=off" });
    let job = match arguments.job() {
        Ok(job) => job,
        Err(error) => {
            eprintln!("error: {error}");
            return error.exit_code();
        }
    };
    let stop = match stop_on_signals() {
        Ok(stop) => stop,
        Err(error) => {
            eprintln!("error: cannot listen for signals: {error}");
            return exit_code::FAILED;
        }
    };
    let brokers = job.brokers().to_owned();
    let mut display = Display::new(quiet);
    let outcome = run(job, &stop, |progress| display.show(progress));
    display.finish();
    match outcome {
        Ok(report) => close(&report, &brokers),
        Err(error) => {
            eprintln!("error: {error:#}");
            error.downcast_ref::<SettingsError>().map_or(exit_code::FAILED, SettingsError::exit_code)
        }
    }
}

fn stop_on_signals() -> std::io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the abort looks at the flag before the same signal sets it.
        signal_hook::flag::register_conditional_shutdown(signal, i32::from(exit_code::FAILED), Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

fn close(report: &Report, brokers: &str) -> u8 {
    if let Some(error) = &report.first_error {
        eprintln!("error: {error}");
    }
    let Report { sent, delivered, failed, .. } = report;
    // A reader that has gone away is no reason to fail: the exit code says the same.
    _ = writeln!(std::io::stdout(), "sent {sent} messages to {brokers} (delivered {delivered}, failed {failed})");
    if report.is_complete() { exit_code::DONE } else { exit_code::FAILED }
}
