//! Every mistake of a list that was made by watching people, with the line that it leads to, word for word: after a change
//! that means to change them, `SNAPSHOTS=overwrite cargo test --all-features --test program every_message`.

use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::*;
use crate::common::root;

/// The lines of a list, with what differs from run to run taken out.
struct List {
    desk: Desk,
    text: String,
    last: usize,
}

impl List {
    fn add(&mut self, what: &str, run: &Run) {
        let said: Vec<&str> = run.stderr.lines().filter(|line| !line.trim().is_empty()).collect();
        // What went well says how the key was made fit; what did not says why, in its last line.
        let line = match run.code {
            // How to get help is said behind it.
            Some(2) if run.stderr.contains("For more information") => said.first(),
            Some(0) => said.iter().rev().find(|line| line.contains("opened")).or(said.last()),
            _ => said.last(),
        };
        let line = line.copied().unwrap_or("nothing");
        let places = [
            (self.desk.dir.path().to_str().unwrap(), "DIR"),
            (testdata().to_str().unwrap(), "TESTDATA"),
            (std::env::temp_dir().to_str().unwrap(), "TMP"),
        ]
        .map(|(place, name)| (place.to_owned(), name));
        let line = places.iter().fold(line.to_owned(), |line, (place, name)| line.replace(place, name));
        let line = timeless(&line);
        let code = run.code.map_or("a signal".to_owned(), |code| code.to_string());
        writeln!(self.text, "{what}\n    {code}: {line}").unwrap();
    }

    /// `unluks decrypt IMAGE` with a key that people saved in this way.
    fn key(&mut self, what: &str, flag: &str, bytes: &[u8]) {
        self.last += 1;
        let name = format!("key{}", self.last);
        self.desk.put(&name, bytes);
        let run =
            unluks(&["decrypt", &self.desk.image, "--force", "-o", &self.desk.at("out"), flag, &self.desk.at(&name)]);
        let run = Run { stderr: run.stderr.replace(&name, "key"), ..run };
        self.add(&format!("{flag}, {what}"), &run);
    }

    fn image(&mut self, what: &str, name: &str, bytes: Option<&[u8]>) {
        if let Some(bytes) = bytes {
            self.desk.put(name, bytes);
        }
        let run = self.desk.decrypt(&self.desk.at(name), &["--barbican-key", &self.desk.key]);
        self.add(what, &run);
    }
}

/// A line without seconds, rates and names of files that a run makes up.
fn timeless(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let is_number = |word: &str| word.starts_with(|c: char| c.is_ascii_digit());
    let mut out = Vec::new();
    for (n, word) in words.iter().enumerate() {
        let unit = words.get(n + 1).copied().unwrap_or_default().trim_end_matches([',', ';', ')']);
        let is_timed = is_number(word) && (unit == "s" || unit.ends_with("B/s"));
        out.push(if is_timed { "N" } else { word });
    }
    out.join(" ")
}

fn utf_16(text: &str) -> Vec<u8> {
    "\u{feff}".encode_utf16().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect()
}

#[test]
fn every_message_of_the_list_is_as_it_was_agreed_on() {
    let mut list = List { desk: Desk::new(), text: String::new(), last: 0 };
    let key = fs::read(&list.desk.key).unwrap();
    let hex = hex(&key);
    let id = "5ca1ab1e-1111-2222-3333-444455556666";

    list.key("a wrong key", "--barbican-key", b"another");
    list.key("a wrong key", "--key-file", b"another");
    list.key("a wrong key", "--key", b"another");
    list.key("with a newline", "--key", &[&key[..], b"\n"].concat());
    list.key("hex", "--key", hex.as_bytes());
    list.key("hex in capitals, with CRLF", "--key", format!("{}\r\n", hex.to_uppercase()).as_bytes());
    list.key("hex behind 0x", "--key", format!("0x{hex}").as_bytes());
    let pairs: Vec<&str> = (0..hex.len() / 2).map(|n| &hex[n * 2..n * 2 + 2]).collect();
    list.key("hex with colons", "--key", pairs.join(":").as_bytes());
    list.key("with a byte order mark", "--key", format!("\u{feff}{hex}").as_bytes());
    list.key("UTF-16, as PowerShell redirects", "--key", &utf_16(&format!("{hex}\r\n")));
    list.key("base64", "--key", STANDARD.encode(&key).as_bytes());
    list.key("base64url", "--key", URL_SAFE_NO_PAD.encode(&key).as_bytes());
    list.key("base64 of hex", "--key", STANDARD.encode(&hex).as_bytes());
    let secret = format!("{{\n  \"Secret href\": \"https://b/v1/secrets/{id}\",\n  \"Payload\": \"{hex}\"\n}}\n");
    list.key("JSON of openstack secret get", "--key", secret.as_bytes());
    list.key("a UUID", "--key", id.as_bytes());
    list.key("a UUID", "--key-file", id.as_bytes());
    list.key("an address", "--key", format!("https://b/v1/secrets/{id}").as_bytes());
    list.key("a page of HTML", "--key", b"<html><head><title>401 Unauthorized</title></head></html>");
    list.key("a page of HTML", "--barbican-key", b"<html><head><title>401 Unauthorized</title></head></html>");
    list.key("an error as JSON", "--key", b"{\"error\": {\"code\": 401, \"message\": \"no\"}}");
    list.key("nothing", "--key-file", b"");
    for given in [id, &format!("https://b/v1/secrets/{id}"), &hex] {
        let run = list.desk.decrypt(&list.desk.image, &["--key", given]);
        assert!(!run.stderr.contains(given), "{}", run.stderr);
        list.add("--key with what should be in its file", &run);
    }
    let run = list.desk.decrypt(&list.desk.image, &["--barbican-key", &list.desk.key, "--key-slot", "3"]);
    list.add("a keyslot that is not there", &run);

    for (what, name, magic) in [
        ("gzip", "i.gz", &b"\x1f\x8b\x08\0 and more"[..]),
        ("xz", "i.xz", b"\xfd7zXZ\0\0\x04 and more"),
        ("zstd", "i.zst", b"\x28\xb5\x2f\xfd and more"),
        ("bzip2", "i.bz2", b"BZh91AY&SY and more"),
        ("lz4", "i.lz4", b"\x04\x22\x4d\x18 and more"),
        ("zip", "i.zip", b"PK\x03\x04\x14\0 and more"),
        ("7z", "i.7z", b"7z\xbc\xaf\x27\x1c\0\x04 and more"),
        ("age", "i.age", b"age-encryption.org/v1\n-> X25519 aaa\n"),
        ("openssl enc", "i.enc", b"Salted__12345678 and more"),
        ("a page of HTML", "i.html", b"<html><head><title>404 Not Found</title></head></html>"),
        ("nothing", "i.empty", b""),
    ] {
        list.image(&format!("an image that is {what}"), name, Some(magic));
    }
    for (what, name) in [
        ("tar", "archive.tar"),
        ("zeroes", "zeroes"),
        ("noise", "noise"),
        ("an ext", "ext"),
        ("a swap area", "swap"),
        ("BitLocker", "bitlocker"),
        ("APFS", "apfs"),
        ("not there", "nowhere"),
    ] {
        list.image(&format!("an image that is {what}"), name, None);
    }
    places(&mut list);
    outputs(&mut list);

    let snapshot = root().join("cli/tests/cmd/messages.txt");
    snapbox::assert_data_eq!(list.text, snapbox::Data::read_from(&snapshot, None).raw());
}

/// Images that are not whole, headers of others, parts of disks.
fn places(list: &mut List) {
    let disk = Golden::unpack("gpt");
    list.desk.put("disk", &fs::read(&disk.image).unwrap());
    list.desk.put("disk.key", &fs::read(&disk.key).unwrap());
    let (image, key) = (list.desk.at("disk"), list.desk.at("disk.key"));
    for (what, flags) in [
        ("a partition without LUKS", &["--partition", "1"][..]),
        ("a partition that is not there", &["--partition", "9"]),
        ("an offset in sectors", &["--offset", "4096"]),
    ] {
        let run = list.desk.decrypt(&image, &[&["--key-file", &key], flags].concat());
        list.add(what, &run);
    }
    let whole = fs::read(&list.desk.image).unwrap();
    list.image("an image that ends in its header", "cut", Some(&whole[..100_000]));
    list.image("the first piece of one that was cut", "piece.001", Some(&whole[..100_000]));
    let header = list.desk.at("backup.hdr");
    assert_eq!(unluks(&["header", &list.desk.image, "-o", &header, "-q"]).code, Some(0));
    list.image("a header backup alone", "backup.hdr", None);
    let detached = Golden::unpack("l2-detached");
    list.desk.put("data", &fs::read(&detached.image).unwrap());
    list.desk.put("data.hdr", &fs::read(detached.header.as_ref().unwrap()).unwrap());
    let (data, header) = (list.desk.at("data"), list.desk.at("data.hdr"));
    let flags = |header: &str| ["--header".to_owned(), header.to_owned(), "--key-file".to_owned(), text(&detached.key)];
    let run = |list: &List, image: &str, header: &str| {
        let flags = flags(header);
        list.desk.decrypt(image, &flags.each_ref().map(String::as_str))
    };
    let swapped = run(list, &header, &data);
    list.add("header and image swapped", &swapped);
    let foreign = run(list, &list.desk.image.clone(), &header);
    list.add("the header of another image", &foreign);
    let mut overwritten = whole.clone();
    let slot = unluks(&["inspect", "--json", &list.desk.image]);
    let report: serde_json::Value = serde_json::from_slice(&slot.stdout).unwrap();
    let area = &report["keyslots"][0]["area"];
    let at = usize::try_from(area["offset"].as_u64().unwrap_or_else(|| panic!("{report:#}"))).unwrap();
    overwritten[at..at + 4096].fill(0);
    list.image("a keyslot that is overwritten", "overwritten", Some(&overwritten));
    let costly = Golden::unpack("l2-argon2id");
    let run = list.desk.decrypt(&text(&costly.image), &["--key-file", &text(&costly.key), "--max-kdf-memory", "8KiB"]);
    let stderr = run.stderr.replace(costly.image.parent().unwrap().to_str().unwrap(), "DIR");
    list.add("more memory for the key than is allowed", &Run { stderr, ..run });
}

/// Outputs that cannot be.
fn outputs(list: &mut List) {
    let key = list.desk.key.clone();
    let image = list.desk.image.clone();
    let run =
        |out: &str, flags: &[&str]| unluks(&[&["decrypt", &image, "--barbican-key", &key, "-o", out], flags].concat());
    list.add("a folder that is not there", &run(&list.desk.at("none/out"), &[]));
    list.add("a folder that is a file", &run(&list.desk.at("zeroes/out"), &[]));
    list.add("an output that is there", &run(&list.desk.at("zeroes"), &[]));
    list.add("an output that is a folder", &run(list.desk.dir.path().to_str().unwrap(), &[]));
    list.add("--resume without a journal", &run(&list.desk.at("new"), &["--resume"]));
    list.add("--skip beyond the end", &run(&list.desk.at("new"), &["--skip", "9999"]));
    list.desk.put("copy", &fs::read(&image).unwrap());
    std::os::unix::fs::symlink(list.desk.at("copy"), list.desk.at("link")).unwrap();
    let itself =
        unluks(&["decrypt", &list.desk.at("copy"), "--barbican-key", &key, "--force", "-o", &list.desk.at("link")]);
    list.add("the image as its output, through a link", &itself);
    // As on a stick with FAT, which has no files above 4 GiB.
    let script =
        format!("ulimit -f 1; exec \"$0\" decrypt '{image}' --barbican-key '{key}' -o '{}'", list.desk.at("large"));
    let limited = std::process::Command::new("bash").args(["-c", &script, crate::common::UNLUKS]).output().unwrap();
    let stderr = String::from_utf8_lossy(&limited.stderr).into_owned();
    list.add("a limit of what a file may have", &Run { code: limited.status.code(), stdout: limited.stdout, stderr });
    for what in ["nowhere", "zeroes"] {
        list.add(&format!("a plan for {what}"), &unluks(&["restore-plan", &list.desk.at(what)]));
    }
    let socket = list.desk.at("zeroes");
    let serve = |flags: &[&str]| unluks(&[&["serve", &image, "--barbican-key", &key], flags].concat());
    list.add("a socket that is a file", &serve(&["--socket", &socket]));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let busy = serve(&["--listen", &address]);
    list.add("a port that is taken", &Run { stderr: busy.stderr.replace(&address, "ADDRESS"), ..busy });
    list.add("a port without an address", &serve(&["--listen", "10809"]));
    for name in ["luksDump", "info", "open", "isLuks", "dump", "decript"] {
        list.add(&format!("unluks {name}"), &unluks(&[name, &image]));
    }
}
