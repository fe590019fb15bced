//! What the integration tests share: the golden images with their sidecars, the built program, and small helpers.
//!
//! A test that needs another program fails, and names the Debian package, where that program is missing.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::{Digest, Sha256};

/// The built program.
pub const UNLUKS: &str = env!("CARGO_BIN_EXE_unluks");

/// How long one run of a program may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(120);

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The directory of the golden images.
pub fn testdata() -> PathBuf {
    root().join("testdata")
}

/// A program at `path`, for other users too: a copy of `from`. Another process writes it: while this one holds a file open
/// for writing, a child that a test beside has just forked does so as well, and the system runs no such file (ETXTBSY).
pub fn install(from: &Path, path: &Path) {
    let made = Command::new("install").args(["-m", "755"]).args([from, path]).status();
    assert!(made.unwrap_or_else(|e| panic!("install of the Debian package coreutils: {e}")).success(), "{path:?}");
}

/// A golden image: its sidecar, and its files unpacked into a directory of their own.
pub struct Golden {
    /// The sidecar as it is.
    pub sidecar: Value,
    /// The name without an ending.
    pub name: String,
    /// The unpacked image.
    pub image: PathBuf,
    /// The unpacked detached header, where there is one.
    pub header: Option<PathBuf>,
    /// A file that holds the passphrase and nothing else.
    pub key: PathBuf,
    dir: tempfile::TempDir,
}

impl Golden {
    /// Unpacks the image `name`, its detached header and its passphrase.
    pub fn unpack(name: &str) -> Self {
        let sidecar = sidecar(name);
        let dir = tempfile::tempdir().unwrap();
        let unpack = |file: &str| {
            let to = dir.path().join(file.trim_end_matches(".gz"));
            fs::write(&to, read_stored(file)).unwrap();
            to
        };
        let image = unpack(sidecar["image"].as_str().unwrap());
        assert_eq!(
            sha256_file(&image),
            sidecar["image_sha256"].as_str().unwrap(),
            "{name}: the stored image is another"
        );
        let header = sidecar["header"].as_str().map(unpack);
        let key = dir.path().join("key");
        fs::write(&key, latin1(sidecar["passphrase"].as_str().unwrap())).unwrap();
        Self { name: name.to_owned(), image, header, key, dir, sidecar }
    }

    /// A path for a file beside the image; it goes away with the `Golden`.
    pub fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    /// `unluks decrypt IMAGE [--header H] --key-file K --output OUT`, with the sidecar's own arguments if `own_args`.
    pub fn decrypt(&self, out: &Path, own_args: bool) -> Run {
        let mut args = vec!["decrypt".to_owned(), text(&self.image)];
        if let Some(header) = &self.header {
            args.extend(["--header".to_owned(), text(header)]);
        }
        args.extend(["--key-file".to_owned(), text(&self.key), "--output".to_owned(), text(out)]);
        let more = self.sidecar["expect"]["args"].as_array().into_iter().flatten().filter(|_| own_args);
        args.extend(more.map(|a| a.as_str().unwrap().to_owned()));
        unluks(&args)
    }

    /// Whether the sidecar has the tag.
    pub fn has_tag(&self, tag: &str) -> bool {
        self.sidecar["tags"].as_array().unwrap().iter().any(|t| t == tag)
    }
}

/// The names of all golden images, sorted.
pub fn golden_names() -> Vec<String> {
    let entries = fs::read_dir(testdata()).unwrap().map(|e| e.unwrap().path());
    let mut names: Vec<_> = entries
        .filter(|p| p.extension().is_some_and(|e| e == "json") && p.file_name().is_some_and(|n| n != "spec.json"))
        .map(|p| p.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

/// The sidecar of an image.
pub fn sidecar(name: &str) -> Value {
    let path = testdata().join(format!("{name}.json"));
    serde_json::from_slice(&fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).unwrap()
}

/// A file of testdata, decompressed where its name ends in `.gz`.
pub fn read_stored(file: &str) -> Vec<u8> {
    let path = testdata().join(file);
    let stored = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    if !file.ends_with(".gz") {
        return stored;
    }
    let mut out = Vec::new();
    flate2::read::GzDecoder::new(stored.as_slice()).read_to_end(&mut out).unwrap();
    out
}

/// What a program did.
#[derive(Debug)]
pub struct Run {
    /// Its exit code; a signal is `None`.
    pub code: Option<i32>,
    /// What it wrote to stdout.
    pub stdout: Vec<u8>,
    /// What it wrote to stderr.
    pub stderr: String,
}

impl Run {
    fn new(output: Output) -> Self {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        Self { code: output.status.code(), stdout: output.stdout, stderr }
    }

    /// Why this run is not a decent refusal with one of the exit codes: a crash, no word, or more than one line that
    /// says why. What the program told before it came to the error may stand above that line.
    pub fn refusal_fault(&self, codes: &[i32]) -> Option<String> {
        let last = self.stderr.lines().last().unwrap_or_default();
        let errors = self.stderr.lines().filter(|l| l.starts_with("unluks: ")).count();
        match self.code {
            Some(code) if !codes.contains(&code) => Some(format!("exit {code}, not {codes:?}: {last:?}")),
            None => Some(format!("ended by a signal: {:?}", self.stderr)),
            Some(_) if errors != 1 || !last.starts_with("unluks: ") => {
                Some(format!("the last line of stderr is not the one that says why: {:?}", self.stderr))
            }
            Some(_) => None,
        }
    }
}

/// Runs the built program with an empty stdin.
pub fn unluks<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Run {
    unluks_with_stdin(args, &[])
}

/// Runs the built program with `stdin`.
pub fn unluks_with_stdin<S: AsRef<std::ffi::OsStr>>(args: &[S], stdin: &[u8]) -> Run {
    let mut command = Command::new(UNLUKS);
    command.args(args);
    run(&mut command, stdin).unwrap_or_else(|e| panic!("{UNLUKS}: {e}"))
}

/// Runs another program.
///
/// # Panics
/// Where it is not installed, with the name of the Debian package that brings it.
pub fn peer<S: AsRef<std::ffi::OsStr>>(program: &str, package: &str, args: &[S]) -> Run {
    // Programs for the administrator are not on the path of every user.
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let found = std::env::split_paths(&path).map(|d| d.join(program)).find(|p| p.is_file());
    let found = found.unwrap_or_else(|| panic!("{program} is not installed: apt-get install {package}"));
    run(Command::new(found).args(args), &[]).unwrap_or_else(|e| panic!("{program}: {e}"))
}

/// Runs a command to its end, feeding and draining its pipes at the same time; one that hangs is ended.
fn run(command: &mut Command, stdin: &[u8]) -> std::io::Result<Run> {
    let mut child =
        command.env_remove("NO_COLOR").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut input = child.stdin.take().unwrap();
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    std::thread::scope(|s| {
        // A program that ends without reading its stdin closes the pipe: that is its right.
        s.spawn(move || input.write_all(stdin).ok());
        let out = s.spawn(move || read_all(&mut out));
        let err = s.spawn(move || read_all(&mut err));
        let start = Instant::now();
        let mut pause = Duration::from_millis(1);
        let status = loop {
            match child.try_wait()? {
                Some(status) => break status,
                None if start.elapsed() > PATIENCE => {
                    child.kill()?;
                    child.wait()?;
                    panic!("{command:?}: no end within {PATIENCE:?}");
                }
                None => std::thread::sleep(pause),
            }
            pause = (pause * 2).min(Duration::from_millis(20));
        };
        Ok(Run::new(Output { status, stdout: out.join().unwrap()?, stderr: err.join().unwrap()? }))
    })
}

fn read_all(from: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The plaintext of the golden images that hold no file system: SHA-256 of the name, its SHA-256, and so on.
pub fn chain(seed: &str, size: usize) -> Vec<u8> {
    let mut block = Sha256::digest(seed.as_bytes());
    let mut out = Vec::with_capacity(size + 32);
    while out.len() < size {
        block = Sha256::digest(block);
        out.extend_from_slice(&block);
    }
    out.truncate(size);
    out
}

/// SHA-256 in lower-case hex.
pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// SHA-256 of a file in lower-case hex.
pub fn sha256_file(path: &Path) -> String {
    sha256(&fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
}

/// The bytes of a text that holds one byte in each character, as the sidecars keep passphrases.
pub fn latin1(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect()
}

/// A path as text.
pub fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Runs `check` for each item on a few threads, and fails once, with everything that went wrong.
///
/// `check` gives the fault it found, or panics.
pub fn check_all<T: Sync>(
    items: &[T],
    name: impl Fn(&T) -> String + Sync,
    check: impl Fn(&T) -> Option<String> + Sync,
) {
    assert!(!items.is_empty(), "there is nothing to check");
    let next = std::sync::atomic::AtomicUsize::new(0);
    let faults = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|s| {
        for _ in 0..std::thread::available_parallelism().map_or(2, |n| n.get()) {
            s.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    let fault = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(item)));
                    let fault = fault.unwrap_or_else(|p| {
                        let words =
                            p.downcast_ref::<String>().map(String::as_str).or(p.downcast_ref::<&str>().copied());
                        Some(words.unwrap_or("panicked").to_owned())
                    });
                    if let Some(fault) = fault {
                        faults.lock().unwrap().push(format!("{}: {fault}", name(item)));
                    }
                }
            });
        }
    });
    let mut faults = faults.into_inner().unwrap();
    faults.sort();
    assert!(faults.is_empty(), "{} of {} are wrong:\n{}", faults.len(), items.len(), faults.join("\n"));
}

/// Changes the metadata of a LUKS2 image with header copies of 16 KiB, in both of them.
pub fn change_luks2(path: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    const COPY: usize = 0x4000;
    let mut image = std::fs::read(path).unwrap();
    let text = image[4096..COPY].split(|b| *b == 0).next().unwrap();
    let mut metadata = serde_json::from_slice(text).unwrap();
    change(&mut metadata);
    let json = metadata.to_string();
    for copy in image[..2 * COPY].chunks_exact_mut(COPY) {
        copy[4096..].fill(0);
        copy[4096..][..json.len()].copy_from_slice(json.as_bytes());
        copy[448..512].fill(0);
        let sum = Sha256::digest(&*copy);
        copy[448..480].copy_from_slice(&sum);
    }
    std::fs::write(path, image).unwrap();
}
