// SPDX-License-Identifier: MIT
//! Where a sink's stream stands, kept over an unload and, as far as it can be, a crash.
//!
//! The numbers of a stream are contiguous per boot of the switch. A module that is unloaded and
//! loaded again is still the same boot, so it has to go on where it stopped. The next boot has
//! another Core-UUID and begins at one; what it finds in the spool is of a stream that nobody else
//! can finish, and holes in that are told by what is noted here:
//!
//! ```text
//! <boot> <next> <told> [running]
//! hole <boot> <first> <before>
//! gap <boot> <first> <last> <event or reason>=<count> ...
//! ```
//!
//! While the module runs the first line does not say how far the stream got.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::event::EventNames;
use crate::pipeline::gap::{Gap, Losses};

/// Where a stream stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Standing {
    /// The number for the next message.
    pub(super) next: u64,
    /// The last number that was sent, or told as missing.
    pub(super) told: u64,
}

impl Standing {
    /// A stream that nothing was sent in.
    pub(super) const START: Self = Self { next: 1, told: 0 };
}

/// Numbers that were in memory alone, in front of what is in the spool. They are lost if the switch
/// dies before they are acknowledged.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Hole {
    pub(super) boot: Arc<str>,
    /// The first of them.
    pub(super) first: u64,
    /// The number behind the last: of the first message in the spool. When that is not there any
    /// more, those before it were acknowledged too.
    pub(super) before: u64,
}

/// What is kept in a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Note {
    pub(super) boot: Arc<str>,
    pub(super) standing: Standing,
    /// Whether it was written while the module was running.
    pub(super) is_running: bool,
    pub(super) holes: Vec<Hole>,
    /// Losses that no gap record is known to have told.
    pub(super) gaps: Vec<Gap>,
}

impl Note {
    /// Reads the note in `file`.
    pub(super) fn load(file: &Path, names: &EventNames) -> Option<Self> {
        let text = fs::read_to_string(file).ok()?;
        let mut lines = text.lines();
        let mut words = lines.next()?.split_ascii_whitespace();
        let mut note = Self {
            boot: words.next()?.into(),
            standing: Standing {
                next: words.next()?.parse().ok()?,
                told: words.next()?.parse().ok()?,
            },
            is_running: words.next().is_some(),
            holes: Vec::new(),
            gaps: Vec::new(),
        };
        for line in lines {
            // A line of another version of the module says nothing.
            let _unknown = note.read(line, names);
        }
        (note.standing.told < note.standing.next).then_some(note)
    }

    fn read(&mut self, line: &str, names: &EventNames) -> Option<()> {
        let mut words = line.split_ascii_whitespace();
        let what = words.next()?;
        let boot = words.next()?.into();
        let first: u64 = words.next()?.parse().ok()?;
        let last: u64 = words.next()?.parse().ok()?;
        match what {
            "hole" if first > 0 && first < last => {
                self.holes.push(Hole { boot, first, before: last });
            }
            "gap" if first <= last => {
                let mut losses = Losses::default();
                words.for_each(|word| losses.read_word(word, names));
                self.gaps.push(Gap { boot, first, last, losses });
            }
            _ => {}
        }
        Some(())
    }

    /// Writes the note, whole or not at all.
    pub(super) fn save(&self, file: &Path, names: &EventNames) -> io::Result<()> {
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        let Standing { next, told } = self.standing;
        let running = if self.is_running { " running" } else { "" };
        let mut text = format!("{} {next} {told}{running}\n", self.boot);
        for Hole { boot, first, before } in &self.holes {
            // Writing to a String cannot fail.
            let _infallible = writeln!(text, "hole {boot} {first} {before}");
        }
        for Gap { boot, first, last, losses } in &self.gaps {
            let [kinds, reasons] = losses.words(names);
            let _infallible = writeln!(text, "gap {boot} {first} {last} {kinds} {reasons}");
        }
        let fresh = file.with_extension("new");
        fs::write(&fresh, text)?;
        fs::rename(fresh, file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventKind;
    use crate::queue::DropReason;

    #[test]
    fn a_note_is_read_as_it_was_written() {
        let folder = std::env::temp_dir().join(format!("rb-stream-{}", std::process::id()));
        let file = folder.join("streams").join("a");
        let names = EventNames::new(["CUSTOM", "DTMF"]);
        let mut losses = Losses::of_crash(1);
        losses.note(EventKind::new(1), DropReason::QueueFull);
        losses.note(EventKind::PUBLISH, DropReason::Oversize);
        let boot: Arc<str> = "boot-1".into();
        let mut note = Note {
            boot: Arc::clone(&boot),
            standing: Standing { next: 12, told: 9 },
            is_running: true,
            holes: vec![Hole { boot: Arc::clone(&boot), first: 3, before: 5 }],
            gaps: vec![Gap { boot, first: 7, last: 9, losses }],
        };
        note.save(&file, &names).unwrap();
        assert_eq!(Note::load(&file, &names), Some(note.clone()));
        note.is_running = false;
        note.save(&file, &names).unwrap();
        assert_eq!(Note::load(&file, &names), Some(note.clone()));
        // As an earlier version of the module wrote it.
        fs::write(&file, "boot-1 12 9\n").unwrap();
        let plain = Note { holes: Vec::new(), gaps: Vec::new(), ..note };
        assert_eq!(Note::load(&file, &names), Some(plain));
        fs::write(&file, "boot-1 5 7\n").unwrap();
        assert_eq!(Note::load(&file, &names), None, "told beyond next is no standing");
        fs::remove_dir_all(folder).unwrap();
    }
}
