//! The program about itself.

use crate::common::{Golden, text, unluks};

#[test]
fn an_image_alone_is_inspected_and_cryptsetups_words_lead_on() {
    let golden = Golden::unpack("l2-argon2id");
    let image = text(&golden.image);
    let inspected = unluks(&["inspect", &image]);
    for args in [&[image.as_str()][..], &["luksDump", &image], &["info", &image]] {
        let run = unluks(args);
        assert_eq!((run.code, &run.stdout), (Some(0), &inspected.stdout), "{args:?}: {}", run.stderr);
    }
    assert_eq!(unluks(&[&image, "--json"]).stdout, unluks(&["inspect", &image, "--json"]).stdout);
    for args in [&["open", &image, "name"][..], &["luksOpen", "--readonly", &image, "name"]] {
        let run = unluks(args);
        assert_eq!(run.refusal_fault(&[2]), None, "{}", run.stderr);
        assert!(run.stderr.contains("unluks decrypt") && run.stderr.contains("unluks serve"), "{}", run.stderr);
    }
    let run = unluks(&["no-such-file"]);
    assert!(run.code == Some(2) && run.stderr.contains("unrecognized subcommand"), "{}", run.stderr);
}

#[test]
fn each_subcommand_has_a_page_and_is_completed() {
    let dir = tempfile::tempdir().unwrap();
    let run = unluks(&["man", &text(dir.path())]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    for page in ["unluks", "unluks-inspect", "unluks-decrypt", "unluks-scan", "unluks-verify"] {
        let text = std::fs::read_to_string(dir.path().join(format!("{page}.1"))).unwrap();
        assert!(text.contains(".SH OPTIONS") && text.lines().count() > 10, "{page}");
    }
    assert_eq!(unluks(&["man", &text(&dir.path().join("none"))]).code, Some(1));
    let decrypt = std::fs::read_to_string(dir.path().join("unluks-decrypt.1")).unwrap();
    for said in [".SH EXAMPLES", ".SH EXIT STATUS", "sha256sum", ".BR unluks (1)"] {
        assert!(decrypt.contains(said), "{said}");
    }
    if cfg!(feature = "peer-tests") {
        for page in std::fs::read_dir(dir.path()).unwrap() {
            let page = page.unwrap().path();
            let lint = std::process::Command::new("mandoc").args(["-T", "lint"]).arg(&page).output();
            let lint = lint.unwrap_or_else(|e| panic!("mandoc of the Debian package mandoc: {e}"));
            assert!(lint.stdout.is_empty(), "{}", String::from_utf8_lossy(&lint.stdout));
        }
    }
    for shell in ["bash", "zsh", "fish"] {
        let run = unluks(&["completions", shell]);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        let script = String::from_utf8(run.stdout).unwrap();
        assert!(script.contains("decrypt") && script.contains("barbican-key"), "{shell}");
    }
}

/// The page of backup.json has what its schema has.
#[test]
fn the_description_of_a_backup_has_a_page() {
    fn members(schema: &serde_json::Value, prefix: &str, found: &mut Vec<String>) {
        for (name, member) in schema["properties"].as_object().into_iter().flatten() {
            found.push(format!("{prefix}{name}"));
            members(member, &format!("{prefix}{name}."), found);
        }
    }
    let schema = std::fs::read(crate::common::root().join("docs/backup.schema.json")).unwrap();
    let mut wanted = Vec::new();
    members(&serde_json::from_slice(&schema).unwrap(), "", &mut wanted);
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(unluks(&["man", &text(dir.path())]).code, Some(0));
    let page = std::fs::read_to_string(dir.path().join("unluks-backup.json.5")).unwrap();
    let mut named: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix(".B ")).collect();
    assert!(wanted.len() > 40);
    named.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(named, wanted);
}
