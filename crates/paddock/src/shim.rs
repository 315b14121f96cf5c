//! Other names of the binary: the command lines of `java` with ZooKeeper's main classes, of
//! `zkServer.sh` and of `zkCli.sh`.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use zk_server::{Exit, version};

use crate::server::{self, Start};

/// How long a four-letter word may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Serves a command line under another name; `None` if the binary goes by its own.
pub(crate) fn dispatch(own_name: &OsString, arguments: &[OsString]) -> Option<ExitCode> {
    let name = Path::new(own_name).file_name()?.to_str()?;
    let arguments: Vec<String> =
        arguments.iter().map(|argument| argument.to_string_lossy().into_owned()).collect();
    match name {
        "java" => Some(java(&arguments)),
        "zkServer.sh" | "zkServer" => Some(zk_server_sh(&arguments)),
        "zkCli.sh" | "zkCli" => Some(zk_cli::run(arguments.into_iter().map(OsString::from))),
        _ => None,
    }
}

/// What a `java` command line asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct JavaCommand {
    properties: Vec<String>,
    main: Option<String>,
    arguments: Vec<String>,
    version: bool,
}

impl JavaCommand {
    fn parse(arguments: &[String]) -> Self {
        let mut command = Self::default();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            if let Some(property) = argument.strip_prefix("-D") {
                command.properties.push(property.to_owned());
            } else if matches!(
                argument.as_str(),
                "-cp" | "-classpath" | "--class-path" | "-p" | "--module-path"
            ) {
                rest.next();
            } else if matches!(argument.as_str(), "-version" | "--version" | "-fullversion") {
                command.version = true;
            } else if matches!(argument.as_str(), "--add-opens" | "--add-exports" | "--add-modules")
            {
                rest.next();
            } else if !argument.starts_with('-') {
                command.main = Some(argument.clone());
                command.arguments = rest.cloned().collect();
                break;
            }
        }
        command
    }
}

#[allow(clippy::print_stdout, clippy::print_stderr, reason = "the answer of a command")]
fn java(arguments: &[String]) -> ExitCode {
    let command = JavaCommand::parse(arguments);
    if command.version {
        eprintln!("openjdk version \"17.0.0\" (paddock {})", version::BANNER);
        return Exit::Normal.into();
    }
    let class = command.main.as_deref().unwrap_or_default();
    match class.rsplit('.').next().unwrap_or_default() {
        "QuorumPeerMain" | "ZooKeeperServerMain" => server::run(&Start {
            arguments: command.arguments,
            properties: command.properties,
            strict: false,
        }),
        "ZooKeeperMain" => zk_cli::run(command.arguments.into_iter().map(OsString::from)),
        "FourLetterWordMain" => four_letter_word(&command.arguments),
        "VersionInfoMain" => {
            println!("Apache ZooKeeper, version {}", version::BANNER);
            Exit::Normal.into()
        }
        _ => {
            eprintln!(
                "paddock: this is not a Java runtime, and {class:?} is no main class that Paddock stands in for"
            );
            Exit::Invocation.into()
        }
    }
}

#[allow(clippy::print_stdout, clippy::print_stderr, reason = "the answer of a command")]
fn four_letter_word(arguments: &[String]) -> ExitCode {
    let [host, port, word, ..] = arguments else {
        eprintln!("usage: FourLetterWordMain HOST PORT COMMAND");
        return Exit::Invocation.into();
    };
    match port
        .parse()
        .map_err(|_| "the port is no number".to_owned())
        .and_then(|port| ask(host, port, word))
    {
        Ok(answer) => {
            println!("{answer}");
            Exit::Normal.into()
        }
        Err(error) => {
            eprintln!("{host}:{port}: {error}");
            Exit::Unexpected.into()
        }
    }
}

fn ask(host: &str, port: u16, word: &str) -> Result<String, String> {
    let address = (host, port)
        .to_socket_addrs()
        .ok()
        .and_then(|mut addresses| addresses.next())
        .ok_or("no such host")?;
    let exchange = || {
        let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.write_all(word.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    };
    exchange().map_err(|error| error.to_string())
}

/// `zkServer.sh [--config DIR] {start-foreground|status|version|print-cmd} [CFG]`. Starting in the
/// background is a service manager's business; the script of the same name in `docker` and packages
/// does that.
#[allow(clippy::print_stdout, clippy::print_stderr, reason = "the answer of a command")]
fn zk_server_sh(arguments: &[String]) -> ExitCode {
    let mut arguments = arguments.to_vec();
    let mut folder = std::env::var("ZOOCFGDIR").unwrap_or_else(|_| "conf".to_owned());
    if arguments.first().is_some_and(|first| first == "--config") && arguments.len() > 1 {
        folder = arguments.remove(1);
        arguments.remove(0);
    }
    let command = arguments.first().cloned().unwrap_or_default();
    let file = arguments.get(1).cloned().unwrap_or_else(|| {
        let name = std::env::var("ZOOCFG").unwrap_or_else(|_| "zoo.cfg".to_owned());
        format!("{folder}/{name}")
    });
    match command.as_str() {
        "start-foreground" => {
            server::run(&Start { arguments: vec![file], properties: Vec::new(), strict: false })
        }
        "version" => {
            println!("Apache ZooKeeper, version {}", version::BANNER);
            Exit::Normal.into()
        }
        "print-cmd" => {
            println!("\"paddock\" server \"{file}\"");
            Exit::Normal.into()
        }
        "status" => status(&file),
        _ => {
            eprintln!(
                "usage: zkServer.sh [--config DIR] {{start-foreground|status|version|print-cmd}} [CFG]"
            );
            Exit::Unexpected.into()
        }
    }
}

#[allow(clippy::print_stdout, clippy::print_stderr, reason = "the answer of a command")]
fn status(file: &str) -> ExitCode {
    eprintln!("Using config: {file}");
    let loaded = zk_config::Sources::new().load_file(Path::new(file));
    let Some(listener) = loaded.config.and_then(|config| config.client_listener) else {
        eprintln!("Unable to find client port in {file}");
        return Exit::Unexpected.into();
    };
    let host = match &listener.host {
        Some(host) if !listener.is_any_address() => host.as_str(),
        Some(_) | None => "localhost",
    };
    println!("Client port found: {}. Client address: {host}. Client SSL: false.", listener.port);
    let mode = ask(host, listener.port, "srvr").ok().and_then(|answer| {
        answer.lines().find(|line| line.starts_with("Mode: ")).map(str::to_owned)
    });
    match mode {
        Some(mode) => {
            println!("{mode}");
            Exit::Normal.into()
        }
        None => {
            println!("Error contacting service. It is probably not running.");
            Exit::Unexpected.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> JavaCommand {
        JavaCommand::parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn a_java_command_line_is_taken_apart() {
        let command = parse(
            "-Xmx512m -cp a:b -Dzookeeper.x=y -ea --add-opens a/b=c org.apache.zookeeper.server.quorum.QuorumPeerMain zoo.cfg",
        );
        assert_eq!(command.properties, ["zookeeper.x=y"]);
        assert_eq!(
            command.main.as_deref(),
            Some("org.apache.zookeeper.server.quorum.QuorumPeerMain")
        );
        assert_eq!(command.arguments, ["zoo.cfg"]);
        assert!(parse("-version").version);
    }
}
