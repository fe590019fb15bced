//! `unluks scan`: what it finds on damaged disks, and that the command that it prints opens it, word for word.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::common::{Golden, Run, UNLUKS, chain, check_all, golden_names, read_stored, sidecar, text, unluks};

static VALIDATOR: LazyLock<jsonschema::Validator> = LazyLock::new(|| {
    let path = crate::common::root().join("docs/scan.schema.json");
    let schema: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    jsonschema::draft202012::new(&schema).unwrap_or_else(|e| panic!("the schema is wrong: {e}"))
});

fn report(run: &Run) -> Value {
    let report: Value = serde_json::from_slice(&run.stdout).unwrap_or_else(|e| panic!("{e}: {}", run.stderr));
    let faults: Vec<_> = VALIDATOR.iter_errors(&report).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(faults.is_empty(), "against the schema: {}", faults.join("\n"));
    report
}

/// A folder with a disk image under `name`, and the key of the golden image `key_of` as KEY.
struct Site {
    dir: tempfile::TempDir,
    disk: PathBuf,
}

impl Site {
    fn new(name: &str, disk: &[u8], key_of: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        fs::write(&path, disk).unwrap();
        let key = crate::common::latin1(sidecar(key_of)["passphrase"].as_str().unwrap());
        fs::write(dir.path().join("KEY"), key).unwrap();
        Self { dir, disk: path }
    }

    /// Runs a command line in the folder by a shell, with the program on the path.
    fn sh(&self, shell: &[&str], line: &str) -> std::process::Output {
        let programs = Path::new(UNLUKS).parent().unwrap();
        let path = format!("{}:{}", text(programs), std::env::var("PATH").unwrap());
        let mut command = Command::new(shell[0]);
        command
            .args(&shell[1..])
            .args(["-c", line])
            .current_dir(self.dir.path())
            .env("PATH", path)
            .stdin(Stdio::null());
        command.output().unwrap_or_else(|e| panic!("{} of the Debian package of that name: {e}", shell[0]))
    }

    /// Scans the disk by the name it has in the folder, and runs the one command that is printed, by several shells.
    /// Gives what it wrote.
    fn opens_as_printed(&self) -> Vec<u8> {
        let mut scan = Command::new(UNLUKS);
        scan.arg("scan").arg(self.disk.file_name().unwrap()).current_dir(self.dir.path()).stdin(Stdio::null());
        let scan = scan.output().unwrap();
        let said = String::from_utf8(scan.stdout).unwrap();
        assert!(scan.status.success(), "{said}");
        let commands: Vec<_> = said.lines().filter_map(|l| l.trim().strip_prefix("open with  ")).collect();
        let [command] = commands.as_slice() else { panic!("one command is wanted: {said}") };
        let mut shells = vec![vec!["dash"], vec!["bash"]];
        if cfg!(feature = "peer-tests") {
            shells.push(vec!["busybox", "sh"]);
        }
        let out = self.dir.path().join("OUT");
        let wrote = shells.iter().map(|shell| {
            let run = self.sh(shell, command);
            assert!(run.status.success(), "{shell:?}: {command}: {}", String::from_utf8_lossy(&run.stderr));
            let wrote = fs::read(&out).unwrap();
            fs::remove_file(&out).unwrap();
            wrote
        });
        let wrote: Vec<_> = wrote.collect();
        assert!(wrote.windows(2).all(|two| two[0] == two[1]));
        wrote.into_iter().next().unwrap()
    }
}

/// The GPT disk of testdata, whose second partition is LUKS2 at 2 MiB.
fn gpt() -> Vec<u8> {
    read_stored("gpt.img.gz")
}

const START: usize = 2 << 20;

#[test]
fn the_printed_command_opens_a_partition_whose_primary_header_is_gone() {
    let wanted = chain("l2-sector-2048", 8192);
    let names =
        ["disk.img", "it's a $(disk) \"of\" *.img", "--output", "b\u{fc}ro.img", "a\nnew\x1b[31mline.img", "end\n"];
    for name in names {
        let mut disk = gpt();
        disk[START..START + 16384].fill(0);
        let site = Site::new(name, &disk, "gpt");
        let out = match name {
            // A name that begins with a dash has to be told from a flag by whoever gives it to the scan.
            "--output" => {
                let scan = site
                    .sh(&["bash"], "unluks scan -- --output | sed -n 's/^  open with  //p' > command && bash command");
                assert!(scan.status.success(), "{}", String::from_utf8_lossy(&scan.stderr));
                fs::read(site.dir.path().join("OUT")).unwrap()
            }
            _ => site.opens_as_printed(),
        };
        assert!(out.starts_with(&wanted), "{name:?}");
    }
}

#[test]
fn a_container_in_a_table_within_a_partition_opens_to_its_end() {
    let inner = gpt();
    let sectors = u32::try_from(inner.len() / 512).unwrap();
    let mut disk = vec![0; 1 << 20];
    for n in 0..2u32 {
        let start = u32::try_from(disk.len() / 512).unwrap();
        let entry = 446 + 16 * usize::try_from(n).unwrap();
        disk[entry + 4] = 0x83;
        disk[entry + 8..entry + 12].copy_from_slice(&start.to_le_bytes());
        disk[entry + 12..entry + 16].copy_from_slice(&sectors.to_le_bytes());
        disk.extend_from_slice(&inner);
    }
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    let site = Site::new("disk.img", &disk, "gpt");
    let alone = Site::new("disk.img", &inner, "gpt").opens_as_printed();
    let said = site.sh(&["bash"], "unluks scan -q disk.img | sed -n 's/^  open with  //p'");
    let said = String::from_utf8(said.stdout).unwrap();
    assert_eq!(said.lines().count(), 2, "{said}");
    for command in said.lines() {
        let run = site.sh(&["dash"], command);
        assert!(run.status.success(), "{command}: {}", String::from_utf8_lossy(&run.stderr));
        assert!(fs::read(site.dir.path().join("OUT")).unwrap() == alone, "{command}");
        fs::remove_file(site.dir.path().join("OUT")).unwrap();
    }
}

#[test]
fn neither_a_partition_table_nor_a_primary_header_is_needed() {
    let mut disk = gpt();
    disk[..1 << 20].fill(0);
    let end = disk.len();
    disk[end - (1 << 20)..].fill(0);
    disk[START..START + 4096].fill(0xff);
    // And at a place where no partition would start.
    disk.splice(..0, vec![0xa5; 3 * 512]);
    let site = Site::new("disk.img", &disk, "gpt");
    assert!(site.opens_as_printed().starts_with(&chain("l2-sector-2048", 8192)));
    let r = report(&unluks(&["scan", "--json", &text(&site.disk)]));
    let container = &r["containers"][0];
    assert_eq!((&container["offset"], &container["partition"]), (&json!(START + 3 * 512), &Value::Null));
}

#[test]
fn a_disk_inside_a_container_format_opens_by_the_printed_command() {
    let site = Site::new("disk.qcow2", &read_stored("luks-in-qcow2.img.gz"), "luks-in-qcow2");
    let out = site.opens_as_printed();
    let sidecar = sidecar("luks-in-qcow2");
    let size = usize::try_from(sidecar["size"].as_u64().unwrap()).unwrap();
    assert_eq!(crate::common::sha256(&out[..size]), sidecar["sha256"].as_str().unwrap());
    // Told to be raw, the file is scanned as it is, and the command says so.
    let run = unluks(&["scan", "--quiet", "--format", "raw", &text(&site.disk)]);
    let said = String::from_utf8(run.stdout).unwrap();
    assert!(run.code == Some(4) || said.contains("--format raw"), "{said}{}", run.stderr);
}

#[test]
fn every_golden_image_is_found_as_inspect_sees_it() {
    let plain = |name: &String| {
        let sidecar = sidecar(name);
        let kind = sidecar["type"].as_str().unwrap();
        (kind == "luks1" || kind == "luks2") && sidecar["header"].is_null()
    };
    let names: Vec<_> = golden_names().into_iter().filter(plain).collect();
    assert!(names.len() > 60);
    check_all(&names, |name| name.clone(), |name| as_inspect(&Golden::unpack(name)));
}

fn as_inspect(golden: &Golden) -> Option<String> {
    let image = text(&golden.image);
    let (scan, inspect) = (unluks(&["scan", "--json", &image]), unluks(&["inspect", "--json", &image]));
    let report = report(&scan);
    let first = &report["containers"][0];
    if inspect.code != Some(0) {
        return (first["opens"] == true).then(|| format!("scan opens what inspect refuses: {}", inspect.stderr));
    }
    assert_eq!((scan.code, &first["offset"]), (Some(0), &json!(0)), "{}", scan.stderr);
    let inspect: Value = serde_json::from_slice(&inspect.stdout).unwrap();
    for member in ["version", "uuid", "label", "subsystem"] {
        assert_eq!(first[member], inspect[member]);
    }
    assert_eq!(first["data"], inspect["data"]["state"]);
    for theirs in inspect["copies"].as_array().unwrap() {
        let same = |c: &&Value| c["offset"] == theirs["offset"] && c["good"] == theirs["good"];
        let ours = first["copies"].as_array().unwrap().iter().find(same);
        let ours = ours.unwrap_or_else(|| panic!("{theirs} is not among {}", first["copies"]));
        assert_eq!(ours["state"] == "used", theirs["used"] == true);
        assert_eq!(ours["error"]["rule"], theirs["error"]["rule"]);
    }
    None
}

/// The image with another label, its checksums put right.
fn relabelled(mut image: Vec<u8>, label: &[u8]) -> Vec<u8> {
    for at in [0, 16384] {
        let header = &mut image[at..at + 16384];
        header[24..72].fill(0);
        header[24..24 + label.len()].copy_from_slice(label);
        header[448..512].fill(0);
        let csum = Sha256::digest(&*header);
        header[448..480].copy_from_slice(&csum);
    }
    image
}

#[test]
fn nothing_of_a_hostile_disk_reaches_the_terminal_as_it_is() {
    let image = relabelled(read_stored("l2-argon2id.img.gz"), "\x1b]0;pwned\x07\u{202e}\n".as_bytes());
    let site = Site::new("disk.img", &image, "l2-argon2id");
    for json in [false, true] {
        let args = ["scan", &text(&site.disk), "--json"];
        let run = unluks(&args[..if json { 3 } else { 2 }]);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        let said = String::from_utf8(run.stdout.clone()).unwrap();
        assert!(said.chars().all(|c| c == '\n' || !c.is_control() && c != '\u{202e}'), "{said}");
        if json {
            assert_eq!(report(&run)["containers"][0]["label"], "\u{1b}]0;pwned\u{7}\u{202e}\n");
        }
    }
}

#[test]
fn a_header_backup_and_a_cut_disk_are_called_what_they_are() {
    let backup = Site::new("backup", &read_stored("l2-header-backup.hdr.gz"), "l2-header-backup");
    let run = unluks(&["scan", &text(&backup.disk)]);
    let said = String::from_utf8(run.stdout).unwrap();
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(said.contains("(header-backup)") && !said.contains("open with"), "{said}");
    let cut = Site::new("cut", &read_stored("l2-truncated.img.gz"), "l2-truncated");
    let said = String::from_utf8(unluks(&["scan", &text(&cut.disk)]).stdout).unwrap();
    assert!(said.contains("--allow-truncated"), "{said}");
}

#[test]
fn where_nothing_good_is_found_the_exit_code_is_4() {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty");
    fs::write(&empty, vec![0u8; 1 << 20]).unwrap();
    let run = unluks(&["scan", &text(&empty)]);
    assert_eq!(run.refusal_fault(&[4]), None);
    assert!(run.stdout.is_empty() && run.stderr.contains("no LUKS header at any place"), "{}", run.stderr);
    let full = dir.path().join("full");
    fs::write(&full, [b"LUKS\xba\xbe\0\x02".as_slice(), &[0; 504]].concat().repeat(20_000)).unwrap();
    let run = unluks(&["scan", &text(&full)]);
    assert_eq!(run.refusal_fault(&[4]), None);
    let said = String::from_utf8(run.stdout).unwrap();
    assert!(said.ends_with("and 19000 more damaged header copies, which are not listed\n"), "{said}");
    assert!(said.contains("hdr_size: found 0"), "{said}");
    let both = Golden::unpack("l2-both-damaged");
    let run = unluks(&["scan", &text(&both.image)]);
    assert_eq!(run.refusal_fault(&[4]), None);
    assert!(String::from_utf8(run.stdout).unwrap().contains("csum: "));
}

#[test]
fn what_cannot_be_scanned_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    // A writer, so that opening the pipe does not wait for one.
    let writer = fs::File::options().read(true).write(true).open(&fifo).unwrap();
    let qcow2 = Golden::unpack("qcow2-luks");
    for (file, says) in [("-", "pipe"), (&*text(&fifo), "pipe"), (&*text(&qcow2.image), "encrypts its clusters itself")]
    {
        let run = unluks(&["scan", file]);
        assert_eq!(run.refusal_fault(&[2]), None, "{file}");
        assert!(run.stderr.contains(says), "{}", run.stderr);
    }
    drop(writer);
    assert_eq!(unluks(&["scan", "/nowhere"]).refusal_fault(&[1]), None);
    assert_eq!(unluks(&["scan", &text(dir.path())]).refusal_fault(&[2]), None);
}

#[test]
fn progress_is_lines_of_json_where_they_are_asked_for() {
    let golden = Golden::unpack("l2-argon2id");
    let run = unluks(&["scan", "--quiet", "--progress", "json", &text(&golden.image)]);
    assert_eq!(run.code, Some(0));
    let last: Value = serde_json::from_str(run.stderr.lines().last().unwrap()).unwrap();
    assert_eq!((&last["bytes"], &last["total"]), (&golden.sidecar["image_size"], &golden.sidecar["image_size"]));
}

/// Copies of a LUKS2 header of `size` bytes each, with right checksums, whose JSON has as many values as may be.
fn crowded(size: usize, copies: usize) -> Vec<u8> {
    let golden = read_stored("l2-argon2id.img.gz");
    let text = golden[4096..16384].split(|b| *b == 0).next().unwrap();
    let mut json: Value = serde_json::from_slice(text).unwrap();
    json["config"]["json_size"] = (size - 4096).to_string().into();
    json["config"]["keyslots_size"] = (1 << 20).to_string().into();
    let base = 2 * size;
    for keyslot in json["keyslots"].as_object_mut().unwrap().values_mut() {
        keyslot["area"]["offset"] = base.to_string().into();
    }
    for segment in json["segments"].as_object_mut().unwrap().values_mut() {
        segment["offset"] = (base + (1 << 20)).to_string().into();
    }
    json["tokens"] = json!({"0": {"type": "x", "keyslots": []}});
    let room = (size - 4096 - json.to_string().len() - 1) / 4;
    json["tokens"]["0"]["keyslots"] = vec!["0"; room.min(65_000)].into();
    let mut area = json.to_string().into_bytes();
    area.resize(size - 4096, 0);
    let mut container = Vec::new();
    for (offset, magic) in [(0, b"LUKS\xba\xbe"), (size, b"SKUL\xba\xbe")] {
        let mut header = golden[..4096].to_vec();
        header[..6].copy_from_slice(magic);
        header[8..16].copy_from_slice(&u64::try_from(size).unwrap().to_be_bytes());
        header[256..264].copy_from_slice(&u64::try_from(offset).unwrap().to_be_bytes());
        header[448..512].fill(0);
        let csum = Sha256::new().chain_update(&header).chain_update(&area).finalize();
        header[448..480].copy_from_slice(&csum);
        container.extend([&header, &area].into_iter().flatten());
    }
    container.repeat(copies)
}

#[test]
#[cfg(target_os = "linux")]
fn a_disk_full_of_large_headers_is_scanned_in_64_mib() {
    use std::io::Read;
    let mut disk = crowded(256 << 10, 24);
    disk.extend(crowded(4 << 20, 2));
    disk.extend(crowded(16 << 10, 120));
    // Room for the keyslots area of the last one.
    disk.resize(disk.len() + (2 << 20), 0);
    let site = Site::new("disk.img", &disk, "l2-argon2id");
    drop(disk);
    let mut scan = Command::new(UNLUKS);
    scan.args(["scan", "--json", "--threads", "8"]).arg(&site.disk).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut scan = scan.spawn().unwrap();
    // The report is more than a pipe holds. So it waits for its reader, all its work done.
    let mut report = vec![0];
    scan.stdout.as_mut().unwrap().read_exact(&mut report).unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", scan.id())).unwrap();
    scan.stdout.take().unwrap().read_to_end(&mut report).unwrap();
    assert!(scan.wait().unwrap().success());
    let report: Value = serde_json::from_slice(&report).unwrap();
    let containers = report["containers"].as_array().unwrap();
    assert_eq!(containers.len(), 146);
    assert!(containers.iter().all(|c| c["opens"] == true));
    let kib = |name: &str| -> u64 {
        let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    // Without the program's own pages: those of a build with all features and debug information are most of it.
    let own = kib("VmHWM:") - kib("RssFile:");
    assert!(own <= 64 << 10, "{own} KiB were resident");
}

/// A qcow2 image of `size` bytes that has nothing of its own, on top of `base`.
fn on_top_of(base: &str, size: usize) -> Vec<u8> {
    let int = |n: usize| u32::try_from(n).unwrap().to_be_bytes();
    let long = |n: usize| u64::try_from(n).unwrap().to_be_bytes();
    let mut image = [&b"QFI\xfb"[..], &int(2), &long(72), &int(base.len()), &int(16), &long(size), &int(0)].concat();
    image.extend([&int(1)[..], &long(1 << 16), &long(2 << 16), &int(1), &int(0), &long(0), base.as_bytes()].concat());
    image.resize(3 << 16, 0);
    image
}

#[test]
fn an_image_is_scanned_on_top_of_the_one_that_it_lies_on() {
    let golden = Golden::unpack("l2-ext4");
    let dir = tempfile::tempdir().unwrap();
    let [top, base] = ["top.qcow2", "base"].map(|name| dir.path().join(name));
    let bytes = fs::read(&golden.image).unwrap();
    fs::write(&base, &bytes).unwrap();
    fs::write(&top, on_top_of("base", bytes.len())).unwrap();
    let alone = unluks(&["scan", &text(&top)]);
    assert!(alone.code == Some(5) && alone.stderr.contains("--with"), "{:?} {}", alone.code, alone.stderr);
    let found = unluks(&["scan", "--json", "--quiet", &text(&top), "--with", &text(&base)]);
    assert_eq!(found.code, Some(0), "{}", found.stderr);
    let report = report(&found);
    assert_eq!(report["containers"][0]["offset"], 0, "{report:#}");
    assert!(report["containers"][0].to_string().contains("--with"), "{report:#}");
}
