//! Asking Apache's AdminServer, where a four-letter word is not allowed.

use std::io;
use std::time::Duration;

use serde_json::Value as Json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::compare::Points;

/// An answer is no longer than this: 1024 digests are about 100 KB.
const ANSWER_MAX: u64 = 4 << 20;

/// The digests that the AdminServer on `host` knows.
///
/// # Errors
/// It does not answer, not in the expected form, or is another server's.
pub(super) async fn digests(
    host: &str,
    port: u16,
    client_port: &str,
    timeout: Duration,
) -> Result<Points, String> {
    let ask = async {
        // Several servers of one machine share the host: the port for clients tells them apart.
        let configuration = get(host, port, "/commands/configuration").await?;
        if configuration["client_port"].as_u64().map(|port| port.to_string()).as_deref()
            != Some(client_port)
        {
            return Err(format!("the AdminServer at {host}:{port} is another server's"));
        }
        from_json(&get(host, port, "/commands/hash").await?)
    };
    tokio::time::timeout(timeout, ask)
        .await
        .unwrap_or_else(|_| Err(format!("the AdminServer at {host}:{port} did not answer in time")))
}

/// Reads the answer of `/commands/hash`.
fn from_json(json: &Json) -> Result<Points, String> {
    if let Some(error) = json["error"].as_str() {
        return Err(format!("the AdminServer says: {error}"));
    }
    let point =
        |entry: &Json| Some((entry["zxid"].as_i64()?.cast_unsigned(), entry["digest"].as_i64()?));
    let digests = json["digests"].as_array().and_then(|list| list.iter().map(point).collect());
    digests.ok_or_else(|| "the AdminServer does not answer /commands/hash with digests".to_owned())
}

/// HTTP/1.0: one answer, without chunks, up to the end of the connection.
async fn get(host: &str, port: u16, path: &str) -> Result<Json, String> {
    let exchange = async {
        let mut stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(ANSWER_MAX).read_to_end(&mut answer).await?;
        Ok::<_, io::Error>(answer)
    };
    let answer =
        exchange.await.map_err(|error| format!("no AdminServer at {host}:{port}: {error}"))?;
    let text = String::from_utf8_lossy(&answer);
    let odd = || format!("no AdminServer answers at {host}:{port}");
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(odd)?;
    if head.split(' ').nth(1) != Some("200") {
        return Err(odd());
    }
    serde_json::from_str(body).map_err(|_| odd())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_of_apache_is_understood() {
        // As 3.9.5 gives it.
        let json = serde_json::json!({
            "digests": [
                { "zxid": 4_294_967_424_u64, "digest": 12_557_303_905_i64, "digest_version": 2 },
                { "zxid": 4_294_967_552_u64, "digest": -1, "digest_version": 2 }
            ],
            "command": "hash",
            "error": null
        });
        let expected = Points::from([(0x1_0000_0080, 12_557_303_905), (0x1_0000_0100, -1)]);
        assert_eq!(from_json(&json), Ok(expected));
        let refused = serde_json::json!({ "command": "hash", "error": "not now" });
        assert_eq!(from_json(&refused).unwrap_err(), "the AdminServer says: not now");
        assert!(from_json(&serde_json::json!({ "digests": [{ "zxid": 1 }] })).is_err());
    }

    /// Two requests, answered as Jetty answers HTTP/1.0.
    fn serve(client_port: u16) -> u16 {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = io::BufReader::new(stream.unwrap());
                let mut line = String::new();
                io::BufRead::read_line(&mut stream, &mut line).unwrap();
                let (status, body) = match line.split(' ').nth(1).unwrap() {
                    "/commands/configuration" => {
                        ("200 OK", format!("{{\"client_port\" : {client_port}, \"error\" : null}}"))
                    }
                    "/commands/hash" => (
                        "200 OK",
                        "{\n  \"digests\" : [ { \"zxid\" : 128, \"digest\" : 7, \"digest_version\" : 2 } ],\n  \
                         \"error\" : null\n}"
                            .to_owned(),
                    ),
                    other => ("404 Not Found", other.to_owned()),
                };
                let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\n\r\n");
                io::Write::write_all(stream.get_mut(), (head + &body).as_bytes()).unwrap();
            }
        });
        port
    }

    #[test]
    fn the_right_server_is_asked() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let port = serve(2181);
        let ask = |client_port| {
            runtime.block_on(digests("127.0.0.1", port, client_port, Duration::from_secs(5)))
        };
        assert_eq!(ask("2181"), Ok(Points::from([(128, 7)])));
        // Another server of the same machine.
        assert!(ask("2182").unwrap_err().contains("is another server's"));
    }
}
