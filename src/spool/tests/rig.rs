// SPDX-License-Identifier: MIT
//! A spool beside a plain queue that does the same, compared at each step.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use proptest::prelude::ProptestConfig;

use super::sim::Sim;
use crate::spool::{
    Entry, Fsync, Heal, Position, Recovery, Spool, SpoolConfig, SpoolError, SpoolState, Stored,
};

pub(super) const SEGMENT: u64 = 64 * 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rec {
    pub(super) seq: u64,
    pub(super) class: u8,
    pub(super) payload: Vec<u8>,
}

impl Rec {
    pub(super) fn new(seq: u64, class: u8, size: usize) -> Self {
        let payload = (0..size as u64).map(|i| (seq.wrapping_mul(31) + i * 7) as u8).collect();
        Self { seq, class, payload }
    }

    pub(super) fn entry(&self) -> Entry<'_> {
        Entry { seq: self.seq, class: self.class, payload: &self.payload }
    }
}

impl From<&Kept> for Rec {
    fn from(stored: &Kept) -> Self {
        Self { seq: stored.seq, class: stored.class, payload: stored.payload.clone() }
    }
}

pub(super) fn config(fsync: Fsync) -> SpoolConfig {
    SpoolConfig {
        dir: PathBuf::from("/spool/sink"),
        segment_bytes: SEGMENT,
        max_bytes: 8 * SEGMENT,
        min_free_bytes: 0,
        fsync,
    }
}

pub(super) const INTERVAL: Fsync = Fsync::Interval(Duration::from_millis(100));

/// This many cases, or as many as `PROPTEST_CASES` says, for a longer run.
pub(super) fn cases(count: u32) -> ProptestConfig {
    let chosen = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig {
        cases: chosen.unwrap_or(count),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// A record that was read, and is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) position: Position,
    pub(super) seq: u64,
    pub(super) class: u8,
    pub(super) payload: Vec<u8>,
}

/// Reads up to so many records and bytes more into `out`.
pub(super) fn read(
    spool: &mut Spool,
    (records, bytes): (usize, usize),
    out: &mut Vec<Kept>,
) -> Result<(), SpoolError> {
    spool.read(records, bytes, &mut |stored: Stored<'_>| {
        let Stored { position, seq, class, payload } = stored;
        out.push(Kept { position, seq, class, payload: payload.to_vec() });
    })
}

/// Reads everything that can be read; a call may fail in between, as long as the next succeeds.
pub(super) fn drain(spool: &mut Spool) -> Vec<Kept> {
    let mut out = Vec::new();
    let mut failures = 0;
    loop {
        let before = out.len();
        match read(spool, (64, 1 << 20), &mut out) {
            Ok(()) if out.len() == before => return out,
            Ok(()) => {}
            Err(error) => {
                failures += 1;
                assert!(failures < 4, "{error}");
            }
        }
    }
}

pub(super) fn seqs(stored: &[Kept]) -> Vec<u64> {
    stored.iter().map(|stored| stored.seq).collect()
}

pub(super) struct Rig {
    pub(super) sim: Sim,
    pub(super) config: SpoolConfig,
    pub(super) spool: Option<Spool>,
    /// Accepted and not acknowledged, in order.
    pub(super) model: VecDeque<Rec>,
    /// Positions of those read, from the front of the model.
    pub(super) flight: Vec<Position>,
    /// Everything that ever was accepted.
    pub(super) known: HashMap<u64, Rec>,
    /// A power cut has destroyed the header of a segment. Whether that is before the cursor cannot be known, so it is read again
    /// if its file is there again; the cursor goes back to it, and what was acknowledged behind it comes twice as well.
    pub(super) repeats: bool,
    pub(super) now: Instant,
    pub(super) next_seq: u64,
}

impl Rig {
    pub(super) fn new(config: SpoolConfig) -> Self {
        let mut rig = Self {
            sim: Sim::new(),
            config,
            spool: None,
            model: VecDeque::new(),
            flight: Vec::new(),
            known: HashMap::new(),
            repeats: false,
            now: Instant::now(),
            next_seq: 1,
        };
        rig.open().unwrap();
        rig
    }

    pub(super) fn open(&mut self) -> Result<Recovery, SpoolError> {
        let (spool, recovery) = Spool::open(self.config.clone(), self.sim.storage())?;
        self.spool = Some(spool);
        Ok(recovery)
    }

    pub(super) fn spool(&mut self) -> &mut Spool {
        self.spool.as_mut().unwrap()
    }

    fn fresh(&mut self, shapes: &[(u8, u16)]) -> Vec<Rec> {
        let recs: Vec<Rec> = shapes
            .iter()
            .map(|(class, size)| {
                self.next_seq += 1;
                Rec::new(self.next_seq, class % 3, usize::from(*size))
            })
            .collect();
        recs
    }

    pub(super) fn append(&mut self, shapes: &[(u8, u16)]) -> usize {
        let recs = self.fresh(shapes);
        let entries: Vec<Entry<'_>> = recs.iter().map(Rec::entry).collect();
        let appended = self.spool().append(&entries);
        assert!(appended.accepted == recs.len() || appended.error.is_some());
        for rec in recs.into_iter().take(appended.accepted) {
            self.known.insert(rec.seq, rec.clone());
            self.model.push_back(rec);
        }
        appended.accepted
    }

    pub(super) fn prepend(&mut self, shapes: &[(u8, u16)]) -> bool {
        let recs = self.fresh(shapes);
        let entries: Vec<Entry<'_>> = recs.iter().map(Rec::entry).collect();
        if self.spool().prepend(&entries).is_err() {
            // Not accepted, but after a crash it may turn up all the same.
            for rec in recs {
                self.known.insert(rec.seq, rec);
            }
            return false;
        }
        self.flight.clear();
        for rec in recs.into_iter().rev() {
            self.known.insert(rec.seq, rec.clone());
            self.model.push_front(rec);
        }
        true
    }

    pub(super) fn commit(&mut self, ms: u64) -> bool {
        self.now += Duration::from_millis(ms);
        let now = self.now;
        self.spool().commit(now).is_ok()
    }

    pub(super) fn read(&mut self, records: usize) {
        let mut out = Vec::new();
        // A failure to read is shown by what is not there; it is tried again at the end.
        let result = read(self.spool(), (records, 100_000), &mut out);
        let stats = self.spool().stats();
        let undurable = stats.undurable_records as usize;
        // What the disk in its trouble does not make durable is read from memory.
        let is_lent = out.is_empty() || stats.state != SpoolState::Ok;
        for stored in out {
            let expected = self.model.get(self.flight.len());
            assert_eq!(Some(&Rec::from(&stored)), expected, "records come in order, once");
            self.flight.push(stored.position);
        }
        let are_durable = self.flight.len() + undurable <= self.model.len();
        assert!(is_lent || are_durable, "only durable ones are read while all is well");
        drop(result);
    }

    pub(super) fn ack(&mut self, records: usize) {
        let n = records.min(self.flight.len());
        if n == 0 {
            return;
        }
        let through = self.flight[n - 1];
        self.spool().advance(through);
        self.flight.drain(..n);
        self.model.drain(..n);
    }

    pub(super) fn rewind(&mut self) {
        self.spool().rewind();
        self.flight.clear();
    }

    pub(super) fn drop_oldest(&mut self, bytes: u64, keep: u8) {
        let mut dropped = Vec::new();
        let label = |payload: &[u8]| payload.len() as u16;
        let mut told = |seq, class, label| dropped.push((seq, class, label));
        let result = self.spool().drop_oldest(bytes, keep, &label, &mut told);
        drop(result);
        if self.flight.is_empty() {
            self.spool().rewind();
        }
        for (seq, class, label) in dropped {
            assert!(class > keep, "kept classes survive");
            let place = self.model.iter().position(|rec| rec.seq == seq).expect("dropped once");
            assert!(place >= self.flight.len(), "what is in flight is left alone");
            let rec = self.model.remove(place).unwrap();
            assert_eq!((rec.class, rec.payload.len()), (class, usize::from(label)));
        }
    }

    /// Mends the disk, and heals.
    pub(super) fn heal_from(&mut self, mend: impl FnOnce(&mut super::sim::World)) {
        self.sim.with(mend);
        self.heal();
    }

    /// Heals and commits until all is well, as the publisher would.
    pub(super) fn heal(&mut self) {
        for _ in 0..64 {
            self.now += Duration::from_secs(11);
            let now = self.now;
            let spool = self.spool.as_mut().unwrap();
            let healed = spool.try_heal(now);
            let committed = spool.commit(now);
            let is_well = !matches!(healed, Heal::NotYet(_)) && committed.is_ok();
            if is_well && spool.stats().state == SpoolState::Ok {
                return;
            }
        }
        panic!("the spool does not heal: {:?}", self.spool().stats());
    }

    /// Compares everything that is waiting with the model.
    pub(super) fn check(&mut self) {
        self.rewind();
        let stored = drain(self.spool());
        let found: Vec<Rec> = stored.iter().map(Rec::from).collect();
        let stats = self.spool().stats();
        let is_well = stats.state == SpoolState::Ok;
        let unreadable = if is_well { stats.undurable_records } else { 0 };
        let readable = self.model.len() - unreadable as usize;
        let wanted: Vec<Rec> = self.model.iter().take(readable).cloned().collect();
        assert!(found == wanted, "waiting {:?}, expected {:?}", list(&found), list(&wanted));
        let stats = self.spool().stats();
        assert_eq!(stats.records as usize, self.model.len());
        // Read from disk, and a guess where that fails.
        if self.sim.with(|world| world.failing.is_none()) {
            assert_eq!(stats.oldest_seq, self.model.front().map(|rec| rec.seq));
        }
        assert_eq!(stats.newest_seq, self.model.back().map(|rec| rec.seq));
        assert_eq!(self.spool().is_empty(), self.model.is_empty());
        self.rewind();
        let breaches = self.sim.with(|world| world.breaches.clone());
        assert!(breaches.is_empty(), "{breaches:?}");
    }

    /// Does what is due, as the publisher does in each turn of its loop.
    pub(super) fn tend(&mut self, ms: u64) {
        self.commit(ms);
        let now = self.now;
        self.spool().try_heal(now);
    }

    /// Ends in order. On a disk that does not answer that fails, and is then as good as a crash.
    pub(super) fn close_and_reopen(&mut self) -> Recovery {
        self.flight.clear();
        let closed = self.spool.take().unwrap().close();
        let recovery = self.open().unwrap();
        if let Err(error) = closed {
            assert!(self.sim.with(|world| world.silent), "{error}");
            let found = self.found();
            self.go_on_with(found);
            return recovery;
        }
        if self.repeats {
            let found = self.found();
            self.compare(&found);
            self.adopt(found);
        }
        assert_eq!(recovery.records as usize, self.model.len());
        self.check();
        recovery
    }

    /// Ends as `kill -9` would: everything accepted must be there, and of what was acknowledged
    /// only the last, in front.
    pub(super) fn crash_and_reopen(&mut self) {
        let found = self.crash();
        self.go_on_with(found);
    }

    fn go_on_with(&mut self, found: Vec<Rec>) {
        if self.repeats {
            self.compare(&found);
        } else {
            let again = found.len().saturating_sub(self.model.len());
            let (_, rest) = found.split_at(again);
            let wanted: Vec<Rec> = self.model.iter().cloned().collect();
            assert!(rest == wanted, "waiting {:?}, expected {:?}", list(&found), list(&wanted));
        }
        self.adopt(found);
    }

    /// The same after calls have failed: what was refused may turn up as well.
    pub(super) fn crash_after_faults(&mut self) {
        let found = self.crash();
        self.compare(&found);
        self.adopt(found);
    }

    /// Requires everything that waits to be there, in order; others may stand between.
    fn compare(&self, found: &[Rec]) {
        let wanted: Vec<Rec> = self.model.iter().cloned().collect();
        let kept: Vec<Rec> = found.iter().filter(|rec| wanted.contains(rec)).cloned().collect();
        assert!(kept == wanted, "waiting {:?}, expected {:?}", list(found), list(&wanted));
    }

    fn crash(&mut self) -> Vec<Rec> {
        self.flight.clear();
        self.spool = None;
        let opened = (0..4).map(|_| self.open()).find(Result::is_ok);
        opened.expect("a fault passes, and then the spool opens").unwrap();
        self.found()
    }

    /// Everything that can be read.
    fn found(&mut self) -> Vec<Rec> {
        let stored = drain(self.spool());
        let found: Vec<Rec> = stored.iter().map(Rec::from).collect();
        for rec in &found {
            assert_eq!(Some(rec), self.known.get(&rec.seq), "only what was accepted comes back");
        }
        found
    }

    /// Ends as a power cut would: everything durable must be there, in order.
    pub(super) fn lose_power_and_reopen(&mut self, dice: impl FnMut() -> u8) {
        self.flight.clear();
        let stats = self.spool().stats();
        let undurable = stats.undurable_records as usize;
        assert!(stats.syncs, "without syncs nothing is promised");
        // By its number too, whatever the power cut happens to leave.
        let safe = self.model.len() - undurable;
        let is_said = |rec: &Rec| stats.durable_seq.is_some_and(|last| rec.seq <= last);
        let said: Vec<u64> =
            self.model.iter().filter(|rec| is_said(rec)).map(|rec| rec.seq).collect();
        let at_risk: Vec<u64> = self.model.iter().skip(safe).map(|rec| rec.seq).collect();
        assert!(!at_risk.iter().any(|seq| said.contains(seq)), "{stats:?}, at risk {at_risk:?}");
        self.spool = None;
        self.sim.lose_power(dice);
        let recovery = self.open().unwrap();
        // Of a header as long as it is, nothing else is reported there.
        self.repeats |= recovery.damage.iter().any(|damage| damage.offset == 0);
        let found = self.found();
        let durable: Vec<u64> = self.model.iter().take(safe).map(|rec| rec.seq).collect();
        let kept: Vec<u64> =
            found.iter().map(|rec| rec.seq).filter(|seq| durable.contains(seq)).collect();
        assert!(kept == durable, "found {:?}, durable {durable:?}", list(&found));
        let is_there = |seq: &u64| found.iter().any(|rec| rec.seq == *seq);
        assert!(said.iter().all(is_there), "found {:?}, said durable {said:?}", list(&found));
        let lost = self.model.iter().filter(|rec| !is_there(&rec.seq)).count();
        assert!(lost <= undurable, "{lost} lost, {undurable} at risk");
        self.adopt(found);
    }

    fn adopt(&mut self, found: Vec<Rec>) {
        self.model = found.into();
        self.rewind();
        self.check();
    }
}

fn list(recs: &[Rec]) -> Vec<u64> {
    recs.iter().map(|rec| rec.seq).collect()
}
