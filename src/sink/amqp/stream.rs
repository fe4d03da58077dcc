// SPDX-License-Identifier: MIT
//! A socket that never waits by itself, with or without TLS, and the one place that waits for it.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use openssl::ssl::{ErrorCode, ShutdownState, SslStream};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::tls;
use crate::config::amqp::AmqpUrl;
use crate::config::tls::TlsConfig;
use crate::sink::{Interrupt, SinkError};

/// What a wait ended with.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Ready {
    /// There may be something to read, or the connection is over.
    pub(super) readable: bool,
    /// Some can be written, or the connection is over.
    pub(super) writable: bool,
    /// The interrupt is raised.
    pub(super) interrupted: bool,
}

/// A connection's bytes. Never blocks: what is not possible at once is `WouldBlock`.
#[derive(Debug)]
pub(super) struct Stream {
    inner: Inner,
    /// TLS cannot go on writing before it has read.
    write_wants_read: bool,
}

#[derive(Debug)]
enum Inner {
    Plain(TcpStream),
    Tls(Box<SslStream<TcpStream>>),
}

impl Stream {
    /// Connects to the first address of `broker` that answers, and shakes hands for TLS.
    ///
    /// The one wait here without a deadline is the system's name resolution, which has none
    /// (`resolv.conf`: `timeout`, `attempts`). An address instead of a name avoids it; else whoever
    /// calls this must be able to wait that long.
    ///
    /// # Errors
    ///
    /// Names the broker and every address that failed; [`SinkError::Interrupted`] at once when
    /// `interrupt` is raised.
    pub(super) fn connect(
        broker: &AmqpUrl,
        tls: &TlsConfig,
        interrupt: &Interrupt,
        deadline: Instant,
    ) -> Result<Self, SinkError> {
        let tcp = connect_any(broker, interrupt, deadline)?;
        if !broker.tls {
            return Ok(Self::new(Inner::Plain(tcp)));
        }
        let refused = |reason| SinkError::Refused { peer: broker.peer(), reason };
        let mut ssl = tls::prepare(tls, &broker.host, tcp).map_err(refused)?;
        loop {
            let error = match ssl.connect() {
                Ok(()) => return Ok(Self::new(Inner::Tls(Box::new(ssl)))),
                Err(error) => error,
            };
            let write = match error.code() {
                ErrorCode::WANT_READ => false,
                ErrorCode::WANT_WRITE => true,
                _ => {
                    return Err(match tls::why(&ssl, &broker.host, tls, error) {
                        Ok(reason) => refused(reason),
                        Err(source) => SinkError::Disconnected { peer: broker.peer(), source },
                    });
                }
            };
            let ready = wait(ssl.get_ref().as_fd(), Some(interrupt), !write, write, deadline);
            let ready =
                ready.map_err(|source| SinkError::Disconnected { peer: broker.peer(), source })?;
            check(ready, broker, deadline, "TLS handshake")?;
        }
    }

    fn new(inner: Inner) -> Self {
        Self { inner, write_wants_read: false }
    }

    fn socket(&self) -> &TcpStream {
        match &self.inner {
            Inner::Plain(tcp) => tcp,
            Inner::Tls(ssl) => ssl.get_ref(),
        }
    }

    /// Reads what is there. Zero is the end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.inner {
            Inner::Plain(tcp) => loop {
                match tcp.read(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    other => return other,
                }
            },
            Inner::Tls(ssl) => {
                self.write_wants_read = false;
                match ssl.ssl_read(buffer) {
                    Err(error) if error.code() == ErrorCode::ZERO_RETURN => Ok(0),
                    other => other.map_err(to_io),
                }
            }
        }
    }

    /// Writes as much as goes at once. After `WouldBlock` the next call has to begin with the
    /// same bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.inner {
            Inner::Plain(tcp) => loop {
                match tcp.write(bytes) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    other => return other,
                }
            },
            Inner::Tls(ssl) => ssl.ssl_write(bytes).map_err(|error| {
                self.write_wants_read = error.code() == ErrorCode::WANT_READ;
                to_io(error)
            }),
        }
    }

    /// Whether what is read comes in records, whose end is not the end of what there is.
    pub(super) fn is_tls(&self) -> bool {
        matches!(self.inner, Inner::Tls(_))
    }

    /// Waits until something can be read when `read`, or written when `write`, or `interrupt` is
    /// raised, or `until`.
    pub(super) fn wait(
        &self,
        read: bool,
        write: bool,
        interrupt: Option<&Interrupt>,
        until: Instant,
    ) -> io::Result<Ready> {
        let read = read || (write && self.write_wants_read);
        let write = write && !self.write_wants_read;
        wait(self.socket().as_fd(), interrupt, read, write, until)
    }

    /// Says goodbye to TLS, when that goes at once.
    pub(super) fn shutdown(&mut self) {
        if let Inner::Tls(ssl) = &mut self.inner
            && ssl.get_shutdown() == ShutdownState::empty()
        {
            // The protocol above has said goodbye already; nothing depends on this one.
            let _unsaid = ssl.shutdown();
        }
    }
}

fn to_io(error: openssl::ssl::Error) -> io::Error {
    match error.code() {
        ErrorCode::WANT_READ | ErrorCode::WANT_WRITE => io::ErrorKind::WouldBlock.into(),
        ErrorCode::SSL => io::Error::new(io::ErrorKind::InvalidData, tls::broken(&error)),
        _ => error.into_io_error().unwrap_or_else(|_| io::ErrorKind::UnexpectedEof.into()),
    }
}

fn check(
    ready: Ready,
    broker: &AmqpUrl,
    deadline: Instant,
    waiting_for: &'static str,
) -> Result<(), SinkError> {
    if ready.interrupted {
        return Err(SinkError::Interrupted);
    }
    if !ready.readable && !ready.writable && Instant::now() >= deadline {
        return Err(SinkError::Timeout { peer: broker.peer(), waiting_for });
    }
    Ok(())
}

fn connect_any(
    broker: &AmqpUrl,
    interrupt: &Interrupt,
    deadline: Instant,
) -> Result<TcpStream, SinkError> {
    let disconnected = |source| SinkError::Disconnected { peer: broker.peer(), source };
    let addresses = resolve(broker).map_err(disconnected)?;
    let count = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    let mut failures = String::new();
    let mut kind = io::ErrorKind::NotFound;
    for (position, address) in (0_u32..).zip(&addresses) {
        if interrupt.is_raised() {
            return Err(SinkError::Interrupted);
        }
        // A silent address must not take the time of those behind it.
        let now = Instant::now();
        let share = deadline.saturating_duration_since(now) / count.saturating_sub(position).max(1);
        match connect_one(*address, interrupt, now + share) {
            Ok(Some(tcp)) => return Ok(tcp),
            Ok(None) => return Err(SinkError::Interrupted),
            Err(error) => {
                kind = error.kind();
                let separator = if failures.is_empty() { "" } else { "; " };
                failures = format!("{failures}{separator}{address}: {}", plain(&error));
            }
        }
    }
    Err(disconnected(io::Error::new(kind, failures)))
}

/// The system's words without its number.
fn plain(error: &io::Error) -> String {
    let words = error.to_string();
    words.split(" (os error").next().unwrap_or(&words).to_lowercase()
}

fn resolve(broker: &AmqpUrl) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = broker.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, broker.port)]);
    }
    let name = &broker.host;
    let found = (name.as_str(), broker.port).to_socket_addrs().map_err(|error| {
        io::Error::new(error.kind(), format!("the name {name:?} cannot be resolved: {error}"))
    })?;
    let addresses: Vec<SocketAddr> = found.collect();
    if addresses.is_empty() {
        let words = format!("the name {name:?} has no address");
        return Err(io::Error::new(io::ErrorKind::NotFound, words));
    }
    Ok(addresses)
}

/// `None`: interrupted.
fn connect_one(
    address: SocketAddr,
    interrupt: &Interrupt,
    deadline: Instant,
) -> io::Result<Option<TcpStream>> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    // Messages are gathered here already; waiting in the kernel too would only delay them.
    sockopt::set_tcp_nodelay(&socket, true)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) => return Ok(Some(socket.into())),
        Err(Errno::INPROGRESS | Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    loop {
        let ready = wait(socket.as_fd(), Some(interrupt), false, true, deadline)?;
        if ready.interrupted {
            return Ok(None);
        }
        if ready.writable {
            sockopt::socket_error(&socket)??;
            return Ok(Some(socket.into()));
        }
        if Instant::now() >= deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"));
        }
    }
}

/// `poll(2)` on the socket and the interrupt.
fn wait(
    socket: BorrowedFd<'_>,
    interrupt: Option<&Interrupt>,
    read: bool,
    write: bool,
    until: Instant,
) -> io::Result<Ready> {
    let mut events = PollFlags::empty();
    events.set(PollFlags::IN, read);
    events.set(PollFlags::OUT, write);
    let left = until.saturating_duration_since(Instant::now());
    // Longer than any deadline here; and a timespec cannot hold every duration.
    let left = left.min(Duration::from_secs(3600));
    let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
    let socket = PollFd::from_borrowed_fd(socket, events);
    let (ready, raised) = if let Some(interrupt) = interrupt {
        let mut fds = [socket, PollFd::new(interrupt, PollFlags::IN)];
        let woken = poll(&mut fds, Some(&timeout));
        let [socket, interrupt] = fds;
        (woken.map(|_| socket.revents()), !interrupt.revents().is_empty())
    } else {
        let mut fds = [socket];
        let woken = poll(&mut fds, Some(&timeout));
        let [socket] = fds;
        (woken.map(|_| socket.revents()), false)
    };
    match ready {
        Ok(events) => {
            let over = events.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL);
            Ok(Ready {
                readable: over || events.contains(PollFlags::IN),
                writable: over || events.contains(PollFlags::OUT),
                interrupted: raised,
            })
        }
        // A signal: nothing is ready, and the caller looks at the clock.
        Err(Errno::INTR) => Ok(Ready::default()),
        Err(error) => Err(error.into()),
    }
}
