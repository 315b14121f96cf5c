use std::fs;

use serde_json::json;
use zk_proto::data::Stat;

use super::{Context, find};
use crate::arguments::Arguments;
use crate::error::CliError;
use crate::output::{Output, stat_json};

pub(super) async fn add_auth(context: &Context, arguments: &Arguments) -> Result<(), CliError> {
    let scheme = arguments.word(0).unwrap_or_default();
    let auth = context.client.add_auth(scheme, arguments.word(1).map(str::as_bytes));
    // Sent already. In a shell it is not waited for: a refusal shows as an event, as upstream.
    if context.single || context.out.json {
        auth.await?;
        context.out.result(|| json!({"scheme": scheme, "added": true}), |_| ());
    }
    Ok(())
}

pub(super) async fn who_am_i(context: &Context) -> Result<(), CliError> {
    let clients = context.client.who_am_i().await?;
    context.out.result(
        || {
            let all = clients
                .iter()
                .map(|client| json!({"scheme": client.auth_scheme, "user": client.user}));
            json!({"clients": all.collect::<Vec<_>>()})
        },
        |out| {
            out.line("Auth scheme: User");
            for client in &clients {
                out.line(&format!("{}: {}", client.auth_scheme, client.user));
            }
        },
    );
    Ok(())
}

pub(crate) fn version(out: Output) -> Result<(), CliError> {
    let version = env!("CARGO_PKG_VERSION");
    out.result(
        || json!({"version": version}),
        |out| {
            out.line(&format!(
                "ZooKeeper CLI version: Paddock {version}, with the commands of ZooKeeper 3.9"
            ))
        },
    );
    Ok(())
}

pub(super) async fn config(context: &Context, arguments: &Arguments) -> Result<(), CliError> {
    let (data, stat) = context.client.get_config(arguments.has("w")).await?;
    let text = data.as_deref().map(String::from_utf8_lossy);
    let servers = client_servers(text.as_deref().unwrap_or_default());
    print_config(context.out, text.as_deref(), &stat, |out| {
        let text = text.as_deref().unwrap_or("null");
        if arguments.has("c") {
            out.line(&servers)
        } else {
            out.line(text)
        }
        if arguments.has("s") {
            out.stat(&stat);
        }
    });
    Ok(())
}

fn print_config(out: Output, config: Option<&str>, stat: &Stat, text: impl FnOnce(Output)) {
    let connect = config.map(client_servers);
    let connect =
        connect.as_deref().and_then(|both| both.split_once(' ')).map(|(_, servers)| servers);
    out.result(|| json!({"config": config, "connect": connect, "stat": stat_json(stat)}), text);
}

/// The configuration's version, and where its servers take clients.
fn client_servers(config: &str) -> String {
    let (mut version, mut servers) = ("", Vec::new());
    for (key, value) in config.lines().filter_map(|line| line.split_once('=')) {
        match key.trim() {
            "version" => version = value.trim(),
            key if key.starts_with("server.") => {
                let client = value.rsplit_once(';').map(|(_, client)| client.trim());
                // Without a client address it has a place in the list and nothing there, as upstream.
                servers.push(match client {
                    None => String::new(),
                    Some(port) if !port.contains(':') => format!("0.0.0.0:{port}"),
                    Some(address) => address.to_owned(),
                });
            }
            _ => {} // other keys are no servers
        }
    }
    format!("{version} {}", servers.join(","))
}

pub(super) async fn reconfig(context: &Context, arguments: &Arguments) -> Result<(), CliError> {
    let [file, members, add, remove] =
        ["file", "members", "add", "remove"].map(|option| arguments.value(option));
    if file.or(members).or(add).or(remove).is_none() {
        return Err(CliError::usage(find("reconfig").expect("a command").usage()));
    }
    let version = match arguments.value("v") {
        None => -1,
        Some(text) => i64::from_str_radix(text, 16).map_err(|_| {
            CliError::usage("-v must be followed by a long (configuration version)")
        })?,
    };
    if file.or(members).is_some() && add.or(remove).is_some() {
        return Err(CliError::usage(
            "Can't use -file or -members together with -add or -remove (mixing incremental and non-incremental \
             modes is not allowed)",
        ));
    }
    if file.is_some() && members.is_some() {
        return Err(CliError::usage(
            "Can't use -file and -members together (conflicting non-incremental modes)",
        ));
    }
    let members = match file {
        None => members.map(str::to_lowercase),
        Some(file) => {
            let text = fs::read_to_string(file)
                .map_err(|error| CliError::usage(format!("Error processing {file}: {error}")))?;
            Some(membership(&text))
        }
    };
    let (add, remove) = (add.map(str::to_lowercase), remove.map(str::to_lowercase));
    let (config, stat) = context
        .client
        .reconfig(add.as_deref(), remove.as_deref(), members.as_deref(), version)
        .await?;
    let text = config.as_deref().map(String::from_utf8_lossy);
    print_config(context.out, text.as_deref(), &stat, |out| {
        out.line(&format!("Committed new configuration:\n{}", text.as_deref().unwrap_or_default()));
        if arguments.has("s") {
            out.stat(&stat);
        }
    });
    Ok(())
}

/// The lines of a dynamic configuration file that say who is a member.
fn membership(text: &str) -> String {
    let mut lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| ["server.", "group.", "weight."].iter().any(|key| line.starts_with(key)))
        .collect();
    lines.sort_unstable();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_addresses_of_a_configuration() {
        let config = "server.1=a:2888:3888:participant;0.0.0.0:2181\nserver.2=b:2888:3888;2182\nversion=100000000";
        assert_eq!(client_servers(config), "100000000 0.0.0.0:2181,0.0.0.0:2182");
        assert_eq!(client_servers(""), " ");
    }

    #[test]
    fn a_membership_file_is_its_servers() {
        let file = "# comment\nweight.1=2\n server.2=b:1:2;3\ntickTime=2000\nserver.1=a:1:2;3\n";
        assert_eq!(membership(file), "server.1=a:1:2;3\nserver.2=b:1:2;3\nweight.1=2");
    }
}
