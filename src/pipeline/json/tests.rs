use super::*;
use proptest::prelude::*;

fn accepts(bytes: &[u8]) -> bool {
    let mut reader = Reader::new(bytes);
    reader.skip(0).and_then(|()| reader.end()).is_ok()
}

/// The value of `text`, which must be a number and nothing else.
fn float(text: &str) -> f32 {
    let mut reader = Reader::new(text.as_bytes());
    let value = reader.float().expect("a number");
    reader.end().expect("nothing else");
    value
}

fn serde_accepts(bytes: &[u8]) -> bool {
    // RawValue: serde_json checks syntax without converting numbers, as `skip` does.
    serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok() && std::str::from_utf8(bytes).is_ok()
}

#[test]
fn odd_documents_are_judged_as_serde_json_judges_them() {
    for text in [
        "",
        " ",
        "{}",
        "[]",
        "{",
        "[",
        "}",
        "[1,]",
        "{\"a\":1,}",
        "{,}",
        "[,]",
        "01",
        "-",
        "-0",
        "1.",
        ".5",
        "1e",
        "1e+",
        "1E-7",
        "1e999",
        "nul",
        "null",
        "true",
        "tru",
        "NaN",
        "Infinity",
        "\"\\u12\"",
        "\"\\x\"",
        "\"a",
        "{\"a\"}",
        "{\"a\":}",
        "{a:1}",
        "{'a':1}",
        "[1 2]",
        "1 2",
        "\"\t\"",
        "\u{feff}{}",
        "{\"a\":1}x",
        "[1,2,[3,{\"b\":[]}]]",
    ] {
        assert_eq!(accepts(text.as_bytes()), serde_accepts(text.as_bytes()), "{text:?}");
    }
    assert!(!accepts(b"\"\xff\""), "invalid UTF-8");
    assert!(!accepts(b"\"\xe2\x82\""), "truncated UTF-8");
    assert!(!accepts(br#""\ud800""#), "half a surrogate pair");
    assert!(accepts(br#""\ud83d\ude00""#), "a whole surrogate pair");
}

#[test]
fn nesting_is_limited() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(accepts(nested(MAX_DEPTH as usize).as_bytes()));
    assert!(!accepts(nested(MAX_DEPTH as usize + 1).as_bytes()));
    assert!(!accepts("[".repeat(5_000_000).as_bytes()), "no stack overflow");
}

#[test]
fn numbers_next_to_the_middle_between_two_floats_round_once() {
    for text in [
        "0.1",
        "-0.0",
        "0",
        "149.62",
        "16777217",
        "16777217.0000001",
        "16777216.9999999",
        "1.00000017881393432617187499",
        "1.17549435e-38",
        "0.000000000000000000000000000000000000011754943",
        "340282350000000000000000000000000000000",
        "9007199254740993",
        "0.30000001192092896",
        "7.038531e-26",
        "123456789012345678901234567890",
    ] {
        let expected: f32 = text.parse().expect("a number");
        assert_eq!(float(text).to_bits(), expected.to_bits(), "{text}");
    }
    assert!(float("1e999").is_infinite());
    assert!(float("1e39").is_infinite());
}

#[test]
fn eight_digits_are_read_as_one_by_one() {
    for text in ["00000000", "12345678", "99999999", "10000001", "09080706"] {
        assert_eq!(eight_digits(text.as_bytes()), text.parse().ok(), "{text}");
    }
    for position in 0..8 {
        for byte in (0..=255u8).filter(|byte| !byte.is_ascii_digit()) {
            let mut text = *b"12345678";
            text[position] = byte;
            assert_eq!(eight_digits(&text), None, "{byte} at {position}");
        }
    }
}

/// Decimals built around the middle between two neighbouring floats: where a second rounding would show.
#[test]
fn decimals_around_every_kind_of_middle_round_once() {
    for bits in (0x0080_0000..0x7f00_0000u32).step_by(7_654_321) {
        let (low, high) = (f32::from_bits(bits), f32::from_bits(bits + 1));
        let middle = (f64::from(low) + f64::from(high)) / 2.0;
        for precision in [0, 5, 9, 12, 15, 17, 18] {
            for offset in [-2i64, -1, 0, 1, 2] {
                let near = f64::from_bits((middle.to_bits() as i64 + offset) as u64);
                let text = format!("{near:.precision$}");
                let expected: f32 = text.parse().expect("a number");
                assert_eq!(float(&text).to_bits(), expected.to_bits(), "{text}");
            }
        }
    }
}

proptest! {
    #[test]
    fn float_accepts_what_number_accepts(text in r"[\-+]?[0-9]{0,3}(\.[0-9]{0,3})?([eE][+\-]?[0-9]{0,2})?") {
        let (mut one, mut other) = (Reader::new(text.as_bytes()), Reader::new(text.as_bytes()));
        let (value, text_of) = (one.float(), other.number().map(<[u8]>::len));
        prop_assert_eq!(value.is_ok(), text_of.is_ok(), "{}", text);
        if value.is_ok() {
            prop_assert_eq!(one.position(), other.position(), "{}", text);
        }
    }

    #[test]
    fn any_bytes_are_judged_as_serde_json_judges_them(text in r#"[\{\}\[\],:"a1\.\-eE\+ \\untrfls0]{0,24}"#) {
        prop_assume!(!text.contains("\\u")); // serde_json's IgnoredAny does not check surrogate pairs
        prop_assert_eq!(accepts(text.as_bytes()), serde_accepts(text.as_bytes()));
    }

    #[test]
    fn any_json_value_is_accepted(value in arbitrary_json()) {
        let text = serde_json::to_vec(&value).expect("serialises");
        prop_assert!(accepts(&text));
        let pretty = serde_json::to_vec_pretty(&value).expect("serialises");
        prop_assert!(accepts(&pretty));
        for cut in 0..text.len() {
            prop_assert_eq!(accepts(&text[..cut]), serde_accepts(&text[..cut]));
        }
    }

    #[test]
    fn any_decimal_rounds_to_the_nearest_f32(mantissa in any::<i64>(), point in 0usize..20, exponent in -60i32..45) {
        let digits = mantissa.unsigned_abs().to_string();
        let digits = format!("{digits:0>width$}", width = point + 1);
        let (whole, fraction) = digits.split_at(digits.len() - point);
        let sign = if mantissa < 0 { "-" } else { "" };
        let plain = if point == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") };
        let scientific = format!("{plain}e{exponent}");
        for text in [plain, scientific] {
            let expected: f32 = text.parse().expect("a number");
            prop_assert_eq!(float(&text).to_bits(), expected.to_bits(), "{}", text);
        }
    }

    #[test]
    fn any_float_reads_back(bits in any::<u32>()) {
        let value = f32::from_bits(bits);
        prop_assume!(value.is_finite());
        prop_assert_eq!(float(&format!("{value}")).to_bits(), bits);
        let mut buffer = ryu::Buffer::new();
        prop_assert_eq!(float(buffer.format(value)).to_bits(), bits);
    }
}

fn arbitrary_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        ".*".prop_map(|text: String| serde_json::Value::from(text)),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::vec((".*", inner), 0..6)
                .prop_map(|pairs| serde_json::Value::Object(pairs.into_iter().collect())),
        ]
    })
}
