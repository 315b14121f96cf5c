use std::io::{ErrorKind, Read as _, Write as _};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use zk_proto::{OpCode, Xid};

use crate::Failure;
use crate::load::raise_file_limit;
use crate::options::Idle;
use crate::process;
use crate::report::{Report, grouped};
use crate::session::{Session, request_frame, resolve_all};

/// Connects at once: fewer than the smallest usual listen backlog, or connections are dropped.
const BURST: u32 = 32;

/// A ping's reply: length, header.
const PONG: usize = 20;

/// A session that does nothing but ping.
struct Idler {
    session: Session,
    /// Replies that are due.
    unanswered: u32,
    partial: usize,
}

impl Idler {
    /// Takes what has arrived; the replies must be those to pings.
    fn receive(&mut self) -> Result<(), Failure> {
        let mut buffer = [0; PONG];
        loop {
            match self.session.stream.read(&mut buffer[self.partial..]) {
                Ok(0) => return Err(Failure::new("the server closed an idle session")),
                Ok(count) if self.partial + count == PONG => {
                    let whole = self.partial == 0;
                    self.partial = 0;
                    // A reply in pieces was not kept; on loopback it does not come in pieces.
                    if whole && buffer[4..8] != Xid::PING.0.to_be_bytes() {
                        return Err(Failure::new(
                            "an idle session got something else than a ping's reply",
                        ));
                    }
                    self.unanswered = self.unanswered.saturating_sub(1);
                }
                Ok(count) => self.partial += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(Failure::io("an idle session")(error)),
            }
        }
    }
}

/// Connects many sessions, holds them, and says what each costs the server.
pub(crate) fn run(options: &Idle) -> Result<Report, Failure> {
    let Idle { target, sessions, sources, timeout, seconds } = options;
    let servers = resolve_all(&target.server)?;
    raise_file_limit(u64::from(*sessions) + 64)?;
    let timeout_ms = (timeout * 1000.0) as i32;
    let before = process::memories(&target.server_pid)?;

    let started = Instant::now();
    let mut idlers: Vec<Idler> = Vec::with_capacity(*sessions as usize);
    let mut told = Instant::now();
    let mut keeper = Keeper::new();
    while (idlers.len() as u32) < *sessions {
        let first = idlers.len() as u32;
        let last = (*sessions).min(first + BURST);
        let streams: Vec<_> = (first..last)
            .map(|number| {
                let source = Ipv4Addr::new(
                    127,
                    0,
                    0,
                    1 + u8::try_from(number % sources).expect("at most 200"),
                );
                let server = servers[number as usize % servers.len()];
                Session::start(server, source, timeout_ms)
            })
            .collect::<Result<_, _>>()?;
        for stream in streams {
            let session = Session::finish(stream)?;
            session.stream.set_nonblocking(true).map_err(Failure::io("socket"))?;
            idlers.push(Idler { session, unanswered: 0, partial: 0 });
        }
        if told.elapsed() > Duration::from_secs(5) {
            told = Instant::now();
            eprintln!(
                "  {} of {} sessions",
                grouped(idlers.len() as u64),
                grouped(u64::from(*sessions))
            );
        }
        keeper.turn(&mut idlers)?;
    }
    let connecting = started.elapsed().as_secs_f64();

    let cpu_before = process::cpu_times(&target.server_pid)?;
    let held = Instant::now();
    let end = held + Duration::from_secs_f64(*seconds);
    while Instant::now() < end {
        keeper.turn(&mut idlers)?;
        std::thread::sleep(Duration::from_millis(10));
    }
    let held = held.elapsed().as_secs_f64();
    let rate = f64::from(*sessions) / connecting;

    let mut report = Report::default();
    report.value("workload", "idle");
    report.value("sessions", *sessions);
    report.value("connect_seconds", (connecting * 1000.0).round() / 1000.0);
    report.value("connects_per_second", rate.round());
    report
        .value("negotiated_timeout_ms", idlers.first().map_or(0, |idler| idler.session.timeout_ms));
    report.value("pings", keeper.pings);
    report.line(format!(
        "idle, {} sessions held for {held:.0} s ({} pings)",
        grouped(u64::from(*sessions)),
        grouped(keeper.pings)
    ));
    report.line(format!("  connected  in {connecting:.1} s ({}/s)", grouped(rate as u64)));
    let after = process::memories(&target.server_pid)?;
    let cpu_after = process::cpu_times(&target.server_pid)?;
    if let (Some(before), Some(after)) = (before, after) {
        let each = (after.rss as f64 - before.rss as f64) / f64::from(*sessions);
        report.value("server_bytes_per_session", each.round());
        report.value("server_rss_before_bytes", before.rss);
        report.line(format!("  server     {each:.0} bytes of memory for each session"));
        if let (Some(before), Some(after)) = (cpu_before, cpu_after) {
            let cpu = after.since(before).total() / held;
            report.value("server_cpu_percent", (cpu * 1000.0).round() / 10.0);
            report.line(format!("  server     {:.1} % of a CPU while they are idle", cpu * 100.0));
        }
        report.memory(after);
    }
    // Closing the sessions one by one would take as long as opening them; the server expires them.
    Ok(report)
}

/// Pings each session every third of its timeout, spread evenly.
struct Keeper {
    next: usize,
    turned: Instant,
    due: f64,
    pings: u64,
}

impl Keeper {
    fn new() -> Self {
        Self { next: 0, turned: Instant::now(), due: 0.0, pings: 0 }
    }

    fn turn(&mut self, idlers: &mut [Idler]) -> Result<(), Failure> {
        let Some(first) = idlers.first() else { return Ok(()) };
        let every = f64::from(first.session.timeout_ms) / 3000.0;
        self.due += self.turned.elapsed().as_secs_f64() * idlers.len() as f64 / every;
        self.turned = Instant::now();
        let ping = request_frame(Xid::PING, OpCode::PING, |_| ());
        while self.due >= 1.0 {
            self.due -= 1.0;
            self.next = if self.next + 1 >= idlers.len() { 0 } else { self.next + 1 };
            let idler = &mut idlers[self.next];
            idler.receive()?;
            if idler.unanswered > 1 {
                return Err(Failure::new(format!("a ping had no reply for {every:.0} s")));
            }
            // Twelve bytes always fit into an empty socket buffer.
            idler.session.stream.write_all(&ping).map_err(Failure::io("ping"))?;
            idler.unanswered += 1;
            self.pings += 1;
        }
        Ok(())
    }
}
