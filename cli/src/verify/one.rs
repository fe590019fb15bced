//! One image, from its name to its report.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use unluks::backup::DESCRIPTION;
use unluks::decrypt::hash::{Algorithm, Of, Wanted};
use unluks::error::escape;
use unluks::inside::Level;
use unluks::progress::Progress;
use unluks::verify::{self, Compare, Expected, Options, Report, Subject};
use unluks::{Error, ErrorKind, Image, Result, UnlockedImage};

use super::dsse;
use super::memory::{Memory, wanted};
use super::open::open;
use super::outputs::{Outputs, Seals};
use super::policy::Loaded;
use super::{facts, text};
use crate::args::verify::VerifyArgs;
use crate::backup::InBackup;
use crate::cinder;
use crate::hashes;
use crate::key::{self, Material, Saying};
use crate::open::Opened;
use crate::sign::Signer;

/// What all images share.
pub struct Wishes<'a> {
    pub args: &'a VerifyArgs,
    pub policy: Option<Loaded>,
    #[cfg(feature = "files")]
    pub proof: Option<verify::FileProof>,
    pub signer: Option<Signer>,
    pub envelope: Option<dsse::Key>,
    /// How many threads decrypt an image.
    pub threads: Option<NonZeroUsize>,
    pub memory: Memory,
    /// The key is read once, and asked for once.
    pub key: Mutex<Option<Arc<Material>>>,
}

/// A report, and its line of JSON.
pub struct Verified {
    pub report: Report,
    pub line: String,
}

impl Wishes<'_> {
    /// Verifies an image, and writes its files; an error where nothing is known of it.
    pub fn verify(&self, path: &Path, outputs: Outputs, progress: &Progress) -> Result<Verified> {
        let (mut report, inputs) = self.report(path, &outputs, progress)?;
        facts::fill(&mut report.run, self.args, self.asked(), inputs);
        if let (Some(used), Some(policy)) = (&mut report.policy, &self.policy) {
            used.sha256 = Some(policy.sha256.clone());
        }
        let line = report.seal()?;
        let seals = Seals { signer: self.signer.as_ref(), envelope: self.envelope.as_ref() };
        outputs.finish(&report, &line, seals)?;
        Ok(Verified { report, line })
    }

    /// Hashes of the files that say what is asked.
    pub fn asked(&self) -> facts::Files<'_> {
        let policy = self.policy.as_ref().map(|policy| policy.sha256.as_str());
        #[cfg(feature = "files")]
        let manifest = self.proof.as_ref().and_then(|proof| proof.manifest.as_ref()).map(|m| m.sha256.as_str());
        #[cfg(not(feature = "files"))]
        let manifest = None;
        facts::Files { policy, manifest }
    }

    fn report(&self, path: &Path, outputs: &Outputs, progress: &Progress) -> Result<(Report, Vec<verify::InputFile>)> {
        let args = self.args;
        let name = path.to_string_lossy().into_owned();
        let refused = |image: Option<&Image>, e: Error| {
            let report = Report::of_refusal(&name, image, &e);
            if report.is_some() && !args.quiet && !args.fleet.batch {
                // The report says what is wrong, and this what to do next.
                let _ = writeln!(anstream::stderr(), "note: {}", crate::hint::line(&e));
            }
            report.ok_or(e)
        };
        let description = path.join(DESCRIPTION);
        let named = args
            .header
            .iter()
            .chain(&args.with)
            .chain(&args.compare)
            .map(PathBuf::as_path)
            .chain(args.proof.manifest());
        let named = named.chain(args.decrypted.image_map.as_deref());
        let named: Vec<&Path> = named.chain([path, &description].into_iter().filter(|path| path.is_file())).collect();
        let mut opened = match open(args, path) {
            Ok(opened) => opened,
            Err(e) => return Ok((refused(None, e)?, facts::inputs(named))),
        };
        if opened.source.pipe().is_some() {
            return Err(Error::invalid("verify wants an image that can be read at any place, not a pipe"));
        }
        let inputs = facts::inputs(opened.source.paths().into_iter().chain(named));
        let mut options = self.options(opened.backup.as_ref())?;
        key::note(&args.key, &mut opened.source.inputs)?;
        outputs.refuse_inputs(&opened.source.inputs)?;
        if let Some(doubt) = opened.doubts().into_iter().next() {
            return Ok((refused(Some(&opened.image), doubt)?, inputs));
        }
        if let Some(chain) = &opened.source.cinder {
            match cinder::check(chain, cinder::Compare::Blocks, args.progress, args.quiet || args.fleet.batch, progress)
            {
                Err(e) if e.kind() == ErrorKind::Corrupt => return Ok((refused(Some(&opened.image), e)?, inputs)),
                other => other.map_err(|e| opened.source.named(e))?,
            }
        }
        let unlocked = match opened.image.unlock_unencrypted() {
            Some(unlocked) => Ok((unlocked, Vec::new())),
            None => self.unlock(&opened, path),
        };
        let (unlocked, forms) = match unlocked {
            Ok(unlocked) => unlocked,
            Err(e) => return Ok((refused(Some(&opened.image), e)?, inputs)),
        };
        let source = &opened.source;
        let files = std::iter::once(&source.file).chain(source.segments.iter().map(|segment| &segment.file));
        let files: Vec<_> = files.map(Arc::clone).collect();
        let passes_by = source.is_plain_file() && files.len() == 1;
        let subject = Subject { path: name.clone(), unlocked: &unlocked, files, passes_by, forms };
        options.tree = outputs.tree()?;
        let report = verify::verify(&subject, options, progress).map_err(|e| source.named(e))?;
        Ok((report, inputs))
    }

    fn options(&self, backup: Option<&InBackup>) -> Result<Options> {
        let args = self.args;
        let mut expected = args.expect.iter().map(|text| expect(text)).collect::<Result<Vec<_>>>()?;
        expected.extend(backup.into_iter().flat_map(InBackup::expected));
        let mut hashes = hashes::parse(&args.hash)?;
        let output = args.decrypted.output.as_deref();
        let record = &args.record;
        if record.writes() || args.fleet.batch {
            // A record has to say which image it is of.
            hashes.push(Wanted { of: Of::Image, algorithm: Algorithm::Sha256 });
        }
        Ok(Options {
            hashes,
            expected,
            not_compared: backup.and_then(|backup| backup.wanted().err()).map(|e| e.message().to_owned()),
            plaintext_bytes: backup.and_then(InBackup::plaintext_bytes),
            must_be: args.must_be.or(backup.and_then(InBackup::must_be)),
            level: if args.quick { Level::Quick } else { Level::Full },
            compare: args.compare.as_deref().or(output).map(Compare::open).transpose()?,
            output: output.map(|path| path.to_string_lossy().into_owned()),
            policy: self.policy.as_ref().map(|loaded| loaded.policy.clone()),
            fetched_at: backup.map(InBackup::fetched_at),
            #[cfg(feature = "files")]
            files: self.proof.clone(),
            tree: None,
            threads: self.threads,
            bad_sectors: args.decrypted.bad_sectors,
        })
    }

    /// Unlocks an image, and says what was done to make the passphrase.
    fn unlock(&self, opened: &Opened, path: &Path) -> Result<(UnlockedImage, Vec<String>)> {
        let args = self.args;
        let material = match &opened.backup {
            // A backup's own key is of no other image.
            Some(backup) => Arc::new(key::asked(key::read(&args.key, false, Some(backup))?, path)?),
            None => {
                let mut shared = self.key.lock().unwrap_or_else(PoisonError::into_inner);
                match &*shared {
                    Some(material) => Arc::clone(material),
                    None => {
                        let material = Arc::new(key::asked(key::read(&args.key, false, None)?, path)?);
                        Arc::clone(shared.insert(material))
                    }
                }
            }
        };
        let options = key::options(false, &args.key, &args.limits);
        let saying = Saying { image: opened.source.shown(), quiet: true };
        let taken = self.memory.take(wanted(opened.image.metadata()));
        let unlocked = key::unlock(&opened.image, &material, &options, &saying).map_err(|e| opened.source.named(e))?;
        drop(taken);
        let forms = match &*material {
            Material::Passphrases(given) => {
                let rule = |candidate: usize| given.key.candidates().get(candidate).map(|c| c.rule.describe());
                unlocked.opened().iter().filter_map(|o| rule(o.candidate)).collect()
            }
            Material::Ask { .. } | Material::VolumeKey(_) => Vec::new(),
        };
        Ok((unlocked, forms))
    }
}

impl Verified {
    /// What is printed of it.
    pub fn print(&self, args: &VerifyArgs) -> Result<()> {
        let text = if args.prints_json() {
            format!("{}\n", self.line)
        } else if args.quiet {
            text::last_line(&self.report)
        } else {
            text::text(&self.report)
        };
        let mut out = anstream::stdout().lock();
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .map_err(|e| Error::io("writing to the standard output", e))
    }
}

/// Reads `sha256:HEX`, `image:sha256:HEX` and `plaintext:sha256:HEX`.
fn expect(text: &str) -> Result<Expected> {
    let (of, rest) = match text.split_once(':') {
        Some(("plaintext", rest)) => (Of::Plaintext, rest),
        Some(("image", rest)) => (Of::Image, rest),
        _ => (Of::Image, text),
    };
    let bad = || Error::invalid(format!("--expect {}: a hash and its hex are wanted, as sha256:HEX", escape(text)));
    let (name, hex) = rest.split_once(':').ok_or_else(bad)?;
    let algorithm: Algorithm = name.parse()?;
    let hex = hex.to_ascii_lowercase();
    if hex.len() != 2 * algorithm.output_len() || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(bad());
    }
    Ok(Expected { of, algorithm, hex, by: "--expect".into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_expected_is_a_hash_and_its_hex() {
        let hex = "AB".repeat(32);
        let read = expect(&format!("sha256:{hex}")).unwrap();
        assert_eq!((read.of, read.hex.as_str()), (Of::Image, "ab".repeat(32).as_str()));
        assert_eq!(expect(&format!("plaintext:blake3:{hex}")).unwrap().of, Of::Plaintext);
        for wrong in ["sha256", "sha256:", "sha256:ab", &format!("sha1:{hex}"), &format!("sha257:{hex}"), &hex] {
            assert!(expect(wrong).is_err(), "{wrong}");
        }
    }
}
