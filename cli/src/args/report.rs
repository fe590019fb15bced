//! The command line of `unluks report`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// What is done with reports of verify.
#[derive(Subcommand)]
pub enum What {
    Verify(VerifyArgs),
    Merge(MergeArgs),
}

/// Checks reports of verify: that they are whole, of a known schema and of one run, and their signatures
///
/// Exits with 4 where one is not as it was written.
#[derive(Args)]
#[command(after_long_help = super::examples::REPORT_VERIFY)]
pub struct VerifyArgs {
    /// The reports: JSON, or pages; and what else was written of the run: statements of in-toto, their envelopes, DFXML. A
    /// query for a time stamp beside one is checked, too
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// The public key of minisign that they have to be signed with, each as FILE.minisig
    #[arg(long, value_name = "FILE")]
    pub public_key: Option<PathBuf>,
    /// The public key of Ed25519 (PEM) that envelopes have to be signed with
    #[arg(long, value_name = "FILE")]
    pub attestation_public_key: Option<PathBuf>,
    /// Say nothing but errors
    #[arg(short, long)]
    pub quiet: bool,
}

/// Brings the reports of a folder together, of an image with several the newest; exits as verify would with all of them
#[derive(Args)]
#[command(after_long_help = super::examples::REPORT_MERGE)]
pub struct MergeArgs {
    /// The folder that verify --batch wrote reports to
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// The list of all images, or their folder: one without a report is named, and the exit code is 1 or a worse one
    #[arg(long, value_name = "LIST")]
    pub list: Vec<PathBuf>,
    /// Exit with 7 where all restore, but there are findings
    #[arg(long)]
    pub strict: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Print CSV
    #[arg(long, conflicts_with = "json")]
    pub csv: bool,
    /// Print a page of HTML, with the age of each proof
    #[arg(long, conflicts_with_all = ["json", "csv"])]
    pub html: bool,
}
