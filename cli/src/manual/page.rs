//! Manual pages: what clap_mangen makes of the command line's definitions, with the sections of a manual around it, and as
//! `mandoc -Tlint` wants it.

use clap::Command;
use clap_mangen::Man;

/// When the pages last changed. It is no time of a build, so that each build makes the same pages.
const DATE: &str = "2026-11-30";

/// The page of a directory's description, but for the version.
const BACKUP_JSON: &str = include_str!("../../man/unluks-backup.json.5");

/// How long a line of text may be.
const WIDTH: usize = 80;

const EXIT_STATUS: &str = r".SH EXIT STATUS
.TP
.B 0
It is done.
.TP
.B 1
Reading or writing failed, or a cloud cannot be reached.
.TP
.B 2
The command cannot be: wrong usage, an output that is there already, a cloud
that refuses.
.TP
.B 3
No keyslot opened with this key.
.TP
.B 4
The image is damaged, cut off, or no LUKS image; of verify: it is not
restorable.
.TP
.B 5
The image is sound, but asks for something that is not supported.
.TP
.B 6
The header asks for more than a limit allows.
.TP
.B 7
Of verify \-\-strict: it is restorable, with findings.
.TP
.B 130
It was interrupted.
";

/// The file of a page, and what it says.
pub type Page = (String, String);

/// The pages of a command and of all that it has below it.
pub fn all(command: Command) -> std::io::Result<Vec<Page>> {
    let mut command = in_full(command.disable_help_subcommand(true));
    command.build();
    let name = "unluks-backup.json.5".to_owned();
    let mut pages = vec![(name, BACKUP_JSON.replace("@VERSION@", env!("CARGO_PKG_VERSION")))];
    add(&command, None, &mut pages)?;
    Ok(pages)
}

/// The command with what `-h` leaves out and `--help` has.
fn in_full(command: Command) -> Command {
    command.mut_args(|arg| arg.hide_short_help(false)).mut_subcommands(in_full)
}

fn add(command: &Command, parent: Option<&str>, pages: &mut Vec<Page>) -> std::io::Result<()> {
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        add(sub, Some(&name), pages)?;
    }
    pages.push((format!("{name}.1"), page(command, &name, parent)?));
    Ok(())
}

fn page(command: &Command, name: &str, parent: Option<&str>) -> std::io::Result<String> {
    let man = Man::new(command.clone());
    let mut made = Vec::new();
    man.render_name_section(&mut made)?;
    made.extend(synopsis(command).bytes());
    man.render_description_section(&mut made)?;
    man.render_options_section(&mut made)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut made)?;
    }
    let title = name.to_uppercase().replace('-', "\\-");
    let mut page = format!(".TH {title} 1 {DATE} \"unluks {}\" \"unluks\"\n", env!("CARGO_PKG_VERSION"));
    page += &tidy(&String::from_utf8_lossy(&made));
    page += EXIT_STATUS;
    if let Some(examples) = command.get_after_long_help() {
        page += ".SH EXAMPLES\n.nf\n";
        for line in examples.to_string().lines().skip(1) {
            // A line that is too long goes on in the next, as a shell takes it.
            page += &(escape(line.trim_start()) + "\n");
        }
        page += ".fi\n";
    }
    let mut also: Vec<String> = command.get_subcommands().filter(|s| !s.is_hide_set()).filter_map(reference).collect();
    also.extend(parent.map(|parent| parent.to_owned()));
    let also: Vec<String> = also.iter().map(|name| format!(".BR {} (1)", escape(name))).collect();
    if !also.is_empty() {
        page += &format!(".SH SEE ALSO\n{}\n", also.join(",\n"));
    }
    Ok(page)
}

fn reference(sub: &Command) -> Option<String> {
    sub.get_display_name().map(str::to_owned)
}

/// The command with what it must have, and not with all that it may have.
fn synopsis(command: &Command) -> String {
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim();
    let usage: Vec<&str> = usage.split_whitespace().collect();
    format!(".SH SYNOPSIS\n{}\n", escape(&usage.join(" ")))
}

/// Text as roff takes it.
fn escape(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq").replace('"', "\\(dq")
}

/// Wraps lines of text, and drops what a formatter would pass over.
fn tidy(made: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    // The macros for quotes that every page of clap_mangen begins with.
    for line in made.lines().filter(|line| !line.starts_with(".ie ") && !line.starts_with(".el ")) {
        let line = line.replace("\\*(Aq", "\\(aq");
        let line = line.trim_end();
        match line {
            // A break beside a blank line is none.
            ".br" => {}
            "" if lines.last().is_none_or(|last| last.starts_with(".SH") || last == ".sp") => {}
            "" => lines.push(".sp".to_owned()),
            _ if line.starts_with('.') => lines.push(line.to_owned()),
            _ => wrap(line, &mut lines),
        }
    }
    lines.join("\n") + "\n"
}

fn wrap(line: &str, lines: &mut Vec<String>) {
    let mut current = String::new();
    // What stands behind `.TP` is one line: the tag.
    let is_tag = lines.last().is_some_and(|last| last == ".TP");
    for word in line.split(' ').filter(|word| !word.is_empty()) {
        if !current.is_empty() && current.len() + word.len() >= WIDTH && !is_tag {
            lines.push(std::mem::take(&mut current));
        }
        if current.is_empty() && word.starts_with(['.', '\'']) {
            current = "\\&".to_owned();
        } else if !current.is_empty() {
            current.push(' ');
        }
        current += word;
    }
    lines.push(current);
}
