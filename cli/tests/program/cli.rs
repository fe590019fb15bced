//! Snapshots of the command line: its help, and the words and exit codes of what goes wrong.
//!
//! `TRYCMD=overwrite cargo test -p unluks-cli --test program cli` writes them anew; look at the difference before it is committed.

#[test]
fn the_command_line_says_what_it_said() {
    trycmd::TestCases::new().case("tests/cmd/*.trycmd").env("COLUMNS", "100");
}
