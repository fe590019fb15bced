//! md: what the kernel read of each array is what is read here, also with members left out. `make-md` makes the arrays.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};
use unluks::storage::md::{Array, AssembleOptions, MemberState, Raid0Layout, Role, Source, Superblock};
use unluks::{ErrorKind, ReadAt, Result};

type List = BTreeMap<String, Value>;

fn number(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

fn sources(members: &[Vec<u8>], which: &[usize]) -> Vec<Source> {
    let source = |n: &usize| Source { name: format!("member-{n}.img"), disk: Arc::new(members[*n].clone()) };
    which.iter().map(source).collect()
}

fn assemble(members: &[Vec<u8>], which: &[usize]) -> Result<Array> {
    Array::assemble(sources(members, which), &AssembleOptions::default())
}

/// All of the array in reads of sizes that fit no chunk, and again in one.
fn read_all(array: &Array) -> Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(array.len()).unwrap()];
    array.read_exact_at(&mut bytes, 0)?;
    let mut again = vec![0; bytes.len()];
    let (mut at, mut size) = (0, 1);
    while at < again.len() {
        let end = again.len().min(at + size);
        array.read_exact_at(&mut again[at..end], u64::try_from(at).unwrap())?;
        at = end;
        size = size * 3 % 300_007 + 511;
    }
    assert!(bytes == again, "reads of other sizes give other bytes");
    Ok(bytes)
}

/// Extents cover the array, and what they call zero is zero.
fn check_extents(array: &Array, bytes: &[u8], what: &str) {
    let mut at = 0;
    while at < array.len() {
        let extent = array.extent_at(at).unwrap();
        assert!(extent.len > 0 && at + extent.len <= array.len(), "{what}: {extent:?} at byte {at}");
        let range = usize::try_from(at).unwrap()..usize::try_from(at + extent.len).unwrap();
        assert!(!extent.zero || bytes[range].iter().all(|b| *b == 0), "{what}: {extent:?} at byte {at}");
        at += extent.len;
    }
}

/// All ways to leave out up to `most` of `n`.
fn choices(n: usize, most: usize) -> Vec<Vec<usize>> {
    let mut all: Vec<Vec<usize>> = vec![(0..n).collect()];
    for first in 0..n {
        if most >= 1 {
            all.push((0..n).filter(|m| *m != first).collect());
        }
        for second in first + 1..n {
            if most >= 2 {
                all.push((0..n).filter(|m| *m != first && *m != second).collect());
            }
        }
    }
    all
}

/// Compares one array in all ways; the number of ways.
fn compare(name: &str, case: &Value, members: &[Vec<u8>]) -> usize {
    if let Some(words) = case["refused"].as_str() {
        let e = assemble(members, &(0..members.len()).collect::<Vec<_>>()).err().unwrap();
        assert!(e.kind() == ErrorKind::Unsupported && e.to_string().contains(words), "{name}: {e}");
        let raid0_layout = match case["asked"].as_u64() {
            None => return 1,
            Some(1) => Some(Raid0Layout::Original),
            Some(_) => Some(Raid0Layout::Alternate),
        };
        let all: Vec<usize> = (0..members.len()).collect();
        let array =
            Array::assemble(sources(members, &all), &AssembleOptions { raid0_layout, ..Default::default() }).unwrap();
        assert_eq!(Some(sha256(&read_all(&array).unwrap()).as_str()), case["sha256"].as_str(), "{name}");
        return 2;
    }
    let stale: Vec<usize> = case["stale"].as_array().into_iter().flatten().map(number).collect();
    let lost = case["lost"].as_i64().unwrap();
    let everyone: Vec<usize> = (0..members.len()).collect();
    let active = case.get("active").map_or(members.len(), number);
    let mut ways = 0;
    // Where it depends on the members which may be missing, all pairs are tried, and some must do.
    let most = usize::try_from(lost).unwrap_or(2);
    let mut readable = 0;
    for which in choices(members.len(), most) {
        let mut order = which.clone();
        order.rotate_left(ways % which.len());
        let what = format!("{name} with {order:?}");
        ways += 1;
        let array = match assemble(members, &order) {
            Err(e) if lost < 0 && e.rule() == "md.members" => continue,
            other => other.unwrap_or_else(|e| panic!("{what}: {e}")),
        };
        readable += 1;
        let bytes = read_all(&array).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(bytes.len(), number(&case["size"]), "{what}");
        assert_eq!(Some(sha256(&bytes).as_str()), case["sha256"].as_str(), "{what}: {}", array.info());
        check_extents(&array, &bytes, &what);
        let states = &array.info().members;
        let unused: Vec<usize> = states
            .iter()
            .filter(|m| m.state != MemberState::InSync)
            .filter_map(|m| m.source)
            .map(|n| order[n])
            .collect();
        if active == members.len() || lost == 0 {
            let mut wanted: Vec<usize> = stale.iter().copied().filter(|n| order.contains(n)).collect();
            wanted.sort_by_key(|n| order.iter().position(|m| m == n));
            assert!(wanted.iter().all(|n| unused.contains(n)), "{what}: {states:?}");
            assert!(!stale.is_empty() || active < members.len() || unused.is_empty(), "{what}: {states:?}");
        }
        if let Some(words) = case["says"].as_str() {
            let notes = array.info().notes.join("\n");
            assert!(notes.contains(words), "{what}: {notes}");
        }
    }
    assert!(readable > 0, "{name}: no way to read it");
    // One member too many is missing: refused, and the message names it.
    if lost >= 0 && stale.is_empty() && case["says"].is_null() && active == members.len() {
        let which = &everyone[..members.len() - most - 1];
        if !which.is_empty() {
            let e = assemble(members, which).err().unwrap_or_else(|| panic!("{name} with {which:?}"));
            assert_eq!((e.kind(), e.rule()), (ErrorKind::InvalidInput, "md.members"), "{name}: {e}");
            assert!(e.to_string().contains("missing"), "{name}: {e}");
            ways += 1;
        }
    }
    ways
}

fn golden() -> (List, impl Fn(&str, &Value) -> Vec<Vec<u8>>) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/md");
    let list: List = serde_json::from_slice(&std::fs::read(dir.join("md.json")).unwrap()).unwrap();
    let members = move |name: &str, case: &Value| {
        let mut bytes = Vec::new();
        let file = std::fs::File::open(dir.join(format!("{name}.gz"))).unwrap();
        flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
        let mut rest = bytes.as_slice();
        let sizes = case["members"].as_array().unwrap().iter().map(number);
        sizes.map(|size| rest.split_off(..size).unwrap().to_vec()).collect()
    };
    (list, members)
}

#[test]
fn golden_arrays_are_read_as_the_kernel_read_them() {
    let (list, members) = golden();
    assert!(list.len() > 35, "{} arrays", list.len());
    for (name, case) in &list {
        compare(name, case, &members(name, case));
    }
}

#[test]
fn a_superblock_of_the_other_byte_order_says_the_same() {
    let (list, members) = golden();
    for name in ["raid1-0.90", "raid5-0.90", "stale-raid1-0.90", "linear-0.90"] {
        let mut swapped = members(name, &list[name]);
        for member in &mut swapped {
            let before = Superblock::probe(member).unwrap().unwrap();
            let at = usize::try_from(before.offset).unwrap();
            for word in member[at..at + 4096].chunks_exact_mut(4) {
                word.reverse();
            }
            // Long numbers have their high word first then.
            for long in [39, 41] {
                member[at + long * 4..][..8].rotate_left(4);
            }
            assert_eq!(Superblock::probe(member).unwrap().unwrap(), before);
        }
        compare(name, &list[name], &swapped);
    }
}

#[test]
fn sources_of_other_arrays_are_named() {
    let (list, members) = golden();
    let of = |name: &str| members(name, &list[name]);
    let mixed = [&of("raid5-ls")[..], &of("raid4")[1..2]].concat();
    let e = assemble(&mixed, &[0, 1, 4, 2]).err().unwrap();
    assert_eq!((e.kind(), e.rule()), (ErrorKind::InvalidInput, "md.member.other"));
    assert!(e.to_string().contains("member-4.img is a member of another array: RAID4 array \"host:raid4\""), "{e}");
    let e = assemble(&mixed, &[0, 1, 1, 2]).err().unwrap();
    assert_eq!(e.rule(), "md.member.twice", "{e}");
    let with_zeroes = [of("raid5-ls"), vec![vec![0; 200_000]]].concat();
    let e = assemble(&with_zeroes, &[0, 4, 1, 2]).err().unwrap();
    assert!(e.rule() == "md.member" && e.to_string().contains("member-4.img has no md superblock"), "{e}");
    assert_eq!(assemble(&mixed, &[]).err().unwrap().kind(), ErrorKind::InvalidInput);
}

#[test]
fn members_and_their_roles_are_told() {
    let (list, members) = golden();
    let array = assemble(&members("stale-raid5", &list["stale-raid5"]), &[2, 1, 0]).unwrap();
    let info = array.info();
    let told: Vec<_> = info.members.iter().map(|m| (m.source, m.role, m.state)).collect();
    let role = Role::Member;
    assert_eq!(
        told,
        [
            (Some(0), role(2), MemberState::InSync),
            (Some(1), role(1), MemberState::Stale),
            (Some(2), role(0), MemberState::InSync),
            (None, role(1), MemberState::Missing)
        ]
    );
    assert!(
        info.notes.iter().any(|n| n.contains("member-1.img is left out: as member 1 it stands at event")),
        "{:?}",
        info.notes
    );
    let line = info.to_string();
    assert!(line.starts_with("md RAID5 of 3 members (1 missing), left-symmetric, chunks of 4096 bytes, metadata 1.2, \"host:stale-raid5\", UUID "), "{line}");
}

/// The whole differential: two hundred arrays, which take a kernel some ten minutes to make:
/// `cargo test -p unluks --features peer-tests --test storage -- --ignored`. `UNLUKS_MD_ARRAYS` may name a directory that
/// `make-md` filled before.
#[cfg(feature = "peer-tests")]
#[test]
#[ignore = "runs a kernel for ten minutes and more"]
fn every_array_is_read_as_the_kernel_read_it() {
    let made = tempfile::tempdir().unwrap();
    let dir = match std::env::var_os("UNLUKS_MD_ARRAYS") {
        Some(dir) => dir.into(),
        None => {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/storage/make-md");
            assert!(std::process::Command::new(script).arg(made.path()).status().unwrap().success());
            made.path().to_owned()
        }
    };
    let list: List = serde_json::from_slice(&std::fs::read(dir.join("md.json")).unwrap()).unwrap();
    let mut ways = 0;
    for (name, case) in &list {
        let count = case["members"].as_array().unwrap().len();
        let members: Vec<Vec<u8>> =
            (0..count).map(|n| std::fs::read(dir.join(format!("{name}.{n}"))).unwrap()).collect();
        ways += compare(name, case, &members);
    }
    println!("{} arrays in {ways} ways", list.len());
    assert!(list.len() >= 60 && ways > 500, "{} arrays in {ways} ways", list.len());
}
