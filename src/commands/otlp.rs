//! `--otlp-…`, and OpenTelemetry's own environment variables: whether spans are exported, and where to.
//!
//! A flag decides over OpenTelemetry's variables, of these the one for traces over the one for everything. Headers may hold
//! a token: they come from the environment only.

use crate::http_client;
use crate::telemetry::spans::export::ExportSettings;
use anyhow::{anyhow, bail};

/// Where a collector listens that runs beside the worker, if OpenTelemetry's variables ask for one and name none.
const BESIDE: &str = "http://localhost:4318";

/// Where a collector's base address takes traces.
const TRACES_PATH: [&str; 2] = ["v1", "traces"];

/// Arguments about spans.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct OtlpArguments {
    /// Collector of traces (OTLP over HTTP, its base address) that gets spans of the records and requests whose senders
    /// sample them; OTEL_EXPORTER_OTLP_ENDPOINT does the same [default: none, trace contexts are only passed on]
    #[arg(long, value_name = "URL")]
    pub otlp_endpoint: Option<String>,

    /// Sampled records that get spans per second and scoring thread, at most; the trace contexts of the others are passed on
    #[arg(long, value_name = "RECORDS", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub otlp_spans_per_second: u32,
}

impl OtlpArguments {
    /// Where spans go; `None` where they go nowhere. `variable` looks an environment variable up.
    ///
    /// # Errors
    /// What is asked for and cannot be done, by the name of the setting.
    pub fn settings(&self, variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<Option<ExportSettings>> {
        // An empty variable is an unset one.
        let variable =
            |name: &str| variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let (setting, address, is_base) = match &self.otlp_endpoint {
            Some(base) => ("--otlp-endpoint", base.clone(), true),
            None => {
                if variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
                    return Ok(None);
                }
                let wanted = match variable("OTEL_TRACES_EXPORTER").as_deref() {
                    Some("none") => return Ok(None),
                    Some("otlp") => true,
                    Some(other) => bail!("OTEL_TRACES_EXPORTER is {other:?}: otlp or none"),
                    None => false,
                };
                let (traces, all) = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT");
                if let Some(endpoint) = variable(traces) {
                    (traces, endpoint, false)
                } else if let Some(base) = variable(all) {
                    (all, base, true)
                } else if wanted {
                    ("OTEL_TRACES_EXPORTER", BESIDE.to_owned(), true)
                } else {
                    return Ok(None);
                }
            }
        };
        let mut endpoint = http_client::address(&address)
            .map_err(|reason| anyhow!("{setting}: {reason}"))?
            // Not repeated: who made this mistake may have made the next one too.
            .ok_or_else(|| anyhow!("{setting} is no address: expected http://HOST:4318 or https://…"))?;
        if is_base && let Ok(mut path) = endpoint.path_segments_mut() {
            path.pop_if_empty().extend(TRACES_PATH);
        }
        if !endpoint.username().is_empty() || endpoint.password().is_some() {
            bail!(
                "{setting} holds a user or password: others can read it; give a header in OTEL_EXPORTER_OTLP_HEADERS"
            );
        }
        for name in ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"] {
            match variable(name).as_deref() {
                None => continue,
                Some("http/protobuf") => break,
                Some(other) => bail!(
                    "{name} is {other:?}, but the worker speaks http/protobuf: set \
                     OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/protobuf, and an endpoint that takes it (port 4318 by custom)"
                ),
            }
        }
        Ok(Some(ExportSettings { endpoint, records_per_second: self.otlp_spans_per_second }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(flag: Option<&str>, variables: &[(&str, &str)]) -> Result<Option<String>, String> {
        let arguments = OtlpArguments { otlp_endpoint: flag.map(str::to_owned), otlp_spans_per_second: 7 };
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let settings = arguments.settings(variable).map_err(|error| error.to_string())?;
        assert!(settings.iter().all(|settings| settings.records_per_second == 7));
        Ok(settings.map(|settings| settings.endpoint.to_string()))
    }

    #[test]
    fn nothing_is_exported_unless_asked_for() {
        assert_eq!(endpoint(None, &[]), Ok(None));
        assert_eq!(endpoint(None, &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]), Ok(None));
        assert_eq!(endpoint(None, &[("OTEL_SERVICE_NAME", "scorer")]), Ok(None));
        for off in [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")] {
            assert_eq!(endpoint(None, &[off, ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")]), Ok(None));
        }
    }

    #[test]
    fn the_more_particular_address_decides() {
        let (all, traces) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
        for (flag, variables, expected) in [
            (
                Some("http://flag:1"),
                vec![(all, "http://all"), ("OTEL_SDK_DISABLED", "true")],
                "http://flag:1/v1/traces",
            ),
            (Some("https://flag/otlp/"), vec![], "https://flag/otlp/v1/traces"),
            (None, vec![(all, "http://all:4318/")], "http://all:4318/v1/traces"),
            (None, vec![(all, "http://all:4318"), (traces, "http://traces:9/as/is")], "http://traces:9/as/is"),
            (None, vec![("OTEL_TRACES_EXPORTER", "otlp")], "http://localhost:4318/v1/traces"),
        ] {
            assert_eq!(endpoint(flag, &variables), Ok(Some(expected.to_owned())), "{flag:?} {variables:?}");
        }
    }

    #[test]
    fn what_cannot_be_done_is_said_by_name() {
        let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
        for (flag, variables, names) in [
            (Some("collector:4318"), vec![], "--otlp-endpoint"),
            (Some("ftp://collector"), vec![], "--otlp-endpoint"),
            (Some("http://"), vec![], "--otlp-endpoint"),
            (Some("https://user:hush@collector"), vec![], "OTEL_EXPORTER_OTLP_HEADERS"),
            (Some("http://collector"), vec![grpc], "OTEL_EXPORTER_OTLP_PROTOCOL is \"grpc\""),
            (None, vec![("OTEL_TRACES_EXPORTER", "zipkin")], "OTEL_TRACES_EXPORTER"),
        ] {
            let error = endpoint(flag, &variables).expect_err("refused");
            assert!(error.contains(names) && !error.contains("hush"), "{error}");
        }
        let traces = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf");
        assert!(endpoint(Some("http://collector"), &[grpc, traces]).is_ok(), "the one for traces decides");
        assert_eq!(endpoint(None, &[grpc]), Ok(None), "nothing is exported");
    }
}
