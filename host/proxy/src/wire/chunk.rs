//! The grammar of a chunked body (RFC 9112 7.1), in its strictest reading.
//!
//! Sees every byte of a chunked body once. Extensions and trailers are bounded in sum.
//! Invariant: the end found here is the end that hyper finds.

use super::{is_field_value, is_token};
use crate::{config::Limits, rescue::Flaw};

/// Hex digits of a chunk size: 2^60 bytes are more than any body.
const SIZE_DIGITS_MAX: u8 = 15;

/// Progress in one chunked body.
#[derive(Debug)]
pub(crate) struct Chunks {
    state: State,
    size: u64,
    digits: u8,
    extension_left: usize,
    trailer_left: usize,
    fields_left: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    FieldStart,
    FieldName,
    FieldValue,
    FieldLf,
    EndLf,
    Done,
}

impl Chunks {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            state: State::Size,
            size: 0,
            digits: 0,
            extension_left: limits.chunk_ext_bytes_max,
            trailer_left: limits.h1_head_bytes_max,
            fields_left: limits.header_fields_max,
        }
    }

    /// Whether the body is over.
    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Reads on and returns how many bytes belong to this body.
    ///
    /// # Errors
    /// The bytes are no chunked body; the connection cannot be read any further.
    pub(crate) fn feed(&mut self, input: &[u8]) -> Result<usize, Flaw> {
        let mut at = 0;
        while let Some(&byte) = input.get(at) {
            match self.state {
                State::Done => break,
                State::Data => {
                    let here = input.len() - at;
                    let taken = usize::try_from(self.size).unwrap_or(usize::MAX).min(here);
                    self.size -= taken as u64;
                    at += taken;
                    if self.size == 0 {
                        self.state = State::DataCr;
                    }
                }
                _ => {
                    self.step(byte)?;
                    at += 1;
                }
            }
        }
        Ok(at)
    }

    fn step(&mut self, byte: u8) -> Result<(), Flaw> {
        self.state = match (self.state, byte) {
            (State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => self.digit(byte)?,
            (State::Size, b';') if self.digits > 0 => State::Extension,
            (State::Size, b'\r') if self.digits > 0 => State::SizeLf,
            (State::Extension, b'\r') => State::SizeLf,
            (State::Extension, b'\t' | b' '..=b'~') => {
                self.extension_left = self.extension_left.checked_sub(1).ok_or(Flaw::Chunk)?;
                State::Extension
            }
            (State::SizeLf, b'\n') => {
                self.digits = 0;
                if self.size == 0 { State::FieldStart } else { State::Data }
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size,
            (State::Size | State::Extension | State::SizeLf | State::DataCr | State::DataLf, _) => {
                return Err(Flaw::Chunk);
            }
            (state, byte) => self.trailer(state, byte)?,
        };
        Ok(())
    }

    fn digit(&mut self, byte: u8) -> Result<State, Flaw> {
        let value = char::from(byte).to_digit(16).ok_or(Flaw::Chunk)?;
        self.digits += 1;
        if self.digits > SIZE_DIGITS_MAX {
            return Err(Flaw::Chunk);
        }
        self.size = self.size << 4 | u64::from(value);
        Ok(State::Size)
    }

    fn trailer(&mut self, state: State, byte: u8) -> Result<State, Flaw> {
        self.trailer_left = self.trailer_left.checked_sub(1).ok_or(Flaw::Trailer)?;
        match (state, byte) {
            (State::FieldStart, b'\r') => Ok(State::EndLf),
            (State::EndLf, b'\n') => Ok(State::Done),
            (State::FieldStart, byte) if is_token(byte) => {
                self.fields_left = self.fields_left.checked_sub(1).ok_or(Flaw::Trailer)?;
                Ok(State::FieldName)
            }
            (State::FieldName, b':') => Ok(State::FieldValue),
            (State::FieldName, byte) if is_token(byte) => Ok(State::FieldName),
            (State::FieldValue, b'\r') => Ok(State::FieldLf),
            (State::FieldLf, b'\n') => Ok(State::FieldStart),
            (State::FieldValue, byte) if is_field_value(byte) => Ok(State::FieldValue),
            _ => Err(Flaw::Trailer),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn feed(body: &[u8]) -> Result<(usize, bool), Flaw> {
        let mut chunks = Chunks::new(&Limits::default());
        let used = chunks.feed(body)?;
        Ok((used, chunks.is_done()))
    }

    #[test]
    fn a_body_ends_after_its_trailers() {
        for (body, used) in [
            ("0\r\n\r\nGET", 5),
            ("5\r\nhello\r\n0\r\n\r\n", 15),
            ("a;x=\"y z\"\r\n0123456789\r\n00\r\nx: y\r\nz:\r\n\r\nNEXT", 39),
        ] {
            assert_eq!(feed(body.as_bytes()), Ok((used, true)), "{body:?}");
        }
        assert_eq!(feed(b"5\r\nhello\r\n"), Ok((10, false)));
    }

    #[test]
    fn anything_else_is_refused() {
        for body in [
            "5\nhello\r\n0\r\n\r\n",
            "5\r\r\nhello",
            " 5\r\nhello",
            "5 \r\nhello",
            "0x5\r\nhello",
            "-0\r\n\r\n",
            "+5\r\nhello",
            "\r\nhello",
            ";x\r\n",
            "00000000000000005\r\nhello",
            "5\r\nhello0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "5;a\nb\r\nhello",
            "5;a\0b\r\nhello",
            "5;a\u{e9}b\r\nhello",
            "0\r\nx\r\n\r\n",
            "0\r\n x: y\r\n\r\n",
            "0\r\nx y: z\r\n\r\n",
            "0\r\nx: \0\r\n\r\n",
            "0\r\nx: y\n\r\n",
            "0\r\n\n",
        ] {
            assert!(feed(body.as_bytes()).is_err(), "{body:?}");
        }
        let extension = format!("5;{}\r\nhello", "x".repeat(20_000));
        assert_eq!(feed(extension.as_bytes()), Err(Flaw::Chunk));
        let trailers = format!("0\r\nx: {}\r\n\r\n", "y".repeat(20_000));
        assert_eq!(feed(trailers.as_bytes()), Err(Flaw::Trailer));
        let trailers = format!("0\r\n{}\r\n", "x: y\r\n".repeat(101));
        assert_eq!(feed(trailers.as_bytes()), Err(Flaw::Trailer));
    }

    proptest! {
        #[test]
        fn where_it_is_cut_does_not_matter(
            sizes in proptest::collection::vec(1_usize..40, 0..5), cuts in proptest::collection::vec(1_usize..20, 1..40),
        ) {
            let mut body: String =
                sizes.iter().map(|size| format!("{size:x}\r\n{}\r\n", "\n".repeat(*size))).collect();
            body.push_str("0\r\nt: v\r\n\r\n");
            let mut chunks = Chunks::new(&Limits::default());
            let mut rest = body.as_bytes();
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                prop_assert_eq!(chunks.feed(now), Ok(now.len()));
                rest = later;
                if rest.is_empty() { break; }
            }
            prop_assert!(chunks.is_done());
            prop_assert_eq!(chunks.feed(b"GET"), Ok(0));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = feed(&bytes);
        }
    }
}
