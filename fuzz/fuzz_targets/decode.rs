//! Two paths, one judgement: a decoder that has learned templates and one that has learned nothing must accept, reject and
//! value every message alike, and accept nothing that serde_json refuses.
//!
//! ```text
//!  input:  choice of teachers (one byte) │ message             (without a line of its own: the first message teaches,
//!          or a teacher ─ '\xff\n' ─ message                    the second is judged)
//! ```
#![no_main]

use std::collections::BTreeMap;

use fraud_scorer::pipeline::decode::{Decoder, Feature, Rows};
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;

/// One message of each kind that can be learned.
const TEACHERS: [&[u8]; 8] = [
    br#"{"transaction_id": "3f2504e0-4f89-11d3", "event_time": 1700000000000, "V1": -1.359807, "V2": 0.072781, "Amount": 149.62}"#,
    br#"{"V1":-1.3598071336738172,"V2":7,"Amount":null,"x":[1,{"y":"z"}],"event_time":"2023-11-14T22:13:20Z"}"#,
    br#"{"columns": ["V1", "V2", "Amount"], "data": [[-1.359807, 0.072781, 149.62]]}"#,
    br#"{"columns":["V1","V2"],"data":[[1.5,-2.5],[3e-2,4]]}"#,
    br#"{"columns":["transaction_id","V2","V1","note","event_time"],"data":[["a",1.5,-2.5,"n",5],["b",0.25,2e3,null,6]]}"#,
    b"{\n \"dataframe_split\": {\n  \"columns\": [\"V1\", \"V2\"],\n  \"data\": [\n   [1.5, 2.5],\n   [3.5, 4.5]\n  ]\n }\n}\n",
    br#"{"data": [[0.1, 0.2 ], [1.1, 1.2 ]], "index": [0, 1], "columns": ["V1", "V2"]}"#,
    br#"{"transaction_id":"a","index":[17],"columns":["V1","V2","event_time"],"data":[[1,2,null],[4,5,6]],"event_time":9,"sent":1}"#,
];

fn decoder() -> Decoder {
    let feature = |name: &str, default| Feature { name: name.into(), default };
    Decoder::new(&[feature("V1", None), feature("V2", None), feature("Amount", Some(0.5))], 4096)
}

/// What a decoder makes of a message, in a form that can be compared: floats as bits.
fn outcome(decoder: &mut Decoder, message: &[u8]) -> Result<(Vec<u32>, String), String> {
    let mut rows = Rows::default();
    match decoder.decode(Some(message), 3, &mut rows) {
        Ok(_) => Ok((rows.features.iter().map(|value| value.to_bits()).collect(), format!("{:?}", rows.meta))),
        Err(rejection) => Err(format!("{rejection:?}")),
    }
}

/// The message's features as serde_json finds them and the standard library reads them, if it is in the object form.
fn by_library(message: &[u8]) -> Option<Vec<u32>> {
    let members: BTreeMap<String, &RawValue> = serde_json::from_slice(message).ok()?;
    if members.contains_key("dataframe_split") || (members.contains_key("columns") && members.contains_key("data")) {
        return None;
    }
    let value = |name: &str, default: f32| match members.get(name).map(|value| value.get()) {
        None | Some("null") => Some(default.to_bits()),
        Some(number) => number.parse::<f32>().ok().map(f32::to_bits),
    };
    Some(vec![value("V1", f32::NAN)?, value("V2", f32::NAN)?, value("Amount", 0.5)?])
}

fn agree(learned: &mut Decoder, message: &[u8]) {
    let with = outcome(learned, message);
    let without = outcome(&mut decoder(), message);
    assert_eq!(with, without, "with and without what was learned: {}", String::from_utf8_lossy(message));
    let Ok((features, _)) = with else { return };
    serde_json::from_slice::<serde::de::IgnoredAny>(message).expect("what is accepted is JSON");
    if let Some(expected) = by_library(message) {
        assert_eq!(features, expected, "values: {}", String::from_utf8_lossy(message));
    }
}

fuzz_target!(|input: &[u8]| {
    let mut learned = decoder();
    match input.windows(2).position(|two| two == b"\xff\n") {
        Some(split) => {
            // Twice: what is learned from the first time must not change the second.
            agree(&mut learned, &input[..split]);
            agree(&mut learned, &input[..split]);
            agree(&mut learned, &input[split + 2..]);
        }
        None => {
            let Some((choice, message)) = input.split_first() else { return };
            let (one, other) = (*choice as usize % 8, *choice as usize / 8 % 8);
            agree(&mut learned, TEACHERS[one]);
            agree(&mut learned, TEACHERS[other]);
            agree(&mut learned, message);
        }
    }
    // Nor must what was just seen change the judgement of anything known.
    agree(&mut learned, TEACHERS[0]);
});
