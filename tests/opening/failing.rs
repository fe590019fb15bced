//! A source that fails in given ranges, for the tests of all that reads.

use std::ops::Range;

use unluks::{Error, ReadAt, Result};

/// A source of which some ranges cannot be read, as on a disk with bad sectors.
pub struct FailingRanges<S> {
    source: S,
    bad: Vec<Range<u64>>,
}

impl<S: ReadAt> FailingRanges<S> {
    /// `source`, with an error for each read that touches one of the ranges.
    pub fn new(source: S, bad: impl IntoIterator<Item = Range<u64>>) -> Self {
        Self { source, bad: bad.into_iter().collect() }
    }
}

impl<S: ReadAt> ReadAt for FailingRanges<S> {
    fn len(&self) -> u64 {
        self.source.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let end = offset + u64::try_from(buf.len()).unwrap();
        if self.bad.iter().any(|bad| bad.start < end && offset < bad.end) {
            let eio = std::io::Error::from_raw_os_error(5);
            return Err(Error::io(format!("reading {} bytes", buf.len()), eio).at(offset));
        }
        self.source.read_exact_at(buf, offset)
    }
}

#[test]
fn a_read_fails_where_it_touches_a_range() {
    let source = FailingRanges::new((0..100).collect::<Vec<u8>>(), [10..20, 90..100]);
    for (offset, len, fails) in [(0, 10, false), (0, 11, true), (19, 1, true), (20, 70, false), (20, 71, true)] {
        let read = source.read_exact_at(&mut vec![0; len], offset);
        assert_eq!(read.is_err(), fails, "{len} bytes at {offset}");
    }
    let e = source.read_exact_at(&mut [0; 4], 12).unwrap_err();
    assert_eq!((e.kind(), e.offset()), (unluks::ErrorKind::Io, Some(12)));
}
