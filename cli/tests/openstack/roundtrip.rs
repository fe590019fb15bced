//! What the operators' guides name, from one end to the other: out of a cloud by each way, and back into it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::api::{DEMO, OTHER, User, Volume, noise};
use crate::backups::{copy, decrypted};
use crate::restore::{client, id};
use crate::support::{CINDER, Desk, Run, sha256, tools};

const MIB: u64 = 1 << 20;

/// `unluks fetch backup`, which has Cinder make one, and the objects out of the operators' share beside it; gives its id.
fn backed_up(desk: &Desk, volume: &Volume, tree: &str, more: &[&str], chain: &[&str]) -> String {
    let run = desk.run(&[&["fetch", "backup", &volume.id, "--make", "--output", tree], more].concat());
    let made = id(&run.ok().stderr, "backup").to_owned();
    assert!(run.stderr.contains("waiting until Cinder has made it"), "{}", run.stderr);
    // Of the posix driver the objects are the operator's, and which ones are wanted is said.
    for id in chain.iter().copied().chain([made.as_str()]) {
        assert!(run.stderr.contains(id), "{id}: {}", run.stderr);
    }
    copy(&[chain, &[&made]].concat(), &desk.path(tree));
    made
}

/// The hash of the plaintext that the volume has now.
fn plaintext(desk: &Desk, user: User, volume: &Path, volume_id: &str) -> String {
    fs::copy(volume, desk.path("volume.raw")).unwrap();
    fs::write(desk.path("passphrase"), user.passphrase(volume_id)).unwrap();
    decrypted(desk, "volume.raw", &["--key-file", "passphrase"])
}

fn shell(desk: &Desk, script: &str, cloud: &str) -> Run {
    fs::write(desk.path("plan"), script).unwrap();
    let path = format!("{}:{}", tools().display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("sh");
    command.arg("plan").current_dir(desk.path("")).env("PATH", path).env("OS_CLOUD", cloud);
    command.env("OS_CLIENT_CONFIG_FILE", desk.path("clouds.yaml"));
    Run::of(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

#[test]
fn what_the_guides_name_goes_out_and_comes_back() {
    let _quiet = CINDER.lock().unwrap_or_else(|e| e.into_inner());
    let volume = DEMO.encrypted_volume("guides", 12 * MIB);
    let desk = Desk::new("bed-demo");
    let first = plaintext(&desk, DEMO, &volume.path(), &volume.id);

    // A volume by an image, verified, into another project, and out of it again.
    desk.run(&["fetch", "volume", &volume.id, "--output", "backup", "--make-image"]).ok();
    assert_eq!(desk.backup()["volume"]["encryption"]["provider"], "luks");
    let verified = desk.run(&["verify", "backup"]);
    assert!(verified.code == Some(0), "{}{}", verified.stdout, verified.stderr);
    assert_eq!(decrypted(&desk, "backup", &[]), first);
    let restored =
        desk.run(&["restore-plan", "backup", "--cloud", "bed-other", "--run", "--volume", "--volume-type", "luks"]);
    let (image, there) = (id(&restored.ok().stdout, "image"), id(&restored.stdout, "volume"));
    let other = Desk::new("bed-other");
    other.run(&["fetch", "volume", there, "--output", "backup", "--make-image", "--decrypt", "plain"]).ok();
    assert_eq!(sha256(&other.path("plain")), first);
    OTHER.delete("volume", there);
    client("bed-other", &["image", "delete", image]).ok();

    // By Cinder's backups: full, two increments, of a volume in use, and of a snapshot.
    let full = backed_up(&desk, &volume, "full", &[], &[]);
    assert_eq!(decrypted(&desk, "full", &[]), first);
    volume.write(5 * MIB + 100, &noise(5, 50_000));
    let one = backed_up(&desk, &volume, "one", &["--incremental"], &[&full]);
    volume.write(11 * MIB, &[0; 40_000]);
    let third = plaintext(&desk, DEMO, &volume.path(), &volume.id);
    let two = backed_up(&desk, &volume, "two", &["--incremental"], &[&full, &one]);
    assert_eq!(decrypted(&desk, "two", &["--backup", &full]), first);
    assert_eq!(decrypted(&desk, "two", &[]), third);
    assert!(desk.run(&["verify", "two"]).ok().stderr.contains("blocks of the volume by SHA-256"));
    let state = fs::read(volume.path()).unwrap();
    let snapshot = DEMO.make("snapshot", &json!({"volume_id": volume.id, "name": "guides"}));

    volume.write(6 * MIB, &noise(6, 1000));
    let fourth = plaintext(&desk, DEMO, &volume.path(), &volume.id);
    volume.attach(true);
    let refused = desk.run(&["fetch", "backup", &volume.id, "--make", "--output", "in-use"]);
    refused.refused(2, "backup.in-use", &["in use", "--force"]);
    let forced = backed_up(&desk, &volume, "forced", &["--force"], &[]);
    volume.attach(false);
    assert_eq!(decrypted(&desk, "forced", &["--backup", &forced]), fourth);
    let frozen = backed_up(&desk, &volume, "frozen", &["--snapshot", &snapshot], &[]);
    assert_eq!(decrypted(&desk, "frozen", &["--backup", &frozen]), third);
    let named = desk.run(&["fetch", "volume", &volume.id, "--output", "again"]);
    for id in [&full, &one, &two, &forced, &frozen] {
        assert!(named.ok().stderr.contains(&format!("backup {id} of it")), "{}", named.stderr);
    }
    let stranger = other.run(&["fetch", "backup", &full, "--output", "tree"]);
    stranger.refused(2, "backup.unknown", &["no backup"]);

    // Back onto a volume that the plan makes, and onto one that is there.
    let plan = desk.run(&["restore-plan", "two", "--backup", &two, "--volume-type", "luks"]);
    let run = shell(&desk, &plan.ok().stdout, "bed-demo");
    let new = Volume::of(DEMO, id(&run.ok().stdout, "volume"));
    let bytes = fs::File::options().write(true).open(new.path()).unwrap();
    // Cinder makes volumes of whole GiB; what is behind the backup's end was never written.
    bytes.set_len(12 * MIB).unwrap();
    assert!(fs::read(new.path()).unwrap() == state, "the restored volume is another");
    assert_eq!(plaintext(&desk, DEMO, &new.path(), &new.id), third);
    DEMO.cinder(&format!("backups/{two}/restore"), Some(&json!({"restore": {"volume_id": volume.id}})));
    DEMO.wait("volume", &volume.id);
    assert!(fs::read(volume.path()).unwrap() == state, "the volume is not as it was backed up");
    DEMO.delete("volume", &new.id);

    // The volume and its key are gone, and the backup's own key is not; then that is gone, too.
    DEMO.delete("snapshot", &snapshot);
    DEMO.delete("volume", &volume.id);
    desk.run(&["fetch", "backup", &frozen, "--output", "kept"]).ok();
    copy(&[&frozen], &desk.path("kept"));
    assert_eq!(decrypted(&desk, "kept", &[]), third);
    let description: Value = serde_json::from_slice(&fs::read(desk.path("kept/backup.json")).unwrap()).unwrap();
    DEMO.delete_secret(description["key"]["secret"]["id"].as_str().unwrap());
    let lost = desk.run(&["fetch", "backup", &frozen, "--output", "lost"]);
    lost.refused(2, "secret.id", &["gone"]);
    assert!(!desk.path("lost").exists());
    [&forced, &two, &one, &full].into_iter().for_each(|id| DEMO.delete("backup", id));
}

/// Encrypts as os-brick's provider `plain` has cryptsetup do it: the hex of the key is hashed, to 256 bits.
const PLAIN: &str = "
import hashlib, sys
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
name, source, target = sys.argv[1:]
passphrase = sys.stdin.buffer.read()
key = hashlib.new(name, passphrase).digest()
key = (key + hashlib.new(name, b'A' + passphrase).digest())[:32]
data = open(source, 'rb').read()
out = bytearray()
for n in range(len(data) // 512):
    e = Cipher(algorithms.AES(key), modes.XTS(n.to_bytes(16, 'little'))).encryptor()
    out += e.update(data[512 * n:512 * (n + 1)])
open(target, 'r+b').write(out)
";

#[test]
fn a_volume_of_the_provider_plain_is_opened_as_such() {
    let _quiet = CINDER.lock().unwrap_or_else(|e| e.into_inner());
    let body = json!({"size": 1, "volume_type": "dm-crypt", "name": "plain", "metadata": {"bed_bytes": (4 * MIB).to_string()}});
    let volume = Volume::of(DEMO, &DEMO.make("volume", &body));
    let desk = Desk::new("bed-demo");
    fs::write(desk.path("fs"), vec![0; 4 << 20]).unwrap();
    let made = Command::new("mkfs.ext4").arg("-q").arg(desk.path("fs")).status().unwrap();
    assert!(made.success());
    let wanted = sha256(&desk.path("fs"));
    for hash in ["ripemd160", "sha256"] {
        let mut python = Command::new(tools().join("python"));
        python.args(["-c", PLAIN, hash]).arg(desk.path("fs")).arg(volume.path()).stdin(Stdio::piped());
        let mut python = python.spawn().unwrap();
        std::io::Write::write_all(&mut python.stdin.take().unwrap(), DEMO.passphrase(&volume.id).as_bytes()).unwrap();
        assert!(python.wait().unwrap().success());
        let _ = fs::remove_dir_all(desk.path("backup"));
        desk.run(&["fetch", "volume", &volume.id, "--output", "backup", "--make-image"]).ok();
        let encryption = &desk.backup()["volume"]["encryption"];
        let found = json!([encryption["provider"], encryption["cipher"], encryption["key_size"]]);
        assert_eq!(found, json!(["plain", "aes-xts-plain64", 256]));

        let run = desk.run(&["decrypt", "backup", "-o", "opened", "--force"]);
        assert_eq!(sha256(&desk.path("opened")), wanted, "{}", run.ok().stderr);
        let line = run.ok().stderr.lines().find(|line| line.contains("the provider plain")).unwrap_or_default();
        for words in [&format!("hashed with {hash}"), "aes-xts-plain64", "a key of 256 bits", "ext4"] {
            assert!(line.contains(words), "{words}: {}", run.stderr);
        }
        let named = ["decrypt", "backup", "--type", "plain", "--plain-hash", hash, "-o", "opened", "--force"];
        desk.run(&named).ok();
        assert_eq!(sha256(&desk.path("opened")), wanted);
    }
    let shown = desk.run(&["inspect", "backup"]);
    assert!(shown.ok().stdout.contains("no LUKS header"), "{}", shown.stdout);
    assert!(shown.stderr.contains("the provider plain"), "{}", shown.stderr);
    let inside = desk.run(&["inspect", "--inside", "backup"]);
    assert!(inside.ok().stdout.contains("ext4"), "{}", inside.stdout);
    desk.run(&["serve", "backup", "--socket", "s", "--", "true"]).ok();
    let verified = desk.run(&["verify", "backup"]);
    assert!(verified.ok().stdout.contains("ext4"), "{}{}", verified.stdout, verified.stderr);
    // Another key is none of the backup's.
    fs::write(desk.path("other"), "x").unwrap();
    desk.run(&["verify", "backup", "--barbican-key", "other"]).refused(2, "", &["its own key opens it"]);
    // Without its key there is a reason, and no question.
    fs::remove_file(desk.path("backup/key")).unwrap();
    let mut description = desk.backup();
    description["key"] = Value::Null;
    fs::write(desk.path("backup/backup.json"), description.to_string()).unwrap();
    desk.run(&["decrypt", "backup", "-o", "never"]).refused(2, "", &["has no header", "--type plain"]);
    DEMO.delete("volume", &volume.id);
}
