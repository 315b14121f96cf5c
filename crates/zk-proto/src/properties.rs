//! Java properties syntax, the syntax of `zoo.cfg`, with the line number of every entry.

use std::collections::BTreeMap;

/// One `key=value` of a properties text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Property {
    /// The key, unescaped and without surrounding blanks.
    pub key: String,
    /// The value, unescaped and without surrounding blanks.
    pub value: String,
    /// Line on which the entry starts, counted from 1.
    pub line: u32,
}

/// What is odd about a properties text, beside what the keys mean.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PropertiesProblem {
    /// Java refuses the whole file for this.
    #[error("a \\u escape needs four hexadecimal digits")]
    BadUnicodeEscape {
        /// Line of the entry.
        line: u32,
    },
    /// The later entry wins, as in Java.
    #[error("set again here; this value wins over the one on line {first_line}")]
    Duplicate {
        /// The key that is set twice.
        key: String,
        /// Line of the entry that wins.
        line: u32,
        /// Line of the entry that loses.
        first_line: u32,
    },
    /// A line without a key, such as `=5`.
    #[error("this line has no key; it is ignored")]
    NoKey {
        /// Line of the entry.
        line: u32,
    },
    /// A key alone on its line: its value is the empty string, which is hardly ever meant.
    #[error("no value; write `{key}=value`")]
    NoSeparator {
        /// The key.
        key: String,
        /// Line of the entry.
        line: u32,
    },
}

impl PropertiesProblem {
    /// Line of the entry in question.
    pub fn line(&self) -> u32 {
        match self {
            Self::BadUnicodeEscape { line }
            | Self::Duplicate { line, .. }
            | Self::NoKey { line }
            | Self::NoSeparator { line, .. } => *line,
        }
    }
}

/// A parsed properties text: each key once, in the order of the lines that count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Properties {
    /// The entries that count.
    pub entries: Vec<Property>,
    /// What was odd, in line order.
    pub problems: Vec<PropertiesProblem>,
}

impl Properties {
    /// Parses `text` by the rules of `java.util.Properties.load`: `#` and `!` start a comment, an
    /// odd number of backslashes at the end continues a line, the key ends at the first unescaped
    /// `=`, `:` or blank. Keys and values are trimmed, as ZooKeeper trims them. Never fails: what
    /// Java would refuse is in `problems`.
    pub fn parse(text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut properties = Self::default();
        let mut winner: BTreeMap<String, usize> = BTreeMap::new();
        let mut slots: Vec<Option<Property>> = Vec::new();
        for (line, logical) in logical_lines(text) {
            let (raw_key, raw_value, separated) = split_entry(&logical);
            let (Some(key), Some(value)) = (unescape(raw_key), unescape(raw_value)) else {
                properties.problems.push(PropertiesProblem::BadUnicodeEscape { line });
                continue;
            };
            let key = java_trim(&key).to_owned();
            let value = java_trim(&value).to_owned();
            if key.is_empty() {
                properties.problems.push(PropertiesProblem::NoKey { line });
                continue;
            }
            if !separated {
                properties.problems.push(PropertiesProblem::NoSeparator { key: key.clone(), line });
            }
            if let Some(earlier) = winner.insert(key.clone(), slots.len())
                && let Some(loser) = slots.get_mut(earlier).and_then(Option::take)
            {
                let first_line = loser.line;
                properties.problems.push(PropertiesProblem::Duplicate {
                    key: key.clone(),
                    line,
                    first_line,
                });
            }
            slots.push(Some(Property { key, value, line }));
        }
        properties.entries = slots.into_iter().flatten().collect();
        properties
    }

    /// The value that counts for `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| entry.value.as_str())
    }
}

/// Java's `String.trim`: everything up to and including the blank counts as white space.
#[must_use]
pub fn java_trim(text: &str) -> &str {
    text.trim_matches(|c: char| c <= ' ')
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\u{c}')
}

/// Lines ended by `\n`, `\r` or `\r\n`.
fn natural_lines(text: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let Some(end) = rest.find(['\n', '\r']) else {
            lines.push(rest);
            break;
        };
        let (line, tail) = rest.split_at(end);
        lines.push(line);
        rest = tail.strip_prefix("\r\n").or_else(|| tail.strip_prefix(['\n', '\r'])).unwrap_or("");
    }
    lines
}

/// Joins continued lines and drops comments and blank lines; each result has the number of its
/// first line.
fn logical_lines(text: &str) -> Vec<(u32, String)> {
    let mut logical: Vec<(u32, String)> = Vec::new();
    let mut open: Option<(u32, String)> = None;
    for (number, line) in (1_u32..).zip(natural_lines(text)) {
        let line = line.trim_start_matches(is_blank);
        let (first, mut joined) = match open.take() {
            Some(begun) => begun,
            None if line.is_empty() => continue,
            None => (number, String::new()),
        };
        // Only a line that adds to nothing yet can be a comment, and a comment is never continued.
        if joined.is_empty() && line.starts_with(['#', '!']) {
            continue;
        }
        let backslashes = line.len() - line.trim_end_matches('\\').len();
        if backslashes % 2 == 1 {
            joined.push_str(line.strip_suffix('\\').unwrap_or(line));
            open = Some((first, joined));
        } else {
            joined.push_str(line);
            if !joined.is_empty() {
                logical.push((first, joined));
            }
        }
    }
    logical.extend(open.filter(|(_, joined)| !joined.is_empty()));
    logical
}

/// Splits at the first unescaped separator: blanks, then at most one `=` or `:`, then blanks.
fn split_entry(line: &str) -> (&str, &str, bool) {
    let mut escaped = false;
    let end = line.char_indices().find(|(_, c)| {
        if escaped {
            escaped = false;
            return false;
        }
        escaped = *c == '\\';
        matches!(c, '=' | ':') || is_blank(*c)
    });
    let Some((end, _)) = end else {
        return (line, "", false);
    };
    let (key, rest) = line.split_at(end);
    let rest = rest.trim_start_matches(is_blank);
    let value = rest.strip_prefix(['=', ':']).unwrap_or(rest).trim_start_matches(is_blank);
    (key, value, value.len() < rest.len() || !value.is_empty())
}

/// Resolves `\t \n \r \f \uXXXX`; before any other character a backslash just vanishes.
fn unescape(raw: &str) -> Option<String> {
    if !raw.contains('\\') {
        return Some(raw.to_owned());
    }
    // UTF-16, because a character outside the basic plane is written as two \u escapes.
    let mut units: Vec<u16> = Vec::with_capacity(raw.len());
    let mut chars = raw.chars();
    while let Some(c) = chars.next() {
        let literal = match c {
            '\\' => match chars.next() {
                Some('t') => '\t',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('f') => '\u{c}',
                Some('u') => {
                    let digits: String = chars.by_ref().take(4).collect();
                    let whole = digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_hexdigit());
                    units.push(u16::from_str_radix(&digits, 16).ok().filter(|_| whole)?);
                    continue;
                }
                Some(other) => other,
                None => break,
            },
            other => other,
        };
        units.extend_from_slice(literal.encode_utf16(&mut [0; 2]));
    }
    Some(String::from_utf16_lossy(&units))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String, u32)> {
        let parsed = Properties::parse(text);
        assert_eq!(parsed.problems, []);
        parsed.entries.into_iter().map(|p| (p.key, p.value, p.line)).collect()
    }

    fn pair(text: &str) -> (String, String) {
        let mut all = pairs(text);
        assert_eq!(all.len(), 1, "{text:?}");
        let (key, value, _) = all.remove(0);
        (key, value)
    }

    #[test]
    fn separators() {
        for text in [
            "a=b",
            "a:b",
            "a b",
            "a = b",
            "a : b",
            " \ta\t=\tb",
            "a\u{c}b",
            "a  b",
            "a=b  ",
            "a= b\t",
        ] {
            assert_eq!(pair(text), ("a".into(), "b".into()), "{text:?}");
        }
        assert_eq!(pair("a==b"), ("a".into(), "=b".into()));
        assert_eq!(pair("a = : b"), ("a".into(), ": b".into()));
        assert_eq!(pair("a=b=c:d e"), ("a".into(), "b=c:d e".into()));
        assert_eq!(pair("a="), ("a".into(), String::new()));
        assert_eq!(
            pair("server.1=h:2888:3888;2181"),
            ("server.1".into(), "h:2888:3888;2181".into())
        );
    }

    #[test]
    fn comments_blank_lines_and_line_ends() {
        let text = "# c1\n! c2\n\n   \t\n  # indented\na=1\r\nb=2\rc=3\n#last\\\nd=4";
        let expected: Vec<_> = [("a", "1", 6), ("b", "2", 7), ("c", "3", 8), ("d", "4", 10)]
            .map(|(k, v, l)| (k.into(), v.into(), l))
            .into();
        assert_eq!(pairs(text), expected);
        // A hash after the value belongs to the value, as in Java.
        assert_eq!(
            pair("tickTime=2000 # two seconds"),
            ("tickTime".into(), "2000 # two seconds".into())
        );
    }

    #[test]
    fn continuation() {
        assert_eq!(
            pairs("a=1,\\\n   2,\\\r\n\t3\nb=x"),
            [("a".to_owned(), "1,2,3".to_owned(), 1), ("b".to_owned(), "x".to_owned(), 4)]
        );
        // An even number of backslashes is an escaped backslash, not a continuation.
        assert_eq!(
            pairs("a=1\\\\\nb=2"),
            [("a".to_owned(), "1\\".to_owned(), 1), ("b".to_owned(), "2".to_owned(), 2)]
        );
        // A comment sign on a continued line is data; a blank line ends the entry.
        assert_eq!(
            pairs("a=1\\\n#2\nb=1\\\n\nc=3"),
            [
                ("a".to_owned(), "1#2".to_owned(), 1),
                ("b".to_owned(), "1".to_owned(), 3),
                ("c".to_owned(), "3".to_owned(), 5)
            ]
        );
        assert_eq!(pair("a=1\\"), ("a".into(), "1".into()));
        assert_eq!(pairs("\\\n\\\n"), []);
        assert_eq!(pair("\\\na=1"), ("a".into(), "1".into()));
    }

    #[test]
    fn escapes() {
        assert_eq!(pair(r"a\=b=c"), ("a=b".into(), "c".into()));
        assert_eq!(pair(r"a\:b\ c=d"), ("a:b c".into(), "d".into()));
        assert_eq!(pair(r"a=C\:\\data\\zk"), ("a".into(), r"C:\data\zk".into()));
        assert_eq!(pair(r"a=C:\data"), ("a".into(), "C:data".into()));
        assert_eq!(pair(r"a=x\ty\u0041\u00e9\q"), ("a".into(), "x\tyA\u{e9}q".into()));
        assert_eq!(pair(r"a=\ud83d\ude00!"), ("a".into(), "\u{1f600}!".into()));
        assert_eq!(pair("a=\u{1f600}\\u0041"), ("a".into(), "\u{1f600}A".into()));
    }

    #[test]
    fn problems_name_their_line() {
        let parsed = Properties::parse("a=1\nb=\\u00zz\n=5\na=2\nlonely\na=3\n\\u12");
        assert_eq!(
            parsed.problems,
            [
                PropertiesProblem::BadUnicodeEscape { line: 2 },
                PropertiesProblem::NoKey { line: 3 },
                PropertiesProblem::Duplicate { key: "a".into(), line: 4, first_line: 1 },
                PropertiesProblem::NoSeparator { key: "lonely".into(), line: 5 },
                PropertiesProblem::Duplicate { key: "a".into(), line: 6, first_line: 4 },
                PropertiesProblem::BadUnicodeEscape { line: 7 },
            ]
        );
        assert_eq!(parsed.get("a"), Some("3"));
        assert_eq!(parsed.entries.len(), 2);
        let lines: Vec<u32> = parsed.problems.iter().map(PropertiesProblem::line).collect();
        assert_eq!(lines, [2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn byte_order_mark_and_empty_text() {
        assert_eq!(pair("\u{feff}a=1"), ("a".into(), "1".into()));
        assert_eq!(pairs(""), []);
        assert_eq!(pairs("\n\r\n\r"), []);
    }

    #[test]
    fn any_text_is_parsed_without_panic() {
        let alphabet = ['a', '=', ':', ' ', '\\', '\n', '\r', '#', 'u', '0', '\u{e9}', '\t'];
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..24 {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                text.push(alphabet[usize::try_from(state >> 33).unwrap() % alphabet.len()]);
            }
            for entry in Properties::parse(&text).entries {
                assert!(!entry.key.is_empty() && entry.line >= 1);
            }
        }
    }
}
