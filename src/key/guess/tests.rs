use super::*;

fn guesses(saved: &[u8]) -> Vec<(String, Vec<u8>)> {
    candidates(saved).unwrap().iter().map(|c| (c.rule.describe(), c.passphrase.expose().to_vec())).collect()
}

/// What a person has, what the keyslot wants, and the rule that says how.
#[track_caller]
fn opens(saved: impl AsRef<[u8]>, wanted: impl AsRef<[u8]>, rule: &str) {
    let (saved, wanted) = (saved.as_ref(), wanted.as_ref());
    let all = guesses(saved);
    let found = all.iter().find(|(_, bytes)| bytes == wanted);
    let found = found.unwrap_or_else(|| panic!("{}: not among {:?}", String::from_utf8_lossy(saved), all));
    assert_eq!(found.0, rule, "{}", String::from_utf8_lossy(saved));
}

#[test]
fn a_binary_key_is_tried_as_it_is_and_hexlified_first() {
    let key = [0, 0x9f, 0xa0, 0xff];
    let all = guesses(&key);
    assert_eq!(all[0], ("the bytes as they are".into(), key.to_vec()));
    assert_eq!(all[1], ("hexlified".into(), b"009fa0ff".to_vec()));
    assert_eq!(all.len(), 6, "{all:?}");
    opens(key, "AJ+g/w==", "as base64");
    opens(key, "AJ-g_w==", "as base64 for URLs");
    opens(key, "009FA0FF", "hexlified in upper case");
    opens(key, [&key[..], b"\n"].concat(), "with a newline at the end");
}

#[test]
fn hex_is_taken_in_each_writing() {
    let raw = [0xab, 0x0f, 0x12, 0x34];
    for saved in ["AB0f1234\n", "0xAB0F1234", "ab:0f:12:34\r\n", "AB 0F 12 34"] {
        let all = guesses(saved.as_bytes());
        for wanted in [&b"ab0f1234"[..], b"AB0F1234", &raw, b"qw8SNA=="] {
            assert!(all.iter().any(|(_, bytes)| bytes == wanted), "{saved}: {wanted:?}: {all:?}");
        }
    }
    opens("ab0f\n", "AB0F", "hex in upper case");
    opens("q w8S\nNA==", raw, "base64-decoded");
    opens("qw8SNA", "ab0f1234", "base64-decoded, then hexlified");
    // The other alphabet, and padding that was lost.
    opens("q_8=", "q/8=", "base64-decoded, then as base64");
    opens("q/8", "q_8=", "base64-decoded, then as base64 for URLs");
    // Base64 of hex text.
    opens("QUIwRjEyMzQ=", "ab0f1234", "base64-decoded, then hex in lower case");
    opens("QUIwRjEyMzQ=", raw, "base64-decoded, then un-hexed");
}

#[test]
fn the_same_text_is_found_in_other_bytes() {
    let text = "Grüße-Ångström-é";
    let nfd = "Gru\u{308}ße-A\u{30a}ngstro\u{308}m-e\u{301}";
    let latin1: Vec<u8> = text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
    let utf16: Vec<u8> = format!("\u{feff}{text}\r\n").encode_utf16().flat_map(u16::to_le_bytes).collect();
    opens(format!("\u{feff}{text}\r\n"), text, "without the byte order mark, then without the trailing newline");
    opens(&utf16, text, "UTF-16 as UTF-8, then without the trailing newline");
    opens(nfd, text, "in Unicode's form NFC");
    opens(text, nfd, "in Unicode's form NFD");
    opens(&latin1, text, "Latin-1 as UTF-8");
    opens(&latin1, nfd, "Latin-1 as UTF-8, then in Unicode's form NFD");
    opens(nfd, &latin1, "as Latin-1");
    opens("5€\n", b"5\x80", "without the trailing newline, then as Windows-1252");
    opens(b"5\x80", "5€", "Windows-1252 as UTF-8");
    opens("Gr\n", [b'G', 0, b'r', 0], "without the trailing newline, then as UTF-16");
    // UTF-8 that was taken for Latin-1 and made UTF-8 once more.
    opens("GrÃ¼n", "Grün", "as Latin-1");
    opens("  pass word \n\n", "pass word", "without the white space around it");
    opens("one\ntwo\n", "one", "the first line");
    opens("one\r\ntwo\r\n", "one\ntwo\n", "with LF for CRLF");
}

#[test]
fn keys_of_systems_are_found() {
    let key = "lrdggkkl-ektgkfnb-fetlgdik-cdcttelf-vlkdkvji-jnrvgnth-hvdlnhvc-kudlbubr";
    opens(key.to_uppercase() + "\n", key, "systemd's recovery key");
    let ubuntu = [0x6e, 0x41, 0x87, 0xa7, 0xc4, 0xee, 0x66, 0xb7, 0x10, 0x89, 0x44, 0x62, 0xd2, 0xc6, 0x74, 0x76];
    opens("16750-42887-61124-46950-35088-25156-50898-30324\n", ubuntu, "Ubuntu's recovery key");
    let qnap = "$1$YCCaQNAP$VKoiDfThdujsVNZujeIHQ1";
    opens("nas-password\n", qnap, "without the trailing newline, then QNAP's hash of the password");
    opens(format!("{qnap}\r\n"), qnap, "without the trailing newline");
}

#[test]
fn a_payload_is_found_in_what_a_client_printed() {
    opens(r#"{"Payload": "q/8="}"#, [0xab, 0xff], "the payload of the JSON, then base64-decoded");
    opens("payload=\"s3cret\"\n", "s3cret", "the payload's value");
    opens("b'\\xab\\xff'\n", "abff", "the bytes of Python's literal, then hexlified");
    let table = "| Field   | Value |\n| Payload | b'\\xab\\xff' |\n";
    opens(table, "abff", "the payload of the table, then the bytes of Python's literal, then hexlified");
}

#[test]
fn no_derivation_is_paid_twice_and_their_number_is_bounded() {
    let hostile = format!("\u{feff}  {{\"payload\": \"{}\"}}\r\nab\r\n ", "QUIwRjEyMzQ=".repeat(9));
    for saved in ["ab0f", "00ff\n", "é\r\nab:cd\r\n", &hostile, &"lrdggkkl".repeat(8), &"00000".repeat(8)] {
        let all = guesses(saved.as_bytes());
        let mut bytes: Vec<_> = all.iter().map(|(_, bytes)| bytes).collect();
        bytes.sort();
        bytes.dedup();
        assert_eq!(bytes.len(), all.len(), "{saved}");
        assert!(all.len() <= KEY_FORMS_MAX, "{saved}: {}", all.len());
        assert_eq!(all[0].1, saved.as_bytes());
    }
    let many = format!("{}\n", "lrdggkkl-ektgkfnb-fetlgdik-cdcttelf-vlkdkvji-jnrvgnth-hvdlnhvc-kudlbubr ".repeat(500));
    assert!(guesses(many.as_bytes()).len() <= KEY_FORMS_MAX);
}

#[test]
fn a_large_file_is_no_text() {
    let large = vec![b'a'; KEY_TEXT_MAX + 1];
    assert_eq!(guesses(&large).len(), 2);
}
