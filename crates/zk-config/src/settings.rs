//! All sources of configuration, merged into one value for each key.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::diagnostic::{Diagnostic, Diagnostics, Severity};
use crate::jvm_flags::{JvmFlags, split_define};
use crate::key::{KeyInfo, Kind, Origin, Status, find_key};
use crate::suggest::nearest;
use crate::table::KEYS;
use crate::value::{Checked, Value, parse_value};
use zk_proto::properties::{Properties, PropertiesProblem};

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The file, or the source of a flag such as `SERVER_JVMFLAGS`.
    pub file: String,
    /// Line in the file, counted from 1.
    pub line: Option<u32>,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}", self.file),
            None => f.write_str(&self.file),
        }
    }
}

/// Text with the name under which it is reported.
#[derive(Clone)]
pub(crate) struct NamedText {
    pub(crate) name: String,
    pub(crate) text: String,
}

#[derive(Clone)]
struct Define {
    origin: String,
    name: String,
    value: String,
}

/// Everything a configuration is made of. Add what there is, then [`load`](Sources::load).
#[derive(Clone, Default)]
pub struct Sources {
    base: Vec<(String, String)>,
    pub(crate) file: Option<NamedText>,
    /// Where `file` is, if it was read from there.
    pub(crate) path: Option<PathBuf>,
    pub(crate) dynamic_file: Option<NamedText>,
    pub(crate) next_file: Option<NamedText>,
    pub(crate) my_id: Option<NamedText>,
    pub(crate) my_id_unreadable: bool,
    defines: Vec<Define>,
    overrides: Vec<(String, String, String)>,
    other_flags: Vec<(String, Vec<String>)>,
    early: Vec<Diagnostic>,
}

/// What the embedded default is called in messages.
const EMBEDDED: &str = "embedded default";
/// What arguments are called in messages.
const COMMAND_LINE: &str = "command line";

impl Sources {
    /// No source at all: `load` will miss `dataDir`.
    pub fn new() -> Self {
        Self::default()
    }

    /// A start without a file: client port 2181, data in `data_dir` or `./data`, ticks of 2 seconds
    /// as in ZooKeeper's sample file. Every other source goes before it.
    pub fn embedded(data_dir: Option<&str>) -> Self {
        let data_dir = data_dir.unwrap_or("./data");
        let base = [("clientPort", "2181"), ("dataDir", data_dir), ("tickTime", "2000")];
        Self { base: base.map(|(k, v)| (k.to_owned(), v.to_owned())).into(), ..Self::default() }
    }

    /// The form `port dataDir [tickTime [maxClientCnxns]]` (`ServerConfig.parse` of ZooKeeper).
    /// None unless there are 2 to 4 arguments.
    pub fn positional(args: &[impl AsRef<str>]) -> Option<Self> {
        if !(2..=4).contains(&args.len()) {
            return None;
        }
        let keys = ["clientPort", "dataDir", "tickTime", "maxClientCnxns"];
        let mut sources = Self::new();
        for (key, value) in keys.into_iter().zip(args) {
            sources = sources.set(key, value.as_ref());
        }
        Some(sources)
    }

    /// The text of `zoo.cfg` and the name to report it under.
    #[must_use]
    pub fn file(mut self, name: &str, text: &str) -> Self {
        self.file = Some(NamedText { name: name.to_owned(), text: text.to_owned() });
        self
    }

    /// The text of the file that `dynamicConfigFile` names; the name's ending gives the version.
    #[must_use]
    pub fn dynamic_file(mut self, name: &str, text: &str) -> Self {
        self.dynamic_file = Some(NamedText { name: name.to_owned(), text: text.to_owned() });
        self
    }

    /// The text of `zoo.cfg.dynamic.next`; it counts beside a dynamic file only.
    #[must_use]
    pub fn next_file(mut self, name: &str, text: &str) -> Self {
        self.next_file = Some(NamedText { name: name.to_owned(), text: text.to_owned() });
        self
    }

    /// The text of `dataDir/myid`.
    #[must_use]
    pub fn my_id(mut self, name: &str, text: &str) -> Self {
        self.my_id = Some(NamedText { name: name.to_owned(), text: text.to_owned() });
        self
    }

    /// A flags string such as that of the environment variable `SERVER_JVMFLAGS`, reported under
    /// `origin`. As in `zkServer.sh`, give `SERVER_JVMFLAGS` before `JVMFLAGS`: the last definition
    /// of a property counts.
    #[must_use]
    pub fn jvm_flags(mut self, origin: &str, flags: &str) -> Self {
        let parsed = JvmFlags::parse(flags);
        if parsed.unterminated_quote {
            self.early.push(Diagnostic {
                severity: Severity::Warning,
                file: origin.to_owned(),
                line: None,
                key: None,
                message: "a quote is opened and never closed".to_owned(),
                suggestion: None,
            });
        }
        for (name, value) in parsed.defines {
            self.defines.push(Define { origin: origin.to_owned(), name, value });
        }
        if !parsed.others.is_empty() {
            self.other_flags.push((origin.to_owned(), parsed.others));
        }
        self
    }

    /// One `-Dname=value` of the command line; `define` may omit the `-D`.
    #[must_use]
    pub fn define(mut self, define: &str) -> Self {
        let (name, value) = split_define(define.strip_prefix("-D").unwrap_or(define));
        self.defines.push(Define { origin: COMMAND_LINE.to_owned(), name, value });
        self
    }

    /// A key of `zoo.cfg` given by an argument; it goes before every other source.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.overrides.push((COMMAND_LINE.to_owned(), key.to_owned(), value.to_owned()));
        self
    }

    /// The value a key will have, before any check. For finding the files that the configuration
    /// names.
    pub fn peek(&self, key: &str) -> Option<String> {
        self.settle(&mut Diagnostics::new()).raw(key).map(str::to_owned)
    }

    /// The file in which the server's id belongs, for messages.
    pub(crate) fn my_id_name(&self) -> String {
        match &self.my_id {
            Some(file) => file.name.clone(),
            None => {
                let data_dir = self.peek("dataDir").unwrap_or_default();
                Path::new(&data_dir).join("myid").display().to_string()
            }
        }
    }

    /// Names of all sources in the order they are reported.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        let files = [&self.file, &self.dynamic_file, &self.next_file, &self.my_id]
            .into_iter()
            .flatten()
            .map(|text| &text.name);
        let flags = self.other_flags.iter().map(|(origin, _)| origin);
        let defines = self.defines.iter().map(|define| &define.origin);
        for name in files.chain(flags).chain(defines) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        names
    }

    /// The name under which something that is missing is reported.
    pub(crate) fn main_name(&self) -> String {
        match &self.file {
            Some(file) => file.name.clone(),
            None if self.base.is_empty() => COMMAND_LINE.to_owned(),
            None => EMBEDDED.to_owned(),
        }
    }

    /// Merges all sources and checks each value by itself.
    pub(crate) fn settle(&self, diagnostics: &mut Diagnostics) -> Settings {
        let mut merge = Merge { diagnostics, winners: BTreeMap::new() };
        for diagnostic in &self.early {
            merge.diagnostics.push(diagnostic.clone());
        }
        for (key, value) in &self.base {
            merge.add(key, value, Source { file: EMBEDDED.to_owned(), line: None }, Rank::Base);
        }
        if let Some(file) = &self.file {
            merge.file(file);
        }
        if let Some(file) = &self.dynamic_file {
            merge.dynamic_file(file);
        }
        for (origin, flags) in &self.other_flags {
            let message =
                format!("options of the Java virtual machine have no effect: {}", flags.join(" "));
            merge.report(
                Severity::Note,
                &Source { file: origin.clone(), line: None },
                None,
                message,
                None,
            );
        }
        merge.defines(&self.defines);
        for (origin, key, value) in &self.overrides {
            merge.add(key, value, Source { file: origin.clone(), line: None }, Rank::Override);
        }
        merge.finish(self.main_name())
    }
}

/// Which source wins. ZooKeeper turns an unknown key of `zoo.cfg` into a system property while it
/// reads the file, so the file goes before `-D`; it cannot set a property without the prefix, so
/// there `-D` goes before the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Base,
    BareDefineOfPrefixed,
    Define,
    File,
    BareDefine,
    Override,
}

struct Candidate {
    info: &'static KeyInfo,
    raw: String,
    source: Source,
    rank: Rank,
}

struct Merge<'a> {
    diagnostics: &'a mut Diagnostics,
    winners: BTreeMap<String, Candidate>,
}

impl Merge<'_> {
    fn report(
        &mut self,
        severity: Severity,
        source: &Source,
        key: Option<&str>,
        message: impl Into<String>,
        suggestion: Option<String>,
    ) {
        self.diagnostics.push(Diagnostic {
            severity,
            file: source.file.clone(),
            line: source.line,
            key: key.map(str::to_owned),
            message: message.into(),
            suggestion,
        });
    }

    fn syntax_problems(&mut self, name: &str, properties: &Properties) {
        for problem in &properties.problems {
            let (severity, key) = match problem {
                PropertiesProblem::BadUnicodeEscape { .. } => (Severity::Error, None),
                // A slip with a number, which leaves this server with other members than the rest.
                PropertiesProblem::Duplicate { key, .. } if is_membership(key) => {
                    (Severity::Error, Some(key.as_str()))
                }
                PropertiesProblem::Duplicate { key, .. }
                | PropertiesProblem::NoSeparator { key, .. } => {
                    (Severity::Warning, Some(key.as_str()))
                }
                PropertiesProblem::NoKey { .. } => (Severity::Warning, None),
            };
            let source = Source { file: name.to_owned(), line: Some(problem.line()) };
            self.report(severity, &source, key, problem.to_string(), None);
        }
    }

    fn file(&mut self, file: &NamedText) {
        let properties = Properties::parse(&file.text);
        self.syntax_problems(&file.name, &properties);
        let dynamic = properties.get("dynamicConfigFile").is_some();
        for entry in &properties.entries {
            let source = Source { file: file.name.clone(), line: Some(entry.line) };
            if dynamic && is_membership(&entry.key) {
                let message = "this line belongs into the file that dynamicConfigFile names";
                self.report(Severity::Error, &source, Some(&entry.key), message, None);
                continue;
            }
            self.add(&entry.key, &entry.value, source, Rank::File);
        }
    }

    fn dynamic_file(&mut self, file: &NamedText) {
        let properties = Properties::parse(&file.text);
        self.syntax_problems(&file.name, &properties);
        for entry in &properties.entries {
            let source = Source { file: file.name.clone(), line: Some(entry.line) };
            if is_membership(&entry.key) {
                self.add(&entry.key, &entry.value, source, Rank::File);
            } else {
                let message = match entry.key.as_str() {
                    "version" => "the version stands in the name of a dynamic file, not inside",
                    _ => "a dynamic file holds only server., group. and weight. lines",
                };
                self.report(Severity::Error, &source, Some(&entry.key), message, None);
            }
        }
    }

    /// Adds a key written as in `zoo.cfg`.
    fn add(&mut self, key: &str, raw: &str, source: Source, rank: Rank) {
        let Some(info) = find_key(key) else {
            self.unknown_key(key, &source);
            return;
        };
        if info.origin == Origin::Bare && rank == Rank::File {
            let message = format!(
                "ZooKeeper itself reads this only as -D{key}=...; Paddock takes it from here too"
            );
            self.report(Severity::Note, &source, Some(key), message, None);
        }
        self.compete(key.to_owned(), Candidate { info, raw: raw.to_owned(), source, rank });
    }

    fn unknown_key(&mut self, key: &str, source: &Source) {
        let stripped = key.strip_prefix("zookeeper.").filter(|rest| find_key(rest).is_some());
        if let Some(rest) = stripped {
            let message =
                "unknown key, it has no effect: keys of this file are written without `zookeeper.`";
            self.report(Severity::Warning, source, Some(key), message, Some(rest.to_owned()));
            return;
        }
        let names = KEYS.iter().filter(|info| info.prefix().is_none() && !info.aside);
        let names = names.map(|info| info.name);
        let suggestion = nearest(key, names).map(str::to_owned).or_else(|| nearest_pattern(key));
        self.report(
            Severity::Warning,
            source,
            Some(key),
            "unknown key, it has no effect",
            suggestion,
        );
    }

    fn defines(&mut self, defines: &[Define]) {
        // The last definition of a property counts; the earlier ones are gone, as in Java.
        let mut last: BTreeMap<&str, usize> = BTreeMap::new();
        for (index, define) in defines.iter().enumerate() {
            last.insert(&define.name, index);
        }
        let mut foreign: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (index, define) in defines.iter().enumerate() {
            if last.get(define.name.as_str()) != Some(&index) {
                continue;
            }
            if !self.known_define(define) {
                foreign.entry(&define.origin).or_default().push(&define.name);
            }
        }
        for (origin, names) in foreign {
            let names: Vec<String> = names.iter().map(|name| format!("-D{name}")).collect();
            let message =
                format!("properties of Java or its libraries have no effect: {}", names.join(" "));
            self.report(
                Severity::Note,
                &Source { file: origin.to_owned(), line: None },
                None,
                message,
                None,
            );
        }
    }

    /// Takes a property that is ZooKeeper's, or looks as if it should be; false for any other.
    fn known_define(&mut self, define: &Define) -> bool {
        let source = Source { file: define.origin.clone(), line: None };
        let shown = format!("-D{}", define.name);
        let key = define.name.strip_prefix("zookeeper.");
        let Some(info) = find_key(key.unwrap_or(&define.name)) else {
            let names: Vec<String> = KEYS
                .iter()
                .filter(|info| info.prefix().is_none())
                .filter_map(|info| info.property_name(info.name))
                .collect();
            let suggestion = nearest(&define.name, names.iter().map(String::as_str))
                .map(|name| format!("-D{name}"));
            if key.is_none() && suggestion.is_none() {
                return false;
            }
            self.report(
                Severity::Warning,
                &source,
                Some(&shown),
                "unknown property, it has no effect",
                suggestion,
            );
            return true;
        };
        let rank = match (info.origin, key) {
            (Origin::Property | Origin::PropertyOrBare, Some(_)) => Rank::Define,
            (Origin::PropertyOrBare, None) => Rank::BareDefineOfPrefixed,
            (Origin::Bare, None) => Rank::BareDefine,
            (Origin::File, _) => {
                let message = "ignored: ZooKeeper takes this key from zoo.cfg only";
                self.report(Severity::Warning, &source, Some(&shown), message, None);
                return true;
            }
            (Origin::Property, None) | (Origin::Bare, Some(_)) => {
                let name =
                    info.property_name(key.unwrap_or(&define.name)).map(|name| format!("-D{name}"));
                let message = "ignored: ZooKeeper reads this property under another name";
                self.report(Severity::Warning, &source, Some(&shown), message, name);
                return true;
            }
        };
        let key = key.unwrap_or(&define.name).to_owned();
        self.compete(key, Candidate { info, raw: define.value.trim().to_owned(), source, rank });
        true
    }

    fn compete(&mut self, key: String, new: Candidate) {
        let Some(old) = self.winners.remove(&key) else {
            self.winners.insert(key, new);
            return;
        };
        let (winner, loser) = if new.rank >= old.rank { (new, old) } else { (old, new) };
        let worth_a_word =
            loser.raw != winner.raw && loser.rank != Rank::Base && winner.rank != Rank::Override;
        if worth_a_word {
            let message = format!("{} sets this too and goes before it", winner.source);
            self.report(Severity::Note, &loser.source, Some(&key), message, None);
        }
        self.winners.insert(key, winner);
    }

    /// Checks each winner by itself.
    fn finish(mut self, main_name: String) -> Settings {
        let mut values = BTreeMap::new();
        let mut rejected = BTreeSet::new();
        for (key, Candidate { info, raw, source, .. }) in std::mem::take(&mut self.winners) {
            let lenient = info.origin != Origin::File;
            let value = match parse_value(info.kind, &raw, info.default, lenient) {
                Checked::Good(value) => value,
                Checked::Odd(value, message) => {
                    self.report(Severity::Warning, &source, Some(&key), message, None);
                    value
                }
                Checked::Bad(message) => {
                    let severity = match info.status {
                        Status::Honoured => Severity::Error,
                        Status::Later(_) if info.origin == Origin::File => Severity::Error,
                        Status::Later(_) | Status::NoEffect(_) => Severity::Warning,
                    };
                    let suggestion = match info.kind {
                        Kind::OneOf(words) => {
                            nearest(&raw, words.iter().copied()).map(str::to_owned)
                        }
                        Kind::Bool => nearest(&raw, ["true", "false"]).map(str::to_owned),
                        _ => None, // No other kind has words to choose from.
                    };
                    self.report(severity, &source, Some(&key), message, suggestion);
                    rejected.insert(key);
                    continue;
                }
            };
            if Some(&value) != default_value(info).as_ref() {
                self.report_status(&key, info, &source);
            }
            values.insert(key, Setting { value, raw, source, info });
        }
        Settings { values, rejected, main_name, used: RefCell::new(BTreeSet::new()) }
    }

    /// Says when a value that asks for something gets nothing. Keys that matter between members wait
    /// until it is known whether there are any.
    fn report_status(&mut self, key: &str, info: &KeyInfo, source: &Source) {
        if info.between_members {
            return;
        }
        let (severity, message) = match info.status {
            Status::Honoured => return,
            Status::NoEffect(reason) if info.aside => {
                (Severity::Note, format!("no effect: {reason}"))
            }
            Status::NoEffect(reason) => {
                (Severity::Warning, format!("no effect in Paddock: {reason}"))
            }
            Status::Later(feature) if info.restricts => (
                Severity::Error,
                format!(
                    "not supported yet, it comes with {}; starting without it would admit clients that it keeps out",
                    feature.comes_with()
                ),
            ),
            Status::Later(feature) => (
                Severity::Warning,
                format!("no effect yet, it comes with {}", feature.comes_with()),
            ),
        };
        self.report(severity, source, Some(key), message, None);
    }
}

/// Whether a key is part of the dynamic configuration.
fn is_membership(key: &str) -> bool {
    ["server.", "group.", "weight."].iter().any(|prefix| key.starts_with(prefix))
}

/// `sever.1` for `server.1`.
fn nearest_pattern(key: &str) -> Option<String> {
    let (head, tail) = key.split_once('.')?;
    let heads =
        KEYS.iter().filter_map(KeyInfo::prefix).filter_map(|prefix| prefix.strip_suffix('.'));
    nearest(head, heads).filter(|found| *found != head).map(|found| format!("{found}.{tail}"))
}

/// The default of a row as a value; none when the default is "none".
pub(crate) fn default_value(info: &KeyInfo) -> Option<Value> {
    if info.default.is_empty() {
        return None;
    }
    match parse_value(info.kind, info.default, info.default, info.origin != Origin::File) {
        Checked::Good(value) => Some(value),
        Checked::Odd(..) | Checked::Bad(_) => None,
    }
}

/// The value that counts for one key.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    pub(crate) value: Value,
    pub(crate) raw: String,
    pub(crate) source: Source,
    pub(crate) info: &'static KeyInfo,
}

/// One value for each key that is set, and the defaults of the table for the rest.
#[derive(Debug)]
pub(crate) struct Settings {
    values: BTreeMap<String, Setting>,
    /// Keys that are set to something unusable: reported already.
    rejected: BTreeSet<String>,
    main_name: String,
    /// Keys that were asked for: the tests compare them with the table.
    used: RefCell<BTreeSet<&'static str>>,
}

impl Settings {
    pub(crate) fn raw(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(|setting| setting.raw.as_str())
    }

    /// Whether any source sets `key`, if only to something unusable.
    pub(crate) fn is_set(&self, key: &str) -> bool {
        self.values.contains_key(key) || self.rejected.contains(key)
    }

    /// Where `key` is set; the main source when it is not.
    pub(crate) fn source(&self, key: &str) -> Source {
        match self.values.get(key) {
            Some(setting) => setting.source.clone(),
            None => Source { file: self.main_name.clone(), line: None },
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Setting)> {
        self.values.iter().map(|(key, setting)| (key.as_str(), setting))
    }

    /// The settings of keys that matter between members and differ from their defaults.
    pub(crate) fn asking_between_members(&self) -> impl Iterator<Item = (&str, &Setting)> {
        self.iter().filter(|(_, setting)| {
            setting.info.between_members
                && default_value(setting.info).as_ref() != Some(&setting.value)
        })
    }

    /// The settings under a pattern such as `server.*`, with the part that the star stands for.
    pub(crate) fn under(
        &self,
        pattern: &'static str,
    ) -> impl Iterator<Item = (&str, &str, &Setting)> {
        self.used.borrow_mut().insert(pattern);
        self.values.iter().filter(move |(_, setting)| setting.info.name == pattern).filter_map(
            |(key, setting)| {
                let prefix = setting.info.prefix()?;
                Some((key.as_str(), key.strip_prefix(prefix)?, setting))
            },
        )
    }

    fn value(&self, key: &'static str) -> Option<Value> {
        self.used.borrow_mut().insert(key);
        match self.values.get(key) {
            Some(setting) => Some(setting.value.clone()),
            None => find_key(key).and_then(default_value),
        }
    }

    pub(crate) fn bool(&self, key: &'static str) -> bool {
        matches!(self.value(key), Some(Value::Bool(true)))
    }

    pub(crate) fn int(&self, key: &'static str) -> Option<i64> {
        match self.value(key) {
            Some(Value::Int(number)) => Some(number),
            Some(Value::Bool(_) | Value::Float(_) | Value::Text(_)) | None => None,
        }
    }

    /// A number that the table keeps inside `u32`; what is out of range is clamped.
    pub(crate) fn u32(&self, key: &'static str) -> u32 {
        u32::try_from(self.int(key).unwrap_or(0).max(0)).unwrap_or(u32::MAX)
    }

    /// As [`Self::u32`] for `u64`.
    pub(crate) fn u64(&self, key: &'static str) -> u64 {
        u64::try_from(self.int(key).unwrap_or(0)).unwrap_or(0)
    }

    /// None for absent and negative numbers, which stand for "unset" or "off".
    pub(crate) fn optional_u32(&self, key: &'static str) -> Option<u32> {
        self.int(key).and_then(|number| u32::try_from(number).ok())
    }

    /// None for absent and negative numbers.
    pub(crate) fn port(&self, key: &'static str) -> Option<u16> {
        self.int(key).and_then(|number| u16::try_from(number).ok())
    }

    pub(crate) fn float(&self, key: &'static str) -> f64 {
        match self.value(key) {
            Some(Value::Float(number)) => number,
            Some(Value::Bool(_) | Value::Int(_) | Value::Text(_)) | None => 0.0,
        }
    }

    /// None when absent or empty.
    pub(crate) fn text(&self, key: &'static str) -> Option<String> {
        match self.value(key) {
            Some(Value::Text(text)) if !text.is_empty() => Some(text),
            Some(Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_)) | None => None,
        }
    }

    /// The entries of a comma-separated list, trimmed, without empty ones.
    pub(crate) fn list(&self, key: &'static str) -> Vec<String> {
        let text = self.text(key).unwrap_or_default();
        text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
    }

    #[cfg(test)]
    pub(crate) fn used(&self) -> BTreeSet<&'static str> {
        self.used.borrow().clone()
    }
}
