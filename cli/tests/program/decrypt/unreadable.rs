//! Images of which some could not be read: what is lost is said, to the sector, and nothing else is.

use std::fs;
use std::path::PathBuf;

use crate::common::{Golden, Run, text, unluks};
use crate::decrypt::{assert_ok, assert_refused, decrypt, small};

/// A mapfile that says of bytes of the image that they could not be read.
fn map(golden: &Golden, lost: &[(usize, usize)]) -> PathBuf {
    let (path, mut text, mut at) = (golden.path("image.map"), "0x0 +\n".to_owned(), 0);
    for (start, len) in lost {
        if *start > at {
            text += &format!("{at} {} +\n", start - at);
        }
        text += &format!("{start} {len} -\n");
        at = start + len;
    }
    text += &format!("{at} {} +\n", 1u64 << 40);
    fs::write(&path, text).unwrap();
    path
}

/// Decrypts with the map.
fn rescue(golden: &Golden, map: &std::path::Path, more: &[&str]) -> Run {
    decrypt(golden, &[&["--image-map", &text(map)], more].concat())
}

fn file_len(golden: &Golden) -> usize {
    usize::try_from(fs::metadata(&golden.image).unwrap().len()).unwrap()
}

/// Where the data starts, in the image of that name.
fn data_start(golden: &Golden) -> usize {
    file_len(golden) - 8192
}

#[test]
fn what_cannot_be_read_is_said_to_the_sector_and_the_rest_is_right() {
    let (golden, plaintext) = small();
    let start = data_start(&golden);
    let map = map(&golden, &[(start + 512, 512), (start + 4096, 1024), (start + 8000, 100)]);
    let out = golden.path("out");
    let run = rescue(&golden, &map, &["-o", &text(&out)]);
    let place = format!("at byte {}", start + 512);
    assert_refused(&run, 1, &["could not be read from the medium", &place, "--bad-sectors"]);
    assert!(!out.exists());
    let lost = [(512, 512), (4096, 1024), (7680, 512)];
    let mut zeroed = plaintext.clone();
    lost.iter().for_each(|(at, len)| zeroed[*at..at + len].fill(0));
    for how in ["zero", "skip"] {
        let (out, map_out) = (golden.path(how), golden.path(&format!("{how}.map")));
        let run = rescue(&golden, &map, &["-o", &text(&out), "--bad-sectors", how, "--map", &text(&map_out)]);
        assert_eq!(run.refusal_fault(&[4]), None, "{}", run.stderr);
        assert!(run.stderr.contains("2048 bytes of plaintext in 3 runs could not be read"), "{}", run.stderr);
        for (at, len) in lost {
            let line = format!("bytes {at} to {} of the plaintext, stored from byte {} on", at + len, start + at);
            assert!(run.stderr.contains(&line), "{line}: {}", run.stderr);
        }
        assert!(fs::read(&out).unwrap() == zeroed, "{how}");
        let written = fs::read_to_string(&map_out).unwrap();
        let blocks: Vec<_> = written.lines().filter(|line| line.ends_with(" -")).collect();
        assert_eq!(blocks, ["0x00000200  0x00000200  -", "0x00001000  0x00000400  -", "0x00001E00  0x00000200  -"]);
    }
    // Of a sector with a bad end, the start is right.
    let run = rescue(&golden, &map, &["-o", "-", "--bad-sectors", "report"]);
    assert_eq!(run.code, Some(4));
    let right = [0..512, 1024..4096, 5120..7680];
    assert!(right.into_iter().all(|range| run.stdout[range.clone()] == plaintext[range]));
    assert!(run.stdout[512..1024] != plaintext[512..1024] && run.stdout.len() == plaintext.len());
    // A part that has none of it is whole.
    let run = rescue(&golden, &map, &["-o", "-", "--skip", "1024", "--length", "3072"]);
    assert_ok(&run);
    assert!(run.stdout == plaintext[1024..4096]);
}

#[test]
fn each_sort_of_sector_is_lost_as_a_whole() {
    // The sector's size, and where the second half of its second sector is stored.
    for (name, sector) in [("l2-sector-4096", 4096), ("l1-aes-cbc-essiv-128", 512), ("l2-tweak-sector-4096", 4096)] {
        let golden = Golden::unpack(name);
        let whole = decrypt(&golden, &["-o", "-"]);
        assert_ok(&whole);
        let start = file_len(&golden) - whole.stdout.len();
        let map = map(&golden, &[(start + sector + sector / 2, 16)]);
        let run = rescue(&golden, &map, &["-o", "-", "--bad-sectors", "zero"]);
        assert_eq!(run.code, Some(4), "{name}: {}", run.stderr);
        let mut wanted = whole.stdout;
        wanted[sector..2 * sector].fill(0);
        assert!(run.stdout == wanted, "{name}");
        assert!(run.stderr.contains(&format!("{sector} bytes of plaintext in 1 run")), "{name}: {}", run.stderr);
    }
}

#[test]
fn an_unreadable_tag_loses_its_sectors_and_no_others() {
    let golden = Golden::unpack("l2-integrity-no-journal");
    let whole = decrypt(&golden, &["-o", "-"]);
    assert_ok(&whole);
    let len = file_len(&golden);
    let lost_by = |at: usize| {
        let map = map(&golden, &[(at, 512)]);
        let run = rescue(&golden, &map, &["-o", "-", "--bad-sectors", "zero"]);
        let bad: Vec<_> = (0..whole.stdout.len() / 512)
            .filter(|n| run.stdout.get(n * 512..(n + 1) * 512) != whole.stdout.get(n * 512..(n + 1) * 512))
            .collect();
        assert!(bad.iter().all(|n| run.stdout[n * 512..(n + 1) * 512] == [0; 512]), "{at}");
        (run.code, bad.len(), run.stderr)
    };
    let lost: Vec<_> = (len - 12 * 512..len).step_by(512).map(lost_by).collect();
    assert!(
        lost.iter().any(|(code, bad, stderr)| {
            (*code, *bad) == (Some(4), 1) && stderr.contains("512 bytes of plaintext in 1 run could not be read")
        }),
        "{lost:?}"
    );
    assert!(lost.iter().all(|(code, bad, _)| (*code == Some(0)) == (*bad == 0)), "{lost:?}");
}

#[test]
fn a_header_that_cannot_be_read_is_stood_in_for() {
    let (golden, plaintext) = small();
    let run = rescue(&golden, &map(&golden, &[(0, 4096)]), &["-o", "-"]);
    assert_ok(&run);
    assert!(run.stdout == plaintext && run.stderr.contains("primary header cannot be read"), "{}", run.stderr);
}

#[test]
fn a_map_that_is_none_is_refused_and_is_never_an_output() {
    let (golden, _) = small();
    let (bad, out) = (golden.path("bad.map"), golden.path("out"));
    fs::write(&bad, "<html>").unwrap();
    assert_refused(&rescue(&golden, &bad, &["-o", &text(&out)]), 4, &["bad.map", "line 1", "no mapfile of ddrescue"]);
    let map = map(&golden, &[]);
    for more in [&["-o", &text(&map), "--force"][..], &["-o", &text(&out), "--map", &text(&map), "--force"]] {
        let before = fs::read(&map).unwrap();
        assert_refused(&rescue(&golden, &map, more), 2, &["the map of the image"]);
        assert!(fs::read(&map).unwrap() == before);
    }
    let both = text(&golden.path("both"));
    let run = decrypt(&golden, &["-o", &text(&out), "--hash", "md5", "--hash-file", &both, "--map", &both]);
    assert_refused(&run, 2, &["--map", "--hash-file"]);
    let run = decrypt(&golden, &["-o", &text(&out), "--map", &text(&out)]);
    assert_refused(&run, 2, &["--map", "the output itself"]);
    // A sound image has a map without a gap, and a file from before is left alone.
    let run = decrypt(&golden, &["-o", &text(&out), "--map", &both]);
    assert_ok(&run);
    assert!(fs::read_to_string(&both).unwrap().ends_with("0x00000000  0x00002000  +\n"));
    let run = unluks(&["decrypt", &text(&golden.image), "--key-file", &text(&golden.key), "-o", "-", "--map", &both]);
    assert_refused(&run, 2, &["there already", "--force"]);
}
