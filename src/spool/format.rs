// SPDX-License-Identifier: MIT
//! The bytes on disk, all little-endian.
//!
//! ```text
//! segment  = header (64) record* [footer (64)]        <ordinal as 16 hex digits>.seg
//! header   = "RBSG" version:u16 kind:u16 ordinal:u64 first_seq:u64 id:u64 created_ms:u64
//!            link_distance:u32 link_offset:u32 link_index:u32 link_id:u32 generation:u32
//!            crc:u32
//! record   = id:u64 len:u32 crc:u32 seq:u64 class:u8 flags:u8 zero:u16 age_ms:u32 payload
//! footer   = "RBSEALED" ordinal:u64 id:u64 records:u64 data_end:u64 last_seq:u64 zero crc:u32
//! cursor   = 2 slots, 4096 apart: "RBCURSOR" version:u16 zero generation:u64 ordinal:u64 id:u64
//!            index:u64 offset:u64 seq:u64 crc:u32
//! ```
//!
//! `id` is drawn at random for each segment and opens every record of it. That costs eight bytes and
//! buys two things: after damage the next record is found by looking for eight known bytes, and a
//! segment whose header is destroyed can still be read. A record's CRC covers the segment's ordinal
//! and id, the record's offset, and everything in the record but the CRC itself, so a stale block
//! of a recycled file never passes for a record, wherever it turns up.
//!
//! `crc` stays in the last four bytes of the header in every future version, so that "newer" can be
//! told from "damaged".

use super::Entry;
use super::checksum::{crc32c, crc32c_after};

/// Size of a segment's header.
pub(super) const HEADER: u64 = 64;
/// Size of a sealed segment's footer.
pub(super) const FOOTER: u64 = 64;
/// Size of what precedes a payload.
pub(super) const RECORD: u64 = 32;
/// The format of segments that this code writes, and the newest it reads. It is also the format of what their records hold, which the
/// spool itself does not look into: it is raised whenever an older release could not read that (1 had no names as numbers; a
/// longer list of names is a new format too). So an older release sets such segments aside as they are.
pub(crate) const VERSION: u16 = 2;
/// The same of a cursor.
const CURSOR_VERSION: u16 = 1;
/// Distance of the two slots in the cursor file: a block each, so that one torn write cannot hit
/// both.
pub(super) const SLOT_STRIDE: u64 = 4096;
/// Size of a cursor slot.
pub(super) const SLOT: usize = 72;
/// Offsets in a segment are stored in 32 bits; this keeps a margin.
pub(super) const MAX_SEGMENT: u64 = 1 << 31;

const SEGMENT_MAGIC: &[u8] = b"RBSG";
const FOOTER_MAGIC: &[u8] = b"RBSEALED";
const CURSOR_MAGIC: &[u8] = b"RBCURSOR";

/// What a segment is called by its own records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) ordinal: u64,
    pub(super) id: u64,
    /// CRC of the two above, where each record's CRC starts.
    seed: u32,
}

impl Identity {
    pub(super) fn new(ordinal: u64, id: u64) -> Self {
        let seed = crc32c_after(0, [&ordinal.to_le_bytes(), &id.to_le_bytes()]);
        Self { ordinal, id, seed }
    }
}

/// What a segment's header says about other segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    /// An ordinary segment.
    None,
    /// This one was put ahead of others: when it is done, reading goes on at the mark; what lies
    /// between is acknowledged. `id` is the low half of the id of the segment marked: one of another
    /// id has replaced it, and holds nothing acknowledged. Cursors of a generation up to the given
    /// one do not know of this segment.
    Ahead { resume: Mark, id: u32, generation: u64 },
    /// This one repeats what could not be made durable at and after the mark, which is void.
    Instead { floor: Mark },
}

/// A place between two records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark {
    pub(super) ordinal: u64,
    /// Whole records of the segment before this place.
    pub(super) index: u64,
    pub(super) offset: u64,
}

/// A segment's first 64 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) identity: Identity,
    pub(super) first_seq: u64,
    pub(super) created_ms: u64,
    pub(super) link: Link,
}

/// What the first 64 bytes of a file turn out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderRead {
    Good(Header),
    /// Intact, but of a format that only later releases know.
    Newer(u16),
    Damaged,
}

/// A sealed segment's last 64 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) identity: Identity,
    pub(super) records: u64,
    pub(super) data_end: u64,
    pub(super) last_seq: u64,
}

/// What precedes a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordHead {
    pub(super) id: u64,
    pub(super) len: u32,
    pub(super) crc: u32,
    pub(super) seq: u64,
    pub(super) class: u8,
    /// Milliseconds from the segment's creation to the append, saturating.
    pub(super) age_ms: u32,
}

/// One of the two copies of the cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) generation: u64,
    pub(super) mark: Mark,
    /// Of the segment in the mark; another one there has replaced it.
    pub(super) id: u64,
    /// Sequence of the last acknowledged record.
    pub(super) seq: u64,
}

pub(super) fn encode_header(header: &Header) -> Vec<u8> {
    let (kind, mark, id, generation) = match header.link {
        Link::None => (0u16, None, 0, 0),
        Link::Ahead { resume, id, generation } => (1, Some(resume), id, generation),
        Link::Instead { floor } => (2, Some(floor), 0, 0),
    };
    let ordinal = header.identity.ordinal;
    let distance = mark.map_or(0, |mark| saturate(mark.ordinal.abs_diff(ordinal)));
    let mut out = Vec::with_capacity(to_usize(HEADER));
    out.extend_from_slice(SEGMENT_MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&ordinal.to_le_bytes());
    out.extend_from_slice(&header.first_seq.to_le_bytes());
    out.extend_from_slice(&header.identity.id.to_le_bytes());
    out.extend_from_slice(&header.created_ms.to_le_bytes());
    out.extend_from_slice(&distance.to_le_bytes());
    out.extend_from_slice(&mark.map_or(0, |mark| saturate(mark.offset)).to_le_bytes());
    out.extend_from_slice(&mark.map_or(0, |mark| saturate(mark.index)).to_le_bytes());
    out.extend_from_slice(&id.to_le_bytes());
    // Ten cursors a second fill this in thirteen years.
    out.extend_from_slice(&saturate(generation).to_le_bytes());
    out.extend_from_slice(&crc32c(&out).to_le_bytes());
    out
}

/// The half of a segment's id that a link has room for.
pub(super) fn short_id(id: u64) -> u32 {
    saturate(id & u64::from(u32::MAX))
}

pub(super) fn decode_header(bytes: &[u8]) -> HeaderRead {
    match try_header(bytes) {
        Some(read) => read,
        None => HeaderRead::Damaged,
    }
}

fn try_header(bytes: &[u8]) -> Option<HeaderRead> {
    let body = bytes.get(..60)?;
    if body.get(..4)? != SEGMENT_MAGIC || crc32c(body) != u32_at(bytes, 60)? {
        return None;
    }
    let version = u16_at(body, 4)?;
    if version > VERSION {
        return Some(HeaderRead::Newer(version));
    }
    let ordinal = u64_at(body, 8)?;
    let distance = u64::from(u32_at(body, 40)?);
    let mark = |ordinal| {
        let offset = u64::from(u32_at(body, 44)?);
        Some(Mark { ordinal, index: u64::from(u32_at(body, 48)?), offset })
    };
    let link = match u16_at(body, 6)? {
        0 => Link::None,
        1 => Link::Ahead {
            resume: mark(ordinal.checked_add(distance)?)?,
            id: u32_at(body, 52)?,
            generation: u64::from(u32_at(body, 56)?),
        },
        2 => Link::Instead { floor: mark(ordinal.checked_sub(distance)?)? },
        _ => return None,
    };
    Some(HeaderRead::Good(Header {
        identity: Identity::new(ordinal, u64_at(body, 24)?),
        first_seq: u64_at(body, 16)?,
        created_ms: u64_at(body, 32)?,
        link,
    }))
}

pub(super) fn encode_footer(footer: &Footer) -> Vec<u8> {
    let mut out = Vec::with_capacity(to_usize(FOOTER));
    out.extend_from_slice(FOOTER_MAGIC);
    out.extend_from_slice(&footer.identity.ordinal.to_le_bytes());
    out.extend_from_slice(&footer.identity.id.to_le_bytes());
    out.extend_from_slice(&footer.records.to_le_bytes());
    out.extend_from_slice(&footer.data_end.to_le_bytes());
    out.extend_from_slice(&footer.last_seq.to_le_bytes());
    out.resize(60, 0);
    out.extend_from_slice(&crc32c(&out).to_le_bytes());
    out
}

pub(super) fn decode_footer(bytes: &[u8]) -> Option<Footer> {
    let body = bytes.get(..60)?;
    if body.get(..8)? != FOOTER_MAGIC || crc32c(body) != u32_at(bytes, 60)? {
        return None;
    }
    Some(Footer {
        identity: Identity::new(u64_at(body, 8)?, u64_at(body, 16)?),
        records: u64_at(body, 24)?,
        data_end: u64_at(body, 32)?,
        last_seq: u64_at(body, 40)?,
    })
}

/// Bytes a payload of this size takes in a segment.
pub(super) fn record_bytes(payload: &[u8]) -> u64 {
    RECORD.saturating_add(to_u64(payload.len()))
}

/// Appends one record to `out` as it will stand at `offset` of the segment.
pub(super) fn encode_record(
    out: &mut Vec<u8>,
    identity: &Identity,
    offset: u64,
    entry: &Entry<'_>,
    age_ms: u32,
) {
    let start = out.len();
    out.extend_from_slice(&open_head(entry.payload.len(), entry.seq, entry.class));
    out.extend_from_slice(entry.payload);
    if let Some(record) = out.get_mut(start..) {
        complete_record(record, identity, offset, age_ms);
    }
}

/// The head of a record that has no place in a segment yet.
pub(super) fn open_head(len: usize, seq: u64, class: u8) -> [u8; 32] {
    record_head(0, saturate(to_u64(len)), 0, seq, class, 0)
}

/// Reads a head that [`open_head`] made, completed or not.
pub(super) fn peek_head(bytes: &[u8]) -> Option<RecordHead> {
    Some(RecordHead {
        id: u64_at(bytes, 0)?,
        len: u32_at(bytes, 8)?,
        crc: u32_at(bytes, 12)?,
        seq: u64_at(bytes, 16)?,
        class: *bytes.get(24)?,
        age_ms: u32_at(bytes, 28)?,
    })
}

/// Completes a record with an open head as it will stand at `offset` of the segment.
pub(super) fn complete_record(record: &mut [u8], identity: &Identity, offset: u64, age_ms: u32) {
    let Some((place, payload)) = record.split_first_chunk_mut::<32>() else { return };
    let Some(open) = peek_head(place) else { return };
    let mut head = record_head(identity.id, open.len, offset, open.seq, open.class, age_ms);
    let crc = record_crc(identity, &head, payload);
    if let Some(place) = head.get_mut(12..16) {
        place.copy_from_slice(&crc.to_le_bytes());
    }
    *place = head;
}

/// The head with the low half of its offset where the CRC will be, as the CRC is taken over it.
fn record_head(id: u64, len: u32, offset: u64, seq: u64, class: u8, age_ms: u32) -> [u8; 32] {
    let words = [
        id,
        u64::from(len) | (u64::from(saturate(offset)) << 32),
        seq,
        u64::from(class) | (u64::from(age_ms) << 32),
    ];
    let mut head = [0; 32];
    for (place, word) in head.chunks_exact_mut(8).zip(words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    head
}

fn record_crc(identity: &Identity, head: &[u8; 32], payload: &[u8]) -> u32 {
    crc32c_after(identity.seed, [head, payload])
}

/// Reads a record's head, refusing what no record has. The payload is not looked at.
pub(super) fn decode_head(bytes: &[u8]) -> Option<RecordHead> {
    let head = peek_head(bytes)?;
    let quiet = bytes.get(25..28)?.iter().all(|byte| *byte == 0);
    (head.id != 0 && head.class <= 2 && quiet).then_some(head)
}

/// Whether a record is whole and belongs just there.
pub(super) fn is_whole(
    identity: &Identity,
    offset: u64,
    head: &RecordHead,
    payload: &[u8],
) -> bool {
    let plain = record_head(head.id, head.len, offset, head.seq, head.class, head.age_ms);
    head.id == identity.id
        && to_u64(payload.len()) == u64::from(head.len)
        && record_crc(identity, &plain, payload) == head.crc
}

pub(super) fn encode_slot(slot: &Slot) -> Vec<u8> {
    let mut out = Vec::with_capacity(SLOT);
    out.extend_from_slice(CURSOR_MAGIC);
    out.extend_from_slice(&CURSOR_VERSION.to_le_bytes());
    out.resize(16, 0);
    for word in
        [slot.generation, slot.mark.ordinal, slot.id, slot.mark.index, slot.mark.offset, slot.seq]
    {
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.resize(SLOT - 4, 0);
    out.extend_from_slice(&crc32c(&out).to_le_bytes());
    out
}

pub(super) fn decode_slot(bytes: &[u8]) -> Option<Slot> {
    let body = bytes.get(..SLOT - 4)?;
    let intact = body.get(..8)? == CURSOR_MAGIC
        && u16_at(body, 8)? <= CURSOR_VERSION
        && crc32c(body) == u32_at(bytes, SLOT - 4)?;
    if !intact {
        return None;
    }
    Some(Slot {
        generation: u64_at(body, 16)?,
        mark: Mark {
            ordinal: u64_at(body, 24)?,
            index: u64_at(body, 40)?,
            offset: u64_at(body, 48)?,
        },
        id: u64_at(body, 32)?,
        seq: u64_at(body, 56)?,
    })
}

/// The name of a segment's file.
pub(super) fn segment_name(ordinal: u64) -> String {
    format!("{ordinal:016x}.seg")
}

/// The name of a segment's file, or of one that an earlier run could not read.
pub(super) fn file_name(ordinal: u64, held: bool) -> String {
    if held { format!("{ordinal:016x}.held") } else { segment_name(ordinal) }
}

/// The ordinal in a file name with the given ending, if it is one of ours.
pub(super) fn ordinal_of(name: &str, ending: &str) -> Option<u64> {
    let digits = name.strip_suffix(ending)?;
    let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (digits.len() == 16 && digits.bytes().all(lower))
        .then(|| u64::from_str_radix(digits, 16).ok())
        .flatten()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn saturate(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// Lossless on every platform FreeSWITCH runs on.
pub(super) fn to_u64(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// Saturating; sizes in memory are far below either bound.
pub(super) fn to_usize(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
