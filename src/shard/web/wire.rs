//! The bytes of a connection: its socket, with TLS or without, as hyper wants it.
//!
//! Nothing here waits. What the socket cannot give or take now is `Pending`, and the connection is polled again when the
//! media ring says that it can; no waker is kept.

use std::{
    cell::{Cell, RefCell},
    io::{self, IoSlice, Read as _},
    net::{Shutdown, TcpStream},
    os::fd::{AsRawFd, RawFd},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Instant,
};

use hyper::rt::{Read, ReadBufCursor, Write};
use socket2::SockRef;

use super::lobby::Lobby;
use crate::shard::tls::Tls;

/// What the shard and hyper share of a connection.
pub struct Link {
    socket: TcpStream,
    tls: RefCell<Option<Box<Tls>>>,
    /// Received, decrypted and not read yet.
    plain: RefCell<Vec<u8>>,
    /// The socket may have something to read.
    readable: Cell<bool>,
    /// The peer has closed its side: read until the end, for nothing more will be reported.
    hung_up: Cell<bool>,
    /// Something could not be written.
    wants_room: Cell<bool>,
    /// Since when nothing could be written of what there is to write.
    pub stuck_since: Cell<Option<Instant>>,
    /// When bytes were last written.
    pub wrote_at: Cell<Instant>,
    /// Since when a request has been arriving; `None` between requests.
    pub request_since: Cell<Option<Instant>>,
    lobby: Rc<Lobby>,
}

impl Link {
    /// `plain` was received already.
    pub fn new(socket: TcpStream, tls: Option<Box<Tls>>, plain: Vec<u8>, lobby: Rc<Lobby>) -> Self {
        Self {
            socket,
            tls: RefCell::new(tls),
            plain: RefCell::new(plain),
            readable: Cell::new(true),
            hung_up: Cell::new(false),
            wants_room: Cell::new(false),
            stuck_since: Cell::new(None),
            wrote_at: Cell::new(lobby.now()),
            request_since: Cell::new(None),
            lobby,
        }
    }

    /// What a connection is made of, and what was received and not read.
    pub fn into_parts(self) -> (TcpStream, Option<Box<Tls>>, Vec<u8>) {
        (self.socket, self.tls.into_inner(), self.plain.into_inner())
    }

    pub fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    pub fn is_encrypted(&self) -> bool {
        self.tls.borrow().is_some()
    }

    /// The socket has something, or its end.
    pub fn is_readable(&self, hung_up: bool) {
        self.readable.set(true);
        if hung_up {
            self.hung_up.set(true);
        }
    }

    /// Whether it has to be told when the socket has room; asked once.
    pub fn take_wants_room(&self) -> bool {
        self.wants_room.take()
    }

    /// Goes on with the TLS handshake. `Some` when it is done: whether HTTP/2 was agreed on.
    ///
    /// # Errors
    /// When the connection is over.
    pub fn shake_hands(&self) -> io::Result<Option<bool>> {
        loop {
            let received = self.receive(usize::MAX)?;
            let mut tls = self.tls.borrow_mut();
            let Some(tls) = tls.as_mut() else { return Ok(Some(false)) };
            self.flush_tls(tls)?;
            if !tls.is_handshaking() {
                return Ok(Some(tls.speaks_http2()));
            }
            match received {
                None => return Ok(None),
                Some(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Some(_) => {}
            }
        }
    }

    /// The first line of what is received, which stays to be read. `None` when it is not all there yet; of one that is
    /// too long, nothing.
    ///
    /// # Errors
    /// When the connection is over.
    pub fn peek(&self) -> io::Result<Option<String>> {
        loop {
            {
                let plain = self.plain.borrow();
                let end = plain.iter().position(|&byte| byte == b'\n');
                if end.is_some() || plain.len() >= PEEKED_BYTES_MAX {
                    return Ok(Some(String::from_utf8_lossy(&plain[..end.unwrap_or_default()]).into_owned()));
                }
            }
            let received = self.receive(PEEKED_BYTES_MAX)?;
            if let Some(tls) = self.tls.borrow_mut().as_mut() {
                self.flush_tls(tls)?;
            }
            match received {
                None => return Ok(None),
                Some(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Some(_) => {}
            }
        }
    }

    /// Takes in at most `bytes_max` bytes of the socket. `None` when there are none now; `Some(0)` at their end.
    fn receive(&self, bytes_max: usize) -> io::Result<Option<usize>> {
        if !self.readable.get() {
            return Ok(None);
        }
        let mut buffer = self.lobby.scratch.borrow_mut();
        let room = bytes_max.min(buffer.len());
        let count = loop {
            match (&self.socket).read(&mut buffer[..room]) {
                Ok(count) => break count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable.set(false);
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        };
        // A short read emptied the socket: more is told by the next edge. After a hang-up none comes.
        self.readable.set(count == room || self.hung_up.get());
        let mut plain = self.plain.borrow_mut();
        match self.tls.borrow_mut().as_mut() {
            Some(tls) => tls.take(&buffer[..count], &mut plain)?,
            None => plain.extend_from_slice(&buffer[..count]),
        }
        Ok(Some(count))
    }

    fn flush_tls(&self, tls: &mut Tls) -> io::Result<bool> {
        let flushed = tls.flush(&self.socket)?;
        if !flushed {
            self.wants_room.set(true);
        }
        Ok(flushed)
    }

    fn blocked<T>(&self) -> Poll<io::Result<T>> {
        self.wants_room.set(true);
        if self.stuck_since.get().is_none() {
            self.stuck_since.set(Some(self.lobby.now()));
        }
        Poll::Pending
    }

    fn wrote(&self) {
        self.wrote_at.set(self.lobby.now());
        self.stuck_since.set(None);
    }

    fn write(&self, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut tls = self.tls.borrow_mut();
        let Some(tls) = tls.as_mut() else {
            return match SockRef::from(&self.socket).send_vectored_with_flags(pieces, libc::MSG_NOSIGNAL) {
                Ok(count) => {
                    self.wrote();
                    Poll::Ready(Ok(count))
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.blocked(),
                Err(error) => Poll::Ready(Err(error)),
            };
        };
        // Records that are full are sent before there are more.
        if !self.flush_tls(tls)? {
            return self.blocked();
        }
        let count = tls.write(pieces)?;
        self.wrote();
        self.flush_tls(tls)?;
        Poll::Ready(Ok(count))
    }

    fn flush(&self) -> Poll<io::Result<()>> {
        let flushed = match self.tls.borrow_mut().as_mut() {
            Some(tls) => self.flush_tls(tls)?,
            None => true,
        };
        if flushed { Poll::Ready(Ok(())) } else { self.blocked() }
    }

    /// Says that nothing more comes.
    pub fn end(&self) {
        if let Some(tls) = self.tls.borrow_mut().as_mut() {
            tls.end(&self.socket);
        }
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Throws away what the peer still sends. True at its end.
    pub fn discard(&self) -> bool {
        let mut buffer = self.lobby.scratch.borrow_mut();
        // More than this at a time is no client that is about to close.
        for _ in 0..16 {
            match (&self.socket).read(&mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return true,
            }
        }
        true
    }

    /// Closes both ways: the watch may keep the socket for another moment.
    pub fn close(&self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// hyper's end of a [`Link`].
pub struct Wire(pub Rc<Link>);

impl Read for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let link = &*self.0;
        while link.plain.borrow().is_empty() {
            // What was decrypted is never more than what was received.
            match link.receive(cursor.remaining()) {
                Ok(Some(0)) => return Poll::Ready(Ok(())),
                Ok(Some(_)) => {}
                Ok(None) => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
            let mut tls = link.tls.borrow_mut();
            if let Some(tls) = tls.as_mut() {
                link.flush_tls(tls)?;
                if tls.is_peer_closed() && link.plain.borrow().is_empty() {
                    return Poll::Ready(Ok(()));
                }
            }
        }
        if link.request_since.get().is_none() {
            link.request_since.set(Some(link.lobby.now()));
        }
        let mut plain = link.plain.borrow_mut();
        let count = plain.len().min(cursor.remaining());
        cursor.put_slice(&plain[..count]);
        match count == plain.len() {
            true => plain.clear(),
            false => drop(plain.drain(..count)),
        }
        if plain.capacity() > PLAIN_KEPT {
            plain.shrink_to(0);
        }
        Poll::Ready(Ok(()))
    }
}

/// A first line that has not ended after so many bytes is looked at no further.
const PEEKED_BYTES_MAX: usize = 8 << 10;
/// Bytes of memory that an idle connection keeps for what it receives.
const PLAIN_KEPT: usize = 1024;

impl Write for Wire {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.write(&[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.write(pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.flush()
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.end();
        Poll::Ready(Ok(()))
    }
}
