//! A header that is not the data's: refused, however the two lie.

use std::sync::Arc;

use unluks::locate::{FindOptions, HeaderAt, find};
use unluks::{ErrorKind, Image, OpenOptions, ReadAt, Result};

use crate::support::{Golden, PARTITION, in_mbr, in_qcow2};

fn shared(bytes: &[u8]) -> Arc<dyn ReadAt> {
    Arc::new(bytes.to_vec())
}

/// What the image says of a header that was given for it.
fn foreign(data: &[u8], options: FindOptions, header: &[u8]) -> Result<Option<unluks::Error>> {
    let found = find(shared(data), FindOptions { header: HeaderAt::Elsewhere, ..options })?;
    Image::open_found(&found, Some(shared(header))).map(|image| image.foreign_header())
}

#[test]
fn a_header_of_another_uuid_is_foreign() {
    let (l1, l2) = (Golden::read("l1-aes-xts-512-sha256").image, Golden::read("l2-argon2id").image);
    let other = [Golden::read("l1-two-slots").image, Golden::read("l2-pbkdf2-sha512").image];
    let mut secondary_alone = l2.clone();
    secondary_alone[..4096].fill(0);
    let mut damaged = l2.clone();
    // The label of both copies: no checksum is right any more, and the UUID is.
    (damaged[30], damaged[16414]) = (b'x', b'x');
    for own in [&l1, &l2, &secondary_alone, &damaged] {
        for header in &other {
            let partition = || FindOptions { partition: Some("1".into()), ..FindOptions::default() };
            let offset = || FindOptions { offset: Some(PARTITION), ..FindOptions::default() };
            for (data, options) in [
                (own.clone(), FindOptions::default()),
                (in_mbr(own), partition()),
                (in_mbr(own), offset()),
                (in_qcow2(own), FindOptions::default()),
            ] {
                let e = foreign(&data, options, header).unwrap().unwrap();
                assert_eq!((e.kind(), e.rule()), (ErrorKind::InvalidInput, "header"));
                assert!(e.to_string().contains(&unluks::open(header).unwrap().uuid), "{e}");
            }
        }
    }
}

#[test]
fn a_header_of_the_same_image_is_not_foreign() {
    for name in ["l1-header-backup", "l2-header-backup", "l1-detached", "l2-detached", "l2-detached-offset"] {
        let golden = Golden::read(name);
        let header = golden.header.unwrap();
        assert!(foreign(&golden.image, FindOptions::default(), &header).unwrap().is_none(), "{name}");
    }
    for name in ["l1-aes-xts-512-sha256", "l2-argon2id"] {
        let image = Golden::read(name).image;
        assert!(foreign(&image, FindOptions::default(), &image).unwrap().is_none(), "{name}: its own");
        // The header is wiped: there is nothing to compare with.
        let mut wiped = image.clone();
        wiped[..32768].fill(0);
        assert!(foreign(&wiped, FindOptions::default(), &image).unwrap().is_none(), "{name}");
    }
}

#[test]
fn swapped_files_are_told() {
    for name in ["l1-detached", "l2-detached"] {
        let golden = Golden::read(name);
        let e = foreign(&golden.header.unwrap(), FindOptions::default(), &golden.image).unwrap_err();
        assert!(e.to_string().contains("swapped?"), "{name}: {e}");
    }
    for name in ["l1-aes-xts-512-sha256", "l2-argon2id"] {
        let image = Golden::read(name).image;
        let metadata = unluks::open(&image).unwrap();
        let backup = &image[..usize::try_from(metadata.header_size).unwrap().next_multiple_of(4096)];
        assert!(foreign(&image, FindOptions::default(), backup).unwrap().is_none(), "{name}");
        let e = foreign(backup, FindOptions::default(), &image).unwrap().unwrap();
        assert_eq!(e.kind(), ErrorKind::InvalidInput);
        assert!(e.to_string().contains("are they swapped?"), "{name}: {e}");
    }
}

#[test]
fn the_front_door_refuses_it_unless_it_is_told_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let image = write("image", &Golden::read("l2-argon2id").image);
    let header = write("header", &Golden::read("l2-pbkdf2-sha512").image);
    let mut options = OpenOptions { header: Some(header), ..OpenOptions::default() };
    let e = Image::open_path(&image, &options).err().unwrap();
    assert_eq!((e.kind(), e.rule()), (ErrorKind::InvalidInput, "header"), "{e}");
    options.foreign_header = true;
    assert!(Image::open_path(&image, &options).is_ok());
}
