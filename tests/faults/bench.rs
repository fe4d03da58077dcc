// SPDX-License-Identifier: MIT
//! One row at work: a switch with the module, a broker, and the account at the end.

use std::env;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::broker::{Broker, Kind, Shared};
use crate::stream::{Stream, streams};
use crate::support::freeswitch::{FreeSwitch, Installation};
use crate::support::host::{Host, HostOptions};
use crate::support::oracle::{self, Verdict};
use crate::support::switch::{Delivered, Load, Running, Switch};
use crate::support::{skips, target, wait_until};

/// How long anything may take that is waited for: machines are slow at times.
pub(crate) const LIMIT: Duration = Duration::from_secs(180);

/// No callback takes this long, whatever the fault: one that waited for a broker, a disk or who holds a lock would, as rows keep
/// all of these away for longer. The system alone takes the processor away for some hundred milliseconds, as rows run
/// beside each other and brokers start meanwhile.
const CALLBACK_MAX: Duration = Duration::from_secs(1);

/// The name of the sink.
pub(crate) const SINK: &str = "out";

/// Whether the rows run at their large size: `SOAK=1`.
pub(crate) fn is_large() -> bool {
    env::var("SOAK").is_ok_and(|value| !value.is_empty() && value != "0")
}

/// The small number by default, the large one with `SOAK=1`.
pub(crate) fn size(small: u64, large: u64) -> u64 {
    if is_large() { large } else { small }
}

/// A configuration that a switch starts with; each row writes its own.
pub(crate) const NOTHING: &str = "<configuration name=\"rustbridge.conf\"/>";

/// A row that runs.
pub(crate) struct Row<'b> {
    pub(crate) name: String,
    pub(crate) broker: MutexGuard<'b, Broker>,
    /// The exchange and its queue, or the topic: of this row alone.
    pub(crate) place: String,
    pub(crate) host: Box<dyn Switch>,
    /// The switch's own: configuration, log, and the module's storage.
    pub(crate) folder: PathBuf,
    /// More lines of the module's settings.
    pub(crate) settings: String,
    started: Instant,
    /// The longest that the switch waited for its handlers over one event.
    longest_ns: f64,
    /// What that must be less than.
    pub(crate) callback_max: Duration,
}

impl Row<'_> {
    /// Runs a row, or notes why it cannot be run here. `ground` is a broker, in a real FreeSWITCH when it says so.
    pub(crate) fn run(name: &str, ground: &str, body: fn(&mut Row<'_>)) {
        let Some(shared) = Shared::of(name, Kind::named(ground)) else { return };
        let short = name.rsplit("::").next().unwrap_or(name);
        if !ground.ends_with("in_freeswitch") {
            let host = Host::new(NOTHING);
            let folder = host.folder().to_owned();
            return Row::on(short.to_owned(), &shared, Box::new(host), folder, body);
        }
        let mut installations = skips::unless(name, Installation::all()).unwrap_or_default();
        // At the small size each broker meets one of them, at the large one all.
        if !is_large() && !installations.is_empty() {
            let last = installations.len() - 1;
            let one = if shared.lock().kind() == Kind::Kafka { 0 } else { last };
            installations = vec![installations.swap_remove(one)];
        }
        for installation in installations {
            let switch = FreeSwitch::with(installation, NOTHING, &[]);
            let folder = switch.folder().to_owned();
            let version = switch.name();
            let version = version.split('-').next().unwrap_or_default();
            let name = format!("{short} {version}");
            Row::on(name, &shared, Box::new(switch), folder, body);
        }
    }

    fn on(
        name: String,
        shared: &Shared,
        host: Box<dyn Switch>,
        folder: PathBuf,
        body: fn(&mut Row<'_>),
    ) {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let mut row = Row {
            name,
            broker: shared.lock(),
            place: format!("faults.{}", NEXT.fetch_add(1, Ordering::Relaxed)),
            host,
            folder,
            settings: "<param name=\"live-calls\" value=\"false\"/>".to_owned(),
            started: Instant::now(),
            longest_ns: 0.0,
            // Rows of the small size have many others beside them.
            callback_max: if is_large() { CALLBACK_MAX } else { CALLBACK_MAX * 5 },
        };
        body(&mut row);
        row.host.stop();
    }

    /// Has the row go on in another host than the one that it was given.
    pub(crate) fn host_with(&mut self, options: HostOptions) {
        self.host.stop();
        let host = Host::with(NOTHING, options);
        host.folder().clone_into(&mut self.folder);
        self.host = Box::new(host);
    }

    /// Writes a configuration: one sink to the broker by `port`, for numbered events alone, so that the numbers of the
    /// stream are the generator's. `more` adds to or replaces what is there.
    pub(crate) fn configure_by(&mut self, port: u16, more: &[(&str, &str)]) {
        let mut parameters = self.broker.parameters(&self.place, port);
        parameters.push(("bulk-events".into(), "HEARTBEAT".into()));
        parameters.push(("reconnect-max-ms".into(), "400".into()));
        // Room for whatever a slow machine lets come together: how a spool fills is another matter.
        parameters.push(("spool-max-bytes".into(), (16_u64 << 30).to_string()));
        for (name, value) in more {
            parameters.retain(|(known, _)| known != name);
            parameters.push(((*name).to_owned(), (*value).to_owned()));
        }
        let events = parameters
            .iter()
            .position(|(name, _)| name == "events")
            .map_or_else(|| "CHANNEL_STATE".to_owned(), |at| parameters.remove(at).1);
        let storage = self.folder.join("storage");
        let mut xml = format!(
            "<configuration name=\"rustbridge.conf\">\n<settings>\n<param name=\"storage-dir\" value=\"{}\"/>\n\
             {}\n</settings>\n<sinks>\n<sink name=\"{SINK}\" type=\"{}\" events=\"{events}\">\n",
            storage.display(),
            self.settings,
            self.broker.sink_type(),
        );
        for (name, value) in parameters {
            writeln!(xml, "<param name=\"{name}\" value=\"{value}\"/>").unwrap();
        }
        xml.push_str("</sink>\n</sinks>\n</configuration>\n");
        self.host.configure(&xml);
        self.host.reload_xml().expect("a sound document is taken");
    }

    /// The same, straight to the broker; then loads the module.
    pub(crate) fn load(&mut self, more: &[(&str, &str)]) {
        self.configure_by(self.broker.port(), more);
        self.host.load().expect("the module loads");
    }

    /// Makes the queue, loads, and waits for the connection.
    pub(crate) fn begin(&mut self, more: &[(&str, &str)]) {
        self.broker.keep(&self.place, "#");
        self.load(more);
        self.wait_sink("the connection", |sink| sink["state"] == "connected");
        // The first events open topics and connections; faults come afterwards.
        self.deliver(10);
        self.wait_all_delivered();
    }

    /// Generates numbered events on one thread, as fast as they are taken.
    pub(crate) fn deliver(&mut self, count: u64) -> Delivered {
        self.host.deliver(&Load { count, ..Load::default() })
    }

    /// Generates numbered events while the row goes on; [`Row::ended`] ends it.
    pub(crate) fn flow(&mut self, load: &Load) -> Box<dyn Running> {
        self.host.generate_later(&load.line())
    }

    /// Stops a flow, and says what it was.
    pub(crate) fn ended(&mut self, flow: Box<dyn Running>) -> Delivered {
        self.host.generate("stop");
        let sent = Delivered::parse(&flow.finish());
        self.host.generate("go");
        sent
    }

    /// The sink's part of `rustbridge status json`.
    pub(crate) fn sink(&mut self) -> Value {
        self.host.json("rustbridge status json")["sinks"][0].clone()
    }

    /// The sink's Core-UUID.
    pub(crate) fn boot(&mut self) -> String {
        let status = self.host.json("rustbridge status json");
        status["module"]["boot"].as_str().expect("the boot is a text").to_owned()
    }

    /// Waits until the sink is in a state. At the large size a backlog may take RabbitMQ long, so there the time begins anew whenever
    /// something was delivered.
    pub(crate) fn wait_sink(&mut self, what: &str, mut fits: impl FnMut(&Value) -> bool) -> Value {
        let mut last = self.sink();
        let mut end = Instant::now() + LIMIT;
        while !fits(&last) {
            assert!(
                Instant::now() < end,
                "waited {LIMIT:?} in vain for {what}: {last:#}\n{}",
                self.host.log()
            );
            std::thread::park_timeout(Duration::from_millis(20));
            let now = self.sink();
            if is_large() && now["delivered"] != last["delivered"] {
                end = Instant::now() + LIMIT;
            }
            last = now;
        }
        last
    }

    /// Waits until the sink has seen that its broker is gone. A Kafka client that has nothing to send does not look for
    /// its broker, so there the next events find it out.
    pub(crate) fn wait_loss(&mut self) {
        if self.broker.kind() == Kind::RabbitMq {
            self.wait_sink("the loss to be seen", |sink| sink["state"] != "connected");
        }
    }

    /// Waits until nothing waits any more.
    pub(crate) fn wait_all_delivered(&mut self) -> Value {
        self.wait_sink("the backlog to drain", |sink| sink["waiting"] == 0)
    }

    /// What may have come twice so far: a window for each connection that the sink has lost.
    pub(crate) fn resent_max(&mut self) -> usize {
        let lost = self.sink()["reconnects"].as_u64().expect("connections lost are counted");
        self.broker.kind().window() * usize::try_from(lost).unwrap()
    }

    /// How many lines of the log about the sink have these words.
    pub(crate) fn lines_with(&self, words: &str) -> usize {
        let log = self.host.log();
        let sink = format!("[{SINK}]");
        log.lines().filter(|line| line.contains(&sink) && line.contains(words)).count()
    }

    /// Reads what arrived and holds it against what was generated and what the module counted: the sum of all lives of
    /// the module in this boot is in `dropped`.
    pub(crate) fn judge(
        &mut self,
        sent: &[Delivered],
        dropped: u64,
        duplicates_max: usize,
    ) -> (Verdict, Stream) {
        self.took(sent);
        let boot = self.boot();
        let mut streams = streams(self.broker.read(&self.place));
        let stream = streams.remove(&boot).unwrap_or_default();
        assert!(streams.is_empty(), "streams that nobody has begun: {:?}", streams.keys());
        let verdict = oracle::judge(sent, &stream.messages);
        verdict.assert_sound();
        stream.assert_told();
        let lost = u64::try_from(verdict.lost.len()).unwrap();
        assert_eq!(
            verdict.generated,
            verdict.received + usize::try_from(dropped).unwrap(),
            "generated = received + dropped; lost: {}; {:#}",
            oracle::ranges(&verdict.lost),
            self.sink()
        );
        assert_eq!(
            u64::try_from(stream.told.len()).unwrap(),
            lost,
            "every loss is told, and nothing else"
        );
        assert!(
            stream.duplicates <= duplicates_max,
            "{} duplicates, at most {duplicates_max}",
            stream.duplicates
        );
        self.note(&verdict, stream.duplicates);
        (verdict, stream)
    }

    /// Takes note of how long handlers took over these.
    pub(crate) fn took(&mut self, sent: &[Delivered]) {
        for sent in sent {
            let longest = sent.numbers.get("max_ns").copied().unwrap_or_default();
            self.longest_ns = self.longest_ns.max(longest);
        }
    }

    /// Has no callback have waited for anything, and writes a line of the table that `make soak` prints.
    pub(crate) fn note(&self, verdict: &Verdict, duplicates: usize) {
        let longest = Duration::from_secs_f64(self.longest_ns / 1e9);
        assert!(longest < self.callback_max, "a callback took {longest:?}");
        let longest = if self.longest_ns > 0.0 {
            format!("{:.3} ms", self.longest_ns / 1e6)
        } else {
            "-".to_owned()
        };
        let line = format!(
            "{:<78} {:<9} {:>9} {:>6} {:>6} {:>6} {:>11} {:>7.1}",
            self.name.replace('_', " "),
            format!("{:?}", self.broker.kind()),
            verdict.generated,
            verdict.lost.len(),
            duplicates,
            verdict.disordered.len(),
            longest,
            self.started.elapsed().as_secs_f64()
        );
        let file = OpenOptions::new().create(true).append(true).open(target().join("faults.txt"));
        writeln!(file.expect("the target folder can be written"), "{line}")
            .expect("a line can be written");
    }
}

/// Whether so many wait, all of them on disk but the few that Kafka's client holds to find out when its broker is back.
pub(crate) fn on_disk(sink: &Value, count: u64) -> bool {
    let records = sink["spool"]["records"].as_u64().unwrap_or(0);
    sink["waiting"] == count && records <= count && records + 64 >= count
}

/// The sum of a sink's drops, whatever the reason.
pub(crate) fn dropped(sink: &Value) -> u64 {
    let reasons = sink["dropped"].as_object().expect("drops are listed by reason");
    reasons.values().filter_map(Value::as_u64).sum()
}

/// How many generated events have come to a sink: others that it is offered, as those of API calls, it filters.
pub(crate) fn generated(sink: &Value) -> u64 {
    let count = |name: &str| sink[name].as_u64().unwrap_or_else(|| panic!("no {name} in {sink:#}"));
    count("offered").saturating_sub(count("filtered"))
}

/// `offered + recovered = filtered + delivered + dropped + dead + waiting`
pub(crate) fn assert_balanced(sink: &Value) {
    let count = |name: &str| sink[name].as_u64().unwrap_or_else(|| panic!("no {name} in {sink:#}"));
    assert_eq!(
        count("offered") + count("recovered"),
        count("filtered") + count("delivered") + dropped(sink) + count("dead") + count("waiting"),
        "{sink:#}"
    );
}

/// Waits for a condition outside the sink.
pub(crate) fn wait(what: &str, condition: impl FnMut() -> bool) {
    wait_until(LIMIT, what, condition);
}
