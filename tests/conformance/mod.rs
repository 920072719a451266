//! What the edge writes to an origin has one reading: a differential run.
//!
//! Mutated requests go through the real edge ([`mutants`]). The origin records every byte of
//! every connection and reads it by the narrowest grammar there is ([`recorder`]); then
//! servers and parsers of other families read the same bytes ([`readers`]) and must find the
//! same requests. Checklist A22 and A23 of the data plane's design.
//!
//! Invariant: an origin, whatever it is written in, finds the requests that the edge judged,
//! no other and no more; and a client gets no answer to another client's request.

mod differential;
mod mutants;
mod readers;
mod recorder;
mod seed;
