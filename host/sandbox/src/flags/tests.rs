use serde_json::json;

use super::*;

const NOW: UnixMs = UnixMs(1_700_000_000_999);

fn flags(definitions: Value) -> Flags {
    Flags::parse(&json!({ "flags": definitions }).to_string()).expect("valid definitions")
}

fn evaluate(flags: &Flags, key: &str, context: Value) -> Evaluation {
    let Value::Object(context) = context else { panic!("the context is an object") };
    flags.evaluate(key, FlagKind::Any, &json!("fallback"), &context, NOW)
}

fn problems(definitions: Value) -> String {
    match Flags::parse(&definitions.to_string()) {
        Ok(_) => panic!("was accepted: {definitions}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_flag_without_targeting_is_static() {
    let flags = flags(json!({
        "f": {"state": "ENABLED", "variants": {"on": true}, "defaultVariant": "on"}
    }));
    let got = evaluate(&flags, "f", json!({}));
    assert_eq!((got.value, got.variant.as_deref()), (json!(true), Some("on")));
    assert_eq!((got.reason.as_str(), got.error), ("STATIC", None));
}

#[test]
fn rules_read_the_context_and_what_flagd_adds() {
    let flags = flags(json!({"f": {
        "state": "ENABLED", "variants": {"yes": 1, "no": 2}, "defaultVariant": "no",
        "targeting": {"if": [{"and": [
            {"==": [{"var": "tenant.plan"}, "team"]},
            {"==": [{"var": "$flagd.flagKey"}, "f"]},
            {"==": [{"var": "$flagd.timestamp"}, 1_700_000_000]},
        ]}, "yes"]}
    }}));
    // A caller can't pass off its own `$flagd`.
    let got =
        evaluate(&flags, "f", json!({"tenant": {"plan": "team"}, "$flagd": {"flagKey": "x"}}));
    assert_eq!((got.value, got.reason), (json!(1), Reason::TargetingMatch));
    let got = evaluate(&flags, "f", json!({"tenant": {"plan": "developer"}}));
    assert_eq!((got.value, got.reason), (json!(2), Reason::Default));
}

#[test]
fn errors_carry_their_code_and_the_default() {
    let flags = flags(json!({
        "other": {"state": "ENABLED", "variants": {"a": "x"}, "targeting": {"cat": ["b"]}},
        "text": {"state": "ENABLED", "variants": {"a": "x"}, "defaultVariant": "a"},
    }));
    let code = |key, kind| {
        let got = flags.evaluate(key, kind, &json!(7), &Map::new(), NOW);
        assert_eq!((got.value, got.variant, got.reason), (json!(7), None, Reason::Error));
        got.error.expect("an error").0.as_str()
    };
    assert_eq!(code("missing", FlagKind::Any), "FLAG_NOT_FOUND");
    assert_eq!(code("other", FlagKind::Any), "GENERAL");
    assert_eq!(code("text", FlagKind::Integer), "TYPE_MISMATCH");
}

#[test]
fn the_metadata_of_the_set_is_under_that_of_the_flag() {
    let text = json!({"metadata": {"set": 1, "owner": "all"}, "flags": {
        "f": {"state": "DISABLED", "variants": {"a": 1}, "metadata": {"owner": "me"}},
    }});
    let flags = Flags::parse(&text.to_string()).expect("valid definitions");
    let got = evaluate(&flags, "f", json!({}));
    assert_eq!(json!(got.metadata), json!({"set": 1, "owner": "me"}));
    let got = evaluate(&flags, "missing", json!({}));
    assert_eq!(json!(got.metadata), json!({"set": 1, "owner": "all"}));
}

#[test]
fn every_bad_flag_is_named_with_its_reason() {
    let text = problems(json!({"flags": {
        "a": {"state": "ON", "variants": {"x": 1}},
        "b": {"state": "ENABLED", "variants": {"x": 1}, "defaultVariant": "y"},
        "c": {"state": "ENABLED", "variants": {"x": 1, "y": "two"}},
        "d": {"state": "ENABLED", "variants": {}},
        "e": {"state": "ENABLED", "variants": {"x": 1}, "defaultvariant": "x"},
        "f": {"state": "ENABLED", "variants": {"x": 1}, "targeting": {"fractionl": []}},
        "g": {"state": "ENABLED", "variants": {"x": 1}, "targeting": {"$ref": "none"}},
        "h": {"state": "ENABLED", "variants": {"x": 1}, "metadata": {"m": []}},
        "i": [],
    }}));
    for want in [
        "flag 'a': state: must be \"ENABLED\" or \"DISABLED\"",
        "flag 'b': defaultVariant: \"y\" is no variant",
        "flag 'c': variants: must be of one type; found a number and a string",
        "flag 'd': variants: must not be empty",
        "flag 'e': definition: unknown key 'defaultvariant'",
        "flag 'f': targeting: unknown operator 'fractionl'",
        "flag 'g': targeting: \"$ref\": \"none\" is not in $evaluators",
        "flag 'h': metadata: 'm' may not hold an array",
        "flag 'i': definition: expected an object, found an array",
    ] {
        assert!(text.contains(want), "{want} is missing in: {text}");
    }
}

#[test]
fn a_bad_file_says_where() {
    assert!(problems(json!({"flag": {}})).contains("unknown key 'flag'"));
    assert!(problems(json!({"flags": []})).contains("flags: expected an object, found an array"));
    let error = Flags::parse("{\n \"flags\": {,} }").expect_err("not JSON").to_string();
    assert!(error.contains("line 2"), "{error}");
}

#[test]
fn references_that_never_end_are_refused() {
    let cycle = problems(json!({
        "$evaluators": {"a": {"!": [{"$ref": "b"}]}, "b": {"!": [{"$ref": "a"}]}},
        "flags": {"f": {"state": "ENABLED", "variants": {"x": 1}, "targeting": {"$ref": "a"}}},
    }));
    assert!(cycle.contains("nested deeper than 8"), "{cycle}");
    let wide = |name: &str| json!({"and": vec![json!({"$ref": name}); 20]});
    let laughs = problems(json!({
        "$evaluators": {"a": wide("b"), "b": wide("c"), "c": wide("d"), "d": wide("e"), "e": true},
        "flags": {"f": {"state": "ENABLED", "variants": {"x": 1}, "targeting": {"$ref": "a"}}},
    }));
    assert!(laughs.contains("more than 10000 values"), "{laughs}");
}

#[test]
fn a_tolerant_parse_keeps_the_other_flags() {
    let text = json!({"flags": {
        "bad": {"state": "ENABLED", "variants": {"x": 1}, "targeting": {"$ref": "none"}},
        "good": {"state": "ENABLED", "variants": {"x": 1}, "defaultVariant": "x"},
    }});
    let flags = Flags::parse_tolerant(&text.to_string()).expect("tolerated");
    let bad = evaluate(&flags, "bad", json!({}));
    assert_eq!(bad.error.expect("an error").0, ErrorCode::ParseError);
    assert_eq!(evaluate(&flags, "good", json!({})).value, json!(1));
}
