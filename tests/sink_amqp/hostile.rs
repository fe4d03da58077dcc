// SPDX-License-Identifier: MIT
//! Peers that are no broker, or one that misbehaves: one clear line, bounded time and memory. No
//! real broker sends such bytes, so here a listener of ours does.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use mod_rustbridge::sink::{Class, Sink, SinkError};

use crate::publisher::{PATIENCE, Payload, Publisher, config};

/// A listener that does `act` with its first connection.
struct Peer {
    port: u16,
    thread: Option<JoinHandle<()>>,
}

impl Peer {
    fn that(act: impl FnOnce(TcpStream) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let run = move || {
            let (stream, _) = listener.accept().unwrap();
            act(stream);
        };
        let thread = Builder::new().name("peer".into()).spawn(run).unwrap();
        Self { port, thread: Some(thread) }
    }

    /// Sends these bytes once the client has spoken, and waits for the client to go.
    fn sends(bytes: Vec<u8>) -> Self {
        Self::that(move |mut stream| {
            hear(&mut stream, 8);
            // The client may be gone before it got everything.
            drop(stream.write_all(&bytes));
            drop(stream.read_to_end(&mut Vec::new()));
        })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            assert!(thread.join().is_ok() || std::thread::panicking());
        }
    }
}

fn hear(stream: &mut TcpStream, count: usize) {
    let mut heard = vec![0; count];
    stream.read_exact(&mut heard).unwrap();
}

fn hear_frame(stream: &mut TcpStream) {
    let mut head = [0; 7];
    stream.read_exact(&mut head).unwrap();
    let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
    hear(stream, usize::try_from(size).unwrap() + 1);
}

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&channel.to_be_bytes());
    bytes.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes.push(0xce);
    bytes
}

fn method(channel: u16, class: u16, method: u16, arguments: &[u8]) -> Vec<u8> {
    frame(1, channel, &[&class.to_be_bytes()[..], &method.to_be_bytes(), arguments].concat())
}

/// `connection.start` of a broker that confirms.
fn start() -> Vec<u8> {
    let capabilities = b"\x12publisher_confirmst\x01";
    let mut table = b"\x0ccapabilitiesF".to_vec();
    table.extend_from_slice(&u32::try_from(capabilities.len()).unwrap().to_be_bytes());
    table.extend_from_slice(capabilities);
    let mut arguments = vec![0, 9];
    arguments.extend_from_slice(&u32::try_from(table.len()).unwrap().to_be_bytes());
    arguments.extend_from_slice(&table);
    arguments.extend_from_slice(b"\0\0\0\x05PLAIN\0\0\0\x05en_US");
    method(0, 10, 10, &arguments)
}

fn tune(frame_max: u32) -> Vec<u8> {
    method(0, 10, 30, &[&[0, 0][..], &frame_max.to_be_bytes(), &[0, 0]].concat())
}

/// Everything that a broker says until a channel confirms; the client's words are heard meanwhile.
fn shake(stream: &mut TcpStream, frame_max: u32) {
    hear(stream, 8);
    stream.write_all(&start()).unwrap();
    hear_frame(stream);
    stream.write_all(&tune(frame_max)).unwrap();
    hear_frame(stream);
    hear_frame(stream);
    stream.write_all(&method(0, 10, 41, &[0])).unwrap();
    for answer in [method(1, 20, 11, &[0; 4]), method(1, 40, 11, &[]), method(1, 85, 11, &[])] {
        hear_frame(stream);
        stream.write_all(&answer).unwrap();
    }
}

fn open_error(peer: &Peer) -> SinkError {
    let error = Publisher::new(config(peer.port, "x")).open().unwrap_err();
    let line = error.to_string();
    assert!(line.contains(&peer.port.to_string()) && !line.contains('\n'), "{line}");
    error
}

#[test]
fn a_peer_that_speaks_something_else_is_named() {
    for (bytes, words) in [
        (&b"\x00\xff\x13garbage\r\n\r\n"[..], "where a frame should begin"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "web server"),
        (b"AMQP\x00\x01\x00\x00", "another version of AMQP"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "amqps://"),
    ] {
        let error = open_error(&Peer::sends(bytes.to_vec()));
        assert!(matches!(error, SinkError::Protocol { .. }), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn a_frame_that_is_too_large_is_refused_by_its_size() {
    let error = open_error(&Peer::sends(vec![1, 0, 0, 0x7f, 0xff, 0xff, 0xff]));
    assert!(matches!(error, SinkError::Protocol { .. }), "{error}");
    assert!(error.to_string().contains("2147483647"), "{error}");
}

#[test]
fn a_peer_that_closes_in_the_handshake_is_told_by_the_step() {
    let error = open_error(&Peer::that(|mut stream| hear(&mut stream, 8)));
    assert!(matches!(error, SinkError::Disconnected { .. }), "{error}");
    assert!(error.to_string().contains("connection.start"), "{error}");
    let error = open_error(&Peer::that(|mut stream| {
        hear(&mut stream, 8);
        stream.write_all(&start()).unwrap();
        hear_frame(&mut stream);
    }));
    assert!(error.to_string().contains("connection.tune"), "{error}");
}

#[test]
fn a_peer_that_never_answers_costs_the_time_given_and_no_more() {
    let peer = Peer::that(|mut stream| drop(stream.read_to_end(&mut Vec::new())));
    let mut silent = config(peer.port, "x");
    silent.connect_timeout = Duration::from_millis(300);
    let error = Publisher::new(silent).open().unwrap_err();
    assert!(matches!(error, SinkError::Timeout { .. }), "{error}");
    assert!(error.to_string().contains("connection.start"), "{error}");
}

#[test]
fn a_peer_that_trickles_costs_the_time_given_and_no_more() {
    let peer = Peer::that(|mut stream| {
        hear(&mut stream, 8);
        stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        // Heartbeats for ever, a byte at a time, until the client goes.
        for byte in [8_u8, 0, 0, 0, 0, 0, 0, 0xce].into_iter().cycle() {
            if stream.write_all(&[byte]).is_err() || matches!(stream.read(&mut [0; 64]), Ok(0)) {
                break;
            }
        }
    });
    let mut trickled = config(peer.port, "x");
    trickled.connect_timeout = Duration::from_millis(300);
    let error = Publisher::new(trickled).open().unwrap_err();
    assert!(matches!(error, SinkError::Timeout { .. }), "{error}");
}

#[test]
fn frames_that_come_byte_by_byte_are_put_together() {
    let peer = Peer::that(|mut stream| {
        stream.set_nodelay(true).unwrap();
        hear(&mut stream, 8);
        for byte in start() {
            stream.write_all(&[byte]).unwrap();
        }
        hear_frame(&mut stream);
        for byte in method(0, 10, 50, b"\x01\x93\x04bye!\0\0\0\0") {
            stream.write_all(&[byte]).unwrap();
        }
        drop(stream.read_to_end(&mut Vec::new()));
    });
    let error = open_error(&peer);
    assert_eq!(error.class(), Class::Refused);
    assert!(error.to_string().contains("403 bye!"), "{error}");
}

#[test]
fn a_method_that_no_publisher_expects_ends_the_connection() {
    // basic.deliver, queue.declare, an unknown class, and an answer out of turn.
    for (class, number) in [(60, 60), (50, 10), (99, 1), (10, 41)] {
        let error = open_error(&Peer::sends(method(0, class, number, &[0; 8])));
        assert!(matches!(error, SinkError::Protocol { .. }), "{error}");
    }
}

#[test]
fn a_broker_without_confirms_is_refused() {
    let table = method(0, 10, 10, b"\0\x09\0\0\0\0\0\0\0\x05PLAIN\0\0\0\x05en_US");
    let error = open_error(&Peer::sends(table));
    assert_eq!(error.class(), Class::Refused);
    assert!(error.to_string().contains("publisher confirms"), "{error}");
}

#[test]
fn frames_that_could_hold_nothing_are_not_agreed_on() {
    let peer = Peer::that(|mut stream| {
        hear(&mut stream, 8);
        stream.write_all(&start()).unwrap();
        hear_frame(&mut stream);
        stream.write_all(&tune(64)).unwrap();
        drop(stream.read_to_end(&mut Vec::new()));
    });
    let error = open_error(&peer);
    assert!(error.to_string().contains("64 bytes"), "{error}");
}

#[test]
fn confirms_for_what_was_never_published_end_the_connection() {
    for lie in [
        method(1, 60, 80, &[0, 0, 0, 0, 0, 0, 0, 9, 0]),
        method(1, 60, 120, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        [
            method(1, 60, 50, b"\x01\x38\x08NO_ROUTE\x01x\x01k"),
            frame(2, 1, &[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ]
        .concat(),
        frame(2, 1, &[0; 14]),
    ] {
        let peer = Peer::that(move |mut stream| {
            shake(&mut stream, 131_072);
            stream.write_all(&lie).unwrap();
            drop(stream.read_to_end(&mut Vec::new()));
        });
        let mut publisher = Publisher::connected(config(peer.port, "x"));
        let error = publisher.poll_until_error();
        assert!(matches!(error, SinkError::Protocol { .. }), "{error}");
    }
}

#[test]
fn an_answered_channel_flow_pauses_and_resumes() {
    let peer = Peer::that(|mut stream| {
        shake(&mut stream, 131_072);
        stream.write_all(&method(1, 20, 20, &[0])).unwrap();
        // flow-ok: 20.21 and the same bit.
        let mut answer = [0; 13];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer[7..], [0, 20, 0, 21, 0, 0xce]);
        stream.write_all(&method(1, 20, 20, &[1])).unwrap();
        drop(stream.read_to_end(&mut Vec::new()));
    });
    let mut publisher = Publisher::connected(config(peer.port, "x"));
    publisher.poll_until("the pause", |publisher| publisher.sink.window() == 0);
    publisher.poll_until("its end", |publisher| publisher.sink.window() > 0);
}

#[test]
fn a_broker_that_asked_for_a_pause_owes_no_confirms_until_its_end() {
    let peer = Peer::that(|mut stream| {
        shake(&mut stream, 131_072);
        // The message: method, header, body.
        (0..3).for_each(|_| hear_frame(&mut stream));
        stream.write_all(&method(0, 10, 60, b"\x0dlow on memory")).unwrap();
        drop(stream.read_to_end(&mut Vec::new()));
    });
    let mut blocked = config(peer.port, "x");
    blocked.confirm_timeout = Duration::from_secs(3);
    let mut publisher = Publisher::connected(blocked);
    publisher.send(0, &Payload::default()).unwrap();
    publisher.poll_until("the pause", |publisher| publisher.sink.window() == 0);
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        publisher.poll(Duration::from_millis(500)).unwrap();
    }
    assert_eq!(publisher.in_flight(), 1);
}

#[test]
fn a_broker_that_reads_nothing_does_not_fill_the_memory() {
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let peer = Peer::that(move |mut stream| {
        shake(&mut stream, 131_072);
        // Ends when the other side is dropped.
        assert!(wait.recv().is_err());
    });
    let mut unread = config(peer.port, "x");
    unread.confirm_window = 65_535;
    let mut publisher = Publisher::connected(unread);
    let large = Payload { filling: 100_000, ..Payload::default() };
    let mut taken = 0;
    let busy = loop {
        match publisher.send(taken, &large) {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
        assert!(taken < 2000, "200 MB were taken by a peer that reads nothing");
    };
    assert_eq!(busy.class(), Class::Busy);
    publisher.sink.close(Instant::now() + Duration::from_millis(100));
    drop(done);
}

#[test]
fn a_broker_that_goes_on_reading_gets_what_its_socket_had_no_room_for() {
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let peer = Peer::that(move |mut stream| {
        shake(&mut stream, 131_072);
        assert!(wait.recv().is_ok());
        // Everything that was handed over, and then the confirm for all of it.
        let mut messages = 0;
        while messages < 120 {
            (0..3).for_each(|_| hear_frame(&mut stream));
            messages += 1;
        }
        stream.write_all(&method(1, 60, 80, &[0, 0, 0, 0, 0, 0, 0, 0, 1])).unwrap();
        drop(stream.read_to_end(&mut Vec::new()));
    });
    let mut publisher = Publisher::connected(config(peer.port, "x"));
    // More than the sockets of both sides take.
    let large = Payload { filling: 100_000, ..Payload::default() };
    let mut number = 0;
    let hand_over = |publisher: &mut Publisher, number: &mut u64| {
        while *number < 120 && publisher.send(*number, &large).is_ok() {
            *number += 1;
        }
    };
    hand_over(&mut publisher, &mut number);
    publisher.sink.rest(Duration::from_millis(1));
    go_on.send(()).unwrap();
    // Only ever a look and a rest, as under load: neither leaves the rest of the bytes lying.
    let deadline = Instant::now() + PATIENCE;
    while publisher.delivered.len() < 120 {
        assert!(Instant::now() < deadline, "{number} sent, {} told", publisher.delivered.len());
        hand_over(&mut publisher, &mut number);
        assert!(publisher.sink.rest(Duration::from_millis(1)));
        publisher.poll(Duration::ZERO).unwrap();
    }
    publisher.sink.close(Instant::now());
}

#[test]
fn a_look_alone_sends_on_what_its_socket_had_no_room_for() {
    let peer = Peer::that(move |mut stream| {
        shake(&mut stream, 131_072);
        (0..90).for_each(|_| hear_frame(&mut stream));
        stream.write_all(&method(1, 60, 80, &[0, 0, 0, 0, 0, 0, 0, 0, 1])).unwrap();
        drop(stream.read_to_end(&mut Vec::new()));
    });
    let mut publisher = Publisher::connected(config(peer.port, "x"));
    let large = Payload { filling: 120_000, ..Payload::default() };
    (0..30).for_each(|number| publisher.send(number, &large).unwrap());
    let deadline = Instant::now() + PATIENCE;
    while publisher.delivered.len() < 30 {
        assert!(Instant::now() < deadline, "{} told", publisher.delivered.len());
        publisher.poll(Duration::ZERO).unwrap();
        std::thread::yield_now();
    }
    publisher.sink.close(Instant::now());
}

#[test]
fn what_comes_during_a_rest_is_told_after_it() {
    let (told, is_told) = std::sync::mpsc::channel();
    let peer = Peer::that(move |mut stream| {
        shake(&mut stream, 131_072);
        (0..3).for_each(|_| hear_frame(&mut stream));
        stream.write_all(&method(1, 60, 80, &[0, 0, 0, 0, 0, 0, 0, 1, 0])).unwrap();
        told.send(()).unwrap();
        drop(stream.read_to_end(&mut Vec::new()));
    });
    let mut publisher = Publisher::connected(config(peer.port, "x"));
    publisher.send(0, &Payload::default()).unwrap();
    // The rest sends the message; the confirm alone does not end it, the interrupt does.
    let waker = wake(&publisher, Duration::from_millis(200));
    let start = Instant::now();
    assert!(publisher.sink.rest(PATIENCE));
    assert!(start.elapsed() < PATIENCE / 2, "the interrupt ends a rest");
    assert!(publisher.interrupt.is_raised(), "a confirm ends no rest");
    waker.join().unwrap();
    publisher.interrupt.clear();
    is_told.recv().unwrap();
    publisher.poll_until("the confirm", |publisher| publisher.delivered.len() == 1);
}

#[test]
fn a_connection_that_ends_during_a_rest_is_told_by_the_next_poll() {
    let peer = Peer::that(move |mut stream| {
        shake(&mut stream, 131_072);
        (0..3).for_each(|_| hear_frame(&mut stream));
    });
    let mut publisher = Publisher::connected(config(peer.port, "x"));
    publisher.send(0, &Payload::default()).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let error = loop {
        assert!(Instant::now() < deadline, "the end is not told");
        assert!(publisher.sink.rest(Duration::from_millis(5)));
        if let Err(error) = publisher.poll(Duration::ZERO) {
            break error;
        }
    };
    assert!(matches!(error, SinkError::Disconnected { .. }), "{error}");
    assert!(!publisher.sink.rest(PATIENCE), "without a connection there is none");
}

#[test]
fn a_broker_that_confirms_nothing_is_found_by_who_only_looks_and_rests() {
    let peer = Peer::that(move |mut stream| {
        shake(&mut stream, 131_072);
        drop(stream.read_to_end(&mut Vec::new()));
    });
    let mut silent = config(peer.port, "x");
    silent.confirm_timeout = Duration::from_secs(1);
    // Nothing else ends a rest.
    silent.heartbeat = Duration::ZERO;
    let mut publisher = Publisher::connected(silent);
    publisher.send(0, &Payload::default()).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let error = loop {
        assert!(Instant::now() < deadline, "it is not found");
        // A rest ends with the confirm's time at the latest.
        assert!(publisher.sink.rest(PATIENCE));
        if let Err(error) = publisher.poll(Duration::ZERO) {
            break error;
        }
    };
    assert!(matches!(error, SinkError::Timeout { .. }), "{error}");
    assert!(Instant::now() < deadline, "a rest has lasted longer than the confirm may take");
}

#[test]
fn an_interrupt_ends_every_wait() {
    // While connecting: a listener whose queue is full answers no one.
    let full = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::STREAM,
        None,
    )
    .unwrap();
    rustix::net::bind(&full, &std::net::SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    rustix::net::listen(&full, 0).unwrap();
    let listener = TcpListener::from(full);
    let address = listener.local_addr().unwrap();
    let _first = TcpStream::connect(address).unwrap();
    assert_interrupted(address.port(), Publisher::open);
    // In the handshake: silence.
    let peer = Peer::that(|mut stream| drop(stream.read_to_end(&mut Vec::new())));
    assert_interrupted(peer.port, Publisher::open);
    // In poll: nothing to tell. There it is no error, and the connection stays.
    let peer = Peer::that(|mut stream| {
        shake(&mut stream, 131_072);
        drop(stream.read_to_end(&mut Vec::new()));
    });
    let mut publisher = Publisher::connected(config(peer.port, "x"));
    let start = Instant::now();
    let waker = wake(&publisher, Duration::from_millis(50));
    publisher.poll(PATIENCE).unwrap();
    assert!(start.elapsed() < PATIENCE / 2, "poll went on for {:?}", start.elapsed());
    waker.join().unwrap();
    publisher.interrupt.clear();
    publisher.poll(Duration::ZERO).unwrap();
}

/// Raises the publisher's interrupt after a while.
fn wake(publisher: &Publisher, after: Duration) -> JoinHandle<()> {
    let interrupt = std::sync::Arc::clone(&publisher.interrupt);
    let run = move || {
        std::thread::park_timeout(after);
        interrupt.raise();
    };
    Builder::new().name("waker".into()).spawn(run).unwrap()
}

fn assert_interrupted(port: u16, wait: impl FnOnce(&mut Publisher) -> Result<(), SinkError>) {
    let mut patient = config(port, "x");
    patient.connect_timeout = PATIENCE;
    let mut publisher = Publisher::new(patient);
    let start = Instant::now();
    let waker = wake(&publisher, Duration::from_millis(50));
    let error = wait(&mut publisher).unwrap_err();
    assert!(matches!(error, SinkError::Interrupted), "{error}");
    assert!(start.elapsed() < PATIENCE / 2, "it went on for {:?}", start.elapsed());
    waker.join().unwrap();
}
