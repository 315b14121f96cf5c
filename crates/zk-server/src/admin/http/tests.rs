use std::future::pending;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::admin::testing::context;

async fn start() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(context(""), listener, pending()));
    address
}

async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

fn get_request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
}

#[tokio::test]
async fn metrics_are_served() {
    let address = start().await;
    let text = ask(address, &get_request("/metrics")).await;
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    assert!(
        text.contains("\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\n"),
        "{text}"
    );
    assert!(text.contains("\nznode_count 5\n"), "{text}");
    assert!(ask(address, &get_request("/")).await.contains("/metrics"));
    assert!(ask(address, &get_request("/other")).await.starts_with("HTTP/1.1 404"));
    let trace = get_request("/metrics").replace("GET", "TRACE");
    assert!(ask(address, &trace).await.starts_with("HTTP/1.1 405"));
    assert!(ask(address, "nonsense\r\n\r\n").await.starts_with("HTTP/1.1 400"));
}

#[tokio::test]
async fn a_head_has_a_limit() {
    let address = start().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut sent = 0;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nX: ").await.unwrap();
    while stream.write_all(&[b'x'; 4096]).await.is_ok() {
        sent += 4096;
        assert!(sent < 64 << 20, "an endless head was taken");
    }
}

#[tokio::test]
async fn who_takes_too_long_is_cut_off() {
    let idle_max = Duration::from_millis(200);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve_within(context(""), listener, idle_max, pending()));
    let mut stream = TcpStream::connect(address).await.unwrap();
    let begun = Instant::now();
    // A byte now and then does not help.
    for byte in b"GET /metrics HTTP/1.1\r\nHost: localhost".chunks(1) {
        if stream.write_all(byte).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut rest = Vec::new();
    // Cut off may mean closed or reset.
    drop(stream.read_to_end(&mut rest).await);
    assert!(begun.elapsed() >= idle_max && rest.is_empty(), "{rest:?}");
}

#[tokio::test]
async fn shutdown_ends_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(serve(context(""), listener, async { drop(stopped.await) }));
    assert!(ask(address, &get_request("/")).await.starts_with("HTTP/1.1 200"));
    stop.send(()).unwrap();
    serving.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}
