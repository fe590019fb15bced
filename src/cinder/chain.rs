//! A full backup and its increments, laid over each other.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::metadata::{self, Object, Packing};
use super::unpack::Unpacked;
use crate::error::{Error, Result, shown};
use crate::io::{Extent, ReadAt, check_range};
use crate::limits::{CINDER_CACHE, CINDER_OBJECTS_MAX, CINDER_STREAMS_MAX};
use crate::num::{at_most, to_u64};

/// What decompresses is kept in blocks of this size.
const BLOCK: u64 = 1 << 20;
/// Files that are held open.
const FILES: usize = 32;

/// One backup of a chain.
pub(super) struct Layer {
    pub prefix: PathBuf,
    pub id: String,
    pub volume: String,
    pub created_at: String,
    /// In the order of the volume.
    pub objects: Vec<Object>,
}

/// A part of the volume, and the object that it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    start: u64,
    end: u64,
    layer: usize,
    object: usize,
}

/// The volume as it was when a backup was made: [`ReadAt`], whatever the objects are compressed by.
///
/// What is in memory is the list of objects, and [`CINDER_CACHE`] bytes of what was decompressed. A compressed object is
/// read from its start on; reads in order go on where the last one stopped.
pub struct Chain {
    pub(super) layers: Vec<Layer>,
    pieces: Vec<Piece>,
    len: u64,
    files: Mutex<VecDeque<(At, Arc<File>)>>,
    unpacked: Mutex<Store>,
}

/// The numbers of a layer and of an object in it.
type At = (usize, usize);
/// What was decompressed of an object: its number there, and its bytes.
type Block = ((At, u64), Arc<[u8]>);

/// What was decompressed, and what goes on decompressing.
#[derive(Default)]
struct Store {
    blocks: VecDeque<Block>,
    streams: VecDeque<(At, Unpacked)>,
}

impl Chain {
    /// Opens the backups of these prefixes, the full one first.
    pub(super) fn open<'a>(prefixes: impl Iterator<Item = &'a Path>) -> Result<Self> {
        let mut layers: Vec<Layer> = Vec::new();
        let mut pieces = Vec::new();
        let (mut len, mut count) = (0, 0_usize);
        for prefix in prefixes {
            let mut objects = Vec::new();
            let found = metadata::read(prefix, &mut |object| {
                count = count.saturating_add(1);
                if count > CINDER_OBJECTS_MAX {
                    let message = format!("the chain has more than {CINDER_OBJECTS_MAX} objects");
                    return Err(Error::limit("cinder.metadata", message));
                }
                metadata::look_at(prefix, &object)?;
                objects.push(object);
                Ok(())
            })?;
            objects.sort_by_key(|object| object.offset);
            let within = |e: Error| e.within(format!("backup {}", found.id));
            if layers.is_empty() {
                len = whole(&objects).map_err(within)?;
            } else {
                apart(&objects, len).map_err(within)?;
            }
            pieces = overlaid(&pieces, layers.len(), &objects)?;
            let (id, volume, created_at) = (found.id, found.volume, found.created_at);
            layers.push(Layer { prefix: prefix.to_owned(), id, volume, created_at, objects });
        }
        Ok(Self { layers, pieces, len, files: Mutex::default(), unpacked: Mutex::default() })
    }

    /// The backup's id.
    pub fn id(&self) -> &str {
        self.layers.last().map_or("", |layer| layer.id.as_str())
    }

    /// How many backups lie over each other.
    pub fn depth(&self) -> usize {
        self.layers.len()
    }

    fn parts(&self, piece: &Piece) -> Result<(&Layer, Object)> {
        let layer = self.layers.get(piece.layer);
        let found = layer.and_then(|layer| Some((layer, *layer.objects.get(piece.object)?)));
        found.ok_or_else(|| Error::invalid("a part of the volume has no object"))
    }

    /// Reads what is stored as it is.
    fn read_stored(&self, piece: &Piece, buf: &mut [u8], inside: u64) -> Result<()> {
        let (layer, object) = self.parts(piece)?;
        let key = (piece.layer, piece.object);
        let file = {
            let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
            match files.iter().find(|(of, _)| *of == key) {
                Some((_, file)) => Arc::clone(file),
                None => {
                    let path = object.path(&layer.prefix);
                    let file = File::open(&path).map_err(|e| Error::io(format!("opening {}", shown(&path)), e))?;
                    let file = Arc::new(file);
                    files.push_front((key, Arc::clone(&file)));
                    files.truncate(FILES);
                    file
                }
            }
        };
        let read = file.read_exact_at(buf, inside);
        read.map_err(|e| Error::io(format!("reading {}", shown(&object.path(&layer.prefix))), e).at(inside))
    }

    /// Reads what is compressed, block by block.
    fn read_unpacked(&self, piece: &Piece, buf: &mut [u8], inside: u64) -> Result<()> {
        let (mut rest, mut at) = (buf, inside);
        while !rest.is_empty() {
            let number = at.checked_div(BLOCK).unwrap_or_default();
            let block = self.block(piece, number)?;
            let skip = at_most(at.checked_rem(BLOCK).unwrap_or_default(), <[u8]>::len(&block));
            let from = block.get(skip..).unwrap_or_default();
            let n = from.len().min(rest.len());
            if n == 0 {
                return Err(Error::corrupt("cinder.object", "an object ends within the volume's part").at(at));
            }
            let (here, more) = rest.split_at_mut(n);
            here.copy_from_slice(from.get(..n).unwrap_or_default());
            at = at.saturating_add(to_u64(n));
            rest = more;
        }
        Ok(())
    }

    /// A block of an object. The lock is held while it is made: threads that read on want the same stream.
    fn block(&self, piece: &Piece, number: u64) -> Result<Arc<[u8]>> {
        let (layer, object) = self.parts(piece)?;
        let of = (piece.layer, piece.object);
        let mut store = self.unpacked.lock().unwrap_or_else(PoisonError::into_inner);
        let Store { blocks, streams } = &mut *store;
        let is_it = |(at, _): &Block| *at == (of, number);
        if let Some(at) = blocks.iter().position(is_it)
            && let Some(found) = blocks.remove(at)
        {
            let block = Arc::clone(&found.1);
            blocks.push_front(found);
            return Ok(block);
        }
        let start = number.saturating_mul(BLOCK);
        let open = streams.iter().position(|(key, stream)| *key == of && stream.at <= start);
        let mut stream = match open.and_then(|at| streams.remove(at)) {
            Some((_, stream)) => stream,
            None => Unpacked::open(&layer.prefix, object)?,
        };
        loop {
            let at = stream.at;
            let size = at_most(object.length.saturating_sub(at), at_most(BLOCK, usize::MAX));
            let mut block = vec![0; size];
            stream.read(&mut block)?;
            let block: Arc<[u8]> = block.into();
            let made = at.checked_div(BLOCK).unwrap_or_default();
            blocks.push_front(((of, made), Arc::clone(&block)));
            blocks.truncate(at_most(CINDER_CACHE.checked_div(BLOCK).unwrap_or(1), usize::MAX));
            if made >= number || size == 0 {
                if stream.at < object.length {
                    streams.push_front((of, stream));
                    streams.truncate(CINDER_STREAMS_MAX);
                }
                return Ok(block);
            }
        }
    }

    fn piece(&self, offset: u64) -> Option<&Piece> {
        let n = self.pieces.partition_point(|piece| piece.start <= offset).checked_sub(1)?;
        self.pieces.get(n).filter(|piece| offset < piece.end)
    }
}

impl ReadAt for Chain {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(offset, buf.len(), self.len)?;
        let (mut rest, mut at) = (buf, offset);
        while !rest.is_empty() {
            let piece = self.piece(at).ok_or_else(|| gap(at))?;
            let (_, object) = self.parts(piece)?;
            let n = at_most(piece.end.saturating_sub(at), rest.len());
            let (here, more) = rest.split_at_mut(n);
            let inside = at.saturating_sub(object.offset);
            match object.packing {
                Packing::None => self.read_stored(piece, here, inside)?,
                _ => self.read_unpacked(piece, here, inside)?,
            }
            at = at.saturating_add(to_u64(n));
            rest = more;
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        let end = self.piece(offset).map_or(self.len, |piece| piece.end);
        Ok(Extent { len: end.saturating_sub(offset), zero: false })
    }
}

fn gap(at: u64) -> Error {
    let message = format!("no object holds the volume's byte {at}");
    Error::corrupt("cinder.range", message).at(at).with_hint("an object is not in the metadata: the backup is damaged")
}

/// The length of a volume whose full backup has these objects: they follow each other without a gap.
fn whole(objects: &[Object]) -> Result<u64> {
    let mut end = 0;
    for object in objects {
        if object.offset > end {
            return Err(gap(end));
        }
        if object.offset < end {
            return Err(overlap(object));
        }
        end = object.end();
    }
    if end == 0 {
        return Err(Error::corrupt("cinder.range", "the full backup has no object"));
    }
    Ok(end)
}

fn overlap(object: &Object) -> Error {
    let message = format!("two objects hold the volume's byte {}", object.offset);
    Error::corrupt("cinder.range", message).at(object.offset)
}

/// Refuses objects of an increment that overlap, or lie behind the volume's end.
fn apart(objects: &[Object], len: u64) -> Result<()> {
    let mut end = 0;
    for object in objects {
        if object.offset < end {
            return Err(overlap(object));
        }
        end = object.end();
        if end > len {
            let message = format!("an object of the increment ends at byte {end}; the full backup ends at {len}");
            return Err(Error::corrupt("cinder.range", message).at(object.offset));
        }
    }
    Ok(())
}

/// The pieces of a volume with the objects of one more layer over them. Both are in order, so each is walked once.
fn overlaid(below: &[Piece], layer: usize, objects: &[Object]) -> Result<Vec<Piece>> {
    let mut pieces = Vec::with_capacity(below.len().saturating_add(objects.len()));
    let mut rest = below.iter().copied().peekable();
    for (object, of) in objects.iter().enumerate() {
        let (start, end) = (of.offset, of.end());
        // What lies before the object stays, whole or cut off.
        while let Some(piece) = rest.peek_mut() {
            if piece.start >= start {
                break;
            }
            if piece.end <= start {
                pieces.push(*piece);
                rest.next();
                continue;
            }
            pieces.push(Piece { end: start, ..*piece });
            piece.start = start;
            break;
        }
        while let Some(piece) = rest.peek_mut() {
            if piece.end <= end {
                rest.next();
            } else {
                piece.start = piece.start.max(end);
                break;
            }
        }
        pieces.push(Piece { start, end, layer, object });
    }
    pieces.extend(rest);
    if pieces.len() > CINDER_OBJECTS_MAX.saturating_mul(2) {
        let message =
            format!("the chain has {} parts; {} are allowed", pieces.len(), CINDER_OBJECTS_MAX.saturating_mul(2));
        return Err(Error::limit("cinder.metadata", message));
    }
    Ok(pieces)
}
