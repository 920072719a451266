//! Reads a policy's config straight into its own types.
//!
//! Called in `configure`; an instance that lives for one request runs it once per
//! request, so there is no tree in between and texts without escapes are borrowed.
//! Invariant: an error says where, as a path an author can search for
//! (`request[2].set_header.name: expected a string`).

use alloc::{borrow::Cow, format, string::String, vec::Vec};
use core::fmt;

/// Values inside values that [`Json::raw`] follows. 32: more than any config has; keeps the
/// recursion inside a small stack.
const DEPTH_MAX: usize = 32;

/// What is wrong with a config, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    path: String,
    reason: Cow<'static, str>,
}

/// Result of reading.
pub type Result<T, E = Error> = core::result::Result<T, E>;

impl Error {
    /// An error at the value being read.
    pub fn new(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { path: String::new(), reason: reason.into() }
    }

    /// The error of a member that nobody knows.
    #[must_use]
    pub fn unknown_key() -> Self {
        Self::new("unknown key")
    }

    /// The same error, seen from the object or list around it.
    #[must_use]
    pub fn inside(mut self, parent: fmt::Arguments<'_>) -> Self {
        let joint = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path = format!("{parent}{joint}{}", self.path);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.reason)
    }
}

/// A position in a JSON text.
#[derive(Debug)]
pub struct Json<'a> {
    rest: &'a str,
}

impl<'a> Json<'a> {
    /// Starts before the first value of a text.
    #[must_use]
    pub const fn at(text: &'a str) -> Self {
        Self { rest: text }
    }

    /// Reads a whole text as one object, member by member.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn document(
        text: &'a str,
        member: impl FnMut(&Cow<'a, str>, &mut Self) -> Result<()>,
    ) -> Result<()> {
        let mut json = Self::at(text);
        json.object(member)?;
        json.skip_space();
        if json.rest.is_empty() { Ok(()) } else { Err(Error::new("text after the config")) }
    }

    /// Reads an object; `member` is called with each key and has to read the value.
    ///
    /// # Errors
    /// When it is no object, or what `member` found.
    pub fn object(
        &mut self,
        mut member: impl FnMut(&Cow<'a, str>, &mut Self) -> Result<()>,
    ) -> Result<()> {
        self.expect('{', "expected an object")?;
        if self.take('}') {
            return Ok(());
        }
        loop {
            let key = self.string()?;
            self.expect(':', "expected ':'")?;
            member(&key, self).map_err(|error| error.inside(format_args!("{key}")))?;
            if !self.take(',') {
                return self.expect('}', "expected ',' or '}'");
            }
        }
    }

    /// Reads a list; `item` has to read one value.
    ///
    /// # Errors
    /// When it is no list, or what `item` found.
    pub fn array<T>(&mut self, mut item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        self.expect('[', "expected a list")?;
        let mut items = Vec::new();
        if self.take(']') {
            return Ok(items);
        }
        loop {
            let read = item(self);
            items.push(read.map_err(|error| error.inside(format_args!("[{}]", items.len())))?);
            if !self.take(',') {
                self.expect(']', "expected ',' or ']'")?;
                return Ok(items);
            }
        }
    }

    /// Reads a string.
    ///
    /// # Errors
    /// When it is none.
    pub fn string(&mut self) -> Result<Cow<'a, str>> {
        self.expect('"', "expected a string")?;
        let end = self.rest.find(['"', '\\']).ok_or_else(unterminated)?;
        let (plain, rest) = self.rest.split_at(end);
        if let Some(rest) = rest.strip_prefix('"') {
            self.rest = rest;
            return Ok(Cow::Borrowed(plain));
        }
        self.escaped_string().map(Cow::Owned)
    }

    /// Reads `true` or `false`.
    ///
    /// # Errors
    /// When it is neither.
    pub fn boolean(&mut self) -> Result<bool> {
        match self.raw()? {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(Error::new("expected true or false")),
        }
    }

    /// Whether the next value is a string.
    pub fn is_string(&mut self) -> bool {
        self.skip_space();
        self.rest.starts_with('"')
    }

    /// Whether the next value is null; then it is read.
    pub fn null(&mut self) -> bool {
        self.skip_space();
        let rest = self.rest.strip_prefix("null");
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Reads any value as its text.
    ///
    /// # Errors
    /// When it is no JSON.
    pub fn raw(&mut self) -> Result<&'a str> {
        self.skip_space();
        let before = self.rest;
        self.skip(0)?;
        Ok(before.strip_suffix(self.rest).unwrap_or(before))
    }

    fn skip(&mut self, depth: usize) -> Result<()> {
        if depth == DEPTH_MAX {
            return Err(Error::new("nested too deeply"));
        }
        self.skip_space();
        match self.rest.as_bytes().first() {
            Some(b'{') => self.object(|_, json| json.skip(depth + 1)),
            Some(b'[') => self.array(|json| json.skip(depth + 1)).map(|_| ()),
            Some(b'"') => self.string().map(|_| ()),
            _ => self.skip_scalar(),
        }
    }

    fn skip_scalar(&mut self) -> Result<()> {
        let end = self.rest.find([',', '}', ']', ' ', '\n', '\r', '\t']);
        let (scalar, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        if !(["true", "false", "null"].contains(&scalar) || is_number(scalar)) {
            return Err(Error::new("expected a value"));
        }
        self.rest = rest;
        Ok(())
    }

    fn escaped_string(&mut self) -> Result<String> {
        let mut text = String::new();
        loop {
            let end = self.rest.find(['"', '\\']).ok_or_else(unterminated)?;
            let (plain, rest) = self.rest.split_at(end);
            text.push_str(plain);
            let mut rest = rest.chars();
            let quote = rest.next() == Some('"');
            self.rest = rest.as_str();
            if quote {
                return Ok(text);
            }
            text.push(self.escape()?);
        }
    }

    fn escape(&mut self) -> Result<char> {
        let mut rest = self.rest.chars();
        let escape = rest.next().ok_or_else(unterminated)?;
        self.rest = rest.as_str();
        Ok(match escape {
            '"' | '\\' | '/' => escape,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => return self.unicode_escape(),
            _ => return Err(Error::new("unknown escape in a string")),
        })
    }

    fn unicode_escape(&mut self) -> Result<char> {
        let broken = || Error::new("broken \\u escape in a string");
        let high = self.hex4().ok_or_else(broken)?;
        if !(0xd800..0xdc00).contains(&high) {
            return char::from_u32(high).ok_or_else(broken);
        }
        self.rest = self.rest.strip_prefix("\\u").ok_or_else(broken)?;
        let low = self.hex4().filter(|low| (0xdc00..0xe000).contains(low)).ok_or_else(broken)?;
        char::from_u32(0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00)).ok_or_else(broken)
    }

    fn hex4(&mut self) -> Option<u32> {
        let (digits, rest) = self.rest.split_at_checked(4)?;
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        self.rest = rest;
        u32::from_str_radix(digits, 16).ok()
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\n', '\r', '\t']);
    }

    fn take(&mut self, token: char) -> bool {
        self.skip_space();
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn expect(&mut self, token: char, otherwise: &'static str) -> Result<()> {
        if self.take(token) { Ok(()) } else { Err(Error::new(otherwise)) }
    }
}

/// RFC 8259, section 6, but for leading zeros. (Parsing into a float would link 10 KiB.)
fn is_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let text = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let unsigned = |exponent: &str| digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent));
    digits(whole) && fraction.is_none_or(digits) && exponent.is_none_or(unsigned)
}

fn unterminated() -> Error {
    Error::new("a string without end")
}

#[cfg(test)]
mod tests;
