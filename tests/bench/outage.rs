// SPDX-License-Identifier: MIT
//! A broker that goes and comes back, or falls silent: what the callback takes meanwhile, what waits in memory, how soon the first
//! acknowledgement comes, and how fast the backlog goes.
//!
//! Between switch and broker stands a proxy, in both states alike, which can be told to refuse everyone. "Alive" and "dead" are
//! measured in turn, in one load of the module, with the same events at the same rate. An outage of minutes is measured in pieces
//! of ten seconds, and "alive" in as many or [`PIECES_ALIVE`], half of them before it and half behind: what counts is the median of
//! the pieces, since a machine's bad second would else be a whole side's p99.9.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::Effort;
use crate::load::{Case, Stand};
use crate::plain_amqp::PlainAmqp;
use crate::results::Results;
use crate::rounds::{Series, median};
use crate::support::kafka::Kafka;
use crate::support::proxy::{Mode, Proxy};
use crate::support::rabbitmq::RabbitMq;
use crate::support::skips::{self, Missing};
use crate::support::switch::Switch;

/// Bytes that the queue of the sink may hold.
const QUEUE_BYTES: f64 = 128.0 * 1024.0 * 1024.0;
const MEBIBYTE: f64 = 1024.0 * 1024.0;
const LIMIT: Duration = Duration::from_secs(1200);
/// Events that wait in memory at a time, to see how fast those go: many, for what it takes to begin and to end is in the time.
const AT_ONCE: u64 = 200_000;
/// Pieces in which "alive" is measured, of an outage that has as many.
const PIECES_ALIVE: u32 = 18;

/// What the rounds found.
#[derive(Default)]
struct Found {
    alive: [Series; 3],
    dead: [Series; 3],
    /// The first ten seconds without the broker, and the worst.
    first_dead: Series,
    worst_dead: Series,
    silent: [Series; 3],
    memory: Series,
    first: Series,
    /// The backlog's events as they come, and from memory.
    coming: Series,
    steady: Series,
    drained: Series,
}

const PARTS: [(&str, &str); 3] =
    [("inside_p50", "p50"), ("inside_p99", "p99"), ("inside_p999", "p99.9")];

/// A sink, and what stands between it and its broker.
struct Sink<'p> {
    kind: &'static str,
    place: String,
    proxy: &'p Proxy,
}

impl Sink<'_> {
    fn line(&self, capacity: u64, bytes: f64, more: &str) -> String {
        format!(
            "<sink name=\"out\" type=\"{}\" events=\"CHANNEL_HANGUP_COMPLETE\">\
             <param name=\"queue-capacity\" value=\"{capacity}\"/><param name=\"queue-max-bytes\" value=\"{bytes}\"/>\
             <param name=\"normal-percent\" value=\"100\"/>{}{more}</sink>",
            self.kind, self.place
        )
    }
}

/// Seconds until the module has delivered so many more than `before`.
fn until_delivered(stand: &mut Stand, since: Instant, before: u64, more: u64) -> f64 {
    while stand.sink("delivered") < before + more {
        assert!(since.elapsed() < LIMIT, "{}", stand.switch().api("rustbridge status json"));
        std::thread::park_timeout(Duration::from_millis(5));
    }
    since.elapsed().as_secs_f64()
}

fn wait_connected(stand: &mut Stand) {
    let since = Instant::now();
    while stand.switch().json("rustbridge status json")["sinks"][0]["state"] != "connected" {
        assert!(since.elapsed() < LIMIT, "{}", stand.switch().api("rustbridge status json"));
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// As many events as will wait on disk, from memory, with nothing in the way: the most that the broker takes. As many at a time as
/// memory holds, as often as that takes: a broker's queue that grows long becomes slower, whoever fills it. Returns the seconds
/// that `backlog` of them take.
fn steady(stand: &mut Stand, backlog: u64, away: u32) -> f64 {
    wait_connected(stand);
    let away = u64::from(away).max(backlog);
    let at_once = away.min(AT_ONCE);
    let times = away.div_ceil(at_once);
    let mut took = 0.0;
    for _ in 0..times {
        stand.switch().api("rustbridge pause out");
        stand.deliver(at_once, 0);
        assert_eq!(stand.losses().0, 0, "the queue has room for all of them");
        let before = stand.sink("delivered");
        let since = Instant::now();
        stand.switch().api("rustbridge resume out");
        took += until_delivered(stand, since, before, at_once);
    }
    took * backlog as f64 / (at_once * times) as f64
}

/// As many events as will wait on disk, made and delivered by one thread of the switch as fast as it can, unless many wait: the most of
/// the whole chain, which may well be the making. Returns the seconds that `backlog` of them take.
fn coming(stand: &mut Stand, backlog: u64, away: u32) -> f64 {
    wait_connected(stand);
    let away = u64::from(away).max(backlog);
    let at_once = away.min(AT_ONCE) / 4;
    let before = stand.sink("delivered");
    let since = Instant::now();
    let mut offered = 0;
    while offered < away {
        if stand.sink("waiting") < 2 * at_once {
            stand.deliver(at_once, 0);
            offered += at_once;
        } else {
            assert!(since.elapsed() < LIMIT, "{}", stand.switch().api("rustbridge status json"));
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
    let took = until_delivered(stand, since, before, offered);
    assert_eq!(stand.losses().0, 0, "the queue has room for all of them");
    took * backlog as f64 / offered as f64
}

/// Events while the broker is away: `BENCH_OUTAGE_MINUTES` of them, where that is set.
fn long(case: &Case) -> u32 {
    let minutes = std::env::var("BENCH_OUTAGE_MINUTES").ok().and_then(|text| text.parse().ok());
    minutes.map_or(case.count, |minutes: u32| minutes * 60 * case.rate)
}

/// Events that wait at the end of it, the last of them as fast as they can be made: `BENCH_OUTAGE_BACKLOG`, where that is set.
fn backlog(case: &Case) -> u64 {
    let text = std::env::var("BENCH_OUTAGE_BACKLOG").ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(u64::from(case.count))
}

/// Has the system forget what it holds of files, where `BENCH_OUTAGE_COLD` is set: an outage of minutes may do that to a backlog on a
/// machine whose memory others want. Needs root.
fn forget_files() {
    if is_cold() {
        std::fs::write("/proc/sys/vm/drop_caches", "1").expect("root can have files forgotten");
    }
}

fn is_cold() -> bool {
    std::env::var_os("BENCH_OUTAGE_COLD").is_some()
}

/// The percentiles of so many pieces, each a run of this case.
struct Pieces([Vec<f64>; 3]);

impl Pieces {
    fn measure(stand: &mut Stand, case: &Case, pieces: u32) -> Self {
        let mut all = Self(Default::default());
        for _ in 0..pieces {
            let numbers = stand.run(case);
            for (values, (part, _)) in all.0.iter_mut().zip(PARTS) {
                values.push(numbers[part]);
            }
        }
        all
    }

    fn and(mut self, other: Self) -> Self {
        for (values, mut more) in self.0.iter_mut().zip(other.0) {
            values.append(&mut more);
        }
        self
    }

    fn note(self, series: &mut [Series; 3]) {
        for (values, series) in self.0.into_iter().zip(series) {
            series.push(median(&values));
        }
    }
}

fn outage(
    stand: &mut Stand,
    proxy: &Proxy,
    (case, away): (&Case, u32),
    backlog: u64,
    found: &mut Found,
    tidy: &mut impl FnMut(),
) {
    wait_connected(stand);
    let pieces = (away / case.count).max(1);
    let pieces_alive = (pieces.min(PIECES_ALIVE) / 2).max(1);
    let before = stand.sink("delivered");
    let alive = Pieces::measure(stand, case, pieces_alive);
    until_delivered(stand, Instant::now(), before, u64::from(case.count * pieces_alive));
    let memory = stand.memory();
    proxy.set(Mode::Refuse);
    let gone = Instant::now();
    while stand.switch().json("rustbridge status json")["sinks"][0]["state"] == "connected" {
        assert!(gone.elapsed() < LIMIT, "{}", stand.switch().api("rustbridge status json"));
        // Who sends nothing notices nothing.
        stand.deliver(1, 0);
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let dead = Pieces::measure(stand, case, pieces);
    let waiting = stand.sink("waiting");
    stand.deliver(backlog.saturating_sub(waiting).max(1), 0);
    found.memory.push(stand.memory() - memory);
    let (before, waiting) = (stand.sink("delivered"), stand.sink("waiting"));
    // As empty as it was for those from memory: a queue that is long already takes more slowly.
    tidy();
    forget_files();
    let since = Instant::now();
    proxy.set(Mode::Pass);
    found.first.push(until_delivered(stand, since, before, 1));
    // New events come in behind the backlog while it goes.
    let since = Instant::now();
    stand.deliver(200, 0);
    let took = until_delivered(stand, since, before, waiting + 200);
    found.drained.push(took * backlog as f64 / (waiting + 200) as f64);
    // Alive before and after: what changes in the course of a round is on both sides.
    while stand.sink("waiting") > 0 {
        assert!(since.elapsed() < LIMIT, "{}", stand.switch().api("rustbridge status json"));
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let again = Pieces::measure(stand, case, pieces_alive);
    // And once more with a broker that takes connections and bytes, and answers nothing.
    proxy.set(Mode::Blackhole);
    let silent = Pieces::measure(stand, case, 1);
    proxy.set(Mode::Pass);
    let since = Instant::now();
    while stand.sink("waiting") > 0 {
        assert!(since.elapsed() < LIMIT, "{}", stand.switch().api("rustbridge status json"));
        std::thread::park_timeout(Duration::from_millis(20));
    }
    alive.and(again).note(&mut found.alive);
    let [.., rarest] = &dead.0;
    found.first_dead.push(rarest.first().copied().unwrap_or(f64::NAN));
    found.worst_dead.push(rarest.iter().copied().fold(f64::NAN, f64::max));
    dead.note(&mut found.dead);
    silent.note(&mut found.silent);
}

fn round(
    stand: &mut Stand,
    sink: &Sink<'_>,
    events: (&Case, u32),
    backlog: u64,
    found: &mut Found,
    tidy: &mut impl FnMut(),
) {
    // Who pauses a sink with a spool has events put there.
    let without =
        sink.line(262_144, 8.0 * QUEUE_BYTES, "<param name=\"spool-mode\" value=\"off\"/>");
    stand.with_module(&without, |stand| found.coming.push(coming(stand, backlog, events.1)));
    tidy();
    stand.with_module(&without, |stand| found.steady.push(steady(stand, backlog, events.1)));
    // What is measured next begins with an empty queue as well.
    tidy();
    let with =
        sink.line(65_536, QUEUE_BYTES, "<param name=\"spool-max-bytes\" value=\"17179869184\"/>");
    stand.switch().api("bench mark end");
    stand.with_module(&with, |stand| {
        stand.switch().api("bench mark begin");
        outage(stand, sink.proxy, events, backlog, found, tidy);
    });
    stand.switch().api("bench mark off");
}

/// Measures with one broker; `tidy` empties it after each round.
fn measure(
    stand: &mut Stand,
    (broker, sink): (&str, &Sink<'_>),
    effort: Effort,
    results: &mut Results,
    mut tidy: impl FnMut(),
) {
    let count: u64 = if effort.short { 10_000 } else { 50_000 };
    let case = Case {
        headers: 85,
        threads: 1,
        kind: "real",
        ahead: 1,
        burst: 10,
        rate: 5_000,
        count: count as u32,
    };
    let backlog = backlog(&case);
    let mut found = Found::default();
    for number in 0..effort.rounds.min(6) {
        // The first round warms up, and is left out.
        let away = if number == 0 { case.count } else { long(&case) };
        round(stand, sink, (&case, away), backlog, &mut found, &mut tidy);
        // A round may take an hour; what came of it is not to depend on the next.
        let [coming, steady, drained] =
            [&found.coming, &found.steady, &found.drained].map(Series::last);
        println!(
            "   {broker}, {away} events: {backlog} of them in {coming:.2} s as they come, {steady:.2} s from memory, {drained:.2} s from disk"
        );
        tidy();
    }
    report(broker, &case, &found, results);
}

fn report(broker: &str, case: &Case, found: &Found, results: &mut Results) {
    let seconds = long(case) / case.rate;
    let mut name =
        format!("{broker}, {} headers at {}/s, away {seconds} s", case.headers, case.rate);
    if backlog(case) != u64::from(case.count) {
        write!(name, ", backlog of {}", backlog(case)).expect("a text takes text");
    }
    if is_cold() {
        name.push_str(", files forgotten");
    }
    for (at, (_, what)) in PARTS.iter().enumerate() {
        results.figure(&format!("callback, broker alive, {what}"), &name, "ns", &found.alive[at]);
        results.ratio(
            &format!("callback, broker dead / alive, {what}"),
            &name,
            &found.dead[at],
            &found.alive[at],
        );
        results.ratio(
            &format!("callback, broker silent / alive, {what}"),
            &name,
            &found.silent[at],
            &found.alive[at],
        );
    }
    results.figure(
        "callback, broker dead, p99.9 of the first ten seconds",
        &name,
        "ns",
        &found.first_dead,
    );
    results.figure(
        "callback, broker dead, p99.9 of the worst ten seconds",
        &name,
        "ns",
        &found.worst_dead,
    );
    let bound = found.memory.map(|_| QUEUE_BYTES + 16.0 * MEBIBYTE);
    results.ratio(
        "memory that an outage takes / queue-max-bytes + 16 MiB",
        &name,
        &found.memory,
        &bound,
    );
    results.figure(
        "first acknowledgement after the return",
        &name,
        "ms",
        &found.first.map(|s| s * 1e3),
    );
    results.ratio(
        "time for the backlog / the same as they come",
        &name,
        &found.drained,
        &found.coming,
    );
    results.ratio(
        "time for the backlog / the same from memory",
        &name,
        &found.drained,
        &found.steady,
    );
}

/// Whether this broker is to be measured: both are, unless `BENCH_ONLY` names one.
fn is_wanted(broker: &str) -> bool {
    std::env::var("BENCH_ONLY").map_or(true, |only| only.split(',').any(|one| one == broker))
}

/// A broker of the bench's own, where it is wanted and can be had.
fn broker<B>(name: &str, start: impl FnOnce() -> Result<B, Missing>) -> Option<B> {
    is_wanted(name).then(|| skips::unless(&format!("bench outage, {name}"), start())).flatten()
}

pub fn run(effort: Effort, results: &mut Results) {
    let Some(mut stand) = skips::unless("bench outage", Stand::start(None)) else { return };
    results.fact("switch", stand.version());
    if let Some(broker) = broker("rabbitmq", RabbitMq::start) {
        results.fact("rabbitmq", broker.version());
        let mut client = PlainAmqp::connect(broker.port());
        client.bound_queue("outage", "outage", &[]);
        let proxy = Proxy::to(broker.port());
        let place = format!(
            "<param name=\"url\" value=\"amqp://guest:guest@127.0.0.1:{}/%2f\"/><param name=\"exchange\" value=\"outage\"/>",
            proxy.port()
        );
        let sink = Sink { kind: "amqp", place, proxy: &proxy };
        measure(&mut stand, ("RabbitMQ", &sink), effort, results, || client.purge("outage"));
    }
    if let Some(broker) = broker("kafka", Kafka::start) {
        results.fact("kafka", Kafka::version());
        broker.create_topic("outage", 1, &[]);
        let proxy = broker.proxy();
        let place = format!(
            "<param name=\"bootstrap-servers\" value=\"127.0.0.1:{}\"/><param name=\"topic\" value=\"outage\"/>",
            proxy.port()
        );
        let sink = Sink { kind: "kafka", place, proxy: &proxy };
        measure(&mut stand, ("Kafka", &sink), effort, results, || {});
    }
}
