//! How a challenger's columns come from the champion's rows. Pure.

use crate::pipeline::decode::Feature;

/// Where each column of the challenger comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Columns {
    /// The champion's own, in its order.
    Same,
    /// One source per column.
    Mapped(Vec<Column>),
}

/// Where one column comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Column {
    /// The champion's column of this index.
    Champion(usize),
    /// Always the challenger's default: the champion does not decode this feature.
    Default(f32),
}

impl Columns {
    /// From the champion's features to the challenger's; the error names a feature that is not to be had.
    pub fn between(champion: &[Feature], challenger: &[Feature]) -> Result<Columns, String> {
        if champion.iter().map(|feature| &feature.name).eq(challenger.iter().map(|feature| &feature.name)) {
            return Ok(Columns::Same);
        }
        let column = |feature: &Feature| match champion.iter().position(|other| other.name == feature.name) {
            Some(index) => Ok(Column::Champion(index)),
            None => feature.default.map(Column::Default).ok_or_else(|| {
                format!(
                    "it wants {}, which the serving model does not read from the stream: give the feature a default in \
                     the challenger's manifest.toml, or a serving model that has it",
                    feature.name
                )
            }),
        };
        Ok(Columns::Mapped(challenger.iter().map(column).collect::<Result<_, _>>()?))
    }

    /// Appends one of the champion's rows as the challenger wants it.
    #[inline]
    pub fn append(&self, row: &[f32], into: &mut Vec<f32>) {
        match self {
            Columns::Same => into.extend_from_slice(row),
            Columns::Mapped(columns) => into.extend(columns.iter().map(|column| match column {
                Column::Champion(index) => row[*index],
                Column::Default(value) => *value,
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(names: &[(&str, Option<f32>)]) -> Vec<Feature> {
        names.iter().map(|(name, default)| Feature { name: (*name).into(), default: *default }).collect()
    }

    #[test]
    fn columns_are_found_by_name() {
        let champion = features(&[("a", None), ("b", Some(1.0)), ("c", None)]);
        assert_eq!(Columns::between(&champion, &champion), Ok(Columns::Same));
        let challenger = features(&[("c", None), ("x", Some(7.0)), ("a", Some(0.0))]);
        let columns = Columns::between(&champion, &challenger).expect("all are to be had");
        let mut rows = vec![0.5];
        columns.append(&[10.0, 20.0, 30.0], &mut rows);
        assert_eq!(rows, [0.5, 30.0, 7.0, 10.0]);
    }

    #[test]
    fn what_is_not_to_be_had_is_named() {
        let champion = features(&[("a", None)]);
        let error = Columns::between(&champion, &features(&[("a", None), ("y", None)])).expect_err("no y");
        assert!(error.contains("it wants y,"), "{error}");
    }
}
