//! Decryptions that end in the middle, by a signal or by a crash, and those that go on after it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::common::{Run, UNLUKS, read_stored, sha256_file, testdata, text, unluks};
use crate::decrypt::{assert_ok, assert_refused, names};

/// An image of OpenStack's, made as long as a test wants with a hole behind it. What a hole decrypts to is noise, but
/// always the same noise.
pub struct Big {
    pub image: PathBuf,
    pub key: PathBuf,
    dir: tempfile::TempDir,
}

impl Big {
    pub fn new(len: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("big.img");
        fs::write(&image, read_stored("openstack-volume.img")).unwrap();
        File::options().write(true).open(&image).unwrap().set_len(len).unwrap();
        Self { image, key: testdata().join("openstack-volume.key"), dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn args(&self, out: &Path) -> Vec<String> {
        let (image, key) = (text(&self.image), text(&self.key));
        [&["decrypt", &image, "--barbican-key", &key, "-o"].map(str::to_owned)[..], &[text(out)]].concat()
    }

    pub fn decrypt(&self, out: &Path, more: &[&str]) -> Run {
        unluks(&[self.args(out), more.iter().map(|s| (*s).to_owned()).collect()].concat())
    }

    fn start(&self, out: &Path) -> Slowed {
        let mut command = Command::new(UNLUKS);
        command.args(self.args(out)).args(["--threads", "1", "--quiet"]).stdin(Stdio::null()).stderr(Stdio::piped());
        Slowed(command.spawn().unwrap())
    }
}

/// A program that is let run for a small part of the time, so that there is a middle to interrupt it in.
struct Slowed(Child);

impl Slowed {
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    /// Lets it run in small steps until `reached`, which must be before its end.
    fn until(mut self, reached: impl Fn() -> bool) -> Self {
        let start = Instant::now();
        while !reached() {
            assert!(self.0.try_wait().unwrap().is_none(), "it ended before it got there");
            assert!(start.elapsed() < Duration::from_secs(120), "it never got there");
            self.signal(Signal::STOP);
            // The journal is kept by the clock, which goes on meanwhile.
            sleep(Duration::from_millis(19));
            self.signal(Signal::CONT);
            sleep(Duration::from_millis(1));
        }
        self
    }

    fn end(self, signal: Signal) -> Output {
        self.signal(signal);
        self.0.wait_with_output().unwrap()
    }
}

impl Big {
    fn journal_of_out(&self) -> PathBuf {
        self.path(".out.unluks-journal")
    }

    /// Whether the journal of `out` says that a part is done.
    fn is_begun(&self) -> bool {
        fs::read_to_string(self.journal_of_out()).is_ok_and(|t| t.contains("\"done\"") && t.ends_with('\n'))
    }
}

#[test]
fn an_interrupt_at_the_start_leaves_nothing() {
    let big = Big::new(512 << 20);
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let started = big.start(&big.path("out")).until(|| big.path(".out.unluks-part").exists());
        let output = started.end(signal);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(130), "{said}");
        assert!(said.contains("stopped before the end") && said.lines().count() == 1, "{said}");
        assert_eq!(names(big.dir.path()), ["big.img"]);
    }
}

#[test]
fn the_end_of_the_terminal_stops_nothing_under_nohup() {
    let big = Big::new(512 << 20);
    for (ignored, code) in [(true, 0), (false, 130)] {
        let out = big.path(if ignored { "kept" } else { "stopped" });
        let trap = if ignored { "trap '' HUP; " } else { "" };
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{trap}exec \"$0\" \"$@\""), UNLUKS]).args(big.args(&out));
        command.args(["--threads", "1", "--quiet"]).stdin(Stdio::null()).stderr(Stdio::piped());
        let part = big.path(&format!(".{}.unluks-part", if ignored { "kept" } else { "stopped" }));
        let output = Slowed(command.spawn().unwrap()).until(|| part.exists()).end(Signal::HUP);
        assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(out.exists(), ignored);
    }
}

#[test]
fn what_was_interrupted_or_killed_goes_on() {
    let big = Big::new(512 << 20);
    let whole = big.path("whole");
    assert_ok(&big.decrypt(&whole, &[]));
    let want = sha256_file(&whole);
    fs::remove_file(&whole).unwrap();
    let out = big.path("out");

    // By Ctrl-C: it says what is kept and how to go on.
    let output = big.start(&out).until(|| big.is_begun()).end(Signal::INT);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("bytes are kept in") && said.contains("--resume"), "{said}");
    assert!(!out.exists());
    let run = big.decrypt(&out, &["--resume", "--hash", "plaintext:sha256"]);
    assert_ok(&run);
    assert!(run.stderr.contains("resuming at byte "), "{}", run.stderr);
    // The hash is of all, also of what was there already.
    assert_eq!(String::from_utf8(run.stdout).unwrap(), format!("{want}  {}\n", text(&out)));
    assert_eq!(sha256_file(&out), want);
    assert_eq!(names(big.dir.path()), ["big.img", "out"]);
    fs::remove_file(&out).unwrap();

    // By the kernel, without a chance to say anything.
    let output = big.start(&out).until(|| big.is_begun()).end(Signal::KILL);
    assert_eq!(output.status.code(), None);
    refuses_to_go_on_with_anything_else(&big, &out);
    let run = big.decrypt(&out, &["--resume"]);
    assert_ok(&run);
    assert_eq!(sha256_file(&out), want);
    assert_eq!(names(big.dir.path()), ["big.img", "out"]);
}

/// Each change since the interruption is found and named; put back, none is left.
fn refuses_to_go_on_with_anything_else(big: &Big, out: &Path) {
    use std::os::unix::fs::FileExt;
    let (part, journal) = (big.path(".out.unluks-part"), big.journal_of_out());
    let refused = |more: &[&str], words: &[&str]| {
        let run = big.decrypt(out, &[&["--resume"], more].concat());
        assert_refused(&run, 2, &[&["cannot resume"], words].concat());
        assert!(!out.exists() && part.exists() && journal.exists());
    };
    refused(&["--skip", "512"], &["another part is wanted"]);
    refused(&["--length", "268435456"], &["another part is wanted"]);
    refused(&["--offset", "0"], &["lies at another place"]);

    // A file of the same length that was changed later.
    let image = File::options().read(true).write(true).open(&big.image).unwrap();
    let changed = image.metadata().unwrap().modified().unwrap();
    image.set_modified(changed + Duration::from_secs(1)).unwrap();
    refused(&[], &["the image was changed since"]);
    image.set_modified(changed).unwrap();

    // Another header: a byte of the salt of keyslot 1, which is not in use, so that it opens all the same.
    let salt = 208 + 48 + 8;
    let mut byte = [0];
    image.read_exact_at(&mut byte, salt).unwrap();
    image.write_all_at(&[byte[0] ^ 1], salt).unwrap();
    image.set_modified(changed).unwrap();
    refused(&[], &["the header is not the one that it was"]);
    image.write_all_at(&byte, salt).unwrap();
    image.set_modified(changed).unwrap();

    // An unfinished output that somebody wrote to.
    let unfinished = File::options().read(true).write(true).open(&part).unwrap();
    unfinished.read_exact_at(&mut byte, 96).unwrap();
    unfinished.write_all_at(&[byte[0] ^ 1], 96).unwrap();
    refused(&[], &["is not what this key and image give"]);
    unfinished.write_all_at(&byte, 96).unwrap();
    let len = unfinished.metadata().unwrap().len();
    unfinished.set_len(len - 1).unwrap();
    refused(&[], &["the unfinished output has"]);
    unfinished.set_len(len).unwrap();

    // The same bytes in another file: who knows what became of the one that the journal speaks of.
    let aside = big.path("aside");
    fs::rename(&part, &aside).unwrap();
    fs::copy(&aside, &part).unwrap();
    refused(&[], &["is not the one that the journal is of"]);
    fs::rename(&aside, &part).unwrap();

    // A journal that is no journal, and one that promises more than there can be.
    let noted = fs::read_to_string(&journal).unwrap();
    let first = noted.lines().next().unwrap();
    for bad in ["".to_owned(), "{}\n".to_owned(), format!("{first}\n{{\"done\":99999999999}}\n"), first.to_owned()] {
        fs::write(&journal, &bad).unwrap();
        refused(&[], &["the journal is damaged"]);
    }
    // A line that a crash cut off does not count, nor does it harm.
    fs::write(&journal, format!("{noted}{{\"done\":9")).unwrap();
}

#[test]
fn nothing_to_go_on_with_is_said() {
    let big = Big::new(3 << 20);
    assert_refused(&big.decrypt(&big.path("out"), &["--resume"]), 2, &["cannot resume", "no journal"]);
    assert_refused(&big.decrypt(Path::new("-"), &["--resume"]), 2, &["a pipe or a device cannot be resumed"]);
    assert_eq!(names(big.dir.path()), ["big.img"]);
}

#[test]
fn a_new_output_has_no_use_for_an_old_journal() {
    let big = Big::new(3 << 20);
    for more in [&[][..], &["--no-sync"]] {
        fs::write(big.journal_of_out(), "{}").unwrap();
        fs::write(big.path(".out.unluks-part"), "old").unwrap();
        assert_ok(&big.decrypt(&big.path("out"), more));
        assert_eq!(names(big.dir.path()), ["big.img", "out"]);
        fs::remove_file(big.path("out")).unwrap();
    }
}

#[test]
fn a_signal_ends_what_waits_for_a_pipe() {
    let big = Big::new(3 << 20);
    let image = fs::read(&big.image).unwrap();
    let mut args = big.args(&big.path("out"));
    args[1] = "-".into();
    let mut command = Command::new(UNLUKS);
    command.args(args).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // The rest of the image never comes.
    let mut stdin = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, &image[..image.len() - 4096]).unwrap();
    let part = big.path(".out.unluks-part");
    let start = Instant::now();
    while !part.exists() {
        assert!(start.elapsed() < Duration::from_secs(60));
        sleep(Duration::from_millis(5));
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(names(big.dir.path()), ["big.img"]);
}

#[test]
fn a_second_run_leaves_the_first_ones_journal_alone() {
    let big = Big::new(512 << 20);
    let out = big.path("out");
    let first = big.start(&out).until(|| big.is_begun());
    first.signal(Signal::STOP);
    let noted = fs::read(big.journal_of_out()).unwrap();
    for more in [&[][..], &["--force"], &["--no-sync"], &["--resume"]] {
        assert_refused(&big.decrypt(&out, more), 2, &["another unluks is writing"]);
        assert_eq!(fs::read(big.journal_of_out()).unwrap(), noted);
    }
    first.end(Signal::KILL);
    assert_ok(&big.decrypt(&out, &["--resume"]));
    assert_eq!(names(big.dir.path()), ["big.img", "out"]);
}

#[test]
fn hours_of_work_are_not_thrown_away_unasked() {
    let big = Big::new(512 << 20);
    let out = big.path("out");
    big.start(&out).until(|| big.is_begun()).end(Signal::KILL);
    let noted = fs::read(big.journal_of_out()).unwrap();
    for more in [&[][..], &["--no-sync"], &["--length", "4096"]] {
        assert_refused(&big.decrypt(&out, more), 2, &["unfinished", "--resume", "--force"]);
        assert_eq!(fs::read(big.journal_of_out()).unwrap(), noted);
    }
    assert_ok(&big.decrypt(&out, &["--force", "--length", "4096"]));
    assert_eq!(names(big.dir.path()), ["big.img", "out"]);
    assert_eq!(fs::metadata(&out).unwrap().len(), 4096);
}
