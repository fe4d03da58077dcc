// SPDX-License-Identifier: MIT
//! What arrived, seen by clients that are not ours: pika for RabbitMQ, kcat for Kafka, a reader of lines for files.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use serde_json::{Map, Value};

use super::skips::Missing;
use super::{root, wait_until};

/// One message as a consumer got it.
#[derive(Debug, Clone, Default)]
pub struct Message {
    /// The exchange or the topic.
    pub place: String,
    /// The routing key or the record's key; Kafka's may be none.
    pub key: Option<String>,
    /// Header values as text.
    pub headers: BTreeMap<String, String>,
    /// AMQP properties.
    pub properties: Map<String, Value>,
    pub redelivered: bool,
    pub partition: i64,
    pub offset: i64,
    pub body: Vec<u8>,
}

impl Message {
    /// The body as a JSON object.
    pub fn json(&self) -> Map<String, Value> {
        super::recorded::parse(&self.body)
    }

    /// The event, without what a file adds to it.
    pub fn event(&self) -> Map<String, Value> {
        let mut event = self.json();
        event.retain(|name, _| !name.starts_with("rb-"));
        event
    }

    /// Its number in its sink's stream: a header, or what a file adds to the line.
    pub fn seq(&self) -> u64 {
        let in_line = || self.json().get("rb-seq")?.as_str()?.parse().ok();
        self.number("seq").or_else(in_line).unwrap_or_else(|| panic!("no seq: {self:?}"))
    }

    /// A header that is a number: `rb_seq`.
    pub fn number(&self, header: &str) -> Option<u64> {
        self.headers.get(header)?.parse().ok()
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), Into::into)
}

/// A client program that prints one message a line, and what it has printed.
#[derive(Debug)]
pub struct Consumer {
    child: Child,
    messages: Arc<Mutex<Vec<Message>>>,
    errors: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Consumer {
    fn start(mut command: Command, parse: fn(&str) -> Option<Message>) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("a client can be started");
        let output = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let complaints = BufReader::new(child.stderr.take().expect("stderr is piped"));
        let (messages, errors) =
            (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(String::new())));
        let (kept, said) = (Arc::clone(&messages), Arc::clone(&errors));
        let read_output = move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some(message) = parse(&line) {
                    kept.lock().unwrap().push(message);
                }
            }
        };
        let read_errors = move || {
            for line in complaints.lines().map_while(Result::ok) {
                let mut said = said.lock().unwrap();
                said.push_str(&line);
                said.push('\n');
            }
        };
        let spawn =
            |run: Box<dyn FnOnce() + Send>| Builder::new().name("consumer".into()).spawn(run);
        let readers = vec![
            spawn(Box::new(read_output)).expect("a thread can be started"),
            spawn(Box::new(read_errors)).expect("a thread can be started"),
        ];
        Self { child, messages, errors, readers }
    }

    /// A queue bound to an exchange with a key, on a RabbitMQ; ready to receive when this returns. With a name, the queue
    /// is durable and keeps what comes while nobody consumes.
    pub fn amqp(url: &str, exchange: &str, key: &str, queue: Option<&str>) -> Self {
        let mut python = Command::new("/usr/bin/python3");
        python.arg(root().join("tests/support/amqp.py"));
        Self::amqp_by(python, url, exchange, key, queue)
    }

    /// The same by a command that runs `amqp.py` elsewhere.
    pub fn amqp_by(
        mut command: Command,
        url: &str,
        exchange: &str,
        key: &str,
        queue: Option<&str>,
    ) -> Self {
        command.args(["consume", url, exchange, key]).args(queue);
        let mut consumer = Self::start(command, parse_amqp);
        wait_until(Duration::from_secs(20), "the consumer's queue", || {
            consumer.assert_running();
            consumer.messages.lock().unwrap().first().is_some_and(|first| first.place == READY)
        });
        // Only that first line: what a queue with a name held may be here already.
        consumer.messages.lock().unwrap().remove(0);
        consumer
    }

    /// Everything in a topic from its beginning. `properties` are librdkafka's, as `security.protocol=ssl`.
    pub fn kafka(bootstrap: &str, topic: &str, properties: &[&str]) -> Self {
        Self::kafka_by(Command::new("kcat"), bootstrap, topic, properties)
    }

    /// The same by a command that runs kcat elsewhere.
    pub fn kafka_by(
        mut command: Command,
        bootstrap: &str,
        topic: &str,
        properties: &[&str],
    ) -> Self {
        command.args(["-C", "-q", "-u", "-J", "-b", bootstrap, "-t", topic, "-o", "beginning"]);
        command.args([
            "-X",
            "topic.metadata.refresh.interval.ms=500",
            "-X",
            "reconnect.backoff.max.ms=500",
        ]);
        command.args(["-X", "allow.auto.create.topics=true"]);
        for property in properties {
            command.args(["-X", property]);
        }
        Self::start(command, parse_kafka)
    }

    fn assert_running(&mut self) {
        let ended = self.child.try_wait().expect("a child can be asked");
        assert!(ended.is_none(), "the consumer ended: {}", self.errors.lock().unwrap());
    }

    /// What has arrived so far.
    pub fn messages(&self) -> Vec<Message> {
        self.messages.lock().unwrap().clone()
    }

    /// What has arrived so far, without the first so many.
    pub fn messages_from(&self, from: usize) -> Vec<Message> {
        self.messages.lock().unwrap().get(from..).unwrap_or_default().to_vec()
    }

    pub fn count(&self) -> usize {
        self.messages.lock().unwrap().len()
    }

    /// Waits until at least so many have arrived.
    pub fn wait_count(&mut self, count: usize, limit: Duration) -> Vec<Message> {
        let what = format!("{count} messages");
        let mut last = 0;
        wait_until(limit, &what, || {
            self.assert_running();
            if self.count() != last {
                last = self.count();
            }
            last >= count
        });
        self.messages()
    }

    /// Waits until a message satisfies the condition.
    pub fn wait_message(
        &mut self,
        limit: Duration,
        what: &str,
        fits: impl Fn(&Message) -> bool,
    ) -> Message {
        super::wait_for(limit, what, || {
            self.assert_running();
            self.messages.lock().unwrap().iter().find(|message| fits(message)).cloned()
        })
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        for reader in self.readers.drain(..) {
            drop(reader.join());
        }
    }
}

const READY: &str = "\u{0}ready";

fn parse_amqp(line: &str) -> Option<Message> {
    if line == "READY" {
        return Some(Message { place: READY.into(), ..Message::default() });
    }
    let value: Value = serde_json::from_str(line).ok()?;
    let headers = value["headers"].as_object().into_iter().flatten();
    Some(Message {
        place: text(&value["exchange"]),
        key: Some(text(&value["key"])),
        headers: headers.map(|(name, value)| (name.clone(), text(value))).collect(),
        properties: value["properties"].as_object().cloned().unwrap_or_default(),
        redelivered: value["redelivered"] == true,
        body: base64(value["body"].as_str()?),
        ..Message::default()
    })
}

fn parse_kafka(line: &str) -> Option<Message> {
    let value: Value = serde_json::from_str(line).ok()?;
    // kcat prints headers as one flat list: name, value, name, value.
    let flat: Vec<String> = value["headers"].as_array().into_iter().flatten().map(text).collect();
    let pairs = flat.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone()));
    Some(Message {
        place: text(&value["topic"]),
        key: value["key"].as_str().map(Into::into),
        headers: pairs.collect(),
        partition: value["partition"].as_i64().unwrap_or(-1),
        offset: value["offset"].as_i64().unwrap_or(-1),
        body: text(&value["payload"]).into_bytes(),
        ..Message::default()
    })
}

fn base64(text: &str) -> Vec<u8> {
    let digit = |c: u8| {
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
            .iter()
            .position(|&d| d == c)
    };
    let (mut bytes, mut bits, mut held) = (Vec::with_capacity(text.len() * 3 / 4), 0_usize, 0);
    for value in text.bytes().filter_map(digit) {
        bits = (bits << 6) | value;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from((bits >> held) & 0xff).expect("eight bits are a byte"));
        }
        bits &= 0xffff;
    }
    bytes
}

/// Whether pika is here.
pub fn pika() -> Result<(), Missing> {
    let asked =
        Command::new("/usr/bin/python3").args(["-c", "import pika"]).stderr(Stdio::null()).status();
    if asked.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    Err(Missing::new(
        "pika is not installed for /usr/bin/python3",
        "apt-get install python3-pika, or make setup",
    ))
}

/// Publishes lines with pika, each confirmed by the broker.
pub fn amqp_publish(url: &str, exchange: &str, key: &str, lines: &[&str]) {
    feed(
        Command::new("/usr/bin/python3")
            .arg(root().join("tests/support/amqp.py"))
            .args(["publish", url, exchange, key]),
        lines,
    );
}

/// Takes everything out of a durable queue with pika, in order, until it is empty.
pub fn amqp_drain(url: &str, queue: &str) -> Vec<Message> {
    let mut command = Command::new("/usr/bin/python3");
    command.arg(root().join("tests/support/amqp.py")).args(["drain", url, queue, "-"]);
    read_all(&mut command, parse_amqp)
}

/// Makes a durable queue, its exchange and its binding with pika, and takes nothing out of it.
pub fn amqp_bind(url: &str, exchange: &str, key: &str, queue: &str) {
    let mut command = Command::new("/usr/bin/python3");
    command.arg(root().join("tests/support/amqp.py")).args(["bind", url, exchange, key, queue]);
    feed(&mut command, &[]);
}

/// Deletes an exchange with pika.
pub fn amqp_delete(url: &str, exchange: &str) {
    feed(
        Command::new("/usr/bin/python3")
            .arg(root().join("tests/support/amqp.py"))
            .args(["delete", url, exchange, "-"]),
        &[],
    );
}

/// Reads everything that a topic holds now with kcat; the records of a partition in order.
pub fn kafka_read(bootstrap: &str, topic: &str) -> Vec<Message> {
    let mut command = Command::new("kcat");
    command.args(["-C", "-q", "-u", "-J", "-e", "-b", bootstrap, "-t", topic, "-o", "beginning"]);
    read_all(&mut command, parse_kafka)
}

/// Runs a client to its end; each line that it prints is a message.
fn read_all(command: &mut Command, parse: fn(&str) -> Option<Message>) -> Vec<Message> {
    let done = command.stdin(Stdio::null()).output().expect("a client can be started");
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).lines().filter_map(parse).collect()
}

/// Declares a durable exchange with pika.
pub fn amqp_declare(url: &str, exchange: &str, kind: &str) {
    feed(
        Command::new("/usr/bin/python3")
            .arg(root().join("tests/support/amqp.py"))
            .args(["declare", url, exchange, kind]),
        &[],
    );
}

/// Produces lines with kcat, all with one key.
pub fn kafka_publish(bootstrap: &str, topic: &str, key: &str, lines: &[&str], properties: &[&str]) {
    let mut command = Command::new("kcat");
    command.args(["-P", "-b", bootstrap, "-t", topic, "-k", key]);
    for property in properties {
        command.args(["-X", property]);
    }
    feed(&mut command, lines);
}

fn feed(command: &mut Command, lines: &[&str]) {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("a client can be started");
    let mut input = child.stdin.take().expect("stdin is piped");
    for line in lines {
        drop(writeln!(input, "{line}"));
    }
    drop(input);
    let done = child.wait_with_output().expect("a child can be waited for");
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Every whole line of every file that a file sink wrote below a folder, as messages; files in the order of their names,
/// those with `.gz` unpacked. A line whose end is not there yet is being written, so that a later look finds it.
pub fn read_ndjson(folder: &Path) -> Vec<Message> {
    let mut files = Vec::new();
    collect_files(folder, &mut files);
    files.sort();
    let mut messages = Vec::new();
    for file in files {
        let bytes = std::fs::read(&file).expect("a file that was listed can be read");
        let bytes = if file.extension().is_some_and(|ending| ending == "gz") {
            let mut unpacked = Vec::new();
            let mut reader = flate2::read::MultiGzDecoder::new(bytes.as_slice());
            std::io::Read::read_to_end(&mut reader, &mut unpacked).expect("a rotated file is gzip");
            unpacked
        } else {
            bytes
        };
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        for line in bytes[..whole].split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            let place = file.display().to_string();
            messages.push(Message { place, body: line.into(), ..Message::default() });
        }
    }
    messages
}

fn collect_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect_files(&path, files);
        } else {
            files.push(path);
        }
    }
}
