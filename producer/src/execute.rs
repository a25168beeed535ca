//! The whole run of the binary, from parsed arguments to the exit code.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use fraud_settings::{SettingsError, exit_code, initialise_logging};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::archive::ArchiveError;
use crate::arguments::Arguments;
use crate::display::Display;
use crate::job::{LabelReport, Report, run};

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
    let brokers = (!job.is_archive_only).then(|| job.brokers().to_owned());
    let mut display = Display::new(quiet);
    let outcome = run(job, &stop, |progress| display.show(progress));
    display.finish();
    match outcome {
        Ok(report) => close(&report, brokers.as_deref()),
        Err(error) => {
            eprintln!("error: {error:#}");
            match error.downcast_ref::<SettingsError>() {
                Some(error) => error.exit_code(),
                None if error.is::<ArchiveError>() => exit_code::CONFIGURATION,
                None => exit_code::FAILED,
            }
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

/// Says how the run ended; `brokers` is `None` where none was to be asked.
fn close(report: &Report, brokers: Option<&str>) -> u8 {
    if let Some(error) = &report.first_error {
        eprintln!("error: {error}");
    }
    // A reader that has gone away is no reason to fail: the exit code says the same.
    let say = |line: String| _ = writeln!(std::io::stdout(), "{line}");
    if let Some(LabelReport { sent, failed, not_yet_known }) = report.labels {
        let failed = if failed > 0 { format!(", {failed} failed") } else { String::new() };
        say(format!("labels: {sent} sent, {not_yet_known} not yet known{failed}"));
    }
    if let Some((rows, location)) = &report.archived {
        say(format!("archived {rows} rows to {location}"));
    }
    if let Some(brokers) = brokers {
        let Report { sent, delivered, failed, .. } = report;
        say(format!("sent {sent} messages to {brokers} (delivered {delivered}, failed {failed})"));
    }
    if report.is_complete() { exit_code::DONE } else { exit_code::FAILED }
}
