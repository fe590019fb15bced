//! The one way in: from the command line's words to an open image, and on to its plaintext.

use std::io::Write;
#[cfg(feature = "openstack")]
use std::path::PathBuf;

use unluks::error::Condition;
#[cfg(feature = "openstack")]
use unluks::io::Pipe;
use unluks::locate::HeaderAt;
use unluks::luks::unlock::UnlockOptions;
use unluks::volume::VolumeOptions;
use unluks::{Error, Image, ReadAt, Result, UnlockedImage, Volume, VolumeKey};

use crate::args::plain::{Kind, PlainArgs};
use crate::args::{KeyArgs, LimitArgs, SourceArgs};
use crate::backup::{self, InBackup};
use crate::key::{self, Material, Saying};
use crate::plain;
use crate::source::{Source, is_dash};

/// Says where LUKS is, where another partition than the one that was named holds it.
fn where_luks_is(args: &SourceArgs, e: Error) -> Error {
    if args.partition.is_none() || args.header.is_some() || !e.is(Condition::NoHeader) {
        return e;
    }
    let any = SourceArgs { partition: None, ..args.clone() };
    match Source::open(&any).and_then(|source| source.image().map(|_| source)) {
        Ok(source) => match source.notes().first() {
            Some(note) => e.with_hint(format!("LUKS is elsewhere: {note}")),
            None => e,
        },
        Err(others) if others.rule() == "partition" => e.with_hint(others.message().to_owned()),
        Err(_) => e,
    }
}

/// An image whose header was read and validated, with the files and the backup that it comes from.
pub struct Opened {
    pub source: Source,
    pub backup: Option<InBackup>,
    pub image: Image,
    /// The key of data without a header, which nothing proves.
    unproven: Option<VolumeKey>,
    stdin_is_image: bool,
    force_header: bool,
    allow_truncated: bool,
    allow_foreign_segments: bool,
}

impl Opened {
    /// Opens the image that the command line names; where it names a backup's directory, the image in it takes its place.
    pub fn open(args: &mut SourceArgs) -> Result<Self> {
        Self::open_with(args, &KeyArgs::default(), false)
    }

    fn open_with(args: &mut SourceArgs, key: &KeyArgs, quiet: bool) -> Result<Self> {
        let backup = backup::enter(args)?;
        let mut source = Source::open(args)?;
        if let Some(backup) = &backup {
            backup.keep_from_outputs(&mut source);
        }
        let image = match source.image() {
            // The volume's type says that there is none.
            Err(e) if e.is(Condition::NoHeader) && backup.as_ref().is_some_and(|backup| backup.plain().is_some()) => {
                return Self::headerless(args, &PlainArgs::default(), key, backup, quiet);
            }
            image => image.map_err(|e| backup::explain(backup.as_ref(), e)),
        };
        let image = image.map_err(|e| where_luks_is(args, e))?;
        Ok(Self::of(args, source, backup, image, None))
    }

    fn headerless(
        args: &mut SourceArgs,
        plain: &PlainArgs,
        key: &KeyArgs,
        backup: Option<InBackup>,
        quiet: bool,
    ) -> Result<Self> {
        args.header_at = HeaderAt::Elsewhere;
        let mut source = Source::open(args)?;
        if let Some(backup) = &backup {
            backup.keep_from_outputs(&mut source);
        }
        let plain::Plain { image, key, notes } =
            plain::open(&source, plain, key, is_dash(&args.image), backup.as_ref())?;
        for note in notes.iter().filter(|_| !quiet) {
            let _ = writeln!(anstream::stderr(), "{note}");
        }
        if let (Some(backup), Some(key)) = (&backup, &key) {
            backup.set_unproven(key)?;
        }
        Ok(Self::of(args, source, backup, image, key))
    }

    /// Opens the image, or data without a header where that is what the command line says it is.
    pub fn open_as(args: &mut SourceArgs, plain: &PlainArgs, key: &KeyArgs, quiet: bool) -> Result<Self> {
        if plain.kind == Kind::Luks {
            return match plain.given() {
                Some(flag) => Err(Error::invalid(format!("{flag} is for --type plain: a header says it"))),
                None => Self::open_with(args, key, quiet),
            };
        }
        if args.header.is_some() {
            return Err(Error::invalid("--header gives a header, and --type plain is for data without one"));
        }
        let backup = backup::enter(args)?;
        Self::headerless(args, plain, key, backup, quiet)
    }

    /// Opens an image that is not encrypted, as it is.
    pub fn open_unencrypted(args: &mut SourceArgs) -> Result<Self> {
        let backup = backup::enter(args)?;
        args.header_at = HeaderAt::Nowhere;
        let mut source = Source::open(args)?;
        if let Some(backup) = &backup {
            backup.keep_from_outputs(&mut source);
        }
        let image = source.unencrypted()?;
        Ok(Self::of(args, source, backup, image, None))
    }

    fn of(
        args: &SourceArgs,
        source: Source,
        backup: Option<InBackup>,
        image: Image,
        unproven: Option<VolumeKey>,
    ) -> Self {
        Self {
            stdin_is_image: is_dash(&args.image),
            force_header: args.force_header,
            allow_truncated: args.allow_truncated,
            allow_foreign_segments: args.allow_foreign_segments,
            source,
            backup,
            image,
            unproven,
        }
    }

    /// Opens the image that comes through `pipe`, whose messages have `name` in front.
    #[cfg(feature = "openstack")]
    pub fn of_pipe(pipe: Pipe, name: PathBuf) -> Result<Self> {
        let source = Source::of_pipe(pipe, name);
        let image = source.image()?;
        Ok(Self {
            source,
            backup: None,
            image,
            unproven: None,
            stdin_is_image: false,
            force_header: false,
            allow_truncated: false,
            allow_foreign_segments: false,
        })
    }

    /// Why the plaintext would be wrong, or not all of it: a foreign header, an image that is not as long as it was.
    pub fn doubts(&self) -> Vec<Error> {
        let foreign = self.image.foreign_header().map(|e| match e.hint() {
            Some(_) => e,
            None => e.with_hint("leave --header out, or name the right one; --force-header takes it all the same"),
        });
        let length = self.backup.as_ref().and_then(|backup| backup.check_len(&self.source, self.allow_truncated).err());
        foreign.into_iter().filter(|_| !self.force_header).chain(length).map(|e| self.source.named(e)).collect()
    }

    /// The backup whose recorded hash the image is to be compared with. Where there is a backup and it is not, that is
    /// said.
    pub fn to_compare(&self, no_compare: bool, quiet: bool) -> Option<&InBackup> {
        // Cinder's own hashes are compared in place of one of the image.
        let backup = self.backup.as_ref().filter(|_| self.source.cinder.is_none())?;
        let why = if no_compare {
            "as --no-compare wants it"
        } else if backup.check_len(&self.source, false).is_err() {
            // Where that is not allowed, unlocking refuses it.
            "for it is not as long as it was"
        } else {
            return Some(backup);
        };
        if !quiet {
            let message = "the image is not compared with the hash that was recorded of it";
            let _ = writeln!(anstream::stderr(), "warning: {message}, {why}");
        }
        None
    }

    fn refuse_doubts(&self) -> Result<()> {
        self.doubts().into_iter().next().map_or(Ok(()), Err)
    }

    /// Refuses an image that is cut off or holds no data, unless that is allowed, or `part_is_there` says of the plaintext
    /// that it is enough: as far as that is known before a key is derived, which may take minutes.
    pub fn check_data(&self, part_is_there: impl Fn(u64) -> bool) -> Result<()> {
        self.refuse_doubts()?;
        let options = VolumeOptions { allow_truncated: self.allow_truncated, ..VolumeOptions::default() };
        let checked = self.image.check_data(options).or_else(|e| {
            let there = self.image.assess().readable.filter(|there| part_is_there(*there));
            there.map(|_| ()).ok_or(e)
        });
        checked.map_err(|e| self.source.named(e))
    }

    /// Refuses what there is doubt of; then reads the key, derives from it, and says on the standard error how it opened.
    pub fn unlock(&self, key: &KeyArgs, limits: &LimitArgs, quiet: bool) -> Result<UnlockedImage> {
        let options = key::options(self.allow_foreign_segments, key, limits);
        self.unlock_with(|| key::read(key, self.stdin_is_image, self.backup.as_ref()), &options, quiet)
    }

    /// The same with a key that is had from elsewhere, once nothing is in doubt.
    pub fn unlock_with(
        &self,
        material: impl FnOnce() -> Result<Material>,
        options: &UnlockOptions,
        quiet: bool,
    ) -> Result<UnlockedImage> {
        self.refuse_doubts()?;
        if let Some(key) = &self.unproven {
            let key = VolumeKey::copy_of(key.expose())?;
            return self.image.unlock_unproven(key, options).map_err(|e| self.source.named(e));
        }
        let saying = Saying { image: self.source.shown(), quiet };
        let unlocked = key::unlock(&self.image, &material()?, options, &saying).map_err(|e| self.source.named(e))?;
        for passed_over in unlocked.passed_over().iter().filter(|_| !quiet) {
            let _ = writeln!(anstream::stderr(), "warning: a keyslot was passed over: {passed_over}");
        }
        Ok(unlocked)
    }

    /// The plaintext; of an image that is cut off, where that is allowed, or where `part_is_there` says of its length that
    /// it is enough.
    pub fn volume(
        &self,
        unlocked: &UnlockedImage,
        options: VolumeOptions,
        part_is_there: impl Fn(u64) -> bool,
    ) -> Result<Volume> {
        let options = VolumeOptions { allow_truncated: self.allow_truncated, ..options };
        let volume = unlocked.volume(options).or_else(|e| {
            // What is missing does not matter to a part that ends before it.
            let options = VolumeOptions { allow_truncated: true, ..options };
            let there = unlocked.volume(options).ok();
            there.filter(|volume| part_is_there(volume.len())).ok_or(e)
        });
        volume.map_err(|e| self.source.named(e))
    }
}
