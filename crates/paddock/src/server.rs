//! `paddock server`: from arguments to a configuration to a server.

use std::path::Path;
use std::process::ExitCode;

use zk_config::{Loaded, ServerConfig, Severity, Sources};
use zk_server::{Exit, StartError};

/// Variables that hold JVM flags, as the start scripts of ZooKeeper read them.
const FLAG_VARIABLES: [&str; 2] = ["JVMFLAGS", "SERVER_JVMFLAGS"];

/// Where the data goes when nothing says otherwise.
const DEFAULT_DATA_DIR: &str = "paddock-data";

/// A start as asked for.
pub(crate) struct Start {
    /// A file; or port, folder and so on; or nothing.
    pub(crate) arguments: Vec<String>,
    /// `-D` arguments, as `key=value`.
    pub(crate) properties: Vec<String>,
    /// Whether warnings are errors.
    pub(crate) strict: bool,
}

/// Serves until SIGTERM.
pub(crate) fn run(start: &Start) -> ExitCode {
    zk_server::log::start();
    let Some(config) = configure(start) else { return Exit::Invocation.into() };
    match zk_server::run(config) {
        Ok(()) => Exit::Normal.into(),
        Err(error @ StartError::Ended(..)) => {
            tracing::error!(%error, "the server stops");
            error.exit().into()
        }
        Err(error) => {
            tracing::error!(%error, "the server did not start");
            error.exit().into()
        }
    }
}

fn configure(start: &Start) -> Option<ServerConfig> {
    let loaded = load(start);
    let (accepted, diagnostics) = match loaded.accept(start.strict) {
        Ok((config, diagnostics)) => (Some(config), diagnostics),
        Err(diagnostics) => (None, diagnostics),
    };
    for diagnostic in diagnostics.iter() {
        match diagnostic.severity {
            Severity::Error => tracing::error!("{diagnostic}"),
            Severity::Warning => tracing::warn!("{diagnostic}"),
            Severity::Note => tracing::info!("{diagnostic}"),
        }
    }
    accepted
}

fn load(start: &Start) -> Loaded {
    let (file, mut sources) = match start.arguments.as_slice() {
        [] => (None, Sources::embedded(Some(DEFAULT_DATA_DIR))),
        arguments => match Sources::positional(arguments) {
            Some(sources) => (None, sources),
            None => (arguments.first(), Sources::new()),
        },
    };
    for variable in FLAG_VARIABLES {
        if let Ok(flags) = std::env::var(variable) {
            sources = sources.jvm_flags(variable, &flags);
        }
    }
    for property in &start.properties {
        sources = sources.define(property);
    }
    match file {
        Some(file) => sources.load_file(Path::new(file)),
        None => sources.load_with_files(),
    }
}
