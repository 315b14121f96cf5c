//! The `myid` file: one server id as text.

/// Largest server id of a member that may create TTL nodes: the top byte of an ephemeral owner is
/// `0xff` for those (`EphemeralType.MAX_EXTENDED_SERVER_ID`).
pub const MAX_EXTENDED_SERVER_ID: u64 = 0xfe;

/// Why the text of a `myid` file gives no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MyIdError {
    /// The file exists and has no first line.
    #[error("the myid file is empty; write the number N of this machine's server.N line into it")]
    Empty,
    /// The first line is no number.
    #[error(
        "the myid file says `{text}`; it must be one whole number, the N of this machine's server.N line"
    )]
    NotANumber {
        /// The first line.
        text: String,
    },
    /// It is a number below zero, which no member has. A server that is alone needs no id.
    #[error(
        "the myid file says {id}, which is no server id; write the number N of this machine's server.N line into it"
    )]
    Negative {
        /// The number.
        id: i64,
    },
}

/// The id in the first line of `text`. Upstream accepts no blank around the number; here one is
/// harmless, and the rest of the file is ignored as there. A negative id stands for "not set" inside
/// ZooKeeper.
///
/// # Errors
/// When the first line is no whole number from 0 to 2^63 - 1.
pub fn parse_my_id(text: &str) -> Result<u64, MyIdError> {
    let first = text.split(['\n', '\r']).next().unwrap_or("").trim();
    if first.is_empty() {
        return Err(MyIdError::Empty);
    }
    let id: i64 = first.parse().map_err(|_| MyIdError::NotANumber { text: first.to_owned() })?;
    u64::try_from(id).map_err(|_| MyIdError::Negative { id })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_line_counts() {
        for (text, id) in [
            ("1", 1),
            ("1\n", 1),
            ("3\r\n", 3),
            (" 255 \n7\n", 255),
            ("0\n", 0),
            ("9223372036854775807", 9_223_372_036_854_775_807),
        ] {
            assert_eq!(parse_my_id(text), Ok(id), "{text:?}");
        }
    }

    #[test]
    fn what_is_refused() {
        assert_eq!(parse_my_id(""), Err(MyIdError::Empty));
        assert_eq!(parse_my_id("\n1"), Err(MyIdError::Empty));
        assert_eq!(parse_my_id("-1"), Err(MyIdError::Negative { id: -1 }));
        for text in ["one", "-", "1.0", "0x1", "9223372036854775808", "1 2"] {
            assert_eq!(
                parse_my_id(text),
                Err(MyIdError::NotANumber { text: text.to_owned() }),
                "{text}"
            );
        }
    }
}
