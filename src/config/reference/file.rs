// SPDX-License-Identifier: MIT
//! Parameters of a `<sink type="file">`.

use crate::config::{
    delivery::FsyncWord,
    file::{Compress, PATH_FIELDS, is_path},
    kind::{FileMode, Flag, Millis, Number, Required, Text, Unit, Word},
    reference::parameters,
};

const _: () = assert!(PATH_FIELDS.len() == 4, "the sentence about `path` names them all");

parameters! {
    /// Every parameter that only files have.
    ENTRIES:

    PATH: Required<Text> = "path",
        Required(
            Text {
                default: "",
                expected: "an absolute path with no fields but ${date}, ${hour}, ${node} and ${sink}",
                accepts: is_path,
            },
            "$${log_dir}/rustbridge/events-${date}.ndjson",
        ),
        "File that events are appended to, one a line; ${date}, ${hour}, ${node} and ${sink} are replaced.";

    ROTATE_BYTES: Number<u64> = "rotate-bytes",
        Number { unit: Unit::Bytes, min: 0, max: 1 << 40, default: 128 << 20 },
        "Size at which the file is rotated; 0 is never.";

    ROTATE_INTERVAL_MS: Millis = "rotate-interval-ms",
        Millis { min: 0, max: 31 * 86_400_000, default: 86_400_000 },
        "Age at which the file is rotated; 0 is never.";

    COMPRESS: Word<Compress> = "compress",
        Word(Compress::None),
        "How rotated files are compressed.";

    KEEP_FILES: Number<u32> = "keep-files",
        Number { unit: Unit::Things("files"), min: 0, max: 100_000, default: 0 },
        "Rotated files that are kept, the newest ones; 0 keeps all.";

    FSYNC: Word<FsyncWord> = "fsync",
        Word(FsyncWord::Interval),
        "When lines are forced onto the disk: after each batch, on a timer, or never.";

    FSYNC_INTERVAL_MS: Millis = "fsync-interval-ms",
        Millis { min: 0, max: 60_000, default: 1_000 },
        "The timer of fsync.";

    IDENTITY: Flag = "identity",
        Flag(true),
        "Adds node, boot, seq and id, which brokers carry as headers, to each line.";

    MODE: FileMode = "mode",
        FileMode(0o640),
        "Permissions of a new file.";
}
