//! What is linked in without the client of OpenStack: no network code that calls out.

use std::collections::BTreeSet;
use std::process::Command;

/// Crates that speak HTTP, or TLS as a client, or that such code is built on. The NBD server has rustls, as a server.
const CALLING_OUT: &[&str] = &[
    "aws-lc-rs",
    "aws-lc-sys",
    "curl",
    "curl-sys",
    "h2",
    "http",
    "http-body",
    "httparse",
    "hyper",
    "hyper-rustls",
    "hyper-util",
    "isahc",
    "native-tls",
    "openssl",
    "openssl-sys",
    "quinn",
    "reqwest",
    "rustls-native-certs",
    "rustls-platform-verifier",
    "tokio",
    "tokio-rustls",
    "tower",
    "ureq",
    "url",
    "webpki-roots",
];

/// The names of all crates that a package with the features brings, without those of tests and build scripts.
fn crates(package: &str, features: &[&str]) -> BTreeSet<String> {
    let mut command = Command::new(env!("CARGO"));
    command.args(["tree", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p}", "--target", "all"]);
    command.args(["--package", package]).args(features).current_dir(env!("CARGO_MANIFEST_DIR"));
    let out = command.output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    text.lines().filter_map(|line| line.split(' ').next()).filter(|n| !n.is_empty()).map(str::to_owned).collect()
}

fn calling_out(crates: &BTreeSet<String>) -> Vec<&str> {
    let found = crates.iter().filter(|name| CALLING_OUT.contains(&name.as_str()) || name.starts_with("openstack"));
    found.map(String::as_str).collect()
}

#[test]
fn without_openstack_there_is_no_client_of_http_or_tls() {
    let without = crates("unluks-cli", &["--no-default-features", "--features", "files,mount,nbd"]);
    assert!(without.contains("clap") && without.contains("rustls"), "the tree is read: {without:?}");
    assert_eq!(calling_out(&without), Vec::<&str>::new());
}

#[test]
fn the_list_knows_what_openstack_brings() {
    let with = crates("unluks-cli", &[]);
    let found = calling_out(&with);
    for name in ["hyper", "openstack-sdk-auth-core", "reqwest", "rustls-platform-verifier", "tokio"] {
        assert!(found.contains(&name), "{name} is not in {found:?}");
    }
}

#[test]
fn the_library_alone_has_no_network_at_all() {
    for features in [&["--no-default-features"][..], &["--no-default-features", "--features", "unlock"]] {
        let found = crates("unluks", features);
        assert_eq!(calling_out(&found), Vec::<&str>::new());
        assert!(!found.contains("rustls"), "{features:?}");
    }
}
