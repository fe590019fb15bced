//! Mutated images of each container format: each gives bytes or an error, without a panic, in bounded time and memory.
//! Where the format has checksums of all it holds, the bytes are the right ones.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::{Rng, assert_same, qemu_img, run, test_disk, text};
use unluks::format::{Contents, Format, Mapping, Options, open};
use unluks::progress::Progress;
use unluks::{ReadAt, Result};

const MUTATIONS: usize = 1000;
const DISK: usize = 600 << 10;
/// A mutated image may declare any size up to this; reading the first part of it is enough.
const READ_MAX: u64 = 4 << 20;
/// One mutated image takes a debug build a few milliseconds on an idle machine.
const TIME_MAX: Duration = Duration::from_secs(20);
const MEMORY_MAX: u64 = 256 << 20;

/// Opens an image, reads what it has, and walks some extents.
fn exercise(bytes: Vec<u8>, format: Format) -> Result<Option<Vec<u8>>> {
    let opened = open(Arc::new(bytes), Options { format: Some(format), ..Options::default() })?;
    for book in &opened.checks.books {
        book.check(&Progress::default())?;
    }
    match opened.contents {
        Contents::Disk(disk) => {
            let mut at = 0;
            for _ in 0..50 {
                if at >= disk.len() {
                    break;
                }
                let extent = disk.extent_at(at)?;
                assert!(extent.len > 0 && extent.len <= disk.len() - at, "{extent:?} at byte {at}");
                at += extent.len;
            }
            let mut found = vec![0; usize::try_from(disk.len().min(READ_MAX)).unwrap()];
            disk.read_exact_at(&mut found, 0)?;
            let mut end = [0; 512];
            disk.read_exact_at(&mut end, disk.len().saturating_sub(512).min(disk.len() - disk.len().min(512)))
                .or_else(|e| if disk.len() < 512 { Ok(()) } else { Err(e) })?;
            Ok((disk.len() <= READ_MAX).then_some(found))
        }
        Contents::Qcow2Luks(luks) => {
            let mut at = 0;
            for _ in 0..2000 {
                if at >= luks.clusters.virtual_size() {
                    break;
                }
                at += match luks.clusters.map(at, 1 << 20)? {
                    Mapping::Zero { len } => len,
                    Mapping::Host { offset, len } => {
                        assert!(offset + len <= luks.clusters.file().len());
                        len
                    }
                };
            }
            Ok(None)
        }
    }
}

/// The most memory in bytes that this process ever had resident.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the kernel tells a process its memory");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM is in it");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Where in an image mutations do most: everything that is not one of the disk's own bytes, as far as can be told.
fn mutate(rng: &mut Rng, image: &[u8], tables: &[usize]) -> Vec<u8> {
    let mut mutated = image.to_vec();
    for _ in 0..=rng.below(5) {
        let at = match rng.below(8) {
            0 => rng.index(mutated.len()),
            1..=3 => rng.index(mutated.len().min(512)),
            _ => tables[rng.index(tables.len())] + rng.index(256),
        };
        let at = at.min(mutated.len() - 1);
        match rng.below(4) {
            0 => mutated[at] ^= 1 << rng.below(8),
            1 => mutated[at] = 0xff,
            2 => mutated[at] = 0,
            _ => mutated[at] = u8::try_from(rng.below(256)).unwrap(),
        }
    }
    if rng.below(10) == 0 {
        mutated.truncate(rng.index(image.len()));
    }
    mutated
}

/// Mutates `image` many times; `checked` says that all its bytes are covered by checksums.
fn mutations(name: &str, image: &[u8], format: Format, tables: &[usize], checked: Option<&[u8]>) {
    mutations_in(MEMORY_MAX, name, image, format, tables, checked);
}

/// Runs the test called `name` in a process of its own, where no other takes memory; there, `body` is run.
fn alone(name: &str, body: impl FnOnce()) {
    const ALONE: &str = "UNLUKS_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return body();
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--exact", name, "--nocapture"]).env(ALONE, "1").output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{name}: {out}\n{err}");
}

fn mutations_in(memory: u64, name: &str, image: &[u8], format: Format, tables: &[usize], checked: Option<&[u8]>) {
    let mut rng = Rng(0x5eed ^ u64::try_from(image.len()).unwrap());
    let before = peak();
    let (mut opened, mut failed) = (0, 0);
    for n in 0..MUTATIONS {
        let mutated = mutate(&mut rng, image, tables);
        let start = Instant::now();
        match exercise(mutated, format) {
            Ok(Some(found)) if checked.is_some() => {
                assert_same(&found, checked.unwrap(), &format!("{name}, mutation {n}"));
                opened += 1;
            }
            Ok(_) => opened += 1,
            Err(e) => {
                assert!(!e.rule().is_empty() || !e.message().is_empty(), "{name}, mutation {n}");
                failed += 1;
            }
        }
        assert!(start.elapsed() < TIME_MAX, "{name}, mutation {n}: {:?}", start.elapsed());
    }
    let taken = peak() - before;
    assert!(taken < memory, "{name}: {taken} bytes of memory");
    assert!(opened > 0 && failed > MUTATIONS / 20, "{name}: {opened} opened, {failed} failed: the mutations miss");
}

#[test]
fn mutated_images() {
    let dir = tempfile::tempdir().unwrap();
    let (raw, image) = (dir.path().join("disk.raw"), dir.path().join("image"));
    let disk = test_disk(DISK, 31);
    std::fs::write(&raw, &disk).unwrap();
    std::fs::write(dir.path().join("secret"), "pass").unwrap();
    let secret = format!("secret,id=s,file={}", text(&dir.path().join("secret")));
    const K: usize = 1 << 10;
    for (format, qemu, options, compressed, tables) in [
        (Format::Qcow2, "qcow2", "cluster_size=4k", false, [12 * K, 16 * K, 20 * K].as_slice()),
        (Format::Qcow2, "qcow2", "cluster_size=4k", true, &[12 * K, 16 * K, 20 * K]),
        (Format::Qcow2, "qcow2", "cluster_size=4k,compression_type=zstd", true, &[12 * K, 16 * K, 20 * K]),
        (Format::Qcow2, "qcow2", "cluster_size=16k,extended_l2=on", false, &[48 * K, 64 * K]),
        (Format::Qcow2, "qcow2", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", false, &[112]),
        (Format::Vhd, "vpc", "subformat=dynamic", false, &[512, 1536]),
        (Format::Vhdx, "vhdx", "", false, &[64 * K, 192 * K, 256 * K, 2048 * K, 2112 * K, 3072 * K]),
        (Format::Vdi, "vdi", "", false, &[256, 300, 512]),
        (Format::Parallels, "parallels", "", false, &[0, 64]),
        (Format::Qed, "qed", "cluster_size=4k", false, &[0, 4 * K, 20 * K]),
        (Format::Qcow, "qcow", "", false, &[0, 48, 4 * K, 8 * K]),
        (Format::Vmdk, "vmdk", "subformat=monolithicSparse", false, &[512, 10752, 11264, 13 * K]),
        (Format::Vmdk, "vmdk", "subformat=streamOptimized", false, &[512, 10752, 11264, 64 * K]),
    ] {
        let mut args = vec!["convert", "--object", &secret, "-f", "raw", "-O", qemu];
        if compressed {
            args.push("-c");
        }
        if !options.is_empty() {
            args.extend(["-o", options]);
        }
        args.extend([text(&raw), text(&image)]);
        qemu_img(&args);
        let bytes = std::fs::read(&image).unwrap();
        mutations(&format!("{qemu} {options} {compressed}"), &bytes, format, tables, None);
    }

    let target = dir.path().join("ewf");
    run("ewfacquire", "ewf-tools", &["-u", "-q", "-f", "encase6", "-c", "fast", "-t", text(&target), text(&raw)]);
    let bytes = std::fs::read(target.with_extension("E01")).unwrap();
    let find = |name: &[u8]| (0..bytes.len() - 16).filter(|at| bytes[*at..].starts_with(name)).collect::<Vec<_>>();
    let tables = [find(b"table\0"), find(b"volume\0"), find(b"sectors\0")].concat();
    assert_eq!(tables.len(), 3);
    mutations("ewf", &bytes, Format::Ewf, &tables, Some(&disk));
}

#[test]
fn mutated_lists_of_runs() {
    const BLOCK: u32 = 512;
    let chunk = |kind: u16, blocks: u32, body: &[u8]| {
        let total = 12 + u32::try_from(body.len()).unwrap();
        [
            kind.to_le_bytes().to_vec(),
            vec![0; 2],
            blocks.to_le_bytes().to_vec(),
            total.to_le_bytes().to_vec(),
            body.to_vec(),
        ]
        .concat()
    };
    let mut android = b"\x3a\xff\x26\xed\x01\0\0\0\x1c\0\x0c\0".to_vec();
    android.extend([BLOCK, 23, 12, 0].iter().flat_map(|n| n.to_le_bytes()));
    for n in 0..4u8 {
        android.extend(chunk(0xcac2, 3, &[n; 4]));
        android.extend(chunk(0xcac3, 2, &[]));
        android.extend(if n < 3 { chunk(0xcac1, 1, &[n; 512]) } else { chunk(0xcac4, 0, &[0; 4]) });
    }
    mutations("android", &android, Format::AndroidSparse, &[0, 28, 40], None);

    let n = |n: u64| n.to_le_bytes().to_vec();
    let record = |tag: u8, data: &[u8]| [vec![tag], n(u64::try_from(data.len()).unwrap()), data.to_vec()].concat();
    let mut rbd = b"rbd diff v2\n".to_vec();
    rbd.extend(record(b's', &n(64 << 10)));
    for at in 0..16 {
        rbd.extend(record(b'w', &[n(at * 4000), n(50), vec![7; 50]].concat()));
        rbd.extend(record(b'z', &[n(at * 4000 + 20), n(1000)].concat()));
    }
    rbd.push(b'e');
    mutations("rbd", &rbd, Format::Rbd, &[0, 12, 200, 600], None);
}

/// What a mutated image may take in memory, over what the test itself has.
const ALONE_MAX: u64 = 64 << 20;

#[test]
fn mutated_archives() {
    alone("hostile::mutated_archives", || {
        let disk = test_disk(100 << 10, 31);
        let zlib = "https://www.ietf.org/rfc/rfc1950.txt";
        for (what, archive) in [
            ("aff4 stream", crate::aff4::plain(&disk, zlib)),
            ("aff4 lz4", crate::aff4::plain(&disk, "https://code.google.com/p/lz4/")),
            ("aff4 map", crate::aff4::mapped(&disk)),
        ] {
            let image = archive.bytes();
            let find =
                |name: &[u8]| (0..image.len() - 20).filter(|at| image[*at..].starts_with(name)).collect::<Vec<_>>();
            let tables = [find(b"PK\x01\x02"), find(b"PK\x06"), find(b"@prefix aff4"), find(b"aff4:chunk")].concat();
            mutations_in(ALONE_MAX, what, &image, Format::Aff4, &tables, None);
        }
        // Behind the checksum: the text and the tables with their CRC-32 right.
        let mut rng = Rng(99);
        let (mut opened, mut failed) = (0, 0);
        for n in 0..MUTATIONS {
            let mut archive = crate::aff4::mapped(&disk);
            let member = 2 + rng.index(archive.members.len() - 2);
            let bytes = &mut archive.members[member].1;
            *bytes = mutate(&mut rng, bytes, &[0, 300, 500]);
            match exercise(archive.bytes(), Format::Aff4) {
                Ok(_) => opened += 1,
                Err(e) => {
                    assert!(!e.rule().is_empty(), "mutation {n}: {e}");
                    failed += 1;
                }
            }
        }
        assert!(opened > 0 && failed > MUTATIONS / 20, "{opened} opened, {failed} failed");
    });
}

/// All bytes of Ex01 are under a checksum: what is read is right.
#[test]
fn mutated_ex01() {
    alone("hostile::mutated_ex01", || {
        let disk = test_disk(DISK, 31);
        let image = crate::ewf2::image(&disk, 1000, 0).remove(0);
        let ends = [200, 400, 600, 900].map(|back| image.len() - back);
        mutations_in(ALONE_MAX, "ex01", &image, Format::Ewf, &[&[32, 100][..], &ends].concat(), Some(&disk));
    });
}

#[test]
fn mutated_descriptors() {
    let mut rng = Rng(77);
    let extents: String =
        (0..9).map(|n| format!("RW {} FLAT \"f{}.vmdk\" {}\nRW 5 ZERO\n", 8 + n, n % 3, n * 8)).collect();
    let good = format!("# Disk DescriptorFile\nCID=12345678\nparentCID=ffffffff\n{extents}").into_bytes();
    let files: Vec<Arc<dyn ReadAt>> =
        std::iter::repeat_with(|| -> Arc<dyn ReadAt> { Arc::new(vec![1u8; 64 << 10]) }).take(3).collect();
    let (mut opened, mut failed) = (0, 0);
    for n in 0..MUTATIONS {
        let mutated = mutate(&mut rng, &good, &[60, 100, 200]);
        let options = Options {
            format: Some(Format::Vmdk),
            segments: files.clone(),
            set: unluks::format::Set::Extents,
            ..Options::default()
        };
        match open(Arc::new(mutated), options) {
            Ok(image) => {
                let disk = crate::support::disk_of(image);
                let mut found = vec![0; usize::try_from(disk.len().min(READ_MAX)).unwrap()];
                disk.read_exact_at(&mut found, 0).unwrap();
                opened += 1;
            }
            Err(e) => {
                assert!(!e.rule().is_empty(), "mutation {n}: {e}");
                failed += 1;
            }
        }
    }
    assert!(opened > 0 && failed > MUTATIONS / 20, "{opened} opened, {failed} failed");
}

#[test]
fn noise_behind_each_magic() {
    let mut rng = Rng(41);
    for (magic, format) in [
        (b"QFI\xfb\0\0\0\x03".as_slice(), Format::Qcow2),
        (b"conectix", Format::Vhd),
        (b"vhdxfile", Format::Vhdx),
        (b"KDMV\x01\0\0\0", Format::Vmdk),
        (b"# Disk DescriptorFile\n", Format::Vmdk),
        (b"EVF\x09\x0d\x0a\xff\0", Format::Ewf),
    ] {
        for n in 0..MUTATIONS / 4 {
            let mut bytes = magic.to_vec();
            let len = rng.index(300 << 10);
            while bytes.len() < len {
                bytes.extend(match n % 3 {
                    0 => rng.next().to_le_bytes(),
                    1 => (rng.next() >> rng.below(64)).to_be_bytes(),
                    _ => (rng.next() >> rng.below(64)).to_le_bytes(),
                });
            }
            assert!(exercise(bytes, format).is_err(), "{format}: noise is no image");
        }
    }
}

/// A section header of an EWF file: its name, where the next one is, and its size.
fn ewf_section(kind: &[u8], next: usize, size: usize) -> Vec<u8> {
    let mut header = [kind, &vec![0; 16 - kind.len()]].concat();
    header.extend(u64::try_from(next).unwrap().to_le_bytes());
    header.extend(u64::try_from(size).unwrap().to_le_bytes());
    header.resize(72, 0);
    with_adler32(header)
}

fn with_adler32(mut bytes: Vec<u8>) -> Vec<u8> {
    let mut sum = adler2::Adler32::new();
    sum.write_slice(&bytes);
    bytes.extend(sum.checksum().to_le_bytes());
    bytes
}

/// Thousands of tables that each reach to the end of a file would take minutes to sum, each byte once for each table.
#[test]
fn tables_that_overlap_are_refused_before_they_are_summed() {
    const TABLES: usize = 20_000;
    const FILL: usize = 16 << 20;
    let mut file = [&b"EVF\x09\x0d\x0a\xff\0"[..], &[1, 1, 0, 0, 0]].concat();
    let volume: Vec<u8> = [1u32, 100, 64, 512, 6400, 0].iter().flat_map(|n| n.to_le_bytes()).collect();
    let volume = with_adler32([volume, vec![0; 1024]].concat());
    file.extend(ewf_section(b"volume", file.len() + 76 + volume.len(), 76 + volume.len()));
    file.extend(volume);
    let first = file.len();
    for n in 0..TABLES {
        let at = first + n * 100;
        let end = first + (TABLES + 1) * 100 + FILL;
        file.extend(ewf_section(b"table", at + 100, (end - at) / 4 * 4));
        let entries = u32::try_from(((end - at) / 4 * 4 - 104) / 4).unwrap();
        file.extend(with_adler32([entries.to_le_bytes().to_vec(), vec![0; 16]].concat()));
    }
    file.extend(ewf_section(b"done", file.len(), 0));
    file.resize(first + (TABLES + 2) * 100 + FILL, 0);
    let start = Instant::now();
    let e = exercise(file, Format::Ewf).err().unwrap();
    assert_eq!(e.rule(), "ewf.section", "{e}");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}
