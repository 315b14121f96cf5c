//! The first bytes on the election port: who dials (facts, section 3.1).

use bytes::BytesMut;
use zk_proto::quorum::{ElectionHello, HELLO_ADDRESS_LEN_MAX};
use zk_proto::{Record, ServerId};

use super::address::HostPort;

/// What an observer without an id of its own calls itself.
pub(crate) const NAMELESS: ServerId = ServerId(i64::MAX);

const VERSION_LEN: usize = 8;
const ADDRESS_LEN_AT: usize = 16;
const ADDRESS_AT: usize = 20;

/// Why a dialer was not believed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum HelloError {
    #[error("it begins with {0}, which no version of the election protocol begins with")]
    Version(i64),
    #[error("it claims an address of {0} bytes; 1 to {HELLO_ADDRESS_LEN_MAX} are allowed")]
    AddressLen(i32),
    #[error("it calls itself server {0}: ids are not negative")]
    NegativeId(ServerId),
}

/// A dialer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) id: ServerId,
    /// Where it says that it listens; what is no address, or says only "here", is left out.
    pub(crate) addresses: Vec<HostPort>,
}

/// The words that this server begins with. One address is what version 1 has room for.
pub(crate) fn encode(id: ServerId, addresses: &[HostPort], multi_address: bool) -> BytesMut {
    let (protocol_version, addresses) = match multi_address {
        true => (ElectionHello::V2, addresses),
        false => (ElectionHello::V1, addresses.get(..1).unwrap_or_default()),
    };
    let address = super::address::joined(addresses);
    let mut out = BytesMut::new();
    ElectionHello { protocol_version, server_id: id, address }.encode(&mut out);
    out
}

/// Takes the hello off the front of what has come; `None` until it is whole.
pub(crate) fn take(unread: &mut BytesMut) -> Result<Option<Hello>, HelloError> {
    let Some(version) = unread.first_chunk::<VERSION_LEN>() else { return Ok(None) };
    let version = i64::from_be_bytes(*version);
    if version != ElectionHello::V1 && version != ElectionHello::V2 {
        return Err(HelloError::Version(version));
    }
    let len = unread.get(ADDRESS_LEN_AT..).and_then(<[u8]>::first_chunk);
    let Some(len) = len.map(|len| i32::from_be_bytes(*len)) else { return Ok(None) };
    let end = match usize::try_from(len) {
        Ok(wanted) if (1..=HELLO_ADDRESS_LEN_MAX).contains(&len) => ADDRESS_AT + wanted,
        Ok(_) | Err(_) => return Err(HelloError::AddressLen(len)),
    };
    if unread.len() < end {
        return Ok(None);
    }
    let hello = ElectionHello::decode(&unread.split_to(end).freeze());
    let hello = hello.map_err(|_| HelloError::AddressLen(len))?;
    if hello.server_id < ServerId(0) {
        return Err(HelloError::NegativeId(hello.server_id));
    }
    let addresses = hello.address.split('|').filter_map(HostPort::parse);
    let addresses = addresses.filter(|address| !address.is_wildcard()).collect();
    Ok(Some(Hello { id: hello.server_id, addresses }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str, port: u16) -> HostPort {
        HostPort { host: host.into(), port }
    }

    #[test]
    fn a_hello_survives_in_both_versions() {
        let addresses = [at("zk1", 3888), at("::1", 3889)];
        for (multi_address, count) in [(false, 1), (true, 2)] {
            let mut stream = encode(ServerId(7), &addresses, multi_address);
            stream.extend_from_slice(b"rest");
            for cut in 0..stream.len() - 4 {
                assert_eq!(take(&mut BytesMut::from(&stream[..cut])), Ok(None), "{cut} bytes");
            }
            let hello = take(&mut stream).unwrap().unwrap();
            assert_eq!(hello, Hello { id: ServerId(7), addresses: addresses[..count].to_vec() });
            assert_eq!(&stream[..], b"rest");
        }
    }

    #[test]
    fn addresses_that_lead_nowhere_are_left_out() {
        let mut stream = encode(ServerId(7), &[at("0.0.0.0", 3888), at("zk", 1)], true);
        assert_eq!(take(&mut stream).unwrap().unwrap().addresses, [at("zk", 1)]);
    }

    #[test]
    fn strangers_are_turned_away_early() {
        let good = encode(ServerId(7), &[at("zk1", 3888)], false);
        let with = |at: usize, bytes: &[u8]| {
            let mut bad = good.clone();
            bad[at..at + bytes.len()].copy_from_slice(bytes);
            bad
        };
        let http = &mut BytesMut::from(&b"GET / HTTP/1.1\r\n"[..]);
        assert!(matches!(take(http), Err(HelloError::Version(_))));
        let id_first = &mut with(0, &3i64.to_be_bytes());
        assert_eq!(take(id_first), Err(HelloError::Version(3)), "servers before 3.5");
        for len in [0, -1, 2049, i32::MAX] {
            let bad = &mut with(16, &len.to_be_bytes());
            assert_eq!(take(bad), Err(HelloError::AddressLen(len)));
        }
        let negative = &mut with(8, &(-5i64).to_be_bytes());
        assert_eq!(take(negative), Err(HelloError::NegativeId(ServerId(-5))));
    }
}
