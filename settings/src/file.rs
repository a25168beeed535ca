//! The TOML file of `--config`: reading it, and answering "what does it say about this argument?".
//!
//! A key is an argument's long name (`commit-interval` or `commit_interval`), at the top level or in a table named
//! like the subcommand. `[kafka]` holds librdkafka properties: written plainly (`sasl.password = "…"`), TOML nests
//! them, so they are flattened back into dotted names.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::SettingsError;

/// The table of librdkafka properties.
pub(crate) const KAFKA_TABLE: &str = "kafka";

/// A configuration file: its path for messages, and its keys, spelt as long names (kebab-case).
#[derive(Debug)]
pub(crate) struct File {
    path: PathBuf,
    root: Table,
}

/// What the file says about one argument: the full key for messages, and its values.
#[derive(Debug, PartialEq)]
pub(crate) struct Found {
    pub(crate) key: String,
    pub(crate) values: Vec<OsString>,
}

impl File {
    pub(crate) fn read(path: &Path) -> Result<File, SettingsError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| SettingsError::Unreadable { path: path.to_owned(), source })?;
        File::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<File, SettingsError> {
        let root: Table = toml::from_str(text).map_err(|error: toml::de::Error| {
            let before = &text[..error.span().map_or(0, |span| text.floor_char_boundary(span.start))];
            SettingsError::Syntax {
                path: path.to_owned(),
                line: before.matches('\n').count() + 1,
                column: before.chars().rev().take_while(|&character| character != '\n').count() + 1,
                reason: error.message().to_owned(),
            }
        })?;
        Ok(File { path: path.to_owned(), root: kebab_keys(root) })
    }

    /// Checks that every key belongs to an argument of the root command or of some subcommand.
    pub(crate) fn check_keys(&self, command: &clap::Command) -> Result<(), SettingsError> {
        let subcommands: Vec<_> = command.get_subcommands().collect();
        let root_keys = long_names(command);
        let mut known = root_keys.clone();
        for subcommand in &subcommands {
            known.extend(long_names(subcommand));
        }
        known.push(KAFKA_TABLE.to_owned());
        known.sort();
        known.dedup();
        for (key, value) in &self.root {
            let subcommand = subcommands.iter().find(|subcommand| subcommand.get_name() == key);
            match (subcommand, value) {
                (Some(subcommand), Value::Table(table)) => {
                    let mut inner = long_names(subcommand);
                    inner.extend(root_keys.iter().cloned());
                    if let Some(key) = table.keys().find(|key| !inner.contains(key)) {
                        return Err(self.unknown(Some(subcommand.get_name()), key, &inner));
                    }
                }
                _ if known.contains(key) => {}
                _ => {
                    known.extend(subcommands.iter().map(|subcommand| subcommand.get_name().to_owned()));
                    return Err(self.unknown(None, key, &known));
                }
            }
        }
        Ok(())
    }

    /// What the file says about the argument `long` of `subcommand`: the subcommand's table wins over the top level.
    /// `flag` tells that the argument is a switch, `many` that it takes several values.
    pub(crate) fn find(
        &self,
        subcommand: Option<&str>,
        long: &str,
        flag: bool,
        many: bool,
    ) -> Result<Option<Found>, SettingsError> {
        let inner = subcommand.and_then(|name| Some((name, self.root.get(name)?.as_table()?.get(long)?)));
        let (key, value) = match (inner, self.root.get(long)) {
            (Some((name, value)), _) => (format!("{name}.{long}"), value),
            (None, Some(value)) => (long.to_owned(), value),
            (None, None) => return Ok(None),
        };
        let values = match value {
            Value::Boolean(value) if flag => vec![value.to_string().into()],
            _ if flag => return Err(self.value_error(&key, "expected true or false, without quotes")),
            Value::Array(items) if many => {
                items.iter().map(|item| self.scalar(&key, item)).collect::<Result<Vec<_>, _>>()?
            }
            Value::Array(_) => {
                return Err(self.value_error(&key, "expected one value, found a list; join several with commas"));
            }
            value => vec![self.scalar(&key, value)?],
        };
        Ok(Some(Found { key, values }))
    }

    /// The librdkafka properties of the `[kafka]` table, as `key=value`.
    pub(crate) fn kafka_properties(&self) -> Result<Vec<OsString>, SettingsError> {
        let mut properties = Vec::new();
        match self.root.get(KAFKA_TABLE) {
            None => {}
            Some(Value::Table(table)) => self.flatten(KAFKA_TABLE, "", table, &mut properties)?,
            Some(_) => {
                return Err(self.value_error(KAFKA_TABLE, "expected a table of librdkafka properties, [kafka]"));
            }
        }
        Ok(properties)
    }

    fn flatten(
        &self,
        table_name: &str,
        prefix: &str,
        table: &Table,
        into: &mut Vec<OsString>,
    ) -> Result<(), SettingsError> {
        for (key, value) in table {
            let key = format!("{prefix}{key}");
            match value {
                Value::Table(inner) => self.flatten(table_name, &format!("{key}."), inner, into)?,
                Value::Array(items) => {
                    let full = format!("{table_name}.{key}");
                    let items = items.iter().map(|item| self.scalar(&full, item)).collect::<Result<Vec<_>, _>>()?;
                    let mut property = OsString::from(format!("{key}="));
                    property.push(items.join(std::ffi::OsStr::new(",")));
                    into.push(property);
                }
                value => {
                    let mut property = OsString::from(format!("{key}="));
                    property.push(self.scalar(&format!("{table_name}.{key}"), value)?);
                    into.push(property);
                }
            }
        }
        Ok(())
    }

    fn scalar(&self, key: &str, value: &Value) -> Result<OsString, SettingsError> {
        match value {
            Value::String(text) => Ok(text.into()),
            Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => {
                Ok(value.to_string().into())
            }
            Value::Array(_) => Err(self.value_error(key, "expected one value, found a list")),
            Value::Table(_) => Err(self.value_error(key, "expected one value, found a table")),
        }
    }

    /// An error about a key of this file.
    pub(crate) fn value_error(&self, key: &str, reason: impl Into<String>) -> SettingsError {
        SettingsError::Value { path: self.path.clone(), key: key.to_owned(), reason: reason.into() }
    }

    fn unknown(&self, table: Option<&str>, key: &str, known: &[String]) -> SettingsError {
        let closest = known
            .iter()
            .map(|candidate| (strsim::jaro_winkler(key, candidate), candidate))
            .max_by(|left, right| left.0.total_cmp(&right.0));
        let hint = match closest {
            Some((similarity, candidate)) if similarity > 0.75 => format!("; did you mean \"{candidate}\"?"),
            _ => format!("; known keys are {}", known.join(", ")),
        };
        let key = table.map_or_else(|| key.to_owned(), |table| format!("{table}.{key}"));
        SettingsError::UnknownKey { path: self.path.clone(), key, hint }
    }
}

/// Every long name of a command; help and version are not settings.
fn long_names(command: &clap::Command) -> Vec<String> {
    command.get_arguments().filter_map(crate::layers::setting_name).map(str::to_owned).collect()
}

/// Spells keys as long names. The `[kafka]` table stays as it is: its keys are librdkafka's.
fn kebab_keys(table: Table) -> Table {
    table
        .into_iter()
        .map(|(key, value)| match value {
            Value::Table(inner) if key != KAFKA_TABLE => (key.replace('_', "-"), Value::Table(kebab_keys(inner))),
            value => (key.replace('_', "-"), value),
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn file(text: &str) -> File {
        File::parse(Path::new("test.toml"), text).unwrap()
    }

    #[test]
    fn kafka_properties_may_be_dotted_quoted_or_lists() {
        let file = file(
            "[kafka]\nsasl.password = \"a=b\"\n\"linger.ms\" = 7\nenable.idempotence = true\nbuiltin.features = [\"ssl\", \"sasl\"]",
        );
        let mut properties = file.kafka_properties().unwrap();
        properties.sort();
        assert_eq!(
            properties,
            ["builtin.features=ssl,sasl", "enable.idempotence=true", "linger.ms=7", "sasl.password=a=b"]
        );
    }

    #[test]
    fn a_syntax_error_tells_the_place_but_not_the_line() {
        let error = File::parse(Path::new("test.toml"), "rate = 1\nsasl = \"hunter2\n").unwrap_err();
        let message = error.to_string();
        assert!(message.contains("line 2"), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
    }

    #[test]
    fn kafka_must_be_a_table() {
        let error = file("kafka = 1").kafka_properties().unwrap_err();
        assert!(error.to_string().contains("[kafka]"), "{error}");
    }
}
