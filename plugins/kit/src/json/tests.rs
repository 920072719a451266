use super::*;

fn error(text: &str) -> String {
    Json::document(text, |_, json| json.raw().map(|_| ())).expect_err(text).to_string()
}

fn one_string(text: &str) -> Result<String> {
    let mut got = String::new();
    Json::document(text, |_, json| {
        got = json.string()?.into_owned();
        Ok(())
    })?;
    Ok(got)
}

#[test]
fn every_kind_of_value_is_read_as_its_text() {
    let text = r#" { "a" : -1.5e3 , "b":[ {} , [], null ], "c": "x\"y", "d" :true} "#;
    let mut seen = Vec::new();
    Json::document(text, |key, json| {
        seen.push((key.to_string(), json.raw()?.to_owned()));
        Ok(())
    })
    .expect("JSON");
    let want = [("a", "-1.5e3"), ("b", "[ {} , [], null ]"), ("c", r#""x\"y""#), ("d", "true")];
    assert_eq!(seen, want.map(|(key, value)| (key.to_owned(), value.to_owned())));
}

#[test]
fn escapes_are_read_and_broken_ones_refused() {
    let read = |text: &str| one_string(&format!("{{\"a\":{text}}}"));
    assert_eq!(
        read(r#""\"\\\/\b\f\n\r\tü\u00e9\ud83d\ude00""#).as_deref(),
        Ok("\"\\/\u{8}\u{c}\n\r\tüé😀")
    );
    for broken in
        [r#""\x""#, r#""\u12""#, r#""\ud83d""#, r#""\ud83dA""#, r#""\udc00""#, r#""\"#, r#""a"#]
    {
        assert!(read(broken).is_err(), "{broken}");
    }
}

#[test]
fn what_is_no_json_is_refused() {
    for text in [
        "",
        "[]",
        "{",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{\"a\":1}x",
        "{\"a\":tru}",
        "{\"a\":nan}",
        "{\"a\":1.}",
        "{\"a\":.5}",
        "{\"a\":-}",
        "{\"a\":1e}",
        "{\"a\":0x1}",
        "{a:1}",
    ] {
        error(text);
    }
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(100), "]".repeat(100));
    assert!(error(&deep).contains("nested too deeply"));
}

#[test]
fn an_error_names_its_place() {
    let read = |text: &str| {
        Json::document(text, |key, json| match &**key {
            "steps" => {
                json.array(|json| json.object(|_, json| json.string().map(|_| ()))).map(|_| ())
            }
            "on" => json.boolean().map(|_| ()),
            _ => Err(Error::unknown_key()),
        })
        .expect_err("an error")
        .to_string()
    };
    assert_eq!(read(r#"{"steps":[{"a":"x"},{"name":1}]}"#), "steps[1].name: expected a string");
    assert_eq!(read(r#"{"on":"yes"}"#), "on: expected true or false");
    assert_eq!(read(r#"{"off":1}"#), "off: unknown key");
    assert_eq!(read("1"), "expected an object");
}
