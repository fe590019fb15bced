//! Names of pieces, and what is refused of a set.

use super::*;
use crate::ErrorKind;

/// But for those of hexadecimal, which every number may be.
fn ways(name: &str) -> Vec<Series> {
    Series::of(name).into_iter().filter(|series| series.digits != Digits::Hex).collect()
}

fn series(name: &str) -> Series {
    ways(name).swap_remove(0)
}

#[test]
fn numbers_follow_as_the_programs_count() {
    for (name, follow) in [
        ("x.001", ["002", "-"]),
        ("x.009", ["010", "-"]),
        ("x.999", ["1000", "-"]),
        ("x.89", ["90", "9000"]),
        ("x.9899", ["9900", "990000"]),
        ("x.az", ["ba", "-"]),
        ("x.yz", ["za", "zaaa"]),
        ("x.zyzz", ["zzaa", "zzaaaa"]),
    ] {
        let series = series(name);
        let mut found = series.after(&series.suffix);
        found.resize(2, "-".into());
        assert_eq!(found, follow, "{name}");
    }
    assert!(series("x.zz").after("zz").is_empty());
    let hex = Series { digits: Digits::Hex, ..series("x.00") };
    assert_eq!([hex.after("09"), hex.after("0f"), hex.after("ef")], [vec!["0a"], vec!["10"], vec!["f0", "f000"]]);
}

#[test]
fn what_is_no_piece_has_no_series() {
    for name in ["disk", "disk.raw2x", "7", ".001", "disk.img.1234567"] {
        let ways = ways(name);
        assert!(ways.iter().all(|way| !way.is_dotted()), "{name}: {ways:?}");
    }
    assert_eq!(ways("x.1000").iter().map(|way| way.width).collect::<Vec<_>>(), [4, 3, 2]);
    assert_eq!(ways("x.1").iter().map(|way| way.width).collect::<Vec<_>>(), [1]);
    assert_eq!(Series::of("xaa").iter().map(|way| way.stem.as_str()).collect::<Vec<_>>(), ["x"]);
}

struct Dir(tempfile::TempDir);

impl Dir {
    fn new(files: &[(&str, &[u8])]) -> Self {
        let dir = Self(tempfile::tempdir().unwrap());
        files.iter().for_each(|(name, bytes)| std::fs::write(dir.path(name), bytes).unwrap());
        dir
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The names of the pieces; `-` for an image of its own.
    fn names(&self, given: &str) -> String {
        let Some(pieces) = pieces(&self.path(given), &[]).unwrap() else { return "-".into() };
        let names = pieces.all.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned());
        names.collect::<Vec<_>>().join(" ")
    }

    fn refused(&self, given: &str) -> (ErrorKind, String) {
        let e = pieces(&self.path(given), &[]).err().unwrap();
        (e.kind(), e.to_string())
    }
}

#[test]
fn any_piece_leads_to_all_of_them() {
    for names in [
        ["e.001", "e.002", "e.003"],
        ["e.000", "e.001", "e.002"],
        ["e.00", "e.01", "e.02"],
        ["e.0001", "e.0002", "e.0003"],
        ["e.aa", "e.ab", "e.ac"],
        ["part-aa", "part-ab", "part-ac"],
        ["xaa", "xab", "xac"],
        ["x00", "x01", "x02"],
        ["E.AA", "E.AB", "E.AC"],
        ["e.1", "e.2", "e.3"],
        ["e.0", "e.1", "e.2"],
        ["e.001.dd", "e.002.dd", "e.003.dd"],
        ["e.000.img", "e.001.img", "e.002.img"],
        ["e.part0", "e.part1", "e.part2"],
        ["e.PART00.raw", "e.PART01.raw", "e.PART02.raw"],
    ] {
        let dir = Dir::new(&[(names[0], b"LUKS\xba\xbe.."), (names[1], &[2; 8]), (names[2], b"last"), ("e.txt", b"")]);
        for given in names {
            assert_eq!(dir.names(given), names.join(" "), "{given}");
        }
    }
}

#[test]
fn pieces_that_count_in_hexadecimal_are_no_decimal_ones() {
    let names: Vec<String> = (0..0x13).map(|n| format!("e.{n:02x}")).collect();
    let piece = |n: usize| if n == 0 { b"LUKS\xba\xbe..".as_slice() } else { &[7; 8] };
    let files: Vec<(&str, &[u8])> = names.iter().enumerate().map(|(n, name)| (name.as_str(), piece(n))).collect();
    let dir = Dir::new(&files);
    for given in &names {
        assert_eq!(dir.names(given), names.join(" "), "{given}");
    }
    std::fs::remove_file(dir.path("e.0c")).unwrap();
    assert!(
        ["e.00", "e.11"].iter().all(|given| dir.refused(given).1.contains("e.0c, a piece of the image, is missing"))
    );
}

#[test]
fn numbers_without_zeroes_are_counted() {
    let names: Vec<String> = (1..=12).map(|n| format!("e.{n}")).collect();
    let piece = |n: usize| if n == 0 { b"LUKS\xba\xbe..".as_slice() } else { &[7; 8] };
    let files: Vec<(&str, &[u8])> = names.iter().enumerate().map(|(n, name)| (name.as_str(), piece(n))).collect();
    let dir = Dir::new(&files);
    for given in ["e.1", "e.5", "e.11"] {
        assert_eq!(dir.names(given), names.join(" "), "{given}");
    }
    std::fs::remove_file(dir.path("e.10")).unwrap();
    std::fs::remove_file(dir.path("e.7")).unwrap();
    assert!(dir.refused("e.1").1.contains("e.7, a piece of the image, is missing"));
    // Copies with a number behind them are no pieces, and one alone is as any image.
    let luks: &[u8] = b"LUKS\xba\xbe..";
    let dir = Dir::new(&[("disk.1", luks), ("disk.2", luks), ("other.1", luks), ("ls.1", b"text")]);
    let found = ["disk.1", "disk.2", "other.1", "ls.1"].map(|name| dir.names(name));
    assert_eq!(found, ["disk.1", "-", "-", "-"]);
}

#[test]
fn a_gap_is_named() {
    for (names, missing) in [
        (["e.001", "e.002", "e.004"], "e.003"),
        (["e.001", "e.003", "e.004"], "e.002"),
        (["e.aa", "e.ab", "e.ad"], "e.ac"),
        (["e.aa", "e.ac", "e.ad"], "e.ab"),
        (["e.002", "e.003", "e.004"], "e.001"),
        (["xaa", "xab", "xad"], "xac"),
    ] {
        let dir = Dir::new(&names.map(|name| (name, b"abcd".as_slice())));
        for given in names {
            let (kind, said) = dir.refused(given);
            assert_eq!(kind, ErrorKind::InvalidInput);
            assert!(said.contains(missing), "{given}: {said}");
        }
    }
    assert!(Dir::new(&[("e.002", b"abcd")]).refused("e.002").1.contains("e.001"));
}

#[test]
fn a_piece_of_another_length_is_named() {
    for (lengths, wrong) in [([4, 3, 4], "e.002 "), ([4, 4, 5], "e.003 "), ([4, 4, 0], "e.003 "), ([4, 8, 4], "e.002 ")]
    {
        let [a, b, c] = lengths.map(|len| vec![1; len]);
        let dir = Dir::new(&[("e.001", &a), ("e.002", &b), ("e.003", &c)]);
        let (kind, said) = dir.refused("e.001");
        assert_eq!(kind, ErrorKind::Corrupt);
        assert!(said.contains(wrong.trim()) && said.contains("are allowed, for the first has 4"), "{said}");
    }
}

#[test]
fn images_of_their_own_stay_so() {
    let luks: &[u8] = b"LUKS\xba\xbe..";
    let dir = Dir::new(&[("disk.01", luks), ("disk.02", luks), ("disk.31", luks)]);
    assert_eq!(["disk.01", "disk.02", "disk.31"].map(|name| dir.names(name)), ["disk.01", "-", "-"]);
    let dir = Dir::new(&[("disk.02", luks), ("disk.2024", b"data"), ("disk.aa", luks), ("disk.gz", b"data")]);
    let found = ["disk.02", "disk.2024", "disk.aa", "disk.gz"].map(|name| dir.names(name));
    assert_eq!(found, ["-", "-", "-", "-"]);
    let dir = Dir::new(&[("disk.001", luks), ("disk.002", b"data....")]);
    let apart = dir.path("disk.002");
    assert_eq!(pieces(&dir.path("disk.001"), &[&apart]).unwrap().unwrap().all.len(), 1);
    assert_eq!(dir.names("disk.001"), "disk.001 disk.002");
    // A link may lead to any file.
    std::fs::rename(dir.path("disk.002"), dir.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink("elsewhere", dir.path("disk.002")).unwrap();
    assert_eq!(dir.names("disk.001"), "disk.001");
}

/// Bytes as encrypted ones: xorshift, the same at each run.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_be_bytes()
    });
    words.take(len / 8).flatten().collect()
}

/// As `start` begins, and then noise.
fn begun(start: &[u8]) -> Vec<u8> {
    let mut bytes = noise(LEN);
    bytes[..start.len()].copy_from_slice(start);
    bytes
}

const LEN: usize = 64 << 10;

/// The first sectors of a GPT whose disk has `len` bytes.
fn gpt(len: usize) -> Vec<u8> {
    let mut start = vec![0; 1024];
    start[446 + 4] = 0xee;
    start[446 + 8] = 1;
    start[446 + 12..][..4].fill(0xff);
    start[510..512].copy_from_slice(&[0x55, 0xaa]);
    start[512..520].copy_from_slice(b"EFI PART");
    start[544..552].copy_from_slice(&(u64::try_from(len / 512).unwrap() - 1).to_le_bytes());
    begun(&start)
}

#[test]
fn numbers_before_an_extension_are_joined_where_nothing_else_explains_them() {
    let (luks, more, last) = (begun(b"LUKS\xba\xbe"), noise(LEN), noise(LEN / 2));
    for names in [
        ["e000.img", "e001.img", "e002.img"],
        ["e01.dd", "e02.dd", "e03.dd"],
        ["e.part1", "e.part2", "e.part3"],
        ["e-part1.raw", "e-part2.raw", "e-part3.raw"],
        ["e.1.img", "e.2.img", "e.3.img"],
        ["e.08.img", "e.09.img", "e.10.img"],
    ] {
        let dir = Dir::new(&[(names[0], &luks), (names[1], &more), (names[2], &last)]);
        let wanted = if names[0].contains("08") { "-".into() } else { names.join(" ") };
        assert!(names.iter().all(|given| dir.names(given) == wanted), "{names:?}: {}", dir.names(names[0]));
    }
    // A table that says more than the file has is as good as noise, and zeroes may then follow.
    let dir = Dir::new(&[("d00.img", &gpt(2 * LEN)), ("d01.img", &vec![0; LEN])]);
    assert_eq!(dir.names("d01.img"), "d00.img d01.img");
    // A gap is named.
    let dir = Dir::new(&[("e000.img", &luks), ("e001.img", &more), ("e003.img", &last)]);
    for given in ["e000.img", "e001.img", "e003.img"] {
        assert!(dir.refused(given).1.contains("e002.img, a piece of the image, is missing"), "{given}");
    }
    let dir = Dir::new(&[("e.part2", &more), ("e.part3", &last)]);
    assert!(dir.refused("e.part3").1.contains("e.part1 or "), "{}", dir.refused("e.part3").1);
}

#[test]
fn disks_with_a_number_are_no_pieces() {
    let luks = begun(b"LUKS\xba\xbe");
    let mut ext = vec![0; LEN];
    ext[82..90].copy_from_slice(b"FAT32   ");
    let other = b"text ".repeat(LEN / 5);
    let mut member = luks.clone();
    member[LEN - 8192..][..4].copy_from_slice(&0xa92b_4efc_u32.to_le_bytes());
    let whole = gpt(LEN);
    for (first, second) in [
        (&luks, &luks),
        (&whole, &noise(LEN)),
        (&luks, &ext),
        (&luks, &other),
        (&member, &noise(LEN)),
        (&noise(LEN), &noise(LEN)),
        (&luks, &noise(LEN + 8)),
        (&ext, &luks),
    ] {
        let dir = Dir::new(&[("vm-01.img", first), ("vm-02.img", second)]);
        assert_eq!(["vm-01.img", "vm-02.img"].map(|name| dir.names(name)), ["-", "-"]);
    }
    // What is all of its disk swallows no neighbour, however that is called.
    let dir = Dir::new(&[("d.001", &whole), ("d.002", &noise(LEN))]);
    assert_eq!([dir.names("d.001"), dir.names("d.002")], ["d.001", "-"]);
    // A disk that was never written may follow, as well as a piece that was not.
    let dir = Dir::new(&[("vm-01.img", &luks), ("vm-02.img", &vec![0; LEN])]);
    assert!(["vm-01.img", "vm-02.img"].iter().all(|given| dir.refused(given).1.contains("nothing tells")));
    // So may the data of a header that is elsewhere.
    let dir = Dir::new(&[("vm-01.img", &luks), ("vm-02.img", &noise(LEN))]);
    assert!(dir.refused("vm-02.img").1.contains("nothing tells"));
    // The data of a header that was named with it.
    let dir = Dir::new(&[("vm-01.img", &luks), ("vm-02.img", &noise(LEN)), ("h", &luks)]);
    assert!(pieces(&dir.path("vm-02.img"), &[&dir.path("h")]).unwrap().is_none());
    let dir = Dir::new(&[("ubuntu-24.04.img", &noise(LEN)), ("ubuntu-24.05.img", &noise(LEN))]);
    assert_eq!(dir.names("ubuntu-24.04.img"), "-");
}

#[test]
fn a_last_piece_that_may_be_missing_is_said() {
    let luks = begun(b"LUKS\xba\xbe");
    let notes = |first: &[u8], last: usize| {
        let dir = Dir::new(&[("e.001", first), ("e.002", &noise(last))]);
        pieces(&dir.path("e.001"), &[]).unwrap().unwrap().notes.join("\n")
    };
    assert!(notes(&luks, LEN).contains("whether one is missing behind it"));
    assert!(!notes(&luks, LEN / 2).contains("missing"));
    assert!(!notes(&gpt(2 * LEN), LEN).contains("missing"));
    let longer = notes(&gpt(3 * LEN), LEN);
    assert!(longer.contains(&format!("have {} bytes, and what the first begins with says {}", 2 * LEN, 3 * LEN)));
}
