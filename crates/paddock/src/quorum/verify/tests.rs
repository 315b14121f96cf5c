use super::*;

fn points<const N: usize>(points: [(u64, i64); N]) -> Points {
    Points::from(points)
}

fn member(id: u64, mode: &str, digests: Result<Points, Silence>) -> MemberAnswer {
    MemberAnswer {
        id,
        role: Role::Participant,
        address: Some(format!("h{id}:2181")),
        answer: Ok(Answer {
            id: Some(id),
            mode: mode.to_owned(),
            serving: true,
            zxid: Some(0x1_0000_0205),
            version: Some(if id == 3 {
                "3.9.5-paddock.0.1.0, built on 11/22/2026 00:00 UTC".to_owned()
            } else {
                "3.9.5-0a1b2c3, built on 2026-02-11 20:18 UTC".to_owned()
            }),
            ..Answer::default()
        }),
        mismatches: Some(0),
        digests,
    }
}

/// Three members that know the same.
fn alike() -> Vec<MemberAnswer> {
    let known = || Ok(points([(0x1_0000_0100, 5), (0x1_0000_0180, 6), (0x1_0000_0200, -7)]));
    vec![
        member(1, "follower", known()),
        member(2, "leader", known()),
        member(3, "follower", known()),
    ]
}

fn exit(report: &Report) -> (String, i64) {
    let json = report.to_json();
    (json["verdict"].as_str().unwrap().to_owned(), json["exit_code"].as_i64().unwrap())
}

#[test]
fn equal_members() {
    let report = Report::judge(alike(), None);
    assert_eq!(exit(&report), ("equal".to_owned(), 0));
    assert_eq!(
        report.to_text(),
        "equal: all 3 members have the same tree at 0x100000200\n\
         ID  ADDRESS  SERVER         MODE      ZXID         DIGEST  RESULT\n\
         1   h1:2181  Apache 3.9.5   follower  0x100000205  -7      same\n\
         2   h2:2181  Apache 3.9.5   leader    0x100000205  -7      same\n\
         3   h3:2181  Paddock 0.1.0  follower  0x100000205  -7      same\n"
    );
    // One that lags is not equal as of now, wherever it was equal.
    let report = Report::judge(alike(), Some(0x1_0000_0280));
    assert_eq!(exit(&report).1, 2);
    assert!(report.to_text().contains("not all of them have reached 0x100000280"));
    assert!(report.can_change());
}

#[test]
fn a_different_member_is_named_with_what_to_do() {
    let mut members = alike();
    members[1].digests = Ok(points([(0x1_0000_0100, 5), (0x1_0000_0180, 9), (0x1_0000_0200, 9)]));
    let report = Report::judge(members, None);
    assert_eq!(exit(&report), ("different".to_owned(), 1));
    let text = report.to_text();
    assert!(
        text.starts_with(
            "different: server.2 has another tree at 0x100000200 than the majority, 2 of 3 members\n"
        ),
        "{text}"
    );
    assert!(
        text.contains("  9       DIFFERENT since 0x100000180, equal at 0x100000100\n"),
        "{text}"
    );
    assert!(text.contains("one of the transactions 0x100000101 to 0x100000180 did"), "{text}");
    assert!(text.contains("it leads"), "{text}");
    let json = report.to_json();
    assert_eq!(json["different"], serde_json::json!([2]));
    assert_eq!(json["members"][1]["differs_since"], "0x100000180");
    assert_eq!(json["members"][0]["result"], "same");
    // Two against two: nobody may be emptied.
    let mut members = alike();
    members[1].digests = Ok(points([(0x1_0000_0200, 9)]));
    members.truncate(2);
    let report = Report::judge(members, None);
    assert_eq!(exit(&report).1, 1);
    let text = report.to_text();
    assert!(text.contains("no majority") && text.contains("server.1 against server.2"), "{text}");
    assert!(text.contains("Restart and empty no server"), "{text}");
}

#[test]
fn whoever_cannot_be_asked_is_named_with_what_helps() {
    for (silence, reason, advice) in [
        (
            Silence::NotAllowed { admin: "no AdminServer at h1:8080: refused".to_owned() },
            "`hash` is not in its whitelist, and no AdminServer at h1:8080: refused",
            "server.1: add the word to 4lw.commands.whitelist",
        ),
        (Silence::Disabled, "digest.enabled=false", "digest.enabled=true"),
        (Silence::TooOld("3.5.10".to_owned()), "Apache ZooKeeper 3.5.10 keeps no digests", ""),
        (Silence::NoneYet, "no digest yet", "--advance"),
        (Silence::NotServing, "not serving", ""),
        (
            Silence::Unreachable("connection refused".to_owned()),
            "unreachable: connection refused",
            "",
        ),
    ] {
        let mut members = alike();
        members[0].digests = Err(silence.clone());
        let report = Report::judge(members, None);
        assert_eq!(exit(&report), ("unknown".to_owned(), 2), "{silence:?}");
        let text = report.to_text();
        assert!(
            text.starts_with("unknown: 2 of 3 members have the same tree at 0x100000200"),
            "{text}"
        );
        assert!(text.contains(reason) && text.contains(advice), "{text}");
        assert_eq!(report.to_json()["members"][0]["result"], "unknown");
        let settled =
            matches!(silence, Silence::NotAllowed { .. } | Silence::Disabled | Silence::TooOld(_));
        assert_eq!(report.can_change(), !settled, "{silence:?}");
    }
    // A difference among the others is found all the same.
    let mut members = alike();
    members[0].digests = Err(Silence::NoneYet);
    members[1].digests = Ok(points([(0x1_0000_0200, 1)]));
    assert_eq!(exit(&Report::judge(members, None)).1, 1);
}

#[test]
fn nothing_in_common_is_neither_equal_nor_different() {
    let mut members = alike();
    members[2].digests = Ok(points([(0x1_0000_0205, 1)]));
    let report = Report::judge(members, None);
    assert_eq!(exit(&report), ("unknown".to_owned(), 2));
    assert!(report.to_text().contains("--advance"), "{}", report.to_text());
    let report = Report::judge(alike().into_iter().take(1).collect(), None);
    assert_eq!(exit(&report).1, 2);
}

#[test]
fn mismatches_that_a_member_counted_are_told() {
    let mut members = alike();
    members[2].mismatches = Some(4);
    let report = Report::judge(members, None);
    assert_eq!(exit(&report).1, 0);
    assert!(report.to_text().contains("warning: server.3 has counted 4 times"));
}

#[test]
fn what_hash_answers() {
    let version = Some("3.9.5-x, built on y");
    // As 3.9.5 gives it: zxid in hexadecimal, digest as a signed number.
    let text = "100000080: 12557303905\n100000100: -3\n";
    let expected = points([(0x1_0000_0080, 12_557_303_905), (0x1_0000_0100, -3)]);
    assert_eq!(read_hash(text, version), Ok(expected));
    assert_eq!(read_hash("", version), Err(Silence::NoneYet));
    assert_eq!(read_hash("", None), Err(Silence::NoneYet));
    let old = read_hash("", Some("3.5.10-1, built on z"));
    assert_eq!(old, Err(Silence::TooOld("3.5.10".to_owned())));
    let refused = "hash is not executed because it is not in the whitelist.\n";
    assert!(matches!(read_hash(refused, version), Err(Silence::NotAllowed { .. })));
    assert_eq!(read_hash(NOT_SERVING, version), Err(Silence::NotServing));
    assert_eq!(read_hash("80: 0\n100: 0\n", version), Err(Silence::Disabled));
    for odd in ["HTTP/1.1 400 Bad Request\r\n", "80: x\n", "80 7\n"] {
        assert!(matches!(read_hash(odd, version), Err(Silence::Odd(_))), "{odd}");
    }
    assert_eq!(release("3.10.0-SNAPSHOT"), Some((3, 10)));
}
