//! The flags that reach the broker, and librdkafka's properties with their secrets kept out of sight.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::{Once, OnceLock};

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;

use crate::SettingsError;

/// Long name of `-X`.
pub(crate) const PROPERTY: &str = "property";
/// Long name of the hidden list that receives the properties of the file and of the environment.
pub(crate) const LAYERED: &str = "layered-property";

/// The environment variable that takes properties, for the warning about secrets on the command line.
static PROPERTY_VARIABLE: OnceLock<String> = OnceLock::new();
static SECRETS_WARNING: Once = Once::new();
static WEAKNESS_WARNING: Once = Once::new();

pub(crate) fn set_property_variable(name: String) {
    // The first parse of the process names it; a second one (tests) changes nothing.
    let _ = PROPERTY_VARIABLE.set(name);
}

/// How to reach Kafka; flatten it into the command that needs a client.
#[derive(Clone, Debug, clap::Args)]
pub struct KafkaArguments {
    /// Kafka's bootstrap brokers, several separated by commas
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092", value_parser = parse_brokers)]
    brokers: String,

    /// Any librdkafka property; may be repeated (secrets belong in the environment, a line each, or in the file's [kafka])
    #[arg(short = 'X', long = PROPERTY, value_name = "KEY=VALUE")]
    properties: Vec<Property>,

    /// Properties of the configuration file and of the environment, lowest precedence first
    #[arg(long = LAYERED, hide = true)]
    layered_properties: Vec<Property>,
}

impl KafkaArguments {
    /// Arguments for brokers known to the program itself, such as an embedded one.
    pub fn new(brokers: impl Into<String>) -> KafkaArguments {
        KafkaArguments { brokers: brokers.into(), properties: Vec::new(), layered_properties: Vec::new() }
    }

    /// A librdkafka configuration: `bootstrap.servers`, then the properties of file and environment, then `-X`.
    /// Set a program's own defaults for what it does not contain (`ClientConfig::get`), so that the user's wish
    /// holds. Warns once per process about secrets given on the command line, where every user of the machine can
    /// read them, and about properties that take away what TLS is for.
    pub fn client_config(&self) -> ClientConfig {
        let secrets = self.secrets_on_command_line();
        if !secrets.is_empty() {
            let variable = PROPERTY_VARIABLE.get().map_or("…_PROPERTY", String::as_str);
            SECRETS_WARNING.call_once(|| {
                tracing::warn!(
                    "the value of {} is on the command line, where any process can read it: put it into the \
                     environment variable {variable} (one key=value per line) or into the [kafka] table of the \
                     --config file",
                    secrets.join(", ")
                );
            });
        }
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        for property in self.layered_properties.iter().chain(&self.properties) {
            config.set(&property.key, &property.value);
        }
        WEAKNESS_WARNING.call_once(|| weaknesses(&config).iter().for_each(|weakness| tracing::warn!("{weakness}")));
        config
    }

    /// The brokers that [`KafkaArguments::client_config`] will use.
    pub fn brokers(&self) -> &str {
        let mut all = self.properties.iter().rev().chain(self.layered_properties.iter().rev());
        all.find(|property| is_brokers(&property.key)).map_or(&self.brokers, |property| &property.value)
    }

    /// Connects elsewhere, whatever the settings said: to an embedded broker whose port nobody could know before.
    pub fn set_brokers(&mut self, brokers: impl Into<String>) {
        self.brokers = brokers.into();
        self.properties.retain(|property| !is_brokers(&property.key));
        self.layered_properties.retain(|property| !is_brokers(&property.key));
    }

    /// As [`check_properties`], of what [`KafkaArguments::client_config`] gives.
    ///
    /// # Errors
    /// As there.
    pub fn check(&self) -> Result<(), SettingsError> {
        check_properties(&self.client_config())
    }

    /// Keys of the secrets that came by `-X` rather than by environment or file.
    fn secrets_on_command_line(&self) -> Vec<&str> {
        let secrets = self.properties.iter().filter(|property| is_secret(&property.key));
        secrets.map(|property| property.key.as_str()).collect()
    }
}

/// Properties by which librdkafka loads code into the process or runs a command, in some case already when they are set. Who may
/// write a configuration file or an environment need not be who may run code.
const RUN_CODE: [&str; 4] = ["plugin.library.paths", "ssl.engine.location", "ssl.providers", "sasl.kerberos.kinit.cmd"];

/// What in `config` lets others pass for a broker, or read what the clients log in with.
fn weaknesses(config: &ClientConfig) -> Vec<String> {
    let value = |key: &str| config.get(key).map(|value| value.trim().to_ascii_lowercase()).unwrap_or_default();
    let protocol = value("security.protocol");
    let mut found = Vec::new();
    if protocol.ends_with("ssl") && matches!(value("enable.ssl.certificate.verification").as_str(), "false" | "f" | "0")
    {
        found.push(
            "enable.ssl.certificate.verification=false: any host can pass for a broker; leave it out, and name the \
             brokers' authority with ssl.ca.location"
                .to_owned(),
        );
    }
    if protocol.ends_with("ssl") && value("ssl.endpoint.identification.algorithm") == "none" {
        found.push(
            "ssl.endpoint.identification.algorithm=none: any host with a certificate of the same authority can pass for a \
             broker; leave it out"
                .to_owned(),
        );
    }
    let mechanism = config.get("sasl.mechanism").or(config.get("sasl.mechanisms")).unwrap_or_default().trim();
    let is_readable = ["PLAIN", "OAUTHBEARER"].iter().any(|readable| mechanism.eq_ignore_ascii_case(readable));
    if protocol == "sasl_plaintext" && is_readable && !are_loopback(config.get("bootstrap.servers").unwrap_or_default())
    {
        found.push(format!(
            "security.protocol=sasl_plaintext with {mechanism}: what the clients log in with can be read on the way to the \
             brokers; use sasl_ssl"
        ));
    }
    found
}

/// Whether all of `brokers` are on this machine.
fn are_loopback(brokers: &str) -> bool {
    brokers.split(',').all(|broker| {
        let host = broker.trim().rsplit_once("://").map_or(broker.trim(), |(_, address)| address);
        let host = host.rsplit_once(':').map_or(host, |(host, _)| host).trim_matches(['[', ']']);
        is_loopback(host)
    })
}

/// Whether a host's name or address is this machine's own.
pub fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Asks librdkafka about every property of `config`.
///
/// # Errors
/// [`SettingsError::Property`] for the first unknown property or refused value, and before that for one that would run code.
pub fn check_properties(config: &ClientConfig) -> Result<(), SettingsError> {
    if let Some(key) = RUN_CODE.into_iter().find(|key| config.get(key).is_some()) {
        let reason = "it loads code into this process or runs a command, which is refused; leave it out".to_owned();
        return Err(SettingsError::Property { key: key.to_owned(), reason });
    }
    match config.create_native_config() {
        Ok(_) => Ok(()),
        Err(KafkaError::ClientConfig(_, _, key, _)) if is_secret(&key) => {
            Err(SettingsError::Property { key, reason: "librdkafka refuses its value".to_owned() })
        }
        Err(KafkaError::ClientConfig(_, reason, key, _)) => Err(SettingsError::Property { key, reason }),
        Err(other) => Err(SettingsError::Property { key: "?".to_owned(), reason: other.to_string() }),
    }
}

fn is_brokers(key: &str) -> bool {
    key == "bootstrap.servers" || key == "metadata.broker.list"
}

fn parse_brokers(text: &str) -> Result<String, String> {
    let brokers: Vec<_> = text.split(',').map(str::trim).collect();
    if brokers.iter().any(|broker| broker.is_empty()) {
        return Err("expected HOST:PORT, several separated by commas, as in kafka-1:9092,kafka-2:9092".to_owned());
    }
    Ok(brokers.join(","))
}

/// One librdkafka property, `key=value`. Printing it never shows the value of a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Property {
    /// librdkafka's name for it.
    pub key: String,
    /// Its value as given; may itself contain `=`.
    pub value: String,
}

impl FromStr for Property {
    type Err = String;

    fn from_str(text: &str) -> Result<Property, String> {
        match text.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => {
                Ok(Property { key: key.trim().to_owned(), value: value.to_owned() })
            }
            _ => Err("expected key=value, as in -X security.protocol=SASL_SSL".to_owned()),
        }
    }
}

impl fmt::Display for Property {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = if is_secret(&self.key) { "[hidden]" } else { &self.value };
        write!(formatter, "{}={value}", self.key)
    }
}

impl fmt::Debug for Property {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// Whether a property's value must never be printed. Wide on purpose: hiding a harmless value costs nothing.
fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let words = ["password", "passphrase", "secret", "sasl.oauthbearer.config", "sasl.jaas.config"];
    words.iter().any(|word| key.contains(word))
        || key.ends_with(".pem")
        || (key.starts_with("ssl.key.") && key != "ssl.key.location")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_never_printed() {
        let secrets = [
            "sasl.password",
            "ssl.key.password",
            "ssl.keystore.password",
            "ssl.key.pem",
            "ssl.certificate.pem",
            "sasl.oauthbearer.client.secret",
            "sasl.oauthbearer.assertion.private.key.passphrase",
            "SASL.PASSWORD",
        ];
        for key in secrets {
            let property: Property = format!("{key}=hunter2").parse().unwrap();
            assert_eq!(property.value, "hunter2");
            for shown in [format!("{property}"), format!("{property:?}"), format!("{property:#?}")] {
                assert!(!shown.contains("hunter2"), "{shown}");
                assert!(shown.contains(key), "{shown}");
            }
        }
        assert_eq!("linger.ms=5".parse::<Property>().unwrap().to_string(), "linger.ms=5");
        let mut arguments = KafkaArguments::new("b:1");
        arguments.layered_properties.push("sasl.password=hunter2".parse().unwrap());
        assert!(!format!("{arguments:?}").contains("hunter2"));
    }

    #[test]
    fn only_secrets_of_the_command_line_are_warned_about() {
        let mut arguments = KafkaArguments::new("b:1");
        arguments.layered_properties.push("sasl.password=a".parse().unwrap());
        arguments.properties.push("sasl.username=b".parse().unwrap());
        assert!(arguments.secrets_on_command_line().is_empty());
        arguments.properties.push("ssl.key.password=c".parse().unwrap());
        assert_eq!(arguments.secrets_on_command_line(), ["ssl.key.password"]);
    }

    #[test]
    fn properties_that_run_code_are_refused_before_librdkafka_sees_them() {
        for key in RUN_CODE {
            let mut config = ClientConfig::new();
            config.set(key, "/no/such/thing");
            let error = check_properties(&config).unwrap_err();
            assert_eq!(error.exit_code(), 64);
            assert!(error.to_string().contains(key) && error.to_string().contains("refused"), "{error}");
        }
    }

    #[test]
    fn what_weakens_tls_or_shows_secrets_is_named() {
        let named = |properties: &str| {
            let mut config = ClientConfig::new();
            config.set("bootstrap.servers", "kafka-1:9093");
            for property in properties.split_whitespace() {
                let (key, value) = property.split_once('=').unwrap();
                config.set(key, value);
            }
            weaknesses(&config).join("; ")
        };
        for (properties, says) in [
            ("security.protocol=SSL enable.ssl.certificate.verification=false", "enable.ssl.certificate.verification"),
            ("security.protocol=sasl_ssl enable.ssl.certificate.verification=0", "enable.ssl.certificate.verification"),
            ("security.protocol=ssl ssl.endpoint.identification.algorithm=None", "ssl.endpoint.identification"),
            ("security.protocol=sasl_plaintext sasl.mechanism=PLAIN", "with PLAIN"),
            ("security.protocol=SASL_PLAINTEXT sasl.mechanisms=OAUTHBEARER", "with OAUTHBEARER"),
        ] {
            assert!(named(properties).contains(says), "{properties}: {}", named(properties));
        }
        for properties in [
            "",
            "security.protocol=ssl enable.ssl.certificate.verification=true ssl.endpoint.identification.algorithm=https",
            "security.protocol=sasl_plaintext sasl.mechanism=SCRAM-SHA-512",
            "security.protocol=sasl_plaintext sasl.mechanism=PLAIN bootstrap.servers=127.0.0.1:9092,[::1]:9092",
        ] {
            assert_eq!(named(properties), "", "{properties}");
        }
    }

    #[test]
    fn the_refusal_of_a_secret_does_not_repeat_it() {
        let mut config = ClientConfig::new();
        config.set("sasl.jaas.config", "hunter2");
        let message = check_properties(&config).unwrap_err().to_string();
        assert!(message.contains("sasl.jaas.config") && !message.contains("hunter2"), "{message}");
    }

    #[test]
    fn unknown_properties_are_named() {
        let mut arguments = KafkaArguments::new("b:1");
        arguments.check().unwrap();
        arguments.properties.push("linger.msec=5".parse().unwrap());
        let error = arguments.check().unwrap_err();
        assert!(error.to_string().contains("linger.msec"), "{error}");
        assert_eq!(error.exit_code(), 64);
    }

    #[test]
    fn set_brokers_wins_over_properties() {
        let mut arguments = KafkaArguments::new("a:1");
        arguments.properties.push("bootstrap.servers=b:2".parse().unwrap());
        assert_eq!(arguments.brokers(), "b:2");
        arguments.set_brokers("c:3");
        assert_eq!(arguments.brokers(), "c:3");
        assert_eq!(arguments.client_config().get("bootstrap.servers"), Some("c:3"));
    }
}
