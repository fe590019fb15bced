//! What a user of the bed asks the services themselves, without the time that the openstack client takes to start.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::restore::client;
use crate::support::{Run, bed};

/// A user of a cloud of the bed.
#[derive(Clone, Copy)]
pub struct User(pub &'static str);

pub const DEMO: User = User("bed-demo");
pub const OTHER: User = User("bed-other");

impl User {
    fn token(self) -> String {
        static TOKENS: Mutex<BTreeMap<&str, String>> = Mutex::new(BTreeMap::new());
        let mut tokens = TOKENS.lock().unwrap_or_else(|e| e.into_inner());
        let new = || {
            let issued = client(self.0, &["token", "issue", "-f", "value", "-c", "id"]);
            issued.ok().stdout.trim().to_owned()
        };
        tokens.entry(self.0).or_insert_with(new).clone()
    }

    /// Asks Cinder, which the openstack client does only where there is Nova, if a volume is in use.
    pub fn cinder(self, path: &str, body: Option<&Value>) -> Value {
        let mut command = Command::new("curl");
        command.args(["-sS", "--fail-with-body", "-H", &format!("X-Auth-Token: {}", self.token())]);
        command.args(["-H", "OpenStack-API-Version: volume 3.64"]);
        if let Some(body) = body {
            command.args(["-H", "Content-Type: application/json", "-d", &body.to_string()]);
        }
        command.arg(format!("http://127.0.0.1:{}/v3/{path}", bed().port("volume")));
        let run = Run::of(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
        assert_eq!(run.code, Some(0), "{path}: {}{}", run.stderr, run.stdout);
        serde_json::from_str(&run.stdout).unwrap_or_default()
    }

    /// Deletes a volume, a snapshot or a backup, and waits until it is gone.
    pub fn delete(self, what: &str, id: &str) {
        let mut command = Command::new("curl");
        command.args(["-sS", "-o", "/dev/null", "-X", "DELETE", "-H", &format!("X-Auth-Token: {}", self.token())]);
        command.arg(format!("http://127.0.0.1:{}/v3/{what}s/{id}", bed().port("volume")));
        assert!(command.status().unwrap().success());
        let start = Instant::now();
        while self.cinder(&format!("{what}s"), None)[format!("{what}s")]
            .as_array()
            .unwrap()
            .iter()
            .any(|thing| thing["id"] == id)
        {
            assert!(start.elapsed() < Duration::from_secs(60), "the {what} {id} is not deleted");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Makes a volume, a snapshot or a backup, and waits until it is available.
    pub fn make(self, what: &str, body: &Value) -> String {
        let made = self.cinder(&format!("{what}s"), Some(&json!({ what: body })));
        let id = made[what]["id"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned();
        self.wait(what, &id);
        id
    }

    /// Waits until it is available.
    pub fn wait(self, what: &str, id: &str) {
        let start = Instant::now();
        loop {
            let shown = self.cinder(&format!("{what}s/{id}"), None);
            match shown[what]["status"].as_str().unwrap() {
                "available" => return,
                status if status.starts_with("error") => panic!("{what} {id}: {shown}"),
                _ => assert!(start.elapsed() < Duration::from_secs(120), "{shown}"),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn barbican(self, path: &str, more: &[&str]) -> Vec<u8> {
        let mut command = Command::new("curl");
        command.args(["-sS", "--fail", "-H", &format!("X-Auth-Token: {}", self.token())]).args(more);
        command.arg(format!("http://127.0.0.1:{}/v1/{path}", bed().port("key")));
        let out = command.output().unwrap();
        assert!(out.status.success(), "{path}: {out:?}");
        out.stdout
    }

    /// What a hypervisor gives to cryptsetup for a volume: the hex of its key.
    pub fn passphrase(self, volume: &str) -> String {
        let shown = self.cinder(&format!("volumes/{volume}"), None);
        let key = shown["volume"]["encryption_key_id"].as_str().unwrap();
        hex::encode(self.barbican(&format!("secrets/{key}/payload"), &["-H", "Accept: application/octet-stream"]))
    }

    /// Deletes a secret, as nobody should.
    pub fn delete_secret(self, id: &str) {
        self.barbican(&format!("secrets/{id}"), &["-X", "DELETE"]);
    }

    /// An encrypted volume of `bytes` bytes, which are as a server would have left them: a LUKS1 header by cryptsetup, and
    /// noise. The bed has no hypervisor that would format it.
    pub fn encrypted_volume(self, name: &str, bytes: u64) -> Volume {
        let body =
            json!({"size": 1, "volume_type": "luks", "name": name, "metadata": {"bed_bytes": bytes.to_string()}});
        let id = self.make("volume", &body);
        let volume = Volume { user: self, id };
        let passphrase = self.passphrase(&volume.id);
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), passphrase).unwrap();
        let mut format = Command::new("cryptsetup");
        format.args(["-q", "luksFormat", "--type", "luks1", "--cipher", "aes-xts-plain64", "--key-size", "256"]);
        format.args(["--pbkdf-force-iterations", "1000", "--key-file"]).arg(file.path()).arg(volume.path());
        let out = format.output().unwrap();
        assert!(out.status.success(), "{out:?}");
        volume.write(4 << 20, &noise(1, 3 << 20));
        volume
    }
}

/// A volume of the bed, whose bytes are a file.
pub struct Volume {
    user: User,
    pub id: String,
}

impl Volume {
    pub fn of(user: User, id: &str) -> Self {
        Self { user, id: id.to_owned() }
    }

    pub fn path(&self) -> PathBuf {
        bed().state.join("volumes").join(format!("volume-{}", self.id))
    }

    /// What its server wrote.
    pub fn write(&self, at: u64, data: &[u8]) {
        use std::os::unix::fs::FileExt;
        let file = fs::OpenOptions::new().write(true).open(self.path()).unwrap();
        file.write_all_at(data, at).unwrap();
    }

    /// Marks the volume as used by a server, or as free again. There is no Nova on the bed.
    pub fn attach(&self, attached: bool) {
        let action = if attached {
            json!({"os-attach": {"instance_uuid": "5f8a1a4e-0000-4000-8000-000000000001", "mountpoint": "/dev/vdb"}})
        } else {
            json!({"os-detach": {}})
        };
        self.user.cinder(&format!("volumes/{}/action", self.id), Some(&action));
    }

    /// Has Cinder make a backup; gives its id.
    pub fn backup(&self, compression: &str, incremental: bool) -> String {
        let body = json!({"volume_id": self.id, "incremental": incremental, "metadata": {"compression": compression}});
        self.user.make("backup", &body)
    }
}

/// Bytes that do not compress.
pub fn noise(seed: u32, len: usize) -> Vec<u8> {
    let mut state = seed;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..len).map(next).collect()
}
