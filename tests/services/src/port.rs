//! Free loopback ports.

use std::net::TcpListener;

/// A port that was free a moment ago: whoever uses it tries again when it was taken.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}
