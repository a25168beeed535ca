//! Where the settings of both binaries come from.
//!
//! ```text
//! defaults ◄─ TOML file (--config) ◄─ environment (PREFIX_LONG_NAME) ◄─ flags     the right one wins
//!                 └─ [kafka] table  ◄─ PREFIX_PROPERTY lines ◄─ -X key=value      merged property by property
//! ```
//!
//! The command line is declared once, with clap. [`parse`] walks the declared arguments, so that a new flag has its
//! environment variable and its file key without another line of code:
//!
//! 1. a first, lenient pass over argv finds the subcommand and `--config` ([`parse`] adds that flag itself);
//! 2. the file is read and every key checked against the arguments that exist ([`SettingsError`] names the key);
//! 3. the environment's and the file's values become the arguments' defaults, so that a flag beats both;
//! 4. clap parses for good.
//!
//! Module map: `layers` is the above, `file` reads the TOML file, [`KafkaArguments`] are the broker flags with
//! librdkafka's properties, [`parse_duration`] reads `500ms`, [`initialise_logging`] sets the log up, [`exit_code`] lists what both binaries exit with.

mod duration;
mod error;
mod file;
mod kafka;
mod layers;
mod logging;

pub use duration::parse_duration;
pub use error::SettingsError;
pub use kafka::{KafkaArguments, Property, check_properties, is_loopback};
pub use layers::{parse, try_parse_from};
pub use logging::{LogFormat, initialise_logging};

/// What both binaries exit with; decided here and nowhere else.
pub mod exit_code {
    /// Everything asked for was done.
    pub const DONE: u8 = 0;
    /// The work itself failed.
    pub const FAILED: u8 = 1;
    /// Bad flags or environment variables. clap exits with this as well.
    pub const USAGE: u8 = 2;
    /// A bad configuration: the file of `--config`, or librdkafka properties (`EX_USAGE` of sysexits.h).
    pub const CONFIGURATION: u8 = 64;
}
