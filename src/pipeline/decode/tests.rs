use proptest::prelude::*;

use super::*;

fn decoder() -> Decoder {
    let feature = |name: &str, default| Feature { name: name.into(), default };
    Decoder::new(&[feature("V1", None), feature("V2", None), feature("Amount", Some(0.5))], 4096)
}

fn decode(text: impl AsRef<[u8]>) -> Result<Rows, Rejection> {
    let mut rows = Rows::default();
    decoder().decode(Some(text.as_ref()), 7, &mut rows).map(|_| rows)
}

fn class(text: impl AsRef<[u8]>) -> Option<ErrorClass> {
    decode(text).err().map(|rejection| rejection.class)
}

#[test]
fn object_form_in_any_key_order_with_unknown_fields() {
    let text = r#" {"x":[1e999,{"y":null}],"V2":-2,"transaction_id":"a\"b","Amount":3.25,"event_time":1700000000000,"V1":1e-2} "#;
    let rows = decode(text).expect("valid");
    assert_eq!(rows.features, [0.01, -2.0, 3.25]);
    let meta = &rows.meta[0];
    assert_eq!((meta.record, meta.row, meta.event_time), (7, 0, EventTime::Milliseconds(1_700_000_000_000)));
    let TransactionId::Payload(range) = meta.transaction_id.clone() else { panic!("has an id") };
    assert_eq!(&text[range.start as usize..range.end as usize], r#"a\"b"#);
}

#[test]
fn defaults_fill_in_for_absent_and_null_features() {
    assert_eq!(decode(r#"{"V1":1,"V2":2}"#).expect("valid").features, [1.0, 2.0, 0.5]);
    assert_eq!(decode(r#"{"V1":1,"V2":2,"Amount":null}"#).expect("valid").features, [1.0, 2.0, 0.5]);
    assert_eq!(
        decode(r#"{"columns":["V1","V2","Amount"],"data":[[1,2,null]]}"#).expect("valid").features,
        [1.0, 2.0, 0.5]
    );
}

#[test]
fn split_form_gives_one_row_each_wherever_the_keys_stand() {
    for text in [
        r#"{"columns":["V2","note","V1"],"data":[[2,"x",1],[4,[],3]]}"#,
        r#"{"data":[[2,"x",1],[4,[],3]],"index":[0,1],"columns":["V2","note","V1"]}"#,
        r#"{"dataframe_split":{"data":[[2,"x",1],[4,[],3]],"columns":["V2","note","V1"]}}"#,
        r#"{"columns":["V2","n\u006fte","\u0056\u0031"],"data":[[2,"x",1],[4,[],3]]}"#,
    ] {
        let rows = decode(text).unwrap_or_else(|error| panic!("{text}: {error:?}"));
        assert_eq!(rows.features, [1.0, 2.0, 0.5, 3.0, 4.0, 0.5], "{text}");
        assert_eq!(rows.meta.iter().map(|meta| meta.row).collect::<Vec<_>>(), [0, 1]);
    }
}

#[test]
fn split_columns_may_hold_ids_and_times() {
    let text = r#"{"columns":["transaction_id","V1","V2","event_time"],"data":[["a",1,2,5],[null,1,2,"1970-01-01T00:00:01Z"]]}"#;
    let rows = decode(text).expect("valid");
    assert_ne!(rows.meta[0].transaction_id, TransactionId::Absent);
    assert_eq!(rows.meta[1].transaction_id, TransactionId::Absent);
    assert_eq!(rows.meta[0].event_time, EventTime::Milliseconds(5));
    assert_eq!(rows.meta[1].event_time, EventTime::Milliseconds(1000));
}

#[test]
fn ids_may_be_numbers_and_times_rfc_3339() {
    let text = r#"{"transaction_id":42,"event_time":"2023-11-14T22:13:20.5+00:00","V1":1,"V2":2}"#;
    let rows = decode(text).expect("valid");
    let TransactionId::Payload(range) = rows.meta[0].transaction_id.clone() else { panic!("has an id") };
    assert_eq!(&text[range.start as usize..range.end as usize], "42");
    assert_eq!(rows.meta[0].event_time, EventTime::Milliseconds(1_700_000_000_500));
}

#[test]
fn every_fault_has_its_class_and_names_the_field() {
    use ErrorClass::*;
    let deep = "[".repeat(200) + &"]".repeat(200);
    let cases: &[(&str, ErrorClass, &str)] = &[
        ("", MalformedJson, "empty"),
        ("   ", MalformedJson, "empty"),
        (r#"{"V1":1,"V2":2"#, MalformedJson, "byte 14"),
        (r#"{"V1":1,"V2":2}}"#, MalformedJson, "follows"),
        ("not json", MalformedJson, "JSON"),
        (r#"{"V1":1,"V1":2,"V2":2}"#, MalformedJson, "V1 appears twice"),
        (r#"{"V1":null,"V1":2,"V2":2}"#, MalformedJson, "V1 appears twice"),
        (r#"{"V1":1,"V2":2,"transaction_id":"a","transaction_id":"b"}"#, MalformedJson, "transaction_id"),
        (r#"{"V1":1}"#, MissingFeature, "V2"),
        (r#"{}"#, MissingFeature, "V1"),
        (r#"{"V1":1,"V2":null}"#, MissingFeature, "V2"),
        (r#"{"V1":1,"V2":"2"}"#, NotANumber, "V2 must be a number, not text"),
        (r#"{"V1":1,"V2":true}"#, NotANumber, "V2 must be a number, not a boolean"),
        (r#"{"V1":1,"V2":[2]}"#, NotANumber, "V2 must be a number, not an array"),
        (r#"{"V1":1,"V2":1e999}"#, NotANumber, "V2 is out of"),
        (r#"{"V1":1,"V2":-1e39}"#, NotANumber, "V2 is out of"),
        (r#"{"V1":1,"V2":NaN}"#, NotANumber, "V2 is NaN"),
        (r#"{"V1":1,"V2":nan}"#, NotANumber, "V2 is nan"),
        (r#"{"V1":1,"V2":-Infinity}"#, NotANumber, "V2 is -Infinity"),
        (r#"{"V1":1,"V2":Infinity}"#, NotANumber, "V2 is Infinity"),
        (r#"{"V1":1,"V2":01}"#, MalformedJson, "byte"),
        (r#"{"V1":1,"V2":}"#, MalformedJson, "V2"),
        (r#"[1,2]"#, UnknownSchema, "an array"),
        (r#""text""#, UnknownSchema, "text"),
        ("12", UnknownSchema, "a number"),
        (&deep, MalformedJson, "128"),
        (r#"{"dataframe_split":[1]}"#, UnknownSchema, "dataframe_split"),
        (r#"{"columns":["V1","V2"],"data":[]}"#, WrongShape, "no rows"),
        (r#"{"columns":["V1","V2"],"data":[[1]]}"#, WrongShape, "data[0] has 1 values, columns has 2"),
        (r#"{"columns":["V1","V2"],"data":[[1,2],[1,2,3]]}"#, WrongShape, "data[1] has 3 values"),
        (r#"{"columns":["V1","V2"],"data":[1,2]}"#, WrongShape, "data[0] must be an array"),
        (r#"{"columns":["V1","V2"],"data":{}}"#, WrongShape, "data must be an array"),
        (r#"{"columns":"V1","data":[[1]]}"#, WrongShape, "columns must be an array"),
        (r#"{"columns":["V1",2],"data":[[1,2]]}"#, WrongShape, "columns[1]"),
        (r#"{"columns":["V1","V2","V1"],"data":[[1,2,3]]}"#, WrongShape, "V1 twice"),
        (r#"{"columns":["V1"],"data":[[1]]}"#, MissingFeature, "V2"),
        (r#"{"columns":["V1","V2"],"data":[[1,2],[1,"a"]]}"#, NotANumber, "V2"),
        (r#"{"columns":["V1","V2"],"data":[[1,null]]}"#, MissingFeature, "V2"),
        (r#"{"V1":1,"V2":2,"event_time":"yesterday"}"#, InvalidEventTime, "text"),
        (r#"{"V1":1,"V2":2,"event_time":1.5}"#, InvalidEventTime, "number"),
        (r#"{"V1":1,"V2":2,"transaction_id":{}}"#, UnknownSchema, "transaction_id"),
    ];
    for (text, class, names) in cases {
        let rejection = decode(text).err().unwrap_or_else(|| panic!("{text} was accepted"));
        assert_eq!(rejection.class, *class, "{text}: {}", rejection.message);
        assert!(rejection.message.contains(names), "{text}: {:?} lacks {names:?}", rejection.message);
    }
    assert_eq!(class(b"{\"V1\":1,\"V2\":2,\"x\":\"\xe2\x82\"}"), Some(MalformedJson));
    assert_eq!(class("x".repeat(4097)), Some(TooLarge));
    let mut rows = Rows::default();
    assert_eq!(decoder().decode(None, 0, &mut rows).expect_err("tombstone").class, MalformedJson);
}

#[test]
fn a_rejected_message_takes_back_all_its_rows() {
    let mut rows = Rows::default();
    let mut decoder = decoder();
    assert_eq!(decoder.decode(Some(br#"{"V1":1,"V2":2}"#), 0, &mut rows), Ok(1));
    let bad = br#"{"columns":["V1","V2"],"data":[[1,2],[3,4],[5]]}"#;
    assert!(decoder.decode(Some(bad), 1, &mut rows).is_err());
    assert_eq!(decoder.decode(Some(br#"{"V1":3,"V2":4}"#), 2, &mut rows), Ok(1));
    assert_eq!(rows.features, [1.0, 2.0, 0.5, 3.0, 4.0, 0.5]);
    assert_eq!(rows.meta.iter().map(|meta| meta.record).collect::<Vec<_>>(), [0, 2]);
}

#[test]
fn a_null_in_one_message_is_forgotten_in_the_next() {
    let (mut rows, mut decoder) = (Rows::default(), decoder());
    for _ in 0..3 {
        assert!(decoder.decode(Some(br#"{"V1":null,"V2":2}"#), 0, &mut rows).is_err());
        assert_eq!(decoder.decode(Some(br#"{"V1":1,"V2":2}"#), 0, &mut rows), Ok(1));
    }
}

#[test]
fn columns_that_change_from_message_to_message_are_followed() {
    let (mut rows, mut decoder) = (Rows::default(), decoder());
    let mut decode = |text: &str| {
        rows.clear();
        decoder.decode(Some(text.as_bytes()), 0, &mut rows).map(|_| rows.features.clone()).map_err(|error| error.class)
    };
    let usual = r#"{"columns":["V1","V2"],"data":[[1,2],[3,4]]}"#;
    for _ in 0..2 {
        assert_eq!(decode(usual), Ok(vec![1.0, 2.0, 0.5, 3.0, 4.0, 0.5]));
        assert_eq!(decode(usual), Ok(vec![1.0, 2.0, 0.5, 3.0, 4.0, 0.5]));
        assert_eq!(decode(r#"{"columns":["V2","V1"],"data":[[1,2]]}"#), Ok(vec![2.0, 1.0, 0.5]));
        assert_eq!(decode(r#"{"columns":["V2","V1"] , "data" : [ [ 1 , 2 ] ] }"#), Ok(vec![2.0, 1.0, 0.5]));
        assert_eq!(decode(r#"{"columns":["V2"],"data":[[1]]}"#), Err(ErrorClass::MissingFeature));
        assert_eq!(decode(usual), Ok(vec![1.0, 2.0, 0.5, 3.0, 4.0, 0.5]));
        assert_eq!(decode(r#"{"columns":["V1","V2"],"data":[[1,2,3]]}"#), Err(ErrorClass::WrongShape));
        assert_eq!(decode(r#"{"columns":["V1","V2"],"data":[[1,2]],"data":[[1,2]]}"#), Err(ErrorClass::MalformedJson));
        assert_eq!(decode(r#"{"columns":["V1","V2"],"V2":"x"}"#), Err(ErrorClass::NotANumber));
        assert_eq!(decode(r#"{"V1":7,"columns":["V1","V2"],"V2":8}"#), Ok(vec![7.0, 8.0, 0.5]));
        assert_eq!(decode(r#"{"V1":7,"columns":["V1","V2"],"data":[[1,2]],"V2":8}"#), Ok(vec![1.0, 2.0, 0.5]));
        assert_eq!(decode(r#"{"columns":["V1","V2"],"data":[[1,2]]"#), Err(ErrorClass::MalformedJson));
    }
}

#[test]
fn a_split_messages_own_id_and_time_hold_for_rows_without() {
    let (mut rows, mut decoder) = (Rows::default(), decoder());
    let text =
        r#"{"columns":["V1","V2","event_time"],"data":[[1,2,5],[1,2,null]],"event_time":9,"transaction_id":"a"}"#;
    for _ in 0..2 {
        rows.clear();
        decoder.decode(Some(text.as_bytes()), 0, &mut rows).expect("valid");
        let times: Vec<EventTime> = rows.meta.iter().map(|meta| meta.event_time).collect();
        assert_eq!(times, [EventTime::Milliseconds(5), EventTime::Milliseconds(9)]);
        assert!(rows.meta.iter().all(|meta| meta.transaction_id != TransactionId::Absent));
    }
}

proptest! {
    #[test]
    fn numbers_are_the_nearest_f32(v1 in any::<f32>(), v2 in -1e30f64..1e30, amount in any::<i32>()) {
        prop_assume!(v1.is_finite());
        let text = format!(r#"{{"Amount":{amount},"V1":{v1:?},"V2":{v2:?}}}"#);
        let rows = decode(&text).expect("valid");
        let v2: f32 = format!("{v2:?}").parse().expect("a number");
        prop_assert_eq!(rows.features, [v1, v2, amount as f32]);
    }

    #[test]
    fn no_bytes_make_it_panic_and_what_is_accepted_is_json(text in r#"\{("(V1|V2|Amount|data|columns|x|event_time)":(1|-2.5e3|null|"t"|\[\]|\[\[1,2\]\]|\["V1","V2"\]|\{\}),?){0,5}\}"#) {
        let cold = decode(&text).map(|rows| rows.features).map_err(|rejection| rejection.class);
        if cold.is_ok() {
            prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{}", text);
        }
        // What was learned from an earlier message changes no judgement and no value.
        let (mut rows, mut learned) = (Rows::default(), decoder());
        learned.decode(Some(br#"{"columns":["V1","V2"],"data":[[1,2]]}"#), 0, &mut rows).expect("valid");
        rows.clear();
        let warm = learned.decode(Some(text.as_bytes()), 0, &mut rows).map(|_| rows.features);
        prop_assert_eq!(warm.is_ok(), cold.is_ok(), "{}", text);
        if let (Ok(warm), Ok(cold)) = (warm, cold) {
            prop_assert_eq!(warm, cold);
        }
    }

    #[test]
    fn object_and_split_form_agree(values in prop::collection::vec(-1e6f64..1e6, 3)) {
        let object = format!(r#"{{"V1":{},"V2":{},"Amount":{}}}"#, values[0], values[1], values[2]);
        let split = format!(r#"{{"columns":["Amount","V1","V2"],"data":[[{},{},{}]]}}"#, values[2], values[0], values[1]);
        prop_assert_eq!(decode(object).expect("valid").features, decode(split).expect("valid").features);
    }
}

#[test]
fn an_id_that_is_too_long_is_refused_however_it_is_written() {
    let with = |id: &str| format!(r#"{{"transaction_id":{id},"V1":1,"V2":2}}"#);
    let quoted = |text: &str, times| format!("\"{}\"", text.repeat(times));
    let mut learned = Decoder::new(&decoder().features, 1 << 20);
    let mut class = |id: &str| {
        let mut rows = Rows::default();
        let outcome = learned.decode(Some(with(id).as_bytes()), 0, &mut rows);
        outcome.err().map(|rejection| rejection.class)
    };
    // Whether the format was learned already or not.
    for _ in 0..3 {
        for (id, longest) in [("a", 1024), ("é", 512), ("\\u0061", 1024), ("\\ud83d\\ude00", 256)] {
            assert_eq!(class(&quoted(id, longest)), None, "{id}");
            assert_eq!(class(&quoted(id, longest + 1)), Some(ErrorClass::TooLarge), "{id}");
        }
        assert_eq!(class(&"9".repeat(1024)), None);
        assert_eq!(class(&"9".repeat(1025)), Some(ErrorClass::TooLarge));
    }
}

#[test]
fn rows_of_defaults_are_bounded_whether_the_format_is_known_or_not() {
    let features: Vec<Feature> =
        (0..200).map(|number| Feature { name: format!("f{number}"), default: Some(0.0) }).collect();
    let mut decoder = Decoder::new(&features, 64 << 10);
    let most = (64 << 10) * MOST_GROWTH / (features.len() * size_of::<f32>());
    for columns in ["[]", "[\"f7\"]"] {
        let row = if columns == "[]" { "[]," } else { "[1]," };
        let message =
            |rows: usize| format!("{{\"columns\":{columns},\"data\":[{}]}}", row.repeat(rows).trim_end_matches(','));
        for _ in 0..3 {
            let mut rows = Rows::default();
            assert_eq!(decoder.decode(Some(message(most).as_bytes()), 0, &mut rows), Ok(most));
            let refused = decoder.decode(Some(message(most + 1).as_bytes()), 0, &mut rows).expect_err("too many");
            assert_eq!(refused.class, ErrorClass::TooLarge, "{}", refused.message);
            assert_eq!(rows.len(), most, "what stood before is as it was");
        }
    }
}
