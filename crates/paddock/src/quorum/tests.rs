use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use super::report::Verdict;
use super::*;

const TIMEOUT: Duration = Duration::from_millis(400);

/// A server that answers by a script for as long as the test runs.
struct Fake {
    address: String,
    listener: TcpListener,
}

impl Fake {
    fn bind() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self { address: listener.local_addr().unwrap().to_string(), listener }
    }

    fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    /// Answers each word with `script`'s text, and what is no word as a server of this configuration.
    fn start(self, script: impl Fn(&str) -> String + Send + 'static, config: &str) {
        let config = config.to_owned();
        std::thread::spawn(move || {
            for stream in self.listener.incoming() {
                serve(stream.unwrap(), &script, &config);
            }
        });
    }
}

fn serve(mut stream: TcpStream, script: &dyn Fn(&str) -> String, config: &str) {
    let mut word = [0; 4];
    if stream.read_exact(&mut word).is_err() {
        return;
    }
    if word[0] == 0 {
        let len = u32::from_be_bytes(word) as usize;
        session(stream, len, config).unwrap_or_default();
        return;
    }
    let answer = script(std::str::from_utf8(&word).unwrap());
    stream.write_all(answer.as_bytes()).unwrap_or_default();
}

/// A session in which every request is answered with the configuration.
fn session(mut stream: TcpStream, len: usize, config: &str) -> std::io::Result<()> {
    let mut frame = vec![0; len];
    stream.read_exact(&mut frame)?;
    let mut reply = [0u8; 4 + 37];
    reply[3] = 37;
    reply[8..12].copy_from_slice(&10_000u32.to_be_bytes());
    reply[19] = 1; // the session's id
    reply[23] = 16;
    stream.write_all(&reply)?;
    loop {
        let mut head = [0; 4];
        stream.read_exact(&mut head)?;
        let mut request = vec![0; u32::from_be_bytes(head) as usize];
        stream.read_exact(&mut request)?;
        let mut body = request[..4].to_vec(); // the same xid
        body.extend([0; 12]); // zxid and no error
        body.extend(u32::try_from(config.len()).unwrap().to_be_bytes());
        body.extend(config.as_bytes());
        body.extend([0; 68]); // the stat
        stream.write_all(&u32::try_from(body.len()).unwrap().to_be_bytes())?;
        stream.write_all(&body)?;
    }
}

fn refused(word: &str) -> String {
    format!("{word} is not executed because it is not in the whitelist.\n")
}

const NOT_SERVING: &str = "This ZooKeeper instance is not currently serving requests\n";

/// Three voters and an observer, and their configuration.
fn ensemble() -> (Vec<Fake>, String) {
    let fakes: Vec<Fake> = (0..4).map(|_| Fake::bind()).collect();
    let lines: String = (1..)
        .zip(&fakes)
        .map(|(id, fake)| {
            let role = if id == 4 { "observer" } else { "participant" };
            let port = fake.port();
            format!("server.{id}=127.0.0.1:{id}1:{id}2:{role};0.0.0.0:{port}\n")
        })
        .collect();
    (fakes, format!("{lines}version=0"))
}

/// An answer to `quor`.
fn quor(id: u64, mode: &str, config: &str) -> String {
    let serving = mode != "looking";
    let json = serde_json::json!({
        "mode": if serving { mode } else { "not serving" },
        "serving": serving,
        "id": id,
        "state": match mode {
            "leader" => "leading",
            "follower" => "following",
            "observer" => "observing",
            _ => mode,
        },
        "leader": if serving { Some(3) } else { None },
        "accepted_epoch": 2,
        "current_epoch": 2,
        "delivered": format!("0x2{:08x}", 100 - id),
        "learners": if mode == "leader" {
            [1, 2, 4].map(|id| serde_json::json!({ "id": id, "phase": "broadcast" })).to_vec()
        } else {
            Vec::new()
        },
        "membership": config,
        "version": "3.9.5",
        "disk_low": false,
    });
    json.to_string() + "\n"
}

/// An answer to `srvr`.
fn srvr(mode: &str, zxid: &str) -> String {
    format!("Zookeeper version: 3.9.5-x\nZxid: {zxid}\nMode: {mode}\nNode count: 9\n")
}

const MODES: [&str; 4] = ["follower", "follower", "leader", "observer"];

fn ask(given: &[&str]) -> Result<Report, Vec<String>> {
    let given: Vec<String> = given.iter().map(|&address| address.to_owned()).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(status(&given, TIMEOUT))
}

/// The line of a member, its cells.
fn row(report: &Report, id: u64) -> Vec<String> {
    let text = report.to_text();
    let line = text.lines().skip(2).find(|line| line.starts_with(&format!("{id} "))).unwrap();
    line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect()
}

#[test]
fn one_server_leads_to_all() {
    let (fakes, config) = ensemble();
    let addresses: Vec<String> = fakes.iter().map(|fake| fake.address.clone()).collect();
    for ((id, fake), mode) in (1..).zip(fakes).zip(MODES) {
        let text = quor(id, mode, &config);
        fake.start(move |_| text.clone(), "");
    }
    for address in &addresses {
        let report = ask(&[address]).unwrap();
        assert_eq!(report.verdict(), Verdict::Healthy, "{}", report.to_text());
        let text = report.to_text();
        assert!(
            text.starts_with(
                "healthy: 3 of 3 participants in sync, 1 observer; server.3 leads epoch 2\n\
                 ID  ADDRESS"
            ),
            "{text}"
        );
        let expected = ["3", &addresses[2], "participant", "leader", "2", "0x200000061", "0", "ok"];
        assert_eq!(row(&report, 3), expected);
        assert_eq!(row(&report, 4)[6], "1", "{text}");
        let json = report.to_json();
        assert_eq!((&json["verdict"], &json["exit_code"]), (&"healthy".into(), &0.into()));
        assert_eq!(json["members"][3]["role"], "observer");
        assert_eq!(json["members"][0]["in_sync"], true);
    }
}

#[test]
fn who_cannot_be_reached_is_named_with_the_reason() {
    let (fakes, config) = ensemble();
    let addresses: Vec<String> = fakes.iter().map(|fake| fake.address.clone()).collect();
    let mut silent = None;
    for ((id, fake), mode) in (1..).zip(fakes).zip(MODES) {
        match id {
            1 => drop(fake),
            4 => silent = Some(fake), // accepts, and says nothing
            _ => {
                let text = quor(id, mode, &config);
                fake.start(move |_| text.clone(), "");
            }
        }
    }
    let begun = Instant::now();
    let report = ask(&[&addresses[1]]).unwrap();
    assert!(begun.elapsed() < TIMEOUT * 3, "{:?}", begun.elapsed());
    assert_eq!(report.verdict(), Verdict::Degraded);
    assert_eq!(row(&report, 1).last().unwrap(), "unreachable: connection refused");
    assert_eq!(row(&report, 4).last().unwrap(), "unreachable: no answer within 400 ms");
    assert_eq!(report.to_json()["members"][0]["reachable"], false);
    assert!(report.to_text().starts_with("degraded: 2 of 3 participants in sync"));
    drop(silent);
}

#[test]
fn without_a_quorum_it_says_what_each_one_does() {
    let (fakes, config) = ensemble();
    let addresses: Vec<String> = fakes.iter().map(|fake| fake.address.clone()).collect();
    for (id, fake) in (1..).zip(fakes) {
        let (looking, joining) = (quor(id, "looking", &config), quor(id, "observer", &config));
        match id {
            1 => fake.start(move |_| looking.clone(), ""),
            // An Apache server, which tells no more.
            2 => fake.start(
                |word| if word == "quor" { String::new() } else { NOT_SERVING.to_owned() },
                "",
            ),
            4 => fake.start(
                move |_| {
                    joining
                        .replace("\"serving\":true", "\"serving\":false")
                        .replace("\"mode\":\"observer\"", "\"mode\":\"not serving\"")
                },
                "",
            ),
            _ => drop(fake),
        }
    }
    let report = ask(&[&addresses[0]]).unwrap();
    assert_eq!(report.verdict(), Verdict::NoQuorum);
    assert_eq!(row(&report, 1).last().unwrap(), "not serving: it looks for a leader");
    assert_eq!(row(&report, 2).last().unwrap(), "not serving");
    assert_eq!(row(&report, 4).last().unwrap(), "not serving: it joins server.3");
    assert!(report.to_text().starts_with("no quorum: 0 of 3 participants in sync"));
    assert_eq!(report.to_json()["exit_code"], 2);
}

#[test]
fn apache_servers_are_shown_by_the_words_they_answer() {
    let (fakes, config) = ensemble();
    let addresses: Vec<String> = fakes.iter().map(|fake| fake.address.clone()).collect();
    for ((id, fake), mode) in (1..).zip(fakes).zip(MODES) {
        let shown = config.clone();
        let script = move |word: &str| match word {
            "srvr" => srvr(mode, if id == 2 { "0x100000003" } else { "0x100000009" }),
            "mntr" if id == 1 => refused(word),
            "mntr" => format!("zk_peer_state\t{} - broadcast\n", mode.replace("er", "ing")),
            "conf" if id == 1 => refused(word),
            "conf" => format!("clientPort=1\nserverId={id}\nmembership: \n{shown}"),
            _ => String::new(), // the length of a frame that is too long
        };
        fake.start(script, &config);
    }
    // The first tells its members to clients alone.
    for address in [&addresses[0], &addresses[3]] {
        let report = ask(&[address]).unwrap();
        assert_eq!(report.verdict(), Verdict::Healthy, "{}", report.to_text());
        assert_eq!(row(&report, 2)[3..7], ["follower", "1", "0x100000003", "6"]);
        assert_eq!(row(&report, 1)[3..], ["follower", "1", "0x100000009", "0", "ok"]);
    }
}

#[test]
fn members_without_a_written_client_port_are_found_by_what_is_given() {
    let fakes: Vec<Fake> = (0..3).map(|_| Fake::bind()).collect();
    let addresses: Vec<String> = fakes.iter().map(|fake| fake.address.clone()).collect();
    let config: String =
        (1..=3).map(|id| format!("server.{id}=127.0.0.1:{id}1:{id}2:participant\n")).collect();
    for ((id, fake), mode) in (1..).zip(fakes).zip(["follower", "follower", "leader"]) {
        let text = quor(id, mode, &format!("{config}version=0"));
        fake.start(move |_| text.clone(), "");
    }
    let report = ask(&[&addresses[2]]).unwrap();
    assert_eq!(report.verdict(), Verdict::NoQuorum, "the others cannot be asked");
    let unknown = "unreachable: its client address is not known; name it with --server";
    assert_eq!(row(&report, 1).last().unwrap(), unknown);
    let all: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let report = ask(&all).unwrap();
    assert_eq!(report.verdict(), Verdict::Healthy, "{}", report.to_text());
    assert_eq!(row(&report, 1)[1], addresses[0]);
}

#[test]
fn guesses_never_take_what_belongs_to_another() {
    let members =
        members_of("server.1=a:1:2:participant\nserver.2=b:1:2:participant;b:9\nserver.3=::\n");
    assert!(members.is_err());
    let (members, _) = members_of(
        "server.1=a:1:2:participant\nserver.2=b:1:2:participant;0.0.0.0:9\n\
         server.3=[::1]:1:2:observer\nserver.4=c:3:4:observer\nserver.5=c:5:6\nversion=7",
    )
    .unwrap();
    let first = BTreeMap::from([(
        "b:2181".to_owned(),
        Ok(Answer { mode: "follower".into(), serving: true, ..Answer::default() }),
    )]);
    let addresses = addresses(&members, &first, "b:2181");
    let address = |id| addresses[&id].as_deref();
    assert_eq!(
        [1, 2, 3, 4, 5].map(address),
        [Some("a:2181"), Some("b:9"), Some("[::1]:2181"), None, None]
    );
    assert!(members_of("version=0").is_err());
}

#[test]
fn a_standalone_server_and_nobody_at_all() {
    let fake = Fake::bind();
    let address = fake.address.clone();
    fake.start(
        |word| {
            if word == "srvr" { srvr("standalone", "0x5") } else { refused(word) }
        },
        "",
    );
    let report = ask(&[&address]).unwrap();
    assert_eq!(report.verdict(), Verdict::Healthy);
    assert!(report.to_text().starts_with("one standalone server: no ensemble\n"));
    assert!(
        report.to_text().contains("standalone  -      0x5   0    ok\n"),
        "{}",
        report.to_text()
    );
    let nobody = Fake::bind().address;
    assert_eq!(ask(&[&nobody]).unwrap_err(), [format!("{nobody}: connection refused")]);
    let speechless = Fake::bind();
    let address = speechless.address.clone();
    speechless.start(|_| String::new(), "");
    let said = ask(&[&address]).unwrap_err().concat();
    assert!(said.contains("is it a ZooKeeper server?"), "{said}");
}

/// A judgement of three voters, told by their answers.
fn judged(answers: [Reply; 3]) -> Report {
    judged_by("", answers)
}

/// The same of more of them, with lines for groups and weights.
fn judged_by<const VOTERS: usize>(groups: &str, answers: [Reply; VOTERS]) -> Report {
    let servers: String = (1..=VOTERS).map(|id| format!("server.{id}=h{id}:1:2\n")).collect();
    let (_, verifier) = members_of(&format!("{servers}{groups}version=0")).unwrap();
    let members = (1..).zip(answers).map(|(id, reply)| MemberReport {
        id,
        role: Role::Participant,
        address: Some(format!("h{id}:2181")),
        reply,
    });
    Report::judge(members.collect(), &verifier)
}

fn answer(mode: &str, epoch: u64) -> Answer {
    Answer {
        mode: mode.into(),
        serving: true,
        epoch: Some(epoch),
        zxid: Some(epoch << 32),
        ..Answer::default()
    }
}

#[test]
fn the_newest_leader_counts() {
    let report =
        judged([Ok(answer("leader", 4)), Ok(answer("leader", 5)), Ok(answer("follower", 5))]);
    assert_eq!(report.verdict(), Verdict::Degraded);
    assert_eq!(row(&report, 1).last().unwrap(), "it leads too, but server.2 leads a newer epoch");
    // One that follows the old one takes part in nothing.
    let astray = Answer { leader: Some(1), ..answer("follower", 4) };
    let report = judged([Ok(answer("leader", 4)), Ok(answer("leader", 5)), Ok(astray)]);
    assert_eq!(report.verdict(), Verdict::NoQuorum);
    assert_eq!(row(&report, 3).last().unwrap(), "it follows server.1");
    assert_eq!(row(&report, 3)[6], "-", "transactions of two epochs are not counted");
}

#[test]
fn a_leader_that_takes_no_clients_is_there_nevertheless() {
    let refused = || Err("connection refused".to_owned());
    let report = judged([Ok(answer("follower", 4)), Ok(answer("follower", 4)), refused()]);
    assert_eq!(report.verdict(), Verdict::Degraded);
    let report = judged([Ok(answer("follower", 4)), refused(), refused()]);
    assert_eq!(report.verdict(), Verdict::Degraded);
    let report = judged([Ok(answer("leader", 4)), refused(), refused()]);
    assert_eq!(report.verdict(), Verdict::NoQuorum, "one that has not noticed yet");
}

#[test]
fn groups_and_weights_decide_whether_there_is_a_quorum() {
    let groups = "group.1=1:2:3\ngroup.2=4:5\ngroup.3=6\nweight.3=5\nweight.6=0\n";
    let here = |mode| Ok(answer(mode, 4));
    let gone = || Err("connection refused".to_owned());
    let all = [
        here("follower"),
        here("follower"),
        here("leader"),
        here("follower"),
        here("follower"),
        here("follower"),
    ];
    assert_eq!(judged_by(groups, all).verdict(), Verdict::Healthy);
    // Half of six, but most of what weighs.
    let few = [gone(), gone(), here("leader"), here("follower"), here("follower"), gone()];
    assert_eq!(judged_by(groups, few).verdict(), Verdict::Degraded);
    // Five of six, without the one that counts; it may be the leader that takes no clients, though.
    let many = || {
        let follower = || here("follower");
        [follower(), here("leader"), gone(), follower(), follower(), follower()]
    };
    assert_eq!(judged_by(groups, many()).verdict(), Verdict::NoQuorum);
    let mut hidden = many();
    hidden[1] = here("follower");
    assert_eq!(judged_by(groups, hidden).verdict(), Verdict::Degraded);
    // Who has no weight is no such leader, and one that nobody follows is not either.
    let rest = [gone(), gone(), gone(), here("follower"), here("follower"), gone()];
    assert_eq!(judged_by("", rest).verdict(), Verdict::NoQuorum);
    let astray = || Ok(Answer { leader: Some(1), ..answer("follower", 4) });
    let follows = [gone(), astray(), gone(), astray(), astray(), astray()];
    assert_eq!(judged_by(groups, follows).verdict(), Verdict::NoQuorum);
}

#[test]
fn an_observer_behind_a_follower_is_not_the_leaders_to_know() {
    let (_, verifier) = members_of("server.1=a:1:2\nserver.2=b:1:2:observer\nversion=0").unwrap();
    let judged = |master| {
        let member = |id, role, answer| MemberReport {
            id,
            role,
            address: Some(format!("h{id}:2181")),
            reply: Ok(answer),
        };
        let leader = Answer { learners: Some(Vec::new()), ..answer("leader", 4) };
        let observer = Answer { learner_master: master, ..answer("observer", 4) };
        let members =
            vec![member(1, Role::Participant, leader), member(2, Role::Observer, observer)];
        Report::judge(members, &verifier).verdict()
    };
    assert_eq!(judged(Some(9)), Verdict::Healthy);
    for direct in [Some(1), None] {
        assert_eq!(judged(direct), Verdict::Degraded, "the leader should know it");
    }
}

#[test]
fn what_is_odd_is_not_healthy() {
    let leader = || Ok(answer("leader", 4));
    let follower = || Ok(answer("follower", 4));
    assert_eq!(judged([leader(), follower(), follower()]).verdict(), Verdict::Healthy);
    let full = Ok(Answer { disk_low: true, ..answer("follower", 4) });
    let report = judged([leader(), full, follower()]);
    assert_eq!(report.verdict(), Verdict::Degraded);
    assert!(row(&report, 2).last().unwrap().starts_with("disk nearly full"));
    let report = judged([leader(), Ok(answer("observer", 4)), follower()]);
    assert_eq!(row(&report, 2).last().unwrap(), "it is listed as a participant, but observes");
    let learners = Some(vec![(2, "synchronization".to_owned())]);
    let report = judged([Ok(Answer { learners, ..answer("leader", 4) }), follower(), follower()]);
    assert_eq!(row(&report, 2).last().unwrap(), "its leader has it in synchronization");
    assert_eq!(row(&report, 3).last().unwrap(), "server.1 does not know it as a learner");
    assert_eq!(report.verdict(), Verdict::NoQuorum);
    let told =
        |text: &str| Ok(Answer { membership: Some(text.to_owned()), ..answer("follower", 4) });
    let report = judged([leader(), told("server.1=a\nversion=0"), told("server.1=a\nversion=5")]);
    assert_eq!(report.verdict(), Verdict::Healthy, "versions may differ for a moment");
    let report = judged([leader(), told("server.1=a\nversion=0"), told("server.1=b\nversion=0")]);
    assert_eq!(report.verdict(), Verdict::Degraded);
    assert!(
        report.to_text().ends_with("warning: the members do not agree on who the members are\n")
    );
    // Who answers at a member's address must be that member.
    let wrong = Answer { id: Some(7), ..Answer::default() };
    assert_eq!(wrong.claimed_by(2).unwrap_err(), "server.7 answers there");
}
