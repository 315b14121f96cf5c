//! Loading and checking: the functions that a command calls.

use std::io;
use std::path::{Path, PathBuf};

use crate::build::build;
use crate::diagnostic::{Diagnostic, Diagnostics, Severity};
use crate::server_config::ServerConfig;
use crate::settings::Sources;

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
        let config = build(&settings, self, &mut diagnostics);
        diagnostics.sort(&self.names());
        Loaded { config, diagnostics }
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
