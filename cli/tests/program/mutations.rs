//! Headers that somebody changed, with their checksums put right, through the program: whatever they ask for, it ends
//! soon, with one of its exit codes, and prints nothing that a terminal would obey.
//!
//! `UNLUKS_MUTATIONS=N` tries N of them, `UNLUKS_SEED=S` others.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::common::{check_all, text, unluks};

const MUTATIONS: u64 = 150;
/// How long one run may take, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(10);
/// The images' data start at 1 MiB, and so some of it is there.
const IMAGE_LEN: u64 = (1 << 20) + 64 * 1024;

/// Reproducible numbers: SplitMix64.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(n).unwrap()).unwrap()
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

const IMAGES: &[&[u8]] = &[
    include_bytes!("../../../fuzz/images/luks1.img"),
    include_bytes!("../../../fuzz/images/luks2-pbkdf2.img"),
    include_bytes!("../../../fuzz/images/luks2-argon2id.img"),
];

/// What takes the place of a number in the JSON area.
const VALUES: &[&str] = &[
    "0",
    "1",
    "-1",
    "511",
    "512",
    "4096",
    "32",
    "33",
    "4294967295",
    "4294967296",
    "18446744073709551615",
    "18446744073709551616",
    "1e400",
    "0.5",
    "null",
    "true",
    "[]",
    "{}",
    "\"0\"",
    "\"\"",
];

/// What a line that the image forged starts with.
const FORGED: &str = "unluks: all is well";

/// What is put into a text.
const TEXTS: &[&str] = &[
    "\\u001b[2J",
    "\u{1b}]0;owned\u{7}",
    "\\n\\nunluks: all is well\\n",
    "\u{202e}",
    "\\u0000",
    "cipher_null-ecb",
    "dynamic",
    "-1",
    "007",
    "linear",
    "reencrypt",
    "capi:xts(aes)-plain64",
    "argon2i",
    "sha1",
    "%s%n",
    "../../etc/passwd",
];

/// The image number `n`, with one to three changes in its header.
fn mutated(n: u64) -> Vec<u8> {
    let mut numbers = Numbers(n);
    let base = numbers.pick(IMAGES);
    let mut image = base.to_vec();
    let luks2 = image[7] == 2;
    for _ in 0..=numbers.below(6) / 2 {
        match numbers.below(16) {
            0 => {
                let at = numbers.below(if luks2 { 512 } else { 592 });
                image[at] ^= 1 << numbers.below(8);
            }
            1 => {
                let at = numbers.below(148) * 4;
                let value =
                    numbers.pick(&[&[0u8; 4], &[0xff; 4], &[0x7f, 0xff, 0xff, 0xff], &[0, 0, 0, 1], b"\x1b[2J"]);
                image[at..at + 4].copy_from_slice(value);
            }
            2 => image.truncate(numbers.below(image.len())),
            _ if luks2 => change_json(&mut image, &mut numbers),
            _ => {
                // A keyslot's or the digest's numbers.
                let at = [108, 164, 208, 212, 248, 252, 104][numbers.below(7)];
                let value = [0u32, 1, 16, 4000, 0x7fff_ffff, 0x00ac_71f3, 0x0fff_ffff][numbers.below(7)];
                image[at..at + 4].copy_from_slice(&value.to_be_bytes());
            }
        }
        if image.len() < 0x8000 {
            break;
        }
    }
    crate::targets::fix_image(&mut image);
    image
}

/// Changes the JSON area of the primary header, and drops the secondary, or else that would be taken.
fn change_json(image: &mut [u8], numbers: &mut Numbers) {
    let area = &image[4096..16384];
    let end = area.iter().position(|b| *b == 0).unwrap_or(area.len());
    let mut json = area[..end].to_vec();
    let starts = |json: &[u8], sort: fn(&u8) -> bool| -> Vec<usize> {
        (1..json.len()).filter(|i| sort(&json[*i]) && !sort(&json[i - 1])).collect()
    };
    match numbers.below(10) {
        0 => {
            let at = numbers.below(json.len().max(1));
            if let Some(b) = json.get_mut(at) {
                *b ^= 1 << numbers.below(8);
            }
        }
        1..=5 => {
            let digits = starts(&json, u8::is_ascii_digit);
            if !digits.is_empty() {
                let at = digits[numbers.below(digits.len())];
                let len = json[at..].iter().take_while(|b| b.is_ascii_digit()).count();
                json.splice(at..at + len, numbers.pick(VALUES).bytes());
            }
        }
        6..=8 => {
            let words = starts(&json, u8::is_ascii_lowercase);
            if !words.is_empty() {
                let at = words[numbers.below(words.len())];
                let len = numbers.below(2) * json[at..].iter().take_while(|b| **b != b'"').count();
                json.splice(at..at + len, numbers.pick(TEXTS).bytes());
            }
        }
        _ => {
            // A part of the JSON, twice or not at all.
            let from = numbers.below(json.len().max(1));
            let len = numbers.below(64).min(json.len() - from.min(json.len()));
            let part: Vec<u8> = json.iter().skip(from).take(len).copied().collect();
            let twice = numbers.below(2);
            json.splice(from..from + len, part.repeat(twice * 2));
        }
    }
    json.resize(16384 - 4096, 0);
    image[4096..16384].copy_from_slice(&json);
    image[16384..32768].fill(0);
}

/// How often a command ended with an exit code.
type Seen = Mutex<BTreeMap<(String, i32), usize>>;

/// What is wrong with a run, if something is.
fn fault(args: &[&str], text_out: bool, seen: &Seen) -> Option<String> {
    let start = Instant::now();
    let run = unluks(args);
    let shown = args.join(" ");
    if start.elapsed() > PATIENCE {
        return Some(format!("{shown}: took {:?}", start.elapsed()));
    }
    let harmful =
        |c: char| c != '\n' && c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let stdout = String::from_utf8_lossy(&run.stdout);
    if run.stderr.contains(harmful) || text_out && stdout.contains(harmful) {
        return Some(format!("{shown}: prints control characters: {:?}{:?}", run.stderr, stdout));
    }
    if run.stderr.lines().chain(stdout.lines()).any(|l| l.starts_with(FORGED)) {
        return Some(format!("{shown}: prints a line that the image forged: {:?}{:?}", run.stderr, stdout));
    }
    if let Some(code) = run.code {
        *seen.lock().unwrap().entry((args[0].to_owned(), code)).or_default() += 1;
    }
    match run.code {
        Some(0) => None,
        // Warnings may come before it, but the error itself is one line.
        Some(3..=6) => (run.stderr.lines().filter(|l| l.starts_with("unluks: ")).count() != 1)
            .then(|| format!("{shown}: not one error: {:?}", run.stderr)),
        code => Some(format!("{shown}: exit {code:?}: {:?}", run.stderr)),
    }
}

#[test]
fn changed_headers_do_no_harm() {
    let number = |name: &str| std::env::var(name).ok().map(|n| n.parse::<u64>().unwrap());
    let first = number("UNLUKS_SEED").unwrap_or(1).wrapping_mul(1_000_000);
    let count = number("UNLUKS_MUTATIONS").unwrap_or(MUTATIONS);
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    fs::write(&key, "fuzz").unwrap();
    let all: Vec<u64> = (first..first + count).collect();
    let seen = Seen::default();
    check_all(
        &all,
        |n| format!("mutation {n}"),
        |n| {
            let path = dir.path().join(n.to_string());
            let image = mutated(*n);
            let file = fs::File::create(&path).unwrap();
            file.write_all_at(&image, 0).unwrap();
            // One that was cut stays cut; the others have their data, which is a hole.
            if image.len() >= 0x8000 {
                file.set_len(IMAGE_LEN).unwrap();
            }
            let (path, key) = (text(&path), text(&key));
            let decrypt = [
                "decrypt",
                &path,
                "--key-file",
                &key,
                "--output",
                "-",
                "--max-kdf-memory",
                "1M",
                "--max-kdf-time",
                "1s",
            ];
            let fault = fault(&["inspect", &path], true, &seen)
                .or_else(|| fault(&["inspect", "--json", &path], true, &seen))
                .or_else(|| fault(&decrypt, false, &seen));
            fs::remove_file(&path).unwrap();
            fault
        },
    );
    let seen = seen.into_inner().unwrap();
    eprintln!("{seen:?}");
    // The changes reach all the way: what inspects is refused and taken, what decrypts does so for every reason.
    for (command, codes) in [("inspect", &[0, 4][..]), ("decrypt", &[0, 3, 4, 5, 6])] {
        for code in codes {
            assert!(seen.contains_key(&(command.to_owned(), *code)), "no {command} ended with {code}: {seen:?}");
        }
    }
}

#[test]
fn the_images_open_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let (path, key) = (dir.path().join("image"), dir.path().join("key"));
    fs::write(&key, "fuzz").unwrap();
    for image in IMAGES {
        fs::write(&path, image).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_len(IMAGE_LEN).unwrap();
        let run =
            unluks(&["decrypt", &text(&path), "--key-file", &text(&key), "--output", "-", "--max-kdf-memory", "1M"]);
        assert_eq!((run.code, run.stdout.len()), (Some(0), 64 * 1024), "{}", run.stderr);
    }
}
