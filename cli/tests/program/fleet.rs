//! Many images: batches, shares, plans, and what their reports come to.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::common::{Golden, Run, text, unluks};

/// A folder of images that one key opens: sound ones, a damaged one, one of another key.
struct Fleet {
    golden: Golden,
    images: PathBuf,
    reports: PathBuf,
}

impl Fleet {
    fn new(sound: usize) -> Self {
        let golden = Golden::unpack("l2-ext4");
        let (images, reports) = (golden.path("images"), golden.path("reports"));
        fs::create_dir(&images).unwrap();
        let image = fs::read(&golden.image).unwrap();
        for n in 0..sound {
            fs::write(images.join(format!("sound-{n}.img")), &image).unwrap();
        }
        fs::write(images.join("damaged.img"), &image[..image.len() / 2]).unwrap();
        fs::copy(Golden::unpack("l2-argon2id").image, images.join("other.img")).unwrap();
        for beside in ["notes.txt", "record.xml", "record.json.tsq"] {
            fs::write(images.join(beside), "no image").unwrap();
        }
        Self { golden, images, reports }
    }

    fn verify(&self, more: &[&str]) -> Run {
        let (key, images, reports) = (text(&self.golden.key), text(&self.images), text(&self.reports));
        let args = ["verify", "--batch", &images, "--key-file", &key, "--reports", &reports];
        unluks(&[&args[..], more].concat())
    }
}

fn verdicts(run: &Run) -> BTreeMap<String, String> {
    let summary: Value = serde_json::from_slice(&run.stdout).unwrap_or_else(|e| panic!("{e}: {}", run.stderr));
    let of = |image: &Value| {
        let path = image["path"].as_str().unwrap();
        let verdict = image["verdict"].as_str().unwrap_or("no-report").to_owned();
        (path.rsplit('/').next().unwrap().to_owned(), verdict)
    };
    summary["images"].as_array().unwrap().iter().map(of).collect()
}

#[test]
fn a_batch_goes_on_after_failures_and_again_from_where_it_stopped() {
    let fleet = Fleet::new(3);
    fs::create_dir(fleet.images.join("folder")).unwrap();
    let run = fleet.verify(&["--json", "--jobs", "3", "--pages"]);
    assert_eq!(run.code, Some(4), "{}", run.stderr);
    let expected = [
        ("damaged.img", "not-restorable"),
        ("other.img", "wrong-key"),
        ("sound-0.img", "restorable"),
        ("sound-1.img", "restorable"),
        ("sound-2.img", "restorable"),
    ];
    let expected = expected.map(|(name, verdict)| (name.to_owned(), verdict.to_owned()));
    assert_eq!(verdicts(&run), BTreeMap::from(expected));
    let files: Vec<PathBuf> = fs::read_dir(&fleet.reports).unwrap().map(|f| f.unwrap().path()).collect();
    assert_eq!(files.len(), 10, "a report and a page each, and nothing half written: {files:?}");
    let reports = files.iter().map(|f| text(f));
    for report in reports {
        let run = unluks(&["report", "verify", &report]);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
    }

    // What has changed since is verified again, and so is what another key may open.
    let sound = fs::read(fleet.images.join("sound-0.img")).unwrap();
    fs::write(fleet.images.join("damaged.img"), sound).unwrap();
    let again = fleet.verify(&["--json", "--pages"]);
    assert_eq!(again.code, Some(3), "{}", again.stderr);
    assert_eq!(again.stderr.matches("which is unchanged").count(), 3, "{}", again.stderr);
    assert_eq!(verdicts(&again)["damaged.img"], "restorable");
    // So is all where something else is asked.
    let other = fleet.verify(&["--json", "--must-be", "ext"]);
    assert_eq!(other.stderr.matches("which is unchanged").count(), 0, "{}", other.stderr);
    let forced = fleet.verify(&["--json", "--must-be", "ext", "--force"]);
    assert_eq!(forced.stderr.matches("which is unchanged").count(), 0, "{}", forced.stderr);

    let csv = fleet.verify(&["--csv", "--must-be", "ext", "-q"]);
    assert_eq!(String::from_utf8(csv.stdout).unwrap().lines().count(), 6);
    let page = fleet.verify(&["--html", "--must-be", "ext", "-q"]);
    let page = String::from_utf8(page.stdout).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && !page.contains("<script"), "{page}");
    assert!(["http:", "https:", "url("].iter().all(|never| !page.contains(never)), "{page}");
    let said = ["1 of 5 are not proven to restore", "4 restorable", "other.img", "less than a day old"];
    assert!(said.iter().all(|said| page.contains(said)) && page.ends_with("</html>\n"), "{page}");
    let merged = unluks(&["report", "merge", &text(&fleet.reports), "--html"]).stdout;
    assert!(String::from_utf8(merged).unwrap().contains("other.img"));
    let words = fleet.verify(&["--must-be", "ext", "-q"]);
    let said = String::from_utf8(words.stdout).unwrap();
    assert!(said.contains("5 images: 4 restorable, 1 wrong-key; the oldest proof is of 2"), "{said}");
    assert!(said.contains("other.img: wrong-key: ") && !said.contains("sound-1.img"), "{said}");
}

#[test]
fn shares_are_merged_and_the_lost_one_is_named() {
    let fleet = Fleet::new(6);
    let list = fleet.golden.path("list");
    let mut paths: Vec<String> = fs::read_dir(&fleet.images).unwrap().map(|f| text(&f.unwrap().path())).collect();
    paths.retain(|path| path.ends_with(".img"));
    paths.push(text(&fleet.images.join("gone.img")));
    fs::write(&list, paths.join("\n") + "\n\n").unwrap();
    let (list, key, reports) = (text(&list), text(&fleet.golden.key), text(&fleet.reports));
    let share = |shard: &str, env: &[(&str, &str)]| {
        let args = ["verify", "--batch", &list, "--key-file", &key, "--reports", &reports, "--shard", shard, "-q"];
        let mut command = std::process::Command::new(crate::common::UNLUKS);
        command.args(args).envs(env.iter().copied()).stdin(std::process::Stdio::null()).output().unwrap()
    };
    // The second of three is lost.
    let first = share("auto/3", &[("JOB_COMPLETION_INDEX", "0")]);
    let third = share("auto", &[("SLURM_ARRAY_TASK_ID", "2"), ("SLURM_ARRAY_TASK_COUNT", "3")]);
    assert!([&first, &third].iter().all(|out| out.status.code() != Some(2)), "{first:?} {third:?}");
    let merge = |more: &[&str]| unluks(&[&["report", "merge", &reports, "--list", &list, "--json"], more].concat());
    let lost = merge(&[]);
    let all = verdicts(&lost);
    assert_eq!(all.len(), 9);
    let missing = all.values().filter(|verdict| *verdict == "no-report").count();
    assert!(missing > 1, "{all:?}");
    assert_eq!(all["gone.img"], "no-report");
    share("1/3", &[]);
    let whole = merge(&[]);
    let all = verdicts(&whole);
    assert_eq!(all.values().filter(|verdict| *verdict == "no-report").count(), 1, "{all:?}");
    assert_eq!(whole.code, Some(4), "the damaged one is worse than one that is gone");
    assert_eq!(unluks(&["report", "merge", &reports]).code, Some(4));

    let name = fs::read_dir(&fleet.reports).unwrap().next().unwrap().unwrap().path();
    let report = fs::read_to_string(&name).unwrap();
    fs::write(fleet.reports.join("newer.json"), report.replacen("\"schema\":1", "\"schema\":2", 1)).unwrap();
    let mixed = merge(&[]);
    assert!(mixed.code == Some(2) && mixed.stderr.contains("several schemas"), "{}", mixed.stderr);
    fs::write(fleet.reports.join("newer.json"), "{}").unwrap();
    let none = merge(&[]);
    assert!(none.code == Some(2) && none.stderr.contains("newer.json"), "{}", none.stderr);
}

#[test]
fn a_plan_is_of_the_header_and_wants_no_key() {
    let golden = Golden::unpack("l2-argon2id");
    let (image, other) = (text(&golden.image), text(&Golden::unpack("l2-ext4").image));
    let run = unluks(&["verify", "--plan", "--json", &image]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let plan: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert!(plan["kdf_memory_bytes"].as_u64().unwrap() > 0, "{plan}");
    assert_eq!(plan["bytes"], fs::metadata(&golden.image).unwrap().len());
    let list = text(&golden.path("list"));
    fs::write(&list, format!("{image}\n")).unwrap();
    let run = unluks(&["verify", "--batch", "--plan", &list]);
    assert_eq!(
        (run.code, String::from_utf8(run.stdout).unwrap().starts_with(&image)),
        (Some(0), true),
        "{}",
        run.stderr
    );
    let run = unluks(&["verify", "--batch", &list]);
    assert_eq!((run.code, run.stderr.contains("--reports DIR says where")), (Some(2), true), "{}", run.stderr);
    let run = unluks(&["verify", "--plan", &image, &image, &other, "/nowhere"]);
    let said = String::from_utf8(run.stdout).unwrap();
    assert_eq!(run.code, Some(1), "{said}{}", run.stderr);
    assert!(said.contains("Slurm: --mem="), "{said}");
}

#[test]
fn what_cannot_be_of_many_is_refused() {
    let fleet = Fleet::new(0);
    for more in [["--tree", "t"], ["--report", "r"], ["--expect", "sha256:00"]] {
        assert_eq!(fleet.verify(&more).code, Some(2), "{more:?}");
    }
    assert_eq!(fleet.verify(&["--shard", "3/3"]).code, Some(2));
    let list = text(&fleet.images.join("damaged.img"));
    let (key, reports) = (text(&fleet.golden.key), text(&fleet.reports));
    let run = unluks(&["verify", "--batch", &list, "--key-file", &key, "--reports", &reports]);
    assert!(run.code == Some(2) && run.stderr.contains("lists of images"), "{}", run.stderr);
}

/// What benches/slurm does with a thousand: seven damages, a task that is lost, and one whose key derivation is too large.
#[test]
fn of_fifty_images_the_nine_that_are_not_proven_are_named() {
    let fleet = Fleet::new(0);
    let sound = fs::read(&fleet.golden.image).unwrap();
    let zero = |from: usize, len: usize| {
        let mut image = sound.clone();
        image[from..from + len].fill(0);
        image
    };
    let golden = |name: &str| fs::read(Golden::unpack(name).image).unwrap();
    let noise: Vec<u8> = (0..40_000u32).flat_map(sha2_of).collect();
    let bad = [
        sound[..600_000].to_vec(),
        zero(0, 32_768),
        zero(32_768, 131_072),
        zero(163_840, 4096),
        zero(163_840 + 2048, 512),
        noise,
        golden("l2-argon2id"),
        golden("l2-hostile-argon2-memory"),
    ];
    let (lost, reports, list) = (47, &fleet.reports, fleet.golden.path("list"));
    fs::create_dir(reports).unwrap();
    let mut paths = Vec::new();
    let key = text(&fleet.golden.key);
    for n in 0..50 {
        let path = text(&fleet.images.join(format!("{n:02}.img")));
        fs::write(&path, bad.get(n / 5).filter(|_| n % 5 == 3).unwrap_or(&sound)).unwrap();
        if n != lost {
            let json = format!("--json={}", text(&reports.join(format!("{n}.json"))));
            unluks(&["verify", &path, "-q", "--key-file", &key, "--must-be", "ext", &json]);
        }
        paths.push(path);
    }
    fs::write(&list, paths.join("\n")).unwrap();
    let run = unluks(&["report", "merge", &text(reports), "--list", &text(&list), "--json"]);
    assert_eq!(run.code, Some(4), "{}", run.stderr);
    let named: Vec<String> =
        verdicts(&run).into_iter().filter(|(_, verdict)| verdict != "restorable").map(|(name, _)| name).collect();
    let mut wanted: Vec<String> = (0..8).map(|n| format!("{:02}.img", n * 5 + 3)).collect();
    wanted.push(format!("{lost}.img"));
    assert_eq!(named, wanted);
}

fn sha2_of(n: u32) -> [u8; 32] {
    use sha2::Digest;
    sha2::Sha256::digest(n.to_le_bytes()).into()
}
