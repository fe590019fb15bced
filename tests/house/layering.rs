//! Keeps the crate in its order: imports go one way, the program uses the public library, files stay short.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The modules in their order: one may import those above it in this list, and nothing below it or beside it.
const LAYERS: &[&[&str]] = &[
    &["error"],
    &["num"],
    &["limits", "progress", "threads", "files", "json"],
    &["secret", "io"],
    &["crypto"],
    &["key", "format", "storage", "cinder"],
    &["luks"],
    &["volume", "locate", "map"],
    &["image"],
    &["decrypt", "backup", "inside"],
    &["reader"],
    &["verify"],
    &["nbd", "scan"],
];

/// Modules that may import still less than their place allows, and what that is.
const NARROW: &[(&str, &[&str])] = &[
    // The NBD server serves any bytes: it knows nothing of LUKS.
    ("nbd", &["error", "limits", "num", "io"]),
];

/// Crates of the command line: the library does not print, ask or parse arguments.
const PROGRAM_ONLY: &[&str] = &["anstream", "anstyle", "clap", "indicatif", "signal_hook"];

/// A file above this many lines wants splitting.
const LINES_MAX: usize = 600;

/// Files that may be longer, and why.
const LONGER: &[(&str, &str)] = &[];

struct Source {
    /// The path from the repository's root.
    path: String,
    text: String,
}

impl Source {
    /// The lines with their numbers, without comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(n, line)| (n + 1, line));
        lines.map(|(n, line)| (n, line.split_once("//").map_or(line, |(code, _)| code)))
    }

    /// The module of the library that the file belongs to; `None` for lib.rs and the other crates.
    fn module(&self) -> Option<&str> {
        let rest = self.path.strip_prefix("src/")?;
        let module = rest.split('/').next()?.trim_end_matches(".rs");
        (module != "lib").then_some(module)
    }

    fn is_program(&self) -> bool {
        self.path.starts_with("cli/")
    }

    /// The crate's folder of sources, and the file's own path of modules in it: `src` and `["nbd", "reply"]`.
    fn place(&self) -> (&str, Vec<&str>) {
        let (root, rest) = self.path.split_once("src/").unwrap();
        let root = &self.path[..root.len() + "src".len()];
        let path = rest.trim_end_matches(".rs");
        let path = if matches!(path, "lib" | "main") { Vec::new() } else { path.split('/').collect() };
        (root, path)
    }
}

fn sources(folders: &[&str]) -> Vec<Source> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for folder in folders {
        walk(&root.join(folder), &mut found);
    }
    found.sort();
    let name = |p: &Path| p.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
    let all: Vec<_> = found.iter().map(|p| Source { path: name(p), text: fs::read_to_string(p).unwrap() }).collect();
    assert!(all.len() > 3, "the sources are not where they were");
    all
}

/// The names that lib.rs lifts to the root, and the modules that they come from.
fn lifted(all: &[Source]) -> BTreeMap<String, String> {
    let lib = all.iter().find(|s| s.path == "src/lib.rs").unwrap();
    let mut names = BTreeMap::new();
    for (_, line) in lib.code() {
        let Some(path) = line.strip_prefix("pub use ") else { continue };
        let (from, what) = path.trim_end().trim_end_matches(';').rsplit_once("::").unwrap();
        let module = from.split("::").next().unwrap();
        for name in what.trim_matches(['{', '}']).split(',') {
            names.insert(name.trim().to_owned(), module.to_owned());
        }
    }
    // A macro that one module defines is called by its name alone.
    for source in all {
        for (_, line) in source.code() {
            if let (Some(rest), Some(module)) = (line.trim_start().strip_prefix("macro_rules! "), source.module()) {
                let name = rest.split([' ', '{']).next().unwrap();
                names.insert(name.to_owned(), module.to_owned());
            }
        }
    }
    names
}

/// The first names of all paths that start at the crate's root: of `crate::io::Pipe` and `crate::{io::Pipe, Error}`.
fn imports(line: &str) -> Vec<&str> {
    let word = |text: &'_ str| text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let mut found = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        let rest = &line[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => found.push(&rest[..word(rest)]),
            Some(group) => found.extend(group.split([',', '}']).map(|p| &p.trim()[..word(p.trim())])),
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|l| l.contains(&module))
}

/// What is wrong with `module` importing `name`, if anything.
fn fault(module: &str, name: &str, lifted: &BTreeMap<String, String>) -> Option<String> {
    let target = lifted.get(name).map_or(name, String::as_str);
    if target == module {
        return None;
    }
    let Some(mine) = layer(module) else { return Some(format!("{module} has no place in tests/layering.rs")) };
    let Some(theirs) = layer(target) else { return Some(format!("crate::{name} is no module with a place")) };
    if theirs >= mine {
        return Some(format!("{module} must not import {target}, which is above or beside it"));
    }
    let narrow = NARROW.iter().find(|(m, _)| *m == module);
    narrow
        .filter(|(_, may)| !may.contains(&target))
        .map(|(_, may)| format!("{module} may import {may:?}, not {target}"))
}

fn assert_none(faults: &[String]) {
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn imports_go_one_way() {
    let all = sources(&["src"]);
    let lifted = lifted(&all);
    let mut faults = Vec::new();
    let mut seen = 0;
    for source in &all {
        let Some(module) = source.module() else { continue };
        for (n, line) in source.code() {
            for name in imports(line) {
                seen += 1;
                faults.extend(fault(module, name, &lifted).map(|f| format!("{}:{n}: {f}", source.path)));
            }
            if line.contains("super::super::") {
                faults.push(format!("{}:{n}: say crate:: rather than super::super", source.path));
            }
            if line.contains("use crate::{") && !line.contains('}') {
                faults.push(format!("{}:{n}: a group over several lines cannot be checked here", source.path));
            }
        }
    }
    assert!(seen > 50, "only {seen} imports were found");
    assert_none(&faults);
}

#[test]
fn the_order_is_really_checked() {
    let lifted = BTreeMap::from([("ReadAt".to_owned(), "io".to_owned())]);
    assert_eq!(imports("use crate::{io::Pipe, Error};"), ["io", "Error"]);
    assert_eq!(imports("let x: crate::luks::V = crate::key::y();"), ["luks", "key"]);
    assert!(fault("crypto", "luks", &lifted).is_some() && fault("luks", "crypto", &lifted).is_none());
    assert!(fault("limits", "ReadAt", &lifted).is_some() && fault("crypto", "ReadAt", &lifted).is_none());
    assert!(fault("secret", "io", &lifted).is_some() && fault("nbd", "luks", &lifted).is_some());
    assert!(fault("io", "unheard_of", &lifted).is_some() && fault("unheard_of", "io", &lifted).is_some());
}

/// The files of one crate that a file takes names from: file by file, also within a module.
///
/// A module that declares a child and one that re-exports its names say where things are, and take nothing. A file and
/// the files in its folder are one room: what these take from it, the types that they all work on, is no arrow.
fn taken<'a>(source: &Source, crates: &'a BTreeMap<(String, Vec<String>), String>) -> BTreeSet<&'a str> {
    let (root, own) = source.place();
    let mut found = BTreeSet::new();
    let mut statement = String::new();
    for (_, line) in source.code() {
        if line.trim_start().starts_with("#[cfg(test)]") {
            break;
        }
        // A `use` may go over several lines.
        statement += line.trim();
        if statement.starts_with("use ") && !statement.ends_with(';') {
            continue;
        }
        let line = std::mem::take(&mut statement);
        if line.starts_with("pub use ") || line.starts_with("mod ") || line.starts_with("pub mod ") {
            continue;
        }
        for path in paths(&line) {
            let (base, rest): (Vec<&str>, &[&str]) = match path.first().copied() {
                Some("crate") => (Vec::new(), &path[1..]),
                Some("super") if own.is_empty() => continue,
                Some("super") => (own[..own.len() - 1].to_vec(), &path[1..]),
                Some("self") => (own.clone(), &path[1..]),
                _ => (own.clone(), &path[..]),
            };
            let full: Vec<String> = base.iter().chain(rest).map(|p| (*p).to_owned()).collect();
            // The longest part of the path that is a file; the rest of it names what is in that file.
            for n in (0..=full.len()).rev() {
                let here = crates.get(&(root.to_owned(), full[..n].to_vec()));
                // A plain name is a path only where it leads to a child.
                let is_child = n > own.len() || path.first().is_some_and(|p| matches!(*p, "crate" | "super" | "self"));
                if let Some(file) = here.filter(|_| is_child) {
                    let is_above = !full[..n].is_empty() && own.len() >= n && own[..n] == full[..n];
                    if !is_above {
                        found.insert(file.as_str());
                    }
                    break;
                }
            }
        }
    }
    found
}

/// All paths of a line, a group in braces taken apart: `use crate::{io::Pipe, Error}` is `crate::io::Pipe`, `crate::Error`.
fn paths(line: &str) -> Vec<Vec<&str>> {
    let mut found = Vec::new();
    let mut stack: Vec<Vec<&str>> = Vec::new();
    let mut path: Vec<&str> = Vec::new();
    let mut rest = line;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        if end > 0 {
            path.push(&rest[..end]);
            rest = &rest[end..];
            if let Some(behind) = rest.strip_prefix("::") {
                rest = behind;
                if let Some(inside) = rest.strip_prefix('{') {
                    stack.push(path.clone());
                    rest = inside;
                }
                continue;
            }
            found.push(std::mem::take(&mut path));
        } else if let Some(inside) = rest.strip_prefix('{').filter(|_| !path.is_empty()) {
            stack.push(path.clone());
            rest = inside;
            continue;
        } else {
            let c = rest.chars().next().unwrap();
            if c == '}' {
                stack.pop();
            }
            rest = &rest[c.len_utf8()..];
        }
        path = stack.last().cloned().unwrap_or_default();
    }
    found.retain(|p| p.len() > 1);
    found
}

#[test]
fn no_files_take_from_each_other_in_a_circle() {
    let all = sources(&["src", "openstack/src", "cli/src"]);
    let own = |source: &Source| {
        let (root, path) = source.place();
        ((root.to_owned(), path.into_iter().map(str::to_owned).collect()), source.path.clone())
    };
    let crates: BTreeMap<(String, Vec<String>), String> = all.iter().map(own).collect();
    let arrows: BTreeMap<&str, BTreeSet<&str>> = all.iter().map(|s| (s.path.as_str(), taken(s, &crates))).collect();
    assert!(arrows.values().map(BTreeSet::len).sum::<usize>() > 300, "the arrows were not found");
    // What takes from nothing that is left, and what nothing that is left takes from, cannot be in a circle.
    let mut left = arrows;
    loop {
        let before = left.len();
        let files: BTreeSet<&str> = left.keys().copied().collect();
        let wanted: BTreeSet<&str> = left.values().flatten().copied().collect();
        left.retain(|file, to| wanted.contains(file) && to.iter().any(|file| files.contains(file)));
        if left.len() == before {
            break;
        }
    }
    let faults: Vec<String> = left.iter().map(|(file, to)| format!("{file} takes from {to:?}")).collect();
    assert_none(&faults);
}

#[test]
fn paths_are_taken_apart() {
    assert_eq!(paths("use crate::{io::Pipe, Error};"), [vec!["crate", "io", "Pipe"], vec!["crate", "Error"]]);
    assert_eq!(paths("let x = super::a::f(self::b, c::<d>());"), [vec!["super", "a", "f"], vec!["self", "b"]]);
    assert_eq!(paths("use a::{b, c::{d, e}};"), [vec!["a", "b"], vec!["a", "c", "d"], vec!["a", "c", "e"]]);
}

#[test]
fn the_program_uses_the_public_library_and_the_library_is_no_program() {
    let mut faults = Vec::new();
    for source in sources(&["src", "openstack/src", "cli/src"]) {
        for (n, line) in source.code() {
            let at = format!("{}:{n}", source.path);
            if source.is_program() && (line.contains("#[path") || line.contains("include!(")) {
                faults.push(format!("{at}: the program takes in a file of the library"));
            }
            let prints = ["println!(", "print!(", "eprintln!(", "eprint!(", "dbg!(", "process::exit("];
            let program_only = PROGRAM_ONLY.iter().any(|c| line.contains(&format!("{c}::")));
            if !source.is_program() && (program_only || prints.iter().any(|p| line.contains(p))) {
                faults.push(format!("{at}: this belongs to the program: {}", line.trim()));
            }
        }
    }
    assert_none(&faults);
}

#[test]
fn the_library_names_no_flag_of_the_program() {
    let mut faults = Vec::new();
    for source in sources(&["src"]).iter().filter(|s| !s.path.ends_with("tests.rs")) {
        for (n, line) in source.code() {
            if line.trim_start().starts_with("#[cfg(test)]") {
                break;
            }
            let is_flag = |text: &str| text.starts_with(|c: char| c.is_ascii_lowercase());
            let texts = line.split('"').skip(1).step_by(2);
            if texts.filter(|t| !t.starts_with("aes-")).any(|text| text.split("--").skip(1).any(is_flag)) {
                faults.push(format!("{}:{n}: a hint is an enum that the program words: {}", source.path, line.trim()));
            }
        }
    }
    assert_none(&faults);
}

#[test]
fn files_are_short() {
    let mut faults = Vec::new();
    let mut unused: Vec<_> = LONGER.iter().map(|(path, _)| *path).collect();
    for source in sources(&["src", "openstack/src", "cli", "tests", "benches"]) {
        let lines = source.text.lines().count();
        if lines <= LINES_MAX {
            continue;
        }
        if LONGER.iter().any(|(path, why)| *path == source.path && !why.is_empty()) {
            unused.retain(|path| *path != source.path)
        } else {
            faults.push(format!("{}: {lines} lines; above {LINES_MAX} it wants splitting", source.path))
        }
    }
    faults.extend(unused.iter().map(|path| format!("{path}: is short or gone, and needs no leave to be long")));
    assert_none(&faults);
}
