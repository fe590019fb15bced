//! The volume key itself, in the forms that programs print it in.
//!
//! | printed by | looks like |
//! |---|---|
//! | `cryptsetup luksDump --volume-key-file` | the raw bytes |
//! | people | hex |
//! | `cryptsetup luksDump --dump-volume-key` | lines of a header, then `MK dump:` and rows of hex pairs |
//! | `dmsetup table --showkeys` | `[NAME: ]START LENGTH crypt CIPHER KEY IV_OFFSET DEVICE OFFSET [N OPTION…]`, numbers in sectors of 512 bytes |
//!
//! Sources: cryptsetup's `lib/setup.c` (`_luks_dump`), the kernel's
//! `Documentation/admin-guide/device-mapper/dm-crypt.rst`.

use super::codec::{hex_digits, unbase64, unhex};
use crate::error::{Error, Result, escape};
use crate::limits::{KEY_SIZE_MAX, KEY_TEXT_MAX};
use crate::secret::VolumeKey;

/// dm-crypt counts in these.
const SECTOR: u64 = 512;

/// A volume key that saved bytes may stand for.
pub struct VolumeKeyForm {
    /// What they are then, for reports.
    pub rule: &'static str,
    /// The key.
    pub key: VolumeKey,
    /// What dmsetup said beside it.
    pub table: Option<DmTable>,
}

/// How dm-crypt was set up, from a line of dmsetup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DmTable {
    /// Bytes of plaintext.
    pub len: u64,
    /// The cipher, as dm-crypt spells it.
    pub cipher: String,
    /// What is added to the IV's sector number, in 512-byte sectors.
    pub iv_offset: u64,
    /// The byte of the device where the data starts.
    pub offset: u64,
    /// Bytes of an encryption sector.
    pub sector_size: u32,
}

/// The volume keys that saved bytes may stand for, the raw bytes first.
///
/// # Errors
/// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for a line of dmsetup without a key in it, or that is cut
/// off; [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) for one with options that are not known here;
/// [`ErrorKind::Io`](crate::ErrorKind::Io) where memory cannot be had.
pub fn volume_key_forms(saved: &[u8]) -> Result<Vec<VolumeKeyForm>> {
    let raw = VolumeKeyForm { rule: "the bytes as they are", key: VolumeKey::copy_of(saved)?, table: None };
    let mut forms = vec![raw];
    let Some(text) = Some(saved).filter(|s| s.len() <= KEY_TEXT_MAX).and_then(|s| std::str::from_utf8(s).ok()) else {
        return Ok(forms);
    };
    let text = text.trim_start_matches('\u{feff}');
    let mut add = |rule, digits: &str, table| -> Result<()> {
        let raw = hex_digits(digits.as_bytes())?.map(|digits| unhex(digits.expose())).transpose()?.flatten();
        if let Some(key) = raw.filter(|key| u32::try_from(key.len()).is_ok_and(|len| len <= KEY_SIZE_MAX)) {
            forms.push(VolumeKeyForm { rule, key: VolumeKey(key), table });
        }
        Ok(())
    };
    if let Some(line) = text.lines().find(|line| line.split_ascii_whitespace().any(|word| word == "crypt")) {
        let (digits, table) = dm_table(line)?;
        add("the key of dmsetup's table", digits, Some(table))?;
    } else if let Some((_, dump)) = text.split_once("dump:").or_else(|| text.split_once("Volume key:")) {
        // The rows end where something else begins.
        let is_row = |line: &&str| line.chars().all(|c| c.is_ascii_hexdigit() || c.is_whitespace());
        let end: usize = dump.split_inclusive('\n').take_while(is_row).map(str::len).sum();
        add("the key of luksDump's text", &dump[..end], None)?;
    } else {
        add("un-hexed", text, None)?;
        if let Some(key) = unbase64(text.as_bytes())?.filter(|_| forms.len() == 1) {
            forms.push(VolumeKeyForm { rule: "base64-decoded", key: VolumeKey(key), table: None });
        }
    }
    Ok(forms)
}

/// The key's digits, and all else that a line of dmsetup says.
fn dm_table(line: &str) -> Result<(&str, DmTable)> {
    let wrong =
        |what: String| Error::invalid(format!("the line of dmsetup is not whole: {what}")).with_rule("dm-table");
    let mut words = line.split_ascii_whitespace().peekable();
    if words.peek().is_some_and(|word| word.ends_with(':')) {
        words.next();
    }
    let mut word = |name: &str| words.next().ok_or_else(|| wrong(format!("it ends before its {name}")));
    let _start = word("start")?;
    let sectors = |name: &str, word: &str| {
        let number = word.parse::<u64>().ok();
        number.ok_or_else(|| wrong(format!("found \"{}\" as its {name}; a number of sectors is wanted", escape(word))))
    };
    let bytes = |name: &str, word: &str| {
        let all = sectors(name, word)?.checked_mul(SECTOR);
        all.ok_or_else(|| wrong(format!("found \"{}\" as its {name}, which is too large", escape(word))))
    };
    let len = bytes("length", word("length")?)?;
    if word("type")? != "crypt" {
        return Err(wrong("\"crypt\" is wanted in its third place".into()));
    }
    let cipher = word("cipher")?.to_owned();
    let key = word("key")?;
    let iv_offset = sectors("IV offset", word("IV offset")?)?;
    let _device = word("device")?;
    let offset = bytes("offset", word("offset")?)?;
    if key.starts_with(':') {
        let message = "the key is in the kernel's keyring, which dmsetup does not show";
        return Err(Error::invalid(message).with_rule("dm-table"));
    }
    if key == "-" || !key.is_empty() && key.bytes().all(|b| b == b'0') {
        let message = "the key is not in the line of dmsetup, which shows it only on demand";
        return Err(Error::invalid(message).with_rule("dm-table"));
    }
    let mut sector_size = 512;
    for option in words.skip(1) {
        match option.split_once(':') {
            Some(("sector_size", size)) => {
                let number = size.parse().ok();
                sector_size = number.ok_or_else(|| wrong(format!("found \"{}\" as its sector size", escape(size))))?;
            }
            Some(("integrity", _)) => {
                let message = "the data has integrity tags, which lie in a dm-integrity device below it";
                return Err(Error::unsupported("dm-table", message));
            }
            _ if option == "iv_large_sectors" => {
                let message = "found iv_large_sectors, an IV that counts in encryption sectors, which is not read";
                return Err(Error::unsupported("dm-table", message));
            }
            // The others say how fast it is, and not what it is.
            _ => {}
        }
    }
    Ok((key, DmTable { len, cipher, iv_offset, offset, sector_size }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "00112233445566778899aabbccddeeff";

    fn forms(text: &str) -> Vec<(&'static str, String, Option<DmTable>)> {
        let all = volume_key_forms(text.as_bytes()).unwrap();
        all.into_iter().skip(1).map(|f| (f.rule, hex::encode(f.key.expose()), f.table)).collect()
    }

    #[test]
    fn each_form_gives_the_key() {
        let rows = "MK bits:       \t128\nMK dump:\t00 11 22 33 44 55 66 77\n\t\t88 99 aa bb cc dd ee ff\nUUID: abc\n";
        assert_eq!(forms(rows), [("the key of luksDump's text", KEY.to_owned(), None)]);
        for hex in [KEY.to_owned(), KEY.to_uppercase() + "\r\n", format!("0x{KEY}")] {
            assert_eq!(forms(&hex), [("un-hexed", KEY.to_owned(), None)], "{hex}");
        }
        assert_eq!(forms("ABEiM0RVZneImaq7zN3u/w==\n"), [("base64-decoded", KEY.to_owned(), None)]);
        let table = DmTable {
            len: 4 << 20,
            cipher: "aes-cbc-essiv:sha256".into(),
            iv_offset: 7,
            offset: 2 << 20,
            sector_size: 4096,
        };
        let line =
            format!("cr: 0 8192 crypt aes-cbc-essiv:sha256 {KEY} 7 8:3 4096 2 allow_discards sector_size:4096\n");
        assert_eq!(forms(&line), [("the key of dmsetup's table", KEY.to_owned(), Some(table))]);
        assert_eq!(volume_key_forms(&[0xff; 32]).unwrap().len(), 1);
    }

    #[test]
    fn a_table_without_its_key_says_so() {
        let zeroes = "0".repeat(64);
        for (line, says) in [
            (format!("0 8 crypt aes-xts-plain64 {zeroes} 0 8:3 0"), "shows it only on demand"),
            ("0 8 crypt aes-xts-plain64 :64:logon:cryptsetup:x 0 8:3 0".into(), "keyring"),
            (format!("0 8 crypt aes-xts-plain64 {KEY} 0 8:3"), "ends before its offset"),
            (format!("0 x crypt aes-xts-plain64 {KEY} 0 8:3 0"), "a number of sectors is wanted"),
            (format!("0 {} crypt aes-xts-plain64 {KEY} 0 8:3 0", u64::MAX), "too large"),
            (format!("0 8 crypt aes-xts-plain64 {KEY} 0 8:3 0 1 integrity:32:aead"), "integrity tags"),
            (format!("0 8 crypt aes-xts-plain64 {KEY} 0 8:3 0 1 iv_large_sectors"), "iv_large_sectors"),
        ] {
            let e = volume_key_forms(line.as_bytes()).err().unwrap().to_string();
            assert!(e.contains(says) && !e.contains(KEY), "{line}: {e}");
        }
    }
}
