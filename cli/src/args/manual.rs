//! The command line of `unluks completions` and `unluks man`, and of what is no command of unluks.

use std::path::PathBuf;

use clap::Args;

use super::examples;

/// Prints a script for a shell that completes subcommands and flags
#[derive(Args)]
#[command(after_long_help = examples::COMPLETIONS)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

/// Writes the manual pages, one for each subcommand
#[derive(Args)]
#[command(after_long_help = examples::MAN)]
pub struct ManArgs {
    /// The folder that they go to
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

/// What cryptsetup would map is decrypted or served.
#[derive(Args)]
pub struct OpenArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub rest: Vec<std::ffi::OsString>,
}
