//! The rules of LUKS2 headers, one changed header for each: `unluks inspect` must accept and refuse what is written
//! here, and so must the real `cryptsetup luksDump`, which is run on a copy (it repairs what it reads).
//!
//! `known` has the cases that cryptsetup itself is tested with, `more` those of our own.

mod known;
mod more;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::LazyLock;

use serde_json::Value;
use sha2::{Digest, Sha256, Sha512};

use crate::common::{check_all, peer, read_stored, text, unluks};

/// The binary header.
const BIN: usize = 4096;
/// The base header's size of one copy: 16 KiB.
pub const SIZE: usize = 0x4000;
/// How long the files are: the data of the base header begin at 16 MiB.
const LENGTH: u64 = 17 << 20;

/// What must happen to a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Exit 0.
    Accept,
    /// Exit 4.
    Refuse,
    /// Exit 5: nothing is broken, but nobody knows it. cryptsetup has one answer for this and for what is broken.
    Unknown,
}
pub use Verdict::{Accept, Refuse, Unknown};

/// One changed header.
pub struct Case {
    name: String,
    verdict: Verdict,
    /// Versions of cryptsetup below this one come to the other verdict.
    since: (u32, u32),
    /// We refuse what cryptsetup accepts.
    stricter: bool,
    start: Start,
    change: Box<dyn Fn(&mut Draft) + Sync>,
}

/// The header a case begins with.
#[derive(Clone, Copy)]
enum Start {
    Plain,
    Reencrypting,
}

/// A case on the plain base header.
pub fn case(verdict: Verdict, name: impl Into<String>, change: impl Fn(&mut Draft) + Sync + 'static) -> Case {
    Case { name: name.into(), verdict, since: (2, 0), stricter: false, start: Start::Plain, change: Box::new(change) }
}

impl Case {
    /// The rule came with this version of cryptsetup.
    pub fn since(mut self, major: u32, minor: u32) -> Self {
        self.since = (major, minor);
        self
    }

    /// We refuse what cryptsetup accepts.
    pub fn stricter(mut self) -> Self {
        self.stricter = true;
        self
    }

    /// The case begins with a header in which a reencryption was started.
    pub fn reencrypting(mut self) -> Self {
        self.start = Start::Reencrypting;
        self
    }
}

/// One header copy that is being changed.
#[derive(Clone)]
pub struct Copy {
    /// The binary header; sizes, offset and checksum are set when it is written.
    pub bin: Vec<u8>,
    /// The metadata.
    pub json: Value,
    /// The JSON area's bytes, where they are not the metadata as compact JSON.
    pub area: Option<Vec<u8>>,
    /// Where the copy is written.
    pub at: u64,
    /// What its header says of its place.
    pub hdr_offset: u64,
    /// What its header says of its size.
    pub hdr_size: u64,
    /// How large it is in truth.
    pub room: usize,
    /// Bytes of the finished copy that are changed at the very end.
    pub finish: Vec<(usize, Vec<u8>)>,
}

impl Copy {
    /// Destroys the magic.
    pub fn kill(&mut self) {
        self.finish.push((0, b"VACUUM".to_vec()));
    }

    /// Replaces bytes of the binary header, before the checksum is made.
    pub fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bin[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// The metadata as text.
    pub fn text(&self) -> String {
        self.json.to_string()
    }

    fn bytes(&self) -> Vec<u8> {
        let mut copy = self.bin.clone();
        copy[8..16].copy_from_slice(&self.hdr_size.to_be_bytes());
        copy[256..264].copy_from_slice(&self.hdr_offset.to_be_bytes());
        copy[448..512].fill(0);
        copy.extend(self.area.clone().unwrap_or_else(|| self.text().into_bytes()));
        assert!(copy.len() <= self.room, "the JSON does not fit");
        copy.resize(self.room, 0);
        let sum = match &self.bin[72..79] {
            b"sha512\0" => Sha512::digest(&copy).to_vec(),
            _ => Sha256::digest(&copy).to_vec(),
        };
        copy[448..448 + sum.len()].copy_from_slice(&sum);
        for (at, bytes) in &self.finish {
            copy[*at..*at + bytes.len()].copy_from_slice(bytes);
        }
        copy
    }
}

/// A whole header that is being changed.
#[derive(Clone)]
pub struct Draft {
    /// The copy at the start.
    pub primary: Copy,
    /// The copy behind it.
    pub secondary: Copy,
    /// How long the file is.
    pub length: u64,
}

impl Draft {
    fn new(stored: &[u8]) -> Self {
        let copy = |at: usize| {
            let bin = stored[at..at + BIN].to_vec();
            let area = &stored[at + BIN..at + SIZE];
            let end = area.iter().position(|b| *b == 0).unwrap();
            let offset = at.try_into().unwrap();
            Copy {
                bin,
                json: serde_json::from_slice(&area[..end]).unwrap(),
                area: None,
                at: offset,
                hdr_offset: offset,
                hdr_size: SIZE.try_into().unwrap(),
                room: SIZE,
                finish: Vec::new(),
            }
        };
        Self { primary: copy(0), secondary: copy(SIZE), length: LENGTH }
    }

    /// Changes the primary's metadata; the secondary is destroyed.
    pub fn alone(&mut self, change: impl Fn(&mut Value)) {
        change(&mut self.primary.json);
        self.secondary.kill();
    }

    /// Changes both copies' metadata.
    pub fn json(&mut self, change: impl Fn(&mut Value)) {
        change(&mut self.primary.json);
        change(&mut self.secondary.json);
    }

    /// Gives the primary's JSON area other bytes, made from the metadata's text; the secondary is destroyed.
    pub fn area(&mut self, change: impl Fn(String) -> Vec<u8>) {
        self.primary.area = Some(change(self.primary.text()));
        self.secondary.kill();
    }

    /// Changes both copies.
    pub fn copies(&mut self, change: impl Fn(&mut Copy)) {
        change(&mut self.primary);
        change(&mut self.secondary);
    }

    /// Makes both copies `size` bytes large, and moves the keyslots behind them.
    pub fn resize(&mut self, size: usize) {
        let moved = 2 * (u64::try_from(size).unwrap() - self.primary.hdr_size);
        self.json(|j| {
            j["config"]["json_size"] = (size - BIN).to_string().into();
            for k in j["keyslots"].as_object_mut().unwrap().values_mut() {
                let area = &mut k["area"]["offset"];
                *area = (number(area) + moved).to_string().into();
            }
        });
        let offset = size.try_into().unwrap();
        self.copies(|c| (c.hdr_size, c.room) = (offset, size));
        (self.secondary.at, self.secondary.hdr_offset) = (offset, offset);
    }

    fn write(&self, path: &Path) {
        let file = File::create(path).unwrap();
        file.set_len(self.length).unwrap();
        for copy in [&self.secondary, &self.primary] {
            let bytes = copy.bytes();
            let room = usize::try_from(self.length.saturating_sub(copy.at)).unwrap().min(bytes.len());
            file.write_all_at(&bytes[..room], copy.at).unwrap();
        }
    }
}

/// A decimal string of the metadata.
pub fn number(value: &Value) -> u64 {
    value.as_str().unwrap().parse().unwrap()
}

/// Removes a key of an object.
pub fn remove(object: &mut Value, key: &str) {
    object.as_object_mut().unwrap().remove(key).unwrap_or_else(|| panic!("there is no {key}"));
}

static PLAIN: LazyLock<Vec<u8>> = LazyLock::new(|| read_stored("header-luks2.gz"));
static REENCRYPTING: LazyLock<Vec<u8>> = LazyLock::new(|| read_stored("l2-reencrypt-init.img.gz"));

/// The version of the installed cryptsetup.
fn cryptsetup_version() -> (u32, u32) {
    let said = String::from_utf8(peer("cryptsetup", "cryptsetup-bin", &["--version"]).stdout).unwrap();
    let mut parts = said.split_whitespace().nth(1).unwrap().split('.').map(|p| p.parse().unwrap());
    (parts.next().unwrap(), parts.next().unwrap())
}

fn check(case: &Case, version: Option<(u32, u32)>) -> Option<String> {
    let stored = match case.start {
        Start::Plain => &*PLAIN,
        Start::Reencrypting => &*REENCRYPTING,
    };
    let mut draft = Draft::new(stored);
    (case.change)(&mut draft);
    let dir = tempfile::tempdir().unwrap();
    let [ours, theirs] = ["ours", "theirs"].map(|f| dir.path().join(f));
    draft.write(&ours);
    draft.write(&theirs);
    let mut faults = Vec::new();

    if let Some(version) = version {
        let run = peer("cryptsetup", "cryptsetup-bin", &["luksDump", "--disable-locks", &text(&theirs)]);
        let new_enough = version >= case.since;
        let accepted = case.stricter || (case.verdict == Accept) == new_enough;
        if (run.code == Some(0)) != accepted {
            let words = String::from_utf8_lossy(&run.stdout);
            let words = words.lines().chain(run.stderr.lines()).last().unwrap_or_default();
            faults.push(format!("cryptsetup {version:?} exits {:?}: {words}", run.code));
        }
    }

    let run = unluks(&["inspect", &text(&ours)]);
    match case.verdict {
        Accept if run.code == Some(0) && !run.stdout.is_empty() => {}
        Accept => faults.push(format!("must be accepted; exit {:?}: {}", run.code, run.stderr.trim_end())),
        Refuse => faults.extend(run.refusal_fault(&[4]).map(|f| format!("must be refused; {f}"))),
        Unknown => faults.extend(run.refusal_fault(&[5]).map(|f| format!("must be refused; {f}"))),
    }
    (!faults.is_empty()).then(|| faults.join("\n    "))
}

fn check_table(cases: &[Case]) {
    let mut names: Vec<_> = cases.iter().map(|c| &c.name).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), cases.len(), "two cases have one name");
    let version = cfg!(feature = "peer-tests").then(cryptsetup_version);
    check_all(cases, |case| case.name.clone(), |case| check(case, version));
}

#[test]
fn cryptsetup_s_own_cases() {
    let cases = known::cases();
    let accepted = cases.iter().filter(|c| c.verdict == Accept).count();
    assert_eq!((accepted, cases.len() - accepted), (30, 55));
    check_table(&cases);
}

#[test]
fn cases_of_our_own() {
    check_table(&more::cases());
}
