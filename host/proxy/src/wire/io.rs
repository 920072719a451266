//! What hyper reads a client from and writes it to.
//!
//! HTTP/1 bytes pass the [`Gate`]; HTTP/2 bytes pass as they are. Reading goes through one
//! buffer per worker, so an idle connection holds none of its own. Invariant: every wait
//! on the client has a deadline: for a head, for a body that somebody awaits, for a write.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use hyper::rt::ReadBufCursor;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::gate::Gate;
use crate::{
    connection::Connection,
    rescue::{Flaw, Reason},
    server::stream::Stream,
    timer::Slot,
    worker::Worker,
};

/// The buffer that all connections of a worker read through.
pub(crate) type Scratch = Rc<RefCell<Box<[u8]>>>;

/// Bytes of it: one read of a bulk body.
const SCRATCH_BYTES: usize = 64 * 1024;

/// Makes a worker's buffer.
pub(crate) fn scratch() -> Scratch {
    Rc::new(RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice()))
}

/// A client's socket.
pub(crate) struct Downstream {
    stream: Stream,
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    gate: Option<Gate>,
    /// Passed by the gate, not yet taken by hyper.
    passed: BytesMut,
    write_slot: Slot,
    linger: Linger,
}

enum Linger {
    Open,
    /// The write side is shut; so many bytes may still be thrown away.
    Draining(usize),
}

impl Downstream {
    /// Wraps a socket of which `first` was already read. `gated` for HTTP/1.
    pub(crate) fn new(
        stream: Stream,
        worker: &Rc<Worker>,
        connection: &Rc<Connection>,
        gated: bool,
        first: &[u8],
    ) -> Self {
        let mut this = Self {
            stream,
            worker: Rc::clone(worker),
            connection: Rc::clone(connection),
            gate: gated.then(Gate::new),
            passed: BytesMut::new(),
            write_slot: worker.wheel.slot(),
            linger: Linger::Open,
        };
        match &mut this.gate {
            Some(gate) => {
                let passed = &mut this.passed;
                gate.feed(first, &worker.config.limits, |bytes| passed.extend_from_slice(bytes));
                connection.take_verdict(gate);
            }
            None => this.passed.extend_from_slice(first),
        }
        this
    }

    /// The deadline of a read that found nothing, and what its passing means.
    fn await_bytes(&mut self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let limits = &self.worker.config.limits;
        match &self.gate {
            Some(gate) if gate.awaits_head() => {
                if self.connection.is_idle() || gate.is_inside_head() {
                    self.connection.read_slot.arm_once(limits.head_timeout_ms);
                } else {
                    self.connection.read_slot.disarm();
                }
                // The end of the stream: hyper closes without a word.
                self.connection.read_slot.poll(cx).map(Ok)
            }
            Some(_) => {
                self.connection.read_slot.arm_once(limits.body_idle_timeout_ms);
                ready!(self.connection.read_slot.poll(cx));
                self.connection.break_body(Reason::BodyTimeout);
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            None => Poll::Pending,
        }
    }

    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBufCursor<'_>,
    ) -> Poll<io::Result<usize>> {
        let scratch = Rc::clone(&self.worker.scratch);
        let mut scratch = scratch.borrow_mut();
        let room = buf.remaining().min(scratch.len());
        let mut read = ReadBuf::new(scratch.get_mut(..room).unwrap_or_default());
        if Pin::new(&mut self.stream).poll_read(cx, &mut read)?.is_pending() {
            return self.await_bytes(cx).map_ok(|()| 0);
        }
        self.connection.read_slot.disarm();
        let filled = read.filled();
        match &mut self.gate {
            None => buf.put_slice(filled),
            Some(gate) => {
                let passed = &mut self.passed;
                gate.feed(filled, &self.worker.config.limits, |bytes| {
                    if passed.is_empty() && bytes.len() <= buf.remaining() {
                        buf.put_slice(bytes);
                    } else {
                        passed.extend_from_slice(bytes);
                    }
                });
                self.connection.take_verdict(gate);
            }
        }
        Poll::Ready(Ok(filled.len()))
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let scratch = Rc::clone(&self.worker.scratch);
        let mut scratch = scratch.borrow_mut();
        while let Linger::Draining(left) = &mut self.linger {
            let mut read = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.stream).poll_read(cx, &mut read) {
                Poll::Pending => return self.connection.read_slot.poll(cx),
                Poll::Ready(Err(_)) => break,
                Poll::Ready(Ok(())) if read.filled().is_empty() => break,
                Poll::Ready(Ok(())) => match left.checked_sub(read.filled().len()) {
                    Some(rest) => *left = rest,
                    None => break,
                },
            }
        }
        Poll::Ready(())
    }

    fn written(
        &mut self,
        cx: &Context<'_>,
        wrote: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if wrote.is_pending() {
            self.write_slot.arm_once(self.worker.config.limits.write_stall_timeout_ms);
            ready!(self.write_slot.poll(cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        self.write_slot.disarm();
        wrote
    }
}

impl hyper::rt::Read for Downstream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let room = buf.remaining();
        loop {
            if !self.passed.is_empty() {
                let ready = self.passed.len().min(buf.remaining());
                buf.put_slice(self.passed.get(..ready).unwrap_or_default());
                self.passed.advance(ready);
            }
            if buf.remaining() < room {
                return Poll::Ready(Ok(()));
            }
            if let Some(gate) = &self.gate {
                if gate.broken().is_some() {
                    return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
                }
                if gate.is_closed() {
                    // Only the refusal is left to write; writing it wakes the task.
                    return Poll::Pending;
                }
            }
            if ready!(self.poll_fill(cx, &mut buf))? == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl hyper::rt::Write for Downstream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.written(cx, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.written(cx, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Under TLS a record may be written in part.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx).map_ok(|()| 0);
        self.written(cx, flushed).map_ok(|_| ())
    }

    /// Shuts the write side. When the client may still be sending, what it sends is thrown
    /// away for a moment: closing over unread bytes would reset the connection and could
    /// cost the client the answer.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if matches!(self.linger, Linger::Open) {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            if self.gate.as_ref().is_none_or(|gate| gate.is_clean() && self.passed.is_empty()) {
                return Poll::Ready(Ok(()));
            }
            let limits = &self.worker.config.limits;
            self.connection.read_slot.arm(limits.linger_timeout_ms);
            self.linger = Linger::Draining(limits.unread_body_drain_bytes_max);
        }
        self.poll_drain(cx).map(Ok)
    }
}

impl From<Flaw> for Reason {
    fn from(flaw: Flaw) -> Self {
        Self::Malformed(flaw)
    }
}
