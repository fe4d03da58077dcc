// SPDX-License-Identifier: MIT
//! The least that a client of RabbitMQ can be: a socket, frames made beforehand, and a count of what was confirmed.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const CHANNEL: u16 = 1;
const FRAME_END: u8 = 0xce;
const FRAME_MAX: usize = 131_072;
/// The longest that an answer may take: a broker that throws away millions of messages takes minutes.
const PATIENCE: Duration = Duration::from_secs(1200);

/// A connection with one open channel.
#[derive(Debug)]
pub struct PlainAmqp {
    stream: TcpStream,
    received: Vec<u8>,
    at: usize,
    /// Messages published on the channel: the tags of confirms go on from there.
    published: u64,
}

/// A message as it was taken from a queue: its routing key, its properties as they were on the wire, and its body.
#[derive(Clone, Debug, Default)]
pub struct Taken {
    key: String,
    header: Vec<u8>,
    pub body: Vec<u8>,
}

fn short(text: &str) -> Vec<u8> {
    let len = u8::try_from(text.len()).expect("a short text");
    [&[len], text.as_bytes()].concat()
}

fn long(text: &str) -> Vec<u8> {
    let len = u32::try_from(text.len()).expect("a text");
    [&len.to_be_bytes(), text.as_bytes()].concat()
}

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("a frame");
    let mut out = vec![kind];
    out.extend_from_slice(&channel.to_be_bytes());
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(payload);
    out.push(FRAME_END);
    out
}

fn method(class: u16, number: u16, arguments: &[u8]) -> Vec<u8> {
    [&class.to_be_bytes(), &number.to_be_bytes(), arguments].concat()
}

impl Taken {
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The same as a message that the broker need not keep on disk.
    pub fn transient(&self) -> Self {
        let mut header = self.header.clone();
        // Class, weight, size and flags; the content type; the headers' table; then how it is delivered.
        let table = 15 + usize::from(header[14]);
        let len = u32::from_be_bytes(header[table..table + 4].try_into().expect("four bytes"));
        header[table + 4 + len as usize] = 1;
        Self { header, ..self.clone() }
    }

    /// The same under another key.
    pub fn with_key(&self, key: &str) -> Self {
        Self { key: key.to_owned(), ..self.clone() }
    }

    /// The same with a body of so many bytes.
    pub fn cut(&self, len: usize) -> Self {
        let mut short = self.clone();
        short.body.truncate(len);
        short.header[4..12].copy_from_slice(&(short.body.len() as u64).to_be_bytes());
        short
    }

    /// `basic.publish` of it, all its frames.
    fn frames(&self, exchange: &str) -> Vec<u8> {
        let publish = [&[0, 0], &*short(exchange), &short(&self.key), &[0]].concat();
        let mut message = frame(1, CHANNEL, &method(60, 40, &publish));
        message.extend(frame(2, CHANNEL, &self.header));
        for part in self.body.chunks(FRAME_MAX - 8) {
            message.extend(frame(3, CHANNEL, part));
        }
        message
    }
}

impl PlainAmqp {
    pub fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the broker listens");
        stream.set_nodelay(true).expect("a socket option");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        let mut client = Self { stream, received: Vec::new(), at: 0, published: 0 };
        client.write(b"AMQP\0\0\x09\x01");
        client.expect(10, 10);
        let start = [vec![0; 4], short("PLAIN"), long("\0guest\0guest"), short("en_US")].concat();
        client.call(0, &method(10, 11, &start));
        let mut tune = client.expect(10, 30);
        // No heartbeat; the rest as the broker likes it.
        tune.truncate(6);
        tune.extend_from_slice(&[0, 0]);
        client.call(0, &method(10, 31, &tune));
        client.call(0, &method(10, 40, &[short("/"), short(""), vec![0]].concat()));
        client.expect(10, 41);
        client.call(CHANNEL, &method(20, 10, &short("")));
        client.expect(20, 11);
        client
    }

    fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the broker takes it");
    }

    fn call(&mut self, channel: u16, payload: &[u8]) {
        let bytes = frame(1, channel, payload);
        self.write(&bytes);
    }

    /// The next frame's kind and payload. Heartbeats are left out.
    fn next(&mut self) -> (u8, Vec<u8>) {
        loop {
            let rest = &self.received[self.at..];
            if rest.len() >= 7 {
                let len = u32::from_be_bytes([rest[3], rest[4], rest[5], rest[6]]) as usize;
                if rest.len() >= len + 8 {
                    let (kind, payload) = (rest[0], rest[7..7 + len].to_vec());
                    self.at += len + 8;
                    if kind == 8 {
                        continue;
                    }
                    return (kind, payload);
                }
            }
            self.received.drain(..self.at);
            self.at = 0;
            let mut chunk = [0; 16_384];
            let read = self.stream.read(&mut chunk).expect("the broker answers");
            assert!(read > 0, "the broker has closed the connection");
            self.received.extend_from_slice(&chunk[..read]);
        }
    }

    /// Waits for a method and gives its arguments.
    fn expect(&mut self, class: u16, number: u16) -> Vec<u8> {
        let (kind, payload) = self.next();
        let wanted = method(class, number, &[]);
        assert!(kind == 1 && payload.starts_with(&wanted), "{class}.{number}: {payload:?}");
        payload[4..].to_vec()
    }

    /// A durable queue, made if need be, bound to all of a topic exchange, which is made too.
    pub fn bound_queue(&mut self, queue: &str, exchange: &str, arguments: &[(&str, &str)]) {
        let declare = [&[0, 0], &*short(exchange), &short("topic"), &[2], &[0; 4]].concat();
        self.call(CHANNEL, &method(40, 10, &declare));
        self.expect(40, 11);
        let mut table = Vec::new();
        for (name, value) in arguments {
            table.extend([short(name), vec![b'S'], long(value)].concat());
        }
        let len = u32::try_from(table.len()).expect("a table").to_be_bytes();
        self.call(
            CHANNEL,
            &method(50, 10, &[&[0, 0], &*short(queue), &[2], &len, &table].concat()),
        );
        self.expect(50, 11);
        let bind = [&[0, 0], &*short(queue), &short(exchange), &short("#"), &[0], &[0; 4]].concat();
        self.call(CHANNEL, &method(50, 20, &bind));
        self.expect(50, 21);
    }

    pub fn delete_queue(&mut self, queue: &str) {
        self.call(CHANNEL, &method(50, 40, &[&[0, 0], &*short(queue), &[0]].concat()));
        self.expect(50, 41);
    }

    pub fn purge(&mut self, queue: &str) {
        self.call(CHANNEL, &method(50, 30, &[&[0, 0], &*short(queue), &[0]].concat()));
        self.expect(50, 31);
    }

    /// How many messages are in it.
    pub fn count(&mut self, queue: &str) -> u64 {
        // Passive.
        let declare = [&[0, 0], &*short(queue), &[1], &[0; 4]].concat();
        self.call(CHANNEL, &method(50, 10, &declare));
        let answer = self.expect(50, 11);
        let at = usize::from(answer[0]) + 1;
        u64::from(u32::from_be_bytes(answer[at..at + 4].try_into().expect("four bytes")))
    }

    /// Takes one message out of a queue that has some.
    pub fn take(&mut self, queue: &str) -> Taken {
        self.call(CHANNEL, &method(60, 70, &[&[0, 0], &*short(queue), &[1]].concat()));
        let answer = self.expect(60, 71);
        let header = self.next().1;
        let size = u64::from_be_bytes(header[4..12].try_into().expect("eight bytes"));
        // Behind the delivery tag, a flag and the exchange.
        let key = &answer[10 + usize::from(answer[9])..];
        let key = String::from_utf8_lossy(&key[1..=usize::from(key[0])]).into_owned();
        let mut taken = Taken { key, header, body: Vec::new() };
        while (taken.body.len() as u64) < size {
            let (_, part) = self.next();
            taken.body.extend(part);
        }
        taken
    }

    pub fn confirms(&mut self) {
        self.call(CHANNEL, &method(85, 10, &[0]));
        self.expect(85, 11);
    }

    /// Publishes `count` copies of a message and waits for nothing.
    pub fn publish_blindly(&mut self, exchange: &str, like: &Taken, count: u64) {
        let message = like.frames(exchange);
        let batch = message.repeat(256);
        let mut left = count;
        while left > 0 {
            let some = left.min(256);
            self.write(&batch[..some as usize * message.len()]);
            left -= some;
        }
    }

    /// Publishes a message so often at this pace, one at a time, and gives what each took until its confirm, in seconds.
    pub fn round_trips(
        &mut self,
        exchange: &str,
        like: &Taken,
        count: u64,
        pace: Duration,
    ) -> Vec<f64> {
        let message = like.frames(exchange);
        let begun = Instant::now();
        (0..count)
            .map(|number| {
                std::thread::sleep((pace * number as u32).saturating_sub(begun.elapsed()));
                let started = Instant::now();
                self.write(&message);
                self.expect(60, 80);
                self.published += 1;
                started.elapsed().as_secs_f64()
            })
            .collect()
    }

    /// Publishes `count` copies of a message with at most `window` unconfirmed, and waits for the last confirm.
    pub fn publish(&mut self, exchange: &str, like: &Taken, count: u64, window: u64) -> Duration {
        let message = like.frames(exchange);
        let batch: Vec<u8> = message.repeat(usize::try_from(window).expect("a window"));
        let started = Instant::now();
        let (mut sent, mut through) = (0_u64, 0_u64);
        // Confirmed one by one, perhaps before earlier ones.
        let mut single = BTreeSet::new();
        loop {
            let confirmed = through + single.len() as u64;
            if confirmed == count {
                break;
            }
            let room = (window - (sent - confirmed)).min(count - sent);
            // Not for every single confirm a write.
            if room >= window / 4 || (room > 0 && sent + room == count) {
                let bytes = usize::try_from(room).expect("a window") * message.len();
                self.write(&batch[..bytes]);
                sent += room;
            }
            let (_, payload) = self.next();
            assert!(payload.starts_with(&method(60, 80, &[])), "no confirm: {payload:?}");
            let tag = u64::from_be_bytes(payload[4..12].try_into().expect("eight bytes"))
                - self.published;
            if payload[12] & 1 == 1 {
                through = through.max(tag);
                single = single.split_off(&(tag + 1));
            } else {
                single.insert(tag);
            }
        }
        self.published += count;
        started.elapsed()
    }
}
