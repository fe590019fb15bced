//! Decompression of one unit, into no more memory than the unit has.

use std::fmt::Display;
use std::io::Read;

use flate2::{Decompress, FlushDecompress, Status};

use crate::error::{Error, Result};
use crate::limits::ZSTD_WINDOW_MAX;
use crate::num::at_most;

/// How a container compresses its units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    /// RFC 1951, without a header.
    Deflate,
    /// RFC 1950: deflate with a header and an Adler-32 checksum.
    Zlib,
    /// RFC 8878.
    Zstd,
    /// google/snappy's format_description.txt, a block without frames.
    Snappy,
    /// lz4's lz4_Block_format.md: a block without a frame, with its unpacked length in front of it or without.
    Lz4,
}

/// Unpacks `packed` to at most `most` bytes. What lies in `packed` behind the compressed stream is passed over.
///
/// A zlib stream must end, with its checksum, within `most` bytes. The others, which have none, are cut there, as QEMU
/// cuts them.
pub(super) fn unpack(packing: Packing, packed: &[u8], most: u64) -> Result<Vec<u8>> {
    let most = usize::try_from(most).map_err(|_| bad("it is too large for this machine"))?;
    match packing {
        Packing::Deflate => Ok(inflate(false, packed, most)?.0),
        Packing::Zlib => {
            // One byte of room more than is allowed, so that a stream that gives more is seen, and so that one that
            // fills the unit is read on to its checksum.
            let (out, ended) = inflate(true, packed, most.saturating_add(1))?;
            if out.len() > most {
                Err(bad(format!("it gives more than {most} bytes")))
            } else if ended {
                Ok(out)
            } else {
                Err(bad(format!("its stream is cut off after {} bytes", out.len())))
            }
        }
        Packing::Zstd => {
            let stream = ruzstd::decoding::StreamingDecoder::new_with_max_window_size(packed, ZSTD_WINDOW_MAX);
            let mut stream = stream.map_err(bad)?;
            let mut out = vec![0; most];
            let mut filled = 0;
            while filled < out.len() {
                match stream.read(&mut out[filled..]).map_err(bad)? {
                    0 => break,
                    n => filled = filled.saturating_add(n),
                }
            }
            out.truncate(filled);
            Ok(out)
        }
        Packing::Snappy => {
            let len = snap::raw::decompress_len(packed).map_err(bad)?;
            if len > most {
                return Err(bad(format!("it gives {len} bytes; {most} are allowed")));
            }
            snap::raw::Decoder::new().decompress_vec(packed).map_err(bad)
        }
        Packing::Lz4 => lz4_flex::block::decompress(packed, most).or_else(|e| {
            // A length in front, as pyaff4 writes it, is no block: it begins with a match of what is not there yet.
            let (len, block) = packed.split_first_chunk::<4>().ok_or_else(|| bad(&e))?;
            let len = usize::try_from(u32::from_le_bytes(*len)).ok().filter(|len| *len <= most);
            lz4_flex::block::decompress(block, len.ok_or_else(|| bad(&e))?).map_err(bad)
        }),
    }
}

fn bad(why: impl Display) -> Error {
    Error::corrupt("container.unit", format!("a compressed unit does not unpack: {why}"))
}

/// At most `most` bytes, and whether the stream ended within them.
fn inflate(zlib: bool, packed: &[u8], most: usize) -> Result<(Vec<u8>, bool)> {
    let mut out = vec![0; most];
    let mut stream = Decompress::new(zlib);
    // All input and room for all output are there, so one call goes as far as the stream goes.
    let status = stream.decompress(packed, &mut out, FlushDecompress::Finish).map_err(bad)?;
    out.truncate(at_most(stream.total_out(), most));
    Ok((out, status == Status::StreamEnd))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn unpacks_no_further_than_the_unit() {
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        zlib.write_all(&vec![7; 1 << 20]).unwrap();
        let mut packed = zlib.finish().unwrap();
        packed.extend([0xff; 100]);
        assert_eq!(unpack(Packing::Zlib, &packed, 1 << 20).unwrap(), vec![7; 1 << 20]);
        assert_eq!(unpack(Packing::Zlib, &packed, 2 << 20).unwrap().len(), 1 << 20);
        assert_eq!(unpack(Packing::Deflate, &packed[2..], 1000).unwrap(), vec![7; 1000]);
        assert!(unpack(Packing::Zlib, &packed, 1000).unwrap_err().message().contains("more than 1000"));
        assert!(unpack(Packing::Zlib, &packed[..200], 1 << 20).unwrap_err().message().contains("cut off"));
        let checksum = packed.len() - 101;
        packed[checksum] ^= 1;
        assert!(unpack(Packing::Zlib, &packed, 1 << 20).is_err(), "the checksum is compared");
        assert!(unpack(Packing::Zlib, b"no stream at all", 100).is_err());
    }

    #[test]
    fn snappy_and_lz4_give_no_more_than_the_unit() {
        let bytes = b"a chunk of an image, ".repeat(50);
        let snappy = snap::raw::Encoder::new().compress_vec(&bytes).unwrap();
        let lz4 = lz4_flex::block::compress(&bytes);
        let prefixed = [1050u32.to_le_bytes().to_vec(), lz4.clone()].concat();
        for (packing, packed) in [(Packing::Snappy, snappy), (Packing::Lz4, lz4), (Packing::Lz4, prefixed)] {
            assert_eq!(unpack(packing, &packed, 1050).unwrap(), bytes, "{packing:?}");
            assert_eq!(unpack(packing, &packed, 4096).unwrap(), bytes, "{packing:?}");
            assert_eq!(unpack(packing, &packed, 1049).unwrap_err().rule(), "container.unit", "{packing:?}");
            assert!(unpack(packing, &packed[..20], 1050).is_err(), "{packing:?}");
            assert!(unpack(packing, &[], 1050).is_err(), "{packing:?}");
        }
    }

    #[test]
    fn a_large_window_is_refused() {
        // RFC 8878, 3.1.1: magic, no single segment, a window of 2^(10+20) bytes, one empty last block.
        let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 20 << 3, 0x01, 0x00, 0x00];
        assert!(unpack(Packing::Zstd, &frame, 1 << 16).unwrap_err().to_string().to_lowercase().contains("window"));
        let small = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 6 << 3, 0x01, 0x00, 0x00];
        assert_eq!(unpack(Packing::Zstd, &small, 1 << 16).unwrap(), b"");
    }
}
