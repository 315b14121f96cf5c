//! What the digests of all members mean, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::ExitCode;

use serde_json::{Value as Json, json};

use super::{MemberAnswer, Silence, short_version};
use crate::quorum::compare::{Astray, Comparison, Difference, Points, compare};
use crate::quorum::role_name;
use crate::table::table;

/// What is to be said of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Every member has the same tree.
    Equal,
    /// Some do not.
    Different,
    /// Not every member could be compared; those that could are equal.
    Unknown,
}

impl Verdict {
    pub(super) fn exit_code(self) -> ExitCode {
        ExitCode::from(self.code())
    }

    fn code(self) -> u8 {
        match self {
            Self::Equal => 0,
            Self::Different => 1,
            Self::Unknown => 2,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::Different => "different",
            Self::Unknown => "unknown",
        }
    }
}

/// The answer when not even the members are known.
pub(super) fn failed_json(error: String) -> Json {
    let verdict = Verdict::Unknown;
    json!({
        "verdict": verdict.as_str(),
        "exit_code": verdict.code(),
        "error": error,
    })
}

/// All members, compared.
#[derive(Debug, Clone)]
pub(super) struct Report {
    verdict: Verdict,
    headline: String,
    /// Where they were compared.
    zxid: Option<u64>,
    members: Vec<MemberAnswer>,
    /// What came of each, by id.
    results: BTreeMap<u64, Outcome>,
    difference: Option<Difference>,
    /// Not everybody has reached the zxid that was asked for.
    late: bool,
    /// What to do, in order.
    advice: Vec<String>,
    /// What else there is to say.
    pub(super) warnings: Vec<String>,
}

/// What came of one member.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Same,
    /// It knows nothing at the zxid at which the others were compared.
    NotThere,
    Different(Option<Astray>),
    Silent(String),
}

impl Report {
    /// Compares what the members answered. `target`: a zxid that all of them must have reached.
    pub(super) fn judge(members: Vec<MemberAnswer>, target: Option<u64>) -> Self {
        let known: BTreeMap<u64, Points> = members
            .iter()
            .filter_map(|member| Some((member.id, member.digests.clone().ok()?)))
            .collect();
        let mut report = Self {
            verdict: Verdict::Unknown,
            headline: String::new(),
            zxid: None,
            results: members.iter().map(|member| (member.id, silent(member))).collect(),
            members,
            difference: None,
            late: false,
            advice: Vec::new(),
            warnings: Vec::new(),
        };
        match compare(&known) {
            Comparison::Different(difference) => report.differs(&known, difference),
            Comparison::Equal { zxid } => report.agrees(&known, zxid, target),
            Comparison::NothingCommon => report.nothing_common(&known),
        }
        report.help();
        report.count_mismatches();
        report
    }

    pub(super) fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Whether asking again may bring more: not when the only ones missing need another configuration.
    pub(super) fn can_change(&self) -> bool {
        let patience = |silence: &Silence| match silence {
            Silence::NotAllowed { .. } | Silence::TooOld(_) | Silence::Disabled => false,
            Silence::Unreachable(_) | Silence::NotServing | Silence::NoneYet | Silence::Odd(_) => {
                true
            }
        };
        let waits = self.members.iter().any(|member| member.digests.as_ref().is_err_and(patience));
        waits || self.late || self.results.values().any(|outcome| *outcome == Outcome::NotThere)
    }

    fn agrees(&mut self, known: &BTreeMap<u64, Points>, zxid: u64, target: Option<u64>) {
        self.zxid = Some(zxid);
        for id in known.keys() {
            self.results.insert(*id, Outcome::Same);
        }
        let (all, equal) = (self.members.len(), known.len());
        let late = target.filter(|target| zxid < *target);
        self.late = late.is_some();
        if equal == all && late.is_none() {
            self.verdict = Verdict::Equal;
            self.headline = format!("all {all} members have the same tree at {zxid:#x}");
            return;
        }
        self.headline = format!("{equal} of {all} members have the same tree at {zxid:#x}");
        if equal < all {
            self.headline.push_str("; the others could not be compared");
        }
        if let Some(target) = late {
            let _written = write!(self.headline, "; not all of them have reached {target:#x}");
        }
    }

    fn nothing_common(&mut self, known: &BTreeMap<u64, Points>) {
        for id in known.keys() {
            self.results.insert(*id, Outcome::NotThere);
        }
        let all = self.members.len();
        self.headline = if known.len() < 2 {
            format!("{} of {all} members told digests: there is nothing to compare", known.len())
        } else {
            self.advice.push(
                "Ask again with --advance, which makes every member note its digest at one zxid; or with \
                 --wait SECONDS, while transactions go on."
                    .to_owned(),
            );
            format!(
                "the {} of {all} members that told digests know none at a common zxid",
                known.len()
            )
        };
    }

    fn differs(&mut self, known: &BTreeMap<u64, Points>, difference: Difference) {
        let zxid = difference.zxid;
        self.verdict = Verdict::Different;
        self.zxid = Some(zxid);
        for id in known.keys() {
            self.results.insert(*id, Outcome::NotThere);
        }
        let majority = (!difference.astray.is_empty()).then(|| difference.groups.first()).flatten();
        for (digest, ids) in &difference.groups {
            for id in ids {
                let outcome = if majority.is_some_and(|(common, _)| common == digest) {
                    Outcome::Same
                } else {
                    let astray = difference.astray.iter().find(|astray| astray.id == *id);
                    Outcome::Different(astray.copied())
                };
                self.results.insert(*id, outcome);
            }
        }
        let compared: usize = difference.groups.iter().map(|(_, ids)| ids.len()).sum();
        if let Some((_, majority)) = majority {
            let ids: Vec<u64> = difference.astray.iter().map(|astray| astray.id).collect();
            let has = if ids.len() == 1 { "has another tree" } else { "have other trees" };
            self.headline = format!(
                "{} {has} at {zxid:#x} than the majority, {} of {compared} members",
                names(&ids),
                majority.len()
            );
            for astray in &difference.astray {
                self.advise(astray);
            }
            self.advice.push("paddock quorum verify --advance".to_owned());
        } else {
            let groups: Vec<String> = difference.groups.iter().map(|(_, ids)| names(ids)).collect();
            self.headline =
                format!("no majority has the same tree at {zxid:#x}: {}", groups.join(" against "));
            self.advice.push(
                "Restart and empty no server: from here it cannot be told which tree is the right one. Keep \
                 copies of all dataDir and dataLogDir folders, compare what clients read from each server, \
                 and ask with --server for members that could not be asked."
                    .to_owned(),
            );
        }
        self.difference = Some(difference);
    }

    fn advise(&mut self, astray: &Astray) {
        let Astray { id, since, equal_at } = *astray;
        let leads = self.members.iter().any(|member| {
            member.id == id && member.answer.as_ref().is_ok_and(|answer| answer.mode == "leader")
        });
        let found = match equal_at {
            Some(equal_at) => format!(
                "one of the transactions {:#x} to {since:#x} did something else there",
                equal_at + 1
            ),
            None => format!("it was never seen equal; {since:#x} is the oldest zxid known of both"),
        };
        let election = if leads { " (it leads: the others elect another leader)" } else { "" };
        self.advice.push(format!(
            "server.{id}: {found}. Where it was synced from a leader just now, ask again first. Otherwise \
             stop it{election}, keep a copy of its dataDir and dataLogDir for whoever looks for the cause, \
             empty both but for the file myid, and start it: it gets the whole tree from the leader."
        ));
    }

    /// What makes those comparable that were not.
    fn help(&mut self) {
        let mut whitelist = Vec::new();
        let mut disabled = Vec::new();
        let mut none_yet = Vec::new();
        for member in &self.members {
            match &member.digests {
                Err(Silence::NotAllowed { .. }) => whitelist.push(member.id),
                Err(Silence::Disabled) => disabled.push(member.id),
                Err(Silence::NoneYet) => none_yet.push(member.id),
                Ok(_)
                | Err(
                    Silence::Unreachable(_)
                    | Silence::NotServing
                    | Silence::TooOld(_)
                    | Silence::Odd(_),
                ) => {}
            }
        }
        if !whitelist.is_empty() {
            self.advice.push(format!(
                "{}: add the word to 4lw.commands.whitelist in zoo.cfg, as in \
                 4lw.commands.whitelist=srvr,mntr,conf,hash,quor,ruok,isro, and restart; or let \
                 Apache's AdminServer answer (admin.enableServer=true, here --admin-port).",
                names(&whitelist)
            ));
        }
        if !disabled.is_empty() {
            self.advice.push(format!(
                "{}: digests are kept with digest.enabled=true, which is the default, after a restart.",
                names(&disabled)
            ));
        }
        if !none_yet.is_empty() {
            self.advice.push(format!(
                "{}: Apache notes its digest at every 128th zxid; --advance takes up zxids to the next one.",
                names(&none_yet)
            ));
        }
    }

    fn count_mismatches(&mut self) {
        for member in &self.members {
            if let Some(count) = member.mismatches.filter(|count| *count > 0) {
                self.warnings.push(format!(
                    "server.{} has counted {count} times since it started that its digest was not the \
                     one that came with a transaction (zk_digest_mismatches_count); that also happens \
                     while a snapshot from an Apache leader is caught up with",
                    member.id
                ));
            }
        }
    }

    /// A sentence, a table, what to do.
    pub(super) fn to_text(&self) -> String {
        let mut text = format!("{}: {}\n", self.verdict.as_str(), self.headline);
        let head = ["ID", "ADDRESS", "SERVER", "MODE", "ZXID", "DIGEST", "RESULT"];
        let mut rows = vec![head.map(str::to_owned)];
        rows.extend(self.members.iter().map(|member| self.cells(member)));
        text.push_str(&table(&rows));
        for warning in &self.warnings {
            let _written = writeln!(text, "warning: {warning}");
        }
        if !self.advice.is_empty() {
            text.push_str("What to do:\n");
            for (number, advice) in (1..).zip(&self.advice) {
                let _written = writeln!(text, "  {number}. {advice}");
            }
        }
        text
    }

    fn cells(&self, member: &MemberAnswer) -> [String; 7] {
        let none = || "-".to_owned();
        let answer = member.answer.as_ref().ok();
        let digest = self.digest_of(member);
        [
            member.id.to_string(),
            member.address.clone().unwrap_or_else(none),
            answer.and_then(|answer| answer.version.as_deref()).map_or_else(none, server_name),
            answer.map_or_else(none, |answer| answer.mode.clone()),
            answer.and_then(|answer| answer.zxid).map_or_else(none, |zxid| format!("{zxid:#x}")),
            digest.map_or_else(none, |digest| digest.to_string()),
            self.results.get(&member.id).map_or_else(none, Outcome::to_string),
        ]
    }

    /// The digest where the members were compared.
    fn digest_of(&self, member: &MemberAnswer) -> Option<i64> {
        member.digests.as_ref().ok()?.get(&self.zxid?).copied()
    }

    /// The same for programs.
    pub(super) fn to_json(&self) -> Json {
        let hex = |zxid: u64| format!("{zxid:#x}");
        let member = |member: &MemberAnswer| {
            let answer = member.answer.as_ref().ok();
            let points = member.digests.as_ref().ok();
            let outcome = self.results.get(&member.id);
            let astray = match outcome {
                Some(Outcome::Different(astray)) => *astray,
                Some(Outcome::Same | Outcome::NotThere | Outcome::Silent(_)) | None => None,
            };
            json!({
                "id": member.id,
                "role": role_name(member.role),
                "address": member.address,
                "version": answer.and_then(|answer| answer.version.as_deref()),
                "mode": answer.map(|answer| &answer.mode),
                "zxid": answer.and_then(|answer| answer.zxid).map(hex),
                "digest": self.digest_of(member).map(|digest| digest.to_string()),
                "result": outcome.map(Outcome::as_str),
                "differs_since": astray.map(|astray| hex(astray.since)),
                "equal_at": astray.and_then(|astray| astray.equal_at).map(hex),
                "digests": points.map_or(0, Points::len),
                "oldest": points.and_then(|points| points.keys().next().copied()).map(hex),
                "newest": points.and_then(|points| points.keys().next_back().copied()).map(hex),
                "digest_mismatches": member.mismatches,
                "reason": match outcome {
                    Some(Outcome::Silent(reason)) => Some(reason),
                    Some(Outcome::Same | Outcome::NotThere | Outcome::Different(_)) | None => None,
                },
            })
        };
        let astray = self.difference.iter().flat_map(|difference| &difference.astray);
        json!({
            "verdict": self.verdict.as_str(),
            "exit_code": self.verdict.code(),
            "summary": self.headline,
            "zxid": self.zxid.map(hex),
            "different": astray.map(|astray| astray.id).collect::<Vec<_>>(),
            "members": self.members.iter().map(member).collect::<Vec<_>>(),
            "warnings": self.warnings,
            "advice": self.advice,
        })
    }
}

fn silent(member: &MemberAnswer) -> Outcome {
    let Err(silence) = &member.digests else { return Outcome::NotThere };
    Outcome::Silent(match silence {
        Silence::Unreachable(why) => format!("unreachable: {why}"),
        Silence::NotServing => "not serving: `paddock quorum status` tells more".to_owned(),
        Silence::NotAllowed { admin } => format!("`hash` is not in its whitelist, and {admin}"),
        Silence::TooOld(version) => {
            format!("Apache ZooKeeper {version} keeps no digests: 3.6 and later do")
        }
        Silence::Disabled => "its digests are switched off (digest.enabled=false)".to_owned(),
        Silence::NoneYet => "it has noted no digest yet".to_owned(),
        Silence::Odd(what) => format!("no digests: {what}"),
    })
}

impl Outcome {
    fn as_str(&self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::NotThere => "not compared",
            Self::Different(_) => "different",
            Self::Silent(_) => "unknown",
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Same | Self::NotThere | Self::Different(None) => f.write_str(self.as_str()),
            Self::Different(Some(Astray { since, equal_at, .. })) => {
                write!(f, "DIFFERENT since {since:#x}")?;
                match equal_at {
                    Some(equal_at) => write!(f, ", equal at {equal_at:#x}"),
                    None => Ok(()),
                }
            }
            Self::Silent(why) => f.write_str(why),
        }
    }
}

/// `server.1, server.2 and server.3`.
fn names(ids: &[u64]) -> String {
    let names: Vec<String> = ids.iter().map(|id| format!("server.{id}")).collect();
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        Some(_) | None => names.concat(),
    }
}

/// Which server it is, in a few characters.
fn server_name(version: &str) -> String {
    match version.split_once("-paddock.") {
        Some((_, rest)) => format!("Paddock {}", short_version(rest)),
        None => format!("Apache {}", short_version(version)),
    }
}
