//! What every connection has, a client's or another server's.

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;

/// Nothing waits to be sent with something else; `tcpKeepAlive` as configured.
pub(crate) fn set_options(stream: &TcpStream, keep_alive: bool) -> io::Result<()> {
    stream.set_nodelay(true)?;
    if keep_alive {
        rustix::net::sockopt::set_socket_keepalive(stream, true)?;
    }
    Ok(())
}

/// The connection breaks when the other machine does not acknowledge for so long what was sent to it.
/// Otherwise the system tries for a quarter of an hour.
pub(crate) fn give_up_after(stream: &TcpStream, silence: Duration) -> io::Result<()> {
    let ms = u32::try_from(silence.as_millis()).unwrap_or(u32::MAX).max(1); // 0 is the system's default
    rustix::net::sockopt::set_tcp_user_timeout(stream, ms)?;
    Ok(())
}
