//! Quorum packets, with the fields that each type has (facts, section 3.3).

use bytes::{Buf, Bytes};
use zk_proto::quorum::{
    AckEpoch, LeaderInfo, LearnerInfo, PROTOCOL_VERSION, PacketType, QuorumPacket,
};
use zk_proto::{Epoch, Record, ServerId, Zxid};

/// Stands for the current epoch in an `ACKEPOCH` that does not count, and for the zxid of a server
/// that may have lost its data.
pub(crate) const NONE: i32 = -1;

/// The zxid of an epoch's beginning: no transaction has it.
pub(crate) fn epoch_zxid(epoch: Epoch) -> Zxid {
    Zxid::new(epoch, 0)
}

fn packet(packet_type: PacketType, zxid: Zxid, data: Option<Bytes>) -> QuorumPacket {
    QuorumPacket { packet_type, zxid, data, authinfo: None }
}

/// A packet without data.
pub(crate) fn bare(packet_type: PacketType, zxid: Zxid) -> QuorumPacket {
    packet(packet_type, zxid, None)
}

/// `PROPOSAL` or `INFORM`.
pub(crate) fn txn(packet_type: PacketType, zxid: Zxid, txn: &Bytes) -> QuorumPacket {
    packet(packet_type, zxid, Some(txn.clone()))
}

/// `FOLLOWERINFO` or `OBSERVERINFO`.
pub(crate) fn learner_info(
    packet_type: PacketType,
    accepted: Epoch,
    server_id: ServerId,
    config_version: i64,
) -> QuorumPacket {
    let info = LearnerInfo { server_id, protocol_version: PROTOCOL_VERSION, config_version };
    packet(packet_type, epoch_zxid(accepted), Some(info.to_bytes()))
}

/// `LEADERINFO`.
pub(crate) fn leader_info(epoch: Epoch) -> QuorumPacket {
    let info = LeaderInfo { protocol_version: PROTOCOL_VERSION };
    packet(PacketType::LEADER_INFO, epoch_zxid(epoch), Some(info.to_bytes()))
}

/// `ACKEPOCH`.
pub(crate) fn ack_epoch(last_logged: Zxid, current_epoch: i32) -> QuorumPacket {
    packet(PacketType::ACK_EPOCH, last_logged, Some(AckEpoch { current_epoch }.to_bytes()))
}

/// `NEWLEADER`.
pub(crate) fn new_leader(epoch: Epoch, members: &str) -> QuorumPacket {
    let data = Bytes::copy_from_slice(members.as_bytes());
    packet(PacketType::NEW_LEADER, epoch_zxid(epoch), Some(data))
}

/// `COMMITANDACTIVATE`.
pub(crate) fn commit_and_activate(zxid: Zxid, leader: ServerId) -> QuorumPacket {
    let data = Bytes::copy_from_slice(&leader.0.to_be_bytes());
    packet(PacketType::COMMIT_AND_ACTIVATE, zxid, Some(data))
}

/// `INFORMANDACTIVATE`.
pub(crate) fn inform_and_activate(zxid: Zxid, leader: ServerId, txn: &Bytes) -> QuorumPacket {
    let data = [&leader.0.to_be_bytes()[..], txn].concat();
    packet(PacketType::INFORM_AND_ACTIVATE, zxid, Some(data.into()))
}

/// The leader that a reconfiguration's commit names, and what comes behind it.
pub(crate) fn designated_leader(data: Option<&Bytes>) -> Option<(ServerId, Bytes)> {
    let mut data = data?.clone();
    let leader = data.try_get_i64().ok()?;
    Some((ServerId(leader), data))
}

/// `UPTODATE`.
pub(crate) fn up_to_date() -> QuorumPacket {
    bare(PacketType::UP_TO_DATE, Zxid(-1))
}

#[cfg(test)]
mod tests {
    use zk_proto::quorum::PacketType;

    use super::*;

    /// As an ensemble of Apache ZooKeeper 3.9.5 sent them (`zk-proto/testdata/quorum.txt`).
    #[test]
    fn packets_are_those_of_upstream() {
        let hex = |packet: QuorumPacket| -> String {
            packet.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
        };
        for (packet, recorded) in [
            (
                learner_info(PacketType::FOLLOWER_INFO, Epoch(0), ServerId(1), 0),
                "0000000b0000000000000000000000140000000000000001000100000000000000000000ffffffff",
            ),
            (
                learner_info(PacketType::OBSERVER_INFO, Epoch(0), ServerId(4), 0),
                "000000100000000000000000000000140000000000000004000100000000000000000000ffffffff",
            ),
            (ack_epoch(Zxid(0), 0), "0000001200000000000000000000000400000000ffffffff"),
            (
                bare(PacketType::ACK, epoch_zxid(Epoch(1))),
                "000000030000000100000000ffffffffffffffff",
            ),
            (leader_info(Epoch(1)), "0000001100000001000000000000000400010000ffffffff"),
            (bare(PacketType::DIFF, Zxid(0)), "0000000d0000000000000000ffffffffffffffff"),
            (up_to_date(), "0000000cffffffffffffffffffffffffffffffff"),
            (
                bare(PacketType::PING, epoch_zxid(Epoch(1))),
                "000000050000000100000000ffffffffffffffff",
            ),
            (
                bare(PacketType::TRUNC, Zxid(0x1_0000_000b)),
                "0000000e000000010000000bffffffffffffffff",
            ),
            (new_leader(Epoch(1), "x"), "0000000a00000001000000000000000178ffffffff"),
            (
                txn(PacketType::INFORM, Zxid(0x1_0000_0001), &Bytes::from_static(b"t")),
                "0000000800000001000000010000000174ffffffff",
            ),
        ] {
            assert_eq!(hex(packet.clone()), recorded, "{packet:?}");
        }
    }
}
