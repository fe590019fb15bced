//! Walks and the wire, over file systems that say anything.

use std::collections::BTreeMap;
use std::io::{Write, pipe};
use std::thread;

use super::walk::{Descend, Follow, Visitor, list, read, resolve, walk};
use super::wire::{Remote, has_ended, serve};
use super::*;
use crate::ErrorKind;
use crate::limits::{READER_DEPTH_MAX, READER_FILE_MAX, READER_LINKS_MAX};

/// What is at a number.
#[derive(Clone)]
enum Node {
    File(Vec<u8>),
    /// It says that it has so many bytes.
    Claims(u64),
    Link(&'static [u8]),
    Dir(Vec<(&'static [u8], u64)>),
}

/// A file system of numbered nodes, any of which may be in any directory.
#[derive(Clone)]
struct Fake {
    nodes: BTreeMap<u64, Node>,
    /// Directories say which they are, only likely, or not at all.
    ids: Option<bool>,
    most: Option<u64>,
}

impl Fake {
    fn new(nodes: impl IntoIterator<Item = (u64, Node)>) -> Self {
        Self { nodes: nodes.into_iter().collect(), ids: Some(false), most: None }
    }

    fn at(&self, path: &[u8]) -> Result<(u64, &Node)> {
        let mut at = 0;
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            let Some(Node::Dir(entries)) = self.nodes.get(&at) else { return Err(not_a("directory")) };
            at = entries.iter().find(|(there, _)| *there == name).ok_or_else(absent)?.1;
        }
        Ok((at, self.nodes.get(&at).ok_or_else(absent)?))
    }

    fn describe(&self, at: u64) -> std::result::Result<Metadata, String> {
        let node = self.nodes.get(&at).ok_or("it points nowhere")?;
        let (kind, size) = match node {
            Node::File(bytes) => (FileKind::File, bytes.len().try_into().unwrap()),
            Node::Claims(size) => (FileKind::File, *size),
            Node::Link(target) => (FileKind::Link, target.len()),
            Node::Dir(_) => (FileKind::Directory, 0),
        };
        let is_likely = self.ids == Some(true);
        // Nodes of one last digit look alike.
        let id = if is_likely { at % 10 } else { at };
        Ok(Metadata { id: self.ids.map(|_| id), is_likely, ..Metadata::new(kind, size) })
    }
}

impl FileSystem for Fake {
    fn metadata(&mut self, path: &[u8]) -> Result<Metadata> {
        let (at, _) = self.at(path)?;
        self.describe(at).map_err(Error::invalid)
    }

    fn read_dir(&mut self, path: &[u8], take: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        let (_, Node::Dir(entries)) = self.at(path)? else { return Err(not_a("directory")) };
        entries.iter().try_for_each(|(name, at)| take(Entry { name: name.to_vec(), metadata: self.describe(*at) }))
    }

    fn read_at(&mut self, path: &[u8], offset: u64, buf: &mut [u8]) -> Result<usize> {
        let (_, Node::File(bytes)) = self.at(path)? else { return Ok(0) };
        let rest = bytes.get(offset.try_into().unwrap()..).unwrap_or_default();
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn read_link(&mut self, path: &[u8]) -> Result<Vec<u8>> {
        let (_, Node::Link(target)) = self.at(path)? else { return Err(not_a("link")) };
        Ok(target.to_vec())
    }

    fn directories_max(&mut self) -> Option<u64> {
        self.most
    }
}

#[derive(Default)]
struct Seen {
    paths: Vec<String>,
    faults: Vec<String>,
    left: usize,
}

impl Visitor for Seen {
    fn visit(&mut self, _: &mut dyn FileSystem, path: &[u8], _: &Metadata) -> Result<Descend> {
        self.paths.push(String::from_utf8_lossy(path).into_owned());
        Ok(Descend::Into)
    }

    fn leave(&mut self, _: &[u8]) -> Result<()> {
        self.left += 1;
        Ok(())
    }

    fn fault(&mut self, path: &[u8], e: Error) -> Result<()> {
        self.faults.push(format!("{}: {e}", String::from_utf8_lossy(path)));
        Ok(())
    }
}

fn walked(fake: &mut Fake) -> (Seen, Result<()>) {
    let mut seen = Seen::default();
    let metadata = fake.metadata(b"/").unwrap();
    let done = walk(fake, b"/", &metadata, &mut seen);
    (seen, done)
}

fn tree() -> Fake {
    Fake::new([
        (0, Node::Dir(vec![(b"etc", 1), (b"link", 4), (b"bin", 5), (b"out", 6), (b"round", 7)])),
        (1, Node::Dir(vec![(b"fstab", 2), (b"deep", 3)])),
        (2, Node::File(b"the file".to_vec())),
        (3, Node::Dir(vec![(b"up", 8)])),
        (4, Node::Link(b"etc/fstab")),
        (5, Node::Link(b"/etc/deep")),
        (6, Node::Link(b"../../../../etc/fstab")),
        (7, Node::Link(b"round")),
        (8, Node::Link(b"../../link")),
    ])
}

#[test]
fn links_are_followed_and_never_lead_out() {
    let mut fake = tree();
    let mut at =
        |path: &[u8], follow| resolve(&mut fake, path, follow).map(|(path, _)| String::from_utf8(path).unwrap());
    assert_eq!(at(b"/link", Follow::Last).unwrap(), "/etc/fstab");
    assert_eq!(at(b"/link", Follow::NotLast).unwrap(), "/link");
    assert_eq!(at(b"/bin/up", Follow::Last).unwrap(), "/etc/fstab");
    assert_eq!(at(b"/out", Follow::Last).unwrap(), "/etc/fstab");
    assert_eq!(at(b"//etc/./deep/..//fstab", Follow::Last).unwrap(), "/etc/fstab");
    assert_eq!(at(b"/../..", Follow::Last).unwrap(), "/");
    assert!(is_absent(&at(b"/etc/none", Follow::Last).unwrap_err()));
    let e = at(b"/round", Follow::Last).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::LimitExceeded);
    assert!(e.to_string().contains(&READER_LINKS_MAX.to_string()), "{e}");
    assert!(at(b"/etc/fstab/x", Follow::Last).is_err());
    let long = [b"/".as_slice(), &[b'n'; 300]].concat();
    assert!(is_absent(&at(&long, Follow::Last).unwrap_err()));
}

#[test]
fn a_walk_goes_through_all_of_it_in_order() {
    let (seen, done) = walked(&mut tree());
    done.unwrap();
    let wanted = ["/", "/bin", "/etc", "/etc/deep", "/etc/deep/up", "/etc/fstab", "/link", "/out", "/round"];
    assert_eq!(seen.paths, wanted);
    assert_eq!((seen.faults.len(), seen.left), (0, 3));
}

#[test]
fn names_that_no_file_can_have_are_faults_and_the_others_go_on() {
    let bad: [&'static [u8]; 6] = [b"../evil", b"a/b", b"", b"..", b".", b"nul\0"];
    let mut entries: Vec<(&'static [u8], u64)> = bad.iter().map(|name| (*name, 1)).collect();
    entries.extend([(b"good".as_slice(), 1), (b"good", 1), (b"lost", 9)]);
    let mut fake = Fake::new([(0, Node::Dir(entries)), (1, Node::File(vec![1]))]);
    let (seen, done) = walked(&mut fake);
    done.unwrap();
    assert_eq!(seen.paths, ["/", "/good"]);
    assert_eq!(seen.faults.len(), bad.len() + 2, "{:?}", seen.faults);
    assert!(seen.faults.iter().any(|fault| fault.contains("twice")), "{:?}", seen.faults);
    assert!(seen.faults.iter().any(|fault| fault.contains("points nowhere")), "{:?}", seen.faults);
    let (entries, faults) = list(&mut fake, b"/").unwrap();
    assert_eq!((entries.len(), faults.len()), (2, bad.len() + 1));
}

#[test]
fn a_walk_ends_whatever_leads_back() {
    // Itself in itself, three times over, and two that are in each other.
    let nodes = || {
        Fake::new([
            (0, Node::Dir(vec![(b"a", 0), (b"b", 1), (b"c", 0)])),
            (1, Node::Dir(vec![(b"d", 0), (b"e", 2)])),
            (2, Node::Dir(vec![(b"f", 1), (b"g", 3)])),
            (3, Node::File(vec![1])),
        ])
    };
    let (seen, done) = walked(&mut nodes());
    done.unwrap();
    assert_eq!(seen.paths.iter().filter(|path| path.ends_with("/g")).count(), 1);
    assert_eq!(seen.faults.len(), 4, "{:?}", seen.faults);
    // With numbers that are likely only, it is gone into a few times.
    let (seen, done) = walked(&mut Fake { ids: Some(true), most: Some(5000), ..nodes() });
    assert!(seen.paths.len() < 20_000, "{}", seen.paths.len());
    assert!(done.is_err() || !seen.faults.is_empty());
    // With none, no more directories are gone into than there are, and none deeper than is allowed.
    let (seen, done) = walked(&mut Fake { ids: None, most: Some(5000), ..nodes() });
    assert_eq!(done.unwrap_err().kind(), ErrorKind::Corrupt);
    assert!(seen.paths.len() < 20_000, "{}", seen.paths.len());
    let one = [(0, Node::Dir(vec![(b"a".as_slice(), 0)]))];
    let (seen, done) = walked(&mut Fake { ids: None, ..Fake::new(one) });
    done.unwrap();
    assert_eq!(seen.paths.len(), READER_DEPTH_MAX + 1);
    assert!(seen.faults[0].contains("reader.depth"), "{:?}", seen.faults);
}

#[test]
fn directories_that_look_alike_are_no_circle() {
    // As in an image that was made all at once: owner, size and time are the same.
    let dir = |n: u64| (n, Node::Dir(vec![([b"a".as_slice(), b"b"][usize::from(n.is_multiple_of(20))], n + 10)]));
    let nodes = (0..8).map(|n| dir(n * 10)).chain([(80, Node::File(vec![1]))]);
    let (seen, done) = walked(&mut Fake { ids: Some(true), ..Fake::new(nodes) });
    done.unwrap();
    assert_eq!((seen.paths.len(), seen.faults.len()), (9, 0), "{:?}", seen.faults);
}

#[test]
fn a_file_has_as_many_bytes_as_it_says_or_is_an_error() {
    let long = vec![7; (1 << 20) + 5];
    let nodes = [(b"long".as_slice(), 1), (b"short", 2), (b"endless", 3)];
    let nodes = [
        (0, Node::Dir(nodes.to_vec())),
        (1, Node::File(long.clone())),
        (2, Node::Claims(10)),
        (3, Node::Claims(READER_FILE_MAX + 1)),
    ];
    let mut fake = Fake::new(nodes);
    let mut of = |path: &[u8]| {
        let metadata = fake.metadata(path).unwrap();
        let mut bytes: Vec<u8> = Vec::new();
        read(&mut fake, path, &metadata, &mut |piece| {
            bytes.extend(piece);
            Ok(())
        })
        .map(|_| bytes)
    };
    assert_eq!(of(b"/long").unwrap(), long);
    assert_eq!(of(b"/short").unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(of(b"/endless").unwrap_err().kind(), ErrorKind::LimitExceeded);
    assert!(of(b"/").is_err());
}

/// A parent whose child says `bytes`.
fn told(bytes: Vec<u8>) -> Result<Remote> {
    let ((mut requests, to_child), (from_child, mut says)) = (pipe().unwrap(), pipe().unwrap());
    thread::spawn(move || {
        let _ = says.write_all(&bytes);
        drop(says);
        let _ = std::io::copy(&mut requests, &mut std::io::sink());
    });
    Remote::open(from_child, to_child, Arc::new(vec![0u8; 4096]), Kind::Ext4)
}

fn frame(tag: u8, bytes: &[u8]) -> Vec<u8> {
    let len = u32::try_from(bytes.len()).unwrap().to_le_bytes();
    [&[tag], &len[..], bytes].concat()
}

#[test]
fn a_child_that_says_anything_is_an_error() {
    let want = |at: u64, len: u32| frame(b'R', &[&at.to_le_bytes()[..], &len.to_le_bytes()[..]].concat());
    let huge = [&[b'A'][..], &u32::MAX.to_le_bytes()].concat();
    let cases: [(&str, Vec<u8>); 8] = [
        ("nothing", Vec::new()),
        ("half a frame", vec![b'A', 9]),
        ("a length beyond all", huge),
        ("no JSON", frame(b'A', b"no")),
        ("another answer", frame(b'A', b"\"End\"")),
        ("no frame of a child", frame(b'Q', b"{}")),
        ("a read of more than is given", want(0, u32::MAX)),
        ("half a read", frame(b'R', &[0; 7])),
    ];
    for (what, bytes) in cases {
        let e = told(bytes).err().unwrap_or_else(|| panic!("{what}"));
        assert!(has_ended(&e) && e.kind() == ErrorKind::Corrupt, "{what}: {e}");
    }
    // A read behind the end is answered, and one that is followed by nothing is waited for no longer than the pipe.
    let e = told([want(0, 4096), want(4000, 4096), want(u64::MAX, 1)].concat()).err().unwrap();
    assert!(has_ended(&e), "{e}");
    // Its own errors come with their kinds, and without what a terminal would obey.
    let said = br#"{"Failed":{"kind":2,"rule":"a\u001b[2Jb","message":"n\u001b[2Jw","is_absent":false}}"#;
    let e = told(frame(b'A', said)).err().unwrap();
    assert_eq!(e.kind(), ErrorKind::Unsupported);
    assert!(!has_ended(&e) && !e.to_string().contains('\u{1b}'), "{e:?}");
}

#[test]
fn a_parent_that_says_anything_ends_the_child() {
    for bytes in [frame(b'A', b"{}"), frame(b'Q', b"{}"), frame(b'Q', br#"{"Metadata":{"path":[47]}}"#), vec![b'Q', 1]]
    {
        let out = Box::leak(Box::new(pipe().unwrap()));
        let said: &'static [u8] = bytes.leak();
        assert!(serve(said, out.1.try_clone().unwrap()).is_err());
    }
    assert!(serve(std::io::empty(), std::io::sink()).is_ok());
}

#[test]
fn what_is_not_read_is_named() {
    let disk: Arc<dyn ReadAt> = Arc::new(vec![0u8; 4096]);
    for (kind, word) in
        [(Kind::F2fs, "F2FS"), (Kind::Swap, "swap"), (Kind::Unknown, "nothing"), (Kind::Other("a zip"), "a zip")]
    {
        let e = open(kind, Arc::clone(&disk)).err().unwrap();
        assert_eq!(e.kind(), ErrorKind::Unsupported);
        assert!(e.to_string().contains(word) && !is_read(kind), "{e}");
    }
    for kind in [Kind::Ext4, Kind::Xfs, Kind::Btrfs, Kind::Fat32, Kind::Ntfs] {
        assert!(open(kind, Arc::clone(&disk)).is_err(), "{kind}: zeroes are no file system");
        assert!(open(kind, Arc::new(vec![0xffu8; 1 << 20])).is_err(), "{kind}");
        assert!(open(kind, Arc::new(Vec::new())).is_err(), "{kind}");
    }
}

#[test]
fn paths_are_what_the_readers_can_take() {
    assert_eq!(join(b"/", b"a").unwrap(), b"/a");
    assert_eq!(join(b"/a", b"b").unwrap(), b"/a/b");
    assert!(join(&[b'/'; 4096], b"b").is_err() && join(b"/", b"..").is_err());
    for bad in [b"a".as_slice(), b"", b"/a/", b"//", b"/a/../b", b"/a\0"] {
        assert!(check_path(bad).is_err(), "{bad:?}");
    }
    assert!(check_path(b"/").is_ok() && check_path(b"/a b/\xff").is_ok());
}
