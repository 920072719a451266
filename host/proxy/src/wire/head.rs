//! The grammar of an HTTP/1 request head (RFC 9112), in its strictest reading.
//!
//! Called once per head, with all its bytes. Invariant: whatever passes has one reading;
//! the framing returned is the one that hyper will find.

use memchr::memchr;

use super::{is_field_value, is_token};
use crate::{
    config::Limits,
    rescue::{Flaw, Reason},
};

/// How a request's body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is none.
    None,
    /// So many bytes.
    Length(u64),
    /// Chunks and a trailer section.
    Chunked,
}

/// Looks for the empty line that ends a head. `line_start` is where the first line not yet
/// seen whole begins; it moves on, so that a head that comes in pieces is scanned once.
///
/// # Errors
/// A line that does not end in CRLF.
pub(crate) fn find_end(buffer: &[u8], line_start: &mut usize) -> Result<Option<usize>, Flaw> {
    while let Some(found) = buffer.get(*line_start..).and_then(|rest| memchr(b'\n', rest)) {
        let newline = *line_start + found;
        if found == 0 || buffer.get(newline - 1) != Some(&b'\r') {
            return Err(Flaw::LineEnd);
        }
        *line_start = newline + 1;
        if found == 1 {
            return Ok(Some(newline + 1));
        }
    }
    Ok(None)
}

/// Judges a whole head, its empty line included.
///
/// # Errors
/// The reason of the refusal.
pub(crate) fn check(head: &[u8], limits: &Limits) -> Result<Framing, Reason> {
    let mut lines = Lines(head);
    let line = lines.next().ok_or(Reason::Malformed(Flaw::RequestLine))?;
    let version = request_line(line, limits)?;
    let mut fields = Fields::default();
    let mut count = 0;
    for line in lines {
        count += 1;
        if count > limits.header_fields_max {
            return Err(Reason::HeadTooLarge);
        }
        fields.take(line).map_err(Reason::Malformed)?;
    }
    fields.framing(version).map_err(Reason::Malformed)
}

/// The lines of a head up to its empty one, without their CRLF.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let end = memchr(b'\n', self.0)?;
        let (line, rest) = self.0.split_at_checked(end + 1)?;
        self.0 = rest;
        let line = line.strip_suffix(b"\r\n")?;
        (!line.is_empty()).then_some(line)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    Http10,
    Http11,
}

fn request_line(line: &[u8], limits: &Limits) -> Result<Version, Reason> {
    let malformed = Reason::Malformed(Flaw::RequestLine);
    let method_end = memchr(b' ', line).ok_or(malformed)?;
    let (method, rest) = line.split_at_checked(method_end).ok_or(malformed)?;
    if method.is_empty() || !method.iter().copied().all(is_token) {
        return Err(malformed);
    }
    let rest = rest.get(1..).ok_or(malformed)?;
    let target_end = memchr(b' ', rest).ok_or(malformed)?;
    let (target, version) = rest.split_at_checked(target_end).ok_or(malformed)?;
    if target.len() > limits.uri_bytes_max {
        return Err(Reason::UriTooLong);
    }
    if target.is_empty() {
        return Err(malformed);
    }
    let plain = |byte: &u8| (b'!'..=b'~').contains(byte) && *byte != b'#';
    if !target.iter().all(plain) {
        return Err(Reason::Malformed(Flaw::Target));
    }
    let version = match version {
        b" HTTP/1.1" => Version::Http11,
        b" HTTP/1.0" => Version::Http10,
        version if version.starts_with(b" HTTP/") && !version.get(1..).is_some_and(has_blank) => {
            return Err(Reason::Malformed(Flaw::Version));
        }
        _ => return Err(malformed),
    };
    if method == b"CONNECT" {
        return Err(Reason::MethodNotAllowed);
    }
    Ok(version)
}

fn has_blank(bytes: &[u8]) -> bool {
    bytes.iter().any(|byte| byte.is_ascii_whitespace())
}

/// What the fields say about the body.
#[derive(Default)]
struct Fields {
    length: Option<u64>,
    chunked: bool,
}

impl Fields {
    fn take(&mut self, line: &[u8]) -> Result<(), Flaw> {
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return Err(Flaw::Folding);
        }
        let colon = memchr(b':', line).ok_or(Flaw::FieldName)?;
        let (name, value) = line.split_at_checked(colon).ok_or(Flaw::FieldName)?;
        if name.is_empty() || !name.iter().copied().all(is_token) {
            return Err(Flaw::FieldName);
        }
        let value = value.get(1..).unwrap_or_default();
        field_value(value)?;
        match name.len() {
            14 if name.eq_ignore_ascii_case(b"content-length") => self.content_length(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.transfer_encoding(value),
            _ => Ok(()),
        }
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), Flaw> {
        let digits = trim(value);
        let canonical = digits == b"0" || digits.first().is_some_and(|first| *first != b'0');
        let canonical = canonical && digits.iter().all(u8::is_ascii_digit);
        let number = std::str::from_utf8(digits).ok().and_then(|text| text.parse::<u64>().ok());
        // hyper keeps the two largest numbers for itself.
        match number.filter(|number| canonical && *number < u64::MAX - 1) {
            Some(number) if self.length.is_none() => {
                self.length = Some(number);
                Ok(())
            }
            _ => Err(Flaw::ContentLength),
        }
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Flaw> {
        if self.chunked || !trim(value).eq_ignore_ascii_case(b"chunked") {
            return Err(Flaw::TransferEncoding);
        }
        self.chunked = true;
        Ok(())
    }

    fn framing(&self, version: Version) -> Result<Framing, Flaw> {
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(Flaw::BothLengths),
            (true, None) if version == Version::Http10 => Err(Flaw::TransferEncoding),
            (true, None) => Ok(Framing::Chunked),
            (false, Some(1..)) => Ok(Framing::Length(self.length.unwrap_or(0))),
            (false, Some(0) | None) => Ok(Framing::None),
        }
    }
}

/// Accepts visible ASCII, blanks and well-formed UTF-8; nothing that a later parser could
/// take for a line end.
pub(crate) fn field_value(value: &[u8]) -> Result<(), Flaw> {
    if !value.iter().copied().all(is_field_value) {
        return Err(Flaw::FieldValue);
    }
    match std::str::from_utf8(value) {
        Ok(_) => Ok(()),
        Err(_) => Err(Flaw::FieldValue),
    }
}

fn trim(value: &[u8]) -> &[u8] {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value.iter().position(|byte| !blank(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !blank(byte)).map_or(start, |at| at + 1);
    value.get(start..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn judge(lines: &str) -> Result<Framing, Reason> {
        check(format!("{lines}\r\n\r\n").as_bytes(), &Limits::default())
    }

    #[test]
    fn well_formed_heads_tell_their_framing() {
        for (head, framing) in [
            ("GET / HTTP/1.1\r\nHost: a", Framing::None),
            ("GET / HTTP/1.0", Framing::None),
            ("POST / HTTP/1.1\r\ncontent-length:  10 ", Framing::Length(10)),
            ("POST / HTTP/1.1\r\nContent-Length: 0", Framing::None),
            ("POST / HTTP/1.1\r\nTransfer-Encoding:chunked", Framing::Chunked),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: CHUNKED\t", Framing::Chunked),
            ("GET http://a/b HTTP/1.1\r\nx: é", Framing::None),
            ("GET / HTTP/1.1\r\nx:", Framing::None),
        ] {
            assert_eq!(judge(head), Ok(framing), "{head:?}");
        }
    }

    #[test]
    fn a_head_with_two_readings_is_refused() {
        use Flaw::*;
        for (head, flaw) in [
            ("GET  / HTTP/1.1", RequestLine),
            ("GET\t/ HTTP/1.1", RequestLine),
            ("GET / HTTP/1.1 ", RequestLine),
            ("GET /", RequestLine),
            (" / HTTP/1.1", RequestLine),
            ("G(T / HTTP/1.1", RequestLine),
            ("GET / HTTP/1.32", Version),
            ("GET / HTTP/2.0", Version),
            ("GET / HTTP/4294967295.255", Version),
            ("GET /#f HTTP/1.1", Target),
            ("GET /\u{e9} HTTP/1.1", Target),
            ("GET /\r HTTP/1.1", Target),
            ("GET / HTTP/1.1\r\nx : y", FieldName),
            ("GET / HTTP/1.1\r\n: y", FieldName),
            ("GET / HTTP/1.1\r\nx\u{e9}: y", FieldName),
            ("GET / HTTP/1.1\r\nxy", FieldName),
            ("GET / HTTP/1.1\r\nx: y\r\n z", Folding),
            ("GET / HTTP/1.1\r\nx: y\r\n\tz: 1", Folding),
            ("GET / HTTP/1.1\r\nx: \0", FieldValue),
            ("GET / HTTP/1.1\r\nx: a\rb", FieldValue),
            ("GET / HTTP/1.1\r\nx: \u{7f}", FieldValue),
            ("POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked", BothLengths),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5", BothLengths),
            ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked", TransferEncoding),
        ] {
            assert_eq!(judge(head), Err(Reason::Malformed(flaw)), "{head:?}");
        }
    }

    #[test]
    fn only_one_canonical_content_length_passes() {
        for value in
            ["+5", "-1", "0x10", "1_0", "5 5", "5, 5", "", "1Z", "18446744073709551616", "010"]
        {
            let head = format!("POST / HTTP/1.1\r\nContent-Length: {value}");
            assert_eq!(judge(&head), Err(Reason::Malformed(Flaw::ContentLength)), "{value:?}");
        }
        for lines in
            ["Content-Length: 5\r\nContent-Length: 5", "Content-Length:\r\nContent-Length: 5"]
        {
            let head = format!("POST / HTTP/1.1\r\n{lines}");
            assert_eq!(judge(&head), Err(Reason::Malformed(Flaw::ContentLength)), "{lines:?}");
        }
    }

    #[test]
    fn only_exactly_chunked_passes() {
        for value in [
            "xchunked",
            "chunked, identity",
            "identity, chunked",
            "gzip, chunked",
            ",chunked",
            "chunked;a=b",
            "chunked,",
            "identity",
            "",
            "chunked, chunked",
            "\u{b}chunked",
        ] {
            let head = format!("POST / HTTP/1.1\r\nTransfer-Encoding: {value}");
            assert!(judge(&head).is_err(), "{value:?}");
        }
        let raw = b"POST / HTTP/1.1\r\nTransfer-Encoding: \xa0chunked\r\n\r\n";
        assert!(check(raw, &Limits::default()).is_err());
        let twice = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked";
        assert!(judge(twice).is_err());
    }

    #[test]
    fn sizes_have_their_own_answers() {
        let long = format!("GET /{} HTTP/1.1", "a".repeat(9_000));
        assert_eq!(judge(&long), Err(Reason::UriTooLong));
        let many = format!("GET / HTTP/1.1{}", "\r\nx: y".repeat(101));
        assert_eq!(judge(&many), Err(Reason::HeadTooLarge));
        assert_eq!(judge("CONNECT a:1 HTTP/1.1"), Err(Reason::MethodNotAllowed));
    }

    proptest! {
        /// Where we see a body, httparse must find the same head and the same end.
        #[test]
        fn what_passes_is_parsed_alike_by_httparse(
            head in "(GET|POST|P T) (/[a-z%#]{0,5}|\\*|http://a/) ?HTTP/1\\.[012](\r\n(x|host|Content-Length|Transfer-Encoding| y|z ):[ 0-9a-f]{0,4}(chunked)?){0,4}(\r\n|\n|\r)",
        ) {
            let mut bytes = head.into_bytes();
            bytes.extend_from_slice(b"\r\nREST");
            let mut line_start = 0;
            let Ok(Some(end)) = find_end(&bytes, &mut line_start) else { return Ok(()) };
            if check(&bytes[..end], &Limits::default()).is_ok() {
                let mut fields = [httparse::EMPTY_HEADER; 100];
                let mut request = httparse::Request::new(&mut fields);
                let parsed = request.parse(&bytes);
                prop_assert_eq!(parsed, Ok(httparse::Status::Complete(end)));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut line_start = 0;
            if let Ok(Some(end)) = find_end(&bytes, &mut line_start) {
                let _ = check(&bytes[..end], &Limits::default());
            }
            let _ = check(&bytes, &Limits::default());
        }

        #[test]
        fn a_head_in_pieces_ends_where_a_whole_one_does(
            lines in proptest::collection::vec("[a-z:\r]{0,6}(\r\n|\r\n|\n)", 0..6), cut in 0_usize..40,
        ) {
            let text = lines.concat() + "\r\n";
            let cut = cut.min(text.len());
            let (mut whole, mut pieces) = (0, 0);
            let want = find_end(text.as_bytes(), &mut whole);
            let got = match find_end(&text.as_bytes()[..cut], &mut pieces) {
                Ok(None) => find_end(text.as_bytes(), &mut pieces),
                other => other,
            };
            prop_assert_eq!(got, want);
        }
    }
}
