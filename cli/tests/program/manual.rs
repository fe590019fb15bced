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
    for shell in ["bash", "zsh", "fish"] {
        let run = unluks(&["completions", shell]);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        let script = String::from_utf8(run.stdout).unwrap();
        assert!(script.contains("decrypt") && script.contains("barbican-key"), "{shell}");
    }
}
