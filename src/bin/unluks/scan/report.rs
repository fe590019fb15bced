//! What a scan found, for people and for programs. `docs/scan.schema.json` describes the JSON.

use std::fmt::Write;

use serde::Serialize;
use unluks::error::escape;
use unluks::luks::data::{DataFile, assess};
use unluks::partition::{self, Entry};
use unluks::scan::{self, Scan, State};
use unluks::{Error, ReadAt, luks};

use crate::args::ScanArgs;
use crate::quote;
use crate::source::Disk;

/// The version of the report's shape. It grows where a member is taken away or changes its meaning.
const SCHEMA: u32 = 1;

#[derive(Serialize)]
pub struct Report {
    schema: u32,
    image: Image,
    unreadable: Option<Unreadable>,
    containers: Vec<Container>,
    good_left_out: u64,
    bad_left_out: u64,
}

#[derive(Serialize)]
struct Image {
    path: String,
    format: &'static str,
    size: u64,
}

#[derive(Serialize)]
struct Unreadable {
    bytes: u64,
    first: u64,
    error: String,
}

#[derive(Serialize)]
struct Container {
    offset: Option<u64>,
    version: Option<u8>,
    uuid: Option<String>,
    label: Option<String>,
    subsystem: Option<String>,
    partition: Option<u32>,
    #[serde(skip)]
    next: Option<u64>,
    opens: bool,
    data: Option<&'static str>,
    error: Option<Fault>,
    command: Option<String>,
    copies: Vec<Copy>,
}

#[derive(Serialize)]
struct Copy {
    role: String,
    offset: u64,
    version: Option<u8>,
    good: bool,
    state: &'static str,
    uuid: Option<String>,
    label: Option<String>,
    seqid: Option<u64>,
    error: Option<Fault>,
}

/// A broken rule.
#[derive(Serialize)]
struct Fault {
    rule: String,
    message: String,
}

impl Fault {
    fn new(e: &Error) -> Self {
        Self { rule: e.rule().to_owned(), message: e.message().to_owned() }
    }
}

impl Report {
    pub fn new(args: &ScanArgs, disk: &Disk, scan: &Scan) -> Self {
        // A damaged table is no matter here: it only gives names to places.
        let table = partition::list(&*disk.disk, disk.sector_size).ok().flatten();
        let partition = |start: u64| {
            let entries = table.as_ref().map_or(&[][..], |t| &t.entries);
            entries.iter().find(|e| e.start == start)
        };
        let starts: Vec<u64> = scan.containers.iter().filter(|c| c.opens()).filter_map(|c| c.start).collect();
        let container = |c: &scan::Container| {
            let partition = c.start.and_then(partition);
            let disk_len = disk.disk.len();
            // With --partition the plaintext ends where the partition does; with --offset, where the disk does.
            let end = partition.map_or(disk_len, |p| p.start.saturating_add(p.len).min(disk_len));
            let next = starts.iter().copied().filter(|next| c.start.is_some_and(|start| *next > start) && *next < end);
            Container::new(c, args, &*disk.disk, end, partition, next.min())
        };
        Self {
            schema: SCHEMA,
            image: Image {
                path: args.image.to_string_lossy().into_owned(),
                format: disk.format.name(),
                size: disk.disk.len(),
            },
            unreadable: scan.unreadable.as_ref().map(|u| Unreadable {
                bytes: u.bytes,
                first: u.first,
                error: u.error.to_string(),
            }),
            containers: scan.containers.iter().map(container).collect(),
            good_left_out: scan.good_left_out,
            bad_left_out: scan.bad_left_out,
        }
    }

    /// The report for people. Text of the disk in it is escaped.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for (n, container) in self.containers.iter().enumerate() {
            if n > 0 {
                out.push('\n');
            }
            container.text(&mut out);
        }
        for (n, what) in [(self.good_left_out, "good"), (self.bad_left_out, "damaged")] {
            if n > 0 {
                let _ = writeln!(out, "and {n} more {what} header copies, which are not listed");
            }
        }
        out
    }
}

/// Text that may be absent.
fn text(text: &str) -> Option<String> {
    Some(text.to_owned()).filter(|t| !t.is_empty())
}

impl Container {
    /// `end` is where the disk ends for it, and `next` where another container starts before that.
    fn new(
        found: &scan::Container,
        args: &ScanArgs,
        disk: &dyn ReadAt,
        end: u64,
        partition: Option<&Entry>,
        next: Option<u64>,
    ) -> Self {
        let opened = found.header.as_ref().and_then(|h| h.as_ref().ok());
        // A header is large once it is parsed: one at a time.
        let metadata = found.open(disk).and_then(Result::ok);
        let file = |start: u64| DataFile { len: end.checked_sub(start), detached: false };
        let data = metadata.as_ref().zip(found.start).map(|(m, start)| assess(m, file(start)).state);
        let open_ended = metadata.is_some_and(|m| m.live_segments().any(|(_, s)| s.size.is_none()));
        let command = found.start.zip(data).filter(|(_, state)| !state.is_absent());
        let copies: Vec<_> = found.copies.iter().map(Copy::new).collect();
        Self {
            offset: found.start,
            version: opened.map(|m| m.version.number()).or_else(|| copies.iter().find_map(|c| c.version)),
            uuid: opened.map(|m| m.uuid.clone()).or_else(|| copies.iter().find_map(|c| c.uuid.clone())),
            label: opened.and_then(|m| text(&m.label)),
            subsystem: opened.and_then(|m| text(&m.subsystem)),
            partition: partition.map(|p| p.number),
            next: next.filter(|_| open_ended),
            opens: opened.is_some(),
            data: data.map(|state| state.name()),
            error: found.header.as_ref().and_then(|h| h.as_ref().err()).map(Fault::new),
            command: command.map(|(start, state)| {
                let partition = partition.map(|p| p.number);
                command_for(args, start, partition, state == luks::data::State::Truncated)
            }),
            copies,
        }
    }

    fn text(&self, out: &mut String) {
        let name = match self.version {
            Some(version) => format!("LUKS{version}"),
            None => "LUKS".into(),
        };
        let _ = match self.offset {
            Some(start) => write!(out, "{name} at byte {start}"),
            None => write!(out, "{name}, and nothing tells where it starts"),
        };
        if let Some(number) = self.partition {
            let _ = write!(out, ", partition {number}");
        }
        out.push('\n');
        let mut line = |what: &str, text: &str| {
            let _ = writeln!(out, "  {what:<10} {text}");
        };
        for (what, value) in [("uuid", &self.uuid), ("label", &self.label), ("subsystem", &self.subsystem)] {
            if let Some(value) = value {
                line(what, &escape(value));
            }
        }
        for copy in &self.copies {
            line(&copy.role, &format!("at byte {}: {}", copy.offset, copy.verdict()));
        }
        if let Some(e) = &self.error {
            line("damaged", &format!("does not open: {e}"));
        }
        match (self.data, &self.command) {
            (Some("truncated"), _) => line("data", "the disk ends within it, or within its last sector"),
            (Some(state), None) => {
                line("data", &format!("none behind it ({state}): cut it out, and give it as --header of its data"));
            }
            _ => {}
        }
        if let (Some(next), true) = (self.next, self.command.is_some()) {
            line(
                "data",
                &format!("goes on over the container at byte {next}: where it ends is not known; see --length"),
            );
        }
        if let Some(command) = &self.command {
            line("open with", command);
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.rule.as_str() {
            "" => f.write_str(&self.message),
            rule => write!(f, "{rule}: {}", self.message),
        }
    }
}

impl Copy {
    fn new(copy: &scan::Copy) -> Self {
        Self {
            role: copy.role.to_string(),
            offset: copy.offset,
            version: copy.version.map(|v| v.number()),
            good: copy.error.is_none(),
            state: match copy.state {
                State::Used => "used",
                State::Spare => "spare",
                State::LeftOver => "left-over",
                State::Unusable => "unusable",
            },
            uuid: text(&copy.uuid),
            label: text(&copy.label),
            seqid: copy.seqid,
            error: copy.error.as_ref().map(Fault::new),
        }
    }

    fn verdict(&self) -> String {
        match (&self.error, self.state) {
            (Some(e), _) => e.to_string(),
            (None, "used") => "good, in use".into(),
            (None, "left-over") => "good, but an earlier header left it".into(),
            (None, _) => "good".into(),
        }
    }
}

/// The command that opens the container at `start`, as a shell takes it. KEY and OUT are names to fill in.
fn command_for(args: &ScanArgs, start: u64, partition: Option<u32>, truncated: bool) -> String {
    let mut command = format!("unluks decrypt {}", quote::path(&args.image));
    let _ = match partition {
        Some(number) => write!(command, " --partition {number}"),
        None => write!(command, " --offset {start}"),
    };
    if truncated {
        command += " --allow-truncated";
    }
    if let Some(format) = args.format {
        let _ = write!(command, " --format {format}");
    }
    if let Some(size) = args.max_size {
        let _ = write!(command, " --max-size {size}");
    }
    command += " --key-file KEY --output OUT";
    match quote::preamble(&command) {
        Some(preamble) => format!("{preamble}; {command}"),
        None => command,
    }
}
