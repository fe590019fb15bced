//! Where the system gives no thread, a command does with the one that it has, or says in one line that it cannot.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::common::{UNLUKS, install, read_stored, text};

/// A user without any process, so that the first one is the only one. Root has no such limit.
const USER: u32 = 61_234;

struct Stage(tempfile::TempDir);

impl Stage {
    fn new() -> Self {
        let stage = Self(tempfile::tempdir().unwrap());
        let path = |name| stage.0.path().join(name);
        fs::set_permissions(stage.0.path(), fs::Permissions::from_mode(0o777)).unwrap();
        // The build's own directory may be closed to others.
        install(Path::new(UNLUKS), &path("unluks"));
        fs::write(path("image"), read_stored("openstack-volume.img")).unwrap();
        fs::write(path("key"), read_stored("openstack-volume.key")).unwrap();
        stage
    }

    /// Runs the program where it may have no second thread.
    fn alone(&self, args: &[&str]) -> Output {
        let mut command = Command::new("prlimit");
        command.arg("--nproc=1").arg(self.0.path().join("unluks")).args(args);
        command.current_dir(self.0.path()).stdin(Stdio::null());
        if fs::metadata("/proc/self").unwrap().uid() == 0 {
            command.uid(USER).gid(USER);
        }
        command.output().unwrap_or_else(|e| panic!("prlimit of the Debian package util-linux: {e}"))
    }
}

#[test]
fn a_scan_does_with_one_thread() {
    let stage = Stage::new();
    for more in [&[][..], &["--threads", "8", "--progress", "json"]] {
        let run = stage.alone(&[&["scan", "image"], more].concat());
        let (said, told) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
        assert_eq!(run.status.code(), Some(0), "{told}");
        assert!(said.contains("at byte 0") && !told.contains("panicked"), "{said} {told}");
    }
}

#[test]
#[cfg(feature = "nbd")]
fn a_server_that_cannot_start_says_so_in_one_line() {
    let stage = Stage::new();
    let image = text(&stage.0.path().join("image"));
    for more in [&[][..], &["--run", "sleep 100"]] {
        let run = stage.alone(&[&["serve", &image, "--barbican-key", "key", "--quiet"], more].concat());
        let told = String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.status.code(), Some(1), "{told}");
        assert!(told.starts_with("unluks: ") && told.lines().count() == 1, "{told}");
        assert!(told.contains("thread"), "{told}");
    }
}
