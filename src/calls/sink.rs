// SPDX-License-Identifier: MIT
//! Keeping the table up to date: a sink that writes to no broker.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::call::Call;
use super::table::Table;
use crate::codec::Outgoing;
use crate::sink::{Interrupt, Outcome, Sink, SinkError};

/// The events that the table is made from, as a selection is written.
pub const EVENTS: &str =
    "CHANNEL_CREATE CHANNEL_ANSWER CHANNEL_UUID CHANNEL_HANGUP_COMPLETE CHANNEL_DESTROY";

/// Messages between two acknowledgements.
const WINDOW: usize = 4096;

/// The table, whoever holds it and whatever a panic cut short: each change of it is one call.
///
/// The lock may be held during a write to disk: never for a thread that delivers events.
pub fn shared(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A sink whose messages change the table. A message is delivered once its change is handed to the
/// system. Never fails: a disk that does is the table's affair.
#[derive(Debug)]
pub struct LiveCallsSink {
    table: Arc<Mutex<Table>>,
    interrupt: Arc<Interrupt>,
    unanswered: Option<u64>,
}

impl LiveCallsSink {
    /// A sink for `table`.
    pub fn new(table: Arc<Mutex<Table>>, interrupt: Arc<Interrupt>) -> Self {
        Self { table, interrupt, unanswered: None }
    }
}

/// Changes the table by what an event says.
pub(super) fn apply(table: &mut Table, message: &Outgoing<'_>) {
    let text = |name: &str| {
        let value = message.header(name).and_then(|value| str::from_utf8(value).ok());
        value.filter(|value| !value.is_empty() && value.len() <= 255)
    };
    let name = message.name();
    if name == "CUSTOM" {
        // Of our own stream only a gap record has a subclass.
        return table.unsure();
    }
    let Some(uuid) = text("Unique-ID") else { return };
    match name {
        "CHANNEL_CREATE" | "CHANNEL_ANSWER" => table.live(uuid, Call::of(message)),
        "CHANNEL_UUID" => {
            table.renamed(text("Old-Unique-ID").unwrap_or(uuid), uuid, Call::of(message));
        }
        // The first of the two tells a consumer that the call is over.
        "CHANNEL_HANGUP_COMPLETE" | "CHANNEL_DESTROY" => table.ended(uuid),
        _ => {}
    }
}

impl Sink for LiveCallsSink {
    fn open(&mut self, _deadline: Instant) -> Result<(), SinkError> {
        self.unanswered = None;
        Ok(())
    }

    fn window(&self) -> usize {
        WINDOW
    }

    fn send(&mut self, tag: u64, message: &Outgoing<'_>) -> Result<(), SinkError> {
        apply(&mut shared(&self.table), message);
        self.unanswered = Some(tag);
        Ok(())
    }

    fn poll(&mut self, budget: Duration, outcomes: &mut Vec<Outcome>) -> Result<(), SinkError> {
        shared(&self.table).tick(Instant::now());
        match self.unanswered.take() {
            Some(tag) => outcomes.push(Outcome::DeliveredThrough(tag)),
            None => drop(self.interrupt.wait(budget)),
        }
        Ok(())
    }

    fn close(&mut self, _deadline: Instant) {
        shared(&self.table).flush();
    }

    fn peer(&self) -> String {
        "the table of live calls".into()
    }
}
