//! How a server is configured and started, and what its exit code says: scripts and service managers
//! depend on both.

mod common;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{PADDOCK, Server, create, get_data, ok};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use zk_proto::OpCode;
use zk_testkit::free_port;

/// A folder with a `zoo.cfg` in it.
struct Place {
    folder: TempDir,
    port: u16,
}

impl Place {
    /// With these lines besides those that every server needs.
    fn new(lines: &str) -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap(), port: free_port() };
        let data = place.path("data");
        place.write(&format!(
            "tickTime=2000\ndataDir={}\nclientPort={}\n{lines}",
            data.display(),
            place.port
        ));
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(&self) -> PathBuf {
        self.path("zoo.cfg")
    }

    fn write(&self, text: &str) {
        std::fs::write(self.file(), text).unwrap();
    }

    /// A command under another name.
    fn alias(&self, name: &str) -> Command {
        let link = self.path(name);
        if !link.exists() {
            symlink(PADDOCK, &link).unwrap();
        }
        Command::new(link)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(PADDOCK);
        command.arg("server").arg(self.file());
        command
    }

    /// A server that must not start: its exit code and log.
    fn failure(&self, command: &mut Command) -> (Option<i32>, String) {
        let mut server = Server::spawn(command, self.port);
        let code = server.wait().code();
        (code, server.errors())
    }
}

fn check_config(file: &Path, options: &[&str]) -> (i32, String) {
    let output =
        Command::new(PADDOCK).arg("check-config").args(options).arg(file).output().unwrap();
    (output.status.code().unwrap(), text(&output))
}

fn text(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat()
}

#[test]
fn check_config_tells_what_is_wrong_and_exits_so() {
    let place = Place::new("");
    let (code, said) = check_config(&place.file(), &[]);
    assert_eq!((code, said.trim_end().ends_with("no problems")), (0, true), "{said}");

    // Misspelt: a warning with its line, and what was meant.
    let place = Place::new("maxClientCnxn=5\n");
    let (code, said) = check_config(&place.file(), &[]);
    assert_eq!(code, 0, "{said}");
    let line = format!("{}:4: warning: maxClientCnxn: ", place.file().display());
    assert!(said.starts_with(&line), "{said}");
    assert!(said.contains("did you mean `maxClientCnxns`?"), "{said}");
    assert!(said.ends_with("1 warning\n"), "{said}");
    assert_eq!(check_config(&place.file(), &["--strict"]).0, 2);
    let (code, said) = check_config(&place.file(), &["--json"]);
    assert_eq!(code, 0);
    assert!(
        said.starts_with('{') && said.contains("\"maxClientCnxns\"") && said.contains("4"),
        "{said}"
    );

    // Wrong: an error.
    let place = Place::new("snapCount=many\n");
    let (code, said) = check_config(&place.file(), &[]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains(":4: error: snapCount: "), "{said}");
    assert_eq!(check_config(&place.path("absent.cfg"), &[]).0, 2);

    // What Paddock does not act on says why.
    let place = Place::new("nio.numWorkerThreads=4\n");
    let (code, said) = check_config(&place.file(), &[]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains(":4: warning: nio.numWorkerThreads: "), "{said}");
}

/// A file of member `id` of three.
fn member(id: &str) -> Place {
    let place = Place::new(
        "initLimit=10\nsyncLimit=5\nserver.1=127.0.0.1:2888:3888\n\
         server.2=127.0.0.2:2888:3888\nserver.3=127.0.0.3:2888:3888\n",
    );
    let data = place.path("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("myid"), id).unwrap();
    place
}

#[test]
fn check_config_knows_ensembles() {
    let place = member("2\n");
    let (code, said) = check_config(&place.file(), &["--strict"]);
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains(
            "an ensemble of 3 participants, of which 1 participant may fail; this is server.2"
        ) && said.ends_with("1 note\n"),
        "{said}"
    );
    for (my_id, problem) in [
        ("4\n", "it says 4, but there is no line server.4; there are server.1, server.2, server.3"),
        ("two\n", "the myid file says `two`; it must be one whole number"),
        ("", "the myid file is empty"),
    ] {
        let (code, said) = check_config(&member(my_id).file(), &[]);
        assert_eq!(code, 2, "{said}");
        assert!(said.contains("data/myid:1: error: ") && said.contains(problem), "{said}");
    }
    let place = member("1\n");
    std::fs::remove_file(place.path("data/myid")).unwrap();
    let (code, said) = check_config(&place.file(), &[]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("data/myid: error: the file is missing"), "{said}");
    // What a server makes of it is the same.
    let (code, log) = place.failure(&mut place.command());
    assert_eq!(code, Some(2), "{log}");
    assert!(log.contains("data/myid: error: the file is missing"), "{log}");
}

#[test]
fn a_misspelt_key_is_in_the_log_of_a_server_that_starts() {
    let place = Place::new("maxClientCnxn=5\n");
    let server = Server::launch(&mut place.command(), place.port);
    server.await_log("did you mean `maxClientCnxns`?");
    drop(server);
    let (code, log) = place.failure(place.command().arg("--strict"));
    assert_eq!(code, Some(2), "{log}");
}

#[test]
fn a_bad_configuration_exits_with_2() {
    for (lines, word) in [
        ("snapCount=many\n", "snapCount"),
        ("tickTime=-5\n", "tickTime"),
        ("clientPort=99999\n", "clientPort"),
        ("server.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2\n", "initLimit"),
        ("initLimit=5\nsyncLimit=2\nserver.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2\n", "myid"),
        ("initLimit=5\nsyncLimit=2\nsslQuorum=true\nserver.1=a:1:2\nserver.2=b:1:2\n", "sslQuorum"),
    ] {
        let place = Place::new(lines);
        let (code, log) = place.failure(&mut place.command());
        assert_eq!(code, Some(2), "{lines}: {log}");
        assert!(log.contains("ERROR") && log.contains(word), "{lines}: {log}");
    }
    let place = Place::new("");
    place.write("clientPort=2181\n");
    let (code, log) = place.failure(&mut place.command());
    assert_eq!(code, Some(2), "{log}");
    assert!(log.contains("dataDir"), "{log}");
    std::fs::remove_file(place.file()).unwrap();
    let (code, log) = place.failure(&mut place.command());
    assert_eq!(code, Some(2), "no file: {log}");
    assert!(log.contains("zoo.cfg"), "{log}");
    let (code, _) = place.failure(Command::new(PADDOCK).args(["server", "--nonsense"]));
    assert_eq!(code, Some(2));
}

#[test]
fn a_folder_that_cannot_be_used_exits_with_3() {
    // A file where the folder should be; and one that must not be made.
    let place = Place::new("");
    std::fs::write(place.path("data"), b"").unwrap();
    let (code, log) = place.failure(&mut place.command());
    assert_eq!(code, Some(3), "{log}");
    assert!(log.contains("data"), "{log}");
    let place = Place::new("datadir.autocreate=false\n");
    let (code, log) = place.failure(&mut place.command());
    assert_eq!(code, Some(3), "{log}");
    assert!(log.contains("datadir.autocreate"), "{log}");
    assert!(!place.path("data").exists());
    // Another server's.
    let place = Place::new("");
    let mut first = Server::launch(&mut place.command(), place.port);
    place.write(&format!("dataDir={}\nclientPort={}\n", place.path("data").display(), free_port()));
    let (code, log) = place.failure(&mut place.command());
    assert_eq!(code, Some(3), "{log}");
    assert!(first.word("srvr").contains("standalone"));
    assert_eq!(first.terminate(), Some(0));
}

/// Apache ZooKeeper's data is somebody's data: no server begins anew where they cannot be read.
#[test]
fn data_of_apaches_that_cannot_be_imported_are_left_alone() {
    let place = Place::new("");
    let version_2 = place.path("data").join("version-2");
    std::fs::create_dir_all(&version_2).unwrap();
    let snapshot = version_2.join("snapshot.0");
    std::fs::write(&snapshot, b"ZKSN").unwrap();
    for _ in 0..2 {
        let (code, log) = place.failure(&mut place.command());
        assert_eq!(code, Some(1), "{log}");
        assert!(log.contains("cannot be imported") && log.contains("snapshot.0"), "{log}");
        assert_eq!(std::fs::read(&snapshot).unwrap(), b"ZKSN", "it was touched");
    }
}

#[test]
fn a_port_that_is_taken_exits_with_1_and_of_metrics_with_4() {
    let place = Place::new("");
    let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, place.port)).unwrap();
    let (code, log) = place.failure(&mut place.command());
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains(&place.port.to_string()) && log.contains("cannot listen"), "{log}");
    drop(taken);
    let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let place = Place::new(&format!(
        "metricsProvider.className=org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider\n\
         metricsProvider.httpPort={port}\n"
    ));
    let (code, log) = place.failure(&mut place.command());
    assert_eq!(code, Some(4), "{log}");
    assert!(log.contains("metrics"), "{log}");
}

#[test]
fn both_signals_end_a_server_with_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let place = Place::new("");
        let mut server = Server::launch(&mut place.command(), place.port);
        let mut client = server.client();
        ok(client.request(OpCode::CREATE, &create("/kept", b"", 0)));
        kill_process(Pid::from_raw(server.pid()).unwrap(), signal).unwrap();
        assert_eq!(server.wait().code(), Some(0), "{signal:?}");
        assert!(client.is_closed().unwrap());
        let log = server.errors();
        assert!(log.contains("stopping") && log.contains("stopped"), "{log}");
        let server = Server::launch(&mut place.command(), place.port);
        ok(server.client().request(OpCode::GET_DATA, &get_data("/kept")));
    }
}

#[test]
fn without_any_file_a_server_starts_in_an_empty_folder() {
    const PORT: u16 = 2181;
    // A probe in the way a server binds: what still lingers of a closed one is no obstacle.
    if TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).is_err() {
        eprintln!("skipped: port {PORT} is taken on this machine");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(PADDOCK);
    let mut server = Server::launch(command.arg("server").current_dir(folder.path()), PORT);
    assert!(server.word("srvr").contains("\nMode: standalone\n"));
    ok(server.client().request(OpCode::CREATE, &create("/first", b"", 0)));
    let names: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["paddock-data"]);
    assert_eq!(server.terminate(), Some(0));
}

#[test]
fn flags_in_the_environment_count() {
    let place = Place::new("");
    let mut command = place.command();
    command.env(
        "SERVER_JVMFLAGS",
        "-Xmx1g -Dzookeeper.4lw.commands.whitelist=ruok -Djute.maxbuffer=2000",
    );
    let server = Server::launch(&mut command, place.port);
    assert_eq!(server.word("ruok"), "imok");
    let mut client = server.client();
    drop(client.request(OpCode::CREATE, &create("/long", &[0; 3000], 0)));
    assert!(client.is_closed().unwrap());
}

#[test]
fn zk_server_sh_tells_the_role_of_a_member() {
    for (answer, code, said) in [
        ("Mode: leader", 0, "\nMode: leader\n"),
        ("Mode: follower", 0, "\nMode: follower\n"),
        ("Mode: observer", 0, "\nMode: observer\n"),
        (
            "This ZooKeeper instance is not currently serving requests",
            1,
            "\nError contacting service. It is probably not running.\n",
        ),
    ] {
        let place = member("3\n");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, place.port)).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut word = [0; 4];
            stream.read_exact(&mut word).unwrap();
            assert_eq!(&word, b"srvr");
            stream.write_all(format!("Zookeeper version: x\n{answer}\n").as_bytes()).unwrap();
        });
        let output = place.alias("zkServer.sh").arg("status").arg(place.file()).output().unwrap();
        server.join().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", text(&output));
        assert!(text(&output).contains(said), "{}", text(&output));
    }
}

#[test]
fn the_names_of_zookeepers_programs_work() {
    let place = Place::new("");
    let mut java = place.alias("java");
    java.args(["-Xmx64m", "-cp", "a.jar:b.jar", "-Dzookeeper.4lw.commands.whitelist=*"]);
    java.arg("org.apache.zookeeper.server.quorum.QuorumPeerMain").arg(place.file());
    let mut server = Server::launch(&mut java, place.port);
    assert_eq!(server.word("ruok"), "imok");

    let status = || place.alias("zkServer.sh").arg("status").arg(place.file()).output().unwrap();
    let output = status();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("\nMode: standalone\n"), "{}", text(&output));
    let port = place.port.to_string();
    let output = place
        .alias("java")
        .args([
            "-cp",
            "x",
            "org.apache.zookeeper.client.FourLetterWordMain",
            "127.0.0.1",
            &port,
            "ruok",
        ])
        .output()
        .unwrap();
    assert_eq!(text(&output), "imok\n");
    let output = place
        .alias("zkCli.sh")
        .args(["-server", &format!("127.0.0.1:{port}"), "ls", "/"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("[zookeeper]"), "{}", text(&output));
    assert_eq!(server.terminate(), Some(0));

    let output = status();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("It is probably not running"), "{}", text(&output));
    let output = place.alias("zkServer.sh").arg("version").output().unwrap();
    assert!(text(&output).starts_with("Apache ZooKeeper, version 3.9."), "{}", text(&output));
    let output = place.alias("java").arg("-version").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let output = place.alias("java").args(["-cp", "x", "com.example.Main"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));

    // In the folder that --config names, with its usual name.
    let mut script = place.alias("zkServer.sh");
    script.arg("--config").arg(place.folder.path()).arg("start-foreground");
    let mut server = Server::launch(&mut script, place.port);
    assert_eq!(server.terminate(), Some(0));
}
