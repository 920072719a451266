//! A TCP proxy that misbehaves on request: what a network does to a client and its server.
//!
//! Two threads per connection, so that it serves any test, with a runtime or without.
//! Invariant: it does nothing that TCP cannot do. A stream that lost bytes never delivers
//! later ones: it is silent until it is cut.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{sleep, spawn},
    time::Duration,
};

/// Bytes moved at a time.
const CHUNK_BYTES: usize = 16 << 10;

/// What goes wrong until the next [`FaultProxy::set`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// New connections are closed at once; the ones that stand go on.
    Refuse,
    /// Nothing moves in either direction; bytes that wait are delivered afterwards.
    Stall,
    /// Every chunk waits that long, in each direction.
    Delay(Duration),
    /// Requests arrive, answers do not. A connection that lost one is cut by the next `set`.
    DropReplies,
    /// That many bytes of the next answer arrive, then the connection is cut.
    CutReplies(usize),
}

/// A running proxy on a loopback port; ends when dropped, and its connections with it.
#[derive(Debug)]
pub struct FaultProxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    accepted: AtomicUsize,
}

#[derive(Debug)]
struct State {
    target: SocketAddr,
    fault: Fault,
    ended: bool,
    connections: Vec<Connection>,
}

/// Both sides of one connection, to cut it.
#[derive(Debug)]
struct Connection {
    /// Address of the client: the connection's name.
    peer: SocketAddr,
    client: TcpStream,
    server: TcpStream,
    /// An answer was swallowed.
    lost: bool,
}

impl Connection {
    fn cut(&self) {
        // Closed already: as wished.
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.server.shutdown(Shutdown::Both);
    }
}

impl FaultProxy {
    /// A proxy before `target`, without faults.
    ///
    /// # Panics
    /// There is no free port.
    #[must_use]
    pub fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("an address");
        let state = State { target, fault: Fault::None, ended: false, connections: Vec::new() };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
            accepted: AtomicUsize::new(0),
        });
        let accepting = Arc::clone(&shared);
        spawn(move || accepting.accept(&listener));
        Self { addr, shared }
    }

    /// Where clients connect.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Port of [`Self::addr`].
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.addr.port()
    }

    /// Connections accepted so far, refused ones included.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// From now on this goes wrong; [`Fault::None`] heals. Cuts connections that lost bytes.
    pub fn set(&self, fault: Fault) {
        let mut state = self.shared.lock();
        state.fault = fault;
        state.connections.retain(|connection| {
            if connection.lost {
                connection.cut();
            }
            !connection.lost
        });
        self.shared.changed.notify_all();
    }

    /// Cuts every connection; new ones are served as the fault says.
    pub fn drop_connections(&self) {
        for connection in self.shared.lock().connections.drain(..) {
            connection.cut();
        }
        self.shared.changed.notify_all();
    }

    /// New connections go to another server; the ones that stand stay.
    pub fn retarget(&self, target: SocketAddr) {
        self.shared.lock().target = target;
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.drop_connections();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.addr);
    }
}

/// Which way bytes go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Request,
    Reply,
}

/// What becomes of a chunk.
enum Verdict {
    Deliver,
    Swallow,
    CutAfter(usize),
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming().map_while(Result::ok) {
            let (target, fault) = {
                let state = self.lock();
                if state.ended {
                    return;
                }
                (state.target, state.fault)
            };
            self.accepted.fetch_add(1, Ordering::SeqCst);
            if fault != Fault::Refuse
                && let Ok(server) = TcpStream::connect(target)
            {
                // A connection that breaks while it is set up is one more fault.
                let _ = self.serve(client, server);
            }
        }
    }

    fn serve(self: &Arc<Self>, client: TcpStream, server: TcpStream) -> std::io::Result<()> {
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let peer = client.peer_addr()?;
        let (client_too, server_too) = (client.try_clone()?, server.try_clone()?);
        let connection = Connection {
            peer,
            client: client.try_clone()?,
            server: server.try_clone()?,
            lost: false,
        };
        self.lock().connections.push(connection);
        let (requests, replies) = (Arc::clone(self), Arc::clone(self));
        spawn(move || requests.pump(Way::Request, client, server, peer));
        spawn(move || replies.pump(Way::Reply, server_too, client_too, peer));
        Ok(())
    }

    fn pump(&self, way: Way, mut from: TcpStream, mut to: TcpStream, peer: SocketAddr) {
        let mut chunk = vec![0; CHUNK_BYTES];
        while let Ok(length) = from.read(&mut chunk)
            && length > 0
        {
            let bytes = chunk.get(..length).unwrap_or_default();
            let written = match self.verdict(way, peer) {
                Verdict::Deliver => to.write_all(bytes),
                Verdict::Swallow => Ok(()),
                Verdict::CutAfter(most) => {
                    let _ = to.write_all(bytes.get(..most).unwrap_or(bytes));
                    break;
                }
            };
            if written.is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
        self.lock().connections.retain(|connection| connection.peer != peer);
    }

    /// Waits while nothing may move, then decides.
    fn verdict(&self, way: Way, peer: SocketAddr) -> Verdict {
        let mut state = self.lock();
        while state.fault == Fault::Stall && !state.ended {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let fault = state.fault;
        let own = state.connections.iter_mut().find(|connection| connection.peer == peer);
        match (way, fault) {
            (Way::Reply, Fault::DropReplies) => {
                if let Some(connection) = own {
                    connection.lost = true;
                }
                Verdict::Swallow
            }
            (Way::Reply, _) if own.is_some_and(|connection| connection.lost) => Verdict::Swallow,
            (Way::Reply, Fault::CutReplies(bytes)) => Verdict::CutAfter(bytes),
            (_, Fault::Delay(time)) => {
                drop(state);
                sleep(time);
                Verdict::Deliver
            }
            _ => Verdict::Deliver,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};

    use super::*;

    /// A server that repeats every line, and says what it got.
    fn echo() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("an address");
        let got = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&got);
        spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let lines = Arc::clone(&lines);
                spawn(move || {
                    let mut out = stream.try_clone().expect("a stream");
                    for line in BufReader::new(stream).lines().map_while(Result::ok) {
                        lines.lock().expect("no panic").push(line.clone());
                        if writeln!(out, "{line}").is_err() {
                            break;
                        }
                    }
                });
            }
        });
        (addr, got)
    }

    fn connect(proxy: &FaultProxy) -> BufReader<TcpStream> {
        let stream = TcpStream::connect(proxy.addr()).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        BufReader::new(stream)
    }

    /// Sends a line; what came back, up to the end of the line or of the connection.
    fn exchange(stream: &mut BufReader<TcpStream>, line: &str) -> String {
        writeln!(stream.get_mut(), "{line}").expect("a write");
        answer(stream)
    }

    fn answer(stream: &mut BufReader<TcpStream>) -> String {
        let mut back = String::new();
        // A reset is an end too.
        let _ = stream.read_line(&mut back);
        back
    }

    fn eventually(holds: impl Fn() -> bool) {
        for _ in 0..2_000 {
            if holds() {
                return;
            }
            sleep(Duration::from_millis(10));
        }
        panic!("never came true");
    }

    #[test]
    fn without_a_fault_everything_passes_and_a_cut_ends_it() {
        let proxy = FaultProxy::start(echo().0);
        let mut stream = connect(&proxy);
        assert_eq!(exchange(&mut stream, "one"), "one\n");
        proxy.set(Fault::Delay(Duration::from_millis(5)));
        assert_eq!(exchange(&mut stream, "two"), "two\n");
        proxy.drop_connections();
        assert_eq!(answer(&mut stream), "");
        assert_eq!(exchange(&mut connect(&proxy), "three"), "three\n");
        assert_eq!(proxy.accepted(), 2);
    }

    #[test]
    fn refused_connections_end_and_standing_ones_go_on() {
        let proxy = FaultProxy::start(echo().0);
        let mut standing = connect(&proxy);
        assert_eq!(exchange(&mut standing, "one"), "one\n");
        proxy.set(Fault::Refuse);
        assert_eq!(answer(&mut connect(&proxy)), "");
        assert_eq!(exchange(&mut standing, "two"), "two\n");
    }

    #[test]
    fn what_was_stalled_arrives_in_full() {
        let (addr, got) = echo();
        let proxy = FaultProxy::start(addr);
        let mut stream = connect(&proxy);
        assert_eq!(exchange(&mut stream, "before"), "before\n");
        proxy.set(Fault::Stall);
        writeln!(stream.get_mut(), "held").expect("a write");
        sleep(Duration::from_millis(50));
        assert_eq!(*got.lock().expect("no panic"), ["before"]);
        proxy.set(Fault::None);
        assert_eq!(answer(&mut stream), "held\n");
    }

    #[test]
    fn a_lost_reply_was_a_request_that_arrived_and_its_stream_delivers_nothing_more() {
        let (addr, got) = echo();
        let proxy = FaultProxy::start(addr);
        let mut stream = connect(&proxy);
        assert_eq!(exchange(&mut stream, "one"), "one\n");
        proxy.set(Fault::DropReplies);
        writeln!(stream.get_mut(), "lost").expect("a write");
        eventually(|| got.lock().expect("no panic").len() == 2);
        eventually(|| proxy.shared.lock().connections.iter().all(|one| one.lost));
        proxy.set(Fault::None);
        assert_eq!(answer(&mut stream), "", "cut, and not one later byte");
        assert_eq!(exchange(&mut connect(&proxy), "three"), "three\n");
    }

    #[test]
    fn a_reply_is_cut_in_its_middle() {
        let proxy = FaultProxy::start(echo().0);
        let mut stream = connect(&proxy);
        assert_eq!(exchange(&mut stream, "one"), "one\n");
        proxy.set(Fault::CutReplies(2));
        assert_eq!(exchange(&mut stream, "halved"), "ha");
    }

    #[test]
    fn new_connections_follow_the_target() {
        let (one, two) = (echo(), echo());
        let proxy = FaultProxy::start(one.0);
        assert_eq!(exchange(&mut connect(&proxy), "a"), "a\n");
        proxy.retarget(two.0);
        assert_eq!(exchange(&mut connect(&proxy), "b"), "b\n");
        assert_eq!(*two.1.lock().expect("no panic"), ["b"]);
    }
}
