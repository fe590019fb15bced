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
    // 130 is what an interrupt gives: tests/decrypt/interrupted.rs.
    assert_eq!(exit_codes(), [0, 1, 2, 3, 4, 5, 6, 130]);
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

#[test]
fn files_that_the_readme_links_to_are_there() {
    let readme = readme();
    let links = readme.split("](").skip(1).map(|rest| rest.split(')').next().unwrap());
    let mut seen = 0;
    for link in links.filter(|l| !l.starts_with("http")) {
        let path = crate::common::root().join(link);
        assert!(path.exists(), "README.md links to {link}, which is not there");
        seen += 1;
    }
    assert!(seen > 5, "only {seen} links were found");
}
