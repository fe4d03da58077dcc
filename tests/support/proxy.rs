// SPDX-License-Identifier: MIT
//! A TCP proxy between a client and a broker that fails the way networks fail, switched while it runs.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// What the proxy does with connections and bytes. A change counts for open connections too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// Takes connections and bytes and lets nothing through: no answer, no end. Bytes held are sent when it ends.
    Blackhole,
    /// Ends every new connection at once, and those that are open.
    Refuse,
    /// The same by RST.
    Reset,
    /// Each piece of data waits this long, one after another.
    Delay(Duration),
    /// A long way: everything arrives so much later, and what is under way does not hold up what follows.
    Way(Duration),
    /// At most so many bytes a second in each direction of each connection.
    Throttle(u64),
    /// Flips one bit of the n-th byte that the client sends from now on, once; then passes.
    CorruptToServer(u64),
    /// The same for the server's bytes.
    CorruptToClient(u64),
}

#[derive(Debug)]
struct Shared {
    mode: Mutex<Mode>,
    changed: Condvar,
    stopping: AtomicBool,
    /// Bytes until the corruption; `u64::MAX` is never.
    corrupt: [AtomicU64; 2],
    connections: AtomicU64,
    /// An end of each, and whether the connection was broken off.
    open: Mutex<Vec<(TcpStream, Arc<AtomicBool>)>>,
    upstream: Mutex<(String, u16)>,
}

/// A listening proxy; it ends with this value.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    port: u16,
    acceptor: Option<JoinHandle<()>>,
}

const POLL: Duration = Duration::from_millis(20);
/// Pieces of data that are under way at most.
const UNDER_WAY: usize = 4096;

impl Proxy {
    /// Listens on a free port of 127.0.0.1 for what goes to `port`.
    pub fn to(port: u16) -> Self {
        Self::at(0, port)
    }

    /// The same on the port `own`: what a broker tells its clients to come to.
    pub fn at(own: u16, port: u16) -> Self {
        Self::on(Ipv4Addr::LOCALHOST, own, port)
    }

    /// The same on another address of this machine; the port 0 is a free one.
    pub fn on(address: Ipv4Addr, own: u16, port: u16) -> Self {
        let listener = TcpListener::bind((address, own)).expect("a port can be bound");
        listener.set_nonblocking(true).expect("a socket can be made non-blocking");
        let own = listener.local_addr().expect("a bound socket has an address").port();
        let shared = Arc::new(Shared {
            mode: Mutex::new(Mode::Pass),
            changed: Condvar::new(),
            stopping: AtomicBool::new(false),
            corrupt: [AtomicU64::new(u64::MAX), AtomicU64::new(u64::MAX)],
            connections: AtomicU64::new(0),
            open: Mutex::new(Vec::new()),
            upstream: Mutex::new(("127.0.0.1".into(), port)),
        });
        let with = Arc::clone(&shared);
        let acceptor = Builder::new().name("proxy".into()).spawn(move || accept(&listener, &with));
        Self { shared, port: own, acceptor: Some(acceptor.expect("a thread can be started")) }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Connections taken so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Whether a byte that was to be changed has not come yet.
    pub fn will_corrupt(&self) -> bool {
        self.shared.corrupt.iter().any(|left| left.load(Ordering::SeqCst) != u64::MAX)
    }

    /// Where new connections go from now on.
    pub fn redirect(&self, port: u16) {
        *self.shared.upstream.lock().unwrap() = ("127.0.0.1".into(), port);
    }

    pub fn set(&self, mode: Mode) {
        match mode {
            Mode::CorruptToServer(n) => self.shared.corrupt[0].store(n, Ordering::SeqCst),
            Mode::CorruptToClient(n) => self.shared.corrupt[1].store(n, Ordering::SeqCst),
            _ => {}
        }
        *self.shared.mode.lock().unwrap() = mode;
        self.shared.changed.notify_all();
        if matches!(mode, Mode::Refuse | Mode::Reset) {
            self.drop_connections(mode == Mode::Reset);
        }
    }

    /// Ends what is open, by FIN or by RST.
    pub fn drop_connections(&self, reset: bool) {
        let open: Vec<_> = self.shared.open.lock().unwrap().drain(..).collect();
        for (_, broken) in &open {
            broken.store(true, Ordering::SeqCst);
        }
        self.shared.changed.notify_all();
        for (stream, _) in open {
            if reset {
                reset_on_close(&stream);
            }
            drop(stream.shutdown(if reset { Shutdown::Read } else { Shutdown::Both }));
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.changed.notify_all();
        self.drop_connections(false);
        if let Some(acceptor) = self.acceptor.take() {
            drop(acceptor.join());
        }
    }
}

/// A close with `SO_LINGER` at zero sends RST.
fn reset_on_close(stream: &TcpStream) {
    rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO)).ok();
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut pumps: Vec<JoinHandle<()>> = Vec::new();
    while !shared.stopping.load(Ordering::SeqCst) {
        match listener.accept() {
            Ok((client, _)) => {
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let mode = *shared.mode.lock().unwrap();
                if matches!(mode, Mode::Refuse | Mode::Reset) {
                    reset_on_close(&client);
                    continue;
                }
                pumps.extend(connect(&client, shared));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::park_timeout(POLL),
            Err(_) => break,
        }
        pumps.retain(|pump| !pump.is_finished());
    }
    for pump in pumps {
        drop(pump.join());
    }
}

fn connect(client: &TcpStream, shared: &Arc<Shared>) -> Vec<JoinHandle<()>> {
    let upstream = shared.upstream.lock().unwrap().clone();
    let Ok(server) = TcpStream::connect(upstream) else { return Vec::new() };
    let ends = [(client, &server), (&server, client)];
    let broken = Arc::new(AtomicBool::new(false));
    let mut pumps = Vec::new();
    for (direction, (from, to)) in ends.into_iter().enumerate() {
        let (Ok(from), Ok(to), Ok(kept)) = (from.try_clone(), to.try_clone(), from.try_clone())
        else {
            continue;
        };
        shared.open.lock().unwrap().push((kept, Arc::clone(&broken)));
        let (shared, broken) = (Arc::clone(shared), Arc::clone(&broken));
        let run = move || pump(from, to, direction, &broken, &shared);
        pumps.extend(Builder::new().name("proxy-pump".into()).spawn(run));
    }
    pumps
}

/// A long way: what is under way, and the thread that waits for it to arrive.
struct Line {
    under_way: SyncSender<(Instant, Vec<u8>)>,
    thread: JoinHandle<()>,
}

impl Line {
    fn to(end: &TcpStream, broken: &Arc<AtomicBool>, shared: &Arc<Shared>) -> Option<Self> {
        let end = end.try_clone().ok()?;
        let (under_way, arriving) = sync_channel(UNDER_WAY);
        let (broken, shared) = (Arc::clone(broken), Arc::clone(shared));
        let run = move || arrive(&arriving, end, &broken, &shared);
        let thread = Builder::new().name("proxy-way".into()).spawn(run).ok()?;
        Some(Self { under_way, thread })
    }

    /// Waits until everything has arrived, or is lost with the connection.
    fn end(self) {
        drop(self.under_way);
        drop(self.thread.join());
    }
}

/// Writes what is under way when it arrives. What a connection that breaks has under way is lost.
fn arrive(
    arriving: &Receiver<(Instant, Vec<u8>)>,
    mut to: TcpStream,
    broken: &AtomicBool,
    shared: &Shared,
) {
    while let Ok((at, piece)) = arriving.recv() {
        let mut mode = shared.mode.lock().unwrap();
        let is_over = loop {
            let left = at.saturating_duration_since(Instant::now());
            if broken.load(Ordering::SeqCst) || shared.stopping.load(Ordering::SeqCst) {
                break true;
            }
            if left.is_zero() {
                break false;
            }
            mode = shared.changed.wait_timeout(mode, left).unwrap().0;
        };
        drop(mode);
        if is_over || to.write_all(&piece).is_err() {
            return;
        }
    }
}

fn pump(
    mut from: TcpStream,
    mut to: TcpStream,
    direction: usize,
    broken: &Arc<AtomicBool>,
    shared: &Arc<Shared>,
) {
    drop(from.set_nonblocking(false));
    drop(from.set_read_timeout(Some(POLL)));
    drop(to.set_nodelay(true));
    let mut line: Option<Line> = None;
    let mut buffer = [0; 16 * 1024];
    while !shared.stopping.load(Ordering::SeqCst) {
        let size = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(size) => size,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                continue;
            }
            Err(_) => break,
        };
        let piece = &mut buffer[..size];
        let counter = &shared.corrupt[direction];
        let left = counter.load(Ordering::SeqCst);
        let length = u64::try_from(piece.len()).expect("a length fits");
        if left < length {
            piece[usize::try_from(left).expect("it is within the piece")] ^= 0x10;
            counter.store(u64::MAX, Ordering::SeqCst);
        } else if left != u64::MAX {
            counter.store(left - length, Ordering::SeqCst);
        }
        let came = Instant::now();
        if !hold(shared, length) {
            break;
        }
        let mode = *shared.mode.lock().unwrap();
        let is_gone = if let Mode::Way(way) = mode {
            line = line.or_else(|| Line::to(&to, broken, shared));
            let sent = line.as_ref().map(|line| line.under_way.send((came + way, piece.to_vec())));
            sent.is_none_or(|sent| sent.is_err())
        } else {
            // What is under way still comes first.
            if let Some(line) = line.take() {
                line.end();
            }
            broken.load(Ordering::SeqCst) || to.write_all(piece).is_err()
        };
        if is_gone {
            break;
        }
    }
    if let Some(line) = line {
        line.end();
    }
    drop(to.shutdown(Shutdown::Write));
}

/// Waits as the mode wants it; false when the proxy or the connection is to end.
fn hold(shared: &Shared, length: u64) -> bool {
    let mut mode = shared.mode.lock().unwrap();
    let started = Instant::now();
    loop {
        if shared.stopping.load(Ordering::SeqCst) || matches!(*mode, Mode::Refuse | Mode::Reset) {
            return false;
        }
        let until = match *mode {
            Mode::Blackhole => Duration::MAX,
            Mode::Delay(time) => time,
            Mode::Throttle(rate) => {
                Duration::from_millis(length.saturating_mul(1000) / rate.max(1))
            }
            _ => Duration::ZERO,
        };
        let Some(left) = until.checked_sub(started.elapsed()).filter(|left| !left.is_zero()) else {
            return true;
        };
        mode = shared.changed.wait_timeout(mode, left.min(Duration::from_secs(1))).unwrap().0;
    }
}
