//! What a report says of its run: the program, the machine, the files, the case.

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use unluks::error::escape;
use unluks::verify::{Case, Host, InputFile, Program, Run};

use crate::args::verify::VerifyArgs;
use crate::key;
use crate::own;

/// Flags whose value is the file of a secret.
const SECRETS: [&str; 10] = [
    "--also-key-file",
    "--also-passphrase-file",
    "--attestation-key",
    "--barbican-key",
    "--key",
    "--key-file",
    "--passphrase-file",
    "--sign",
    "--sign-passphrase-file",
    "--volume-key-file",
];

/// SHA-256 of the files that say what is asked.
pub struct Files<'a> {
    pub policy: Option<&'a str>,
    pub manifest: Option<&'a str>,
}

/// Fills in all that the library does not know.
pub fn fill(run: &mut Run, args: &VerifyArgs, files: Files<'_>, inputs: Vec<InputFile>) {
    run.program = Some(program(args));
    run.host = Some(host());
    run.inputs = inputs;
    run.asked = Some(asked(args, &files));
    let record = &args.record;
    run.case = Case {
        case: record.case.clone(),
        evidence: record.evidence.clone(),
        examiner: record.examiner.clone(),
        note: record.note.clone(),
    };
}

/// The files at these paths, as they are now; what is not there is left out.
pub fn inputs<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Vec<InputFile> {
    let mut all: Vec<InputFile> = Vec::new();
    for path in paths {
        let Ok(meta) = std::fs::metadata(path) else { continue };
        let modified_ns = meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec());
        let path = path.to_string_lossy().into_owned();
        let file = InputFile { path, size: meta.len(), modified_ns, device: meta.dev(), inode: meta.ino() };
        if !all.contains(&file) {
            all.push(file);
        }
    }
    all
}

/// A hash of what was asked, beside the key and the case.
pub fn asked(args: &VerifyArgs, files: &Files<'_>) -> String {
    let compare: Vec<&PathBuf> =
        args.compare.iter().chain(&args.decrypted.output).chain(&args.header).chain(&args.with).collect();
    let all = (
        (env!("CARGO_PKG_VERSION"), unluks::verify::SCHEMA, files.policy),
        (args.must_be.map(|must_be| must_be.word()), &args.expect, &args.hash, compare),
        (args.format, args.max_size, &args.partition, &args.volume, args.offset, args.key.key_slot, args.quick),
        (files.manifest, args.proof.is_by_packages()),
    );
    let mut hex = hex::encode(Sha256::digest(format!("{all:?}")));
    hex.truncate(32);
    hex
}

fn program(args: &VerifyArgs) -> Program {
    let limits = key::limits(&args.limits);
    Program {
        sha256: own::hash().ok(),
        features: own::features().map(str::to_owned).collect(),
        #[cfg(feature = "files")]
        sandbox: crate::sandbox::fences(),
        #[cfg(not(feature = "files"))]
        sandbox: Vec::new(),
        arguments: arguments(std::env::args_os().map(|arg| arg.to_string_lossy().into_owned())),
        kdf_memory_max: limits.kdf_memory,
        kdf_seconds_max: limits.kdf_time.as_secs(),
    }
}

/// The arguments. A secret is in a file, but somebody may have given one in place of its name.
fn arguments(all: impl Iterator<Item = String>) -> Vec<String> {
    let name = |value: &str| if Path::new(value).exists() || value == "-" { value.to_owned() } else { "…".into() };
    let mut is_secret = false;
    all.map(|argument| {
        if std::mem::take(&mut is_secret) {
            return name(&argument);
        }
        is_secret = SECRETS.contains(&argument.as_str());
        match argument.split_once('=') {
            Some((flag, value)) if SECRETS.contains(&flag) => format!("{flag}={}", name(value)),
            _ => argument,
        }
    })
    .collect()
}

fn host() -> Host {
    let uname = rustix::system::uname();
    let text = |part: &std::ffi::CStr| escape(&part.to_string_lossy());
    let user = ["USER", "LOGNAME"].iter().find_map(std::env::var_os);
    Host {
        name: text(uname.nodename()),
        system: format!("{} {}", text(uname.sysname()), text(uname.release())),
        architecture: text(uname.machine()),
        uid: rustix::process::getuid().as_raw(),
        user: user.as_deref().map(OsStr::to_string_lossy).map(|user| escape(&user)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_in_place_of_its_file_is_not_told() {
        let given = ["unluks", "verify", "hunter2.img", "--key-file", "hunter2", "--key=hunter2", "--key-slot", "2"];
        let told = arguments(given.into_iter().map(str::to_owned));
        assert_eq!(told, ["unluks", "verify", "hunter2.img", "--key-file", "…", "--key=…", "--key-slot", "2"]);
        let told = arguments(["--sign", "/proc/self/exe", "--key-file=-"].into_iter().map(str::to_owned));
        assert_eq!(told, ["--sign", "/proc/self/exe", "--key-file=-"]);
    }
}
