//! What every connection has, a client's or another server's.

use std::io;

use tokio::net::TcpStream;

/// Nothing waits to be sent with something else; `tcpKeepAlive` as configured.
pub(crate) fn set_options(stream: &TcpStream, keep_alive: bool) -> io::Result<()> {
    stream.set_nodelay(true)?;
    if keep_alive {
        rustix::net::sockopt::set_socket_keepalive(stream, true)?;
    }
    Ok(())
}
