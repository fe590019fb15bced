//! One field changed, one exact error.

use std::sync::Arc;

use super::label::checksum;
use super::{Label, VolumeGroup};
use crate::error::{Error, ErrorKind};
use crate::io::{Extent, ReadAt};

const MIB: usize = 1 << 20;
const UUIDS: [&str; 3] = [
    "aaaaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaaaa",
    "bbbbbb-bbbb-bbbb-bbbb-bbbb-bbbb-bbbbbb",
    "cccccc-cccc-cccc-cccc-cccc-cccc-cccccc",
];
/// Where the metadata area lies, and how long it is.
const AREA: usize = 4096;
const AREA_LEN: usize = 16384;
/// Where the extents of 4096 bytes begin.
const EXTENTS: usize = 32768;

/// A group of two physical volumes with the volume `a` over both, and whatever `more` has.
fn text(more: &str) -> String {
    let pv = |n: usize| {
        let uuid = UUIDS[n];
        format!(
            "pv{n} {{\nid = \"{uuid}\"\ndev_size = 2048\npe_start = 64\npe_count = 200\nstatus = [\"ALLOCATABLE\"]\n}}\n"
        )
    };
    let a = volume("a", 4, "type = \"striped\"\nstripe_count = 2\nstripe_size = 4\nstripes = [\"pv0\", 1, \"pv1\", 2]");
    format!(
        "vg {{\nid = \"VGVGVG\"\nseqno = 5\nformat = \"lvm2\"\nstatus = [\"READ\"]\nextent_size = 8\nphysical_volumes {{\n{}{}}}\n\
         logical_volumes {{\n{a}{more}}}\n}}\ncontents = \"Text Format Volume Group\"\nversion = 1\n\
         description = \"made by hand\"\ncreation_time = 7\n",
        pv(0),
        pv(1)
    )
}

/// A visible volume with one segment of `extents`.
fn volume(name: &str, extents: u64, segment: &str) -> String {
    format!(
        "{name} {{\nid = \"{name}\"\nstatus = [\"READ\", \"VISIBLE\"]\nsegment_count = 1\nsegment1 {{\nstart_extent = 0\n\
         extent_count = {extents}\n{segment}\n}}\n}}\n"
    )
}

fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    bytes[at..at + what.len()].copy_from_slice(what);
}

/// Makes the checksums of the label and the metadata area right, and that of the text.
fn seal(disk: &mut [u8]) {
    let number = |disk: &[u8], at: usize| u64::from_le_bytes(*disk[at..].first_chunk().unwrap());
    let (offset, size) = (number(disk, AREA + 40), number(disk, AREA + 48));
    if let (Ok(offset), Ok(size)) = (usize::try_from(offset), usize::try_from(size))
        && (512..AREA_LEN).contains(&offset)
        && size < AREA_LEN - 512
    {
        let first = size.min(AREA_LEN - offset);
        let mut text = disk[AREA + offset..][..first].to_vec();
        text.extend_from_slice(&disk[AREA + 512..][..size - first]);
        put(disk, AREA + 56, &checksum(&text).to_le_bytes());
    }
    let crc = checksum(&disk[AREA + 4..AREA + 512]);
    put(disk, AREA, &crc.to_le_bytes());
    let crc = checksum(&disk[512 + 20..1024]);
    put(disk, 512 + 16, &crc.to_le_bytes());
}

/// Physical volume `n` with `text` at byte `offset` of its metadata area, going on at the ring's beginning.
fn device_at(n: usize, text: &str, offset: usize) -> Vec<u8> {
    let mut disk = vec![0; MIB];
    put(&mut disk, 512, b"LABELONE");
    put(&mut disk, 520, &1u64.to_le_bytes());
    put(&mut disk, 532, &32u32.to_le_bytes());
    put(&mut disk, 536, b"LVM2 001");
    put(&mut disk, 544, UUIDS[n].replace('-', "").as_bytes());
    put(&mut disk, 576, &1_048_576u64.to_le_bytes());
    put(&mut disk, 584, &32_768u64.to_le_bytes());
    put(&mut disk, 616, &4096u64.to_le_bytes());
    put(&mut disk, 624, &16_384u64.to_le_bytes());
    put(&mut disk, AREA + 4, b" LVM2 x[5A%r0N*>");
    put(&mut disk, AREA + 20, &1u32.to_le_bytes());
    put(&mut disk, AREA + 24, &4096u64.to_le_bytes());
    put(&mut disk, AREA + 32, &16_384u64.to_le_bytes());
    put(&mut disk, AREA + 40, &u64::try_from(offset).unwrap().to_le_bytes());
    put(&mut disk, AREA + 48, &u64::try_from(text.len() + 1).unwrap().to_le_bytes());
    let first = text.len().min(AREA_LEN - offset);
    put(&mut disk, AREA + offset, &text.as_bytes()[..first]);
    put(&mut disk, AREA + 512, &text.as_bytes()[first..]);
    seal(&mut disk);
    // Every extent says which one it is.
    for (extent, bytes) in disk[EXTENTS..].chunks_mut(4096).enumerate() {
        bytes.fill(u8::try_from(extent + n * 128).unwrap_or(0));
    }
    disk
}

fn device(n: usize, text: &str) -> Vec<u8> {
    device_at(n, text, 512)
}

fn assemble(disks: Vec<Vec<u8>>) -> Result<VolumeGroup, Error> {
    let shared = |disk| -> Arc<dyn ReadAt> { Arc::new(disk) };
    VolumeGroup::assemble(disks.into_iter().map(shared).collect())
}

fn both(text: &str) -> Result<VolumeGroup, Error> {
    assemble(vec![device(0, text), device(1, text)])
}

/// The rule and the message of what `text` with `old` changed to `new` gives.
fn changed(more: &str, old: &str, new: &str) -> (String, String) {
    let before = text(more);
    let after = before.replacen(old, new, 1);
    assert_ne!(before, after, "{old} is not there");
    said(&both(&after).err().unwrap())
}

fn said(e: &Error) -> (String, String) {
    let line = e.to_string();
    (e.rule().to_owned(), line.strip_prefix("device 1: ").unwrap_or(&line).to_owned())
}

fn opened(group: &VolumeGroup, name: &str) -> Result<Vec<u8>, Error> {
    let volume = group.open(group.find(name)?)?;
    let mut bytes = vec![0; usize::try_from(volume.len()).unwrap()];
    volume.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

#[test]
fn a_group_made_by_hand_reads() {
    let group = both(&text("")).unwrap();
    assert_eq!((group.name.as_str(), group.seqno, group.extent_size, group.time), ("vg", 5, 4096, 7));
    assert_eq!(group.volumes[0].to_string(), "a: 16384 bytes, striped");
    assert_eq!(group.physical[1].to_string(), format!("pv1 ({}): 1048576 bytes", UUIDS[1]));
    assert!(group.notes.is_empty(), "{:?}", group.notes);
    let bytes = opened(&group, "vg/a").unwrap();
    let chunks: Vec<u8> = bytes.chunks(2048).map(|chunk| chunk[0]).collect();
    assert_eq!(chunks, [1, 130, 1, 130, 2, 131, 2, 131]);
    let a = group.open(group.find("/dev/vg/a").unwrap()).unwrap();
    assert_eq!(a.extent_at(100).unwrap(), Extent { len: 16384 - 100, zero: false });
    assert!(a.extent_at(16384).is_err());
    for (name, message) in [("b", "no volume is called \"b\"; there are: a"), ("w/a", "this is volume group vg, not w")]
    {
        assert_eq!(group.find(name).unwrap_err().message(), message);
    }
}

#[test]
fn labels_are_found_and_checked() {
    let good = device(0, &text(""));
    let probe = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut disk = good.clone();
        change(&mut disk);
        Label::probe(&disk)
    };
    assert_eq!(probe(&|_| ()).unwrap().unwrap().uuid, UUIDS[0]);
    assert!(probe(&|disk| disk.truncate(600)).unwrap().is_none());
    assert!(probe(&|disk| disk[512..1024].fill(0)).unwrap().is_none());
    // A magic that was wiped, as wipefs does it; but not anything that merely has one of the two.
    for wiped in [512..520, 536..544] {
        let label = probe(&|disk| disk[wiped.clone()].fill(0)).unwrap().unwrap();
        assert_eq!(label.notes, ["lvm: the magic of the label in sector 1 is wiped; its checksum is right"]);
        assert!(probe(&|disk| disk[wiped.start..wiped.end + 1].fill(9)).unwrap().is_none());
    }
    let e = probe(&|disk| disk[600] ^= 1).unwrap_err();
    assert_eq!((e.kind(), e.rule(), e.offset()), (ErrorKind::Corrupt, "lvm.label.crc", Some(512)));
    let sealed = |at: usize, new: &[u8]| {
        let e = probe(&|disk| {
            put(disk, at, new);
            seal(disk);
        });
        said(&e.unwrap_err())
    };
    let label = |rule: &str, message: &str| {
        (format!("lvm.label.{rule}"), format!("lvm.label.{rule}: LVM's label {message} (at byte 512)"))
    };
    assert_eq!(sealed(520, &[2]), label("sector", "is in sector 1, but says that it is in sector 2"));
    assert_eq!(sealed(532, &[16]), label("header", "has its header at byte 16, and it does not end in the sector"));
    assert_eq!(
        sealed(532, &[255, 255]),
        label("header", "has its header at byte 65535, and it does not end in the sector")
    );
    assert_eq!(sealed(632, &[1; 392]), label("header", "has its header at byte 32, and it does not end in the sector"));
    assert_eq!(sealed(544, b"\x1b"), label("uuid", "has the UUID \"\\u{1b}aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\""));
}

#[test]
fn a_damaged_copy_is_passed_over_and_named() {
    let text = text("");
    for (at, rule) in [(AREA + 100, "lvm.area.crc"), (AREA + 600, "lvm.text.crc")] {
        let (mut first, second) = (device(0, &text), device(1, &text));
        first[at] ^= 1;
        let group = assemble(vec![first.clone(), second]).unwrap();
        assert!(group.notes[0].contains(rule) && group.notes[0].contains("area 1 of aaaaaa"), "{:?}", group.notes);
        assert!(opened(&group, "a").is_ok());
        let alone = assemble(vec![first]).unwrap_err();
        assert_eq!((alone.kind(), alone.rule()), (ErrorKind::Corrupt, rule));
    }
    let area = |at: usize, new: &[u8]| {
        let mut disk = device(0, &text);
        put(&mut disk, AREA + at, new);
        seal(&mut disk);
        said(&assemble(vec![disk]).unwrap_err()).1
    };
    assert_eq!(area(4, b"x"), "lvm.area.magic: the header has not the magic of LVM2's text format (at byte 4096)");
    assert_eq!(area(20, &[2]), "lvm.area.version: the header has version 2; 1 is known (at byte 4096)");
    let moved =
        "lvm.area.start: the header says 16384 bytes at byte 4097, the label 16384 bytes at byte 4096 (at byte 4096)";
    assert_eq!(area(24, &[1]), moved);
    let far = "lvm.text.place: the text has 1022 bytes at byte 16640 of an area of 16384 bytes (at byte 4096)";
    assert_eq!(area(40, &[0, 65]).replace(&(text.len() + 1).to_string(), "1022"), far);
    let nothing = "lvm.group: these physical volumes hold no metadata of a volume group in use; give the group's other physical volumes, too";
    assert_eq!(area(40, &[0, 0]), nothing);
    assert_eq!(area(60, &[1]), nothing);
}

#[test]
fn the_newest_text_counts_and_the_ring_wraps() {
    let old = text("").replace("seqno = 5", "seqno = 4");
    let group = assemble(vec![device(0, &old), device_at(1, &text(""), AREA_LEN - 512)]).unwrap();
    assert_eq!(
        (group.seqno, group.notes.as_slice()),
        (5, ["lvm: device 1 has old metadata, number 4 of 5".to_owned()].as_slice())
    );
    let versions = group.old_versions().unwrap();
    assert_eq!(versions.len(), 1);
    assert_eq!((versions[0].seqno, versions[0].time, versions[0].description.as_str()), (4, 7, "made by hand"));
    // An older text that the newer one leaves whole, and one whose end it has written over.
    let mut disk = device(0, &text(""));
    put(&mut disk, AREA + 8192, old.as_bytes());
    put(&mut disk, AREA + 12288, old.replace("seqno = 4", "seqno = 3").as_bytes());
    put(&mut disk, AREA + 12800, b"}}}");
    let found = assemble(vec![disk]).unwrap().old_versions().unwrap();
    assert_eq!(found.iter().map(|version| version.seqno).collect::<Vec<_>>(), [4]);
}

#[test]
fn devices_that_do_not_belong_together_are_named() {
    let text = text("");
    let twice = assemble(vec![device(0, &text), device(0, &text)]).unwrap_err();
    assert_eq!(twice.rule(), "lvm.pv.twice");
    assert!(twice.message().contains("devices 1 and 2 are both physical volume aaaaaa"), "{twice}");
    let other = text.replace("VGVGVG", "OTHER").replace("vg {", "other {");
    let foreign = assemble(vec![device(0, &text), device(1, &other)]).unwrap_err();
    assert_eq!(foreign.message(), "device 1 belongs to volume group vg, device 2 to other");
    let stranger = assemble(vec![device(0, &text), device(2, &text)]).unwrap_err();
    assert_eq!(
        stranger.message(),
        format!("device 2 is physical volume {}, which is none of volume group vg", UUIDS[2])
    );
    let noise = assemble(vec![device(0, &text), vec![1; 4096]]).unwrap_err();
    assert_eq!(noise.message(), "device 2 is no physical volume of LVM2");
}

#[test]
fn a_missing_or_short_device_is_named() {
    let more = volume("b", 3, "type = \"striped\"\nstripe_count = 1\nstripes = [\"pv0\", 10]");
    let text = text(&more);
    let group = assemble(vec![device(0, &text)]).unwrap();
    assert_eq!(group.notes, [format!("lvm: physical volume pv1 ({}): 1048576 bytes, is missing", UUIDS[1])]);
    assert_eq!(opened(&group, "b").unwrap()[..4096], [10; 4096]);
    let e = opened(&group, "a").unwrap_err();
    assert_eq!((e.kind(), e.rule()), (ErrorKind::InvalidInput, "lvm.pv.missing"));
    assert_eq!(e.message(), format!("volume a needs physical volume pv1 ({}), which is missing", UUIDS[1]));
    // Marked by LVM: what is on it is old.
    let marked = text.replacen("[\"ALLOCATABLE\"]", "[\"ALLOCATABLE\", \"MISSING\"]", 1);
    let e = opened(&both(&marked).unwrap(), "b").unwrap_err();
    assert!(e.message().ends_with("which is old: the volume group was changed without it"), "{e}");
    let mut short = device(0, &text);
    short.truncate(EXTENTS + 12 * 4096);
    let group = assemble(vec![short, device(1, &text)]).unwrap();
    assert!(
        group.notes[0].ends_with("1048576 bytes, of which 81920 are there: volumes behind do not open"),
        "{:?}",
        group.notes
    );
    assert!(opened(&group, "a").is_ok());
    let e = opened(&group, "b").unwrap_err();
    let message =
        "volume b has 12288 bytes from byte 73728 on in the device of physical volume pv0, which ends at byte 81920";
    assert_eq!((e.rule(), e.message()), ("lvm.pv.truncated", message));
}

#[test]
fn segments_obey_their_rules() {
    let segment = |old: &str, new: &str| {
        let (rule, message) = changed("", old, new);
        (rule, message.split_once("volume a, segment 1: ").map_or(message.clone(), |(_, m)| m.to_owned()))
    };
    let is = |rule: &str, message: &str| (rule.to_owned(), format!("{rule}: {message}"));
    let order = is("lvm.segment.order", "it begins at extent 1, where 0 is the next");
    assert_eq!(segment("start_extent = 0", "start_extent = 1"), order);
    assert_eq!(segment("extent_count = 4", "extent_count = 0"), is("lvm.segment.empty", "it has no extents"));
    let odd = is("lvm.segment.stripes", "its 5 extents are not a multiple of its 2 stripes");
    assert_eq!(segment("extent_count = 4", "extent_count = 5"), odd);
    let chunk = is("lvm.segment.stripe_size", "a stripe of 8192 bytes is no multiple of chunks of 1536");
    assert_eq!(segment("stripe_size = 4", "stripe_size = 3"), chunk);
    assert!(segment("stripe_size = 4", "stripe_size = 0").1.ends_with("chunks of 0"));
    let areas = is("lvm.segment.areas", "\"stripes\" has 4 values; 3 areas have two each");
    assert_eq!(segment("stripe_count = 2", "stripe_count = 3"), areas);
    assert_eq!(segment("stripe_count = 2", "stripe_count = 0"), is("lvm.segment.areas", "it has no areas"));
    let many = is("lvm.segment.areas", "it has 9000000000 areas; at most 128 are taken");
    assert_eq!(segment("stripe_count = 2", "stripe_count = 9000000000"), many);
    assert_eq!(segment("\"pv1\", 2", "\"pv7\", 2"), is("lvm.segment.name", "there is no volume \"pv7\""));
    assert_eq!(segment("\"pv1\", 2", "\"pv1\", -2"), is("lvm.segment.areas", "extent -2 is below 0"));
    assert_eq!(segment("\"pv1\", 2", "7, 2"), is("lvm.segment.areas", "\"stripes\" is not made of names and numbers"));
    let huge = "4611686018427387904 units of 4096 bytes are more than a disk can have";
    assert_eq!(segment("extent_count = 4", "extent_count = 4611686018427387904"), is("lvm.metadata", huge));
    let beyond = "volume a uses 2 extents of physical volume pv1 from number 199 on, which has 200";
    assert_eq!(segment("\"pv1\", 2", "\"pv1\", 199"), is("lvm.extents.beyond", beyond));
    let overlap = "volumes a and a both use extent 2 of physical volume pv0";
    assert_eq!(segment("\"pv1\", 2", "\"pv0\", 2"), is("lvm.extents.overlap", overlap));
    let count = is("lvm.segment.count", "volume a has 1 segment, but a segment_count of 0");
    assert_eq!(changed("", "segment_count = 1", "segment_count = 0"), count);
    assert!(changed("", "segment_count = 1", "segment_count = 2").1.contains("has no \"segment2\""));
    assert_eq!(changed("", "extent_size = 8", "extent_size = 0").0, "lvm.metadata.extent_size");
    assert_eq!(changed("", "version = 1", "version = 2").0, "lvm.metadata.contents");
    assert_eq!(changed("", "\"lvm2\"", "\"lvm1\"").0, "lvm.metadata.format");
    assert_eq!(changed("", "contents", "x {\n}\ncontents").0, "lvm.metadata");
}

#[test]
fn volumes_on_volumes_end_somewhere() {
    let on = |name: &str, below: &str| {
        volume(name, 1, &format!("type = \"striped\"\nstripe_count = 1\nstripes = [\"{below}\", 0]"))
    };
    let circle = both(&text(&(on("x", "y") + &on("y", "z") + &on("z", "y")))).unwrap_err();
    assert_eq!(said(&circle), ("lvm.lv.circle".into(), "lvm.lv.circle: volume y lies on itself".into()));
    let tower = |n: usize| {
        let floors: String = (1..n).map(|n| on(&format!("x{n}"), &format!("x{}", n - 1))).collect();
        both(&text(&(on("x0", "pv0").replace("\"pv0\", 0", "\"pv0\", 20") + &floors)))
    };
    assert_eq!(opened(&tower(16).unwrap(), "x15").unwrap(), [20; 4096]);
    let deep = tower(40).unwrap_err();
    assert_eq!((deep.kind(), deep.rule()), (ErrorKind::LimitExceeded, "lvm.lv.depth"));
    let long = volume("w", 9, "type = \"striped\"\nstripe_count = 1\nstripes = [\"a\", 1]");
    let e = opened(&both(&text(&long)).unwrap(), "w").unwrap_err();
    assert_eq!(e.message(), "volume w has 36864 bytes from byte 4096 on in volume a, which ends at byte 16384");
}

#[test]
fn what_is_not_read_is_named() {
    let named = |segment: &str| {
        let group = both(&text(&volume("n", 2, segment))).unwrap();
        let e = opened(&group, "n").unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Unsupported);
        e.message().to_owned()
    };
    assert_eq!(named("type = \"cache\""), "volume n is of type \"cache\": that is not read");
    assert_eq!(named("type = \"raid5_ls\""), "volume n is of type \"raid5_ls\": that is not read");
    assert_eq!(named("type = \"striped+NEW_FLAG\""), "volume n is of type \"striped+NEW_FLAG\": that is not read");
    let reshape = named("type = \"raid1\"\nreshape_count = 1");
    assert_eq!(reshape, "volume n is of type \"raid1 in the middle of a reshape\": that is not read");
    assert!(
        named("type = \"thin-pool\"\nmetadata = \"a\"\npool = \"a\"\nchunk_size = 128\ntransaction_id = 0")
            .contains("a thin pool")
    );
    let zero = both(&text(&volume("n", 2, "type = \"zero\""))).unwrap();
    assert_eq!(opened(&zero, "n").unwrap(), [0; 8192]);
    let internal = text("").replace("\"VISIBLE\"", "\"WRITE\"");
    let e = both(&internal).unwrap().find("a").unwrap_err().message().to_owned();
    assert_eq!(e, "volume a is a part of another");
}

#[test]
fn raid_legs_without_superblocks_are_all_alike_and_raid10_needs_one_of_each_pair() {
    let part = |name: &str, pv: usize, extent: usize, count: u64| {
        volume(name, count, &format!("type = \"striped\"\nstripe_count = 1\nstripes = [\"pv{pv}\", {extent}]"))
    };
    let parts: String = (0..4)
        .map(|n| part(&format!("m{n}"), n % 2, 50 + n, 1) + &part(&format!("d{n}"), n % 2, 20 + n * 4, 2))
        .collect::<String>()
        .replace("\"READ\", \"VISIBLE\"", "\"READ\"");
    let raid10 = volume(
        "r",
        4,
        "type = \"raid10\"\ndevice_count = 4\nstripe_size = 8\nraids = [\"m0\",\"d0\",\"m1\",\"d1\",\"m2\",\"d2\",\"m3\",\"d3\"]",
    );
    let text = text(&(parts + &raid10));
    assert_eq!(
        opened(&both(&text).unwrap(), "r").unwrap().chunks(4096).map(|c| c[0]).collect::<Vec<_>>(),
        [20, 28, 21, 29]
    );
    let half = assemble(vec![device(1, &text)]).unwrap();
    let bytes = opened(&half, "r").unwrap();
    assert_eq!(bytes.chunks(4096).map(|c| c[0]).collect::<Vec<_>>(), [152, 160, 153, 161]);
    // Both copies of the first chunk gone.
    let apart = text.replace("\"m1\",\"d1\"", "0,0");
    let e = opened(&assemble(vec![device(1, &apart)]).unwrap(), "r").unwrap_err();
    assert_eq!((e.kind(), e.rule()), (ErrorKind::InvalidInput, "lvm.raid.legs"));
    assert!(
        e.message().contains("too few legs that are there and in sync: lvm: leg 0 of volume r is left out:"),
        "{e}"
    );
    // RAID 0 has its legs with and without the kernel's metadata, under two names.
    for (kind, legs) in
        [("raid0", "raid0_lvs = [\"d0\",\"d1\"]"), ("raid0_meta", "raids = [\"m0\",\"d0\",\"m1\",\"d1\"]")]
    {
        let (before, behind) = (text.find("type = \"raid10\"").unwrap(), text.find("raids = ").unwrap());
        let end = behind + text[behind..].find('\n').unwrap();
        let raid0 =
            format!("{}type = \"{kind}\"\nstripe_count = 2\nstripe_size = 8\n{legs}{}", &text[..before], &text[end..]);
        let bytes = opened(&both(&raid0).unwrap(), "r").unwrap();
        assert_eq!(bytes.chunks(4096).map(|c| c[0]).collect::<Vec<_>>(), [20, 152, 21, 153], "{kind}");
        assert_eq!(opened(&assemble(vec![device(0, &raid0)]).unwrap(), "r").unwrap_err().rule(), "lvm.pv.missing");
    }
    let copies = text.replace("device_count = 4", "device_count = 4\ndata_copies = 3");
    assert!(both(&copies).unwrap_err().message().contains("it keeps 3 copies on 4 legs"));
}
