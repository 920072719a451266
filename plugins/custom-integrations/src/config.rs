//! The configuration: see the table in the README.
//!
//! Read once per instance. Invariant: no error text repeats a value, because one of them
//! is a secret.

use alloc::{borrow::Cow, vec::Vec};

use kit::{
    field,
    json::{Error, Json, Result},
};

use crate::{
    rewrite::{Prefix, Template},
    signing::Signing,
};

/// Steps in one list. 64: a request pays for each one.
const STEPS_MAX: usize = 64;

/// One change of a request or a response.
#[derive(Debug)]
pub enum Step<'a> {
    /// Sets a header to a literal.
    SetHeader {
        /// Its name.
        name: Cow<'a, str>,
        /// Its value.
        value: Cow<'a, str>,
    },
    /// Sets a header to the values of another; without those it is removed.
    CopyHeader {
        /// The source.
        from: Cow<'a, str>,
        /// The header that is written.
        to: Cow<'a, str>,
    },
    /// Removes a header.
    RemoveHeader(Cow<'a, str>),
    /// Replaces the start of the path. Requests only.
    RewritePrefix(Prefix<'a>),
    /// Builds the path from parts of it. Requests only.
    RewritePath(Template<'a>),
}

/// A checked configuration.
#[derive(Debug, Default)]
pub struct Config<'a> {
    /// Run in order on the request.
    pub request: Vec<Step<'a>>,
    /// Run after `request`.
    pub signing: Option<Signing<'a>>,
    /// Run in order on the response.
    pub response: Vec<Step<'a>>,
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
                "request" => config.request = steps(json, request_step)?,
                "signing" if json.null() => config.signing = None,
                "signing" => config.signing = Some(Signing::read(json)?),
                "response" => config.response = steps(json, header_step)?,
                _ => return Err(Error::unknown_key()),
            }
            Ok(())
        })?;
        Ok(config)
    }
}

type ReadStep<'a> = fn(&str, &mut Json<'a>) -> Result<Step<'a>>;

fn steps<'a>(json: &mut Json<'a>, read: ReadStep<'a>) -> Result<Vec<Step<'a>>> {
    let steps = json.array(|json| {
        let mut step = None;
        json.object(|key, json| match step {
            Some(_) => Err(Error::new("a step is one thing; start another")),
            None => {
                step = Some(read(key, json)?);
                Ok(())
            }
        })?;
        step.ok_or_else(|| Error::new("an empty step"))
    })?;
    if steps.len() > STEPS_MAX { Err(Error::new("more than 64 steps")) } else { Ok(steps) }
}

fn request_step<'a>(kind: &str, json: &mut Json<'a>) -> Result<Step<'a>> {
    match kind {
        "rewrite_prefix" => Prefix::read(json).map(Step::RewritePrefix),
        "rewrite_path" => Template::read(json).map(Step::RewritePath),
        _ => header_step(kind, json),
    }
}

fn header_step<'a>(kind: &str, json: &mut Json<'a>) -> Result<Step<'a>> {
    match kind {
        "set_header" => {
            let (name, value) =
                pair(json, ("name", field::writable_name), ("value", field::value))?;
            Ok(Step::SetHeader { name, value })
        }
        "copy_header" => {
            let (from, to) = pair(json, ("from", field::name), ("to", field::writable_name))?;
            Ok(Step::CopyHeader { from, to })
        }
        "remove_header" => field::writable_name(json).map(Step::RemoveHeader),
        _ => Err(Error::new("unknown step")),
    }
}

/// Reads one member.
pub(crate) type Read<'a, T> = (&'static str, fn(&mut Json<'a>) -> Result<T>);

/// Reads an object of exactly two members.
pub(crate) fn pair<'a, A, B>(
    json: &mut Json<'a>,
    (first_name, first): Read<'a, A>,
    (second_name, second): Read<'a, B>,
) -> Result<(A, B)> {
    let (mut a, mut b) = (None, None);
    json.object(|key, json| {
        if key == first_name {
            a = Some(first(json)?);
        } else if key == second_name {
            b = Some(second(json)?);
        } else {
            return Err(Error::unknown_key());
        }
        Ok(())
    })?;
    match (a, b) {
        (Some(a), Some(b)) => Ok((a, b)),
        (None, _) => Err(Error::new("is missing").inside(format_args!("{first_name}"))),
        (_, None) => Err(Error::new("is missing").inside(format_args!("{second_name}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (text, want) in [
            (r#"{"requests":[]}"#, "requests: unknown key"),
            (r#"{"request":[{"set":{}}]}"#, "request[0].set: unknown step"),
            (r#"{"request":[{}]}"#, "request[0]: an empty step"),
            (
                r#"{"request":[{"remove_header":"a","set_header":{}}]}"#,
                "request[0].set_header: a step is one thing",
            ),
            (
                r#"{"request":[{"set_header":{"name":"a"}}]}"#,
                "request[0].set_header.value: is missing",
            ),
            (
                r#"{"request":[{"set_header":{"name":"Host","value":"x"}}]}"#,
                "request[0].set_header.name: is a header of the edge's own",
            ),
            (
                r#"{"response":[{"rewrite_prefix":{"from":"/a","to":"/b"}}]}"#,
                "response[0].rewrite_prefix: unknown step",
            ),
            (r#"{"signing":{"secret":"short"}}"#, "signing.secret: is shorter than 16 bytes"),
        ] {
            let error = Config::read(text).expect_err(text).to_string();
            assert!(error.starts_with(want), "{error}");
        }
    }

    #[test]
    fn no_error_repeats_the_secret() {
        let text = r#"{"signing":{"secret":"hunter2hunter2hunter2","headers":[1]}}"#;
        let error = Config::read(text).expect_err("headers are wrong").to_string();
        assert_eq!(error, "signing.headers[0]: expected a string");
        let error = Config::read(r#"{"signing":{"secret":"hunter2"}}"#).expect_err("too short");
        assert!(!error.to_string().contains("hunter2"));
    }
}
