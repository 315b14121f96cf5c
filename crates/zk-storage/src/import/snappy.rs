//! Snappy in the framing of xerial's `SnappyOutputStream`, which is not the one that Snappy's authors
//! defined: a header of 16 bytes (a magic, a version, the oldest version that can read it), then blocks,
//! each behind its length as a big endian int. Several such streams may follow each other.

use std::io::{self, Read};

const MAGIC: [u8; 8] = *b"\x82SNAPPY\0";
/// What stands where a block's length could, when another stream begins: negative as a length.
const MAGIC_LEN: usize = MAGIC.len();
const HEADER_LEN: usize = MAGIC_LEN + 8;
/// The oldest version that can read a stream; there has only been one.
const VERSION: u32 = 1;
/// Writers use blocks of 32 KB unless told otherwise.
const BLOCK_LEN_MAX: usize = 64 << 20;

/// Unpacks such a stream.
pub(super) struct SnappyReader<R> {
    input: R,
    packed: Vec<u8>,
    block: Vec<u8>,
    at: usize,
    has_header: bool,
}

impl<R: Read> SnappyReader<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, packed: Vec::new(), block: Vec::new(), at: 0, has_header: false }
    }

    /// Unpacks the next block; false at the end.
    fn next_block(&mut self) -> io::Result<bool> {
        loop {
            let mut first = [0; 4];
            let read = read_up_to(&mut self.input, &mut first)?;
            if read == 0 && self.has_header {
                return Ok(false);
            }
            if read < first.len() {
                return Err(bad("it ends within a block's length"));
            }
            if first == MAGIC[..4] {
                self.header()?;
                continue;
            }
            if !self.has_header {
                return Err(bad("it does not begin as SnappyOutputStream does"));
            }
            let len = u32::from_be_bytes(first) as usize;
            if len > BLOCK_LEN_MAX {
                return Err(bad(&format!("a block claims {len} bytes")));
            }
            self.packed.resize(len, 0);
            self.input.read_exact(&mut self.packed)?;
            let unpacked_len = snap::raw::decompress_len(&self.packed).map_err(io::Error::other)?;
            if unpacked_len > BLOCK_LEN_MAX {
                return Err(bad(&format!("a block claims to be of {unpacked_len} bytes")));
            }
            self.block.resize(unpacked_len, 0);
            let unpacked = snap::raw::Decoder::new().decompress(&self.packed, &mut self.block);
            unpacked.map_err(io::Error::other)?;
            self.at = 0;
            return Ok(true);
        }
    }

    /// The header, whose first four bytes were read.
    fn header(&mut self) -> io::Result<()> {
        let mut rest = [0; HEADER_LEN - 4];
        self.input.read_exact(&mut rest)?;
        let (magic, versions) = rest.split_at(MAGIC_LEN - 4);
        let mut readable_by = [0; 4];
        readable_by.copy_from_slice(&versions[4..]);
        let readable_by = u32::from_be_bytes(readable_by);
        if *magic != MAGIC[4..] {
            return Err(bad("it does not begin as SnappyOutputStream does"));
        }
        if readable_by > VERSION {
            return Err(bad(&format!("it needs version {readable_by} of the framing")));
        }
        self.has_header = true;
        Ok(())
    }
}

impl<R: Read> Read for SnappyReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        while self.at == self.block.len() {
            if !self.next_block()? {
                return Ok(0);
            }
        }
        let len = out.len().min(self.block.len() - self.at);
        out[..len].copy_from_slice(&self.block[self.at..][..len]);
        self.at += len;
        Ok(len)
    }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the Snappy stream is malformed: {what}"))
}

/// Fills as much as there is.
fn read_up_to(input: &mut impl Read, out: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < out.len() {
        match input.read(&mut out[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(out: &mut Vec<u8>) {
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1]);
    }

    fn block(out: &mut Vec<u8>, bytes: &[u8]) {
        let packed = snap::raw::Encoder::new().compress_vec(bytes).unwrap();
        out.extend_from_slice(&u32::try_from(packed.len()).unwrap().to_be_bytes());
        out.extend_from_slice(&packed);
    }

    fn unpack(stream: &[u8]) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        let read = SnappyReader::new(stream).read_to_end(&mut out);
        read.map(|_| out).map_err(|error| error.to_string())
    }

    #[test]
    fn blocks_and_streams_follow_each_other() {
        let mut stream = Vec::new();
        header(&mut stream);
        assert_eq!(unpack(&stream), Ok(vec![]));
        block(&mut stream, &[7; 100_000]);
        block(&mut stream, b"");
        block(&mut stream, b"tail");
        header(&mut stream);
        block(&mut stream, b"again");
        let expected = [&[7; 100_000][..], b"tailagain"].concat();
        assert_eq!(unpack(&stream), Ok(expected));
    }

    #[test]
    fn what_is_malformed_is_refused() {
        let mut stream = Vec::new();
        header(&mut stream);
        block(&mut stream, b"some bytes, some bytes, some bytes");
        for len in (1..HEADER_LEN).chain(HEADER_LEN + 1..stream.len()) {
            assert!(unpack(&stream[..len]).is_err(), "cut at {len}");
        }
        assert!(unpack(b"").is_err());
        assert!(unpack(b"no header at all").unwrap_err().contains("does not begin"));
        let mut later = stream.clone();
        later[HEADER_LEN - 1] = 2;
        assert!(unpack(&later).unwrap_err().contains("version 2"));
        let mut huge = stream.clone();
        huge[HEADER_LEN] = 0x7f;
        assert!(unpack(&huge).unwrap_err().contains("claims"));
        let mut broken = stream;
        let last = broken.len() - 1;
        broken[HEADER_LEN + 4] = 200; // another length than the block's
        broken[last] ^= 0xff;
        assert!(unpack(&broken).is_err());
    }
}
