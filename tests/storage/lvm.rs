//! Volume groups that LVM made, against what the kernel's device-mapper read of them: `make-lvm` has the recipe.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};
use unluks::storage::lvm::{Label, LogicalVolume, VolumeGroup};
use unluks::{ErrorKind, FileSource, ReadAt, Result};

type Device = Arc<dyn ReadAt>;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/lvm")
}

fn manifest(dir: &Path) -> BTreeMap<String, Value> {
    serde_json::from_slice(&fs::read(dir.join("manifest.json")).unwrap()).unwrap()
}

/// The physical volumes of a case: files as they are, or packed.
fn devices(dir: &Path, name: &str, case: &Value) -> Vec<Device> {
    let device = |n: u64| -> Device {
        let path = dir.join(format!("{name}.{n}.img"));
        if path.exists() {
            return Arc::new(FileSource::open(path).unwrap());
        }
        let packed = fs::File::open(dir.join(format!("{name}.{n}.img.gz"))).unwrap();
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(packed).read_to_end(&mut bytes).unwrap();
        Arc::new(bytes)
    };
    (0..case["pvs"].as_u64().unwrap()).map(device).collect()
}

/// The golden case `name`: its devices, and what the manifest says.
pub fn case(name: &str) -> (Vec<Device>, Value) {
    let case = manifest(&golden()).remove(name).unwrap();
    (devices(&golden(), name, &case), case)
}

fn open(group: &VolumeGroup, name: &str) -> Result<LogicalVolume> {
    group.open(group.find(name)?)
}

fn read_all(volume: &LogicalVolume) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(volume.len()).unwrap()];
    // Pieces that begin and end anywhere.
    for (n, piece) in bytes.chunks_mut(300_007).enumerate() {
        volume.will_need(n as u64 * 300_007, piece.len() as u64);
        volume.read_exact_at(piece, n as u64 * 300_007).unwrap();
        volume.wont_need(n as u64 * 300_007, piece.len() as u64);
    }
    bytes
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// The volume reads as the kernel read it: as a whole, at any place, and where it says that it is zero.
fn check_volume(volume: &LogicalVolume, expected: &Value, what: &str) {
    assert_eq!(volume.len(), expected["size"].as_u64().unwrap(), "{what}");
    let bytes = read_all(volume);
    assert_eq!(sha256(&bytes), expected["sha256"].as_str().unwrap(), "{what}");
    let mut seed = 7u64;
    for _ in 0..40 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let start = (seed >> 33) as usize % bytes.len();
        let len = ((seed >> 20) as usize % 70_000).min(bytes.len() - start);
        let mut piece = vec![0; len];
        volume.read_exact_at(&mut piece, start as u64).unwrap();
        assert!(piece == bytes[start..start + len], "{what}: {len} bytes at {start}");
    }
    let mut at = 0;
    while at < bytes.len() {
        let extent = volume.extent_at(at as u64).unwrap();
        let end = at + extent.len as usize;
        assert!(extent.len > 0 && end <= bytes.len(), "{what}: {extent:?} at {at}");
        assert!(!extent.zero || bytes[at..end].iter().all(|b| *b == 0), "{what}: {extent:?} at {at}");
        at = end;
    }
    assert!(volume.read_exact_at(&mut [0; 2], volume.len() - 1).is_err());
}

fn names(case: &Value, list: &str) -> Vec<String> {
    case[list].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

/// How many volumes read as they should, with all devices and with one of them gone.
fn check_case(dir: &Path, name: &str, case: &Value) -> (usize, usize) {
    let all = devices(dir, name, case);
    let (refused, survives) = (names(case, "refused"), names(case, "survives"));
    let expected = case["volumes"].as_object().unwrap();
    let mut whole = 0;
    let group = VolumeGroup::assemble(all.clone()).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert_eq!(group.name, case["group"].as_str().unwrap());
    assert!(
        group.physical.iter().all(|pv| pv.missing.is_none() || name.contains("stale")),
        "{name}: {:?}",
        group.notes
    );
    for (volume, expected) in expected {
        let what = format!("{name}: {volume}");
        let opened = open(&group, &format!("{}/{volume}", group.name));
        if refused.contains(volume) || expected.get("sha256").is_none() {
            let e = opened.err().unwrap_or_else(|| panic!("{what} is not refused"));
            assert!(matches!(e.kind(), ErrorKind::Unsupported) || e.rule() == "lvm.snapshot.invalid", "{what}: {e}");
            continue;
        }
        check_volume(&opened.unwrap_or_else(|e| panic!("{what}: {e}")), expected, &what);
        whole += 1;
    }
    // With a device gone, a volume opens and is right, or it does not open.
    let mut degraded = 0;
    let stale: Vec<u64> = case["stale"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
    for gone in 0..all.len() {
        let rest: Vec<usize> = (0..all.len()).filter(|n| *n != gone).collect();
        if rest.is_empty() || rest.iter().all(|n| stale.contains(&(*n as u64))) {
            continue;
        }
        let group = match VolumeGroup::assemble(rest.iter().map(|n| Arc::clone(&all[*n])).collect()) {
            Ok(group) => group,
            Err(e) => {
                assert_eq!(e.rule(), "lvm.group", "{name} without {gone}: {e}");
                continue;
            }
        };
        for (volume, expected) in expected.iter().filter(|(volume, _)| !refused.contains(volume)) {
            let what = format!("{name} without {gone}: {volume}");
            match open(&group, volume) {
                Ok(opened) => {
                    check_volume(&opened, expected, &what);
                    degraded += 1;
                }
                Err(e) => assert!(!survives.contains(volume), "{what}: {e}"),
            }
        }
    }
    (whole, degraded)
}

fn check_all(dir: &Path) -> (usize, usize, usize) {
    let cases = manifest(dir);
    let mut total = (cases.len(), 0, 0);
    for (name, case) in &cases {
        let (whole, degraded) = check_case(dir, name, case);
        println!("{name}: {whole} volumes, {degraded} with a device gone");
        total = (total.0, total.1 + whole, total.2 + degraded);
    }
    println!("{} cases: {} volumes, {} with a device gone", total.0, total.1, total.2);
    total
}

#[test]
fn what_the_ring_still_holds_is_listed() {
    let (devices, _) = case("ring-0");
    let group = VolumeGroup::assemble(devices).unwrap();
    let old = group.old_versions().unwrap();
    assert!(old.len() >= 8 && old.iter().all(|version| version.seqno < group.seqno), "{old:?}");
    assert!(old.windows(2).all(|pair| pair[0].seqno >= pair[1].seqno));
    assert_eq!(old[0].seqno, group.seqno - 1);
    assert!(old.iter().all(|version| version.name == group.name && version.time > 1_700_000_000));
    assert!(old[0].description.contains("lvchange"), "{}", old[0].description);
    assert!(group.seqno > 40 && old.last().unwrap().seqno > 1, "the ring has gone round");
}

#[test]
fn a_device_is_told_by_its_label() {
    let (devices, case) = case("raid1");
    let label = Label::probe(&*devices[1]).unwrap().unwrap();
    assert_eq!((label.sector, label.device_size), (1, devices[1].len()));
    assert_eq!(label.group().unwrap().0, case["group"].as_str().unwrap());
    assert_eq!((label.data_areas.len(), label.metadata_areas.len()), (1, 1));
}

#[test]
fn the_kernel_reads_the_same_of_the_golden_groups() {
    let (cases, whole, degraded) = check_all(&golden());
    assert!(cases >= 11 && whole >= 18 && degraded >= 6, "{cases} {whole} {degraded}");
}

/// Run with `UNLUKS_LVM_IMAGES=DIR`, where `make-lvm DIR` has made all cases.
#[test]
#[ignore = "needs the images of tests/storage/make-lvm, which needs root and device-mapper"]
fn the_kernel_reads_the_same_of_all_groups() {
    let dir = std::env::var_os("UNLUKS_LVM_IMAGES").expect("UNLUKS_LVM_IMAGES names the directory");
    let (cases, whole, degraded) = check_all(Path::new(&dir));
    assert!(cases >= 60 && whole >= 80 && degraded >= 40, "{cases} {whole} {degraded}");
}
