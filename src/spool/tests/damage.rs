// SPDX-License-Identifier: MIT
//! Whatever happens to the bytes on disk, every record that is still whole is delivered.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::rig::{INTERVAL, Kept, Rec, Rig, cases, config, drain, seqs};
use super::sim::Sim;
use crate::spool::{Damage, DamageKind, Entry, Spool};

/// A record and the bytes of its segment that it takes.
struct Laid {
    path: PathBuf,
    begin: usize,
    end: usize,
    rec: Rec,
}

fn segment_paths(sim: &Sim) -> Vec<PathBuf> {
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "seg");
    let in_quarantine = |path: &PathBuf| path.to_string_lossy().contains("quarantine");
    sim.paths().into_iter().filter(|path| is_segment(path) && !in_quarantine(path)).collect()
}

/// Fills segments with records of these sizes, one segment for each list; the last stays open.
fn lay_out(segments: &[Vec<usize>]) -> (Sim, Vec<Laid>) {
    let mut rig = Rig::new(config(INTERVAL));
    rig.sim.with(|world| world.tracking = false);
    let mut laid = Vec::new();
    for (place, sizes) in segments.iter().enumerate() {
        let mut begin = 64;
        let recs: Vec<Rec> = sizes
            .iter()
            .map(|size| {
                rig.next_seq += 1;
                Rec::new(rig.next_seq, (*size % 3) as u8, *size)
            })
            .collect();
        let entries: Vec<Entry<'_>> = recs.iter().map(Rec::entry).collect();
        let appended = rig.spool().append(&entries);
        assert_eq!(appended.accepted, recs.len());
        rig.commit(1000);
        let path = segment_paths(&rig.sim).pop().unwrap();
        for rec in recs {
            let end = begin + 32 + rec.payload.len();
            laid.push(Laid { path: path.clone(), begin, end, rec });
            begin = end;
        }
        if place + 1 < segments.len() {
            rig.spool.take().unwrap().close().unwrap();
            rig.open().unwrap();
        }
    }
    rig.spool = None;
    (rig.sim, laid)
}

fn full_segment() -> (Sim, Vec<Laid>, PathBuf) {
    let sizes: Vec<usize> = (0..25).map(|i| 2400 + (i * 37) % 250).collect();
    let total: usize = sizes.iter().map(|size| size + 32).sum();
    assert!(total < 65_536 - 128 && total > 60_000);
    let (sim, laid) = lay_out(&[sizes]);
    let path = laid[0].path.clone();
    (sim, laid, path)
}

/// Opens and reads everything; every record is acknowledged, so that it ends.
fn recover(sim: &Sim) -> (Vec<Kept>, Vec<Damage>, Spool) {
    let (mut spool, recovery) = Spool::open(config(INTERVAL), sim.storage()).unwrap();
    let stored = drain(&mut spool);
    let mut damage = recovery.damage;
    damage.extend(spool.take_damage());
    (stored, damage, spool)
}

fn assert_found(stored: &[Kept], whole: &mut dyn Iterator<Item = &Laid>, what: &str) {
    let expected: Vec<&Rec> = whole.map(|laid| &laid.rec).collect();
    let is_same = stored.len() == expected.len()
        && stored.iter().zip(&expected).all(|(stored, rec)| {
            stored.seq == rec.seq && stored.payload == rec.payload && stored.class == rec.class
        });
    let wanted: Vec<u64> = expected.iter().map(|rec| rec.seq).collect();
    assert!(is_same, "{what}: found {:?}, whole are {wanted:?}", seqs(stored));
}

#[test]
fn every_truncation_of_a_segment_keeps_the_whole_records() {
    let (sim, laid, path) = full_segment();
    let bytes = sim.content(&path);
    assert_eq!(bytes.len(), 65_536);
    for len in 0..bytes.len() {
        let sim = sim.fork();
        sim.set(&path, bytes[..len].to_vec());
        let (stored, ..) = recover(&sim);
        let mut whole = laid.iter().filter(|laid| laid.end <= len);
        assert_found(&stored, &mut whole, &format!("cut at {len}"));
    }
}

#[test]
fn every_flipped_byte_of_a_segment_costs_at_most_the_record_it_is_in() {
    let (sim, laid, path) = full_segment();
    let bytes = sim.content(&path);
    for at in 0..bytes.len() {
        let sim = sim.fork();
        let mut bytes = bytes.clone();
        bytes[at] ^= 1 << (at % 8);
        sim.set(&path, bytes);
        let (stored, damage, _) = recover(&sim);
        let hit = |laid: &&Laid| laid.begin <= at && at < laid.end;
        let mut whole = laid.iter().filter(|laid| !hit(laid));
        assert_found(&stored, &mut whole, &format!("flipped at {at}"));
        if let Some(hit) = laid.iter().find(hit) {
            let seq = hit.rec.seq;
            assert!(damage.iter().any(|damage| {
                damage.from_seq.is_some_and(|from| from <= seq)
                    && damage.to_seq.is_none_or(|to| seq <= to)
            }));
        }
    }
}

#[derive(Debug, Clone)]
enum Harm {
    Flip(u8),
    Garbage(Vec<u8>),
    Zeros(usize),
    Cut,
    Copy(usize, usize),
    Append(Vec<u8>),
}

fn harm() -> impl Strategy<Value = (prop::sample::Index, prop::sample::Index, Harm)> {
    let kind = prop_oneof![
        4 => (1u8..).prop_map(Harm::Flip),
        2 => prop::collection::vec(any::<u8>(), 1..600).prop_map(Harm::Garbage),
        2 => (1usize..3000).prop_map(Harm::Zeros),
        1 => Just(Harm::Cut),
        2 => (0usize..9000, 1usize..2500).prop_map(|(from, len)| Harm::Copy(from, len)),
        1 => prop::collection::vec(any::<u8>(), 1..200).prop_map(Harm::Append),
    ];
    (any::<prop::sample::Index>(), any::<prop::sample::Index>(), kind)
}

fn apply(bytes: &mut Vec<u8>, at: usize, harm: &Harm) {
    let put = |bytes: &mut Vec<u8>, new: &[u8]| {
        let end = bytes.len().min(at + new.len());
        bytes[at..end].copy_from_slice(&new[..end - at]);
    };
    match harm {
        Harm::Flip(mask) => bytes[at] ^= mask,
        Harm::Garbage(new) => put(bytes, new),
        Harm::Zeros(len) => put(bytes, &vec![0; *len]),
        Harm::Cut => bytes.truncate(at),
        Harm::Copy(from, len) => {
            let from = (*from).min(bytes.len());
            let new = bytes[from..(from + len).min(bytes.len())].to_vec();
            put(bytes, &new);
        }
        Harm::Append(new) => bytes.extend_from_slice(new),
    }
}

fn is_untouched(laid: &Laid, before: &[u8], after: &[u8]) -> bool {
    after.get(laid.begin..laid.end) == before.get(laid.begin..laid.end)
}

proptest! {
    #![proptest_config(cases(10_000))]

    #[test]
    fn random_damage_to_several_segments_costs_only_the_records_it_hits(
        harms in prop::collection::vec(harm(), 1..5),
        shift in 0usize..700,
    ) {
        let sizes = |count: usize, step: usize| (0..count).map(|i| (i * step + shift) % 700).collect();
        let (sim, laid) = lay_out(&[sizes(9, 131), sizes(12, 77), sizes(4, 301), sizes(8, 211)]);
        let paths = segment_paths(&sim);
        // The open segment without its reserved rest, as on a file system that cannot reserve.
        let used = laid.last().unwrap().end + 100;
        let last = paths.last().unwrap();
        sim.set(last, sim.content(last)[..used].to_vec());
        let before: Vec<(PathBuf, Vec<u8>)> =
            paths.iter().map(|path| (path.clone(), sim.content(path))).collect();
        for (which, at, harm) in &harms {
            let path = &paths[which.index(paths.len())];
            let mut bytes = sim.content(path);
            if !bytes.is_empty() {
                apply(&mut bytes, at.index(sim.content(path).len()), harm);
                sim.set(path, bytes);
            }
        }
        let after = |path: &Path| sim.content(path);
        let whole: Vec<bool> = laid.iter().map(|laid| {
            let (_, before) = before.iter().find(|(path, _)| *path == laid.path).unwrap();
            is_untouched(laid, before, &after(&laid.path))
        }).collect();
        let (mut spool, recovery) = Spool::open(config(INTERVAL), sim.storage()).unwrap();
        let stored = drain(&mut spool);
        let lost: u64 = spool.take_damage().iter().filter_map(|damage| damage.records).sum();
        prop_assert_eq!(stored.len() as u64 + lost, recovery.records, "every record is accounted for");
        prop_assert_eq!(spool.stats().records, stored.len() as u64);
        let mut kept = laid.iter().zip(&whole).filter(|(_, whole)| **whole).map(|(laid, _)| laid);
        assert_found(&stored, &mut kept, "after damage");
        // All acknowledged: nothing but quarantine is left, and nothing comes again.
        if let Some(last) = stored.last() {
            spool.advance(last.position);
        }
        prop_assert!(spool.is_empty());
        spool.close().unwrap();
        prop_assert!(segment_paths(&sim).is_empty());
        let (stored, ..) = recover(&sim);
        prop_assert!(stored.is_empty());
    }
}

#[test]
fn damage_in_a_sealed_segment_is_reported_once_with_its_neighbors_and_ends_in_quarantine() {
    let (sim, laid) = lay_out(&[vec![500; 10], vec![500; 3]]);
    let path = laid[4].path.clone();
    let mut bytes = sim.content(&path);
    bytes[laid[4].begin + 100] ^= 0x55;
    bytes[laid[5].begin + 100] ^= 0x55;
    sim.set(&path, bytes.clone());
    let (mut spool, recovery) = Spool::open(config(INTERVAL), sim.storage()).unwrap();
    assert_eq!(recovery.damage, [], "a sealed segment is not scanned");
    let stored = drain(&mut spool);
    assert_eq!(stored.len(), 11);
    spool.rewind();
    assert_eq!(seqs(&drain(&mut spool)), seqs(&stored));
    let damage = spool.take_damage();
    assert_eq!(damage.len(), 1, "reported once: {damage:?}");
    assert_eq!((damage[0].kind, damage[0].records), (DamageKind::Corrupt, Some(2)));
    assert_eq!(spool.stats().records, 11, "what is lost does not wait");
    let range = (damage[0].from_seq, damage[0].to_seq);
    assert_eq!(range, (Some(laid[4].rec.seq), Some(laid[5].rec.seq)));
    assert_eq!(sim.content(&path), bytes, "untouched while it holds whole records");
    spool.advance(stored.last().unwrap().position);
    spool.close().unwrap();
    let moved: Vec<PathBuf> =
        sim.paths().into_iter().filter(|p| p.to_string_lossy().contains("quarantine")).collect();
    assert_eq!(moved.len(), 1);
    assert_eq!(sim.content(&moved[0]), bytes);
}

#[test]
fn each_damaged_file_that_is_moved_while_running_is_counted_once_when_it_is() {
    let (sim, laid) = lay_out(&[vec![500; 10], vec![500; 10], vec![500; 3]]);
    let hit = &laid[14];
    let mut bytes = sim.content(&hit.path);
    bytes[hit.begin + 100] ^= 0x55;
    sim.set(&hit.path, bytes);
    let (mut spool, recovery) = Spool::open(config(INTERVAL), sim.storage()).unwrap();
    assert!(recovery.quarantined.is_empty());
    let stored = drain(&mut spool);
    let mut now = Instant::now();
    let mut acknowledge = |spool: &mut Spool, records: usize| {
        spool.advance(stored[records - 1].position);
        now += Duration::from_secs(2);
        drop(spool.commit(now));
        spool.stats().quarantined
    };
    assert_eq!(acknowledge(&mut spool, 10), 0, "this one is whole, and removed");
    assert_eq!(acknowledge(&mut spool, 18), 0, "something of it is not acknowledged");
    sim.with(|world| world.read_only = true);
    assert_eq!(acknowledge(&mut spool, 19), 0, "it cannot be moved");
    sim.with(|world| world.read_only = false);
    assert_eq!(acknowledge(&mut spool, 20), 1);
    assert_eq!(acknowledge(&mut spool, 22), 1);
    spool.close().unwrap();
}

#[test]
fn what_opening_moves_is_counted_and_named() {
    // In one nothing is whole, which opening moves at once. Of the other all is acknowledged but what is damaged.
    let mut rig = Rig::new(config(INTERVAL));
    rig.append(&[(1, 500); 4]);
    rig.commit(200);
    rig.read(4);
    rig.ack(4);
    rig.commit(200);
    rig.spool = None;
    let path = segment_paths(&rig.sim).pop().unwrap();
    let mut bytes = rig.sim.content(&path);
    bytes[64 + 532 + 100] ^= 0x55;
    rig.sim.set(&path, bytes);
    let hollow = PathBuf::from("/spool/sink/00000000f0000000.seg");
    rig.sim.set(&hollow, vec![b'!'; 3000]);
    let recovery = rig.open().unwrap();
    assert_eq!(recovery.quarantined.len(), 1, "{recovery:?}");
    let line = format!("{}: moved here", recovery.quarantined[0].display());
    assert!(recovery.lines().iter().any(|said| said.starts_with(&line)), "{recovery:?}");
    assert_eq!(rig.spool().stats().quarantined, 2);
    assert!(segment_paths(&rig.sim).is_empty());
    rig.spool.take().unwrap().close().unwrap();
    rig.open().unwrap();
    assert_eq!(rig.spool().stats().quarantined, 0, "of this opening, and since");
}

#[test]
fn a_file_of_which_only_the_header_can_be_read_is_kept_for_a_look() {
    let mut rig = Rig::new(config(INTERVAL));
    rig.append(&[(1, 9000)]);
    rig.commit(200);
    rig.spool = None;
    let path = segment_paths(&rig.sim).pop().unwrap();
    rig.sim.set_bad(&path, Some(4096..8192));
    let before = rig.sim.content(&path);
    let recovery = rig.open().unwrap();
    assert_eq!(recovery.records, 0);
    assert!(!recovery.damage.is_empty());
    assert_eq!(rig.spool().stats().quarantined, 1);
    let moved = rig.sim.paths().into_iter().find(|p| p.to_string_lossy().contains("quarantine"));
    assert_eq!(rig.sim.content(&moved.unwrap()), before);
}

#[test]
fn a_destroyed_header_leaves_the_age_of_its_records_unknown() {
    let (sim, laid) = lay_out(&[vec![500; 4]]);
    let mut bytes = sim.content(&laid[0].path);
    bytes[..64].fill(0x55);
    sim.set(&laid[0].path, bytes);
    let (mut spool, _) = Spool::open(config(INTERVAL), sim.storage()).unwrap();
    let stats = spool.stats();
    assert_eq!((stats.records, stats.oldest_seq), (4, Some(laid[0].rec.seq)));
    assert_eq!(stats.oldest_appended_unix_ms, None);
}

#[test]
fn what_lies_in_quarantine_is_bounded_and_the_newest_stays() {
    let (sim, laid) = lay_out(&[vec![500; 10]]);
    let (path, config) = (laid[0].path.clone(), config(INTERVAL));
    let bound = config.segment_bytes.max(config.max_bytes / 8) as usize;
    let quarantined = |sim: &Sim| -> Vec<PathBuf> {
        let paths = sim.paths().into_iter();
        let is_segment = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "seg");
        let paths = paths.filter(|path| path.parent().unwrap().ends_with("quarantine"));
        paths.filter(is_segment).collect()
    };
    let size = bound / 3;
    let notes = path.parent().unwrap().join("quarantine/notes.txt");
    for number in 1..=7_u8 {
        // Nothing of ours in it.
        sim.set(&path, vec![number; size]);
        sim.with(|world| world.unix_ms += 1000);
        let (spool, recovery) = Spool::open(config.clone(), sim.storage()).unwrap();
        assert_eq!(recovery.quarantined.len(), 1, "{recovery:?}");
        spool.close().unwrap();
        sim.set(&notes, vec![0; 2 * bound]);
        let mut kept: Vec<u8> = quarantined(&sim).iter().map(|path| sim.content(path)[0]).collect();
        kept.sort_unstable();
        let expected: Vec<u8> = (number.saturating_sub(2).max(1)..=number).collect();
        assert_eq!(kept, expected);
    }
    // One that is larger than all that may lie there is kept as well, alone.
    sim.set(&path, vec![9; bound + 1]);
    sim.with(|world| world.unix_ms += 1000);
    Spool::open(config.clone(), sim.storage()).unwrap().0.close().unwrap();
    let kept = quarantined(&sim);
    assert_eq!(kept.iter().map(|path| sim.content(path).len()).collect::<Vec<_>>(), [bound + 1]);
    assert_eq!(sim.content(&notes).len(), 2 * bound, "what is not ours stays");
}

#[test]
fn stale_records_of_another_segment_never_pass_for_new_ones() {
    let (sim, laid) = lay_out(&[vec![500; 10], vec![500; 10]]);
    let (old, new) = (laid[0].path.clone(), laid[10].path.clone());
    let (from, mut to) = (sim.content(&old), sim.content(&new));
    // The whole data of the older file behind what the newer one has, and over its tail.
    let stale = laid[9].end;
    to.resize(to.len().max(stale), 0);
    to[laid[15].begin..stale].copy_from_slice(&from[laid[15].begin..stale]);
    sim.set(&new, to);
    let (stored, ..) = recover(&sim);
    assert_found(&stored, &mut laid[..15].iter(), "stale blocks");
}

#[test]
fn a_cursor_with_one_damaged_copy_goes_on_and_with_two_starts_at_the_oldest() {
    let mut rig = Rig::new(config(INTERVAL));
    rig.append(&[(1, 100); 10]);
    for _ in 0..3 {
        rig.commit(1000);
        rig.read(2);
        rig.ack(2);
    }
    rig.commit(1000);
    rig.spool = None;
    let path = PathBuf::from("/spool/sink/cursor");
    let good = rig.sim.content(&path);
    for copy in [0, 4096] {
        let mut bytes = good.clone();
        bytes[copy + 30] ^= 1;
        let sim = rig.sim.fork();
        sim.set(&path, bytes.clone());
        let (mut spool, recovery) = Spool::open(config(INTERVAL), sim.storage()).unwrap();
        assert_eq!(recovery.cursor_lost, None);
        let left = drain(&mut spool).len();
        assert!(left == 4 || left == 6, "the other copy stands: {left}");
        bytes[4096 - copy + 30] ^= 1;
        drop(spool);
        sim.set(&path, bytes);
        let (mut spool, recovery) = Spool::open(config(INTERVAL), sim.storage()).unwrap();
        assert!(recovery.cursor_lost.is_some_and(|why| why.contains("damaged")));
        assert_eq!(drain(&mut spool).len(), 10, "twice rather than never");
    }
}

#[test]
fn a_cursor_beyond_the_end_starts_at_the_oldest_and_says_so() {
    let mut rig = Rig::new(config(INTERVAL));
    rig.append(&[(1, 100); 10]);
    rig.commit(1000);
    rig.read(8);
    rig.ack(8);
    rig.commit(1000);
    rig.spool = None;
    let path = segment_paths(&rig.sim).pop().unwrap();
    let cut = rig.sim.content(&path)[..64 + 132 * 3].to_vec();
    rig.sim.set(&path, cut);
    let (mut spool, recovery) = Spool::open(config(INTERVAL), rig.sim.storage()).unwrap();
    assert!(recovery.cursor_lost.is_some_and(|why| why.contains("beyond its end")));
    assert_eq!(drain(&mut spool).len(), 3);
}

#[test]
fn a_segment_file_that_disappears_is_reported_and_passed_over() {
    let (sim, laid) = lay_out(&[vec![500; 10], vec![500; 10], vec![500; 3]]);
    let (mut spool, _) = Spool::open(config(INTERVAL), sim.storage()).unwrap();
    sim.remove(&laid[10].path);
    let stored = drain(&mut spool);
    assert_eq!(stored.len(), 13);
    let damage = spool.take_damage();
    assert_eq!(damage.len(), 1);
    assert_eq!((damage[0].kind, damage[0].records), (DamageKind::Missing, Some(10)));
    let range = (damage[0].from_seq, damage[0].to_seq);
    assert_eq!(range, (Some(laid[10].rec.seq), Some(laid[19].rec.seq)));
}
