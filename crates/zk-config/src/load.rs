//! Loading and checking: the functions that a command calls.

use std::io;
use std::path::{Path, PathBuf};

use zk_proto::properties::Properties;

use crate::build::build;
use crate::diagnostic::{Diagnostic, Diagnostics, Severity};
use crate::ensemble::ProposedConfig;
use crate::reconfig::next_dynamic_file_path;
use crate::server_config::ServerConfig;
use crate::settings::{NamedText, Sources};

/// What a configuration came to.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration, also beside errors where a default could stand in; start a server only
    /// through [`Loaded::accept`].
    pub config: Option<ServerConfig>,
    /// What there is to say about it.
    pub diagnostics: Diagnostics,
}

impl Loaded {
    /// The configuration and the warnings to log, or the diagnostics to print before exiting with
    /// [`EXIT_INVALID_CONFIG`](crate::EXIT_INVALID_CONFIG). `strict` refuses for warnings too.
    ///
    /// # Errors
    /// When the configuration must not be used.
    pub fn accept(self, strict: bool) -> Result<(ServerConfig, Diagnostics), Diagnostics> {
        match self.config {
            Some(config) if !self.diagnostics.refuses(strict) => Ok((config, self.diagnostics)),
            Some(_) | None => Err(self.diagnostics),
        }
    }
}

impl Sources {
    /// Merges, checks and types what was added. Reads nothing.
    pub fn load(&self) -> Loaded {
        let mut diagnostics = Diagnostics::new();
        let settings = self.settle(&mut diagnostics);
        let mut config = build(&settings, self, &mut diagnostics);
        if let (Some(config), Some(file), Some(_)) =
            (&mut config, &self.next_file, &self.dynamic_file)
        {
            let known = config.ensemble.version;
            config.ensemble.proposed = self.proposed(file, known, &mut diagnostics);
        }
        diagnostics.sort(&self.names());
        Loaded { config, diagnostics }
    }

    /// The configuration in `zoo.cfg.dynamic.next`, checked as a dynamic file is: none if it is not later
    /// than the one that is `known`.
    fn proposed(
        &self,
        file: &NamedText,
        known: u64,
        diagnostics: &mut Diagnostics,
    ) -> Option<ProposedConfig> {
        let found = |severity, line, message: &str| Diagnostic {
            severity,
            file: file.name.clone(),
            line,
            key: None,
            message: message.to_owned(),
            suggestion: None,
        };
        let properties = Properties::parse(&file.text);
        let entry = properties.entries.iter().find(|entry| entry.key == "version");
        let version = entry.and_then(|entry| u64::from_str_radix(entry.value.trim(), 16).ok());
        let (Some(entry), Some(version)) = (entry, version) else {
            let message = "there is no line `version=` with a hexadecimal number: this is no configuration that was proposed. Move the file away";
            diagnostics.push(found(Severity::Error, entry.map(|entry| entry.line), message));
            return None;
        };
        if version <= known {
            return None;
        }
        // In the place of the dynamic file, whose version stands in its name; other lines keep their numbers.
        let is_version = |at: usize| u32::try_from(at + 1).is_ok_and(|line| line == entry.line);
        let lines = file.text.lines().enumerate();
        let lines: Vec<&str> =
            lines.map(|(at, line)| if is_version(at) { "" } else { line }).collect();
        let mut sources = self.clone();
        sources.next_file = None;
        let loaded = sources.dynamic_file(&file.name, &lines.join("\n")).load();
        loaded.diagnostics.iter().filter(|found| found.file == file.name).for_each(|found| {
            diagnostics.push(found.clone());
        });
        let ensemble = loaded.config?.ensemble;
        if ensemble.voters().next().is_none() {
            diagnostics.push(found(Severity::Error, None, "there are no participants"));
            return None;
        }
        let message = format!(
            "a reconfiguration to version {version:x} was under way when this was written: nobody leads without a quorum of its members, too. Move the file away if it is known to have come to nothing"
        );
        diagnostics.push(found(Severity::Note, None, &message));
        Some(ProposedConfig { version, text: ensemble.text() })
    }

    /// Reads `path` as `zoo.cfg`, then the files it leads to, `dynamicConfigFile` and
    /// `dataDir/myid`, and loads them with everything added before.
    pub fn load_file(mut self, path: &Path) -> Loaded {
        let name = path.display().to_string();
        let text = match read_text(path) {
            Ok(text) => text,
            Err(error) => {
                let mut diagnostics = Diagnostics::new();
                diagnostics.push(unreadable(Severity::Error, &error));
                return Loaded { config: None, diagnostics };
            }
        };
        self.path = Some(path.to_owned());
        self.file(&name, &text).load_with_files()
    }

    /// As [`Sources::load`], after reading the files that the configuration names:
    /// `dynamicConfigFile` and `dataDir/myid`.
    pub fn load_with_files(mut self) -> Loaded {
        let mut problems = Vec::new();
        if let Some(dynamic) = self.peek("dynamicConfigFile").filter(|name| !name.is_empty()) {
            match read_text(Path::new(&dynamic)) {
                Ok(text) => self = self.dynamic_file(&dynamic, &text),
                Err(error) => problems.push(unreadable(Severity::Error, &error)),
            }
            if let Some(next) = self.path.as_deref().map(next_dynamic_file_path) {
                match read_text(&next) {
                    Ok(text) => self = self.next_file(&next.display().to_string(), &text),
                    Err(error) if error.is_absent() => {}
                    Err(error) => problems.push(unreadable(Severity::Error, &error)),
                }
            }
        }
        if let Some(data_dir) = self.peek("dataDir").filter(|name| !name.is_empty()) {
            let my_id = Path::new(&data_dir).join("myid");
            match read_text(&my_id) {
                Ok(text) => self = self.my_id(&my_id.display().to_string(), &text),
                Err(error) if error.is_absent() => {}
                // Whoever checks a file need not be allowed to read the data.
                Err(error) => {
                    self.my_id_unreadable = true;
                    problems.push(unreadable(Severity::Warning, &error));
                }
            }
        }
        let needs_my_id = self.my_id_unreadable;
        let mut loaded = self.load();
        let distributed = loaded.config.as_ref().is_some_and(|c| c.ensemble.is_distributed());
        for mut problem in problems {
            if needs_my_id && distributed {
                problem.severity = Severity::Error; // a member that does not know which one it is
            }
            loaded.diagnostics.push(problem);
        }
        loaded
    }
}

/// Checks the file at `path` by itself, as `paddock check-config` does.
pub fn check(path: &Path) -> Diagnostics {
    Sources::new().load_file(path).diagnostics
}

/// A file that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: {source}", path.display())]
struct ReadError {
    path: PathBuf,
    source: io::Error,
}

impl ReadError {
    fn is_absent(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
    }
}

/// Reads a text file: UTF-8, or ISO-8859-1 as Java's properties are when it is not UTF-8. All input
/// of this crate.
#[expect(clippy::disallowed_methods, reason = "the one place that reads")]
fn read_text(path: &Path) -> Result<String, ReadError> {
    let bytes =
        std::fs::read(path).map_err(|source| ReadError { path: path.to_owned(), source })?;
    Ok(String::from_utf8(bytes)
        .unwrap_or_else(|error| error.into_bytes().into_iter().map(char::from).collect()))
}

fn unreadable(severity: Severity, error: &ReadError) -> Diagnostic {
    Diagnostic {
        severity,
        file: error.path.display().to_string(),
        line: None,
        key: None,
        message: format!("cannot be read: {}", error.source),
        suggestion: None,
    }
}
