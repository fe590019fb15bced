//! The report for people: what matters first, then the details. All text of the image is escaped.

use std::fmt::{self, Write};

use anstyle::{AnsiColor, Style};
use serde_json::Value;
use unluks::error::{bytes, counted, escape, seconds};
use unluks::json;
use unluks::luks::data::{Data, State as DataState};
use unluks::luks::findings::{Finding, Severity};
use unluks::luks::metadata::{Priority, Token};
use unluks::luks::report::*;
use unluks::luks::token;

use super::picture::{self, Canvas};

const HEAD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const GOOD: Style = AnsiColor::Green.on_default();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();
const CRITICAL: Style = AnsiColor::Red.on_default().bold();

/// How many older versions of LVM's metadata are named.
const VERSIONS_SHOWN: usize = 8;

/// The report as text with ANSI styles, which the stream drops where they are not wanted; with a picture where there is
/// something to draw on.
pub fn render(report: &Report, canvas: Option<Canvas>) -> String {
    let mut text = Text { out: String::new(), canvas };
    // Writing to a string does not fail.
    let _ = text.report(report);
    text.out
}

struct Text {
    out: String,
    canvas: Option<Canvas>,
}

impl Text {
    fn report(&mut self, r: &Report) -> fmt::Result {
        self.summary(r)?;
        self.findings(r)?;
        self.segments(r)?;
        self.keyslots(r)?;
        self.tokens(r)?;
        self.digests(r)?;
        self.copies(r)?;
        self.layout(r)
    }

    fn head(&mut self, title: &str) -> fmt::Result {
        writeln!(self.out, "\n{HEAD}{title}{HEAD:#}")
    }

    /// A line of the form `  name    value`.
    fn line(&mut self, name: &str, value: impl fmt::Display) -> fmt::Result {
        writeln!(self.out, "  {DIM}{name:<13}{DIM:#} {value}")
    }

    /// The same, one step further in.
    fn sub(&mut self, name: &str, value: impl fmt::Display) -> fmt::Result {
        writeln!(self.out, "     {DIM}{name:<10}{DIM:#} {value}")
    }

    fn summary(&mut self, r: &Report) -> fmt::Result {
        writeln!(self.out, "{HEAD}LUKS{} {}{HEAD:#}", r.version, escape(r.uuid))?;
        self.line("image", file(&r.image))?;
        if let Some(container) = &r.container {
            for note in &container.notes {
                self.line("", escape(note))?;
            }
            self.layers(container)?;
            for group in &container.groups {
                self.group(group)?;
            }
            self.line("", format_args!("LUKS in {} of it, from which all bytes count here", bytes(container.size)))?;
        }
        if let Some(header) = &r.header {
            self.line("header", file(header))?;
        }
        if let Some(label) = &r.label {
            self.line("label", escape(label))?;
        }
        if let Some(subsystem) = &r.subsystem {
            self.line("subsystem", escape(subsystem))?;
        }
        let live: Vec<_> = r.segments.iter().filter(|s| !s.backup).collect();
        if let [s] = live.as_slice() {
            self.line("cipher", cipher(s))?;
        } else {
            self.line("cipher", format_args!("{}, see below", counted(live.len(), "segment")))?;
        }
        self.line("plaintext", plaintext(&r.data))?;
        self.line("data", data(r))?;
        if r.version == 2 {
            self.line("header copies", copies(r))?;
        }
        if !r.flags.is_empty() {
            self.line("flags", names(r.flags))?;
        }
        if !r.requirements.is_empty() {
            self.line("requirements", names(r.requirements))?;
        }
        Ok(())
    }

    /// What lies on what, each a step further in.
    fn layers(&mut self, container: &Container) -> fmt::Result {
        for (depth, layer) in container.layers.iter().enumerate().skip(1) {
            let name = if depth == 1 { "layers" } else { "" };
            let (kind, size) = (layer.kind.name(), bytes(layer.size));
            self.line(
                name,
                format_args!("{:1$}{kind} {2}, {size}", "", 2 * depth.saturating_sub(1), escape(&layer.name)),
            )?;
        }
        Ok(())
    }

    /// The versions of a volume group's metadata: what was deleted or changed is in the older ones.
    fn group(&mut self, group: &Group) -> fmt::Result {
        let GroupVersion { name, seqno, .. } = &group.current;
        let still = if group.older.is_empty() { "" } else { "; older ones that are there still:" };
        self.line("lvm", format_args!("{}, metadata version {seqno}{still}", escape(name)))?;
        for old in group.older.iter().take(VERSIONS_SHOWN) {
            self.line("", format_args!("  {}: {}", old.seqno, escape(&old.description)))?;
        }
        let more = group.older.len().saturating_sub(VERSIONS_SHOWN);
        match group.left_out.saturating_add(u64::try_from(more).unwrap_or(u64::MAX)) {
            0 => Ok(()),
            more => self.line("", format_args!("and {more} more, which are older")),
        }
    }

    fn findings(&mut self, r: &Report) -> fmt::Result {
        self.head("Findings")?;
        if r.findings.is_empty() {
            return writeln!(self.out, "  {GOOD}none{GOOD:#}");
        }
        for f in &r.findings {
            let style = match f.severity {
                Severity::Critical => CRITICAL,
                Severity::Warning => WARNING,
                Severity::Note => Style::new(),
            };
            let Finding { code, about, message, .. } = f;
            let severity = f.severity.name();
            writeln!(self.out, "  {style}{severity:<8}{style:#} {about}: {message} {DIM}[{code}]{DIM:#}")?;
        }
        Ok(())
    }

    fn segments(&mut self, r: &Report) -> fmt::Result {
        self.head("Segments")?;
        for s in &r.segments {
            let size = s.size.map_or("to the end of the file".to_owned(), bytes);
            let backup = if s.backup { " (a note of the reencryption, no live data)" } else { "" };
            writeln!(self.out, "  {HEAD}{}{HEAD:#}  {} from byte {}, {size}{backup}", s.id, escape(s.kind), s.offset)?;
            if s.encryption.is_some() {
                self.sub("cipher", cipher(s))?;
            }
            if let Some(iv_tweak) = s.iv_tweak.filter(|n| *n != 0) {
                self.sub("iv_tweak", format_args!("{iv_tweak} (512-byte sectors)"))?;
            }
            if let Some(i) = &s.integrity {
                let journal = format!("{}, {}", escape(&i.journal_encryption), escape(&i.journal_integrity));
                let key = i.key_size.map_or(String::new(), |n| format!(", key of {n} bytes"));
                self.sub("integrity", format_args!("{} (journal: {journal}){key}", escape(&i.kind)))?;
            }
            if !s.flags.is_empty() {
                self.sub("flags", names(s.flags))?;
            }
            let digest = s.digest.map_or("none".to_owned(), |d| d.to_string());
            self.sub("key", format_args!("in {}, proved by digest {digest}", list("keyslot", s.keyslots)))?;
            if !matches!(s.kind, "crypt" | "linear") {
                self.members(raw(r, "segments", s.id), &["type", "offset", "size", "flags"])?;
            }
        }
        Ok(())
    }

    fn keyslots(&mut self, r: &Report) -> fmt::Result {
        self.head("Keyslots")?;
        let (disabled, others): (Vec<_>, Vec<_>) = r.keyslots.iter().partition(|k| k.state == State::Disabled);
        for k in &others {
            self.keyslot(r, k)?;
        }
        if !disabled.is_empty() {
            let all: Vec<_> = disabled.iter().map(|k| k.id).collect();
            writeln!(self.out, "  {DIM}disabled: {}{DIM:#}", list("keyslot", &all))?;
        }
        if r.keyslots.is_empty() {
            writeln!(self.out, "  none")?;
        }
        Ok(())
    }

    fn keyslot(&mut self, r: &Report, k: &Keyslot) -> fmt::Result {
        let priority = match k.priority.map(Priority::from_number) {
            Some(Priority::Normal) | None => String::new(),
            Some(priority) => match priority.name() {
                Some(name) => format!(", priority {name}"),
                None => format!(", priority {}", priority.number()),
            },
        };
        let bound = match (k.state, k.unbound) {
            (State::Active, Some(true)) => "opens no live segment (unbound)".to_owned(),
            (State::Active, _) => format!("opens {}", list("segment", k.segments)),
            (state, _) => state.name().to_owned(),
        };
        writeln!(
            self.out,
            "  {HEAD}{}{HEAD:#}  {}, key of {}, {bound}{priority}",
            k.id,
            escape(k.kind),
            counted(k.key_size, "byte")
        )?;
        if let Some(kdf) = &k.kdf {
            self.sub("kdf", kdf_line(kdf))?;
            if let Some(cost) = &kdf.cost {
                let memory = if cost.memory_bytes == 0 { String::new() } else { bytes(cost.memory_bytes) + ", " };
                self.sub("one guess", format_args!("{memory}{}", seconds(cost.seconds)))?;
            }
            if let Some(salt) = &kdf.salt {
                self.sub("salt", salt)?;
            }
        }
        if let Some(x) = &k.reencryption {
            let mut line = format!("mode {}, {}, resilience {}", x.mode, x.direction, escape(&x.resilience));
            if let Some(hash) = &x.hash {
                write!(line, ", hash {}", escape(hash))?;
            }
            if let Some(n) = x.sector_size {
                write!(line, " of {n} bytes each")?;
            }
            if let Some(n) = x.shift_size {
                write!(line, ", shift {}", bytes(n))?;
            }
            self.sub("state", line)?;
        }
        if let Some(encryption) = k.area.encryption {
            let key_size = k.area.key_size.unwrap_or(0);
            self.sub("cipher", format_args!("{}, key of {key_size} bytes", escape(encryption)))?;
        }
        if let Some(af) = &k.af {
            self.sub("af", format_args!("{}, {}", counted(af.stripes, "stripe"), escape(af.hash)))?;
        }
        self.sub("area", format_args!("from byte {}, {}", k.area.offset, bytes(k.area.size)))?;
        if let Some(digest) = k.digest {
            self.sub("digest", digest)?;
        }
        if !matches!(k.kind, "luks1" | "luks2" | "reencrypt") {
            self.members(raw(r, "keyslots", k.id), &["type", "key_size", "priority"])?;
        }
        Ok(())
    }

    fn tokens(&mut self, r: &Report) -> fmt::Result {
        if r.tokens.is_empty() {
            return Ok(());
        }
        self.head("Tokens")?;
        for t in &r.tokens {
            let Numbered { id, item: Token { kind, keyslots, json: content, .. } } = t;
            writeln!(self.out, "  {HEAD}{id}{HEAD:#}  {}, for {}", escape(kind), list("keyslot", keyslots))?;
            if let Some(pins) = token::pins(t.item) {
                self.sub("given out by", pins)?;
            }
            self.members(Some(content), &["type", "keyslots"])?;
        }
        Ok(())
    }

    /// The members of an object as JSON, but those that were shown.
    fn members(&mut self, object: Option<&Value>, shown: &[&str]) -> fmt::Result {
        let all = object.and_then(Value::as_object).into_iter().flatten();
        for (name, value) in all.filter(|(name, _)| !shown.contains(&name.as_str())) {
            self.sub(&escape(name), json::compact(value).map_err(|_| fmt::Error)?)?;
        }
        Ok(())
    }

    fn digests(&mut self, r: &Report) -> fmt::Result {
        self.head("Digests")?;
        for d in &r.digests {
            let (keyslots, segments) = (list("keyslot", d.keyslots), list("segment", d.segments));
            writeln!(self.out, "  {HEAD}{}{HEAD:#}  {}, of {keyslots} for {segments}", d.id, escape(d.kind))?;
            if let (Some(hash), Some(iterations)) = (&d.hash, d.iterations) {
                self.sub("cost", format_args!("{}, {}", counted(iterations, "iteration"), escape(hash)))?;
            }
            if let Some(salt) = &d.salt {
                self.sub("salt", salt)?;
            }
            if let Some(digest) = &d.digest {
                self.sub("digest", digest)?;
            }
            if let Some(error) = &d.error {
                self.sub("error", error)?;
            }
        }
        Ok(())
    }

    fn copies(&mut self, r: &Report) -> fmt::Result {
        if r.version == 1 {
            return Ok(());
        }
        self.head("Header copies")?;
        for c in &r.copies {
            let (style, state) = if c.good { (GOOD, "good") } else { (WARNING, "not good") };
            let used = if c.used { ", in use" } else { "" };
            let Copy { role, offset, .. } = c;
            writeln!(self.out, "  {HEAD}{role}{HEAD:#} at byte {offset}: {style}{state}{style:#}{used}")?;
            if let Some(e) = &c.error {
                self.sub("why", &e.text)?;
            }
            if let (Some(seqid), Some(size)) = (c.seqid, c.hdr_size) {
                let alg = c.checksum_alg.map_or("none".to_owned(), escape);
                self.sub("holds", format_args!("sequence id {seqid}, {}, checksum {alg}", bytes(size)))?;
            }
            if let Some(salt) = &c.salt {
                self.sub("salt", salt)?;
            }
        }
        for d in r.differences {
            let value = |v: &Option<String>| v.as_deref().map_or("nothing".to_owned(), |v| format!("\"{v}\""));
            let (primary, secondary) = (value(&d.primary), value(&d.secondary));
            writeln!(self.out, "  {WARNING}differs{WARNING:#} {}: primary {primary}, secondary {secondary}", d.field)?;
        }
        Ok(())
    }

    fn layout(&mut self, r: &Report) -> fmt::Result {
        self.head("Layout")?;
        for line in self.canvas.map(|canvas| picture::lines(r, canvas)).unwrap_or_default() {
            writeln!(self.out, "  {line}")?;
        }
        writeln!(self.out, "  {DIM}{:>14} {:>14}  {:<24} what{DIM:#}", "start", "end", "size")?;
        let mut last = r.layout.first().map(|l| l.file);
        for l in &r.layout {
            if last.replace(l.file) != Some(l.file) {
                let place = match l.file {
                    File::Elsewhere => "in the data file, which was not given",
                    File::Image | File::Header => "in the data file",
                };
                writeln!(self.out, "  {DIM}{place}{DIM:#}")?;
            }
            let id = l.id.unwrap_or(0);
            let what = match l.kind {
                Kind::Header if r.version == 1 => "header".to_owned(),
                Kind::Header if id == 0 => "primary header".to_owned(),
                Kind::Header => "secondary header".to_owned(),
                Kind::Keyslot => match r.keyslots.iter().find(|k| k.id == id).filter(|k| k.state != State::Active) {
                    Some(k) => format!("keyslot {id} ({})", k.state.name()),
                    None => format!("keyslot {id}"),
                },
                Kind::Free => "free keyslots area".to_owned(),
                Kind::Gap => "gap".to_owned(),
                Kind::Segment => format!("data, segment {id}"),
                Kind::Trailing => "behind all that the header names".to_owned(),
            };
            let end = l.end.map_or("?".to_owned(), |n| n.to_string());
            let size = l.size.map_or("?".to_owned(), bytes);
            let style = if matches!(l.kind, Kind::Free | Kind::Gap) { DIM } else { Style::new() };
            writeln!(self.out, "  {style}{:>14} {end:>14}  {size:<24} {what}{style:#}", l.start)?;
        }
        Ok(())
    }
}

/// What the header's JSON says of an object that is not known here.
fn raw<'a>(r: &Report<'a>, section: &str, id: u32) -> Option<&'a Value> {
    r.json?.get(section)?.get(id.to_string())
}

fn file(f: &FileInfo) -> String {
    let size = f.size.map_or("of unknown length".to_owned(), bytes);
    let path = if f.path == "-" { "standard input".to_owned() } else { escape(&f.path) };
    format!("{path}, {size}")
}

fn cipher(s: &Segment) -> String {
    let Some(encryption) = s.encryption else { return escape(s.kind) };
    let key = s.key_size.map_or("key of unknown size".to_owned(), |n| {
        format!("key of {n} bytes ({})", counted(u64::from(n) * 8, "bit"))
    });
    let sectors = s.sector_size.unwrap_or(0);
    format!("{}, {key}, sectors of {sectors} bytes", escape(encryption))
}

fn plaintext(d: &Data) -> String {
    match (d.plaintext_size, d.readable) {
        (Some(size), Some(readable)) if readable < size && readable > 0 => {
            format!("{}, of which {} are there", bytes(size), bytes(readable))
        }
        (Some(size), _) => bytes(size),
        (None, Some(readable)) if readable > 0 => format!("{} are there, in whole sectors", bytes(readable)),
        (None, _) => "size not known".to_owned(),
    }
}

fn data(r: &Report) -> String {
    let d = &r.data;
    let missing = d.missing.map_or("an unknown number of bytes".to_owned(), bytes);
    let more = if r.segments.iter().all(|s| s.backup || s.size.is_some()) { "" } else { " or more" };
    match d.state {
        DataState::Complete => format!("from byte {}, complete", d.offset),
        DataState::ToEndOfFile => format!("from byte {} to the end of the file", d.offset),
        DataState::Truncated => format!("{CRITICAL}cut off{CRITICAL:#}: {missing}{more} are missing"),
        DataState::HeaderBackup => "none: this is a header backup".to_owned(),
        DataState::DetachedHeader => "none: this is a detached header".to_owned(),
        DataState::HeaderOnly => format!("{CRITICAL}none{CRITICAL:#}: it would start at byte {}", d.offset),
        DataState::Unknown if d.offset == 0 => "in clusters, which were not all found".to_owned(),
        DataState::Unknown => format!("from byte {}, of unknown length", d.offset),
    }
}

fn copies(r: &Report) -> String {
    let seqid = r.seqid.map_or(String::new(), |n| format!(", sequence id {n}"));
    let bad = r.copies.iter().find(|c| !c.good);
    match bad {
        None if r.differences.is_empty() => format!("both good and alike{seqid}"),
        None => format!("{WARNING}both good, but they differ{WARNING:#}{seqid}"),
        Some(c) => format!("{WARNING}the {} one is not good{WARNING:#}{seqid}", c.role),
    }
}

fn kdf_line(kdf: &Kdf) -> String {
    let name = escape(kdf.kind);
    match (kdf.iterations, kdf.time, kdf.memory, kdf.cpus) {
        (Some(n), ..) => {
            let hash = kdf.hash.map_or(String::new(), |hash| format!("-{}", escape(hash)));
            format!("{name}{hash}, {}", counted(n, "iteration"))
        }
        (_, Some(time), Some(memory), Some(cpus)) => {
            let (times, lanes) = (counted(time, "time"), counted(cpus, "lane"));
            format!("{name}, {times} over {memory} KiB in {lanes}")
        }
        _ => name,
    }
}

fn names(all: &[String]) -> String {
    all.iter().map(|n| escape(n)).collect::<Vec<_>>().join(", ")
}

/// `no keyslot`, `keyslot 0`, `keyslots 0, 1`.
fn list(what: &str, all: &[u32]) -> String {
    match all {
        [] => format!("no {what}"),
        [one] => format!("{what} {one}"),
        all => format!("{what}s {}", all.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")),
    }
}
