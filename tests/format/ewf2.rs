//! EWF of version 2 (Ex01). ewf-tools writes none, so the images are made here, as libewf's documentation has it; libewf
//! 20260924 reads what this makes as what went in.

use std::io::Write;
use std::sync::Arc;

use unluks::format::{Contents, Format, Options, open};
use unluks::num::to_u64;
use unluks::{ErrorKind, Result};

use crate::support::{disk_of, open_bytes, test_disk};

const CHUNK: usize = 32 << 10;

fn adler(bytes: &[u8]) -> [u8; 4] {
    let mut sum = adler2::Adler32::new();
    sum.write_slice(bytes);
    sum.checksum().to_le_bytes()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut stream = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    stream.write_all(bytes).unwrap();
    stream.finish().unwrap()
}

fn int(number: usize) -> [u8; 4] {
    u32::try_from(number).unwrap().to_le_bytes()
}

fn long(number: usize) -> [u8; 8] {
    u64::try_from(number).unwrap().to_le_bytes()
}

/// A segment file, to which sections are added.
struct Segment {
    bytes: Vec<u8>,
    previous: usize,
    flags: usize,
}

impl Segment {
    fn section(&mut self, kind: usize, data: &[u8], padding: usize) {
        self.bytes.extend_from_slice(data);
        self.bytes.resize(self.bytes.len() + padding, 0);
        let at = self.bytes.len();
        let mut descriptor = [int(kind), int(self.flags)].concat();
        descriptor.extend([long(self.previous), long(data.len() + padding)].concat());
        descriptor.extend([int(64), int(padding)].concat());
        descriptor.resize(60, 0);
        descriptor.extend(adler(&descriptor));
        self.bytes.extend(descriptor);
        self.previous = at;
    }

    /// Names and values, with tabs between them.
    fn text(&mut self, kind: usize, names: &str, values: &str) {
        let text = format!("\u{feff}1\nmain\n{names}\n{values}\n\n");
        let packed = zlib(&text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>());
        self.section(kind, &packed, packed.len().next_multiple_of(16) - packed.len());
    }
}

/// The segment files of an image of `disk`, with so many chunks each. `flags` are those of all sections.
pub fn image(disk: &[u8], chunks: usize, flags: usize) -> Vec<Vec<u8>> {
    let all: Vec<&[u8]> = disk.chunks(CHUNK).collect();
    let count = all.len().div_ceil(chunks);
    let segment = |(n, part): (usize, &[&[u8]])| {
        let mut bytes = b"EVF2\r\n\x81\0\x02\x01\x01\0".to_vec();
        bytes.extend(int(n + 1));
        bytes.extend([7; 16]);
        let mut file = Segment { bytes, previous: 0, flags };
        file.text(1, "sn\tts\tdt\tbp\tph", &format!("\t{}\tf\t512\t1", disk.len() / 512));
        file.text(2, "nm\tnt\ttb\tcp\tsb\tgr", &format!("name\tnote\t{}\t1\t64\t64", all.len()));
        let (mut data, mut entries) = (Vec::new(), Vec::new());
        for chunk in part {
            if chunk.len() == CHUNK && chunk.chunks(8).all(|eight| *eight == chunk[..8]) {
                entries.extend([chunk[..8].to_vec(), [int(0), int(5)].concat()].concat());
                continue;
            }
            let packed = zlib(chunk);
            let (stored, flags) =
                if packed.len() < chunk.len() { (packed, 1) } else { ([*chunk, &adler(chunk)].concat(), 2) };
            entries.extend(long(file.bytes.len() + data.len()));
            entries.extend([int(stored.len()), int(flags)].concat());
            data.extend(&stored);
            data.resize(data.len().next_multiple_of(16), 0);
        }
        file.section(3, &data, 0);
        let mut table = [long(n * chunks).to_vec(), int(part.len()).to_vec(), int(0).to_vec()].concat();
        table.extend(adler(&table));
        table.extend([0; 12]);
        table.extend(&entries);
        table.extend(adler(&entries));
        file.section(4, &table, 12);
        file.section(if n + 1 == count { 15 } else { 13 }, &[], 0);
        file.bytes
    };
    all.chunks(chunks).enumerate().map(segment).collect()
}

fn read(files: &[Vec<u8>]) -> Result<Vec<u8>> {
    let mut sources = files.iter().map(|file| -> Arc<dyn unluks::ReadAt> { Arc::new(file.clone()) });
    let first = sources.next().unwrap();
    let opened = open(first, Options { segments: sources.collect(), ..Options::default() })?;
    assert_eq!((opened.format, opened.sector_size), (Format::Ewf, Some(512)));
    let Contents::Disk(disk) = opened.contents else { panic!("a disk") };
    let mut bytes = vec![0; usize::try_from(disk.len()).unwrap()];
    disk.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

fn disk() -> Vec<u8> {
    let mut disk = test_disk((3 << 20) + 5 * 512, 21);
    disk[..CHUNK].copy_from_slice(&b"eight by".repeat(CHUNK / 8));
    disk[CHUNK..3 * CHUNK].fill(0);
    disk
}

#[test]
fn ex01_is_read() {
    let disk = disk();
    for chunks in [1000, 40] {
        assert!(read(&image(&disk, chunks, 0)).unwrap() == disk, "{chunks} chunks a segment file");
    }
}

/// The sectors of the list are no data: zeroes stand for them, which would decrypt to noise.
#[test]
fn what_could_not_be_read_for_an_ex01_is_an_error() {
    let disk = disk();
    let mut bytes = image(&disk, 1000, 0).remove(0);
    let list = |ranges: &[(usize, usize)]| {
        let mut list = [int(ranges.len()).to_vec(), vec![0; 12]].concat();
        list.extend(adler(&list));
        list.extend([0; 12]);
        list.extend(
            ranges.iter().flat_map(|(first, count)| [long(*first).to_vec(), int(*count).to_vec(), vec![0; 4]].concat()),
        );
        list
    };
    // In front of the last section, which is empty.
    bytes.truncate(bytes.len() - 64);
    let previous = bytes.len() - 64;
    let with = |list: &[u8]| {
        let mut file = Segment { bytes: bytes.clone(), previous, flags: 0 };
        file.section(5, list, 0);
        file.section(15, &[], 0);
        open_bytes(file.bytes, None)
    };
    let opened = with(&list(&[(1000, 3), (64, 1)])).unwrap();
    assert_eq!(opened.notes, ["ewf: 2048 bytes could not be read when the image was made"]);
    let image = disk_of(opened);
    for (sectors, is_there) in
        [(0..64, true), (64..65, false), (65..1000, true), (1000..1003, false), (1003..6000, true)]
    {
        let mut bytes = vec![0; sectors.len() * 512];
        let read = image.read_exact_at(&mut bytes, to_u64(sectors.start * 512));
        assert_eq!(read.is_ok(), is_there, "{sectors:?}");
        assert!(!is_there || bytes == disk[sectors.start * 512..sectors.end * 512], "{sectors:?}");
    }
    let mut cut = list(&[(1, 1)]);
    cut.truncate(40);
    let mut changed = list(&[(1, 1)]);
    changed[0] ^= 2;
    for bad in [cut, changed] {
        let e = with(&bad).err().unwrap();
        assert_eq!((e.kind(), e.rule()), (ErrorKind::Corrupt, "ewf.error2"), "{e}");
    }
}

#[test]
fn what_is_wrong_with_ex01_is_named() {
    let disk = disk();
    let files = image(&disk, 40, 0);
    let refused = |files: &[Vec<u8>]| {
        let e = read(files).err().unwrap();
        (e.kind(), e.rule().to_owned())
    };
    let corrupt = |rule: &str| (ErrorKind::Corrupt, rule.to_owned());
    assert_eq!(refused(&files[..1]), (ErrorKind::InvalidInput, "ewf.segments".into()));
    assert_eq!(refused(&[files[1].clone(), files[0].clone()]), corrupt("ewf.header"));
    assert_eq!(refused(&image(&disk, 1000, 2)), (ErrorKind::Unsupported, "ewf.encrypted".into()));
    let mut changed = files.clone();
    changed[1][16] ^= 1;
    assert_eq!(refused(&changed), corrupt("ewf.header"), "of another set");
    let mut changed = files.clone();
    changed[0][10] = 2;
    assert_eq!(refused(&changed), (ErrorKind::Unsupported, "ewf.compression".into()));
    let mut cut = files.clone();
    cut[1].truncate(files[1].len() - 100);
    assert_eq!(refused(&cut), corrupt("ewf.section"));
    // A byte in each place: the same disk, or an error, and never another disk.
    let disk = &disk[..5 * CHUNK + 512];
    let whole = image(disk, 1000, 0);
    for at in (0..whole[0].len()).step_by(whole[0].len() / 500).chain(whole[0].len() - 1000..whole[0].len()) {
        let mut changed = whole.clone();
        changed[0][at] ^= 0x15;
        // What the magic tells is another's.
        if at >= 8
            && let Ok(found) = read(&changed)
        {
            assert!(found == disk, "byte {at}");
        }
    }
}
