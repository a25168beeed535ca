//! Durations as people write them on a command line.

use std::time::Duration;

/// Parses a number with a unit: `250us`, `500ms`, `10s`, `1.5m`, `2h`, `7d`. For clap's `value_parser`.
///
/// # Errors
/// A sentence with examples when the text is no such duration, when the unit is missing or when it is negative.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let digits = text.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit.trim() {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(EXPECTED.to_owned()),
    };
    let number: f64 = number.parse().map_err(|_| EXPECTED.to_owned())?;
    Duration::try_from_secs_f64(number * seconds).map_err(|_| EXPECTED.to_owned())
}

const EXPECTED: &str = "expected a number with a unit, as in 500ms, 10s, 2m, 1h or 7d";

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_understood() {
        let cases = [
            ("250us", 250),
            ("500ms", 500_000),
            ("10s", 10_000_000),
            ("1.5m", 90_000_000),
            ("2 h", 7_200_000_000),
            ("7d", 604_800_000_000),
        ];
        for (text, microseconds) in cases {
            assert_eq!(parse_duration(text).unwrap(), Duration::from_micros(microseconds), "{text}");
        }
        assert_eq!(parse_duration("0s").unwrap(), Duration::ZERO);
    }

    #[test]
    fn everything_else_is_refused_with_an_example() {
        for text in ["", "10", "s", "-1s", "1.2.3s", "1 day", "1e3s", "NaNs", "99999999999999999999h", "10S"] {
            assert!(parse_duration(text).unwrap_err().contains("500ms"), "{text}");
        }
    }
}
