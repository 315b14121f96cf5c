use std::io::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use zk_client::WatchedEvent;
use zk_proto::acl::{Acl, Perms};
use zk_proto::data::Stat;

use crate::date;
use crate::error::CliError;

/// Exit code: the reader of our output went away, as a shell says it of SIGPIPE.
const PIPE_CLOSED: u8 = 128 + 13;

/// Where results go: lines as Apache's shell prints them, or JSON.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    pub(crate) json: bool,
}

impl Output {
    /// A result line. A reader that went away is no error of ours.
    pub(crate) fn line(self, text: &str) {
        writeln!(std::io::stdout().lock(), "{text}").ok();
    }

    /// A notice.
    pub(crate) fn notice(self, text: &str) {
        writeln!(std::io::stderr().lock(), "{text}").ok();
    }

    /// A notice that only Apache's output has; JSON says the same in its results.
    pub(crate) fn text_notice(self, text: &str) {
        if !self.json {
            self.notice(text);
        }
    }

    /// One result, either way.
    pub(crate) fn result(self, json: impl FnOnce() -> Value, text: impl FnOnce(Self)) {
        if self.json {
            self.line(&json().to_string());
        } else {
            text(self);
        }
    }

    /// A line of a stream, which ends when nobody reads it any more.
    pub(crate) fn stream(
        self,
        json: impl FnOnce() -> Value,
        text: impl FnOnce() -> String,
    ) -> Result<(), CliError> {
        let line = if self.json { json().to_string() } else { text() };
        let mut out = std::io::stdout().lock();
        // A pipe's reader waits for each line.
        match writeln!(out, "{line}").and_then(|()| out.flush()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                Err(CliError::exit(PIPE_CLOSED, ""))
            }
            Err(error) => Err(CliError::failed(format!("standard output: {error}"))),
        }
    }

    pub(crate) fn error(self, error: &CliError) {
        if error.text.is_empty() {
            return; // all has been said
        }
        self.notice(&if self.json { error.json().to_string() } else { error.text.clone() });
    }

    pub(crate) fn event(self, event: &WatchedEvent) {
        self.result(
            || {
                json!({
                    "event": event.kind.to_string(),
                    "state": event.state.to_string(),
                    "path": event.path,
                    "zxid": event.zxid,
                })
            },
            |out| out.line(&format!("\nWATCHER::\n\n{event}")),
        );
    }

    pub(crate) fn stat(self, stat: &Stat) {
        self.line(&format!(
            "cZxid = 0x{:x}\nctime = {}\nmZxid = 0x{:x}\nmtime = {}\npZxid = 0x{:x}\ncversion = {}\n\
             dataVersion = {}\naclVersion = {}\nephemeralOwner = 0x{:x}\ndataLength = {}\nnumChildren = {}",
            stat.czxid,
            date::format(stat.ctime),
            stat.mzxid,
            date::format(stat.mtime),
            stat.pzxid,
            stat.cversion,
            stat.version,
            stat.aversion,
            stat.ephemeral_owner,
            stat.data_length,
            stat.num_children
        ));
    }
}

pub(crate) fn stat_json(stat: &Stat) -> Value {
    json!({
        "czxid": stat.czxid,
        "mzxid": stat.mzxid,
        "pzxid": stat.pzxid,
        "ctime": stat.ctime,
        "mtime": stat.mtime,
        "version": stat.version,
        "cversion": stat.cversion,
        "aversion": stat.aversion,
        "ephemeralOwner": stat.ephemeral_owner,
        "dataLength": stat.data_length,
        "numChildren": stat.num_children,
    })
}

/// Data as text where it is text; `encoding` says which. Null stays null.
pub(crate) fn data_json(data: Option<&[u8]>) -> (Value, &'static str) {
    match data {
        None => (Value::Null, "utf8"),
        Some(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => (text.into(), "utf8"),
            Err(_) => (BASE64_STANDARD.encode(bytes).into(), "base64"),
        },
    }
}

pub(crate) fn acl_json(acl: &[Acl]) -> Value {
    acl.iter()
        .map(|entry| json!({"scheme": entry.id.scheme, "id": entry.id.id, "perms": perms(entry.perms)}))
        .collect()
}

/// `cdrwa`, or what of it is there.
pub(crate) fn perms(perms: Perms) -> String {
    let letters = [
        (Perms::CREATE, 'c'),
        (Perms::DELETE, 'd'),
        (Perms::READ, 'r'),
        (Perms::WRITE, 'w'),
        (Perms::ADMIN, 'a'),
    ];
    letters.iter().filter(|(perm, _)| perms.intersects(*perm)).map(|(_, letter)| letter).collect()
}

/// Sixteen bytes a line, as netty's `prettyHexDump` draws them.
pub(crate) fn hex_dump(data: &[u8]) -> String {
    if data.is_empty() {
        return String::new();
    }
    let mut out = String::from(
        "         +-------------------------------------------------+\n         \
         |  0  1  2  3  4  5  6  7  8  9  a  b  c  d  e  f |\n\
         +--------+-------------------------------------------------+----------------+",
    );
    for (row, bytes) in data.chunks(16).enumerate() {
        let hex: String = bytes.iter().map(|byte| format!(" {byte:02x}")).collect();
        let text: String = bytes
            .iter()
            .map(|byte| if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '.' })
            .collect();
        out.push_str(&format!("\n|{:08x}|{hex:<48} |{text:<16}|", row * 16));
    }
    out.push_str("\n+--------+-------------------------------------------------+----------------+");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hex_dump_has_netty_s_shape() {
        let dump = hex_dump(b"hello, world of \x00\xff");
        let lines: Vec<&str> = dump.lines().collect();
        assert_eq!(lines.len(), 6);
        assert_eq!(
            lines[3],
            "|00000000| 68 65 6c 6c 6f 2c 20 77 6f 72 6c 64 20 6f 66 20 |hello, world of |"
        );
        assert_eq!(
            lines[4],
            "|00000010| 00 ff                                           |..              |"
        );
        assert!(lines.iter().all(|line| line.len() == lines[3].len() || line.starts_with("     ")));
        assert_eq!(hex_dump(b""), "");
    }

    #[test]
    fn permissions_in_apache_s_order() {
        assert_eq!(perms(Perms::ALL), "cdrwa");
        assert_eq!(perms(Perms::READ.or(Perms::ADMIN)), "ra");
        assert_eq!(perms(Perms(0)), "");
    }

    #[test]
    fn data_that_is_no_text_is_base64() {
        assert_eq!(data_json(Some(b"a")), ("a".into(), "utf8"));
        assert_eq!(data_json(Some(b"\xff")), ("/w==".into(), "base64"));
        assert_eq!(data_json(None), (Value::Null, "utf8"));
    }
}
