//! The record of a decryption, and what lies beside a record's files.

use super::*;

/// The report in a page, which the schema has nothing against.
fn record_of(page: &str) -> Value {
    let page = text_of(page);
    let record = page.lines().find(|line| line.starts_with("{\"schema\":")).unwrap();
    let report = serde_json::from_str(record).unwrap();
    let schema = fs::read(crate::common::root().join("docs/verify.schema.json")).unwrap();
    let schema = jsonschema::validator_for(&serde_json::from_slice(&schema).unwrap()).unwrap();
    let faults: Vec<String> = schema.iter_errors(&report).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(faults.is_empty(), "{faults:?}");
    report
}

#[test]
fn a_decryption_has_a_record_for_which_the_output_is_read_back() {
    let golden = Golden::unpack("l2-ext4");
    let (image, key) = (text(&golden.image), text(&golden.key));
    let (out, page, dfxml) = (text(&golden.path("out")), text(&golden.path("page.html")), text(&golden.path("d.xml")));
    let decrypt = ["decrypt", &image, "--key-file", &key, "-o", &out];
    let run = unluks(&[&decrypt[..], &["--report", &page, "--dfxml", &dfxml, "--case", "7"]].concat());
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let hash = sha256(&fs::read(&out).unwrap());
    let html = fs::read_to_string(&page).unwrap();
    // It is a fact of its own, which proves nothing of the image.
    let report = record_of(&html);
    let said = String::from_utf8_lossy(&run.stdout).into_owned();
    for (shown, path) in [(&html, "/out, "), (&said, "/out: ")] {
        let line = format!("{path}{} bytes, sha256 {hash}, read back", fs::metadata(&out).unwrap().len());
        assert!(shown.contains(&line), "{line}: {shown}");
    }
    assert!(
        !html.contains("the same as in an earlier copy")
            && !html.contains("Does <bdi>")
            && html.contains("Decrypted to "),
        "{html}"
    );
    assert!(html.contains("Not all bytes of files in it are under a checksum"), "{html}");
    assert!(!said.contains("--json") && said.contains("the record has them"), "{said}");
    assert_eq!((&report["output"]["sha256"], &report["output"]["read_back"]), (&hash.clone().into(), &true.into()));
    let coverage = &report["coverage"];
    assert_eq!((&coverage["compared_bytes"], &coverage["file_data_proven"]), (&0.into(), &false.into()));
    assert!(!report["run"]["inputs"].to_string().contains("/out\""), "{report:#}");
    assert!(fs::read_to_string(&dfxml).unwrap().contains(&hash));
    let checked = unluks(&["report", "verify", &page]);
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    // What cannot be is refused before anything is written.
    let fresh = text(&golden.path("fresh"));
    let with = |more: &[&str]| unluks(&[&["decrypt", &image, "--key-file", &key], more].concat());
    let (none, no_key) = (text(&golden.path("none")), text(&golden.image));
    for flags in [
        &["--sign", &none][..],
        &["--sign", &no_key],
        &["--attestation", &text(&golden.path("a")), "--attestation-key", &none],
    ] {
        let run = with(&[&["-o", &fresh, "--report", &text(&golden.path("other"))], flags].concat());
        assert_eq!(run.refusal_fault(&[1, 2]), None, "{flags:?}: {}", run.stderr);
        assert!(!golden.path("fresh").exists() && !run.stderr.contains("opened"), "{flags:?}: {}", run.stderr);
    }
    for more in [
        &["-o", "-", "--report", &fresh][..],
        &["-o", &fresh, "--report", &fresh],
        &["-o", &fresh, "--report", &page],
        &["-o", &fresh, "--report", &key, "--force"],
        &["-o", &fresh, "--length", "512", "--report", &text(&golden.path("other"))],
        &["-o", &fresh, "--case", "7"],
    ] {
        let run = with(more);
        assert_eq!(run.refusal_fault(&[2]), None, "{more:?}: {}", run.stderr);
        assert!(!golden.path("fresh").exists(), "{more:?}");
    }
}

/// The report in the page of a decryption with bad sectors: it says which, and that the output is the rest.
#[test]
fn a_decryption_with_bad_sectors_has_a_record_that_says_where_they_are() {
    let decrypt = |golden: &Golden, more: &[&str]| -> Value {
        let (image, key) = (text(&golden.image), text(&golden.key));
        let (out, page) = (text(&golden.path("out")), text(&golden.path("page.html")));
        let args = ["decrypt", &image, "--key-file", &key, "-o", &out, "--report", &page, "--force"];
        let run = unluks(&[&args[..], more].concat());
        assert_eq!(run.code, Some(4), "{}", run.stderr);
        let checked = unluks(&["report", "verify", &page]);
        assert_eq!(checked.code, Some(0), "{}", checked.stderr);
        let report = record_of(&fs::read_to_string(&page).unwrap());
        let output = &report["output"];
        assert_eq!((&output["read_back"], &output["path"]), (&true.into(), &out.as_str().into()), "{report:#}");
        assert_eq!(output["sha256"], sha256(&fs::read(&out).unwrap()));
        report
    };
    let codes = |report: &Value| -> Vec<String> {
        let findings = report["findings"].as_array().unwrap().iter();
        findings.filter(|f| f["severity"] == "error").map(|f| f["code"].as_str().unwrap().to_owned()).collect()
    };
    let golden = Golden::unpack("l2-integrity-tag-flipped");
    for how in ["zero", "report"] {
        let report = decrypt(&golden, &["--bad-sectors", how]);
        assert_eq!(codes(&report), ["integrity.tag"], "{how}: {}", report["findings"]);
        let bytes = ["read_bytes", "plaintext_bytes"].map(|name| report["coverage"][name].as_u64().unwrap());
        let made = report["output"]["stand_in_bytes"].as_u64().unwrap();
        assert_eq!((bytes[1] - bytes[0], made > 0), (made, how == "zero"), "{how}");
    }
    // What ddrescue could not read, in the middle of the data.
    let golden = Golden::unpack("l2-ext4");
    let map = golden.path("map");
    let (start, len) = (163_840 + 512 * 1024, fs::metadata(&golden.image).unwrap().len());
    fs::write(&map, format!("0 +\n0 {start} +\n{start} 4096 -\n{} {} +\n", start + 4096, len - start - 4096)).unwrap();
    let plain = unluks(&["verify", &text(&golden.image), "--key-file", &text(&golden.key), "--json"]);
    let sound: Value = serde_json::from_slice(&plain.stdout).unwrap();
    let report = decrypt(&golden, &["--bad-sectors", "report", "--image-map", &text(&map)]);
    assert_eq!(
        (&report["output"]["stand_in"], &report["coverage"]["file_data_proven"]),
        (&"noise".into(), &false.into())
    );
    let report = decrypt(&golden, &["--bad-sectors", "zero", "--image-map", &text(&map)]);
    let of = |report: &Value, name: &str| report["coverage"][name].as_u64().unwrap();
    for (name, lost) in [("read_bytes", 4096), ("compared_bytes", 0)] {
        assert_eq!(of(&report, name) + lost, of(&sound, name), "{name}");
    }
    let sums = |report: &Value| of(report, "zero_bytes") + of(report, "data_bytes");
    assert_eq!(
        (sums(&report), of(&report, "zero_bytes") <= of(&sound, "zero_bytes")),
        (of(&report, "read_bytes"), true)
    );
    assert_eq!(report["coverage"]["file_data_proven"], false);
    let last = &report["stages"][7];
    assert!(last["result"] == "failed" && last["says"].as_str().unwrap().contains("4096 were not read"), "{last}");
    let says = report["coverage"]["statements"].to_string();
    assert!(says.contains("with 4096 bytes as zeroes"), "{says}");
    assert_eq!(report["output"]["stand_in_bytes"], 4096);
    assert!(fs::read_to_string(golden.path("page.html")).unwrap().contains("with 4096 bytes as zeroes, sha256"));
    assert_eq!(codes(&report), ["file.unreadable"], "{}", report["findings"]);
    let finding = report["findings"].as_array().unwrap().iter().find(|f| f["code"] == "file.unreadable").unwrap();
    assert_eq!(finding["plaintext_offset"], 512 * 1024);
    assert_eq!(
        (&report["coverage"]["unreadable_bytes"], &report["hashes"]["plaintext"]),
        (&4096.into(), &serde_json::json!({}))
    );
    let skip = ["decrypt", &text(&golden.image), "--key-file", &text(&golden.key), "-o", &text(&golden.path("new"))];
    let run = unluks(&[&skip[..], &["--bad-sectors", "skip", "--report", &text(&golden.path("p"))]].concat());
    assert_eq!(run.refusal_fault(&[2]), None, "{}", run.stderr);
}

#[test]
fn what_proves_an_earlier_file_is_no_proof_of_the_next() {
    let golden = Golden::unpack("l2-ext4");
    let (image, key, page) = (text(&golden.image), text(&golden.key), text(&golden.path("page.html")));
    let write = |more: &[&str]| unluks(&[&["verify", &image, "--key-file", &key, "--report", &page], more].concat());
    let run = write(&["--timestamp-query"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let beside = |suffix: &str| PathBuf::from(format!("{page}{suffix}"));
    fs::write(beside(".minisig"), "untrusted comment: of the earlier page\n").unwrap();
    // An answer has the hash of its file, and the number of what it is.
    let number = [0x06, 11, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x10, 0x01, 0x04];
    let answer = |bytes: &[u8]| [&[0x30, 0x82][..], &number, &Sha256::digest(bytes)].concat();
    let check = || unluks(&["report", "verify", &page]);
    let said = String::from_utf8_lossy(&check().stdout).into_owned();
    assert!(said.contains("a query for a time stamp lies beside it; no answer"), "{said}");
    fs::write(beside(".tsr"), answer(&fs::read(&page).unwrap())).unwrap();
    let said = String::from_utf8_lossy(&check().stdout).into_owned();
    assert!(said.contains("an answer for a time stamp lies beside it; check with openssl ts -verify"), "{said}");
    fs::write(beside(".tsr"), answer(b"another file")).unwrap();
    let other = check();
    assert!(other.code == Some(4) && other.stderr.contains("no time stamp of"), "{}", other.stderr);

    // What is none of these is kept, and refused before anything is read; the others go with their file.
    fs::write(beside(".tsr"), "notes").unwrap();
    let run = write(&["--force"]);
    assert_eq!(run.refusal_fault(&[2]), None, "{}", run.stderr);
    assert!(beside(".minisig").exists() && beside(".tsr").exists());
    fs::write(beside(".tsr"), answer(b"another file")).unwrap();
    let run = write(&["--force"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!([".minisig", ".tsq", ".tsr"].iter().all(|suffix| !beside(suffix).exists()));
    assert_eq!(check().code, Some(0));
    // Where the file itself is gone, too.
    fs::remove_file(&page).unwrap();
    fs::write(beside(".minisig"), "untrusted comment: of the earlier page\n").unwrap();
    let run = write(&[]);
    assert_eq!(run.refusal_fault(&[2]), None, "{}", run.stderr);
    assert!(run.stderr.contains("--force"), "{}", run.stderr);
}

#[test]
fn what_lies_behind_a_file_system_is_none_of_its_own() {
    let golden = Golden::unpack("l2-ext4");
    let disk = golden.path("disk");
    assert_eq!(golden.decrypt(&disk, true).code, Some(0));
    let ask = || -> Value {
        let run = unluks(&["verify", &text(&disk), "--json"]);
        serde_json::from_slice(&run.stdout).unwrap_or_else(|e| panic!("{e}: {}", run.stderr))
    };
    let coverage = |report: &Value, name: &str| report["coverage"][name].as_u64().unwrap();
    let own = ask();
    let mut bytes = fs::read(&disk).unwrap();
    let end = bytes.len();
    bytes.resize(end + 65536, 0);
    fs::write(&disk, &bytes).unwrap();
    let longer = ask();
    assert_eq!(coverage(&longer, "behind_bytes"), coverage(&own, "behind_bytes") + 65536);
    assert_eq!(coverage(&longer, "behind_data_bytes"), coverage(&own, "behind_data_bytes"));
    assert_eq!(coverage(&longer, "free_bytes"), coverage(&own, "free_bytes"));
    let sum =
        ["checksummed_bytes", "unchecked_bytes", "free_bytes", "behind_bytes"].map(|name| coverage(&longer, name));
    assert_eq!(sum.iter().sum::<u64>(), coverage(&longer, "plaintext_bytes"));
    assert_eq!(longer["findings"].as_array().unwrap().iter().filter(|f| f["code"] == "contents.behind").count(), 0);
    bytes[end + 40960..end + 49152].fill(0xa5);
    fs::write(&disk, &bytes).unwrap();
    let noisy = ask();
    assert_eq!(coverage(&noisy, "behind_data_bytes"), coverage(&own, "behind_data_bytes") + 8192);
    let found = noisy["findings"].as_array().unwrap().iter().find(|f| f["code"] == "contents.behind").unwrap();
    let start = u64::try_from(end).unwrap() - coverage(&own, "behind_bytes");
    assert_eq!((&found["severity"], &found["plaintext_offset"]), (&"note".into(), &start.into()), "{found}");
    assert_eq!(noisy["verdict"], longer["verdict"]);
    // There is neither a header nor a tag: nothing was passed.
    let none: Vec<&str> = noisy["stages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|s| s["result"] == "none")
        .map(|s| s["stage"].as_str().unwrap())
        .collect();
    assert_eq!(none, ["header", "key", "integrity"]);
}
