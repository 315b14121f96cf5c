//! `paddock quorum verify` against real ensembles: it finds equal members equal, also under load, and a
//! member that differs different.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value as Json;
use zk_testkit::free_port;

use crate::cluster::{Cluster, Plan, System, word};
use crate::load::{Field, Load};
use crate::{addresses, alone, assert_sound, say, seed};

/// Runs the command; its exit code and its JSON.
fn verify(arguments: &[&str]) -> (i32, Json) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_paddock"));
    command.args(["quorum", "verify", "--json", "--timeout", "3000"]).args(arguments);
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let json: Json = serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr));
    });
    let code = output.status.code().unwrap();
    assert_eq!(json["exit_code"], code, "{json}");
    (code, json)
}

fn hex(json: &Json) -> u64 {
    let digits = json.as_str().and_then(|text| text.strip_prefix("0x"));
    u64::from_str_radix(digits.unwrap_or_else(|| panic!("{json}")), 16).unwrap()
}

/// All client addresses, as `--server` takes them.
fn servers(cluster: &Cluster) -> String {
    let all: Vec<String> = addresses(cluster).iter().map(|(_, at)| at.to_string()).collect();
    all.join(",")
}

fn assert_equal(cluster: &Cluster, more: &[&str]) -> u64 {
    let servers = servers(cluster);
    let (code, json) = verify(&[&["--server", servers.as_str()], more].concat());
    assert_eq!((code, &json["verdict"]), (0, &Json::from("equal")), "{more:?}: {json:#}");
    let members = json["members"].as_array().unwrap();
    assert_eq!(members.len(), cluster.count());
    assert!(members.iter().all(|member| member["result"] == "same"), "{json:#}");
    hex(&json["zxid"])
}

#[test]
fn members_that_work_are_compared() {
    let _alone = alone();
    if System::chosen() != System::Paddock {
        return;
    }
    let plan = Plan { observers: 1, proxied: false, ..Plan::default() };
    let mut cluster = Cluster::start(plan);
    // At rest the present trees are compared.
    cluster.await_agreement();
    let zxid = assert_equal(&cluster, &["--wait", "10"]);
    assert_ne!(zxid % 128, 0, "{zxid:#x}");
    let field = Field::new(addresses(&cluster), 3000);
    let load = Load::start(field, 8, Duration::from_millis(2), seed());
    load.await_replies(500);
    let under_load = assert_equal(&cluster, &["--wait", "30"]);
    let advanced = assert_equal(&cluster, &["--advance"]);
    assert!(zxid < under_load && under_load < advanced, "{zxid} {under_load} {advanced}");
    // One that replayed its log, and one that got a snapshot.
    let leader = cluster.await_leader();
    let (restarted, emptied) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.kill(restarted);
    cluster.start_member(restarted);
    cluster.await_serving("the first is back", Duration::from_secs(25));
    cluster.kill(emptied);
    cluster.members[emptied].wipe();
    cluster.start_member(emptied);
    cluster.await_serving("the second is back", Duration::from_secs(25));
    let back = assert_equal(&cluster, &["--advance"]);
    assert!(advanced < back);
    let history = load.finish(&addresses(&cluster));
    assert_sound(&history, &cluster, 100);
    let now = assert_equal(&cluster, &["--advance"]);
    say(&format!("equal at {zxid:#x}, {under_load:#x}, {advanced:#x}, {back:#x} and {now:#x}"));
    // Advancing leaves nothing behind: the digest of the tree is what it was.
    cluster.await_agreement();
    let digest = |cluster: &Cluster| {
        let (_, json) = verify(&["--server", &servers(cluster)]);
        json["members"][0]["digest"].clone()
    };
    let before = digest(&cluster);
    assert_equal(&cluster, &["--advance"]);
    assert_eq!(digest(&cluster), before);
}

/// Answers words in the place of a member: with that member's own answers, but for the digests after
/// `from`.
fn impersonate(real: u16, from: u64) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, free_port())).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            answer(stream.unwrap(), real, from).unwrap_or_default();
        }
    });
    address
}

fn answer(mut stream: TcpStream, real: u16, from: u64) -> std::io::Result<()> {
    let mut asked = [0; 4];
    stream.read_exact(&mut asked)?;
    let asked = String::from_utf8_lossy(&asked).into_owned();
    let told = word(real, &asked)?;
    let changed = match asked.as_str() {
        "hash" => told.lines().map(|line| other_digest(line, from) + "\n").collect(),
        "quor" => {
            let mut json: Json = serde_json::from_str(&told)?;
            json["digest"] = "1".into();
            json.to_string()
        }
        _ => told,
    };
    stream.write_all(changed.as_bytes())
}

fn other_digest(line: &str, from: u64) -> String {
    let (zxid, digest) = line.split_once(": ").unwrap();
    let digest: i64 = digest.parse().unwrap();
    let differs = u64::from_str_radix(zxid, 16).unwrap() > from;
    format!("{zxid}: {}", if differs { digest ^ 1 } else { digest })
}

/// A zoo.cfg as an operator has it, with the client address of each member.
fn write_members(cluster: &Cluster, file: &Path, second: SocketAddr) {
    let lines: Vec<String> = cluster
        .server_lines(0)
        .iter()
        .zip(addresses(cluster))
        .map(|(line, (id, address))| format!("{line};{}\n", if id == 2 { second } else { address }))
        .collect();
    fs::write(file, format!("dataDir=/nowhere\ninitLimit=5\nsyncLimit=2\n{}", lines.concat()))
        .unwrap();
}

#[test]
fn a_member_with_another_tree_is_found() {
    let _alone = alone();
    if System::chosen() != System::Paddock {
        return;
    }
    let mut cluster = Cluster::start(Plan { proxied: false, ..Plan::default() });
    // At rest the newest common zxid is the present one, two behind the one that was aimed at.
    let points: Vec<u64> = (0..4).map(|_| assert_equal(&cluster, &["--advance"]) & !127).collect();
    assert!(points.is_sorted_by(|one, next| one + 128 == *next), "{points:x?}");
    let file = cluster.members[0].folder.join("members.cfg");
    let path = file.to_str().unwrap();
    // The file leads to the same answer as the servers themselves.
    let own = cluster.members[1].address();
    write_members(&cluster, &file, own);
    let (code, json) = verify(&["--config", path]);
    assert_eq!(code, 0, "{json:#}");
    let impostor = impersonate(cluster.members[1].client, points[1]);
    write_members(&cluster, &file, impostor);
    let (code, json) = verify(&["--config", path]);
    assert_eq!((code, &json["verdict"]), (1, &Json::from("different")), "{json:#}");
    assert_eq!(json["different"], serde_json::json!([2]), "{json:#}");
    let second = &json["members"][1];
    assert_eq!(second["result"], "different");
    assert_eq!((hex(&second["equal_at"]), hex(&second["differs_since"])), (points[1], points[2]));
    assert_eq!(json["members"][0]["result"], "same");
    // Waiting does not make it equal.
    assert_eq!(verify(&["--config", path, "--advance"]).0, 1);
    // One that is gone is no difference, and the others are compared.
    write_members(&cluster, &file, own);
    cluster.kill(2);
    let (code, json) = verify(&["--config", path]);
    assert_eq!((code, &json["verdict"]), (2, &Json::from("unknown")), "{json:#}");
    let gone = &json["members"][2];
    assert_eq!(gone["reason"], "unreachable: connection refused", "{json:#}");
}
