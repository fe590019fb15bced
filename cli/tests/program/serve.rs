//! What `unluks serve` does as a program: socket activation, captive mode, signals, the pid file, and what it refuses.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::nbd_support::*;
use rustix::process::{Pid, Signal, kill_process};

const UNLUKS: &str = env!("CARGO_BIN_EXE_unluks");
const SIZE: usize = 5 << 20;

/// An image that QEMU encrypted, and the file with its passphrase; made once for all tests, in the build folder.
fn luks() -> &'static [PathBuf; 2] {
    static MADE: OnceLock<[PathBuf; 2]> = OnceLock::new();
    MADE.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("nbd_program");
        std::fs::create_dir_all(&dir).unwrap();
        let [plain, image, key] = ["plain", "disk.img", "key"].map(|name| dir.join(name));
        std::fs::write(&plain, known(0, SIZE)).unwrap();
        std::fs::write(&key, "a passphrase").unwrap();
        let secret = format!("secret,id=s,file={}", key.display());
        let mut convert = command(["qemu-img", "convert", "--object", &secret, "-f", "raw", "-O", "luks", "-o"]);
        convert.arg("key-secret=s,iter-time=10").arg(&plain).arg(&image);
        peer_ok("qemu-utils", &mut convert);
        [image, key]
    })
}

/// The program, its subcommand, the image and its key.
fn words() -> [&'static str; 5] {
    let [image, key] = luks();
    [UNLUKS, "serve", image.to_str().unwrap(), "--key-file", key.to_str().unwrap()]
}

/// An empty folder for sockets and other files.
struct Scene {
    dir: tempfile::TempDir,
}

fn scene() -> Scene {
    Scene { dir: tempfile::tempdir().unwrap() }
}

impl Scene {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn is_empty(&self) -> bool {
        std::fs::read_dir(self.dir.path()).unwrap().next().is_none()
    }

    /// The program on the image, with `args`, its sockets in the scene's folder.
    fn serve<A: AsRef<std::ffi::OsStr>>(&self, args: &[A]) -> Command {
        let mut command = command(words());
        command.args(args).env("XDG_RUNTIME_DIR", self.dir.path());
        command
    }
}

fn wait_for(what: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !what() {
        assert!(Instant::now() < deadline, "it takes too long");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), signal).unwrap();
}

/// Waits for the end, but not for ever.
fn end(mut child: Child) -> std::process::ExitStatus {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match child.try_wait().unwrap() {
            Some(status) => return status,
            None if Instant::now() > deadline => {
                let _ = child.kill();
                panic!("it does not stop");
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn first_line(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

#[test]
fn libnbd_tools_activate_it() {
    let s = scene();
    let copy = s.path("copy");
    let activated = |before: &[&str], after: &[&str]| {
        let mut command = Command::new(before[0]);
        command.args(&before[1..]).arg("[").args(words()).arg("]").args(after);
        command
    };
    let info = peer_ok("libnbd-bin", &mut activated(&["nbdinfo", "--json", "--"], &[]));
    let json: serde_json::Value = serde_json::from_str(&info).expect("nothing but nbdinfo's own output");
    assert_eq!(json["exports"][0]["export-size"], 5 << 20);
    let out = copy.to_str().unwrap();
    peer_ok("libnbd-bin", &mut activated(&["nbdcopy", "--"], &[out]));
    assert!(known(0, SIZE) == std::fs::read(&copy).unwrap());
    let mount = s.path("mount");
    std::fs::create_dir(&mount).unwrap();
    let file = mount.join("disk");
    let mut fuse = activated(&["nbdfuse", "-r", file.to_str().unwrap()], &[]);
    let fuse = fuse.spawn().unwrap_or_else(|e| panic!("nbdfuse does not run ({e}): install nbdfuse and fuse3"));
    wait_for(|| file.exists());
    let same = std::fs::read(&file).unwrap() == known(0, SIZE);
    signal(&fuse, Signal::TERM);
    end(fuse);
    assert!(same);
}

#[test]
fn systemd_activates_it() {
    let s = scene();
    let socket = s.path("activated");
    let mut command = Command::new("systemd-socket-activate");
    command.arg("-l").arg(&socket).arg("--").args(words()).stderr(Stdio::null());
    let child = command.spawn().unwrap_or_else(|e| panic!("systemd-socket-activate ({e}): install systemd"));
    wait_for(|| socket.exists());
    peer_ok("libnbd-bin", Command::new("nbdinfo").arg(format!("nbd+unix:///?socket={}", socket.display())));
    signal(&child, Signal::TERM);
    assert!(end(child).success());
}

#[test]
fn activation_for_another_process_is_none_and_nonsense_is_refused() {
    let s = scene();
    let ours = |count: &str| format!("LISTEN_PID=$$ LISTEN_FDS={count} exec {}", words().join(" "));
    for (line, part) in [(ours("1"), "descriptor 3"), (ours("many"), "LISTEN_FDS"), (ours("1000000000"), "LISTEN_FDS")]
    {
        let out = Command::new("sh").arg("-c").arg(format!("{line} 3</dev/null")).output().unwrap();
        let text = String::from_utf8_lossy(&out.stderr);
        assert!(!out.status.success() && text.contains(part), "{text}");
    }
    let out = s.serve(&["--run", "exit 5"]).env("LISTEN_PID", "1").env("LISTEN_FDS", "1").output().unwrap();
    assert_eq!(out.status.code(), Some(5));
}

#[test]
fn captive_commands_get_the_uri_and_give_the_exit_code() {
    let s = scene();
    let run = |args: &[&str]| s.serve(args).output().unwrap();
    let out =
        run(&["--export-name", "a b", "--run", r#"echo "$uri"; echo "$exportname"; nbdinfo --size "$uri"; exit 7"#]);
    let text = String::from_utf8_lossy(&out.stdout);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(out.status.code(), Some(7), "{text}");
    assert!(lines[0].starts_with("nbd+unix:///a%20b?socket="), "{text}");
    assert_eq!(lines[1..], ["a b", "5242880"]);
    let out = run(&["--", "sh", "-c", r#"nbdinfo --size "$uri"; kill -9 $$"#]);
    assert_eq!((out.status.code(), &out.stdout[..]), (Some(128 + 9), &b"5242880\n"[..]));
    let out = run(&["--listen", "127.0.0.1:0", "--run", r#"test "$uri" = "nbd://127.0.0.1:$port/" && nbdinfo "$uri""#]);
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
    let out = run(&["--", "/nonexistent/program"]);
    assert!(String::from_utf8_lossy(&out.stderr).contains("/nonexistent/program"));
    assert_eq!(out.status.code(), Some(1));
    assert!(!run(&["--run", "true", "--", "true"]).status.success(), "one command at most");
    assert!(s.is_empty(), "no socket and no folder is left");
}

#[test]
fn a_signal_reaches_the_captive_command() {
    let s = scene();
    let mut command = s.serve(&["--run", "echo up; exec sleep 60"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    assert_eq!(first_line(&mut child), "up");
    let started = Instant::now();
    signal(&child, Signal::TERM);
    assert_eq!(end(child).code(), Some(128 + 15));
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn it_tells_its_uri_and_cleans_up_on_signals() {
    for stop in [Signal::TERM, Signal::INT] {
        let s = scene();
        let pid_file = s.path("pid");
        let args = ["--pid-file", pid_file.to_str().unwrap(), "--description", "text"];
        let mut child = s.serve(&args).stdout(Stdio::piped()).spawn().unwrap();
        let uri = first_line(&mut child);
        peer_ok("libnbd-bin", &mut command(["nbdinfo", &uri]));
        assert_eq!(std::fs::read_to_string(&pid_file).unwrap(), format!("{}\n", child.id()));
        signal(&child, stop);
        assert_eq!(end(child).code(), Some(0));
        assert!(!pid_file.exists());
        assert!(s.is_empty());
    }
}

#[test]
fn the_pid_file_comes_after_the_socket_which_is_private_and_goes() {
    let s = scene();
    let (socket, pid_file) = (s.path("sock"), s.path("pid"));
    let start = || {
        let args = ["--socket", socket.to_str().unwrap(), "--pid-file", pid_file.to_str().unwrap()];
        let child = s.serve(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_for(|| pid_file.exists());
        child
    };
    let child = start();
    // Whoever saw the pid file can connect.
    UnixStream::connect(&socket).unwrap().read_exact(&mut [0; 18]).unwrap();
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let second = s.serve(&["--socket", socket.to_str().unwrap()]).output().unwrap();
    assert!(String::from_utf8_lossy(&second.stderr).contains("in use"));
    // Killed, it leaves its socket behind; the next one takes the place.
    signal(&child, Signal::KILL);
    assert_eq!(end(child).signal(), Some(9));
    std::fs::remove_file(&pid_file).unwrap();
    assert!(socket.exists());
    let child = start();
    UnixStream::connect(&socket).unwrap().read_exact(&mut [0; 18]).unwrap();
    signal(&child, Signal::TERM);
    assert!(end(child).success());
    assert!(!socket.exists());
}

#[test]
fn it_ends_with_its_parent() {
    let s = scene();
    let socket = s.path("sock");
    // The shell starts it, waits until it serves, and ends.
    let pid = s.path("pid").display().to_string();
    let line = format!(
        "{} --exit-with-parent --socket {} --pid-file {pid} >/dev/null & while ! test -e {pid}; do sleep 0.02; done; cat {pid}",
        words().join(" "),
        socket.display(),
    );
    let out = Command::new("sh").arg("-c").arg(line).output().unwrap();
    assert!(out.status.success() && !out.stdout.is_empty());
    wait_for(|| !socket.exists());
}

#[test]
fn what_is_open_to_others_wants_tls_or_a_word() {
    let s = scene();
    for address in ["0.0.0.0:0", "[::]:0"] {
        let out = s.serve(&["--listen", address, "--run", "true"]).output().unwrap();
        let text = String::from_utf8_lossy(&out.stderr);
        assert!(!out.status.success() && text.contains("--insecure-listen"), "{text}");
        assert!(s.serve(&["--listen", address, "--insecure-listen", "--run", "true"]).status().unwrap().success());
        let (dir, _) = certificates();
        let dir = dir.to_str().unwrap();
        let run = format!(r#"nbdinfo "$uri?tls-certificates={dir}""#);
        let out = s.serve(&["--listen", address, "--tls-certificates", dir, "--run", &run]).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
    for address in ["127.0.0.1:0", "[::1]:0", "localhost:0"] {
        assert!(s.serve(&["--listen", address, "--run", "true"]).status().unwrap().success(), "{address}");
    }
    for (args, part) in [
        (&["--listen", "nonsense"][..], "--listen"),
        (&["--tls-verify-peer"], "--tls-certificates"),
        (&["--max-connections", "0"], "1 or more"),
        (&["--tls-certificates", "/nonexistent"], "server-cert.pem"),
    ] {
        let out = s.serve(args).output().unwrap();
        let text = String::from_utf8_lossy(&out.stderr);
        assert!(!out.status.success() && text.contains(part), "{text}");
    }
}

#[test]
fn the_log_tells_of_connections_and_not_of_their_bytes() {
    let s = scene();
    let out = s.serve(&["--verbose", "--run", r#"nbdcopy "$uri" null:; nbdinfo "$uri" >/dev/null"#]).output().unwrap();
    let text = String::from_utf8(out.stderr).unwrap();
    assert!(text.contains("connection 1 from the unix socket") && text.contains("requests"), "{text}");
    assert!(out.stdout.is_empty() && text.len() < 4000, "{text}");
}
