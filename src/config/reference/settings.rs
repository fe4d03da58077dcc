// SPDX-License-Identifier: MIT
//! Parameters in `<settings>`: what concerns the module as a whole.

use crate::config::{
    kind::{AbsolutePath, Flag, Millis, Number, Optional, Text, Unit, plain},
    reference::parameters,
};

parameters! {
    /// Every parameter in `<settings>`.
    ENTRIES:

    NODE_NAME: Optional<Text> = "node-name",
        Optional(
            Text {
                default: "",
                expected: "1 to 128 bytes without control characters",
                accepts: |text| plain(text, 128),
            },
            "fs1",
        ),
        "Name of this switch in every message; without it the name that FreeSWITCH has for itself.";

    SHUTDOWN_TIMEOUT_MS: Millis = "shutdown-timeout-ms",
        Millis { min: 100, max: 60_000, default: 5_000 },
        "Time that unloading may take, delivery of what is still waiting included.";

    MAX_EVENT_BYTES: Number<usize> = "max-event-bytes",
        Number { unit: Unit::Bytes, min: 1 << 10, max: 64 << 20, default: 4 << 20 },
        "Size of the largest event that is taken; larger ones are counted and reported as a gap.";

    STORAGE_DIR: Optional<AbsolutePath> = "storage-dir",
        Optional(AbsolutePath, "/var/lib/freeswitch/storage/rustbridge"),
        "Folder for spools, dead letters and live calls; without it rustbridge in FreeSWITCH's storage folder.";

    LIVE_CALLS: Flag = "live-calls",
        Flag(true),
        "Keeps a table of live calls on disk, and after a crash reports those that it ended.";
}
