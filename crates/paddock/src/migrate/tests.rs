use zk_testkit::golden;

use super::plan::{Named, plan};
use super::*;

/// A case: options in the first line, then files, each behind a line `file [N=]NAME`; one of them may be a
/// server's Java flags, behind `flags`, or its myid, behind `myid N`.
fn run_case(case: &str) -> String {
    let mut options = Options {
        stop: "zkServer.sh stop {config}".into(),
        start: "zkServer.sh start {config}".into(),
        ..Options::default()
    };
    let mut inputs: Vec<Input> = Vec::new();
    let mut as_json = false;
    for line in case.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["plan", flags @ ..] => {
                for flag in flags {
                    match flag.split_once('=') {
                        None if *flag == "--in-place" => options.in_place = true,
                        None if *flag == "--json" => as_json = true,
                        Some(("--leader", id)) => options.leader = Some(id.parse().unwrap()),
                        Some(("--config-path", path)) => {
                            options.config_path = Some(path.to_owned())
                        }
                        Some(("--data-dir", dir)) => options.data_dir = Some(dir.to_owned()),
                        other => panic!("{flag}: {other:?}"),
                    }
                }
            }
            ["file", name] => {
                let (id, file) = match name.split_once('=') {
                    Some((id, file)) => (Some(id.parse().unwrap()), file),
                    None => (None, *name),
                };
                inputs.push(Input {
                    id,
                    file: file.to_owned(),
                    text: String::new(),
                    dynamic: None,
                    my_id: None,
                    flags: Vec::new(),
                });
            }
            ["flags", flags @ ..] => inputs
                .last_mut()
                .unwrap()
                .flags
                .push(Named { name: "java.env (JVMFLAGS)".to_owned(), text: flags.join(" ") }),
            ["myid", id] => {
                inputs.last_mut().unwrap().my_id =
                    Some(Named { name: "myid".to_owned(), text: (*id).to_owned() });
            }
            _ => {
                let input = inputs.last_mut().expect("a file first");
                input.text.push_str(line);
                input.text.push('\n');
            }
        }
    }
    match plan(&inputs, &options) {
        Ok(plan) if as_json => format!("{:#}\n", render::json(&plan)),
        Ok(plan) => render::text(&plan),
        Err(refused) if as_json => format!("{:#}\n", render::refused_json(&refused)),
        Err(refused) => render::refused_text(&refused),
    }
}

#[test]
fn plans() {
    golden::check_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/migrate/testdata"), run_case);
}

#[test]
fn files_are_found_and_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let dynamic = "server.1=zk1:2888:3888:participant;2181\nserver.2=zk2:2888:3888:participant;2181\n\
                   server.3=zk3:2888:3888:participant;2181\n";
    let zoo = "dataDir=/nowhere/data\ninitLimit=10\nsyncLimit=5\ntickTime=2000\n\
               dynamicConfigFile=/nowhere/zoo.cfg.dynamic.100\n";
    let mut files = Vec::new();
    for id in 1..=3 {
        let file = write(&format!("zk{id}/zoo.cfg"), zoo);
        write(&format!("zk{id}/zoo.cfg.dynamic.100"), dynamic);
        // The first is named by the operator.
        if id == 1 {
            files.push(format!("1={file}"));
        } else {
            write(&format!("zk{id}/myid"), &format!("{id}\n"));
            files.push(file);
        }
    }
    write("zk2/java.env", "export SERVER_JVMFLAGS=\"-Xmx1g -Dzookeeper.skipACL=yes\"\n");
    let read = |files: &[String]| {
        let inputs: Result<Vec<Input>, String> =
            files.iter().map(|file| read_server(file, &[])).collect();
        inputs
    };
    let inputs = read(&files).unwrap();
    let options = Options { stop: "stop".into(), start: "start".into(), ..Options::default() };
    let text = render::text(&plan(&inputs, &options).unwrap());
    assert!(text.starts_with("Plan: 3 participants, replaced one at a time"), "{text}");
    assert!(text.contains("SERVER_JVMFLAGS='-Dzookeeper.skipACL=yes' paddock server"), "{text}");
    assert!(
        text.contains(
            "skipACL is not the same everywhere: not set on server.1, server.3; yes on server.2"
        ),
        "{text}"
    );
    assert!(text.contains("Nobody reconfigures"), "{text}");
    // Without a number or a myid nobody knows whose file it is.
    std::fs::remove_file(folder.path().join("zk3/myid")).unwrap();
    let Refused(problems) = plan(&read(&files).unwrap(), &options).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains("there is no myid"), "{problems:?}");
    assert!(read(&["x=y".to_owned()]).unwrap_err().contains("x=y: cannot be read"));
}
