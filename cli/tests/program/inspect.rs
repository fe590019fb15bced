//! `unluks inspect`: its report follows its schema and agrees with cryptsetup's luksDump on every golden image; it says
//! what became of the data; and nothing of a hostile header reaches the terminal as it is.

// A test fails by panicking, also in a helper.

mod dump;

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::common::{Golden, Run, UNLUKS, check_all, golden_names, peer, read_stored, sha256_file, text, unluks};
use crate::common::{sidecar, unluks_with_stdin};

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let path = crate::common::root().join("docs/inspect.schema.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
});

static VALIDATOR: LazyLock<jsonschema::Validator> =
    LazyLock::new(|| jsonschema::draft202012::new(&SCHEMA).unwrap_or_else(|e| panic!("the schema is wrong: {e}")));

/// A report that a run printed, after the schema had its say.
pub fn report(run: &Run) -> Value {
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_eq!(run.stderr, "");
    let report: Value = serde_json::from_slice(&run.stdout).unwrap();
    let faults: Vec<_> = VALIDATOR.iter_errors(&report).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(faults.is_empty(), "against the schema: {}", faults.join("\n"));
    check_layout(&report);
    report
}

fn inspect(args: &[&Path]) -> Value {
    let mut all = vec!["inspect".to_owned(), "--json".to_owned()];
    all.extend(args.iter().map(|p| text(p)));
    report(&unluks(&all))
}

/// The ranges of each file follow each other without holes, to the file's end where that is known.
fn check_layout(report: &Value) {
    for (file, size) in [("image", &report["image"]["size"]), ("header", &report["header"]["size"])] {
        let ranges: Vec<_> = report["layout"].as_array().unwrap().iter().filter(|r| r["file"] == file).collect();
        let mut at = Some(0);
        for r in &ranges {
            assert_eq!(r["start"].as_u64(), at, "a hole or an overlap: {ranges:?}");
            at = r["end"].as_u64();
            assert_eq!(r["size"].as_u64(), at.map(|end| end - r["start"].as_u64().unwrap()));
        }
        let cut = report["data"]["state"] == "truncated" || report["data"]["state"] == "header-only";
        let container = &report["container"]["size"];
        let size = if file == "image" && container.is_u64() { container } else { size };
        if let Some(size) = size.as_u64().filter(|_| !cut && !ranges.is_empty()) {
            assert!(at.is_none_or(|end| end == size), "ends at {at:?}, the file at {size}");
        }
    }
}

fn codes(report: &Value) -> Vec<&str> {
    report["findings"].as_array().unwrap().iter().map(|f| f["code"].as_str().unwrap()).collect()
}

/// The golden images that LUKS headers start, not containers and partition tables.
fn luks_names() -> Vec<String> {
    let tagged = |name: &str, tag: &str| sidecar(name)["tags"].as_array().unwrap().iter().any(|t| t == tag);
    golden_names().into_iter().filter(|n| !tagged(n, "partition") && !tagged(n, "qcow2")).collect()
}

#[test]
fn every_golden_image_agrees_with_luks_dump() {
    check_all(&luks_names(), |name| name.clone(), |name| check_golden(&Golden::unpack(name)));
}

fn check_golden(golden: &Golden) -> Option<String> {
    let header = golden.header.as_deref().unwrap_or(&golden.image);
    let before = sha256_file(header);
    let mut args = vec!["inspect".to_owned(), "--json".to_owned(), text(&golden.image)];
    if let Some(header) = &golden.header {
        args.extend(["--header".to_owned(), text(header)]);
    }
    let run = unluks(&args);
    let plain = unluks(&args.iter().filter(|a| *a != "--json").collect::<Vec<_>>());
    assert_eq!(sha256_file(header), before, "inspect changed the header");
    assert_eq!(plain.code, run.code);
    if !cfg!(feature = "peer-tests") {
        return match run.code {
            Some(0) => {
                check_plaintext_size(golden, &report(&run));
                None
            }
            _ => run.refusal_fault(&[4]),
        };
    }
    // cryptsetup repairs what it reads: it gets a copy.
    let copy = golden.path("copy");
    fs::copy(header, &copy).unwrap();
    let theirs = peer("cryptsetup", "cryptsetup-bin", &["luksDump", "--disable-locks", &text(&copy)]);
    if theirs.code != Some(0) {
        assert!(run.stdout.is_empty() && plain.stdout.is_empty(), "a refused header is not shown");
        return run.refusal_fault(&[4]);
    }
    let report = report(&run);
    let theirs = String::from_utf8(theirs.stdout).unwrap();
    match report["version"].as_u64().unwrap() {
        1 => dump::check_luks1(&report, &theirs),
        _ => {
            let json = ["luksDump", "--dump-json-metadata", "--disable-locks", &text(&copy)].map(str::to_owned);
            let json = peer("cryptsetup", "cryptsetup-bin", &json);
            assert_eq!(json.code, Some(0), "{}", json.stderr);
            dump::check_luks2(&report, &theirs, &serde_json::from_slice(&json.stdout).unwrap());
        }
    }
    check_plaintext_size(golden, &report);
    None
}

/// What decrypting gives has the size that inspecting said.
fn check_plaintext_size(golden: &Golden, report: &Value) {
    let known = &report["data"]["plaintext_size"];
    if let (Some(size), Some(said)) = (golden.sidecar["size"].as_u64(), known.as_u64()) {
        assert_eq!(said, size, "{}", report["data"]);
    }
}

#[test]
fn offsets_count_from_the_container_in_the_image() {
    for (name, args, says) in [
        ("gpt", &["--partition", "2"][..], "partition"),
        ("luks-in-qcow2", &[], "qcow2"),
        ("qcow2-luks", &[], "clusters"),
    ] {
        let golden = Golden::unpack(name);
        let image = text(&golden.image);
        let all = [&["inspect", "--json", &*image], args].concat();
        let r = report(&unluks(&all));
        assert_eq!(r["image"]["size"], fs::metadata(&golden.image).unwrap().len());
        assert!(r["container"]["notes"].to_string().contains(says), "{name}: {}", r["container"]);
        let size = golden.sidecar["size"].as_u64().unwrap();
        let said = r["data"]["plaintext_size"].as_u64().unwrap();
        // A partition may be larger than what the sidecar knows of.
        assert!(if name == "gpt" { said >= size } else { said == size }, "{name}: {said}");
        assert!(!codes(&r).contains(&"truncated") && !codes(&r).contains(&"header-only"), "{name}: {:?}", codes(&r));
        let shown = String::from_utf8(unluks(&[&["inspect", &*text(&golden.image)], args].concat()).stdout).unwrap();
        assert!(shown.contains(says), "{shown}");
    }
    let golden = Golden::unpack("l2-tokens");
    assert_eq!(inspect(&[&golden.image])["container"], Value::Null);
}

#[test]
fn the_schema_is_strict_and_names_every_code() {
    let golden = Golden::unpack("l2-tokens");
    let good = inspect(&[&golden.image]);
    for change in ["add", "remove", "negative", "type"] {
        let mut changed = good.clone();
        match change {
            "add" => changed["keyslots"][0]["more"] = json!(1),
            "remove" => drop(changed["keyslots"][0].as_object_mut().unwrap().remove("unbound")),
            "negative" => changed["segments"][0]["offset"] = json!(-512),
            _ => changed["copies"][0]["good"] = json!("yes"),
        }
        assert!(!VALIDATOR.is_valid(&changed), "{change} passes");
    }
    let named = &SCHEMA["properties"]["findings"]["items"]["properties"]["code"]["enum"];
    assert_eq!(*named, json!(unluks::luks::findings::CODES));
}

#[test]
fn damaged_copies_are_shown_with_the_rule() {
    let golden = Golden::unpack("l2-primary-json-flipped");
    let r = inspect(&[&golden.image]);
    let (primary, secondary) = (&r["copies"][0], &r["copies"][1]);
    assert_eq!((&primary["good"], &primary["used"]), (&json!(false), &json!(false)));
    assert_eq!(primary["error"]["rule"], "csum");
    assert_eq!(
        (&secondary["good"], &secondary["used"], &secondary["error"]),
        (&json!(true), &json!(true), &Value::Null)
    );
    assert!(codes(&r).contains(&"header-copy-damaged"));

    let golden = Golden::unpack("l2-secondary-zeroed");
    let r = inspect(&[&golden.image]);
    assert_eq!(r["copies"][1]["error"]["rule"], "magic");
    assert_eq!(r["copies"][1]["seqid"], Value::Null);
    assert_eq!(r["differences"], json!([]));

    let golden = Golden::unpack("l2-both-damaged");
    for args in [vec!["inspect"], vec!["inspect", "--json"]] {
        let run = unluks(&[args, vec![&*text(&golden.image)]].concat());
        assert_eq!(run.refusal_fault(&[4]), None);
        assert_eq!((run.stdout.len(), run.stderr.lines().count()), (0, 1), "{}", run.stderr);
        assert!(run.stderr.contains("primary header") && run.stderr.contains("secondary header"), "{}", run.stderr);
    }
}

/// A LUKS2 header that is changed and given good checksums, in a file of `len` bytes.
struct Made {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

/// Bytes of one copy of the stored header, and of its binary header.
const COPY: usize = 0x4000;
const BIN: usize = 0x1000;

fn made(len: u64, change: impl Fn(usize, &mut [u8], &mut Value)) -> Made {
    let mut header = read_stored("header-luks2.gz");
    assert_eq!(header.len(), 2 * COPY);
    for (n, copy) in header.chunks_mut(COPY).enumerate() {
        let end = copy[BIN..].iter().position(|b| *b == 0).unwrap();
        let mut json: Value = serde_json::from_slice(&copy[BIN..BIN + end]).unwrap();
        change(n, &mut copy[..BIN], &mut json);
        let json = json.to_string();
        copy[BIN..].fill(0);
        copy[BIN..BIN + json.len()].copy_from_slice(json.as_bytes());
        copy[448..512].fill(0);
        let sum = Sha256::digest(&*copy);
        copy[448..480].copy_from_slice(&sum);
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("made.img");
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(&header).unwrap();
    file.set_len(len).unwrap();
    Made { path, _dir: dir }
}

/// The stored header's data begin here.
const DATA: u64 = 16 << 20;

#[test]
fn what_the_copies_say_differently_is_shown() {
    let m = made(DATA + 512, |n, bin, json| {
        if n == 1 {
            bin[23] += 1;
            bin[24..30].copy_from_slice(b"other\0");
            json["keyslots"]["0"]["kdf"]["time"] = json!(5);
        }
    });
    let r = inspect(&[&m.path]);
    let differences = r["differences"].as_array().unwrap();
    let fields: Vec<_> = differences.iter().map(|d| d["field"].as_str().unwrap()).collect();
    assert_eq!(fields, ["seqid", "label", "keyslots.0.kdf.time"]);
    assert_eq!((&differences[2]["primary"], &differences[2]["secondary"]), (&json!("4"), &json!("5")));
    // The newer copy is in use.
    assert_eq!((&r["copies"][1]["used"], &r["label"]), (&json!(true), &json!("other")));
    assert_eq!(r["keyslots"][0]["kdf"]["time"], 5);
    assert!(codes(&r).contains(&"header-copies-differ"));
}

/// What a terminal would obey: a title, a cleared screen, a colour, C1's CSI, DEL, turned and hidden text.
const HOSTILE: &str = "\u{1b}]0;x\u{7}\u{1b}[2J\u{1b}[31m\u{9b}m\r\u{7f}\u{202e}\u{2066}\u{feff}";

#[test]
fn nothing_of_a_hostile_header_reaches_the_terminal_as_it_is() {
    let put =
        |bin: &mut [u8], at: usize| bin[at..at + HOSTILE.len() + 1].copy_from_slice(format!("{HOSTILE}\0").as_bytes());
    let m = made(DATA + 512, |n, bin, json| {
        put(bin, 24);
        put(bin, 168);
        put(bin, 208);
        // The copies differ, so that this is shown too; the newer is the primary.
        bin[23] += u8::from(n == 0);
        json["tokens"]["0"] = json!({"type": HOSTILE, "keyslots": ["0"], HOSTILE: [HOSTILE, n]});
        json["config"]["flags"] = json!([HOSTILE]);
        json["config"]["requirements"] = json!({"mandatory": [HOSTILE]});
        json["segments"]["0"]["encryption"] = json!(HOSTILE);
        json["segments"]["0"]["integrity"] =
            json!({"type": HOSTILE, "journal_encryption": HOSTILE, "journal_integrity": HOSTILE});
        json["segments"]["1"] = json!({"type": HOSTILE, "offset": "16777216", "size": "dynamic", "flags": [format!("backup{HOSTILE}")], HOSTILE: HOSTILE});
        let slots = json["keyslots"].as_object_mut().unwrap();
        let area = slots["1"]["area"].clone();
        slots["0"]["kdf"] = json!({"type": HOSTILE, "salt": HOSTILE});
        slots["0"]["af"]["hash"] = json!(HOSTILE);
        slots["0"]["area"]["encryption"] = json!(HOSTILE);
        slots["1"] = json!({"type": HOSTILE, "key_size": 1, "area": area, HOSTILE: HOSTILE});
        slots["2"]["kdf"] = json!({"type": "pbkdf2", "hash": HOSTILE, "iterations": 1, "salt": HOSTILE});
        json["digests"]["0"]["hash"] = json!(HOSTILE);
        json["digests"]["0"]["salt"] = json!(HOSTILE);
    });
    let harmless = |c: char| c == '\n' || (' '..='~').contains(&c) || c.is_alphanumeric();
    let path = text(&m.path);
    for args in [vec!["inspect", &path], vec!["inspect", &path, "--json"]] {
        let run = unluks(&args);
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
        let printed = String::from_utf8(run.stdout).unwrap();
        // The one mark of our own that is neither is that of a text that was cut.
        let harmful = printed.chars().find(|c| !harmless(*c) && *c != '…');
        assert_eq!(
            harmful,
            None,
            "{}",
            printed.lines().find(|l| l.contains(|c| Some(c) == harmful)).unwrap_or_default()
        );
    }
    // On a terminal our own colours are the only sequences.
    let run = Command::new(UNLUKS).args(["inspect", &path]).env_remove("NO_COLOR").env("CLICOLOR_FORCE", "1").output();
    let printed = String::from_utf8(run.unwrap().stdout).unwrap();
    let own = ["\u{1b}[0m", "\u{1b}[1m", "\u{1b}[2m", "\u{1b}[31m", "\u{1b}[32m", "\u{1b}[33m"];
    assert!(own[..3].iter().all(|s| printed.contains(s)), "there are no colours");
    let rest = own.iter().fold(printed, |text, sequence| text.replace(sequence, ""));
    assert_eq!(rest.chars().find(|c| !harmless(*c) && *c != '…'), None);
    // A program gets all of it as it was.
    let r = inspect(&[&m.path]);
    for value in [&r["label"], &r["subsystem"], &r["tokens"][0]["type"], &r["keyslots"][1]["type"]] {
        assert_eq!(value, HOSTILE);
    }
    assert_eq!(r["uuid"].as_str().unwrap(), HOSTILE);
    assert_eq!(r["tokens"][0]["content"][HOSTILE][0], HOSTILE);
    assert_eq!(r["json"]["keyslots"]["1"][HOSTILE], HOSTILE);
}

#[test]
fn the_largest_numbers_are_shown() {
    let m = made(DATA + 512, |_, bin, json| {
        bin[16..24].fill(0xFF);
        let end = (u64::MAX - 511).to_string();
        let segment = &mut json["segments"]["0"];
        (segment["iv_tweak"], segment["sector_size"]) = (json!(u64::MAX.to_string()), json!(u32::MAX - 511));
        segment["integrity"] = json!({"type": "x", "journal_encryption": "none", "journal_integrity": "none",
            "key_size": u64::MAX});
        json["segments"]["1"] = json!({"type": "linear", "offset": end, "size": end, "flags": ["backup-final"]});
        let slots = json["keyslots"].as_object_mut().unwrap();
        for slot in slots.values_mut() {
            slot["key_size"] = json!(u32::MAX);
            slot["priority"] = json!(i64::MIN);
            slot["af"]["stripes"] = json!(u64::MAX);
            slot["area"]["key_size"] = json!(u32::MAX);
            let kdf = slot["kdf"].as_object_mut().unwrap();
            for field in ["iterations", "time", "memory", "cpus"] {
                if let Some(number) = kdf.get_mut(field) {
                    *number = json!(u32::MAX);
                }
            }
        }
        slots["0"]["kdf"]["memory"] = json!(u64::MAX);
        slots["1"]["kdf"]["cpus"] = json!(1);
        json["digests"]["0"]["iterations"] = json!(u64::MAX);
    });
    let r = inspect(&[&m.path]);
    assert_eq!((&r["seqid"], &r["keyslots"][0]["kdf"]["cost"]), (&json!(u64::MAX), &Value::Null));
    assert!(r["keyslots"][1]["kdf"]["cost"]["seconds"].as_f64().unwrap() > 1e6);
    assert!(codes(&r).contains(&"costly-kdf") && codes(&r).contains(&"invalid-kdf"));
    let run = unluks(&["inspect", &text(&m.path)]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    assert!(String::from_utf8(run.stdout).unwrap().contains(&u64::MAX.to_string()));
}

#[test]
fn colours_are_for_terminals_and_no_color_is_honoured() {
    let golden = Golden::unpack("l1-two-slots");
    let has_colour = |set: &[(&str, &str)]| {
        let mut command = Command::new(UNLUKS);
        command.arg("inspect").arg(&golden.image).env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE");
        command.envs(set.iter().copied()).output().unwrap().stdout.contains(&0x1b)
    };
    assert!(!has_colour(&[]));
    assert!(has_colour(&[("CLICOLOR_FORCE", "1")]));
    assert!(!has_colour(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
}

#[test]
fn a_file_without_data_is_called_what_it_is() {
    for name in ["l1-header-backup", "l2-header-backup"] {
        let golden = Golden::unpack(name);
        let backup = golden.header.as_deref().unwrap();
        let r = inspect(&[backup]);
        assert_eq!(r["data"]["state"], "header-backup", "{name}");
        assert_eq!((&r["data"]["plaintext_size"], &r["data"]["readable"]), (&Value::Null, &json!(0)));
        assert!(codes(&r).contains(&"header-backup") && !codes(&r).contains(&"truncated"), "{name}: {:?}", codes(&r));
        // In place of the header that is gone from the image, it has its data.
        let r = inspect(&[&golden.image, Path::new("--header"), backup]);
        assert_eq!(r["data"]["state"], "to-end-of-file");
        assert_eq!(r["data"]["plaintext_size"], golden.sidecar["size"]);
        assert_eq!(r["layout"].as_array().unwrap().last().unwrap()["file"], "image");
    }
    for name in ["l1-detached", "l2-detached"] {
        let golden = Golden::unpack(name);
        let header = golden.header.as_deref().unwrap();
        let r = inspect(&[header]);
        assert_eq!(r["data"]["state"], "detached-header", "{name}");
        assert!(codes(&r).contains(&"detached-header"));
        assert_eq!(r["layout"].as_array().unwrap().last().unwrap()["file"], "elsewhere");
        let shown = String::from_utf8(unluks(&["inspect", &text(header)]).stdout).unwrap();
        assert!(shown.contains("as its detached header"), "{shown}");
        let r = inspect(&[&golden.image, Path::new("--header"), header]);
        assert!(!codes(&r).contains(&"detached-header"), "{name}");
        assert_eq!(r["header"]["path"], text(header));
    }
    let m = made(DATA - 4096, |_, _, _| {});
    let r = inspect(&[&m.path]);
    assert_eq!(r["data"]["state"], "header-only");
    assert!(codes(&r).contains(&"header-only"));
}

#[test]
fn a_file_that_is_cut_off_says_by_how_much() {
    let golden = Golden::unpack("l2-truncated");
    let r = inspect(&[&golden.image]);
    assert_eq!(r["data"]["state"], "truncated");
    let missing = r["data"]["missing"].as_u64().unwrap();
    let sector = r["segments"][0]["sector_size"].as_u64().unwrap();
    assert_eq!((r["image"]["size"].as_u64().unwrap() + missing) % sector, 0);
    assert!((1..sector).contains(&missing) && codes(&r).contains(&"truncated"));

    // A segment of fixed size says it to the byte.
    let golden = Golden::unpack("l2-segment-size");
    let whole = inspect(&[&golden.image]);
    assert_eq!(whole["data"]["state"], "complete");
    let size = whole["segments"][0]["size"].as_u64().unwrap();
    let end = whole["segments"][0]["offset"].as_u64().unwrap() + size;
    fs::OpenOptions::new().write(true).open(&golden.image).unwrap().set_len(end - 1000).unwrap();
    let cut = inspect(&[&golden.image]);
    assert_eq!((&cut["data"]["missing"], &cut["data"]["plaintext_size"]), (&json!(1000), &json!(size)));
}

#[test]
fn a_pipe_has_no_length() {
    for name in ["l1-two-slots", "l2-tokens"] {
        let golden = Golden::unpack(name);
        let mut piped = report(&unluks_with_stdin(&["inspect", "-", "--json"], &fs::read(&golden.image).unwrap()));
        assert_eq!(piped["image"], json!({"path": "-", "size": null}));
        assert_eq!(piped["data"]["state"], "unknown");
        let mut file = inspect(&[&golden.image]);
        // All that does not hang on the length is the same.
        for key in ["image", "data", "layout"] {
            piped[key].take();
            file[key].take();
        }
        assert_eq!(piped, file);
    }
    // A pipe that ends within the header is a damaged image.
    let run = unluks_with_stdin(&["inspect", "-"], &read_stored("header-luks2.gz")[..5000]);
    assert_eq!(run.refusal_fault(&[4]), None);
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let golden = Golden::unpack("l2-tokens");
    for more in [&[][..], &["--json"]] {
        let mut command = Command::new(UNLUKS);
        command.arg("inspect").arg(&golden.image).args(more).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(child.stdout.take());
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert_eq!((child.wait().unwrap().code(), stderr.as_str()), (Some(0), ""));
    }
    // A full disk is not quiet.
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let run = Command::new(UNLUKS).arg("inspect").arg(&golden.image).stdout(full).output().unwrap();
    let stderr = String::from_utf8(run.stderr).unwrap();
    assert_eq!((run.status.code(), stderr.lines().count()), (Some(1), 1), "{stderr}");
}

#[test]
fn a_damaged_luks1_keyslot_and_one_that_was_not_wiped_are_shown() {
    let golden = Golden::unpack("l1-two-slots");
    let mut image = fs::read(&golden.image).unwrap();
    let slot = |n: usize| 208 + n * 48;
    image[slot(5)..slot(5) + 4].copy_from_slice(&0xDEADu32.to_be_bytes());
    image[slot(7)..slot(7) + 4].copy_from_slice(&1u32.to_be_bytes());
    fs::write(&golden.image, image).unwrap();
    let r = inspect(&[&golden.image]);
    let states: Vec<_> = r["keyslots"].as_array().unwrap().iter().map(|k| k["state"].as_str().unwrap()).collect();
    let mut expected = ["disabled"; 8];
    (expected[0], expected[7]) = ("active", "invalid");
    assert_eq!(states, expected);
    // The slot was enabled a moment ago: what it holds is still there.
    assert_eq!(r["keyslots"][5]["kdf"]["iterations"], 1000);
    assert_eq!(r["keyslots"][1]["kdf"], Value::Null);
    assert!(codes(&r).contains(&"disabled-keyslot-not-wiped") && codes(&r).contains(&"invalid-keyslot"));
}

/// The text for people, as it was when somebody last looked at it. `SNAPSHOTS=overwrite` takes what is there now.
#[test]
fn the_text_is_as_it_was_looked_at() {
    let cases = [
        ("l1-two-slots", false),
        ("l2-tokens", false),
        ("l2-primary-json-flipped", false),
        ("l2-reencrypt-half", false),
        ("l2-integrity-hmac", false),
        ("l2-null-downgrade", false),
        ("l2-truncated", false),
        ("l1-detached", true),
        ("l2-header-backup", true),
    ];
    for (name, header_alone) in cases {
        let golden = Golden::unpack(name);
        let file = if header_alone { golden.header.as_deref().unwrap() } else { &golden.image };
        let mut command = Command::new(UNLUKS);
        command.arg("inspect").arg(file.file_name().unwrap()).current_dir(file.parent().unwrap());
        let run = command.env_remove("CLICOLOR_FORCE").output().unwrap();
        let snapshot =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/program/inspect/snapshots").join(format!("{name}.txt"));
        snapbox::assert_data_eq!(
            String::from_utf8(run.stdout).unwrap(),
            snapbox::Data::read_from(&snapshot, None).raw()
        );
    }
}
