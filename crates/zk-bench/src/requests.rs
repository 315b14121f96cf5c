use bytes::BytesMut;
use zk_proto::acl::Acl;
use zk_proto::proto::{CreateRequest, GetDataRequest, SetDataRequest, SyncRequest};
use zk_proto::{OpCode, Record, Xid};

use crate::session::request_frame;

/// Where the znodes of getData and setData are.
pub(crate) const ROOT: &str = "/bench";

/// What a workload does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mix {
    /// getData and setData of random znodes.
    ReadWrite {
        /// Of 100 operations.
        reads: u8,
    },
    /// create, each of a new znode.
    Create,
}

impl Mix {
    pub(crate) fn reads(reads: u8) -> Self {
        Self::ReadWrite { reads }
    }
}

/// What the reply must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    Data,
    Stat,
    Path,
}

/// Frames of equal length, one per znode.
#[derive(Debug)]
struct Frames {
    bytes: Vec<u8>,
    stride: usize,
}

impl Frames {
    fn new(count: u32, frame: impl Fn(u32) -> BytesMut) -> Self {
        let mut bytes = Vec::new();
        let mut stride = 0;
        for index in 0..count {
            let frame = frame(index);
            stride = frame.len();
            bytes.extend_from_slice(&frame);
        }
        Self { bytes, stride }
    }

    fn get(&self, index: u32) -> &[u8] {
        let start = index as usize * self.stride;
        &self.bytes[start..start + self.stride]
    }
}

/// Everything a run sends, encoded before it starts; shared by its connections.
#[derive(Debug)]
pub(crate) struct Requests {
    mix: Mix,
    znodes: u32,
    value_size: usize,
    get: Frames,
    set: Frames,
    create: Vec<u8>,
    create_path_len: usize,
}

/// The name of a znode is its number, in eight hexadecimal digits, and so is the start of its data.
pub(crate) fn path(index: u32) -> String {
    format!("{ROOT}/{index:08x}")
}

pub(crate) fn value(index: u32, size: usize) -> Vec<u8> {
    let mut value = format!("{index:08x}").into_bytes();
    // Not all the same, so that nothing along the way compresses it to nothing.
    let mut state = index | 1;
    while value.len() < size {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        value.push(b' ' + u8::try_from((state >> 24) % 95).expect("below 95"));
    }
    value.truncate(size);
    value
}

pub(crate) fn create_frame(xid: Xid, path: &str, data: Option<Vec<u8>>) -> BytesMut {
    let data = data.map(Into::into);
    let request = CreateRequest { path: path.to_owned(), data, acl: Acl::open(), flags: 0 };
    request_frame(xid, OpCode::CREATE, |out| request.encode(out))
}

pub(crate) fn set_frame(xid: Xid, index: u32, value_size: usize) -> BytesMut {
    let request = SetDataRequest {
        path: path(index),
        data: Some(value(index, value_size).into()),
        version: -1,
    };
    request_frame(xid, OpCode::SET_DATA, |out| request.encode(out))
}

/// Waits until the server is as far as its leader.
pub(crate) fn sync_frame(xid: Xid) -> BytesMut {
    let request = SyncRequest { path: Some("/".to_owned()) };
    request_frame(xid, OpCode::SYNC, |out| request.encode(out))
}

/// A parent of created znodes.
pub(crate) fn create_dir(root: &str, dir: u32) -> String {
    format!("{root}/{dir:08x}")
}

impl Requests {
    /// `create_root` is where creates go: `root/<dir>/<index>`.
    pub(crate) fn new(mix: Mix, znodes: u32, value_size: usize, create_root: &str) -> Self {
        let (reads, writes) = match mix {
            Mix::ReadWrite { reads } => {
                (if reads > 0 { znodes } else { 0 }, if reads < 100 { znodes } else { 0 })
            }
            Mix::Create => (0, 0),
        };
        let create_path = format!("{}/{:08x}", create_dir(create_root, 0), 0);
        Self {
            mix,
            znodes,
            value_size,
            get: Frames::new(reads, |index| {
                let request = GetDataRequest { path: path(index), watch: false };
                request_frame(Xid(0), OpCode::GET_DATA, |out| request.encode(out))
            }),
            set: Frames::new(writes, |index| set_frame(Xid(0), index, value_size)),
            create: create_frame(Xid(0), &create_path, Some(value(0, value_size))).to_vec(),
            create_path_len: create_path.len(),
        }
    }

    pub(crate) fn value_size(&self) -> usize {
        self.value_size
    }

    pub(crate) fn create_path_len(&self) -> usize {
        self.create_path_len
    }

    /// No frame that a run receives is longer.
    pub(crate) fn max_reply(&self) -> usize {
        256 + self.value_size + self.create_path_len
    }

    pub(crate) fn mix(&self) -> Mix {
        self.mix
    }

    /// Appends the next request; returns the znode's number and what to expect. `random` decides which.
    #[inline]
    pub(crate) fn push(
        &self,
        reads: u8,
        xid: i32,
        random: u64,
        out: &mut Vec<u8>,
    ) -> (u32, Expect) {
        // The high half picks the znode (multiply-shift: no division), the low half the operation.
        let index = ((random >> 32) * u64::from(self.znodes)) >> 32;
        let index = u32::try_from(index).expect("below znodes");
        let read = reads == 100 || (random & 0xffff_ffff) * 100 < u64::from(reads) << 32;
        let (frames, expect) =
            if read { (&self.get, Expect::Data) } else { (&self.set, Expect::Stat) };
        let at = out.len();
        out.extend_from_slice(frames.get(index));
        out[at + 4..at + 8].copy_from_slice(&xid.to_be_bytes());
        (index, expect)
    }

    /// Appends a create of znode `index` below directory `dir`.
    #[inline]
    pub(crate) fn push_create(&self, dir: u32, index: u32, xid: i32, out: &mut Vec<u8>) {
        const PATH: usize = 16; // length, xid, type, path length
        let at = out.len();
        out.extend_from_slice(&self.create);
        out[at + 4..at + 8].copy_from_slice(&xid.to_be_bytes());
        let end = at + PATH + self.create_path_len;
        hex(index, &mut out[end - 8..end]);
        hex(dir, &mut out[end - 17..end - 9]);
        hex(index, &mut out[end + 4..end + 12]);
    }
}

/// Writes eight hexadecimal digits.
#[inline]
pub(crate) fn hex(value: u32, out: &mut [u8]) {
    for (nibble, digit) in out.iter_mut().rev().enumerate() {
        *digit = b"0123456789abcdef"[(value >> (4 * nibble)) as usize & 15];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn body(frame: &[u8]) -> Bytes {
        let length = i32::from_be_bytes(frame[..4].try_into().unwrap());
        assert_eq!(length as usize, frame.len() - 4);
        Bytes::copy_from_slice(&frame[12..])
    }

    #[test]
    fn patched_creates_are_what_the_codec_would_write() {
        let requests = Requests::new(Mix::Create, 0, 32, "/x/y");
        let mut out = vec![1, 2, 3];
        requests.push_create(0x12, 0xdead_beef, 77, &mut out);
        let request = CreateRequest::decode(&body(&out[3..])).unwrap();
        assert_eq!(request.path, "/x/y/00000012/deadbeef");
        assert_eq!(&request.data.unwrap()[..8], b"deadbeef");
        assert_eq!(out[3 + 4..3 + 8], 77i32.to_be_bytes());
    }

    #[test]
    fn reads_and_writes_name_their_znode() {
        let requests = Requests::new(Mix::reads(50), 1000, 20, "/c");
        let mut state = 1u64;
        let mut reads = 0;
        for xid in 1..=2000 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let mut out = Vec::new();
            let (index, expect) = requests.push(50, xid, state.rotate_left(32) ^ state, &mut out);
            match expect {
                Expect::Data => {
                    reads += 1;
                    assert_eq!(GetDataRequest::decode(&body(&out)).unwrap().path, path(index));
                }
                Expect::Stat => {
                    let request = SetDataRequest::decode(&body(&out)).unwrap();
                    assert_eq!(request.path, path(index));
                    assert_eq!(request.data.unwrap(), value(index, 20));
                }
                Expect::Path => panic!("no creates here"),
            }
        }
        assert!((850..1150).contains(&reads), "{reads} of 2000 were reads");
    }
}
