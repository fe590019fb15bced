//! Trees made by the rules of Cinder's chunkeddriver.

use std::io::Write;

use md5::Md5;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::*;
use crate::ErrorKind;
use crate::io::ReadAt;
use crate::num::to_u64;
use crate::progress::Progress;

const VOLUME: &str = "11111111-2222-4333-8444-555555555555";
const BLOCK: usize = 4096;
/// Bytes of an object, so that a volume has several.
const OBJECT: usize = 8 * BLOCK;

fn id(n: usize) -> String {
    format!("aaaaaaaa-bbbb-4ccc-8ddd-{n:012}")
}

/// A volume: a header that compresses, noise that does not, zeroes.
fn volume() -> Vec<u8> {
    let mut data: Vec<u8> = b"LUKS".iter().cycle().take(OBJECT).copied().collect();
    let mut state = 1_u32;
    data.extend((0..2 * OBJECT).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    }));
    data.resize(6 * OBJECT + BLOCK + 512, 0);
    data
}

fn pack(how: &str, data: &[u8]) -> Vec<u8> {
    match how {
        "zlib" => {
            let mut to = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
            to.write_all(data).unwrap();
            to.finish().unwrap()
        }
        "bz2" => {
            let mut to = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::default());
            to.write_all(data).unwrap();
            to.finish().unwrap()
        }
        "zstd" => ruzstd::encoding::compress_to_vec(data, ruzstd::encoding::CompressionLevel::Fastest),
        _ => data.to_vec(),
    }
}

struct Backup<'a> {
    n: usize,
    parent: Option<usize>,
    packing: &'a str,
    /// Folder and prefix.
    place: (&'a str, &'a str),
}

impl Backup<'_> {
    /// The prefix in the store, and on the disk.
    fn prefix(&self, root: &Path) -> (String, PathBuf) {
        let name = format!("{}{}", self.place.1, id(self.n));
        (name.clone(), root.join(self.place.0).join(name))
    }

    /// Writes what Cinder would: all of the volume, or the runs of blocks that are not as they were.
    fn write(&self, root: &Path, now: &[u8], before: Option<&[u8]>) {
        let (name, on_disk) = self.prefix(root);
        fs::create_dir_all(on_disk.parent().unwrap()).unwrap();
        let mut parts = Vec::new();
        for start in (0..now.len()).step_by(OBJECT) {
            let end = now.len().min(start + OBJECT);
            let Some(before) = before else {
                parts.push(start..end);
                continue;
            };
            let mut open: Option<usize> = None;
            for block in (start..end).step_by(BLOCK) {
                let to = now.len().min(block + BLOCK);
                if now[block..to] == before[block..to] {
                    parts.extend(open.take().map(|from| from..block));
                } else {
                    open.get_or_insert(block);
                }
            }
            parts.extend(open.map(|from| from..end));
        }
        let mut objects = Vec::new();
        for (n, part) in parts.into_iter().enumerate() {
            let data = &now[part.clone()];
            let packed = pack(self.packing, data);
            let (how, stored) =
                if packed.len() < data.len() { (self.packing, packed) } else { ("none", data.to_vec()) };
            let end = format!("-{:05}", n + 1);
            fs::write(with_end(&on_disk, &end), stored).unwrap();
            let fields = json!({"offset": part.start, "length": data.len(), "compression": how, "md5": hex::encode(Md5::digest(data))});
            objects.push(json!({ format!("{name}{end}"): fields }));
        }
        let hashes: Vec<_> = now.chunks(BLOCK).map(|block| hex::encode(Sha256::digest(block))).collect();
        let made = format!("2026-01-{:02} 00:00:00", self.n + 1);
        let list = json!({"version": "1.0.0", "backup_id": id(self.n), "volume_id": VOLUME, "chunk_size": BLOCK,
            "created_at": made, "sha256s": hashes});
        fs::write(with_end(&on_disk, "_sha256file"), serde_json::to_vec_pretty(&list).unwrap()).unwrap();
        let meta = json!({"version": 2, "volume-base-metadata": {"display_name": "data", "size": 1}}).to_string();
        let metadata = json!({"version": "1.0.0", "backup_id": id(self.n), "volume_id": VOLUME, "backup_name": null,
            "created_at": made, "parent_id": self.parent.map(id), "volume_meta": meta, "objects": objects});
        fs::write(with_end(&on_disk, "_metadata"), serde_json::to_vec_pretty(&metadata).unwrap()).unwrap();
    }
}

/// A full backup and three increments, each by other ways, and the volume at the end.
fn tree(root: &Path) -> Vec<Vec<u8>> {
    let mut states = vec![volume()];
    let changes: [&[(usize, u8)]; 3] = [&[(0, 7), (OBJECT + 3, 9)], &[(3 * OBJECT, 1), (3 * OBJECT + BLOCK, 2)], &[]];
    for change in changes {
        let mut next = states.last().unwrap().clone();
        change.iter().for_each(|(at, byte)| next[*at] = *byte);
        // Its last block is short.
        let last = next.len() - 1;
        next[last] = next[last].wrapping_add(1);
        states.push(next);
    }
    let share = format!("volume_{VOLUME}_20260101000000_backup_");
    let places = [
        ("aa/bb/x", share.as_str()),
        ("volume_v/20260102", "az_nova_backup_"),
        ("c", "az_nova_backup_"),
        ("", "az_b_backup_"),
    ];
    for (n, (packing, place)) in ["zlib", "bz2", "zstd", "none"].into_iter().zip(places).enumerate() {
        let backup = Backup { n, parent: n.checked_sub(1), packing, place };
        backup.write(root, &states[n], n.checked_sub(1).map(|before| states[before].as_slice()));
    }
    states
}

fn path(root: &Path, n: usize, end: &str) -> PathBuf {
    let tree = Tree::open(root).unwrap();
    with_end(&tree.choose(Some(&id(n))).unwrap().prefix, end)
}

fn change(root: &Path, n: usize, with: impl FnOnce(&mut Value)) {
    let path = path(root, n, "_metadata");
    let mut json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    with(&mut json);
    fs::write(path, json.to_string()).unwrap();
}

fn read(chain: &Chain) -> Vec<u8> {
    let mut all = vec![0; usize::try_from(chain.len()).unwrap()];
    chain.read_exact_at(&mut all, 0).unwrap();
    all
}

fn refusal(root: &Path, n: usize) -> (ErrorKind, String, String) {
    let tree = Tree::open(root).unwrap();
    let e = tree.chain(tree.choose(Some(&id(n))).unwrap()).map(drop).unwrap_err();
    (e.kind(), e.rule().to_owned(), e.to_string())
}

#[test]
fn every_backup_of_a_chain_is_the_volume_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let states = tree(dir.path());
    let tree = Tree::open(dir.path()).unwrap();
    assert!(tree.backups().iter().all(|backup| backup.problem.is_none()), "{:?}", tree.backups());
    assert_eq!(tree.choose(None).unwrap().id, id(3), "the newest");
    for (n, state) in states.iter().enumerate() {
        let backup = tree.choose(Some(&id(n))).unwrap();
        assert_eq!((backup.volume_name.as_deref(), backup.parent.is_some()), (Some("data"), n > 0));
        let chain = tree.chain(backup).unwrap();
        assert_eq!((chain.len(), chain.depth()), (to_u64(state.len()), n + 1));
        assert!(read(&chain) == *state, "backup {n}");
        // Backwards, in odd pieces.
        for at in (0..state.len() - 700).rev().step_by(6_007) {
            let mut part = [0; 700];
            chain.read_exact_at(&mut part, to_u64(at)).unwrap();
            assert!(part == state[at..at + 700], "backup {n}, byte {at}");
        }
        let checked = chain.check(&Progress::default()).unwrap();
        assert_eq!(checked.blocks, to_u64(state.len().div_ceil(BLOCK)));
        assert!(chain.read_exact_at(&mut [0; 2], chain.len() - 1).is_err());
    }
}

#[test]
fn every_flipped_byte_is_found() {
    let dir = tempfile::tempdir().unwrap();
    tree(dir.path());
    let check = || {
        let tree = Tree::open(dir.path()).unwrap();
        let chain = tree.chain(tree.choose(Some(&id(3))).unwrap())?;
        chain.check(&Progress::default())
    };
    check().unwrap();
    for (n, end) in
        [(0, "-00001"), (0, "-00002"), (0, "-00007"), (1, "-00001"), (2, "-00001"), (3, "-00001"), (3, "_sha256file")]
    {
        let path = path(dir.path(), n, end);
        let good = fs::read(&path).unwrap();
        for at in [0, good.len() / 2, good.len() - 2] {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            fs::write(&path, &bad).unwrap();
            let e = check().unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Corrupt, "{} at {at}: {e}", path.display());
            let block = ["the volume's block", "nothing can be read of the volume from the block at byte "];
            assert!(end == "_sha256file" || block.iter().any(|words| e.to_string().contains(words)), "{e}");
        }
        fs::write(&path, &good).unwrap();
    }
    // All that is damaged is named, each with its block.
    let (a, b) = (path(dir.path(), 0, "-00002"), path(dir.path(), 1, "-00001"));
    let good = [&a, &b].map(|path| fs::read(path).unwrap());
    for path in [&a, &b] {
        let mut bad = fs::read(path).unwrap();
        let at = bad.len() / 2;
        bad[at] ^= 1;
        fs::write(path, bad).unwrap();
    }
    let text = check().unwrap_err().to_string();
    assert!(text.matches("volume").count() >= 2 && text.contains("-00002") && text.contains("-00001"), "{text}");
    fs::write(&a, &good[0]).unwrap();
    fs::write(&b, &good[1]).unwrap();
    // The two descriptions of a backup say the same.
    change(dir.path(), 3, |json| json["created_at"] = "2030-01-01 00:00:00".into());
    let e = check().unwrap_err();
    assert!(e.rule() == "cinder.sha256" && e.to_string().contains("it says the time "), "{e}");
    change(dir.path(), 3, |json| json["created_at"] = "2026-01-04 00:00:00".into());
    check().unwrap();
    // Overlaid in another order, each object is right and the volume is not.
    change(dir.path(), 2, |json| json["parent_id"] = id(0).into());
    assert_eq!(check().unwrap_err().rule(), "cinder.sha256");
}

#[test]
fn a_chain_that_is_not_whole_is_refused_by_name() {
    let with = |change: &dyn Fn(&Path)| {
        let dir = tempfile::tempdir().unwrap();
        tree(dir.path());
        change(dir.path());
        refusal(dir.path(), 3)
    };
    let (kind, rule, text) = with(&|root| fs::remove_file(path(root, 1, "-00001")).unwrap());
    assert!(kind == ErrorKind::Corrupt && rule == "cinder.parent" && text.contains("-00001 is not there"), "{text}");
    let (_, rule, text) = with(&|root| fs::remove_file(path(root, 1, "_metadata")).unwrap());
    assert!(rule == "cinder.parent" && text.contains("no metadata"), "{text}");
    let (_, rule, text) = with(&|root| change(root, 2, |json| json["parent_id"] = id(9).into()));
    assert!(rule == "cinder.parent" && text.contains("not here"), "{text}");
    let (_, rule, text) = with(&|root| change(root, 0, |json| json["parent_id"] = id(3).into()));
    assert!(rule == "cinder.cycle" && text.contains("circle"), "{text}");
    let (_, rule, text) = with(&|root| change(root, 0, |json| json["volume_id"] = id(9).into()));
    assert!(rule == "cinder.parent" && text.contains("another volume"), "{text}");
    for (what, rule) in [
        ("remove", "cinder.range"),
        ("double", "cinder.range"),
        ("beyond", "cinder.range"),
        ("name", "cinder.parent"),
        ("zero", "cinder.parent"),
        ("version", "cinder.parent"),
        ("lzma", "cinder.parent"),
    ] {
        let (kind, found, text) = with(&|root| {
            change(root, if what == "beyond" { 1 } else { 0 }, |json| {
                let objects = json["objects"].as_array_mut().unwrap();
                let fields = objects[1].as_object().unwrap().clone().into_iter().next().unwrap();
                match what {
                    "remove" => drop(objects.remove(2)),
                    "double" => objects.push(objects[1].clone()),
                    "beyond" => objects[1][&fields.0]["offset"] = (1 << 30).into(),
                    "name" => objects[1] = json!({ "../../etc/passwd": fields.1 }),
                    "zero" => objects[1][&fields.0]["length"] = 0.into(),
                    "lzma" => objects[1][&fields.0]["compression"] = "lzma".into(),
                    _ => json["version"] = "2.0.0".into(),
                }
            });
        });
        assert!(found == rule && kind == ErrorKind::Corrupt, "{what}: {found}: {text}");
    }
}

#[test]
fn a_backup_alone_or_without_metadata_is_said_to_be_incomplete() {
    let dir = tempfile::tempdir().unwrap();
    tree(dir.path());
    fs::remove_file(path(dir.path(), 0, "_metadata")).unwrap();
    let tree = Tree::open(dir.path()).unwrap();
    assert_eq!(tree.backups().len(), 4);
    assert!(tree.backups().iter().all(|backup| backup.problem.is_some()), "{:?}", tree.backups());
    assert_eq!(tree.choose(None).unwrap_err().rule(), "cinder.backup");
    assert_eq!(tree.choose(Some("nothing")).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn backups_of_several_volumes_want_a_choice() {
    let dir = tempfile::tempdir().unwrap();
    tree(dir.path());
    let other = Backup { n: 5, parent: None, packing: "none", place: ("other", "az_nova_backup_") };
    other.write(dir.path(), &volume(), None);
    change(dir.path(), 5, |json| json["volume_id"] = id(9).into());
    let tree = Tree::open(dir.path()).unwrap();
    let e = tree.choose(None).unwrap_err();
    assert!(e.rule() == "cinder.backup" && e.to_string().contains(&id(5)), "{e}");
    assert_eq!(tree.choose(Some(&id(5))).unwrap().volume, id(9));
    other.write(&dir.path().join("copy"), &volume(), None);
    assert_eq!(Tree::open(dir.path()).unwrap_err().rule(), "cinder.tree");
}

#[test]
fn an_object_is_no_image() {
    for (name, refused) in [
        (format!("volume_{VOLUME}_20260101000000_backup_{}-00001", id(0)), true),
        (format!("az_nova_backup_{}_metadata", id(0)), true),
        (format!("az_nova_backup_{}_sha256file", id(0)), true),
        (format!("my_backup_{}.img", id(0)), false),
        ("disk-00001".into(), false),
    ] {
        assert_eq!(refuse_object(Path::new(&name)).is_err(), refused, "{name}");
    }
}

#[test]
fn a_text_without_an_end_takes_no_memory() {
    let dir = tempfile::tempdir().unwrap();
    tree(dir.path());
    let path = path(dir.path(), 0, "_metadata");
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(b"{\"version\": \"1.0.0\", \"backup_name\": \"").unwrap();
    file.set_len(2 << 30).unwrap();
    let tree = Tree::open(dir.path()).unwrap();
    let problem = tree.choose(Some(&id(0))).unwrap().problem.clone().unwrap();
    assert!(problem.contains("more than 4194304 bytes") || problem.contains("control character"), "{problem}");
}
