//! A connection that does not wait for ever: not for a request, not for the rest of one, not for a reader of the answer.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use super::IDLE_MAX;

/// Where a connection stands: between requests, or between a request's head and the end of its answer.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    answering: AtomicBool,
    answered: AtomicU64,
}

impl Exchange {
    pub(super) fn begin(&self) {
        self.answering.store(true, Ordering::Relaxed);
    }

    fn end(&self) {
        self.answering.store(false, Ordering::Relaxed);
        self.answered.fetch_add(1, Ordering::Relaxed);
    }
}

/// The body of an answer; ends the exchange when it is gone.
#[derive(Debug)]
pub(super) struct Counted {
    body: Body,
    exchange: Arc<Exchange>,
}

impl Counted {
    pub(super) fn new(body: Body, exchange: Arc<Exchange>) -> Self {
        Self { body, exchange }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.exchange.end();
    }
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// See the module.
pub(super) struct Watched<S> {
    stream: S,
    exchange: Arc<Exchange>,
    read_timeout: Duration,
    write_timeout: Duration,
    /// Answers given when the deadline for the next request was set.
    answered: u64,
    /// The head of a request has begun to arrive.
    begun: bool,
    read_by: Pin<Box<Sleep>>,
    /// A write that does not go on ends here.
    write_by: Pin<Box<Sleep>>,
    blocked: bool,
}

impl<S> Watched<S> {
    pub(super) fn new(
        stream: S,
        exchange: Arc<Exchange>,
        read_timeout: Duration,
        write_timeout: Duration,
    ) -> Self {
        let first_by = Instant::now() + read_timeout;
        Self {
            stream,
            exchange,
            read_timeout,
            write_timeout,
            answered: 0,
            begun: false,
            read_by: Box::pin(sleep_until(first_by)),
            write_by: Box::pin(sleep_until(first_by)),
            blocked: false,
        }
    }

    /// While a request is answered, its body has a limit of its own, and nothing else is read.
    fn is_answering(&self) -> bool {
        self.exchange.answering.load(Ordering::Relaxed)
    }

    fn wait_for_next_request(&mut self) {
        let answered = self.exchange.answered.load(Ordering::Relaxed);
        if answered != self.answered {
            self.answered = answered;
            self.begun = false;
            self.read_by.as_mut().reset(Instant::now() + IDLE_MAX);
        }
    }

    fn limit_write<T>(&mut self, cx: &mut Context<'_>, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if done.is_ready() {
            self.blocked = false;
            return done;
        }
        if !self.blocked {
            self.blocked = true;
            self.write_by.as_mut().reset(Instant::now() + self.write_timeout);
        }
        match self.write_by.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.stream).poll_read(cx, buf);
        if self.is_answering() {
            return done;
        }
        self.wait_for_next_request();
        if done.is_ready() {
            if !self.begun {
                self.begun = true;
                let by = Instant::now() + self.read_timeout;
                self.read_by.as_mut().reset(by);
            }
            return done;
        }
        match self.read_by.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.limit_write(cx, done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.limit_write(cx, done)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.stream).poll_flush(cx);
        self.limit_write(cx, done)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.limit_write(cx, done)
    }
}
