// SPDX-License-Identifier: MIT
//! Load and unload: under load, with brokers up, down and silent; what is left behind; what a core refuses.

use std::fs;
use std::time::{Duration, Instant};

use crate::stage::{
    LIMIT, Stage, number, on_each_freeswitch, on_each_switch, on_the_host, statuses, wait_connected,
};
use crate::support::freeswitch::{FreeSwitch, Installation};
use crate::support::host::{Host, HostOptions};
use crate::support::proxy::{Mode, Proxy};
use crate::support::skips;
use crate::support::switch::{Delivered, Load, Switch};
use crate::support::wait_until;

/// The module's threads, and its client library's.
fn own_threads(switch: &dyn Switch) -> Vec<String> {
    let names = switch.threads().into_iter();
    names
        .filter(|name| ["rb-", "ro-", "rdk:"].iter().any(|start| name.starts_with(start)))
        .collect()
}

/// Descriptors without those of the switch's own comings and goings: its connections to the test, its databases.
fn descriptors(switch: &dyn Switch, stage: &Stage) -> Vec<String> {
    let mine = stage.folder.path().display().to_string();
    let all = switch.descriptors().into_iter();
    all.filter(|name| name.starts_with(&mine) || name.starts_with("anon_inode")).collect()
}

fn sockets(switch: &dyn Switch) -> usize {
    switch.descriptors().iter().filter(|name| name.starts_with("socket:")).count()
}

/// Unloading ends by its deadline, whatever the brokers do.
const UNLOAD_MS: u64 = 1500;

/// Loads and unloads so often while events come; sees to it that nothing stays and that each load begins at zero.
fn load_and_unload(switch: &mut dyn Switch, stage: &Stage, rounds: u32) {
    // The first load brings what stays for good: libraries, their descriptors.
    switch.load().expect("the module loads");
    switch.unload().expect("the module unloads");
    let before = (descriptors(switch, stage), sockets(switch));
    let load = Load { count: 10_000_000, headers: 5, rate: 500, ..Load::default() };
    let running = switch.generate_later(&load.line());
    let mut times = Vec::new();
    for round in 0..rounds {
        switch.load().unwrap_or_else(|error| panic!("load {round}: {error}"));
        let status = statuses(switch);
        assert_eq!(status.len(), stage.sinks().len());
        for sink in status {
            // Half a second's events at the most, and those of the switch: the last load's would be more.
            let since_load = number(&sink, "offered");
            assert!(since_load < 2000, "round {round}: counters begin at zero: {sink}");
        }
        let started = Instant::now();
        switch.unload().unwrap_or_else(|error| panic!("unload {round}: {error}"));
        times.push(started.elapsed());
        assert_eq!(own_threads(switch), Vec::<String>::new(), "after round {round}");
    }
    switch.generate("stop");
    let sent = Delivered::parse(&running.finish());
    switch.generate("go");
    assert!(sent.count > u64::from(rounds), "events came all the time: {}", sent.count);
    times.sort_unstable();
    let (median, slowest) = (times[times.len() / 2], times[times.len() - 1]);
    eprintln!("{rounds} rounds, an unload took {median:?}, the slowest {slowest:?}");
    let bound = Duration::from_millis(UNLOAD_MS + 250);
    // A loaded machine may run one of them late; a wait without a deadline would be far beyond.
    assert!(median <= bound && slowest < bound * 3, "{median:?}, {slowest:?}: {bound:?} allowed");
    wait_until(LIMIT, "descriptors to be what they were", || {
        (descriptors(switch, stage), sockets(switch)) == before
    });
}

/// Brokers up, down and silent, in turn.
fn load_and_unload_with_brokers(switch: &mut dyn Switch, stage: &mut Stage, rounds: [u32; 3]) {
    stage.settings.push(("shutdown-timeout-ms", UNLOAD_MS.to_string()));
    let (amqp, kafka) = stage.ports();
    let proxies = [Proxy::to(amqp), Proxy::to(kafka)];
    switch.configure(&stage.configuration_at(proxies[0].port(), proxies[1].port()));
    for (mode, rounds) in [Mode::Pass, Mode::Refuse, Mode::Blackhole].into_iter().zip(rounds) {
        for proxy in &proxies {
            proxy.set(mode);
        }
        eprintln!("{}: brokers {mode:?}", switch.name());
        load_and_unload(switch, stage, rounds);
    }
    // After all that it works.
    for proxy in &proxies {
        proxy.set(Mode::Pass);
    }
    switch.load().expect("the module loads");
    wait_connected(switch);
    switch.unload().expect("the module unloads");
}

#[test]
fn two_hundred_loads_and_unloads_under_events_leave_nothing_behind() {
    let test = "two_hundred_loads_and_unloads_under_events_leave_nothing_behind";
    on_the_host(test, HostOptions::default(), |host, stage| {
        load_and_unload_with_brokers(host, stage, [100, 60, 40]);
    });
    // A minute and a half each: the whole two hundred with `make soak`.
    let rounds = if std::env::var_os("SOAK").is_some() { [100, 60, 40] } else { [20, 20, 10] };
    on_each_freeswitch(test, |switch, stage| {
        load_and_unload_with_brokers(switch, stage, rounds);
    });
}

#[test]
fn loading_does_not_wait_for_brokers_that_are_away() {
    on_each_switch("loading_does_not_wait_for_brokers_that_are_away", |switch, stage| {
        let (amqp, kafka) = stage.ports();
        let time = |switch: &mut dyn Switch| {
            let started = Instant::now();
            switch.load().expect("the module loads");
            started.elapsed()
        };
        let with_brokers = time(switch);
        switch.unload().expect("the module unloads");
        let proxies = [Proxy::to(amqp), Proxy::to(kafka)];
        for proxy in &proxies {
            proxy.set(Mode::Blackhole);
        }
        switch.configure(&stage.configuration_at(proxies[0].port(), proxies[1].port()));
        let without = time(switch);
        assert!(without < with_brokers + Duration::from_secs(1), "{without:?} {with_brokers:?}");
        let sent = switch.deliver(&Load { count: 200, headers: 5, ..Load::default() });
        for proxy in &proxies {
            proxy.set(Mode::Pass);
        }
        for (kind, messages) in stage.settle_by_oracle(std::slice::from_ref(&sent)) {
            eprintln!("{kind}: {} messages", messages.len());
            crate::support::oracle::judge(std::slice::from_ref(&sent), &messages).assert_exact();
        }
    });
}

const REFUSING: &str = r#"<configuration name="switch.conf"><settings/><interface-allowlist><allow name="mod_commands"/>
    <allow name="mod_event_socket"/><allow name="mod_generate"/><allow name="mod_dptools"/></interface-allowlist></configuration>"#;
const ALLOWING: &str = r#"<configuration name="switch.conf"><settings/><interface-allowlist><allow name="mod_commands"/>
    <allow name="mod_event_socket"/><allow name="mod_generate"/><allow name="mod_dptools"/><allow name="mod_rustbridge"/>
    </interface-allowlist></configuration>"#;

#[test]
fn an_allowlist_that_refuses_our_commands_is_named_and_events_go_on() {
    let test = "an_allowlist_that_refuses_our_commands_is_named_and_events_go_on";
    let options = || HostOptions { core: "1.11", ..HostOptions::default() };
    on_the_host(test, options(), |host, stage| {
        host.folder_write(REFUSING);
        refused(host, stage);
    });
    on_the_host(test, options(), |host, _| {
        host.folder_write(ALLOWING);
        host.load().expect("the module loads");
        assert!(host.api("rustbridge version").contains(env!("CARGO_PKG_VERSION")));
    });
    // 1.10 knows no such list.
    let old = HostOptions { core: "1.10", ..HostOptions::default() };
    on_the_host(test, old, |host, _| {
        host.folder_write(REFUSING);
        host.load().expect("the module loads");
        assert!(host.api("rustbridge version").contains(env!("CARGO_PKG_VERSION")));
    });
    for installation in skips::unless(test, Installation::all()).unwrap_or_default() {
        for (list, is_refused) in [(REFUSING, true), (ALLOWING, false)] {
            let stage = Stage::new(test);
            let files = [("autoload_configs/switch.conf.xml", list)];
            let mut switch = FreeSwitch::with(installation.clone(), &stage.configuration(), &files);
            if is_refused && switch.name().starts_with("FreeSWITCH 1.11") {
                refused(&mut switch, &stage);
            } else {
                switch.load().expect("the module loads");
                assert!(switch.api("rustbridge version").contains(env!("CARGO_PKG_VERSION")));
            }
            switch.stop();
        }
    }
}

fn refused(switch: &mut dyn Switch, stage: &Stage) {
    switch.load().expect("a load succeeds whatever is refused");
    for entry in ["rustbridge.api", "rustbridge_publish.api", "rustbridge_publish.app"] {
        let line = format!("<allow name=\"mod_rustbridge.{entry}\"/>");
        wait_until(LIMIT, &format!("the log to name {line}"), || switch.log().contains(&line));
    }
    assert!(!switch.api("rustbridge version").contains(env!("CARGO_PKG_VERSION")));
    let sent = switch.deliver(&Load { count: 200, headers: 5, ..Load::default() });
    for (_, messages) in stage.settle_by_oracle(std::slice::from_ref(&sent)) {
        crate::support::oracle::judge(std::slice::from_ref(&sent), &messages).assert_exact();
    }
    switch.unload().expect("the module unloads");
}

/// The host's list of interfaces that may be.
trait AllowList {
    fn folder_write(&self, list: &str);
}

impl AllowList for Host {
    fn folder_write(&self, list: &str) {
        fs::write(self.folder().join("conf/autoload_configs/switch.conf.xml"), list)
            .expect("the folder can be written");
    }
}

#[test]
fn event_numbers_of_both_cores_are_found_by_name() {
    for (core, all) in [("1.10", 92.0), ("1.11", 93.0)] {
        let test = "event_numbers_of_both_cores_are_found_by_name";
        let options = HostOptions { core, ..HostOptions::default() };
        on_the_host(test, options, |host, stage| {
            assert!((host.figures()["event_all"] - all).abs() < f64::EPSILON);
            stage.events = "CHANNEL_ANSWER HEARTBEAT".into();
            host.configure(&stage.configuration());
            host.load().expect("the module loads");
            assert_eq!(
                host.json("rustbridge events json").get("CERT_RELOAD").is_some(),
                core == "1.11"
            );
            host.deliver(&Load { count: 80, headers: 2, kind: "mixed", ..Load::default() });
            for (kind, account, messages) in stage.settle(host) {
                let names: Vec<String> = messages
                    .iter()
                    .map(|message| message.json()["Event-Name"].as_str().unwrap().to_owned())
                    .collect();
                assert_eq!(names.len(), 20, "{kind}: {names:?}");
                assert!(names.iter().all(|name| name == "CHANNEL_ANSWER" || name == "HEARTBEAT"));
                assert!(number(&account, "filtered") >= 60, "{account}");
            }
        });
    }
}
