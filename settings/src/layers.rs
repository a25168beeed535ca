//! Flag > environment > file > default, for every argument a clap parser declares.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::builder::BoolishValueParser;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, Id};

use crate::SettingsError;
use crate::file::File;
use crate::kafka::{LAYERED, PROPERTY};

/// The flag that names the configuration file; [`parse`] declares it.
const CONFIG: &str = "config";

/// Parses the process's arguments, environment and configuration file, or explains what is wrong and exits: with 2
/// for flags and environment variables, with 64 for the file, with 0 after help or version.
///
/// `environment_prefix` is the upper-case start of every variable's name: with `FRAUD_SCORER`, `--commit-interval`
/// reads `FRAUD_SCORER_COMMIT_INTERVAL`. An empty variable counts as unset. `P` must not declare `--config` itself.
pub fn parse<P: clap::Parser>(environment_prefix: &str) -> P {
    let parsed = try_parse_from(environment_prefix, std::env::args_os(), |name: &str| std::env::var_os(name));
    parsed.unwrap_or_else(|error: SettingsError| error.exit())
}

/// [`parse`] with everything given: `arguments` start with the program's name, `environment` answers for one
/// variable.
///
/// # Errors
/// [`SettingsError`] for anything that [`parse`] would exit on, help and version included.
pub fn try_parse_from<P, I, T, E>(environment_prefix: &str, arguments: I, environment: E) -> Result<P, SettingsError>
where
    P: clap::Parser,
    I: IntoIterator<Item = T>,
    T: Into<OsString>,
    E: Fn(&str) -> Option<OsString>,
{
    let environment = |name: &str| environment(name).filter(|value| !value.is_empty());
    let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
    let variables = Variables { prefix: environment_prefix, read: &environment };
    crate::kafka::set_property_variable(variables.name(PROPERTY));
    let mut command = prepare(with_config_argument(P::command()), &variables);

    // Only help and version end this pass early; the real parse repeats them with every argument in place.
    if let Ok(first) = command.clone().ignore_errors(true).try_get_matches_from(&arguments) {
        command = layered(command, &first, &variables)?;
    }
    let mut matches = command.try_get_matches_from_mut(&arguments)?;
    Ok(P::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))?)
}

/// The environment's side: how a variable is named, and what it holds.
struct Variables<'a> {
    prefix: &'a str,
    read: &'a dyn Fn(&str) -> Option<OsString>,
}

impl Variables<'_> {
    fn name(&self, long: &str) -> String {
        format!("{}_{}", self.prefix, long.replace('-', "_").to_uppercase())
    }
}

/// The long name under which the environment and the file may set an argument; `None` for those they may not.
pub(crate) fn setting_name(argument: &Arg) -> Option<&str> {
    argument.get_long().filter(|long| !["help", "version", CONFIG, LAYERED].contains(long))
}

fn with_config_argument(command: Command) -> Command {
    command.arg(
        Arg::new(CONFIG).long(CONFIG).value_name("FILE").value_parser(clap::value_parser!(PathBuf)).global(true).help(
            "TOML file of settings: long names as keys, a table per subcommand, [kafka] for librdkafka properties",
        ),
    )
}

/// Names the environment variables in the help of every argument, and lets switches be written 1 and 0.
fn prepare(command: Command, variables: &Variables<'_>) -> Command {
    command.mut_args(|argument| describe(argument, variables)).mut_subcommands(|inner| prepare(inner, variables))
}

fn describe(argument: Arg, variables: &Variables<'_>) -> Arg {
    let Some(long) = argument.get_long().filter(|&long| long == CONFIG || setting_name(&argument).is_some()) else {
        return argument;
    };
    // clap's own `env` would print the variable's value into the help, where a password has no business.
    let variable = variables.name(long);
    let short = argument.get_help().map(ToString::to_string).unwrap_or_default();
    let detailed = argument.get_long_help().map(ToString::to_string);
    let argument = argument.help(format!("{short} [env: {variable}]").trim_start().to_owned());
    let argument = match detailed {
        Some(text) => argument.long_help(format!("{text}\n\n[env: {variable}]")),
        None => argument,
    };
    if is_flag(&argument) { argument.value_parser(BoolishValueParser::new()) } else { argument }
}

fn is_flag(argument: &Arg) -> bool {
    matches!(argument.get_action(), ArgAction::SetTrue | ArgAction::SetFalse)
}

fn takes_many(argument: &Arg) -> bool {
    matches!(argument.get_action(), ArgAction::Append)
}

/// Turns what environment and file say into the defaults of the root command and of the chosen subcommands.
fn layered(command: Command, first: &ArgMatches, variables: &Variables<'_>) -> Result<Command, SettingsError> {
    let subcommand = first.subcommand();
    let config = config_of(first).or_else(|| subcommand.and_then(|(_, matches)| config_of(matches)));
    let config = config.or_else(|| (variables.read)(&variables.name(CONFIG)).map(PathBuf::from));
    let file = config.as_deref().map(|path: &Path| File::read(path)).transpose()?;
    if let Some(file) = &file {
        file.check_keys(&command)?;
    }
    let chosen = subcommand.map(|(name, _)| name.to_owned());
    let layers = Layers { variables, file: file.as_ref(), subcommand: chosen.as_deref() };
    layers.apply_to_chosen(command, first)
}

fn config_of(matches: &ArgMatches) -> Option<PathBuf> {
    matches.try_get_one::<PathBuf>(CONFIG).ok().flatten().cloned()
}

struct Layers<'a> {
    variables: &'a Variables<'a>,
    file: Option<&'a File>,
    subcommand: Option<&'a str>,
}

impl Layers<'_> {
    /// Applies to `command` and to each subcommand that was chosen below it. The file has one table, that of the first.
    fn apply_to_chosen(&self, command: Command, first: &ArgMatches) -> Result<Command, SettingsError> {
        let command = self.apply(command, first)?;
        let Some((name, matches)) = first.subcommand() else { return Ok(command) };
        let Some(inner) = command.find_subcommand(name).cloned() else { return Ok(command) };
        let inner = self.apply_to_chosen(inner, matches)?;
        Ok(command.mut_subcommand(name, |_| inner))
    }

    fn apply(&self, command: Command, first: &ArgMatches) -> Result<Command, SettingsError> {
        let has_kafka = command.get_arguments().any(|argument| argument.get_long() == Some(LAYERED));
        let mut defaults: HashMap<Id, Vec<OsString>> = HashMap::new();
        for argument in command.get_arguments() {
            let id = argument.get_id();
            if argument.get_long() == Some(LAYERED) {
                defaults.insert(id.clone(), self.kafka_properties()?);
                continue;
            }
            let Some(long) = setting_name(argument) else { continue };
            if has_kafka && long == PROPERTY {
                continue;
            }
            // The file is checked even where a flag or a variable wins, so that its mistakes do not lie in wait.
            let from_file = self.file_values(argument, long)?;
            let given = first.try_contains_id(id.as_str()).unwrap_or(false)
                && first.value_source(id.as_str()) == Some(ValueSource::CommandLine);
            let values = if given { None } else { self.environment_values(argument, long)?.or(from_file) };
            if let Some(values) = values {
                defaults.insert(id.clone(), values);
            }
        }
        Ok(command.mut_args(|argument| match defaults.remove(argument.get_id()) {
            Some(values) if !values.is_empty() => argument.required(false).default_values(values),
            _ => argument,
        }))
    }

    fn environment_values(&self, argument: &Arg, long: &str) -> Result<Option<Vec<OsString>>, SettingsError> {
        let variable = self.variables.name(long);
        let Some(value) = (self.variables.read)(&variable) else { return Ok(None) };
        let values = match value.to_str() {
            Some(text) if takes_many(argument) && argument.get_value_delimiter().is_none() => lines(text),
            _ => vec![value],
        };
        match refusal(argument, long, &values) {
            None => Ok(Some(values)),
            Some(reason) if is_flag(argument) => {
                Err(SettingsError::Environment { variable, reason: format!("{reason}; write true or false") })
            }
            Some(reason) => Err(SettingsError::Environment { variable, reason }),
        }
    }

    fn file_values(&self, argument: &Arg, long: &str) -> Result<Option<Vec<OsString>>, SettingsError> {
        let Some(file) = self.file else { return Ok(None) };
        let Some(found) = file.find(self.subcommand, long, is_flag(argument), takes_many(argument))? else {
            return Ok(None);
        };
        match refusal(argument, long, &found.values) {
            None => Ok(Some(found.values)),
            Some(reason) => Err(file.value_error(&found.key, reason)),
        }
    }

    /// Properties from the file's `[kafka]` table, then its `property` list, then the environment's lines: of two
    /// that set the same key the later one wins, and -X beats them all.
    fn kafka_properties(&self) -> Result<Vec<OsString>, SettingsError> {
        let mut properties = Vec::new();
        if let Some(file) = self.file {
            properties.extend(file.kafka_properties()?);
            if let Some(found) = file.find(self.subcommand, PROPERTY, false, true)? {
                if !found.values.iter().all(is_property) {
                    return Err(file.value_error(&found.key, "expected \"key=value\" in each; better use [kafka]"));
                }
                properties.extend(found.values);
            }
        }
        let variable = self.variables.name(PROPERTY);
        if let Some(value) = (self.variables.read)(&variable) {
            let lines = lines(&value.to_string_lossy());
            // The line itself may be a secret whose `=` was forgotten: only its number is told.
            if let Some(at) = lines.iter().position(|line| !is_property(line)) {
                let reason = format!("line {} is not key=value, as in security.protocol=SASL_SSL", at + 1);
                return Err(SettingsError::Environment { variable, reason });
            }
            properties.extend(lines);
        }
        Ok(properties)
    }
}

fn is_property(text: impl AsRef<OsStr>) -> bool {
    text.as_ref().to_str().is_some_and(|text| text.parse::<crate::Property>().is_ok())
}

fn lines(text: &str) -> Vec<OsString> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(OsString::from).collect()
}

/// Why the argument would not take these values, in clap's words; `None` when it takes them.
///
/// The values are tried on a copy of the argument alone, so that the error can name the layer they come from.
fn refusal(argument: &Arg, long: &str, values: &[OsString]) -> Option<String> {
    let parser = argument.get_value_parser().clone();
    let mut probe = Arg::new("probe").long(long.to_owned()).action(ArgAction::Append).value_parser(parser);
    if let Some(delimiter) = argument.get_value_delimiter() {
        probe = probe.value_delimiter(delimiter);
    }
    let words = values.iter().map(|value| {
        let mut word = OsString::from(format!("--{long}="));
        word.push(value);
        word
    });
    let command = Command::new("probe").no_binary_name(true).disable_help_flag(true).arg(probe);
    let error = command.try_get_matches_from(words).err()?;
    let rendered = error.render().to_string();
    let paragraph = rendered.split("\n\n").next().unwrap_or_default().replace('\n', " ");
    Some(paragraph.trim_start_matches("error: ").split_whitespace().collect::<Vec<_>>().join(" "))
}
