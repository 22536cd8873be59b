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
    /// What has arrived of the head of a request.
    head: HeadScan,
    /// The number of bytes written so far.
    written: u64,
    /// Whether the client has not read what was written.
    is_write_blocked: bool,
    /// Whether the connection waits for the next request, as soon as everything is written.
    is_read_blocked: bool,
}

impl Activity {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The head of a request is complete. Returns whether it has the header `Content-Length`, as
    /// far as it did not arrive together with the request before, as pipelined requests do.
    pub(super) fn start_request(&self) -> bool {
        let mut state = self.state();
        state.phase = Phase::Request;
        state.requests += 1;
        take(&mut state.head).has_content_length
    }

    /// The response can be sent.
    pub(super) fn start_response(&self) {
        let mut state = self.state();
        state.phase = Phase::Response;
        state.is_read_blocked = false;
    }

    fn received(&self, bytes: &[u8]) {
        let mut state = self.state();
        if state.phase != Phase::Request && !bytes.is_empty() {
            state.phase = Phase::Head;
            state.head.scan(bytes);
        }
    }

    /// Nothing more has arrived yet. After a response, hyper reads the next head only.
    fn read_blocked(&self) {
        let mut state = self.state();
        state.is_read_blocked = state.phase == Phase::Response;
        state.set_idle_if_done();
    }

    /// This many bytes were written, or none because the client has not read the others.
    fn wrote(&self, bytes: Option<usize>) {
        let mut state = self.state();
        state.is_write_blocked = bytes.is_none();
        state.written += bytes.unwrap_or_default() as u64;
        state.set_idle_if_done();
    }
}

impl State {
    fn set_idle_if_done(&mut self) {
        if self.phase == Phase::Response && self.is_read_blocked && !self.is_write_blocked {
            self.phase = Phase::Idle;
        }
    }
}

/// A search for the header `Content-Length` in the head of a request, as it arrives. The first line
/// is not a header, and may be the end of one if its beginning was not observed.
#[derive(Default)]
struct HeadScan {
    has_content_length: bool,
    /// Whether the empty line after the headers was found.
    is_ended: bool,
    /// The number of lines before this one.
    lines: usize,
    /// The number of bytes of this line so far.
    length: usize,
    /// Whether these are the beginning of the header.
    is_match: bool,
}

impl HeadScan {
    fn scan(&mut self, bytes: &[u8]) {
        const NAME: &[u8] = b"content-length:";
        for byte in bytes {
            match byte {
                _ if self.is_ended => return,
                b'\r' => {}
                b'\n' => {
                    self.is_ended = self.lines > 0 && self.length == 0;
                    // hyper skips empty lines before the first one.
                    self.lines += usize::from(self.length > 0);
                    self.length = 0;
                    self.is_match = self.lines > 0;
                }
                _ => {
                    self.is_match &= NAME.get(self.length) == Some(&byte.to_ascii_lowercase());
                    self.length += 1;
                    self.has_content_length |= self.is_match && self.length == NAME.len();
                }
            }
        }
    }
}

/// A stream that reports what arrives and what is written.
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
            Poll::Pending => self.activity.read_blocked(),
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ObservedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.activity.wrote(written(&polled));
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.activity.wrote(written(&polled));
        polled
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

fn written(polled: &Poll<io::Result<usize>>) -> Option<usize> {
    match polled {
        Poll::Ready(result) => Some(result.as_ref().map_or(0, |bytes| *bytes)),
        Poll::Pending => None,
    }
}

/// How many bytes of a response a client must read within the time for the next request. A slower
/// client would hold its connection for hours.
const WRITTEN_AT_LEAST: u64 = 256 << 10;

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
    let mut deadline = Deadline { activity, timeouts, observed, written: 0, sleep };
    loop {
        // What has arrived is read first, so that a request in time is always served.
        tokio::select! {
            biased;
            result = connection.as_mut() => return result,
            phase = poll_fn(|cx| deadline.poll(cx, &mut permit)) => match phase {
                Phase::Head => {
                    debug!("the head of a request did not arrive in time");
                    return Ok(());
                }
                Phase::Response => {
                    debug!("a response was not read in time");
                    return Ok(());
                }
                _ => {}
            },
            () = evicted.cancelled(), if !is_evicted => is_evicted = true,
            _ = closing.changed(), if !is_closing => is_closing = true,
        }
        connection.as_mut().graceful_shutdown();
        // To close a TLS connection takes a message, which gets the time of a head.
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
    /// The number of bytes written when the deadline was set.
    written: u64,
    sleep: Pin<Box<Sleep>>,
}

impl Deadline<'_> {
    /// Sets the deadline whenever the phase changes. Completes with the phase that lasted too long.
    fn poll(&mut self, cx: &mut Context<'_>, permit: &mut Permit) -> Poll<Phase> {
        let state = self.activity.state();
        let (phase, written) = (state.phase, state.written);
        let observed = (phase, state.requests);
        drop(state);
        if observed != self.observed {
            self.observed = observed;
            permit.set_idle(phase == Phase::Idle);
            if phase != Phase::Request {
                self.set(phase, written);
            }
        }
        // A request has a deadline of its own.
        if phase == Phase::Request {
            return Poll::Pending;
        }
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            let is_read = phase == Phase::Response && written - self.written >= WRITTEN_AT_LEAST;
            if !is_read {
                return Poll::Ready(phase);
            }
            self.set(phase, written);
        }
    }

    fn set(&mut self, phase: Phase, written: u64) {
        self.written = written;
        let timeout = match phase {
            Phase::New | Phase::Head | Phase::Request => self.timeouts.head,
            Phase::Response | Phase::Idle => self.timeouts.idle,
        };
        self.sleep.as_mut().reset(Instant::now() + timeout);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_length_is_found_however_a_head_arrives() {
        for (head, expected) in [
            ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n", true),
            ("\r\nPOST / HTTP/1.1\ncontent-length:1\n\n", true),
            ("POST / HTTP/1.1\r\nHost: x\r\n\r\nContent-Length: 1\r\n", false),
            ("POST / HTTP/1.1\r\nX-Content-Length: 1\r\n\r\n", false),
            // The end of a header whose beginning was not observed.
            ("Content-Length: 1\r\nHost: x\r\n\r\n", false),
        ] {
            for size in 1..=head.len() {
                let mut scan = HeadScan::default();
                head.as_bytes().chunks(size).for_each(|bytes| scan.scan(bytes));
                assert_eq!(scan.has_content_length, expected, "{head:?} by {size}");
            }
        }
    }
}
