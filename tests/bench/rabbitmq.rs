// SPDX-License-Identifier: MIT
//! To RabbitMQ, into a classic and into a quorum queue: against `mod_amqp`, which waits for no confirm, against a plain socket with
//! its messages ready, and against RabbitMQ's own `PerfTest`.

use std::time::{Duration, Instant};

use crate::Effort;
use crate::load::{Candidate, Stand};
use crate::perf_test;
use crate::plain_amqp::PlainAmqp;
use crate::results::Results;
use crate::rounds::Series;
use crate::support::rabbitmq::RabbitMq;
use crate::support::skips;
use crate::throughput::{Sides, amqp_sink, connected, count, drain, publisher_calls, until};

const WINDOW: u64 = 1024;
/// For how long an idle switch is watched.
const IDLE: Duration = Duration::from_secs(2);

/// Seconds and processor time from the first event until the queue has all of them.
fn live(stand: &mut Stand, client: &mut PlainAmqp, queue: &str, count: u64) -> (f64, f64) {
    client.purge(queue);
    let (cpu, started) = (stand.cpu(), Instant::now());
    stand.deliver(count, 0);
    let took = until(started, count, || client.count(queue));
    (took, stand.cpu() - cpu)
}

#[derive(Default)]
struct Found {
    /// Against `mod_amqp`.
    peer: Sides,
    /// Against the plain socket.
    socket: Sides,
    perf_test: Series,
    /// What making the events takes of the processor, and the switch with nothing to do.
    base: Series,
    idle: Series,
    calls: Series,
    calls_busy: Series,
}

impl Found {
    fn round(&mut self, stand: &mut Stand, client: &mut PlainAmqp, port: u16, count: u64) {
        let cpu = stand.cpu();
        std::thread::sleep(IDLE);
        self.idle.push((stand.cpu() - cpu) / IDLE.as_secs_f64());
        let cpu = stand.cpu();
        stand.deliver(count, 0);
        self.base.push(stand.cpu() - cpu);
        let (took, cpu) =
            stand.with(Candidate::ModAmqp, |stand| live(stand, client, "theirs", count));
        client.purge("theirs");
        self.peer.theirs.push(took);
        self.peer.theirs_cpu.push(cpu);
        stand.with_module(&amqp_sink(port, WINDOW), |stand| {
            connected(stand);
            let (took, cpu) = live(stand, client, "ours", count);
            self.peer.ours.push(took);
            self.peer.ours_cpu.push(cpu);
            let like = client.take("ours");
            client.purge("ours");
            let (took, cpu) = drain(stand, count);
            self.socket.ours.push(took);
            self.socket.ours_cpu.push(cpu);
            client.purge("ours");
            // As new a connection as the module's own: the broker's processes grow with what they handle.
            let mut plain = PlainAmqp::connect(port);
            plain.confirms();
            self.socket.theirs.push(plain.publish("bench", &like, count, WINDOW).as_secs_f64());
            client.purge("ours");
            if let Some(number) = publisher_calls(stand, count, Some(5_000)) {
                self.calls.push(number);
            }
            client.purge("ours");
            if let Some(number) = publisher_calls(stand, count / 2, None) {
                self.calls_busy.push(number);
            }
            client.purge("ours");
            if let Some(rate) = perf_test::publish(port, "bench", &like, count, WINDOW) {
                self.perf_test.push(count as f64 / rate);
            }
            client.purge("ours");
        });
    }

    fn report(&self, case: &str, count: u64, results: &mut Results) {
        let Self { peer, socket, base, idle, .. } = self;
        let rate = |series: &Series| series.map(|seconds| count as f64 / seconds);
        let each = |series: &Series| series.map(|seconds| seconds / count as f64 * 1e6);
        let rates = [
            ("mod_amqp, unconfirmed", &peer.theirs),
            ("mod_rustbridge, confirmed, persistent", &peer.ours),
            ("mod_rustbridge, from its queue", &socket.ours),
            ("plain socket, same messages and window", &socket.theirs),
            ("PerfTest, same size, key and window", &self.perf_test),
        ];
        for (name, series) in rates {
            results.figure(name, case, "events/s", &rate(series));
        }
        results.ratio("time / mod_amqp unconfirmed", case, &peer.ours, &peer.theirs);
        results.ratio("time / plain socket, from its queue", case, &socket.ours, &socket.theirs);
        results.ratio("time / PerfTest, from its queue", case, &socket.ours, &self.perf_test);
        results.ratio("plain socket / mod_amqp unconfirmed", case, &socket.theirs, &peer.theirs);
        results.figure("switch CPU, nobody", case, "us/event", &each(base));
        results.figure("switch CPU, idle", case, "of a processor", idle);
        results.figure("switch CPU, mod_amqp", case, "us/event", &each(&peer.theirs_cpu));
        results.figure("switch CPU, mod_rustbridge", case, "us/event", &each(&peer.ours_cpu));
        results.ratio("CPU / mod_amqp, whole process", case, &peer.ours_cpu, &peer.theirs_cpu);
        // What the switch takes anyway: to make the events, and its clock while they are sent.
        let own = |cpu: &Series, took: &Series| cpu.less(base).less(&idle.times(took));
        let (ours, theirs) = (own(&peer.ours_cpu, &peer.ours), own(&peer.theirs_cpu, &peer.theirs));
        results.figure("own CPU, mod_amqp", case, "us/event", &each(&theirs));
        results.figure("own CPU, mod_rustbridge", case, "us/event", &each(&ours));
        results.ratio("own CPU / mod_amqp's own", case, &ours, &theirs);
        results.figure("publisher's system calls at 5000/s", case, "per event", &self.calls);
        let busy = &self.calls_busy;
        results.figure("publisher's system calls, from its queue", case, "per event", busy);
    }
}

pub fn run(effort: Effort, results: &mut Results) {
    let Some(broker) = skips::unless("bench rabbitmq", RabbitMq::start()) else { return };
    results.fact("rabbitmq", broker.version());
    let port = broker.port();
    let Some(mut stand) = skips::unless("bench rabbitmq", Stand::start(Some(port))) else { return };
    results.fact("switch", stand.version());
    let count = count(effort);
    for kind in ["classic", "quorum"] {
        let mut client = PlainAmqp::connect(port);
        for (queue, exchange) in [("ours", "bench"), ("theirs", "TAP.Events")] {
            client.bound_queue(queue, exchange, &[("x-queue-type", kind)]);
        }
        let mut found = Found::default();
        for _ in 0..effort.rounds {
            found.round(&mut stand, &mut client, port, count);
        }
        found.report(&format!("{kind} queue, 85 headers"), count, results);
        client.delete_queue("ours");
        client.delete_queue("theirs");
    }
}
