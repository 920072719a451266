//! Finds the requests in a client's HTTP/1 bytes and lets them pass one by one.
//!
//! Fed with whatever was read, it hands on heads only whole and only accepted. The first
//! head it refuses is replaced by a stand-in, so that hyper calls the service once more
//! and the refusal is answered in its turn, after the answers of earlier pipelined
//! requests; nothing passes after it. Invariant: the n-th head handed on is the n-th
//! request that hyper gives to the service, so a refusal is told by its number and cannot
//! be forged by a client.

use bytes::{Buf, BytesMut};

use super::{
    chunk::Chunks,
    head::{self, Framing},
};
use crate::{
    config::Limits,
    rescue::{Flaw, Reason},
};

/// What hyper parses in place of a refused head.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n";

/// The grammar's state on one connection.
#[derive(Debug)]
pub(crate) struct Gate {
    state: State,
    /// Bytes of a head that is not whole.
    held: BytesMut,
    line_start: usize,
    blank_line_seen: bool,
    heads: u64,
    refused: Option<(u64, Reason)>,
    broken: Option<Flaw>,
}

#[derive(Debug)]
enum State {
    Head,
    Length(u64),
    Chunked(Chunks),
    Closed,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self {
            state: State::Head,
            held: BytesMut::new(),
            line_start: 0,
            blank_line_seen: false,
            heads: 0,
            refused: None,
            broken: None,
        }
    }

    /// Number (from 1) and reason of the refused head, once there is one.
    pub(crate) fn refused(&self) -> Option<(u64, Reason)> {
        self.refused
    }

    /// Why the body in progress cannot be read on.
    pub(crate) fn broken(&self) -> Option<Flaw> {
        self.broken
    }

    /// Whether the next byte belongs to a head.
    pub(crate) fn awaits_head(&self) -> bool {
        matches!(self.state, State::Head)
    }

    /// Whether a head has begun and is not whole.
    pub(crate) fn is_inside_head(&self) -> bool {
        self.awaits_head() && !self.held.is_empty()
    }

    /// Whether nothing passes any more.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Whether the connection stands between two requests.
    pub(crate) fn is_clean(&self) -> bool {
        self.awaits_head() && self.held.is_empty()
    }

    /// Reads on; `pass` is called with the bytes that hyper may see.
    pub(crate) fn feed(&mut self, input: &[u8], limits: &Limits, mut pass: impl FnMut(&[u8])) {
        if self.held.is_empty() {
            self.read(input, limits, &mut pass);
        } else {
            self.held.extend_from_slice(input);
            let joined = std::mem::take(&mut self.held);
            self.read(&joined, limits, &mut pass);
        }
    }

    fn read(&mut self, mut input: &[u8], limits: &Limits, pass: &mut impl FnMut(&[u8])) {
        while !input.is_empty() {
            let used = match &mut self.state {
                State::Closed => return,
                State::Head => match self.head(input, limits, pass) {
                    Some(used) => used,
                    None => return,
                },
                State::Length(left) => {
                    let used = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                    *left -= used as u64;
                    if *left == 0 {
                        self.state = State::Head;
                    }
                    pass(input.get(..used).unwrap_or_default());
                    used
                }
                State::Chunked(chunks) => match chunks.feed(input) {
                    Ok(used) => {
                        if chunks.is_done() {
                            self.state = State::Head;
                        }
                        pass(input.get(..used).unwrap_or_default());
                        used
                    }
                    Err(flaw) => {
                        self.broken = Some(flaw);
                        self.state = State::Closed;
                        return;
                    }
                },
            };
            input.advance(used);
        }
    }

    /// Bytes used, or `None` when the input is used up or refused.
    fn head(
        &mut self,
        input: &[u8],
        limits: &Limits,
        pass: &mut impl FnMut(&[u8]),
    ) -> Option<usize> {
        match head::find_end(input, &mut self.line_start) {
            Ok(Some(end)) => {
                self.line_start = 0;
                self.whole(input.get(..end).unwrap_or_default(), limits, pass)?;
                Some(end)
            }
            Ok(None) => {
                self.partial(input, limits, pass);
                None
            }
            Err(flaw) => {
                self.refuse(Reason::Malformed(flaw), pass);
                None
            }
        }
    }

    fn whole(&mut self, head: &[u8], limits: &Limits, pass: &mut impl FnMut(&[u8])) -> Option<()> {
        // RFC 9112 2.2: one empty line before a request is forgiven.
        if head.len() == 2 && !self.blank_line_seen {
            self.blank_line_seen = true;
            return Some(());
        }
        let framing = match head.len() > limits.h1_head_bytes_max {
            true => Err(Reason::HeadTooLarge),
            false => head::check(head, limits),
        };
        match framing {
            Ok(framing) => {
                self.blank_line_seen = false;
                self.heads += 1;
                self.state = match framing {
                    Framing::None => State::Head,
                    Framing::Length(length) => State::Length(length),
                    Framing::Chunked => State::Chunked(Chunks::new(limits)),
                };
                pass(head);
                Some(())
            }
            Err(reason) => {
                self.refuse(reason, pass);
                None
            }
        }
    }

    fn partial(&mut self, input: &[u8], limits: &Limits, pass: &mut impl FnMut(&[u8])) {
        /// Room for method and version beside the target.
        const LINE_SLACK: usize = 64;
        if self.line_start == 0 && input.len() > limits.uri_bytes_max.saturating_add(LINE_SLACK) {
            self.refuse(Reason::UriTooLong, pass);
        } else if input.len() > limits.h1_head_bytes_max {
            self.refuse(Reason::HeadTooLarge, pass);
        } else {
            self.held.extend_from_slice(input);
        }
    }

    fn refuse(&mut self, reason: Reason, pass: &mut impl FnMut(&[u8])) {
        self.heads += 1;
        self.refused = Some((self.heads, reason));
        self.state = State::Closed;
        pass(STAND_IN);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn passed(gate: &mut Gate, pieces: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in pieces {
            gate.feed(piece, &Limits::default(), |bytes| out.extend_from_slice(bytes));
        }
        out
    }

    #[test]
    fn a_refused_head_is_replaced_and_nothing_follows_it() {
        let mut gate = Gate::new();
        let good = b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n";
        let out = passed(&mut gate, &[good, b"GET /b HTTP/1.1\nhost: a\r\n\r\n", good]);
        assert_eq!(out, [&good[..], STAND_IN].concat());
        assert_eq!(gate.refused(), Some((2, Reason::Malformed(Flaw::LineEnd))));
        assert!(gate.is_closed());
    }

    #[test]
    fn a_body_is_no_place_for_heads() {
        let mut gate = Gate::new();
        let wire = b"POST / HTTP/1.1\r\ncontent-length: 18\r\n\r\nGET /x HTTP/1.1\n\r\n";
        assert_eq!(passed(&mut gate, &[wire]), wire);
        assert_eq!(gate.refused(), None);
        assert!(gate.is_clean());
    }

    #[test]
    fn a_broken_chunk_ends_the_body_where_it_is() {
        let mut gate = Gate::new();
        let head = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
        assert_eq!(passed(&mut gate, &[head, b"5\r\nhello\r\n", b"zz\r\n"]).len(), head.len() + 10);
        assert_eq!(gate.broken(), Some(Flaw::Chunk));
    }

    #[test]
    fn heads_without_end_are_cut_off() {
        let mut gate = Gate::new();
        passed(&mut gate, &[b"GET /", &[b'a'; 9_000]]);
        assert_eq!(gate.refused(), Some((1, Reason::UriTooLong)));
        let mut gate = Gate::new();
        passed(&mut gate, &[b"GET / HTTP/1.1\r\nx: ", &[b'a'; 17_000]]);
        assert_eq!(gate.refused(), Some((1, Reason::HeadTooLarge)));
    }

    #[test]
    fn one_empty_line_before_a_request_is_forgiven() {
        let mut gate = Gate::new();
        let good = b"GET / HTTP/1.1\r\n\r\n";
        assert_eq!(passed(&mut gate, &[b"\r\n", good]), good);
        passed(&mut gate, &[b"\r\n\r\n"]);
        assert!(gate.is_closed());
    }

    proptest! {
        #[test]
        fn pieces_pass_as_the_whole_does(
            parts in proptest::collection::vec(
                prop_oneof![
                    Just("GET /a HTTP/1.1\r\nhost: a\r\n\r\n"),
                    Just("POST /b HTTP/1.1\r\ncontent-length: 5\r\n\r\nhe\nlo"),
                    Just("POST /c HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
                    Just("GET /bad HTTP/1.1\r\nhost : a\r\n\r\n"),
                    Just("\r\n"),
                ], 0..6),
            cuts in proptest::collection::vec(1_usize..30, 1..60),
        ) {
            let wire = parts.concat();
            let mut whole = Gate::new();
            let want = passed(&mut whole, &[wire.as_bytes()]);
            let mut pieces = Vec::new();
            let mut rest = wire.as_bytes();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                pieces.push(now);
                rest = later;
            }
            let mut cut = Gate::new();
            prop_assert_eq!(passed(&mut cut, &pieces), want);
            prop_assert_eq!(cut.refused(), whole.refused());
            prop_assert_eq!(cut.heads, whole.heads);
        }
    }
}
