//! Hashes on the way: of the plaintext that is written and of the image that it comes from, each on a thread of its own.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::Scope;

use digest::DynDigest;
use zeroize::Zeroizing;

use super::buffer::Chunk;
use super::{Progress, lock};
use crate::error::{Error, Hint, Result, catch_panic, escape};
use crate::io::{Pipe, ReadAt};
use crate::num::{at_most, to_u64};

/// Chunks that may wait for a lane: enough that it never runs dry, and few enough that they stay in the cache.
const WAITING: usize = 2;

/// A hash that examiners, checksum files and image services use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum Algorithm {
    Md5,
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
    Sha3_224,
    Sha3_256,
    Sha3_384,
    Sha3_512,
    Blake2b,
    Blake2s,
    Blake3,
}

impl Algorithm {
    /// All of them, by name.
    pub const ALL: [(&'static str, Self); 13] = [
        ("md5", Self::Md5),
        ("sha1", Self::Sha1),
        ("sha224", Self::Sha224),
        ("sha256", Self::Sha256),
        ("sha384", Self::Sha384),
        ("sha512", Self::Sha512),
        ("sha3-224", Self::Sha3_224),
        ("sha3-256", Self::Sha3_256),
        ("sha3-384", Self::Sha3_384),
        ("sha3-512", Self::Sha3_512),
        ("blake2b", Self::Blake2b),
        ("blake2s", Self::Blake2s),
        ("blake3", Self::Blake3),
    ];

    /// The name, in lower case.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, a)| *a == self).map_or("", |(n, _)| n)
    }

    /// The length of a hash in bytes.
    pub fn output_len(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha224 | Self::Sha3_224 => 28,
            Self::Sha256 | Self::Sha3_256 | Self::Blake2s | Self::Blake3 => 32,
            Self::Sha384 | Self::Sha3_384 => 48,
            Self::Sha512 | Self::Sha3_512 | Self::Blake2b => 64,
        }
    }

    pub(crate) fn hasher(self) -> Hasher {
        match self {
            Self::Md5 => Hasher::of::<md5::Md5>(),
            Self::Sha1 => Hasher::of::<sha1::Sha1>(),
            Self::Sha224 => Hasher::of::<sha2::Sha224>(),
            Self::Sha256 => Hasher::of::<sha2::Sha256>(),
            Self::Sha384 => Hasher::of::<sha2::Sha384>(),
            Self::Sha512 => Hasher::of::<sha2::Sha512>(),
            Self::Sha3_224 => Hasher::of::<sha3::Sha3_224>(),
            Self::Sha3_256 => Hasher::of::<sha3::Sha3_256>(),
            Self::Sha3_384 => Hasher::of::<sha3::Sha3_384>(),
            Self::Sha3_512 => Hasher::of::<sha3::Sha3_512>(),
            Self::Blake2b => Hasher::of::<blake2::Blake2b512>(),
            Self::Blake2s => Hasher::of::<blake2::Blake2s256>(),
            Self::Blake3 => Hasher::Blake3(Box::default()),
        }
    }
}

impl FromStr for Algorithm {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let known = || Self::ALL.map(|(n, _)| n).join(", ");
        // Python, and so an image service, writes sha3_256.
        let found = Self::ALL.iter().find(|(n, _)| *n == name || n.replace('-', "_") == name).map(|(_, a)| *a);
        found.ok_or_else(|| Error::invalid(format!("no hash is named \"{}\"; there are {}", escape(name), known())))
    }
}

/// A hash that is being made.
pub(crate) enum Hasher {
    Other(Box<dyn DynDigest + Send>),
    Blake3(Box<blake3::Hasher>),
}

impl Hasher {
    fn of<D: DynDigest + Default + Send + 'static>() -> Self {
        Self::Other(Box::new(D::default()))
    }

    pub(crate) fn update(&mut self, data: &[u8]) {
        match self {
            Self::Other(d) => d.update(data),
            Self::Blake3(h) => {
                h.update(data);
            }
        }
    }

    pub(crate) fn finish(self) -> String {
        match self {
            Self::Other(d) => hex::encode(d.finalize()),
            Self::Blake3(h) => hex::encode(h.finalize().as_bytes()),
        }
    }
}

/// What is hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// The plaintext that is written.
    Plaintext,
    /// The whole data file, byte for byte.
    Image,
}

/// A hash that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Of what.
    pub of: Of,
    /// Which hash.
    pub algorithm: Algorithm,
}

/// A hash that came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hashed {
    /// Of what.
    pub of: Of,
    /// Which hash.
    pub algorithm: Algorithm,
    /// The hash in lower-case hex.
    pub hex: String,
}

/// The hashes to make of one stream.
#[derive(Default)]
pub struct Hashers {
    hashers: Vec<Lane>,
}

struct Lane {
    of: Of,
    algorithm: Algorithm,
    /// The image, to read what the stream itself does not: its header, and what lies behind the data. One that lies in
    /// several files has a hash of each.
    image: Vec<Arc<dyn ReadAt>>,
    /// The stream reads the image byte for byte, so that its chunks can be hashed as they pass by.
    passes_by: bool,
    /// The output as far as it was there before the stream started.
    written: Option<(File, u64)>,
    result: Mutex<Option<Result<Vec<String>>>>,
}

impl Hashers {
    /// Hashes the plaintext that the stream writes. Where the stream goes on with an output, its first bytes are read
    /// back from `written`.
    pub fn plaintext(&mut self, algorithm: Algorithm, written: Option<(File, u64)>) {
        let (of, result) = (Of::Plaintext, Mutex::default());
        let lane = Lane { of, algorithm, image: Vec::new(), passes_by: false, written, result };
        self.hashers.push(lane);
    }

    /// Hashes each of the whole files of the image, which come out in their order. Where the first is the stream's data
    /// file itself (`passes_by`), the bytes that the stream decrypts are hashed as they are read, and only the others are
    /// read besides.
    pub fn image(&mut self, algorithm: Algorithm, image: Vec<Arc<dyn ReadAt>>, passes_by: bool) {
        let (of, result) = (Of::Image, Mutex::default());
        let lane = Lane { of, algorithm, image, passes_by, written: None, result };
        self.hashers.push(lane);
    }

    pub(super) fn want_ciphertext(&self) -> bool {
        self.hashers.iter().any(|l| l.passes_by)
    }

    /// The hashes, once the stream is through.
    ///
    /// # Errors
    /// The error that kept a lane from reading what the stream does not.
    pub fn results(&self) -> Result<Vec<Hashed>> {
        let mut all = Vec::new();
        for lane in &self.hashers {
            if let Some(hexes) = lock(&lane.result).take() {
                all.extend(hexes?.into_iter().map(|hex| Hashed { of: lane.of, algorithm: lane.algorithm, hex }));
            }
        }
        Ok(all)
    }

    /// Starts a thread a lane.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) where no thread can be had.
    pub(super) fn start<'s, 'env>(
        &'s self,
        scope: &'s Scope<'s, 'env>,
        failed: &'s AtomicBool,
        progress: &'s Progress,
    ) -> Result<Feeds<'s>> {
        let start = |lane: &'s Lane| {
            let (send, receive) = sync_channel(WAITING);
            let run = move || {
                let is_over = || failed.load(Ordering::Relaxed) || progress.is_cancelled();
                let hexes = catch_panic("hashing", || lane.run(&receive, &is_over));
                *lock(&lane.result) = Some(hexes);
            };
            let thread = std::thread::Builder::new().name(lane.algorithm.name().to_owned());
            thread.spawn_scoped(scope, run).map_err(|e| no_thread(lane.algorithm, e))?;
            Ok((lane.of, send))
        };
        Ok(Feeds { feeds: self.hashers.iter().map(start).collect::<Result<_>>()? })
    }
}

fn no_thread(algorithm: Algorithm, e: std::io::Error) -> Error {
    Error::io(format!("starting a thread for {}", algorithm.name()), e).with_hint(Hint::NoHash)
}

impl Lane {
    fn run(&self, from: &Receiver<Piece<'_>>, is_over: &dyn Fn() -> bool) -> Result<Vec<String>> {
        let mut hasher = self.algorithm.hasher();
        if let Some((file, len)) = &self.written {
            let read =
                |buf: &mut [u8], at| file.read_exact_at(buf, at).map_err(|e| Error::io("reading the output back", e));
            hash_range(&mut hasher, 0..*len, read, is_over)?;
        }
        let mut position = 0;
        let first = self.image.first();
        let image = |buf: &mut [u8], at| first.map_or(Ok(()), |i| i.read_exact_at(buf, at));
        for piece in from {
            if first.is_some() {
                // A piece that lies before what was hashed cannot be used: the rest is read at the end instead.
                if piece.offset < position {
                    continue;
                }
                hash_range(&mut hasher, position..piece.offset, image, is_over)?;
                position = piece.offset.saturating_add(to_u64(piece.range.len()));
            }
            hasher.update(piece.chunk.get(piece.range.clone()).unwrap_or_default());
        }
        if let Some(source) = first {
            hash_range(&mut hasher, position..source.len(), image, is_over)?;
        }
        let mut hexes = vec![hasher.finish()];
        for file in self.image.iter().skip(1) {
            let mut hasher = self.algorithm.hasher();
            hash_range(&mut hasher, 0..file.len(), |buf, at| file.read_exact_at(buf, at), is_over)?;
            hexes.push(hasher.finish());
        }
        Ok(hexes)
    }
}

/// Hashes bytes that the stream does not pass by.
fn hash_range(
    hasher: &mut Hasher,
    range: Range<u64>,
    read: impl Fn(&mut [u8], u64) -> Result<()>,
    is_over: &dyn Fn() -> bool,
) -> Result<()> {
    // It may be plaintext that is read back.
    let mut buf = Zeroizing::new(vec![0u8; 256 << 10]);
    let mut at = range.start;
    while at < range.end && !is_over() {
        let n = at_most(range.end - at, buf.len());
        read(&mut buf[..n], at)?;
        hasher.update(&buf[..n]);
        at += to_u64(n);
    }
    Ok(())
}

/// A part of a chunk, on its way to a lane.
#[derive(Clone)]
struct Piece<'s> {
    chunk: Arc<Chunk<'s>>,
    range: Range<usize>,
    /// Where it lies in the data file.
    offset: u64,
}

/// The workers' ends of the hashers.
pub(super) struct Feeds<'s> {
    feeds: Vec<(Of, SyncSender<Piece<'s>>)>,
}

impl<'s> Feeds<'s> {
    pub fn is_empty(&self) -> bool {
        self.feeds.is_empty()
    }

    /// Hands a chunk on. It waits while a lane is behind; a lane that failed is passed over, and says so at the end.
    pub fn send(&self, chunk: Chunk<'s>, range: Range<usize>, ciphertext: Option<(Chunk<'s>, u64)>) {
        let plain = Piece { chunk: Arc::new(chunk), range, offset: 0 };
        let cipher = ciphertext.map(|(chunk, offset)| {
            let range = 0..chunk.len();
            Piece { chunk: Arc::new(chunk), range, offset }
        });
        for (of, feed) in &self.feeds {
            let piece = match of {
                Of::Plaintext => Some(plain.clone()),
                Of::Image => cipher.clone(),
            };
            if let Some(piece) = piece {
                let _ = feed.send(piece);
            }
        }
    }
}

/// Hashes all that comes through a pipe, on a thread an algorithm.
pub struct PipeHashes {
    threads: Vec<(Algorithm, std::thread::JoinHandle<String>)>,
}

impl PipeHashes {
    /// Taps `pipe`.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) where no thread can be had.
    pub fn tap(pipe: &Pipe, algorithms: &[Algorithm]) -> Result<Self> {
        let mut feeds = Vec::new();
        let mut threads = Vec::new();
        for a in algorithms {
            let (send, receive) = sync_channel::<Arc<[u8]>>(2 * WAITING);
            feeds.push(send);
            let mut hasher = a.hasher();
            let hash = move || {
                for block in receive {
                    hasher.update(&block);
                }
                hasher.finish()
            };
            let thread = std::thread::Builder::new().name(a.name().to_owned()).spawn(hash);
            threads.push((*a, thread.map_err(|e| no_thread(*a, e))?));
        }
        pipe.set_tap(Box::new(move |bytes| {
            let block: Arc<[u8]> = bytes.into();
            for feed in &feeds {
                let _ = feed.send(Arc::clone(&block));
            }
        }));
        Ok(Self { threads })
    }

    /// Reads the pipe to its end and gives the hashes.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) where the pipe cannot be read.
    pub fn finish(self, pipe: &Pipe) -> Result<Vec<Hashed>> {
        pipe.drain()?;
        // Without the tap, the hashers come to their end.
        pipe.set_tap(Box::new(|_| {}));
        let mut all = Vec::new();
        for (algorithm, thread) in self.threads {
            let hex = thread.join().map_err(|_| Error::invalid("a hash thread ended early"))?;
            all.push(Hashed { of: Of::Image, algorithm, hex });
        }
        Ok(all)
    }
}
