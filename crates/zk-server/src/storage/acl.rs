//! How an ACL is stored: as jute has it; nothing for the open one, which nearly all are.

use bytes::{Bytes, BytesMut};
use zk_proto::acl::Acl;
use zk_proto::{DecodeError, Field, Reader};

/// The stored form.
pub(crate) fn encode(acl: &[Acl]) -> Bytes {
    if acl == Acl::open() {
        return Bytes::new();
    }
    let mut out = BytesMut::new();
    acl.to_vec().encode_field(&mut out);
    out.freeze()
}

/// What was stored.
pub(super) fn decode(stored: &[u8]) -> Result<Vec<Acl>, DecodeError> {
    if stored.is_empty() {
        return Ok(Acl::open());
    }
    let frame = Bytes::copy_from_slice(stored);
    let mut reader = Reader::new(&frame);
    let acl = Vec::parse_field(&mut reader, "acl")?;
    reader.finish("acl")?;
    Ok(acl)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acls_survive() {
        for acl in [Acl::open(), Acl::read_only(), Acl::creator_all(), vec![]] {
            assert_eq!(decode(&encode(&acl)), Ok(acl));
        }
        assert!(encode(&Acl::open()).is_empty());
        assert!(decode(b"\0").is_err());
    }
}
