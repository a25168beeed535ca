//! SIGTERM and SIGINT, turned into a [`Shutdown`].

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::log_events;
use crate::shutdown::Shutdown;

/// Both signals; must be made within a tokio runtime.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Starts to listen: from now on the signals no longer end the process by themselves.
    pub fn listen() -> std::io::Result<Signals> {
        Ok(Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The next signal.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Passes each signal on, with a word to the user.
    pub async fn request(mut self, shutdown: Shutdown) {
        loop {
            self.next().await;
            let again = shutdown.is_requested();
            // First of all: a log that cannot be written must not keep the worker running.
            shutdown.request();
            if again {
                log_events::lifecycle::StoppingAtOnce {}.log();
            } else {
                log_events::lifecycle::Stopping {}.log();
            }
        }
    }
}
