//! The bytes of a client's connection, checked before hyper reads them.
//!
//! hyper and httparse accept messages with two readings, and some of what they accept is
//! invisible once parsed (bare LF, a dropped Content-Length, a collapsed duplicate). So
//! the raw head is judged here first ([`head`]), and chunked bodies on their way
//! ([`chunk`]); [`gate`] finds the heads, [`io`] is what hyper reads from. Invariant: hyper
//! sees no byte of an HTTP/1 head or chunk frame that this module has not accepted.

pub(crate) mod chunk;
pub(crate) mod gate;
pub(crate) mod head;
pub(crate) mod io;

/// RFC 9110 5.6.2: the bytes of a token (method, field name).
pub(crate) const fn is_token(byte: u8) -> bool {
    matches!(byte,
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\''
        | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
}

/// The bytes of a field value; those above ASCII must also form UTF-8.
pub(crate) const fn is_field_value(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}
