//! Members with several addresses, of which some lead nowhere, or lead nowhere any more.

use std::time::{Duration, Instant};

use crate::cluster::{Cluster, Plan, Second, word};
use crate::proxy::Flow;
use crate::{alone, say};

fn plan(second_address: Second, proxied: bool) -> Plan {
    let mut plan = Plan { second_address, proxied, observers: 1, ..Plan::default() };
    plan.lines.push("multiAddress.enabled=true".to_owned());
    plan
}

/// Elections, following and writes go on whoever is gone, and who was gone comes back.
fn goes_on_without_its_leader(cluster: &mut Cluster) {
    for _ in 0..2 {
        let leader = cluster.await_leader();
        let began = Instant::now();
        cluster.kill(leader);
        cluster.await_serving("the others go on", Duration::from_secs(20));
        say(&format!("without server {} after {:?}", leader + 1, began.elapsed()));
        cluster.start_member(leader);
        cluster.await_serving("it comes back", Duration::from_secs(20));
    }
    cluster.await_agreement();
}

#[test]
fn members_are_reached_at_either_address() {
    let _alone = alone();
    let mut cluster = Cluster::start(plan(Second::Member, false));
    let text = word(cluster.members[3].client, "conf").unwrap();
    let (real, id) = (cluster.members[0].real, cluster.members[0].id);
    let (quorum, election) = (real.quorum, real.election);
    let line = format!(
        "server.{id}=127.0.0.1:{quorum}:{election}|127.0.0.2:{quorum}:{election}:participant"
    );
    assert!(text.lines().any(|own| own == line), "{line} is not in\n{text}");
    goes_on_without_its_leader(&mut cluster);
}

#[test]
fn an_address_where_connections_are_refused_is_passed_over() {
    let _alone = alone();
    goes_on_without_its_leader(&mut Cluster::start(plan(Second::Nobody, false)));
}

#[test]
fn an_address_that_does_not_answer_is_passed_over() {
    let _alone = alone();
    goes_on_without_its_leader(&mut Cluster::start(plan(Second::Silence, false)));
}

/// The links that stand go by the first addresses. Those end, and the second ones are taken.
#[test]
fn when_one_network_is_gone_the_other_one_is_used() {
    let _alone = alone();
    let mut cluster = Cluster::start(plan(Second::Member, true));
    let zxid = cluster.await_agreement();
    for index in 0..cluster.count() {
        cluster.separate(&[index], Flow::Reset);
    }
    cluster.await_serving("by the other network", Duration::from_secs(20));
    assert!(cluster.await_agreement() > zxid);
    goes_on_without_its_leader(&mut cluster);
    for index in 0..cluster.count() {
        cluster.separate(&[index], Flow::FREE);
    }
    goes_on_without_its_leader(&mut cluster);
}
