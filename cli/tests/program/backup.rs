//! A backup's directory in place of an image: `inspect`, `decrypt` and `serve` need no key flag.

mod hashes;

use std::fs;
use std::path::PathBuf;

use crate::common::{Run, install, read_stored, text, unluks};
use digest::Digest;
use serde_json::{Value, json};

pub const PLAINTEXT_SHA256: &str = "2418469f191b058a6b7978b814fedef5afec2a38585bae15c9bc24fb0b5e5b36";

/// A backup of the image that QEMU wrote, with its key.
pub struct Backup {
    pub dir: tempfile::TempDir,
    description: Value,
}

impl Backup {
    pub fn new() -> Self {
        let (image, key) = (read_stored("openstack-volume.img"), read_stored("openstack-volume.key"));
        let description = json!({
            "unluks_backup": 1, "tool": "unluks 0.1.0", "fetched_at": "2026-01-01T00:00:00Z",
            "cloud": {"name": "prod", "region": "RegionOne", "project_id": "p1"},
            "image": {
                "id": "i-1", "name": "nightly", "disk_format": "raw", "container_format": "bare", "size": image.len(),
                "virtual_size": image.len(), "min_disk": 0, "min_ram": 0, "checksum": null, "os_hash_algo": "sha512",
                "os_hash_value": hex::encode(sha2::Sha512::digest(&image)), "visibility": "private", "protected": false,
                "owner": "p1", "created_at": null, "updated_at": null, "tags": [],
                "properties": {"cinder_encryption_key_id": "k-1"},
            },
            "data": {"file": "image.raw", "size": image.len()},
            "plaintext": null,
            "key": {
                "file": "key", "size": key.len(), "becomes": "hexlify", "property": "cinder_encryption_key_id",
                "secret": {"id": "k-1", "name": null, "secret_type": "symmetric", "algorithm": "aes", "bit_length": 256,
                    "mode": null, "content_type": "application/octet-stream", "created": null, "expiration": null},
            },
            "volume": null,
        });
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("image.raw"), image).unwrap();
        fs::write(dir.path().join("key"), key).unwrap();
        let backup = Self { dir, description };
        backup.write();
        backup
    }

    fn write(&self) {
        fs::write(self.path("backup.json"), self.description.to_string()).unwrap();
    }

    pub fn changed(change: impl FnOnce(&mut Value)) -> Self {
        let mut backup = Self::new();
        change(&mut backup.description);
        backup.write();
        backup
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `unluks decrypt DIR --output OUT` and more.
    pub fn decrypt(&self, more: &[&str]) -> Run {
        let (dir, out) = (text(self.dir.path()), text(&self.path("plain")));
        unluks(&[&["decrypt", &dir, "--output", &out], more].concat())
    }

    #[track_caller]
    pub fn assert_refused(&self, more: &[&str], code: i32, words: &[&str]) {
        let run = self.decrypt(more);
        assert_eq!(run.refusal_fault(&[code]), None);
        for word in words {
            assert!(run.stderr.contains(word), "{word:?} is not in {:?}", run.stderr);
        }
        assert!(!self.path("plain").exists() && !self.path(".plain.unluks-part").exists(), "nothing is left");
    }
}

#[test]
fn a_backup_decrypts_without_a_key_flag() {
    let backup = Backup::new();
    let run = backup.decrypt(&["--hash", "sha512"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_eq!(crate::common::sha256_file(&backup.path("plain")), PLAINTEXT_SHA256);
    assert!(run.stderr.contains("hexlified"), "{}", run.stderr);
}

#[test]
fn a_key_that_is_named_goes_before_the_backups_own() {
    let backup = Backup::new();
    let wrong = backup.path("wrong");
    fs::write(&wrong, "wrong").unwrap();
    backup.assert_refused(&["--key-file", &text(&wrong)], 3, &["does not open keyslot 0"]);
    fs::rename(backup.path("key"), backup.path("right")).unwrap();
    fs::write(backup.path("key"), [0; 32]).unwrap();
    backup.assert_refused(&[], 3, &["does not open keyslot 0"]);
    assert_eq!(backup.decrypt(&["--barbican-key", &text(&backup.path("right"))]).code, Some(0));
}

#[test]
fn inspect_and_serve_take_the_directory() {
    let backup = Backup::new();
    let dir = text(backup.dir.path());
    let run = unluks(&["inspect", &dir, "--json"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let report: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(report, {
        let run = unluks(&["inspect", &text(&backup.path("image.raw")), "--json"]);
        serde_json::from_slice::<Value>(&run.stdout).unwrap()
    });
    #[cfg(feature = "nbd")]
    {
        let run = unluks(&["serve", &dir, "--quiet", "--", "true"]);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
    }
}

#[test]
fn an_image_of_another_length_is_refused_unless_its_rest_is_wanted() {
    let backup = Backup::new();
    let image = fs::read(backup.path("image.raw")).unwrap();
    fs::write(backup.path("image.raw"), &image[..image.len() - 512]).unwrap();
    backup.assert_refused(&[], 4, &["data.size", "--allow-truncated"]);
    let run = backup.decrypt(&["--allow-truncated"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.stderr.contains("is not compared with the hash"), "{}", run.stderr);
    fs::remove_file(backup.path("plain")).unwrap();
    fs::write(backup.path("image.raw"), [&image[..], &[0; 512]].concat()).unwrap();
    backup.assert_refused(&["--allow-truncated"], 4, &["data.size"]);
}

#[test]
fn a_backup_is_compared_with_its_hash_whatever_is_asked_for() {
    let backup = Backup::new();
    let hash = backup.description["image"]["os_hash_value"].as_str().unwrap().to_owned();
    let same = format!("the image is as it was fetched: sha512 {hash}");
    for more in [&[][..], &["--hash", "plaintext:md5"], &["--hash", "sha512"], &["--skip", "512", "--length", "512"]] {
        let run = backup.decrypt(more);
        assert_eq!(run.code, Some(0), "{more:?}: {}", run.stderr);
        assert!(run.stderr.contains(&same), "{more:?}: {}", run.stderr);
        let printed = String::from_utf8(run.stdout).unwrap();
        assert_eq!(
            printed.contains(&hash),
            more.contains(&"sha512"),
            "what was not asked for is not printed: {printed}"
        );
        fs::remove_file(backup.path("plain")).unwrap();
    }
    // One bit, in the last sector of the data, which nothing else can tell.
    let mut image = fs::read(backup.path("image.raw")).unwrap();
    *image.last_mut().unwrap() ^= 1;
    fs::write(backup.path("image.raw"), &image).unwrap();
    for more in [&[][..], &["--hash", "md5"], &["--skip", "512", "--length", "512"], &["--no-sync"], &["--quiet"]] {
        backup.assert_refused(more, 4, &["image.os_hash_value", &format!("it was {hash}")]);
    }
    let to_pipe = unluks(&["decrypt", &text(backup.dir.path()), "--output", "-"]);
    assert_eq!(to_pipe.refusal_fault(&[4]), None, "{}", to_pipe.stderr);
    let run = backup.decrypt(&["--no-compare"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.stderr.contains("is not compared") && !run.stderr.contains("as it was fetched"), "{}", run.stderr);
}

#[test]
fn a_backup_of_another_length_is_inspected_with_a_warning() {
    let backup = Backup::new();
    let image = fs::read(backup.path("image.raw")).unwrap();
    fs::write(backup.path("image.raw"), &image[..image.len() - 512]).unwrap();
    let run = unluks(&["inspect", &text(backup.dir.path())]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.stderr.contains("warning: ") && run.stderr.contains("data.size"), "{}", run.stderr);
}

#[test]
fn a_backup_without_what_is_wanted_says_why() {
    let empty = tempfile::tempdir().unwrap();
    let run = unluks(&["inspect", &text(empty.path())]);
    assert_eq!(run.refusal_fault(&[2]), None);
    assert!(run.stderr.contains("has no backup.json"), "{}", run.stderr);
    let backup = Backup::changed(|d| d["data"] = Value::Null);
    backup.assert_refused(&[], 2, &["holds no image", "only a key was fetched"]);
    let backup = Backup::changed(|d| {
        d["data"] = Value::Null;
        d["plaintext"] = json!({"size": 4096, "sha256": PLAINTEXT_SHA256});
    });
    backup.assert_refused(&[], 2, &["the ciphertext was not kept"]);
    let backup = Backup::changed(|d| {
        d["key"] = Value::Null;
        d["image"]["properties"] = json!({});
    });
    let len = fs::metadata(backup.path("image.raw")).unwrap().len();
    fs::write(backup.path("image.raw"), vec![7; usize::try_from(len).unwrap()]).unwrap();
    backup.assert_refused(&[], 4, &["the cloud names no key"]);
}

#[test]
fn no_file_of_a_backup_is_overwritten() {
    let backup = Backup::new();
    for name in ["key", "backup.json", "image.raw"] {
        let before = fs::read(backup.path(name)).unwrap();
        let run = unluks(&["decrypt", &text(backup.dir.path()), "--force", "--output", &text(&backup.path(name))]);
        assert_eq!(run.refusal_fault(&[2]), None);
        assert!(run.stderr.contains("is the input itself"), "{}", run.stderr);
        assert_eq!(fs::read(backup.path(name)).unwrap(), before);
    }
}

#[test]
fn a_name_that_leads_out_of_the_directory_is_never_opened() {
    let backup = Backup::changed(|d| d["key"]["file"] = "../key".into());
    backup.assert_refused(&[], 4, &["key.file", "plain name"]);
}

impl Backup {
    /// `unluks restore-plan DIR` and more: the script that it prints.
    #[track_caller]
    fn plan(&self, more: &[&str]) -> String {
        let run = unluks(&[&["restore-plan", &text(self.dir.path())], more].concat());
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        String::from_utf8(run.stdout).unwrap()
    }

    #[track_caller]
    fn assert_no_plan(&self, code: i32, words: &[&str]) {
        let run = unluks(&["restore-plan", &text(self.dir.path())]);
        assert_eq!(run.refusal_fault(&[code]), None);
        assert!(words.iter().all(|word| run.stderr.contains(word)), "{words:?}: {}", run.stderr);
        assert!(run.stdout.is_empty());
    }

    /// Runs the plan with a client that notes what it is called with, and fails or gives ids as the real one does.
    fn run_plan(&self, more: &[&str]) -> (Run, Vec<Vec<String>>) {
        self.run_plan_with(&["bash"], more)
    }

    /// Runs the plan with a shell, in a directory of its own, where it must leave nothing.
    fn run_plan_with(&self, shell: &[&str], more: &[&str]) -> (Run, Vec<Vec<String>>) {
        let (bin, work) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let client = bin.path().join("openstack");
        let script = "#!/bin/sh\nn=0; while [ -e \"$CALLS$n\" ]; do n=$((n+1)); done; printf '%s\\0' \"$@\" >\"$CALLS$n\"\n\
            case \"$*\" in *'secret store'*) echo http://x/v1/secrets/new-secret;; *'image create'*) echo new-image;;\n\
            *'image show'*) echo \"$SHOWN\";; *'volume create'*) echo new-volume;; esac\n";
        fs::write(bin.path().join("script"), script).unwrap();
        install(&bin.path().join("script"), &client);
        fs::write(bin.path().join("plan"), self.plan(more)).unwrap();
        let calls = bin.path().join("calls");
        let output = std::process::Command::new(shell[0])
            .args(&shell[1..])
            .arg(bin.path().join("plan"))
            .current_dir(work.path())
            .env("PATH", format!("{}:/usr/bin:/bin", text(bin.path())))
            .env("CALLS", &calls)
            .env("SHOWN", self.description["image"]["os_hash_value"].as_str().unwrap_or("00"))
            .output()
            .unwrap_or_else(|e| panic!("{} of the Debian package of that name: {e}", shell[0]));
        assert_eq!(fs::read_dir(work.path()).unwrap().count(), 0, "the plan made files: {}", self.plan(more));
        let run = Run {
            code: output.status.code(),
            stdout: output.stdout,
            stderr: String::from_utf8(output.stderr).unwrap(),
        };
        let noted = (0..).map_while(|n| fs::read(bin.path().join(format!("calls{n}"))).ok());
        let words = |call: Vec<u8>| {
            let call = String::from_utf8(call).unwrap();
            call.split_terminator('\0').map(str::to_owned).collect()
        };
        (run, noted.map(words).collect())
    }
}

/// The shells that a plan must mean the same in.
fn shells() -> Vec<Vec<&'static str>> {
    let mut shells = vec![vec!["dash"], vec!["bash"], vec!["bash", "--posix"]];
    if cfg!(feature = "peer-tests") {
        shells.push(vec!["busybox", "sh"]);
    }
    shells
}

/// A change of a description.
type Change<'a> = &'a dyn Fn(&mut Value);

/// The rules of a plan's notes.
fn notes(plan: &str) -> Vec<&str> {
    plan.lines().filter_map(|line| line.strip_prefix("# - ")?.split(':').next()).collect()
}

#[test]
fn a_plan_stores_the_secret_and_makes_the_image_with_its_new_id() {
    let backup = Backup::new();
    let (run, calls) = backup.run_plan(&["--cloud", "other"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_eq!(String::from_utf8(run.stdout).unwrap(), "image new-image secret new-secret\n");
    let has = |call: &[String], words: &[&str]| call.windows(words.len()).any(|w| w == words);
    assert_eq!(calls.len(), 3, "{calls:?}");
    assert!(calls.iter().all(|call| has(call, &["--os-cloud", "other"])), "{calls:?}");
    let [secret, image] = [&calls[0], &calls[1]];
    assert!(has(secret, &["--secret-type", "symmetric"]) && has(secret, &["--algorithm", "aes"]), "{secret:?}");
    assert!(has(secret, &["--file", &text(&backup.path("key"))]), "{secret:?}");
    assert!(!secret.iter().any(|word| word.contains("payload")), "bytes are sent as they are: {secret:?}");
    assert!(has(image, &["--property", "cinder_encryption_key_id=new-secret"]), "{image:?}");
    assert!(has(image, &["--disk-format", "raw"]) && image.last().unwrap() == "nightly", "{image:?}");
    let (run, calls) =
        Backup::changed(|d| d["image"]["os_hash_value"] = "00".into()).run_plan(&["--volume-type", "l u"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(has(&calls[3], &["--image", "new-image"]) && has(&calls[3], &["--type", "l u"]), "{calls:?}");
}

#[test]
fn an_image_that_arrived_with_another_hash_stops_the_plan() {
    let backup = Backup::new();
    let plan = backup.plan(&[]);
    let hash = backup.description["image"]["os_hash_value"].as_str().unwrap();
    assert!(plan.contains(hash));
    let mut other = Backup::new();
    other.description["image"]["os_hash_value"] = "00".into();
    // The client shows 00, and the plan on the disk wants the right one.
    let (run, calls) = other.run_plan(&[]);
    assert_eq!((run.code, calls.len()), (Some(1), 3), "{}", run.stderr);
    assert!(run.stderr.contains("its hash is not the one"), "{}", run.stderr);
}

const HOSTILE: [&str; 11] = [
    "--x'; touch pwned; $(touch pwned) `touch pwned` \"\n\u{1b}[2J",
    "\u{7}';touch PWNED;\"",
    "y\" 'z",
    "-",
    "\n",
    "a\ntouch pwned\n\n",
    "\\",
    "\\'\u{9b}31m;touch pwned\r",
    "\u{202e}&touch pwned\u{2028}touch pwned",
    "%s%n\\n\\000 *",
    "#\t!~ ",
];

/// How `flag` and a value stand in a call.
fn words(flag: &str, value: &str) -> Vec<String> {
    if value.starts_with('-') { vec![format!("{flag}={value}")] } else { vec![flag.into(), value.into()] }
}

fn operand(value: &str) -> Vec<String> {
    if value.starts_with('-') { vec!["--".into(), value.into()] } else { vec![value.into()] }
}

#[test]
fn every_shell_gives_the_client_the_texts_of_the_backup_and_runs_none() {
    for hostile in HOSTILE {
        let backup = Backup::changed(|d| {
            for field in ["name", "disk_format", "container_format", "owner", "visibility", "created_at", "updated_at"]
            {
                d["image"][field] = hostile.into();
            }
            d["image"]["os_hash_algo"] = hostile.into();
            d["image"]["protected"] = true.into();
            d["image"]["tags"] = json!([hostile, "plain"]);
            d["image"]["properties"] = json!({
                format!("a{hostile}"): hostile, format!("b{hostile}"): "k-1", "block_device_mapping": hostile,
                "cinder_img_volume_type": hostile, format!("os_glance{hostile}"): hostile,
            });
            for field in ["name", "region", "project_id"] {
                d["cloud"][field] = hostile.into();
            }
            d["cloud"]["project_id"] = "p2".into();
            for field in ["name", "secret_type", "algorithm", "mode", "content_type", "created"] {
                d["key"]["secret"][field] = hostile.into();
            }
            d["key"]["secret"]["expiration"] = format!("9999{hostile}").into();
            d["key"]["property"] = format!("c{hostile}").into();
            d["fetched_at"] = hostile.into();
            d["tool"] = hostile.into();
            d["volume"] = json!({"id": "v-1", "name": hostile, "snapshot": null, "volume_type": hostile, "size": 7,
                "availability_zone": hostile, "encryption": null});
        });
        let more = [format!("--cloud={hostile}")];
        let more: Vec<_> = more.iter().map(String::as_str).collect();
        let plan = backup.plan(&more);
        assert!(plan.chars().all(|c| c == '\n' || c == '…' || (' '..='~').contains(&c)), "{plan}");
        let wanted = |parts: &[Vec<String>]| [words("--os-cloud", hostile), parts.concat()].concat();
        let plain = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let (key, image) = (text(&backup.path("key")), text(&backup.path("image.raw")));
        let property = |text: String| words("--property", &text);
        let secret = [
            plain("secret store -f value -c"),
            vec!["Secret href".into()],
            words("--secret-type", hostile),
            words("--name", hostile),
            words("--algorithm", hostile),
            words("--mode", hostile),
            plain("--bit-length 256"),
            words("--expiration", &format!("9999{hostile}")),
            words("--file", &key),
        ];
        let mut properties = [
            property(format!("a{hostile}={hostile}")),
            property(format!("block_device_mapping={hostile}")),
            property(format!("cinder_img_volume_type={hostile}")),
        ];
        properties.sort();
        let create = [
            plain("image create -f value -c id --private"),
            words("--disk-format", hostile),
            words("--container-format", hostile),
            plain("--min-disk 0 --min-ram 0"),
            words("--tag", hostile),
            plain("--tag plain"),
            property(format!("b{hostile}=new-secret")),
            property(format!("c{hostile}=new-secret")),
            properties.concat(),
            words("--file", &image),
            operand(hostile),
        ];
        let volume = [
            plain("volume create -f value -c id --image new-image"),
            words("--type", hostile),
            plain("--size 7"),
            operand(hostile),
        ];
        for shell in shells() {
            let (run, calls) = backup.run_plan_with(&shell, &more);
            assert_eq!(run.code, Some(0), "{shell:?}: {hostile:?}: {}", run.stderr);
            assert_eq!(run.stdout, b"image new-image secret new-secret volume new-volume\n", "{shell:?}");
            let calls: Vec<Vec<String>> = calls;
            assert_eq!(calls[0], wanted(&secret), "{shell:?}");
            assert_eq!(calls[1], wanted(&create), "{shell:?}");
            assert_eq!(calls[2], wanted(&[plain("image show -f json -c properties new-image")]), "{shell:?}");
            assert_eq!(calls[3], wanted(&[plain("image set --protected new-image")]), "{shell:?}");
            assert_eq!(calls[4], wanted(&volume), "{shell:?}");
            assert_eq!(calls.len(), 5, "{shell:?}");
        }
    }
}

#[test]
fn a_text_in_comments_alone_runs_nothing_either() {
    for hostile in HOSTILE {
        // Without a volume that is wanted its command is a comment, and without SHA-512 the checksum is compared.
        let backup = Backup::changed(|d| {
            d["image"]["name"] = hostile.into();
            d["image"]["os_hash_value"] = Value::Null;
            d["image"]["checksum"] = "00".into();
            d["image"]["properties"]["cinder_img_volume_type"] = hostile.into();
            d["key"]["secret"]["expiration"] = format!("2001{hostile}").into();
        });
        for shell in shells() {
            let (run, calls) = backup.run_plan_with(&shell, &[]);
            assert_eq!((run.code, calls.len()), (Some(0), 3), "{shell:?}: {hostile:?}: {}", run.stderr);
            assert_eq!(calls[1][calls[1].len() - operand(hostile).len()..], operand(hostile), "{shell:?}");
        }
    }
}

#[test]
fn a_nul_byte_has_no_plan() {
    for field in ["name", "disk_format"] {
        let backup = Backup::changed(|d| d["image"][field] = "a\0b".into());
        backup.assert_no_plan(5, &["restore-plan", "NUL", "--run"]);
    }
}

#[test]
fn ids_and_hashes_of_another_form_have_no_plan() {
    for hostile in HOSTILE {
        let cases: [(&str, Change<'_>); 6] = [
            ("image.id", &|d| d["image"]["id"] = hostile.into()),
            ("key.secret.id", &|d| d["key"]["secret"]["id"] = hostile.into()),
            ("image.os_hash_value", &|d| d["image"]["os_hash_value"] = hostile.into()),
            ("image.checksum", &|d| d["image"]["checksum"] = hostile.into()),
            ("data.file", &|d| d["data"]["file"] = hostile.into()),
            ("key.file", &|d| d["key"]["file"] = hostile.into()),
        ];
        for (rule, change) in cases {
            // One dash is an id like any other.
            if hostile != "-" || !rule.ends_with("id") {
                Backup::changed(change).assert_no_plan(4, &[rule]);
            }
        }
    }
}

#[test]
fn each_obstacle_is_said_and_no_other() {
    let notes_of = |change: Change<'_>| {
        let plan = Backup::changed(change).plan(&[]);
        notes(&plan).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(notes_of(&|_| {}), ["secret-id", "only-key", "volume-type"]);
    assert_eq!(notes_of(&|d| d["key"] = Value::Null), ["key-left-out"]);
    let named_by_none: Change<'_> = &|d| {
        d["key"] = Value::Null;
        d["image"]["properties"] = json!({});
    };
    assert_eq!(notes_of(named_by_none), ["key"]);
    let cases: [(&str, Change<'_>); 9] = [
        ("owner", &|d| d["image"]["owner"] = "p2".into()),
        ("visibility", &|d| d["image"]["visibility"] = "public".into()),
        ("visibility", &|d| d["image"]["visibility"] = "shared".into()),
        ("reserved", &|d| d["image"]["properties"]["os_glance_import_task"] = "x".into()),
        ("signature", &|d| d["image"]["properties"]["img_signature_certificate_uuid"] = "x".into()),
        ("block-device-mapping", &|d| d["image"]["properties"]["block_device_mapping"] = "[]".into()),
        ("expiration", &|d| d["key"]["secret"]["expiration"] = "2025-01-01T00:00:00".into()),
        ("cinder", &|d| {
            d["key"]["property"] = "os_encrypt_key_id".into();
            d["image"]["properties"] = json!({"os_encrypt_key_id": "k-1"});
        }),
        ("header", &|d| {
            d["data"]["file"] = "noise".into();
        }),
    ];
    for (rule, change) in cases {
        let backup = Backup::changed(change);
        let len = fs::metadata(backup.path("image.raw")).unwrap().len();
        fs::write(backup.path("noise"), vec![7; usize::try_from(len).unwrap()]).unwrap();
        let plan = backup.plan(&[]);
        let mut found = notes(&plan);
        assert!(found.contains(&rule), "{rule}: {plan}");
        found.retain(|n| ![rule, "secret-id", "only-key", "volume-type"].contains(n));
        assert_eq!(found, [""; 0], "{rule}");
    }
    let plan = Backup::changed(|d| d["image"]["properties"]["os_glance_import_task"] = "x".into()).plan(&[]);
    assert!(!plan.contains("--property os_glance"), "{plan}");
    let plan = Backup::changed(|d| d["key"]["secret"]["expiration"] = "2025-01-01T00:00:00".into()).plan(&[]);
    assert!(!plan.contains("--expiration"), "{plan}");
}

#[test]
fn a_luks2_image_is_told_from_a_luks1_image() {
    let golden = crate::common::Golden::unpack("l2-argon2id");
    let image = fs::read(&golden.image).unwrap();
    let backup = Backup::changed(|d| {
        d["data"]["size"] = image.len().into();
        d["image"]["size"] = image.len().into();
    });
    fs::write(backup.path("image.raw"), &image).unwrap();
    let plan = backup.plan(&[]);
    assert_eq!(notes(&plan), ["luks2", "secret-id", "only-key", "volume-type"]);
    assert!(plan.contains("415"), "{plan}");
}

#[test]
fn a_volume_comes_back_with_its_size_and_type() {
    let backup = Backup::changed(|d| {
        d["volume"] = json!({"id": "v-1", "name": "data", "snapshot": null, "volume_type": "luks", "size": 7,
            "availability_zone": null, "encryption": null});
    });
    let (run, calls) = backup.run_plan(&[]);
    assert_eq!(String::from_utf8(run.stdout).unwrap(), "image new-image secret new-secret volume new-volume\n");
    let volume = calls[3].join(" ");
    assert!(volume.ends_with("volume create -f value -c id --image new-image --type luks --size 7 data"), "{volume}");
}

#[test]
fn what_cannot_come_back_has_no_plan() {
    let empty = Backup::changed(|d| {
        d["image"]["size"] = 0.into();
        d["data"] = Value::Null;
    });
    empty.assert_no_plan(2, &["0 bytes", "block_device_mapping"]);
    let decrypted = Backup::changed(|d| {
        d["data"] = Value::Null;
        d["plaintext"] = json!({"size": 4096, "sha256": PLAINTEXT_SHA256});
    });
    decrypted.assert_no_plan(2, &["not kept"]);
    Backup::changed(|d| (d["image"], d["data"]) = (Value::Null, Value::Null)).assert_no_plan(2, &["holds no image"]);
    let short = Backup::new();
    fs::write(short.path("image.raw"), "short").unwrap();
    short.assert_no_plan(4, &["data.size"]);
}
