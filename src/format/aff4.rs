//! AFF4 images of disks (AFF4 Standard v1.0a, aff4/Standard; and what Evimetry 2 and rekall wrote before it): a ZIP archive
//! with a text, `information.turtle`, that says what is in it.
//!
//! ```text
//! DiskImage ── dataStream ──► Map ── idx: names of streams ──► ImageStream ── NNNNNNNN: a bevy of chunks
//!                              └── map: entries               or aff4:Zero …    └ NNNNNNNN.index: their places
//! ```
//!
//! | a map's entry, 28 bytes, little-endian | | streams that are nowhere | |
//! |---|---|---|---|
//! | 0..8 | place on the disk | Zero, SymbolicStreamXX, FFDevice | one byte, again and again |
//! | 8..16 | length | UnknownData | an error to read: it was not taken into the image |
//! | 16..24 | place in the stream | UnreadableData | likewise: the medium could not be read there |
//! | 24..28 | the stream's line in `idx` | | |
//!
//! (Other readers give texts, `UNKNOWN` and `UNREADABLEDATA`, for what is lost: decrypted, they would be noise that looks
//! like data.) What no entry covers is `mapGapDefaultStream`'s, or zeroes. A thing is a member of the archive by its name: escaped, or
//! without the volume's name where it begins with that. An image in stripes has a stream in each volume; the other volumes
//! are given besides.
//!
//! Read are images of one disk. Containers of files (AFF4-L) are, where they hold one file in an image stream. The crates
//! aff4 and aff4-image are experiments of some months, and read with `&mut self`.

mod archive;
mod disk;
mod stream;
mod things;
mod turtle;

use std::collections::BTreeMap;
use std::sync::Arc;

use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::checks::Recorded;
use super::parent::{Kin, Named};
use crate::error::{Condition, Error, Hint, Result, escape};
use crate::io::{Peek, ReadAt};
use crate::limits::{AFF4_BEVIES_MAX, AFF4_TARGETS_MAX, AFF4_TEXT_MAX, FORMAT_RUNS_MAX};
use crate::num::{from_u32, to_u64, to_usize};
use archive::{Archive, LOCAL, Member};
use disk::{Disk, Entry, Parts, Symbol, Target, symbol};
use stream::{Bevy, Geometry, Method, Stream};
use things::{Thing, Volume};

/// Whether a file is an archive of AFF4's: by the name of its first member, which is `container.description`, or one of a
/// stream's; or by its comment, which is the volume's name, where the archive ends with one of the usual length.
pub(super) fn is_image(look: &Peek<'_>) -> bool {
    const NAME_AT: u64 = 30;
    const URN: u64 = 43;
    const END: u64 = 22 + URN;
    let is_first = |name: &[u8]| look.has(name, NAME_AT);
    look.has(&LOCAL, 0)
        && (is_first(b"container.description")
            || is_first(b"aff4%3A%2F%2F")
            || look.has_before_end(b"aff4://", URN) && look.has_before_end(b"PK\x05\x06", END))
}

/// The disk, and what else the image tells.
pub(super) struct Aff4 {
    pub disk: Arc<dyn ReadAt>,
    pub sector_size: Option<u32>,
    /// The hashes that the streams and the disk had when they were written.
    pub recorded: Vec<Recorded>,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy)]
#[repr(C)]
struct MapEntry {
    mapped_offset: U64,
    length: U64,
    target_offset: U64,
    target_id: U32,
}
const _: () = assert!(size_of::<MapEntry>() == MAP_ENTRY);
const MAP_ENTRY: usize = 28;

/// Reads what the volumes say, and gives the disk.
pub(super) fn open(file: Arc<dyn ReadAt>, kin: &Kin<'_>, notes: &mut Vec<String>) -> Result<Aff4> {
    let volume = Volume::open(Archive::open(file)?)?;
    let (name, thing) = image(&volume)?;
    let data = thing.data_stream.as_deref().unwrap_or(name);
    let described = |what: &str| Error::corrupt("aff4.image", format!("the image's data is {}, {what}", escape(data)));
    let of_data = volume.things.get(data).ok_or_else(|| described("which information.turtle does not describe"))?;
    let sector_size = thing.block_size.or(of_data.block_size).and_then(|size| u32::try_from(size).ok());
    let sector_size = sector_size.filter(|size| size.is_power_of_two() && (512..=4096).contains(size));
    let (entries, names, size) = if of_data.kinds.is_map {
        let (entries, names) = map(&volume, data)?;
        let size = of_data.size.or_else(|| entries.last().map(|entry| entry.end));
        (entries, names, size.ok_or_else(|| described("an empty map without a size"))?)
    } else if of_data.kinds.is_stream {
        let size = of_data.size.ok_or_else(|| described("a stream without a size"))?;
        (vec![Entry { start: 0, end: size, place: 0, target: 0 }], vec![data.to_owned()], size)
    } else if of_data.kinds.is_encrypted || volume.things.values().any(|thing| thing.kinds.is_encrypted) {
        return Err(Error::unsupported("aff4.encrypted", "the image is encrypted by AFF4")
            .with_hint("pyaff4, which wrote it, extracts what is in it"));
    } else {
        return Err(Error::unsupported(
            "aff4.image",
            format!("the image's data is {}, neither a map nor a stream of chunks", escape(data)),
        )
        .with_hint("pyaff4 extracts what is in it"));
    };
    let gap = of_data.gap.as_deref().map(|name| symbol(name).ok_or_else(|| gap_unread(name))).transpose()?;
    let gap = gap.unwrap_or(Symbol::Byte(0));
    let mut is_used = vec![false; names.len()];
    for entry in &entries {
        if let Some(used) = is_used.get_mut(from_u32(entry.target)) {
            *used = true;
        }
    }
    let names: Vec<_> = names.iter().zip(is_used).map(|(name, is_used)| is_used.then_some(name.as_str())).collect();
    let file = Arc::clone(&volume.archive.file);
    // A stream that is the disk itself is among the streams.
    let of_map = if of_data.kinds.is_map { of_data.hashes.clone() } else { Vec::new() };
    let Streams { targets, streams, mut recorded } = Volumes::new(volume, kin).targets(&names)?;
    let disk = Disk::new(file, size, Parts { entries, targets, gap, streams })?;
    let (disk, is_whole) = disk.finish(notes);
    if is_whole {
        let by = || "the AFF4 image's map".to_owned();
        let of = |(algorithm, hex)| Recorded { by: by(), algorithm, hex, at: None, of: Arc::clone(&disk) };
        recorded.extend(of_map.into_iter().map(of));
    }
    Ok(Aff4 { disk, sector_size, recorded })
}

fn gap_unread(name: &str) -> Error {
    Error::unsupported("aff4.map", format!("the map's gaps are {}, which is not read", escape(name)))
}

/// The image in the volume: the one of a disk where there is one, or the only one.
fn image(volume: &Volume) -> Result<(&str, &Thing)> {
    let all = |is: &dyn Fn(&Thing) -> bool| -> Vec<(&str, &Thing)> {
        volume.things.iter().filter(|(_, thing)| is(thing)).map(|(name, thing)| (name.as_str(), thing)).collect()
    };
    let ways: [&dyn Fn(&Thing) -> bool; 7] = [
        &|thing| thing.kinds.is_disk && thing.data_stream.is_some(),
        &|thing| thing.data_stream.is_some(),
        &|thing| thing.kinds.is_image && thing.kinds.is_map,
        &|thing| thing.kinds.is_map,
        &|thing| thing.kinds.is_stream && thing.size.is_some(),
        &|thing| thing.kinds.is_encrypted,
        &|thing| thing.kinds.is_segment || thing.kinds.is_image,
    ];
    let found = ways.into_iter().map(all).find(|found| !found.is_empty()).unwrap_or_default();
    match found.as_slice() {
        [] => Err(Error::corrupt("aff4.image", "information.turtle describes no image, no map and no stream")),
        [image] => Ok(*image),
        several => {
            let message = format!("the AFF4 container holds {} images or files, and not one disk", several.len());
            Err(Error::unsupported("aff4.image", message).with_hint("pyaff4 extracts them"))
        }
    }
}

/// The entries of the map, in the disk's order, and the names of its streams.
fn map(volume: &Volume, name: &str) -> Result<(Vec<Entry>, Vec<String>)> {
    let (mut map, mut idx) = (None, None);
    let names = [format!("{name}/map"), format!("{name}/idx")];
    volume.archive.each(|member, place| {
        let member = volume.full_name(member);
        if member == names[0] {
            map = Some(place);
        } else if member == names[1] {
            idx = Some(place);
        }
        Ok(())
    })?;
    let there = |member: Option<Member>, what: &str| {
        member.ok_or_else(|| Error::corrupt("aff4.map", format!("the archive lacks {what} of {}", escape(name))))
    };
    let (map, idx) = (there(map, "the map")?, there(idx, "the idx")?);
    let most = to_u64(FORMAT_RUNS_MAX);
    let count = map.size.checked_div(to_u64(MAP_ENTRY)).unwrap_or(0);
    if count > most {
        return Err(Error::limit("aff4.map", format!("the map has {count} entries; {most} are allowed")));
    }
    let names = volume.archive.read(&idx, AFF4_TEXT_MAX, "the map's idx")?;
    let names = String::from_utf8_lossy(&names);
    let mut lines = names.lines().map(|line| things::canonical(line.trim().as_bytes()));
    let names: Vec<String> = lines.by_ref().take(AFF4_TARGETS_MAX).collect();
    if lines.next().is_some() {
        let message = format!("the map's idx names more than {AFF4_TARGETS_MAX} streams");
        return Err(Error::limit("aff4.map", message));
    }
    let bytes = volume.archive.read(&map, most.saturating_mul(to_u64(MAP_ENTRY)), "the map")?;
    let (whole, rest) = bytes.as_chunks::<MAP_ENTRY>();
    if !rest.is_empty() {
        return Err(Error::corrupt(
            "aff4.map",
            format!("the map has {} bytes behind its last whole entry", rest.len()),
        ));
    }
    let mut entries = Vec::with_capacity(whole.len());
    for entry in whole {
        let entry: MapEntry = zerocopy::transmute!(*entry);
        let (start, len, target) = (entry.mapped_offset.get(), entry.length.get(), entry.target_id.get());
        let end = start.checked_add(len).filter(|_| from_u32(target) < names.len());
        let end = end.ok_or_else(|| {
            let message = format!("an entry of {len} bytes at byte {start} of the disk points into stream {target}");
            Error::corrupt("aff4.map", message)
        })?;
        if len > 0 {
            entries.push(Entry { start, end, place: entry.target_offset.get(), target });
        }
    }
    entries.sort_by_key(|entry| entry.start);
    if let Some([_, behind]) = entries.array_windows::<2>().find(|[before, behind]| before.end > behind.start) {
        let message = format!("two entries of the map cover byte {} of the disk", behind.start);
        return Err(Error::corrupt("aff4.map", message));
    }
    Ok((entries, names))
}

/// The volume that was opened, and those among the files that were named besides it.
struct Volumes<'a>(Vec<(Volume, Option<&'a Named>)>);

impl<'a> Volumes<'a> {
    fn new(volume: Volume, kin: &Kin<'a>) -> Self {
        let mut all = vec![(volume, None)];
        for (_, named) in kin.free() {
            // What is no volume is a part of something else, or fits nothing: whoever opened it says so.
            if Peek::new(&named.file).has(&LOCAL, 0)
                && let Ok(volume) = Archive::open(Arc::clone(&named.file)).and_then(Volume::open)
            {
                all.push((volume, Some(named)));
            }
        }
        Self(all)
    }

    /// The number of the volume that has the stream, and how it lies there.
    fn find(&self, name: &str) -> Result<(usize, Geometry)> {
        let found = self.0.iter().enumerate().find_map(|(n, (volume, named))| {
            let thing = volume.things.get(name).filter(|thing| thing.kinds.is_stream)?;
            Some((n, *named, thing, thing.size?))
        });
        let Some((n, named, thing, size)) = found else {
            let message = format!("the stream {} of the image lies in another volume", escape(name));
            return Err(Error::unsupported("aff4.volume", message)
                .with_condition(Condition::MissingMember)
                .with_hint(Hint::NameMembers));
        };
        if let Some(named) = named {
            named.mark_used();
        }
        let method = Method::of(thing.compression.as_deref())?;
        // What pyaff4 takes where the text does not say it.
        let chunk_size = thing.chunk_size.unwrap_or(32 << 10);
        let chunks_in_segment = thing.chunks_in_segment.unwrap_or(1024);
        let geometry = Geometry { size, chunk_size, chunks_in_segment, method };
        geometry.check().map_err(|e| e.within(escape(name)))?;
        Ok((n, geometry))
    }

    /// Where the streams of these names lie; of those that are `None`, no entry of the map has any byte.
    fn targets(&self, names: &[Option<&str>]) -> Result<Streams> {
        let mut targets = Vec::with_capacity(names.len());
        let mut wanted: Vec<(&str, usize, Geometry, Vec<Bevy>)> = Vec::new();
        let mut bevies = 0u64;
        for name in names {
            let made = name.map_or(Some(Symbol::Byte(0)), symbol);
            targets.push(match (made, name) {
                (Some(made), _) => Target::Made(made),
                (None, None) => Target::Made(Symbol::Byte(0)),
                (None, Some(name)) => {
                    let (volume, geometry) = self.find(name)?;
                    bevies = bevies.saturating_add(geometry.bevies());
                    if bevies > AFF4_BEVIES_MAX {
                        let message = format!("the image has {bevies} bevies or more; {AFF4_BEVIES_MAX} are allowed");
                        return Err(Error::limit("aff4.bevies", message));
                    }
                    let empty = vec![Bevy::default(); to_usize(geometry.bevies())?];
                    wanted.push((name, volume, geometry, empty));
                    Target::Stream(wanted.len().saturating_sub(1))
                }
            });
        }
        for (n, (volume, _)) in self.0.iter().enumerate() {
            let mut places: BTreeMap<&str, &mut Vec<Bevy>> = BTreeMap::new();
            places.extend(wanted.iter_mut().filter(|(_, at, ..)| *at == n).map(|(name, .., bevies)| (*name, bevies)));
            if places.is_empty() {
                continue;
            }
            volume.archive.each(|name, member| {
                put(&mut places, &volume.full_name(name), member);
                Ok(())
            })?;
        }
        let (mut streams, mut recorded) = (Vec::with_capacity(wanted.len()), Vec::new());
        for (name, n, geometry, bevies) in wanted {
            let Some((volume, _)) = self.0.get(n) else { continue };
            let archive = || Arc::clone(&volume.archive);
            let hashes = volume.things.get(name).map(|thing| thing.hashes.as_slice()).unwrap_or_default();
            if !hashes.is_empty() {
                let stream = Stream::new(archive(), name, geometry, bevies.clone())?;
                let of = Disk::of_stream(Arc::clone(&volume.archive.file), stream)?;
                let by = || format!("the AFF4 image's stream {}", escape(name));
                recorded.extend(hashes.iter().map(|(algorithm, hex)| {
                    let (hex, of) = (hex.clone(), Arc::clone(&of));
                    Recorded { by: by(), algorithm, hex, at: None, of }
                }));
            }
            streams.push(Stream::new(archive(), name, geometry, bevies)?);
        }
        Ok(Streams { targets, streams, recorded })
    }
}

/// What a disk is made of.
struct Streams {
    targets: Vec<Target>,
    streams: Vec<Stream>,
    /// The hashes of the streams.
    recorded: Vec<Recorded>,
}

/// Keeps a member that is a bevy of one of the streams, or the index of one.
fn put(streams: &mut BTreeMap<&str, &mut Vec<Bevy>>, name: &str, member: Member) {
    let index = name.strip_suffix(".index").map(|path| (path, false));
    let index = index.or_else(|| name.strip_suffix("/index").map(|path| (path, true)));
    let (path, _) = index.unwrap_or((name, false));
    let Some((stream, number)) = path.rsplit_once('/') else { return };
    let number = Some(number).filter(|number| number.len() == 8).and_then(|number| number.parse::<usize>().ok());
    let bevy = number.and_then(|number| streams.get_mut(stream)?.get_mut(number));
    let Some(bevy) = bevy else { return };
    match index {
        Some((_, is_old)) => (bevy.index, bevy.is_old) = (Some(member), is_old),
        None => bevy.data = Some(member),
    }
}
