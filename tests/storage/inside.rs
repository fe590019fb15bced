//! What the quick look says of disks that are parts of others.

use std::sync::Arc;

use unluks::inside::{Contents, Kind};
use unluks::io::Window;

use crate::lvm::case;

#[test]
fn a_physical_volume_has_its_group_and_must_hold_its_extents() {
    let (mut devices, _) = case("linear");
    let disk = devices.remove(0);
    let contents = Contents::probe(Arc::clone(&disk)).unwrap();
    assert_eq!(contents.kind, Kind::Lvm2);
    assert!(contents.label.is_some() && !contents.parts.is_empty(), "{contents}");
    assert!(contents.all_findings().is_empty(), "{:?}", contents.all_findings());
    let size = contents.size().unwrap();
    assert!(size <= disk.len());
    contents.fits(size).unwrap();
    let cut = Contents::probe(Arc::new(Window::new(disk, 0, Some(size - 512)).unwrap())).unwrap();
    assert_eq!((cut.kind, cut.size()), (Kind::Lvm2, Some(size)));
    assert!(cut.fits(size - 512).unwrap_err().to_string().contains(&size.to_string()));
}
