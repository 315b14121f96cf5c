//! Four-letter words and metrics as monitors ask for them: over real sockets, however they end them.

mod common;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;

use common::{Options, PADDOCK, PATIENCE, Scene, Server, ask, create, ok};
use zk_proto::OpCode;
use zk_testkit::free_port;

/// What each word's answer has to begin with.
const WORDS: [(&str, &str); 17] = [
    ("conf", "clientPort="),
    ("cons", " /127.0.0.1:"),
    ("crst", "Connection stats reset.\n"),
    ("dirs", "datadir_size: "),
    ("dump", "SessionTracker dump:\n"),
    ("envi", "Environment:\nzookeeper.version="),
    ("gtmk", "306"),
    ("hash", ""),
    ("isro", "rw"),
    ("mntr", "zk_version\t"),
    ("ruok", "imok"),
    ("srst", "Server stats reset.\n"),
    ("srvr", "Zookeeper version: "),
    ("stat", "Zookeeper version: "),
    ("wchc", ""),
    ("wchp", ""),
    ("wchs", "0 connections watching 0 paths\n"),
];

/// Connects, sends `pieces` one by one, keeps its own end open, and reads to the end.
fn patient(address: SocketAddr, pieces: &[&[u8]]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    for piece in pieces {
        stream.write_all(piece).unwrap();
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn every_word_is_answered() {
    let mut scene = Scene::new(&[]);
    for (word, begin) in WORDS {
        let answer = scene.server.word(word);
        assert!(answer.starts_with(begin), "{word}: {answer}");
        let with_line_ends = ["\n", "\r\n", "\r\n\r\n"].map(|end| format!("{word}{end}"));
        for asked in with_line_ends {
            let answer = patient(scene.server.address, &[asked.as_bytes()]);
            assert!(answer.starts_with(begin), "{asked:?}: {answer}");
        }
        scene.check();
    }
    // The mask comes with the word.
    let set = [&b"stmk"[..], &77i64.to_be_bytes()].concat();
    assert_eq!(ask(scene.server.address, &set).unwrap(), b"77");
    assert_eq!(scene.server.word("gtmk"), "77");
    // Telnet says good-bye, and is let go.
    ask(scene.server.address, &[0xff, 0xf4, 0xff, 0xfd]).unwrap();
    scene.check();
}

#[test]
fn a_word_may_come_in_pieces_and_with_more_behind_it() {
    let mut scene = Scene::new(&[]);
    let address = scene.server.address;
    for pieces in
        [&[&b"r"[..], b"u", b"o", b"k"][..], &[b"ru", b"ok\r", b"\n"], &[b"ruok and so on"]]
    {
        assert_eq!(patient(address, pieces), "imok", "{pieces:?}");
    }
    // What a person types behind the answer is not answered with a reset.
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"ruok").unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).unwrap();
    stream.write_all(b"\r\nquit\r\n").unwrap();
    assert_eq!(stream.read(&mut answer).unwrap(), 0);
    // Behind a session's first frame, or in capitals, it is no word.
    let mut client = scene.client();
    client.send_bytes(b"ruok").unwrap();
    assert!(client.is_closed().unwrap());
    for no_word in ["RUOK", "lead", "four", "kill"] {
        assert_eq!(patient(address, &[no_word.as_bytes()]), "", "{no_word}");
    }
    scene.check();
}

/// `echo ruok | nc` ends its own side at once, and monitors do that all day.
#[test]
fn two_thousand_half_closed_askers_are_answered() {
    let mut scene = Scene::new(&[]);
    let address = scene.server.address;
    let askers: Vec<_> = [&b"ruok"[..], b"ruok\n", b"ruok\r\n", b"isro\n"]
        .into_iter()
        .map(|asked| {
            std::thread::spawn(move || {
                for n in 0..500 {
                    let answer = ask(address, asked).unwrap_or_else(|error| panic!("{n}: {error}"));
                    let expected = if asked.starts_with(b"ruok") { &b"imok"[..] } else { b"rw" };
                    assert_eq!(answer, expected, "{n}");
                }
            })
        })
        .collect();
    for asker in askers {
        asker.join().unwrap();
    }
    // A long answer is not cut off either.
    for n in 0..200 {
        let answer = scene.server.word("mntr");
        assert!(answer.ends_with('\n') && answer.lines().count() > 100, "{n}: {answer}");
    }
    scene.check();
}

#[test]
fn only_words_of_the_whitelist_are_answered() {
    let refused =
        |word: &str| format!("{word} is not executed because it is not in the whitelist.\n");
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]);
    for (word, begin) in WORDS {
        let answer = server.word(word);
        if word == "srvr" {
            assert!(answer.starts_with(begin), "{answer}");
        } else {
            assert_eq!(answer, refused(word));
        }
    }
    // A word of our own, and so on no list.
    assert!(server.word("quor").starts_with("{\"mode\":\"standalone\","));
    drop(server);
    let listed = ["zookeeper.4lw.commands.whitelist= ruok, stat ,isro"];
    let server = Server::start(data.path(), &listed);
    assert_eq!(server.word("ruok"), "imok");
    assert_eq!(server.word("isro"), "rw");
    assert!(server.word("stat").contains("\nClients:\n"));
    assert!(server.word("srvr").contains("\nMode: standalone\n"));
    assert_eq!(server.word("mntr"), refused("mntr"));
    assert_eq!(server.word("quor"), refused("quor"));
}

#[test]
fn what_monitors_parse_has_its_form() {
    let mut scene = Scene::with(&Options { tick_ms: 3000, ..Options::default() });
    ok(scene.witness.request(OpCode::CREATE, &create("/watched", b"data", 1)));
    let srvr = scene.server.word("srvr");
    let keys: Vec<_> = srvr.lines().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(
        keys,
        [
            "Zookeeper version",
            "Latency min/avg/max",
            "Received",
            "Sent",
            "Connections",
            "Outstanding",
            "Zxid",
            "Mode",
            "Node count",
        ]
    );
    // What go-zk demands of the version.
    let version = srvr.lines().next().unwrap();
    let shape: String = version
        .split_once(", built on ")
        .unwrap()
        .1
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    assert_eq!(shape, "00/00/0000 00:00 UTC");
    let mntr = scene.server.word("mntr");
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    for line in mntr.lines() {
        // Telegraf: ^zk_(\w+)\s+([\w\.\-]+)
        let (key, value) = line.split_once('\t').unwrap();
        assert!(key.starts_with("zk_") && key.chars().all(word), "{line}");
        assert!(value.starts_with(|c| word(c) || c == '.' || c == '-') && value != "NaN", "{line}");
    }
    // collectd reads no further than this.
    let first = &mntr[..mntr.len().min(4096)];
    for key in [
        "zk_version",
        "zk_server_state",
        "zk_avg_latency",
        "zk_max_latency",
        "zk_min_latency",
        "zk_packets_received",
        "zk_packets_sent",
        "zk_num_alive_connections",
        "zk_outstanding_requests",
        "zk_znode_count",
        "zk_watch_count",
        "zk_ephemerals_count",
        "zk_approximate_data_size",
        "zk_open_file_descriptor_count",
        "zk_max_file_descriptor_count",
    ] {
        assert!(first.contains(&format!("\n{key}\t")) || first.starts_with(key), "{key}: {first}");
    }
    assert!(scene.server.metric("zk_ephemerals_count") == 1.0);
    let dump = scene.server.word("dump");
    assert!(dump.contains("\t/watched\n"), "{dump}");
    scene.check();
}

#[test]
fn metrics_are_served_over_http() {
    let data = tempfile::tempdir().unwrap();
    let [client_port, http_port] = [free_port(), free_port()];
    let file = data.path().join("zoo.cfg");
    let text = format!(
        "dataDir={}\nclientPort={client_port}\nclientPortAddress=127.0.0.1\n\
         metricsProvider.className=org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider\n\
         metricsProvider.httpHost=127.0.0.1\nmetricsProvider.httpPort={http_port}\n",
        data.path().join("data").display()
    );
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new(PADDOCK);
    let server = Server::launch(command.arg("server").arg(&file), client_port);
    let mut client = server.client();
    ok(client.request(OpCode::CREATE, &create("/counted", b"", 0)));
    let address = (Ipv4Addr::LOCALHOST, http_port).into();
    let answer =
        patient(address, &[b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"]);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    assert!(head.to_lowercase().contains("content-type: text/plain; version=0.0.4"), "{head}");
    let value = |name: &str| {
        body.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse::<f64>().ok())
            .unwrap_or_else(|| panic!("{name} is not in {body}"))
    };
    assert_eq!(value("znode_count"), 6.0);
    assert!(value("num_alive_connections") >= 1.0);
    assert!(value("packets_received") >= 2.0);
    for line in body.lines() {
        assert!(line.is_empty() || line.starts_with('#') || line.split(' ').count() == 2, "{line}");
    }
    let answer =
        patient(address, &[b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"]);
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    // Bytes that are no HTTP hurt nobody.
    drop(ask(address, b"ruok\n\xff\0\0\0"));
    assert!(server.word("srvr").contains("\nMode: standalone\n"));
    assert!(server.log().contains("serving metrics"), "{}", server.log());
}
