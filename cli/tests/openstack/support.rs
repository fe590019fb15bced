//! Keystone, Glance, Barbican and Cinder on the loopback address, the program that talks to them, and a proxy that fails.
//!
//! `tests/openstack/bed/up` installs the services with pip the first time, into the target folder. The environment may
//! name other ports and another venv (its README says how), and with `UNLUKS_TEST_BED` a bed that is already there.

// Every test binary compiles this module anew and uses a part of it.
#![allow(dead_code)]

#[path = "support/proxy.rs"]
pub mod proxy;
#[path = "support/swift.rs"]
pub mod swift;

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::{Digest, Sha256};

pub const UNLUKS: &str = env!("CARGO_BIN_EXE_unluks");

/// How long one run of the program may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(240);

/// The running services with what `seed` stored in them.
pub struct Bed {
    pub state: PathBuf,
    pub seed: Value,
    /// Held while this process uses the services.
    _users: File,
    /// Ends when this process does, and then ends the services.
    _watchdog: Option<Child>,
}

/// The bed; the first that asks starts it.
pub fn bed() -> &'static Bed {
    // A bed that cannot be had is tried once, and not by every test anew.
    static BED: OnceLock<Result<Bed, String>> = OnceLock::new();
    BED.get_or_init(Bed::start).as_ref().unwrap_or_else(|e| panic!("{e}"))
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/openstack/bed").join(name)
}

/// Runs `up`, with variables of its own.
pub fn up(state: &Path, variables: &[(&str, &str)]) {
    let mut command = Command::new(script("up"));
    command.arg(state).env("OSBED_VENV", venv(state)).envs(variables.iter().copied());
    run_script(&mut command).unwrap_or_else(|e| panic!("{e}"));
}

fn venv(state: &Path) -> PathBuf {
    std::env::var_os("OSBED_VENV").map_or_else(|| state.with_file_name("osbed-venv"), PathBuf::from)
}

/// Where the real openstack client is.
pub fn tools() -> PathBuf {
    venv(&bed().state).join("bin")
}

/// Held by a test that makes volumes in project demo, or compares what there is of them.
pub static CINDER: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn run_script(command: &mut Command) -> Result<(), String> {
    let out = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let text = String::from_utf8_lossy(&out.stderr);
    if out.status.success() {
        Ok(())
    } else {
        Err(format!(
            "the OpenStack services cannot be had ({command:?}); they want bash, curl, cryptsetup, Python 3.11 with venv \
             (apt-get install python3-venv) and a package index:\n{text}"
        ))
    }
}

impl Bed {
    fn start() -> Result<Self, String> {
        let own = std::env::var_os("UNLUKS_TEST_BED").map(PathBuf::from);
        let state = own.clone().unwrap_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("osbed"));
        fs::create_dir_all(&state).unwrap();
        let users = File::create(state.join("users.lock")).unwrap();
        // Waits for an earlier test binary's services to end.
        users.lock_shared().unwrap();
        let watchdog = own.is_none().then(|| watchdog(&state));
        run_script(Command::new(script("up")).arg(&state).env("OSBED_VENV", venv(&state)))?;
        if !state.join("seed.json").exists() {
            run_script(Command::new(script("seed")).arg(&state).env("OSBED_VENV", venv(&state)))?;
        }
        let seed = serde_json::from_slice(&fs::read(state.join("seed.json")).unwrap()).unwrap();
        Ok(Self { state, seed, _users: users, _watchdog: watchdog })
    }

    /// What `seed` says of an image.
    pub fn image(&self, name: &str) -> &Value {
        let image = &self.seed["images"][name];
        assert!(image.is_object(), "no image {name} was stored");
        image
    }

    pub fn id(&self, name: &str) -> &str {
        self.image(name)["image_id"].as_str().unwrap()
    }

    /// The address of a service as the catalogue has it: `identity`, `image`, `key`, `volume`.
    pub fn port(&self, service: &str) -> u16 {
        let (variable, default) = match service {
            "identity" => ("OSBED_IDENTITY_PORT", 15000),
            "image" => ("OSBED_IMAGE_PORT", 19292),
            "key" => ("OSBED_KEY_PORT", 19311),
            _ => ("OSBED_VOLUME_PORT", 18776),
        };
        std::env::var(variable).ok().map_or(default, |port| port.parse().unwrap())
    }

    pub fn clouds_yaml(&self) -> String {
        fs::read_to_string(self.state.join("clouds.yaml")).unwrap()
    }
}

/// A process that waits for the end of this one, and then stops the services if nobody else uses them.
fn watchdog(state: &Path) -> Child {
    let script = "cat >/dev/null; exec 8>\"$2/users.lock\"; flock -n 8 && exec \"$1\" \"$2\"";
    let mut command = Command::new("bash");
    command.args(["-c", script, "watchdog"]).arg(self::script("down")).arg(state);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// A place for what one test writes, with the user's clouds.yaml in it.
pub struct Desk {
    dir: tempfile::TempDir,
    pub cloud: String,
    /// Variables beside the cloud's.
    pub variables: Vec<(String, String)>,
    /// The largest file that the program may write, in bytes.
    pub file_limit: Option<u64>,
}

pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Desk {
    /// A desk of the user of a cloud of the bed.
    pub fn new(cloud: &str) -> Self {
        let desk = Self {
            dir: tempfile::tempdir().unwrap(),
            cloud: cloud.to_owned(),
            variables: Vec::new(),
            file_limit: None,
        };
        desk.set_clouds_yaml(&bed().clouds_yaml());
        desk
    }

    /// A desk of `bed-demo`, with another address of Glance.
    pub fn with_glance(port: u16) -> Self {
        let desk = Self::new("bed-demo");
        let own = format!("  bed-demo:\n    image_endpoint_override: http://127.0.0.1:{port}\n");
        let text = bed().clouds_yaml();
        assert!(text.contains("  bed-demo:\n"));
        desk.set_clouds_yaml(&text.replace("  bed-demo:\n", &own));
        desk
    }

    pub fn set_clouds_yaml(&self, text: &str) {
        fs::write(self.path("clouds.yaml"), text).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = match self.file_limit {
            None => Command::new(UNLUKS),
            Some(limit) => {
                let mut limited = Command::new("bash");
                limited.args(["-c", "ulimit -f $(($1 / 1024)); shift; exec \"$@\"", "limit"]);
                limited.args([&limit.to_string(), UNLUKS]);
                limited
            }
        };
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("OS_") {
                command.env_remove(name);
            }
        }
        command.args(args).current_dir(self.dir.path()).env("HOME", self.dir.path());
        if !self.cloud.is_empty() {
            command.env("OS_CLIENT_CONFIG_FILE", self.path("clouds.yaml")).env("OS_CLOUD", &self.cloud);
        }
        command.envs(self.variables.iter().map(|(n, v)| (n, v))).env_remove("RUST_BACKTRACE");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn run(&self, args: &[&str]) -> Run {
        Run::of(self.command(args).spawn().unwrap())
    }

    /// `unluks fetch image ID --output backup` with more arguments.
    pub fn fetch(&self, id: &str, more: &[&str]) -> Run {
        self.run(&[&["fetch", "image", id, "--output", "backup"], more].concat())
    }

    /// Files of the directory that was fetched into, hidden ones too.
    pub fn files(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path("backup")) else { return Vec::new() };
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Fails where anything is there that looks like a whole image, plaintext or backup.
    pub fn assert_nothing_looks_whole(&self) {
        for name in ["backup/image.raw", "backup/backup.json", "plain"] {
            assert!(!self.path(name).exists(), "{name} is there");
        }
    }

    pub fn backup(&self) -> Value {
        serde_json::from_slice(&fs::read(self.path("backup/backup.json")).unwrap()).unwrap()
    }

    /// Fails unless the backup is whole, opens without a key flag, and has the plaintext that was stored.
    pub fn assert_whole(&self, image: &Value) {
        assert_eq!(self.files(), ["backup.json", "image.raw", "key"]);
        assert_eq!(fs::metadata(self.path("backup/key")).unwrap().permissions().mode() & 0o777, 0o600);
        let run = self.run(&["decrypt", "backup", "-o", "opened", "--quiet"]);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        assert_eq!(sha256(&self.path("opened")), image["plain_sha256"].as_str().unwrap());
    }
}

impl Run {
    pub fn of(mut child: Child) -> Self {
        let start = Instant::now();
        let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let read = |from: &mut dyn std::io::Read| {
            let mut text = Vec::new();
            from.read_to_end(&mut text).unwrap();
            text
        };
        std::thread::scope(|scope| {
            let (stdout, stderr) = (scope.spawn(move || read(&mut out)), scope.spawn(move || read(&mut err)));
            let status = loop {
                match child.try_wait().unwrap() {
                    Some(status) => break status,
                    None if start.elapsed() > PATIENCE => {
                        child.kill().unwrap();
                        panic!("no end within {PATIENCE:?}");
                    }
                    None => std::thread::sleep(Duration::from_millis(5)),
                }
            };
            let output = Output { status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() };
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            Self { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
        })
    }

    /// Fails unless it went well.
    #[track_caller]
    pub fn ok(&self) -> &Self {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self
    }

    /// Fails unless it was refused with the exit code, and the last line has the rule, where there is one, and the words.
    #[track_caller]
    pub fn refused(&self, code: i32, rule: &str, words: &[&str]) -> &Self {
        let last = self.stderr.lines().last().unwrap_or_default();
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        let rule = if rule.is_empty() { String::new() } else { format!("{rule}: ") };
        assert!(last.starts_with("unluks: ") && last.contains(&rule), "{rule}:\n{}", self.stderr);
        for word in words {
            assert!(last.contains(word), "\"{word}\" is not in: {last}");
        }
        self
    }
}

pub fn sha256(path: &Path) -> String {
    use std::io::Read;
    let mut file = File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let (mut hasher, mut block) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut block).unwrap() {
            0 => break,
            n => hasher.update(&block[..n]),
        }
    }
    hex::encode(hasher.finalize())
}
