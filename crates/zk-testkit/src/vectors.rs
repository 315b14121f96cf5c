//! Files of recorded packets: what real clients and servers said, and what it means.
//!
//! ```text
//! # a comment
//! DeleteRequest: delete /a (some client)
//!   path: "/a"
//!   version: -1
//!   000000022f61ffffffff
//! ```
//!
//! A section is a kind and a name, the expected fields in the order of the record, and the bytes. A
//! value is written as `Debug` writes it, without the newtype around it; the field `is` stands for a
//! piece of `Debug` output that has no name.

use std::fs;
use std::path::Path;

use bytes::Bytes;

/// One recorded packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vector {
    /// What it is: a record's name.
    pub kind: String,
    /// Where it comes from.
    pub name: String,
    /// Names and values of its fields.
    pub fields: Vec<(String, String)>,
    /// The bytes.
    pub bytes: Bytes,
    /// The line of its heading, for messages.
    pub line: usize,
}

/// Reads a vector file.
///
/// # Panics
/// When it cannot be read, or is not of the form above.
#[must_use]
pub fn read(path: impl AsRef<Path>) -> Vec<Vector> {
    let path = path.as_ref();
    let text =
        fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let vectors = parse(&text).unwrap_or_else(|error| panic!("{}, line {error}", path.display()));
    assert!(!vectors.is_empty(), "{} holds no vector", path.display());
    vectors
}

fn parse(text: &str) -> Result<Vec<Vector>, String> {
    let mut vectors: Vec<Vector> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some(indented) = line.strip_prefix("  ") else {
            let (kind, name) =
                line.split_once(": ").ok_or(format!("{number}: a heading is `Kind: name`"))?;
            vectors.push(Vector {
                kind: kind.to_owned(),
                name: name.to_owned(),
                fields: Vec::new(),
                bytes: Bytes::new(),
                line: number,
            });
            continue;
        };
        let vector = vectors.last_mut().ok_or(format!("{number}: before any heading"))?;
        if let Some((field, value)) = indented.split_once(": ") {
            vector.fields.push((field.to_owned(), value.to_owned()));
        } else {
            let more = unhex(indented).ok_or(format!("{number}: no hexadecimal bytes"))?;
            vector.bytes = [&vector.bytes[..], &more].concat().into();
        }
    }
    Ok(vectors)
}

/// The bytes that a string of hexadecimal digits stands for.
#[must_use]
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    text.as_bytes()
        .chunks(2)
        .map(|pair| match *pair {
            [high, low] => Some(digit(high)? << 4 | digit(low)?),
            _ => None, // an odd digit
        })
        .collect()
}

/// Bytes as hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes each vector of kind `File` to a file below `folder` that has its name; its field `zeros` says how
/// many of them stand behind its bytes.
///
/// # Panics
/// When one cannot be written, or there is none.
pub fn write_files(vectors: &[Vector], folder: &Path) {
    let files: Vec<_> = vectors.iter().filter(|vector| vector.kind == "File").collect();
    assert!(!files.is_empty(), "there is no file");
    for file in files {
        let path = folder.join(&file.name);
        let zeros = file.field("zeros").map_or(0, |zeros| zeros.parse().expect("a number"));
        let bytes = [&file.bytes[..], &vec![0; zeros]].concat();
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder to write to");
        fs::write(&path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

impl Vector {
    /// The value of a field, if it has it.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(field, _)| field == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Checks that the fields stand in `debug`, the `Debug` output of what was decoded, in their order.
    ///
    /// # Panics
    /// When one is missing.
    pub fn check_fields(&self, debug: &str) {
        let mut rest = debug;
        for (field, value) in &self.fields {
            let Some(behind) = find_field(rest, field, value) else {
                panic!(
                    "{}: {} (line {}): no `{field}: {value}` in {rest}\n(all: {debug})",
                    self.kind, self.name, self.line
                );
            };
            rest = behind;
        }
    }
}

/// What stands behind the first occurrence of the field with that value.
fn find_field<'d>(debug: &'d str, field: &str, value: &str) -> Option<&'d str> {
    if field == "is" {
        return debug.find(value).map(|at| &debug[at + value.len()..]);
    }
    let label = format!("{field}: ");
    let mut from = 0;
    loop {
        let at = from + debug[from..].find(&label)?;
        from = at + label.len();
        let before = debug[..at].chars().next_back();
        if !matches!(before, None | Some(' ')) {
            continue; // the tail of a longer name
        }
        let mut found = &debug[from..];
        // A newtype: `Zxid(7)`.
        if let Some((name, inner)) = found.split_once('(')
            && name.starts_with(|c: char| c.is_ascii_uppercase())
            && name.chars().all(char::is_alphanumeric)
            && !value.starts_with(name)
        {
            found = inner;
        }
        if let Some(behind) = found.strip_prefix(value)
            && behind.starts_with([',', ' ', ')', ']', '}'])
        {
            return Some(behind);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read() {
        let text = "# comment\n\nA: first: one\n  x: 1\n  00ff\n  10\nB: second\n  s: \"a: b\"\n";
        let vectors = parse(text).unwrap();
        assert_eq!(vectors.len(), 2);
        assert_eq!((vectors[0].kind.as_str(), vectors[0].name.as_str()), ("A", "first: one"));
        assert_eq!(vectors[0].bytes, [0u8, 255, 16][..]);
        assert_eq!(vectors[1].fields, [("s".to_owned(), "\"a: b\"".to_owned())]);
        assert!(parse("A: x\n  0f1\n").is_err());
        assert!(parse("  00\n").is_err());
    }

    fn vector(fields: &[(&str, &str)]) -> Vector {
        let fields = fields.iter().map(|(f, v)| ((*f).to_owned(), (*v).to_owned())).collect();
        Vector { kind: "K".into(), name: "n".into(), fields, bytes: Bytes::new(), line: 1 }
    }

    const DEBUG: &str = "R { zxid: Zxid(-7), op: create, d: Some(b\"x\"), v: [\"a\"], long_d: 3 }";

    #[test]
    fn fields_are_found_in_their_order() {
        let fields = [
            ("zxid", "-7"),
            ("op", "create"),
            ("d", "Some(b\"x\")"),
            ("v", "[\"a\"]"),
            ("long_d", "3"),
        ];
        vector(&fields).check_fields(DEBUG);
    }

    #[test]
    #[should_panic(expected = "no `zxid: -7`")]
    fn another_order_is_noticed() {
        vector(&[("op", "create"), ("zxid", "-7")]).check_fields(DEBUG);
    }

    #[test]
    #[should_panic(expected = "no `zxid: -")]
    fn a_value_is_compared_whole() {
        vector(&[("zxid", "-")]).check_fields(DEBUG);
    }

    #[test]
    #[should_panic(expected = "no `d: 3`")]
    fn a_name_is_compared_whole() {
        vector(&[("d", "3")]).check_fields(DEBUG);
    }
}
