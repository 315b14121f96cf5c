//! The end of a run: everything must have become good again.

use super::*;

impl Ensemble {
    pub(crate) fn begin_liveness(&mut self) {
        self.queue.push(HEAL_MAX_US, Event::Deadline);
        let probe = self.clients.len() - 1;
        self.queue.push(0, Event::Client(probe, 0));
    }

    /// L1: a write on a new session, and so a leader.
    pub(super) fn deadline(&mut self) {
        if self.probe_done_us.is_none() {
            let states: Vec<String> = self
                .members
                .iter()
                .map(|member| {
                    let status = member.node.as_ref().map(Node::quorum_status);
                    format!(
                        "m{}: {:?} serving {}: {status:?}",
                        member.id, member.state, member.serving
                    )
                })
                .collect();
            return self.demand(fail(
                "L1 without faults there is a leader, and writes are committed, within 10 seconds",
                states.join("\n    "),
            ));
        }
        self.quiet = true;
        self.settle_by_us = self.now_us() + SETTLE_MAX_US;
        self.queue.push(100 * MS, Event::Settled);
    }

    /// L1, Z13: all members come to the same zxid and the same tree.
    pub(super) fn settled(&mut self) {
        let last = self.checks.commits.last();
        let all = self.members.iter().all(|member| {
            member.node.as_ref().is_some_and(|node| {
                let applied = node.read(|db| db.tree.last_zxid());
                (applied == last || self.checks.commits.floor(applied) == last) && node.is_serving()
            })
        });
        let idle = self.clients.iter().all(Client::is_idle);
        if !(all && idle) {
            if self.now_us() < self.settle_by_us {
                return self.queue.push(100 * MS, Event::Settled);
            }
            let states: Vec<String> = self
                .members
                .iter()
                .map(|member| {
                    let status = member.node.as_ref().map(Node::quorum_status);
                    format!("m{}: applied {}, {status:?}", member.id, member.applied)
                })
                .collect();
            let waiting: Vec<String> = self.clients.iter().filter_map(Client::waits_for).collect();
            return self.demand(fail(
                "L1 without faults all members come to the same state",
                format!(
                    "committed {last}\n    {}\n    clients: {waiting:?}",
                    states.join("\n    ")
                ),
            ));
        }
        let in_force: Vec<_> = self
            .members
            .iter()
            .filter_map(|member| member.node.as_ref())
            .map(|node| node.read(|db| db.config().map(str::to_owned)))
            .collect();
        if self.scenario.reconfig && in_force.windows(2).any(|two| two[0] != two[1]) {
            self.demand(fail(
                "Z16 all have the same configuration in the end",
                format!("{in_force:?}"),
            ));
        }
        for member in 0..self.members.len() {
            let verdict = self.the_tree_is_what_was_committed(member);
            self.demand(verdict);
        }
        for client in 0..self.clients.len() {
            let refused = std::mem::take(&mut self.clients[client].refused);
            for session in refused {
                // Where sessions are local, most servers do not know them.
                let local = self.scenario.local_sessions != LocalSessionMode::Disabled;
                if !local && !self.checks.sessions.has_ended(session) {
                    self.demand(fail(
                        "S4 a session that lives is not refused",
                        format!("session {session} was refused and has not ended"),
                    ));
                }
            }
        }
        self.count_lost_replies();
        self.finished = true;
    }

    /// Z13, C3: what a member has in the end is what the model says, znode by znode.
    pub(super) fn the_tree_is_what_was_committed(&self, member: usize) -> Verdict {
        const CHECKER: &str = "Z13 C3 a tree is what was committed";
        let Some(node) = &self.members[member].node else { return Ok(()) };
        node.read(|db| {
            let mut count = 0;
            for (path, znode) in db.tree.iter() {
                if path == "/" || path.is_empty() || path.starts_with("/zookeeper") {
                    continue;
                }
                count += 1;
                let expected = self.checks.model.now(&path);
                let same = expected.is_some_and(|expected| {
                    expected.stat() == znode.stat() && expected.data.as_deref() == znode.data()
                });
                if !same {
                    return fail(
                        CHECKER,
                        format!(
                            "member {member} has {path} with {:?}, not {expected:?}",
                            znode.stat()
                        ),
                    );
                }
            }
            let expected = self.checks.model.all().count();
            if count != expected {
                return fail(
                    CHECKER,
                    format!("member {member} has {count} znodes, not {expected}"),
                );
            }
            Ok(())
        })
    }
}
