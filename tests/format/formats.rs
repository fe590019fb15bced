//! Images that QEMU and libewf make, read back and compared with what went in and with what `qemu-img convert` gives.

use std::path::PathBuf;
use std::sync::Arc;

use crate::support::*;
use unluks::format::{Contents, Format, Mapping, Options, open};
use unluks::io::FileSource;
use unluks::num::to_u64;
use unluks::{ErrorKind, ReadAt};

#[test]
fn qcow2_of_every_kind() {
    // Not a whole number of clusters, so that the last one is cut.
    let bench = Bench::new(test_disk((5 << 20) + 3 * 512, 1));
    let cases: &[(&str, &[&str])] = &[
        ("compat=0.10", &[]),
        ("compat=1.1", &[]),
        ("compat=0.10", &["-c"]),
        ("compat=1.1", &["-c"]),
        ("compression_type=zstd", &["-c"]),
        ("cluster_size=512", &[]),
        ("cluster_size=512", &["-c"]),
        ("cluster_size=4k,compression_type=zstd", &["-c"]),
        ("cluster_size=2M", &[]),
        ("cluster_size=2M,compression_type=zstd", &["-c"]),
        ("cluster_size=2M", &["-c"]),
        ("extended_l2=on", &[]),
        ("extended_l2=on,cluster_size=16k", &[]),
        ("extended_l2=on,cluster_size=2M", &[]),
        ("extended_l2=on", &["-c"]),
        ("preallocation=metadata", &[]),
        ("preallocation=falloc", &[]),
        ("preallocation=full", &[]),
        ("lazy_refcounts=on,refcount_bits=1", &[]),
    ];
    for (options, more) in cases {
        let image = bench.convert("qcow2", options, more);
        let what = format!("{options} {more:?}");
        let (disk, found, notes) = compare(&image, "qcow2", None, &what);
        assert_same(&found, &bench.disk, &what);
        assert!(notes.is_empty(), "{what}: {notes:?}");
        if !options.contains("preallocation") && !options.contains("2M") {
            let zeroes = check_extents(&disk, &found, &what);
            assert!(zeroes > 1 << 20, "{what}: only {zeroes} bytes are known to be zero");
        }
    }
}

#[test]
fn qcow2_as_a_guest_leaves_it() {
    let bench = Bench::new(test_disk(4 << 20, 2));
    for options in ["compat=1.1", "extended_l2=on", "cluster_size=4k", "compression_type=zstd"] {
        let image = bench.convert("qcow2", options, &["-c"]);
        qemu_img(&["snapshot", "-c", "before", text(&image)]);
        let mut rng = Rng(3);
        let mut commands: Vec<String> = Vec::new();
        for n in 0..120 {
            let (at, len) = (rng.below(4 << 11) * 512, (1 + rng.below(300)) * 512);
            let len = len.min((4 << 20) - at);
            commands.push(match n % 4 {
                0 => format!("write -z {at} {len}"),
                1 => format!("discard {at} {len}"),
                2 => format!("write -z -u {at} {len}"),
                _ => format!("write -P {} {at} {len}", n),
            });
        }
        let mut args = vec!["-f", "qcow2", "-d", "unmap"];
        commands.iter().for_each(|c| args.extend(["-c", c]));
        args.push(text(&image));
        qemu_io(&args);
        let (_, _, notes) = compare(&image, "qcow2", None, options);
        assert!(notes[0].contains("1 internal snapshot,"), "{notes:?}");
    }
}

#[test]
fn vhd_of_every_kind() {
    let bench = Bench::new(test_disk(9 << 20, 4));
    for (options, named) in [
        ("subformat=dynamic", None),
        ("subformat=dynamic,force_size=on", None),
        ("subformat=dynamic,force_size=on", Some(Format::Vhd)),
        ("subformat=fixed", Some(Format::Vhd)),
        ("subformat=fixed,force_size=on", Some(Format::Vhd)),
    ] {
        let image = bench.convert("vpc", options, &[]);
        let (_, found, notes) = compare(&image, "vpc", named, options);
        // Without force_size QEMU rounds the disk up to whole cylinders.
        assert_same(&found[..bench.disk.len()], &bench.disk, options);
        assert!(notes.is_empty(), "{options}: {notes:?}");
        if options.contains("fixed") {
            let raw = open_path(&image, None).unwrap();
            assert_eq!(raw.format, Format::Raw, "a fixed VHD is told by its end alone");
            assert!(raw.notes[0].contains("the format vhd leaves them out"), "{:?}", raw.notes);
            assert!(open_path(&image, Some(Format::Raw)).unwrap().notes.is_empty(), "who named it knows");
            continue;
        }
        // Cut off, the copy of the footer at the start still opens it.
        let mut bytes = std::fs::read(&image).unwrap();
        bytes.truncate(bytes.len() - 512);
        let opened = open_bytes(bytes, None).unwrap();
        assert!(opened.notes[0].contains("its copy at the start was used"), "{:?}", opened.notes);
        assert_same(&read_all(&disk_of(opened)).unwrap(), &found, options);
    }
}

#[test]
fn vhdx_of_every_kind() {
    let bench = Bench::new(test_disk((9 << 20) + 512, 5));
    for options in ["subformat=dynamic", "subformat=dynamic,block_size=1M", "subformat=fixed", "block_size=256M"] {
        let image = bench.convert("vhdx", options, &[]);
        let opened = open_path(&image, None).unwrap();
        assert_eq!((opened.sector_size, opened.notes.len()), (Some(512), 0));
        compare(&image, "vhdx", None, options);
    }
    // The table of blocks has an entry for a sector bitmap after each 2^23 sectors' worth of blocks.
    let image = bench.path("large.vhdx");
    qemu_img(&["create", "-f", "vhdx", "-o", "block_size=1M", text(&image), "9G"]);
    let writes = ["write -P 1 0 4k", "write -P 2 4095M 2M", "write -P 3 8191M 2M", "write -P 4 9215M 1M"];
    let mut args = vec!["-f", "vhdx"];
    writes.iter().for_each(|w| args.extend(["-c", w]));
    args.push(text(&image));
    qemu_io(&args);
    let disk = disk_of(open_path(&image, None).unwrap());
    assert_eq!(disk.len(), 9 << 30);
    for (mib, before, from) in [(0, 1, 1), (4095, 0, 2), (4096, 2, 2), (8191, 0, 3), (8192, 3, 3), (9215, 0, 4)] {
        let at = mib << 20;
        let mut here = [0xff; 2];
        disk.read_exact_at(&mut here[1..], at).unwrap();
        match at {
            0 => here[0] = 1,
            _ => disk.read_exact_at(&mut here[..1], at - 1).unwrap(),
        }
        assert_eq!(here, [before, from], "at {mib} MiB");
    }
    assert!(disk.extent_at(1 << 30).unwrap().zero);
}

#[test]
fn vmdk_of_every_kind() {
    let bench = Bench::new(test_disk((9 << 20) + 512, 6));
    for (options, more) in [
        ("subformat=monolithicSparse", [].as_slice()),
        ("subformat=monolithicSparse,zeroed_grain=on", &[]),
        ("subformat=streamOptimized", &[]),
        ("subformat=streamOptimized", &["-c"]),
    ] {
        let image = bench.convert("vmdk", options, more);
        let (_, found, notes) = compare(&image, "vmdk", None, options);
        assert_same(&found, &bench.disk, options);
        assert!(notes.is_empty(), "{options}: {notes:?}");
    }
    let image = bench.path("zeroed.vmdk");
    qemu_img(&["create", "-f", "vmdk", "-o", "zeroed_grain=on", text(&image), "8M"]);
    qemu_io(&[
        "-f",
        "vmdk",
        "-c",
        "write -P 9 0 1M",
        "-c",
        "write -z 64k 256k",
        "-c",
        "write -P 8 5M 64k",
        text(&image),
    ]);
    compare(&image, "vmdk", None, "zeroed grains");
}

#[test]
fn a_vmdk_whose_directory_is_at_its_end() {
    // VMware writes streams front to back, so only the footer knows the directory; QEMU writes both, so take it from one.
    let bench = Bench::new(test_disk(3 << 20, 7));
    let image = bench.convert("vmdk", "subformat=streamOptimized", &[]);
    let mut bytes = std::fs::read(&image).unwrap();
    let header = bytes[..512].to_vec();
    bytes[56..64].fill(0xff);
    bytes.resize(bytes.len().next_multiple_of(512) + 512, 0);
    bytes.extend(&header);
    bytes.extend([0; 512]);
    let disk = disk_of(open_bytes(bytes.clone(), None).unwrap());
    assert_same(&read_all(&disk).unwrap(), &bench.disk, "with a footer");
    bytes.truncate(bytes.len() - 512);
    let e = open_bytes(bytes, None).err().unwrap();
    assert_eq!((e.kind(), e.rule()), (ErrorKind::Corrupt, "vmdk.magic"));
    assert!(e.to_string().contains("fetch it again"), "{e}");
}

/// An EWF image of `disk`, made by ewfacquire: its segment files in their order.
fn acquire(bench: &Bench, format: &str, more: &[&str]) -> Vec<Arc<dyn ReadAt>> {
    let target = bench.path(format);
    let raw = bench.path("disk.raw");
    let mut args = vec!["-u", "-q", "-f", format, "-t", text(&target)];
    args.extend(more);
    args.push(text(&raw));
    run("ewfacquire", "ewf-tools", &args);
    let mut paths: Vec<PathBuf> = std::fs::read_dir(bench.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_stem() == target.file_name() && path.extension().is_some())
        .collect();
    paths.sort();
    paths.iter().map(|path| -> Arc<dyn ReadAt> { Arc::new(FileSource::open(path).unwrap()) }).collect()
}

fn open_segments(mut segments: Vec<Arc<dyn ReadAt>>) -> unluks::Result<unluks::format::Opened> {
    let first = segments.remove(0);
    open(first, Options { segments, ..Options::default() })
}

#[test]
fn ewf_of_every_kind() {
    let bench = Bench::new(test_disk((5 << 20) + 5 * 512, 8));
    for (format, more, files) in [
        ("encase6", ["-c", "fast"].as_slice(), 1),
        ("encase6", &["-c", "none", "-S", "1048576"], 6),
        ("encase5", &["-c", "best", "-b", "128"], 1),
        ("encase1", &["-c", "empty-block"], 1),
        ("ftk", &["-c", "fast", "-S", "1048576"], 0),
        ("linen6", &["-c", "fast"], 1),
        ("smart", &["-c", "fast"], 1),
        ("smart", &["-c", "none", "-S", "1048576"], 6),
        ("ewf", &["-c", "fast"], 1),
    ] {
        let what = format!("{format} {more:?}");
        let segments = acquire(&bench, format, more);
        assert!(files == 0 || segments.len() >= files, "{what}: {} files", segments.len());
        let opened = open_segments(segments.clone()).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!((opened.format, opened.sector_size), (Format::Ewf, Some(512)));
        let disk = disk_of(opened);
        assert_same(&read_all(&disk).unwrap_or_else(|e| panic!("{what}: {e}")), &bench.disk, &what);
        if segments.len() > 1 {
            let missing = open_segments(segments[..1].to_vec()).err().unwrap();
            assert_eq!((missing.kind(), missing.rule()), (ErrorKind::InvalidInput, "ewf.segments"));
            let mut swapped = segments.clone();
            swapped.swap(0, 1);
            assert_eq!(open_segments(swapped).err().unwrap().rule(), "ewf.header");
            let more = [segments.clone(), segments].concat();
            assert!(open_segments(more).err().unwrap().to_string().contains("more were given"));
        }
        for path in std::fs::read_dir(bench.dir.path()).unwrap().map(|entry| entry.unwrap().path()) {
            if path.extension().is_some_and(|e| e != "raw") {
                std::fs::remove_file(path).unwrap();
            }
        }
    }
}

#[test]
fn an_ewf_table_that_is_damaged_is_read_from_its_copy() {
    let bench = Bench::new(test_disk(3 << 20, 16));
    let mut bytes = read_all(&acquire(&bench, "encase6", &["-c", "fast"])[0]).unwrap();
    let find = |name: &[u8]| (0..bytes.len()).find(|at| bytes[*at..].starts_with(name)).unwrap();
    let (first, second) = (find(b"table\0"), find(b"table2\0"));
    // A byte of the table's header, of its entries, and of the checksum behind its header.
    for at in [76, 76 + 24 + 5, 76 + 21] {
        bytes[first + at] ^= 1;
        let opened = open_bytes(bytes.clone(), None).unwrap();
        assert!(opened.notes[0].contains("damaged: 1 table of chunks"), "{:?}", opened.notes);
        assert_same(&read_all(&disk_of(opened)).unwrap(), &bench.disk, "from table2");
        bytes[second + at] ^= 1;
        let e = open_bytes(bytes.clone(), None).err().unwrap();
        assert_eq!((e.kind(), e.rule()), (ErrorKind::Corrupt, "ewf.table"));
        bytes[first + at] ^= 1;
        assert!(open_bytes(bytes.clone(), None).unwrap().notes.is_empty(), "a good table needs no copy");
        bytes[second + at] ^= 1;
    }
}

/// A list of read errors as ewfacquire writes it of a device, which a test has none of: the places are as in one of its.
#[test]
fn what_could_not_be_read_for_an_e01_is_an_error() {
    let bench = Bench::new(test_disk(3 << 20, 18));
    let bytes = read_all(&acquire(&bench, "encase6", &["-c", "fast"])[0]).unwrap();
    let adler = |bytes: &[u8]| {
        let mut sum = adler2::Adler32::new();
        sum.write_slice(bytes);
        sum.checksum().to_le_bytes()
    };
    // In front of the last section, which points to itself.
    let (before, done) = bytes.split_at(bytes.len() - 76);
    assert!(done.starts_with(b"done\0"));
    let section = |name: &[u8], next: usize, size: usize| {
        let mut header = name.to_vec();
        header.resize(16, 0);
        header.extend([to_u64(next).to_le_bytes(), to_u64(size).to_le_bytes()].concat());
        header.resize(72, 0);
        header.extend(adler(&header));
        header
    };
    let ranges = [(960u32, 42u32), (4992, 9)];
    let mut list = 2u32.to_le_bytes().to_vec();
    list.resize(516, 0);
    list.extend(adler(&list));
    let entries: Vec<u8> = ranges.iter().flat_map(|(at, n)| [at.to_le_bytes(), n.to_le_bytes()].concat()).collect();
    list.extend([&entries[..], &adler(&entries)].concat());
    let end = before.len() + 76 + list.len();
    let image = [before, &section(b"error2", end, 76 + list.len()), &list, &section(b"done", end, 76)].concat();
    let opened = open_bytes(image, None).unwrap();
    assert_eq!(opened.notes, ["ewf: 26112 bytes could not be read when the image was made"]);
    let disk = disk_of(opened);
    for (sectors, is_there) in [
        (0..960, true),
        (960..961, false),
        (1001..1002, false),
        (1002..4992, true),
        (4991..4993, false),
        (5001..6144, true),
    ] {
        let mut bytes = vec![0; sectors.len() * 512];
        assert_eq!(disk.read_exact_at(&mut bytes, to_u64(sectors.start * 512)).is_ok(), is_there, "{sectors:?}");
        assert!(!is_there || bytes == bench.disk[sectors.start * 512..sectors.end * 512], "{sectors:?}");
    }
}

#[test]
fn many_threads_read_one_image() {
    let bench = Bench::new(test_disk(8 << 20, 9));
    let image = bench.convert("qcow2", "cluster_size=4k", &["-c"]);
    let disk = disk_of(open_path(&image, None).unwrap());
    std::thread::scope(|scope| {
        for seed in 1..=8 {
            let (disk, wanted) = (&disk, &bench.disk);
            scope.spawn(move || {
                let mut rng = Rng(seed);
                for _ in 0..200 {
                    let at = rng.index(wanted.len());
                    let mut found = vec![0; (1 + rng.index(50_000)).min(wanted.len() - at)];
                    disk.read_exact_at(&mut found, at.try_into().unwrap()).unwrap();
                    assert_same(&found, &wanted[at..at + found.len()], &format!("thread {seed}, byte {at}"));
                }
            });
        }
    });
}

#[test]
fn luks_inside_a_container_is_found_where_it_lies() {
    let bench = Bench::new(Vec::new());
    let (luks, image) = (bench.path("luks"), bench.path("image"));
    std::fs::write(bench.path("secret"), "pass").unwrap();
    let secret = format!("secret,id=s,file={}", text(&bench.path("secret")));
    qemu_img(&["create", "--object", &secret, "-f", "luks", "-o", "key-secret=s,iter-time=10", text(&luks), "4M"]);
    qemu_img(&["convert", "-c", "-f", "raw", "-O", "qcow2", text(&luks), text(&image)]);
    let (_, found, _) = compare(&image, "qcow2", None, "LUKS as guest data");
    assert_eq!(found, std::fs::read(&luks).unwrap());
    assert_eq!(open_path(&luks, None).unwrap().format, Format::Raw);
}

/// Decrypts `data` in place with AES-XTS and a plain64 IV, as IEEE 1619 has it: the peer of the library's own.
fn xts_decrypt(key: &[u8], first_sector: u64, data: &mut [u8]) {
    use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
    let (cipher, tweaker) = key.split_at(key.len() / 2);
    let cipher = aes::Aes256::new_from_slice(cipher).unwrap();
    let tweaker = aes::Aes256::new_from_slice(tweaker).unwrap();
    for (sector, bytes) in (first_sector..).zip(data.chunks_exact_mut(512)) {
        let mut iv = aes::Block::default();
        iv[..8].copy_from_slice(&sector.to_le_bytes());
        tweaker.encrypt_block(&mut iv);
        let mut tweak = u128::from_le_bytes(iv.into());
        for block in bytes.chunks_exact_mut(16) {
            let mixed = u128::from_le_bytes((&*block).try_into().unwrap()) ^ tweak;
            let mut mixed = aes::Block::from(mixed.to_le_bytes());
            cipher.decrypt_block(&mut mixed);
            block.copy_from_slice(&(u128::from_le_bytes(mixed.into()) ^ tweak).to_le_bytes());
            tweak = (tweak << 1) ^ ((tweak >> 127) * 0x87);
        }
    }
}

#[test]
fn qcow2_with_its_own_luks() {
    let bench = Bench::new(test_disk(1 << 20, 14));
    std::fs::write(bench.path("secret"), "pass").unwrap();
    let secret = format!("secret,id=s,file={}", text(&bench.path("secret")));
    for (what, more) in [("plain", ""), ("small clusters", ",cluster_size=512"), ("subclusters", ",extended_l2=on")] {
        let image = bench.path("image");
        let options = format!("encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10{more}");
        let raw = bench.path("disk.raw");
        qemu_img(&[
            "convert",
            "--object",
            &secret,
            "-f",
            "raw",
            "-O",
            "qcow2",
            "-o",
            &options,
            text(&raw),
            text(&image),
        ]);
        let opened = open_path(&image, None).unwrap();
        let Contents::Qcow2Luks(luks) = opened.contents else { panic!("{what}: the encryption was not seen") };

        // cryptsetup gives the volume key of the header that the extension points to.
        let (header, key) = (bench.path("header"), bench.path(&format!("key {what}")));
        let mut bytes = read_all(&luks.header).unwrap();
        bytes.resize(bytes.len().next_multiple_of(1 << 20) + (1 << 20), 0);
        std::fs::write(&header, bytes).unwrap();
        let password = bench.path("secret");
        run(
            "cryptsetup",
            "cryptsetup-bin",
            &[
                "luksDump",
                "-q",
                "--dump-volume-key",
                "--key-file",
                text(&password),
                "--volume-key-file",
                text(&key),
                text(&header),
            ],
        );
        let key = std::fs::read(&key).unwrap();

        let size = luks.clusters.virtual_size();
        assert_eq!(size, 1 << 20, "{what}");
        let mut plain = Vec::new();
        let mut zeroes = 0;
        while let at @ ..=0x0f_ffff = u64::try_from(plain.len()).unwrap() {
            match luks.clusters.map(at, 100_000).unwrap() {
                Mapping::Zero { len } => {
                    plain.resize(plain.len() + usize::try_from(len).unwrap(), 0);
                    zeroes += len;
                }
                Mapping::Host { offset, len } => {
                    let mut data = vec![0; usize::try_from(len).unwrap()];
                    luks.clusters.file().read_exact_at(&mut data, offset).unwrap();
                    xts_decrypt(&key, offset / 512, &mut data);
                    plain.extend(data);
                }
            }
        }
        assert_same(&plain, &bench.disk, what);
        assert!(zeroes > 0, "{what}: unallocated clusters are zeroes");
    }
}

#[test]
fn qcow_qed_vdi_and_parallels_are_what_qemu_reads() {
    // Sizes that end inside a cluster, and one above a first table of the small ones.
    for (len, seed) in [(1 << 20, 21), ((5 << 20) + 1536, 22), (40 << 20, 23)] {
        let bench = Bench::new(test_disk(len, seed));
        let kinds = [
            ("qcow", ""),
            ("qed", ""),
            ("qed", "cluster_size=4096"),
            ("vdi", ""),
            ("vdi", "static=on"),
            ("parallels", ""),
            ("parallels", "cluster_size=64K"),
        ];
        for (format, options) in kinds {
            let image = bench.convert(format, options, &[]);
            let what = format!("{format} {options}, {len} bytes");
            let (_, found, notes) = compare(&image, format, None, &what);
            assert_same(&found[..bench.disk.len()], &bench.disk, &what);
            assert!(notes.is_empty(), "{what}: {notes:?}");
        }
    }
}
