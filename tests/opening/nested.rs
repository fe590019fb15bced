//! Disks within disks: which of their partitions is meant, and how many of them are looked at.

use std::sync::Arc;

use unluks::error::Condition;
use unluks::locate::{FindOptions, LayerKind, find, ways};
use unluks::{ErrorKind, ReadAt, Result};

use crate::layers::{find_in, golden, group, in_partitions, put, refused};

/// A disk in the second partition of another.
fn in_second(disk: Vec<u8>) -> Vec<u8> {
    in_partitions(&[vec![7; 4096], disk])
}

#[test]
fn partitions_of_disks_within_disks_are_named_by_their_path() {
    let luks = golden().image;
    let inner = in_partitions(&[luks.clone(), luks.clone()]);
    let named = |path: &str| FindOptions { partition: Some(path.into()), ..FindOptions::default() };
    let volume = |path: &str| FindOptions { volume: Some("vg/vm".into()), ..named(path) };
    for (disk, options, outer) in [
        (in_second(inner.clone()), named("2"), "2/"),
        (in_second(in_second(inner.clone())), named("2/2"), "2/2/"),
        (group("vg", 1, &[("vm", &inner)]).remove(0), FindOptions::default(), ""),
        (in_second(group("vg", 1, &[("vm", &inner)]).remove(0)), named("2"), "2/"),
    ] {
        let e = refused(vec![disk.clone()], FindOptions::default());
        let hint = format!("{e} {:?}", e.hint());
        assert!(e.to_string().contains("2 partitions hold LUKS") && hint.contains("NamePartition"), "{hint}");
        let all: Arc<dyn ReadAt> = Arc::new(disk.clone());
        let ways = ways(&all, None, &FindOptions::default()).unwrap().found;
        assert_eq!(ways.len(), 2, "{outer}");
        for (number, way) in (1..).zip(ways) {
            let path = format!("{outer}{number}");
            assert!(outer.is_empty() || e.to_string().contains(&path), "{e}");
            let has_volume = way.volume.is_some();
            let options = if has_volume { volume(&path) } else { named(&path) };
            let found = find(Arc::clone(&all), options).unwrap();
            assert_eq!(found.place.source().len(), way.disk.len());
            let partitions = found.layers.iter().filter(|layer| layer.kind == LayerKind::Partition);
            let names: Vec<&str> = partitions.map(|layer| layer.name.as_str()).collect();
            assert_eq!(names.join("/"), path);
        }
        // What the path does not reach to the end of is refused.
        for beyond in [format!("{outer}1/1"), format!("{outer}3")] {
            let e = refused(vec![disk.clone()], named(&beyond));
            assert_eq!(e.kind(), ErrorKind::InvalidInput, "{beyond}: {e}");
        }
        let _ = options;
    }
    // One of them leads to it alone, through three tables.
    let deep = in_second(in_second(in_second(luks.clone())));
    let found = find_in(vec![deep], FindOptions::default()).unwrap();
    assert_eq!(found.place.source().len(), u64::try_from(luks.len()).unwrap());
    // And one through more than there may be is none.
    let deepest = (0..12).fold(luks, |disk, _| in_second(disk));
    assert!(find_in(vec![deepest], FindOptions::default()).is_err());
}

/// A disk that counts how often it is read.
struct Counted(Vec<u8>, std::sync::atomic::AtomicU64);

impl ReadAt for Counted {
    fn len(&self) -> u64 {
        self.0.len().try_into().unwrap()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.0.read_exact_at(buf, offset)
    }
}

#[test]
fn tables_that_lead_to_each_other_are_not_followed_in_all_ways() {
    // Each table has four entries for the same disk within: a million ways down.
    let mut disk = vec![5; 4096];
    for _ in 0..10 {
        let sectors = u32::try_from(disk.len() / 512).unwrap().to_le_bytes();
        let mut outer = vec![0; 512];
        for entry in [446, 462, 478, 494] {
            put(&mut outer, entry + 4, &[0x83]);
            put(&mut outer, entry + 8, &[1u32.to_le_bytes(), sectors].concat());
        }
        put(&mut outer, 510, &[0x55, 0xaa]);
        outer.extend(disk);
        disk = outer;
    }
    let disk = Arc::new(Counted(disk, 0.into()));
    let e = find(Arc::<Counted>::clone(&disk), FindOptions::default()).err().unwrap();
    assert!(e.is(Condition::NoHeader), "{e}");
    let reads = disk.1.load(std::sync::atomic::Ordering::Relaxed);
    assert!(reads < 200_000, "{reads}");
}
