//! Progress for people: a bar on a terminal, a log line every few seconds elsewhere, nothing when quiet.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::job::Progress;

const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Shows a run's progress on standard error.
pub(crate) enum Display {
    Quiet,
    Lines {
        shown: Progress,
    },
    /// Drawn from the first progress on, which tells whether there is a limit to fill the bar towards.
    Bar(Option<ProgressBar>),
}

impl Display {
    pub(crate) fn new(quiet: bool) -> Display {
        if quiet {
            Display::Quiet
        } else if std::io::stderr().is_terminal() {
            Display::Bar(None)
        } else {
            Display::Lines { shown: Progress::default() }
        }
    }

    pub(crate) fn show(&mut self, progress: &Progress) {
        match self {
            Display::Quiet => {}
            Display::Lines { shown } => {
                let passed = progress.elapsed.saturating_sub(shown.elapsed);
                if passed >= LINE_INTERVAL {
                    let rate = (progress.delivered - shown.delivered) as f64 / passed.as_secs_f64();
                    let Progress { sent, delivered, failed, .. } = *progress;
                    tracing::info!(sent, delivered, failed, "{rate:.0} delivered per second");
                    *shown = *progress;
                }
            }
            Display::Bar(bar) => {
                let bar = bar.get_or_insert_with(|| new_bar(progress.limit));
                let rate = progress.delivered as f64 / progress.elapsed.as_secs_f64().max(1e-3);
                let failed = if progress.failed > 0 { format!(", {} failed", progress.failed) } else { String::new() };
                bar.set_message(format!("{rate:.0}/s{failed}"));
                bar.set_position(progress.delivered);
            }
        }
    }

    /// Clears the bar, so that the closing line stands alone.
    pub(crate) fn finish(self) {
        if let Display::Bar(Some(bar)) = self {
            bar.finish_and_clear();
        }
    }
}

fn new_bar(limit: Option<u64>) -> ProgressBar {
    let (bar, template) = match limit {
        Some(limit) => (ProgressBar::new(limit), "{bar:32} {human_pos}/{human_len} delivered  {msg}  {eta} left"),
        None => (ProgressBar::no_length(), "{spinner} {human_pos} delivered  {msg}  {elapsed}"),
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.with_style(style)
}
