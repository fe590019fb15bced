//! Data without a header: plain dm-crypt, and a volume whose header is lost while its volume key is known.
//!
//! The ciphertexts are of one sector, made with Python's `cryptography` as dm-crypt's documentation says: CBC with ESSIV
//! (the IV is the sector's number encrypted with the key's SHA-256) and XTS (the IV is the sector's number, little-endian);
//! keys out of passphrases with `openssl dgst -ripemd160`, of the passphrase and of `A` and the passphrase.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use unluks::{FileSource, Image, Key, SecretBytes};

use crate::common::{Golden, Run, sha256, text, unluks, unluks_with_stdin};

/// `aes-cbc-essiv:sha256` with the passphrase `secret` through ripemd160: what cryptsetup before 2.7 makes by itself.
const ESSIV: &str = "\
    c5f09f8e6012b8cffc310d59210c42adc5bdbbfc2ce86db22ffaf382df773c407c2ffbf3b633df1635d4d2df9883e068f0b1c48f1f5b8aaf\
    934e84e6a824658d3eba4a1f5725bb905c0a634b9fe6f6734270d257fe280f30f1befe75402d00cbc197d2026d4ba64085feb34ef3ebdee0\
    fc7f0536dda28966945b9b5542e14299969808af301a79699faa05e1fd76ec49f03b1fa7888c9625b40dbd470d2dc1a4b8fc6600980274d8\
    62d1c2dc3b6b3e5d5563d31b05358a7d8c00095924c9a71bf8c189fde33a39b5c1a0d9a586b5b40998402f4cb80e34413af230924b3f6709\
    17c6311f19c4c837860b7effab7415d873f56af28d0f415ef7a6781375ee87e3b1131640d4ab780e104237f255885153b33c1b819806e955\
    7d5ed3c3d7e48d4cd172688c2afc792eaebd7bdd5233fdd187d29112f057a8f0b11a2c72fdc160b5d4b7bc795fc0e8f3fd5aac887bb850fc\
    de71148f1548557f18f206bfd1503995ac17ce5abefcdf018101d802fb59c3cbb4b6de95d7a93807b5df45e99f048ed05d30396a81fe32dd\
    210d5e52d3b5ecf9052c5bb5236c8cfa54f2446f6dd33f33195bd99e80d9621f77218ba68918504fcd57d840947e6a649628e4daec84a1e7\
    ab9a91e67d14a17e51444f200d65e885917f3fec5195d15732d9c0c000c7e18230c906f99c8e9a197921e9c83cbe6b5601ae30cca9a4eb25\
    7c121b45f95003cb";
/// `aes-xts-plain64` of 256 bits, with the hex of a key of 16 bytes through ripemd160, as os-brick has it.
const BRICK: &str = "\
    418888ac6c9848170a0b998f2c7296841eaed4d05da2935e25faf8fd8a7da63544711ff5e8d5f46516fe083a5f59f3c17d5e0c30a710fdf6\
    9f2f486165320651dec561a1fd33b1c5163402ef4506c2eecb5aff5897605ef2df483ffa7125fe1b47919bbe5145802045f8ba3eccb39651\
    3f9c2c5f1016babeae019efc35bacd75b4e3f509a422f51992e8a28b47c6f182a8c8f4756a4d6ae576cc5a6ad0aaf5f2b45ccd23b7e9d67f\
    2a89f0136bb9d3d062d73674a1bd40887170d86042effd9f750cd62d6954e205f856839531a7800f9952592866de252e9cd9e3389a52661f\
    7c2fc5213b5c6b8ff2b271fb021fcccc5c4f17a9867bad411f6dff2fd203a79e22db1c911dddbc32a8c19d61c5124a9c59a112c7a19609da\
    d97c8818d5e9c49c4712cbf9f92b2863a7f245e007b044d13b69e9b75294cb014c1783b844809ea424dfb715c24d5eb76c70b9df1921f5e6\
    49c2cb1fbefb75f39d96ac6d15736a31535689e402ec05c2a2e754f98b253166be25ce0380d8b84bdc94d0d38dc4e13afac74eb6257862ff\
    077d78779e1f2ee7c48e5bbec578bb678353ea18814eb0e8fa6f4a1d9863923fac3b45c93d640c7b86e4f4dde03b96cbe3dbb0427d057e98\
    18decfa0535df8405f523717b4f24dd0b025714f3317129923480f307b2e0673552b0c5045a6d50f1e6e965ac58e300ebc33da8fca4a3c51\
    76de083fe34d0f09";
/// `aes-xts-plain64` of 512 bits, with the bytes 0 to 63 as the key, from sector 5 on.
const RAW: &str = "\
    f87ca2f29b117c1b024a6ec8e8c5994e76f7d16b43eed21e6936126969e00dab9d57dfb999d8d20535e3b2b7a51fab52dc4f54b7080d50b4\
    8a54ca22ff3849f3a47cd92ec842f1c18506001e0531e6c83b8ee819357591998fb8eaf9101b77406131c00457f67b8e979f97e7af3e0535\
    203a52bffb542cfa6899d1e8231ca3422867ac49ad3e085f3f82644c859826843b533724692ded303614fd64fb050acf50f3944cf476e377\
    2cb2fef45d4ba4fd30c72076652a6ce2123786675d53e05534b648ece6ffaf2be0ab650c4648ff827c5d6d723b7d20916186af4b8be634e0\
    e8a7e162da34a010af7c5949383158062a8ab6a60123d0eeb0e4c5321ae568bdc5d8ea3dcc6a0f6bac882e1162a41e4dfa255f1edfaaa10f\
    c4b8483645da74e90b11a77edb9e433f634820f64063b105a7acc2cde71cf713369dc4ab6e7f56200f3e718d9e6d00e9beb0f977cc5d2a52\
    9147afb8e9191115ab35fece7f8a134043746aed1a7a690f1dc4e13b83deec87e85b856f6158200d6949b3bb387c859c91eaf24faf472cd3\
    64d46eaf61136d38ff7ee62f03a873bb56c21bb13b6d1e36026c98e31706a8256eabeab58ba5f332873ddcc98f80b48d1cd0ba0cf234b068\
    e034a94aea84842f8230d9e6dab7a54e387c6c248257e65bcc50604a5f20a80a115d5f4afb6c4f525cff6ea7459c89b26927d1f8c4727568\
    7eb28f7518a5a768";

fn plaintext() -> Vec<u8> {
    (0..512u32).map(|n| u8::try_from(n % 251).unwrap()).collect()
}

/// A folder with an image and a key.
struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new(image: &[u8], key: &[u8]) -> Self {
        let files = Self { dir: tempfile::tempdir().unwrap() };
        fs::write(files.path("image"), image).unwrap();
        fs::write(files.path("key"), key).unwrap();
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `unluks decrypt IMAGE --type plain -o - FLAG KEY MORE…`.
    fn decrypt(&self, flag: &str, more: &[&str]) -> Run {
        let (image, key) = (text(&self.path("image")), text(&self.path("key")));
        unluks(&[&["decrypt", &image, "--type", "plain", "-o", "-", flag, &key], more].concat())
    }
}

#[track_caller]
fn opens(run: &Run, wanted: &[u8]) {
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.stdout == wanted, "{}", run.stderr);
    assert!(run.stderr.contains("nothing proves the key"), "{}", run.stderr);
    assert!(!run.stderr.contains("keyslot"), "{}", run.stderr);
    assert!(run.stderr.contains(" s, which nothing proves\n"), "{}", run.stderr);
}

#[track_caller]
fn refused(run: &Run, code: i32, says: &str) {
    assert_eq!(run.code, Some(code), "{}", run.stderr);
    assert!(run.stdout.is_empty() && run.stderr.contains(says), "{}", run.stderr);
}

#[test]
fn plain_dm_crypt_is_read_as_cryptsetup_makes_it() {
    let image = hex::decode(ESSIV).unwrap();
    let old = ["--cipher", "aes-cbc-essiv:sha256", "--plain-hash", "ripemd160"];
    for line in ["secret", "secret\n", "secret\r\n"] {
        let files = Files::new(&image, line.as_bytes());
        opens(&files.decrypt("--passphrase-file", &old), &plaintext());
        let args = ["decrypt", &text(&files.path("image")), "--type", "plain", "-o", "-"];
        opens(&unluks_with_stdin(&[&args[..], &old].concat(), line.as_bytes()), &plaintext());
    }
    // A key file through the standard input is hashed, as cryptsetup does it; another one is not.
    let files = Files::new(&image, b"secret");
    let args = ["decrypt", &text(&files.path("image")), "--type", "plain", "-o", "-", "--key-file", "-"];
    opens(&unluks_with_stdin(&[&args[..], &old].concat(), b"secret"), &plaintext());
    refused(&files.decrypt("--key-file", &old), 2, "the key file has 6 bytes; the key has 32");

    // Another passphrase opens, too: nobody can tell.
    let run = Files::new(&image, b"other").decrypt("--passphrase-file", &old);
    assert_eq!((run.code, run.stdout == plaintext()), (Some(0), false), "{}", run.stderr);
}

#[test]
fn the_plain_provider_of_os_brick_hashes_the_hex() {
    let secret = hex::decode("00112233445566778899aabbccddeeff").unwrap();
    let files = Files::new(&hex::decode(BRICK).unwrap(), &secret);
    opens(&files.decrypt("--barbican-key", &["--plain-hash", "ripemd160"]), &plaintext());
    // What is taken for granted is said.
    let run = files.decrypt("--barbican-key", &[]);
    assert_ne!(run.stdout, plaintext());
    for says in ["hashed with sha256, as cryptsetup has it from 2.7 on", "aes-xts-plain64, a key of 256 bits"] {
        assert!(run.stderr.contains(says), "{}", run.stderr);
    }
}

#[test]
fn raw_keys_places_and_sizes_are_taken() {
    let image = [&[0x55; 512][..], &hex::decode(RAW).unwrap()].concat();
    let key: Vec<u8> = (0..64).collect();
    let files = Files::new(&image, &[&key[..], b"more"].concat());
    let place = ["--offset", "512", "--iv-offset", "5", "--cipher", "aes-xts-plain64"];
    opens(&files.decrypt("--key-file", &[&place[..], &["--key-size", "512"]].concat()), &plaintext());
    // Not one byte of it can be resumed or left to be resumed: nothing would tell that the key is the same.
    let out = text(&files.path("out"));
    let args = [
        "decrypt",
        &text(&files.path("image")),
        "--type",
        "plain",
        "-o",
        &out,
        "--key-file",
        &text(&files.path("key")),
    ];
    let run = unluks(&[&args[..], &place, &["--key-size", "512"]].concat());
    assert_eq!((run.code, fs::read(&out).unwrap()), (Some(0), plaintext()), "{}", run.stderr);
    fs::write(files.path("key"), hex::encode(&key)).unwrap();
    opens(&files.decrypt("--volume-key-file", &place), &plaintext());
    let line = format!("x: 0 1 crypt aes-xts-plain64 {} 5 8:3 1\n", hex::encode(&key));
    fs::write(files.path("key"), line).unwrap();
    opens(&files.decrypt("--volume-key-file", &[]), &plaintext());
}

#[test]
fn what_cannot_be_without_a_header_is_refused() {
    let files = Files::new(&hex::decode(ESSIV).unwrap(), b"secret");
    for (flag, more, code, says) in [
        ("--key", &[][..], 2, "nothing tells which of them is right"),
        ("--passphrase-file", &["--key-slot", "0"], 2, "for keyslots"),
        ("--passphrase-file", &["--key-size", "100"], 2, "no number of whole bytes"),
        ("--passphrase-file", &["--key-size", "8192"], 6, "1 to 512"),
        ("--passphrase-file", &["--plain-hash", "crc32"], 5, "crc32"),
        ("--passphrase-file", &["--cipher", "rot13-ecb"], 5, "rot13"),
        ("--passphrase-file", &["--sector-size", "100"], 5, "found 100"),
        ("--passphrase-file", &["--header", "x"], 2, "--header gives a header"),
        ("--passphrase-file", &["--resume"], 2, "--resume"),
    ] {
        refused(&files.decrypt(flag, more), code, says);
    }
    let (image, key) = (text(&files.path("image")), text(&files.path("key")));
    let run = unluks(&["decrypt", &image, "-o", "-", "--key-file", &key, "--cipher", "aes-xts-plain64"]);
    refused(&run, 2, "--cipher is for --type plain");
}

/// A golden image's volume key, and where its data is.
fn volume_key(golden: &Golden) -> (Vec<u8>, u64) {
    let image = Image::open(Arc::new(FileSource::open(&golden.image).unwrap())).unwrap();
    let passphrase = SecretBytes::copy_of(&fs::read(&golden.key).unwrap()).unwrap();
    let unlocked = image.unlock(&Key::passphrase(passphrase), &Default::default()).unwrap();
    (unlocked.keys().values().next().unwrap().expose().to_vec(), image.metadata().data_offset())
}

#[test]
fn a_volume_key_opens_with_a_header_and_without_it() {
    let golden = Golden::unpack("l1-aes-xts-512-sha256");
    let (key, offset) = volume_key(&golden);
    let hex = hex::encode(&key);
    let rows: Vec<_> = key.chunks(16).map(hex::encode).collect();
    let mut image = fs::read(&golden.image).unwrap();
    let sectors = (u64::try_from(image.len()).unwrap() - offset) / 512;
    let dump = format!("MK bits: 512\nMK dump:\t{}\n", rows.join("\n\t\t"));
    let table = format!("0 {sectors} crypt aes-xts-plain64 {hex} 0 8:3 {} 1 allow_discards\n", offset / 512);
    for (saved, rule) in
        [(hex.clone(), "un-hexed"), (dump, "the key of luksDump's text"), (table.clone(), "the key of dmsetup's table")]
    {
        fs::write(&golden.key, saved).unwrap();
        let run = unluks(&["decrypt", &text(&golden.image), "-o", "-", "--volume-key-file", &text(&golden.key)]);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        assert_eq!(sha256(&run.stdout), golden.sidecar["sha256"].as_str().unwrap());
        assert!(run.stderr.contains(&format!("opened with the volume key: {rule}\n")), "{}", run.stderr);
    }
    image[..4096].fill(0);
    let files = Files::new(&image, table.as_bytes());
    let run = files.decrypt("--volume-key-file", &[]);
    assert_eq!(sha256(&run.stdout), golden.sidecar["sha256"].as_str().unwrap(), "{}", run.stderr);
    fs::write(files.path("key"), hex).unwrap();
    let run = files.decrypt("--volume-key-file", &["--offset", &offset.to_string(), "--cipher", "aes-xts-plain64"]);
    assert_eq!(sha256(&run.stdout), golden.sidecar["sha256"].as_str().unwrap(), "{}", run.stderr);
}
