//! What nodes ask for, and what must be so when they do.

use super::*;

impl Ensemble {
    pub(super) fn perform(&mut self, member: usize, action: Action) {
        match action {
            Action::Persist { token, write } => self.persist(member, token, write),
            Action::Notify { to, notification } => {
                let it = &self.members[member];
                if notification.state == PeerState::Looking && notification.leader == it.id {
                    // A vote of others for it, from before it lost its last writes, is taken over as
                    // any better one is; what it really has counts with its followers' `ACKEPOCH`.
                    let (zxid, end) = (notification.zxid, it.disk.end().max(it.claimed));
                    let verdict = durability::a_vote_speaks_of_the_own_log(member, zxid, end);
                    self.demand(verdict);
                }
                let to = usize::try_from(to.0 - 1).unwrap_or(usize::MAX);
                if to < self.members.len() {
                    self.send_notification(member, to, Box::new(notification));
                }
            }
            Action::Connect { link, server, port } => self.dial(member, link, server, port),
            Action::Close { link } => {
                if let Some((link, end)) = self.members[member].links.remove(&link) {
                    self.hang_up(link, end);
                }
            }
            Action::Send { link, packet } => self.send(member, link, packet),
            Action::SendHistory { link, after, to } => self.send_history(member, link, after, to),
            Action::SendSnapshot { link, to } => self.send_snapshot(member, link, to),
            Action::Propose { .. } => {} // the simulated network needs no addresses
            Action::Activate { members } => {
                self.say(|| format!("m{} activates {}", member + 1, members.to_text()));
                let known =
                    self.configurations.entry(members.version).or_insert(members.text.clone());
                let verdict = if *known == members.text {
                    Ok(())
                } else {
                    fail(
                        "Z16 a version is of one configuration",
                        format!("version {:x}: {known} and {}", members.version, members.text),
                    )
                };
                self.demand(verdict);
                self.members[member].file = Some(members);
            }
            Action::Halt { why } => {
                self.demand(fail("L1 no member halts", format!("member {member}: {why}")));
            }
        }
    }

    pub(super) fn persist(&mut self, member: usize, token: zk_zab::Token, write: Write) {
        let verdict = match &write {
            Write::Append { .. } => Ok(()), // looked at before
            Write::AcceptedEpoch(epoch) => {
                let it = &mut self.members[member];
                let before = std::mem::replace(&mut it.asked_accepted, *epoch);
                Leadership::epochs_never_go_back(member, "accepted", before, *epoch, *epoch)
            }
            Write::CurrentEpoch(epoch) => {
                let it = &mut self.members[member];
                let before = std::mem::replace(&mut it.asked_current, *epoch);
                let accepted = it.asked_accepted;
                Leadership::epochs_never_go_back(member, "current", before, *epoch, accepted)
            }
            Write::Truncate(zxid) => {
                let end = self.members[member].disk.end();
                if end > *zxid {
                    self.met(Marker::OutstandingDiscarded);
                }
                self.what_counts_stays(member, *zxid, end)
            }
            Write::InstallSnapshot { .. } => Ok(()),
        };
        self.demand(verdict);
        self.say(|| match &write {
            Write::Append { zxid, .. } => format!("m{} writes {zxid}", member + 1),
            other => format!("m{} writes {other:?}", member + 1),
        });
        let now_us = self.now_us();
        let it = &mut self.members[member];
        let staged = match &write {
            Write::InstallSnapshot { link, .. } => it.staged.get(link).cloned(),
            Write::Append { .. }
            | Write::AcceptedEpoch(_)
            | Write::CurrentEpoch(_)
            | Write::Truncate(_) => None,
        };
        it.disk.submit(token, write, staged, now_us);
        self.sync(member);
    }

    /// Z10, of a member that counts: who voted when something was proposed, and does not any more, is no part of
    /// the quorum that committed it. It gets again what it had.
    pub(super) fn what_counts_stays(&self, member: usize, kept: Zxid, before: Zxid) -> Verdict {
        let it = &self.members[member];
        let counts = self.verifier.is_voter(it.id) && it.state != PeerState::Observing;
        if self.scenario.reconfig && !counts {
            return Ok(());
        }
        self.checks.commits.committed_transactions_stay_on_a_disk(member, kept, before)
    }

    /// What a member appends to its log, before anything that it asks for in the same breath: a
    /// proposal may be sent first and appended then.
    pub(super) fn inspect_appends(&mut self, member: usize, actions: &[Action]) {
        let mut end = self.members[member].disk.end();
        for action in actions {
            let Action::Persist { write, .. } = action else { continue };
            match write {
                Write::Append { zxid, txn } => {
                    let verdict = self.appended(member, end, *zxid, txn);
                    self.demand(verdict);
                    end = *zxid;
                }
                Write::Truncate(zxid) | Write::InstallSnapshot { zxid, .. } => end = *zxid,
                Write::AcceptedEpoch(_) | Write::CurrentEpoch(_) => {}
            }
        }
    }

    pub(super) fn appended(
        &mut self,
        member: usize,
        before: Zxid,
        zxid: Zxid,
        txn: &Bytes,
    ) -> Verdict {
        let it = &self.members[member];
        let life = it.life;
        let leads = self.checks.ledger.get(zxid).is_none()
            && (self.scenario.standalone
                || it
                    .node
                    .as_ref()
                    .is_some_and(|node| node.quorum_status().state == PeerState::Leading)
                || self.checks.leadership.history(zxid.epoch()).is_some()
                    && self.checks.leadership.is_of(zxid.epoch(), member, life));
        let logged = self.checks.ledger.every_log_is_a_prefix_of_what_was_proposed(
            (member, life),
            leads,
            before,
            zxid,
            txn,
        )?;
        let Logged::Proposed { first } = logged else { return Ok(()) };
        if first && !self.scenario.standalone {
            let applied =
                it.node.as_ref().map_or(Zxid::ZERO, |node| node.read(|db| db.tree.last_zxid()));
            Leadership::a_new_primary_has_delivered_what_was_before_it(
                member, zxid, before, applied,
            )?;
        }
        if zxid.counter() == self.scenario.counter_limit {
            self.markers.met(Marker::Rollover);
        }
        let Some(proposed) = self.checks.ledger.get(zxid) else { return Ok(()) };
        if matches!(proposed.txn.txn, Txn::CloseSession(_)) {
            let slack_us = (self.scenario.tick_ms + 300) * MS;
            // What a slow network makes late may be late by seconds, for as long as it is slow.
            let slow = self.network.is_slow() || self.members.iter().any(|member| member.slow > 1);
            let disturbed_us = if slow { self.now_us() } else { self.disturbed_us };
            self.checks.sessions.no_session_expires_before_its_timeout(
                &proposed.txn.header,
                self.now_us(),
                disturbed_us,
                slack_us,
            )?;
        }
        Ok(())
    }
}
