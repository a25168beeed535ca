//! The names of a classifier's classes, in the order of its columns.

use super::Unsupported;
use super::attributes::Attributes;
use super::graph::Model;

/// The classes whose scores `output` holds, as the operators that compute it name them; integers as decimals. `None` where
/// none does.
///
/// # Errors
/// The file cannot be read, or its operators name different classes.
pub fn class_labels(file: &[u8], output: &str) -> Result<Option<Vec<String>>, Unsupported> {
    let model = Model::read(file)?;
    let mut found: Option<Vec<String>> = None;
    for index in model.ancestors(output, &[]).0 {
        let attributes = Attributes::read(&model.nodes[index].attributes)?;
        let texts = attributes.texts("classlabels_strings").iter();
        let mut labels: Vec<String> = texts.map(|text| String::from_utf8_lossy(text).into_owned()).collect();
        for name in ["classlabels_int64s", "classlabels_ints"] {
            if labels.is_empty() {
                labels = attributes.integers(name).iter().map(i64::to_string).collect();
            }
        }
        // A step behind may go on without the names, but not with others.
        if !labels.is_empty() && found.get_or_insert_with(|| labels.clone()) != &labels {
            return Err(Unsupported::new("the graph's operators name different classes"));
        }
    }
    Ok(found)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::wire::Writer;
    use super::*;

    fn classifier(graph: &mut Writer, input: &str, output: &str, labels: &dyn Fn(&mut Writer)) {
        graph.message(1, |node| {
            node.bytes(1, input.as_bytes()).bytes(2, b"label").bytes(2, output.as_bytes());
            node.bytes(4, b"LinearClassifier").message(5, labels);
        });
    }

    fn texts(attribute: &mut Writer) {
        attribute.bytes(1, b"classlabels_strings").bytes(9, b"fraud").bytes(9, b"genuine");
    }

    fn integers(attribute: &mut Writer) {
        attribute.bytes(1, b"classlabels_ints").integer(8, 0).integer(8, 1);
    }

    fn file(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut model = Writer::default();
        model.message(7, write);
        model.0
    }

    #[test]
    fn classes_are_those_of_the_operators_before_the_output() {
        let named = |labels: &dyn Fn(&mut Writer)| {
            let file = file(|graph| classifier(graph, "input", "scores", labels));
            class_labels(&file, "scores").unwrap()
        };
        assert_eq!(named(&texts), Some(vec!["fraud".to_owned(), "genuine".to_owned()]));
        assert_eq!(named(&integers), Some(vec!["0".to_owned(), "1".to_owned()]));
        assert_eq!(named(&|attribute| _ = attribute.bytes(1, b"other")), None);
        let both = file(|graph| {
            classifier(graph, "input", "between", &texts);
            classifier(graph, "between", "scores", &integers);
        });
        assert_eq!(class_labels(&both, "between").unwrap().unwrap().len(), 2);
        assert!(class_labels(&both, "scores").is_err());
    }
}
