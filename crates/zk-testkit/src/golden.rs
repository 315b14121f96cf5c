//! Golden files: commands, a line `---`, and what they must print.
//!
//! Several cases may stand in a file: each ends at a line `===`, which may carry the next one's name.
//! With `REWRITE=1` in the environment the expected parts are written anew, to be read in the diff.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// Runs every `*.txt` of a folder through `run`, which gets a case's commands and returns its trace.
///
/// # Panics
/// When a trace differs from its file, when a file has no `---`, or when there is no file at all.
pub fn check_dir(dir: impl AsRef<Path>, mut run: impl FnMut(&str) -> String) {
    let dir = dir.as_ref();
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut paths: Vec<_> = entries
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "no golden file in {}", dir.display());
    for path in paths {
        check_file(path, &mut run);
    }
}

/// Runs one file through `run`.
///
/// # Panics
/// As [`check_dir`].
pub fn check_file(path: impl AsRef<Path>, run: impl FnMut(&str) -> String) {
    let path = path.as_ref();
    let text =
        fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (rewritten, differences) = check_text(&text, run);
    if std::env::var_os("REWRITE").is_some_and(|value| value == "1") {
        if rewritten != text {
            fs::write(path, rewritten).expect("the golden file can be written");
        }
        return;
    }
    assert!(
        differences.is_empty(),
        "{} differs (REWRITE=1 accepts what came out):\n{differences}",
        path.display()
    );
}

/// The file as it should be, and a description of what differs.
fn check_text(text: &str, mut run: impl FnMut(&str) -> String) -> (String, String) {
    let mut rewritten = String::new();
    let mut differences = String::new();
    let mut name = "first case";
    let mut rest = text;
    loop {
        let (case, separator, behind) = split_at_line(rest, |line| line.starts_with("==="));
        let (commands, dashes, expected) = split_at_line(case, |line| line == "---");
        assert!(dashes.is_some(), "{name}: no line --- between commands and trace");
        let mut actual = run(commands);
        if !actual.is_empty() && !actual.ends_with('\n') {
            actual.push('\n');
        }
        if actual != expected {
            describe(&mut differences, name, expected, &actual);
        }
        write!(rewritten, "{commands}---\n{actual}").expect("a String takes everything");
        let Some(separator) = separator else { return (rewritten, differences) };
        writeln!(rewritten, "{separator}").expect("a String takes everything");
        name = separator.trim_start_matches('=').trim();
        rest = behind;
    }
}

/// What is before the first line that `is_separator`, that line, and what is behind it.
fn split_at_line(text: &str, is_separator: impl Fn(&str) -> bool) -> (&str, Option<&str>, &str) {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if is_separator(line.trim_end_matches('\n')) {
            return (&text[..at], Some(line.trim_end_matches('\n')), &text[at + line.len()..]);
        }
        at += line.len();
    }
    (text, None, "")
}

fn describe(out: &mut String, name: &str, expected: &str, actual: &str) {
    let (mut wanted, mut got) = (expected.lines(), actual.lines());
    let mut number = 0;
    loop {
        number += 1;
        match (wanted.next(), got.next()) {
            (None, None) => break,
            (w, g) if w == g => {}
            (w, g) => {
                let end = "(end)";
                let (w, g) = (w.unwrap_or(end), g.unwrap_or(end));
                writeln!(out, "{name}, trace line {number}:\n  expected {w}\n  got      {g}")
                    .expect("a String takes everything");
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "a\nb\n---\nA\nB\n=== second\nc\n---\nC\n";

    #[test]
    fn a_right_file_stays_as_it_is() {
        let (rewritten, differences) = check_text(FILE, str::to_uppercase);
        assert_eq!((rewritten.as_str(), differences.as_str()), (FILE, ""));
    }

    #[test]
    fn a_wrong_line_is_shown_and_rewritten() {
        let (rewritten, differences) = check_text("c\n---\nX\n", str::to_uppercase);
        assert_eq!(rewritten, "c\n---\nC\n");
        assert!(differences.contains("trace line 1"), "{differences}");
        assert!(differences.contains("expected X\n  got      C"), "{differences}");
    }

    #[test]
    fn a_missing_line_is_a_difference() {
        let (_, differences) = check_text("c\nd\n---\nC\n", str::to_uppercase);
        assert!(differences.contains("expected (end)"), "{differences}");
    }

    #[test]
    #[should_panic(expected = "second: no line ---")]
    fn a_case_needs_its_line_of_dashes() {
        check_text("a\n---\nA\n=== second\nb\n", str::to_uppercase);
    }
}
