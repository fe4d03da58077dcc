// SPDX-License-Identifier: MIT
//! What every `<sink>` may have, whatever its type.

use std::num::NonZeroUsize;

use crate::config::{
    choice::choice,
    delivery::{FsyncWord, SpoolMode, WhenFull},
    kind::{AbsolutePath, Events, Flag, Millis, Number, Optional, Required, Text, Unit, Word},
    reference::parameters,
};

const GIB: u64 = 1 << 30;

choice! {
    /// The types of sinks.
    pub enum SinkType {
        /// Lines in a file.
        File = "file",
        /// Messages to a broker for AMQP 0-9-1.
        Amqp = "amqp",
        /// Records to a Kafka cluster.
        Kafka = "kafka",
    }
}

parameters! {
    /// The attributes of a `<sink>`.
    ATTRIBUTES:

    NAME: Required<Text> = "name",
        Required(
            Text {
                default: "",
                expected: "1 to 32 letters, digits, _ or -",
                accepts: |text| {
                    (1..=32).contains(&text.len())
                        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
                },
            },
            "journal",
        ),
        "Name of the sink in commands, logs and metrics; each may be used once.";

    TYPE: Required<Word<SinkType>> = "type",
        Required(Word(SinkType::File), "file"),
        "What the sink writes to.";

    EVENTS: Events = "events",
        Events("ALL"),
        "Events that the sink wants.";
}

parameters! {
    /// Every parameter that all types of sinks share.
    ENTRIES:

    ENABLED: Flag = "enabled",
        Flag(true),
        "Turns the sink off without taking it out of the file.";

    LINGER_MS: Millis = "linger-ms",
        Millis { min: 0, max: 1_000, default: 5 },
        "Time that an event may wait for others to be sent with; to a broker under load up to five times this, 25 ms at most (once with spool-mode=always).";

    QUEUE_CAPACITY: Number<NonZeroUsize> = "queue-capacity",
        Number {
            unit: Unit::Things("events"),
            min: count(16),
            max: count(1 << 20),
            default: count(1 << 16),
        },
        "Events that may wait in memory, 24 bytes each even when none does: within queue-max-bytes.";

    QUEUE_MAX_BYTES: Number<usize> = "queue-max-bytes",
        Number { unit: Unit::Bytes, min: 64 << 10, max: 64 << 30, default: 256 << 20 },
        "Memory that waiting events may take; it is used only as events wait.";

    QUEUE_WHEN_FULL: Optional<Word<WhenFull>> = "queue-when-full",
        Optional(Word(WhenFull::Spool), "spool"),
        "What gives way when the queue is full; without it spool where there is one, else drop-newest.";

    SPOOL_MODE: Word<SpoolMode> = "spool-mode",
        Word(SpoolMode::Overflow),
        "Whether events go through the disk: never, when the sink doesn't keep up, or each before it is sent.";

    SPOOL_DIR: Optional<AbsolutePath> = "spool-dir",
        Optional(AbsolutePath, "/var/lib/freeswitch/storage/rustbridge/spool/journal"),
        "Folder of this sink's spool; without it spool/<sink> in storage-dir.";

    SPOOL_SEGMENT_BYTES: Number<u64> = "spool-segment-bytes",
        Number { unit: Unit::Bytes, min: 64 << 10, max: GIB, default: 64 << 20 },
        "Size at which a segment of the spool is closed and the next one begun; without it an eighth of spool-max-bytes at most.";

    SPOOL_MAX_BYTES: Number<u64> = "spool-max-bytes",
        Number { unit: Unit::Bytes, min: 64 << 10, max: 16 * 1024 * GIB, default: GIB },
        "Disk space that the spool may take; at least one segment, and one event of max-event-bytes.";

    SPOOL_MIN_FREE_BYTES: Number<u64> = "spool-min-free-bytes",
        Number { unit: Unit::Bytes, min: 0, max: 16 * 1024 * GIB, default: 256 << 20 },
        "Disk space that the spool leaves free for others, such as recordings.";

    SPOOL_FSYNC: Word<FsyncWord> = "spool-fsync",
        Word(FsyncWord::Interval),
        "When spooled events are forced onto the disk: after each batch, on a timer, or never.";

    SPOOL_FSYNC_INTERVAL_MS: Millis = "spool-fsync-interval-ms",
        Millis { min: 0, max: 60_000, default: 100 },
        "The timer of spool-fsync, and so the most that a power loss can cost.";

    CRITICAL_EVENTS: Events = "critical-events",
        Events("CHANNEL_HANGUP CHANNEL_HANGUP_COMPLETE CHANNEL_DESTROY CUSTOM conference::cdr rustbridge::orphan"),
        "Events that are shed last when there isn't room for all.";

    BULK_EVENTS: Events = "bulk-events",
        Events(
            "HEARTBEAT SESSION_HEARTBEAT PRESENCE_* RECV_RTCP_MESSAGE SEND_RTCP_MESSAGE TALK NOTALK \
             CHANNEL_STATE CHANNEL_CALLSTATE",
        ),
        "Events that are shed first; one that is critical too is critical.";

    CRITICAL_PERCENT: Number<u8> = "critical-percent",
        Number { unit: Unit::Percent, min: 1, max: 100, default: 100 },
        "How far critical events may fill the queue; the spool they may fill.";

    NORMAL_PERCENT: Number<u8> = "normal-percent",
        Number { unit: Unit::Percent, min: 1, max: 100, default: 90 },
        "How far events that are neither critical nor bulk may fill queue and spool.";

    BULK_PERCENT: Number<u8> = "bulk-percent",
        Number { unit: Unit::Percent, min: 1, max: 100, default: 50 },
        "How far bulk events may fill queue and spool.";

    // The longest wait bounds how soon after a broker's return the first acknowledgement is back.
    RECONNECT_MIN_MS: Millis = "reconnect-min-ms",
        Millis { min: 10, max: 60_000, default: 100 },
        "Wait before the first attempt to reconnect; it doubles with each further one.";

    RECONNECT_MAX_MS: Millis = "reconnect-max-ms",
        Millis { min: 10, max: 3_600_000, default: 400 },
        "Longest wait between two attempts to reconnect.";

    RECONNECT_REFUSED_MS: Millis = "reconnect-refused-ms",
        Millis { min: 100, max: 3_600_000, default: 5_000 },
        "Wait after a broker refused our credentials.";

    RETURN_TO_PRIMARY_MS: Millis = "return-to-primary-ms",
        Millis { min: 0, max: 86_400_000, default: 30_000 },
        "How often a connection to another broker looks whether the first one is back; 0 is never.";

    DEAD_LETTER_DIR: Optional<AbsolutePath> = "dead-letter-dir",
        Optional(AbsolutePath, "/var/lib/freeswitch/storage/rustbridge/dead/journal"),
        "Folder of this sink's dead letters; without it dead/<sink> in storage-dir.";

    DEAD_LETTER_MAX_BYTES: Number<u64> = "dead-letter-max-bytes",
        Number { unit: Unit::Bytes, min: 0, max: 1024 * GIB, default: 64 << 20 },
        "Disk space that dead letters may take; 0 keeps none and only counts them.";

    DEAD_LETTER_MAX_ATTEMPTS: Number<u32> = "dead-letter-max-attempts",
        Number { unit: Unit::Things("attempts"), min: 1, max: 1_000, default: 5 },
        "Attempts before an event that is rejected again and again becomes a dead letter.";
}

const fn count(n: usize) -> NonZeroUsize {
    match NonZeroUsize::new(n) {
        Some(n) => n,
        None => NonZeroUsize::MIN,
    }
}
