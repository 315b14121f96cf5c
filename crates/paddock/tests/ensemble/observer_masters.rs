//! Observers behind followers, with real processes.

use std::time::Duration;

use zk_testkit::free_port;

use crate::cluster::{Cluster, Mode, Plan};
use crate::faults::Fault;
use crate::{alone, suffer};

fn plan() -> Plan {
    Plan {
        observers: 2,
        proxied: false,
        observer_master_port: Some(free_port()),
        ..Plan::default()
    }
}

/// The server behind which an observer is, by index.
fn master(cluster: &Cluster, observer: usize) -> Option<usize> {
    let id = cluster.members[observer].metric("zk_observer_master_id")?;
    cluster.members.iter().position(|member| member.id as f64 == id)
}

/// Waits until both observers are behind followers, which know them; whom each is behind.
fn behind_followers(cluster: &Cluster) -> [usize; 2] {
    let what = "the observers are behind followers";
    cluster.await_that(what, Duration::from_secs(20), || {
        let masters = [master(cluster, 3)?, master(cluster, 4)?];
        let leader = cluster.leader()?;
        let fed = |index: usize| cluster.members[index].metric("zk_synced_observers");
        if masters.contains(&leader) || fed(leader)? != 0.0 {
            return None;
        }
        let known = masters.iter().all(|master| {
            let count = masters.iter().filter(|other| *other == master).count();
            fed(*master) == Some(count as f64)
        });
        known.then_some(masters)
    })
}

#[test]
fn observers_are_fed_by_followers_and_find_another_when_one_is_lost() {
    let _alone = alone();
    let mut cluster = Cluster::start(plan());
    let masters = behind_followers(&cluster);
    for observer in [3, 4] {
        assert_eq!(cluster.status(observer).map(|status| status.mode), Some(Mode::Observer));
        assert!(cluster.members[observer].acknowledges_a_write());
    }
    cluster.await_agreement();
    // Its follower goes.
    cluster.kill(masters[0]);
    let what = "the observer finds another follower";
    let next = cluster.await_that(what, Duration::from_secs(20), || {
        master(&cluster, 3).filter(|next| *next != masters[0] && Some(*next) != cluster.leader())
    });
    cluster.await_serving("all serve that are left", Duration::from_secs(20));
    assert!(cluster.members[3].acknowledges_a_write());
    cluster.start_member(masters[0]);
    cluster.await_serving("it comes back", Duration::from_secs(20));
    assert_eq!(master(&cluster, 3), Some(next), "there is no reason to leave");
    // The leader goes, and with it everybody's role.
    let leader = cluster.await_leader();
    cluster.kill(leader);
    cluster.await_serving("with another leader", Duration::from_secs(20));
    cluster.start_member(leader);
    cluster.await_serving("all", Duration::from_secs(20));
    behind_followers(&cluster);
    cluster.await_agreement();
}

/// Nobody but the leader has a port that an observer can reach.
#[test]
fn without_a_follower_that_feeds_them_observers_go_to_the_leader() {
    let _alone = alone();
    let port = free_port();
    let mut cluster = Cluster::prepare(Plan { observer_master_port: Some(port), ..plan() });
    // Whoever listens there is no server of the ensemble.
    let taken: Vec<std::net::TcpListener> = (0..3)
        .map(|index| std::net::TcpListener::bind((format!("127.0.0.{}", 11 + index), port)))
        .collect::<Result<_, _>>()
        .expect("the port is free");
    cluster.start_all();
    cluster.await_serving("the ensemble starts", Duration::from_secs(40));
    let leader = cluster.await_leader();
    assert_eq!([3, 4].map(|observer| master(&cluster, observer)), [Some(leader); 2]);
    for follower in (0..3).filter(|index| *index != leader) {
        assert!(cluster.members[follower].said("cannot listen on the observer master port") > 0);
    }
    drop(taken);
    cluster.await_agreement();
}

#[test]
fn observers_behind_followers_under_faults() {
    let faults = [
        Fault::KillFollower,
        Fault::PauseFollower,
        Fault::KillLeader,
        Fault::RollingRestart,
        Fault::PauseLeader,
        Fault::KillAll,
        Fault::WipeFollower,
        Fault::PauseAll,
    ];
    suffer(plan(), faults.len(), &faults);
}
