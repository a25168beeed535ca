use super::*;
use proptest::prelude::*;

fn accepts(bytes: &[u8]) -> bool {
    let mut reader = Reader::new(bytes);
    reader.skip(0).and_then(|()| reader.end()).is_ok()
}

/// The value of `text`, which must be a number and nothing else: alone, with other text behind it, and by the reader of
/// what is usual if that takes it.
fn float(text: &str) -> f32 {
    let mut reader = Reader::new(text.as_bytes());
    let value = reader.float().expect("a number");
    reader.end().expect("nothing else");

    let followed = format!("{text}, {:AHEAD$}", 17);
    let mut reader = Reader::new(followed.as_bytes());
    assert_eq!(reader.float().expect("a number").to_bits(), value.to_bits(), "{text}");
    assert_eq!(reader.position(), text.len(), "{text}");

    let mut reader = Reader::new(followed.as_bytes());
    match reader.plain_float(&Literal::new(b", ")) {
        Some(plain) => {
            assert_eq!(plain.to_bits(), value.to_bits(), "{text}");
            assert_eq!(reader.position(), text.len() + 2, "{text}");
        }
        None => assert_eq!(reader.position(), 0, "{text}"),
    }
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
fn every_count_of_digits_before_and_behind_the_point_is_read() {
    let digits = "31415926535897932384626433832795";
    for sign in ["", "-"] {
        for whole in 0..=22 {
            for fraction in 0..=22 {
                for zeros in [0, 1, whole] {
                    let mut whole = digits[..whole].to_owned();
                    whole.replace_range(..zeros.min(whole.len()), &"0".repeat(zeros.min(whole.len())));
                    let point = if fraction == 0 { "" } else { "." };
                    let text = format!("{sign}{whole}{point}{}", &digits[10..10 + fraction]);
                    let grammatical = !whole.is_empty() && (whole == "0" || !whole.starts_with('0'));
                    if grammatical {
                        let expected: f32 = text.parse().expect("a number");
                        assert_eq!(float(&text).to_bits(), expected.to_bits(), "{text}");
                    } else {
                        let mut reader = Reader::new(text.as_bytes());
                        assert!(reader.float().is_err() || reader.end().is_err(), "{text}");
                    }
                }
            }
        }
    }
}

#[test]
fn usual_numbers_are_read_in_passing() {
    let after = Literal::new(b", ");
    for text in [
        "0.5",
        "-1.234567",
        "0.000001",
        "-1.3598071336738172",
        "0.07278117330985123",
        "149.62",
        "-12345678.1234567",
        "0",
        "-7",
        "1700000000000",
    ] {
        let followed = format!("{text}, {:AHEAD$}", 17);
        let read = Reader::new(followed.as_bytes()).plain_float(&after);
        assert_eq!(read, text.parse().ok(), "{text}");
    }
    for text in ["1e5", "1.5E3", "01.5", "-", ".5", "1.", "-.5", "+1.5", "1.5.5", "null", "\"1\"", "1.5 "] {
        let followed = format!("{text}, {:AHEAD$}", 17);
        assert_eq!(Reader::new(followed.as_bytes()).plain_float(&after), None, "{text}");
    }
}

#[test]
fn literals_of_any_length_are_compared_whole() {
    let text: String = ('a'..='z').chain('A'..='Z').collect();
    for length in 0..text.len() {
        let literal = Literal::new(&text.as_bytes()[..length]);
        for end in 0..text.len() {
            let mut reader = Reader::new(&text.as_bytes()[..end]);
            assert_eq!(reader.eat_literal(&literal), end >= length, "{length} of {end}");
            assert_eq!(reader.position(), if end >= length { length } else { 0 });
        }
        for place in 0..length {
            let mut other = text.clone().into_bytes();
            other[place] ^= 1;
            assert!(!Reader::new(&other).eat_literal(&literal), "{length}, differs at {place}");
            let number = [b"1.5".as_slice(), &other, &[0; AHEAD]].concat();
            assert_eq!(Reader::new(&number).plain_float(&literal), None, "{length}, differs at {place}");
        }
        let number = [b"1.5".as_slice(), text.as_bytes(), &[0; AHEAD]].concat();
        // "1.5e…" is no concern of this test: the text begins with 'a'.
        let mut reader = Reader::new(&number);
        assert_eq!((reader.plain_float(&literal), reader.position()), (Some(1.5), 3 + length));
    }
}

#[test]
fn plain_strings_and_integers_are_what_the_full_readers_read() {
    for length in 0..70 {
        for odd in ["", "\\n", "é", "\u{1}", "\u{7f}", "'"] {
            let text = format!("\"{}{odd}{}\" ", "a".repeat(length / 2), "b".repeat(length - length / 2));
            let (mut plain, mut full) = (Reader::new(text.as_bytes()), Reader::new(text.as_bytes()));
            match plain.plain_string() {
                Some(range) => {
                    assert_eq!(&text[range], full.string().expect("a string").raw);
                    assert_eq!(plain.position(), full.position());
                }
                None => {
                    assert!(!matches!(odd, "" | "'" | "\u{7f}"), "{text:?}");
                    assert_eq!(plain.position(), 0);
                }
            }
            assert_eq!(full.at(0).string().is_ok(), odd != "\u{1}", "{text:?}");
        }
        assert_eq!(Reader::new(&[b"\"".as_slice(), &vec![b'a'; length]].concat()).plain_string(), None, "no end");
    }
    for (text, value) in [
        ("0", Some(0)),
        ("1700000000000", Some(1_700_000_000_000)),
        ("999999999999999", Some(999_999_999_999_999)),
        ("1234567890123456", None),
        ("01", None),
        ("-1", None),
        ("1.0", None),
        ("1e3", None),
        ("\"1\"", None),
        ("", None),
    ] {
        for behind in ["", ",", "}                                        "] {
            let text = format!("{text}{behind}");
            assert_eq!(Reader::new(text.as_bytes()).plain_integer(), value, "{text}");
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
    fn what_is_read_in_passing_is_a_number_and_its_value(text in r"[\-]{0,2}[0-9\.eE,]{0,24}") {
        let followed = format!("{text}, {:AHEAD$}", 17);
        let mut reader = Reader::new(followed.as_bytes());
        if let Some(value) = reader.plain_float(&Literal::new(b",")) {
            let mut grammar = Reader::new(followed.as_bytes());
            let number = std::str::from_utf8(grammar.number().expect("a number")).expect("ASCII");
            prop_assert_eq!(reader.position(), grammar.position() + 1);
            prop_assert_eq!(value.to_bits(), number.parse::<f32>().expect("a number").to_bits(), "{}", number);
        }
    }

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
