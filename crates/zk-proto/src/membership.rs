//! The lines that say who is in the ensemble: `server.N=...`, as configuration files and
//! `/zookeeper/config` have them (facts, section 3.11).

use std::borrow::Cow;
use std::fmt;
use std::net::Ipv6Addr;

/// A host and a port as written, not resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The address to listen on; none for all addresses.
    pub host: Option<String>,
    /// The port; 0 takes a free one.
    pub port: u16,
}

impl Listener {
    /// Whether it means every address of the machine.
    #[must_use]
    pub fn is_any_address(&self) -> bool {
        match self.host.as_deref() {
            None | Some("0.0.0.0" | "::" | "0:0:0:0:0:0:0:0") => true,
            Some(_) => false,
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.as_deref() {
            Some(host) => write!(f, "{}:{}", host_text(host), self.port),
            None => write!(f, "0.0.0.0:{}", self.port),
        }
    }
}

/// Whether a member votes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It votes.
    Participant,
    /// It follows without voting.
    Observer,
}

impl Role {
    /// As a server line has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Participant => "participant",
            Self::Observer => "observer",
        }
    }
}

/// One address of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberAddress {
    /// Host name or address.
    pub host: String,
    /// Port for followers.
    pub quorum_port: u16,
    /// Port for elections.
    pub election_port: u16,
}

/// One `server.N` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The N.
    pub id: u64,
    /// At least one; several only with multiAddress.enabled.
    pub addresses: Vec<MemberAddress>,
    /// Participant unless the line says otherwise.
    pub role: Role,
    /// Where it serves clients, when the line says so.
    pub client: Option<Listener>,
    /// Where it serves clients over TLS, when the line says so.
    pub secure_client: Option<Listener>,
}

/// Why a membership line is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// Not `host:port:port`.
    #[error(
        "`{0}` does not have the form host:quorumPort:electionPort[:participant|:observer][;[host:]clientPort[;[host:]secureClientPort]]"
    )]
    Form(String),
    /// A port that is none.
    #[error("`{0}` is not a port; allowed: 1 to 65535")]
    Port(String),
    /// Both server ports are the same.
    #[error("the quorum port and the election port are both {0}; they must differ")]
    SamePort(u16),
    /// Neither participant nor observer.
    #[error("`{0}` is no role; allowed: participant, observer")]
    Role(String),
    /// Different roles for addresses of one member.
    #[error("all addresses of a member must have the same role")]
    MixedRoles,
    /// Several addresses without the feature.
    #[error("several addresses need multiAddress.enabled=true")]
    MultiAddress,
    /// `[` without `]`.
    #[error("`{0}` starts with `[` but has no matching `]:`")]
    Bracket(String),
}

impl Member {
    /// The key of its line, `server.N`.
    #[must_use]
    pub fn key(&self) -> String {
        format!("server.{}", self.id)
    }

    /// Its address; of several the first.
    #[must_use]
    pub fn address(&self) -> &MemberAddress {
        self.addresses.first().expect("a line without an address does not parse")
    }

    /// Parses the value of `server.<id>`.
    ///
    /// # Errors
    /// When it does not have the form `host:quorumPort:electionPort[:role][;[host:]clientPort]`.
    pub fn parse(id: u64, text: &str, multi_address: bool) -> Result<Self, MemberError> {
        let form = || MemberError::Form(text.to_owned());
        let mut sections = text.split(';');
        let servers: Vec<&str> = sections.next().unwrap_or("").split('|').collect();
        let client = sections.next().map(|part| parse_client(part, text)).transpose()?.flatten();
        let secure_client =
            sections.next().map(|part| parse_client(part, text)).transpose()?.flatten();
        if sections.any(|rest| !rest.is_empty()) {
            return Err(form());
        }
        if servers.len() > 1 && !multi_address {
            return Err(MemberError::MultiAddress);
        }
        let mut addresses = Vec::new();
        let mut role = None;
        for server in servers {
            let parts = host_and_ports(server)?;
            let (host, quorum, election, word) = match parts.as_slice() {
                [host, quorum, election] => (host, quorum, election, None),
                [host, quorum, election, word] => (host, quorum, election, Some(word)),
                _ => return Err(form()), // of slices
            };
            if host.is_empty() {
                return Err(form());
            }
            let quorum_port = parse_port(quorum)?;
            let election_port = parse_port(election)?;
            if quorum_port == election_port {
                return Err(MemberError::SamePort(quorum_port));
            }
            if let Some(word) = word {
                let this = match word.trim().to_ascii_lowercase().as_str() {
                    "participant" => Role::Participant,
                    "observer" => Role::Observer,
                    _ => return Err(MemberError::Role((*word).to_owned())), // of texts
                };
                if *role.get_or_insert(this) != this {
                    return Err(MemberError::MixedRoles);
                }
            }
            addresses.push(MemberAddress { host: (*host).to_owned(), quorum_port, election_port });
        }
        Ok(Self { id, addresses, role: role.unwrap_or(Role::Participant), client, secure_client })
    }
}

/// The value of the line as ZooKeeper writes it (`QuorumServer.toString`), which every member must
/// write alike: the role is there, and a client address only if the line names one.
impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut addresses: Vec<&MemberAddress> = self.addresses.iter().collect();
        addresses.sort_by(|a, b| a.host.cmp(&b.host));
        for (index, address) in addresses.into_iter().enumerate() {
            let separator = if index == 0 { "" } else { "|" };
            write!(f, "{separator}{address}")?;
        }
        write!(f, ":{}", self.role.as_str())?;
        if let Some(client) = &self.client {
            write!(f, ";{client}")?;
        }
        if let Some(secure) = &self.secure_client {
            let separator = if self.client.is_none() { ";;" } else { ";" };
            write!(f, "{separator}{secure}")?;
        }
        Ok(())
    }
}

/// `host:quorumPort:electionPort`, an IPv6 address in brackets.
impl fmt::Display for MemberAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, quorum_port, election_port } = self;
        write!(f, "{}:{quorum_port}:{election_port}", host_text(host))
    }
}

/// An IPv6 address has brackets, and as Java writes it all its eight groups.
fn host_text(host: &str) -> Cow<'_, str> {
    if let Ok(address) = host.parse::<Ipv6Addr>() {
        let groups = address.segments().map(|group| format!("{group:x}"));
        Cow::Owned(format!("[{}]", groups.join(":")))
    } else if host.contains(':') {
        Cow::Owned(format!("[{host}]")) // with a zone
    } else {
        Cow::Borrowed(host)
    }
}

fn parse_port(text: &str) -> Result<u16, MemberError> {
    text.trim()
        .parse()
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| MemberError::Port(text.to_owned()))
}

/// `[host:]port`, or nothing between two semicolons.
fn parse_client(part: &str, whole: &str) -> Result<Option<Listener>, MemberError> {
    if part.is_empty() {
        return Ok(None);
    }
    match host_and_ports(part)?.as_slice() {
        [port] => Ok(Some(Listener { host: None, port: parse_port(port)? })),
        [host, port] => {
            Ok(Some(Listener { host: Some((*host).to_owned()), port: parse_port(port)? }))
        }
        _ => Err(MemberError::Form(whole.to_owned())), // of slices
    }
}

/// Splits at colons; a host in brackets may contain some.
fn host_and_ports(text: &str) -> Result<Vec<&str>, MemberError> {
    let Some(inner) = text.strip_prefix('[') else {
        return Ok(text.split(':').collect());
    };
    let (host, rest) =
        inner.split_once("]:").ok_or_else(|| MemberError::Bracket(text.to_owned()))?;
    Ok(std::iter::once(host).chain(rest.split(':')).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(host: Option<&str>, port: u16) -> Option<Listener> {
        Some(Listener { host: host.map(str::to_owned), port })
    }

    fn parse(text: &str) -> Result<Member, MemberError> {
        Member::parse(1, text, false)
    }

    #[test]
    fn forms_of_a_member() {
        let plain = parse("zk1:2888:3888").unwrap();
        assert_eq!(
            plain.addresses,
            [MemberAddress { host: "zk1".into(), quorum_port: 2888, election_port: 3888 }]
        );
        assert_eq!(
            (plain.role, plain.client, plain.secure_client),
            (Role::Participant, None, None)
        );
        let docker = parse("localhost:2888:3888;2181").unwrap();
        assert_eq!(docker.client, listener(None, 2181));
        let strimzi = parse("0.0.0.0:2888:3888:participant;127.0.0.1:12181").unwrap();
        assert_eq!(strimzi.client, listener(Some("127.0.0.1"), 12181));
        let observer = parse("h:1:2:Observer;h2:3;h3:4").unwrap();
        assert_eq!(observer.role, Role::Observer);
        assert_eq!(
            (observer.client, observer.secure_client),
            (listener(Some("h2"), 3), listener(Some("h3"), 4))
        );
        let only_secure = parse("h:1:2;;2281").unwrap();
        assert_eq!((only_secure.client, only_secure.secure_client), (None, listener(None, 2281)));
        let v6 = parse("[2001:db8::1]:2888:3888:participant;[::1]:2181").unwrap();
        assert_eq!(v6.addresses.first().unwrap().host, "2001:db8::1");
        assert_eq!(v6.client, listener(Some("::1"), 2181));
        assert_eq!(parse("h:1:2;").unwrap().client, None);
        let two = Member::parse(1, "a:1:2|b:3:4:observer", true).unwrap();
        assert_eq!((two.addresses.len(), two.role), (2, Role::Observer));
    }

    #[test]
    fn what_is_refused() {
        for text in ["", "h", "h:1", "h:1:2:participant:x", ":1:2", "h:1:2;a:b:3", "h:1:2;3;4;5"] {
            assert!(matches!(parse(text), Err(MemberError::Form(_))), "{text}: {:?}", parse(text));
        }
        for text in ["h:x:2", "h:1:70000", "h:0:2", "h:1:2;port", "h:1:2;;-1"] {
            assert!(matches!(parse(text), Err(MemberError::Port(_))), "{text}");
        }
        assert_eq!(parse("h:1:1"), Err(MemberError::SamePort(1)));
        assert_eq!(parse("h:1:2:voter"), Err(MemberError::Role("voter".into())));
        assert_eq!(parse("a:1:2|b:1:2"), Err(MemberError::MultiAddress));
        assert_eq!(
            Member::parse(1, "a:1:2:observer|b:1:2:participant", true),
            Err(MemberError::MixedRoles)
        );
        assert!(matches!(parse("[::1:2888:3888"), Err(MemberError::Bracket(_))));
    }

    #[test]
    fn listeners() {
        for (host, text, any) in [
            (None, "0.0.0.0:1", true),
            (Some("::"), "[0:0:0:0:0:0:0:0]:1", true),
            (Some("0.0.0.0"), "0.0.0.0:1", true),
            (Some("127.0.0.1"), "127.0.0.1:1", false),
        ] {
            let listener = listener(host, 1).unwrap();
            assert_eq!((listener.to_string().as_str(), listener.is_any_address()), (text, any));
        }
    }
}
