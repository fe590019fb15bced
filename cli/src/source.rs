//! From the command line's names to an open image.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use unluks::error::{Condition, escape};
use unluks::files::{Inputs, Role};
use unluks::format::{self, Contents, Format};
use unluks::io::Pipe;
use unluks::locate::{FindOptions, Found, Member, Place, find};
use unluks::{Error, FileSource, Image, ReadAt, Result};

use crate::args::SourceArgs;

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
    /// Where the LUKS container is in it.
    found: Found,
    /// The detached header.
    header: Option<Arc<dyn ReadAt>>,
    /// The pipe that the image comes through, where it does.
    pub pipe: Option<Arc<Pipe>>,
    /// All files behind it, and the keys: what is never an output.
    pub inputs: Inputs,
}

/// A whole disk: a file or device, or what a container format makes of it.
pub struct Disk {
    pub disk: Arc<dyn ReadAt>,
    pub format: Format,
    /// The size in bytes of its logical sectors, where the container says it.
    pub sector_size: Option<u32>,
    /// What was chosen on the way, one line each.
    pub notes: Vec<String>,
}

/// A file of an EWF image behind the first.
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
        let (mut inputs, mut pipe) = (Inputs::default(), None);
        let file = open_file(&args.image, Role::Image, &mut inputs, &mut pipe)?;
        if pipe.is_some() {
            return Err(no_pipe().within_file(&args.image));
        }
        let segments = more_segments(args, &*file, &mut inputs)?;
        let opened = format::open(file, options(args, &segments, Vec::new()).container);
        let opened = opened.map_err(|e| e.within_file(&args.image))?;
        let Contents::Disk(disk) = opened.contents else {
            let message = "the qcow2 image encrypts its clusters itself: its one LUKS header is not on a disk";
            let error = Error::invalid(message).with_hint("unluks decrypt and unluks inspect open it as it is");
            return Err(error.within_file(&args.image));
        };
        let mut notes = opened.notes;
        if opened.format != Format::Raw {
            notes.push(format!("a {} image with a disk of {} bytes", opened.format, disk.len()));
        }
        Ok(Self { disk, format: opened.format, sector_size: opened.sector_size, notes })
    }
}

pub fn is_dash(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// A path as messages show it.
pub fn shown(path: &Path) -> String {
    if is_dash(path) { "standard input".into() } else { escape(&path.display().to_string()) }
}

impl Source {
    pub fn open(args: &SourceArgs) -> Result<Self> {
        let mut inputs = Inputs::default();
        let mut pipe = None;
        let file: Arc<dyn ReadAt> = if is_dash(&args.image) {
            // It may be a file all the same.
            inputs.add(&stdin()?, shown(&args.image), Role::Image)?;
            let p = Arc::new(Pipe::new(Box::new(std::io::stdin())));
            pipe = Some(Arc::clone(&p));
            p
        } else {
            open_file(&args.image, Role::Image, &mut inputs, &mut pipe)?
        };
        let header = match &args.header {
            Some(path) if is_dash(path) => return Err(Error::invalid("--header cannot be the standard input")),
            Some(path) => Some(open_file(path, Role::Header, &mut inputs, &mut None)?),
            None => None,
        };
        let mut segments = Vec::new();
        let found = match &pipe {
            Some(_)
                if args.format.is_some_and(|f| f != Format::Raw)
                    || args.partition.is_some()
                    || args.volume.is_some()
                    || !args.with.is_empty()
                    || args.offset.is_some() =>
            {
                let message = "--format, --partition, --volume, --with and --offset want an image that can be read at any place, not a pipe";
                return Err(Error::invalid(message).with_hint("save the image to a file first"));
            }
            Some(_) => {
                refuse_container(args, &*file).map_err(|e| e.within_file(&args.image))?;
                Found {
                    file: Arc::clone(&file),
                    place: Place::File(Arc::clone(&file)),
                    format: Format::Raw,
                    notes: Vec::new(),
                }
            }
            None => {
                segments = more_segments(args, &*file, &mut inputs)?;
                let with = members(args, &mut inputs)?;
                find(Arc::clone(&file), options(args, &segments, with)).map_err(|e| e.within_file(&args.image))?
            }
        };
        let header_name = args.header.clone().unwrap_or_else(|| args.image.clone());
        let has_offset = args.offset.is_some();
        Ok(Self { name: args.image.clone(), header_name, has_offset, file, segments, found, header, pipe, inputs })
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

    /// The header as a source.
    pub fn header(&self) -> &Arc<dyn ReadAt> {
        self.header.as_ref().unwrap_or(self.found.place.source())
    }

    /// Where the LUKS container is in the image file.
    pub fn place(&self) -> &Place {
        &self.found.place
    }

    /// The file as a whole is what the volume reads: its bytes can be hashed as they are read.
    pub fn is_plain_file(&self) -> bool {
        matches!(self.found.place, Place::File(_))
    }

    /// Reads and validates the header.
    pub fn image(&self) -> Result<Image> {
        let image = Image::open_found(&self.found, self.header.clone()).map_err(|e| {
            if e.is(Condition::NoHeader) && self.pipe.is_some() && self.header.is_none() {
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

/// Names the container format or the packed file that a pipe begins as: what comes through a pipe is a raw image.
fn refuse_container(args: &SourceArgs, pipe: &dyn ReadAt) -> Result<()> {
    match format::detect(pipe) {
        _ if args.format.is_some() => Ok(()),
        Ok(Format::Raw) => Ok(()),
        Ok(format) => {
            Err(Error::invalid(format!("a pipe brings a {format} image, whose tables lie at any place of it"))
                .with_rule("container.format")
                .with_hint("save it to a file first"))
        }
        Err(e) if e.is(Condition::OtherFormat) => Err(e),
        // It is shorter than what detection looks at, which its reader says better.
        Err(_) => Ok(()),
    }
}

/// What the command line says about the place of the container.
fn options(args: &SourceArgs, segments: &[SegmentFile], with: Vec<Member>) -> FindOptions {
    let segments = segments.iter().map(|segment| Arc::clone(&segment.file)).collect();
    FindOptions {
        name: shown(&args.image),
        with,
        volume: args.volume.clone(),
        foreign_offset: args.force_offset,
        container: format::Options { format: args.format, segments, max_size: args.max_size },
        partition: args.partition.clone(),
        offset: args.offset,
        detached: args.header.is_some() || args.headerless,
        allow_truncated: args.allow_truncated,
    }
}

/// The other disks of a set, out of their own file formats.
fn members(args: &SourceArgs, inputs: &mut Inputs) -> Result<Vec<Member>> {
    let mut all = Vec::new();
    for path in &args.with {
        let mut pipe = None;
        let file = open_file(path, Role::Image, inputs, &mut pipe)?;
        if pipe.is_some() {
            let message = "a disk of a set has to be read at any place, and is no pipe";
            return Err(Error::invalid(message).within_file(path));
        }
        let container = format::Options { max_size: args.max_size, ..format::Options::default() };
        all.push(Member::open(shown(path), file, container)?);
    }
    Ok(all)
}

/// The files of an EWF set behind the first, which is `file`, as far as they are there.
fn more_segments(args: &SourceArgs, file: &dyn ReadAt, inputs: &mut Inputs) -> Result<Vec<SegmentFile>> {
    let ewf = match args.format {
        Some(format) => format == Format::Ewf,
        None => format::detect(file).is_ok_and(|format| format == Format::Ewf),
    };
    if !ewf {
        return Ok(Vec::new());
    }
    let paths = format::segment_files(&args.image);
    if !paths.is_empty() {
        allow_many_files();
    }
    paths
        .into_iter()
        .map(|path| Ok(SegmentFile { file: open_file(&path, Role::Image, inputs, &mut None)?, path }))
        .collect()
}

/// A set may have more files than a process may have open at first; best effort, for most have a few.
fn allow_many_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// A regular file or block device is read at any position, a FIFO as a pipe.
fn open_file(path: &Path, role: Role, inputs: &mut Inputs, pipe: &mut Option<Arc<Pipe>>) -> Result<Arc<dyn ReadAt>> {
    use std::os::unix::fs::FileTypeExt;
    let file = File::open(path).map_err(|e| Error::io(format!("opening {}", shown(path)), e))?;
    let kind = file.metadata().map_err(|e| Error::io(format!("looking at {}", shown(path)), e))?.file_type();
    if kind.is_fifo() || kind.is_socket() {
        let p = Arc::new(Pipe::new(Box::new(file)));
        *pipe = Some(Arc::clone(&p));
        return Ok(p);
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
