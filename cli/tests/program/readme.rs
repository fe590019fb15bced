//! Runs what the README shows, and compares what comes out with what it shows.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::{UNLUKS, text};

/// Commands of the README that this test leaves out: they build, test or install, and are in use when it runs.
const LEFT_OUT: [&str; 2] = ["cargo test", "cargo install --locked --path cli"];

/// A command that the README shows, and the lines that it shows below.
struct Example {
    line: usize,
    command: String,
    shows: Option<String>,
}

fn readme() -> String {
    std::fs::read_to_string(crate::common::root().join("README.md")).unwrap()
}

/// The commands of all `console` and `sh` blocks, in order. In `sh` blocks nothing is shown.
fn examples(readme: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let mut block = None;
    for (n, line) in readme.lines().enumerate() {
        match (line.strip_prefix("```"), block) {
            (Some(language), None) => block = Some(language),
            (Some(_), Some(_)) => block = None,
            (None, Some("sh")) => examples.push(Example { line: n + 1, command: line.to_owned(), shows: None }),
            (None, Some("console")) => match line.strip_prefix("$ ") {
                Some(command) => {
                    examples.push(Example { line: n + 1, command: command.to_owned(), shows: Some(String::new()) });
                }
                None => {
                    let last = examples.last_mut().and_then(|e| e.shows.as_mut()).expect("output without a command");
                    *last += &format!("{line}\n");
                }
            },
            _ => {}
        }
    }
    examples
}

/// `text` with each time that something took as `0.0 s`.
fn without_times(text: &str) -> String {
    let line = |line: &str| match line.rsplit_once(" in ") {
        Some((what, time)) if time.ends_with(" s") && line.contains("bytes of plaintext") => {
            format!("{what} in 0.0 s\n")
        }
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

#[test]
fn every_command_does_what_it_shows() {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(crate::common::testdata(), dir.path().join("testdata")).unwrap();
    let path = format!("{}:{}", text(Path::new(UNLUKS).parent().unwrap()), std::env::var("PATH").unwrap());
    let examples = examples(&readme());
    let mut left_out = LEFT_OUT.to_vec();
    for example in &examples {
        let Example { line, command, shows } = example;
        if let Some(at) = left_out.iter().position(|c| c == command) {
            left_out.remove(at);
            continue;
        }
        // Clients of other makers are there where other programs may be wanted.
        if command.contains("nbdcopy") && !cfg!(feature = "peer-tests") {
            continue;
        }
        // The program is built: running it is all that is left of `cargo run`.
        let command = command.replace("cargo run --release --", "unluks");
        let output = Command::new("sh")
            .args(["-c", &format!("exec 2>&1; {command}")])
            .current_dir(dir.path())
            .env("PATH", &path)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "README.md:{line}: {command}\n{said}");
        if let Some(shows) = shows {
            assert_eq!(without_times(&said), *shows, "README.md:{line}: {command}");
        }
    }
    assert_eq!(left_out, [""; 0], "commands that the README has no more");
    assert!(examples.len() > 8, "only {} commands were found", examples.len());
}

#[test]
fn the_first_command_is_one_for_a_fresh_clone() {
    let examples = examples(&readme());
    assert!(examples[0].command.starts_with("cargo run --release -- decrypt testdata/openstack-volume.img"));
    assert_eq!(examples[1].command, "cargo test");
}

/// The rows of the README's table of exit codes.
fn exit_codes() -> Vec<i32> {
    let readme = readme();
    let (_, rest) = readme.split_once("## Exit codes").unwrap();
    let table = rest.lines().skip_while(|l| !l.starts_with('|')).take_while(|l| l.starts_with('|')).skip(2);
    table.map(|row| row.split('|').nth(1).unwrap().trim().parse().unwrap()).collect()
}

#[test]
fn every_exit_code_is_the_documented_one() {
    // 130 is what an interrupt gives: tests/decrypt/interrupted.rs. 7 is of verify alone: tests/program/verify.rs.
    assert_eq!(exit_codes(), [0, 1, 2, 3, 4, 5, 6, 7, 130]);
    let image = text(&crate::common::testdata().join("openstack-volume.img"));
    let key = text(&crate::common::testdata().join("openstack-volume.key"));
    let unknown = crate::common::Golden::unpack("l2-unknown-cipher");
    let (unknown_image, unknown_key) = (text(&unknown.image), text(&unknown.key));
    let cases: [(i32, &[&str]); 7] = [
        (0, &[&image, "--barbican-key", &key]),
        (1, &["/nowhere", "--barbican-key", &key]),
        (2, &[&image, "--barbican-key", &key, "--key", &key]),
        (3, &[&image, "--key-file", &key]),
        (4, &[&key, "--key-file", &key]),
        (5, &[&unknown_image, "--key-file", &unknown_key]),
        (6, &[&image, "--barbican-key", &key, "--max-kdf-time", "0"]),
    ];
    for (code, args) in cases {
        let run = crate::common::unluks(&[&["decrypt", "-o", "-", "-q"], args].concat());
        assert_eq!(run.code, Some(code), "{args:?}: {}", run.stderr);
    }
}

/// All documents for people, by their names from the root.
const DOCUMENTS: [&str; 23] = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "docs/architecture.md",
    "docs/backup-format.md",
    "docs/comparison.md",
    "docs/damages.md",
    "docs/files.md",
    "docs/fleet.md",
    "docs/formats.md",
    "docs/inside.md",
    "docs/keys.md",
    "docs/openstack.md",
    "docs/performance.md",
    "docs/recover.md",
    "docs/release.md",
    "docs/storage.md",
    "docs/verify.md",
    "fuzz/README.md",
    "testdata/README.md",
    "testdata/malformed/README.md",
    "cli/tests/openstack/bed/README.md",
];

fn read(name: &str) -> String {
    std::fs::read_to_string(crate::common::root().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// What GitHub makes of a heading, for links to it.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().trim().to_lowercase().replace(' ', "-")
}

#[test]
fn what_the_documents_link_to_is_there() {
    let mut seen = 0;
    for document in DOCUMENTS {
        let text = read(document);
        let links = text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap());
        for link in links.filter(|l| !l.starts_with("http")) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let from = crate::common::root().join(document);
            let path = if file.is_empty() { from } else { from.parent().unwrap().join(file) };
            assert!(path.exists(), "{document} links to {link}, which is not there");
            if !heading.is_empty() {
                let text = std::fs::read_to_string(path).unwrap();
                let mut headings = text.lines().filter_map(|l| l.strip_prefix('#'));
                assert!(
                    headings.any(|h| anchor(h.trim_start_matches('#')) == heading),
                    "{document} links to {link}: there is no such heading"
                );
            }
            seen += 1;
        }
    }
    assert!(seen > 60, "only {seen} links were found");
}

#[test]
fn each_document_is_led_to() {
    let all: String = DOCUMENTS.iter().map(|document| read(document)).collect();
    for document in &DOCUMENTS[1..] {
        let (_, name) = document.rsplit_once("docs/").unwrap_or(("", document));
        assert!(all.contains(&format!("{name})")) || all.contains(&format!("{name}#")), "nothing links to {document}");
    }
    let docs = std::fs::read_dir(crate::common::root().join("docs")).unwrap();
    for file in docs.map(|f| f.unwrap().file_name().into_string().unwrap()).filter(|f| f.ends_with(".md")) {
        assert!(DOCUMENTS.contains(&format!("docs/{file}").as_str()), "docs/{file} is not in the list of this test");
    }
}

/// An example that a document quotes begins with the name of its file, and is there word for word.
#[test]
fn code_that_the_documents_quote_is_in_the_code() {
    let mut seen = 0;
    for document in DOCUMENTS {
        let text = read(document);
        for block in text.split("```rust\n// ").skip(1) {
            let (file, rest) = block.split_once('\n').unwrap();
            let (code, _) = rest.split_once("```").unwrap();
            assert!(read(file).contains(code), "{document} quotes what {file} does not say any more:\n{code}");
            seen += 1;
        }
    }
    assert!(seen > 4, "only {seen} quotes were found");
}

/// A reader in a hurry finds it on a few screens; the rest is in docs/.
#[test]
fn the_readme_stays_short() {
    let lines = readme().lines().count();
    assert!(lines < 250, "README.md has {lines} lines");
}
