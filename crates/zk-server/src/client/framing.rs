//! Length-prefixed frames.

use bytes::{Buf, Bytes, BytesMut};
use tokio_util::codec::Decoder;

/// Splits a stream into frames of at most `max_len` bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Framing {
    pub(crate) max_len: usize,
}

/// Why a stream cannot be split.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FramingError {
    #[error("a frame of {len} bytes, where jute.maxbuffer allows {max_len}")]
    Length { len: i32, max_len: usize },
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

const PREFIX_LEN: usize = 4;

/// The length that the next frame claims to have, if that has come and is not negative.
pub(crate) fn claimed_len(unread: &[u8]) -> Option<usize> {
    usize::try_from(i32::from_be_bytes(*unread.first_chunk::<PREFIX_LEN>()?)).ok()
}

impl Decoder for Framing {
    type Item = Bytes;
    type Error = FramingError;

    fn decode(&mut self, buf: &mut BytesMut) -> Result<Option<Bytes>, FramingError> {
        let Some(prefix) = buf.first_chunk::<PREFIX_LEN>() else { return Ok(None) };
        let len = i32::from_be_bytes(*prefix);
        let wanted = usize::try_from(len)
            .ok()
            .filter(|wanted| *wanted <= self.max_len)
            .ok_or(FramingError::Length { len, max_len: self.max_len })?;
        if buf.len() < PREFIX_LEN + wanted {
            // Only what has really been sent is buffered ahead: a claimed length costs nothing.
            return Ok(None);
        }
        buf.advance(PREFIX_LEN);
        Ok(Some(buf.split_to(wanted).freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_whole_and_bad_lengths_are_refused() {
        let mut framing = Framing { max_len: 8 };
        let mut buf = BytesMut::from(&b"\0\0\0\x02ab\0\0\0\0\0\0\0\x03x"[..]);
        assert_eq!(framing.decode(&mut buf).unwrap().unwrap(), &b"ab"[..]);
        assert_eq!(framing.decode(&mut buf).unwrap().unwrap(), &b""[..]);
        assert!(framing.decode(&mut buf).unwrap().is_none());
        buf.extend_from_slice(b"yz");
        assert_eq!(framing.decode(&mut buf).unwrap().unwrap(), &b"xyz"[..]);
        for len in [-1, 9, i32::MIN, i32::MAX] {
            let mut buf = BytesMut::from(&len.to_be_bytes()[..]);
            assert!(framing.decode(&mut buf).is_err(), "{len}");
        }
    }
}
