// SPDX-License-Identifier: MIT
//! The network fails: it swallows, delays, narrows, breaks off, changes bytes, or shows the wrong certificate.
//!
//! A proxy fails for most rows, above TCP. For one it is the line below TCP that does, where the kernel of the switch has to make
//! sound bytes of what is left of the packets.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::bench::{Row, assert_balanced, dropped, size, wait};
use crate::broker::Kind;
use crate::outage::first_ten;
use crate::support::certificates::{Authority, Certificate};
use crate::support::host::HostOptions;
use crate::support::proxy::Mode;
use crate::support::rough_line::{RoughLine, Shares};
use crate::support::skips;
use crate::support::switch::{Delivered, Load};

/// Makes the queue, and loads with the proxy in between.
fn begin(row: &mut Row<'_>, port: u16, more: &[(&str, &str)]) {
    row.broker.keep(&row.place, "#");
    row.configure_by(port, more);
    row.host.load().expect("the module loads");
    row.wait_sink("the connection", |sink| sink["state"] == "connected");
    row.deliver(10);
    row.wait_all_delivered();
}

/// The end of a row in which nothing may be lost, and no more may come twice than what broken connections had in flight.
fn nothing_lost(row: &mut Row<'_>, sent: &[Delivered]) {
    let sink = row.wait_all_delivered();
    assert_balanced(&sink);
    assert_eq!(dropped(&sink), 0, "{sink:#}");
    let resent = row.resent_max();
    row.judge(sent, 0, resent);
}

/// F4 for Kafka. The network between swallows everything, in both directions.
pub(crate) fn swallowed(row: &mut Row<'_>) {
    let proxy = row.broker.proxy();
    begin(row, proxy.port(), &[]);
    proxy.set(Mode::Blackhole);
    let within = row.deliver(size(2000, 60_000));
    assert_eq!(row.sink()["waiting"], within.count, "nothing is acknowledged");
    proxy.set(Mode::Pass);
    nothing_lost(row, &[first_ten(), within]);
}

/// F5. A broker that is far away behind a narrow line, and then one that stops for a while, several times.
pub(crate) fn slow(row: &mut Row<'_>) {
    let proxy = row.broker.proxy();
    begin(row, proxy.port(), &[("queue-max-bytes", "16777216")]);
    let rate = 2000;
    let load = Load { count: size(1000, 20_000), rate, ..Load::default() };
    let mut sent = vec![first_ten()];
    for mode in [Mode::Delay(Duration::from_millis(200)), Mode::Throttle(125_000)] {
        proxy.set(mode);
        sent.push(row.host.deliver(&load));
        let sink = row.sink();
        assert!(sink["memory_bytes"].as_u64().is_some_and(|n| n <= 16 << 20), "{sink:#}");
        // Something gets through all the same.
        let before = sink["delivered"].as_u64().unwrap();
        if sink["waiting"] != 0 {
            row.wait_sink("some of it to arrive", |sink| {
                sink["delivered"].as_u64().is_some_and(|now| now > before)
            });
        }
        proxy.set(Mode::Pass);
        row.wait_all_delivered();
    }
    let (times, pause) = (size(2, 5), Duration::from_millis(size(500, 20_000)));
    for _ in 0..times {
        row.broker.pause();
        sent.push(row.host.deliver(&load));
        // As long as the row says, whatever else happens meanwhile.
        std::thread::park_timeout(pause);
        row.broker.resume();
    }
    let sink = row.wait_all_delivered();
    assert!(sink["memory_bytes"].as_u64().is_some_and(|n| n <= 16 << 20), "{sink:#}");
    nothing_lost(row, &sent);
}

/// F5. A broker at the end of a long way is sent as much as the way holds, and never more than is allowed, also when the
/// connection breaks while so much is under way.
pub(crate) fn far(row: &mut Row<'_>) {
    const ALLOWED: u64 = 3000;
    let proxy = row.broker.proxy();
    proxy.set(Mode::Way(Duration::from_millis(200)));
    // Room for all that are made at once.
    let more = [("confirm-window", ALLOWED.to_string()), ("queue-capacity", "131072".to_owned())];
    begin(row, proxy.port(), &more.each_ref().map(|(name, value)| (*name, value.as_str())));
    assert_eq!(row.sink()["window"], 1024, "what keeps a near broker busy");
    let mut sent = vec![first_ten()];
    let rounds = size(1, 5);
    for round in 1..=rounds {
        // So that there is more than the window holds, however fast they are made.
        row.host.api("rustbridge pause out");
        sent.push(row.deliver(size(10_000, 100_000)));
        row.host.api("rustbridge resume out");
        row.wait_sink("the window to follow", |sink| {
            let number = |name: &str| sink[name].as_u64().unwrap();
            assert!(number("window") <= ALLOWED && number("in_flight") <= ALLOWED, "{sink:#}");
            number("window") > 1024 && number("in_flight") > 1024
        });
        proxy.drop_connections(true);
        row.wait_sink("the connection to be made again", |sink| {
            sink["reconnects"] == round && sink["state"] == "connected"
        });
    }
    proxy.set(Mode::Pass);
    let sink = row.wait_all_delivered();
    assert_balanced(&sink);
    assert_eq!(dropped(&sink), 0, "{sink:#}");
    row.judge(&sent, 0, usize::try_from(ALLOWED * rounds).unwrap());
}

/// F6. A line that breaks off, changes bytes and stammers, with TLS to notice it.
pub(crate) fn unsound(row: &mut Row<'_>) {
    let proxy = row.broker.secure_proxy();
    let trusted = row.broker.authority().certificate();
    let secure = row.broker.secure_parameters(proxy.port(), &trusted);
    let secure: Vec<(&str, &str)> = secure.iter().map(|(n, v)| (*n, v.as_str())).collect();
    begin(row, proxy.port(), &secure);
    let load = Load {
        count: size(100_000, 3_000_000),
        rate: u32::try_from(size(500, 2000)).unwrap(),
        ..Load::default()
    };
    let flow = row.flow(&load);
    let rounds = size(2, 20);
    for round in 0..rounds {
        // Any place will do, the same in each run.
        let place = 1000 + round * 7919 % 50_000;
        for mode in [Mode::CorruptToServer(place), Mode::CorruptToClient(place / 50), Mode::Reset] {
            let (before, connections) = (row.sink(), proxy.connections());
            proxy.set(mode);
            if mode == Mode::Reset {
                proxy.set(Mode::Delay(Duration::from_millis(30)));
            }
            // A connection that is idle and breaks need not be made again.
            wait(&format!("{mode:?} to take effect"), || {
                !proxy.will_corrupt() && (mode != Mode::Reset || proxy.connections() > connections)
            });
            let before = before["delivered"].as_u64().unwrap();
            row.wait_sink("deliveries to go on", |sink| {
                sink["state"] == "connected"
                    && sink["delivered"].as_u64().is_some_and(|now| now > before)
            });
            proxy.set(Mode::Pass);
        }
    }
    let sent = [first_ten(), row.ended(flow)];
    nothing_lost(row, &sent);
}

/// F6. The line loses packets, has some overtaken by later ones and changes others, in both directions, all the time.
pub(crate) fn rough(row: &mut Row<'_>) {
    let near = row.broker.near();
    // So many are changed at the small size that some are for certain.
    let shares = Shares { lost: 50, held: 100, changed: size(10, 1) };
    let Some(mut line) = skips::unless(&row.name, RoughLine::lay(near, shares)) else { return };
    row.host_with(HostOptions { under: line.beyond(), ..HostOptions::default() });
    let proxy = row.broker.near_proxy(near);
    let (name, server) = row.broker.server(near, proxy.port());
    begin(row, proxy.port(), &[(name, &server)]);
    let rate = u32::try_from(size(1000, 2000)).unwrap();
    let load = Load { count: size(5000, 200_000), rate, ..Load::default() };
    let sent = row.host.deliver(&load);
    row.wait_all_delivered();
    let fates = line.fates();
    for fate in [fates.lost, fates.overtaken, fates.changed, fates.refused] {
        assert!(fate > 0, "the line was not rough: {fates:?}");
    }
    nothing_lost(row, &[first_ten(), sent]);
    // While there is a line that it can say goodbye by.
    row.host.stop();
}

/// A case of F16: the sink says these words and delivers nothing; then the cause goes, and everything arrives.
fn told(
    row: &mut Row<'_>,
    sent: &mut Vec<Delivered>,
    words: &[&str],
    mend: impl FnOnce(&mut Row<'_>),
) {
    sent.push(row.deliver(size(50, 2000)));
    row.wait_sink(&format!("the words {words:?}"), |sink| {
        let error = sink["last_error"].as_str().unwrap_or_default().to_lowercase();
        words.iter().any(|words| error.contains(words))
    });
    let sink = row.sink();
    assert!(sink["waiting"].as_u64().is_some_and(|n| n >= size(50, 2000)), "{sink:#}");
    assert!(!sink["last_error"].as_str().unwrap().contains('\n'), "one line: {sink:#}");
    mend(row);
    row.wait_all_delivered();
}

/// F16. Certificates that are wrong, and are put right while events wait.
pub(crate) fn certificates(row: &mut Row<'_>) {
    let proxy = row.broker.secure_proxy();
    let trusted = row.folder.join("trusted.pem");
    let trust = |authority: &Authority| fs::copy(authority.certificate(), &trusted).unwrap();
    let stranger = Authority::new();
    trust(&stranger);
    // What is revoked: nothing, at first.
    let revoked = row.folder.join("revoked.pem");
    let revoke = |authority: &Authority, these: &[&Certificate]| {
        fs::copy(authority.list("revoked", these), &revoked).unwrap()
    };
    revoke(row.broker.authority(), &[]);
    let list = revoked.display().to_string();
    row.broker.keep(&row.place, "#");
    let configure = |row: &mut Row<'_>, port: u16, trusted: &Path, more: &[(&str, &str)]| {
        let secure = row.broker.secure_parameters(port, trusted);
        let mut all: Vec<(&str, &str)> = secure.iter().map(|(n, v)| (*n, v.as_str())).collect();
        all.extend([("reconnect-refused-ms", "1000"), ("tls-crl-file", list.as_str())]);
        all.extend(more);
        row.configure_by(port, &all);
    };
    configure(row, proxy.port(), &trusted, &[]);
    row.host.load().expect("the module loads");
    let mut sent = Vec::new();

    // Of an authority that nobody knows; the file is replaced, and the next attempt reads it again.
    told(row, &mut sent, &["no authority", "certificate"], |row| {
        trust(row.broker.authority());
    });

    // A broker with a certificate that is over, which then gets a new one.
    row.broker.certify(-1);
    row.broker.kill();
    row.broker.start_again();
    told(row, &mut sent, &["expired", "certificate verify failed"], |row| {
        row.broker.certify(2);
        row.broker.kill();
        row.broker.start_again();
    });

    // One with a certificate for days that are yet to come, as it seems to a clock that is behind.
    row.broker.certify_for_later();
    row.broker.kill();
    row.broker.start_again();
    let mut own = None;
    told(row, &mut sent, &["not yet valid", "certificate verify failed"], |row| {
        own = Some(row.broker.certify(2));
        row.broker.kill();
        row.broker.start_again();
    });

    // A line that takes the connection and says nothing: the handshake hangs.
    proxy.set(Mode::Blackhole);
    proxy.drop_connections(true);
    sent.push(row.deliver(size(50, 2000)));
    if row.broker.kind() == Kind::RabbitMq {
        row.wait_sink("the handshake to be given up", |sink| {
            sink["last_error"].as_str().is_some_and(|error| error.contains("TLS handshake"))
        });
    }
    proxy.set(Mode::Pass);
    // What was held then is of no use to anyone.
    proxy.drop_connections(true);
    row.wait_all_delivered();

    // A name that the certificate does not carry, and a configuration that says the right one. Sinks that are replaced end with
    // nothing in flight: what they lost before is what may have come twice.
    let mut resent = row.resent_max();
    if row.broker.kind() == Kind::RabbitMq {
        configure(row, proxy.port(), &trusted, &[("tls-server-name", "broker.example")]);
        row.host.api("rustbridge reload");
        told(row, &mut sent, &["broker.example"], |row| {
            assert_eq!(row.resent_max(), 0, "it has never been connected");
            configure(row, proxy.port(), &trusted, &[]);
            row.host.api("rustbridge reload");
        });
    }

    // One whose certificate its authority has revoked, and then takes from the list again: the next attempt reads it. The client
    // library of Kafka would read the first list only when it is refused, or told by a reload.
    revoke(row.broker.authority(), &own.iter().collect::<Vec<_>>());
    if row.broker.kind() == Kind::Kafka {
        row.host.api("rustbridge reload");
    } else {
        proxy.drop_connections(true);
    }
    told(row, &mut sent, &["by tls-crl-file"], |row| {
        revoke(row.broker.authority(), &[]);
    });

    // Files that are replaced while all is well: the reload connects anew, and costs nothing.
    let flow = row.flow(&Load { count: 1_000_000, rate: 500, ..Load::default() });
    for _ in 0..size(2, 10) {
        let connections = proxy.connections();
        trust(row.broker.authority());
        row.host.api("rustbridge reload");
        wait("a new connection", || proxy.connections() > connections);
        row.wait_sink("the connection", |sink| sink["state"] == "connected");
    }
    sent.push(row.ended(flow));
    let sink = row.wait_all_delivered();
    assert_balanced(&sink);
    assert_eq!(dropped(&sink), 0, "{sink:#}");
    resent += row.resent_max();
    row.judge(&sent, 0, resent);
}
