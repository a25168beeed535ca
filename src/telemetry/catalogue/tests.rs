use std::collections::BTreeSet;

use fraud_wire::dead_letter::ErrorClass;
use fraud_wire::verdict::Decision;

use super::definitions::{DEAD_LETTERS, VERDICTS};
use super::*;

#[test]
fn definitions_are_complete_and_follow_the_rules_for_names() {
    let mut names = BTreeSet::new();
    for metric in all() {
        let Metric { name, kind, unit, labels, help, purpose, .. } = metric;
        assert!(names.insert(name), "{name} is defined twice");
        let rest = name.strip_prefix("fraud_scorer_").unwrap_or_else(|| panic!("{name} lacks the prefix"));
        assert!(
            rest.chars().all(|character| character.is_ascii_lowercase() || "_0123456789".contains(character)),
            "{name}"
        );
        assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}: counters, and only they, end so");
        assert!(help.ends_with('.') && !help.contains('\n') && !help.contains('\\'), "{name}: {help}");
        assert!(purpose.ends_with('.') && !unit.is_empty(), "{name}: {purpose}");
        let mut seen = BTreeSet::new();
        assert!(labels.iter().all(|label| seen.insert(label.name) && label.name != "le"), "{name}");
        assert!(metric.bounds().is_sorted_by(|one, next| one < next), "{name}");
    }
}

#[test]
fn values_of_labels_are_those_of_the_types() {
    let values = |metric: &Metric| match metric.labels[0].values {
        Values::These(values) => values.to_vec(),
        Values::Of(sort) => vec![sort],
    };
    assert_eq!(values(&VERDICTS), Decision::ALL.map(Decision::as_str));
    assert_eq!(values(&DEAD_LETTERS), ErrorClass::ALL.map(ErrorClass::as_str));
}

#[test]
#[should_panic(expected = "decision=\"maybe\" is not defined")]
fn a_value_that_is_not_defined_is_not_exposed() {
    VERDICTS.sample(&mut String::new(), &["maybe"], 1);
}

#[test]
fn series_have_the_labels_of_their_definition_escaped() {
    static METRIC: Metric =
        Metric::gauged("depth", "metres", "A depth.").by(&[Label::of("a", "x"), Label::of("b", "y")]);
    let mut text = String::new();
    METRIC.describe(&mut text);
    METRIC.sample(&mut text, &["one", "two \"2\"\n\\"], 1.5);
    assert_eq!(text, "# HELP depth A depth.\n# TYPE depth gauge\ndepth{a=\"one\",b=\"two \\\"2\\\"\\n\\\\\"} 1.5\n");
}

/// `FRAUD_SCORER_WRITE_DOCS=1` writes it instead (`make docs`).
#[test]
fn the_document_is_what_the_definitions_say() {
    let (path, wanted) = (document::path(), document::text());
    if std::env::var_os("FRAUD_SCORER_WRITE_DOCS").is_some() {
        std::fs::write(&path, &wanted).expect("docs/ can be written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = found.lines().zip(wanted.lines()).find(|(found, wanted)| found != wanted);
    assert!(found == wanted, "docs/METRICS.md is stale, run make docs; first difference: {differs:#?}");
}
