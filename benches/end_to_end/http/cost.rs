//! What a run cost: the difference of two looks at its processes.

use std::time::{Duration, Instant};

use crate::machine::cores;

/// A look at a run: times since the processes, or the machine, began.
#[derive(Clone, Copy)]
pub struct Sample {
    pub at: Instant,
    pub answered: u64,
    pub cpu: Duration,
    pub client: Duration,
    pub broker: Duration,
    /// Everybody's.
    pub busy: Duration,
}

/// Seconds between two samples.
pub struct Cost {
    pub answered: u64,
    pub wall: f64,
    pub cpu: f64,
    pub client_cpu: f64,
    pub others_share: f64,
}

impl Sample {
    /// What it cost from `first` until now.
    pub fn since(&self, first: &Sample) -> Cost {
        // Saturating: the time of a process that has gone meanwhile is in the first look alone.
        let cpu = self.cpu.saturating_sub(first.cpu);
        let (client, broker) = (self.client.saturating_sub(first.client), self.broker.saturating_sub(first.broker));
        let wall = (self.at - first.at).as_secs_f64();
        let others = self.busy.saturating_sub(first.busy).saturating_sub(cpu + client + broker);
        Cost {
            answered: self.answered - first.answered,
            wall,
            cpu: cpu.as_secs_f64(),
            client_cpu: client.as_secs_f64(),
            others_share: others.as_secs_f64() / wall / cores() as f64,
        }
    }
}
