//! Backups that Cinder's backup service made, with the posix driver: their trees are the volume as it was, or are refused.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::api::{DEMO, Volume, noise};
use crate::support::swift::{Store, Swift};
use crate::support::{CINDER, Desk, Run, bed, sha256};

const MIB: u64 = 1 << 20;

/// Copies the objects of backups out of the operators' share.
pub fn copy(ids: &[&str], to: &Path) {
    for id in ids {
        let from = share(id);
        let folder = to.join(&id[..2]).join(id);
        fs::create_dir_all(&folder).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
        }
    }
}

/// Where the posix driver put a backup.
fn share(id: &str) -> PathBuf {
    bed().state.join("backups").join(&id[..2]).join(&id[2..4]).join(id)
}

/// A file of a backup in a tree that [`copy`] made.
fn object(tree: &Path, id: &str, end: &str) -> PathBuf {
    let folder = tree.join(&id[..2]).join(id);
    let found = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    found.into_iter().find(|path| path.to_string_lossy().ends_with(end)).unwrap_or_else(|| panic!("no {end} of {id}"))
}

/// Gives the objects the names that the Swift driver gives, and folders by them.
fn as_in_swift(tree: &Path, to: &Path) {
    for entry in walk(tree) {
        let name = entry.file_name().unwrap().to_str().unwrap();
        // volume_VOLUME_TIME_backup_ID-00001
        let (volume, rest) = name.strip_prefix("volume_").unwrap().split_once('_').unwrap();
        let (time, rest) = rest.split_once('_').unwrap();
        let folder = to.join(format!("volume_{volume}")).join(time);
        fs::create_dir_all(&folder).unwrap();
        let mut data = fs::read(&entry).unwrap();
        if name.ends_with("_metadata") {
            let text = String::from_utf8(data).unwrap();
            data = text
                .replace(&format!("volume_{volume}_{time}_backup_"), &format!("volume_{volume}/{time}/az_nova_backup_"))
                .into_bytes();
        }
        fs::write(folder.join(format!("az_nova_{rest}")), data).unwrap();
    }
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { all.extend(walk(&path)) } else { all.push(path) }
    }
    all.sort();
    all
}

/// A full backup and three increments, and the volume's bytes at each.
struct Chain {
    ids: Vec<String>,
    states: Vec<Vec<u8>>,
}

impl Chain {
    fn ids(&self) -> Vec<&str> {
        self.ids.iter().map(String::as_str).collect()
    }
}

/// What happens between the backups: noise at no block's border, zeroes over what was noise, and nothing at all.
fn chain(volume: &Volume, compression: &str, seed: u32) -> Chain {
    let mut made = Chain { ids: Vec::new(), states: Vec::new() };
    for n in 0..4 {
        match n {
            0 => volume.write(3 * MIB, &noise(seed, 40_000)),
            1 => {
                volume.write(4 * MIB + 12_345, &noise(seed + 1, 70_001));
                volume.write(9 * MIB + 512, &noise(seed + 2, 100));
            }
            2 => {
                volume.write(4 * MIB, &[0; 200_000]);
                volume.write(10 * MIB - 1, &[7]);
            }
            _ => {}
        }
        made.ids.push(volume.backup(compression, n > 0));
        made.states.push(fs::read(volume.path()).unwrap());
    }
    made
}

pub fn decrypted(desk: &Desk, what: &str, more: &[&str]) -> String {
    let out = desk.path("decrypted");
    desk.run(&[&["decrypt", what, "-o", "decrypted", "--force", "--quiet"], more].concat()).ok();
    sha256(&out)
}

fn verify(desk: &Desk, tree: &str) -> Run {
    desk.run(&["verify", tree, "--barbican-key", "backup/key"])
}

/// Damages of a tree, each found by verify with its block, or refused by its name.
fn damages(desk: &Desk, chain: &Chain, compression: &str) {
    let tree = desk.path("tree");
    let (full, first, second) = (&chain.ids[0], &chain.ids[1], &chain.ids[2]);
    // An object of the full backup that an increment lies over in part, one that holds what nobody wrote, and increments'.
    let objects = [(full, "-00002"), (first, "-00001"), (full, "-00003"), (first, "-00002"), (second, "-00001")];
    let tried = if matches!(compression, "zlib" | "none") { 5 } else { 2 };
    for (id, end) in objects.into_iter().take(tried) {
        let path = object(&tree, id, end);
        let good = fs::read(&path).unwrap();
        // Each run takes its time: what is not about the compression is tried with one.
        let places = if compression == "zlib" { vec![good.len() / 3, good.len() - 1] } else { vec![good.len() / 2] };
        for at in places {
            let mut bad = good.clone();
            bad[at] ^= 0x81;
            fs::write(&path, bad).unwrap();
            let run = verify(desk, "tree");
            assert_eq!(run.code, Some(4), "{compression}: {id} {end} at {at}: {}{}", run.stdout, run.stderr);
            let blocks = run.stdout.contains("the volume's block") || run.stdout.contains("from the block at byte");
            assert!(blocks && run.stdout.contains(end), "{compression}: {end} at {at}: {}", run.stdout);
        }
        fs::write(&path, good).unwrap();
    }
    // Where it is stored as it is, the block is the very one.
    if compression == "none" {
        let path = object(&tree, full, "-00002");
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        bad[70_000] ^= 1;
        fs::write(&path, bad).unwrap();
        let run = verify(desk, "tree");
        assert!(
            run.stdout.contains(&format!("the volume's block at byte {} is another", 4 * MIB + 65_536)),
            "{}",
            run.stdout
        );
        fs::write(&path, good).unwrap();
    }
    let lists: Vec<_> = ["_sha256file", "_metadata"].iter().map(|end| object(&tree, &chain.ids[3], end)).collect();
    for (n, path) in lists.iter().enumerate() {
        let good = fs::read(path).unwrap();
        let mut bad = good.clone();
        // In a hash, and in the backup's id.
        let at = if n == 0 { good.len() / 2 } else { good.len() - good.len() / 4 };
        bad[at] = if bad[at] == b'0' { b'1' } else { b'0' };
        fs::write(path, bad).unwrap();
        let run = verify(desk, "tree");
        // The description has a text in it that nothing is said of: the volume's own metadata.
        assert!(run.code == Some(4) || n == 1, "{}: {}{}", path.display(), run.stdout, run.stderr);
        fs::write(path, good).unwrap();
    }
    let missing = object(&tree, first, "-00001");
    let aside = desk.path("aside");
    fs::rename(&missing, &aside).unwrap();
    let run = desk.run(&["decrypt", "tree", "--backup", second, "--barbican-key", "backup/key", "-o", "never"]);
    run.refused(4, "cinder.parent", &["-00001 is not there", first]);
    let listed = desk.run(&["inspect", "tree"]);
    assert_eq!(listed.stdout.matches("NOT COMPLETE").count(), 3, "{}", listed.stdout);
    // The full one is whole all the same.
    assert!(listed.stderr.contains(&format!("backup {full}")), "{}", listed.stderr);
    fs::rename(&aside, &missing).unwrap();
    let run = desk.run(&["decrypt", missing.to_str().unwrap(), "--barbican-key", "backup/key", "-o", "never"]);
    run.refused(2, "cinder.object", &["one object of a Cinder backup"]);
}

#[test]
fn trees_that_the_service_made_are_the_volume_at_each_backup() {
    let _quiet = CINDER.lock().unwrap_or_else(|e| e.into_inner());
    let volume = DEMO.encrypted_volume("trees", 12 * MIB);
    let desk = Desk::new("bed-demo");
    desk.run(&["fetch", "volume", &volume.id, "--output", "backup"]).ok();
    for (seed, compression) in (10..).step_by(10).zip(["zlib", "none", "bz2", "zstd"]) {
        let chain = chain(&volume, compression, seed);
        let tree = desk.path("tree");
        copy(&chain.ids(), &tree);
        let metadata = fs::read_to_string(object(&tree, &chain.ids[0], "_metadata")).unwrap();
        assert!(metadata.contains(&format!("\"compression\": \"{compression}\"")), "{compression}: {metadata}");
        let unchanged: Value =
            serde_json::from_slice(&fs::read(object(&tree, &chain.ids[3], "_metadata")).unwrap()).unwrap();
        assert_eq!(unchanged["objects"], json!([]));

        let key = ["--barbican-key", "backup/key"];
        let mut wanted = String::new();
        for (n, (id, state)) in chain.ids.iter().zip(&chain.states).enumerate() {
            if n > 0 && n < 3 && compression != "zlib" {
                continue;
            }
            fs::write(desk.path("volume.raw"), state).unwrap();
            wanted = decrypted(&desk, "volume.raw", &key);
            assert_eq!(
                decrypted(&desk, "tree", &[&key[..], &["--backup", id]].concat()),
                wanted,
                "{compression}: {id}"
            );
        }
        let listed = desk.run(&["inspect", "tree"]);
        let lines: Vec<_> = listed.ok().stdout.lines().filter(|line| line.contains("  complete")).collect();
        assert_eq!(lines.len(), 4, "{}", listed.stdout);
        for (line, id) in lines.iter().zip(&chain.ids) {
            assert!(line.contains(id.as_str()) && line.contains("\"trees\""), "{line}");
        }
        let run = verify(&desk, "tree");
        assert!(run.ok().stderr.contains("384 blocks of the volume by SHA-256"), "{}", run.stderr);

        let swift = desk.path("swift");
        as_in_swift(&tree, &swift);
        assert!(verify(&desk, "swift").ok().stderr.contains("384 blocks"), "{compression}");
        assert_eq!(decrypted(&desk, "swift", &key), wanted, "{compression}");

        damages(&desk, &chain, compression);
        fs::remove_dir_all(tree).unwrap();
        fs::remove_dir_all(swift).unwrap();
        chain.ids.iter().rev().for_each(|id| DEMO.delete("backup", id));
    }
    DEMO.delete("volume", &volume.id);
}

#[test]
fn objects_in_the_projects_own_swift_are_fetched_compared_and_gone_on_with() {
    let _quiet = CINDER.lock().unwrap_or_else(|e| e.into_inner());
    let volume = DEMO.encrypted_volume("own-swift", 8 * MIB);
    let desk = Desk::new("bed-demo");
    let mut ids = Vec::new();
    for incremental in [false, true] {
        volume.write(5 * MIB, &noise(70, if incremental { 100_000 } else { 10 }));
        // The container is the posix driver's folder, and what the cloud tells of where the objects are.
        let body = json!({"volume_id": volume.id, "incremental": incremental, "container": "volumebackups"});
        ids.push(DEMO.make("backup", &body));
    }
    let (posix, tree) = (desk.path("posix"), desk.path("own"));
    fs::create_dir_all(&posix).unwrap();
    for entry in walk(&bed().state.join("backups/volumebackups")) {
        if ids.iter().any(|id| entry.to_string_lossy().contains(id.as_str())) {
            fs::copy(&entry, posix.join(entry.file_name().unwrap())).unwrap();
        }
    }
    as_in_swift(&posix, &tree);
    let named = |path: &Path| path.strip_prefix(&tree).unwrap().to_str().unwrap().to_owned();
    let objects: BTreeMap<String, Vec<u8>> =
        walk(&tree).iter().map(|path| (named(path), fs::read(path).unwrap())).collect();
    let names: Vec<String> = objects.keys().cloned().collect();
    assert!(names.len() >= 7, "{names:?}");

    // One that never comes right, then the usual failures: each once.
    let (bad, mut faults) = (names[2].clone(), 0);
    let store = Store::start(objects, move |name| {
        faults += 1;
        match faults {
            3 if name == bad => Swift::Flip,
            5 => Swift::Status("503 Service Unavailable"),
            7 => Swift::Cut,
            9 => Swift::Status("401 Unauthorized"),
            _ => Swift::Good,
        }
    });
    let own = format!("  bed-demo:\n    object_store_endpoint_override: {}\n", store.url());
    desk.set_clouds_yaml(&bed().clouds_yaml().replace("  bed-demo:\n", &own));
    let fetch = || desk.run(&["fetch", "backup", &ids[1], "--output", "fetched"]);
    fetch().refused(4, "object.hash", &[names[2].rsplit('/').next().unwrap(), "MD5"]);
    assert!(!desk.path("fetched/backup.json").exists() && !desk.path("fetched").join(&names[2]).exists());
    assert_eq!(store.asked(), names[..3]);

    // One of those that were there already is damaged meanwhile, and as long as before.
    let damaged = desk.path("fetched").join(&names[0]);
    let mut data = fs::read(&damaged).unwrap();
    data[0] ^= 1;
    fs::write(&damaged, data).unwrap();
    let run = fetch();
    assert!(run.ok().stderr.contains(&format!("{} objects are in", names.len())), "{}", run.stderr);
    let asked = store.asked();
    assert!(asked.contains(&names[0]) && !asked.contains(&names[1]), "{asked:?}");
    // Three of them were asked for twice.
    assert_eq!(asked.len(), names.len() - 1 + 3, "{asked:?}");

    fs::copy(volume.path(), desk.path("volume.raw")).unwrap();
    let key = ["--barbican-key", "fetched/key"];
    assert_eq!(decrypted(&desk, "fetched", &[]), decrypted(&desk, "volume.raw", &key));
    fetch().refused(2, "", &["holds a backup already"]);
    ids.iter().rev().for_each(|id| DEMO.delete("backup", id));
    DEMO.delete("volume", &volume.id);
}
