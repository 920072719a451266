//! The configuration: see the table in the README.
//!
//! Read once per instance. Invariant: every flag has a default of its own type, so that
//! an evaluation always has a value.

use alloc::{
    borrow::{Cow, ToOwned},
    string::String,
    vec::Vec,
};

use kit::{
    field,
    json::{Error, Json, Result},
    pattern::Pattern,
};

/// Flags in a config. 64: each one is an evaluation and a header per request.
const FLAGS_MAX: usize = 64;

/// Paths that need an entitlement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gate<'a> {
    /// Which.
    pub path: Pattern<'a>,
    /// Methods it applies to; empty means all.
    pub methods: Vec<Cow<'a, str>>,
    /// What the plan must have.
    pub feature: Cow<'a, str>,
}

/// The type of a flag, and its value when it can't be evaluated.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind<'a> {
    /// `true` or `false`.
    Boolean(bool),
    /// Text.
    String(Cow<'a, str>),
    /// A number, or an object, as JSON text.
    Json(&'a str),
}

/// A flag that the backend wants to know.
#[derive(Clone, Debug, PartialEq)]
pub struct Flag<'a> {
    /// Its key in the definitions.
    pub key: Cow<'a, str>,
    /// The header that carries it.
    pub header: Cow<'a, str>,
    /// Its type and default.
    pub kind: Kind<'a>,
}

/// A checked configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config<'a> {
    /// Every gate that matches must be passed.
    pub gates: Vec<Gate<'a>>,
    /// Evaluated for every request that passes.
    pub flags: Vec<Flag<'a>>,
}

impl<'a> Config<'a> {
    /// Reads a configuration.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn read(text: &'a str) -> Result<Self> {
        let mut config = Self::default();
        Json::document(text, |key, json| {
            match &**key {
                "gates" => config.gates = json.array(gate)?,
                "flags" => config.flags = flags(json)?,
                _ => return Err(Error::unknown_key()),
            }
            Ok(())
        })?;
        Ok(config)
    }
}

fn gate<'a>(json: &mut Json<'a>) -> Result<Gate<'a>> {
    let (mut path, mut methods, mut feature) = (None, Vec::new(), None);
    json.object(|key, json| {
        match &**key {
            "path" => path = Some(Pattern::read(json)?),
            "methods" => methods = json.array(Json::string)?,
            "feature" => feature = Some(json.string()?),
            _ => return Err(Error::unknown_key()),
        }
        Ok(())
    })?;
    match (path, feature) {
        (Some(path), Some(feature)) if !feature.is_empty() => Ok(Gate { path, methods, feature }),
        _ => Err(Error::new("a gate needs \"path\" and \"feature\"")),
    }
}

fn flags<'a>(json: &mut Json<'a>) -> Result<Vec<Flag<'a>>> {
    let flags = json.array(flag)?;
    let twice = |flag: &Flag<'_>| flags.iter().filter(|f| f.header == flag.header).count() > 1;
    match flags.iter().find(|flag| twice(flag)) {
        _ if flags.len() > FLAGS_MAX => Err(Error::new("more than 64 flags")),
        Some(_) => Err(Error::new("two flags have the same header")),
        None => Ok(flags),
    }
}

fn flag<'a>(json: &mut Json<'a>) -> Result<Flag<'a>> {
    let (mut name, mut header, mut kind, mut default) = (None, None, None, None);
    json.object(|key, json| {
        match &**key {
            "key" => name = Some(json.string()?).filter(|name| !name.is_empty()),
            "header" => header = Some(field::writable_name(json)?),
            "type" => kind = Some(json.string()?),
            "default" => default = Some(json.raw()?),
            _ => return Err(Error::unknown_key()),
        }
        Ok(())
    })?;
    let key = name.ok_or_else(|| Error::new("a flag needs a \"key\""))?;
    let kind = self::kind(kind.as_deref().unwrap_or("boolean"), default)?;
    let header = match header {
        Some(header) => header,
        None => default_header(&key)?,
    };
    Ok(Flag { key, header, kind })
}

/// `new-dashboard` → `x-feature-new-dashboard`.
fn default_header(key: &str) -> Result<Cow<'static, str>> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    if !key.bytes().all(plain) {
        return Err(Error::new("the key is no part of a header name: give it a \"header\""));
    }
    let mut header = String::from("x-feature-");
    header.push_str(&key.to_ascii_lowercase());
    Ok(Cow::Owned(header))
}

fn kind<'a>(name: &str, default: Option<&'a str>) -> Result<Kind<'a>> {
    let wrong = |_| Error::new("\"default\" is of another type than the flag");
    Ok(match (name, default) {
        ("boolean", None) => Kind::Boolean(false),
        ("boolean", Some("true")) => Kind::Boolean(true),
        ("boolean", Some("false")) => Kind::Boolean(false),
        ("string", None) => Kind::String(Cow::Borrowed("")),
        ("string", Some(text)) => Kind::String(text_of(text).map_err(wrong)?),
        ("number", None) => Kind::Json("0"),
        ("number", Some(text))
            if text.starts_with(['-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']) =>
        {
            Kind::Json(text)
        }
        ("object", None) => Kind::Json("{}"),
        ("object", Some(text)) if text.starts_with('{') => Kind::Json(text),
        ("boolean" | "number" | "object", Some(_)) => return Err(wrong(())),
        _ => {
            return Err(Error::new(
                "\"type\" is \"boolean\", \"string\", \"number\" or \"object\"",
            ));
        }
    })
}

fn text_of(raw: &str) -> Result<Cow<'_, str>, ()> {
    Json::at(raw).string().map_err(|_| ())
}

/// What an evaluated value looks like in a header: text as it is, the rest as JSON.
#[must_use]
pub fn header_value(json: &str) -> String {
    text_of(json).map_or_else(|()| json.to_owned(), Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_needs_only_a_key() {
        let config = Config::read(r#"{"flags":[{"key":"New-Dashboard"}]}"#).expect("a config");
        let flag = Flag {
            key: "New-Dashboard".into(),
            header: "x-feature-new-dashboard".into(),
            kind: Kind::Boolean(false),
        };
        assert_eq!(config.flags, [flag]);
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (text, want) in [
            (r#"{"gate":[]}"#, "gate: unknown key"),
            (r#"{"gates":[{"path":"x","feature":"f"}]}"#, "gates[0].path: a path starts with '/'"),
            (r#"{"gates":[{"path":"/x"}]}"#, "gates[0]: a gate needs"),
            (r#"{"flags":[{"header":"x"}]}"#, "flags[0]: a flag needs a \"key\""),
            (r#"{"flags":[{"key":"a","type":"bool"}]}"#, "flags[0]: \"type\" is"),
            (r#"{"flags":[{"key":"a","default":1}]}"#, "flags[0]: \"default\" is of another type"),
            (
                r#"{"flags":[{"key":"a","type":"number","default":"1"}]}"#,
                "flags[0]: \"default\" is",
            ),
            (r#"{"flags":[{"key":"a b"}]}"#, "flags[0]: the key is no part of a header name"),
            (r#"{"flags":[{"key":"a","header":"host"}]}"#, "flags[0].header: is a header of"),
            (r#"{"flags":[{"key":"a"},{"key":"A"}]}"#, "flags: two flags have the same header"),
        ] {
            let error = Config::read(text).expect_err(text).to_string();
            assert!(error.starts_with(want), "{error}");
        }
    }
}
