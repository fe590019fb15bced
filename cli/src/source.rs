//! From the command line's names to an open image.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use unluks::cinder::Chain;
use unluks::error::Condition;
use unluks::files::{Inputs, Role};
use unluks::format::{self, Checks, Contents, Format, Named, Set, Snapshot};
use unluks::io::{Pipe, RescueMap, Rescued};
use unluks::limits::RESCUE_MAP_MAX;
use unluks::locate::{FindOptions, Found, HeaderAt, Place, find};
use unluks::luks::offline;
use unluks::luks::recover::Rules;
use unluks::num::to_usize;
use unluks::{Error, FileSource, Image, ReadAt, Result};

use crate::args::SourceArgs;
use crate::cinder;

/// The files of an image, opened read-only.
pub struct Source {
    /// The name that errors of the image have in front of them, and that of its header.
    name: PathBuf,
    header_name: PathBuf,
    has_offset: bool,
    /// The image file, byte for byte; the first of a set.
    pub file: Arc<dyn ReadAt>,
    /// The other files of a set.
    pub segments: Vec<SegmentFile>,
    /// The path of the first: another one than was named where that is a later piece.
    pub first: PathBuf,
    rules: Rules,
    /// Some of the file could not be read when it was copied.
    is_rescued: bool,
    /// All of the image where it was cut into pieces.
    whole: Option<Arc<dyn ReadAt>>,
    /// Where the LUKS container is in it.
    found: Found,
    /// The detached header.
    header: Option<Arc<dyn ReadAt>>,
    /// All files behind it, and the keys: what is never an output.
    pub inputs: Inputs,
    /// The backup of Cinder that is the file.
    pub cinder: Option<Arc<Chain>>,
}

/// A whole disk: a file or device, or what a container format makes of it.
pub struct Disk {
    pub disk: Arc<dyn ReadAt>,
    pub format: Format,
    /// The size in bytes of its logical sectors, where the container says it.
    pub sector_size: Option<u32>,
    /// The other disks of its set.
    pub with: Vec<Named>,
    /// Earlier states that its image keeps.
    pub snapshots: Vec<Snapshot>,
    /// What was chosen on the way, one line each.
    pub notes: Vec<String>,
    /// All files behind it: what is never an output.
    #[cfg_attr(not(feature = "files"), allow(dead_code))]
    pub inputs: Inputs,
}

/// A file of a set behind the first.
pub struct SegmentFile {
    pub path: PathBuf,
    pub file: Arc<dyn ReadAt>,
}

impl Disk {
    pub fn open(args: &SourceArgs) -> Result<Self> {
        let no_pipe = || {
            Error::invalid("a scan wants a disk that can be read at any place, not a pipe")
                .with_hint("save it to a file first")
        };
        if is_dash(&args.image) {
            return Err(no_pipe());
        }
        let mut inputs = Inputs::default();
        let file = open_file(&args.image, Role::Image, &mut inputs)?;
        if file.pipe().is_some() {
            return Err(no_pipe().within_file(&args.image));
        }
        let set = FilesOf::open(&args.image, file, args.format, args, &mut inputs)?;
        let with = companions(args, &mut inputs)?;
        // The image may lie on top of one of them, or in several of them.
        let container = format::Options { with: with.clone(), ..options(args, &set, Vec::new()).container };
        let opened = format::open(Arc::clone(&set.file), container);
        let opened = opened.map_err(|e| e.within_file(&args.image))?;
        let Contents::Disk(disk) = opened.contents else {
            let message = "the qcow2 image encrypts its clusters itself: its one LUKS header is not on a disk";
            let error = Error::invalid(message).with_hint("unluks decrypt and unluks inspect open it as it is");
            return Err(error.within_file(&args.image));
        };
        let mut notes = set.notes;
        notes.extend(opened.notes);
        if opened.format != Format::Raw {
            notes.push(format!("{} image with a disk of {} bytes", opened.format.with_article(), disk.len()));
        }
        let (format, sector_size, snapshots) = (opened.format, opened.sector_size, opened.snapshots);
        Ok(Self { disk, format, sector_size, with, snapshots, notes, inputs })
    }
}

pub fn is_dash(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// A path as messages show it.
pub fn shown(path: &Path) -> String {
    if is_dash(path) { "standard input".into() } else { unluks::error::shown(path) }
}

impl Source {
    pub fn open(args: &SourceArgs) -> Result<Self> {
        let mut inputs = Inputs::default();
        let tree = cinder::open(args, &mut inputs)?;
        let file: Arc<dyn ReadAt> = if let Some((chain, _)) = &tree {
            Arc::<Chain>::clone(chain)
        } else if is_dash(&args.image) {
            // It may be a file all the same.
            inputs.add(&stdin()?, shown(&args.image), Role::Image)?;
            Arc::new(Pipe::new(Box::new(std::io::stdin())))
        } else {
            open_file(&args.image, Role::Image, &mut inputs)?
        };
        let header = match &args.header {
            Some(path) if is_dash(path) => return Err(Error::invalid("--header cannot be the standard input")),
            Some(path) => Some(open_header(path, &mut inputs)?),
            None => None,
        };
        let mut set = FilesOf::one(&args.image, Arc::clone(&file));
        let found = match file.pipe() {
            Some(_)
                if args.format.is_some_and(|f| f != Format::Raw)
                    || args.partition.is_some()
                    || args.volume.is_some()
                    || args.snapshot.is_some()
                    || !args.with.is_empty()
                    || args.image_map.is_some()
                    || args.offset.is_some() =>
            {
                let message = "--format, --partition, --volume, --snapshot, --with, --image-map and --offset want an image that can be read at any place, not a pipe";
                return Err(Error::invalid(message).with_hint("save the image to a file first"));
            }
            Some(_) => {
                refuse_container(args, &*file).map_err(|e| e.within_file(&args.image))?;
                whole(&file)
            }
            None => {
                match &tree {
                    // Nothing beside a directory belongs to it.
                    Some((_, note)) => set.notes.push(note.clone()),
                    None => set = FilesOf::open(&args.image, file, args.format, args, &mut inputs)?,
                }
                let with = companions(args, &mut inputs)?;
                let disk = rescued(args, &set, &mut inputs)?;
                let found = find(disk, options(args, &set, with));
                let mut found = found.map_err(|e| e.within_file(&args.image))?;
                found.notes.splice(0..0, std::mem::take(&mut set.notes));
                found
            }
        };
        let (mut found, mut header, mut header_name) = (found, header, args.header.clone());
        if header.is_none() && args.header_at == HeaderAt::Own {
            let log = found.offline_log(&args.image);
            header = log.as_deref().map(|log| open_header(log, &mut inputs)).transpose()?;
            found.notes.extend(log.as_deref().map(|log| format!("the headers are those of {}", shown(log))));
            header_name = log;
        }
        let header_name = header_name.unwrap_or_else(|| args.image.clone());
        let whole = set.whole()?;
        let FilesOf { first, file, segments, .. } = set;
        let (name, has_offset) = (args.image.clone(), args.offset.is_some());
        let is_rescued = args.image_map.is_some();
        let rules = if args.recover { Rules::Recover } else { Rules::Strict };
        let cinder = tree.map(|(chain, _)| chain);
        Ok(Self {
            name,
            header_name,
            has_offset,
            file,
            segments,
            first,
            rules,
            is_rescued,
            whole,
            found,
            header,
            inputs,
            cinder,
        })
    }

    /// An image that comes through a pipe of that name, with its header in front.
    #[cfg(feature = "openstack")]
    pub fn of_pipe(pipe: Pipe, name: PathBuf) -> Self {
        let file: Arc<dyn ReadAt> = Arc::new(pipe);
        let (found, header_name) = (whole(&file), name.clone());
        let (first, segments, inputs) = (name.clone(), Vec::new(), Inputs::default());
        Self {
            name,
            header_name,
            has_offset: false,
            file,
            segments,
            first,
            rules: Rules::Strict,
            is_rescued: false,
            whole: None,
            found,
            header: None,
            inputs,
            cinder: None,
        }
    }

    /// The pipe that the image comes through, where it does.
    pub fn pipe(&self) -> Option<&Pipe> {
        self.file.pipe()
    }

    /// Takes an image that was cut into pieces for the one file that it was: by that the backup knows it.
    pub fn join(&mut self, path: PathBuf) {
        if let Some(whole) = self.whole.take() {
            self.file = whole;
            self.segments.clear();
            self.first = path;
        }
    }

    /// The names of all files of the image, in their order.
    pub fn paths(&self) -> Vec<&Path> {
        let more = self.segments.iter().map(|segment| segment.path.as_path());
        std::iter::once(self.first.as_path()).chain(more).collect()
    }

    /// Whether the place of the data was named as a byte.
    pub fn has_offset(&self) -> bool {
        self.has_offset
    }

    /// The image's name, as errors have it.
    pub fn shown(&self) -> String {
        shown(&self.name)
    }

    /// The image's name in front of an error of it.
    pub fn named(&self, e: Error) -> Error {
        e.within_file(&self.name)
    }

    /// What was chosen on the way, one line each.
    pub fn notes(&self) -> &[String] {
        &self.found.notes
    }

    /// Says what was chosen on the way.
    pub fn print_notes(&self, quiet: bool) {
        for note in self.notes().iter().filter(|_| !quiet) {
            let _ = writeln!(anstream::stderr(), "{note}");
        }
    }

    /// Where the LUKS container is in the image file.
    pub fn place(&self) -> &Place {
        &self.found.place
    }

    /// The file as a whole is what the volume reads: its bytes can be hashed as they are read.
    pub fn is_plain_file(&self) -> bool {
        matches!(self.found.place, Place::File(_)) && !self.is_rescued
    }

    /// What was found, where it is not encrypted.
    pub fn unencrypted(&self) -> Result<Image> {
        Image::unencrypted_found(&self.found).map_err(|e| e.within_file(&self.name))
    }

    /// Reads and validates the header.
    pub fn image(&self) -> Result<Image> {
        let image = Image::open_found_by(&self.found, self.header.clone(), self.rules).map_err(|e| {
            if e.is(Condition::NoHeader) && self.pipe().is_some() && self.header.is_none() {
                e.with_hint(
                    "a pipe has to begin with the LUKS header: save a whole disk to a file first, and its partitions are looked at",
                )
            } else {
                e
            }
        });
        image.map_err(|e| e.within_file(&self.header_name))
    }
}

/// A file that is its own container, by all that is known of it.
fn whole(file: &Arc<dyn ReadAt>) -> Found {
    Found {
        file: Arc::clone(file),
        place: Place::File(Arc::clone(file)),
        format: Format::Raw,
        snapshots: Vec::new(),
        notes: Vec::new(),
        layers: Vec::new(),
        groups: Vec::new(),
        checks: Checks::default(),
    }
}

/// Names the container format or the packed file that a pipe begins as: what comes through a pipe is a raw image.
fn refuse_container(args: &SourceArgs, pipe: &dyn ReadAt) -> Result<()> {
    match format::detect(pipe) {
        _ if args.format.is_some() => Ok(()),
        Ok(Format::Raw) => Ok(()),
        Ok(format) => Err(Error::invalid(format!(
            "a pipe brings {} image, whose tables lie at any place of it",
            format.with_article()
        ))
        .with_rule("container.format")
        .with_hint("save it to a file first")),
        Err(e) if e.is(Condition::OtherFormat) => Err(e),
        // It is shorter than what detection looks at, which its reader says better.
        Err(_) => Ok(()),
    }
}

/// What the command line says about the place of the container.
fn options(args: &SourceArgs, set: &FilesOf, with: Vec<Named>) -> FindOptions {
    FindOptions {
        name: shown(&args.image),
        with,
        volume: args.volume.clone(),
        foreign_offset: args.force_offset,
        container: format::Options {
            format: args.format,
            segments: set.sources(),
            set: set.set,
            max_size: args.max_size,
            with: Vec::new(),
            snapshot: args.snapshot.clone(),
        },
        partition: args.partition.clone(),
        offset: args.offset,
        header: if args.header.is_some() { HeaderAt::Elsewhere } else { args.header_at },
        allow_truncated: args.allow_truncated || args.header_alone,
        unfit: args.unfit,
    }
}

/// The image's file, where what could not be read when it was copied is an error.
fn rescued(args: &SourceArgs, set: &FilesOf, inputs: &mut Inputs) -> Result<Arc<dyn ReadAt>> {
    let file = Arc::clone(&set.file);
    let Some(path) = &args.image_map else { return Ok(file) };
    if !set.segments.is_empty() {
        let message = "--image-map is for an image of one file, and this one lies in several";
        return Err(Error::invalid(message).within_file(&args.image));
    }
    let map = open_file(path, Role::Map, inputs)?;
    let len = map.known_len().ok_or_else(|| Error::invalid("a mapfile cannot be a pipe").within_file(path))?;
    if len > RESCUE_MAP_MAX {
        let message = format!("found {len} bytes; {RESCUE_MAP_MAX} are allowed");
        return Err(Error::limit("mapfile", message).within_file(path));
    }
    let mut text = vec![0; to_usize(len)?];
    map.read_exact_at(&mut text, 0).map_err(|e| e.within_file(path))?;
    let map = RescueMap::parse(&text).map_err(|e| e.within_file(path))?;
    Ok(Arc::new(Rescued::new(file, map)))
}

/// The other disks of a set and the parents of images, each with the files of its own set.
fn companions(args: &SourceArgs, inputs: &mut Inputs) -> Result<Vec<Named>> {
    let mut all = Vec::new();
    for path in &args.with {
        let file = open_file(path, Role::Image, inputs)?;
        if file.pipe().is_some() {
            let message = "a disk of a set has to be read at any place, and is no pipe";
            return Err(Error::invalid(message).within_file(path));
        }
        let set = FilesOf::open(path, file, None, args, inputs)?;
        let mut named = Named::new(shown(&set.first), Arc::clone(&set.file));
        (named.segments, named.set) = (set.sources(), set.set);
        all.push(named);
    }
    Ok(all)
}

/// The files of an image, opened.
struct FilesOf {
    first: PathBuf,
    file: Arc<dyn ReadAt>,
    segments: Vec<SegmentFile>,
    set: Set,
    notes: Vec<String>,
}

impl FilesOf {
    fn one(path: &Path, file: Arc<dyn ReadAt>) -> Self {
        Self { first: path.to_owned(), file, segments: Vec::new(), set: Set::default(), notes: Vec::new() }
    }

    /// The set of the file at `path`, open as `file`. Files that were named for something else are not of it.
    fn open(
        path: &Path,
        file: Arc<dyn ReadAt>,
        format: Option<Format>,
        args: &SourceArgs,
        inputs: &mut Inputs,
    ) -> Result<Self> {
        let named = std::iter::once(&args.image).chain(&args.header).chain(&args.with);
        let apart: Vec<&Path> = named.filter(|other| *other != path).map(PathBuf::as_path).collect();
        let found = format::file_set(path, &*file, format, &apart).map_err(|e| e.within_file(path))?;
        let mut set = Self { set: found.set, notes: found.notes, ..Self::one(path, file) };
        if !found.others.is_empty() {
            allow_many_files();
        }
        if found.first != path {
            set.file = open_file(&found.first, Role::Image, inputs)?;
            set.first = found.first;
        }
        for path in found.others {
            let file = open_file(&path, Role::Image, inputs)?;
            set.segments.push(SegmentFile { path, file });
        }
        Ok(set)
    }

    fn sources(&self) -> Vec<Arc<dyn ReadAt>> {
        self.segments.iter().map(|segment| Arc::clone(&segment.file)).collect()
    }

    /// All of the pieces as one file, where they are some.
    fn whole(&self) -> Result<Option<Arc<dyn ReadAt>>> {
        if self.set != Set::Pieces || self.segments.is_empty() {
            return Ok(None);
        }
        let raw = Some(Format::Raw);
        let options =
            format::Options { format: raw, segments: self.sources(), set: self.set, ..format::Options::default() };
        match format::open(Arc::clone(&self.file), options)?.contents {
            Contents::Disk(whole) => Ok(Some(whole)),
            Contents::Qcow2Luks(_) => Ok(None),
        }
    }
}

/// A set may have more files than a process may have open at first; best effort, for most have a few.
fn allow_many_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// A header, or those of an offline reencryption, which lie beside its log.
fn open_header(path: &Path, inputs: &mut Inputs) -> Result<Arc<dyn ReadAt>> {
    let header = open_file(path, Role::Header, inputs)?;
    if header.pipe().is_some() || !offline::is_log(&*header) {
        return Ok(header);
    }
    let [old, new] = offline::headers_beside(path);
    let [old, new] = [open_file(&old, Role::Header, inputs)?, open_file(&new, Role::Header, inputs)?];
    offline::join(&*header, old, new).map_err(|e| e.within_file(path))
}

/// A regular file or block device is read at any position, a FIFO as a pipe.
fn open_file(path: &Path, role: Role, inputs: &mut Inputs) -> Result<Arc<dyn ReadAt>> {
    use std::os::unix::fs::FileTypeExt;
    unluks::cinder::refuse_object(path).map_err(|e| e.within_file(path))?;
    let file = File::open(path).map_err(|e| Error::io(format!("opening {}", shown(path)), e))?;
    let kind = file.metadata().map_err(|e| Error::io(format!("looking at {}", shown(path)), e))?.file_type();
    if kind.is_fifo() || kind.is_socket() {
        return Ok(Arc::new(Pipe::new(Box::new(file))));
    }
    inputs.add(&file, shown(path), role)?;
    Ok(Arc::new(FileSource::new(file).map_err(|e| e.within(shown(path)))?))
}

/// The standard input without a buffer, which would keep a copy of a secret.
pub fn stdin() -> Result<File> {
    use std::os::fd::AsFd;
    let fd = std::io::stdin().as_fd().try_clone_to_owned().map_err(|e| Error::io("opening the standard input", e))?;
    Ok(File::from(fd))
}

/// Puts a file's name in front of an error.
pub trait WithinFile {
    fn within_file(self, path: &Path) -> Self;
}

impl WithinFile for Error {
    fn within_file(self, path: &Path) -> Self {
        self.within(shown(path))
    }
}
