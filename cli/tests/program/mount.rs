//! `unluks mount`, where there is a kernel that mounts.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Golden, UNLUKS, peer, sha256_file, text, unluks};

const PATIENCE: Duration = Duration::from_secs(30);

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether something is mounted there.
fn is_mounted(dir: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mounts").unwrap();
    let dir = text(&dir.canonicalize().unwrap_or_else(|_| dir.to_owned()));
    table.lines().any(|line| line.split(' ').nth(1) == Some(&dir))
}

/// A mount for a test, which goes with it.
struct Mounted {
    program: Child,
    dir: PathBuf,
}

impl Mounted {
    fn new(golden: &Golden, args: &[&str]) -> Self {
        let dir = golden.path("at");
        fs::create_dir_all(&dir).unwrap();
        let mut command = Command::new(UNLUKS);
        command.args([&["mount", "--quiet"], args].concat()).arg(&dir).stdin(Stdio::null()).stderr(Stdio::piped());
        let mut program = command.spawn().unwrap();
        until("a mount", || dir.join("plain").exists() || program.try_wait().unwrap().is_some());
        Self { program, dir }
    }

    fn of(golden: &Golden) -> Self {
        Self::new(golden, &["--key-file", &text(&golden.key), &text(&golden.image)])
    }

    /// Sends a signal, and waits for the end.
    fn ended_by(mut self, signal: &str) -> Option<i32> {
        assert_eq!(peer("kill", "procps", &[signal, &self.program.id().to_string()]).code, Some(0));
        let code = self.program.wait().unwrap().code();
        assert!(!is_mounted(&self.dir), "{signal} leaves a mount behind");
        code
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.program.try_wait().unwrap().is_none() {
            let _ = peer("kill", "procps", &["-TERM", &self.program.id().to_string()]);
            let _ = self.program.wait();
        }
    }
}

/// Says it loudly where nothing can be mounted.
fn can_mount() -> bool {
    let can = Path::new("/dev/fuse").exists();
    if !can {
        let _ = writeln!(std::io::stderr(), "SKIPPED: there is no /dev/fuse here, so nothing is mounted");
    }
    can
}

#[test]
fn the_plaintext_and_its_files_are_there_and_cannot_be_changed() {
    if !can_mount() {
        return;
    }
    let golden = Golden::unpack("l2-ext4");
    let plain = golden.path("decrypted");
    assert_eq!(golden.decrypt(&plain, true).code, Some(0));
    let mounted = Mounted::of(&golden);
    let at = |path: &str| mounted.dir.join(path);
    assert_eq!(sha256_file(&at("plain")), sha256_file(&plain));
    assert_eq!(at("plain").metadata().unwrap().len(), plain.metadata().unwrap().len());
    let names = |path: &str| {
        let mut names: Vec<_> =
            fs::read_dir(at(path)).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(
        (names(""), names("files")),
        (vec!["files".into(), "plain".into()], vec!["hello.txt".into(), "lost+found".into()])
    );
    let listed = unluks(&["cat", "--quiet", "--key-file", &text(&golden.key), &text(&golden.image), "/hello.txt"]);
    assert_eq!(fs::read(at("files/hello.txt")).unwrap(), listed.stdout);
    assert_eq!(at("files/none").metadata().unwrap_err().kind(), std::io::ErrorKind::NotFound);
    // In the middle, across the end, and behind it.
    let bytes = fs::read(&plain).unwrap();
    let mut file = fs::File::open(at("plain")).unwrap();
    let mut piece = vec![0; 5000];
    file.read_exact_at(&mut piece, 12_345).unwrap();
    assert_eq!(piece, bytes[12_345..17_345]);
    file.seek(SeekFrom::End(-100)).unwrap();
    assert_eq!(file.read(&mut piece).unwrap(), 100);
    assert_eq!(file.read(&mut piece).unwrap(), 0);
    // Nothing can be written or run, and nobody else may enter.
    for path in ["plain", "files/hello.txt", "new", "files/new"] {
        let refused = fs::OpenOptions::new().write(true).create(true).truncate(false).open(at(path));
        assert_eq!(refused.unwrap_err().raw_os_error(), Some(30), "{path} can be written");
    }
    assert_eq!(fs::remove_file(at("files/hello.txt")).unwrap_err().raw_os_error(), Some(30));
    let hello = at("files/hello.txt").metadata().unwrap();
    assert_eq!((hello.permissions().mode() & 0o7777, hello.len()), (0o444, 6));
    assert_eq!(hello.uid(), own_uid());
    let table = fs::read_to_string("/proc/self/mounts").unwrap();
    let line = table.lines().find(|line| line.contains(&text(&mounted.dir))).unwrap();
    for option in ["ro,", "nosuid", "nodev", "noexec", "default_permissions"] {
        assert!(line.contains(option), "{option}: {line}");
    }
    assert!(!line.contains("allow_other"), "{line}");
}

/// Who runs this.
fn own_uid() -> u32 {
    fs::metadata("/proc/self").unwrap().uid()
}

#[test]
fn a_mount_ends_by_a_signal_by_its_parent_and_by_umount() {
    if !can_mount() {
        return;
    }
    let golden = Golden::unpack("l2-ext4");
    assert_eq!(Mounted::of(&golden).ended_by("-TERM"), Some(0));
    assert_eq!(Mounted::of(&golden).ended_by("-INT"), Some(0));
    // A file that somebody has open does not keep it.
    let mounted = Mounted::of(&golden);
    let open = fs::File::open(mounted.dir.join("plain")).unwrap();
    assert_eq!(mounted.ended_by("-TERM"), Some(0));
    assert!(open.read_at(&mut [0; 16], 0).is_err() || open.metadata().is_ok());
    drop(open);
    let mut mounted = Mounted::of(&golden);
    let done = peer("fusermount3", "fuse3", &["-u", &text(&mounted.dir)]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert_eq!(mounted.program.wait().unwrap().code(), Some(0));
    // Its parent is a shell, which is killed.
    let dir = mounted.dir.clone();
    let script = format!(
        "{UNLUKS} mount --quiet --key-file {} {} {} & wait",
        text(&golden.key),
        text(&golden.image),
        text(&dir)
    );
    let mut shell = Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).spawn().unwrap();
    until("a mount of a shell's", || dir.join("plain").exists());
    shell.kill().unwrap();
    shell.wait().unwrap();
    until("the end of an orphan", || !is_mounted(&dir));
}

#[test]
fn volumes_are_directories_as_ls_names_them() {
    if !can_mount() {
        return;
    }
    let golden = Golden::unpack("l2-ext4");
    let disk = crate::files::disk(&golden);
    let mounted = Mounted::new(&golden, &[&text(&disk)]);
    let at = |path: &str| mounted.dir.join(path);
    assert_eq!(sha256_file(&at("plain")), sha256_file(&disk));
    assert_eq!(fs::read_dir(at("files")).unwrap().count(), 1, "what is not read is left out");
    assert_eq!(fs::read(at("files/1/hello.txt")).unwrap().len(), 6);
    assert!(!at("files/2").exists() && at("files/1/lost+found").is_dir());
}

#[test]
fn what_cannot_be_mounted_is_refused_before_a_key_is_asked_for() {
    let golden = Golden::unpack("l2-ext4");
    let (image, full) = (text(&golden.image), golden.path("full"));
    fs::create_dir(&full).unwrap();
    fs::write(full.join("file"), "").unwrap();
    for (dir, says) in [
        (golden.path("none"), "there is no such directory"),
        (golden.image.clone(), "it is no directory"),
        (full, "it is not empty"),
    ] {
        let refused = unluks(&["mount", "--key-file", &text(&golden.path("no-key")), &image, &text(&dir)]);
        assert_eq!(refused.refusal_fault(&[2]), None, "{}", refused.stderr);
        assert!(refused.stderr.contains(says), "{}", refused.stderr);
    }
}
