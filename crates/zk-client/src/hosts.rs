use std::fmt;

/// A parsed connect string: `host:port,host:port/chroot`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectString {
    /// Servers as `host:port`.
    pub hosts: Vec<String>,
    /// Where the client's paths start; empty for the root.
    pub chroot: String,
}

/// A connect string that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConnectStringError {
    text: String,
    why: &'static str,
}

impl fmt::Display for ConnectStringError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not a connect string (host:port[,host:port...][/chroot]): {}",
            self.text, self.why
        )
    }
}

const DEFAULT_PORT: u16 = 2181;

impl ConnectString {
    /// Reads a connect string. A missing port is 2181.
    ///
    /// # Errors
    /// No host, a port that is no number, or a chroot that is no path.
    pub fn parse(text: &str) -> Result<Self, ConnectStringError> {
        let error = |why| ConnectStringError { text: text.to_owned(), why };
        let (servers, chroot) = match text.find('/') {
            None => (text, ""),
            Some(at) => text.split_at(at),
        };
        let chroot = if chroot == "/" { "" } else { chroot };
        if !chroot.is_empty() && !zk_proto::path::is_valid(chroot) {
            return Err(error("the chroot is not a valid path"));
        }
        let mut hosts = Vec::new();
        for server in servers.split(',').map(str::trim).filter(|server| !server.is_empty()) {
            hosts.push(with_port(server).map_err(error)?);
        }
        if hosts.is_empty() {
            return Err(error("no host is named"));
        }
        Ok(Self { hosts, chroot: chroot.to_owned() })
    }
}

fn with_port(server: &str) -> Result<String, &'static str> {
    let port_at = match server.strip_prefix('[') {
        Some(rest) => {
            let end = rest.find(']').ok_or("an IPv6 address lacks its closing bracket")? + 2;
            (end < server.len()).then_some(end)
        }
        // More than one colon without brackets: an IPv6 address alone.
        None if server.matches(':').count() > 1 => return Ok(format!("[{server}]:{DEFAULT_PORT}")),
        None => server.find(':'),
    };
    match port_at {
        None => Ok(format!("{server}:{DEFAULT_PORT}")),
        Some(0) => Err("a host is missing"),
        Some(at) => {
            let port = server[at..]
                .strip_prefix(':')
                .ok_or("something else than a port follows the address")?;
            port.parse::<u16>().map_err(|_| "a port is not a number up to 65535")?;
            Ok(server.to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_ports_and_chroot() {
        let parsed =
            |text| ConnectString::parse(text).map(|c| (c.hosts.join(" "), c.chroot)).unwrap();
        let is = |hosts: &str, chroot: &str| (hosts.to_owned(), chroot.to_owned());
        assert_eq!(parsed("localhost"), is("localhost:2181", ""));
        assert_eq!(parsed("a:1,b , c:3/x/y"), is("a:1 b:2181 c:3", "/x/y"));
        assert_eq!(parsed("a:1/"), is("a:1", ""));
        assert_eq!(parsed("[::1]:5,[::2],::3"), is("[::1]:5 [::2]:2181 [::3]:2181", ""));
    }

    #[test]
    fn what_is_refused() {
        for text in ["", "/x", ",", "a:b", "a:70000", ":1", "[::1", "[::1]x", "a/x/", "a//"] {
            assert!(ConnectString::parse(text).is_err(), "{text:?}");
        }
    }
}
