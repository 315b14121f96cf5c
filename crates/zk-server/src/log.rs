//! Logging to standard error.

use tracing_subscriber::EnvFilter;

/// Starts logging. `PADDOCK_LOG` filters as tracing's `EnvFilter` does (`debug`, `zk_server=trace`,
/// ...), `PADDOCK_LOG_FORMAT=json` writes one JSON object a line. A second start changes nothing.
pub fn start() {
    let filter = EnvFilter::try_from_env("PADDOCK_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = if std::env::var("PADDOCK_LOG_FORMAT").is_ok_and(|format| format == "json") {
        builder.json().try_init()
    } else {
        builder.with_ansi(false).try_init()
    };
    drop(started);
}
