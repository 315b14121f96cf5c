use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use zk_proto::connect::{ConnectRequest, ConnectResponse};
use zk_proto::proto::{ReplyHeader, RequestHeader};
use zk_proto::{ErrorCode, OpCode, Record, SessionId, Xid, Zxid};

use crate::Failure;

/// How long any single answer may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A connection with a session, used request by request: for preparing a run, not for measuring.
pub(crate) struct Session {
    pub(crate) stream: TcpStream,
    /// Negotiated, in ms.
    pub(crate) timeout_ms: i32,
}

fn resolve(server: &str) -> Result<SocketAddr, Failure> {
    let addresses =
        server.to_socket_addrs().map_err(Failure::io(format!("cannot resolve {server}")))?;
    let mut addresses: Vec<SocketAddr> = addresses.collect();
    addresses.sort_by_key(SocketAddr::is_ipv6);
    addresses.first().copied().ok_or_else(|| Failure::new(format!("{server} has no address")))
}

/// The addresses of a list with commas; at least one.
pub(crate) fn resolve_all(servers: &str) -> Result<Vec<SocketAddr>, Failure> {
    servers.split(',').map(resolve).collect()
}

/// The session handshake's request, framed.
pub(crate) fn connect_frame(timeout_ms: i32) -> BytesMut {
    let request = ConnectRequest {
        protocol_version: 0,
        last_zxid_seen: Zxid::ZERO,
        timeout_ms,
        session_id: SessionId(0),
        password: Some(Bytes::from_static(&[0; 16])),
        read_only: Some(false),
    };
    frame(|out| request.encode(out))
}

/// A request with its header, framed.
pub(crate) fn request_frame(xid: Xid, op: OpCode, body: impl FnOnce(&mut BytesMut)) -> BytesMut {
    frame(|out| {
        RequestHeader { xid, op }.encode(out);
        body(out);
    })
}

fn frame(body: impl FnOnce(&mut BytesMut)) -> BytesMut {
    let mut out = BytesMut::from(&[0; 4][..]);
    body(&mut out);
    let length = i32::try_from(out.len() - 4).expect("a request is far below 2 GiB");
    out[..4].copy_from_slice(&length.to_be_bytes());
    out
}

impl Session {
    /// Connects and gets a new session.
    pub(crate) fn connect(server: SocketAddr, timeout_ms: i32) -> Result<Self, Failure> {
        let stream = TcpStream::connect_timeout(&server, PATIENCE)
            .map_err(Failure::io(format!("cannot connect to {server}")))?;
        Self::handshake(stream, timeout_ms)
    }

    /// Opens a connection from a given loopback address and sends the connect request, without waiting
    /// for the answer.
    pub(crate) fn start(
        server: SocketAddr,
        source: Ipv4Addr,
        timeout_ms: i32,
    ) -> Result<TcpStream, Failure> {
        use rustix::net::{AddressFamily, SocketType, bind, connect, socket, sockopt};
        let open = || -> Result<TcpStream, rustix::io::Errno> {
            let family = if server.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let socket = socket(family, SocketType::STREAM, None)?;
            if server.is_ipv4() {
                sockopt::set_socket_reuseaddr(&socket, true)?;
                bind(&socket, &SocketAddr::new(IpAddr::V4(source), 0))?;
            }
            connect(&socket, &server)?;
            Ok(TcpStream::from(socket))
        };
        let mut stream = open().map_err(|error| {
            Failure::new(format!("cannot connect to {server} from {source}: {error}"))
        })?;
        let prepare = |stream: &mut TcpStream| {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(&connect_frame(timeout_ms))
        };
        prepare(&mut stream).map_err(Failure::io(format!("connect request to {server}")))?;
        Ok(stream)
    }

    /// Waits for the answer to [`Session::start`].
    pub(crate) fn finish(stream: TcpStream) -> Result<Self, Failure> {
        let mut session = Self { stream, timeout_ms: 0 };
        let response = ConnectResponse::decode(&session.read_frame("the connect request")?)
            .map_err(|error| Failure::new(format!("unreadable connect response: {error}")))?;
        if response.timeout_ms <= 0 || response.session_id == SessionId(0) {
            return Err(Failure::new("the server gave no session"));
        }
        session.timeout_ms = response.timeout_ms;
        Ok(session)
    }

    fn handshake(mut stream: TcpStream, timeout_ms: i32) -> Result<Self, Failure> {
        let prepare = |stream: &mut TcpStream| {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(&connect_frame(timeout_ms))
        };
        prepare(&mut stream).map_err(Failure::io("connect request"))?;
        Self::finish(stream)
    }

    fn read_frame(&mut self, to: &str) -> Result<Bytes, Failure> {
        let what = || format!("the answer to {to}");
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).map_err(Failure::io(what()))?;
        let length = usize::try_from(i32::from_be_bytes(length))
            .ok()
            .filter(|length| *length <= 64 << 20)
            .ok_or_else(|| Failure::new(format!("{}: unreasonable length", what())))?;
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).map_err(Failure::io(what()))?;
        Ok(body.into())
    }

    /// Sends requests (numbered from 1, in order) in batches and checks that each succeeds or fails with
    /// an error in `allowed`.
    pub(crate) fn send_all(
        &mut self,
        count: u32,
        allowed: &[ErrorCode],
        mut request: impl FnMut(u32, Xid) -> BytesMut,
    ) -> Result<(), Failure> {
        const BATCH: u32 = 256;
        let mut next = 0;
        while next < count {
            let end = count.min(next + BATCH);
            let mut out = BytesMut::new();
            for number in next..end {
                out.extend_from_slice(&request(number, Xid(xid(number))));
            }
            self.stream.write_all(&out).map_err(Failure::io("preparing the run"))?;
            for number in next..end {
                let mut reply = self.read_frame("a preparing request")?;
                if reply.remaining() < 16 {
                    return Err(Failure::new("a reply without a header"));
                }
                let header = ReplyHeader {
                    xid: Xid(reply.get_i32()),
                    zxid: Zxid(reply.get_i64()),
                    err: ErrorCode(reply.get_i32()),
                };
                if header.xid.0 != xid(number) {
                    return Err(Failure::new(format!(
                        "the reply to xid {} has xid {}",
                        xid(number),
                        header.xid.0
                    )));
                }
                if header.err != ErrorCode::OK && !allowed.contains(&header.err) {
                    return Err(Failure::new(format!("preparing the run: {}", header.err)));
                }
            }
            next = end;
        }
        Ok(())
    }

    /// Closes the session and waits for the answer.
    pub(crate) fn close(mut self) -> Result<(), Failure> {
        self.send_all(1, &[], |_, xid| request_frame(xid, OpCode::CLOSE_SESSION, |_| ()))
    }
}

fn xid(number: u32) -> i32 {
    i32::try_from(number % 0x7fff_0000).expect("in range") + 1
}
