// SPDX-License-Identifier: MIT
//! What layers that do not know each other say of the same thing, held against each other.

use crate::config::QUEUE_SLOT_BYTES;
use crate::event::{KNOWN_NAMES, RELEASES, STORED_VERSION};
use crate::queue::Ring;
use crate::spool::SEGMENT_FORMAT;

#[test]
fn the_newest_release_has_the_formats_that_are_written() {
    let newest = RELEASES.last().map(|(names, _, stored, segment)| (*names, *stored, *segment));
    let written = (usize::from(KNOWN_NAMES), STORED_VERSION, SEGMENT_FORMAT);
    assert_eq!(newest, Some(written), "a line is missing");
}

#[test]
fn a_slot_of_the_queue_has_the_bytes_that_the_configuration_counts() {
    assert_eq!(Ring::SLOT_BYTES, QUEUE_SLOT_BYTES);
}
