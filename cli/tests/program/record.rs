//! What `unluks verify` writes beside its verdict: the page, the JSON's file, signatures, a statement; and what a policy says.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::common::{Golden, Run, sha256, text, unluks};

mod decryption;

/// An image under a name that nobody means well by, and what is written of it.
struct Record {
    golden: Golden,
    image: PathBuf,
    page: PathBuf,
    json: PathBuf,
}

const HOSTILE: &str = "a<b onload=\"x\">&'\u{202e}gnp\u{2066}\u{feff}\n\u{9b}31m.img";

impl Record {
    fn of(name: &str) -> Self {
        let golden = Golden::unpack(name);
        let image = golden.path(HOSTILE);
        fs::copy(&golden.image, &image).unwrap();
        Self { page: golden.path("page.html"), json: golden.path("report.json"), image, golden }
    }

    fn verify(&self, more: &[&str]) -> Run {
        let json = format!("--json={}", text(&self.json));
        let files = [&self.image, &self.golden.key, &self.page].map(|path| text(path));
        let args = ["verify", &files[0], "--key-file", &files[1], "--report", &files[2], &json];
        unluks(&[&args[..], more].concat())
    }

    fn report(&self) -> Value {
        serde_json::from_slice(&fs::read(&self.json).unwrap()).unwrap()
    }

    fn page(&self) -> String {
        fs::read_to_string(&self.page).unwrap()
    }
}

/// The text of a page between its tags; panics where a tag is not closed, or an attribute has no quotes.
fn text_of(page: &str) -> String {
    let (mut open, mut said, mut rest) = (Vec::new(), String::new(), page);
    while let Some((before, after)) = rest.split_once('<') {
        said += before;
        if let Some(comment) = after.strip_prefix("!--") {
            rest = comment.split_once("-->").unwrap().1;
            continue;
        }
        let (tag, behind) = after.split_once('>').unwrap();
        rest = behind;
        assert_eq!(tag.matches('"').count() % 2, 0, "<{tag}>");
        let name = tag.split([' ', '/']).find(|word| !word.is_empty()).unwrap().to_owned();
        if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(closed), "{said}");
        } else if name == "style" {
            rest = rest.split_once("</style>").unwrap().1;
        } else if !tag.ends_with('/') && !matches!(name.as_str(), "meta" | "br" | "!DOCTYPE") {
            open.push(name);
        }
    }
    assert_eq!(open, Vec::<String>::new());
    let plain = [("&#60;", "<"), ("&#62;", ">"), ("&#34;", "\""), ("&#39;", "'"), ("&#38;", "&")];
    plain.iter().fold(said + rest, |text, (escaped, plain)| text.replace(escaped, plain))
}

#[test]
fn a_page_runs_nothing_asks_for_nothing_and_hides_nothing() {
    let record = Record::of("l2-ext4");
    let words = ["--case", "2026-17", "--evidence", "E<1>", "--examiner", "A. B\u{202e}", "--note", "two\nlines"];
    let run = record.verify(&words);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let (page, report) = (record.page(), record.report());
    for never in
        ["<script", "<b onload", "javascript:", "http:", "https:", "url(", "@import", "<img", "<iframe", "<form"]
    {
        assert!(!page.contains(never), "{never}");
    }
    let plain = |c: char| matches!(c, '\n' | ' '..='~' | '…' | '–' | '—') || c.is_alphanumeric();
    assert_eq!(page.chars().find(|c| !plain(*c)), None);
    let style = page.split_once("<style>").unwrap().1.split_once("</style>").unwrap().0;
    let hash = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(style));
    assert!(page.contains(&format!("content=\"default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'")));

    let said = text_of(&page);
    assert!(said.contains("Restorable") && said.contains("Limits: what was not checked"), "{said}");
    // What is not there is not called good, and who says so is where it is asked.
    assert!(said.contains("integritynonenothing authenticates the data"), "{said}");
    assert!(said.contains("begun 20") && said.contains("; examiner: A. B\\u{202e}. Run"), "{said}");
    for wanted in ["2026-17", "E<1>", "A. B\\u{202e}", "two\nlines", "a<b onload=\"x\">&'\\u{202e}gnp\\u{2066}"] {
        assert!(said.contains(wanted), "{wanted}");
    }
    // The page has the record in it, word for word, and in words what that says.
    let line = fs::read_to_string(&record.json).unwrap();
    assert!(said.contains(line.trim_end()));
    let hash = sha256(&fs::read(&record.image).unwrap());
    assert_eq!(report["hashes"]["image"]["sha256"][0], hash.as_str());
    for (what, hex) in report["hashes"]["plaintext"].as_object().unwrap() {
        assert!(said.contains(&format!("plaintext, {what}")) && said.contains(hex.as_str().unwrap()));
    }
    assert!(said.contains(&hash) && said.contains(report["container"]["uuid"].as_str().unwrap()));
    for statement in report["coverage"]["statements"].as_array().unwrap() {
        assert!(said.contains(statement.as_str().unwrap()), "{statement}");
    }
    for path in [&record.page, &record.json] {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn a_page_of_a_damaged_image_says_what_and_where() {
    let record = Record::of("l2-integrity-tag-flipped");
    assert_eq!(record.verify(&[]).code, Some(4));
    let (said, report) = (text_of(&record.page()), record.report());
    assert!(said.contains("Not restorable"), "{said}");
    for finding in report["findings"].as_array().unwrap() {
        assert!(said.contains(finding["code"].as_str().unwrap()), "{finding}");
        assert!(said.contains(finding["message"].as_str().unwrap()), "{finding}");
        if let Some(at) = finding["plaintext_offset"].as_u64() {
            assert!(said.contains(&format!("plaintext byte {at}")), "{finding}");
        }
    }
    assert!(record.page().contains("<path class=\"marks\" d=\"M"));
    // The verdict has its place beside it. What was decrypted is not said to be unknown, and what nobody recognises is no "ok".
    assert!(said.contains("Where first: image byte 1069568, plaintext byte 4608"), "{said}");
    assert!(!said.contains("cannot be decrypted"), "{said}");
    assert!(said.contains("contentsfindingnoise from its first byte on"), "{said}");
    // So is that of what cannot be opened at all.
    fs::write(&record.image, vec![7; 70_000]).unwrap();
    assert_eq!(record.verify(&["--force"]).code, Some(4));
    assert!(text_of(&record.page()).contains("Nothing of the plaintext was read."));
}

#[test]
fn what_is_written_takes_the_place_of_nothing_else() {
    let record = Record::of("l2-ext4");
    let golden = &record.golden;
    let (image, key) = (text(&record.image), text(&golden.key));
    let before = fs::read(&record.image).unwrap();
    let other = golden.path("other");
    fs::write(&other, "precious").unwrap();
    let link = golden.path("link");
    std::os::unix::fs::symlink(&record.image, &link).unwrap();
    for out in [&record.image, &golden.key, &other, &link] {
        let run = unluks(&["verify", &image, "--key-file", &key, "--report", &text(out), "--force"]);
        assert_eq!(run.code, Some(2), "{out:?}: {}", run.stderr);
    }
    assert!(fs::read(&record.image).unwrap() == before && fs::read(&other).unwrap() == b"precious");
    let twice = text(&record.page);
    let run = unluks(&["verify", &image, "--key-file", &key, "--report", &twice, &format!("--json={twice}")]);
    assert!(run.code == Some(2) && run.stderr.contains("two outputs"), "{}", run.stderr);
    // A key that cannot be read leaves nothing half written.
    let files = || fs::read_dir(record.page.parent().unwrap()).unwrap().count();
    let count = files();
    let run = unluks(&["verify", &image, "--key-file", "/nowhere", "--report", &twice]);
    assert_eq!((run.code, files()), (Some(1), count), "{}", run.stderr);

    assert_eq!(record.verify(&[]).code, Some(0));
    assert_eq!(record.verify(&[]).code, Some(2), "they are there");
    assert_eq!(record.verify(&["--force"]).code, Some(0));
}

#[test]
fn reports_are_checked_against_each_other_and_as_they_were_written() {
    let record = Record::of("l2-ext4");
    assert_eq!(record.verify(&[]).code, Some(0));
    let (page, json) = (text(&record.page), text(&record.json));
    let run = unluks(&["report", "verify", &page, &json]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let said = String::from_utf8(run.stdout).unwrap();
    assert_eq!(said.matches("restorable, not signed").count(), 2, "{said}");

    let change = |path: &Path, from: &str, to: &str| {
        let before = fs::read_to_string(path).unwrap();
        assert!(before.contains(from), "{from}");
        fs::write(path, before.replacen(from, to, 1)).unwrap();
        let run = unluks(&["report", "verify", &text(path)]);
        fs::write(path, before).unwrap();
        (run.code, run.stderr)
    };
    let changes: [(&Path, &str, &str); 5] = [
        (&record.json, "\"restorable\"", "\"restorable-with-findings\""),
        (&record.json, "\"findings\":[", "\"findings\": ["),
        (&record.json, "{\"schema\":1", "{\"schema\":9"),
        (&record.page, "<strong>Restorable", "<strong>Not restorable"),
        (&record.page, "&#34;ext4", "&#34;xfs"),
    ];
    for (path, from, to) in changes {
        let (code, stderr) = change(path, from, to);
        assert_eq!(code, Some(4), "{from}: {stderr}");
    }
    // The same image, another run.
    let first = golden_copy(&record.page, "first.html");
    assert_eq!(record.verify(&["--force"]).code, Some(0));
    let run = unluks(&["report", "verify", &text(&first), &json]);
    assert!(run.code == Some(4) && run.stderr.contains("of run"), "{}", run.stderr);
}

fn golden_copy(path: &Path, name: &str) -> PathBuf {
    let to = path.with_file_name(name);
    fs::copy(path, &to).unwrap();
    to
}

/// Keys of minisign in a folder: one without a passphrase, one with it.
struct Keys {
    dir: tempfile::TempDir,
}

impl Keys {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| fs::write(dir.path().join(name), text).unwrap();
        let plain = minisign::KeyPair::generate_unencrypted_keypair().unwrap();
        write("plain.key", plain.sk.to_box(None).unwrap().into_string());
        write("plain.pub", plain.pk.to_box().unwrap().into_string());
        write("passphrase", "a passphrase\n".into());
        Self { dir }
    }

    fn path(&self, name: &str) -> String {
        text(&self.dir.path().join(name))
    }
}

#[test]
fn what_is_signed_is_proven_and_what_is_not_is_refused() {
    let (record, keys) = (Record::of("l2-ext4"), Keys::new());
    let run = record.verify(&["--sign", &keys.path("plain.key")]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let (page, json, public) = (text(&record.page), text(&record.json), keys.path("plain.pub"));
    let check = || unluks(&["report", "verify", &page, &json, "--public-key", &public]);
    let run = check();
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let said = String::from_utf8(run.stdout).unwrap();
    let hash = sha256(&fs::read(&record.json).unwrap());
    let report = record.report();
    let id = report["run"]["id"].as_str().unwrap().to_owned();
    let fences = report["run"]["program"]["sandbox"].as_array().unwrap();
    assert_eq!(!fences.is_empty(), cfg!(feature = "files"), "{fences:?}");
    assert!(said.contains(&format!("signed: unluks verify: restorable run:{id} sha256:{hash}")), "{said}");

    let other = Keys::new();
    let run = unluks(&["report", "verify", &json, "--public-key", &other.path("plain.pub")]);
    assert_eq!(run.code, Some(4), "{}", run.stderr);
    // One signature in place of another.
    fs::copy(format!("{page}.minisig"), format!("{json}.minisig")).unwrap();
    assert_eq!(check().code, Some(4));
    fs::remove_file(format!("{json}.minisig")).unwrap();
    assert_eq!(check().code, Some(1));
    let run = record.verify(&["--force", "--sign", &keys.path("plain.key")]);
    assert_eq!((run.code, check().code), (Some(0), Some(0)), "{}", run.stderr);
    let signature = fs::read_to_string(format!("{json}.minisig")).unwrap();
    let cut = signature.rsplit_once("\n").unwrap().0.rsplit_once("\n").unwrap().0.to_owned() + "\nAAAA\n";
    for wrong in [cut.as_str(), "", "untrusted comment: x\nAAAA\ntrusted comment: y\nAAAA\n", "\u{0}"] {
        fs::write(format!("{json}.minisig"), wrong).unwrap();
        let run = check();
        assert!(run.code == Some(4) && !run.stderr.contains("panicked"), "{wrong:?}: {}", run.stderr);
    }
    let run = unluks(&["verify", &text(&record.image), "--key-file", "/nowhere", "--sign", &keys.path("plain.key")]);
    assert!(run.code == Some(2) && run.stderr.contains("--sign wants a file"), "{}", run.stderr);
    let run = record.verify(&["--force", "--sign", &keys.path("plain.pub")]);
    assert!(run.code == Some(2), "{}", run.stderr);
}

/// The program itself, with a key that has a passphrase.
#[cfg(feature = "peer-tests")]
#[test]
fn minisign_takes_what_is_signed_and_its_keys_sign() {
    let (record, keys) = (Record::of("l2-ext4"), Keys::new());
    let made = std::process::Command::new("sh")
        .args(["-c", "printf 'a passphrase\\na passphrase\\n' | minisign -G -s own.key -p own.pub"])
        .current_dir(keys.dir.path())
        .output()
        .unwrap();
    assert!(made.status.success(), "apt-get install minisign: {}", String::from_utf8_lossy(&made.stderr));
    let passphrase = keys.path("passphrase");
    let run = record.verify(&["--sign", &keys.path("own.key"), "--sign-passphrase-file", &passphrase]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    for file in [&record.page, &record.json] {
        let run = crate::common::peer("minisign", "minisign", &["-V", "-p", &keys.path("own.pub"), "-m", &text(file)]);
        let said = String::from_utf8_lossy(&run.stdout).into_owned();
        assert!(run.code == Some(0) && said.contains("unluks verify: restorable run:"), "{said}{}", run.stderr);
    }
    // Without a passphrase, some versions of it write no checksum of the key.
    let made = std::process::Command::new("minisign")
        .args(["-G", "-W", "-s", "open.key", "-p", "open.pub"])
        .current_dir(keys.dir.path())
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let run = record.verify(&["--force", "--sign", &keys.path("open.key")]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let words = ["-V", "-p", &keys.path("open.pub"), "-m", &text(&record.json)];
    assert_eq!(crate::common::peer("minisign", "minisign", &words).code, Some(0));
    fs::write(&passphrase, "another\n").unwrap();
    let run = record.verify(&["--force", "--sign", &keys.path("own.key"), "--sign-passphrase-file", &passphrase]);
    assert!(run.code == Some(2) && !run.stderr.contains("another\n"), "{}", run.stderr);
}

#[test]
fn a_policy_makes_findings_of_what_breaks_it() {
    let golden = Golden::unpack("l2-ext4");
    let (image, key, policy) = (text(&golden.image), text(&golden.key), golden.path("policy.toml"));
    let with = |rules: &str, more: &[&str]| {
        fs::write(&policy, rules).unwrap();
        let args = ["verify", &image, "--key-file", &key, "--policy", &text(&policy), "--json"];
        unluks(&[&args[..], more].concat())
    };
    let report = |run: &Run| -> Value { serde_json::from_slice(&run.stdout).unwrap() };
    let run = with("min-luks-version = 2\nmax-keyslots = 8\n", &["--strict"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_eq!(report(&run)["policy"]["rules"], 2);
    let run = with("integrity = true\n", &["--strict"]);
    assert_eq!(run.code, Some(7), "{}", run.stderr);
    let found = report(&run);
    assert_eq!(found["reason"], "no tag of dm-integrity is over the data; the policy wants it");
    assert_eq!(found["policy"]["sha256"], sha256(b"integrity = true\n").as_str());
    assert!(found["findings"].as_array().unwrap().iter().any(|f| f["code"] == "header.policy.integrity"));
    assert_eq!(with("integrity = { is = true, severity = \"error\" }\n", &[]).code, Some(4));
    assert_eq!(with("integrity = { is = true, severity = \"note\" }\n", &["--strict"]).code, Some(0));
    assert_eq!(with("contents = \"xfs\"\n", &[]).code, Some(4));
    let run = with("# rules\nintegrety = true\n", &[]);
    assert!(run.code == Some(2) && run.stderr.contains("line 2: unknown field `integrety`"), "{}", run.stderr);
}

/// An envelope, a query for a time stamp and DFXML of one run, each taken by the program whose format it is.
#[cfg(feature = "peer-tests")]
#[test]
fn envelope_query_and_dfxml_are_taken_by_their_own_programs() {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD as BASE64;

    let golden = Golden::unpack("l2-primary-zeroed");
    let (image, key) = (text(&golden.image), text(&golden.key));
    let path = |name: &str| text(&golden.path(name));
    let openssl = |args: &[&str]| -> String {
        let run = std::process::Command::new("openssl").args(args).output().unwrap();
        assert!(run.status.success(), "{args:?}: {}", String::from_utf8_lossy(&run.stderr));
        String::from_utf8_lossy(&run.stdout).into_owned()
    };
    openssl(&["genpkey", "-algorithm", "ed25519", "-out", &path("sign.pem")]);
    openssl(&["pkey", "-in", &path("sign.pem"), "-pubout", "-out", &path("public.pem")]);
    let (statement, dfxml, sealed) = (path("statement"), path("record.xml"), path("record.json"));
    let all =
        ["verify", &image, "--key-file", &key, "--attestation", &statement, "--attestation-key", &path("sign.pem")];
    let record = ["--dfxml", &dfxml, "--timestamp-query", "--case", "<7>\u{202e}&"];
    let run = unluks(&[&all[..], &record, &[&format!("--json={sealed}")]].concat());
    assert_eq!(run.code, Some(0), "{}", run.stderr);

    // All of one run, and each as it was written.
    let public = path("public.pem");
    let check = |more: &[&str]| unluks(&[&["report", "verify", &sealed, &statement, &dfxml], more].concat());
    let run = check(&["--attestation-public-key", &public]);
    let said = String::from_utf8_lossy(&run.stdout).into_owned();
    assert_eq!(run.code, Some(0), "{said}{}", run.stderr);
    assert!(
        said.contains("in an envelope that is signed")
            && said.matches("a query for a time stamp lies beside it; no answer").count() == 3,
        "{said}"
    );
    assert!(String::from_utf8_lossy(&check(&[]).stdout).contains("--attestation-public-key does"));
    openssl(&["genpkey", "-algorithm", "ed25519", "-out", &path("other.pem")]);
    openssl(&["pkey", "-in", &path("other.pem"), "-pubout", "-out", &path("other.pub")]);
    let run = check(&["--attestation-public-key", &path("other.pub")]);
    assert!(run.code == Some(4) && run.stderr.contains("no signature of the envelope"), "{}", run.stderr);
    for (file, from, to) in [
        (&dfxml, "<unluks:case>", "<unluks:case>1"),
        (&statement, "\"payload\":\"", "\"payload\":\"AAAA"),
        (&format!("{sealed}.tsq"), "", "0"),
    ] {
        let before = fs::read(file).unwrap();
        let at = before.windows(from.len().max(1)).position(|part| from.is_empty() || part == from.as_bytes()).unwrap();
        let changed = [&before[..at], to.as_bytes(), &before[at + from.len()..]].concat();
        fs::write(file, changed).unwrap();
        let run = check(&[]);
        assert_eq!(run.code, Some(4), "{file}: {}", run.stderr);
        fs::write(file, before).unwrap();
    }
    assert_eq!(unluks(&["report", "verify", &dfxml]).code, Some(2), "its report is wanted");

    let envelope: Value = serde_json::from_slice(&fs::read(&statement).unwrap()).unwrap();
    let bytes = |value: &Value| BASE64.decode(value.as_str().unwrap()).unwrap();
    let payload = bytes(&envelope["payload"]);
    let kind = envelope["payloadType"].as_str().unwrap();
    let signed = [format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).as_bytes(), &payload].concat();
    fs::write(path("signed"), signed).unwrap();
    fs::write(path("signature"), bytes(&envelope["signatures"][0]["sig"])).unwrap();
    let verify = ["pkeyutl", "-verify", "-pubin", "-rawin", "-inkey", &path("public.pem"), "-in", &path("signed")];
    openssl(&[&verify[..], &["-sigfile", &path("signature")]].concat());
    let inside: Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!(inside["predicate"]["result"], "WARNED");

    for file in [&statement, &dfxml, &sealed] {
        let query = openssl(&["ts", "-query", "-in", &format!("{file}.tsq"), "-text"]);
        let hash = sha256(&fs::read(file).unwrap());
        let shown: String = query.lines().filter_map(|line| line.split(" - ").nth(1)).collect();
        let digits: String = shown.chars().filter(char::is_ascii_hexdigit).collect();
        assert!(
            digits.contains(&hash[..16]) && query.contains("sha256") && query.contains("Certificate required: yes")
        );
    }

    let run = std::process::Command::new("xmllint").args(["--noout", &dfxml]).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let xml = fs::read_to_string(&dfxml).unwrap();
    let plaintext = report_of(&sealed)["hashes"]["plaintext"]["sha256"].as_str().unwrap().to_owned();
    assert!(xml.contains(&plaintext) && xml.contains(&sha256(&fs::read(&golden.image).unwrap())));
    assert!(xml.contains("<unluks:case>&#60;7&#62;\\u{202e}&#38;</unluks:case>"), "{xml}");
    // Only files of the same kinds are replaced, and the key is never one.
    let again = unluks(&[&all[..], &["--force", "-q"]].concat());
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    let bare = ["verify", &image, "--key-file", &key, "--attestation"];
    assert_eq!(unluks(&[&bare[..], &[&dfxml, "--force"]].concat()).code, Some(2));
    let onto = unluks(
        &[&all[..6], &["--attestation-key", &path("sign.pem"), "--dfxml", &path("sign.pem"), "--force"]].concat(),
    );
    assert_eq!(onto.code, Some(2), "{}", onto.stderr);
    fs::write(path("rsa.pem"), "-----BEGIN PRIVATE KEY-----\n").unwrap();
    let other = unluks(&[&bare[..], &[&path("new"), "--attestation-key", &path("rsa.pem")]].concat());
    assert!(other.code == Some(2) && other.stderr.contains("genpkey"), "{}", other.stderr);
}

#[cfg(feature = "peer-tests")]
fn report_of(path: &str) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_statement_is_that_of_in_toto() {
    let golden = Golden::unpack("l2-primary-zeroed");
    let (image, key, out) = (text(&golden.image), text(&golden.key), golden.path("statement.json"));
    let run = unluks(&["verify", &image, "--key-file", &key, "--attestation", &text(&out)]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let statement: Value = serde_json::from_slice(&fs::read(&out).unwrap()).unwrap();
    assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
    let json = golden.path("report.json");
    let check = |files: &[&str]| unluks(&[&["report", "verify"], files].concat());
    assert_eq!(check(&[&text(&out)]).code, Some(0));
    let run = unluks(&["verify", &image, "--key-file", &key, &format!("--json={}", text(&json))]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let other = check(&[&text(&json), &text(&out)]);
    assert!(other.code == Some(4) && other.stderr.contains("of run"), "{}", other.stderr);
    assert_eq!(statement["predicateType"], "https://in-toto.io/attestation/test-result/v0.1");
    assert_eq!(statement["subject"][0]["digest"]["sha256"], sha256(&fs::read(&golden.image).unwrap()).as_str());
    let predicate = &statement["predicate"];
    assert_eq!(predicate["result"], "WARNED");
    assert_eq!(predicate["warnedTests"][0], "header", "{statement:#}");
    assert!(!predicate["passedTests"].to_string().contains("integrity"), "there was nothing to test: {predicate:#}");
    assert!(
        predicate["passedTests"].as_array().unwrap().len() > 4 && predicate["failedTests"] == serde_json::json!([])
    );
}

/// `UNLUKS_DFXML_XSD=PATH cargo test … dfxml_is_valid -- --ignored`, with the schema of dfxml-working-group/dfxml_schema.
#[test]
#[ignore = "wants the schema, which is in no package: UNLUKS_DFXML_XSD"]
fn dfxml_is_valid_by_its_schema() {
    let schema = std::env::var("UNLUKS_DFXML_XSD").expect("UNLUKS_DFXML_XSD names dfxml.xsd");
    for name in ["l2-ext4", "l2-primary-zeroed", "l2-integrity-tag-flipped", "l2-both-damaged", "gpt"] {
        let record = Record::of(name);
        let xml = text(&record.golden.path("record.xml"));
        let run =
            record.verify(&["--dfxml", &xml, "--case", "<7>\u{202e}&", "--hash", "image:sha512", "--hash", "md5"]);
        assert!(matches!(run.code, Some(0 | 4)), "{name}: {}", run.stderr);
        let run = std::process::Command::new("xmllint").args(["--noout", "--schema", &schema, &xml]).output().unwrap();
        assert!(run.status.success(), "{name}: {}", String::from_utf8_lossy(&run.stderr));
    }
}
