//! The stream behind a `SNAP` packet: sessions, ACLs, znodes, and a signature (facts, sections 3.6 and
//! 4.3). No length stands before it and nothing but its own content tells where it ends.
//!
//! | part | layout |
//! |---|---|
//! | sessions | int count, then [`SnapshotSession`]s |
//! | ACLs | int count, then for each a long key and a vector of [`Acl`] |
//! | znodes | [`SnapshotNode`]s, parents first; the root's path is empty |
//! | end | the string `/`, then the string [`SNAPSHOT_SIGNATURE`] |
//!
//! Snapshot files hold the same between a header and seals; [`SnapshotDecoder::in_file`] reads that part of
//! them, and [`FileTrailer`] what follows.
//!
//! Upstream's reader (`DataTree.deserialize`) wants a znode's parent before it, and nothing else of the
//! order; keys of ACLs are any numbers, and −1 is [`Acl::open`] without an entry.
//!
//! Apache's leaders go on applying transactions while they write, so theirs may hold parts of
//! transactions above the zxid of its `SNAP` packet, and a znode whose ACL came too late for the table.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::{Buf as _, Bytes, BytesMut};
use zk_jute::{
    Buffer, DecodeError, DecodeErrorKind, Field as _, Reader, Record as _, put_buffer, put_count,
    put_long, put_string,
};

use crate::acl::{Acl, Id, Perms};
use crate::data::StatPersisted;
use crate::persistence::{
    ADLER32_START, FileHeader, Seal, SnapshotDigest, SnapshotNode, SnapshotSession, adler32,
};
use crate::quorum::SNAPSHOT_SIGNATURE;
use crate::txn::TxnDigest;
use crate::{SessionId, Zxid};

/// The key that stands for [`Acl::open`] without an entry in the table.
pub const OPEN_ACL_KEY: i64 = -1;

const SESSION_LEN: usize = 12;
const INT_LEN: usize = 4;
const LONG_LEN: usize = 8;
const STAT_LEN: usize = 60;

/// The different ACLs of a snapshot that is to be written: the table stands before the znodes, so they
/// are gathered first.
#[derive(Debug, Clone, Default)]
pub struct SnapshotAcls {
    keys: BTreeMap<Bytes, i64>,
    /// As jute has them; the first has key 1.
    encoded: Vec<Bytes>,
}

impl SnapshotAcls {
    /// The ACL's key. It gets one where it is new.
    pub fn insert(&mut self, acl: &[Acl]) -> i64 {
        if acl == Acl::open() {
            return OPEN_ACL_KEY;
        }
        let mut encoded = BytesMut::new();
        put_count(&mut encoded, acl.len());
        for entry in acl {
            entry.encode(&mut encoded);
        }
        self.insert_encoded(&encoded)
    }

    /// The same for an ACL that is encoded already, as a vector; nothing at all is [`Acl::open`].
    pub fn insert_encoded(&mut self, acl: &[u8]) -> i64 {
        if acl.is_empty() {
            return OPEN_ACL_KEY;
        }
        if let Some(&key) = self.keys.get(acl) {
            return key;
        }
        let acl = Bytes::copy_from_slice(acl);
        self.encoded.push(acl.clone());
        let key = i64::try_from(self.encoded.len()).expect("what is in memory can be counted");
        self.keys.insert(acl, key);
        key
    }

    /// The key of an encoded ACL that was inserted.
    #[must_use]
    pub fn key_of_encoded(&self, acl: &[u8]) -> Option<i64> {
        if acl.is_empty() { Some(OPEN_ACL_KEY) } else { self.keys.get(acl).copied() }
    }

    /// How many there are in the table.
    #[must_use]
    pub fn len(&self) -> usize {
        self.encoded.len()
    }

    /// Whether the table is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.encoded.is_empty()
    }
}

/// Writes the stream, piece by piece, to the end of a buffer that its owner empties as he likes.
///
/// # Panics
/// All of its functions, when the pieces come in another order, or are not as many as announced.
#[derive(Debug)]
pub struct SnapshotEncoder<'a> {
    sessions_left: usize,
    acls: &'a SnapshotAcls,
    has_root: bool,
}

impl<'a> SnapshotEncoder<'a> {
    /// Begins a stream with so many sessions, whose znodes have these ACLs.
    #[must_use]
    pub fn new(sessions: usize, acls: &'a SnapshotAcls, out: &mut BytesMut) -> Self {
        put_count(out, sessions);
        let encoder = Self { sessions_left: sessions, acls, has_root: false };
        encoder.acls_if_due(out);
        encoder
    }

    /// The next session; the timeout in ms.
    pub fn session(&mut self, session_id: SessionId, timeout_ms: i32, out: &mut BytesMut) {
        let left = self.sessions_left.checked_sub(1);
        self.sessions_left = left.expect("no more sessions than were announced");
        SnapshotSession { session_id, timeout_ms }.encode(out);
        self.acls_if_due(out);
    }

    /// The table stands behind the last session.
    fn acls_if_due(&self, out: &mut BytesMut) {
        if self.sessions_left > 0 {
            return;
        }
        put_count(out, self.acls.len());
        for (key, acl) in (1..).zip(&self.acls.encoded) {
            put_long(out, key);
            out.extend_from_slice(acl);
        }
    }

    /// The next znode: first the root, `/`, and each one's parent before it. The key is from
    /// [`SnapshotAcls`].
    pub fn znode(
        &mut self,
        path: &str,
        data: Option<&[u8]>,
        acl_key: i64,
        stat: &StatPersisted,
        out: &mut BytesMut,
    ) {
        assert!(self.sessions_left == 0, "{} sessions are missing", self.sessions_left);
        let is_root = path == "/";
        assert!(is_root != self.has_root, "the root comes first, and once, not {path:?}");
        let known = usize::try_from(acl_key).is_ok_and(|key| (1..=self.acls.len()).contains(&key));
        assert!(known || acl_key == OPEN_ACL_KEY, "no ACL has the key {acl_key}");
        self.has_root = true;
        put_string(out, if is_root { "" } else { path });
        put_buffer(out, data);
        put_long(out, acl_key);
        stat.encode(out);
    }

    /// Ends the stream.
    pub fn finish(self, out: &mut BytesMut) {
        assert!(self.has_root, "the root is missing");
        put_string(out, "/");
        put_string(out, SNAPSHOT_SIGNATURE);
    }
}

/// A piece of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotItem {
    /// A session. One that comes twice counts as it came last.
    Session(SnapshotSession),
    /// A znode.
    Znode(SnapshotZnode),
    /// The stream was whole, and ends here: what follows is the next packet.
    End,
}

/// A znode of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotZnode {
    /// Its path, `/` for the root. That it is valid, new and has a parent is not checked.
    pub path: String,
    /// Null and empty differ.
    pub data: Buffer,
    /// Its ACL; one that lets nobody do anything where the table has none for it, which the
    /// transactions behind such a snapshot set right.
    pub acl: Arc<[Acl]>,
    /// What is kept about it.
    pub stat: StatPersisted,
}

/// Why bytes are no snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotError {
    /// A field cannot be read, or is longer than it may be.
    Field(DecodeError),
    /// A path that no znode has, or the root in another place than the first.
    Path(String),
    /// There is no znode.
    Empty,
    /// Behind the znodes is something else than the signature.
    Signature(String),
    /// A file that begins with something else than a snapshot's header.
    Magic(i32),
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(error) => write!(f, "the snapshot is malformed: {error}"),
            Self::Path(path) => {
                write!(
                    f,
                    "the snapshot is malformed: a znode with path {path:?} cannot stand there"
                )
            }
            Self::Empty => write!(f, "the snapshot is malformed: it has no root"),
            Self::Signature(found) => {
                write!(f, "the snapshot ends with {found:?} instead of {SNAPSHOT_SIGNATURE:?}")
            }
            Self::Magic(found) => {
                write!(f, "the file begins with {found:08x}, which no snapshot does")
            }
        }
    }
}

impl std::error::Error for SnapshotError {}

impl From<DecodeError> for SnapshotError {
    fn from(error: DecodeError) -> Self {
        Self::Field(error)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Header,
    SessionCount,
    /// So many are to come.
    Sessions(u32),
    AclCount,
    /// So many are to come.
    Acls(u32),
    Znodes,
    Signature,
    Done,
}

/// Reads the stream from bytes that come bit by bit.
///
/// It keeps the table of ACLs, and otherwise no more than one item's bytes are ever needed at once.
#[derive(Debug)]
pub struct SnapshotDecoder {
    part: Part,
    len_max: usize,
    acls: BTreeMap<i64, Arc<[Acl]>>,
    open: Arc<[Acl]>,
    closed: Arc<[Acl]>,
    missing_acls: u64,
    has_root: bool,
    /// With fewer bytes than this the next item is not whole.
    needed: usize,
    /// How far the ACL at the beginning is known, and how many of its entries are behind that.
    acl_scan: Option<(usize, u32)>,
    /// Of what was taken so far, where it is a file.
    checksum: Option<u32>,
}

/// What is known of the bytes at hand: the length of the item at their beginning, or how many bytes
/// are needed to know more.
enum Extent {
    Whole(usize),
    Needs(usize),
}

impl SnapshotDecoder {
    /// Waits for a stream in which no path, data or ACL takes more than `len_max` bytes.
    #[must_use]
    pub fn new(len_max: usize) -> Self {
        let nobody = Acl { perms: Perms(0), id: Id::new("world", "anyone") };
        Self {
            part: Part::SessionCount,
            len_max,
            acls: BTreeMap::new(),
            open: Acl::open().into(),
            closed: [nobody].into(),
            missing_acls: 0,
            has_root: false,
            needed: 0,
            acl_scan: None,
            checksum: None,
        }
    }

    /// Waits for a snapshot file, of which it takes the header and everything up to the end of the znodes:
    /// [`SnapshotItem::End`] comes before the first seal. See [`Self::new`] for the limit.
    #[must_use]
    pub fn in_file(len_max: usize) -> Self {
        Self { part: Part::Header, checksum: Some(ADLER32_START), ..Self::new(len_max) }
    }

    /// The Adler-32 of all that was taken from a file so far.
    #[must_use]
    pub fn checksum(&self) -> u32 {
        self.checksum.unwrap_or(ADLER32_START)
    }

    /// How many znodes named an ACL that is not in the table.
    #[must_use]
    pub fn missing_acls(&self) -> u64 {
        self.missing_acls
    }

    /// Takes the next item off the front of `input`; `None` until it is whole there. What is left in
    /// `input` after [`SnapshotItem::End`] does not belong to the stream.
    ///
    /// # Errors
    /// What is there is no snapshot, or more than the limit allows. Nothing can be read after that.
    ///
    /// # Panics
    /// When it is called again after the end.
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Option<SnapshotItem>, SnapshotError> {
        while input.len() >= self.needed {
            let extent = match self.part {
                Part::Header => Extent::Whole(FileHeader::MIN_LEN),
                Part::SessionCount | Part::AclCount => Extent::Whole(INT_LEN),
                Part::Sessions(0) => {
                    self.part = Part::AclCount;
                    continue;
                }
                Part::Acls(0) => {
                    self.part = Part::Znodes;
                    continue;
                }
                Part::Sessions(_) => Extent::Whole(SESSION_LEN),
                Part::Acls(_) => self.acl_extent(input)?,
                Part::Znodes => self.znode_extent(input)?,
                Part::Signature => self.signature_extent(input)?,
                Part::Done => panic!("the snapshot has ended"),
            };
            let len = match extent {
                Extent::Whole(len) if len <= input.len() => len,
                Extent::Whole(len) | Extent::Needs(len) => {
                    self.needed = len;
                    continue; // and out of the loop, if it is not there
                }
            };
            self.needed = 0;
            let bytes = input.split_to(len);
            if let Some(checksum) = &mut self.checksum {
                *checksum = adler32(*checksum, &bytes);
            }
            if let Some(item) = self.item(bytes)? {
                return Ok(Some(item));
            }
        }
        Ok(None)
    }

    /// Takes in the bytes of what comes next.
    fn item(&mut self, mut bytes: BytesMut) -> Result<Option<SnapshotItem>, SnapshotError> {
        match self.part {
            Part::Header => {
                let FileHeader { magic, .. } = FileHeader::decode(&bytes.freeze())?;
                if magic != FileHeader::SNAPSHOT_MAGIC {
                    return Err(SnapshotError::Magic(magic));
                }
                self.part = Part::SessionCount;
            }
            Part::SessionCount => self.part = Part::Sessions(count("sessions", bytes.get_i32())?),
            Part::AclCount => self.part = Part::Acls(count("acls", bytes.get_i32())?),
            Part::Sessions(left) => {
                self.part = Part::Sessions(left - 1);
                let session = SnapshotSession::decode(&bytes.freeze())?;
                return Ok(Some(SnapshotItem::Session(session)));
            }
            Part::Acls(left) => {
                self.part = Part::Acls(left - 1);
                self.acl_scan = None;
                let bytes = bytes.freeze();
                let mut reader = Reader::new(&bytes);
                let key = reader.long("aclKey")?;
                let acl = Vec::<Acl>::parse_field(&mut reader, "acl")?;
                reader.finish("acl")?;
                self.acls.insert(key, acl.into());
            }
            Part::Znodes => return self.znode(&bytes.freeze()),
            Part::Signature => {
                let bytes = bytes.freeze();
                let signature = String::parse_field(&mut Reader::new(&bytes), "signature")?;
                if signature != SNAPSHOT_SIGNATURE {
                    return Err(SnapshotError::Signature(signature));
                }
                self.part = Part::Done;
                return Ok(Some(SnapshotItem::End));
            }
            Part::Done => {}
        }
        Ok(None)
    }

    fn znode(&mut self, bytes: &Bytes) -> Result<Option<SnapshotItem>, SnapshotError> {
        if bytes.len() == INT_LEN + 1 {
            // Only the end of the list has nothing behind its path.
            if !self.has_root {
                return Err(SnapshotError::Empty);
            }
            if self.checksum.is_some() {
                self.part = Part::Done;
                return Ok(Some(SnapshotItem::End));
            }
            self.part = Part::Signature;
            return Ok(None);
        }
        let SnapshotNode { mut path, data, acl_key, stat } = SnapshotNode::decode(bytes)?;
        // The root first, and then never again.
        if path.is_empty() == self.has_root || !(path.is_empty() || path.starts_with('/')) {
            return Err(SnapshotError::Path(path));
        }
        if path.is_empty() {
            self.has_root = true;
            path.push('/');
        }
        let acl = if acl_key == OPEN_ACL_KEY {
            Arc::clone(&self.open)
        } else {
            let found = self.acls.get(&acl_key);
            self.missing_acls += u64::from(found.is_none());
            Arc::clone(found.unwrap_or(&self.closed))
        };
        Ok(Some(SnapshotItem::Znode(SnapshotZnode { path, data, acl, stat })))
    }

    /// The end of the field with a length that stands at `at`; null is as long as nothing.
    fn field_end(
        &self,
        input: &[u8],
        at: usize,
        field: &'static str,
        nullable: bool,
    ) -> Result<Extent, SnapshotError> {
        let Some(claimed) = int_at(input, at) else { return Ok(Extent::Needs(at + INT_LEN)) };
        let bad = |kind| SnapshotError::Field(DecodeError::new(field, kind));
        match usize::try_from(claimed) {
            Ok(len) if len <= self.len_max => Ok(Extent::Whole(at + INT_LEN + len)),
            Err(_) if claimed == -1 && nullable => Ok(Extent::Whole(at + INT_LEN)),
            Err(_) if claimed == -1 => Err(bad(DecodeErrorKind::Null)),
            Ok(_) | Err(_) => Err(bad(DecodeErrorKind::Length(claimed))),
        }
    }

    fn znode_extent(&self, input: &[u8]) -> Result<Extent, SnapshotError> {
        let path_end = match self.field_end(input, 0, "path", false)? {
            Extent::Whole(end) => end,
            needs @ Extent::Needs(_) => return Ok(needs),
        };
        if path_end == INT_LEN + 1 {
            match input.get(INT_LEN) {
                None => return Ok(Extent::Needs(path_end)),
                Some(b'/') => return Ok(Extent::Whole(path_end)),
                Some(_) => {}
            }
        }
        Ok(match self.field_end(input, path_end, "data", true)? {
            Extent::Whole(end) => Extent::Whole(end + LONG_LEN + STAT_LEN),
            needs @ Extent::Needs(_) => needs,
        })
    }

    fn signature_extent(&self, input: &[u8]) -> Result<Extent, SnapshotError> {
        self.field_end(input, 0, "signature", false)
    }

    /// An ACL goes on from where it was when bytes were missing: entries may be many.
    fn acl_extent(&mut self, input: &[u8]) -> Result<Extent, SnapshotError> {
        let (mut at, mut left) = match self.acl_scan {
            Some(scan) => scan,
            None => {
                let Some(claimed) = int_at(input, LONG_LEN) else {
                    return Ok(Extent::Needs(LONG_LEN + INT_LEN));
                };
                (LONG_LEN + INT_LEN, count("acl", claimed)?)
            }
        };
        while left > 0 {
            // Permissions, scheme, id.
            let mut end = at + INT_LEN;
            for field in ["scheme", "id"] {
                end = match self.field_end(input, end, field, true)? {
                    Extent::Whole(end) if end - LONG_LEN > self.len_max => {
                        let kind = DecodeErrorKind::Length(i32::try_from(end).unwrap_or(i32::MAX));
                        return Err(DecodeError::new("acl", kind).into());
                    }
                    Extent::Whole(end) => end,
                    needs @ Extent::Needs(_) => {
                        self.acl_scan = Some((at, left));
                        return Ok(needs);
                    }
                };
            }
            (at, left) = (end, left - 1);
        }
        self.acl_scan = Some((at, 0));
        Ok(Extent::Whole(at))
    }
}

fn int_at(input: &[u8], at: usize) -> Option<i32> {
    input.get(at..)?.first_chunk().map(|bytes| i32::from_be_bytes(*bytes))
}

/// What is never negative, though upstream's readers would take it for nothing.
fn count(field: &'static str, claimed: i32) -> Result<u32, DecodeError> {
    u32::try_from(claimed).map_err(|_| DecodeError::new(field, DecodeErrorKind::Count(claimed)))
}

/// What stands in a snapshot file behind its znodes: a seal, and since 3.6 the tree's digest, and since
/// 3.9 the last zxid, each with a seal (facts, section 4.3). Which of them are there is the writer's
/// configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FileTrailer {
    /// The last transaction that was applied when the znodes had been written, and the tree's digest
    /// then.
    pub digest: Option<SnapshotDigest>,
    /// The last transaction that was applied when the file was finished.
    pub last_zxid: Option<Zxid>,
}

/// Why what stands behind the znodes is no trailer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrailerError {
    /// It cannot be read: mostly it ends too early.
    Field(DecodeError),
    /// A seal is not of the bytes before it.
    Checksum {
        /// In the seal.
        sealed: i64,
        /// Of the bytes.
        computed: u32,
    },
}

impl fmt::Display for TrailerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(error) => write!(f, "the end of the snapshot is malformed: {error}"),
            Self::Checksum { sealed, computed } => write!(
                f,
                "the snapshot's checksum is {computed:08x}, and it was sealed with {sealed:08x}"
            ),
        }
    }
}

impl std::error::Error for TrailerError {}

impl From<DecodeError> for TrailerError {
    fn from(error: DecodeError) -> Self {
        Self::Field(error)
    }
}

impl FileTrailer {
    /// No trailer is longer, the digest's old form included.
    pub const LEN_MAX: usize = 128;

    /// Only the last zxid and its seal; nothing with a digest is so short.
    const LAST_ZXID_LEN: usize = LONG_LEN + SEAL_LEN;

    /// Reads all that stands behind the znodes, whose checksum is [`SnapshotDecoder::checksum`].
    ///
    /// # Errors
    /// A seal is broken, or something is only half there. Upstream takes a half digest for none; here
    /// the file counts as damaged, since nobody writes one.
    pub fn parse(checksum: u32, bytes: &Bytes) -> Result<Self, TrailerError> {
        let mut seals = Seals { reader: Reader::new(bytes), bytes, checksum, sealed: 0 };
        seals.check()?;
        let mut trailer = Self::default();
        if seals.reader.remaining() > Self::LAST_ZXID_LEN {
            trailer.digest = parse_digest(&mut seals.reader)?;
            seals.check()?;
        }
        if seals.reader.remaining() > 0 {
            trailer.last_zxid = Some(Zxid(seals.reader.long("lastZxid")?));
            seals.check()?;
        }
        seals.reader.finish("snapshot")?;
        Ok(trailer)
    }
}

const SEAL_LEN: usize = LONG_LEN + INT_LEN + 1;

/// `None`: nothing had been applied yet, so it is of nothing.
fn parse_digest(reader: &mut Reader<'_>) -> Result<Option<SnapshotDigest>, DecodeError> {
    let (zxid, version) = (Zxid(reader.long("zxid")?), reader.int("digestVersion")?);
    let digest = if version < TxnDigest::VERSION {
        // Once a hexadecimal text. That formula is not known any more, so neither is its value needed.
        String::parse_field(reader, "digest")?;
        0
    } else {
        reader.long("digest")?
    };
    Ok((zxid.0 > 0).then_some(SnapshotDigest { zxid, version, digest }))
}

/// Seals are checksums of everything from the file's first byte to them, earlier seals included.
struct Seals<'a> {
    reader: Reader<'a>,
    bytes: &'a Bytes,
    checksum: u32,
    /// So many of the bytes are in the checksum.
    sealed: usize,
}

impl Seals<'_> {
    /// Reads the seal that is next.
    fn check(&mut self) -> Result<(), TrailerError> {
        let at = self.bytes.len() - self.reader.remaining();
        self.add_up_to(at);
        let computed = self.checksum;
        let Seal { checksum: sealed, .. } = Seal::parse(&mut self.reader)?;
        if sealed != i64::from(computed) {
            return Err(TrailerError::Checksum { sealed, computed });
        }
        let end = self.bytes.len() - self.reader.remaining();
        self.add_up_to(end);
        Ok(())
    }

    fn add_up_to(&mut self, end: usize) {
        let more = self.bytes.get(self.sealed..end).unwrap_or_default();
        self.checksum = adler32(self.checksum, more);
        self.sealed = end;
    }
}
