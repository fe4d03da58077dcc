// SPDX-License-Identifier: MIT
//! Where a sink's stream stands, kept over an unload.
//!
//! The numbers of a stream are contiguous per boot of the switch. A module that is unloaded and
//! loaded again is still the same boot, so it has to go on where it stopped. A crash needs no such
//! note: the next boot has another Core-UUID and begins at one.

use std::fs;
use std::io;
use std::path::Path;

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

    /// Reads the note in `file`, if it is of this boot.
    pub(super) fn load(file: &Path, boot: &str) -> Option<Self> {
        let text = fs::read_to_string(file).ok()?;
        let mut words = text.split_ascii_whitespace();
        if words.next()? != boot {
            return None;
        }
        let next = words.next()?.parse().ok()?;
        let told = words.next()?.parse().ok()?;
        (told < next).then_some(Self { next, told })
    }

    /// Writes the note, whole or not at all.
    pub(super) fn save(self, file: &Path, boot: &str) -> io::Result<()> {
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        let fresh = file.with_extension("new");
        fs::write(&fresh, format!("{boot} {} {}\n", self.next, self.told))?;
        fs::rename(fresh, file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_counts_for_its_own_boot_only() {
        let folder = std::env::temp_dir().join(format!("rb-stream-{}", std::process::id()));
        let file = folder.join("streams").join("a");
        let standing = Standing { next: 12, told: 9 };
        standing.save(&file, "boot-1").unwrap();
        assert_eq!(Standing::load(&file, "boot-1"), Some(standing));
        assert_eq!(Standing::load(&file, "boot-2"), None);
        fs::write(&file, "boot-1 5 7\n").unwrap();
        assert_eq!(Standing::load(&file, "boot-1"), None, "told beyond next is no standing");
        fs::remove_dir_all(folder).unwrap();
    }
}
