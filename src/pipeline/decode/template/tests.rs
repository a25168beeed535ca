//! The template path against the parser: whatever was learned, a message is accepted, rejected and valued as by a decoder
//! that has learned nothing.

use proptest::prelude::*;

use crate::pipeline::decode::{Decoder, Feature, Rows};
use crate::pipeline::json::AHEAD;

fn decoder() -> Decoder {
    let feature = |name: &str, default| Feature { name: name.into(), default };
    Decoder::new(
        &[feature("V1", None), feature("V2", None), feature("Amount", Some(0.5)), feature("mean-of-30-days", None)],
        4096,
    )
}

/// What a decoder makes of a message, in a form that can be compared: floats as bits.
fn outcome(decoder: &mut Decoder, message: &[u8]) -> Result<(Vec<u32>, String), String> {
    let mut rows = Rows::default();
    match decoder.decode(Some(message), 3, &mut rows) {
        Ok(count) => {
            assert_eq!(count, rows.len());
            Ok((rows.features.iter().map(|value| value.to_bits()).collect(), format!("{:?}", rows.meta)))
        }
        Err(rejection) => {
            assert!(rows.is_empty() && rows.features.is_empty(), "a rejected message leaves nothing");
            Err(format!("{rejection:?}"))
        }
    }
}

/// Whether the message would take the template path.
fn in_passing(decoder: &Decoder, message: &[u8]) -> bool {
    decoder.memory.clone().read(message, 0, &decoder.defaults, usize::MAX, &mut Rows::default())
}

/// Decodes `message` with what was learned and without; both must agree.
fn agree(learned: &mut Decoder, message: &[u8]) {
    let with = outcome(learned, message);
    assert_eq!(with, outcome(&mut decoder(), message), "{}", String::from_utf8_lossy(message));
    if with.is_ok() {
        serde_json::from_slice::<serde::de::IgnoredAny>(message).expect("what is accepted is JSON");
    }
}

/// Messages of every kind that can be learned.
const TEACHERS: &[&str] = &[
    r#"{"transaction_id": "3f2504e0-4f89-11d3-9a0c-0305e82c3301", "event_time": 1700000000000, "V1": -1.359807, "V2": 0.072781, "Amount": 149.62, "mean-of-30-days": 12.5}"#,
    r#"{"V1":-1.3598071336738172,"V2":7,"mean-of-30-days":1e-05,"Amount":null,"x":[1,{"y":"z"}],"event_time":"2023-11-14T22:13:20Z"}"#,
    r#"{"columns": ["V1", "V2", "Amount", "mean-of-30-days"], "data": [[-1.359807, 0.072781, 149.62, 12.5]]}"#,
    r#"{"columns":["transaction_id","V2","V1","note","mean-of-30-days","event_time"],"data":[["a",1.5,-2.5,"n",0,5],["b",0.25,2e3,null,1,6]]}"#,
    "{\n  \"dataframe_split\": {\n    \"columns\": [\"V1\", \"V2\", \"mean-of-30-days\"],\n    \"data\": [\n      [1.5, 2.5, 0.5],\n      [3.5, 4.5, 1.5]\n    ]\n  }\n}\n",
    r#"{"transaction_id":"a","index":[17],"columns":["V1","V2","mean-of-30-days","event_time"],"V1":1,"data":[[1,2,3,null],[4,5,6,7]],"event_time":9,"sent":true}"#,
    r#"{"data": [[0.1, 0.2, 0.3 ], [1.1, 1.2, 1.3 ]], "index": [0, 1], "columns": ["mean-of-30-days", "V1", "V2"]}"#,
    r#" { "mean-of-30-days" : 0.5 , "V2" : 1.5 , "V1" : 2.5 , "merchant" : "caf\u00e9 \"x\"" , "transaction_id" : 42 } "#,
];

/// Numbers of every spelling, and what is none.
const VALUES: &[&str] = &[
    "0",
    "-0",
    "0.0",
    "-0.0",
    "7",
    "-12",
    "1.5",
    "-2.25",
    "149.62",
    "0.000001",
    "-1.234567",
    "123456.789012",
    "5e-05",
    "1e5",
    "1E+2",
    "-1.5e-7",
    "1e999",
    "-1e39",
    "1e-60",
    "01",
    "1.",
    ".5",
    "-",
    "+1",
    "1.5.5",
    "--1",
    "0x1",
    "1_0",
    "-1.3598071336738172",
    "0.07278117330985123",
    "0.0026530621489328907",
    "16777217",
    "16777217.0000001",
    "0.100000001490116119384765625",
    "1.00000017881393432617187499",
    "1.000000178813934326171875",
    "12345678901234567890123",
    "1.2345678901234567890123",
    "0.30000001192092896",
    "9007199254740993",
    "3.4028236e38",
    "1.1754943e-38",
    "NaN",
    "Infinity",
    "-Infinity",
    "nan",
    "null",
    "true",
    "\"1.5\"",
    "\"\"",
    "[]",
    "[1]",
    "{}",
    "1700000000000",
    "\"2023-11-14T22:13:20.5+00:00\"",
    "\"a\\\"b\"",
    "\"caf\u{e9}\"",
    "\"\\ud800\"",
    "\"\\u00e9\"",
    " 1.5",
    "1.5 ",
    "1,2",
    "1 2",
    "",
];

/// A small generator of numbers, the same in every run (Steele, Lea and Flood, "SplitMix", 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    fn number(&mut self) -> String {
        let value = (self.next() as i64 as f64) / (i64::MAX as f64) * 10f64.powi(self.below(7) as i32 - 2);
        match self.below(4) {
            0 => format!("{value}"),
            1 => format!("{}", value as f32),
            _ => format!("{value:.6}"),
        }
    }
}

/// Where the numbers and plain words of a message stand.
fn tokens(message: &[u8]) -> Vec<std::ops::Range<usize>> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'+' | b'"');
    let mut found = Vec::new();
    let mut at = 0;
    while at < message.len() {
        let end = at + message[at..].iter().take_while(|byte| token(**byte)).count();
        if end > at {
            found.push(at..end);
        }
        at = end + 1;
    }
    found
}

/// The message, changed: mostly by other numbers in the places of its own, sometimes by something that hurts.
fn changed(random: &mut Random, teacher: &str) -> Vec<u8> {
    let mut message = teacher.as_bytes().to_vec();
    for token in tokens(&message).into_iter().rev() {
        let is_number = message[token.clone()].iter().all(|byte| byte.is_ascii_digit() || b".-+e".contains(byte));
        if is_number && random.below(4) > 0 {
            let whole = message[token.clone()].iter().all(u8::is_ascii_digit);
            let number = if whole { (random.next() >> 20).to_string() } else { random.number() };
            message.splice(token, number.bytes());
        }
    }
    for _ in 0..random.of(&[0, 1, 1, 1, 2, 3]) {
        let (place, tokens) = (random.below(message.len()), tokens(&message));
        let (one, other) = (random.of(&[0, 0, 1]), random.below(tokens.len().max(1)));
        let token = tokens.get(other).cloned().unwrap_or(0..0);
        match random.below(12) {
            0 if !message.is_empty() => message[place] ^= 1 << random.below(8),
            1 if !message.is_empty() => message[place] = random.next() as u8,
            2 => message.insert(place, random.of(b" \n\t,:[]{}\"\\-+.eE0159nNI\0\x7f\xc3")),
            3 if !message.is_empty() => drop(message.remove(place)),
            4 => message.truncate(place),
            5..=7 => drop(message.splice(token, random.of(VALUES).bytes())),
            8 => {
                // A stretch twice: doubled keys, rows, brackets.
                let end = (place + random.below(24)).min(message.len());
                let stretch = message[place.min(end)..end].to_vec();
                message.splice(place..place, stretch);
            }
            9 => {
                // Two words change places: keys and values.
                let from = tokens.get(random.below(tokens.len().max(1))).cloned().unwrap_or(0..0);
                let (early, late) = if from.start < token.start { (from, token) } else { (token, from) };
                if early.end <= late.start {
                    let (a, b) = (message[early.clone()].to_vec(), message[late.clone()].to_vec());
                    message.splice(late, a);
                    message.splice(early, b);
                }
            }
            10 => drop(message.splice(place..place, vec![random.of(b" \n\t\r"); 1 + one])),
            _ => message.extend_from_slice(random.of(&[" ", "\n", "}", "]", ",", "\0", "x"]).as_bytes()),
        }
    }
    message
}

#[test]
fn what_is_written_as_before_takes_the_template_path() {
    for teacher in TEACHERS {
        let mut learned = decoder();
        assert!(!in_passing(&learned, teacher.as_bytes()), "nothing is learned yet");
        outcome(&mut learned, teacher.as_bytes()).unwrap_or_else(|error| panic!("{teacher}: {error}"));
        assert!(in_passing(&learned, teacher.as_bytes()), "{teacher}");
        agree(&mut learned, teacher.as_bytes());
        let other = teacher.replace(" 12.5", " -0.25").replace("0.07", "-1.07").replace("[17]", "[18, 19]");
        assert!(in_passing(&learned, other.as_bytes()), "{other}");
        agree(&mut learned, other.as_bytes());
    }
}

#[test]
fn rows_may_be_more_or_fewer_than_before() {
    let message = |rows: usize| {
        let rows: Vec<String> = (0..rows).map(|row| format!("[{row}.5, -1.25, 3]")).collect();
        format!(r#"{{"columns": ["V1", "V2", "mean-of-30-days"], "data": [{}]}}"#, rows.join(", "))
    };
    let mut learned = decoder();
    outcome(&mut learned, message(1).as_bytes()).expect("valid");
    assert!(!in_passing(&learned, message(2).as_bytes()), "what stands between rows was not seen yet");
    agree(&mut learned, message(2).as_bytes());
    for rows in [1, 2, 3, 17] {
        assert!(in_passing(&learned, message(rows).as_bytes()));
        agree(&mut learned, message(rows).as_bytes());
    }
    agree(&mut learned, message(0).as_bytes());
}

#[test]
fn two_formats_may_alternate() {
    let mut learned = decoder();
    for teacher in [TEACHERS[0], TEACHERS[2]] {
        outcome(&mut learned, teacher.as_bytes()).expect("valid");
    }
    for teacher in [TEACHERS[0], TEACHERS[2], TEACHERS[2], TEACHERS[0]] {
        assert!(in_passing(&learned, teacher.as_bytes()), "{teacher}");
    }
    // A third one is learned in time, and so is the way back.
    for teacher in [TEACHERS[3], TEACHERS[0]] {
        assert!((0..2000).any(|_| {
            outcome(&mut learned, teacher.as_bytes()).expect("valid");
            in_passing(&learned, teacher.as_bytes())
        }));
    }
}

#[test]
fn learning_gets_rare_where_it_is_in_vain() {
    let mut learned = decoder();
    let mut learnings = 0;
    for number in 0..5000 {
        let message = format!(r#"{{"V1":1,"V2":2,"mean-of-30-days":3,"key {number}":0}}"#);
        outcome(&mut learned, message.as_bytes()).expect("valid");
        learnings += usize::from(in_passing(&learned, message.as_bytes()));
    }
    assert!((5..12).contains(&learnings), "{learnings}");
}

#[test]
fn every_value_in_every_place_is_judged_as_by_the_parser() {
    for teacher in TEACHERS {
        let mut learned = decoder();
        outcome(&mut learned, teacher.as_bytes()).expect("valid");
        for token in tokens(teacher.as_bytes()) {
            for value in VALUES {
                let mut message = (*teacher).to_owned();
                message.replace_range(token.clone(), value);
                agree(&mut learned, message.as_bytes());
                agree(&mut learned, teacher.as_bytes());
            }
        }
    }
}

#[test]
fn every_cut_and_every_changed_byte_is_judged_as_by_the_parser() {
    for teacher in TEACHERS {
        let mut learned = decoder();
        outcome(&mut learned, teacher.as_bytes()).expect("valid");
        for place in 0..teacher.len() {
            agree(&mut learned, &teacher.as_bytes()[..place]);
            for byte in b"\0 \"\\,:[]{}-+.eE019a\x7f\xff".iter().chain(&[teacher.as_bytes()[place] ^ 1]) {
                let mut message = teacher.as_bytes().to_vec();
                message[place] = *byte;
                agree(&mut learned, &message);
                message.insert(place, *byte);
                agree(&mut learned, &message);
                message.drain(place..=place + 1);
                agree(&mut learned, &message);
            }
        }
    }
}

/// The fuzz target's work, the same in every run.
#[test]
fn changed_messages_are_judged_as_by_the_parser() {
    let mut random = Random(2);
    let (mut accepted, mut passing) = (0, 0);
    for _ in 0..400 {
        let mut learned = decoder();
        let teacher = random.of(TEACHERS);
        agree(&mut learned, teacher.as_bytes());
        for _ in 0..100 {
            let message = changed(&mut random, teacher);
            passing += usize::from(in_passing(&learned, &message));
            accepted += usize::from(outcome(&mut decoder(), &message).is_ok());
            agree(&mut learned, &message);
        }
    }
    // It would prove little if nearly all were refused, or nearly none took the path.
    assert!(accepted > 10_000, "{accepted} were accepted");
    assert!(passing > 5_000, "{passing} took the template path");
}

proptest! {
    #[test]
    fn any_numbers_in_a_known_message_are_the_nearest_f32(
        texts in prop::collection::vec(number_text(), 4),
        teacher in prop::sample::select(vec![
            r#"{"V1": A, "V2": B, "Amount": C, "mean-of-30-days": D}"#,
            r#"{"V1":A,"V2":B,"Amount":C,"mean-of-30-days":D}"#,
            r#"{"columns": ["V1", "V2", "Amount", "mean-of-30-days"], "data": [[A, B, C, D], [A, B, C, D]]}"#,
            r#"{"columns":["V1","V2","Amount","mean-of-30-days"],"data":[[A,B,C,D]]}"#,
        ]),
    ) {
        let with = |values: [&str; 4]| {
            let mut message = teacher.to_owned();
            for (name, value) in ["A", "B", "C", "D"].into_iter().zip(values) {
                for (before, after) in [(": ", ","), (":", ","), (":", "}"), (": ", "}"), ("[", ","), (", ", ","), (",", ","), (", ", "]"), (",", "]")] {
                    message = message.replace(&format!("{before}{name}{after}"), &format!("{before}{value}{after}"));
                }
            }
            message
        };
        let mut learned = decoder();
        outcome(&mut learned, with(["1.5", "-2", "0.25", "3"]).as_bytes()).expect("valid");
        let message = with([&texts[0], &texts[1], &texts[2], &texts[3]]);
        let expected: Vec<u32> = texts.iter().map(|text| text.parse::<f32>().expect("a number").to_bits()).collect();
        let finite = texts.iter().all(|text| text.parse::<f32>().expect("a number").is_finite());
        match outcome(&mut learned, message.as_bytes()) {
            Ok((bits, _)) => {
                prop_assert!(finite, "{}", message);
                prop_assert!(bits.chunks(4).all(|row| row == expected), "{}", message);
                prop_assert!(in_passing(&learned, message.as_bytes()), "{}", message);
            }
            Err(rejection) => prop_assert!(!finite, "{}: {}", message, rejection),
        }
        agree(&mut learned, message.as_bytes());
    }

    #[test]
    fn any_change_is_judged_as_by_the_parser(seed in any::<u64>(), teachers in prop::collection::vec(0..TEACHERS.len(), 1..4)) {
        let (mut random, mut learned) = (Random(seed), decoder());
        for teacher in teachers {
            agree(&mut learned, TEACHERS[teacher].as_bytes());
            for _ in 0..10 {
                agree(&mut learned, &changed(&mut random, TEACHERS[teacher]));
            }
        }
    }

    #[test]
    fn any_bytes_behind_a_known_beginning_are_judged_as_by_the_parser(
        teacher in prop::sample::select(TEACHERS.to_vec()), cut in 0usize..200, rest in prop::collection::vec(any::<u8>(), 0..2 * AHEAD),
    ) {
        let mut learned = decoder();
        agree(&mut learned, teacher.as_bytes());
        let message = [&teacher.as_bytes()[..cut.min(teacher.len())], &rest].concat();
        agree(&mut learned, &message);
    }
}

/// Numbers as JSON spells them, near the middle between two floats more often than not by chance.
fn number_text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<f32>().prop_filter("finite", |value| value.is_finite()).prop_map(|value| format!("{value}")),
        (-1e3f64..1e3).prop_map(|value| format!("{value:.6}")),
        (-10f64..10.0).prop_map(|value| format!("{value}")),
        (-1e12f64..1e12).prop_map(|value| format!("{value:e}")),
        any::<i64>().prop_map(|value| value.to_string()),
        "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,22})?([eE][+-]?[0-9]{1,2})?",
        (0x3000_0000u32..0x5000_0000, 0usize..30, any::<bool>()).prop_map(|(bits, precision, negative)| {
            let (low, high) = (f32::from_bits(bits), f32::from_bits(bits + 1));
            let middle = (f64::from(low) + f64::from(high)) / 2.0;
            format!("{}{middle:.precision$}", if negative { "-" } else { "" })
        }),
    ]
}
