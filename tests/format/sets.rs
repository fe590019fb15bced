//! Images in several files: VMDK descriptors with their extents, images on top of their parents, and the states that a
//! qcow2 image keeps. QEMU is the judge where it reads the format.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::support::*;
use unluks::format::{Contents, Format, Named, Opened, Options, file_set, open};
use unluks::io::FileSource;
use unluks::locate::{FindOptions, HeaderAt, find};
use unluks::{ErrorKind, ReadAt, Result};

/// A file with the others of its set, under its path as its name.
fn named(path: &Path) -> Result<Named> {
    let file = Arc::new(FileSource::open(path)?);
    let set = file_set(path, &*file, None, &[])?;
    let mut named = Named::new(text(&set.first), Arc::new(FileSource::open(&set.first)?));
    for other in &set.others {
        named.segments.push(Arc::new(FileSource::open(other)?));
    }
    named.set = set.set;
    Ok(named)
}

fn options(image: &Named, with: &[&Path], snapshot: Option<&str>) -> Result<Options> {
    let with = with.iter().map(|path| named(path)).collect::<Result<_>>()?;
    let (segments, snapshot) = (image.segments.clone(), snapshot.map(str::to_owned));
    Ok(Options { segments, set: image.set, with, snapshot, ..Options::default() })
}

fn open_set(path: &Path, with: &[&Path], snapshot: Option<&str>) -> Result<Opened> {
    let image = named(path)?;
    open(Arc::clone(&image.file), options(&image, with, snapshot)?)
}

/// Opens the image and compares all its bytes, and what it says of zeroes.
#[track_caller]
fn assert_reads(path: &Path, with: &[&Path], wanted: &[u8], what: &str) -> Vec<String> {
    let opened = open_set(path, with, None).unwrap_or_else(|e| panic!("{what}: {e}"));
    let notes = opened.notes.clone();
    let disk = disk_of(opened);
    assert_same(&read_all(&disk).unwrap(), wanted, what);
    check_extents(&disk, wanted, what);
    notes
}

#[test]
fn vmdk_descriptors_are_read_with_their_extents() {
    let bench = Bench::new(test_disk((9 << 20) + 512, 6));
    for (options, given, extent) in [
        ("subformat=monolithicFlat", "d.vmdk", "d-flat.vmdk"),
        ("subformat=twoGbMaxExtentFlat", "d.vmdk", "d-f001.vmdk"),
        ("subformat=twoGbMaxExtentSparse", "d.vmdk", "d-s001.vmdk"),
        ("subformat=monolithicFlat", "d", "d-flat"),
    ] {
        let image = bench.path(given);
        qemu_img(&["convert", "-f", "raw", "-O", "vmdk", "-o", options, text(&bench.path("disk.raw")), text(&image)]);
        let notes = assert_reads(&image, &[], &by_qemu(&image, "vmdk"), options);
        assert!(notes[0].contains("a descriptor of 1 extent in 1 file"), "{notes:?}");
        let extent = bench.path(extent);
        let e = named(&extent).err().unwrap();
        assert!(e.kind() == ErrorKind::InvalidInput && e.to_string().contains(text(&image)), "{options}: {e}");
        // Who names the format knows.
        assert!(file_set(&extent, &FileSource::open(&extent).unwrap(), Some(Format::Raw), &[]).is_ok());
        std::fs::remove_file(&extent).unwrap();
        let e = named(&image).err().unwrap();
        assert!(e.kind() == ErrorKind::InvalidInput && e.to_string().contains(text(&extent)), "{options}: {e}");
    }
}

#[test]
fn extents_of_several_files_and_of_zeroes_lie_behind_each_other() {
    let bench = Bench::new(test_disk(2 << 20, 8));
    let sparse = bench.path("x-s001.vmdk");
    // QEMU writes one descriptor for as many extents as there are, each of at most 2 GiB: only holes are so large here.
    let image = bench.path("x.vmdk");
    qemu_img(&["create", "-f", "vmdk", "-o", "subformat=twoGbMaxExtentSparse", text(&image), "5G"]);
    let writes = ["write -P 1 0 64k", "write -P 2 2147000000 1M", "write -P 3 5368643584 64k"];
    let mut args = vec!["-f", "vmdk"];
    writes.iter().for_each(|w| args.extend(["-c", w]));
    args.push(text(&image));
    qemu_io(&args);
    let disk = disk_of(open_set(&image, &[], None).unwrap());
    assert_eq!(disk.len(), 5 << 30);
    for (at, wanted) in
        [(0, 1), (65_536, 0), (2_147_000_000, 2), (2_147_483_647, 2), (2_147_483_648, 2), (5_368_643_584, 3)]
    {
        let mut found = [9];
        disk.read_exact_at(&mut found, at).unwrap();
        assert_eq!(found, [wanted], "at {at}");
    }
    assert!(sparse.exists());
    // Two parts of one file in the other order, with zeroes between, as hand-made descriptors have them.
    let text_of = "# Disk DescriptorFile\nCID=1\nparentCID=ffffffff\nRW 8 FLAT \"disk.raw\" 16\nRW 4 ZERO\nRW 8 FLAT \"disk.raw\" 0\n";
    let image = bench.path("by-hand.vmdk");
    std::fs::write(&image, text_of).unwrap();
    let wanted = [&bench.disk[8192..12288], &[0; 2048], &bench.disk[..4096]].concat();
    assert_reads(&image, &[], &wanted, "by hand");
    std::fs::write(&image, text_of.replace("RW 8 FLAT \"disk.raw\" 0", "RW 9999 FLAT \"disk.raw\" 0")).unwrap();
    let e = open_set(&image, &[], None).err().unwrap();
    assert_eq!((e.kind(), e.rule()), (ErrorKind::Corrupt, "container.truncated"), "{e}");
}

/// Random writes, zeroes and discards of an image.
fn scribble(image: &Path, format: &str, seed: u64, size: u64, zeroes: bool) {
    let mut rng = Rng(seed);
    let mut commands = Vec::new();
    for n in 0..24 {
        let (at, len) = (rng.below(size / 512) * 512, (1 + rng.below(400)) * 512);
        let len = len.min(size - at);
        commands.push(match n % 3 {
            0 if zeroes => format!("write -z {at} {len}"),
            _ => format!("write -P {} {at} {len}", 1 + rng.below(255)),
        });
    }
    let mut args = vec!["-f", format];
    commands.iter().for_each(|c| args.extend(["-c", c]));
    args.push(text(image));
    qemu_io(&args);
}

#[test]
fn chains_of_images_read_as_qemu_reads_them() {
    const SIZE: u64 = 4 << 20;
    for (n, (base_format, format, options)) in [
        ("raw", "qcow2", ""),
        ("raw", "qcow2", "compat=0.10"),
        ("qcow2", "qcow2", "cluster_size=4k"),
        ("qcow2", "qcow2", "extended_l2=on,cluster_size=64k"),
        ("vpc", "qcow2", ""),
        ("raw", "qed", ""),
        ("qed", "qed", "cluster_size=4k"),
        ("vmdk", "vmdk", ""),
        ("vmdk", "vmdk", "zeroed_grain=on"),
    ]
    .into_iter()
    .enumerate()
    {
        let what = format!("{format} {options} on {base_format}");
        let bench = Bench::new(test_disk(3 << 20, 20 + u64::try_from(n).unwrap()));
        let [base, mid, top] = ["base", "mid", "top"].map(|name| bench.path(&format!("{name}.img")));
        // The parent is shorter than what lies on it, where the format has that.
        let grown = if format == "vmdk" { "3M" } else { "4M" };
        let size = if format == "vmdk" { 3 << 20 } else { SIZE };
        qemu_img(&["convert", "-f", "raw", "-O", base_format, text(&bench.path("disk.raw")), text(&base)]);
        for (image, parent, parent_format) in [(&mid, &base, base_format), (&top, &mid, format)] {
            let mut args = vec!["create", "-q", "-f", format, "-b", text(parent), "-F", parent_format];
            if !options.is_empty() {
                args.extend(["-o", options]);
            }
            args.push(text(image));
            if format != "vmdk" {
                args.push(grown);
            }
            qemu_img(&args);
            scribble(image, format, 5 + u64::try_from(n).unwrap(), size, options != "compat=0.10");
        }
        let wanted = by_qemu(&top, format);
        for with in [[&*mid, &*base], [&*base, &*mid]] {
            let notes = assert_reads(&top, &with, &wanted, &what);
            assert!(notes.iter().filter(|note| note.starts_with("on top of ")).count() == 2, "{what}: {notes:?}");
        }
        for (with, missing) in [(vec![], "mid.img"), (vec![&*mid], "base.img")] {
            let e = open_set(&top, &with, None).err().unwrap();
            assert_eq!(e.kind(), ErrorKind::Unsupported, "{what}: {e}");
            assert!(e.to_string().contains(missing) && e.to_string().contains("give the parent too"), "{what}: {e}");
        }
    }
}

#[test]
fn a_parent_under_another_name_is_not_taken() {
    let bench = Bench::new(test_disk(1 << 20, 33));
    let names = ["base.qcow2", "mid.qcow2", "top.qcow2", "moved.qcow2", "link/mid.qcow2"];
    let [base, mid, top, moved, link] = names.map(|name| bench.path(name));
    qemu_img(&["convert", "-f", "raw", "-O", "qcow2", text(&bench.path("disk.raw")), text(&base)]);
    for (image, parent) in [(&mid, &base), (&top, &mid)] {
        qemu_img(&["create", "-q", "-f", "qcow2", "-b", text(parent), "-F", "qcow2", text(image)]);
    }
    scribble(&mid, "qcow2", 3, 1 << 20, false);
    let wanted = by_qemu(&top, "qcow2");
    // The parent's parent would give the bytes of an older state.
    let e = open_set(&top, &[&base], None).err().unwrap();
    assert_eq!((e.kind(), e.rule()), (ErrorKind::Unsupported, "qcow2.backing_file"), "{e}");
    std::fs::rename(&mid, &moved).unwrap();
    let e = open_set(&top, &[&moved, &base], None).err().unwrap();
    assert!(e.to_string().contains("mid.qcow2") && e.to_string().contains("a link may give it"), "{e}");
    std::fs::create_dir(bench.path("link")).unwrap();
    std::os::unix::fs::symlink(&moved, &link).unwrap();
    assert_reads(&top, &[&link, &base], &wanted, "by a link");
    // The image says which format its parent has, and no other is read.
    std::fs::remove_file(&link).unwrap();
    std::fs::copy(bench.path("disk.raw"), &link).unwrap();
    let e = open_set(&top, &[&link], None).err().unwrap();
    assert_eq!(e.kind(), ErrorKind::Corrupt, "{e}");
    let [moved, base, top] = ["disk.raw", "base.vmdk", "top.vmdk"].map(|name| bench.path(name));
    // A VMDK's parent has the CID that the image has for it, and no other image is it.
    qemu_img(&["convert", "-f", "raw", "-O", "vmdk", text(&moved), text(&base)]);
    qemu_img(&["create", "-q", "-f", "vmdk", "-b", text(&base), "-F", "vmdk", text(&top)]);
    assert_reads(&top, &[&base], &bench.disk, "the right CID");
    scribble(&base, "vmdk", 1, 1 << 20, false);
    let e = open_set(&top, &[&base], None).err().unwrap();
    assert!(e.rule() == "vmdk.parent" && e.to_string().contains("with the parent CID"), "{e}");
}

#[test]
fn a_raw_parent_is_never_taken_for_another_format() {
    let bench = Bench::new(test_disk(1 << 20, 34));
    let [base, top] = ["base.raw", "top.qcow2"].map(|name| bench.path(name));
    let mut disk = bench.disk.clone();
    disk[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    std::fs::write(&base, &disk).unwrap();
    qemu_img(&["create", "-q", "-f", "qcow2", "-b", text(&base), "-F", "raw", text(&top)]);
    assert_reads(&top, &[&base], &disk, "a guest wrote qcow2's magic");
}

#[test]
fn a_chain_that_comes_back_ends() {
    let bench = Bench::new(vec![0; 1 << 20]);
    let [a, b] = ["a.qcow2", "b.qcow2"].map(|name| bench.path(name));
    for (image, parent) in [(&a, &b), (&b, &a)] {
        qemu_img(&["create", "-q", "-u", "-f", "qcow2", "-b", text(parent), "-F", "qcow2", text(image), "1M"]);
    }
    let e = open_set(&a, &[&b], None).err().unwrap();
    assert_eq!((e.kind(), e.rule()), (ErrorKind::Unsupported, "qcow2.backing_file"), "{e}");
    let many: Vec<PathBuf> = (0..40).map(|n| bench.path(&format!("{n}.qcow2"))).collect();
    for (n, image) in many.iter().enumerate() {
        let parent = bench.path(&format!("{}.qcow2", n + 1));
        qemu_img(&["create", "-q", "-u", "-f", "qcow2", "-b", text(&parent), "-F", "qcow2", text(image), "1M"]);
    }
    let with: Vec<&Path> = many.iter().skip(1).map(PathBuf::as_path).collect();
    let e = open_set(&many[0], &with, None).err().unwrap();
    assert_eq!((e.kind(), e.rule()), (ErrorKind::LimitExceeded, "container.parents"), "{e}");
}

#[test]
fn a_file_that_fits_nothing_is_refused() {
    let bench = Bench::new(test_disk(1 << 20, 35));
    let (disk, other) = (bench.path("disk.raw"), bench.path("other.raw"));
    std::fs::write(&other, [1; 4096]).unwrap();
    let image = named(&disk).unwrap();
    let with = vec![named(&other).unwrap()];
    let e =
        find(image.file, FindOptions { with, header: HeaderAt::Elsewhere, ..FindOptions::default() }).err().unwrap();
    assert_eq!((e.kind(), e.rule()), (ErrorKind::InvalidInput, "with"));
    assert!(e.to_string().contains("other.raw fits nothing"), "{e}");
}

#[test]
fn internal_snapshots_are_states_of_the_disk() {
    const SIZE: u64 = 4 << 20;
    for options in ["", "compat=0.10", "cluster_size=4k", "extended_l2=on,cluster_size=64k"] {
        let bench = Bench::new(test_disk(4 << 20, 36));
        let image = bench.convert("qcow2", options, &[]);
        for name in ["one", "two"] {
            qemu_img(&["snapshot", "-c", name, text(&image)]);
            scribble(&image, "qcow2", 7, SIZE, options != "compat=0.10");
        }
        // A snapshot keeps its own size.
        if options != "compat=0.10" {
            qemu_img(&["resize", "-q", "-f", "qcow2", text(&image), "6M"]);
        }
        for wanted in ["one", "two", "1", "2"] {
            let raw = bench.path("state");
            let name = match wanted {
                "1" => "one",
                "2" => "two",
                name => name,
            };
            let by = format!("snapshot.name={name}");
            qemu_img(&["convert", "-f", "qcow2", "-l", &by, "-O", "raw", text(&image), text(&raw)]);
            let by_qemu = std::fs::read(&raw).unwrap();
            let opened = open_set(&image, &[], Some(wanted)).unwrap();
            assert_eq!(opened.snapshots.len(), 2);
            assert!(opened.notes[0].contains(&format!("snapshot {name} (id ")), "{:?}", opened.notes);
            let found = read_all(&disk_of(opened)).unwrap();
            assert_eq!(found.len(), 4 << 20, "{options}");
            assert_same(&found, &by_qemu[..found.len()], &format!("{options}, {wanted}"));
        }
        assert_reads(&image, &[], &by_qemu(&image, "qcow2"), options);
        let e = open_set(&image, &[], Some("three")).err().unwrap();
        assert!(e.kind() == ErrorKind::InvalidInput && e.to_string().contains("one (id 1), two (id 2)"), "{e}");
    }
    let raw = Bench::new(vec![0; 4096]);
    let e = open_set(&raw.path("disk.raw"), &[], Some("one")).err().unwrap();
    assert_eq!((e.kind(), e.rule()), (ErrorKind::InvalidInput, "snapshot"));
}

#[test]
fn tables_of_snapshots_that_break_a_rule() {
    let bench = Bench::new(test_disk(1 << 20, 37));
    let image = bench.convert("qcow2", "", &[]);
    qemu_img(&["snapshot", "-c", "one", text(&image)]);
    let good = std::fs::read(&image).unwrap();
    let table = usize::try_from(u64::from_be_bytes(good[64..72].try_into().unwrap())).unwrap();
    let outcome = |at: usize, value: &[u8], snapshot: Option<&str>| {
        let mut bytes = good.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        let options = Options { snapshot: snapshot.map(str::to_owned), ..Options::default() };
        open(Arc::new(bytes), options)
    };
    for (at, value, kind, rule) in [
        (60, [0xff; 4].as_slice(), ErrorKind::LimitExceeded, "qcow2.nb_snapshots"),
        (60, &[0, 1, 0, 0], ErrorKind::Corrupt, "qcow2.snapshots"),
        (64, &[0xff; 8], ErrorKind::Corrupt, "qcow2.snapshots"),
        (table + 36, &[0, 0, 4, 1], ErrorKind::LimitExceeded, "qcow2.snapshots"),
    ] {
        let e = outcome(at, value, Some("one")).err().unwrap();
        assert_eq!((e.kind(), e.rule()), (kind, rule), "{at}: {e}");
        // The disk's last state does not need them.
        let opened = outcome(at, value, None).unwrap();
        assert!(opened.notes[0].contains("the internal snapshots cannot be told"), "{:?}", opened.notes);
    }
    for (at, value, kind, rule) in [
        (table, [0, 0, 0, 0, 0, 0, 0, 1].as_slice(), ErrorKind::Corrupt, "qcow2.l1_table_offset"),
        (table + 8, &[0xff; 4], ErrorKind::LimitExceeded, "qcow2.l1_size"),
        (table + 8, &[0; 4], ErrorKind::Corrupt, "qcow2.size"),
        (table + 48, &[0x7f; 8], ErrorKind::Corrupt, "qcow2.size"),
    ] {
        let e = outcome(at, value, Some("one")).err().unwrap();
        assert_eq!((e.kind(), e.rule()), (kind, rule), "{at}: {e}");
        assert!(outcome(at, value, None).is_ok());
    }
}

/// What a differencing disk has to read as: `changed` where `here` says so of a sector, else `below`.
fn merged(below: &[u8], changed: &[u8], here: impl Fn(usize) -> bool) -> Vec<u8> {
    let sectors = changed.chunks(512).enumerate();
    let pick =
        |(n, sector): (usize, &[u8])| if here(n) { sector.to_vec() } else { below[n * 512..][..sector.len()].to_vec() };
    sectors.flat_map(pick).collect()
}

/// Vhd's sum of all bytes but the checksum at `at`, put there.
fn sum_vhd(bytes: &mut [u8], at: usize) {
    bytes[at..at + 4].fill(0);
    let sum = !bytes.iter().fold(0u32, |sum, b| sum.wrapping_add(u32::from(*b)));
    bytes[at..at + 4].copy_from_slice(&sum.to_be_bytes());
}

#[test]
fn vhd_differencing_disks_take_sectors_from_their_parent() {
    let bench = Bench::new(test_disk(5 << 20, 38));
    let base = bench.convert("vpc", "subformat=dynamic,force_size=on", &[]);
    let base = {
        let to = bench.path("base.vhd");
        std::fs::rename(base, &to).unwrap();
        to
    };
    let child = bench.path("child.vhd");
    qemu_img(&["create", "-q", "-f", "vpc", "-o", "subformat=dynamic,force_size=on", text(&child), "5M"]);
    qemu_io(&["-f", "vpc", "-c", "write -P 7 1M 2M", text(&child)]);
    let changed = by_qemu(&child, "vpc");
    let mut bytes = std::fs::read(&child).unwrap();
    let parent = std::fs::read(&base).unwrap();
    let id = parent[68..84].to_vec();
    let end = bytes.len() - 512;
    for footer in [0, end] {
        bytes[footer + 60..footer + 64].copy_from_slice(&4u32.to_be_bytes());
        sum_vhd(&mut bytes[footer..footer + 512], 64);
    }
    bytes[512 + 40..512 + 56].copy_from_slice(&id);
    for (to, from) in bytes[512 + 64..].chunks_exact_mut(2).zip("base.vhd".encode_utf16()) {
        to.copy_from_slice(&from.to_be_bytes());
    }
    sum_vhd(&mut bytes[512..1536], 36);
    // Of the first block all sectors of the third byte of its bitmap but the first are the parent's, of the second all.
    let table = usize::try_from(u64::from_be_bytes(bytes[528..536].try_into().unwrap())).unwrap();
    let block =
        |n: usize| usize::try_from(u32::from_be_bytes(bytes[table + n * 4..][..4].try_into().unwrap())).unwrap();
    let (first, second) = (block(0) * 512, block(1) * 512);
    bytes[first..first + 512].fill(0xff);
    bytes[first + 300] = 0x80;
    bytes[second..second + 512].fill(0);
    bytes[second] = 0x01;
    std::fs::write(&child, &bytes).unwrap();
    let here = |n: usize| match n {
        0..4096 => n / 8 != 300 || n.is_multiple_of(8),
        _ => n == 4096 + 7,
    };
    assert_reads(&child, &[&base], &merged(&bench.disk, &changed, here), "vhd");
    let e = open_set(&child, &[], None).err().unwrap();
    assert!(e.rule() == "vhd.parent" && e.to_string().contains("base.vhd, with the id"), "{e}");
    let e = open_set(&child, &[&bench.path("disk.raw")], None).err().unwrap();
    assert_eq!(e.rule(), "vhd.parent", "nothing proves it");
}

/// The two headers of a VHDX with something changed and their checksums right.
fn change_vhdx(bytes: &mut [u8], change: impl Fn(&mut [u8])) {
    for header in [64 << 10, 128 << 10] {
        let header = &mut bytes[header..header + 4096];
        change(header);
        header[4..8].fill(0);
        let crc = crc32c::crc32c(header);
        header[4..8].copy_from_slice(&crc.to_le_bytes());
    }
}

#[test]
fn vhdx_differencing_disks_take_sectors_from_their_parent() {
    const MIB: usize = 1 << 20;
    let bench = Bench::new(test_disk(5 * MIB, 39));
    let base = bench.path("base.vhdx");
    let made = bench.convert("vhdx", "block_size=1M", &[]);
    let mut bytes = std::fs::read(made).unwrap();
    let guid: Vec<u8> = (1..17).collect();
    change_vhdx(&mut bytes, |header| header[32..48].copy_from_slice(&guid));
    std::fs::write(&base, &bytes).unwrap();

    let child = bench.path("child.vhdx");
    qemu_img(&["create", "-q", "-f", "vhdx", "-o", "block_size=1M,block_state_zero=off", text(&child), "5M"]);
    qemu_io(&["-f", "vhdx", "-c", "write -P 7 1M 2M", text(&child)]);
    let changed = by_qemu(&child, "vhdx");
    let mut bytes = std::fs::read(&child).unwrap();
    let regions = 192 << 10;
    let place = |guid: [u8; 4]| {
        let entry = (0..2).map(|n| regions + 16 + n * 32).find(|at| bytes[*at..].starts_with(&guid)).unwrap();
        usize::try_from(u64::from_le_bytes(bytes[entry + 16..entry + 24].try_into().unwrap())).unwrap()
    };
    let (bat, metadata) = (place([0x66, 0x77, 0xc2, 0x2d]), place([0x06, 0xa2, 0x7c, 0x8b]));
    // The file parameters say that there is a parent, and a new item which.
    let parameters =
        (metadata..metadata + 65536).find(|at| bytes[*at..].starts_with(&[0x37, 0x67, 0xa1, 0xca])).unwrap();
    let at = usize::try_from(u32::from_le_bytes(bytes[parameters + 16..parameters + 20].try_into().unwrap())).unwrap();
    bytes[metadata + at + 4] |= 2;
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let (key, value) = (utf16("parent_linkage"), utf16("{04030201-0605-0807-090a-0b0c0d0e0f10}"));
    let mut locator = vec![0; 18];
    locator.extend(1u16.to_le_bytes());
    locator.extend(64u32.to_le_bytes());
    locator.extend(128u32.to_le_bytes());
    locator.extend(u16::try_from(key.len()).unwrap().to_le_bytes());
    locator.extend(u16::try_from(value.len()).unwrap().to_le_bytes());
    locator.resize(64, 0);
    locator.extend(key);
    locator.resize(128, 0);
    locator.extend(value);
    let items = usize::from(u16::from_le_bytes(bytes[metadata + 10..metadata + 12].try_into().unwrap()));
    bytes[metadata + 10..metadata + 12].copy_from_slice(&u16::try_from(items + 1).unwrap().to_le_bytes());
    let mut item =
        [0x2d, 0x5f, 0xd3, 0xa8, 0x0b, 0xb3, 0x4d, 0x45, 0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab, 0x0c].to_vec();
    item.extend((512u32 << 10).to_le_bytes());
    item.extend(u32::try_from(locator.len()).unwrap().to_le_bytes());
    item.extend(4u32.to_le_bytes());
    bytes[metadata + 32 + items * 32..][..item.len()].copy_from_slice(&item);
    bytes[metadata + (512 << 10)..][..locator.len()].copy_from_slice(&locator);
    // Block 2 is here in part: the bitmap of its chunk, in a new block at the file's end, says which.
    bytes.resize(bytes.len().next_multiple_of(MIB), 0);
    let bitmap = bytes.len();
    bytes.resize(bitmap + MIB, 0);
    let ratio = 4096;
    bytes[bat + ratio * 8..][..8].copy_from_slice(&u64::try_from(bitmap + 6).unwrap().to_le_bytes());
    bytes[bat + 2 * 8] = bytes[bat + 2 * 8] & !7 | 7;
    bytes[bitmap + 2 * 256..bitmap + 3 * 256].fill(0xff);
    bytes[bitmap + 2 * 256 + 3] = 0b0000_0011;
    std::fs::write(&child, &bytes).unwrap();
    let here = |n: usize| match n / 2048 {
        1 => true,
        2 => !(26..32).contains(&(n % 2048)),
        _ => false,
    };
    assert_reads(&child, &[&base], &merged(&bench.disk, &changed, here), "vhdx");
    let e = open_set(&child, &[], None).err().unwrap();
    assert!(e.rule() == "vhdx.parent" && e.to_string().contains("04030201-0605-0807-090a-0b0c0d0e0f10"), "{e}");
    // A parent that was written to since has another GUID.
    let mut other = std::fs::read(&base).unwrap();
    change_vhdx(&mut other, |header| header[32] ^= 1);
    std::fs::write(&base, &other).unwrap();
    assert_eq!(open_set(&child, &[&base], None).err().unwrap().rule(), "vhdx.parent");
    // Without its bitmap the block cannot be told.
    bytes[bat + ratio * 8] = 0;
    std::fs::write(&child, &bytes).unwrap();
    change_vhdx(&mut other, |header| header[32] ^= 1);
    std::fs::write(&base, &other).unwrap();
    let disk = disk_of(open_set(&child, &[&base], None).unwrap());
    assert_eq!(disk.read_exact_at(&mut [0; 512], 2 << 20).unwrap_err().rule(), "vhdx.bat");
}

#[test]
fn pieces_of_a_container_are_joined_before_it_is_opened() {
    let bench = Bench::new(test_disk(3 << 20, 40));
    let bytes = std::fs::read(bench.convert("qcow2", "", &[])).unwrap();
    for (n, piece) in bytes.chunks(700_001).enumerate() {
        std::fs::write(bench.path(&format!("disk.qcow2.{n:03}")), piece).unwrap();
    }
    for n in 0..bytes.len().div_ceil(700_001) {
        let opened = open_set(&bench.path(&format!("disk.qcow2.{n:03}")), &[], None).unwrap();
        assert!(opened.format == Format::Qcow2 && matches!(opened.contents, Contents::Disk(_)));
        assert_same(&read_all(&disk_of(opened)).unwrap(), &bench.disk, "in pieces");
    }
}
