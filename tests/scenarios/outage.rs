// SPDX-License-Identifier: MIT
//! Brokers that are stopped while events come, and come back.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::stage::{
    LIMIT, dropped, gap, holes, is_balanced, make_topic, number, seq, sink, status_of, statuses,
    wait_balanced, wait_connected,
};
use crate::support::clients::{self, Consumer, Message};
use crate::support::freeswitch::FreeSwitch;
use crate::support::host::Host;
use crate::support::kafka::Kafka;
use crate::support::oracle;
use crate::support::rabbitmq::RabbitMq;
use crate::support::skips;
use crate::support::switch::{Delivered, Load, Switch};
use crate::support::{Folder, wait_until};

/// Brokers that are one test's alone, since it stops them.
struct Brokers {
    rabbit: RabbitMq,
    kafka: Kafka,
}

/// Where one scenario's events go.
struct Places<'b> {
    brokers: &'b mut Brokers,
    folder: Folder,
    name: String,
}

const QUEUE: &str = "kept";

impl<'b> Places<'b> {
    fn new(brokers: &'b mut Brokers, number: usize) -> Self {
        let name = format!("outage{number}");
        // The queue stays when its consumer goes, so that nothing is consumed while the broker stops.
        drop(Consumer::amqp(&brokers.rabbit.url(), &name, "#", Some(&format!("{QUEUE}{name}"))));
        make_topic(&brokers.kafka, &name);
        Self { brokers, folder: Folder::new("outage"), name }
    }

    fn configuration(&self, parameters: &[(&str, &str)]) -> String {
        let (url, servers) = (self.brokers.rabbit.url(), self.brokers.kafka.bootstrap());
        let rabbit = [&[("url", url.as_str()), ("exchange", &self.name)], parameters].concat();
        let stream =
            [&[("bootstrap-servers", servers.as_str()), ("topic", &self.name)], parameters]
                .concat();
        format!(
            "<configuration name=\"rustbridge.conf\"><settings><param name=\"storage-dir\" value=\"{}\"/></settings>\n\
             <sinks>{}{}</sinks></configuration>",
            self.folder.join("storage").display(),
            sink("rabbit", "amqp", "ALL", &rabbit, ""),
            sink("stream", "kafka", "ALL", &stream, "")
        )
    }

    fn stop(&mut self) {
        self.brokers.rabbit.stop();
        self.brokers.kafka.stop();
    }

    fn start(&mut self) {
        self.brokers.rabbit.begin();
        self.brokers.kafka.begin();
        self.brokers.rabbit.wait_ready();
        self.brokers.kafka.wait_ready();
    }

    /// Everything that is in the queue and in the topic, when there is as much as the accounts say, without a hole.
    fn read(&self, accounts: &[Value]) -> Vec<(&'static str, Value, Vec<Message>)> {
        let queue = format!("{QUEUE}{}", self.name);
        let rabbit = Consumer::amqp(&self.brokers.rabbit.url(), &self.name, "#", Some(&queue));
        let kafka = Consumer::kafka(&self.brokers.kafka.bootstrap(), &self.name, &[]);
        let both = [("rabbit", "amqp", rabbit), ("stream", "kafka", kafka)].into_iter();
        both.map(|(name, kind, consumer)| {
            let account = accounts.iter().find(|sink| sink["name"] == name).expect("its account");
            let count = number(account, "delivered") + number(account, "gaps");
            wait_until(LIMIT, &format!("{count} whole messages in {name}"), || {
                let all = consumer.messages();
                let numbers: BTreeSet<u64> = all.iter().map(|message| seq(kind, message)).collect();
                u64::try_from(numbers.len()).unwrap() >= count && holes(kind, &all).is_empty()
            });
            (kind, account.clone(), consumer.messages())
        })
        .collect()
    }
}

/// How many events of a sink nothing more happens to.
fn ended(sink: &Value) -> u64 {
    number(sink, "filtered") + number(sink, "delivered") + dropped(sink) + number(sink, "dead")
}

/// Waits until every sink has delivered what it had when the brokers were back (later events are those of asking), and says
/// how long after their return that was: a second at the most, which only a quiet machine can be held to.
fn flows_again(switch: &mut dyn Switch) {
    let back = Instant::now();
    let had: Vec<u64> = statuses(switch).iter().map(|sink| number(sink, "offered")).collect();
    let mut last = Vec::new();
    while last.is_empty() || last.iter().zip(&had).any(|(sink, had)| ended(sink) < *had) {
        assert!(back.elapsed() < LIMIT * 2, "some do not deliver again: {last:#?}");
        std::thread::park_timeout(Duration::from_millis(20));
        last = statuses(switch);
    }
    eprintln!("everything was delivered {:?} after the brokers' return", back.elapsed());
    assert!(std::env::var_os("SOAK").is_none() || back.elapsed() < Duration::from_secs(1));
}

fn with_spool_nothing_is_lost(switch: &mut dyn Switch, places: &mut Places<'_>) {
    switch.configure(&places.configuration(&[]));
    switch.load().expect("the module loads");
    wait_connected(switch);
    let small = Load { count: 300, headers: 5, ..Load::default() };
    let before = switch.deliver(&small);
    wait_balanced(switch);
    places.stop();
    // Ten seconds of events without a broker.
    let during = switch.deliver(&Load { count: 2000, rate: 200, ..small.clone() });
    for sink in statuses(switch) {
        assert!(number(&sink, "waiting") >= 2000 && is_balanced(&sink), "{sink}");
    }
    places.start();
    flows_again(switch);
    let after = switch.deliver(&small);
    let accounts = wait_balanced(switch);
    for (kind, account, messages) in places.read(&accounts) {
        assert_eq!((dropped(&account), number(&account, "dead")), (0, 0), "{account}");
        let sent = [before.clone(), during.clone(), after.clone()];
        let verdict = oracle::judge(&sent, &messages);
        eprintln!("{kind}: {} repeated", verdict.duplicates);
        verdict.assert_at_least_once();
        assert!(
            messages.iter().all(|message| gap(message).is_none()),
            "{kind}: nothing is missing"
        );
    }
    switch.unload().expect("the module unloads");
}

fn without_spool_losses_are_exact(switch: &mut dyn Switch, places: &mut Places<'_>) {
    let small = [
        ("spool-mode", "off"),
        ("queue-capacity", "200"),
        ("normal-percent", "100"),
        ("bulk-percent", "100"),
    ];
    switch.configure(&places.configuration(&small));
    switch.load().expect("the module loads");
    wait_connected(switch);
    let few = Load { count: 100, headers: 5, rate: 500, ..Load::default() };
    let before = switch.deliver(&few);
    wait_balanced(switch);
    places.stop();
    let during = switch.deliver(&Load { count: 1000, rate: 0, ..few.clone() });
    for sink in statuses(switch) {
        let (waiting, lost) = (number(&sink, "waiting"), dropped(&sink));
        assert!(waiting >= 150 && lost >= 700 && is_balanced(&sink), "{sink}");
        assert_eq!(sink["dropped"]["queue-full"].as_u64(), Some(lost), "one reason: {sink}");
    }
    places.start();
    wait_balanced(switch);
    wait_connected(switch);
    let after = switch.deliver(&few);
    let accounts = wait_balanced(switch);
    for (kind, account, messages) in places.read(&accounts) {
        check_losses(kind, &account, &messages);
        let sent = [before.clone(), during.clone(), after.clone()];
        let verdict = oracle::judge(&sent, &messages);
        verdict.assert_sound();
        let of = |sent: &Delivered| sent.sequences().collect::<BTreeSet<u64>>();
        let lost: BTreeSet<u64> = verdict.lost.iter().copied().collect();
        assert!(lost.is_subset(&of(&during)), "{kind}: only the outage cost something");
        let count = u64::try_from(lost.len()).unwrap();
        // The switch has events of its own, of which some may be among the lost: commands are events too.
        let all = dropped(&account);
        assert!(count <= all && all - count < 50, "{kind}: {count}: {account}");
    }
    switch.unload().expect("the module unloads");
}

/// Gap records name as many numbers as were dropped, and none that any message has.
fn check_losses(kind: &str, account: &Value, messages: &[Message]) {
    let missing: BTreeSet<u64> =
        messages.iter().filter_map(gap).flat_map(|(first, last)| first..=last).collect();
    assert_eq!(u64::try_from(missing.len()).unwrap(), dropped(account), "{kind}: {account}");
    let there = messages.iter().filter(|message| gap(message).is_none());
    let there: BTreeSet<u64> = there.map(|message| seq(kind, message)).collect();
    assert!(there.is_disjoint(&missing), "{kind}: a message that is told as missing");
    for message in messages.iter().filter(|message| gap(message).is_some()) {
        let event = message.json();
        let reasons = event["Rustbridge-Reasons"].as_str().expect("reasons are told");
        assert!(reasons.starts_with("queue-full="), "{reasons}");
    }
}

#[test]
fn brokers_that_stop_and_come_back_cost_what_is_counted_and_no_more() {
    let test = "brokers_that_stop_and_come_back_cost_what_is_counted_and_no_more";
    if skips::unless(test, clients::pika()).is_none() {
        return;
    }
    let Some(kafka) = skips::unless(test, Kafka::start()) else { return };
    let Some(rabbit) = skips::unless(test, RabbitMq::start()) else { return };
    let mut brokers = Brokers { rabbit, kafka };
    let mut switches: Vec<Box<dyn Switch>> = vec![Box::new(Host::new(""))];
    let real = skips::unless(test, FreeSwitch::new("<configuration name=\"rustbridge.conf\"/>"));
    if let Some(real) = real {
        switches.push(Box::new(real));
    }
    for (number, switch) in switches.iter_mut().enumerate() {
        eprintln!("{test}: on {}", switch.name());
        with_spool_nothing_is_lost(&mut **switch, &mut Places::new(&mut brokers, number * 2));
        without_spool_losses_are_exact(
            &mut **switch,
            &mut Places::new(&mut brokers, number * 2 + 1),
        );
        switch.stop();
    }
}

#[test]
fn a_silent_broker_is_told_from_a_dead_one_and_delivers_when_it_speaks_again() {
    let test = "a_silent_broker_is_told_from_a_dead_one_and_delivers_when_it_speaks_again";
    crate::stage::on_each_switch(test, |switch, stage| {
        let Some((rabbit, _)) = &stage.rabbit else { return };
        let proxy = crate::support::proxy::Proxy::to(rabbit.port());
        let (_, kafka) = stage.ports();
        stage.parameters = Vec::new();
        let amqp = stage.sink_at("amqp", proxy.port(), kafka);
        let quick = "<param name=\"heartbeat-ms\" value=\"1000\"/></sink>";
        switch.configure(&stage.document(&amqp.replace("</sink>", quick)));
        switch.load().expect("the module loads");
        wait_connected(switch);
        proxy.set(crate::support::proxy::Mode::Blackhole);
        let sent = switch.deliver(&Load { count: 300, headers: 5, ..Load::default() });
        // Heartbeats find out what no error tells.
        wait_until(LIMIT, "the silence to be noticed", || {
            let status = status_of(switch, "rabbit");
            status["state"] != "connected" && status["last_error"].is_string()
        });
        // What the old connection holds would arrive as well when it is let go.
        proxy.drop_connections(true);
        proxy.set(crate::support::proxy::Mode::Pass);
        wait_balanced(switch);
        let verdict = oracle::judge(std::slice::from_ref(&sent), &stage.arrived("amqp"));
        eprintln!("{} repeated", verdict.duplicates);
        wait_until(LIMIT, "all messages", || {
            oracle::judge(std::slice::from_ref(&sent), &stage.arrived("amqp")).lost.is_empty()
        });
        oracle::judge(std::slice::from_ref(&sent), &stage.arrived("amqp")).assert_at_least_once();
    });
}
