use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Asks a server with a four-letter word (`srvr`, `mntr`, ...) and returns the whole answer.
///
/// # Errors
/// The server cannot be reached, or the answer does not end within `timeout`.
pub async fn four_letter_word(address: &str, word: &str, timeout: Duration) -> io::Result<String> {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(word.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    tokio::time::timeout(timeout, ask).await.unwrap_or_else(|_| {
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("{address} did not answer {word}")))
    })
}
