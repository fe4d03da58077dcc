// SPDX-License-Identifier: MIT
//! What a publisher tells of what it lost, and what it does when its disk or its connection breaks half way.

use super::*;

const WIDE: Limits = Limits { events: 1024, bytes: 1 << 24, percent: [100; 3], slack_percent: 0 };

fn overflow(dir: &Path) -> StoreSettings {
    let config = SpoolConfig { fsync: Fsync::Always, ..spool(dir) };
    StoreSettings { config, mode: SpoolMode::Overflow }
}

/// Leaves 1, 2, a gap record for 3, and 4 in flight when the connection breaks.
fn break_with_a_gap_in_flight(bench: &Bench) {
    (1..=2).for_each(|number| bench.offer(Class::Normal, number, 10));
    bench.lose();
    bench.offer(Class::Normal, 4, 10);
    bench.until("all of it to be in flight", |status| status.in_flight == 4);
    bench.does.store(AWAY, Ordering::SeqCst);
    bench.until("the loss of the connection", |status| status.reconnects == 1);
}

fn on_disk(status: &SinkStatus, records: u64) -> bool {
    status.memory_bytes == 0 && status.spool.as_ref().is_some_and(|it| it.records == records)
}

fn is_done(status: &SinkStatus, delivered: u64) -> bool {
    status.account.delivered == delivered && status.in_flight == 0 && status.waiting == 0
}

#[test]
fn a_gap_record_in_flight_when_the_connection_breaks_is_told_in_its_place() {
    let folder = Folder::new("gap-parked");
    let bench = start_with(HOLDS, WIDE, Some(overflow(folder.path())), None);
    break_with_a_gap_in_flight(&bench);
    bench.until("the events to be on disk", |status| on_disk(status, 3));
    bench.does.store(TAKES, Ordering::SeqCst);
    let status = bench.until("all to be delivered", |status| is_done(status, 3));
    assert_balanced(&status);
    assert_eq!(*bench.order.lock().unwrap(), [1, 2, 3, 4]);
    assert_eq!(bench.seen(), [vec![1, 2, 4], vec![3]]);
    assert_eq!(bench.reasons(), ["queue-full=1"]);
    bench.stop();
}

#[test]
fn a_gap_record_in_flight_at_an_unload_is_told_after_the_next_load_in_this_boot_and_another() {
    for (spooled, boot) in [(true, "B"), (true, "C"), (false, "B"), (false, "C")] {
        let folder = Folder::new(&format!("gap-unloaded-{spooled}-{boot}"));
        let note = folder.join("streams").join("out");
        let store = || spooled.then(|| overflow(&folder.join("spool")));
        let bench = start_in("B", Some(note.clone()), HOLDS, WIDE, store(), None);
        break_with_a_gap_in_flight(&bench);
        // And one more at the end, with nothing behind it.
        bench.lose();
        bench.stop_by(Instant::now() + Duration::from_millis(100));
        let bench = start_in(boot, Some(note), TAKES, WIDE, store(), None);
        let told = if spooled { vec![3, 5] } else { vec![1, 2, 3, 4, 5] };
        bench.until("all that is missing to be told", |status| {
            bench.seen()[1] == told && status.in_flight == 0
        });
        assert_eq!(bench.seen()[0], if spooled { vec![1, 2, 4] } else { vec![] });
        let order = bench.order.lock().unwrap().clone();
        assert!(order.is_sorted(), "{order:?}");
        let reasons = bench.reasons().join(" ");
        assert_eq!(reasons.matches("queue-full=1").count(), 2, "{reasons}");
        bench.stop();
    }
}

#[test]
fn what_a_crash_takes_from_in_front_of_the_spool_is_told_in_the_next_boot() {
    let folder = Folder::new("hole");
    let note = folder.join("streams").join("out");
    let store = overflow(&folder.join("spool"));
    let bench = start_in("B", Some(note.clone()), HOLDS, WIDE, Some(store), None);
    (1..=3).for_each(|number| bench.offer(Class::Normal, number, 10));
    bench.until("these to be in flight", |status| status.in_flight == 3);
    bench.pipeline.pause();
    (4..=6).for_each(|number| bench.offer(Class::Normal, number, 10));
    bench.until("those to be on disk", |status| {
        status.spool.as_ref().is_some_and(|it| it.records == 3 && it.undurable_records == Some(0))
    });
    // What a crash at this moment leaves.
    let left = folder.join("left");
    fs::create_dir_all(&left).unwrap();
    for file in fs::read_dir(folder.join("spool")).unwrap().map(Result::unwrap) {
        fs::copy(file.path(), left.join(file.file_name())).unwrap();
    }
    let noted = folder.join("note");
    fs::copy(&note, &noted).unwrap();

    // When they are acknowledged after all the note is taken back.
    bench.does.store(AWAY, Ordering::SeqCst);
    bench.until("the loss of the connection", |status| status.reconnects == 1);
    bench.does.store(TAKES, Ordering::SeqCst);
    bench.pipeline.resume();
    bench.until("all to be delivered", |status| status.account.delivered == 6);
    bench.until("the note to be taken back", |_| {
        !fs::read_to_string(&note).unwrap().contains("hole")
    });
    assert_eq!(bench.seen(), [vec![1, 2, 3, 4, 5, 6], vec![]]);
    bench.stop();

    let again = start_in("C", Some(noted), TAKES, WIDE, Some(overflow(&left)), None);
    let status = again.until("the rest to be delivered", |status| is_done(status, 3));
    assert_balanced(&status);
    assert_eq!(*again.order.lock().unwrap(), [3, 4, 5, 6]);
    assert_eq!(again.seen(), [vec![4, 5, 6], vec![1, 2, 3]]);
    assert_eq!(again.reasons(), ["crash=3"]);
    again.stop();
}

/// Has three more in flight from memory, and three behind them on disk.
fn leave_in_memory(bench: &Bench, first: u64) {
    bench.does.store(HOLDS, Ordering::SeqCst);
    (first..first + 3).for_each(|number| bench.offer(Class::Normal, number, 10));
    bench.until("these to be in flight", |status| status.in_flight == 3);
    bench.pipeline.pause();
    (first + 3..first + 6).for_each(|number| bench.offer(Class::Normal, number, 10));
    bench.until("those to be on disk", |status| {
        status.spool.as_ref().is_some_and(|it| it.records == 3)
    });
}

/// Loses the connection and delivers everything over the next.
fn deliver_all(bench: &Bench, offered: u64, losses: u64) {
    bench.does.store(AWAY, Ordering::SeqCst);
    bench.until("the loss of the connection", |status| status.reconnects == losses);
    bench.does.store(TAKES, Ordering::SeqCst);
    bench.pipeline.resume();
    let status = bench.until("all to be delivered", |status| is_done(status, offered));
    assert_balanced(&status);
}

/// Long enough for what is tried again and again.
fn pass_time(bench: &Bench) {
    let begun = Instant::now();
    bench.until("some time to pass", |_| begun.elapsed() > Duration::from_millis(700));
}

#[test]
fn a_note_that_cannot_be_written_stops_nothing_is_said_once_and_is_written_when_it_can_be() {
    let folder = Folder::new("no-note");
    let streams = folder.join("streams");
    let note = streams.join("noting");
    let bench = start_as(HOLDS, WIDE, Some(overflow(&folder.join("spool"))), None, |settings| {
        settings.name = "noting".into();
        settings.stream_file = Some(note.clone());
    });
    let said = || [lines("noting", "cannot note in"), lines("noting", "notes again in")];
    let noted = || fs::read_to_string(&note).unwrap_or_default();
    // There can be no folder for it.
    fs::write(&streams, "an obstacle").unwrap();
    leave_in_memory(&bench, 1);
    bench.until("the failure to be said", |_| said() == [1, 0]);
    pass_time(&bench);
    assert_eq!(said(), [1, 0]);
    fs::remove_file(&streams).unwrap();
    bench.until("the note", |_| noted().contains("hole B 1 4\n"));
    bench.until("the end of it to be said", |_| said() == [1, 1]);
    deliver_all(&bench, 6, 1);
    bench.until("the note to be taken back", |_| !noted().contains("hole"));

    fs::remove_dir_all(&streams).unwrap();
    fs::write(&streams, "an obstacle").unwrap();
    leave_in_memory(&bench, 7);
    bench.until("another failure to be said", |_| said() == [2, 1]);
    deliver_all(&bench, 12, 2);
    pass_time(&bench);
    assert_eq!(said(), [2, 1]);
    fs::remove_file(&streams).unwrap();
    bench.until("a note again", |_| noted() == "B 13 12 running\n");
    assert_eq!(bench.seen(), [(1..=12).collect(), vec![]]);
    bench.stop();
}

#[test]
fn a_note_of_the_load_before_is_replaced_as_soon_as_a_full_disk_has_room() {
    let folder = Folder::new("old-note");
    let note = folder.join("streams").join("old");
    let load = || {
        start_as(TAKES, WIDE, Some(overflow(&folder.join("spool"))), None, |settings| {
            settings.name = "old".into();
            settings.stream_file = Some(note.clone());
        })
    };
    let bench = load();
    bench.offer(Class::Normal, 1, 10);
    bench.until("it to be delivered", |status| is_done(status, 1));
    bench.stop();
    assert_eq!(fs::read_to_string(&note).unwrap(), "B 2 1\n");
    // Where the next note is written before it has its name, there is no room.
    let aside = note.with_extension("new");
    std::os::unix::fs::symlink("/dev/full", &aside).unwrap();
    let bench = load();
    bench.until("the failure to be said", |_| lines("old", "cannot note in") == 1);
    bench.offer(Class::Normal, 2, 10);
    bench.until("it to be delivered", |status| is_done(status, 1));
    pass_time(&bench);
    assert_eq!(lines("old", "cannot note in"), 1);
    assert_eq!(*bench.order.lock().unwrap(), [2], "the numbers go on");
    // After a crash it would say that nothing came after the first.
    assert_eq!(fs::read_to_string(&note).unwrap(), "B 2 1\n");
    fs::remove_file(&aside).unwrap();
    bench.until("the note", |_| fs::read_to_string(&note).unwrap() == "B 3 2 running\n");
    bench.stop();
}

#[test]
fn letters_are_not_taken_up_while_the_sink_is_paused() {
    let folder = Folder::new("paused-letters");
    let dead = Arc::new(DeadLetters::open(folder.path(), 1 << 20).0);
    let bench = start(REJECTS, None, Some(Arc::clone(&dead)));
    bench.offer(Class::Normal, 1, 10);
    bench.until("the dead letter", |status| status.dead_letters == 1);
    bench.pipeline.pause();
    bench.until("the pause", |status| status.state == SinkState::Paused);
    bench.does.store(TAKES, Ordering::SeqCst);
    assert_eq!(dead.ask_retry(Which::All).unwrap(), 1);
    // When the second is taken in, the round of the first is over, in which it could have.
    for number in [2, 3] {
        bench.offer(Class::Normal, number, 10);
        bench.until("it to be taken in", |_| !bench.ring.has_events());
    }
    assert_eq!(dead.stats().retrying, 0);
    bench.pipeline.resume();
    bench.until("all to be delivered", |status| status.account.delivered == 3);
    bench.stop();
}

#[test]
fn what_was_acknowledged_out_of_order_and_is_read_again_is_counted_again() {
    let folder = Folder::new("out-of-order");
    let bench = start_with(HOLDS, WIDE, Some(overflow(folder.path())), None);
    bench.offer(Class::Normal, 1, 10);
    bench.until("one in flight from memory", |status| status.in_flight == 1);
    bench.pipeline.pause();
    (2..=3).for_each(|number| bench.offer(Class::Normal, number, 10));
    bench.until("two on disk", |status| status.spool.as_ref().is_some_and(|it| it.records == 2));
    bench.pipeline.resume();
    bench.until("those in flight as well", |status| status.in_flight == 3);
    bench.does.store(ANSWERS_ONE, Ordering::SeqCst);
    bench.until("the loss of the connection", |status| status.reconnects == 1);
    let status = bench.until("all three to be on disk", |status| on_disk(status, 3));
    assert_eq!(status.account.delivered, 1);
    assert_balanced(&status);
    bench.does.store(TAKES, Ordering::SeqCst);
    let status = bench.until("all to be delivered", |status| is_done(status, 4));
    assert_balanced(&status);
    bench.stop();
}

#[test]
fn what_is_in_flight_from_disk_is_not_read_again_for_what_was_nacked_in_front_of_it() {
    let folder = Folder::new("nacked-in-front");
    let bench = start_with(HOLDS, WIDE, Some(overflow(folder.path())), None);
    let wait_on_disk = |count: u64| {
        bench.until("some to be on disk", |status| {
            status.spool.as_ref().is_some_and(|it| it.records == count)
        });
    };
    bench.offer(Class::Normal, 1, 10);
    bench.until("one in flight from memory", |status| status.in_flight == 1);
    bench.pipeline.pause();
    (2..=3).for_each(|number| bench.offer(Class::Normal, number, 10));
    wait_on_disk(2);
    bench.pipeline.resume();
    bench.until("those in flight as well", |status| status.in_flight == 3);
    bench.pipeline.pause();
    bench.until("the pause", |status| status.state == SinkState::Paused);
    bench.does.store(NACKS_FIRST, Ordering::SeqCst);
    bench.until("the nack", |_| bench.does.load(Ordering::SeqCst) == HOLDS);
    bench.offer(Class::Normal, 4, 10);
    wait_on_disk(3);
    bench.does.store(ANSWERS_TWO, Ordering::SeqCst);
    bench.until("the answer", |status| status.account.delivered == 2);
    bench.pipeline.resume();
    let status = bench.until("the rest to be delivered", |status| is_done(status, 4));
    assert_balanced(&status);
    assert_eq!(*bench.order.lock().unwrap(), [1, 4]);
    bench.stop();
}

#[test]
fn a_pause_that_the_broker_asks_for_counts_while_it_lasts_and_ends_with_the_connection() {
    let folder = Folder::new("blocked");
    let bench = start_with(BLOCKS, WIDE, Some(overflow(folder.path())), None);
    bench.until("the pause", |status| status.state == SinkState::Blocked);
    bench.until("its time to count", |status| !status.blocked.is_zero());
    bench.does.store(AWAY, Ordering::SeqCst);
    let before = bench.until("the loss of the connection", |status| status.reconnects == 1);
    bench.offer(Class::Normal, 1, 10);
    let status = bench.until("some time to pass", |status| on_disk(status, 1));
    assert_eq!(status.blocked, before.blocked);
    bench.stop();
}

/// Offers so many events and waits until they are out of memory.
fn put_away(bench: &Bench, numbers: std::ops::RangeInclusive<u64>, size: usize) {
    for number in numbers {
        bench.offer(Class::Normal, number, size);
        bench.until("the event to be put away", |status| status.memory_bytes == 0);
    }
}

#[test]
fn an_event_larger_than_the_spool_is_lost_alone() {
    let folder = Folder::new("oversize");
    let config = SpoolConfig { max_bytes: 128 << 10, ..spool(folder.path()) };
    let bench = start(AWAY, Some(StoreSettings { config, mode: SpoolMode::Always }), None);
    for (number, size) in [(1, 100), (2, 200_000), (3, 100)] {
        bench.offer(Class::Critical, number, size);
    }
    let status = bench.until("the others to be on disk", |status| status.memory_bytes == 0);
    assert_balanced(&status);
    assert_eq!(status.account.dropped[DropReason::Oversize.index()], 1, "{status:#?}");
    bench.does.store(TAKES, Ordering::SeqCst);
    bench.until("them to be delivered", |status| {
        status.account.delivered == 2 && status.account.gaps == 1
    });
    assert_eq!(*bench.order.lock().unwrap(), [1, 2, 3]);
    assert_eq!(*bench.told.lock().unwrap(), ["DTMF=1: oversize=1"]);
    bench.stop();
}

#[test]
fn what_gives_way_in_a_full_spool_is_told_by_its_kind() {
    let folder = Folder::new("oldest");
    let config = SpoolConfig { max_bytes: 2 << 20, ..spool(folder.path()) };
    let store = StoreSettings { config, mode: SpoolMode::Always };
    let limits = Limits { events: 1024, bytes: 1 << 24, percent: [100; 3], slack_percent: 10 };
    let bench = start_with(AWAY, limits, Some(store), None);
    put_away(&bench, 1..=800, 4000);
    let status = bench.pipeline.status();
    let lost = status.account.dropped[DropReason::SpoolFull.index()];
    assert_eq!(lost, status.account.dropped_total(), "{status:#?}");
    assert!((200..=700).contains(&lost), "{lost}");
    bench.does.store(TAKES, Ordering::SeqCst);
    bench.until("the rest to arrive", |status| status.waiting == 0 && status.account.gaps > 0);
    let [arrived, told] = bench.seen.lock().unwrap().clone();
    assert_eq!(told, (1..=lost).collect::<BTreeSet<u64>>());
    assert_eq!(arrived, (lost + 1..=800).collect::<BTreeSet<u64>>());
    assert_eq!(*bench.told.lock().unwrap(), [format!("DTMF={lost}: spool-full={lost}")]);
    bench.stop();
}

#[test]
fn what_gives_way_in_a_full_spool_is_the_oldest_of_the_cheapest_class() {
    let folder = Folder::new("cheapest");
    let config = SpoolConfig { max_bytes: 2 << 20, ..spool(folder.path()) };
    let store = StoreSettings { config, mode: SpoolMode::Always };
    let limits = Limits { events: 1024, bytes: 1 << 24, percent: [100; 3], slack_percent: 10 };
    let bench = start_with(AWAY, limits, Some(store), None);
    let class_of = |number: u64| match number % 3 {
        0 => Class::Critical,
        1 => Class::Normal,
        _ => Class::Bulk,
    };
    for number in 1..=900 {
        bench.offer(class_of(number), number, 4000);
        bench.until("the event to be put away", |status| status.memory_bytes == 0);
    }
    bench.does.store(TAKES, Ordering::SeqCst);
    let status = bench.until("the rest to arrive", |status| {
        status.waiting == 0 && status.in_flight == 0 && status.account.gaps > 0
    });
    assert_balanced(&status);
    let [arrived, told] = bench.seen.lock().unwrap().clone();
    assert_eq!(
        arrived.union(&told).copied().collect::<Vec<u64>>(),
        (1..=900).collect::<Vec<u64>>()
    );
    let lost = |class| told.iter().copied().filter(move |number| class_of(*number) == class);
    let kept = |class| arrived.iter().copied().filter(move |number| class_of(*number) == class);
    assert_eq!(lost(Class::Critical).count(), 0, "{told:?}");
    for class in [Class::Normal, Class::Bulk] {
        let newest = lost(class).max().expect("some of both have given way");
        assert!(kept(class).all(|number| number > newest), "{class:?}: {told:?}");
    }
    // As long as there was a bulk one in front of it, no normal one went.
    let newest = lost(Class::Normal).max().unwrap();
    assert!(kept(Class::Bulk).all(|number| number > newest), "{told:?}");
    bench.stop();
}

#[test]
fn what_is_damaged_on_disk_is_told_as_such() {
    let folder = Folder::new("damaged");
    let config = spool(folder.path());
    let store = StoreSettings { config, mode: SpoolMode::Always };
    let bench = start(AWAY, Some(store), None);
    put_away(&bench, 1..=10, 1000);
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "seg");
    let files = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let path = files.into_iter().find(is_segment).unwrap();
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[b'!'; 100], 5500).unwrap();
    bench.does.store(TAKES, Ordering::SeqCst);
    let status = bench.until("the rest to arrive", |status| {
        status.waiting == 0 && status.in_flight == 0 && status.account.gaps > 0
    });
    assert_balanced(&status);
    assert_eq!(status.account.dropped[DropReason::SpoolDamaged.index()], 1, "{status:#?}");
    assert_eq!(bench.seen.lock().unwrap()[0].len(), 9);
    assert_eq!(*bench.order.lock().unwrap(), (1..=10).collect::<Vec<u64>>());
    assert_eq!(*bench.told.lock().unwrap(), ["UNKNOWN=1: spool-damaged=1"]);
    bench.stop();
}

#[test]
fn damaged_files_that_are_moved_are_shown_as_is_how_old_the_oldest_is() {
    let folder = Folder::new("set-aside");
    let config = SpoolConfig { fsync: Fsync::Always, ..spool(folder.path()) };
    let store = || Some(StoreSettings { config: config.clone(), mode: SpoolMode::Always });
    let load =
        |does| start_as(does, WIDE, store(), None, |settings| settings.name = "set-aside".into());
    let shows = |status: &SinkStatus| {
        status.spool.as_ref().map(|it| (it.records, it.oldest_ms.is_some(), it.quarantined))
    };
    let segments = || -> BTreeSet<PathBuf> {
        let files = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|ending| ending == "seg")).collect()
    };
    let bench = load(AWAY);
    put_away(&bench, 1..=100, 1000);
    bench.until("them to be shown", |status| shows(status) == Some((100, true, 0)));
    // The first of several files.
    assert!(segments().len() > 1);
    let path = segments().pop_first().unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[b'!'; 100], 5500).unwrap();
    bench.does.store(TAKES, Ordering::SeqCst);
    bench.until("it to be moved", |status| shows(status) == Some((0, false, 1)));
    assert_eq!(lines("set-aside", "moved here"), 0);
    bench.stop();
    // Nothing of ours is in one that comes back.
    fs::write(&path, [b'!'; 3000]).unwrap();
    let bench = load(TAKES);
    bench.until("it to be moved", |status| shows(status) == Some((0, false, 1)));
    assert_eq!(lines("set-aside", "moved here, nothing whole was left in it"), 1);
    assert!(segments().is_empty());
    assert_eq!(fs::read_dir(folder.join("quarantine")).unwrap().count(), 2);
    bench.stop();
}

#[test]
fn a_spool_that_breaks_while_it_is_used_stops_no_event() {
    let folder = Folder::new("breaks");
    let dir = folder.path().join("spool");
    let has_trouble =
        |status: &SinkStatus| status.spool.as_ref().is_some_and(|spool| spool.trouble.is_some());
    let fsyncs = [Fsync::Never, Fsync::Always, Fsync::Interval(Duration::from_millis(10))];
    for fsync in fsyncs {
        let config = SpoolConfig { fsync, ..spool(&dir) };
        let bench = start(AWAY, Some(StoreSettings { config, mode: SpoolMode::Always }), None);
        put_away(&bench, 1..=10, 100);
        bench.until("them to be durable", |status| {
            status.spool.as_ref().is_some_and(|spool| {
                spool.records == 10 && spool.undurable_records.unwrap_or(0) == 0
            })
        });
        // There can be no folder again.
        fs::remove_dir_all(&dir).unwrap();
        fs::write(&dir, "an obstacle").unwrap();
        bench.until("the trouble", has_trouble);
        bench.does.store(TAKES, Ordering::SeqCst);
        bench.until("what is in the deleted file", |status| status.account.delivered == 10);
        for number in 11..=20 {
            bench.offer(Class::Normal, number, 100);
        }
        bench.until("events to go past the spool", |status| {
            let bypassed = status.spool.as_ref().map_or(0, |spool| spool.bypassed);
            status.account.delivered == 20 && bypassed == 10
        });
        fs::remove_file(&dir).unwrap();
        bench.until("the spool to work again", |status| !has_trouble(status));
        for number in 21..=30 {
            bench.offer(Class::Normal, number, 100);
        }
        let status = bench.until("the last", |status| status.account.delivered == 30);
        assert_balanced(&status);
        assert_eq!(status.account.dropped_total(), 0, "{status:#?}");
        assert_eq!(*bench.order.lock().unwrap(), (1..=30).collect::<Vec<u64>>(), "{fsync:?}");
        bench.stop();
        fs::remove_dir_all(&dir).unwrap();
    }
}
