//! What the parser has to say, for people and for programs.

use std::fmt::{self, Write as _};

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The server does not start.
    Error,
    /// The server starts, but something is not as the file says.
    Warning,
    /// Good to know; nothing is wrong.
    Note,
}

impl Severity {
    /// Lower-case name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How much it matters.
    pub severity: Severity,
    /// The file, or the source of a flag such as `SERVER_JVMFLAGS`.
    pub file: String,
    /// Line in the file, counted from 1; none for flags and for what is missing.
    pub line: Option<u32>,
    /// The key in question, as written.
    pub key: Option<String>,
    /// What is the matter and what is allowed.
    pub message: String,
    /// What to write instead, when one thing is likely meant.
    pub suggestion: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}: ", self.severity)?;
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        f.write_str(&self.message)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, " - did you mean `{suggestion}`?"),
            None => Ok(()),
        }
    }
}

/// All findings of one check.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
}

/// Exit code of a refused configuration (`ExitCode.INVALID_INVOCATION`).
pub const EXIT_INVALID_CONFIG: i32 = 2;

impl Diagnostics {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.list.push(diagnostic);
    }

    /// The findings, file by file in line order.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.list.iter()
    }

    /// How many there are of one severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.list.iter().filter(|diagnostic| diagnostic.severity == severity).count()
    }

    /// Whether there are none at all.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether the configuration must be refused: for any error, and when `strict` for any warning.
    /// Notes never count.
    pub fn refuses(&self, strict: bool) -> bool {
        self.count(Severity::Error) > 0 || (strict && self.count(Severity::Warning) > 0)
    }

    /// 0, or [`EXIT_INVALID_CONFIG`] when [`Self::refuses`].
    pub fn exit_code(&self, strict: bool) -> i32 {
        if self.refuses(strict) { EXIT_INVALID_CONFIG } else { 0 }
    }

    /// One line with the numbers: `1 error, 2 warnings, 3 notes`, or `no problems`.
    pub fn summary(&self) -> String {
        let mut parts = Vec::new();
        for severity in [Severity::Error, Severity::Warning, Severity::Note] {
            match self.count(severity) {
                0 => {}
                1 => parts.push(format!("1 {severity}")),
                many => parts.push(format!("{many} {severity}s")),
            }
        }
        if parts.is_empty() { "no problems".to_owned() } else { parts.join(", ") }
    }

    /// One line for each finding and the summary at the end.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for diagnostic in &self.list {
            text.push_str(&diagnostic.to_string());
            text.push('\n');
        }
        text.push_str(&self.summary());
        text.push('\n');
        text
    }

    /// One JSON object: `errors`, `warnings`, `notes` and `diagnostics`, a list of objects with the
    /// fields of [`Diagnostic`] (null for what is absent).
    pub fn to_json(&self) -> String {
        let mut json = format!(
            "{{\"errors\":{},\"warnings\":{},\"notes\":{},\"diagnostics\":[",
            self.count(Severity::Error),
            self.count(Severity::Warning),
            self.count(Severity::Note)
        );
        for (index, diagnostic) in self.list.iter().enumerate() {
            if index > 0 {
                json.push(',');
            }
            json.push_str("{\"severity\":");
            json_string(&mut json, diagnostic.severity.as_str());
            json.push_str(",\"file\":");
            json_string(&mut json, &diagnostic.file);
            json.push_str(",\"line\":");
            match diagnostic.line {
                Some(line) => json.push_str(&line.to_string()),
                None => json.push_str("null"),
            }
            json.push_str(",\"key\":");
            json_option(&mut json, diagnostic.key.as_deref());
            json.push_str(",\"message\":");
            json_string(&mut json, &diagnostic.message);
            json.push_str(",\"suggestion\":");
            json_option(&mut json, diagnostic.suggestion.as_deref());
            json.push('}');
        }
        json.push_str("]}");
        json
    }

    /// Orders the findings: files in the order of `files`, then by line, then the graver first.
    pub(crate) fn sort(&mut self, files: &[String]) {
        let rank = |name: &str| files.iter().position(|file| file == name).unwrap_or(files.len());
        self.list.sort_by(|a, b| {
            let place = |d: &Diagnostic| (rank(&d.file), d.line.is_none(), d.line, d.severity);
            place(a).cmp(&place(b))
        });
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

fn json_option(json: &mut String, text: Option<&str>) {
    match text {
        Some(text) => json_string(json, text),
        None => json.push_str("null"),
    }
}

fn json_string(json: &mut String, text: &str) {
    json.push('"');
    for c in text.chars() {
        match c {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            control if control < ' ' => {
                // Writing to a String cannot fail.
                write!(json, "\\u{:04x}", u32::from(control)).unwrap_or_default();
            }
            other => json.push(other),
        }
    }
    json.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(severity: Severity, file: &str, line: Option<u32>) -> Diagnostic {
        Diagnostic {
            severity,
            file: file.into(),
            line,
            key: None,
            message: "m".into(),
            suggestion: None,
        }
    }

    #[test]
    fn rendering() {
        let mut all = Diagnostics::new();
        assert_eq!(all.render(), "no problems\n");
        all.push(Diagnostic {
            key: Some("tickTme".into()),
            message: "unknown key".into(),
            suggestion: Some("tickTime".into()),
            ..finding(Severity::Warning, "zoo.cfg", Some(3))
        });
        all.push(Diagnostic {
            key: Some("dataDir".into()),
            ..finding(Severity::Error, "zoo.cfg", None)
        });
        all.push(finding(Severity::Note, "JVMFLAGS", None));
        assert_eq!(
            all.render(),
            "zoo.cfg:3: warning: tickTme: unknown key - did you mean `tickTime`?\n\
             zoo.cfg: error: dataDir: m\nJVMFLAGS: note: m\n1 error, 1 warning, 1 note\n"
        );
    }

    #[test]
    fn exit_codes() {
        let mut all = Diagnostics::new();
        all.push(finding(Severity::Note, "f", None));
        assert_eq!((all.exit_code(false), all.exit_code(true)), (0, 0));
        all.push(finding(Severity::Warning, "f", None));
        assert_eq!((all.exit_code(false), all.exit_code(true)), (0, 2));
        all.push(finding(Severity::Error, "f", None));
        assert_eq!((all.exit_code(false), all.exit_code(true)), (2, 2));
    }

    #[test]
    fn json() {
        let mut all = Diagnostics::new();
        assert_eq!(all.to_json(), r#"{"errors":0,"warnings":0,"notes":0,"diagnostics":[]}"#);
        all.push(Diagnostic {
            key: Some("a\"b\\c".into()),
            message: "x\n\t\r\u{1}\u{e9}".into(),
            suggestion: Some("s".into()),
            ..finding(Severity::Error, "z", Some(7))
        });
        all.push(finding(Severity::Note, "z", None));
        assert_eq!(
            all.to_json(),
            "{\"errors\":1,\"warnings\":0,\"notes\":1,\"diagnostics\":[{\"severity\":\"error\",\"file\":\"z\",\"line\":7,\
             \"key\":\"a\\\"b\\\\c\",\"message\":\"x\\n\\t\\r\\u0001\u{e9}\",\"suggestion\":\"s\"},{\"severity\":\"note\",\
             \"file\":\"z\",\"line\":null,\"key\":null,\"message\":\"m\",\"suggestion\":null}]}"
        );
    }

    #[test]
    fn order() {
        let mut all = Diagnostics::new();
        for (severity, file, line) in [
            (Severity::Note, "b", Some(1)),
            (Severity::Warning, "a", None),
            (Severity::Warning, "a", Some(9)),
            (Severity::Error, "a", Some(9)),
            (Severity::Note, "a", Some(2)),
        ] {
            all.push(finding(severity, file, line));
        }
        all.sort(&["a".into(), "b".into()]);
        let order: Vec<_> = all.iter().map(|d| (d.severity, d.file.as_str(), d.line)).collect();
        assert_eq!(
            order,
            [
                (Severity::Note, "a", Some(2)),
                (Severity::Error, "a", Some(9)),
                (Severity::Warning, "a", Some(9)),
                (Severity::Warning, "a", None),
                (Severity::Note, "b", Some(1)),
            ]
        );
    }
}
