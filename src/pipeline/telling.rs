// SPDX-License-Identifier: MIT
//! What is lost, told in its place, also when the module or the switch ends before it could be.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::pipeline::gap::{Gap, Losses};
use crate::pipeline::item::{Item, Origin};
use crate::pipeline::publisher::Publisher;
use crate::pipeline::store::Store;
use crate::pipeline::stream::{Hole, Note};

/// How often it is looked whether the note of the stream says too much: at most so long, and until the spool's cursor has passed
/// its first message, a crash has messages told as missing that have arrived.
const NOTE_EVERY: Duration = Duration::from_millis(200);

/// What the note in the file says of losses, or would if it could be written.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Noted {
    /// Of the present boot.
    hole: Option<Hole>,
    /// The number of gaps and of holes of earlier boots.
    gaps: usize,
    holes: usize,
}

impl Publisher {
    /// Whether numbers are missing at the end of the stream, with nothing behind them to tell it.
    pub(super) fn owes_gap(&self) -> bool {
        self.standing.told + 1 < self.standing.next
            && self.head.is_empty()
            && self.tail.is_empty()
            && self.window.is_empty()
            && self.store.as_ref().is_none_or(Store::is_empty)
    }

    /// Whether the first of the gaps that no hole in front of a message tells is to be told now: what has lower numbers is
    /// sent before.
    pub(super) fn is_late_due(&self) -> bool {
        let Some(gap) = self.late.front() else { return false };
        let Some(next) = self.head.front() else {
            return self.store.as_ref().is_none_or(Store::is_empty);
        };
        let present = &self.settings.boot;
        next.is_beside_stream()
            || if *next.boot.as_ref().unwrap_or(present) == gap.boot {
                gap.first < next.stamp.seq
            } else {
                gap.boot != *present
            }
    }

    /// The gap that has to be told before anything else is sent.
    pub(super) fn due_gap(&mut self) -> Option<Gap> {
        if self.is_late_due() {
            let (boot, first) = self.late.front().map(|gap| (Arc::clone(&gap.boot), gap.first))?;
            return self.hole_before(&boot, first).or_else(|| self.late.pop_front());
        }
        let Some(next) = self.head.front() else {
            let boot = Arc::clone(&self.settings.boot);
            return self.owes_gap().then(|| self.hole_before(&boot, self.standing.next))?;
        };
        let seq = next.stamp.seq;
        match &next.boot {
            _ if next.is_beside_stream() => None,
            // The usual case, of each message.
            None if self.standing.told + 1 >= seq => None,
            boot => {
                let boot = Arc::clone(boot.as_ref().unwrap_or(&self.settings.boot));
                self.hole_before(&boot, seq)
            }
        }
    }

    /// The numbers of this stream that are missing in front of this one.
    fn hole_before(&mut self, boot: &Arc<str>, seq: u64) -> Option<Gap> {
        let mut losses = None;
        let told = if *boot == self.settings.boot {
            self.standing.told
        } else {
            // Of an earlier boot only what is read here is known, and what it has noted.
            let known = self.earlier.as_ref().filter(|(known, _)| known == boot);
            if let Some((_, told)) = known {
                *told
            } else {
                let is_it = |hole: &Hole| hole.boot == *boot && hole.before == seq;
                let place = self.holes.iter().position(is_it)?;
                let told = self.holes.swap_remove(place).first - 1;
                self.earlier = Some((Arc::clone(boot), told));
                losses = Some(Losses::of_crash(seq - 1 - told));
                told
            }
        };
        (told + 1 < seq).then(|| Gap {
            boot: Arc::clone(boot),
            first: told + 1,
            last: seq - 1,
            losses: losses.unwrap_or_else(|| std::mem::take(&mut self.losses)),
        })
    }

    /// Notes that everything up to this message is sent or told as missing.
    pub(super) fn note_told(&mut self, item: &Item) {
        if matches!(item.origin, Origin::Retry(_)) {
            return;
        }
        let seq = item.stamp.seq;
        match item.boot.as_ref().filter(|boot| ***boot != *self.settings.boot) {
            None => self.standing.told = self.standing.told.max(seq),
            Some(boot) => match &mut self.earlier {
                Some((known, told)) if known == boot => *told = (*told).max(seq),
                // What was noted long ago says nothing of where the stream is now.
                _ if item.is_own() => {}
                earlier => {
                    *earlier = Some((Arc::clone(boot), seq));
                    self.holes.retain(|hole| hole.boot != *boot);
                }
            },
        }
    }

    /// Takes up what the last load has noted.
    pub(super) fn recall(&mut self) {
        let settings = Arc::clone(&self.settings);
        let file = settings.stream_file.as_deref();
        let Some(note) = file.and_then(|file| Note::load(file, &settings.names)) else { return };
        if note.boot == settings.boot {
            self.standing = note.standing;
        } else if !note.is_running {
            self.earlier = Some((note.boot, note.standing.told));
        }
        self.holes = note.holes;
        self.holes.retain(|hole| hole.boot != settings.boot);
        self.late = note.gaps.into();
        // From now on it would be wrong.
        self.write_note(None);
    }

    /// Before the spool gets its first message, of this number: notes what is in memory alone in front of that, or in vain
    /// looks for a record that tells it.
    pub(super) fn note_before(&mut self, seq: u64) {
        let hole = self.hole_in_memory(seq);
        if hole.is_some() || self.untold(hole.as_ref()).next().is_some() {
            self.write_note(hole);
        }
    }

    /// Once in a while: takes out of the note what is settled by now, and writes one that could not be written.
    pub(super) fn tend_note(&mut self, now: Instant) {
        let is_right = self.noted == Noted::default() && !self.is_note_failing;
        if is_right || now < self.noted_at + NOTE_EVERY {
            return;
        }
        self.noted_at = now;
        let before = self.noted.hole.as_ref().map(|hole| hole.before);
        let hole = before.and_then(|before| self.hole_in_memory(before));
        let gaps = self.untold(hole.as_ref()).count();
        let noted = Noted { hole: hole.clone(), gaps, holes: self.holes.len() };
        // After a failure also when there is nothing to say: an older note may be in its place.
        if self.is_note_failing || self.noted != noted {
            self.write_note(hole);
        }
    }

    /// From the first message that is in memory alone, or not told yet, to this number.
    fn hole_in_memory(&self, before: u64) -> Option<Hole> {
        let present = &self.settings.boot;
        let first = |item: &Item| {
            let is_present = item.boot.as_ref().is_none_or(|boot| boot == present);
            match &item.origin {
                Origin::Memory if is_present => Some(item.stamp.seq),
                Origin::Gap(gap) if is_present => Some(gap.first),
                _ => None,
            }
        };
        let sent = self.window.items().find_map(first);
        let waiting = self.head.iter().find_map(first);
        let late = self.late.iter().find(|gap| gap.boot == *present).map(|gap| gap.first);
        let untold = Some(self.standing.told + 1);
        let first = [sent, waiting, late, untold].into_iter().flatten().min()?;
        (first < before).then(|| Hole { boot: Arc::clone(present), first, before })
    }

    /// Gaps of which no record is acknowledged, but those that the hole covers.
    fn untold(&self, hole: Option<&Hole>) -> impl Iterator<Item = &Gap> {
        let made = self.window.items().chain(&self.head).filter_map(|item| match &item.origin {
            Origin::Gap(gap) => Some(&**gap),
            _ => None,
        });
        let range = hole.map(|hole| (Arc::clone(&hole.boot), hole.first, hole.before));
        made.chain(&self.late).filter(move |gap| {
            range.as_ref().is_none_or(|(boot, first, before)| {
                gap.boot != *boot || gap.first < *first || gap.last >= *before
            })
        })
    }

    fn write_note(&mut self, hole: Option<Hole>) {
        let settings = Arc::clone(&self.settings);
        let Some(file) = settings.stream_file.as_deref() else { return };
        let gaps: Vec<Gap> = self.untold(hole.as_ref()).cloned().collect();
        self.noted = Noted { hole: hole.clone(), gaps: gaps.len(), holes: self.holes.len() };
        let note = Note {
            boot: Arc::clone(&settings.boot),
            standing: self.standing,
            is_running: true,
            holes: self.holes.iter().cloned().chain(hole).collect(),
            gaps,
        };
        let (name, file, result) =
            (&settings.name, file.display(), note.save(file, &settings.names));
        let was_failing = std::mem::replace(&mut self.is_note_failing, result.is_err());
        match result {
            Ok(()) if was_failing => {
                log::info!("[{name}] notes again in {file} what is in memory alone");
            }
            Err(error) if !was_failing => log::warn!(
                "[{name}] cannot note in {file} what is in memory alone ({error}): what a crash takes \
                 of it would not be told"
            ),
            _ => {}
        }
    }
}
