//! What the answers mean.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::process::ExitCode;

use serde_json::{Value as Json, json};
use zk_config::Role;
use zk_proto::ServerId;
use zk_zab::QuorumVerifier;

use super::probe::{Answer, Reply};
use super::role_name;
use crate::table::table;

/// What is to be said of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Every member takes part.
    Healthy,
    /// A quorum serves, but not everything is as it should be.
    Degraded,
    /// Nobody can write.
    NoQuorum,
}

impl Verdict {
    pub(super) fn exit_code(self) -> ExitCode {
        ExitCode::from(self.code())
    }

    fn code(self) -> u8 {
        match self {
            Self::Healthy => 0,
            Self::Degraded => 1,
            Self::NoQuorum => 2,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::NoQuorum => "no quorum",
        }
    }
}

/// A member, and what was heard of it.
#[derive(Debug, Clone)]
pub(super) struct MemberReport {
    pub(super) id: u64,
    pub(super) role: Role,
    /// Where it was asked.
    pub(super) address: Option<String>,
    pub(super) reply: Reply,
}

/// A line of the report.
#[derive(Debug, Clone, PartialEq)]
struct Line {
    id: u64,
    role: Role,
    address: Option<String>,
    answer: Option<Answer>,
    /// Transactions behind the leader.
    lag: Option<u64>,
    /// Whether it takes part as it should.
    in_sync: bool,
    health: String,
}

/// The whole ensemble, or the one server that is there.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Report {
    verdict: Verdict,
    leader: Option<u64>,
    epoch: Option<u64>,
    voters: usize,
    voters_in_sync: usize,
    lines: Vec<Line>,
    /// What concerns no single member.
    problems: Vec<String>,
}

impl Report {
    /// A server that is no member of anything.
    pub(super) fn standalone(address: &str, answer: &Answer) -> Self {
        let (verdict, health) =
            if answer.disk_low { (Verdict::Degraded, DISK_LOW) } else { (Verdict::Healthy, "ok") };
        let line = Line {
            id: answer.id.unwrap_or_default(),
            role: Role::Participant,
            address: Some(address.to_owned()),
            answer: Some(answer.clone()),
            lag: Some(0),
            in_sync: true,
            health: health.to_owned(),
        };
        Self {
            verdict,
            leader: None,
            epoch: None,
            voters: 1,
            voters_in_sync: 1,
            lines: vec![line],
            problems: Vec::new(),
        }
    }

    /// Looks at all members together.
    pub(super) fn judge(members: Vec<MemberReport>, verifier: &QuorumVerifier) -> Self {
        let leader = Leader::of(&members);
        let mut lines: Vec<Line> =
            members.into_iter().map(|member| line(member, leader.as_ref())).collect();
        lines.sort_by_key(|line| line.id);
        let voters: Vec<&Line> =
            lines.iter().filter(|line| line.role == Role::Participant).collect();
        let in_sync: BTreeSet<ServerId> =
            voters.iter().filter(|line| line.in_sync).map(|line| line.server()).collect();
        // A leader that takes no clients (leaderServes=no), or whose port is closed to us, is there
        // nevertheless when others follow it.
        let hidden = |line: &&Line| {
            let followed = |it: &&Line| it.answer.as_ref().and_then(|answer| answer.leader);
            let known = voters.iter().filter(|it| it.in_sync).find_map(followed);
            known.is_none_or(|leader| leader == line.id) && verifier.has_weight(line.server())
        };
        let with = |line: &Line| verifier.is_quorum(in_sync.iter().copied().chain([line.server()]));
        let quorum = verifier.contains_quorum(&in_sync)
            || leader.is_none()
                && !in_sync.is_empty()
                && voters.iter().copied().filter(|line| !line.in_sync).filter(hidden).any(with);
        let (voters, in_sync) = (voters.len(), in_sync.len());
        let mut problems = Vec::new();
        let texts: Vec<&str> =
            lines.iter().filter_map(|line| membership(line.answer.as_ref()?)).collect();
        if texts.windows(2).any(|pair| pair[0] != pair[1]) {
            problems.push("the members do not agree on who the members are".to_owned());
        }
        let fine = lines.iter().all(|line| line.in_sync && line.health == "ok");
        let verdict = match (quorum, fine && problems.is_empty()) {
            (false, _) => Verdict::NoQuorum,
            (true, true) => Verdict::Healthy,
            (true, false) => Verdict::Degraded,
        };
        Self {
            verdict,
            leader: leader.as_ref().map(|leader| leader.id),
            epoch: leader.as_ref().and_then(|leader| leader.epoch),
            voters,
            voters_in_sync: in_sync,
            lines,
            problems,
        }
    }

    pub(super) fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// A sentence and a table.
    pub(super) fn to_text(&self) -> String {
        let mut text = String::new();
        let standalone = self.lines.iter().any(|line| line.is_standalone());
        if standalone {
            text.push_str("one standalone server: no ensemble\n");
        } else {
            let observers = self.lines.len() - self.voters;
            let _written = write!(
                text,
                "{}: {} of {} participants in sync",
                self.verdict.as_str(),
                self.voters_in_sync,
                self.voters
            );
            match observers {
                0 => {}
                1 => text.push_str(", 1 observer"),
                _ => {
                    let _written = write!(text, ", {observers} observers");
                }
            }
            match (self.leader, self.epoch) {
                (Some(leader), Some(epoch)) => {
                    let _written = write!(text, "; server.{leader} leads epoch {epoch}");
                }
                (Some(leader), None) => {
                    let _written = write!(text, "; server.{leader} leads");
                }
                (None, _) => text.push_str("; no leader was found"),
            }
            text.push('\n');
        }
        let head = ["ID", "ADDRESS", "ROLE", "MODE", "EPOCH", "ZXID", "LAG", "HEALTH"];
        let mut rows = vec![head.map(str::to_owned)];
        rows.extend(self.lines.iter().map(Line::cells));
        text.push_str(&table(&rows));
        for problem in &self.problems {
            let _written = writeln!(text, "warning: {problem}");
        }
        text
    }

    /// The same for programs.
    pub(super) fn to_json(&self) -> Json {
        json!({
            "verdict": self.verdict.as_str(),
            "exit_code": self.verdict.code(),
            "leader": self.leader,
            "epoch": self.epoch,
            "voters": self.voters,
            "voters_in_sync": self.voters_in_sync,
            "members": self.lines.iter().map(Line::to_json).collect::<Vec<_>>(),
            "problems": self.problems,
        })
    }
}

/// The membership without its version, which members learn one after the other.
fn membership(answer: &Answer) -> Option<&str> {
    let text = answer.membership.as_deref()?;
    Some(text.rsplit_once("version=").map_or(text, |(members, _)| members).trim_end())
}

/// Whom the others are measured by.
struct Leader {
    id: u64,
    epoch: Option<u64>,
    zxid: Option<u64>,
    learners: Option<Vec<(u64, String)>>,
}

impl Leader {
    /// Of several that think they lead, the one of the newest epoch.
    fn of(members: &[MemberReport]) -> Option<Self> {
        let leaders = members.iter().filter_map(|member| {
            let answer = member.reply.as_ref().ok()?;
            (answer.serving && answer.mode == "leader").then_some((member.id, answer))
        });
        let (id, answer) = leaders.max_by_key(|(_, answer)| (answer.epoch, answer.zxid))?;
        Some(Self { id, epoch: answer.epoch, zxid: answer.zxid, learners: answer.learners.clone() })
    }

    /// What it says of a learner, if it tells.
    fn phase(&self, id: u64) -> Option<&str> {
        let learners = self.learners.as_ref()?;
        let found = learners.iter().find(|(learner, _)| *learner == id);
        Some(found.map_or("unknown", |(_, phase)| phase))
    }

    /// Transactions between it and `zxid`; only within an epoch can they be counted.
    fn lag(&self, zxid: u64) -> Option<u64> {
        let own = self.zxid?;
        (own >> 32 == zxid >> 32).then(|| own.saturating_sub(zxid))
    }
}

const DISK_LOW: &str = "disk nearly full: it refuses writes";

fn line(member: MemberReport, leader: Option<&Leader>) -> Line {
    let MemberReport { id, role, address, reply } = member;
    let (answer, health) = match reply {
        Err(error) => (None, Err(format!("unreachable: {error}"))),
        Ok(answer) => {
            let health = health(id, role, &answer, leader);
            (Some(answer), health)
        }
    };
    let lag = answer.as_ref().and_then(|answer| leader?.lag(answer.zxid?));
    let in_sync = health.is_ok();
    let health = match health {
        Ok(()) if answer.as_ref().is_some_and(|answer| answer.disk_low) => DISK_LOW.to_owned(),
        Ok(()) => "ok".to_owned(),
        Err(why) => why,
    };
    Line { id, role, address, answer, lag, in_sync, health }
}

/// Why a member that answers does not take part.
fn health(id: u64, role: Role, answer: &Answer, leader: Option<&Leader>) -> Result<(), String> {
    if answer.mode == "read-only" {
        return Err("it serves reads alone: it has no leader".to_owned());
    }
    if !answer.serving {
        let followed = answer
            .learner_master
            .or(answer.leader)
            .map_or(String::new(), |leader| format!(" server.{leader}"));
        return Err(match answer.state.as_deref() {
            Some("looking") => "not serving: it looks for a leader".to_owned(),
            Some("leading") => "not serving: it leads and waits for a quorum".to_owned(),
            Some("following" | "observing") => format!("not serving: it joins{followed}"),
            Some(_) | None => "not serving".to_owned(),
        });
    }
    match (role, answer.mode.as_str()) {
        (Role::Participant, "observer") => {
            return Err("it is listed as a participant, but observes".to_owned());
        }
        (Role::Observer, mode @ ("leader" | "follower")) => {
            return Err(format!("it is listed as an observer, but is a {mode}"));
        }
        (_, "leader" | "follower" | "observer") => {}
        (_, mode) => return Err(format!("it is {mode}, no member")),
    }
    let Some(leader) = leader else { return Ok(()) };
    if answer.mode == "leader" {
        return if leader.id == id {
            Ok(())
        } else {
            Err(format!("it leads too, but server.{} leads a newer epoch", leader.id))
        };
    }
    if let Some(other) = answer.leader.filter(|other| *other != leader.id) {
        return Err(format!("it follows server.{other}"));
    }
    if answer.learner_master.is_some_and(|master| master != leader.id) {
        return Ok(()); // its follower knows how far it is
    }
    match leader.phase(id) {
        None | Some("broadcast") => Ok(()),
        Some("unknown") => Err(format!("server.{} does not know it as a learner", leader.id)),
        Some(phase) => Err(format!("its leader has it in {phase}")),
    }
}

impl Line {
    fn server(&self) -> ServerId {
        ServerId(i64::try_from(self.id).unwrap_or(i64::MAX)) // no configuration has greater ones
    }

    fn is_standalone(&self) -> bool {
        self.answer.as_ref().is_some_and(Answer::is_standalone)
    }

    fn cells(&self) -> [String; 8] {
        let none = || "-".to_owned();
        let answer = self.answer.as_ref();
        let number = |number: Option<u64>| number.map_or_else(none, |number| number.to_string());
        let zxid = answer.and_then(|answer| answer.zxid);
        [
            if self.is_standalone() { none() } else { self.id.to_string() },
            self.address.clone().unwrap_or_else(none),
            if self.is_standalone() { none() } else { role_name(self.role).to_owned() },
            answer.map_or_else(none, |answer| answer.mode.clone()),
            number(answer.and_then(|answer| answer.epoch)),
            zxid.map_or_else(none, |zxid| format!("{zxid:#x}")),
            number(self.lag),
            self.health.clone(),
        ]
    }

    fn to_json(&self) -> Json {
        let answer = self.answer.as_ref();
        json!({
            "id": self.id,
            "role": role_name(self.role),
            "address": self.address,
            "reachable": answer.is_some(),
            "serving": answer.is_some_and(|answer| answer.serving),
            "in_sync": self.in_sync,
            "mode": answer.map(|answer| &answer.mode),
            "state": answer.and_then(|answer| answer.state.as_deref()),
            "leader": answer.and_then(|answer| answer.leader),
            "epoch": answer.and_then(|answer| answer.epoch),
            "zxid": answer.and_then(|answer| answer.zxid).map(|zxid| format!("{zxid:#x}")),
            "lag": self.lag,
            "version": answer.and_then(|answer| answer.version.as_deref()),
            "health": self.health,
        })
    }
}
