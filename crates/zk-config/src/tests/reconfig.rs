//! The files of a reconfiguration, held against those that Apache 3.9.5 wrote (`conformance/record/files`).

use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::{
    Member, Properties, backup_file_path, dynamic_file_path, dynamic_file_text, edit_static_file,
    next_dynamic_file_path,
};

fn recorded(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/reconfig").join(case)
}

#[expect(clippy::disallowed_methods, reason = "recordings")]
fn read(path: &Path) -> String {
    String::from_utf8(fs::read(path).unwrap()).unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// The settings of a text, without order, blanks and comments.
fn settings(text: &str) -> Vec<(String, String)> {
    let entries = Properties::parse(text).entries.into_iter();
    let mut settings: Vec<_> = entries.map(|entry| (entry.key, entry.value)).collect();
    settings.sort();
    settings
}

/// Every step that Apache went through, with our own hands: both files come to the same each time.
fn follow(case: &str) -> usize {
    let mut texts = std::collections::BTreeMap::new();
    let mut compared = 0;
    for step in names(&recorded(case)) {
        let folder = recorded(case).join(step);
        let servers: Vec<_> = names(&folder).into_iter().filter(|name| name != "config").collect();
        if !folder.join("config").exists() {
            texts.extend(servers.into_iter().map(|server| {
                let text = read(&folder.join(&server).join("zoo.cfg"));
                (server, text)
            }));
            continue;
        }
        let config = read(&folder.join("config"));
        let (lines, version) = config.rsplit_once("version=").unwrap();
        let version = i64::from_str_radix(version, 16).unwrap();
        for server in servers {
            let file = format!("/zk/{case}/{server}/zoo.cfg");
            let dynamic = dynamic_file_path(Path::new(&file), version);
            let name = dynamic.file_name().unwrap().to_str().unwrap();
            if !folder.join(&server).join(name).exists() {
                continue; // one that has left
            }
            assert_eq!(dynamic_file_text(lines), read(&folder.join(&server).join(name)), "{name}");
            assert_eq!(dynamic_file_text(&config), dynamic_file_text(lines));
            let own = lines.lines().find_map(|line| {
                let (key, value) = line.split_once('=')?;
                (key == format!("server.{server}"))
                    .then(|| Member::parse(server.parse().unwrap(), value, false).unwrap())
            });
            let text = texts.get_mut(&server).unwrap();
            let before = text.clone();
            *text = edit_static_file(text, &dynamic, own.as_ref());
            let mut ours = settings(text);
            let theirs = settings(&read(&folder.join(&server).join("zoo.cfg")));
            // What Apache loses with `clientPort`.
            let lost = ("clientPortListenBacklog".to_owned(), "50".to_owned());
            ours.retain(|setting| *setting != lost || theirs.contains(&lost));
            assert_eq!(ours, theirs, "server {server} at {version:x}");
            assert!(text.contains("clientPortListenBacklog=50\n"));
            assert!(text.starts_with("# an operator's comment\ntickTime=500\ninitLimit = 20\n"));
            assert!(text.contains("! another comment\n"));
            if let Ok(backup) = fs::exists(folder.join(&server).join("zoo.cfg.bak"))
                && backup
            {
                assert_eq!(read(&folder.join(&server).join("zoo.cfg.bak")), before);
            }
            compared += 1;
        }
    }
    compared
}

#[test]
fn both_files_are_those_that_apache_writes() {
    assert_eq!(follow("majority"), 3 + 4 + 4 + 3);
    assert_eq!(follow("hierarchical"), 3);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the files are what is tested")]
fn what_is_written_is_read_again() {
    let folder = std::env::temp_dir().join(format!("zk-config-{}-reconfig", std::process::id()));
    fs::create_dir_all(folder.join("data")).unwrap();
    fs::write(folder.join("data/myid"), "2").unwrap();
    let file = folder.join("zoo.cfg");
    let text = format!(
        "dataDir={}\nclientPort=2182\ninitLimit=5\nsyncLimit=5\nreconfigEnabled=true\n\
         server.1=a:1:2\nserver.2=b:1:2;2182\nserver.10=[::1]:1:2:observer\n",
        folder.join("data").display()
    );
    fs::write(&file, &text).unwrap();
    let load = || Sources::new().load_file(&file).accept(false).map_err(|wrong| wrong.render());
    let before = load().unwrap().0;
    assert_eq!(before.config_file.as_deref(), Some(file.as_path()));
    let dynamic = dynamic_file_path(&file, 0x1_0000_000a);
    fs::write(&dynamic, dynamic_file_text(&before.ensemble.text())).unwrap();
    let own = before.ensemble.members.get(&2);
    fs::write(&file, edit_static_file(&text, &dynamic, own)).unwrap();
    // What upstream leaves of a proposal is read, unless something later is in force.
    let next = next_dynamic_file_path(&file);
    let write_next = |text: &str| fs::write(&next, text).unwrap();
    write_next("server.9=z:1:2\nversion=20000000b");
    let (after, notes) = load().unwrap();
    assert_eq!(after.ensemble.version, 0x1_0000_000a);
    let proposed = after.ensemble.proposed.unwrap();
    assert_eq!(proposed.version, 0x2_0000_000b);
    assert_eq!(proposed.text, "server.9=z:1:2:participant\n");
    assert!(
        notes
            .render()
            .contains("zoo.cfg.dynamic.next: note: a reconfiguration to version 20000000b"),
        "{}",
        notes.render()
    );
    write_next("server.9=z:1:2\nversion=10000000a");
    assert_eq!(load().unwrap().0.ensemble.proposed, None);
    for (text, place) in [
        ("server.9=z:1:2\n", "next: error: there is no line `version=`"),
        ("version=2x\n", "next:1: error: there is no line `version=`"),
        ("version=20000000b\nserver.9=z\n", "next:2: error: server.9"),
        ("version=20000000b\n\nclientPort=1\n", "next:3: error: clientPort"),
        ("version=20000000b\n", "next: error: there are no participants"),
    ] {
        write_next(text);
        let refused = load().unwrap_err();
        assert!(refused.contains(place), "{text}: {refused}");
    }
    fs::remove_file(&next).unwrap();
    let after = load().unwrap().0;
    assert_eq!(after.ensemble.text(), before.ensemble.text());
    assert_eq!(after.client_listener, listener(Some("0.0.0.0"), 2182));
    assert_eq!(check(&file).exit_code(false), 0, "{}", check(&file).render());
    assert_eq!(backup_file_path(&file), folder.join("zoo.cfg.bak"));
    // One that was removed is told what to do.
    fs::write(&dynamic, "server.1=a:1:2:participant\nserver.3=b:1:2:participant").unwrap();
    let refused = load().unwrap_err();
    assert!(refused.contains("add its line to"), "{refused}");
    assert!(refused.contains("zoo.cfg.dynamic.10000000a"), "{refused}");
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn only_what_moves_is_taken_out() {
    let path = Path::new("/c/zoo.cfg.dynamic.a");
    let own = |line| Member::parse(1, line, false).unwrap();
    let plain = own("h:1:2");
    for (text, own, edited) in [
        ("", None, "dynamicConfigFile=/c/zoo.cfg.dynamic.a\n"),
        ("a=1", None, "a=1\ndynamicConfigFile=/c/zoo.cfg.dynamic.a\n"),
        // The pointer stays where it was; entries go with their further lines; other line ends stay.
        (
            "#1\r\ndynamicConfigFile = old\r\n#2\r\nserver.1=a:\\\r\n  1:2\r\nb=2\r\n",
            Some(&plain),
            "#1\r\ndynamicConfigFile=/c/zoo.cfg.dynamic.a\n#2\r\nb=2\r\n",
        ),
        (
            "clientPort=1\nsecureClientPort=2\nserver.1=x\ngroup.1=1\nweight.1=1\npeerType=observer",
            Some(&plain),
            "clientPort=1\nsecureClientPort=2\ndynamicConfigFile=/c/zoo.cfg.dynamic.a\n",
        ),
        (
            "client\\\n  Port=1\nclientPortAddress:h\nsecureClientPort=2\n#server.1=x\n",
            Some(&own("h:1:2;1")),
            "secureClientPort=2\n#server.1=x\ndynamicConfigFile=/c/zoo.cfg.dynamic.a\n",
        ),
        (
            "clientPort=1\nsecureClientPort=2\nsecureClientPortAddress=h\n",
            Some(&own("h:1:2;;2")),
            "clientPort=1\ndynamicConfigFile=/c/zoo.cfg.dynamic.a\n",
        ),
        // Twice is once too often.
        (
            "dynamicConfigFile=x\na=1\ndynamicConfigFile=y\n",
            None,
            "dynamicConfigFile=/c/zoo.cfg.dynamic.a\na=1\n",
        ),
    ] {
        assert_eq!(edit_static_file(text, path, own), edited, "{text:?}");
    }
    let odd = edit_static_file("", Path::new("/c\\d/e"), None);
    assert_eq!(Properties::parse(&odd).get("dynamicConfigFile"), Some("/c\\d/e"));
}
