use std::collections::BTreeMap;

/// An option of a command.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opt {
    pub(crate) name: &'static str,
    pub(crate) takes_value: bool,
    pub(crate) about: &'static str,
}

impl Opt {
    pub(crate) const fn flag(name: &'static str, about: &'static str) -> Self {
        Self { name, takes_value: false, about }
    }

    pub(crate) const fn value(name: &'static str, about: &'static str) -> Self {
        Self { name, takes_value: true, about }
    }
}

/// Whether a command's options exclude one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    None,
    /// At most one of them.
    Exclusive,
    /// Exactly one of them.
    Required,
}

/// A command's arguments, options taken out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Arguments {
    options: BTreeMap<&'static str, String>,
    /// The command's name comes first.
    pub(crate) words: Vec<String>,
}

impl Arguments {
    /// A line without options.
    pub(crate) fn words_only(line: &[String]) -> Self {
        Self { options: BTreeMap::new(), words: line.to_vec() }
    }

    pub(crate) fn has(&self, option: &str) -> bool {
        self.options.contains_key(option)
    }

    pub(crate) fn value(&self, option: &str) -> Option<&str> {
        self.options.get(option).map(String::as_str)
    }

    /// The word behind the command and `at` others; commands declare how many there must be.
    pub(crate) fn word(&self, at: usize) -> Option<&str> {
        self.words.get(at + 1).map(String::as_str)
    }
}

/// Reads a command line as Apache's parser (commons-cli's `DefaultParser`) does: options stand anywhere,
/// one-letter ones may be written together (`-sw`) or with their value (`-v3`, `-v=3`), a negative number is a
/// value, and everything behind `--` is a word. Errors are in its words.
pub(crate) fn parse(options: &[Opt], group: Group, line: &[String]) -> Result<Arguments, String> {
    let mut parser =
        Parser { options, group, selected: None, open: None, out: Arguments::default() };
    let mut only_words = false;
    for token in line {
        if only_words {
            parser.out.words.push(token.clone());
        } else if token == "--" {
            only_words = true;
        } else {
            parser.token(token)?;
        }
    }
    parser.close()?;
    if group == Group::Required && parser.selected.is_none() {
        let all: Vec<String> =
            options.iter().map(|opt| format!("-{} {}", opt.name, opt.about)).collect();
        return Err(format!(
            "org.apache.commons.cli.MissingOptionException: Missing required option: [{}]",
            all.join(", ")
        ));
    }
    Ok(parser.out)
}

struct Parser<'a> {
    options: &'a [Opt],
    group: Group,
    selected: Option<&'static str>,
    /// An option that waits for its value.
    open: Option<&'static str>,
    out: Arguments,
}

fn unrecognized(token: &str) -> String {
    format!("org.apache.commons.cli.UnrecognizedOptionException: Unrecognized option: {token}")
}

impl Parser<'_> {
    fn find(&self, name: &str) -> Option<Opt> {
        self.options.iter().copied().find(|opt| opt.name == name)
    }

    /// Whether a token can be an option's value.
    fn is_value(&self, token: &str) -> bool {
        let Some(name) = token.strip_prefix('-').filter(|name| !name.is_empty()) else {
            return true;
        };
        let name = name.split('=').next().unwrap_or_default();
        let first = name.get(..1).unwrap_or_default();
        let is_option = self.find(name).is_some() || self.find(first).is_some();
        !is_option || token.parse::<f64>().is_ok()
    }

    fn token(&mut self, token: &str) -> Result<(), String> {
        if self.open.is_some() && self.is_value(token) {
            let quoted = token.len() > 1 && token.starts_with('"') && token.ends_with('"');
            self.fill(if quoted { &token[1..token.len() - 1] } else { token });
            return Ok(());
        }
        match token.strip_prefix('-') {
            Some(rest) if rest.starts_with('-') => Err(unrecognized(token)),
            Some(rest) if !rest.is_empty() => self.option(token, rest),
            Some(_) | None => {
                self.out.words.push(token.to_owned());
                Ok(())
            }
        }
    }

    fn option(&mut self, token: &str, name: &str) -> Result<(), String> {
        if let Some(opt) = self.find(name) {
            return self.open(opt);
        }
        if let Some((name, value)) = name.split_once('=') {
            return match self.find(name) {
                Some(opt) if name.len() == 1 && opt.takes_value => {
                    self.open(opt)?;
                    self.fill(value);
                    Ok(())
                }
                Some(_) | None => Err(unrecognized(token)),
            };
        }
        for (at, letter) in name.char_indices() {
            let opt =
                self.find(letter.encode_utf8(&mut [0; 4])).ok_or_else(|| unrecognized(token))?;
            self.open(opt)?;
            let rest = &name[at + letter.len_utf8()..];
            if self.open.is_some() && !rest.is_empty() {
                self.fill(rest);
                break;
            }
        }
        Ok(())
    }

    fn open(&mut self, opt: Opt) -> Result<(), String> {
        self.close()?;
        if self.group != Group::None {
            if let Some(selected) = self.selected.filter(|selected| *selected != opt.name) {
                return Err(format!(
                    "org.apache.commons.cli.AlreadySelectedException: The option '{}' was specified but an option \
                     from this group has already been selected: '{selected}'",
                    opt.name
                ));
            }
            self.selected = Some(opt.name);
        }
        if opt.takes_value {
            self.open = Some(opt.name);
        } else {
            self.out.options.insert(opt.name, String::new());
        }
        Ok(())
    }

    fn fill(&mut self, value: &str) {
        if let Some(name) = self.open.take() {
            self.out.options.entry(name).or_insert_with(|| value.to_owned());
        }
    }

    fn close(&mut self) -> Result<(), String> {
        match self.open {
            None => Ok(()),
            Some(name) => Err(format!(
                "org.apache.commons.cli.MissingArgumentException: Missing argument for option: {name}"
            )),
        }
    }
}

/// Splits a line of the shell into words. Quotes, single or double, hold a word together if they stand
/// around all of it; a quote without its partner is dropped.
pub(crate) fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while let Some(first) = rest.chars().next() {
        let (word, after) = if first == '"' || first == '\'' {
            match rest[1..].find(first) {
                Some(end) => (&rest[1..=end], &rest[end + 2..]),
                None => {
                    rest = rest[1..].trim_start();
                    continue;
                }
            }
        } else {
            rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len()))
        };
        words.push(word.to_owned());
        rest = after.trim_start();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: &[Opt] = &[
        Opt::flag("s", "stat"),
        Opt::flag("w", "watch"),
        Opt::value("v", "version"),
        Opt::value("members", "m"),
    ];

    fn line(text: &str) -> Vec<String> {
        words(text)
    }

    fn parsed(text: &str) -> Result<Arguments, String> {
        parse(OPTIONS, Group::None, &line(text))
    }

    #[test]
    fn options_stand_anywhere_and_together() {
        for text in ["set -sw -v 3 /a", "set /a -v3 -ws", "set -v=3 -s /a -w", "set -swv3 /a"] {
            let got = parsed(text).unwrap();
            assert!(got.has("s") && got.has("w"), "{text}");
            assert_eq!((got.value("v"), got.word(0)), (Some("3"), Some("/a")), "{text}");
        }
        assert_eq!(parsed("reconfig -members a=b:1").unwrap().value("members"), Some("a=b:1"));
    }

    #[test]
    fn negative_numbers_are_values_and_dashes_can_be_data() {
        assert_eq!(parsed("set -v -1 /a").unwrap().value("v"), Some("-1"));
        assert_eq!(parsed("set /a - -- -s --x").unwrap().words, ["set", "/a", "-", "-s", "--x"]);
        assert!(parsed("set /a -1").unwrap_err().ends_with("Unrecognized option: -1"));
    }

    #[test]
    fn mistakes_are_in_the_words_of_commons_cli() {
        assert!(
            parsed("set -q /a")
                .unwrap_err()
                .ends_with("UnrecognizedOptionException: Unrecognized option: -q")
        );
        assert!(parsed("set -sq /a").unwrap_err().ends_with("Unrecognized option: -sq"));
        assert!(parsed("set --stat /a").unwrap_err().ends_with("Unrecognized option: --stat"));
        assert!(parsed("set /a -v").unwrap_err().ends_with("Missing argument for option: v"));
        assert!(parsed("set -v -s /a").unwrap_err().ends_with("Missing argument for option: v"));
        let both = parse(OPTIONS, Group::Exclusive, &line("x -s -w /a")).unwrap_err();
        assert!(both.ends_with(
            "'w' was specified but an option from this group has already been selected: 's'"
        ));
        assert!(
            parse(OPTIONS, Group::Required, &line("x /a"))
                .unwrap_err()
                .contains("[-s stat, -w watch")
        );
    }

    #[test]
    fn quotes_hold_words_together() {
        assert_eq!(
            words("  create /a 'b  \"c\"' \"\" x\"y z  "),
            ["create", "/a", "b  \"c\"", "", "x\"y", "z"]
        );
        assert_eq!(words("set /a \"open end"), ["set", "/a", "open", "end"]);
        assert_eq!(words("   "), [""; 0]);
        assert_eq!(words("set /ä 'ü'"), ["set", "/ä", "ü"]);
    }
}
