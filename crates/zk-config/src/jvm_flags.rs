//! The `-D` properties of `SERVER_JVMFLAGS` and `JVMFLAGS`.

/// What a flags string holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JvmFlags {
    /// `-Dname=value` in order; a `-Dname` alone has the empty value, as in Java.
    pub defines: Vec<(String, String)>,
    /// Everything else: `-Xmx1g`, `-javaagent:...`, class names.
    pub others: Vec<String>,
    /// A quote was opened and never closed.
    pub unterminated_quote: bool,
}

impl JvmFlags {
    /// Splits `flags` as a shell splits words: blanks separate, single and double quotes group, a
    /// backslash protects the next character (inside double quotes only before `"`, `\`, `$` and a
    /// backquote).
    pub fn parse(flags: &str) -> Self {
        let mut parsed = Self::default();
        let mut word: Option<String> = None;
        let mut quote: Option<char> = None;
        let mut chars = flags.chars().peekable();
        while let Some(c) = chars.next() {
            match (quote, c) {
                (Some(open), close) if open == close => quote = None,
                (Some('"'), '\\') => {
                    let protected = chars.next_if(|next| matches!(next, '"' | '\\' | '$' | '`'));
                    word.get_or_insert_default().push(protected.unwrap_or('\\'));
                }
                (Some(_), inside) => word.get_or_insert_default().push(inside),
                (None, '\'' | '"') => {
                    quote = Some(c);
                    word.get_or_insert_default();
                }
                (None, '\\') => word.get_or_insert_default().extend(chars.next()),
                (None, blank) if blank.is_ascii_whitespace() => {
                    if let Some(word) = word.take() {
                        parsed.add(word);
                    }
                }
                (None, plain) => word.get_or_insert_default().push(plain),
            }
        }
        if let Some(word) = word {
            parsed.add(word);
        }
        parsed.unterminated_quote = quote.is_some();
        parsed
    }

    fn add(&mut self, word: String) {
        match word.strip_prefix("-D") {
            Some(define) => self.defines.push(split_define(define)),
            None => self.others.push(word),
        }
    }
}

/// Splits `name=value`; without `=` the value is empty.
pub(crate) fn split_define(define: &str) -> (String, String) {
    let (name, value) = define.split_once('=').unwrap_or((define, ""));
    (name.to_owned(), value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defines(flags: &str) -> Vec<(String, String)> {
        let parsed = JvmFlags::parse(flags);
        assert!(!parsed.unterminated_quote);
        parsed.defines
    }

    fn own(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn words_and_quotes() {
        assert_eq!(
            defines(
                " -Dzookeeper.a=1\t-Dzookeeper.b='x y'  -Dc=\"p q\"\n\"-Dd=e f\" -De=g\\ h -Df -Dg= "
            ),
            own(&[
                ("zookeeper.a", "1"),
                ("zookeeper.b", "x y"),
                ("c", "p q"),
                ("d", "e f"),
                ("e", "g h"),
                ("f", ""),
                ("g", "")
            ])
        );
        assert_eq!(
            defines(r#"-Da="x\"y\\z\n" -Db='it\' -Dc=k=v"#),
            own(&[("a", r#"x"y\z\n"#), ("b", r"it\"), ("c", "k=v")])
        );
        assert_eq!(defines(""), []);
    }

    #[test]
    fn other_flags_are_kept_apart() {
        let parsed = JvmFlags::parse("-Xmx512m -Djute.maxbuffer=4194304 -XX:+UseG1GC ''");
        assert_eq!(parsed.defines, own(&[("jute.maxbuffer", "4194304")]));
        assert_eq!(parsed.others, ["-Xmx512m", "-XX:+UseG1GC", ""]);
    }

    #[test]
    fn unterminated_quote_takes_the_rest() {
        let parsed = JvmFlags::parse("-Da='x -Db=2");
        assert!(parsed.unterminated_quote);
        assert_eq!(parsed.defines, own(&[("a", "x -Db=2")]));
    }
}
