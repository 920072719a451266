//! Signs the forwarded request, so that the backend knows it came through the edge.
//!
//! HMAC-SHA256 over lines that can't run into each other; the README has them and how to
//! verify. Invariant: a header that is signed is signed as it is forwarded, absent ones
//! as absent.

use alloc::{borrow::Cow, format, string::String, vec::Vec};
use core::fmt::{self, Write};

use hmac::{Hmac, KeyInit, Mac};
use kit::{
    field,
    json::{Error, Json, Result},
};
use sha2::Sha256;

/// Bytes of a secret. 16: what can't be guessed; shorter ones are mistakes.
const SECRET_BYTES_MIN: usize = 16;
/// Signed headers. 16: each one is a call out of the sandbox.
const HEADERS_MAX: usize = 16;

/// How requests are signed.
pub struct Signing<'a> {
    /// HMAC keyed with the secret.
    keyed: Hmac<Sha256>,
    /// The header that carries the signature.
    pub header: Cow<'a, str>,
    /// Headers that it covers, in order.
    pub headers: Vec<Cow<'a, str>>,
}

impl fmt::Debug for Signing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signing").field("headers", &self.headers).finish_non_exhaustive()
    }
}

impl<'a> Signing<'a> {
    pub(crate) fn read(json: &mut Json<'a>) -> Result<Self> {
        let (mut keyed, mut header, mut headers) = (None, Cow::Borrowed("x-signature"), Vec::new());
        json.object(|key, json| {
            match &**key {
                "secret" => keyed = Some(key_of(&json.string()?)?),
                "header" => header = field::writable_name(json)?,
                "headers" => headers = json.array(field::name)?,
                _ => return Err(Error::unknown_key()),
            }
            Ok(())
        })?;
        if headers.len() > HEADERS_MAX {
            return Err(Error::new("more than 16 headers"));
        }
        let keyed = keyed.ok_or_else(|| Error::new("needs a \"secret\""))?;
        Ok(Self { keyed, header, headers })
    }

    /// The value of the signature header. `values` gives the values of a header, one per
    /// field line.
    pub fn sign(
        &self,
        received_at_ms: u64,
        method: &str,
        path_and_query: &str,
        values: impl Fn(&str) -> Vec<Vec<u8>>,
    ) -> String {
        let seconds = received_at_ms / 1000;
        let mut mac = self.keyed.clone();
        mac.update(format!("v1\n{seconds}\n{method}\n{path_and_query}\n").as_bytes());
        for name in &self.headers {
            mac.update(name.as_bytes());
            for (at, value) in values(name).iter().enumerate() {
                mac.update(if at == 0 { b":" } else { b", " });
                mac.update(value);
            }
            mac.update(b"\n");
        }
        let mut signature = format!("t={seconds},v1=");
        for byte in mac.finalize().into_bytes() {
            // Writing to a String can't fail.
            let _ = write!(signature, "{byte:02x}");
        }
        signature
    }
}

fn key_of(secret: &str) -> Result<Hmac<Sha256>> {
    if secret.len() < SECRET_BYTES_MIN {
        return Err(Error::new("is shorter than 16 bytes"));
    }
    Hmac::new_from_slice(secret.as_bytes()).map_err(|_| Error::new("is no key"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sign(headers: &str, values: impl Fn(&str) -> Vec<Vec<u8>>) -> String {
        let text = format!(r#"{{"s":{{"secret":"0123456789abcdef","headers":{headers}}}}}"#);
        let mut got = String::new();
        Json::document(&text, |_, json| {
            got = Signing::read(json)?.sign(1_700_000_000_999, "POST", "/a?b=c", &values);
            Ok(())
        })
        .expect("a signing config");
        got
    }

    /// The expected values come from Python's `hmac`:
    /// `hmac.new(b"0123456789abcdef", b"v1\n1700000000\nPOST\n/a?b=c\n", "sha256")`.
    #[test]
    fn the_signature_is_what_another_implementation_computes() {
        assert_eq!(
            sign("[]", |_| Vec::new()),
            "t=1700000000,v1=8d0f412e6d6dceaaf551732c0358dab9386744825c93cf1c6ea57a36c4d7e2d9"
        );
        let values = |name: &str| match name {
            "content-type" => vec![b"text/plain".to_vec()],
            "x-many" => vec![b"a".to_vec(), b"b".to_vec()],
            _ => Vec::new(),
        };
        let signed = sign(r#"["Content-Type","x-many","x-absent"]"#, values);
        assert_eq!(
            signed,
            "t=1700000000,v1=10d8adcf91e2a321cf21d04d36ce08a6024afa2272c74e946a4f3bc620835b53"
        );
    }

    #[test]
    fn an_absent_header_and_an_empty_one_are_signed_differently() {
        let absent = sign(r#"["x-a"]"#, |_| Vec::new());
        assert_ne!(absent, sign(r#"["x-a"]"#, |_| vec![Vec::new()]));
    }
}
