//! Binding: one socket per worker and address, all on the same port.
//!
//! Called once, before any thread starts. Invariant: an address that somebody listens on
//! is an error, also when that somebody would share the port with us.

use std::{io, net::SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait to be accepted, per socket (1,024): a burst, not a queue.
const BACKLOG: i32 = 1_024;

/// Binds `count` sockets to an address; the address they got.
///
/// # Errors
/// The address is taken, or not ours.
pub(crate) fn bind(
    address: SocketAddr,
    count: usize,
) -> io::Result<(SocketAddr, Vec<std::net::TcpListener>)> {
    probe(address)?;
    let mut address = address;
    let mut listeners = Vec::with_capacity(count);
    for _ in 0..count {
        let socket = socket(address)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let listener = std::net::TcpListener::from(socket);
        // The first one of port 0 chooses for the others.
        address = listener.local_addr()?;
        listeners.push(listener);
    }
    Ok((address, listeners))
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Without SO_REUSEPORT a taken port shows.
fn probe(address: SocketAddr) -> io::Result<()> {
    if address.port() == 0 {
        return Ok(());
    }
    socket(address)?.bind(&address.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_an_error_and_a_free_one_is_shared_by_the_workers() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (address, listeners) = bind(any, 3).expect("a free port");
        assert_eq!(listeners.len(), 3);
        assert!(listeners.iter().all(|l| l.local_addr().expect("an address") == address));
        let taken = bind(address, 1).expect_err("the port is taken");
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        drop(listeners);
        assert!(bind(address, 1).is_ok());
    }
}
