//! Readiness as a list of reasons against it, and warnings beside it. Changed on transitions only, so a lock is cheap
//! enough.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::catalogue::definitions::READY;

/// Ready when nobody has a reason against it. A warning is for who looks: it does not make a worker unready.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    reasons: Arc<Mutex<BTreeMap<String, String>>>,
    warnings: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Readiness {
    /// `who` is not ready, because of `reason`; replaces an earlier reason of theirs.
    pub fn hold(&self, who: &str, reason: impl Into<String>) {
        if let Ok(mut reasons) = self.reasons.lock() {
            reasons.insert(who.to_owned(), reason.into());
            publish(&reasons);
        }
    }

    /// `who` has no reason any more.
    pub fn clear(&self, who: &str) {
        if let Ok(mut reasons) = self.reasons.lock() {
            reasons.remove(who);
            publish(&reasons);
        }
    }

    /// The reasons against readiness, `who: why`; empty when ready.
    pub fn reasons(&self) -> Vec<String> {
        let reasons = self.reasons.lock();
        reasons.map(|reasons| reasons.iter().map(|(who, why)| format!("{who}: {why}")).collect()).unwrap_or_default()
    }

    /// Something is the matter that scoring can go on with; replaces an earlier warning of `who`.
    pub fn warn(&self, who: &str, text: impl Into<String>) {
        if let Ok(mut warnings) = self.warnings.lock() {
            warnings.insert(who.to_owned(), text.into());
        }
    }

    /// `who` has nothing to warn of any more.
    pub fn clear_warning(&self, who: &str) {
        if let Ok(mut warnings) = self.warnings.lock() {
            warnings.remove(who);
        }
    }

    /// The warnings' texts.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.lock().map(|warnings| warnings.values().cloned().collect()).unwrap_or_default()
    }
}

/// The metric. A thread that waits for a broker can publish no lag, so alerts need this to see that it stands still.
fn publish(reasons: &BTreeMap<String, String>) {
    READY.gauge(&[]).set(f64::from(u8::from(reasons.is_empty())));
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn ready_is_the_absence_of_reasons() {
        let readiness = Readiness::default();
        assert!(readiness.reasons().is_empty());
        readiness.hold("a", "starting");
        readiness.hold("b", "stalled");
        readiness.hold("a", "waiting");
        assert_eq!(readiness.reasons(), ["a: waiting", "b: stalled"]);
        readiness.clear("a");
        readiness.clear("b");
        assert!(readiness.reasons().is_empty());
    }

    #[test]
    fn readiness_shows_as_a_metric() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let shown = |value: &str| recorder.handle().render().contains(&format!("fraud_scorer_ready {value}\n"));
        metrics::with_local_recorder(&recorder, || {
            let readiness = Readiness::default();
            readiness.hold("a", "starting");
            readiness.hold("b", "stalled");
            assert!(shown("0"));
            readiness.clear("a");
            assert!(shown("0"));
            readiness.clear("b");
            assert!(shown("1"));
        });
    }

    #[test]
    fn a_warning_is_no_reason_against_readiness() {
        let readiness = Readiness::default();
        readiness.warn("a", "registry unreachable");
        readiness.warn("a", "registry alias is gone");
        assert_eq!((readiness.warnings(), readiness.reasons()), (vec!["registry alias is gone".to_owned()], vec![]));
        readiness.clear_warning("a");
        assert!(readiness.warnings().is_empty());
    }
}
