use crate::commands;

/// What stands before the command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) server: String,
    pub(crate) timeout_ms: u64,
    pub(crate) read_only: bool,
    pub(crate) wait_for_connection: bool,
    pub(crate) json: bool,
    /// The command and its arguments; empty for a shell.
    pub(crate) command: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    Run(Options),
    Help,
}

pub(crate) fn help() -> String {
    let mut text = String::from(
        "The commands of zkCli.sh, one per call or, without a command, as a shell\n\n\
         Usage: paddock cli [options] [command [arguments]]\n\n\
         Options:\n\
         \x20 -server HOST:PORT[,...][/chroot]  the servers (localhost:2181)\n\
         \x20 -timeout MS                       session timeout (30000); also how long -waitforconnection waits\n\
         \x20 -r, -readonly                     a server that only reads will do\n\
         \x20 -waitforconnection                wait for a server that is not up yet\n\
         \x20 -client-configuration FILE        accepted; TLS and SASL settings have no effect yet\n\
         \x20 --json                            one JSON object for each result line; errors too, on standard error\n\n\
         Exit codes: 0 done, 1 failed, 2 usage, 3 no server could be reached, 127 no such command\n\n\
         Commands:\n",
    );
    for usage in commands::usages() {
        text.push_str("  ");
        text.push_str(&usage);
        text.push('\n');
    }
    text.push_str("\nPaddock's own commands (COMMAND --help says more):\n");
    text.push_str(&crate::own::usages());
    text
}

impl Options {
    pub(crate) fn parse(args: Vec<String>) -> Result<Parsed, String> {
        let mut options = Self {
            server: "localhost:2181".to_owned(),
            timeout_ms: 30_000,
            read_only: false,
            wait_for_connection: false,
            json: false,
            command: Vec::new(),
        };
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let mut value =
                || args.next().ok_or_else(|| format!("Error: no argument found for option {arg}"));
            // Apache's options have one dash; two are what hands type.
            match arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) {
                None => {
                    options.command.push(arg);
                    options.command.extend(args);
                    break;
                }
                Some("server") => options.server = value()?,
                Some("timeout") => {
                    let text = value()?;
                    options.timeout_ms = text
                        .parse()
                        .ok()
                        .filter(|ms| (1..=i32::MAX as u64).contains(ms))
                        .ok_or(format!("-timeout is a number of milliseconds, not {text}"))?;
                }
                Some("r" | "readonly") => options.read_only = true,
                Some("waitforconnection") => options.wait_for_connection = true,
                Some("client-configuration") => {
                    let file = value()?;
                    std::fs::metadata(&file)
                        .map_err(|error| format!("-client-configuration {file}: {error}"))?;
                }
                Some("json") => options.json = true,
                Some("h" | "help") => return Ok(Parsed::Help),
                Some(_) => return Err(format!("Unknown option {arg}")),
            }
        }
        // Behind the command, too; data may look like it behind `--`.
        let end =
            options.command.iter().position(|word| word == "--").unwrap_or(options.command.len());
        if let Some(at) = options.command[..end].iter().position(|word| word == "--json") {
            options.command.remove(at);
            options.json = true;
        }
        Ok(Parsed::Run(options))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Parsed, String> {
        Options::parse(line.split_whitespace().map(str::to_owned).collect())
    }

    fn options(line: &str) -> Options {
        match parse(line) {
            Ok(Parsed::Run(options)) => options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options_end_at_the_command() {
        let got = options("-server a:1/x -timeout 5000 -r -waitforconnection create -e /a -server");
        assert_eq!((got.server.as_str(), got.timeout_ms, got.read_only), ("a:1/x", 5000, true));
        assert!(got.wait_for_connection && !got.json);
        assert_eq!(got.command, ["create", "-e", "/a", "-server"]);
        assert_eq!(options("").command, [""; 0]);
    }

    #[test]
    fn json_may_stand_behind_the_command_but_not_in_its_data() {
        let got = options("get /a --json");
        assert!(got.json);
        assert_eq!(got.command, ["get", "/a"]);
        let got = options("set /a -- --json");
        assert!(!got.json);
        assert_eq!(got.command, ["set", "/a", "--", "--json"]);
    }

    #[test]
    fn mistakes_are_named() {
        assert!(parse("-server").unwrap_err().contains("-server"));
        assert!(parse("-timeout soon ls /").unwrap_err().contains("soon"));
        assert!(parse("-sever a:1 ls /").unwrap_err().contains("-sever"));
        assert_eq!(parse("--help"), Ok(Parsed::Help));
    }
}
