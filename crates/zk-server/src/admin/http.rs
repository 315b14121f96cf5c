//! The metrics endpoint: HTTP for scrapers, on a port of its own.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

use super::metrics::render_prometheus;
use crate::context::Context;

/// Connections at once. Scrapers need one each; this is far more than there are, and each can hold no
/// more than its request's head, some 400 KB (hyper's limit), and an answer.
const CONNECTIONS_MAX: usize = 32;

/// How long a connection may take for its first request, and between the end of an answer and the end
/// of the next request. A scraper whose connection was closed meanwhile makes a new one.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// How long to wait after the system could not give a connection: it is out of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// The text format's version, as Prometheus asks for it.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Serves metrics on `/metrics` until `shutdown` is over. Answers that are under way then are cut off.
pub async fn serve(
    context: Arc<Context>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send,
) {
    serve_within(context, listener, IDLE_MAX, shutdown).await;
}

async fn serve_within(
    context: Arc<Context>,
    listener: TcpListener,
    idle_max: Duration,
    shutdown: impl Future<Output = ()> + Send,
) {
    let router = Router::new()
        .route("/metrics", get(scrape))
        .route("/", get(async || "Paddock's metrics are at /metrics\n"))
        .with_state(context);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let listener = Limited { listener, places, idle_max };
    tokio::select! {
        served = axum::serve(listener, router).into_future() => {
            if let Err(error) = served {
                tracing::error!(%error, "metrics are not served any more");
            }
        }
        () = shutdown => {}
    }
}

async fn scrape(State(context): State<Arc<Context>>) -> impl IntoResponse {
    // Counting open files takes a while where there are many; requests of clients must not wait for it.
    let text = tokio::task::spawn_blocking(move || render_prometheus(&context)).await;
    text.map(|text| ([(CONTENT_TYPE, TEXT_FORMAT)], text)).map_err(|error| {
        tracing::error!(%error, "metrics could not be gathered");
        StatusCode::INTERNAL_SERVER_ERROR
    })
}

/// A listener that has a limited number of connections, each with a deadline.
struct Limited {
    listener: TcpListener,
    places: Arc<Semaphore>,
    idle_max: Duration,
}

impl axum::serve::Listener for Limited {
    type Io = Timed;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Timed, SocketAddr) {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let place = place.expect("nobody closes the semaphore");
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    let deadline = Box::pin(tokio::time::sleep(self.idle_max));
                    let idle_max = self.idle_max;
                    return (Timed { stream, deadline, idle_max, _place: place }, address);
                }
                Err(error) => {
                    tracing::warn!(%error, "no connection for metrics could be accepted");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that fails when its deadline passes. Whatever is sent sets a new one: so a request has
/// to be there in time as a whole, however slowly its bytes drip in.
struct Timed {
    stream: TcpStream,
    deadline: Pin<Box<Sleep>>,
    idle_max: Duration,
    _place: OwnedSemaphorePermit,
}

impl Timed {
    fn in_time(&mut self, task: &mut TaskContext<'_>) -> io::Result<()> {
        match self.deadline.as_mut().poll(task) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Timed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut TaskContext<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.in_time(task)?;
        Pin::new(&mut self.stream).poll_read(task, buf)
    }
}

impl AsyncWrite for Timed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        task: &mut TaskContext<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.in_time(task)?;
        let written = Pin::new(&mut self.stream).poll_write(task, buf);
        if let Poll::Ready(Ok(_)) = written {
            let deadline = Instant::now() + self.idle_max;
            self.deadline.as_mut().reset(deadline);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(task)
    }
}

#[cfg(test)]
mod tests;
