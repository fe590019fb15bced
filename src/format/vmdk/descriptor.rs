//! VMDK's descriptor: a text of lines, in a file of its own or within a sparse one.
//!
//! | line | says |
//! |---|---|
//! | `CID=fffffffe` | the image's identity, new with each first write after it was opened |
//! | `parentCID=ffffffff` | that of the parent; all ones where there is none |
//! | `parentFileNameHint="base.vmdk"` | what the parent was called |
//! | `RW 4192256 SPARSE "disk-s001.vmdk"` | an extent: access, sectors, kind, file |
//! | `RW 8192 FLAT "disk-flat.vmdk" 0` | a flat one, and the sector of the file that it begins at |
//! | `RW 63 ZERO` | one that is zeroes, and has no file |
//!
//! `VMFS` is what ESXi calls a flat extent; its other kinds, sparse or mapped to a device, are no files of this format.

use std::path::{Path, PathBuf};

use super::SECTOR;
use crate::error::{Error, Result, counted, escape, shown};
use crate::files::folder;
use crate::format::{VMDK_DESCRIPTOR, fields};
use crate::io::{FileSource, Peek, ReadAt};
use crate::limits::{VMDK_DESCRIPTOR_MAX, VMDK_EXTENTS_MAX};

pub(super) const WHY: &str =
    "only the image itself is read: an image can name any file, and its maker would get to see it";

/// What a descriptor says of other files.
pub(super) struct Descriptor {
    pub extents: Vec<Extent>,
    pub cid: Option<u32>,
    pub parent_cid: Option<u32>,
    /// What the parent is called, where there is one.
    pub parent: Option<String>,
}

pub(super) struct Extent {
    /// `RW`, `RDONLY` or `NOACCESS`.
    access: String,
    /// In 512 bytes, as it stands there.
    sectors: String,
    pub kind: String,
    pub name: String,
    /// What stands behind the name.
    offset: String,
}

/// Where the bytes of an extent are.
pub(super) enum Store {
    Zeroes,
    /// In a file as they are, from this byte on.
    Flat {
        offset: u64,
    },
    /// In a sparse file.
    Sparse,
}

impl Descriptor {
    /// The descriptor of `len` bytes at `offset`.
    pub(super) fn read(file: &(impl ReadAt + ?Sized), offset: u64, len: u64) -> Result<Self> {
        if len > VMDK_DESCRIPTOR_MAX {
            let found = format!("found {len} bytes; {VMDK_DESCRIPTOR_MAX} are allowed");
            return Err(Error::limit("vmdk.descriptor", found).at(offset));
        }
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        fields::fill(file, &mut bytes, offset, "vmdk.descriptor", "the descriptor")?;
        Ok(Self::parse(&String::from_utf8_lossy(bytes.split(|b| *b == 0).next().unwrap_or_default())))
    }

    /// Lines are `name=value`, or `RW|RDONLY|NOACCESS SECTORS KIND "FILE" [OFFSET]` for an extent.
    pub(super) fn parse(text: &str) -> Self {
        let mut descriptor = Self { extents: Vec::new(), cid: None, parent_cid: None, parent: None };
        let mut has_parent = false;
        let id = |text: &str| u32::from_str_radix(text, 16).ok();
        for line in text.lines().map(str::trim) {
            match line.split_once('=').map(|(name, value)| (name.trim(), value.trim())) {
                Some(("CID", own)) => descriptor.cid = id(own),
                Some(("parentCID", cid)) => {
                    has_parent = !cid.eq_ignore_ascii_case("ffffffff");
                    descriptor.parent_cid = id(cid);
                }
                Some(("parentFileNameHint", name)) => descriptor.parent = Some(name.trim_matches('"').to_owned()),
                _ => (),
            }
            let mut words = line.split_whitespace();
            if let (Some(access @ ("RW" | "RDONLY" | "NOACCESS")), Some(sectors), Some(kind)) =
                (words.next(), words.next(), words.next())
            {
                let mut quoted = line.split('"').skip(1);
                let name = quoted.next().unwrap_or_default().to_owned();
                let offset = quoted.next().unwrap_or_default().trim().to_owned();
                let (access, sectors, kind) = (access.to_owned(), sectors.to_owned(), kind.to_owned());
                descriptor.extents.push(Extent { access, sectors, kind, name, offset });
            }
        }
        if has_parent {
            descriptor.parent.get_or_insert_with(|| "a parent that it does not name".into());
        } else {
            descriptor.parent = None;
        }
        descriptor
    }

    /// The extents' names, fit for a message.
    pub(super) fn names(&self) -> String {
        let names = self.extents.iter().take(3).map(|extent| escape(&extent.name)).collect::<Vec<_>>();
        match self.extents.len() {
            0 => "files that it does not name".into(),
            1..=3 => names.join(", "),
            n => format!("{} and {} more", names.join(", "), n.saturating_sub(3)),
        }
    }

    /// The files of the extents, each once, in the order in which they are named first.
    pub(super) fn files(&self) -> Result<Vec<&str>> {
        if self.extents.is_empty() {
            return Err(Error::corrupt("vmdk.extents", "the descriptor has no extent").at(0));
        }
        if self.extents.len() > VMDK_EXTENTS_MAX {
            let found = format!("found {}; {VMDK_EXTENTS_MAX} are allowed", counted(self.extents.len(), "extent"));
            return Err(Error::limit("vmdk.extents", found).at(0));
        }
        let mut seen = std::collections::HashSet::new();
        let mut files = Vec::new();
        for extent in &self.extents {
            let has_file = !matches!(extent.store()?, Store::Zeroes);
            if has_file && seen.insert(extent.name.as_str()) {
                files.push(extent.name.as_str());
            }
        }
        Ok(files)
    }

    /// The error for a descriptor whose extents were not given.
    pub(super) fn refuse(&self) -> Error {
        let hint = match self.extents.as_slice() {
            [Extent { kind, .. }] if kind == "FLAT" || kind == "VMFS" => "give the file it names instead, as a raw one",
            _ => "if you trust the image: qemu-img convert -O raw IMAGE DISK.raw makes one file of them",
        };
        let message = format!(
            "this is a VMDK descriptor: the disk's bytes lie in {}, which is not followed; {WHY}",
            self.names()
        );
        Error::unsupported("vmdk.descriptor", message).at(0).with_hint(hint)
    }
}

impl Extent {
    /// Its length in bytes.
    pub(super) fn size(&self) -> Result<u64> {
        let size = self.sectors.parse::<u64>().ok().and_then(|sectors| sectors.checked_mul(SECTOR));
        size.filter(|size| *size > 0).ok_or_else(|| {
            let (name, sectors) = (escape(&self.name), escape(&self.sectors));
            Error::corrupt("vmdk.extents", format!("extent {name} is said to have {}", counted(sectors, "sector")))
        })
    }

    pub(super) fn store(&self) -> Result<Store> {
        let (name, kind) = (escape(&self.name), escape(&self.kind));
        if self.access == "NOACCESS" {
            let message = format!("extent {name} is marked NOACCESS: its bytes are not to be read");
            return Err(Error::unsupported("vmdk.extents", message));
        }
        match self.kind.as_str() {
            "ZERO" => Ok(Store::Zeroes),
            "SPARSE" => Ok(Store::Sparse),
            "FLAT" | "VMFS" => {
                let sectors = if self.offset.is_empty() { Some(0) } else { self.offset.parse::<u64>().ok() };
                let offset = sectors.and_then(|sectors| sectors.checked_mul(SECTOR)).ok_or_else(|| {
                    let message = format!("extent {name} is said to begin at sector {}", escape(&self.offset));
                    Error::corrupt("vmdk.extents", message)
                })?;
                Ok(Store::Flat { offset })
            }
            _ => {
                let message = format!("extent {name} is of the kind {kind}; FLAT, VMFS, SPARSE and ZERO are read");
                let hint = "ESXi's vmkfstools -i IMAGE.vmdk COPY.vmdk -d thin makes a flat copy";
                Err(Error::unsupported("vmdk.extents", message).with_hint(hint))
            }
        }
    }
}

/// The files of the extents of the descriptor at `path`, open as `file`: regular files beside it.
///
/// # Security
/// A name is one component of a path, and what it leads to lies in the descriptor's own directory, also where it is a
/// link: so a descriptor gets nobody to read a file of another place.
pub(in crate::format) fn extent_files(path: &Path, file: &dyn ReadAt) -> Result<Vec<PathBuf>> {
    let descriptor = Descriptor::read(file, 0, file.len())?;
    let looking = |path: &Path, e| Error::io(format!("looking at {}", shown(path)), e);
    let dir = folder(path).canonicalize().map_err(|e| looking(folder(path), e))?;
    let own = path.canonicalize().map_err(|e| looking(path, e))?;
    let mut files = Vec::new();
    for name in descriptor.files()? {
        let leaves = |why: &str| {
            let message =
                format!("extent {} {why}: extents are looked for beside their descriptor alone", escape(name));
            Err(Error::unsupported("vmdk.extents", message))
        };
        if matches!(name, "" | "." | "..") || name.contains(['/', '\\', '\0']) {
            return leaves("is no name of a file in the directory");
        }
        let file = path.with_file_name(name);
        let target = match file.canonicalize() {
            Ok(target) => target,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let message = format!("extent {} of the image is missing", shown(&file));
                return Err(Error::invalid(message)
                    .with_rule("vmdk.extents")
                    .with_hint("all extents have to lie beside their descriptor"));
            }
            Err(e) => return Err(looking(&file, e)),
        };
        if target.parent() != Some(&dir) {
            return leaves("leads to another directory");
        }
        if target == own || !target.metadata().is_ok_and(|meta| meta.is_file()) {
            return leaves("is no regular file of its own");
        }
        files.push(file);
    }
    Ok(files)
}

/// The descriptor that names the file at `path` as an extent, where one lies beside it under the name that VMware and
/// QEMU give it: `disk.vmdk` for `disk-flat.vmdk`, `disk-s001.vmdk` and `disk-f001.vmdk`.
pub(in crate::format) fn descriptor_of(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let (stem, extension) = name.rsplit_once('.').map_or((name, ""), |(stem, extension)| (stem, extension));
    let is_number = |text: &str| text.len() >= 3 && text.bytes().all(|b| b.is_ascii_digit());
    let (base, end) = stem.rsplit_once('-')?;
    let is_extent = end == "flat" || end.strip_prefix(['s', 'f']).is_some_and(is_number);
    if !is_extent || base.is_empty() {
        return None;
    }
    let descriptor =
        path.with_file_name(if extension.is_empty() { base.into() } else { format!("{base}.{extension}") });
    if !descriptor.metadata().is_ok_and(|meta| meta.is_file()) {
        return None;
    }
    let file = FileSource::open(&descriptor).ok()?;
    let is_descriptor = Peek::new(&file).has(VMDK_DESCRIPTOR, 0);
    let read = Some(()).filter(|()| is_descriptor).and_then(|()| Descriptor::read(&file, 0, file.len()).ok())?;
    read.extents.iter().any(|extent| extent.name == name).then_some(descriptor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn descriptors_tell_extents_and_parents() {
        let d = Descriptor::parse(
            "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n\nRW 8192 FLAT \"/etc/shadow\" 0\n",
        );
        assert_eq!((d.extents.len(), d.names(), d.parent), (1, "/etc/shadow".into(), None));
        assert_eq!(d.cid, Some(0xffff_fffe));
        let d =
            Descriptor::parse("parentCID=1234abcd\nparentFileNameHint=\"base disk.vmdk\"\nRW 8 SPARSE \"a.vmdk\"\n");
        assert_eq!((d.parent.as_deref(), d.parent_cid), (Some("base disk.vmdk"), Some(0x1234_abcd)));
        let d = Descriptor::parse("parentCID=1234abcd\n");
        assert_eq!(d.parent.as_deref(), Some("a parent that it does not name"));
        let split: String = (0..9).map(|n| format!("RW 8 SPARSE \"s{n}.vmdk\"\n")).collect();
        assert_eq!(Descriptor::parse(&split).names(), "s0.vmdk, s1.vmdk, s2.vmdk and 6 more");
    }

    #[test]
    fn extents_that_break_a_rule_are_named() {
        let of = |line: &str| Descriptor::parse(line).extents.pop().unwrap();
        assert!(matches!(of("RW 8 FLAT \"a b.img\" 2").store().unwrap(), Store::Flat { offset: 1024 }));
        assert!(matches!(of("RW 63 ZERO").store().unwrap(), Store::Zeroes));
        for (line, kind) in [
            ("RW 8 VMFSSPARSE \"a\"", ErrorKind::Unsupported),
            ("RW 8 VMFSRDM \"a\"", ErrorKind::Unsupported),
            ("NOACCESS 8 FLAT \"a\"", ErrorKind::Unsupported),
            ("RW 8 FLAT \"a\" x", ErrorKind::Corrupt),
            ("RW 8 FLAT \"a\" 99999999999999999999", ErrorKind::Corrupt),
        ] {
            let e = of(line).store().err().unwrap();
            assert_eq!((e.kind(), e.rule()), (kind, "vmdk.extents"), "{line}");
        }
        for sectors in ["0", "-1", "x", "18446744073709551615"] {
            assert_eq!(of(&format!("RW {sectors} ZERO")).size().err().unwrap().kind(), ErrorKind::Corrupt);
        }
    }

    #[test]
    fn no_name_leaves_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(outside.path().join("secret"), [0; 4096]).unwrap();
        std::fs::write(path("good"), [0; 4096]).unwrap();
        std::os::unix::fs::symlink(outside.path().join("secret"), path("link")).unwrap();
        std::os::unix::fs::symlink("good", path("near")).unwrap();
        std::fs::create_dir(path("sub")).unwrap();
        let files = |name: &str| {
            let text = format!("# Disk DescriptorFile\nRW 8 FLAT \"{name}\" 0\n").into_bytes();
            std::fs::write(path("d.vmdk"), &text).unwrap();
            extent_files(&path("d.vmdk"), &text)
        };
        assert_eq!(files("good").unwrap(), [path("good")]);
        assert_eq!(files("near").unwrap(), [path("near")]);
        for name in ["/etc/passwd", "../secret", "sub/x", "..", ".", "", "sub", "link", "a\\b", "d.vmdk"] {
            let e = files(name).unwrap_err();
            assert_eq!((e.kind(), e.rule()), (ErrorKind::Unsupported, "vmdk.extents"), "{name}: {e}");
        }
        let e = files("gone.vmdk").unwrap_err();
        assert!(
            e.kind() == ErrorKind::InvalidInput && e.to_string().contains("gone.vmdk of the image is missing"),
            "{e}"
        );
    }
}
