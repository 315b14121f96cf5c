//! The repository's own rules, where no lint of the compiler's can see them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Which of our crates each crate may use. A new edge is a decision: it is made here.
const EDGES: &[(&str, &[&str])] = &[
    ("zk-jute", &[]),
    ("zk-proto", &["zk-jute"]),
    ("zk-tree", &["zk-jute", "zk-proto"]),
    ("zk-session", &["zk-jute", "zk-proto"]),
    ("zk-zab", &["zk-jute", "zk-proto"]),
    ("zk-processor", &["zk-jute", "zk-proto", "zk-tree", "zk-session", "zk-zab"]),
    ("zk-config", &["zk-jute", "zk-proto"]),
    ("zk-storage", &["zk-jute", "zk-proto", "zk-tree", "zk-zab"]),
    (
        "zk-server",
        &[
            "zk-jute",
            "zk-proto",
            "zk-tree",
            "zk-session",
            "zk-zab",
            "zk-processor",
            "zk-storage",
            "zk-config",
        ],
    ),
    ("zk-client", &["zk-jute", "zk-proto"]),
    ("zk-cli", &["zk-client", "zk-proto"]),
    ("zk-bench", &["zk-jute", "zk-proto"]),
    ("zk-testkit", &["zk-jute", "zk-proto"]),
    (
        "zk-sim",
        &["zk-jute", "zk-proto", "zk-tree", "zk-session", "zk-zab", "zk-processor", "zk-testkit"],
    ),
    (
        "paddock",
        &["zk-server", "zk-client", "zk-cli", "zk-bench", "zk-config", "zk-proto", "zk-zab"],
    ),
];

/// No I/O, no clock, no randomness, no threads.
const PURE: &[&str] = &["zk-jute", "zk-proto", "zk-tree", "zk-session", "zk-zab", "zk-processor"];

/// Crates that log or answer, and never print.
const SILENT: &[&str] = &["zk-storage", "zk-config"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// Every file below `dir` that is ours: not built, not fetched, not version control's.
fn files(dir: &Path, out: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    let mut entries: Vec<_> =
        entries.map(|entry| entry.expect("a readable folder").path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            let foreign = ["target", ".git", "node_modules", "corpus", "artifacts", "__pycache__"];
            if !foreign.contains(&name.as_str()) {
                files(&path, out);
            }
        } else {
            out.push(path);
        }
    }
}

fn files_below(dir: impl AsRef<Path>) -> Vec<PathBuf> {
    let mut out = Vec::new();
    files(dir.as_ref(), &mut out);
    out
}

fn crates() -> Vec<(String, PathBuf)> {
    let mut found: Vec<_> = fs::read_dir(root().join("crates"))
        .expect("the crates folder")
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.join("Cargo.toml").exists())
        .map(|path| (path.file_name().expect("a name").to_string_lossy().into_owned(), path))
        .collect();
    found.sort();
    assert!(found.len() > 10, "the crates were not found");
    found
}

fn rust_files(dir: impl AsRef<Path>) -> Vec<PathBuf> {
    let mut found = files_below(dir);
    found.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    found
}

/// The lines of a source file that ship, with their numbers: unit tests stand at the end of a file,
/// or in a file of their own.
fn shipped_lines(path: &Path) -> Vec<(usize, String)> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if name == "tests.rs" || path.components().any(|part| part.as_os_str() == "tests") {
        return Vec::new();
    }
    let text = read(path);
    let mut lines = (1..).zip(text.lines());
    let mut shipped = Vec::new();
    while let Some((number, line)) = lines.next() {
        if line == "#[cfg(test)]" {
            // `mod tests;` is one line; `mod tests {` goes to the end of the file.
            match lines.next() {
                Some((_, next)) if next.ends_with(';') => continue,
                Some(_) | None => break,
            }
        }
        shipped.push((number, line.to_owned()));
    }
    shipped
}

/// A line without its comment. Quotes are not parsed: a `//` within a string only hides more.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

fn report(rule: &str, problems: &[String]) {
    assert!(problems.is_empty(), "{rule}:\n  {}", problems.join("\n  "));
}

/// The dependencies of a Cargo.toml by section: `dependencies`, `dev-dependencies`, ...
fn dependencies(manifest: &str) -> Vec<(String, String)> {
    let mut section = String::new();
    let mut found = Vec::new();
    for line in manifest.lines() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name.to_owned();
        } else if section.ends_with("dependencies") {
            let name: String =
                line.chars().take_while(|c| c.is_alphanumeric() || "-_".contains(*c)).collect();
            if !name.is_empty() {
                found.push((section.clone(), name));
            }
        }
    }
    found
}

#[test]
fn crates_depend_only_along_the_known_edges() {
    let edges: BTreeMap<_, _> = EDGES.iter().copied().collect();
    let mut problems = Vec::new();
    for (name, dir) in crates() {
        let Some(allowed) = edges.get(name.as_str()) else {
            problems.push(format!("{name} is not in the table of edges"));
            continue;
        };
        for (section, used) in dependencies(&read(&dir.join("Cargo.toml"))) {
            let ours = edges.contains_key(used.as_str());
            // Tests may use the test kit; and a front end may be tested against the server.
            let for_tests = section == "dev-dependencies"
                && (used == "zk-testkit" || !PURE.contains(&name.as_str()));
            if ours && !allowed.contains(&used.as_str()) && !for_tests {
                problems.push(format!("{name} → {used} ({section})"));
            }
        }
    }
    report("an edge that is not in the table", &problems);
}

#[test]
fn the_table_of_edges_has_no_cycle() {
    for (index, (name, uses)) in EDGES.iter().enumerate() {
        for used in *uses {
            let at = EDGES.iter().position(|(other, _)| other == used).expect("a crate of ours");
            let testkit_before_sim = *used == "zk-testkit";
            assert!(at < index || testkit_before_sim, "{name} stands before {used}");
        }
    }
}

#[test]
fn pure_crates_are_pure() {
    const FORBIDDEN: &[&str] = &[
        "Instant",
        "SystemTime",
        "thread::",
        "std::thread",
        "std::fs",
        "std::env",
        "std::process",
        "TcpStream",
        "TcpListener",
        "UdpSocket",
        "ToSocketAddrs",
        "UnixStream",
        "tokio",
        "println!",
        "eprintln!",
        "print!(",
        "eprint!(",
        "async fn",
        ".await",
    ];
    let mut problems = Vec::new();
    for name in PURE {
        for path in rust_files(root().join("crates").join(name).join("src")) {
            let lines = shipped_lines(&path);
            let hashbrown = lines.iter().any(|(_, line)| code(line).contains("use hashbrown::"));
            for (number, line) in &lines {
                let code = code(line);
                let word = FORBIDDEN.iter().find(|word| code.contains(**word));
                let hashed = code.contains("HashMap") || code.contains("HashSet");
                let std_hash = hashed
                    && (code.contains("std::collections")
                        || !(hashbrown || code.contains("hashbrown")));
                if let Some(word) = word {
                    problems.push(format!("{}:{number}: {word}", shown(&path)));
                }
                if std_hash {
                    problems.push(format!("{}:{number}: std's hash collections", shown(&path)));
                }
            }
        }
    }
    report(
        "a pure crate has no clock, thread, file, socket, environment or random order",
        &problems,
    );
}

#[test]
fn silent_crates_do_not_print() {
    let mut problems = Vec::new();
    for name in SILENT {
        for path in rust_files(root().join("crates").join(name).join("src")) {
            for (number, line) in shipped_lines(&path) {
                if ["println!", "print!("].iter().any(|word| code(&line).contains(word)) {
                    problems.push(format!("{}:{number}", shown(&path)));
                }
            }
        }
    }
    report("prints instead of logging", &problems);
}

#[test]
fn wildcard_arms_say_why() {
    let mut problems = Vec::new();
    for name in PURE {
        for path in rust_files(root().join("crates").join(name).join("src")) {
            let mut above = String::new();
            for (number, line) in shipped_lines(&path) {
                let wildcard = code(&line).trim_start().starts_with("_ =>")
                    || code(&line).trim_start().starts_with("_ if ");
                if wildcard && !line.contains("//") && !above.trim_start().starts_with("//") {
                    problems.push(format!("{}:{number}", shown(&path)));
                }
                above = line;
            }
        }
    }
    report("`_ =>` without a comment that says why no variant is named", &problems);
}

#[test]
fn every_crate_states_its_invariants() {
    let mut problems = Vec::new();
    for (name, dir) in crates() {
        let entry = ["src/lib.rs", "src/main.rs"]
            .iter()
            .map(|file| dir.join(file))
            .find(|path| path.exists())
            .unwrap_or_else(|| panic!("{name} has neither lib.rs nor main.rs"));
        let text = read(&entry);
        let doc: Vec<_> = text.lines().take_while(|line| line.starts_with("//!")).collect();
        let list = doc.iter().position(|line| line.starts_with("//! # Invariants"));
        if !list.is_some_and(|at| doc[at..].iter().any(|line| line.starts_with("//! - "))) {
            problems.push(shown(&entry));
        }
    }
    report("the crate's documentation has no list under `# Invariants`", &problems);
}

#[test]
fn every_crate_obeys_the_lints_of_the_workspace() {
    let mut problems = Vec::new();
    for (name, dir) in crates() {
        if !read(&dir.join("Cargo.toml")).contains("[lints]\nworkspace = true") {
            problems.push(name.clone());
        }
        if PURE.contains(&name.as_str()) && !dir.join("clippy.toml").exists() {
            problems.push(format!("{name} has no clippy.toml of its own"));
        }
    }
    report("the lints are not switched on", &problems);
}

#[test]
fn pure_crates_repeat_the_shared_keys_of_clippy() {
    // Lists differ; the scalars must not.
    let scalars = |text: &str| -> Vec<String> {
        let keys =
            text.lines().filter(|line| line.contains(" = ") && !line.starts_with([' ', '#']));
        keys.filter(|line| !line.ends_with('[')).map(str::to_owned).collect()
    };
    let shared = scalars(&read(&root().join("clippy.toml")));
    assert!(shared.len() > 5, "{shared:?}");
    for name in PURE {
        let own = read(&root().join("crates").join(name).join("clippy.toml"));
        assert_eq!(scalars(&own), shared, "{name}/clippy.toml");
    }
}

#[test]
fn every_module_file_is_reachable() {
    let mut problems = Vec::new();
    for (_, dir) in crates() {
        let sources = rust_files(dir.join("src"));
        let all: String = sources.iter().map(|path| read(path)).collect();
        for path in &sources {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let module = match stem.as_str() {
                "lib" | "main" => continue,
                "mod" => path
                    .parent()
                    .and_then(Path::file_name)
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned(),
                _ if path.parent().is_some_and(|parent| parent.ends_with("src/bin")) => continue,
                _ => stem,
            };
            if !all.contains(&format!("mod {module};")) {
                problems.push(shown(path));
            }
        }
    }
    report("no `mod` names this file", &problems);
}

#[test]
fn every_testdata_file_is_used() {
    let mut problems = Vec::new();
    for (_, dir) in crates() {
        let rust: String = ["src", "tests", "benches"]
            .iter()
            .flat_map(|folder| rust_files(dir.join(folder)))
            .map(|path| read(&path))
            .collect();
        for testdata in ["testdata", "tests/testdata", "src/testdata"] {
            for path in files_below(dir.join(testdata)) {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                let folder = path.parent().and_then(|parent| parent.strip_prefix(&dir).ok());
                let folder = folder.map(|folder| folder.display().to_string()).unwrap_or_default();
                let whole_folder =
                    rust.contains("check_dir") && rust.contains(&format!("{folder}\""));
                if !rust.contains(&name) && !rust.contains(&format!("\"{stem}\"")) && !whole_folder
                {
                    problems.push(shown(&path));
                }
            }
        }
    }
    report("no test reads this file", &problems);
}

/// Every text file of the tree.
fn texts() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for path in files_below(root()) {
        if let Ok(text) = fs::read_to_string(&path) {
            found.push((path, text));
        }
    }
    assert!(found.len() > 50, "the tree was not found");
    found
}

#[test]
fn nothing_is_left_to_do_later() {
    // Put together here, so that this file passes its own rule.
    let words =
        [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:"), concat!("to", "do!(")];
    let mut problems = Vec::new();
    for (path, text) in texts() {
        for (number, line) in (1..).zip(text.lines()) {
            if words.iter().any(|word| line.contains(word)) {
                problems.push(format!("{}:{number}", shown(&path)));
            }
        }
    }
    report("unfinished: an issue says it better", &problems);
}

#[test]
fn the_tree_names_no_machine_and_no_registry() {
    let paths = [
        concat!("/ro", "ot/"),
        concat!("/wo", "rk/main"),
        concat!("/Us", "ers/"),
        concat!("/home/", "user"),
    ];
    let hosts = [
        concat!("crates", ".io"),
        concat!("pypi", ".org"),
        concat!("python", "hosted.org"),
        concat!("npmjs", ".org"),
        concat!("npmjs", ".com"),
        concat!("repo1.", "maven"),
        concat!("repo.", "maven"),
        concat!("proxy.", "golang.org"),
        concat!("deb.", "debian.org"),
        concat!("rustup", ".rs"),
    ];
    let mut problems = Vec::new();
    for (path, text) in texts() {
        // A lock file names its registry; that is its form.
        if path.file_name().is_some_and(|name| name == "Cargo.lock") {
            continue;
        }
        for (number, line) in (1..).zip(text.lines()) {
            if let Some(word) = paths.iter().chain(&hosts).find(|word| line.contains(**word)) {
                problems.push(format!("{}:{number}: {word}", shown(&path)));
            }
        }
    }
    report("a path or host that only one machine knows", &problems);
}
