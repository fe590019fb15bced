//! The command line of `unluks verify`.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::Args;
use unluks::format::Format;
use unluks::locate::Unfit;
use unluks::verify::MustBe;
use unluks::volume::BadSectorPolicy;

use super::{KeyArgs, LimitArgs, ProgressKind, SourceArgs, size};

/// Reads all of an image once and says whether a restore would bring back what was there
///
/// Exits with 0 where it would, with 3 where the key is wrong, and with 4 where it would not.
#[derive(Args)]
#[command(after_long_help = super::examples::VERIFY)]
pub struct VerifyArgs {
    /// The images, or directories of backups; with --batch, lists and folders of them
    #[arg(value_name = "IMAGE", required = true)]
    pub images: Vec<PathBuf>,
    /// Take the header from this file: a detached header, or a header backup
    ///
    /// A backup stands in for a header that is damaged.
    #[arg(long, value_name = "FILE")]
    pub header: Option<PathBuf>,
    /// The container format, where it should not be detected: raw, qcow2, vhd, vhdx, vmdk, ewf, vdi, qed, qcow,
    /// parallels, android-sparse, rbd, aff4
    #[arg(long, value_name = "FORMAT", hide_short_help = true)]
    pub format: Option<Format>,
    /// The largest disk that a container may declare [default: 1TiB and 1000 times its file, 64TiB at most]
    #[arg(long, value_name = "SIZE", value_parser = size, hide_short_help = true)]
    pub max_size: Option<u64>,
    /// The partition of a whole-disk image, by number, label or UUID
    #[arg(long, value_name = "PART", conflicts_with = "offset")]
    pub partition: Option<String>,
    /// Another disk of the set, of an md array or an LVM volume group over several, or the parent of an image that lies
    /// on top of one; may be repeated
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub with: Vec<PathBuf>,
    /// The volume of LVM
    #[arg(long, value_name = "VG/LV", conflicts_with = "offset", hide_short_help = true)]
    pub volume: Option<String>,
    /// The backup of a Cinder backup's directory, by its id; without it the newest that is complete is taken
    #[arg(long, value_name = "ID", hide_short_help = true)]
    pub backup: Option<String>,
    /// Where the LUKS container starts in the image
    #[arg(long, value_name = "BYTES", value_parser = size)]
    pub offset: Option<u64>,
    /// The hash that the image must have, such as sha256:HEX
    ///
    /// plaintext:NAME:HEX is the plaintext's. A backup's own is compared in any case.
    #[arg(long, value_name = "NAME:HEX")]
    pub expect: Vec<String>,
    /// What must be in the plaintext, on one of its partitions or volumes at least
    ///
    /// One of: any, ext, ext2, ext3, ext4, xfs, btrfs, fat, exfat, ntfs, iso9660, squashfs, swap, zfs, f2fs, apfs, hfs+,
    /// bitlocker, gpt, mbr, lvm, md, luks. ext is any of the three, and any is whatever is recognised.
    #[arg(long, value_name = "KIND", hide_short_help = true)]
    pub must_be: Option<MustBe>,
    /// Compare with the plaintext as it was: a file of it, or one that --tree wrote
    ///
    /// Says where the two differ.
    #[arg(long, value_name = "FILE")]
    pub compare: Option<PathBuf>,
    /// Write the hashes of each MiB of plaintext to this file, for --compare
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub tree: Option<PathBuf>,
    /// Replace files of an earlier run, such as that of --tree
    ///
    /// With --batch, verify also what has a report already.
    #[arg(long, hide_short_help = true)]
    pub force: bool,
    /// What the header must be like: a file of rules (docs/verify.md lists them)
    #[arg(long, value_name = "FILE.toml", hide_short_help = true)]
    pub policy: Option<PathBuf>,
    /// Hash plaintext and image on the way, as decrypt does; the plaintext's sha256 is always made
    #[arg(long, value_name = "[OF:]NAME", hide_short_help = true)]
    pub hash: Vec<String>,
    /// Look at the contents at their roots alone, and not at every structure and all data that has checksums
    #[arg(long, hide_short_help = true)]
    pub quick: bool,
    /// Exit with 7 where it restores, but there are findings
    #[arg(long)]
    pub strict: bool,
    /// Print a line of JSON for each image, or write it to FILE
    ///
    /// docs/verify.schema.json describes it.
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "-")]
    pub json: Option<PathBuf>,
    /// How many threads decrypt [default: as many as the machine has cores]
    #[arg(long, value_name = "N", hide_short_help = true)]
    pub threads: Option<NonZeroUsize>,
    /// Say nothing but the verdict, and errors
    #[arg(short, long)]
    pub quiet: bool,
    /// How progress is shown on the standard error: auto is a bar on a terminal, and nothing elsewhere
    #[arg(long, value_enum, default_value = "auto", value_name = "HOW", hide_short_help = true)]
    pub progress: ProgressKind,
    #[command(flatten)]
    pub proof: ProofArgs,
    #[command(flatten)]
    pub record: RecordArgs,
    #[command(flatten)]
    pub fleet: FleetArgs,
    #[command(flatten)]
    pub key: KeyArgs,
    #[command(flatten)]
    pub limits: LimitArgs,
    /// What a decryption was allowed, whose record it is.
    #[arg(skip)]
    pub decrypted: Decrypted,
}

/// How an image was decrypted, where that is not as verify would do it.
#[derive(Clone, Default)]
pub struct Decrypted {
    pub snapshot: Option<String>,
    pub image_map: Option<PathBuf>,
    pub recover: bool,
    pub bad_sectors: BadSectorPolicy,
    /// What was written, to be read back.
    pub output: Option<PathBuf>,
}

/// Files in the image, and the hashes that they must have.
#[derive(Args, Clone, Default)]
#[command(next_help_heading = "Files in the image")]
pub struct ProofArgs {
    /// Hold files in the image against this file of hashes
    ///
    /// It is as sha256sum and its relatives print it. Paths are as unluks hash prints them. A file that differs or is missing is an error.
    #[cfg(feature = "files")]
    #[arg(long, value_name = "MANIFEST")]
    pub files: Option<PathBuf>,
    /// Hold files in the image against the package databases in it
    ///
    /// They are those of dpkg, apk, pacman and rpm. A file that differs is a warning, and a changed file of configuration a note.
    #[cfg(feature = "files")]
    #[arg(long)]
    pub packages: bool,
}

impl ProofArgs {
    /// The manifest.
    pub fn manifest(&self) -> Option<&Path> {
        #[cfg(feature = "files")]
        return self.files.as_deref();
        #[cfg(not(feature = "files"))]
        None
    }

    /// Whether package databases are read.
    pub fn is_by_packages(&self) -> bool {
        #[cfg(feature = "files")]
        return self.packages;
        #[cfg(not(feature = "files"))]
        false
    }
}

/// The record for people.
#[derive(Args, Clone)]
#[command(next_help_heading = "Record")]
pub struct RecordArgs {
    /// Write a page for people, in HTML without scripts
    ///
    /// It is one file, to read, print and sign. decrypt reads back what it wrote, and compares it.
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
    /// The case's number or name, for the record
    #[arg(long, value_name = "TEXT", hide_short_help = true)]
    pub case: Option<String>,
    /// The evidence's number or name, for the record
    #[arg(long, value_name = "TEXT", hide_short_help = true)]
    pub evidence: Option<String>,
    /// Who examines it, for the record
    #[arg(long, value_name = "TEXT", hide_short_help = true)]
    pub examiner: Option<String>,
    /// Anything else, for the record
    #[arg(long, value_name = "TEXT", hide_short_help = true)]
    pub note: Option<String>,
    /// Sign the record with this secret key of minisign
    ///
    /// Each of its files gets a FILE.minisig beside it.
    #[arg(long, value_name = "KEY")]
    pub sign: Option<PathBuf>,
    /// The passphrase of the key of --sign: the file's first line; without it, somebody is asked where there is one
    #[arg(long, value_name = "FILE", requires = "sign", hide_short_help = true)]
    pub sign_passphrase_file: Option<PathBuf>,
    /// Write an in-toto statement of the verdict (test-result/v0.1)
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub attestation: Option<PathBuf>,
    /// Put the statement into an envelope of DSSE that this private key of Ed25519 (PKCS#8, PEM) signs
    #[arg(long, value_name = "KEY", requires = "attestation", hide_short_help = true)]
    pub attestation_key: Option<PathBuf>,
    /// Write the record as Digital Forensics XML
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub dfxml: Option<PathBuf>,
    /// Write a query for a time stamp (RFC 3161) of each file of the record, as FILE.tsq beside it
    #[arg(long, hide_short_help = true)]
    pub timestamp_query: bool,
}

/// Many images.
#[derive(Args, Default)]
#[command(next_help_heading = "Many images")]
pub struct FleetArgs {
    /// Verify many, several at once, and end with a summary
    ///
    /// They are all images of folders, and of lists with a path each line. The largest is first, and failures do not end it. The summary is text, or JSON, CSV or HTML with --json, --csv or --html.
    #[arg(long)]
    pub batch: bool,
    /// Where --batch writes a report of each image
    ///
    /// An image that has one there and is unchanged is passed over.
    #[arg(long, value_name = "DIR", requires = "batch")]
    pub reports: Option<PathBuf>,
    /// Write a page of each image beside its report
    #[arg(long, requires = "batch", hide_short_help = true)]
    pub pages: bool,
    /// Print the summary as CSV
    #[arg(long, requires = "batch", conflicts_with = "json", hide_short_help = true)]
    pub csv: bool,
    /// Print the summary as a page of HTML, with the age of each proof
    #[arg(long, requires = "batch", conflicts_with_all = ["json", "csv"], hide_short_help = true)]
    pub html: bool,
    /// How many images at once [default: as many as the machine has cores]
    #[arg(long, value_name = "N", requires = "batch", hide_short_help = true)]
    pub jobs: Option<NonZeroUsize>,
    /// The most memory that the key derivations of all images may take together [default: half of the machine's]
    #[arg(long, value_name = "SIZE", value_parser = size, requires = "batch", hide_short_help = true)]
    pub batch_memory: Option<u64>,
    /// Take only this share of the images, by a hash of the path: I/N with I from 0 on; auto/N asks Slurm's
    /// SLURM_ARRAY_TASK_ID or Kubernetes' JOB_COMPLETION_INDEX for I, and auto asks Slurm for both
    #[arg(long, value_name = "I/N|auto|auto/N", hide_short_help = true)]
    pub shard: Option<String>,
    /// Say what memory and time the key derivations want, for a scheduler, and verify nothing; needs no key
    #[arg(long, hide_short_help = true)]
    pub plan: bool,
}

impl RecordArgs {
    /// Whether a file of the record is wanted.
    pub fn writes(&self) -> bool {
        self.paths().next().is_some()
    }

    /// The files of the record.
    pub fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.report, &self.attestation, &self.dfxml].into_iter().flatten()
    }

    /// A flag that is about the files of a record.
    pub fn given(&self) -> Option<&'static str> {
        let all = [
            ("--case", self.case.is_some()),
            ("--evidence", self.evidence.is_some()),
            ("--examiner", self.examiner.is_some()),
            ("--note", self.note.is_some()),
            ("--sign", self.sign.is_some()),
            ("--timestamp-query", self.timestamp_query),
        ];
        all.into_iter().find(|(_, is_given)| *is_given).map(|(flag, _)| flag)
    }
}

impl VerifyArgs {
    /// Whether JSON is printed.
    pub fn prints_json(&self) -> bool {
        self.json.as_deref().is_some_and(|path| path == Path::new("-"))
    }

    /// The file that the JSON goes to.
    pub fn json_file(&self) -> Option<&Path> {
        self.json.as_deref().filter(|path| *path != Path::new("-"))
    }

    /// One of the images as a source.
    pub fn source(&self, image: &Path) -> SourceArgs {
        SourceArgs {
            image: image.to_owned(),
            header: self.header.clone(),
            format: self.format,
            max_size: self.max_size,
            partition: self.partition.clone(),
            with: self.with.clone(),
            volume: self.volume.clone(),
            backup: self.backup.clone(),
            offset: self.offset,
            snapshot: self.decrypted.snapshot.clone(),
            image_map: self.decrypted.image_map.clone(),
            recover: self.decrypted.recover,
            unfit: Unfit::Damaged,
            ..SourceArgs::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use unluks::verify::MustBe;

    #[test]
    fn help_names_all_that_a_plaintext_may_have_to_be() {
        let refused = "nothing".parse::<MustBe>().unwrap_err().to_string();
        let (_, known) = refused.split_once("; ").unwrap();
        let known: Vec<&str> = known.trim_end_matches(" are known").split(", ").collect();
        assert!(known.len() > 20 && known.contains(&"ext4"), "{refused}");
        let mut command = crate::args::Cli::command();
        let verify = command.find_subcommand_mut("verify").unwrap();
        let arg = verify.get_arguments().find(|arg| arg.get_id() == "must_be").unwrap();
        let help = arg.get_long_help().unwrap().to_string();
        let words: Vec<&str> = help.split(|c: char| !(c.is_alphanumeric() || c == '+')).collect();
        for word in known {
            assert!(words.contains(&word), "{word}: {help}");
        }
    }
}
