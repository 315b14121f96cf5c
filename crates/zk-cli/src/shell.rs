use std::collections::BTreeMap;
use std::io::{BufRead as _, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{CompletionType, Editor};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use zk_client::{Client, ConnectStringError};

use crate::arguments::{Arguments, words};
use crate::commands::{self, Action, Context, Spec};
use crate::completion::Completion;
use crate::error::{CliError, FAILED};
use crate::options::Options;
use crate::output::Output;
use crate::own::{self, Call, Own, Signals};

/// How long a single call looks for a server unless it is told to wait.
const PATIENCE: Duration = Duration::from_secs(3);

/// The task that prints a session's events, in order.
struct Printer {
    flush: mpsc::Sender<oneshot::Sender<()>>,
}

impl Printer {
    fn start(runtime: &Runtime, client: &Client, enabled: Arc<AtomicBool>, out: Output) -> Self {
        let mut events = client.events();
        let (flush, mut flushes) = mpsc::channel::<oneshot::Sender<()>>(1);
        runtime.spawn(async move {
            loop {
                tokio::select! {
                    // Events first: a flush is answered when there are none left.
                    biased;
                    event = events.recv() => match event {
                        Some(event) if enabled.load(Ordering::Relaxed) => out.event(&event),
                        Some(_) => {}
                        None => return,
                    },
                    flush = flushes.recv() => match flush {
                        Some(done) => { done.send(()).ok(); } // it may have given up
                        None => return,
                    },
                }
            }
        });
        Self { flush }
    }

    /// Waits until the events received so far are printed.
    async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if self.flush.send(done).await.is_ok() {
            flushed.await.ok(); // the task ended: nothing is left to print
        }
    }
}

/// What follows a command.
#[derive(PartialEq, Eq)]
enum Next {
    Continue,
    Quit,
}

struct Shell<'a> {
    options: &'a Options,
    runtime: &'a Runtime,
    host: String,
    context: Context,
    /// The same client as the context's, for completion.
    shared: Arc<Mutex<Client>>,
    printer: Printer,
    print_watches: Arc<AtomicBool>,
    history: BTreeMap<i64, String>,
    count: i64,
    exit: u8,
    /// Taken over from the system when a command first needs them.
    signals: Option<Signals>,
}

pub(crate) fn run(options: &Options) -> ExitCode {
    let out = Output { json: options.json };
    // One thread keeps the session while the other waits for a line.
    let runtime =
        match tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                out.error(&CliError::failed(format!("cannot start: {error}")));
                return ExitCode::from(FAILED);
            }
        };
    let exit = if options.command.is_empty() {
        interactive(options, &runtime, out)
    } else {
        single(options, &runtime, out)
    };
    runtime.shutdown_background();
    ExitCode::from(exit)
}

fn fail(out: Output, error: &CliError) -> u8 {
    out.error(error);
    error.exit
}

/// One command from the command line.
fn single(options: &Options, runtime: &Runtime, out: Output) -> u8 {
    let name = &options.command[0];
    if let Some(own) = own::find(name) {
        return single_own(options, runtime, out, own);
    }
    let Some(spec) = commands::find(name) else { return fail(out, &commands::unknown(name, out)) };
    // A mistake needs no server to be told.
    let arguments = match spec.parse(&options.command, out) {
        Ok(arguments) => arguments,
        Err(error) => return fail(out, &error),
    };
    if spec.action == Action::Version {
        return commands::version(out).map_or_else(|error| fail(out, &error), |()| 0);
    }
    if !options.json {
        out.line(&format!("Connecting to {}", options.server));
    }
    let mut shell = match Shell::new(options, runtime, out) {
        Ok(shell) => shell,
        Err(error) => return fail(out, &CliError::usage(error.to_string())),
    };
    // JSON is for the result; what the session goes through is nobody's question.
    shell.print_watches.store(!options.json, Ordering::Relaxed);
    if (spec.needs_server() || options.wait_for_connection)
        && let Err(error) = shell.connected()
    {
        return fail(out, &error);
    }
    if let Err(error) = shell.run(spec, &arguments) {
        shell.exit = fail(out, &error);
    }
    if !shell.context.ephemerals.load(Ordering::Relaxed) {
        shell.print_watches.store(false, Ordering::Relaxed);
        runtime.block_on(shell.context.client.close());
    }
    shell.exit
}

/// One of Paddock's own commands: what it prints is its result and nothing else.
fn single_own(options: &Options, runtime: &Runtime, out: Output, own: &Own) -> u8 {
    let flags = match own.parse(&options.command) {
        Ok(flags) => flags,
        Err(error) => return fail(out, &error),
    };
    if flags.has("help") {
        out.line(own.help().trim_end());
        return 0;
    }
    let mut shell = match Shell::new(options, runtime, out) {
        Ok(shell) => shell,
        Err(error) => return fail(out, &CliError::usage(error.to_string())),
    };
    shell.print_watches.store(false, Ordering::Relaxed);
    let result = shell.connected().and_then(|()| shell.run_own(own, flags));
    let exit = result.map_or_else(|error| fail(out, &error), |()| 0);
    runtime.block_on(shell.context.client.close());
    exit
}

/// A shell, on a terminal or with commands from a pipe.
fn interactive(options: &Options, runtime: &Runtime, out: Output) -> u8 {
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let editor = if terminal {
        let config = rustyline::Config::builder().completion_type(CompletionType::List).build();
        Editor::<Completion, FileHistory>::with_config(config).ok()
    } else {
        None
    };
    if !options.json {
        out.line(&format!("Connecting to {}", options.server));
    }
    let mut shell = match Shell::new(options, runtime, out) {
        Ok(shell) => shell,
        Err(error) => return fail(out, &CliError::usage(error.to_string())),
    };
    if options.wait_for_connection
        && let Err(error) = shell.connected()
    {
        return fail(out, &error);
    }
    if !options.json {
        out.line("Welcome to ZooKeeper!");
    }
    match editor {
        Some(editor) => shell.edit(editor),
        None => {
            for line in std::io::stdin().lock().lines() {
                let Ok(line) = line else { break };
                if shell.line(&line) == Next::Quit {
                    return shell.exit;
                }
            }
        }
    }
    shell.close();
    shell.exit
}

/// Where lines typed before are kept: beside other programs' state.
fn history_file() -> Option<PathBuf> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state"));
    let dir = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).or_else(home)?.join("paddock");
    std::fs::create_dir_all(&dir).ok()?;
    Some(dir.join("cli_history"))
}

impl<'a> Shell<'a> {
    fn new(
        options: &'a Options,
        runtime: &'a Runtime,
        out: Output,
    ) -> Result<Self, ConnectStringError> {
        let print_watches = Arc::new(AtomicBool::new(true));
        let (client, printer) = open(options, runtime, &options.server, &print_watches, out)?;
        let shared = Arc::new(Mutex::new(client.clone()));
        let single = !options.command.is_empty();
        let context = Context { client, out, single, ephemerals: AtomicBool::new(false) };
        Ok(Self {
            options,
            runtime,
            host: options.server.clone(),
            context,
            shared,
            printer,
            print_watches,
            history: BTreeMap::new(),
            count: 0,
            exit: 0,
            signals: None,
        })
    }

    /// Waits for the session: as long as its timeout if so told, or else not long.
    fn connected(&self) -> Result<(), CliError> {
        let timeout = Duration::from_millis(self.options.timeout_ms);
        let limit = if self.options.wait_for_connection { timeout } else { timeout.min(PATIENCE) };
        if let Err(error) = self.runtime.block_on(self.context.client.wait_connected(limit)) {
            self.print_watches.store(false, Ordering::Relaxed); // the error says it all
            return Err(CliError::not_connected(format!(
                "KeeperErrorCode = ConnectionLoss: {error}"
            )));
        }
        self.runtime.block_on(self.printer.flush());
        Ok(())
    }

    fn edit(&mut self, mut editor: Editor<Completion, FileHistory>) {
        let completion =
            Completion { runtime: self.runtime.handle().clone(), client: Arc::clone(&self.shared) };
        editor.set_helper(Some(completion));
        let file = history_file();
        if let Some(file) = &file {
            editor.load_history(file).ok(); // the first time there is none
        }
        loop {
            let prompt =
                format!("[zk: {}({}) {}] ", self.host, self.context.client.state(), self.count);
            match editor.readline(&prompt) {
                Ok(line) => {
                    editor.add_history_entry(&line).ok(); // comfort only
                    if let Some(file) = &file {
                        editor.append_history(file).ok();
                    }
                    if self.line(&line) == Next::Quit {
                        return;
                    }
                }
                Err(ReadlineError::Interrupted) => {}
                Err(_) => return,
            }
        }
    }

    /// A line of the shell.
    fn line(&mut self, line: &str) -> Next {
        let words = words(line);
        if words.is_empty() {
            return Next::Continue;
        }
        self.history.insert(self.count, line.to_owned());
        let next = match self.execute(&words) {
            Ok(next) => {
                self.exit = 0;
                next
            }
            Err(error) => {
                self.exit = fail(self.context.out, &error);
                Next::Continue
            }
        };
        self.count += 1;
        next
    }

    fn close(&self) {
        self.runtime.block_on(async {
            self.context.client.close().await;
            self.printer.flush().await;
        });
    }

    fn execute(&mut self, line: &[String]) -> Result<Next, CliError> {
        let out = self.context.out;
        if let Some(own) = own::find(&line[0]) {
            let flags = own.parse(line)?;
            if flags.has("help") {
                out.line(own.help().trim_end());
                return Ok(Next::Continue);
            }
            return self.run_own(own, flags).map(|()| Next::Continue);
        }
        let Some(spec) = commands::find(&line[0]) else {
            return Err(commands::unknown(&line[0], out));
        };
        let arguments = spec.parse(line, out)?;
        self.run(spec, &arguments)
    }

    fn run(&mut self, spec: &Spec, arguments: &Arguments) -> Result<Next, CliError> {
        let out = self.context.out;
        match spec.action {
            Action::Quit => {
                self.close();
                return Ok(Next::Quit);
            }
            Action::Connect => {
                let host = arguments.word(0).unwrap_or(&self.host).to_owned();
                if self.context.client.state().is_alive() {
                    self.close();
                }
                let (client, printer) =
                    open(self.options, self.runtime, &host, &self.print_watches, out)
                        .map_err(|error| CliError::usage(error.to_string()))?;
                (self.host, self.printer) = (host, printer);
                self.shared.lock().expect("nobody panics with it").clone_from(&client);
                self.context.client = client;
                if self.context.single || self.options.wait_for_connection {
                    self.connected()?;
                }
            }
            Action::History => {
                for at in (self.count - 10).max(0)..=self.count {
                    if let Some(line) = self.history.get(&at) {
                        out.result(
                            || serde_json::json!({"number": at, "command": line}),
                            |out| out.line(&format!("{at} - {line}")),
                        );
                    }
                }
            }
            Action::PrintWatches => match arguments.word(0) {
                Some(word) => self.print_watches.store(word == "on", Ordering::Relaxed),
                None => {
                    let on = self.print_watches.load(Ordering::Relaxed);
                    let text = if on { "on" } else { "off" };
                    out.result(
                        || serde_json::json!({"printwatches": on}),
                        |out| out.line(&format!("printwatches is {text}")),
                    );
                }
            },
            Action::Redo => return self.redo(arguments.word(0)),
            Action::Version => commands::version(out)?,
            Action::Close if self.context.client.state().is_alive() => self.close(),
            action => {
                if !self.context.client.state().is_alive() {
                    if out.json {
                        return Err(CliError::not_connected("Not connected"));
                    }
                    out.line("Not connected");
                    return Err(CliError::not_connected(""));
                }
                let result = self.runtime.block_on(async {
                    let result = commands::run(&self.context, action, arguments).await;
                    self.printer.flush().await;
                    result
                });
                result?;
            }
        }
        Ok(Next::Continue)
    }

    fn run_own(&mut self, own: &Own, flags: own::Flags) -> Result<(), CliError> {
        if !self.context.client.state().is_alive() {
            return Err(CliError::not_connected("Not connected"));
        }
        if self.signals.is_none() {
            let signals = Signals::install(self.runtime)
                .map_err(|error| CliError::failed(format!("cannot take signals: {error}")))?;
            self.signals = Some(signals);
        }
        let call = Call {
            client: self.context.client.clone(),
            out: Output { json: self.context.out.json || flags.has("json") },
            server: self.host.clone(),
            options: client_options(self.options),
            signals: self.signals.clone().expect("just installed"),
            flags,
        };
        // It says itself what its watches and its session go through.
        let printed = self.print_watches.swap(false, Ordering::Relaxed);
        let result = self.runtime.block_on(async {
            let result = own::run(own, &call).await;
            self.printer.flush().await;
            result
        });
        self.print_watches.store(printed, Ordering::Relaxed);
        result
    }

    fn redo(&mut self, number: Option<&str>) -> Result<Next, CliError> {
        let Some(number) = number else { return Ok(Next::Continue) };
        let at: i64 = number
            .parse()
            .map_err(|_| CliError::usage(format!("{number} is not a command's number")))?;
        let line = self.history.get(&at).filter(|_| (0..self.count).contains(&at)).cloned();
        let line = line.ok_or_else(|| CliError::usage("Command index out of range"))?;
        let words = words(&line);
        if words.first().is_some_and(|word| word == "redo") {
            return Err(CliError::usage("No redoing redos"));
        }
        self.history.insert(self.count, line);
        self.execute(&words)
    }
}

fn client_options(options: &Options) -> zk_client::Options {
    zk_client::Options {
        timeout: Duration::from_millis(options.timeout_ms),
        can_be_read_only: options.read_only,
        session: None,
    }
}

fn open(
    options: &Options,
    runtime: &Runtime,
    host: &str,
    print_watches: &Arc<AtomicBool>,
    out: Output,
) -> Result<(Client, Printer), ConnectStringError> {
    let _inside = runtime.enter();
    let client = Client::open(host, client_options(options))?;
    let printer = Printer::start(runtime, &client, Arc::clone(print_watches), out);
    Ok((client, printer))
}
