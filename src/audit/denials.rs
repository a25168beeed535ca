//! How denied tries become events: the first at once, then one event per interval that stands for all others. Pure: the
//! caller has the clock.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Time between two events, at least: who tries without end must not fill the log or the topic.
pub const INTERVAL: Duration = Duration::from_secs(60);

/// Peers that are told apart within an interval; of more it is said that there were more.
const MOST_PEERS: usize = 64;

/// Tries since the last event.
#[derive(Debug, Default)]
pub struct Denials {
    /// When the next event may come.
    next: Option<Instant>,
    tries: u64,
    peers: BTreeSet<String>,
    are_more_peers: bool,
}

/// What an event stands for.
#[derive(Debug, PartialEq, Eq)]
pub struct Denied {
    /// The peer, or how many there were.
    pub peers: String,
    /// Tries.
    pub tries: u64,
}

impl Denials {
    /// Counts a try of `peer`; returns whether it is an event of its own.
    pub fn add(&mut self, peer: &str, now: Instant) -> bool {
        if self.tries == 0 && self.next.is_none_or(|next| now >= next) {
            self.next = Some(now + INTERVAL);
            return true;
        }
        self.tries += 1;
        if self.peers.len() < MOST_PEERS {
            self.peers.insert(peer.to_owned());
        } else if !self.peers.contains(peer) {
            self.are_more_peers = true;
        }
        false
    }

    /// The tries that had no event of their own, when an event may come again; with `is_end` at once.
    pub fn due(&mut self, now: Instant, is_end: bool) -> Option<Denied> {
        if self.tries == 0 || !(is_end || self.next.is_none_or(|next| now >= next)) {
            return None;
        }
        self.next = Some(now + INTERVAL);
        let (tries, peers) = (std::mem::take(&mut self.tries), std::mem::take(&mut self.peers));
        let are_more = std::mem::take(&mut self.are_more_peers);
        let peers = match (peers.len(), peers.into_iter().next()) {
            (1, Some(peer)) => peer,
            (count, _) => format!("{}{count} peers", if are_more { "more than " } else { "" }),
        };
        Some(Denied { peers, tries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_at_once_and_the_others_once_per_interval() {
        let (mut denials, began) = (Denials::default(), Instant::now());
        let after = |seconds| began + Duration::from_secs(seconds);
        assert!(denials.add("a", began));
        assert_eq!((1..=50).filter(|second| denials.add("a", after(*second))).count(), 0);
        assert_eq!(denials.due(after(59), false), None);
        assert_eq!(denials.due(after(60), false), Some(Denied { peers: "a".into(), tries: 50 }));
        assert_eq!(denials.due(after(61), true), None, "told already");
        assert!(!denials.add("b", after(61)), "the interval is that of events");
        assert!(!denials.add("c", after(130)), "what waits is told first");
        assert_eq!(denials.due(after(130), false), Some(Denied { peers: "2 peers".into(), tries: 2 }));
        assert!(denials.add("d", after(190)));
        assert!(!denials.add("d", after(191)));
        assert_eq!(denials.due(after(191), true), Some(Denied { peers: "d".into(), tries: 1 }), "at the end");
    }

    #[test]
    fn a_crowd_takes_no_memory() {
        let (mut denials, now) = (Denials::default(), Instant::now());
        let tries = 100_000;
        assert!(denials.add("first", now));
        (0..tries).for_each(|number| assert!(!denials.add(&number.to_string(), now)));
        assert_eq!(denials.peers.len(), MOST_PEERS);
        assert_eq!(denials.due(now, true), Some(Denied { peers: "more than 64 peers".into(), tries }));
    }
}
