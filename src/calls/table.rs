// SPDX-License-Identifier: MIT
//! The calls that live, those that a crash ended, and what was told of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::call::Call;
use super::file::TableFile;
use crate::event::{EventNames, Record};
use crate::lines::{self, Disk, Files, push_text, text};

/// A call of an earlier boot, which nobody will hang up any more.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Orphan {
    /// Its Unique-ID.
    pub uuid: Box<str>,
    /// The Core-UUID of the boot in which it lived.
    pub boot: Arc<str>,
    call: Call,
    /// Sinks that have it for good.
    told: BTreeSet<Box<str>>,
}

/// What was found at start.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Report {
    /// Calls of this boot: the module was unloaded and loaded again while they went on.
    pub live: usize,
    /// Calls of earlier boots that are yet to be told.
    pub orphans: usize,
    /// Damaged lines.
    pub damaged: u64,
    /// Bytes of a line that the crash cut short.
    pub torn_bytes: u64,
    /// Why nothing can be kept on disk at the moment. Tried again.
    pub problem: Option<String>,
}

/// The table in numbers.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Stats {
    /// Calls that live.
    pub live: usize,
    /// Orphans that are not yet told to all who want them.
    pub orphans: usize,
    /// Orphans that are, since the start.
    pub told: u64,
    /// Calls that found no room in the table.
    pub missed: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Why nothing can be kept on disk at the moment.
    pub problem: Option<String>,
}

/// Live calls and orphans. One publisher thread keeps it, one other thread tells the orphans.
#[derive(Debug)]
pub struct Table {
    boot: Arc<str>,
    live: HashMap<Box<str>, Call>,
    orphans: BTreeMap<u64, Orphan>,
    file: TableFile,
    synced: Instant,
    mend_at: Instant,
    told: u64,
    missed: u64,
    problem: Option<String>,
}

impl Table {
    /// How often the file is made durable, and so the most that a power loss can cost.
    pub const SYNC_EVERY: Duration = Duration::from_secs(1);
    /// The most calls at a time: a bound on memory that no switch comes near.
    pub const CALLS_MAX: usize = 100_000;
    /// Bytes that wait for a write at most.
    const PENDING_MAX: usize = 256 * 1024;
    /// The file is written anew when it has this many lines for each that counts.
    const WASTE: u64 = 4;
    const WASTE_FREE: u64 = 4096;
    /// How soon a disk that failed is tried again.
    const MEND_EVERY: Duration = Duration::from_secs(5);

    /// Reads the table in `dir`, for the boot with the Core-UUID `boot`. Calls of another boot are
    /// orphans.
    ///
    /// Never fails: what goes wrong is in the report, the table is then in memory alone, and the
    /// disk is tried again every few seconds.
    pub fn open(dir: &Path, boot: &str) -> (Self, Report) {
        Self::open_with(Arc::new(Disk), dir, boot)
    }

    pub(super) fn open_with(files: Arc<dyn Files>, dir: &Path, boot: &str) -> (Self, Report) {
        let now = Instant::now();
        let mut table = Self {
            boot: boot.into(),
            live: HashMap::new(),
            orphans: BTreeMap::new(),
            file: TableFile::new(files, dir),
            synced: now,
            mend_at: now,
            told: 0,
            missed: 0,
            problem: None,
        };
        let mut report = Report::default();
        table.mend(now, &mut report);
        report.live = table.live.len();
        report.orphans = table.orphans.len();
        report.problem.clone_from(&table.problem);
        (table, report)
    }

    /// Gets the file into order: reads it when that was not done yet, and writes it anew.
    fn mend(&mut self, now: Instant, report: &mut Report) {
        self.mend_at = now + Self::MEND_EVERY;
        let result = self.claim(report).and_then(|()| self.rewrite());
        self.note(result);
    }

    fn claim(&mut self, report: &mut Report) -> io::Result<()> {
        if self.file.is_claimed() {
            return Ok(());
        }
        self.file.claim()?;
        let bytes = self.file.read()?;
        let whole = lines::terminated(&bytes);
        report.torn_bytes = u64::try_from(bytes.len() - whole).unwrap_or(0);
        let mut boots = BTreeMap::from([(String::from(&*self.boot), Arc::clone(&self.boot))]);
        let mut found: HashMap<(Arc<str>, Box<str>), Orphan> = HashMap::new();
        let mut order = Vec::new();
        for line in lines::split(&bytes) {
            let object = line.ok().and_then(|line| serde_json::from_slice::<Value>(line).ok());
            let Some(object) = object else {
                report.damaged += 1;
                continue;
            };
            let boot = text(&object, "boot");
            let boot = Arc::clone(boots.entry(boot.to_owned()).or_insert_with(|| boot.into()));
            let uuid: Box<str> = text(&object, "uuid").into();
            let key = (Arc::clone(&boot), uuid.clone());
            match text(&object, "op") {
                "live" => {
                    let told = found.remove(&key).map(|known| known.told);
                    if told.is_none() {
                        order.push(key.clone());
                    }
                    let told = told.unwrap_or_default();
                    found.insert(key, Orphan { uuid, boot, call: Call::read(&object), told });
                }
                "told" => {
                    if let Some(orphan) = found.get_mut(&key) {
                        orphan.told.insert(text(&object, "sink").into());
                    }
                }
                "end" => drop(found.remove(&key)),
                // Of a newer module: not for us, and not in the way.
                _ => {}
            }
        }
        if report.damaged > 0 && self.file.quarantine(&bytes).is_err() {
            log::debug!("the damaged table of live calls is not kept for inspection");
        }
        for key in order {
            let Some(mut found) = found.remove(&key) else { continue };
            // A damaged line may have been the end of any of them.
            found.call.confirmed &= report.damaged == 0;
            if found.boot == self.boot {
                // It may have ended while the module was not there to see it.
                found.call.confirmed = false;
                self.live.entry(found.uuid).or_insert(found.call);
            } else {
                let next = self.orphans.last_key_value().map_or(0, |(last, _)| last + 1);
                self.orphans.insert(next, found);
            }
        }
        self.file.loaded();
        Ok(())
    }

    fn rewrite(&mut self) -> io::Result<()> {
        let boot = &*self.boot;
        let live = self.live.iter().map(|(uuid, call)| Line::Live { boot, uuid, call });
        let orphans = self.orphans.values().flat_map(|orphan| {
            let (boot, uuid) = (&*orphan.boot, &*orphan.uuid);
            let call = &orphan.call;
            let told = orphan.told.iter().map(move |sink| Line::Told { boot, uuid, sink });
            std::iter::once(Line::Live { boot, uuid, call }).chain(told)
        });
        self.file.rewrite(orphans.chain(live).map(|line| move |out: &mut Vec<u8>| line.write(out)))
    }

    /// Notes how the disk does, and says it when that changes.
    fn note(&mut self, result: io::Result<()>) {
        let problem = result.err().map(|error| {
            let path = self.file.path();
            let what = if error.kind() == io::ErrorKind::WouldBlock {
                "another process uses it; give each FreeSWITCH its own storage-dir".to_owned()
            } else {
                format!("{error}; free some space, or let FreeSWITCH's user write there")
            };
            format!("the table of live calls {} cannot be kept: {what}", path.display())
        });
        match (&self.problem, &problem) {
            (None, Some(words)) => {
                log::error!("{words}. Calls that a crash ends meanwhile will not be reported");
            }
            (Some(_), None) => log::info!("the table of live calls is kept again"),
            _ => {}
        }
        self.problem = problem;
    }

    /// A call is there, or is known better than before.
    pub fn live(&mut self, uuid: &str, mut call: Call) {
        let known = self.live.get(uuid);
        if known.is_none() && self.live.len() >= Self::CALLS_MAX {
            self.missed += 1;
            return;
        }
        if let Some(known) = known {
            call.created_us = known.created_us.min(call.created_us);
            call.answered_us = known.answered_us.max(call.answered_us);
        }
        let boot = &*self.boot;
        self.file.push(|out| Line::Live { boot, uuid, call: &call }.write(out));
        self.live.insert(uuid.into(), call);
        self.write_when_much();
    }

    /// A call goes by another Unique-ID from now on.
    pub fn renamed(&mut self, old: &str, uuid: &str, call: Call) {
        if old != uuid {
            self.ended(old);
        }
        self.live(uuid, call);
    }

    /// A call has ended as calls do.
    pub fn ended(&mut self, uuid: &str) {
        if self.live.remove(uuid).is_none() {
            return;
        }
        let boot = &*self.boot;
        self.file.push(|out| Line::End { boot, uuid }.write(out));
        self.write_when_much();
    }

    /// Events were lost on the way here: any of the calls may have ended.
    pub fn unsure(&mut self) {
        for call in self.live.values_mut() {
            call.confirmed = false;
        }
        self.file.give_up();
        self.mend_at = self.mend_at.min(Instant::now() + Self::SYNC_EVERY);
    }

    fn write_when_much(&mut self) {
        if self.file.pending() >= Self::PENDING_MAX {
            self.write();
        }
    }

    /// Hands changes to the system, in time makes them durable, and mends the file. For the
    /// publisher, once per round.
    pub fn tick(&mut self, now: Instant) {
        self.write();
        if self.file.is_dirty() && now >= self.synced + Self::SYNC_EVERY {
            self.sync(now);
        }
        if self.file.is_broken() {
            if now >= self.mend_at {
                self.mend(now, &mut Report::default());
            }
            return;
        }
        let count = self.live.len() + self.orphans.len();
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        if self.file.lines > count.saturating_mul(Self::WASTE).saturating_add(Self::WASTE_FREE) {
            let rewritten = self.rewrite();
            self.note(rewritten);
        }
    }

    fn write(&mut self) {
        if let Err(error) = self.file.write() {
            self.note(Err(error));
        }
    }

    fn sync(&mut self, now: Instant) {
        self.synced = now;
        if let Err(error) = self.file.sync() {
            self.note(Err(error));
        }
    }

    /// Writes everything and makes it durable, whether it is time or not.
    pub fn flush(&mut self) {
        self.write();
        if self.file.is_dirty() {
            self.sync(Instant::now());
        }
        if self.file.is_broken() {
            self.mend(Instant::now(), &mut Report::default());
        }
    }

    /// The next orphan from `from` on, by its number.
    pub fn orphan(&self, from: u64) -> Option<(u64, &Orphan)> {
        self.orphans.range(from..).next().map(|(number, orphan)| (*number, orphan))
    }

    /// A sink has this orphan for good.
    pub fn told(&mut self, number: u64, sink: &str) {
        let Some(orphan) = self.orphans.get_mut(&number) else { return };
        let (boot, uuid) = (&*orphan.boot, &*orphan.uuid);
        self.file.push(|out| Line::Told { boot, uuid, sink }.write(out));
        orphan.told.insert(sink.into());
    }

    /// Every sink that wants this orphan has it.
    pub fn done(&mut self, number: u64) {
        let Some(orphan) = self.orphans.remove(&number) else { return };
        let (boot, uuid) = (&*orphan.boot, &*orphan.uuid);
        self.file.push(|out| Line::End { boot, uuid }.write(out));
        self.told += 1;
    }

    /// The events of all orphans, as they would be told now.
    pub fn orphan_records(&self, names: &EventNames) -> Vec<Record> {
        self.orphans.values().map(|orphan| orphan.record(&self.boot, names)).collect()
    }

    /// The Core-UUID of the present boot.
    pub fn boot(&self) -> &Arc<str> {
        &self.boot
    }

    /// The table in numbers.
    pub fn stats(&self) -> Stats {
        Stats {
            live: self.live.len(),
            orphans: self.orphans.len(),
            told: self.told,
            missed: self.missed,
            file_bytes: self.file.bytes,
            problem: self.problem.clone(),
        }
    }

    /// What is known of a live call.
    pub fn get(&self, uuid: &str) -> Option<&Call> {
        self.live.get(uuid)
    }
}

impl Orphan {
    /// The event that tells of it, in the boot `now`.
    pub fn record(&self, now: &str, names: &EventNames) -> Record {
        let mut record = Record::with_capacity(1024);
        self.call.tell(&self.uuid, &self.boot, now, names, &mut record);
        record
    }

    /// Whether the sink has it for good.
    pub fn is_told(&self, sink: &str) -> bool {
        self.told.contains(sink)
    }
}

/// A line of the file.
enum Line<'a> {
    Live { boot: &'a str, uuid: &'a str, call: &'a Call },
    Told { boot: &'a str, uuid: &'a str, sink: &'a str },
    End { boot: &'a str, uuid: &'a str },
}

impl Line<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let (op, boot, uuid) = match self {
            Self::Live { boot, uuid, .. } => ("live", boot, uuid),
            Self::Told { boot, uuid, .. } => ("told", boot, uuid),
            Self::End { boot, uuid } => ("end", boot, uuid),
        };
        out.extend_from_slice(b"{\"op\":\"");
        out.extend_from_slice(op.as_bytes());
        out.push(b'"');
        push_text(out, "boot", boot.as_bytes());
        push_text(out, "uuid", uuid.as_bytes());
        match self {
            Self::Live { call, .. } => call.write(out),
            Self::Told { sink, .. } => push_text(out, "sink", sink.as_bytes()),
            Self::End { .. } => {}
        }
        lines::seal(out, start);
    }
}
