//! What a scan found, for people, and the commands that open it. Text of the disk is escaped.

use std::fmt::Write;
use std::path::Path;

use unluks::error::escape;
use unluks::locate::LayerKind;
use unluks::luks::data::State as Data;
use unluks::scan::State;
use unluks::scan::report::{Container, Copy, Report};

use crate::args::scan::ScanArgs;
use crate::quote;

/// How many internal snapshots are named.
const SNAPSHOTS_SHOWN: usize = 16;

/// Puts the commands into a report that open what it lists.
pub fn add_commands(report: &mut Report, args: &ScanArgs, image: &Path) {
    for container in &mut report.containers {
        let data = container.data.filter(|state| !state.is_absent() && container.part_of.is_none());
        container.command = data.and_then(|state| command_for(args, image, container, state));
    }
}

/// The report for people.
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    for (n, c) in report.containers.iter().enumerate() {
        if n > 0 {
            out.push('\n');
        }
        container(c, &mut out);
    }
    if let [_, ..] = report.image.snapshots.as_slice() {
        let names: Vec<String> = report.image.snapshots.iter().take(SNAPSHOTS_SHOWN).map(|name| escape(name)).collect();
        let more = match report.image.snapshots.len().saturating_sub(SNAPSHOTS_SHOWN) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let _ = writeln!(
            out,
            "earlier states of the disk, which were not scanned: {}{more}; inspect --snapshot NAME looks into one",
            names.join(", ")
        );
    }
    for (n, what) in [(report.good_left_out, "good"), (report.bad_left_out, "damaged")] {
        if n > 0 {
            let _ = writeln!(out, "and {n} more {what} header copies, which are not listed");
        }
    }
    out
}

fn container(c: &Container, out: &mut String) {
    let name = match c.version {
        Some(version) => format!("LUKS{version}"),
        None => "LUKS".into(),
    };
    let _ = match c.offset {
        Some(start) => write!(out, "{name} at byte {start}"),
        None if !c.layers.is_empty() => write!(out, "{name}, whose first byte is on another disk of the set"),
        None => write!(out, "{name}, and nothing tells where it starts"),
    };
    if let Some(path) = c.partitions() {
        let _ = write!(out, ", partition {}", escape(&path));
    }
    for layer in c.layers.iter().filter(|layer| layer.kind != LayerKind::Partition) {
        let _ = write!(out, ", {} {}", layer.kind.name(), escape(&layer.name));
    }
    out.push('\n');
    let mut line = |what: &str, text: &str| {
        let _ = writeln!(out, "  {what:<10} {text}");
    };
    for (what, value) in [("uuid", c.uuid), ("label", c.label), ("subsystem", c.subsystem)] {
        if let Some(value) = value {
            line(what, &escape(value));
        }
    }
    for copy in &c.copies {
        line(&copy.role.to_string(), &format!("at byte {}: {}", copy.offset, verdict(copy)));
    }
    if let Some(e) = &c.error {
        line("damaged", &format!("does not open: {e}"));
    }
    if let Some(recovered) = &c.recovered {
        line("damaged", recovered);
    }
    if let Some(part) = &c.part_of {
        line("part of", part);
        line("", "what starts there need not go on there: no command opens it for certain");
        return;
    }
    match (c.data, &c.command) {
        (Some(Data::Truncated), _) => line("data", "the disk ends within it, or within its last sector"),
        (Some(state), None) => {
            let state = state.name();
            line("data", &format!("none behind it ({state}): cut it out, and give it as --header of its data"));
        }
        _ => {}
    }
    if let (Some(next), true) = (c.next, c.command.is_some()) {
        line("data", &format!("goes on over the container at byte {next}: where it ends is not known; see --length"));
    }
    if let Some(command) = &c.command {
        line("open with", command);
    }
}

fn verdict(copy: &Copy) -> String {
    match (&copy.error, copy.state) {
        (Some(e), _) => e.to_string(),
        (None, State::Used) => "good, in use".into(),
        (None, State::LeftOver) => "good, but an earlier header left it".into(),
        (None, _) => "good".into(),
    }
}

/// The command that opens a container, as a shell takes it. KEY and OUT are names to fill in.
fn command_for(args: &ScanArgs, image: &Path, c: &Container, data: Data) -> Option<String> {
    let mut command = format!("unluks decrypt {}", quote::path(image));
    for other in &args.with {
        let _ = write!(command, " --with {}", quote::path(other));
    }
    if let Some(path) = c.partitions() {
        let _ = write!(command, " --partition {path}");
    }
    if let Some(volume) = c.volume {
        let _ = write!(command, " {}", quote::flag("--volume", volume).ok()?);
    }
    // Layers lead to what is in them from the disk's beginning on; what nothing leads to has its place alone.
    if c.layers.is_empty() && c.partition.is_none() {
        let _ = write!(command, " --offset {}", c.offset?);
    }
    if data == Data::Truncated {
        command += " --allow-truncated";
    }
    if let Some(format) = args.format {
        let _ = write!(command, " --format {format}");
    }
    if let Some(size) = args.max_size {
        let _ = write!(command, " --max-size {size}");
    }
    command += " --key-file KEY --output OUT";
    Some(match quote::preamble(&command) {
        Some(preamble) => format!("{preamble}; {command}"),
        None => command,
    })
}
