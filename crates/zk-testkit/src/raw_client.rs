use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use zk_proto::connect::{ConnectRequest, ConnectResponse, PASSWORD_LEN};
use zk_proto::proto::{ReplyHeader, RequestHeader};
use zk_proto::{Buffer, OpCode, Record, SessionId, Xid, Zxid};

/// How long a read waits before the test fails.
const READ_TIMEOUT: Duration = Duration::from_secs(20);

/// The longest frame that is believed.
const FRAME_LEN_MAX: usize = 64 << 20;

/// A response: its header, and what stands behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Which request it answers, at which zxid, and how it went.
    pub header: ReplyHeader,
    /// The body, as it came.
    pub body: Bytes,
}

impl Reply {
    /// The body as a record that fills it.
    ///
    /// # Panics
    /// When it is none: what a test wants to hear.
    #[must_use]
    pub fn body_as<T: Record>(&self) -> T {
        T::decode(&self.body)
            .unwrap_or_else(|error| panic!("{} in the reply {:?}: {error}", T::NAME, self.header))
    }
}

/// A blocking client that speaks frames, for tests on the wire. It never pings.
#[derive(Debug)]
pub struct RawClient {
    stream: TcpStream,
    next_xid: i32,
}

impl RawClient {
    /// Connects, without a handshake.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, READ_TIMEOUT)?;
        stream.set_read_timeout(Some(READ_TIMEOUT))?;
        stream.set_write_timeout(Some(READ_TIMEOUT))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, next_xid: 1 })
    }

    /// Connects and begins a session with the timeout that it asks for, in ms.
    ///
    /// # Errors
    /// As [`RawClient::connect`]; and the handshake failed.
    pub fn with_session(
        address: SocketAddr,
        timeout_ms: i32,
    ) -> io::Result<(Self, ConnectResponse)> {
        let mut client = Self::connect(address)?;
        let response = client.handshake(&new_session(timeout_ms))?;
        Ok((client, response))
    }

    /// How long reads wait from now on.
    ///
    /// # Errors
    /// The duration is zero.
    pub fn set_read_timeout(&mut self, timeout: Duration) -> io::Result<()> {
        self.stream.set_read_timeout(Some(timeout))
    }

    /// Sends bytes as they are: broken frames, four-letter words.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a frame: length, then payload.
    ///
    /// # Errors
    /// The connection is gone.
    ///
    /// # Panics
    /// At 2 GiB.
    pub fn send_frame(&mut self, payload: &[u8]) -> io::Result<()> {
        let len = i32::try_from(payload.len()).expect("a frame is below 2 GiB");
        let mut frame = Vec::with_capacity(4 + payload.len());
        frame.extend_from_slice(&len.to_be_bytes());
        frame.extend_from_slice(payload);
        self.stream.write_all(&frame)
    }

    /// Reads a frame's payload.
    ///
    /// # Errors
    /// `UnexpectedEof` when the server closed the connection, `WouldBlock` or `TimedOut` when
    /// nothing came, `InvalidData` when the length is unreasonable.
    pub fn read_frame(&mut self) -> io::Result<Bytes> {
        let mut len = [0; 4];
        self.stream.read_exact(&mut len)?;
        let len = usize::try_from(i32::from_be_bytes(len)).unwrap_or(usize::MAX);
        if len > FRAME_LEN_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "unreasonable frame length"));
        }
        let mut payload = vec![0; len];
        self.stream.read_exact(&mut payload)?;
        Ok(payload.into())
    }

    /// Reads until the server closes the connection: what a four-letter word answers.
    ///
    /// # Errors
    /// It does not close it in time.
    pub fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        self.stream.read_to_end(&mut all)?;
        Ok(all)
    }

    /// Whether the server has closed the connection, without another byte; waits for it.
    ///
    /// # Errors
    /// Nothing happens in time.
    pub fn is_closed(&mut self) -> io::Result<bool> {
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(read) => Ok(read == 0),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Sends a connect request and reads the answer.
    ///
    /// # Errors
    /// The connection is gone, or the answer is none.
    pub fn handshake(&mut self, request: &ConnectRequest) -> io::Result<ConnectResponse> {
        self.send_frame(&request.to_bytes())?;
        ConnectResponse::decode(&self.read_frame()?).map_err(invalid)
    }

    /// Sends a request under the next xid, and returns that.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn send(&mut self, op: OpCode, body: &impl Record) -> io::Result<Xid> {
        let xid = Xid(self.next_xid);
        self.next_xid += 1;
        self.send_as(xid, op, &body.to_bytes())?;
        Ok(xid)
    }

    /// Sends a request under this xid, its body as bytes.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn send_as(&mut self, xid: Xid, op: OpCode, body: &[u8]) -> io::Result<()> {
        let mut payload = BytesMut::new();
        RequestHeader { xid, op }.encode(&mut payload);
        payload.extend_from_slice(body);
        self.send_frame(&payload)
    }

    /// Reads the next frame as a reply or event.
    ///
    /// # Errors
    /// As [`RawClient::read_frame`]; and the frame has no header.
    pub fn read_reply(&mut self) -> io::Result<Reply> {
        let frame = self.read_frame()?;
        let mut reader = zk_jute::Reader::new(&frame);
        let header = ReplyHeader::parse(&mut reader).map_err(invalid)?;
        Ok(Reply { header, body: reader.take_rest() })
    }

    /// Sends a request and reads its reply, which must be the next frame.
    ///
    /// # Errors
    /// As [`RawClient::read_reply`].
    ///
    /// # Panics
    /// When something else comes first: an event, or a reply out of order.
    pub fn request(&mut self, op: OpCode, body: &impl Record) -> io::Result<Reply> {
        let xid = self.send(op, body)?;
        let reply = self.read_reply()?;
        assert_eq!(reply.header.xid, xid, "another frame than {op}'s reply: {reply:?}");
        Ok(reply)
    }

    /// Pings, and reads the answer.
    ///
    /// # Errors
    /// As [`RawClient::read_reply`].
    pub fn ping(&mut self) -> io::Result<Reply> {
        self.send_as(Xid::PING, OpCode::PING, &[])?;
        self.read_reply()
    }

    /// Ends the session and reads the answer.
    ///
    /// # Errors
    /// As [`RawClient::read_reply`].
    pub fn close_session(&mut self) -> io::Result<Reply> {
        let xid = Xid(self.next_xid);
        self.next_xid += 1;
        self.send_as(xid, OpCode::CLOSE_SESSION, &[])?;
        self.read_reply()
    }

    /// Sends no more, and still reads.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn shutdown_write(&mut self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }
}

/// The connect request of a current client that has no session yet.
fn new_session(timeout_ms: i32) -> ConnectRequest {
    ConnectRequest {
        protocol_version: 0,
        last_zxid_seen: Zxid::ZERO,
        timeout_ms,
        session_id: SessionId(0),
        password: Buffer::Some(Bytes::from_static(&[0; PASSWORD_LEN])),
        read_only: Some(false),
    }
}

fn invalid(error: zk_jute::DecodeError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use zk_proto::proto::{ExistsRequest, SyncResponse};
    use zk_proto::{ErrorCode, Field};

    use super::*;

    /// Accepts one connection and answers each frame with what `answer` makes of it.
    fn server(answer: impl Fn(Bytes) -> Vec<u8> + Send + 'static) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let stream = listener.accept().unwrap().0;
            let mut peer = RawClient { stream, next_xid: 1 };
            while let Ok(frame) = peer.read_frame() {
                peer.send_bytes(&answer(frame)).unwrap();
            }
        });
        address
    }

    fn framed(record: &impl Record) -> Vec<u8> {
        let payload = record.to_bytes();
        let mut frame = i32::try_from(payload.len()).unwrap().to_be_bytes().to_vec();
        frame.extend_from_slice(&payload);
        frame
    }

    #[test]
    fn a_handshake_and_a_request() {
        let address = server(|frame| {
            if frame.len() == 45 {
                return framed(&ConnectResponse::expired(Some(false)));
            }
            let mut reader = zk_jute::Reader::new(&frame);
            let RequestHeader { xid, op } = Record::parse(&mut reader).unwrap();
            assert_eq!(op, OpCode::EXISTS);
            let mut payload = BytesMut::new();
            ReplyHeader { xid, zxid: Zxid(9), err: ErrorCode::OK }.encode(&mut payload);
            Some("/back".to_owned()).encode_field(&mut payload);
            let mut frame = i32::try_from(payload.len()).unwrap().to_be_bytes().to_vec();
            frame.extend_from_slice(&payload);
            frame
        });
        let (mut client, response) = RawClient::with_session(address, 4000).unwrap();
        assert_eq!(response.timeout_ms, 0);
        let request = ExistsRequest { path: "/a".into(), watch: false };
        for xid in 1..3 {
            let reply = client.request(OpCode::EXISTS, &request).unwrap();
            assert_eq!(reply.header.xid, Xid(xid));
            assert_eq!(reply.body_as::<SyncResponse>().path.as_deref(), Some("/back"));
        }
    }

    #[test]
    fn a_closed_connection_is_told_from_silence() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = RawClient::connect(listener.local_addr().unwrap()).unwrap();
        let peer = listener.accept().unwrap().0;
        client.set_read_timeout(Duration::from_millis(20)).unwrap();
        assert!(client.is_closed().is_err());
        drop(peer);
        client.set_read_timeout(READ_TIMEOUT).unwrap();
        assert!(client.is_closed().unwrap());
    }
}
