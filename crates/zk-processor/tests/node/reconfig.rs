//! Ensembles that change while they serve.

use bytes::Bytes;
use zk_processor::{NodeConfig, ReconfigConfig, ServerRole};
use zk_proto::data::Stat;
use zk_proto::proto::{GetDataResponse, ReconfigRequest};
use zk_proto::watch::EventType;
use zk_proto::{ErrorCode, OpCode, Record, Request};

use crate::ensemble::Ensemble;
use crate::harness::{Message, config};
use crate::script::request;

const CONFIG: &str = "/zookeeper/config";

fn may_reconfigure() -> NodeConfig {
    let mut config = config();
    config.reconfig =
        ReconfigConfig { enabled: true, standalone_enabled: true, multi_address: false };
    config.auth.skip_acl = true;
    config
}

fn started(voters: i64, observers: i64, config: NodeConfig) -> Ensemble {
    Ensemble::with(voters, observers, config, |peer| peer.reconfig_enabled = true)
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn change(joining: &str, leaving: &str) -> ReconfigRequest {
    ReconfigRequest {
        joining_servers: some(joining),
        leaving_servers: some(leaving),
        new_members: None,
        cur_config_id: -1,
    }
}

fn list(members: &str) -> ReconfigRequest {
    ReconfigRequest { new_members: Some(members.to_owned()), ..change("", "") }
}

fn line(id: i64, role: &str) -> String {
    format!("server.{id}=h{id}:2888:3888:{role};2181")
}

fn voter(id: i64) -> String {
    line(id, "participant")
}

/// What is answered: the configuration, as the znode has it.
fn reconfigure(ensemble: &mut Ensemble, name: &str, asked: ReconfigRequest) -> (String, Stat) {
    let (header, body) = ensemble.ask(name, &Request::Reconfig(asked));
    assert_eq!(header.err, ErrorCode::OK);
    let GetDataResponse { data, stat } = GetDataResponse::decode(&body).unwrap();
    let text = String::from_utf8(data.unwrap().to_vec()).unwrap();
    assert_eq!((stat.version, stat.mzxid), (-1, header.zxid.0));
    assert!(text.ends_with(&format!("\nversion={:x}", header.zxid.0)), "{text}");
    (text, stat)
}

fn refused(ensemble: &mut Ensemble, name: &str, asked: ReconfigRequest) -> ErrorCode {
    let (header, body) = ensemble.ask(name, &Request::Reconfig(asked));
    assert_ne!(header.err, ErrorCode::OK);
    assert_eq!(body, Bytes::new());
    header.err
}

fn config_at(ensemble: &Ensemble, server: i64) -> String {
    ensemble.node(server).read(|db| {
        let data = db.tree.find(CONFIG).unwrap().data().unwrap().to_vec();
        String::from_utf8(data).unwrap()
    })
}

#[test]
fn a_server_joins_votes_and_leaves_again() {
    let mut ensemble = started(3, 0, may_reconfigure());
    ensemble.join(4);
    ensemble.establish();
    assert_eq!(ensemble.role(4), ServerRole::Follower);
    let follower = ensemble.follower();
    ensemble.connect("admin", follower);
    ensemble.connect("w", 4);
    ensemble.ask("w", &request(&format!("get {CONFIG} w")));
    let (text, _) = reconfigure(&mut ensemble, "admin", change(&voter(4), ""));
    assert!(text.contains("server.4=h4:2888:3888:participant;0.0.0.0:2181\n"), "{text}");
    match &ensemble.take("w")[..] {
        [Message::Event { event, .. }] => {
            assert_eq!(event.event_type, EventType::NodeDataChanged.code());
            assert_eq!(event.path, CONFIG);
        }
        other => panic!("{other:?}"),
    }
    for server in 1..=4 {
        assert_eq!(config_at(&ensemble, server), text, "server {server}");
    }
    // Four voters: two of them are no quorum.
    let others: Vec<i64> = ensemble.learners().into_iter().filter(|id| *id != follower).collect();
    let leader = ensemble.leader();
    ensemble.connect("c", leader);
    ensemble.hold_disk(others[0], true);
    ensemble.hold_disk(others[1], true);
    ensemble.send_all("c", &[request("create /x")]);
    assert!(ensemble.take("c").is_empty());
    ensemble.hold_disk(others[1], false);
    assert_eq!(ensemble.take("c").len(), 1);
    ensemble.hold_disk(others[0], false);
    let (text, _) = reconfigure(&mut ensemble, "admin", change("", "4"));
    assert!(!text.contains("server.4"), "{text}");
    ensemble.check();
}

#[test]
fn a_leader_that_is_removed_hands_over() {
    let mut ensemble = started(3, 0, may_reconfigure());
    let (leader, follower) = (ensemble.leader(), ensemble.follower());
    ensemble.connect("admin", follower);
    ensemble.ask("admin", &request("create /before"));
    let session = ensemble.session("admin").unwrap();
    ensemble.send_all("admin", &[Request::Reconfig(change("", &leader.to_string()))]);
    ensemble.pass(500);
    // It was done, whether or not its client heard that before the change of leaders.
    let others: Vec<i64> = (1..=3).filter(|id| *id != leader).collect();
    ensemble.kill(leader);
    ensemble.establish();
    for server in &others {
        assert!(!config_at(&ensemble, *server).contains(&format!("server.{leader}=")));
    }
    ensemble.reconnect("again", others[0], session);
    ensemble.take("again");
    ensemble.ask("again", &request("create /after"));
    ensemble.check();
}

#[test]
fn observers_and_participants_change_places() {
    let mut ensemble = started(3, 1, may_reconfigure());
    let (leader, follower) = (ensemble.leader(), ensemble.follower());
    ensemble.connect("admin", leader);
    reconfigure(&mut ensemble, "admin", change(&line(follower, "observer"), ""));
    ensemble.establish();
    assert_eq!(ensemble.role(follower), ServerRole::Observer);
    reconfigure(&mut ensemble, "admin", change(&voter(4), ""));
    ensemble.establish();
    assert_eq!(ensemble.role(4), ServerRole::Follower);
    ensemble.check();
}

#[test]
fn a_whole_list_is_taken_with_its_groups() {
    let mut ensemble = started(3, 0, may_reconfigure());
    let leader = ensemble.leader();
    ensemble.connect("admin", leader);
    let servers = format!("{},{},{}", voter(1), voter(2), voter(3));
    let asked = list(&format!("{servers},group.1=1:2:3,weight.1=2,version=7"));
    let (text, _) = reconfigure(&mut ensemble, "admin", asked);
    assert!(
        text.contains("\ngroup.1=1:2:3\nweight.1=2\nweight.2=1\nweight.3=1\nversion="),
        "{text}"
    );
    // Who has groups has to list them.
    let asked = change("", "3");
    assert_eq!(refused(&mut ensemble, "admin", asked), ErrorCode::BAD_ARGUMENTS);
    let (text, _) = reconfigure(&mut ensemble, "admin", list(&servers));
    assert!(!text.contains("group"), "{text}");
    ensemble.check();
}

/// In this order: what comes first is what the client is told.
#[test]
fn what_is_refused_and_why() {
    let mut ensemble = Ensemble::new(3, 0);
    ensemble.connect("a", 1);
    let asked = change("", "3");
    assert_eq!(refused(&mut ensemble, "a", asked), ErrorCode::RECONFIG_DISABLED);

    let mut config = may_reconfigure();
    config.auth.skip_acl = false;
    let mut ensemble = started(3, 0, config);
    ensemble.connect("a", 1);
    let mut err = |asked| refused(&mut ensemble, "a", asked);
    let at = |id: i64, place: &str| change(&format!("server.{id}={place}"), "");
    let version = |version| ReconfigRequest { cur_config_id: version, ..change("", "3") };
    let cases = [
        ("another version", version(5), ErrorCode::BAD_VERSION),
        ("no id", change("", "three"), ErrorCode::MARSHALLING_ERROR),
        ("no spec", change("server.4", ""), ErrorCode::BAD_ARGUMENTS),
        ("no client port", at(4, "h4:1:2:participant"), ErrorCode::BAD_ARGUMENTS),
        ("no port", at(4, "h4:1:two;2181"), ErrorCode::BAD_ARGUMENTS),
        ("an address of another", at(4, "h1:2888:4000;2181"), ErrorCode::BAD_ARGUMENTS),
        ("two addresses", at(4, "h4:1:2|h5:1:2;2181"), ErrorCode::BAD_ARGUMENTS),
        ("one is left", change("", "2,3"), ErrorCode::BAD_ARGUMENTS),
        ("none in sync", list(&[voter(7), voter(8)].join(",")), ErrorCode::NEW_CONFIG_NO_QUORUM),
        ("an empty list", list(""), ErrorCode::BAD_ARGUMENTS),
        ("another key", list("servers.1=h1:1:2"), ErrorCode::BAD_ARGUMENTS),
        ("observers alone", list(&line(1, "observer")), ErrorCode::MARSHALLING_ERROR),
        (
            "two groups",
            list(&format!("{},{},group.1=1:2,group.2=2", voter(1), voter(2))),
            ErrorCode::BAD_ARGUMENTS,
        ),
        (
            "no group",
            list(&format!("{},{},group.1=1", voter(1), voter(2))),
            ErrorCode::BAD_ARGUMENTS,
        ),
        ("may not", change("", "3"), ErrorCode::NO_AUTH),
    ];
    for (why, asked, expected) in cases {
        assert_eq!(err(asked), expected, "{why}");
    }
    let before = config_at(&ensemble, 1);
    assert!(before.contains("server.3"), "{before}");
    ensemble.check();
}

#[test]
fn one_at_a_time() {
    let mut ensemble = started(3, 0, may_reconfigure());
    let leader = ensemble.leader();
    ensemble.connect("early", leader);
    for learner in ensemble.learners() {
        ensemble.hold_disk(learner, true);
    }
    let asked = |id: &str| Request::Reconfig(change("", id));
    let learners = ensemble.learners();
    let first = ensemble.send_all("early", &[asked(&learners[0].to_string()), asked("77")]);
    assert_eq!(first.len(), 2);
    for learner in ensemble.learners() {
        ensemble.hold_disk(learner, false);
    }
    let answers = ensemble.take("early");
    let answers: Vec<_> = answers
        .iter()
        .map(|message| match message {
            Message::Reply { op: OpCode::RECONFIG, header, .. } => header.err,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(answers, [ErrorCode::OK, ErrorCode::RECONFIG_IN_PROGRESS]);
}
