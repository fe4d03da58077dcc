// SPDX-License-Identifier: MIT
//! F8. What the sink's user may do is taken away while events flow, and given back.

use crate::bench::{Row, assert_balanced, dropped, size};
use crate::support::switch::Load;

const USER: &str = "fs1";

/// The virtual host is closed to the user, then its right to write is gone alone, then its password is another one. Each time
/// the sink says so once and keeps what comes.
pub(crate) fn revoked(row: &mut Row<'_>) {
    row.broker.keep(&row.place, "#");
    let node = row.broker.rabbitmq();
    node.add_user(USER, "secret", "/");
    let url = format!("amqp://{USER}:secret@127.0.0.1:{}/%2f", node.port());
    row.load(&[("url", &url), ("reconnect-refused-ms", "200")]);
    row.wait_sink("the connection", |sink| sink["state"] == "connected");
    let rate = u32::try_from(size(200, 2000)).unwrap();
    let flow = row.flow(&Load { count: 10_000_000, rate, ..Load::default() });
    let everything = ["set_permissions", "-p", "/", USER, ".*", ".*", ".*"];
    let cases: [(&[&str], &[&str], &str); 3] = [
        (&["clear_permissions", "-p", "/", USER], &everything, "check the virtual host"),
        (
            &["set_permissions", "-p", "/", USER, ".*", "^$", ".*"],
            &everything,
            "give the user the permission to write",
        ),
        (
            &["change_password", USER, "another"],
            &["change_password", USER, "secret"],
            "check username and password",
        ),
    ];
    for (take, give, words) in cases {
        let before = row.sink()["delivered"].as_u64().unwrap();
        row.wait_sink("events to flow", |sink| {
            sink["delivered"].as_u64().is_some_and(|now| now > before + 50)
        });
        let node = row.broker.rabbitmq();
        node.ctl(take);
        node.close_connections("rights have changed");
        let sink = row.wait_sink("the refusal", |sink| {
            sink["state"] == "refused"
                && sink["last_error"].as_str().is_some_and(|error| error.contains(words))
        });
        // For several attempts, none of which the log hears of.
        let offered = sink["offered"].as_u64().unwrap();
        let sink = row.wait_sink("events to come meanwhile", |sink| {
            sink["offered"].as_u64().is_some_and(|now| now > offered + u64::from(rate) * 2)
        });
        assert_eq!((&sink["state"], dropped(&sink)), (&"refused".into(), 0), "{sink:#}");
        assert_eq!(row.lines_with(words), 1, "{words}: {}", row.host.log());
        row.broker.rabbitmq().ctl(give);
        row.wait_sink("the connection", |sink| sink["state"] == "connected");
    }
    let sent = row.ended(flow);
    let sink = row.wait_all_delivered();
    assert_balanced(&sink);
    assert_eq!(dropped(&sink), 0, "{sink:#}");
    let resent = row.resent_max();
    row.judge(&[sent], 0, resent);
    row.host.stop();
    row.broker.rabbitmq().ctl(&["delete_user", USER]);
}
