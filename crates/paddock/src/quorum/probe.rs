//! Asking one server.

use std::io;
use std::time::Duration;

use serde_json::Value as Json;
use zk_client::{Client, four_letter_word};
use zk_proto::path;

/// What a server says that has no quorum.
pub(super) const NOT_SERVING: &str = "This ZooKeeper instance is not currently serving requests";

/// What one server answered, or why there is no answer.
pub(super) type Reply = Result<Answer, String>;

/// What a server knows of itself and of its ensemble.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Answer {
    /// Its id.
    pub(super) id: Option<u64>,
    /// `leader`, `follower`, `observer`, `standalone`, or `not serving`.
    pub(super) mode: String,
    /// Whether it serves clients.
    pub(super) serving: bool,
    /// Its state in the protocol: `looking`, `leading`, ... Known of a server that serves, and of ours.
    pub(super) state: Option<String>,
    /// The leader that it follows.
    pub(super) leader: Option<u64>,
    /// Who feeds an observer: the leader, or a follower.
    pub(super) learner_master: Option<u64>,
    /// The epoch of its history.
    pub(super) epoch: Option<u64>,
    /// The last transaction that it has applied.
    pub(super) zxid: Option<u64>,
    /// The zxid and the digest of its tree at one moment. Only ours tell.
    pub(super) digest: Option<(u64, i64)>,
    /// Of a leader, its learners and how far they are.
    pub(super) learners: Option<Vec<(u64, String)>>,
    /// The membership lines and the version.
    pub(super) membership: Option<String>,
    /// What it runs.
    pub(super) version: Option<String>,
    /// Whether it refuses writes because its disk is nearly full.
    pub(super) disk_low: bool,
}

impl Answer {
    pub(super) fn is_standalone(&self) -> bool {
        self.mode == "standalone"
    }
}

/// Asks by Paddock's own word; and where that is not known, or not allowed, by ZooKeeper's.
pub(super) async fn probe(address: &str, timeout: Duration) -> Reply {
    match four_letter_word(address, "quor", timeout).await {
        Ok(text) => {
            if let Some(answer) = from_quor(&text) {
                return Ok(answer);
            }
        }
        // It speaks, but not this word: the connection ends in one way or the other.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
        Err(error) => return Err(reason(&error, timeout)),
    }
    let (srvr, mntr, conf) = tokio::join!(
        four_letter_word(address, "srvr", timeout),
        four_letter_word(address, "mntr", timeout),
        four_letter_word(address, "conf", timeout),
    );
    let srvr = srvr.map_err(|error| reason(&error, timeout))?;
    from_words(&srvr, &mntr.unwrap_or_default(), &conf.unwrap_or_default())
}

/// The membership as any client can read it.
pub(super) async fn configuration(address: &str, timeout: Duration) -> Result<String, String> {
    let read = async {
        let client =
            Client::connect(address, timeout, true).await.map_err(|error| error.to_string())?;
        let read = client.get_data(path::CONFIG, false).await;
        client.close().await;
        let (data, _) = read.map_err(|error| format!("{}: {error}", path::CONFIG))?;
        Ok(String::from_utf8_lossy(&data.unwrap_or_default()).into_owned())
    };
    tokio::time::timeout(timeout * 2, read)
        .await
        .unwrap_or_else(|_| Err("it does not say who the members are: no session in time".into()))
}

pub(super) fn reason(error: &io::Error, timeout: Duration) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::TimedOut => format!("no answer within {} ms", timeout.as_millis()),
        _ => error.to_string(), // the system's words
    }
}

/// Reads the answer to `quor`; none when it is something else.
fn from_quor(text: &str) -> Option<Answer> {
    let json: Json = serde_json::from_str(text).ok()?;
    let string = |key: &str| json[key].as_str().map(str::to_owned);
    let learners = json["learners"].as_array().map(|learners| {
        let learner =
            |json: &Json| Some((json["id"].as_u64()?, json["phase"].as_str()?.to_owned()));
        learners.iter().filter_map(learner).collect()
    });
    let leads = json["state"] == "leading";
    Some(Answer {
        id: json["id"].as_u64(),
        mode: string("mode")?,
        serving: json["serving"].as_bool()?,
        state: string("state"),
        leader: json["leader"].as_u64(),
        learner_master: json["learner_master"].as_u64(),
        epoch: json["current_epoch"].as_u64(),
        zxid: string("delivered").as_deref().and_then(parse_zxid),
        digest: string("digest_zxid")
            .as_deref()
            .and_then(parse_zxid)
            .zip(string("digest").and_then(|digest| digest.parse().ok())),
        learners: learners.filter(|_| leads),
        membership: string("membership"),
        version: string("version"),
        disk_low: json["disk_low"].as_bool().unwrap_or_default(),
    })
}

/// Reads the answers to `srvr`, `mntr` and `conf`; the latter two may be refused.
fn from_words(srvr: &str, mntr: &str, conf: &str) -> Reply {
    let field = |text: &str, name: &str| -> Option<String> {
        text.lines().find_map(|line| line.strip_prefix(name)).map(|rest| rest.trim().to_owned())
    };
    let mut answer = Answer::default();
    if srvr.contains(NOT_SERVING) {
        answer.mode = "not serving".into();
        return Ok(answer);
    }
    let Some(mode) = field(srvr, "Mode:") else {
        let begin: String = srvr.lines().next().unwrap_or_default().chars().take(80).collect();
        return Err(if begin.is_empty() {
            "it answers no four-letter word: is it a ZooKeeper server?".into()
        } else {
            format!("it answers srvr with `{begin}`")
        });
    };
    answer.serving = mode != "read-only";
    answer.mode = mode;
    answer.version = field(srvr, "Zookeeper version:");
    answer.zxid = field(srvr, "Zxid:").as_deref().and_then(parse_zxid);
    // The epoch of the last transaction: a new leader's own shows with its first one.
    answer.epoch = answer.zxid.map(|zxid| zxid >> 32).filter(|_| !answer.is_standalone());
    let peer_state = field(mntr, "zk_peer_state\t");
    answer.state = peer_state.and_then(|state| state.split(' ').next().map(str::to_owned));
    answer.learner_master = field(mntr, "zk_observer_master_id\t").and_then(|id| id.parse().ok());
    if let Some((settings, membership)) = conf.split_once("\nmembership:") {
        answer.id = field(settings, "serverId=").and_then(|id| id.parse().ok());
        answer.membership = Some(membership.trim().to_owned());
    }
    Ok(answer)
}

pub(super) fn parse_zxid(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apaches_words_are_understood() {
        let srvr = "Zookeeper version: 3.9.5-x, built on 2026-02-11 20:18 UTC\n\
                    Latency min/avg/max: 0/0.0/0\nZxid: 0x100000009\nMode: observer\nNode count: 9\n";
        let mntr = "zk_version\t3.9.5\nzk_server_state\tobserver\nzk_peer_state\tobserving - \
                    broadcast\nzk_observer_master_id\t3\n";
        let conf = "clientPort=27004\nserverId=4\npeerType=1\nmembership: \n\
                    server.1=h:1:2:participant\nserver.4=h:3:4:observer\nversion=0";
        let answer = from_words(srvr, mntr, conf).unwrap();
        assert_eq!(
            answer,
            Answer {
                id: Some(4),
                mode: "observer".into(),
                serving: true,
                state: Some("observing".into()),
                leader: None, // whoever feeds an observer may follow one
                epoch: Some(1),
                zxid: Some(0x1_0000_0009),
                digest: None,
                learner_master: Some(3),
                learners: None,
                membership: Some(
                    "server.1=h:1:2:participant\nserver.4=h:3:4:observer\nversion=0".into()
                ),
                version: Some("3.9.5-x, built on 2026-02-11 20:18 UTC".into()),
                disk_low: false,
            }
        );
        let refused = "mntr is not executed because it is not in the whitelist.\n";
        let bare = from_words(srvr, refused, refused).unwrap();
        assert_eq!((bare.id, bare.membership, bare.zxid), (None, None, answer.zxid));
        let silent = format!("{NOT_SERVING}\n");
        let silent = from_words(&silent, &silent, &silent).unwrap();
        assert_eq!(
            (silent.mode.as_str(), silent.serving, silent.zxid),
            ("not serving", false, None)
        );
        assert!(!from_words("Mode: read-only\n", "", "").unwrap().serving);
        for wrong in ["", "HTTP/1.1 400 Bad Request\r\n"] {
            assert!(from_words(wrong, "", "").is_err(), "{wrong}");
        }
    }

    #[test]
    fn our_word_is_understood() {
        let text = r#"{"mode":"leader","serving":true,"id":3,"state":"leading","leader":3,
            "accepted_epoch":2,"current_epoch":2,"last_logged":"0x200000001","committed":"0x200000001",
            "delivered":"0x200000001","learners":[{"id":1,"voter":true,"phase":"broadcast"}],
            "membership":"server.3=h:1:2:participant\nversion=0","version":"3.9.5","disk_low":true,
            "digest":"-7","digest_zxid":"0x200000001"}"#;
        let answer = from_quor(text).unwrap();
        assert_eq!((answer.id, answer.leader, answer.epoch), (Some(3), Some(3), Some(2)));
        assert_eq!(answer.zxid, Some(0x2_0000_0001));
        assert_eq!(answer.learners, Some(vec![(1, "broadcast".into())]));
        assert_eq!(answer.digest, Some((0x2_0000_0001, -7)));
        assert!(answer.disk_low && answer.serving && !answer.is_standalone());
        for other in ["", "quor is not executed because it is not in the whitelist.\n", "{}"] {
            assert_eq!(from_quor(other), None);
        }
    }
}
