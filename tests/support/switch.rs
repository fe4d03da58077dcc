// SPDX-License-Identifier: MIT
//! What a scenario may do with a switch, whether it is the host or a real FreeSWITCH.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

/// The configuration file's path below a switch's configuration folder.
pub const CONFIGURATION: &str = "autoload_configs/rustbridge.conf.xml";

/// One event to fire. `bare` takes the headers as they are; else the core adds its thirteen and treats values its own way.
#[derive(Debug, Clone, Default)]
pub struct Event {
    pub name: String,
    pub subclass: Option<String>,
    pub bare: bool,
    pub fields: Vec<Field>,
}

#[derive(Debug, Clone)]
pub enum Field {
    Header(Vec<u8>, Vec<u8>),
    /// One item pushed to an array header.
    Item(Vec<u8>, Vec<u8>),
    Body(Vec<u8>),
}

impl Event {
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    pub fn custom(subclass: &str) -> Self {
        Self { name: "CUSTOM".into(), subclass: Some(subclass.into()), ..Self::default() }
    }

    #[must_use]
    pub fn header(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.fields.push(Field::Header(name.as_ref().into(), value.as_ref().into()));
        self
    }

    #[must_use]
    pub fn item(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.fields.push(Field::Item(name.as_ref().into(), value.as_ref().into()));
        self
    }

    #[must_use]
    pub fn body(mut self, text: impl AsRef<[u8]>) -> Self {
        self.fields.push(Field::Body(text.as_ref().into()));
        self
    }

    /// The generator's one-line form: see `tests/host/generate.c`.
    pub fn line(&self) -> String {
        let mut line = String::from(if self.bare { "bare " } else { "core " });
        line += &self.name;
        line.push(' ');
        line +=
            &self.subclass.as_deref().map_or_else(|| "-".into(), |name| escape(name.as_bytes()));
        for field in &self.fields {
            let (name, sign, value) = match field {
                Field::Header(name, value) => (escape(name), "=", value),
                Field::Item(name, value) => (escape(name), "+=", value),
                Field::Body(text) => ("!body".into(), "=", text),
            };
            write!(line, " {name}{sign}{}", escape(value)).unwrap();
        }
        line
    }
}

/// %XX for everything that could be taken for the line's own punctuation.
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-_.:/@,;<>()*?$&#'\"".contains(&byte) {
            text.push(char::from(byte));
        } else {
            write!(text, "%{byte:02x}").unwrap();
        }
    }
    text
}

/// Events by the thousand. Zero in `rate` is as fast as possible.
#[derive(Debug, Clone)]
pub struct Load {
    pub count: u64,
    pub headers: u32,
    pub threads: u32,
    pub rate: u32,
    pub keys: u32,
    pub kind: &'static str,
    /// Build every event before the first is delivered, so that only handlers are in the measurement.
    pub ahead: bool,
    /// Fire through the dispatch queue instead of delivering on the generator's threads.
    pub queued: bool,
    /// Look whether a handler changed an event (host only).
    pub check: bool,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            count: 1000,
            headers: 20,
            threads: 1,
            rate: 0,
            keys: 50,
            kind: "channel",
            ahead: false,
            queued: false,
            check: false,
        }
    }
}

impl Load {
    pub fn line(&self) -> String {
        format!(
            "deliver n={} headers={} threads={} rate={} keys={} kind={} ahead={} via={} check={}",
            self.count,
            self.headers,
            self.threads,
            self.rate,
            self.keys,
            self.kind,
            u8::from(self.ahead),
            if self.queued { "queue" } else { "direct" },
            u8::from(self.check),
        )
    }
}

/// What the generator says afterwards. Times are nanoseconds of one `switch_event_deliver`, all its handlers together.
#[derive(Debug, Clone, Default)]
pub struct Delivered {
    pub count: u64,
    /// The first and the last Gen-Seq.
    pub first: u64,
    pub last: u64,
    pub numbers: BTreeMap<String, f64>,
    /// Ranges of Gen-Seq that were numbered but not sent, because the generator was stopped.
    pub unsent: Vec<(u64, u64)>,
}

impl Delivered {
    pub fn parse(answer: &str) -> Self {
        let mut found = Self::default();
        for line in answer.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let ["unsent", from, to] = words[..] {
                found.unsent.push((from.parse().unwrap(), to.parse().unwrap()));
            } else if words.first() == Some(&"+OK") {
                found.numbers = numbers(line);
            } else {
                panic!("the generator said: {answer}");
            }
        }
        let whole = |name: &str| {
            let word = answer.split_whitespace().find_map(|word| word.strip_prefix(name));
            word.and_then(|text| text.parse().ok()).unwrap_or_default()
        };
        (found.count, found.first, found.last) = (whole("n="), whole("first="), whole("last="));
        found
    }

    /// Nanoseconds, or a count: `p50_ns`, `p999_ns`, `max_ns`, `allocs`, `mutated`, `wall_ms`.
    pub fn number(&self, name: &str) -> f64 {
        *self.numbers.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", self.numbers))
    }

    /// Every Gen-Seq that was sent.
    pub fn sequences(&self) -> impl Iterator<Item = u64> + '_ {
        (self.first..=self.last)
            .filter(|n| !self.unsent.iter().any(|(from, to)| (from..=to).contains(&n)))
    }
}

/// `name=number` words of an answer.
pub fn numbers(answer: &str) -> BTreeMap<String, f64> {
    let words = answer.split_whitespace().filter_map(|word| word.split_once('='));
    words.filter_map(|(name, value)| Some((name.into(), value.parse().ok()?))).collect()
}

/// A call that runs while the test goes on; `finish` gives its answer.
pub trait Running: Send {
    fn finish(self: Box<Self>) -> String;
}

/// A switch with the module's library in its module folder and a configuration of its own.
pub trait Switch: Send {
    /// For messages: "host like 1.11" or "FreeSWITCH 1.11.2".
    fn name(&self) -> String;
    /// Writes the module's configuration. A running switch reads it at `load`, `reload` and `reload_xml`.
    fn configure(&mut self, xml: &str);
    /// The folder of `$${log_dir}`.
    fn log_folder(&self) -> std::path::PathBuf;

    fn load(&mut self) -> Result<(), String>;
    fn unload(&mut self) -> Result<(), String>;
    fn reload(&mut self) -> Result<(), String>;
    fn reload_xml(&mut self) -> Result<(), String>;

    /// What an API call answers: `api("rustbridge status json")`.
    fn api(&mut self, line: &str) -> String;
    /// The same without waiting for it.
    fn api_later(&mut self, line: &str) -> Box<dyn Running>;
    /// Runs an application on a channel with these variables and gives the channel's variables afterwards.
    fn app(
        &mut self,
        name: &str,
        data: &str,
        variables: &[(&str, &str)],
    ) -> BTreeMap<String, String>;
    /// What tab completion offers for a line.
    fn complete(&mut self, line: &str) -> Vec<String>;

    /// One command of the generator (`tests/host/generate.c`), and its answer.
    fn generate(&mut self, line: &str) -> String;
    fn generate_later(&mut self, line: &str) -> Box<dyn Running>;

    fn pid(&self) -> i32;
    /// Every log line so far.
    fn log(&self) -> String;
    /// `kill -9`.
    fn kill(&mut self);
    /// Ends it as an operator would, and waits; every module is shut down on the way.
    fn stop(&mut self);
    /// Starts it again after `kill` or `stop`, with the same folders and nothing loaded.
    fn start(&mut self);

    fn json(&mut self, line: &str) -> Value {
        let answer = self.api(line);
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{line}: {error} in: {answer}"))
    }

    fn fire(&mut self, event: &Event) {
        let answer = self.generate(&format!("fire {}", event.line()));
        assert_eq!(answer.trim(), "+OK", "{event:?}");
    }

    fn deliver(&mut self, load: &Load) -> Delivered {
        Delivered::parse(&self.generate(&load.line()))
    }

    /// Until everything fired has been through every handler.
    fn flush(&mut self) {
        self.generate("flush");
    }

    /// The names of the switch's threads.
    fn threads(&self) -> Vec<String> {
        let folder = format!("/proc/{}/task", self.pid());
        let tasks = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        let mut names: Vec<String> = names.map(|name| name.trim().to_owned()).collect();
        names.sort();
        names
    }

    /// What the switch's open descriptors point at.
    fn descriptors(&self) -> Vec<String> {
        let folder = format!("/proc/{}/fd", self.pid());
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let links = entries.filter_map(|entry| std::fs::read_link(entry.path()).ok());
        let mut links: Vec<String> = links.map(|link| link.display().to_string()).collect();
        links.sort();
        links
    }
}
