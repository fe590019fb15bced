//! Every golden image of testdata, decrypted through the program: what the kernel read, byte for byte; and for those
//! that must not open, the right exit code, one line that says why, and no output file.

use std::fs;

use crate::common::{Golden, chain, check_all, golden_names, sha256_file, sidecar, unluks};

/// What a later part of the project brings. Until then these images must be refused as unsupported. Whoever brings a
/// part deletes its line here and sets `"since": "foundation"` in the sidecars and in spec.json.
const NOT_YET: &[&str] = &[];

/// `Unsupported`.
const UNSUPPORTED: i32 = 5;

fn waits(golden: &Golden) -> bool {
    NOT_YET.iter().any(|tag| golden.has_tag(tag))
}

#[test]
fn every_image_is_decrypted_or_refused_as_its_sidecar_says() {
    check_all(&golden_names(), |name| name.clone(), |name| check(&Golden::unpack(name)));
}

fn check(golden: &Golden) -> Option<String> {
    let out = golden.path("out");
    let before = sha256_file(&golden.image);
    // The arguments for what is not there yet are not there either.
    let run = golden.decrypt(&out, !waits(golden));
    if sha256_file(&golden.image) != before {
        return Some("the image was changed".into());
    }
    let expect = &golden.sidecar["expect"];
    let exit = if waits(golden) { UNSUPPORTED } else { i32::try_from(expect["exit"].as_i64().unwrap()).unwrap() };
    if exit != 0 {
        let left = fs::read_dir(out.parent().unwrap()).unwrap().map(|e| e.unwrap().path());
        let known = [Some(&golden.image), golden.header.as_ref(), Some(&golden.key)];
        let left: Vec<_> = left.filter(|p| !known.contains(&Some(p))).collect();
        if !left.is_empty() {
            return Some(format!("exit {:?}, but left {left:?}", run.code));
        }
        let says = expect["says"].as_array().into_iter().flatten().map(|s| s.as_str().unwrap());
        let unsaid: Vec<_> = says.filter(|s| !waits(golden) && !run.stderr.contains(s)).collect();
        return run
            .refusal_fault(&[exit])
            .or((!unsaid.is_empty())
                .then(|| format!("the message does not name {unsaid:?}: {:?}", run.stderr.trim_end())));
    }
    if run.code != Some(0) {
        return Some(format!("exit {:?}: {:?}", run.code, run.stderr.trim_end()));
    }
    let size = fs::metadata(&out).map(|m| m.len()).unwrap_or(0);
    if Some(size) != golden.sidecar["size"].as_u64() {
        return Some(format!("{size} bytes, not {}", golden.sidecar["size"]));
    }
    if sha256_file(&out) == golden.sidecar["sha256"].as_str().unwrap() {
        return None;
    }
    let wanted = chain(golden.sidecar["chain_of"].as_str().unwrap_or(&golden.name), usize::try_from(size).unwrap());
    let got = fs::read(&out).unwrap();
    let wrong: Vec<_> = (0..got.len() / 512).filter(|n| got[n * 512..][..512] != wanted[n * 512..][..512]).collect();
    Some(if golden.sidecar["plaintext"] == "chain" {
        format!("{} of {} sectors are wrong, from sector {:?} on", wrong.len(), got.len() / 512, wrong.first())
    } else {
        "wrong plaintext".into()
    })
}

/// An image waits for a later part exactly where its sidecar says so, and no line of the list is left over.
#[test]
fn the_list_of_what_is_not_there_yet_agrees_with_the_sidecars() {
    let names = golden_names();
    for name in &names {
        let sidecar = sidecar(name);
        let listed = NOT_YET.iter().any(|tag| sidecar["tags"].as_array().unwrap().iter().any(|t| t == tag));
        assert_eq!(sidecar["since"] == "breadth", listed, "{name}: \"since\" and the list NOT_YET disagree");
    }
    for tag in NOT_YET {
        let used = names.iter().any(|n| sidecar(n)["tags"].as_array().unwrap().iter().any(|t| t == tag));
        assert!(used, "no image has the tag {tag}");
    }
}

/// Headers that ask for too much or for what is not known are shown all the same.
#[test]
fn inspect_shows_what_decrypt_refuses() {
    let shown: Vec<_> = golden_names()
        .into_iter()
        .filter(|name| {
            let s = sidecar(name);
            let luks = s["type"] == "luks1" || s["type"] == "luks2";
            luks && s["since"] == "foundation" && s["expect"]["exit"] != 4
        })
        .collect();
    check_all(
        &shown,
        |name| name.clone(),
        |name| {
            let golden = Golden::unpack(name);
            let mut args = vec!["inspect".to_owned(), crate::common::text(&golden.image)];
            if let Some(header) = &golden.header {
                args.extend(["--header".to_owned(), crate::common::text(header)]);
            }
            let run = unluks(&args);
            match run.code {
                Some(0) if run.stdout.contains(&0x1b) => Some("an escape sequence reached stdout".into()),
                Some(0) => None,
                code => Some(format!("exit {code:?}: {:?}", run.stderr.trim_end())),
            }
        },
    );
}

/// What is left of an image that was cut short: its whole sectors, where that is asked for.
#[test]
fn a_shortened_image_gives_its_whole_sectors_when_asked() {
    let golden = Golden::unpack("l2-truncated");
    let out = golden.path("out");
    let [image, key, to] = [&golden.image, &golden.key, &out].map(|p| crate::common::text(p));
    let run = unluks(&["decrypt", &image, "--key-file", &key, "--output", &to, "--allow-truncated"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let got = fs::read(&out).unwrap();
    let whole = (8_192 - 5_000) / 512 * 512;
    assert_eq!(got.len(), whole);
    assert!(got == chain("l2-truncated", whole));
}

/// The README's own example: the Barbican payload as it was downloaded opens a Cinder volume.
#[test]
fn the_barbican_payload_opens_the_openstack_volume() {
    let dir = crate::common::testdata();
    let [image, key] = ["openstack-volume.img", "openstack-volume.key"].map(|f| crate::common::text(&dir.join(f)));
    let run = unluks(&["decrypt", &image, "--barbican-key", &key, "--output", "-"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.stdout.starts_with(b"If you can read this, the volume was decrypted.\n"));
    assert_eq!(crate::common::sha256(&run.stdout), sidecar("openstack-volume")["sha256"].as_str().unwrap());
}
