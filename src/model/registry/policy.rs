//! What to do with what the registry said: pure, without a clock, a network or a disk.
//!
//! The rule is short: **a version is offered when the alias moves to it**, once. What became of it, accepted or
//! refused, does not matter here; neither does what happened to it later. So a refused version is not tried over and
//! over, and one that was rolled back by hand does not come back by itself.

use std::time::Duration;

/// Longest pause between two questions while the registry does not answer, where the poll interval is shorter.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);

/// How far a pause is spread around its length, so that a fleet of workers does not ask in step.
const SPREAD: f64 = 0.1;

/// What asking for the alias gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It stands at this version.
    At(String),
    /// There is no such alias, version or model.
    Nothing,
    /// No answer that says anything.
    Unknown,
}

/// What the follower does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing: what serves goes on.
    Keep,
    /// Get this version and offer it.
    Offer(String),
    /// The alias is gone since the last answer: say so.
    Withdraw,
}

/// What the follower remembers of earlier answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The version the alias stood at when it was last dealt with.
    settled: Option<String>,
    /// The alias named nothing at the last answer.
    gone: bool,
}

impl Memory {
    /// A follower whose process has begun with `version`, or with none.
    pub fn settled_at(version: Option<String>) -> Memory {
        Memory { settled: version, gone: false }
    }

    /// What to do about `answer`, while `serving` is the registered version that serves.
    pub fn step(&mut self, answer: Answer, serving: Option<&str>) -> Step {
        match answer {
            Answer::Unknown => Step::Keep,
            Answer::Nothing => {
                let news = !std::mem::replace(&mut self.gone, true);
                // Set anew, it has moved, wherever to.
                self.settled = None;
                if news { Step::Withdraw } else { Step::Keep }
            }
            Answer::At(version) => {
                self.gone = false;
                if self.settled.as_ref() == Some(&version) {
                    return Step::Keep;
                }
                if serving == Some(version.as_str()) {
                    // The alias was moved back to what still serves: after a refusal, or after a rollback.
                    self.settled = Some(version);
                    return Step::Keep;
                }
                Step::Offer(version)
            }
        }
    }

    /// `version` was offered, and accepted or refused. Not called where it could not be fetched: that is tried again.
    pub fn settle(&mut self, version: String) {
        self.settled = Some(version);
    }
}

/// The pause before the next question: the poll interval, doubled with each failure in a row up to two minutes, spread
/// by a tenth. `unit` is a random number in [0, 1).
pub fn pause(poll: Duration, failures: u32, unit: f64) -> Duration {
    let longest = poll.max(LONGEST_PAUSE);
    let pause = poll.saturating_mul(2_u32.saturating_pow(failures)).min(longest);
    pause.mul_f64(1.0 - SPREAD + 2.0 * SPREAD * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(version: &str) -> Answer {
        Answer::At(version.into())
    }

    fn offer(version: &str) -> Step {
        Step::Offer(version.into())
    }

    #[test]
    fn an_alias_that_stands_still_asks_for_nothing() {
        let mut memory = Memory::settled_at(Some("7".into()));
        assert_eq!(memory.step(at("7"), Some("7")), Step::Keep);
        assert_eq!(memory.step(Answer::Unknown, Some("7")), Step::Keep);
        assert_eq!(memory.step(at("7"), Some("7")), Step::Keep);
    }

    #[test]
    fn a_moved_alias_is_followed_forwards_and_backwards() {
        let mut memory = Memory::settled_at(Some("7".into()));
        assert_eq!(memory.step(at("8"), Some("7")), offer("8"));
        memory.settle("8".into());
        assert_eq!(memory.step(at("8"), Some("8")), Step::Keep);
        assert_eq!(memory.step(at("7"), Some("8")), offer("7"));
    }

    #[test]
    fn a_refused_version_is_not_tried_again_until_the_alias_moves() {
        let mut memory = Memory::settled_at(Some("7".into()));
        assert_eq!(memory.step(at("8"), Some("7")), offer("8"));
        memory.settle("8".into());
        assert_eq!(memory.step(at("8"), Some("7")), Step::Keep);
        assert_eq!(memory.step(Answer::Unknown, Some("7")), Step::Keep);
        assert_eq!(memory.step(at("8"), Some("7")), Step::Keep);
        assert_eq!(memory.step(at("7"), Some("7")), Step::Keep, "it serves already");
        assert_eq!(memory.step(at("8"), Some("7")), offer("8"), "the alias moved there anew");
    }

    #[test]
    fn a_version_that_was_rolled_back_does_not_come_back_by_itself() {
        let mut memory = Memory::settled_at(Some("7".into()));
        assert_eq!(memory.step(at("8"), Some("7")), offer("8"));
        memory.settle("8".into());
        assert_eq!(memory.step(at("8"), Some("7")), Step::Keep, "someone rolled back to 7");
        assert_eq!(memory.step(at("9"), Some("7")), offer("9"));
    }

    #[test]
    fn what_could_not_be_fetched_is_tried_again() {
        let mut memory = Memory::settled_at(Some("7".into()));
        assert_eq!(memory.step(at("8"), Some("7")), offer("8"));
        assert_eq!(memory.step(at("8"), Some("7")), offer("8"));
    }

    #[test]
    fn an_alias_that_goes_is_told_once_and_may_come_back() {
        let mut memory = Memory::settled_at(Some("7".into()));
        assert_eq!(memory.step(Answer::Nothing, Some("7")), Step::Withdraw);
        assert_eq!(memory.step(Answer::Nothing, Some("7")), Step::Keep);
        assert_eq!(memory.step(at("7"), Some("7")), Step::Keep);
        assert_eq!(memory.step(Answer::Nothing, Some("7")), Step::Withdraw);
        assert_eq!(memory.step(at("8"), Some("7")), offer("8"));
    }

    #[test]
    fn a_follower_that_began_without_a_version_takes_the_first() {
        let mut memory = Memory::settled_at(None);
        assert_eq!(memory.step(at("1"), None), offer("1"));
    }

    #[test]
    fn pauses_grow_to_a_bound_and_are_spread() {
        let seconds = |poll: u64, failures, unit| pause(Duration::from_secs(poll), failures, unit).as_secs_f64();
        assert_eq!(seconds(30, 0, 0.5), 30.0);
        assert_eq!((seconds(30, 0, 0.0), seconds(30, 1, 0.5)), (27.0, 60.0));
        assert!((32.9..33.0).contains(&seconds(30, 0, 0.999)));
        assert_eq!(seconds(30, 2, 0.5), 120.0);
        assert_eq!(seconds(30, u32::MAX, 0.5), 120.0);
        assert_eq!(seconds(600, 5, 0.5), 600.0, "never more often than asked for");
    }
}
