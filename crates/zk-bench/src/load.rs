use std::cell::RefCell;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use zk_proto::{ErrorCode, Xid};

use crate::Failure;
use crate::options::{Fill, Load, Shape, Target};
use crate::pipeline::{Creates, Pipeline, Recorder};
use crate::process::{self, CpuTime, Memory};
use crate::report::{Report, grouped};
use crate::requests::{self, Mix, ROOT, Requests};
use crate::session::{PATIENCE, Session, resolve_all};

const TIMEOUT_MS: i32 = 30_000;

/// What all threads of a run see.
struct Run {
    phase: AtomicU8,
    started: Instant,
    answered: AtomicU64,
    failure: Mutex<Option<Failure>>,
}

const WARMUP: u8 = 0;
const MEASURE: u8 = 1;
const STOP: u8 = 2;

impl Run {
    fn new() -> Self {
        Self {
            phase: AtomicU8::new(WARMUP),
            started: Instant::now(),
            answered: AtomicU64::new(0),
            failure: Mutex::new(None),
        }
    }

    fn phase(&self) -> u8 {
        self.phase.load(Ordering::Relaxed)
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).expect("a run is shorter than 500 years")
    }

    fn fail(&self, failure: Failure) {
        self.phase.store(STOP, Ordering::Relaxed);
        self.failure.lock().expect("nobody panics with it").get_or_insert(failure);
    }

    fn failure(&self) -> Option<Failure> {
        self.failure.lock().expect("nobody panics with it").clone()
    }
}

/// One connection of a run.
struct Connection {
    stream: TcpStream,
    pipeline: Pipeline,
}

/// A connection's turn: what to do between two reads. Whether there is something to write: the run may
/// end at any moment, and what counts as in flight must have been sent.
fn step(run: &Run, pipeline: &mut Pipeline, recorder: &mut Recorder) -> bool {
    let phase = run.phase();
    recorder.measuring = phase == MEASURE;
    if phase == STOP {
        return false;
    }
    pipeline.produce(run.now_ns());
    !pipeline.output().is_empty()
}

/// A single connection without an event loop: one system call less for each read.
fn drive_blocking(
    run: &Run,
    connection: Connection,
    recorder: &mut Recorder,
) -> Result<(), Failure> {
    let Connection { mut stream, mut pipeline } = connection;
    stream.set_read_timeout(Some(PATIENCE)).map_err(Failure::io("socket"))?;
    loop {
        if step(run, &mut pipeline, recorder) {
            stream.write_all(pipeline.output()).map_err(Failure::io("write to the server"))?;
        }
        if pipeline.in_flight() == 0 {
            return Ok(());
        }
        let count = stream.read(pipeline.space()).map_err(Failure::io("read from the server"))?;
        if count == 0 {
            return Err(Failure::new("the server closed a connection"));
        }
        let before = pipeline.in_flight();
        pipeline.received(count, run.now_ns(), recorder)?;
        run.answered.fetch_add(before - pipeline.in_flight(), Ordering::Relaxed);
    }
}

async fn drive(
    run: &Run,
    connection: Connection,
    recorder: &RefCell<Recorder>,
) -> Result<(), Failure> {
    let Connection { stream, mut pipeline } = connection;
    stream.set_nonblocking(true).map_err(Failure::io("socket"))?;
    let mut stream = tokio::net::TcpStream::from_std(stream).map_err(Failure::io("socket"))?;
    loop {
        let writes = step(run, &mut pipeline, &mut recorder.borrow_mut());
        if writes {
            stream
                .write_all(pipeline.output())
                .await
                .map_err(Failure::io("write to the server"))?;
        }
        if pipeline.in_flight() == 0 {
            return Ok(());
        }
        let count =
            stream.read(pipeline.space()).await.map_err(Failure::io("read from the server"))?;
        if count == 0 {
            return Err(Failure::new("the server closed a connection"));
        }
        let before = pipeline.in_flight();
        pipeline.received(count, run.now_ns(), &mut recorder.borrow_mut())?;
        run.answered.fetch_add(before - pipeline.in_flight(), Ordering::Relaxed);
    }
}

/// A thread's share of the connections.
fn drive_share(run: &Arc<Run>, mut connections: Vec<Connection>) -> Recorder {
    let single = if connections.len() == 1 { connections.pop() } else { None };
    let Some(connection) = single else { return drive_event_loop(run, connections) };
    let mut recorder = Recorder::new();
    if let Err(failure) = drive_blocking(run, connection, &mut recorder) {
        run.fail(failure);
    }
    recorder
}

fn drive_event_loop(run: &Arc<Run>, connections: Vec<Connection>) -> Recorder {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            run.fail(Failure::io("event loop")(error));
            return Recorder::new();
        }
    };
    let recorder = Rc::new(RefCell::new(Recorder::new()));
    let local = tokio::task::LocalSet::new();
    let tasks: Vec<_> = connections
        .into_iter()
        .map(|connection| {
            let (run, recorder) = (Arc::clone(run), Rc::clone(&recorder));
            local.spawn_local(async move {
                if let Err(failure) = drive(&run, connection, &recorder).await {
                    run.fail(failure);
                }
            })
        })
        .collect();
    let all = async {
        for task in tasks {
            task.await.ok(); // its failure is in `run`
        }
    };
    local.block_on(&runtime, async {
        tokio::select! {
            () = all => {}
            () = watchdog(run) => {}
        }
    });
    drop(local);
    Rc::into_inner(recorder).map_or_else(Recorder::new, RefCell::into_inner)
}

/// Ends when the run has failed; nothing answered for long is a failure.
async fn watchdog(run: &Run) {
    let mut last = (run.answered.load(Ordering::Relaxed), Instant::now());
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let answered = run.answered.load(Ordering::Relaxed);
        if answered != last.0 {
            last = (answered, Instant::now());
        }
        if last.1.elapsed() > PATIENCE {
            run.fail(Failure::new(format!(
                "the server answered nothing for {} s",
                PATIENCE.as_secs()
            )));
        }
        if run.failure().is_some() {
            return;
        }
    }
}

/// What was measured between two points in time.
struct Measured {
    seconds: f64,
    recorder: Recorder,
    server_cpu: Option<CpuTime>,
    client_cpu: CpuTime,
    memory: Option<Memory>,
}

struct Marks {
    at: Instant,
    server: Option<CpuTime>,
    client: CpuTime,
}

fn mark(target: &Target) -> Result<Marks, Failure> {
    Ok(Marks {
        at: Instant::now(),
        server: process::cpu_times(&target.server_pid)?,
        client: process::cpu_time(std::process::id())?,
    })
}

/// Starts the threads and measures: for `seconds` after `warmup`, or, with `None`, until every connection
/// has sent all it has to.
fn measure(
    target: &Target,
    shape: &Shape,
    connections: Vec<Connection>,
    window: Option<(f64, f64)>,
    progress: impl Fn(u64),
) -> Result<Measured, Failure> {
    let run = Arc::new(Run::new());
    if window.is_none() {
        run.phase.store(MEASURE, Ordering::Relaxed);
    }
    let threads = (shape.threads as usize).min(connections.len());
    let mut shares: Vec<Vec<Connection>> = (0..threads).map(|_| Vec::new()).collect();
    for (at, connection) in connections.into_iter().enumerate() {
        shares[at % threads].push(connection);
    }
    let before = mark(target)?;
    // Nothing is sent: the channel closes when the last thread ends.
    let (done, finished) = mpsc::channel::<()>();
    let workers: Vec<_> = shares
        .into_iter()
        .map(|share| {
            let (run, done) = (Arc::clone(&run), done.clone());
            std::thread::spawn(move || {
                let recorder = drive_share(&run, share);
                drop(done);
                recorder
            })
        })
        .collect();
    drop(done);
    // Until the time is over or every thread has ended.
    let wait = |seconds: f64| {
        let end = Instant::now() + Duration::from_secs_f64(seconds);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let slice = left.min(Duration::from_millis(500));
            match finished.recv_timeout(slice) {
                Err(mpsc::RecvTimeoutError::Timeout) if left > slice => {
                    progress(run.answered.load(Ordering::Relaxed));
                }
                Ok(())
                | Err(mpsc::RecvTimeoutError::Timeout | mpsc::RecvTimeoutError::Disconnected) => {
                    return;
                }
            }
        }
    };
    let (before, after) = match window {
        Some((warmup, seconds)) => {
            wait(warmup);
            let before = mark(target)?;
            run.phase.compare_exchange(WARMUP, MEASURE, Ordering::Relaxed, Ordering::Relaxed).ok();
            wait(seconds);
            let after = mark(target)?;
            run.phase.store(STOP, Ordering::Relaxed);
            (before, after)
        }
        None => {
            wait(1e7);
            (before, mark(target)?)
        }
    };
    let mut recorder = Recorder::new();
    for worker in workers {
        let theirs =
            worker.join().map_err(|_| Failure::new("a thread of the load generator panicked"))?;
        recorder.latency.merge(&theirs.latency);
    }
    if let Some(failure) = run.failure() {
        return Err(failure);
    }
    Ok(Measured {
        seconds: (after.at - before.at).as_secs_f64(),
        recorder,
        server_cpu: after.server.zip(before.server).map(|(after, before)| after.since(before)),
        client_cpu: after.client.since(before.client),
        memory: process::memories(&target.server_pid)?,
    })
}

fn connect_all(
    servers: &[SocketAddr],
    shape: &Shape,
    mut pipeline: impl FnMut(u32) -> Pipeline,
) -> Result<Vec<Connection>, Failure> {
    raise_file_limit(u64::from(shape.connections) + 64)?;
    (0..shape.connections)
        .map(|number| {
            let server = servers[number as usize % servers.len()];
            let session = Session::connect(server, TIMEOUT_MS)?;
            session.stream.set_read_timeout(None).map_err(Failure::io("socket"))?;
            Ok(Connection { stream: session.stream, pipeline: pipeline(number) })
        })
        .collect()
}

/// Raises the soft limit on open files to what is wanted, or says what stands in the way.
pub(crate) fn raise_file_limit(wanted: u64) -> Result<(), Failure> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    let maximum = limit.maximum.map(|maximum| maximum.max(wanted));
    let raised =
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum })
            .or_else(|_| setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }));
    raised.map_err(|error| {
        Failure::new(format!(
            "{wanted} open files are needed and the limit cannot be raised: {error} (ulimit -n)"
        ))
    })
}

fn report_measured(report: &mut Report, measured: &Measured) {
    let ops = measured.recorder.latency.count();
    let throughput = ops as f64 / measured.seconds;
    report.value("operations", ops);
    report.value("seconds", (measured.seconds * 1000.0).round() / 1000.0);
    report.value("throughput", (throughput * 10.0).round() / 10.0);
    report.line(format!(
        "  throughput {}/s ({} operations in {:.1} s)",
        grouped(throughput as u64),
        grouped(ops),
        measured.seconds
    ));
    report.latency("latency_us", "latency", &measured.recorder.latency);
    if let Some(cpu) = measured.server_cpu {
        report.cpu("server", cpu, ops);
    }
    if let Some(memory) = measured.memory {
        report.memory(memory);
    }
    report.cpu("client", measured.client_cpu, ops);
}

fn report_shape(report: &mut Report, workload: &str, shape: &Shape, znodes: u32) {
    report.value("workload", workload);
    report.value("connections", shape.connections);
    report.value("outstanding", shape.outstanding);
    report.value("value_size", shape.value_size);
    report.value("znodes", znodes);
    report.line(format!(
        "{workload}, {} connections x {} outstanding, {}-byte values, {} znodes",
        shape.connections,
        shape.outstanding,
        shape.value_size,
        grouped(u64::from(znodes))
    ));
}

/// getData, setData, mixed and create.
pub(crate) fn run(workload: &str, mix: Mix, options: &Load) -> Result<Report, Failure> {
    let Load { target, shape, znodes, seconds, warmup } = options;
    let servers = resolve_all(&target.server)?;
    let size = shape.value_size as usize;
    // A run of its own, so that its creates never meet another run's.
    let stamp = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis());
    let create_root = format!("{ROOT}/create-{stamp:012x}");
    prepare(servers[0], mix, *znodes, size, shape.connections, &create_root)?;
    catch_up(&servers)?;
    let requests = Arc::new(Requests::new(mix, *znodes, size, &create_root));
    let connections = connect_all(&servers, shape, |number| {
        let creates = Creates { next: 0, step: 1, dir: number, fanout: u32::MAX };
        Pipeline::new(
            Arc::clone(&requests),
            shape.outstanding,
            u64::MAX,
            u64::from(number),
            creates,
        )
    })?;
    let measured = measure(target, shape, connections, Some((*warmup, *seconds)), |_| ())?;
    let mut report = Report::default();
    report_shape(&mut report, workload, shape, *znodes);
    report_measured(&mut report, &measured);
    Ok(report)
}

/// Makes what the workload works on; what is there already is brought into shape.
fn prepare(
    server: SocketAddr,
    mix: Mix,
    znodes: u32,
    size: usize,
    connections: u32,
    create_root: &str,
) -> Result<(), Failure> {
    const THERE: &[ErrorCode] = &[ErrorCode::NODE_EXISTS];
    let mut session = Session::connect(server, TIMEOUT_MS)?;
    session.send_all(1, THERE, |_, xid| requests::create_frame(xid, ROOT, None))?;
    match mix {
        Mix::ReadWrite { .. } => {
            let create = |index, xid: Xid| {
                let value = requests::value(index, size);
                requests::create_frame(xid, &requests::path(index), Some(value))
            };
            session.send_all(znodes, THERE, create)?;
            // Those that were there may have data of another size.
            session.send_all(znodes, &[], |index, xid| requests::set_frame(xid, index, size))?;
        }
        Mix::Create => {
            session.send_all(1, &[], |_, xid| requests::create_frame(xid, create_root, None))?;
            session.send_all(connections, &[], |dir, xid| {
                requests::create_frame(xid, &requests::create_dir(create_root, dir), None)
            })?;
        }
    }
    session.close()
}

/// Waits until every server of an ensemble has what the first one was told.
fn catch_up(servers: &[SocketAddr]) -> Result<(), Failure> {
    for server in servers.iter().skip(1) {
        let mut session = Session::connect(*server, TIMEOUT_MS)?;
        session.send_all(1, &[], |_, xid| requests::sync_frame(xid))?;
        session.close()?;
    }
    Ok(())
}

/// Creates `znodes` znodes below `root`.
pub(crate) fn fill(options: &Fill) -> Result<Report, Failure> {
    let Fill { target, shape, znodes, fanout, root } = options;
    if !zk_proto::path::is_valid(root) || root == "/" {
        return Err(Failure::new(format!("--root {root} is not the path of a znode")));
    }
    let servers = resolve_all(&target.server)?;
    let mut session = Session::connect(servers[0], TIMEOUT_MS)?;
    let parents: Vec<String> = root
        .match_indices('/')
        .skip(1)
        .map(|(at, _)| root[..at].to_owned())
        .chain([root.clone()])
        .collect();
    let there = &[ErrorCode::NODE_EXISTS];
    session.send_all(
        u32::try_from(parents.len()).expect("a path is short"),
        there,
        |at, xid| requests::create_frame(xid, &parents[at as usize], None),
    )?;
    session.send_all(znodes.div_ceil(*fanout), there, |dir, xid| {
        requests::create_frame(xid, &requests::create_dir(root, dir), None)
    })?;
    session.close()?;
    catch_up(&servers)?;

    let requests = Arc::new(Requests::new(Mix::Create, 0, shape.value_size as usize, root));
    let step = shape.connections.min(*znodes);
    let shape = Shape { connections: step, ..shape.clone() };
    let connections = connect_all(&servers, &shape, |number| {
        let creates = Creates { next: number, step, dir: 0, fanout: *fanout };
        let count = u64::from((znodes - number).div_ceil(step));
        Pipeline::new(Arc::clone(&requests), shape.outstanding, count, 0, creates)
    })?;
    let started = Instant::now();
    let last = std::cell::Cell::new(0);
    let measured = measure(target, &shape, connections, None, |answered| {
        let seconds = started.elapsed().as_secs();
        if seconds >= last.get() + 5 {
            last.set(seconds);
            let percent = answered * 100 / u64::from(*znodes);
            eprintln!(
                "  {} of {} znodes ({percent} %)",
                grouped(answered),
                grouped(u64::from(*znodes))
            );
        }
    })?;
    let mut report = Report::default();
    report_shape(&mut report, "fill", &shape, *znodes);
    report_measured(&mut report, &measured);
    Ok(report)
}
