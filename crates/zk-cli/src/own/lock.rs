use serde_json::json;
use tokio::time::Instant;

use super::contend::{Contender, LOST, Layout};
use super::{Call, child, signal_exit};
use crate::error::CliError;

pub(super) async fn run(call: &Call) -> Result<(), CliError> {
    let root = call.path(0)?;
    let layout = call.flags.value("layout").map(Layout::named).transpose()?;
    let data = call.flags.value("data").map_or_else(who_we_are, str::to_owned);
    let contender = Contender::new(&call.client, root, layout, Layout::Curator);
    hold(call, contender, &data, |contender| {
        call.out.result(
            || json!({"lock": contender.root, "node": contender.node, "token": contender.token}),
            |out| out.line(&contender.node),
        );
    })
    .await
}

/// Host and process, for who looks at a lock that is held.
pub(super) fn who_we_are() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{host}:{}", std::process::id())
}

/// Waits for the turn, says so unless a command runs then, holds, and gives the place up whatever happens.
pub(super) async fn hold(
    call: &Call,
    mut contender: Contender,
    data: &str,
    had: impl Fn(&Contender),
) -> Result<(), CliError> {
    let mut signals = call.signals.listen();
    let until = call.flags.duration("timeout")?.map(|limit| Instant::now() + limit);
    let turn = async {
        contender.join(data.as_bytes()).await?;
        contender.wait(until).await
    };
    let had_it = tokio::select! {
        turn = turn => turn,
        number = signals.next() => Err(CliError::exit(signal_exit(number), "interrupted while waiting")),
    };
    let result = match had_it {
        Err(error) => Err(error),
        Ok(()) if call.flags.command.is_empty() => {
            had(&contender);
            tokio::select! {
                loss = contender.lost() => Err(CliError::exit(LOST, format!("lost: {}", loss.why))),
                // Interrupting is how holding ends.
                number = signals.next() => Err(CliError::exit(signal_exit(number), "")),
            }
        }
        Ok(()) => child::run(&mut contender, &mut signals, &call.flags.command)
            .await
            .and_then(|exit| if exit == 0 { Ok(()) } else { Err(CliError::exit(exit, "")) }),
    };
    tokio::select! {
        left = contender.leave() => {
            // What was done was done with it held: its exit code stands.
            if let Err(error) = left {
                call.out.text_notice(&error.text);
            }
        }
        // A second signal: in a hurry.
        _ = signals.next() => {}
    }
    result
}
