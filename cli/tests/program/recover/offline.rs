//! Offline reencryptions that were not finished: what `cryptsetup-reencrypt` leaves beside an image.
//!
//! The images are made of two golden ones: what lies in the part that was reached is the second one's ciphertext, from the
//! same place of its data. Beside these, images that cryptsetup-reencrypt 2.3.7 itself was stopped in were opened by hand.

use std::fs;
use std::ops::Range;
use std::path::PathBuf;

use crate::common::{Golden, Run, text, unluks};

const MADE_UP: &str = "cafecafe-cafe-cafe-cafe-cafecafeeeee";

/// A golden image with its plaintext.
struct Side {
    golden: Golden,
    image: Vec<u8>,
    plaintext: Vec<u8>,
    data: usize,
}

impl Side {
    fn new(name: &str) -> Self {
        let golden = Golden::unpack(name);
        let out = golden.path("plaintext");
        assert_eq!(golden.decrypt(&out, true).code, Some(0));
        let image = fs::read(&golden.image).unwrap();
        let sectors = u32::from_be_bytes(image[104..108].try_into().unwrap());
        let data = usize::try_from(sectors).unwrap() * 512;
        Self { plaintext: fs::read(out).unwrap(), golden, image, data }
    }

    fn header(&self, uuid: &str) -> Vec<u8> {
        let mut header = self.image[..self.data].to_vec();
        header[168..208].fill(0);
        header[168..168 + uuid.len()].copy_from_slice(uuid.as_bytes());
        header
    }
}

/// The header of data that lies there as it is, from the image's first byte on.
fn made_up(side: &Side) -> Vec<u8> {
    let mut header = side.header(MADE_UP);
    header[8..72].fill(0);
    header[8..19].copy_from_slice(b"cipher_null");
    header[40..43].copy_from_slice(b"ecb");
    header[104..108].fill(0);
    header
}

/// What was stopped: the image, the files beside it, and the plaintext that is right.
struct Stopped {
    old: Side,
    new: Side,
    dir: tempfile::TempDir,
    uuid: &'static str,
    right: Vec<u8>,
}

const UUID: &str = "0b9c7b3e-7c1f-4b5e-9a57-1d9d3b0a4f11";

impl Stopped {
    /// Of `mode` 0, 1 or 2, after `at` bytes of the plaintext.
    fn new(mode: u32, is_forward: bool, at: usize) -> Self {
        let (old, new) = (Side::new("l1-aes-xts-256-sha1"), Side::new("l1-aes-xts-512-sha256"));
        let dir = tempfile::tempdir().unwrap();
        let uuid = if mode == 1 { MADE_UP } else { UUID };
        let len = old.plaintext.len();
        let (old_part, new_part): (Range<usize>, Range<usize>) =
            if is_forward { (at..len, 0..at) } else { (0..at, at..len) };
        // Forward, both lie in the same place: the later one's data is moved there.
        let moved = |side: &Side, plain: bool| match (plain, is_forward) {
            (true, _) => 0,
            (false, true) => old.data.max(new.data),
            (false, false) => side.data,
        };
        let places = [moved(&old, mode == 1), moved(&new, mode == 2)];
        let mut image = vec![0; old.data.max(new.data) + len];
        let mut right = vec![0; len];
        for ((side, plain), (part, place)) in
            [(&old, mode == 1), (&new, mode == 2)].into_iter().zip([old_part, new_part].into_iter().zip(places))
        {
            let stored = if plain { &side.plaintext[..] } else { &side.image[side.data..] };
            image[place + part.start..place + part.end].copy_from_slice(&stored[part.clone()]);
            right[part.clone()].copy_from_slice(&side.plaintext[part]);
        }
        if mode == 0 {
            image[..old.data].copy_from_slice(&old.header(uuid));
            image[..6].copy_from_slice(b"LUKS\xde\xad");
        }
        let header = |side: &Side, plain: bool, place: usize| {
            let mut header = if plain { made_up(side) } else { side.header(uuid) };
            let sectors = u32::try_from(place / 512).unwrap();
            header[104..108].copy_from_slice(&sectors.to_be_bytes());
            header
        };
        let write = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
        write("image", &image);
        write(&format!("LUKS-{uuid}.org"), &header(&old, mode == 1, places[0]));
        write(&format!("LUKS-{uuid}.new"), &header(&new, mode == 2, places[1]));
        let stopped = Self { old, new, dir, uuid, right };
        stopped.log(&format!(
            "# LUKS reencryption log, DO NOT EDIT OR DELETE.\nversion = 2\nUUID = {uuid}\ndirection = {}\nmode = {mode}\n\
             offset = {at}\nshift = 0\n# EOF\n",
            u8::from(!is_forward)
        ));
        stopped
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn log_path(&self) -> PathBuf {
        self.path(&format!("LUKS-{}.log", self.uuid))
    }

    fn log(&self, log: &str) {
        let mut log = log.as_bytes().to_vec();
        log.resize(512, 0);
        fs::write(self.log_path(), log).unwrap();
    }

    /// With the passphrases of both.
    fn decrypt(&self, more: &[&str]) -> Run {
        let (image, out) = (text(&self.path("image")), text(&self.path("out")));
        let (old, new) = (text(&self.old.golden.key), text(&self.new.golden.key));
        let args = ["decrypt", &image, "--key-file", &old, "--also-key-file", &new, "--output", &out, "--force"];
        unluks(&[&args[..], more].concat())
    }

    fn opens(&self, more: &[&str]) {
        let run = self.decrypt(more);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        assert!(fs::read(self.path("out")).unwrap() == self.right, "{}", run.stderr);
    }

    fn refuses(&self, more: &[&str], code: i32, why: &str) {
        let run = self.decrypt(more);
        assert_eq!(run.code, Some(code), "{}", run.stderr);
        assert!(run.stderr.contains(why), "{}", run.stderr);
        assert!(!self.path("out").exists());
    }
}

#[test]
fn both_parts_of_a_reencryption_are_opened() {
    for (is_forward, at) in [(true, 512), (true, 7680), (false, 4096), (true, 8192), (false, 0), (true, 0)] {
        let stopped = Stopped::new(0, is_forward, at);
        // Its log lies beside it, or is named.
        stopped.opens(&[]);
        stopped.opens(&["--header", &text(&stopped.log_path())]);
    }
}

#[test]
fn a_reencryption_that_had_not_begun_is_the_old_data() {
    let stopped = Stopped::new(0, false, 8192);
    stopped.log(&format!(
        "# LUKS reencryption log\nversion = 1\nUUID = {UUID}\ndirection = 1\noffset = 18446744073709551615\n"
    ));
    let run = stopped.decrypt(&["--length", "8192"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.stderr.contains("which had not begun"), "{}", run.stderr);
    assert!(fs::read(stopped.path("out")).unwrap() == stopped.right);
}

#[test]
fn encryption_and_decryption_are_opened_where_the_log_is_named() {
    for (mode, is_forward) in [(1, false), (2, true)] {
        let stopped = Stopped::new(mode, is_forward, 4096);
        let run = stopped.decrypt(&[]);
        assert_eq!(run.code, Some(4), "{}", run.stderr);
        let log = text(&stopped.log_path());
        stopped.opens(&["--header", &log]);
        let run = unluks(&["inspect", &text(&stopped.path("image")), "--header", &log]);
        let out = String::from_utf8_lossy(&run.stdout).into_owned();
        assert!(run.code == Some(0) && out.contains("came to byte 4096"), "{out}{}", run.stderr);
    }
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let stopped = Stopped::new(0, true, 4096);
    let log = |line: &str, by: &str| {
        let log = format!("version = 2\nUUID = {UUID}\ndirection = 0\nmode = 0\noffset = 4096\nshift = 0\n");
        assert!(log.contains(line));
        stopped.log(&format!("# LUKS reencryption log\n{}", log.replace(line, by)));
    };
    for (line, by, code, why) in [
        ("version = 2", "version = 3", 5, "1 and 2 are known"),
        ("direction = 0", "direction = 2", 4, "0 and 1 are allowed"),
        ("mode = 0", "mode = 3", 4, "0 to 2 are allowed"),
        ("mode = 0", "mode = 1", 4, "is wanted"),
        ("offset = 4096", "offset = 4097", 4, "a multiple of 512"),
        ("offset = 4096", "offset = x", 4, "a number is wanted"),
        ("offset = 4096\n", "", 4, "is missing"),
        ("shift = 0", "drift = 0", 4, "which is not known"),
        ("UUID = 0", "UUID = 1", 4, "they are not of one reencryption"),
        ("offset = 4096", "offset = 1048576", 4, "truncated"),
    ] {
        log(line, by);
        stopped.refuses(&[], code, why);
        stopped.refuses(&["--recover"], code, why);
    }
    // Without its log, or one of the headers, it says what is wanted.
    log("shift", "shift");
    let new = stopped.path(&format!("LUKS-{UUID}.new"));
    fs::rename(&new, stopped.path("elsewhere")).unwrap();
    stopped.refuses(&[], 1, ".new");
    fs::remove_file(stopped.log_path()).unwrap();
    stopped.refuses(&[], 5, "--header");
}

#[test]
fn both_passphrases_are_wanted_and_no_header_is_copied() {
    let stopped = Stopped::new(0, true, 4096);
    let image = text(&stopped.path("image"));
    let run = unluks(&[
        "decrypt",
        &image,
        "--key-file",
        &text(&stopped.old.golden.key),
        "--output",
        &text(&stopped.path("out")),
    ]);
    assert!(run.code == Some(3) && run.stderr.contains("--also-key-file"), "{}", run.stderr);
    let run = unluks(&["header", &image, "--output", &text(&stopped.path("header"))]);
    assert!(run.code == Some(2) && run.stderr.contains(".org"), "{}", run.stderr);
    // None of the files is ever an output.
    let run = stopped.decrypt(&["--output", &text(&stopped.path(&format!("LUKS-{UUID}.new")))]);
    assert_eq!(run.code, Some(2), "{}", run.stderr);
}
