// SPDX-License-Identifier: MIT
//! The AMQP sink against a real RabbitMQ, seen by a consumer that is not ours; and against peers
//! that no broker is.

#![cfg(feature = "amqp")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on stops with a panic that says why"
)]

#[path = "../support/mod.rs"]
mod support;

mod delivery;
mod faults;
mod hostile;
mod publisher;
mod refusals;
mod tls;

use std::process::Command;
use std::sync::{Arc, Mutex, Weak};

use support::clients::pika;
use support::rabbitmq::{RabbitMq, RabbitMqOptions};
use support::skips;

/// The largest message that the shared node takes.
const MESSAGE_MAX: usize = 1_000_000;

/// A node that tests share which leave it as it was; it ends with the last of them.
fn shared(test: &str) -> Option<Arc<RabbitMq>> {
    static NODE: Mutex<Weak<RabbitMq>> = Mutex::new(Weak::new());
    let mut node = NODE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(running) = node.upgrade() {
        return Some(running);
    }
    let configuration = format!("max_message_size = {MESSAGE_MAX}");
    let started = own(test, &RabbitMqOptions { configuration, ..RabbitMqOptions::default() })?;
    let started = Arc::new(started);
    *node = Arc::downgrade(&started);
    Some(started)
}

/// A node for one test alone.
fn own(test: &str, options: &RabbitMqOptions) -> Option<RabbitMq> {
    skips::unless(test, pika())?;
    skips::unless(test, RabbitMq::with(options))
}

/// Has pika do something on `channel`.
fn pika_does(node: &RabbitMq, what: &str) -> String {
    let script = format!(
        "import pika\nconnection = pika.BlockingConnection(pika.URLParameters('{}'))\n\
         channel = connection.channel()\n{what}\nconnection.close()\n",
        node.url()
    );
    let done = Command::new("/usr/bin/python3").args(["-c", &script]).output().unwrap();
    assert!(done.status.success(), "{what}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}
