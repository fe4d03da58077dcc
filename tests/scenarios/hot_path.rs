// SPDX-License-Identifier: MIT
//! What the event callback costs the switch's own threads: no allocation, no system call, once it is warm; with the brokers
//! up, down and silent. Counted in the host, which replaces the malloc family and traps system calls.

use crate::stage::{LIMIT, on_the_host, wait_balanced, wait_connected};
use crate::support::host::{Host, HostOptions};
use crate::support::proxy::{Mode, Proxy};
use crate::support::switch::{Delivered, Load, Switch};
use crate::support::wait_until;

/// Events of one measurement: fewer than records are kept ready, so that a silent broker costs no more than the room.
const EVENTS: u64 = 400;
/// Of about four kilobytes each, as a channel's are with its variables.
const HEADERS: u32 = 45;

fn burst(host: &mut Host) -> Delivered {
    host.deliver(&Load {
        count: EVENTS,
        headers: HEADERS,
        ahead: true,
        check: true,
        ..Load::default()
    })
}

fn measure(host: &mut Host, what: &str) {
    let cost = burst(host);
    let counts = ["allocs", "frees", "mutated"].map(|name| cost.number(name));
    assert_eq!(counts.map(|count| format!("{count}")), ["0", "0", "0"], "{what}: {cost:?}");
    let (which, status) = host.command(&format!("syscalls n=200 headers={HEADERS}"));
    assert!(status.contains(" syscalls=0 "), "{what}: {status} {which}");
}

#[test]
fn the_callback_neither_allocates_nor_calls_the_system_whatever_the_brokers_do() {
    let test = "the_callback_neither_allocates_nor_calls_the_system_whatever_the_brokers_do";
    on_the_host(test, HostOptions::default(), |host, stage| {
        let (amqp, kafka) = stage.ports();
        let proxies = [Proxy::to(amqp), Proxy::to(kafka)];
        host.configure(&stage.configuration_at(proxies[0].port(), proxies[1].port()));
        host.load().expect("the module loads");
        wait_connected(host);
        warm(host);
        measure(host, "brokers up");
        for mode in [Mode::Blackhole, Mode::Refuse] {
            for proxy in &proxies {
                proxy.set(mode);
            }
            measure(host, &format!("brokers {mode:?}"));
        }
        for proxy in &proxies {
            proxy.set(Mode::Pass);
        }
        wait_connected(host);
        wait_balanced(host);
        measure(host, "brokers back");
    });
}

/// The first events after a load may find a record that is not ready; a few bursts later none does.
fn warm(host: &mut Host) {
    wait_until(LIMIT, "a burst without an allocation", || {
        let cost = burst(host);
        wait_balanced(host);
        cost.number("allocs") < 1.0
    });
}
