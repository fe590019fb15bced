//! Containers that are cut off, that were not closed cleanly, that declare too much, or that lead to other files: which
//! of them open, and what is said of the others.

use std::path::Path;
use std::sync::Arc;

use crate::support::*;
use unluks::format::{Format, Options, open};
use unluks::io::FileSource;
use unluks::{ErrorKind, ReadAt};

/// Opens `image`, which has to be refused as unsupported by `rule`; gives the message.
fn refused(image: &Path, rule: &str) -> String {
    let e = open_path(image, None).err().unwrap_or_else(|| panic!("{rule}: the image opened"));
    assert_eq!((e.kind(), e.rule()), (ErrorKind::Unsupported, rule), "{e}");
    e.to_string()
}

#[test]
fn no_image_leads_to_another_file() {
    let bench = Bench::new(test_disk(1 << 20, 10));
    let (base, image) = (bench.path("base.qcow2"), bench.path("image"));
    qemu_img(&["create", "-f", "qcow2", text(&base), "1M"]);
    qemu_img(&["create", "-f", "qcow2", "-b", text(&base), "-F", "qcow2", text(&image)]);
    let e = refused(&image, "qcow2.backing_file");
    assert!(e.contains("base.qcow2, which is not followed; only the image itself is read"), "{e}");

    let data = bench.path("data.raw");
    for raw in ["on", "off"] {
        let options = format!("data_file={},data_file_raw={raw}", text(&data));
        qemu_img(&["create", "-f", "qcow2", "-o", &options, text(&image), "1M"]);
        let e = refused(&image, "qcow2.data_file");
        assert!(e.contains("data.raw, which is not followed"), "{e}");
    }

    let image = bench.convert("vmdk", "subformat=monolithicFlat", &[]);
    let e = refused(&image, "vmdk.descriptor");
    assert!(e.contains("image-flat, which is not followed") && e.contains("as a raw one"), "{e}");
    assert_eq!(read_all(&disk_of(open_path(&bench.path("image-flat"), None).unwrap())).unwrap(), bench.disk);

    let image = bench.convert("vmdk", "subformat=twoGbMaxExtentSparse", &[]);
    refused(&image, "vmdk.descriptor");
    let e = refused(&bench.path("image-s001"), "vmdk.descriptor");
    assert!(e.contains("one extent of a disk"), "{e}");

    let base = bench.path("base.vmdk");
    qemu_img(&["create", "-f", "vmdk", text(&base), "1M"]);
    qemu_img(&["create", "-f", "vmdk", "-b", text(&base), "-F", "vmdk", text(&image)]);
    let e = refused(&image, "vmdk.parent");
    assert!(e.contains("base.vmdk, which is not followed"), "{e}");

    for format in ["qcow", "qed"] {
        qemu_img(&["create", "-f", format, "-b", text(&base), "-F", "vmdk", text(&image)]);
        let e = refused(&image, if format == "qed" { "qed.backing_file" } else { "qcow.backing_file" });
        assert!(e.contains("which is not followed"), "{e}");
    }
}

#[test]
fn states_of_a_qcow2_header() {
    let bench = Bench::new(test_disk(1 << 20, 11));
    let image = bench.convert("qcow2", "", &[]);
    let good = std::fs::read(&image).unwrap();
    let with = |at: usize, value: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        open_bytes(bytes, Some(Format::Qcow2))
    };
    for (bit, says) in [(1, "not closed cleanly"), (2, "marked corrupt")] {
        let marked = with(79, &[bit]).unwrap();
        assert!(marked.notes[0].contains(says), "{:?}", marked.notes);
        assert_same(&read_all(&disk_of(marked)).unwrap(), &bench.disk, says);
    }
    let error = |at, value: &[u8]| {
        let e = with(at, value).err().unwrap_or_else(|| panic!("byte {at}, {value:?}: the image opened"));
        (e.kind(), e.rule().to_owned(), e.to_string())
    };
    use ErrorKind::{Corrupt, LimitExceeded, Unsupported};
    for (at, value, kind, rule, says) in [
        (0, b"QFI\0".as_slice(), Corrupt, "qcow2.magic", "QFI"),
        (4, &[0, 0, 0, 4], Unsupported, "qcow2.version", "found 4"),
        (20, &[0, 0, 0, 8], Corrupt, "qcow2.cluster_bits", "9 to 21"),
        (20, &[0, 0, 0, 64], Corrupt, "qcow2.cluster_bits", "9 to 21"),
        (24, &[0x7f; 8], Corrupt, "qcow2.size", "maps 536870912"),
        (32, &[0, 0, 0, 1], Unsupported, "qcow2.crypt_method", "encrypt.format=aes"),
        (32, &[0, 0, 0, 2], Corrupt, "qcow2.crypt_header", "0x0537be77"),
        (32, &[0, 0, 0, 9], Unsupported, "qcow2.crypt_method", "found 9"),
        (36, &[0xff; 4], LimitExceeded, "qcow2.l1_size", "4194304 are allowed"),
        (36, &[0, 4, 0, 0], Corrupt, "qcow2.l1_size", "does not fit the file"),
        (47, &[1], Corrupt, "qcow2.l1_table_offset", "multiple"),
        (79, &[4], Unsupported, "qcow2.data_file", "not followed"),
        (79, &[8], Corrupt, "qcow2.compression_type", "bit 3 is 1"),
        (78, &[1], Unsupported, "qcow2.incompatible_features", "bit 8"),
        (100, &[0, 0, 0, 99], Corrupt, "qcow2.header_length", "found 99"),
        (104, &[1], Corrupt, "qcow2.compression_type", "bit 3 is 0"),
    ] {
        let (found_kind, found_rule, e) = error(at, value);
        assert_eq!((found_kind, found_rule.as_str()), (kind, rule), "{e}");
        assert!(e.contains(says), "{e}");
    }
}

#[test]
fn a_small_file_may_not_declare_any_size() {
    let bench = Bench::new(Vec::new());
    let large = bench.path("large.qcow2");
    let open_as =
        |max_size| open(Arc::new(FileSource::open(&large).unwrap()), Options { max_size, ..Options::default() });
    for (size, len, opens) in
        [("1T", 0, true), ("2T", 0, false), ("60T", 0, false), ("3T", 3, true), ("65T", 80, false)]
    {
        qemu_img(&["create", "-f", "qcow2", text(&large), size]);
        let file = std::fs::OpenOptions::new().write(true).open(&large).unwrap();
        // A file of as many GiB as this: only its length counts.
        file.set_len(file.metadata().unwrap().len() + (len << 30)).unwrap();
        match open_as(None) {
            Ok(_) => assert!(opens, "{size}, {len} GiB"),
            Err(e) => {
                assert_eq!((e.kind(), e.rule()), (ErrorKind::LimitExceeded, "container.size"), "{e}");
                assert!(!opens && e.to_string().contains("max_size allows it"), "{size}, {len} GiB: {e}");
            }
        }
        let raised = disk_of(open_as(Some(1 << 50)).unwrap());
        assert!(raised.extent_at(raised.len() - 1).unwrap().zero);
        assert_eq!(open_as(Some(1 << 39)).err().unwrap().rule(), "container.size");
    }
}

#[test]
fn a_cut_off_image_is_an_error_and_not_zeroes() {
    let bench = Bench::new([test_disk(2 << 20, 12), vec![0xa5; 1 << 20]].concat());
    for (format, options, more) in [
        ("qcow2", "", [].as_slice()),
        ("qcow2", "", &["-c"]),
        ("vhdx", "", &[]),
        ("vmdk", "subformat=monolithicSparse", &[]),
        ("vmdk", "subformat=streamOptimized", &[]),
    ] {
        let image = bench.convert(format, options, more);
        let mut bytes = std::fs::read(&image).unwrap();
        let end = bytes.iter().rposition(|b| *b != 0).unwrap();
        bytes.truncate(end - if more.is_empty() { 300_000.min(end / 2) } else { 40 });
        let result = open_bytes(bytes, None).and_then(|opened| read_all(&disk_of(opened)));
        let e = result.err().unwrap_or_else(|| panic!("{format} {options} {more:?}: a cut image was read"));
        assert_eq!(e.kind(), ErrorKind::Corrupt, "{format} {options}: {e}");
    }
}

#[test]
fn a_cut_off_stream_of_grains_is_called_so_wherever_it_ends() {
    let bench = Bench::new([vec![0x5a; 1 << 20], test_disk(1 << 20, 17)].concat());
    let image = bench.convert("vmdk", "subformat=streamOptimized", &[]);
    let whole = std::fs::read(&image).unwrap();
    let (mut rules, mut last) = (std::collections::BTreeSet::new(), 0);
    // The second grain's marker, and then a step that meets markers, streams and the borders between them.
    for end in (whole.len() / 4..whole.len() - 70_000).step_by(509) {
        let disk = match open_bytes(whole[..end].to_vec(), None) {
            Ok(opened) => disk_of(opened),
            Err(e) => panic!("cut at {end}: {e}"),
        };
        let e = read_all(&disk).err().unwrap_or_else(|| panic!("cut at {end}: it was read"));
        assert_eq!((e.kind(), e.rule()), (ErrorKind::Corrupt, "container.truncated"), "cut at {end}: {e}");
        rules.insert(e.message().contains("tables"));
        last = end;
    }
    assert!(last > 0 && rules.len() == 2, "both a marker and a stream were cut: {rules:?}");
}

#[test]
fn a_vhdx_on_top_of_a_parent_is_refused() {
    let bench = Bench::new(test_disk(1 << 20, 15));
    let mut bytes = std::fs::read(bench.convert("vhdx", "", &[])).unwrap();
    // The file parameters' entry in the metadata table places 8 bytes from the region's start on: block size and flags.
    let table = (0..bytes.len()).step_by(1 << 20).find(|at| bytes[*at..].starts_with(b"metadata")).unwrap();
    let guid = [0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d];
    let entry = (table..table + 65536).find(|at| bytes[*at..].starts_with(&guid)).unwrap();
    let place = u32::from_le_bytes(bytes[entry + 16..entry + 20].try_into().unwrap());
    bytes[table + usize::try_from(place).unwrap() + 4] |= 2;
    let e = open_bytes(bytes, None).err().unwrap();
    assert_eq!((e.kind(), e.rule()), (ErrorKind::Unsupported, "vhdx.parent"));
}
