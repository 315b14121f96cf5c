//! The flags of the Java server in a file that its start script reads.

use std::collections::BTreeMap;

/// What `zkServer.sh` (and Debian's script) give to `java`.
const VARIABLES: [&str; 3] = ["JAVA_OPTS", "SERVER_JVMFLAGS", "JVMFLAGS"];

/// The values of the variables that hold Java's flags, in the order in which they are given to it. Plain
/// assignments are understood, with or without `export`, over several lines with a backslash, with
/// references to variables set before.
pub(super) fn java_flags(text: &str) -> Vec<(&'static str, String)> {
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    let text = text.replace("\\\n", " ");
    for line in text.lines() {
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
        let Some((name, value)) = line.split_once('=') else { continue };
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            continue;
        }
        let value = expand(unquoted(value.trim()), &values);
        values.insert(name.to_owned(), value);
    }
    let set = VARIABLES.iter().filter_map(|name| Some((*name, values.remove(*name)?)));
    set.filter(|(_, value)| !value.trim().is_empty()).collect()
}

/// Without the quotes around all of it, or what stands behind it.
fn unquoted(value: &str) -> &str {
    for quote in ['"', '\''] {
        if let Some(rest) = value.strip_prefix(quote) {
            return rest.split(quote).next().unwrap_or(rest);
        }
    }
    value.split([' ', '\t', ';', '#']).next().unwrap_or(value)
}

/// Puts the values of variables in; those that are not known are empty, as a shell has it.
fn expand(value: &str, known: &BTreeMap<String, String>) -> String {
    let mut text = String::new();
    let mut rest = value;
    while let Some((before, behind)) = rest.split_once('$') {
        text.push_str(before);
        let (name, after) = match behind.strip_prefix('{') {
            Some(inner) => inner.split_once('}').unwrap_or((inner, "")),
            None => {
                let end = behind.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                behind.split_at(end.unwrap_or(behind.len()))
            }
        };
        let name = name.split(":-").next().unwrap_or(name);
        text.push_str(known.get(name).map_or("", String::as_str));
        rest = after;
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_are_understood() {
        let text = "# the server's memory\n\
                    HEAP=\"-Xmx1g\"\n\
                    export SERVER_JVMFLAGS=\"$HEAP -Dzookeeper.snapCount=5000 \\\n  -Djute.maxbuffer=4194304\"\n\
                    JVMFLAGS='-Dzookeeper.skipACL=yes' # everybody\n\
                    if [ -n \"$X\" ]; then\n\
                    export JVMFLAGS=\"${JVMFLAGS} -Da=${NONE:-x}b\"\n\
                    fi\n\
                    ZOO_LOG_DIR=/var/log/zookeeper\n";
        assert_eq!(
            java_flags(text),
            [
                (
                    "SERVER_JVMFLAGS",
                    "-Xmx1g -Dzookeeper.snapCount=5000    -Djute.maxbuffer=4194304".to_owned()
                ),
                ("JVMFLAGS", "-Dzookeeper.skipACL=yes -Da=b".to_owned()),
            ]
        );
        assert_eq!(java_flags("JAVA_OPTS=\"\"\nnothing\n=x\n"), []);
    }
}
