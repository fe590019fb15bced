//! Disks made of disks: arrays and volumes, in the orders that people have them, down to the LUKS container.

use std::sync::Arc;

use unluks::error::{Condition, Hint};
use unluks::format::Named;
use unluks::locate::{FindOptions, Found, LayerKind, find, ways};
use unluks::{Error, ErrorKind, Image, ReadAt, Result};

use crate::support::{Golden, PARTITION, in_mbr, in_qcow2};

const EXTENT: usize = 4096;
/// Where a physical volume's metadata area lies, how long it is, and where its extents begin.
const AREA: usize = 4096;
const AREA_LEN: usize = 16_384;
const EXTENTS: usize = 32_768;
/// Where a member's superblock and its data lie.
const SUPERBLOCK: usize = 4096;
const DATA: usize = 8192;
const CHUNK: usize = 4096;

pub fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    bytes[at..at + what.len()].copy_from_slice(what);
}

fn long(number: usize) -> [u8; 8] {
    u64::try_from(number).unwrap().to_le_bytes()
}

/// LVM2's CRC-32 (`lib/misc/crc.c`).
fn crc(bytes: &[u8]) -> [u8; 4] {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    let crc = bytes.iter().fold(0xf597_a6cf, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)));
    crc.to_le_bytes()
}

/// The physical volumes of a group. Each logical volume is cut in two: its second half comes first, and on the next device.
pub fn group(name: &str, devices: usize, volumes: &[(&str, &[u8])]) -> Vec<Vec<u8>> {
    let uuid = |n: usize| format!("{name:x<6}-{n:04}-{n:04}-{n:04}-{n:04}-{n:04}-{name:x<6}");
    let mut data = vec![Vec::new(); devices];
    let mut said = String::new();
    for (n, &(volume, bytes)) in volumes.iter().enumerate() {
        let extents = bytes.len().div_ceil(EXTENT);
        let mut bytes = bytes.to_vec();
        bytes.resize(extents * EXTENT, 0);
        let half = extents / 2;
        let (first, second) = (n % devices, (n + 1) % devices);
        // A hole of one extent before each half, so that nothing lies where it would by chance.
        let mut place = |device: usize, part: &[u8]| {
            let start = data[device].len() / EXTENT + 1;
            data[device].resize(start * EXTENT, 0xff);
            data[device].extend_from_slice(part);
            start
        };
        let later = place(second, &bytes[half * EXTENT..]);
        let sooner = place(first, &bytes[..half * EXTENT]);
        said += &format!("{volume} {{\nid = \"{volume}\"\nstatus = [\"READ\", \"VISIBLE\"]\nsegment_count = 2\n");
        for (n, from, count, device, at) in [(1, 0, half, first, sooner), (2, half, extents - half, second, later)] {
            said += &format!(
                "segment{n} {{\nstart_extent = {from}\nextent_count = {count}\ntype = \"striped\"\nstripe_count = 1\n\
                 stripes = [\"pv{device}\", {at}]\n}}\n"
            );
        }
        said += "}\n";
    }
    let mut physical = String::new();
    for (n, data) in data.iter().enumerate() {
        let (size, count) = ((EXTENTS + data.len()) / 512, data.len() / EXTENT);
        physical += &format!(
            "pv{n} {{\nid = \"{}\"\ndev_size = {size}\npe_start = 64\npe_count = {count}\nstatus = [\"ALLOCATABLE\"]\n}}\n",
            uuid(n)
        );
    }
    let text = format!(
        "{name} {{\nid = \"{name}\"\nseqno = 5\nformat = \"lvm2\"\nstatus = [\"READ\"]\nextent_size = 8\n\
         physical_volumes {{\n{physical}}}\nlogical_volumes {{\n{said}}}\n}}\ncontents = \"Text Format Volume Group\"\n\
         version = 1\ndescription = \"made by hand\"\ncreation_time = 7\n\0"
    );
    let device = |(n, data): (usize, &Vec<u8>)| {
        let mut disk = vec![0; EXTENTS];
        disk.extend_from_slice(data);
        let size = disk.len();
        put(&mut disk, 512, b"LABELONE");
        put(&mut disk, 520, &long(1));
        put(&mut disk, 532, &32u32.to_le_bytes());
        put(&mut disk, 536, b"LVM2 001");
        put(&mut disk, 544, uuid(n).replace('-', "").as_bytes());
        put(&mut disk, 576, &long(size));
        put(&mut disk, 584, &long(EXTENTS));
        put(&mut disk, 616, &long(AREA));
        put(&mut disk, 624, &long(AREA_LEN));
        let sum = crc(&disk[532..1024]);
        put(&mut disk, 528, &sum);
        put(&mut disk, AREA + 4, b" LVM2 x[5A%r0N*>");
        put(&mut disk, AREA + 20, &1u32.to_le_bytes());
        put(&mut disk, AREA + 24, &long(AREA));
        put(&mut disk, AREA + 32, &long(AREA_LEN));
        put(&mut disk, AREA + 40, &long(512));
        put(&mut disk, AREA + 48, &long(text.len()));
        put(&mut disk, AREA + 56, &crc(text.as_bytes()));
        let sum = crc(&disk[AREA + 4..AREA + 512]);
        put(&mut disk, AREA, &sum);
        put(&mut disk, AREA + 512, text.as_bytes());
        disk
    };
    data.iter().enumerate().map(device).collect()
}

/// Puts superblocks of metadata 1.2 on members whose data is in place.
fn seal(members: &mut [Vec<u8>], level: i32, layout: u32, uuid: &[u8; 16]) {
    let count = u8::try_from(members.len()).unwrap();
    let member_len = members[0].len() - DATA;
    for (n, member) in (0u8..).zip(members) {
        let fields: &[(usize, &[u8])] = &[
            (0, &0xa92b_4efcu32.to_le_bytes()),
            (4, &[1]),
            (16, uuid),
            (32, b"host:name"),
            (64, &[1]),
            (72, &level.to_le_bytes()),
            (76, &layout.to_le_bytes()),
            (80, &long(member_len / 512)),
            (88, &[u8::try_from(CHUNK / 512).unwrap()]),
            (92, &[count]),
            (128, &long(DATA / 512)),
            (136, &long(member_len / 512)),
            (144, &long(SUPERBLOCK / 512)),
            (160, &[n]),
            (168, &[n + 1; 16]),
            (200, &[7]),
            (208, &[0xff; 8]),
            (220, &[count]),
            (256, &[0, 0, 1, 0, 2, 0]),
        ];
        fields.iter().for_each(|(at, bytes)| put(member, SUPERBLOCK + at, bytes));
        let roles = &member[SUPERBLOCK..SUPERBLOCK + 256 + usize::from(count) * 2];
        let word = |b: &[u8]| b.iter().rev().fold(0u64, |word, b| word << 8 | u64::from(*b));
        let sum: u64 = roles.chunks(4).map(word).sum();
        put(member, SUPERBLOCK + 216, &u32::try_from((sum & 0xffff_ffff) + (sum >> 32)).unwrap().to_le_bytes());
    }
}

pub fn raid1(data: &[u8]) -> Vec<Vec<u8>> {
    raid1_of(data, b"a raid1 has uuid")
}

fn raid1_of(data: &[u8], uuid: &[u8; 16]) -> Vec<Vec<u8>> {
    let mut member = vec![0; DATA];
    member.extend_from_slice(data);
    member.resize(member.len().next_multiple_of(CHUNK), 0);
    // What is behind the array is not its own.
    let mut members = vec![member.clone(), member];
    seal(&mut members, 1, 0, uuid);
    members.iter_mut().for_each(|member| member.extend([0xee; 65_536]));
    members
}

fn raid0(data: &[u8]) -> Vec<Vec<u8>> {
    let mut members = vec![vec![0; DATA]; 2];
    for (n, chunk) in data.chunks(CHUNK).enumerate() {
        members[n % 2].extend_from_slice(chunk);
    }
    let longest = members.iter().map(Vec::len).max().unwrap().next_multiple_of(CHUNK);
    members.iter_mut().for_each(|member| member.resize(longest, 0));
    seal(&mut members, 0, 0, b"a raid0 has uuid");
    members
}

/// Three members, left-symmetric.
pub fn raid5(data: &[u8]) -> Vec<Vec<u8>> {
    let mut data = data.to_vec();
    data.resize(data.len().next_multiple_of(CHUNK * 2), 0);
    let mut members = vec![vec![0; DATA + data.len() / 2]; 3];
    for (stripe, data) in data.chunks(CHUNK * 2).enumerate() {
        let (first, second) = data.split_at(CHUNK);
        let parity: Vec<u8> = first.iter().zip(second).map(|(a, b)| a ^ b).collect();
        let p = 2 - stripe % 3;
        for (member, bytes) in [(p, parity.as_slice()), ((p + 1) % 3, first), ((p + 2) % 3, second)] {
            put(&mut members[member], DATA + stripe * CHUNK, bytes);
        }
    }
    seal(&mut members, 5, 2, b"a raid5 has uuid");
    members
}

/// A disk with an MBR partition for each.
pub fn in_partitions(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut disk = vec![0; 512];
    for (n, part) in parts.iter().enumerate() {
        let sectors = |bytes: usize| u32::try_from(bytes / 512).unwrap().to_le_bytes();
        let start = disk.len().next_multiple_of(1 << 20);
        disk.resize(start, 0);
        disk.extend_from_slice(part);
        disk.resize(disk.len().next_multiple_of(512), 0);
        let len = disk.len() - start;
        put(&mut disk, 450 + n * 16, &[0x8e]);
        put(&mut disk, 454 + n * 16, &[sectors(start), sectors(len)].concat());
    }
    put(&mut disk, 510, &[0x55, 0xaa]);
    disk
}

pub fn golden() -> Golden {
    Golden::read("l1-aes-xts-512-sha256")
}

/// What is found from the first disk, with the others beside it.
pub fn find_in(mut disks: Vec<Vec<u8>>, options: FindOptions) -> Result<Found> {
    let first = Arc::new(disks.remove(0));
    let member = |(n, disk): (usize, Vec<u8>)| Named::new(format!("other {n}"), Arc::new(disk));
    let with = disks.into_iter().enumerate().map(member).collect();
    find(first, FindOptions { name: "first".into(), with, ..options })
}

#[track_caller]
pub fn refused(disks: Vec<Vec<u8>>, options: FindOptions) -> Error {
    let found = find_in(disks, options).and_then(|found| Image::open_found(&found, None));
    found.err().expect("it opens")
}

#[test]
fn every_order_of_layers_leads_to_the_container_and_to_its_end() {
    let golden = golden();
    let luks = golden.image.as_slice();
    let other = vec![0u8; 3 * EXTENT];
    let lvm = |data: &[u8]| group("vg", 1, &[("home", &other), ("crypt", data)]).remove(0);
    let one = |disk: Vec<u8>| vec![disk];
    // The disks, what is said of the layers, and how much may come behind the container: a rest of an extent or a chunk.
    type Case = (&'static str, Vec<Vec<u8>>, &'static [&'static str]);
    let cases: Vec<Case> = vec![
        ("a volume", one(lvm(luks)), &["LVM volume vg/crypt"]),
        ("a volume of two devices", group("vg", 2, &[("crypt", luks)]), &["LVM volume vg/crypt"]),
        ("one half of a mirror", one(raid1(luks).remove(1)), &["RAID1"]),
        ("stripes", raid0(luks), &["RAID0"]),
        ("parity", raid5(luks), &["RAID5"]),
        ("parity, one short", raid5(luks).split_off(1), &["RAID5"]),
        ("parity, in partitions", raid5(luks).iter().map(|disk| in_mbr(disk)).collect(), &["MBR partition 1", "RAID5"]),
        ("a volume in a partition", one(in_mbr(&lvm(luks))), &["MBR partition 1", "LVM volume vg/crypt"]),
        ("a volume on a mirror", one(raid1(&lvm(luks)).remove(0)), &["RAID1", "LVM volume vg/crypt"]),
        ("a volume on stripes", raid0(&lvm(luks)), &["RAID0", "LVM volume vg/crypt"]),
        (
            "a volume on a mirror in a partition",
            one(in_mbr(&raid1(&lvm(luks)).remove(0))),
            &["MBR partition 1", "RAID1", "LVM volume vg/crypt"],
        ),
        (
            "a volume in a partition of a qcow2 image",
            one(in_qcow2(&in_mbr(&lvm(luks)))),
            &["qcow2", "MBR partition 1", "LVM volume vg/crypt"],
        ),
        ("stripes in qcow2 images", raid0(luks).iter().map(|disk| in_qcow2(disk)).collect(), &["qcow2", "RAID0"]),
        (
            "a group in two partitions",
            one(in_partitions(&group("vg", 2, &[("crypt", luks)]))),
            &["LVM volume vg/crypt"],
        ),
        ("a mirror in a volume", one(lvm(&raid1(luks).remove(0))), &["LVM volume vg/crypt", "RAID1"]),
    ];
    for (name, disks, layers) in cases {
        // The members that are in image files of their own go the same way as the first.
        let mut disks = disks;
        let first = disks.remove(0);
        let named = |(n, disk): (usize, Vec<u8>)| Named::new(format!("other {n}"), Arc::new(disk));
        let with = disks.into_iter().enumerate().map(named);
        let options = FindOptions { name: "first".into(), with: with.collect(), ..FindOptions::default() };
        let found = find(Arc::new(first), options).unwrap_or_else(|e| panic!("{name}: {e}"));
        let len = usize::try_from(found.place.source().len()).unwrap();
        assert!((luks.len()..luks.len() + 3 * EXTENT).contains(&len), "{name}: {len} bytes of {}", luks.len());
        let said = found.notes.join("\n");
        let mut rest = said.as_str();
        for layer in layers {
            let at = rest.find(layer).unwrap_or_else(|| panic!("{name}: no {layer} in its place in {said}"));
            rest = &rest[at..];
        }
        golden.open(&Image::open_found(&found, None).unwrap()).unwrap_or_else(|e| panic!("{name}: {e}"));
        // The last layer is what holds the container, and each one but the first has a name.
        let last = found.layers.last().unwrap();
        assert!(usize::try_from(last.size).unwrap() == len && !last.name.is_empty(), "{name}: {:?}", found.layers);
        assert_eq!(found.layers[0].kind, LayerKind::File);
    }
}

#[test]
fn a_group_over_several_arrays_is_put_together() {
    let golden = golden();
    let volumes = group("vg", 2, &[("crypt", &golden.image)]);
    let arrays: Vec<Vec<Vec<u8>>> = volumes
        .iter()
        .zip([b"the first array.", b"the second array"])
        .map(|(data, uuid)| raid1_of(data, uuid))
        .collect();
    let [one, two] = arrays.as_slice() else { panic!("two arrays") };
    // As a NAS makes them of disks of unequal size: each disk has a partition of each array.
    let nas = |n: usize| in_partitions(&[one[n].clone(), two[n].clone()]);
    let sets = [
        vec![one[0].clone(), two[1].clone()],
        vec![two[0].clone(), two[1].clone(), one[0].clone(), one[1].clone()],
        vec![in_mbr(&one[1]), two[0].clone()],
    ];
    for disks in sets {
        let found = find_in(disks, FindOptions::default()).unwrap();
        golden.open(&Image::open_found(&found, None).unwrap()).unwrap();
    }
    for disks in [vec![nas(0)], vec![nas(1), nas(0)]] {
        let options = FindOptions { partition: Some("2".into()), ..FindOptions::default() };
        let found = find_in(disks, options).unwrap();
        golden.open(&Image::open_found(&found, None).unwrap()).unwrap();
    }
    let e = refused(vec![one[0].clone()], FindOptions::default());
    assert!(e.is(Condition::MissingMember) || e.to_string().contains("missing"), "{e}");
}

#[test]
fn all_that_a_disk_leads_to_is_found_with_its_way() {
    let luks = golden().image;
    let inner = group("vg", 1, &[("one", &luks), ("plain", &[7; 9000]), ("two", &luks)]).remove(0);
    let array = raid1(&inner).remove(0);
    let disk: Arc<dyn ReadAt> = Arc::new(in_mbr(&array));
    let all = ways(&disk, None, &FindOptions::default()).unwrap();
    assert!(!all.more && all.parts.iter().all(|part| part.error.is_none()));
    let told: Vec<_> = all.found.iter().map(|way| (way.partition, way.volume.as_deref())).collect();
    assert_eq!(told, [(Some(1), Some("vg/one")), (Some(1), Some("vg/two"))]);
    for way in &all.found {
        let kinds: Vec<_> = way.layers.iter().map(|layer| layer.kind).collect();
        assert_eq!(kinds, [LayerKind::Partition, LayerKind::Array, LayerKind::Volume]);
        let options = FindOptions { volume: way.volume.clone(), ..FindOptions::default() };
        let found = find(Arc::clone(&disk), options).unwrap();
        assert_eq!(found.place.source().len(), way.disk.len());
        let start = way.start.unwrap();
        let mut magic = [0; 6];
        disk.read_exact_at(&mut magic, start).unwrap();
        assert_eq!(magic, *b"LUKS\xba\xbe", "byte {start}");
    }
    // Two members of three, in partitions of one disk, or in two.
    let members = raid5(&luks);
    let both: Arc<dyn ReadAt> = Arc::new(in_partitions(&members[..2]));
    assert_eq!(ways(&both, None, &FindOptions::default()).unwrap().found.len(), 2);
    let found = find(both, FindOptions::default()).unwrap();
    assert_eq!(found.layers.iter().filter(|layer| layer.kind == LayerKind::Array).count(), 1);
    let first: Arc<dyn ReadAt> = Arc::new(members[0].clone());
    let with = vec![Named::new("other", Arc::new(members[2].clone()))];
    let [way] = &ways(&first, None, &FindOptions { with, ..FindOptions::default() }).unwrap().found[..] else {
        panic!("one container")
    };
    assert_eq!(way.disk.len(), found.place.source().len());
    // One of three: named as what is missing, and nothing is found.
    let alone: Arc<dyn ReadAt> = Arc::new(in_mbr(&raid5(&luks).remove(0)));
    let none = ways(&alone, None, &FindOptions::default()).unwrap();
    assert!(none.found.is_empty());
    let [part] = none.parts.as_slice() else { panic!("{} parts", none.parts.len()) };
    assert!(part.start == PARTITION && part.error.as_ref().unwrap().is(Condition::MissingMember), "{}", part.of);
}

#[test]
fn of_several_volumes_the_named_one_is_taken() {
    let (one, two) = (golden(), Golden::read("l1-twofish-xts"));
    let disk = || group("vg", 1, &[("one", &one.image), ("two", &two.image), ("plain", &[7; 9000])]);
    let e = refused(disk(), FindOptions::default());
    assert_eq!((e.kind(), e.rule()), (ErrorKind::InvalidInput, "volume"), "{e}");
    assert!(e.to_string().contains("2 volumes of LVM hold LUKS: one, two"), "{e}");
    assert!(matches!(e.hint(), Some(Hint::NameVolume)), "{:?}", e.hint());
    for (name, golden) in [("one", &one), ("vg/one", &one), ("two", &two), ("vg/two", &two)] {
        let options = FindOptions { volume: Some(name.into()), ..FindOptions::default() };
        let found = find_in(disk(), options).unwrap();
        golden.open(&Image::open_found(&found, None).unwrap()).unwrap();
    }
    for name in ["three", "other/one", "vg/", ""] {
        let e = refused(disk(), FindOptions { volume: Some(name.into()), ..FindOptions::default() });
        assert_eq!(e.kind(), ErrorKind::InvalidInput, "{name}: {e}");
    }
    let e = refused(disk(), FindOptions { volume: Some("plain".into()), ..FindOptions::default() });
    assert!(e.is(Condition::NoHeader), "{e}");
}

#[test]
fn a_group_without_luks_is_named_with_its_volumes() {
    let e = refused(group("data", 1, &[("root", &[1; 5000]), ("home", &[2; 9000])]), FindOptions::default());
    assert!(e.is(Condition::NoHeader) && e.to_string().contains("group data holds LUKS; there are: root, home"), "{e}");
}

#[test]
fn what_is_missing_of_a_set_is_named() {
    let luks = golden().image;
    let alone = refused(raid5(&luks).split_off(2), FindOptions::default());
    assert_eq!((alone.kind(), alone.rule()), (ErrorKind::InvalidInput, "md.members"), "{alone}");
    assert!(alone.to_string().contains("missing") && matches!(alone.hint(), Some(Hint::NameMembers)), "{alone}");
    // A member of another array, or of none, does not stand in, and what fits nothing is named.
    let strangers = vec![raid5(&luks).remove(0), raid0(&luks).remove(1)];
    assert_eq!(refused(strangers, FindOptions::default()).rule(), "md.members");
    let e = refused(vec![luks.clone(), raid0(&luks).remove(1)], FindOptions::default());
    assert_eq!((e.kind(), e.rule()), (ErrorKind::InvalidInput, "with"), "{e}");
    assert!(e.to_string().contains("other 0 fits nothing"), "{e}");
    let e = refused(group("vg", 2, &[("crypt", &luks)]).split_off(1), FindOptions::default());
    assert!(e.to_string().contains("missing"), "{e}");
}

#[test]
fn an_offset_into_a_part_of_a_set_wants_to_be_meant() {
    let luks = golden().image;
    let lvm = group("vg", 1, &[("crypt", &luks)]).remove(0);
    let start = u64::try_from(lvm.windows(6).position(|bytes| bytes == b"LUKS\xba\xbe").unwrap()).unwrap();
    let partition = in_mbr(&lvm);
    let cases = [
        (lvm, start, "physical volume of LVM"),
        (partition, start + PARTITION, "physical volume of LVM"),
        (raid0(&luks).remove(0), 8192, "member of an md RAID0 array"),
        // A mirror's member has it whole, and more behind it.
        (raid1(&luks).remove(0), 8192, "member of an md RAID1 array"),
    ];
    for (disk, offset, what) in cases {
        let at = FindOptions { offset: Some(offset), ..FindOptions::default() };
        let e = refused(vec![disk.clone()], at.clone());
        assert_eq!((e.kind(), e.rule()), (ErrorKind::InvalidInput, "offset"), "{e}");
        assert!(e.to_string().contains(what), "{e}");
        find_in(vec![disk], FindOptions { foreign_offset: true, ..at }).unwrap();
    }
}

#[test]
fn layers_end() {
    let mut disk = golden().image;
    for _ in 0..12 {
        disk = group("vg", 1, &[("crypt", &disk)]).remove(0);
    }
    let e = refused(vec![disk], FindOptions::default());
    assert_eq!((e.kind(), e.rule()), (ErrorKind::LimitExceeded, "layers"), "{e}");
}

/// Members whose superblock is at the end, in version 1.0, of an array of two that begins with `data`.
fn raid0_with_ends(data: &[u8], uuid: [u8; 16]) -> Vec<Vec<u8>> {
    let chunks: Vec<&[u8]> = data.chunks(CHUNK).collect();
    let len = chunks.len().div_ceil(2) * CHUNK;
    let member = |n: usize| {
        let mut bytes: Vec<u8> = chunks.iter().skip(n).step_by(2).flat_map(|chunk| chunk.to_vec()).collect();
        bytes.resize(len, 0);
        let mut sb = vec![0; 1024];
        let int = |n: u32| n.to_le_bytes();
        put(&mut sb, 0, &[int(0xa92b_4efc), int(1)].concat());
        put(&mut sb, 16, &uuid);
        put(&mut sb, 88, &int(8));
        put(&mut sb, 92, &int(2));
        put(&mut sb, 136, &long(len / 512));
        put(&mut sb, 144, &long(len / 512));
        put(&mut sb, 160, &int(u32::try_from(n).unwrap()));
        put(&mut sb, 168, &[u8::try_from(n).unwrap() + 1; 16]);
        put(&mut sb, 200, &long(7));
        put(&mut sb, 208, &[0xff; 8]);
        put(&mut sb, 220, &int(2));
        put(&mut sb, 258, &[1, 0]);
        let sum: u64 = sb[..260].chunks(4).map(|word| u64::from(u32::from_le_bytes(word.try_into().unwrap()))).sum();
        put(&mut sb, 216, &int(u32::try_from((sum & 0xffff_ffff) + (sum >> 32)).unwrap()));
        bytes.extend_from_slice(&sb);
        bytes.resize(len + 8192, 0);
        bytes
    };
    vec![member(0), member(1)]
}

#[test]
fn a_group_on_a_partition_of_an_array_is_one_of_the_arrays() {
    let luks = golden().image;
    // The table, and the label behind it, can be read in each member of a mirror whose superblock is at its end.
    let mut disk = in_partitions(&group("vg", 1, &[("crypt", &luks)]));
    disk.resize(disk.len().next_multiple_of(2 * CHUNK), 0);
    let striped = raid0_with_ends(&disk, [9; 16]);
    let found = find_in(striped, FindOptions::default()).unwrap();
    let kinds: Vec<LayerKind> = found.layers.iter().skip(1).map(|layer| layer.kind).collect();
    assert_eq!(kinds, [LayerKind::Array, LayerKind::Partition, LayerKind::Volume]);
    let mut whole = vec![0; luks.len()];
    found.place.source().read_exact_at(&mut whole, 0).unwrap();
    assert!(whole == luks);
    assert_eq!(found.groups.len(), 1);
    let mut mirror = raid0_with_ends(&disk, [8; 16]);
    for (n, member) in mirror.iter_mut().enumerate() {
        // The same superblock, of a RAID1 over all of the disk.
        let sb = member[member.len() - 8192..].to_vec();
        *member = disk.clone();
        let sectors = long(disk.len() / 512);
        let at = member.len();
        member.extend(sb);
        put(member, at + 72, &1u32.to_le_bytes());
        put(member, at + 80, &sectors);
        put(member, at + 88, &[0; 4]);
        put(member, at + 136, &sectors);
        put(member, at + 144, &sectors);
        put(member, at + 216, &[0; 4]);
        let sum: u64 =
            member[at..at + 260].chunks(4).map(|word| u64::from(u32::from_le_bytes(word.try_into().unwrap()))).sum();
        put(member, at + 216, &u32::try_from((sum & 0xffff_ffff) + (sum >> 32)).unwrap().to_le_bytes());
        assert!(n < 2);
    }
    for disks in [mirror.clone(), mirror[..1].to_vec()] {
        let found = find_in(disks, FindOptions::default()).unwrap();
        assert_eq!(found.place.source().len(), u64::try_from(luks.len().next_multiple_of(EXTENT)).unwrap());
    }
}

#[test]
fn a_table_that_is_seen_in_a_member_is_the_arrays() {
    let luks = golden().image;
    let mut disk = in_partitions(&[luks.clone(), vec![3; 4 << 20]]);
    disk.resize(disk.len().next_multiple_of(2 * CHUNK), 0);
    let members = raid0_with_ends(&disk, [9; 16]);
    // The partition lies in the first member as far as its numbers go, and half of its bytes do not.
    for options in [FindOptions::default(), FindOptions { partition: Some("1".into()), ..FindOptions::default() }] {
        let e = refused(members[..1].to_vec(), options.clone());
        assert!(e.is(Condition::MissingMember), "{e}");
        let found = find_in(members.clone(), options).unwrap();
        let mut whole = vec![0; luks.len()];
        found.place.source().read_exact_at(&mut whole, 0).unwrap();
        assert!(whole == luks);
    }
}

#[test]
fn older_versions_of_a_groups_metadata_are_in_the_report() {
    let luks = golden().image;
    let mut disk = group("vg", 1, &[("crypt", &luks)]).remove(0);
    let whole = |disk: &[u8]| {
        let found = find_in(vec![disk.to_vec()], FindOptions::default()).unwrap();
        let image = Image::open_found(&found, None).unwrap();
        image.report(std::path::Path::new("disk"), None).container.unwrap().groups.remove(0)
    };
    assert_eq!((whole(&disk).current.seqno, whole(&disk).older.len()), (5, 0));
    // The text that was used before lies in another sector of the ring.
    let end = AREA + 512 + disk[AREA + 512..].iter().position(|b| *b == 0).unwrap() + 1;
    let text = String::from_utf8(disk[AREA + 512..end].to_vec()).unwrap();
    let text = text
        .replace("seqno = 5", "seqno = 4")
        .replace("made by hand", "lvremove vg/gone")
        .replace("_time = 7", "_time = 6");
    put(&mut disk, AREA + 8192, text.as_bytes());
    let found = whole(&disk);
    assert_eq!((found.current.seqno, found.current.description.as_str(), found.left_out), (5, "made by hand", 0));
    let old = &found.older[0];
    assert_eq!((old.name.as_str(), old.seqno, old.time, old.description.as_str()), ("vg", 4, 6, "lvremove vg/gone"));
}
