// SPDX-License-Identifier: MIT
//! The events and `CUSTOM` subclasses that FreeSWITCH 1.11.2 can fire, by name.
//!
//! Names only: an event's number differs between releases (`CERT_RELOAD` moved `ALL` from 92 to
//! 93), so numbers are asked of the running core and never written down. The tables serve to check
//! a configuration where no core is running and to name what a misspelling was meant to be.

use strsim::damerau_levenshtein;

/// The event that carries subclasses.
pub const CUSTOM: &str = "CUSTOM";

/// Every event name, in the order of `EVENT_NAMES` in `switch_event.c` and without `ALL`, which is
/// a wildcard and never fired.
pub const EVENTS: &[&str] = &[
    "CUSTOM",
    "CLONE",
    "CHANNEL_CREATE",
    "CHANNEL_DESTROY",
    "CHANNEL_STATE",
    "CHANNEL_CALLSTATE",
    "CHANNEL_ANSWER",
    "CHANNEL_HANGUP",
    "CHANNEL_HANGUP_COMPLETE",
    "CHANNEL_EXECUTE",
    "CHANNEL_EXECUTE_COMPLETE",
    "CHANNEL_HOLD",
    "CHANNEL_UNHOLD",
    "CHANNEL_BRIDGE",
    "CHANNEL_UNBRIDGE",
    "CHANNEL_PROGRESS",
    "CHANNEL_PROGRESS_MEDIA",
    "CHANNEL_OUTGOING",
    "CHANNEL_PARK",
    "CHANNEL_UNPARK",
    "CHANNEL_APPLICATION",
    "CHANNEL_ORIGINATE",
    "CHANNEL_UUID",
    "API",
    "LOG",
    "INBOUND_CHAN",
    "OUTBOUND_CHAN",
    "STARTUP",
    "SHUTDOWN",
    "PUBLISH",
    "UNPUBLISH",
    "TALK",
    "NOTALK",
    "SESSION_CRASH",
    "MODULE_LOAD",
    "MODULE_UNLOAD",
    "DTMF",
    "MESSAGE",
    "PRESENCE_IN",
    "NOTIFY_IN",
    "PRESENCE_OUT",
    "PRESENCE_PROBE",
    "MESSAGE_WAITING",
    "MESSAGE_QUERY",
    "ROSTER",
    "CODEC",
    "BACKGROUND_JOB",
    "DETECTED_SPEECH",
    "DETECTED_TONE",
    "PRIVATE_COMMAND",
    "HEARTBEAT",
    "TRAP",
    "ADD_SCHEDULE",
    "DEL_SCHEDULE",
    "EXE_SCHEDULE",
    "RE_SCHEDULE",
    "RELOADXML",
    "NOTIFY",
    "PHONE_FEATURE",
    "PHONE_FEATURE_SUBSCRIBE",
    "SEND_MESSAGE",
    "RECV_MESSAGE",
    "REQUEST_PARAMS",
    "CHANNEL_DATA",
    "GENERAL",
    "COMMAND",
    "SESSION_HEARTBEAT",
    "CLIENT_DISCONNECTED",
    "SERVER_DISCONNECTED",
    "SEND_INFO",
    "RECV_INFO",
    "RECV_RTCP_MESSAGE",
    "SEND_RTCP_MESSAGE",
    "CALL_SECURE",
    "NAT",
    "RECORD_START",
    "RECORD_STOP",
    "PLAYBACK_START",
    "PLAYBACK_STOP",
    "CALL_UPDATE",
    "FAILURE",
    "SOCKET_DATA",
    "MEDIA_BUG_START",
    "MEDIA_BUG_STOP",
    "CONFERENCE_DATA_QUERY",
    "CONFERENCE_DATA",
    "CALL_SETUP_REQ",
    "CALL_SETUP_RESULT",
    "CALL_DETAIL",
    "DEVICE_STATE",
    "TEXT",
    "SHUTDOWN_REQUESTED",
    "CERT_RELOAD",
];

/// Every subclass that a module in the FreeSWITCH tree fires, and our own; sorted.
///
/// Not a closed set: a script or the `event` application may use any name.
pub const SUBCLASSES: &[&str] = &[
    "SMS::DELIVERY_REPORT",
    "SMS::SEND_MESSAGE",
    "TDD::RECV_MESSAGE",
    "TDD::SEND_MESSAGE",
    "alsa::ringing",
    "avmd::beep",
    "avmd::start",
    "avmd::stop",
    "callcenter::info",
    "conference::cdr",
    "conference::maintenance",
    "curl_sendfile::ack",
    "cv::video_detect",
    "fifo::info",
    "filestring::close",
    "filestring::fail",
    "filestring::open",
    "imagick::info",
    "limit::usage",
    "loopback::bowout",
    "loopback::direct",
    "menu::enter",
    "menu::exit",
    "mod_bert::in_sync",
    "mod_bert::lost_sync",
    "mod_bert::timeout",
    "mod_smpp::bind_transceiver_resp",
    "multicast::event",
    "multicast::peerdown",
    "multicast::peerup",
    "rtmp::attach",
    "rtmp::clientcustom",
    "rtmp::connect",
    "rtmp::custom",
    "rtmp::detach",
    "rtmp::disconnect",
    "rtmp::login",
    "rtmp::logout",
    "rtmp::register",
    "rtmp::unregister",
    "rustbridge::connected",
    "rustbridge::control",
    "rustbridge::disconnected",
    "rustbridge::gap",
    "rustbridge::message",
    "rustbridge::orphan",
    "rustbridge::overflow",
    "rustbridge::reply",
    "skinny::alarm",
    "skinny::call_state",
    "skinny::device_to_user",
    "skinny::expire",
    "skinny::register",
    "skinny::unregister",
    "skinny::user_to_device",
    "skinny::xml_alarm",
    "snapshot::snap",
    "sofia::bye_response",
    "sofia::error",
    "sofia::expire",
    "sofia::gateway_add",
    "sofia::gateway_delete",
    "sofia::gateway_invalid_digest_req",
    "sofia::gateway_state",
    "sofia::intercepted",
    "sofia::notify_refer",
    "sofia::notify_watched_header",
    "sofia::pre_register",
    "sofia::profile_start",
    "sofia::recovery_recovered",
    "sofia::recovery_recv",
    "sofia::recovery_send",
    "sofia::register",
    "sofia::register_attempt",
    "sofia::register_failure",
    "sofia::reinvite",
    "sofia::replaced",
    "sofia::sip_user_state",
    "sofia::transferee",
    "sofia::transferor",
    "sofia::unregister",
    "sofia::wrong_call_state",
    "spandsp::rxfaxnegociateresult",
    "spandsp::rxfaxpageresult",
    "spandsp::rxfaxresult",
    "spandsp::txfaxnegociateresult",
    "spandsp::txfaxpageresult",
    "spandsp::txfaxresult",
    "test::cool",
    "valet_parking::info",
    "verto::client_connect",
    "verto::client_disconnect",
    "verto::login",
    "vm::maintenance",
    "vmd::beep",
];

/// Headers that a text in a configuration is likely to name: of calls, queues and conferences.
///
/// Only to know a misspelling. Events carry more than these, and applications add their own.
pub const HEADERS: &[&str] = &[
    "Answer-State",
    "Application",
    "Application-Data",
    "Application-Response",
    "Application-UUID",
    "Bridge-A-Unique-ID",
    "Bridge-B-Unique-ID",
    "CC-Action",
    "CC-Agent",
    "CC-Agent-State",
    "CC-Member-UUID",
    "CC-Queue",
    "Call-Direction",
    "Caller-ANI",
    "Caller-Callee-ID-Name",
    "Caller-Callee-ID-Number",
    "Caller-Caller-ID-Name",
    "Caller-Caller-ID-Number",
    "Caller-Channel-Answered-Time",
    "Caller-Channel-Bridged-Time",
    "Caller-Channel-Created-Time",
    "Caller-Channel-Hangup-Time",
    "Caller-Channel-Name",
    "Caller-Channel-Progress-Media-Time",
    "Caller-Channel-Progress-Time",
    "Caller-Context",
    "Caller-Destination-Number",
    "Caller-Dialplan",
    "Caller-Direction",
    "Caller-Logical-Direction",
    "Caller-Network-Addr",
    "Caller-Orig-Caller-ID-Name",
    "Caller-Orig-Caller-ID-Number",
    "Caller-Profile-Index",
    "Caller-RDNIS",
    "Caller-Source",
    "Caller-Transfer-Source",
    "Caller-Unique-ID",
    "Caller-Username",
    "Channel-Call-State",
    "Channel-Call-UUID",
    "Channel-HIT-Dialplan",
    "Channel-Name",
    "Channel-Presence-ID",
    "Channel-Read-Codec-Name",
    "Channel-State",
    "Channel-State-Number",
    "Channel-Write-Codec-Name",
    "Conference-Domain",
    "Conference-Name",
    "Conference-Profile-Name",
    "Conference-Unique-ID",
    "Core-UUID",
    "DTMF-Digit",
    "Event-Calling-File",
    "Event-Calling-Function",
    "Event-Date-GMT",
    "Event-Date-Local",
    "Event-Date-Timestamp",
    "Event-Name",
    "Event-Sequence",
    "Event-Subclass",
    "FIFO-Action",
    "FIFO-Name",
    "FreeSWITCH-Hostname",
    "FreeSWITCH-IPv4",
    "FreeSWITCH-IPv6",
    "FreeSWITCH-Switchname",
    "FreeSWITCH-Version",
    "Hangup-Cause",
    "Job-Command",
    "Job-UUID",
    "Member-ID",
    "Member-Type",
    "Original-Channel-Call-State",
    "Other-Leg-ANI",
    "Other-Leg-Callee-ID-Name",
    "Other-Leg-Callee-ID-Number",
    "Other-Leg-Caller-ID-Name",
    "Other-Leg-Caller-ID-Number",
    "Other-Leg-Channel-Name",
    "Other-Leg-Context",
    "Other-Leg-Destination-Number",
    "Other-Leg-Dialplan",
    "Other-Leg-Direction",
    "Other-Leg-Network-Addr",
    "Other-Leg-Orig-Caller-ID-Name",
    "Other-Leg-Orig-Caller-ID-Number",
    "Other-Leg-RDNIS",
    "Other-Leg-Source",
    "Other-Leg-Unique-ID",
    "Other-Leg-Username",
    "Other-Type",
    "Presence-Call-Direction",
    "Unique-ID",
    "Up-Time",
    "Uptime-msec",
];

/// Longer names than this have no nearest one: comparing takes time by the product of the lengths.
const COMPARABLE: usize = 64;

/// Returns the one of `known` that `word` most probably meant, if any is close.
///
/// Letters' case doesn't count. "Close" is one edit for every three characters and at most
/// `edits`, so that a short word isn't explained by one that has nothing to do with it.
pub fn nearest<'a>(
    word: &str,
    known: impl IntoIterator<Item = &'a str>,
    edits: usize,
) -> Option<&'a str> {
    if word.is_empty() || word.len() > COMPARABLE {
        return None;
    }
    let lower = word.to_ascii_lowercase();
    let limit = edits.min((word.chars().count() / 3).max(1));
    known
        .into_iter()
        .filter(|name| name.len() <= COMPARABLE)
        .map(|name| (damerau_levenshtein(&lower, &name.to_ascii_lowercase()), name))
        .filter(|&(distance, _)| distance <= limit)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_catalog_has_every_event_once() {
        assert_eq!(EVENTS.len(), 93);
        assert_eq!(EVENTS.iter().collect::<BTreeSet<_>>().len(), 93);
        assert!(EVENTS.contains(&CUSTOM));
        assert!(!EVENTS.contains(&"ALL"));
    }

    #[test]
    fn subclasses_are_sorted_and_unique() {
        assert!(SUBCLASSES.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn headers_are_sorted_and_unique() {
        assert!(HEADERS.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn a_misspelling_finds_its_name_and_a_stranger_finds_none() {
        let near = |word| nearest(word, EVENTS.iter().copied(), 3);
        assert_eq!(near("CHANEL_CREATE"), Some("CHANNEL_CREATE"));
        assert_eq!(near("channel_hangup_compelte"), Some("CHANNEL_HANGUP_COMPLETE"));
        assert_eq!(near("DTFM"), Some("DTMF"));
        assert_eq!(near("BANANA"), None);
        assert_eq!(near(""), None);
        assert_eq!(near(&"X".repeat(10_000_000)), None);
    }
}
