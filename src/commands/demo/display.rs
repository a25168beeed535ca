//! What the demo shows: a live line while it runs, a table at the end.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use fraud_producer::Report;
use fraud_wire::verdict::Decision;

use super::audience::Audience;
use crate::transaction::Guarantee;
use crate::worker::WorkerSettings;

/// How often the live line changes; where there is no terminal, lines follow each other more slowly.
const ON_TERMINAL: Duration = Duration::from_millis(500);
const IN_LOG: Duration = Duration::from_secs(3);

/// The live line's state.
pub struct Display {
    terminal: bool,
    started: Instant,
    last: Instant,
    last_records: u64,
}

impl Display {
    /// A display on standard output.
    pub fn new() -> Display {
        let now = Instant::now();
        Display { terminal: std::io::stdout().is_terminal(), started: now, last: now, last_records: 0 }
    }

    /// Shows where things stand, if it is time.
    pub fn tick(&mut self, sent: u64, audience: &Audience) {
        let since = self.last.elapsed();
        if since < if self.terminal { ON_TERMINAL } else { IN_LOG } {
            return;
        }
        let rate = (audience.records() - self.last_records) as f64 / since.as_secs_f64();
        (self.last, self.last_records) = (Instant::now(), audience.records());
        let line = format!(
            "{:5.1} s  sent {:>8}  scored {:>8}  {:>7.0}/s  p50 {:>4} ms  p99 {:>4} ms",
            self.started.elapsed().as_secs_f64(),
            grouped(sent),
            grouped(audience.records()),
            rate,
            audience.latency(0.5),
            audience.latency(0.99),
        );
        if self.terminal {
            print!("\r\x1b[2K{line}")
        } else {
            println!("{line}")
        }
        // A terminal that is gone is no reason to stop.
        let _ = std::io::stdout().flush();
    }

    /// Shows how it ended.
    pub fn close(&self, sent: &Report, audience: &Audience, settings: &WorkerSettings) {
        if self.terminal {
            println!();
        }
        println!("\na handful of verdicts:");
        audience.examples().for_each(|verdict| println!("  {verdict}"));
        let guarantee = match settings.guarantee {
            Guarantee::ExactlyOnce => "exactly-once",
            Guarantee::AtLeastOnce => "at-least-once",
        };
        println!("\n{:<24}{:>12}", "transactions sent", grouped(sent.delivered));
        for decision in Decision::ALL {
            println!("{:<24}{:>12}", format!("verdicts: {}", decision.as_str()), grouped(audience.verdicts(decision)));
        }
        for (name, value) in [
            ("dead letters", audience.dead_letters()),
            ("lost", audience.lost(sent.delivered)),
            ("doubled", audience.doubled()),
        ] {
            println!("{name:<24}{:>12}", grouped(value));
        }
        println!("{:<24}{:>9} ms", "latency p50", audience.latency(0.5));
        println!("{:<24}{:>9} ms", "latency p99", audience.latency(0.99));
        println!("{:<24}{:>12.0}", "transactions/s", audience.rate());
        println!("{:<24}{guarantee:>12}", "guarantee");
        println!("{:<24}{:>12}", "build", build());
        println!(
            "\nThe embedded broker sets the pace here; `make kafka` and `make run` take the same worker to a real one."
        );
    }
}

/// Which build this is: what it can do, and whether its figures say anything.
fn build() -> String {
    let parts =
        [("archive", cfg!(feature = "archive")), ("TLS", cfg!(feature = "tls")), ("zstd", cfg!(feature = "zstd"))];
    let absent: Vec<_> = parts.iter().filter(|(_, is_there)| !is_there).map(|(name, _)| *name).collect();
    match (cfg!(debug_assertions), absent.as_slice()) {
        (true, _) => "debug".to_owned(),
        (false, []) => "whole".to_owned(),
        (false, absent) => format!("trial, without {} (`make build` makes the whole one)", absent.join(", ")),
    }
}

/// 1234567 as 1,234,567.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(super::grouped(number), text);
        }
    }
}
