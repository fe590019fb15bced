//! Snapshots of the command line: its help, and the words and exit codes of what goes wrong.
//!
//! `TRYCMD=overwrite cargo test -p unluks-cli --test cli` writes them anew; look at the difference before it is committed.

#![cfg(all(feature = "nbd", feature = "openstack"))]

#[test]
fn the_command_line_says_what_it_said() {
    // The commands name files as the README does: from the root of the repository.
    std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).expect("the root of the repository is there");
    trycmd::TestCases::new().case("cli/tests/cmd/*.trycmd").env("COLUMNS", "100");
}
