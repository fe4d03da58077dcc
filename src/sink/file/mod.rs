// SPDX-License-Identifier: MIT
//! Events in a file, one JSON object a line (NDJSON).
//!
//! The embedded default: useful before there is any broker. A line is delivered once it is
//! written, or once it is on the disk with `fsync = always`. Lines are whole: what a failed write
//! left of one is cut off again, and what a crash left of the last one is cut off when the file
//! is opened.

mod clock;
mod compress;
mod rotate;

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use self::compress::Compression;
use self::rotate::{OwnNames, path_now, rotated_name};
use crate::codec::{Form, Outgoing, json};
use crate::config::delivery::Fsync;
use crate::config::file::{Compress, FileConfig};
use crate::sink::{Interrupt, Outcome, Sink, SinkError};

/// Bytes gathered before a write. Large enough that the call costs nothing beside the copy.
const WRITE_BYTES: usize = 256 * 1024;
/// Messages between two acknowledgements: they come with the next `poll`.
const WINDOW: usize = 8192;
/// Seconds in which the date and the hour stay the same.
const NAME_SLOT: u64 = 3600;
/// How often it is looked whether the file is still the one under its name.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A sink that appends to a file. One publisher thread owns it.
#[derive(Debug)]
pub struct FileSink {
    config: FileConfig,
    sink: String,
    node: String,
    interrupt: Arc<Interrupt>,
    open: Option<Open>,
    /// The slot of time for which the path was last written out.
    slot: u64,
    /// Lines to be written.
    lines: Vec<u8>,
    /// Messages in `lines`, and the tag behind the last of them.
    pending: u64,
    next: u64,
    /// Rotated files that are to be compressed, and the one that is.
    to_compress: VecDeque<PathBuf>,
    compression: Option<Compression>,
}

#[derive(Debug)]
struct Open {
    path: PathBuf,
    file: File,
    /// Bytes of whole lines.
    len: u64,
    opened: SystemTime,
    synced: Instant,
    dirty: bool,
    looked: Instant,
}

impl FileSink {
    /// A sink for `config`, with what `${node}` and `${sink}` in the path stand for.
    pub fn new(config: FileConfig, sink: String, node: String, interrupt: Arc<Interrupt>) -> Self {
        Self {
            config,
            sink,
            node,
            interrupt,
            open: None,
            slot: 0,
            lines: Vec::with_capacity(WRITE_BYTES + WRITE_BYTES / 4),
            pending: 0,
            next: 0,
            to_compress: VecDeque::new(),
            compression: None,
        }
    }

    fn path(&self) -> PathBuf {
        path_now(&self.config.path, &self.node, &self.sink, SystemTime::now())
    }

    fn own_names(&self) -> OwnNames<'_> {
        OwnNames::new(&self.config.path, &self.node, &self.sink)
    }

    /// Puts the gathered lines into the file.
    fn write(&mut self) -> Result<(), SinkError> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let Some(open) = self.open.as_mut() else {
            return Err(closed(Path::new(&self.config.path)));
        };
        let written = open.file.write_all(&self.lines).and_then(|()| {
            open.dirty = true;
            if self.config.fsync == Fsync::Always { open.sync() } else { Ok(()) }
        });
        if let Err(source) = written {
            // Half a line must not stay: the whole batch is sent again.
            let cut = open.file.set_len(open.len);
            let error = failure(&open.path, source);
            if let Err(source) = cut {
                log::error!("[{}] cannot cut {} back: {source}", self.sink, open.path.display());
            }
            return Err(error);
        }
        open.len += u64::try_from(self.lines.len()).unwrap_or(0);
        self.lines.clear();
        Ok(())
    }

    /// Goes on in another file when it is time to.
    fn rotate(&mut self) -> Result<(), SinkError> {
        let now = SystemTime::now();
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let slot = since.as_secs() / NAME_SLOT;
        let wanted = (slot != self.slot).then(|| self.path());
        self.slot = slot;
        let Some(open) = self.open.as_mut() else { return Ok(()) };
        if wanted.is_some_and(|wanted| wanted != open.path) {
            // Another day: the old name says which one it was.
            let old = open.path.clone();
            self.leave()?;
            self.compress(&old);
            return self.enter();
        }
        let age = now.duration_since(open.opened).unwrap_or_default();
        let large = self.config.rotate_bytes.is_some_and(|max| open.len >= max);
        let old = self.config.rotate_interval.is_some_and(|max| age >= max) && open.len > 0;
        if large || old {
            let path = open.path.clone();
            self.leave()?;
            let rotated = rotated_name(&path, SystemTime::now());
            fs::rename(&path, &rotated).map_err(|source| failure(&path, source))?;
            self.compress(&rotated);
            return self.enter();
        }
        if open.looked.elapsed() >= LOOK_EVERY {
            open.looked = Instant::now();
            if !open.is_under_its_name() {
                // Somebody else rotates it, or took it away: the name counts.
                self.leave()?;
                return self.enter();
            }
        }
        Ok(())
    }

    fn compress(&mut self, path: &Path) {
        if self.config.compress == Compress::Gzip {
            self.to_compress.push_back(path.to_owned());
        }
        if let Some(keep) = self.config.keep_files {
            rotate::prune(&self.path(), &self.own_names(), keep);
        }
    }

    /// Compresses a piece of a rotated file. False when there is nothing to compress.
    fn compress_some(&mut self) -> bool {
        if self.compression.is_none()
            && let Some(path) = self.to_compress.pop_front()
        {
            match Compression::start(path.clone(), self.config.mode) {
                Ok(compression) => self.compression = Some(compression),
                Err(source) => {
                    log::warn!("[{}] {} stays uncompressed: {source}", self.sink, path.display());
                }
            }
        }
        let Some(compression) = self.compression.as_mut() else { return false };
        match compression.step() {
            Ok(false) => {}
            Ok(true) => self.compression = None,
            Err(source) => {
                log::warn!("[{}] {}: {source}", self.sink, compression.words());
                self.compression = None;
            }
        }
        true
    }

    fn leave(&mut self) -> Result<(), SinkError> {
        self.write()?;
        if let Some(mut open) = self.open.take()
            && self.config.fsync != Fsync::Never
        {
            open.sync().map_err(|source| failure(&open.path, source))?;
        }
        Ok(())
    }

    fn enter(&mut self) -> Result<(), SinkError> {
        let path = self.path();
        self.open = Some(Open::at(path, self.config.mode)?);
        Ok(())
    }
}

impl Open {
    fn at(path: PathBuf, mode: u32) -> Result<Self, SinkError> {
        let fail = |source| failure(&path, source);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(fail)?;
        }
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(mode)
            .open(&path)
            .map_err(fail)?;
        let meta = file.metadata().map_err(fail)?;
        let len = whole_lines(&mut file, meta.len()).map_err(fail)?;
        if len < meta.len() {
            file.set_len(len).map_err(fail)?;
            log::warn!(
                "{} ended in half a line; {} bytes are cut off",
                path.display(),
                meta.len() - len
            );
        }
        let now = Instant::now();
        let opened = meta.created().unwrap_or_else(|_| SystemTime::now());
        Ok(Self { file, len, opened, synced: now, dirty: false, looked: now, path })
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.dirty {
            self.file.sync_data()?;
            self.dirty = false;
        }
        self.synced = Instant::now();
        Ok(())
    }

    fn is_under_its_name(&self) -> bool {
        let id = |meta: fs::Metadata| (meta.dev(), meta.ino());
        let named = fs::metadata(&self.path).map(id).ok();
        named.is_some() && named == self.file.metadata().map(id).ok()
    }
}

/// How many of the file's bytes are whole lines.
fn whole_lines(file: &mut File, len: u64) -> io::Result<u64> {
    const STEP: u64 = 64 * 1024;
    let mut end = len;
    let mut chunk = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(STEP);
        file.seek(SeekFrom::Start(start))?;
        chunk.clear();
        Read::by_ref(file).take(end - start).read_to_end(&mut chunk)?;
        if let Some(newline) = memchr::memrchr(b'\n', &chunk) {
            return Ok(start + u64::try_from(newline).unwrap_or(0) + 1);
        }
        end = start;
    }
    Ok(0)
}

fn closed(path: &Path) -> SinkError {
    failure(path, io::Error::from(io::ErrorKind::NotConnected))
}

/// What a failed operation on the file means: a full disk empties by itself, rights do not.
fn failure(path: &Path, source: io::Error) -> SinkError {
    use io::ErrorKind::{IsADirectory, NotADirectory, PermissionDenied, ReadOnlyFilesystem};
    let peer = path.display().to_string();
    match source.kind() {
        PermissionDenied | ReadOnlyFilesystem | NotADirectory | IsADirectory => {
            let reason = format!(
                "{source}; FreeSWITCH's user must be able to create and append to this file"
            );
            SinkError::Refused { peer, reason }
        }
        _ => SinkError::Disconnected { peer, source },
    }
}

impl Sink for FileSink {
    fn open(&mut self, _deadline: Instant) -> Result<(), SinkError> {
        self.lines.clear();
        self.pending = 0;
        self.next = 0;
        self.open = None;
        self.enter()?;
        if self.config.compress == Compress::Gzip && self.compression.is_none() {
            self.to_compress.clear();
            for path in rotate::left_over(&self.path(), &self.own_names()) {
                self.compress(&path);
            }
        }
        Ok(())
    }

    fn window(&self) -> usize {
        WINDOW
    }

    fn send(&mut self, tag: u64, message: &Outgoing<'_>) -> Result<(), SinkError> {
        write_line(message, self.config.identity, &mut self.lines);
        self.pending += 1;
        self.next = tag + 1;
        if self.lines.len() >= WRITE_BYTES {
            self.write()?;
        }
        Ok(())
    }

    fn poll(&mut self, budget: Duration, outcomes: &mut Vec<Outcome>) -> Result<(), SinkError> {
        self.write()?;
        if self.pending > 0 {
            outcomes.push(Outcome::DeliveredThrough(self.next - 1));
            self.pending = 0;
        } else {
            if self.compress_some() {
                return Ok(());
            }
            self.interrupt.wait(budget);
        }
        if let (Fsync::Interval(every), Some(open)) = (self.config.fsync, self.open.as_mut())
            && open.dirty
            && open.synced.elapsed() >= every
        {
            open.sync().map_err(|source| failure(&open.path, source))?;
        }
        self.rotate()
    }

    fn close(&mut self, deadline: Instant) {
        // What is not done by then is taken up by the next open.
        while Instant::now() < deadline && self.compress_some() {}
        self.compression = None;
        self.to_compress.clear();
        if let Err(error) = self.leave() {
            log::error!("[{}] {error}", self.sink);
        }
    }

    fn peer(&self) -> String {
        self.open
            .as_ref()
            .map_or_else(|| self.path(), |open| open.path.clone())
            .display()
            .to_string()
    }
}

/// Appends the message as one line. A file has no headers beside the body, so its identity stands
/// in members of its own at the end of the object.
fn write_line(message: &Outgoing<'_>, identity: bool, out: &mut Vec<u8>) {
    let start = out.len();
    match message.form() {
        Form::Event if identity => {
            let mut id = String::new();
            message.write_id(&mut id);
            let seq = message.stamp.seq.to_string();
            let extra = [
                ("rb-node", message.node),
                ("rb-boot", message.boot),
                ("rb-seq", seq.as_str()),
                ("rb-id", id.as_str()),
            ];
            json::write_event_with(message.record, message.index, &extra, out);
        }
        Form::Event => message.write_body(out),
        Form::Publish if identity => write_published(message, out),
        Form::Publish => {
            let payload = message.index.body(message.record).unwrap_or_default();
            if serde_json::from_slice::<serde::de::IgnoredAny>(payload).is_ok()
                && memchr::memchr(b'\n', payload).is_none()
            {
                out.extend_from_slice(payload);
            } else {
                json::write_string(payload, out);
            }
        }
    }
    debug_assert!(
        out.get(start..).is_some_and(|line| memchr::memchr(b'\n', line).is_none()),
        "JSON has no raw newline"
    );
    out.push(b'\n');
}

/// A message of an application's with all that a broker would carry beside the payload, which is the text `_body`.
fn write_published(message: &Outgoing<'_>, out: &mut Vec<u8>) {
    let mut id = String::new();
    message.write_id(&mut id);
    let seq = message.stamp.seq.to_string();
    let header = |name: &str| message.first_of(&[name]);
    let to = [
        ("Rustbridge-Destination", header(Outgoing::PUBLISH_DESTINATION)),
        ("Rustbridge-Key", header(Outgoing::PUBLISH_KEY)),
    ];
    let to = to.into_iter().filter_map(|(name, value)| Some((name.as_bytes(), value?)));
    let own: [(&[u8], &[u8]); 5] = [
        (b"_body", message.index.body(message.record).unwrap_or_default()),
        (b"rb-node", message.node.as_bytes()),
        (b"rb-boot", message.boot.as_bytes()),
        (b"rb-seq", seq.as_bytes()),
        (b"rb-id", id.as_bytes()),
    ];
    for (at, (name, value)) in to.chain(message.publish_headers()).chain(own).enumerate() {
        out.push(if at == 0 { b'{' } else { b',' });
        json::write_string(name, out);
        out.push(b':');
        json::write_string(value, out);
    }
    out.push(b'}');
}
