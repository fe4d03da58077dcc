// SPDX-License-Identifier: MIT
//! T-FILT and every spelling of a selection.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::event::names::EVENTS;

fn read(text: &str) -> Selection {
    let (selection, problems) = Selection::parse(text, EVENTS);
    assert_eq!(problems, [], "{text}");
    selection
}

fn problems(text: &str) -> Vec<SelectionProblem> {
    Selection::parse(text, EVENTS).1
}

/// What `CUSTOM` alone, without a look at its subclass, is in the expected sets below.
fn whole_events(selection: &Selection) -> BTreeSet<&'static str> {
    EVENTS.iter().copied().filter(|name| selection.coverage(name) == Coverage::All).collect()
}

fn starting(prefix: &str) -> BTreeSet<&'static str> {
    EVENTS.iter().copied().filter(|name| name.starts_with(prefix)).collect()
}

fn all_but(away: &[&str]) -> BTreeSet<&'static str> {
    EVENTS.iter().copied().filter(|name| !away.contains(name)).collect()
}

#[test]
fn each_filter_takes_exactly_its_events_of_all_there_are() {
    use Coverage::{All, BySubclass, None};
    let channel = starting("CHANNEL_");
    assert_eq!(channel.len(), 22);
    let table: [(&str, BTreeSet<&str>, Coverage); 16] = [
        ("ALL", all_but(&[]), All),
        ("*", all_but(&[]), All),
        ("", BTreeSet::new(), None),
        ("CHANNEL_CREATE", ["CHANNEL_CREATE"].into(), None),
        ("CHANNEL_CREATE,CHANNEL_DESTROY", ["CHANNEL_CREATE", "CHANNEL_DESTROY"].into(), None),
        ("CHANNEL_*", channel.clone(), None),
        (
            "CHANNEL_* !CHANNEL_STATE -CHANNEL_CALLSTATE",
            {
                let mut set = channel.clone();
                set.remove("CHANNEL_STATE");
                set.remove("CHANNEL_CALLSTATE");
                set
            },
            None,
        ),
        (
            "*_SCHEDULE",
            ["ADD_SCHEDULE", "DEL_SCHEDULE", "EXE_SCHEDULE", "RE_SCHEDULE"].into(),
            None,
        ),
        ("???_SCHEDULE", ["ADD_SCHEDULE", "DEL_SCHEDULE", "EXE_SCHEDULE"].into(), None),
        ("ALL !RE_SCHEDULE", all_but(&["RE_SCHEDULE"]), All),
        ("!RE_SCHEDULE", all_but(&["RE_SCHEDULE"]), All),
        ("!RE_SCHEDULE ALL", all_but(&["RE_SCHEDULE"]), All),
        ("ALL !CUSTOM", all_but(&["CUSTOM"]), None),
        ("ALL !sofia::*", all_but(&["CUSTOM"]), BySubclass),
        ("CUSTOM", ["CUSTOM"].into(), All),
        ("DTMF CUSTOM sofia::register", ["DTMF"].into(), BySubclass),
    ];
    for (text, expected, custom) in table {
        let selection = read(text);
        assert_eq!(whole_events(&selection), expected, "{text}");
        assert_eq!(selection.coverage(CUSTOM), custom, "{text}");
        for event in EVENTS.iter().filter(|event| **event != CUSTOM) {
            assert_eq!(
                selection.wants(event, Option::None),
                expected.contains(event),
                "{text} {event}"
            );
        }
    }
}

#[test]
fn every_spelling_of_a_subclass_takes_this_subclass_alone() {
    for text in [
        "CUSTOM sofia::register",
        "custom,sofia::register",
        "CUSTOM^sofia::register",
        "custom^sofia::register",
        "CUSTOM::sofia::register",
        "SWITCH_EVENT_CUSTOM sofia::register",
        "SWITCH_EVENT_CUSTOM^sofia::register",
        "SWITCH_EVENT_CUSTOM::sofia::register",
        "switch_event_custom::sofia::register",
        "sofia::register",
        "  sofia::register\n\t,, ",
    ] {
        let selection = read(text);
        assert_eq!(selection, read("sofia::register"), "{text}");
        for subclass in SUBCLASSES {
            let wanted = selection.wants(CUSTOM, Some(subclass.as_bytes()));
            assert_eq!(wanted, *subclass == "sofia::register", "{text} {subclass}");
        }
        assert!(!selection.wants(CUSTOM, None), "{text}");
        assert!(!selection.wants(CUSTOM, Some(b"sofia::register\xff")), "{text}");
    }
}

#[test]
fn every_spelling_of_an_event_takes_this_event_alone() {
    for text in [
        "CHANNEL_CREATE",
        "channel_create",
        "SWITCH_EVENT_CHANNEL_CREATE",
        "switch_event_Channel_Create",
    ] {
        assert_eq!(read(text), read("CHANNEL_CREATE"), "{text}");
    }
}

#[test]
fn what_is_taken_away_stays_away_whatever_the_order() {
    for (text, wanted, unwanted) in [
        ("CUSTOM !sofia::*", "fifo::info", "sofia::register"),
        ("!sofia::* CUSTOM", "fifo::info", "sofia::register"),
        ("CUSTOM -CUSTOM^sofia::register", "sofia::expire", "sofia::register"),
        ("!SWITCH_EVENT_CUSTOM::sofia::register ALL", "sofia::expire", "sofia::register"),
        ("sofia::* !sofia::reg*", "sofia::expire", "sofia::register"),
        (
            "CUSTOM sofia::register sofia::expire !sofia::register",
            "sofia::expire",
            "sofia::register",
        ),
        ("!sofia::register", "sofia::expire", "sofia::register"),
    ] {
        let selection = read(text);
        assert!(selection.wants(CUSTOM, Some(wanted.as_bytes())), "{text}");
        assert!(!selection.wants(CUSTOM, Some(unwanted.as_bytes())), "{text}");
    }
    assert!(read("DTMF !DTMF").is_empty());
    assert!(read("sofia::register !sofia::*").is_empty());
    assert!(read("!ALL").is_empty());
    assert!(read("ALL !*").is_empty());
}

#[test]
fn a_list_of_subclasses_ends_at_the_next_event() {
    let selection = read("CUSTOM my_app conference::* CHANNEL_CREATE");
    assert!(selection.wants(CUSTOM, Some(b"my_app")));
    assert!(selection.wants(CUSTOM, Some(b"conference::cdr")));
    assert!(!selection.wants(CUSTOM, Some(b"fifo::info")));
    assert!(selection.wants("CHANNEL_CREATE", None));
    assert_eq!(problems("CUSTOM my_app DTMF my_app").len(), 1);
    assert_eq!(read("CUSTOM CHANNEL_CREATE").coverage(CUSTOM), Coverage::All);
    assert_eq!(read("CUSTOM ALL"), read("ALL"));
}

#[test]
fn every_subclass_can_be_written_as_a_pattern_too() {
    assert_eq!(read("CUSTOM^*"), read("CUSTOM"));
    assert_eq!(read("ALL !CUSTOM^*"), read("ALL !CUSTOM"));
}

#[test]
fn an_application_may_have_subclasses_of_its_own() {
    let selection = read("CUSTOM acme::ticket CUSTOM^beep");
    assert!(selection.wants(CUSTOM, Some(b"acme::ticket")));
    assert!(selection.wants(CUSTOM, Some(b"beep")));
    let bytes: &[u8] = b"acme::\xff\xfe";
    assert!(read("acme::*").wants(CUSTOM, Some(bytes)));
}

#[test]
fn a_word_that_means_nothing_is_reported_with_what_it_may_have_meant() {
    for (text, found, nearest) in [
        ("CHANEL_CREATE", "CHANEL_CREATE", Some("CHANNEL_CREATE")),
        ("SWITCH_EVENT_DTFM", "SWITCH_EVENT_DTFM", Some("DTMF")),
        ("!HEARTBAET", "!HEARTBAET", Some("HEARTBEAT")),
        ("AL", "AL", Some("ALL")),
        ("BANANA", "BANANA", None),
        ("BANANA_*", "BANANA_*", None),
        ("CUSTOM sofia::registr", "sofia::registr", Some("sofia::register")),
        ("CUSTOM^sofia::regsiter", "CUSTOM^sofia::regsiter", Some("sofia::register")),
        ("Sofia::Register", "Sofia::Register", Some("sofia::register")),
        ("CUSTOM sofia::register HEARTBAET", "HEARTBAET", Some("HEARTBEAT")),
        ("CUSTOM^", "CUSTOM^", None),
        ("DTMF !", "!", None),
        ("SWITCH_EVENT_", "SWITCH_EVENT_", None),
        ("!CUSTOM sofia::register", "sofia::register", None),
    ] {
        let problems = problems(text);
        assert_eq!(problems.len(), 1, "{text}: {problems:?}");
        assert_eq!(problems[0].found, found);
        assert_eq!(problems[0].nearest.as_deref(), nearest, "{text}");
    }
}

#[test]
fn an_event_that_this_core_lacks_is_unknown() {
    let older: Vec<&str> = EVENTS.iter().copied().filter(|name| *name != "CERT_RELOAD").collect();
    let (_, problems) = Selection::parse("CERT_RELOAD", &older);
    assert_eq!(problems.len(), 1);
    assert!(Selection::parse("CERT_*", &older).1.len() == 1);
}

#[test]
fn all_takes_events_that_are_not_known_yet() {
    assert!(read("ALL !DTMF").wants("SOMETHING_NEW", None));
    assert!(!read("CHANNEL_*").wants("CHANNEL_SOMETHING_NEW", None));
}

#[test]
fn hostile_texts_end_soon_with_few_problems() {
    assert_eq!(problems(&"x".repeat(10_000_000)).len(), 1);
    assert_eq!(problems(&"BANANA ".repeat(9_000)).len(), MAX_PROBLEMS + 1);
    assert_eq!(problems(&format!("CUSTOM^{}", "x".repeat(256))).len(), 1);
    assert_eq!(problems("\u{fffd}\u{fffd}\u{fffd}").len(), 1);
    let glob = format!("CUSTOM^{}", "*x".repeat(120));
    assert!(!read(&glob).wants(CUSTOM, Some(&vec![b'y'; 100_000])));
}

fn word() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        proptest::sample::select(EVENTS).prop_map(str::to_owned),
        proptest::sample::select(SUBCLASSES).prop_map(str::to_owned),
        Just("ALL".to_owned()),
        Just("CHANNEL_*".to_owned()),
        Just("CUSTOM".to_owned()),
        Just("CUSTOM^my::*".to_owned()),
        "[A-Z_*?:^!]{1,6}",
    ];
    (any::<bool>(), name).prop_map(|(away, name)| if away { format!("!{name}") } else { name })
}

proptest! {
    #[test]
    fn the_canonical_text_means_the_same(words in prop::collection::vec(word(), 0..8)) {
        let (selection, _) = Selection::parse(&words.join(" "), EVENTS);
        let (again, problems) = Selection::parse(&selection.to_string(), EVENTS);
        prop_assert_eq!(problems, []);
        prop_assert_eq!(again, selection);
    }

    #[test]
    fn a_glob_matches_what_the_plain_recursion_matches(glob in "[ab*?]{0,6}", text in "[ab]{0,8}") {
        fn plain(glob: &[u8], text: &[u8]) -> bool {
            match (glob.split_first(), text.split_first()) {
                (None, rest) => rest.is_none(),
                (Some((b'*', glob)), rest) => {
                    plain(glob, text)
                        || rest.is_some_and(|(_, text)| plain(&[&b"*"[..], glob].concat(), text))
                }
                (Some((g, glob)), Some((t, text))) => (*g == b'?' || g == t) && plain(glob, text),
                (Some(_), None) => false,
            }
        }
        prop_assert_eq!(
            glob_matches(glob.as_bytes(), text.as_bytes()),
            plain(glob.as_bytes(), text.as_bytes())
        );
    }
}
