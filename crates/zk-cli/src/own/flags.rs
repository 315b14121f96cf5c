//! The command lines of Paddock's own commands: `--name value`, `--name=value`, `-x`, and what follows `--`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::error::CliError;

/// An option of one of Paddock's own commands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    /// One letter, or nothing.
    short: &'static str,
    /// What its value is called; empty if it has none.
    value: &'static str,
    about: &'static str,
}

impl Flag {
    pub(crate) const fn on(name: &'static str, about: &'static str) -> Self {
        Self { name, short: "", value: "", about }
    }

    pub(crate) const fn with(name: &'static str, value: &'static str, about: &'static str) -> Self {
        Self { name, short: "", value, about }
    }

    pub(crate) const fn short(mut self, letter: &'static str) -> Self {
        self.short = letter;
        self
    }
}

/// A command line, read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Flags {
    options: BTreeMap<&'static str, String>,
    /// The words behind the command's name.
    pub(crate) words: Vec<String>,
    /// What follows `--`, where a command may.
    pub(crate) command: Vec<String>,
}

/// Reads a command line; `takes_command`: what follows `--` is a command, not more words.
pub(crate) fn parse(
    flags: &[&[Flag]],
    takes_command: bool,
    line: &[String],
) -> Result<Flags, String> {
    let find = |matches: &dyn Fn(&Flag) -> bool| {
        flags.iter().flat_map(|flags| flags.iter()).find(|flag| matches(flag)).copied()
    };
    let mut out = Flags::default();
    let mut tokens = line.iter().skip(1);
    while let Some(token) = tokens.next() {
        if token == "--" {
            let rest = tokens.cloned();
            if takes_command {
                out.command = rest.collect()
            } else {
                out.words.extend(rest)
            }
            break;
        }
        let (name, value) = match token.split_once('=') {
            Some((name, value)) if token.starts_with("--") => (name, Some(value.to_owned())),
            Some(_) | None => (token.as_str(), None),
        };
        let flag = match (name.strip_prefix("--"), name.strip_prefix('-')) {
            (Some(long), _) => find(&|flag| flag.name == long),
            (None, Some(short)) if !short.is_empty() => find(&|flag| flag.short == short),
            (None, _) => {
                out.words.push(token.clone());
                continue;
            }
        };
        let flag = flag.ok_or_else(|| format!("unknown option {token}"))?;
        let value = match (flag.value, value) {
            ("", None) => String::new(),
            ("", Some(_)) => return Err(format!("--{} takes no value", flag.name)),
            (_, Some(value)) => value,
            (what, None) => tokens
                .next()
                .cloned()
                .ok_or_else(|| format!("--{} lacks its value, {what}", flag.name))?,
        };
        out.options.insert(flag.name, value);
    }
    Ok(out)
}

/// A line for each option.
pub(crate) fn explain(flags: &[&[Flag]]) -> String {
    let lead = |flag: &Flag| {
        let short =
            if flag.short.is_empty() { String::new() } else { format!("-{}, ", flag.short) };
        let value = if flag.value.is_empty() { String::new() } else { format!(" {}", flag.value) };
        format!("  {short}--{}{value}", flag.name)
    };
    let all = || flags.iter().flat_map(|flags| flags.iter());
    let width = all().map(|flag| lead(flag).len()).max().unwrap_or(0);
    all().map(|flag| format!("{:<width$}  {}\n", lead(flag), flag.about)).collect()
}

impl Flags {
    pub(crate) fn has(&self, name: &str) -> bool {
        self.options.contains_key(name)
    }

    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.options.get(name).map(String::as_str)
    }

    /// An option's value as `read` reads it.
    fn read<T>(
        &self,
        name: &str,
        what: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, CliError> {
        self.value(name)
            .map(|text| {
                read(text)
                    .ok_or_else(|| CliError::usage(format!("--{name} is {what}, not {text:?}")))
            })
            .transpose()
    }

    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, CliError> {
        self.read(name, "a number", |text| text.parse().ok())
    }

    pub(crate) fn duration(&self, name: &str) -> Result<Option<Duration>, CliError> {
        self.read(name, "a time (5, 2.5s, 100ms, 3m, 1h, 7d)", duration)
    }

    pub(crate) fn size(&self, name: &str) -> Result<Option<u64>, CliError> {
        self.read(name, "a number of bytes (512, 4k, 1M)", size)
    }

    pub(crate) fn session(&self, name: &str) -> Result<Option<i64>, CliError> {
        self.read(name, "a session id (0x..., or decimal)", |text| {
            match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
                Some(hex) => u64::from_str_radix(hex, 16).ok().map(u64::cast_signed),
                None => text.parse().ok(),
            }
        })
    }
}

/// Seconds, or a number with a unit.
fn duration(text: &str) -> Option<Duration> {
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let scale = match &text[at..] {
        "" | "s" => 1.0,
        "ms" => 0.001,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86400.0,
        _ => return None, // no unit of ours
    };
    Duration::try_from_secs_f64(text[..at].parse::<f64>().ok()? * scale).ok()
}

/// Bytes; units are powers of 1024.
fn size(text: &str) -> Option<u64> {
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let scale = match text[at..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1 << 10,
        "m" | "mb" => 1 << 20,
        "g" | "gb" => 1 << 30,
        _ => return None, // no unit of ours
    };
    text[..at].parse::<u64>().ok()?.checked_mul(scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: &[Flag] =
        &[Flag::on("recursive", "").short("r"), Flag::with("timeout", "SECONDS", "")];

    fn parsed(text: &str, command: bool) -> Result<Flags, String> {
        parse(&[FLAGS], command, &crate::arguments::words(text))
    }

    #[test]
    fn options_stand_anywhere_before_the_command() {
        for text in ["lock /a -r --timeout 5 -- run -r --x", "lock --timeout=5 -r /a -- run -r --x"]
        {
            let got = parsed(text, true).unwrap();
            assert!(got.has("recursive"), "{text}");
            assert_eq!((got.value("timeout"), &got.words[..]), (Some("5"), &["/a".to_owned()][..]));
            assert_eq!(got.command, ["run", "-r", "--x"]);
        }
        assert_eq!(parsed("cp /a -- -r", false).unwrap().words, ["/a", "-r"]);
        assert_eq!(parsed("export /a -", false).unwrap().words, ["/a", "-"]);
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(parsed("x --quick", false).unwrap_err(), "unknown option --quick");
        assert_eq!(parsed("x -q", false).unwrap_err(), "unknown option -q");
        assert_eq!(parsed("x --recursive=1", false).unwrap_err(), "--recursive takes no value");
        assert_eq!(parsed("x --timeout", false).unwrap_err(), "--timeout lacks its value, SECONDS");
        let flags = parsed("x --timeout soon", false).unwrap();
        assert!(flags.duration("timeout").unwrap_err().text.contains("not \"soon\""));
    }

    #[test]
    fn times_and_sizes_have_units() {
        assert_eq!(duration("2.5"), Some(Duration::from_millis(2500)));
        assert_eq!(duration("100ms"), Some(Duration::from_millis(100)));
        assert_eq!(duration("3m"), Some(Duration::from_secs(180)));
        assert_eq!(duration("7d"), Some(Duration::from_secs(7 * 86400)));
        assert_eq!([duration("x"), duration(""), duration("1y"), duration("-1")], [None; 4]);
        assert_eq!((size("512"), size("4k"), size("1MB")), (Some(512), Some(4096), Some(1 << 20)));
        assert_eq!([size("k"), size("1x"), size("99999999999G")], [None; 3]);
    }
}
