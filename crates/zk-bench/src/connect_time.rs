use std::time::Instant;

use crate::Failure;
use crate::histogram::Histogram;
use crate::options::ConnectTime;
use crate::process;
use crate::report::Report;
use crate::session::{Session, resolve_all};

fn since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).expect("shorter than 500 years")
}

/// Opens and closes sessions one after the other.
pub(crate) fn run(options: &ConnectTime) -> Result<Report, Failure> {
    let servers = resolve_all(&options.target.server)?;
    let (mut open, mut close) = (Histogram::new(), Histogram::new());
    let cpu = process::cpu_times(&options.target.server_pid)?;
    for server in servers.into_iter().cycle().take(options.count as usize) {
        let start = Instant::now();
        let session = Session::connect(server, 30_000)?;
        open.record(since(start));
        let start = Instant::now();
        session.close()?;
        close.record(since(start));
    }
    let mut report = Report::default();
    report.value("workload", "connect-time");
    report.value("operations", options.count);
    report.line(format!("connect-time, {} sessions one after the other", options.count));
    report.latency("connect_us", "connect", &open);
    report.latency("close_us", "close", &close);
    if let (Some(before), Some(after)) = (cpu, process::cpu_times(&options.target.server_pid)?) {
        report.cpu("server", after.since(before), u64::from(options.count));
    }
    if let Some(memory) = process::memories(&options.target.server_pid)? {
        report.memory(memory);
    }
    Ok(report)
}
