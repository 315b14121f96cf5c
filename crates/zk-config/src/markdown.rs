//! The table of keys for the documentation.

use crate::key::{KeyInfo, Origin, Status};
use crate::table::KEYS;

/// One markdown table of every known key, in the order of [`KEYS`].
pub fn markdown_table() -> String {
    let mut table =
        String::from("| Key | Value | Default | Meaning | In Paddock |\n|---|---|---|---|---|\n");
    for info in KEYS {
        let cells =
            [name(info), escape(&info.kind.label()), default(info), escape(info.doc), status(info)];
        table.push_str("| ");
        table.push_str(&cells.join(" | "));
        table.push_str(" |\n");
    }
    table
}

fn name(info: &KeyInfo) -> String {
    match info.origin {
        Origin::File | Origin::Property | Origin::PropertyOrBare => format!("`{}`", info.name),
        Origin::Bare => format!("`-D{}`", info.name),
    }
}

fn default(info: &KeyInfo) -> String {
    if info.default.is_empty() { String::new() } else { format!("`{}`", escape(info.default)) }
}

fn status(info: &KeyInfo) -> String {
    match info.status {
        Status::Honoured => "honoured".to_owned(),
        Status::NoEffect(reason) => format!("no effect: {}", escape(reason)),
        Status::Later(feature) => format!("comes with {}", feature.comes_with()),
    }
}

fn escape(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_row_for_each_key_and_five_cells_in_each() {
        let table = markdown_table();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), KEYS.len() + 2);
        for line in &lines {
            assert_eq!(line.replace("\\|", "").matches('|').count(), 6, "{line}");
        }
        assert!(table.contains(
            "| `tickTime` | integer 1 or more | `3000` | Milliseconds of a tick, the unit of timeouts. | honoured |\n"
        ));
        assert!(table.contains("| `-Djute.maxbuffer` | integer 1 or more | `1048575` |"));
        assert!(table.contains("| `secureClientPort` | integer 0 to 65535 |  | Port for clients that speak TLS. | comes with TLS |\n"));
    }
}
