//! What Python sees of the library: an image, its header as JSON, and its plaintext at any position. The module's own file,
//! `unluks/__init__.py`, makes Python's objects of these.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyMemoryError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use unluks::format::{self, Format};
use unluks::key::{read_key_file, volume_key_forms};
use unluks::locate::{FindOptions, HeaderAt, find};
use unluks::luks::unlock::UnlockOptions;
use unluks::{ErrorKind, Image, Key, OpenOptions, ReadAt, SecretBytes, Volume};

/// The most bytes that one read gives: a plaintext may claim to be larger than the memory.
const READ_MAX: u64 = 1 << 30;

create_exception!(unluks, Error, PyException, "What went wrong, as one line.");
create_exception!(unluks, IoError, Error, "The operating system refused something.");
create_exception!(unluks, CorruptError, Error, "The image breaks a rule of its format.");
create_exception!(unluks, UnsupportedError, Error, "The image is sound, but asks for something that is not supported.");
create_exception!(unluks, LimitError, Error, "The image asks for more than a limit allows.");
create_exception!(unluks, WrongKeyError, Error, "No keyslot opened with this key.");
create_exception!(unluks, InvalidInputError, Error, "The caller asked for something that cannot be.");

/// An error of the library as Python's: its line, and rule, hint and offset as attributes.
fn raise(py: Python<'_>, e: &unluks::Error) -> PyErr {
    let line = e.to_string();
    let raised = match e.kind() {
        ErrorKind::Io | ErrorKind::Cancelled => IoError::new_err(line),
        ErrorKind::Corrupt => CorruptError::new_err(line),
        ErrorKind::Unsupported => UnsupportedError::new_err(line),
        ErrorKind::LimitExceeded => LimitError::new_err(line),
        ErrorKind::WrongKey => WrongKeyError::new_err(line),
        ErrorKind::InvalidInput => InvalidInputError::new_err(line),
    };
    let value = raised.value(py);
    let attributes = value
        .setattr("rule", e.rule())
        .and_then(|()| value.setattr("hint", e.hint().map(ToString::to_string)))
        .and_then(|()| value.setattr("offset", e.offset()));
    match attributes {
        Ok(()) => raised,
        Err(failed) => failed,
    }
}

/// An object of Python with `seek` and `read`, read at any position. It has one position, so that one thread reads at once.
struct FileObject {
    object: Mutex<Py<PyAny>>,
    len: u64,
}

impl FileObject {
    fn new(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let len = object.call_method1("seek", (0, 2))?.extract()?;
        Ok(Self { object: Mutex::new(object.clone().unbind()), len })
    }
}

impl ReadAt for FileObject {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> unluks::Result<()> {
        // Without the interpreter: whoever holds the lock may be waiting for it.
        let object = self.object.lock().unwrap_or_else(PoisonError::into_inner);
        let read = Python::attach(|py| -> PyResult<()> {
            let object = object.bind(py);
            object.call_method1("seek", (offset,))?;
            let mut done = 0;
            while done < buf.len() {
                let read = object.call_method1("read", (buf.len() - done,))?;
                let bytes: &[u8] = read.extract()?;
                let Some(to) = buf.get_mut(done..done + bytes.len()).filter(|to| !to.is_empty()) else {
                    return Err(PyValueError::new_err(format!("read gave {} bytes at {offset}", done + bytes.len())));
                };
                to.copy_from_slice(bytes);
                done += bytes.len();
            }
            Ok(())
        });
        read.map_err(|e| unluks::Error::io("reading the file object", std::io::Error::other(e.to_string())))
    }
}

/// An image whose header was read and validated.
#[pyclass(frozen, module = "unluks._native")]
struct NativeImage {
    image: Image,
    path: PathBuf,
    header: Option<PathBuf>,
}

#[pymethods]
impl NativeImage {
    /// The report of `unluks inspect --json`.
    fn report(&self, py: Python<'_>) -> PyResult<String> {
        let made = py.detach(|| {
            let report = self.image.report(&self.path, self.header.as_deref());
            unluks::json::compact(&report)
        });
        made.map_err(|e| raise(py, &e))
    }

    /// What was found and chosen on the way from the file to the container.
    fn notes(&self) -> Vec<String> {
        self.image.notes().to_vec()
    }

    /// Unlocks it with one key, of a file or as bytes, and gives the plaintext. A file's key never becomes an object of
    /// Python, which nothing would wipe.
    #[pyo3(signature = (kind, secret, file, slot))]
    fn unlock(
        &self,
        py: Python<'_>,
        kind: &str,
        secret: Option<&[u8]>,
        file: Option<PathBuf>,
        slot: Option<u32>,
    ) -> PyResult<NativeVolume> {
        let secret = match file {
            Some(path) => read_key_file(&mut std::fs::File::open(&path)?, 0, None),
            None => SecretBytes::copy_of(secret.unwrap_or_default()),
        };
        let secret = secret.map_err(|e| raise(py, &e))?;
        let kind = kind.to_owned();
        let opened = py.detach(|| {
            let options = UnlockOptions { keyslot: slot, ..UnlockOptions::default() };
            let unlocked = match kind.as_str() {
                "barbican" => self.image.unlock(&Key::barbican(&secret)?, &options)?,
                "guess" => self.image.unlock(&Key::guess(&secret)?, &options)?,
                "volume_key" => {
                    let mut refused = None;
                    let mut unlocked = None;
                    for form in volume_key_forms(secret.expose())? {
                        match self.image.unlock_with_volume_key(form.key, &options) {
                            Ok(opened) => {
                                unlocked = Some(opened);
                                break;
                            }
                            Err(e) => refused = refused.or(Some(e)),
                        }
                    }
                    match (unlocked, refused) {
                        (Some(unlocked), _) => unlocked,
                        (None, Some(e)) => return Err(e),
                        (None, None) => return Err(unluks::Error::invalid("the volume key has no form that is known")),
                    }
                }
                _ => self.image.unlock(&Key::passphrase(secret), &options)?,
            };
            let keyslots = unlocked.opened().iter().map(|opened| opened.keyslot).collect();
            Ok(NativeVolume { volume: Arc::new(unlocked.volume(Default::default())?), keyslots })
        });
        opened.map_err(|e| raise(py, &e))
    }
}

/// The plaintext. Any number of threads may read.
#[pyclass(frozen, module = "unluks._native")]
struct NativeVolume {
    volume: Arc<Volume>,
    keyslots: Vec<u32>,
}

#[pymethods]
impl NativeVolume {
    /// The bytes of the plaintext.
    #[getter]
    fn size(&self) -> u64 {
        self.volume.len()
    }

    /// The keyslots that opened.
    #[getter]
    fn keyslots(&self) -> Vec<u32> {
        self.keyslots.clone()
    }

    /// Up to `length` bytes from `offset` on: fewer at the end, none behind it.
    fn pread<'py>(&self, py: Python<'py>, length: u64, offset: u64) -> PyResult<Bound<'py, PyBytes>> {
        let length = length.min(self.volume.len().saturating_sub(offset));
        if length > READ_MAX {
            return Err(PyValueError::new_err(format!("{length} bytes in one read; at most {READ_MAX} are given")));
        }
        if length == 0 {
            return Ok(PyBytes::new(py, &[]));
        }
        let length = usize::try_from(length).map_err(|_| PyMemoryError::new_err("too many bytes for this machine"))?;
        let read = py.detach(|| {
            let mut buffer = vec![0u8; length];
            self.volume.read_exact_at(&mut buffer, offset).map(|()| buffer)
        });
        read.map(|buffer| PyBytes::new(py, &buffer)).map_err(|e| raise(py, &e))
    }
}

/// Opens a file: detects its format, looks for a partition, and finds the LUKS header.
#[pyfunction]
#[pyo3(signature = (path, header, partition, volume, offset, format, with_))]
#[allow(clippy::too_many_arguments)]
fn open_image(
    py: Python<'_>,
    path: PathBuf,
    header: Option<PathBuf>,
    partition: Option<String>,
    volume: Option<String>,
    offset: Option<u64>,
    format: Option<String>,
    with_: Vec<PathBuf>,
) -> PyResult<NativeImage> {
    let opened = py.detach(|| {
        let format = format.map(|name| name.parse()).transpose()?;
        let options = OpenOptions {
            header: header.clone(),
            partition,
            volume,
            offset,
            format,
            with: with_,
            ..Default::default()
        };
        Image::open_path(&path, &options)
    });
    let image = opened.map_err(|e| raise(py, &e))?;
    Ok(NativeImage { image, path, header })
}

/// Opens a file object in the same way.
#[pyfunction]
#[pyo3(signature = (object, header, partition, volume, offset, format))]
fn open_object(
    py: Python<'_>,
    object: &Bound<'_, PyAny>,
    header: Option<&Bound<'_, PyAny>>,
    partition: Option<String>,
    volume: Option<String>,
    offset: Option<u64>,
    format: Option<String>,
) -> PyResult<NativeImage> {
    let name = object.getattr("name").and_then(|name| name.extract()).unwrap_or_else(|_| "a file object".to_owned());
    let file: Arc<dyn ReadAt> = Arc::new(FileObject::new(object)?);
    let header = header.map(|header| FileObject::new(header).map(|header| Arc::new(header) as Arc<dyn ReadAt>));
    let header = header.transpose()?;
    let path = PathBuf::from(&name);
    let opened = py.detach(|| {
        let format = format.map(|name| name.parse::<Format>()).transpose()?;
        let container = format::Options { format, ..Default::default() };
        let header_at = HeaderAt::from(&header);
        let options =
            FindOptions { name, container, partition, volume, offset, header: header_at, ..Default::default() };
        Image::open_found(&find(file, options)?, header)
    });
    let image = opened.map_err(|e| raise(py, &e))?;
    Ok(NativeImage { image, path, header: None })
}

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add_class::<NativeImage>()?;
    module.add_class::<NativeVolume>()?;
    module.add_function(wrap_pyfunction!(open_image, module)?)?;
    module.add_function(wrap_pyfunction!(open_object, module)?)?;
    module.add("Error", py.get_type::<Error>())?;
    module.add("IoError", py.get_type::<IoError>())?;
    module.add("CorruptError", py.get_type::<CorruptError>())?;
    module.add("UnsupportedError", py.get_type::<UnsupportedError>())?;
    module.add("LimitError", py.get_type::<LimitError>())?;
    module.add("WrongKeyError", py.get_type::<WrongKeyError>())?;
    module.add("InvalidInputError", py.get_type::<InvalidInputError>())?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))
}
