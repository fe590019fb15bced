//! What people do wrong, and what they are told: one line that says what, where and what next.

#[cfg(feature = "openstack")]
mod list;

use std::fs;
use std::path::Path;

use crate::common::{Golden, Run, testdata, text, unluks};

/// A folder with files that are no LUKS images, and keys that were saved in ways that people save them.
struct Desk {
    dir: tempfile::TempDir,
    image: String,
    key: String,
}

impl Desk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| text(&testdata().join(name));
        let desk = Self { dir, image: at("openstack-volume.img"), key: at("openstack-volume.key") };
        let sparse = |name: &str, parts: &[(usize, &[u8])]| {
            let mut bytes = vec![0u8; 1 << 20];
            for (at, part) in parts {
                bytes[*at..*at + part.len()].copy_from_slice(part);
            }
            desk.put(name, &bytes)
        };
        sparse("zeroes", &[]);
        sparse("ext", &[(1080, b"\x53\xef"), (1024, &[16, 0, 0, 0, 0, 4, 0, 0])]);
        sparse("swap", &[(4086, b"SWAPSPACE2")]);
        sparse("bitlocker", &[(0, b"\xeb\x58\x90-FVE-FS-"), (510, b"\x55\xaa")]);
        sparse("apfs", &[(32, b"NXSB")]);
        sparse("archive.tar", &[(257, b"ustar\x0000")]);
        let mut state = 1u32;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_le_bytes()[1]
        })
        .take(1 << 20)
        .collect();
        desk.put("noise", &noise);
        desk.put("image.lz4", b"\x04\x22\x4d\x18 and more");
        desk.put("image.gz", b"\x1f\x8b\x08\0 and more");
        desk.put("page.html", b"<html><head><title>404 Not Found</title></head></html>");
        desk.put("age", b"age-encryption.org/v1\n-> X25519 aaa\n");
        desk.put("openssl", b"Salted__12345678 and more");
        desk.put("nothing", b"");
        let key = fs::read(&desk.key).unwrap();
        let hex = hex(&key);
        desk.put("k.0x", format!("0x{hex}").as_bytes());
        desk.put("k.bom", format!("\u{feff}{hex}").as_bytes());
        desk.put("k.json", format!("{{\"Payload\": \"{hex}\"}}").as_bytes());
        desk.put("k.uuid", b"5ca1ab1e-1111-2222-3333-444455556666\n");
        desk.put("k.href", b"https://barbican.example/v1/secrets/5ca1ab1e-1111-2222-3333-444455556666\n");
        desk.put("k.html", b"<html><head><title>401 Unauthorized</title></head></html>");
        desk.put("k.error", b"{\"error\": {\"code\": 401, \"message\": \"authentication is required\"}}");
        desk
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        fs::write(self.dir.path().join(name), bytes).unwrap();
    }

    fn at(&self, name: &str) -> String {
        text(&self.dir.path().join(name))
    }

    /// `unluks decrypt IMAGE FLAGS… -o out`, with a new output each time.
    fn decrypt(&self, image: &str, flags: &[&str]) -> Run {
        let out = self.at("out");
        unluks(&[&["decrypt", image, "-q", "--force", "-o", &out], flags].concat())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// One line, with all of `says` in it, and the exit code.
fn assert_says(run: &Run, code: i32, says: &[&str], what: &str) {
    assert_eq!(run.code, Some(code), "{what}: {}", run.stderr);
    let line = run.stderr.lines().find(|line| line.starts_with("unluks: ")).unwrap_or_default();
    for part in says {
        assert!(line.contains(part), "{what}: {line:?} does not say {part:?}");
    }
    assert_eq!(run.stderr.lines().filter(|line| line.starts_with("unluks: ")).count(), 1, "{what}: {}", run.stderr);
}

#[test]
fn what_is_no_luks_image_is_named() {
    let desk = Desk::new();
    let cases: [(&str, i32, &[&str]); 14] = [
        ("zeroes", 4, &["nothing but zeroes", "a copy that failed"]),
        ("noise", 4, &["noise from its first byte on", "plain dm-crypt, or VeraCrypt", "--header"]),
        ("ext", 4, &["ext2, ext3 or ext4", "plaintext already"]),
        ("swap", 4, &["a swap area"]),
        ("bitlocker", 4, &["a BitLocker volume", "bitlkOpen"]),
        ("apfs", 4, &["an APFS container", "libfsapfs"]),
        ("archive.tar", 5, &["a tar archive", "unpack the file first"]),
        ("image.lz4", 5, &["an lz4 file", "unpack the file first"]),
        ("image.gz", 5, &["a gzip file", "unpack the file first"]),
        ("page.html", 5, &["an HTML page", "fetch the image again"]),
        ("age", 5, &["age -d"]),
        ("openssl", 5, &["openssl enc -d"]),
        ("nothing", 4, &["no LUKS header: it is empty"]),
        ("nowhere", 1, &["nowhere", "No such file"]),
    ];
    for (name, code, says) in cases {
        let run = desk.decrypt(&desk.at(name), &["--barbican-key", &desk.key]);
        assert_says(&run, code, says, name);
    }
}

#[test]
fn keys_as_people_have_them_open_or_are_named() {
    let desk = Desk::new();
    for name in ["k.0x", "k.bom", "k.json"] {
        let run = desk.decrypt(&desk.image, &["--key", &desk.at(name)]);
        assert_eq!(run.code, Some(0), "{name}: {}", run.stderr);
    }
    let tried = "tried: the bytes as they are";
    let cases: [(&str, &str, &[&str]); 6] = [
        ("--key", "k.uuid", &["a UUID", "unluks fetch key", tried]),
        ("--key", "k.href", &["an address", "unluks fetch key", tried]),
        ("--key", "k.html", &["a web page", tried]),
        ("--key", "k.error", &["the answer of a service, which looks like an error", tried]),
        ("--key-file", "k.0x", &["--key FILE tries the usual forms"]),
        ("--key-file", "k.html", &["a web page"]),
    ];
    for (flag, name, says) in cases {
        let run = desk.decrypt(&desk.image, &[flag, &desk.at(name)]);
        assert_says(&run, 3, says, name);
        assert!(flag == "--key-file" || !run.stderr.contains("--key FILE"), "{name}: {}", run.stderr);
    }
    // What was meant as the key itself is not repeated.
    let secret = "5ca1ab1e5ca1ab1e5ca1ab1e5ca1ab1e";
    let run = desk.decrypt(&desk.image, &["--key", secret]);
    assert_says(&run, 1, &["the name of a file that holds the key is wanted"], "a key in place of a file");
    assert!(!run.stderr.contains(secret));
    let id = "5ca1ab1e-1111-2222-3333-444455556666";
    for secret in [id, &format!("https://barbican.example/v1/secrets/{id}")] {
        let run = desk.decrypt(&desk.image, &["--key", secret]);
        assert_says(
            &run,
            1,
            &["names a secret", "unluks fetch key SECRET --output FILE"],
            "a secret's name for a file",
        );
    }
    let run = desk.decrypt(&desk.image, &["--key-file", &desk.at("nothing")]);
    assert_says(&run, 3, &["the passphrase is empty"], "an empty key");
    let run = desk.decrypt(&desk.image, &["--barbican-key", &desk.key, "--key-slot", "3"]);
    assert_says(&run, 2, &["there is no keyslot 3; the only one is 0"], "a keyslot that is not there");
}

#[test]
fn places_that_hold_no_luks_lead_to_those_that_do() {
    let disk = Golden::unpack("gpt");
    let (image, key, out) = (text(&disk.image), text(&disk.key), text(&disk.path("out")));
    let decrypt =
        |flags: &[&str]| unluks(&[&["decrypt", &image, "-q", "--key-file", &key, "-o", &out], flags].concat());
    assert_says(&decrypt(&["--partition", "1"]), 4, &["LUKS is elsewhere: GPT partition 2"], "another partition");
    let says: &[&str] = &["which is 4096 sectors of 512 bytes", "give the offset in bytes: 2097152"];
    assert_says(&decrypt(&["--offset", "4096"]), 2, says, "an offset in sectors");
    let detached = Golden::unpack("l2-detached");
    let (data, header) = (text(&detached.image), text(detached.header.as_ref().unwrap()));
    let decrypt = |image: &str, flags: &[&str]| {
        unluks(&[&["decrypt", image, "-q", "--key-file", &text(&detached.key), "-o", &out], flags].concat())
    };
    assert_says(&decrypt(&header, &["--header", &data]), 4, &["are image and header swapped?"], "swapped");
    let volume = text(&testdata().join("openstack-volume.img"));
    let says: &[&str] = &["would make noise of the data", "--force-header"];
    assert_says(&decrypt(&volume, &["--header", &header]), 2, says, "a foreign header");
    let whole = fs::read(&volume).unwrap();
    let cut = text(&disk.path("cut.img"));
    fs::write(&cut, &whole[..100_000]).unwrap();
    assert_says(&decrypt(&cut, &[]), 4, &["the file was cut off"], "cut off");
    let header = text(&disk.path("backup.hdr"));
    assert_eq!(unluks(&["header", &volume, "-o", &header, "-q"]).code, Some(0));
    let key = text(&testdata().join("openstack-volume.key"));
    let run = unluks(&["decrypt", &header, "-q", "--barbican-key", &key, "-o", &out]);
    assert_says(&run, 4, &["header"], "a header backup alone");
    assert!(!Path::new(&out).exists());
}

#[test]
fn outputs_that_cannot_be_are_refused_before_a_key_is_derived() {
    let desk = Desk::new();
    let key = ["--barbican-key", &desk.key];
    let run = |out: &str, flags: &[&str]| unluks(&[&["decrypt", &desk.image, "-o", out], &key[..], flags].concat());
    let none = desk.at("none/out");
    let cases: [(Run, i32, &[&str]); 3] = [
        (run(&none, &[]), 1, &["the folder", "none of the output does not exist"]),
        (run(&desk.at("out"), &["--resume"]), 2, &["there is no journal"]),
        (run(&desk.at("out"), &["--skip", "9999"]), 2, &["--skip 9999 is beyond the plaintext's 4096 bytes"]),
    ];
    for (run, code, says) in &cases {
        assert_says(run, *code, says, says[0]);
        assert!(!run.stderr.contains("unluks-part"), "{}", run.stderr);
    }
    for run in [&cases[0].0, &cases[1].0] {
        assert!(!run.stderr.contains("opened with the key"), "{}", run.stderr);
    }
    let plan = unluks(&["restore-plan", &desk.at("nowhere")]);
    assert_says(&plan, 2, &["nowhere does not exist"], "a plan of nothing");
    let plan = unluks(&["restore-plan", &desk.image]);
    assert_says(&plan, 2, &["is no directory of a backup by unluks fetch"], "a plan of an image");
}

#[test]
fn several_images_are_gone_through_and_one_that_fails_is_said() {
    let desk = Desk::new();
    let none = desk.at("nowhere");
    for command in ["inspect", "scan"] {
        let run = unluks(&[command, &desk.image, &none, &desk.image, "--json"]);
        assert_eq!(run.code, Some(1), "{command}: {}", run.stderr);
        let lines: Vec<serde_json::Value> =
            String::from_utf8_lossy(&run.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2, "{command}");
        assert_eq!(lines[0], lines[1], "{command}");
        assert!(run.stderr.contains("nowhere: No such file"), "{command}: {}", run.stderr);
        let text = unluks(&[command, &desk.image, &desk.image]);
        assert_eq!(text.code, Some(0), "{command}: {}", text.stderr);
        assert_eq!(String::from_utf8_lossy(&text.stdout).matches("f531939b-1f68-4acf-abd7-f79a88250c67").count(), 2);
    }
}

#[test]
fn colours_are_there_where_they_are_wanted() {
    let image = text(&testdata().join("openstack-volume.img"));
    let has_colours = |args: &[&str]| unluks(&[&["inspect", &image], args].concat()).stdout.contains(&0x1b);
    assert!(has_colours(&["--color", "always"]) && !has_colours(&["--color", "never"]) && !has_colours(&[]));
}

#[test]
fn the_program_says_how_it_was_built() {
    let own = crate::common::sha256_file(Path::new(crate::common::UNLUKS));
    for args in [&["--version", "--verbose"][..], &["-Vv"]] {
        let run = unluks(args);
        let said = String::from_utf8(run.stdout).unwrap();
        assert_eq!(run.code, Some(0), "{args:?}: {}", run.stderr);
        for line in [format!("sha256:   {own}"), "compiler: rustc ".to_owned(), "commit:   ".to_owned()] {
            assert!(said.lines().any(|l| l.starts_with(&line)), "{args:?}: {said}");
        }
        assert_eq!(said.contains("openstack"), cfg!(feature = "openstack"));
    }
    assert_eq!(String::from_utf8(unluks(&["--version"]).stdout).unwrap().lines().count(), 1);
    assert_eq!(unluks(&["--verbose"]).code, Some(2));
}

#[cfg(feature = "nbd")]
#[test]
fn a_server_without_a_place_names_the_flag() {
    let desk = Desk::new();
    let serve = |flags: &[&str]| unluks(&[&["serve", &desk.image, "-q", "--barbican-key", &desk.key], flags].concat());
    assert_says(&serve(&["--listen", "10809"]), 2, &["write ADDR:PORT, such as 127.0.0.1:10809"], "a port alone");
    // As in a chroot that has no /tmp.
    let run = std::process::Command::new(crate::common::UNLUKS)
        .args(["serve", &desk.image, "-q", "--barbican-key", &desk.key])
        .env_remove("XDG_RUNTIME_DIR")
        .env("TMPDIR", desk.at("none"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(1), "{said}");
    assert!(said.contains("--socket"), "{said}");
}

/// `-h` is for a glance; `--help` has the rest, and examples.
#[test]
fn short_help_fits_a_screen() {
    let help = |args: &[&str]| {
        let run = std::process::Command::new(crate::common::UNLUKS).args(args).env("COLUMNS", "80").output().unwrap();
        assert!(run.status.success(), "{args:?}");
        String::from_utf8(run.stdout).unwrap()
    };
    let all = help(&["-h"]);
    assert!(all.lines().count() <= 45, "-h has {} lines", all.lines().count());
    let commands = all.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let commands = commands.filter(|line| !line.starts_with("    ")).filter_map(|line| line.split_whitespace().next());
    let mut seen = 0;
    for command in commands.filter(|command| *command != "help") {
        let (short, long) = (help(&[command, "-h"]), help(&[command, "--help"]));
        assert!(short.lines().count() <= 45, "{command} -h has {} lines", short.lines().count());
        assert!(long.contains("Examples:") && long.contains("--color"), "{command}");
        // No flag that says how much is printed stands among limits.
        let limits = long.split("\nLimits:").nth(1).and_then(|rest| rest.split("\n\n\n").next()).unwrap_or_default();
        let limits: Vec<&str> = limits.lines().take_while(|l| l.is_empty() || l.starts_with(' ')).collect();
        assert!(limits.iter().all(|line| !line.contains("--quiet")), "{command}: {limits:?}");
        seen += 1;
    }
    assert!(seen > 8, "{all}");
}
