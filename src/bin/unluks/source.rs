//! From the command line's names to an open image.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use unluks::decrypt::target::is_same_file;
use unluks::error::escape;
use unluks::io::Pipe;
use unluks::{Error, FileSource, Image, ReadAt, Result};

use crate::args::SourceArgs;

/// The files of an image, opened read-only.
pub struct Source {
    /// The data file as a source.
    pub data: Arc<dyn ReadAt>,
    /// The header as a source; the data file itself where it is not detached.
    pub header: Arc<dyn ReadAt>,
    /// The pipe that the image comes through, where it does.
    pub pipe: Option<Arc<Pipe>>,
    /// All files behind it.
    pub files: Vec<File>,
}

pub fn is_dash(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// A path as messages show it.
pub fn shown(path: &Path) -> String {
    match is_dash(path) {
        true => "standard input".into(),
        false => escape(&path.display().to_string()),
    }
}

impl Source {
    pub fn open(args: &SourceArgs) -> Result<Self> {
        let mut files = Vec::new();
        let mut pipe = None;
        let data: Arc<dyn ReadAt> = match is_dash(&args.image) {
            true => {
                let p = Arc::new(Pipe::new(Box::new(std::io::stdin())));
                pipe = Some(Arc::clone(&p));
                p
            }
            false => open_file(&args.image, &mut files, &mut pipe)?,
        };
        let header = match &args.header {
            Some(path) if is_dash(path) => return Err(Error::invalid("--header cannot be the standard input")),
            Some(path) => open_file(path, &mut files, &mut None)?,
            None => Arc::clone(&data),
        };
        Ok(Self { data, header, pipe, files })
    }

    /// Refuses a name of something to write that leads to one of these files, also through links.
    pub fn refuse_as_output(&self, path: &Path) -> Result<()> {
        for file in &self.files {
            if is_same_file(file, path)? {
                return Err(Error::invalid(format!("the output {} is the input itself", shown(path))));
            }
        }
        Ok(())
    }

    /// Reads and validates the header.
    pub fn image(&self, args: &SourceArgs) -> Result<Image> {
        let image = Image::open_detached(Arc::clone(&self.header), Arc::clone(&self.data));
        image.map_err(|e| e.within_file(args.header.as_ref().unwrap_or(&args.image)))
    }
}

/// A regular file or block device is read at any position, a FIFO as a pipe.
fn open_file(path: &Path, files: &mut Vec<File>, pipe: &mut Option<Arc<Pipe>>) -> Result<Arc<dyn ReadAt>> {
    use std::os::unix::fs::FileTypeExt;
    let file = File::open(path).map_err(|e| Error::io(format!("opening {}", shown(path)), e))?;
    let kind = file.metadata().map_err(|e| Error::io(format!("looking at {}", shown(path)), e))?.file_type();
    if kind.is_fifo() || kind.is_socket() {
        let p = Arc::new(Pipe::new(Box::new(file)));
        *pipe = Some(Arc::clone(&p));
        return Ok(p);
    }
    files.push(file.try_clone().map_err(|e| Error::io(format!("opening {}", shown(path)), e))?);
    Ok(Arc::new(FileSource::new(file).map_err(|e| e.within(shown(path)))?))
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
