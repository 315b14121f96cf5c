//! Who someone is, and what an ACL lets them do (facts, section 1.7).

use std::net::{IpAddr, Ipv6Addr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};
use sha2::Sha256;
use sha3::Sha3_256;
use zk_proto::ErrorCode;
use zk_proto::acl::{Acl, Id, Perms};

/// How the digest scheme hashes passwords (`DigestAuthenticationProvider.digestAlg`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DigestAlgorithm {
    /// What every client computes ACLs with by default.
    #[default]
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA3-256.
    Sha3,
}

impl DigestAlgorithm {
    fn hash(self, text: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha1 => Sha1::digest(text).to_vec(),
            Self::Sha256 => Sha256::digest(text).to_vec(),
            Self::Sha3 => Sha3_256::digest(text).to_vec(),
        }
    }
}

/// The authentication schemes and what they need to know.
///
/// `sasl` and `x509` join here as further schemes: each is an arm of `authenticate`, `is_valid_id`,
/// `matches` and `is_authenticated`.
#[derive(Debug, Clone)]
pub struct Authenticator {
    /// `zookeeper.skipACL`: everyone may do everything.
    pub skip_acl: bool,
    /// Whether the digest scheme exists.
    pub digest_enabled: bool,
    /// How it hashes passwords.
    pub digest_algorithm: DigestAlgorithm,
    /// `super:` and the base64 of the SHA-1 of `super:password`: who shows it bypasses every ACL.
    pub super_digest: Option<String>,
    /// Names that the `ensemble` scheme accepts (`zookeeper.ensembleAuthName`); `None`: the scheme
    /// does not exist.
    pub ensemble_names: Option<Vec<String>>,
    /// Whether upstream's sample scheme `key` exists: who shows a multiple of the number in the data of
    /// `/key` is let in.
    pub key_enabled: bool,
}

impl Default for Authenticator {
    fn default() -> Self {
        Self {
            skip_acl: false,
            digest_enabled: true,
            digest_algorithm: DigestAlgorithm::Sha1,
            super_digest: None,
            ensemble_names: None,
            key_enabled: false,
        }
    }
}

/// What became of an auth packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AuthOutcome {
    /// The connection has these ids from now on.
    Granted(Vec<Id>),
    /// Answered with `AUTH_FAILED`, then closed.
    Failed,
    /// A client of another ensemble: closed at once, so that it tries another server.
    WrongEnsemble,
}

impl Authenticator {
    /// The ids that every connection has from its start.
    pub(crate) fn initial_ids(address: &str) -> Vec<Id> {
        vec![Id::new("ip", address)]
    }

    /// Checks an auth packet. Null is no digest, and empty is one: so upstream has it. `key` is the data
    /// of `/key`.
    pub(crate) fn authenticate(
        &self,
        scheme: &str,
        auth: Option<&[u8]>,
        address: &str,
        key: Option<&[u8]>,
    ) -> AuthOutcome {
        match (scheme, auth) {
            ("digest", Some(auth)) if self.digest_enabled => {
                let id = digest_id(auth, self.digest_algorithm);
                let mut ids = Vec::new();
                if self.super_digest.as_ref() == Some(&id) {
                    ids.push(Id::new("super", ""));
                }
                ids.push(Id { scheme: "digest".into(), id });
                AuthOutcome::Granted(ids)
            }
            // Whoever knows the key is the same to the ACLs; before there is one, anyone may write it.
            ("key", Some(auth)) if self.key_enabled => {
                if key.is_none_or(|key| is_multiple(auth, key)) {
                    AuthOutcome::Granted(vec![Id::new("key", "")])
                } else {
                    AuthOutcome::Failed
                }
            }
            ("ip", _) => AuthOutcome::Granted(Self::initial_ids(address)),
            ("ensemble", auth) => match &self.ensemble_names {
                None => AuthOutcome::Failed,
                Some(names) => {
                    let given = String::from_utf8_lossy(auth.unwrap_or_default());
                    if names.is_empty()
                        || given.is_empty()
                        || names.iter().any(|name| *name == given)
                    {
                        AuthOutcome::Granted(Vec::new())
                    } else {
                        AuthOutcome::WrongEnsemble
                    }
                }
            },
            (_, _) => AuthOutcome::Failed, // a name from the network
        }
    }

    /// Whether `auth` may do one of `perms` with a znode that has this ACL.
    ///
    /// # Errors
    /// `NO_AUTH`.
    pub(crate) fn check(&self, acl: &[Acl], perms: Perms, auth: &[Id]) -> Result<(), ErrorCode> {
        if self.skip_acl || acl.is_empty() {
            return Ok(());
        }
        // Nearly every ACL is open: look for that before anything else.
        let allowed = |entry: &&Acl| entry.perms.intersects(perms);
        if acl
            .iter()
            .filter(allowed)
            .any(|entry| entry.id.scheme == "world" && entry.id.id == "anyone")
            || auth.iter().any(|id| id.scheme == "super")
            || acl
                .iter()
                .filter(allowed)
                .any(|entry| auth.iter().any(|id| self.matches(&entry.id, id)))
        {
            return Ok(());
        }
        Err(ErrorCode::NO_AUTH)
    }

    fn matches(&self, wanted: &Id, id: &Id) -> bool {
        wanted.scheme == id.scheme
            && match id.scheme.as_str() {
                "digest" => self.digest_enabled && wanted.id == id.id,
                "ip" => ip_matches(&wanted.id, &id.id),
                "key" => self.key_enabled && wanted.id == id.id,
                _ => false, // a scheme that this server does not have
            }
    }

    fn is_valid_id(&self, id: &Id) -> bool {
        match id.scheme.as_str() {
            "digest" => self.digest_enabled && is_digest_id(&id.id),
            "ip" => IpRange::parse(&id.id).is_some(),
            _ => false, // a name from the network
        }
    }

    /// Whether the ids of a scheme are proofs, which `auth` in an ACL stands for.
    fn is_authenticated(&self, scheme: &str) -> bool {
        (scheme == "digest" && self.digest_enabled) || (scheme == "key" && self.key_enabled)
    }

    /// The ACL that a znode gets when a client asks for `acl`: without duplicates, with `auth`
    /// replaced by who the client is (`PrepRequestProcessor.fixupACL`).
    ///
    /// # Errors
    /// `INVALID_ACL`.
    pub(crate) fn fixup(&self, acl: Vec<Acl>, auth: &[Id]) -> Result<Vec<Acl>, ErrorCode> {
        if let [Acl { id: Id { scheme, id }, .. }] = &acl[..]
            && scheme == "world"
            && id == "anyone"
        {
            return Ok(acl); // as nearly always
        }
        let mut fixed: Vec<Acl> = Vec::with_capacity(acl.len());
        for (at, entry) in acl.iter().enumerate() {
            if acl.iter().take(at).any(|earlier| earlier == entry) {
                continue;
            }
            match (entry.id.scheme.as_str(), entry.id.id.as_str()) {
                ("world", "anyone") => fixed.push(entry.clone()),
                ("auth", _) => {
                    let before = fixed.len();
                    let proofs = auth.iter().filter(|id| self.is_authenticated(&id.scheme));
                    fixed.extend(proofs.map(|id| Acl { perms: entry.perms, id: id.clone() }));
                    if fixed.len() == before {
                        return Err(ErrorCode::INVALID_ACL);
                    }
                }
                (_, _) if self.is_valid_id(&entry.id) => fixed.push(entry.clone()),
                (_, _) => return Err(ErrorCode::INVALID_ACL),
            }
        }
        if fixed.is_empty() { Err(ErrorCode::INVALID_ACL) } else { Ok(fixed) }
    }
}

/// Whether both are numbers, and the first is a multiple of the second; of 0 everything is.
fn is_multiple(auth: &[u8], key: &[u8]) -> bool {
    let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse::<i32>().ok();
    match (number(auth), number(key)) {
        (Some(_), Some(0)) => true,
        (Some(auth), Some(key)) => auth.wrapping_rem(key) == 0,
        (None, _) | (_, None) => false,
    }
}

/// `user:password` → `user:base64(SHA1("user:password"))`.
fn digest_id(auth: &[u8], algorithm: DigestAlgorithm) -> String {
    let text = String::from_utf8_lossy(auth);
    let user = text.split(':').next().unwrap_or_default();
    format!("{user}:{}", STANDARD.encode(algorithm.hash(text.as_bytes())))
}

/// Two parts with a colon between, as Java splits: colons at the end do not count.
fn is_digest_id(id: &str) -> bool {
    id.trim_end_matches(':').split(':').count() == 2
}

/// What whoAmI shows of an id: for digest the user alone.
pub(crate) fn display_name(id: &Id) -> &str {
    match id.scheme.as_str() {
        "digest" => id.id.split(':').next().unwrap_or_default(),
        _ => &id.id, // a scheme whose ids are names
    }
}

/// What who may read but not administer an ACL sees of it.
pub(crate) fn redact(acl: &[Acl]) -> Vec<Acl> {
    let mut redacted = acl.to_vec();
    for entry in redacted.iter_mut().filter(|entry| entry.id.scheme == "digest") {
        if let Some(at) = entry.id.id.find(':') {
            entry.id.id.replace_range(at.., ":x");
        }
    }
    redacted
}

struct IpRange {
    address: IpAddr,
    bits: u8,
}

impl IpRange {
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().ok()?)),
            None => (text, None),
        };
        let address = parse_address(address)?;
        let all = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(all);
        (bits <= all).then_some(Self { address, bits })
    }

    fn contains(&self, address: IpAddr) -> bool {
        fn shifted(bits: u128, width: u8, prefix: u8) -> u128 {
            bits.checked_shr(u32::from(width - prefix)).unwrap_or(0)
        }
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let [own, other] = [own, other].map(|ip| u128::from(u32::from(ip)));
                shifted(own, 32, self.bits) == shifted(other, 32, self.bits)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                shifted(own.into(), 128, self.bits) == shifted(other.into(), 128, self.bits)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

fn ip_matches(range: &str, address: &str) -> bool {
    match (IpRange::parse(range), parse_address(address)) {
        (Some(range), Some(address)) => range.contains(address),
        (None, _) | (_, None) => false,
    }
}

/// Leading zeros are allowed, and mean nothing, in Java's eyes.
fn parse_address(text: &str) -> Option<IpAddr> {
    if text.contains(':') {
        return parse_v6(text).map(IpAddr::V6);
    }
    let mut bytes = [0; 4];
    let mut parts = text.split('.');
    for byte in &mut bytes {
        *byte = parts.next()?.parse().ok()?;
    }
    parts.next().is_none().then(|| IpAddr::from(bytes))
}

/// Segments of hexadecimal digits alone, with one `::` for one zero segment or more: upstream knows no
/// IPv4 address at the end.
fn parse_v6(text: &str) -> Option<Ipv6Addr> {
    fn segments(text: &str) -> Option<Vec<u16>> {
        let digits = |segment: &str| {
            let fits = (1..=4).contains(&segment.len());
            fits.then(|| u16::from_str_radix(segment, 16).ok()).flatten()
        };
        if text.is_empty() { Some(Vec::new()) } else { text.split(':').map(digits).collect() }
    }
    let all = match text.split_once("::") {
        None => segments(text)?,
        Some((head, tail)) => {
            let (mut all, tail) = (segments(head)?, segments(tail)?);
            let zeros = 8_usize.checked_sub(all.len() + tail.len()).filter(|zeros| *zeros > 0)?;
            all.extend(std::iter::repeat_n(0, zeros));
            all.extend(tail);
            all
        }
    };
    <[u16; 8]>::try_from(all).ok().map(Ipv6Addr::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_upstream() {
        let good =
            ["::", "::1", "1::", "fe80::1:2", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7::", "::ABCD"];
        for text in good {
            assert_eq!(parse_address(text), text.parse().ok(), "{text}");
        }
        for text in [
            "::ffff:127.0.0.1",
            "1:2:3:4:5:6:7",
            "1:2:3:4:5:6:7:8:9",
            "1:2:3:4::5:6:7:8",
            ":::",
            "1::2::3",
            "::12345",
            ":1",
            "1:",
            "::g",
            "1:2:3:4:5:6:1.2.3.4",
            ":",
        ] {
            assert_eq!(parse_address(text), None, "{text}");
        }
    }

    fn entry(perms: Perms, scheme: &str, id: &str) -> Acl {
        Acl { perms, id: Id::new(scheme, id) }
    }

    #[test]
    fn a_digest_is_what_upstream_makes_of_it() {
        // From the administrator's guide: super:D/InIHSb7yEEbrWz8b9l71RjZJU= is super:test's.
        assert_eq!(
            digest_id(b"super:test", DigestAlgorithm::Sha1),
            "super:D/InIHSb7yEEbrWz8b9l71RjZJU="
        );
    }

    #[test]
    fn super_bypasses_every_acl() {
        let auth = Authenticator {
            super_digest: Some("super:D/InIHSb7yEEbrWz8b9l71RjZJU=".into()),
            ..Authenticator::default()
        };
        let AuthOutcome::Granted(ids) =
            auth.authenticate("digest", Some(b"super:test"), "1.2.3.4", None)
        else {
            panic!("refused")
        };
        assert_eq!(ids.len(), 2);
        assert_eq!(auth.check(&[entry(Perms::READ, "ip", "9.9.9.9")], Perms::WRITE, &ids), Ok(()));
        assert_eq!(auth.authenticate("nope", Some(b""), "1.2.3.4", None), AuthOutcome::Failed);
        assert_eq!(auth.authenticate("digest", None, "1.2.3.4", None), AuthOutcome::Failed);
    }

    #[test]
    fn a_permission_needs_an_entry_that_has_it() {
        let auth = Authenticator::default();
        let acl = [entry(Perms::READ, "world", "anyone"), entry(Perms::WRITE, "ip", "10.0.0.0/8")];
        let inside = [Id::new("ip", "10.1.2.3")];
        let outside = [Id::new("ip", "11.1.2.3")];
        assert_eq!(auth.check(&acl, Perms::READ, &outside), Ok(()));
        assert_eq!(auth.check(&acl, Perms::WRITE, &inside), Ok(()));
        assert_eq!(auth.check(&acl, Perms::WRITE, &outside), Err(ErrorCode::NO_AUTH));
        assert_eq!(auth.check(&acl, Perms::WRITE.or(Perms::READ), &outside), Ok(()));
        assert_eq!(auth.check(&acl, Perms::ADMIN, &inside), Err(ErrorCode::NO_AUTH));
        assert_eq!(auth.check(&[], Perms::ADMIN, &outside), Ok(()));
    }

    #[test]
    fn the_key_scheme_wants_a_multiple() {
        let auth = Authenticator { key_enabled: true, ..Authenticator::default() };
        let granted = AuthOutcome::Granted(vec![Id::new("key", "")]);
        let show =
            |shown: &'static [u8], key| auth.authenticate("key", Some(shown), "1.2.3.4", key);
        assert_eq!(show(b"25", None), granted);
        assert_eq!(show(b"25", Some(b"5")), granted);
        assert_eq!(show(b"26", Some(b"5")), AuthOutcome::Failed);
        assert_eq!(show(b"26", Some(b"0")), granted);
        assert_eq!(show(b"x", Some(b"5")), AuthOutcome::Failed);
        let off = Authenticator::default();
        assert_eq!(off.authenticate("key", Some(b"25"), "1.2.3.4", None), AuthOutcome::Failed);
    }

    #[test]
    fn ip_ranges() {
        for (range, address, expected) in [
            ("1.2.3.4", "1.2.3.4", true),
            ("1.2.3.4", "1.2.3.5", false),
            ("1.2.3.4/24", "1.2.3.99", true),
            ("1.2.3.4/0", "9.9.9.9", true),
            ("::1", "::1", true),
            ("fe80::/10", "fe80::1", true),
            ("fe80::/10", "1.2.3.4", false),
            ("1.2.3.4/33", "1.2.3.4", false),
            ("x", "1.2.3.4", false),
            ("1.2.3.4.5", "1.2.3.4", false),
            ("1.2.3", "1.2.3.4", false),
            ("1.2.3.256", "1.2.3.4", false),
            ("001.2.3.04", "1.2.3.4", true),
            ("::ffff/0", "::1", true),
            ("", "", false),
        ] {
            assert_eq!(ip_matches(range, address), expected, "{range} {address}");
        }
    }

    #[test]
    fn acls_are_fixed_up_as_upstream_does() {
        let auth = Authenticator::default();
        let me = [Id::new("ip", "1.2.3.4"), Id::new("digest", "me:hash")];
        let all = |scheme, id| entry(Perms::ALL, scheme, id);
        assert_eq!(auth.fixup(vec![all("auth", "")], &me), Ok(vec![all("digest", "me:hash")]));
        assert_eq!(auth.fixup(vec![all("auth", "")], &me[..1]), Err(ErrorCode::INVALID_ACL));
        let twice = vec![all("world", "anyone"), all("world", "anyone")];
        assert_eq!(auth.fixup(twice, &me), Ok(Acl::open()));
        for good in ["a:b", ":b", "a:b:", "a:b::"] {
            assert!(auth.fixup(vec![all("digest", good)], &me).is_ok(), "{good}");
        }
        for bad in [
            vec![],
            vec![all("world", "someone")],
            vec![all("digest", "a:b:c")],
            vec![all("digest", "a")],
            vec![all("digest", "a:")],
            vec![all("digest", ":")],
            vec![all("ensemble", "a")],
            vec![all("ip", "x")],
            vec![all("", "")],
            vec![all("sasl", "x")],
            vec![all("world", "anyone"), all("no", "x")],
        ] {
            assert_eq!(auth.fixup(bad.clone(), &me), Err(ErrorCode::INVALID_ACL), "{bad:?}");
        }
    }

    #[test]
    fn hashes_are_hidden_from_readers() {
        let acl = [entry(Perms::ALL, "digest", "me:hash"), entry(Perms::ALL, "ip", "1.2.3.4")];
        let redacted = redact(&acl);
        assert_eq!(redacted[0].id.id, "me:x");
        assert_eq!(redacted[1], acl[1]);
        assert_eq!(display_name(&acl[0].id), "me");
    }
}
