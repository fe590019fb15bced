//! Keys stay where they belong: seen from outside as another user would look, in all that is printed, and in the memory
//! after an unlock.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{UNLUKS, install, text, unluks, unluks_with_stdin};

/// Opens the images that the fuzz targets have.
const PASSPHRASE: &str = "fuzz";
/// The user that looks and is looked at where the tests run as root: nobody.
const NOBODY: u32 = 65534;
const PATIENCE: Duration = Duration::from_secs(30);

/// A directory that the child can use whoever it runs as: an image of a few MiB whose plaintext is garbage, its key, and
/// the program itself, for the build's own directory may be closed to others.
struct Stage {
    dir: tempfile::TempDir,
    user: u32,
}

impl Stage {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let me = fs::metadata("/proc/self").unwrap().uid();
        let stage = Self { dir, user: if me == 0 { NOBODY } else { me } };
        fs::set_permissions(stage.dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        install(Path::new(UNLUKS), &stage.path("unluks"));
        fs::write(stage.path("image"), include_bytes!("../../../fuzz/images/luks2-pbkdf2.img")).unwrap();
        // More than any pipe holds: the rest of the file is a hole.
        File::options().write(true).open(stage.path("image")).unwrap().set_len(64 << 20).unwrap();
        fs::write(stage.path("key"), PASSPHRASE).unwrap();
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        text(&self.path(name))
    }

    fn spawn(&self, program: &Path, args: &[&str]) -> Running {
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if fs::metadata("/proc/self").unwrap().uid() != self.user {
            command.uid(self.user).gid(self.user);
        }
        Running(command.spawn().unwrap_or_else(|e| panic!("{}: {e}", program.display())))
    }
}

/// A child that is ended with the test.
struct Running(Child);

impl Running {
    fn proc(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.0.id()))
    }

    /// The line of a file in /proc that starts with `key`.
    fn line(&self, file: &str, key: &str) -> String {
        let text = fs::read_to_string(self.proc(file)).unwrap_or_default();
        text.lines().find(|l| l.starts_with(key)).unwrap_or_default().to_owned()
    }

    /// Bytes that are locked in memory.
    fn locked(&self) -> u64 {
        let line = self.line("status", "VmLck:");
        line.split_whitespace().nth(1).map_or(0, |kib| kib.parse::<u64>().unwrap() * 1024)
    }

    /// Who owns the files that show a process's inside: root, where it is not dumpable (proc(5)).
    fn owner_of_inside(&self) -> u32 {
        fs::metadata(self.proc("environ")).unwrap().uid()
    }

    /// Waits until `ready`.
    fn wait_until(&mut self, what: &str, ready: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !ready(self) {
            if let Some(status) = self.0.try_wait().unwrap() {
                let mut said = String::new();
                self.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
                panic!("ended with {status} before it {what}: {said}");
            }
            assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn check_closed_to_others(&self, user: u32) {
        assert_ne!(self.owner_of_inside(), user, "the process is dumpable: any process of the same user can read it");
        let core = self.line("limits", "Max core file size");
        let limits: Vec<_> = core.split_whitespace().skip(4).take(2).collect();
        assert_eq!(limits, ["0", "0"], "{core}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn while_the_key_is_read_it_is_locked_and_nobody_can_look() {
    let stage = Stage::new();
    let args = ["decrypt", &stage.text("image"), "--key-file", "-", "--output", &stage.text("plain")];
    let mut child = stage.spawn(&stage.path("unluks"), &args);
    let mut stdin = child.0.stdin.take().unwrap();
    stdin.write_all(&PASSPHRASE.as_bytes()[..2]).unwrap();
    let allowed = fs::read_to_string(child.proc("limits")).unwrap();
    let allowed = allowed.lines().find(|l| l.starts_with("Max locked memory")).unwrap().to_owned();
    match allowed.split_whitespace().nth(3).unwrap() {
        // Where nothing may be locked, it must work all the same.
        "0" => {}
        _ => child.wait_until("locked memory for the key", |c| c.locked() >= 4096),
    }
    child.wait_until("was closed to others", |c| c.owner_of_inside() != stage.user);
    child.check_closed_to_others(stage.user);

    stdin.write_all(&PASSPHRASE.as_bytes()[2..]).unwrap();
    drop(stdin);
    let status = child.0.wait().unwrap();
    assert!(status.success(), "{status}");
    let mode = fs::metadata(stage.path("plain")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600, "{mode:o}");
}

#[test]
fn the_check_sees_an_ordinary_process_as_open() {
    let stage = Stage::new();
    let child = stage.spawn(Path::new("/bin/cat"), &[]);
    let start = Instant::now();
    // Between fork and exec it still is this test, with this test's owner.
    while child.owner_of_inside() != stage.user {
        assert!(start.elapsed() < PATIENCE, "an ordinary process seems closed: then the other tests show nothing");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn while_it_decrypts_its_arguments_have_no_key_and_nobody_can_look() {
    let stage = Stage::new();
    let (image, key) = (stage.text("image"), stage.text("key"));
    for key_args in [["--key-file", &key], ["--passphrase-file", &key], ["--key", &key]] {
        let args = [&["decrypt", &image, "--output", "-"], &key_args[..]].concat();
        let mut child = stage.spawn(&stage.path("unluks"), &args);
        // A first byte of plaintext has come: it is unlocked. The pipe is not drained, so it stays there.
        let mut first = [0];
        child.0.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
        child.check_closed_to_others(stage.user);
        let cmdline = fs::read(child.proc("cmdline")).unwrap();
        assert!(cmdline.starts_with(stage.text("unluks").as_bytes()), "the arguments can be read");
        assert!(!contains(&cmdline, PASSPHRASE.as_bytes()), "{}", String::from_utf8_lossy(&cmdline));
        assert!(child.0.try_wait().unwrap().is_none(), "it is still at work");
    }
}

#[test]
fn an_unfinished_output_is_closed_to_others_too() {
    let stage = Stage::new();
    let fifo_image = stage.path("pipe");
    // The image comes through a pipe that stops, so that the output stays unfinished.
    fs::rename(stage.path("image"), &fifo_image).unwrap();
    let args = ["decrypt", "-", "--key-file", &stage.text("key"), "--output", &stage.text("plain")];
    let mut child = stage.spawn(&stage.path("unluks"), &args);
    let image = fs::read(&fifo_image).unwrap();
    let mut stdin = child.0.stdin.take().unwrap();
    stdin.write_all(&image[..8 << 20]).unwrap();
    let outputs = |stage: &Stage| -> Vec<PathBuf> {
        let known = ["unluks", "pipe", "key"].map(|n| stage.path(n));
        fs::read_dir(stage.dir.path()).unwrap().map(|e| e.unwrap().path()).filter(|p| !known.contains(p)).collect()
    };
    child.wait_until("had begun its output", |_| !outputs(&stage).is_empty());
    for path in outputs(&stage) {
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, 0o600, "{}: {mode:o}", path.display());
        assert_ne!(path, stage.path("plain"), "it has its name before it is whole");
    }
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|w| w == needle)
}

/// All forms in which a secret might be printed.
fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    use base64::Engine;
    let hex = hex::encode(secret);
    let numbers = format!("{secret:?}");
    let base64 = base64::engine::general_purpose::STANDARD_NO_PAD.encode(secret);
    [secret.to_vec(), hex.to_uppercase().into_bytes(), hex.into_bytes()]
        .into_iter()
        .chain([numbers.trim_matches(['[', ']']).as_bytes().to_vec(), base64.as_bytes()[..base64.len() - 1].to_vec()])
        .collect()
}

#[test]
fn nothing_that_is_printed_has_the_key() {
    let stage = Stage::new();
    let marker = b"Marker7-passphrase-that-nobody-must-ever-see";
    let (good, l1) = (stage.text("image"), stage.text("l1"));
    fs::write(stage.path("l1"), include_bytes!("../../../fuzz/images/luks1.img")).unwrap();
    File::options().write(true).open(&l1).unwrap().set_len(2 << 20).unwrap();
    fs::write(stage.path("marker"), marker).unwrap();
    fs::write(stage.path("line"), [&marker[..], b"\nmore"].concat()).unwrap();
    fs::write(stage.path("long"), marker.repeat(200)).unwrap();
    fs::write(stage.path("hex"), marker.iter().map(|b| format!("{b:02X}")).collect::<String>() + "\n").unwrap();
    let (file, line, long, hex) = (stage.text("marker"), stage.text("line"), stage.text("long"), stage.text("hex"));
    let cases: &[(&[&str], i32)] = &[
        (&["--key-file", &file], 3),
        (&["--key-file", &file, "--key-slot", "0"], 3),
        (&["--key-file", &file, "--key-slot", "7"], 2),
        (&["--key-file", &file, "--keyfile-size", "9999"], 2),
        (&["--key-file", &file, "--keyfile-offset", "9999"], 2),
        (&["--key-file", &file, "--max-kdf-time", "0s"], 6),
        (&["--barbican-key", &file], 3),
        (&["--passphrase-file", &line], 3),
        (&["--passphrase-file", &long], 6),
        (&["--key", &file], 3),
        (&["--key", &line], 3),
        (&["--key", &hex], 3),
        (&["--volume-key-file", &file], 3),
        (&["--volume-key-file", &long], 3),
    ];
    let no_marker = |what: &str, run: &crate::common::Run| {
        for form in forms(marker) {
            let printed = contains(run.stderr.as_bytes(), &form) || contains(&run.stdout, &form);
            assert!(!printed, "{what}: {}", run.stderr);
        }
    };
    for image in [&good, &l1] {
        for (args, code) in cases {
            for more in [&[][..], &["--progress", "json", "--hash", "sha256"]] {
                let out = stage.text("out");
                let args = [&["decrypt", image, "--output", &out], *args, more].concat();
                let run = unluks(&args);
                assert_eq!(run.code, Some(*code), "{args:?}: {}", run.stderr);
                assert!(!run.stderr.is_empty());
                no_marker(&format!("{args:?}"), &run);
            }
        }
        let run = unluks_with_stdin(&["decrypt", image, "--output", "-"], marker);
        assert_eq!(run.code, Some(3), "{}", run.stderr);
        no_marker("stdin", &run);
        let run = unluks(&["serve", image, "--key-file", &file, "--run", "true", "--verbose"]);
        assert_eq!(run.code, Some(3), "{}", run.stderr);
        no_marker("serve --verbose", &run);
        let run = unluks(&["decrypt", image, "--key-file", &file, "--output", "-", "--skip", "99999999999"]);
        no_marker("--skip", &run);
    }
}

mod memory {
    //! After an unlock no copy of the passphrase or the key is left: this process looks through its own memory.
    //!
    //! What is looked for is kept masked, so that it is never found in the search itself.

    use std::sync::{Arc, Mutex, PoisonError};

    use unluks::{Image, Key, SecretBytes};

    use super::*;

    const MASK: u8 = 0xa5;
    /// One test at a time: a search makes copies, which another search would find.
    static ALONE: Mutex<()> = Mutex::new(());

    /// Where the unmasked `needle` lies in this process's memory, as the names of its mappings.
    fn find(masked: &[u8]) -> Vec<String> {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let memory = File::open("/proc/self/mem").unwrap();
        let mut found = Vec::new();
        let mut buf = vec![0u8; 1 << 20];
        for map in maps.lines() {
            let mut fields = map.split_whitespace();
            let (range, rights) = (fields.next().unwrap(), fields.next().unwrap());
            if !rights.starts_with("rw") {
                continue;
            }
            let (from, to) = range.split_once('-').unwrap();
            let (mut at, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
            while at < to {
                let n = usize::try_from(to - at).unwrap().min(buf.len());
                // A mapping may go away meanwhile; what is not there holds nothing.
                if memory.read_exact_at(&mut buf[..n], at).is_err() {
                    break;
                }
                let hit = |w: &[u8]| w[0] == masked[0] ^ MASK && w.iter().zip(masked).all(|(b, m)| *b == m ^ MASK);
                if let Some(p) = buf[..n].windows(masked.len()).position(hit) {
                    found.push(format!("{:x} in {map}", at + u64::try_from(p).unwrap()));
                }
                // A secret may lie across the border of two reads.
                at += u64::try_from(if n == buf.len() { n - masked.len() + 1 } else { n }).unwrap();
            }
            buf.fill(0);
        }
        found
    }

    fn image(bytes: &[u8]) -> Image {
        let mut bytes = bytes.to_vec();
        bytes.resize((1 << 20) + 8192, 0);
        Image::open(Arc::new(bytes)).unwrap()
    }

    /// A passphrase that is nowhere else, and the same masked.
    fn passphrase() -> (SecretBytes, Vec<u8>) {
        let mut secret = SecretBytes::zeroed(40).unwrap();
        let mut masked = Vec::new();
        let mut x = 0x1234_5678_9abc_def1u64 ^ u64::from(std::process::id());
        for b in secret.expose_mut() {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *b = x.to_be_bytes()[0];
            masked.push(*b ^ MASK);
        }
        (secret, masked)
    }

    #[test]
    fn the_search_finds_what_is_there() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let (secret, masked) = passphrase();
        assert!(!find(&masked).is_empty());
        drop(secret);
        assert_eq!(find(&masked), Vec::<String>::new());
    }

    #[test]
    fn no_copy_of_a_passphrase_or_a_key_is_left() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let options = unluks::luks::unlock::UnlockOptions::default();
        for bytes in [
            &include_bytes!("../../../fuzz/images/luks1.img")[..],
            include_bytes!("../../../fuzz/images/luks2-pbkdf2.img"),
            include_bytes!("../../../fuzz/images/luks2-argon2id.img"),
        ] {
            let image = image(bytes);
            let (secret, masked) = passphrase();
            let guess = Key::guess(&secret).unwrap();
            drop(secret);
            image.unlock(&guess, &options).err().unwrap();
            drop(guess);
            assert_eq!(find(&masked), Vec::<String>::new(), "a wrong passphrase");
            for pad in [0x36, 0x5c] {
                let padded: Vec<u8> = masked.iter().map(|b| b ^ pad).collect();
                assert_eq!(find(&padded), Vec::<String>::new(), "a wrong passphrase under HMAC's pad");
            }

            let key = Key::passphrase(SecretBytes::copy_of(PASSPHRASE.as_bytes()).unwrap());
            let unlocked = image.unlock(&key, &options).unwrap();
            let masked: Vec<u8> = unlocked.keys().values().next().unwrap().expose().iter().map(|b| b ^ MASK).collect();
            assert!(!find(&masked).is_empty(), "the key is there");
            drop(unlocked);
            assert_eq!(find(&masked), Vec::<String>::new(), "the volume key");
        }
    }

    /// The round keys 13 and 14 of AES-256 for `key`, masked (FIPS 197, 5.2).
    fn last_round_keys(key: &[u8]) -> Vec<u8> {
        let times = |a: u8, b: u8| {
            (0..8).filter(|n| b >> n & 1 == 1).fold(0, |sum, n| {
                let shifted = (0..n).fold(a, |a, _| (a << 1) ^ if a & 0x80 == 0 { 0 } else { 0x1b });
                sum ^ shifted
            })
        };
        let substitute = |byte: u8| {
            let inverse = (0..=255).find(|n| times(*n, byte) == 1).unwrap_or(0);
            (0..5).fold(0x63, |sum, n| sum ^ inverse.rotate_left(n))
        };
        let mut words = SecretBytes::zeroed(240).unwrap();
        let words = words.expose_mut();
        words[..32].copy_from_slice(key);
        let mut round = 1u8;
        for at in (32..240).step_by(4) {
            let mut word = [words[at - 4], words[at - 3], words[at - 2], words[at - 1]];
            if at % 32 == 0 {
                word.rotate_left(1);
                word = word.map(substitute);
                word[0] ^= round;
                round = times(round, 2);
            } else if at % 32 == 16 {
                word = word.map(substitute);
            }
            for (n, byte) in word.into_iter().enumerate() {
                words[at + n] = words[at + n - 32] ^ byte;
            }
        }
        words[208..].iter().map(|b| b ^ MASK).collect()
    }

    // Single round keys stay where the cipher's library kept registers; a whole schedule has the last two in a row.
    #[test]
    fn key_schedules_are_where_they_are_used_and_nowhere_else() {
        use unluks::crypto::cipher::SectorCipher;
        use unluks::crypto::spec::CipherSpec;
        let vector: Vec<u8> = last_round_keys(&[0; 32]).iter().map(|b| b ^ MASK).collect();
        let known = "10f80a1753bf729c45c979e7cb706385";
        assert_eq!(vector[16..].iter().map(|b| format!("{b:02x}")).collect::<String>(), known);

        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        for (spec, keys) in [("aes-xts-plain64", 2), ("aes-cbc-plain64", 1), ("aes-cbc-essiv:sha256", 1)] {
            let mut key = SecretBytes::zeroed(32 * keys).unwrap();
            let mut x = 0x0bad_cafe_1234_5678u64 ^ u64::from(std::process::id());
            for b in key.expose_mut() {
                x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                *b = x.to_be_bytes()[0];
            }
            let masked: Vec<_> = key.expose().chunks(32).map(last_round_keys).collect();
            let spec = CipherSpec::parse(spec).unwrap();
            let cipher = SectorCipher::new(&spec, key.expose(), 512).unwrap();
            drop(key);
            cipher.decrypt(&mut [0; 512], 0).unwrap();
            let here = std::ptr::from_ref(&spec).addr();
            for masked in &masked {
                let found = find(masked);
                assert!(!found.is_empty(), "the schedule is in use");
                let on_the_stack = |place: &&String| {
                    let (from, to) = place.split(' ').nth(2).unwrap().split_once('-').unwrap();
                    let bound = |text| usize::from_str_radix(text, 16).unwrap();
                    (bound(from)..bound(to)).contains(&here)
                };
                assert_eq!(found.iter().filter(on_the_stack).collect::<Vec<_>>(), Vec::<&String>::new());
            }
            drop(cipher);
            for masked in &masked {
                assert_eq!(find(masked), Vec::<String>::new());
            }
        }
    }

    #[cfg(feature = "nbd")]
    mod nbd {
        //! After a connection none of the plaintext that it carried is left.

        use std::io;
        use std::time::Instant;

        use unluks::ReadAt;
        use unluks::nbd::{Export, Service, Stream};

        use super::*;

        /// A disk full of one secret, again and again.
        struct Plaintext(SecretBytes);

        impl ReadAt for Plaintext {
            fn len(&self) -> u64 {
                64 << 20
            }

            fn read_exact_at(&self, buf: &mut [u8], _: u64) -> unluks::Result<()> {
                let secret = self.0.expose();
                buf.chunks_mut(secret.len()).for_each(|part| part.copy_from_slice(&secret[..part.len()]));
                Ok(())
            }
        }

        /// A client that says all that it has to say, and hears nothing.
        struct Script(Mutex<io::Cursor<Vec<u8>>>);

        impl Stream for Script {
            fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
                self.0.lock().unwrap().read(buf)
            }

            fn write_all(&self, _: &[u8]) -> io::Result<()> {
                Ok(())
            }

            fn set_deadline(&self, _: Option<Instant>) {}

            fn close(&self) {}
        }

        /// A client's handshake, and reads of these lengths with these command flags.
        fn script(structured: bool, reads: &[(u16, u32)]) -> Script {
            let option = |kind: u32, data: &[u8]| {
                let len = u32::try_from(data.len()).unwrap();
                [&b"IHAVEOPT"[..], &kind.to_be_bytes(), &len.to_be_bytes(), data].concat()
            };
            let mut said = 3u32.to_be_bytes().to_vec();
            if structured {
                said.extend(option(8, &[]));
            }
            said.extend(option(7, &[0; 6]));
            for (flags, length) in reads {
                said.extend(0x2560_9513u32.to_be_bytes());
                said.extend(flags.to_be_bytes());
                said.extend([0; 2 + 8 + 8]);
                said.extend(length.to_be_bytes());
            }
            Script(Mutex::new(io::Cursor::new(said)))
        }

        #[test]
        fn no_plaintext_is_left_of_a_connection() {
            let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
            let (secret, masked) = passphrase();
            let export = Export::new("", None, Arc::new(Plaintext(secret))).unwrap();
            let service = Service::new(export).with_threads(4);
            let long = [(0, 512), (0, 64 << 10), (0, 1 << 20), (0, 32 << 20), (0, 100)];
            let whole = [(4, 512), (4, 1 << 20), (4, 4 << 20)];
            // More than once: the allocator gives to the system what is freed for the first time only.
            for _ in 0..3 {
                for script in [script(true, &long), script(false, &long), script(true, &whole)] {
                    let done = service.serve_connection(&script).unwrap();
                    assert!(done.requests >= 3 && done.sent > 5 << 20, "{done:?}");
                }
                // One is in the source.
                assert_eq!(find(&masked).len(), 1, "{:?}", find(&masked));
            }
        }
    }
}
