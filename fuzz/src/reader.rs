//! The two processes that files are read by: neither believes the other.
//!
//! The first byte says who hears the rest: 0 the process that parses, to which it is what a parent says, requests and pieces of
//! a disk; 1 the one with the key, to which it is what such a process answers.

use std::io::{Cursor, sink};
use std::sync::Arc;

use unluks::inside::Kind;
use unluks::limits::READER_ENTRIES_MAX;
use unluks::reader::wire::{Remote, serve};
use unluks::reader::{FileSystem, shown};

use super::{Head, check_error, check_line};

pub(super) fn reader(data: &[u8]) -> bool {
    let Some((who, said)) = data.split_first() else { return false };
    let said = Cursor::new(said.to_vec());
    if *who == 0 {
        return serve(said, sink()).inspect_err(check_error).is_ok();
    }
    let disk = Arc::new(Head { head: Vec::new(), len: 1 << 20 });
    let Ok(mut remote) = Remote::open(said, sink(), disk, Kind::Ext4).inspect_err(check_error) else { return false };
    let mut count = 0;
    let listed = remote.read_dir(b"/", &mut |entry| {
        count += 1;
        check_line(&shown(&entry.name));
        Ok(())
    });
    assert!(count <= READER_ENTRIES_MAX);
    let _ = listed.inspect_err(check_error);
    let mut buf = [0; 100];
    assert!(remote.read_at(b"/file", 0, &mut buf).inspect_err(check_error).unwrap_or(0) <= buf.len());
    let _ = remote.metadata(b"/file").inspect_err(check_error);
    let _ = remote.read_link(b"/file").inspect_err(check_error);
    true
}
