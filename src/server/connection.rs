//! One connection: what it is doing, how long that may last, and when it is closed.

use std::future::poll_fn;
use std::io;
use std::mem::take;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep};
use tracing::debug;

use super::admission::Permit;

/// What a connection is doing.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing has arrived yet.
    #[default]
    New,
    /// The head of a request is arriving.
    Head,
    /// A request is handled.
    Request,
    /// A response is sent.
    Response,
    /// The response was sent, and nothing has arrived since.
    Idle,
}

/// What a connection is doing, as its stream and its requests report it.
#[derive(Default)]
pub(super) struct Activity(Mutex<State>);

#[derive(Default)]
struct State {
    phase: Phase,
    /// The number of requests so far.
    requests: u64,
    /// What has arrived of the head of a request, perhaps with the beginning of its body.
    head: Vec<u8>,
}

impl Activity {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The head of a request is complete. Returns its bytes and perhaps some that follow; none if
    /// they arrived together with the request before, as pipelined requests do.
    pub(super) fn start_request(&self) -> Vec<u8> {
        let mut state = self.state();
        state.phase = Phase::Request;
        state.requests += 1;
        take(&mut state.head)
    }

    /// The response can be sent.
    pub(super) fn start_response(&self) {
        self.state().phase = Phase::Response;
    }

    fn received(&self, bytes: &[u8]) {
        let mut state = self.state();
        if state.phase != Phase::Request && !bytes.is_empty() {
            state.phase = Phase::Head;
            state.head.extend_from_slice(bytes);
        }
    }

    /// Nothing more has arrived yet. hyper reads only a head or the body of a request, so after a
    /// response it waits for the next head.
    fn waits(&self) {
        let mut state = self.state();
        if state.phase == Phase::Response {
            state.phase = Phase::Idle;
        }
    }
}

/// A stream that reports what arrives.
pub(super) struct ObservedStream<S> {
    pub(super) stream: S,
    pub(super) activity: Arc<Activity>,
}

impl<S: AsyncRead + Unpin> AsyncRead for ObservedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        match polled {
            Poll::Ready(_) => {
                self.activity.received(buffer.filled().get(before..).unwrap_or_default());
            }
            Poll::Pending => self.activity.waits(),
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ObservedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// How long a connection may wait.
#[derive(Clone, Copy)]
pub(super) struct Timeouts {
    /// For the first byte, and from the first byte of a head to its end.
    pub(super) head: Duration,
    /// For the next request.
    pub(super) idle: Duration,
}

/// Serves a connection until its end. If it has been idle for too long, if its permit is given to
/// another connection or if the server closes, it ends after the request in flight, and at once if
/// there is none.
pub(super) async fn drive(
    connection: impl GracefulConnection<Error = hyper::Error>, activity: &Activity,
    mut permit: Permit, timeouts: Timeouts, mut closing: watch::Receiver<()>,
) -> hyper::Result<()> {
    let mut connection = pin!(connection);
    let evicted = permit.evicted();
    let (mut is_evicted, mut is_closing) = (false, false);
    let sleep = Box::pin(sleep(timeouts.head));
    let observed = (Phase::New, 0);
    let mut deadline = Deadline { activity, timeouts, observed, is_ending: false, sleep };
    loop {
        // What has arrived is read first, so that a request in time is always served.
        tokio::select! {
            biased;
            result = connection.as_mut() => return result,
            phase = poll_fn(|cx| deadline.poll(cx, &mut permit)) => if phase == Phase::Head {
                debug!("the head of a request did not arrive in time");
                return Ok(());
            },
            () = evicted.cancelled(), if !is_evicted => is_evicted = true,
            _ = closing.changed(), if !is_closing => is_closing = true,
        }
        connection.as_mut().graceful_shutdown();
        deadline.is_ending = true;
        // It goes on if a part of a head arrived together with the request before.
        let mut state = activity.state();
        if let Phase::New | Phase::Idle = state.phase {
            state.phase = Phase::Head;
        }
    }
}

/// The end of the time that a connection has for what it is doing.
struct Deadline<'a> {
    activity: &'a Activity,
    timeouts: Timeouts,
    /// The phase and the number of requests when the deadline was set.
    observed: (Phase, u64),
    /// Whether the connection ends after the request in flight.
    is_ending: bool,
    sleep: Pin<Box<Sleep>>,
}

impl Deadline<'_> {
    /// Sets the deadline whenever the phase changes. Completes with the phase that lasted too long.
    fn poll(&mut self, cx: &mut Context<'_>, permit: &mut Permit) -> Poll<Phase> {
        let state = self.activity.state();
        let (phase, observed) = (state.phase, (state.phase, state.requests));
        drop(state);
        let timeout = match phase {
            Phase::New | Phase::Head => self.timeouts.head,
            Phase::Idle => self.timeouts.idle,
            // After a long response, the connection is closed.
            Phase::Response if !self.is_ending => self.timeouts.idle,
            // The request has a deadline of its own, and the socket one for writing.
            Phase::Request | Phase::Response => Duration::MAX,
        };
        if observed != self.observed {
            self.observed = observed;
            permit.set_idle(phase == Phase::Idle);
            if timeout < Duration::MAX {
                self.sleep.as_mut().reset(Instant::now() + timeout);
            }
        }
        if timeout == Duration::MAX {
            return Poll::Pending;
        }
        ready!(self.sleep.as_mut().poll(cx));
        Poll::Ready(phase)
    }
}
