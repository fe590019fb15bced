//! Real clients against the server: each program's own idea of the protocol. A program that is missing fails its test,
//! which names the Debian package.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::*;
use unluks::io::FileSource;
use unluks::nbd::{Export, Listener, Service};

/// A raw image of 20 MiB and some bytes, none of them zero by chance for long.
fn image(dir: &Path) -> std::path::PathBuf {
    let path = dir.join("disk.img");
    std::fs::write(&path, known(8 << 20, (20 << 20) + 1536)).unwrap();
    path
}

fn serve(image: &Path) -> Running {
    let export = Export::new("disk", None, Arc::new(FileSource::open(image).unwrap())).unwrap();
    start_service(Service::new(export))
}

#[test]
fn nbdinfo_sees_what_is_offered() {
    let s = start();
    let json = peer_ok("libnbd-bin", &mut command(["nbdinfo", "--json", &s.uri]));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["protocol"], "newstyle-fixed");
    let export = &json["exports"][0];
    assert_eq!((&export["export-name"], &export["export-size"]), (&"disk".into(), &SIZE.into()));
    assert_eq!(export["description"], "the plaintext of a test");
    let can = ["is_read_only", "can_multi_conn", "can_flush", "can_cache", "can_df"];
    let cannot = ["can_fua", "can_trim", "can_zero", "is_rotational", "can_fast_zero"];
    assert!(can.iter().all(|key| export[key] == true), "{export}");
    assert!(cannot.iter().all(|key| export[key] == false), "{export}");
    let sizes = ["block_size_minimum", "block_size_preferred", "block_size_maximum"].map(|key| export[key].clone());
    assert_eq!(sizes, [1, 4096, 32 << 20]);
    let list = peer_ok("libnbd-bin", &mut command(["nbdinfo", "--list", &s.uri]));
    assert!(list.contains("export=\"disk\""), "{list}");
    let map = peer_ok("libnbd-bin", &mut command(["nbdinfo", "--map", "--json", &s.uri]));
    let map: serde_json::Value = serde_json::from_str(&map).unwrap();
    let types: Vec<_> = map.as_array().unwrap().iter().map(|e| e["type"].as_u64().unwrap()).collect();
    assert_eq!(types, [0, 3, 0]);
    for (what, yes) in [("multi-conn", true), ("cache", true), ("df", true), ("write", false), ("trim", false)] {
        let out = peer("libnbd-bin", &mut command(["nbdinfo", "--can", what, &s.uri]));
        assert_eq!(out.status.success(), yes, "{what}");
    }
}

#[test]
fn nbdcopy_copies_the_whole_disk() {
    let dir = tempfile::tempdir().unwrap();
    let (image, copy) = (image(dir.path()), dir.path().join("copy"));
    let s = serve(&image);
    for extra in
        [&[][..], &["--connections=1", "--requests=1"], &["--connections=8"], &["--request-size=4096"], &["-S", "0"]]
    {
        let words = [&["nbdcopy"], extra, &[&s.uri, copy.to_str().unwrap()]].concat();
        peer_ok("libnbd-bin", &mut command(words));
        assert!(std::fs::read(&image).unwrap() == std::fs::read(&copy).unwrap(), "{extra:?}");
    }
}

#[test]
fn qemu_reads_compares_and_maps_over_unix_and_tcp() {
    let dir = tempfile::tempdir().unwrap();
    let (image, copy) = (image(dir.path()), dir.path().join("copy"));
    let open = || Arc::new(FileSource::open(&image).unwrap());
    let tcp = |address: &str| {
        let listener = Listener::tcp(address.parse().unwrap()).unwrap();
        start_on(Service::new(Export::new("disk", None, open()).unwrap()), listener)
    };
    for s in [serve(&image), tcp("127.0.0.1:0"), tcp("[::1]:0")] {
        let info = peer_ok("qemu-utils", &mut command(["qemu-img", "info", "--output=json", &s.uri]));
        assert!(info.contains(&format!("\"virtual-size\": {}", (20 << 20) + 1536)), "{info}");
        let plain = image.to_str().unwrap();
        peer_ok("qemu-utils", &mut command(["qemu-img", "compare", "-f", "raw", "-F", "raw", &s.uri, plain]));
        let convert =
            ["qemu-img", "convert", "-f", "raw", "-O", "raw", "-m", "8", "-W", &s.uri, copy.to_str().unwrap()];
        peer_ok("qemu-utils", &mut command(convert));
        assert!(std::fs::read(&image).unwrap() == std::fs::read(&copy).unwrap());
        let map = peer_ok("qemu-utils", &mut command(["qemu-img", "map", "-f", "raw", "--output=json", &s.uri]));
        assert!(map.contains("\"data\": true") && !map.contains("\"zero\": true"), "{map}");
        let reads =
            ["qemu-io", "-r", "-f", "raw", "-c", "aio_read 0 2M", "-c", "aio_read 5M 64k", "-c", "aio_flush", &s.uri];
        let out = peer_ok("qemu-utils", &mut command(reads));
        assert!(!out.contains("failed"), "{out}");
        let write = peer("qemu-utils", &mut command(["qemu-io", "-f", "raw", "-c", "write 0 512", &s.uri]));
        assert!(!write.status.success(), "the export is read-only");
    }
}

/// A server of another project in front of this one, at a socket of its own.
struct Front(Child);

impl Drop for Front {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn front(package: &str, socket: &Path, words: &[&str]) -> (Front, String) {
    let child = command(words.iter().copied()).stdin(Stdio::null()).spawn();
    let child = Front(child.unwrap_or_else(|e| panic!("{} does not run ({e}): install {package}", words[0])));
    wait_for(|| UnixStream::connect(socket).is_ok(), "the other server");
    (child, format!("nbd+unix:///?socket={}", socket.display()))
}

fn wait_for(what: impl Fn() -> bool, name: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !what() {
        assert!(Instant::now() < deadline, "{name} does not come up");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn nbdkit_passes_it_on_and_makes_it_writable() {
    let dir = tempfile::tempdir().unwrap();
    let (image, socket) = (image(dir.path()), dir.path().join("nbdkit"));
    let s = serve(&image);
    let (path, uri) = (socket.to_str().unwrap(), format!("uri={}", s.uri));
    let plain = image.to_str().unwrap();
    let compare =
        |uri: &str| peer("qemu-utils", &mut command(["qemu-img", "compare", "-f", "raw", "-F", "raw", uri, plain]));
    {
        let (_kit, front) = front("nbdkit", &socket, &["nbdkit", "-f", "-U", path, "nbd", &uri]);
        assert!(compare(&front).status.success());
    }
    let _ = std::fs::remove_file(&socket);
    let (_kit, front) = front("nbdkit", &socket, &["nbdkit", "-f", "-U", path, "--filter=cow", "nbd", &uri]);
    assert!(compare(&front).status.success());
    peer_ok("qemu-utils", &mut command(["qemu-io", "-f", "raw", "-c", "write -P 1 1000 5000", &front]));
    assert!(!compare(&front).status.success(), "the overlay changed");
    assert!(compare(&s.uri).status.success(), "the export did not");
}

#[test]
fn a_qcow2_overlay_works() {
    let dir = tempfile::tempdir().unwrap();
    let (image, overlay) = (image(dir.path()), dir.path().join("overlay.qcow2"));
    let s = serve(&image);
    let (path, plain) = (overlay.to_str().unwrap(), image.to_str().unwrap());
    peer_ok("qemu-utils", &mut command(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", &s.uri, path]));
    peer_ok("qemu-utils", &mut command(["qemu-img", "compare", "-f", "qcow2", "-F", "raw", path, plain]));
    peer_ok("qemu-utils", &mut command(["qemu-io", "-f", "qcow2", "-c", "write -P 9 0 64k", path]));
}

#[test]
fn nbd_client_lists_it() {
    let listener = Listener::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = listener.address().unwrap().port().to_string();
    let _s = start_on(Service::new(export()), listener);
    let mut client = command(["nbd-client", "-l", "127.0.0.1", &port]);
    // Debian keeps it where only root's path looks.
    client.env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()));
    let list = peer_ok("nbd-client", &mut client);
    assert!(list.contains("disk"), "{list}");
}

#[test]
fn the_python_binding_of_libnbd() {
    let s = start();
    let script = r#"
import nbd, sys
h = nbd.NBD()
h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
h.set_opt_mode(True)
h.connect_uri(sys.argv[1])
names = []
assert h.opt_list(lambda name, text: names.append((name, text))) == 1
assert names == [("disk", "the plaintext of a test")], names
contexts = []
h.opt_list_meta_context(lambda name: contexts.append(name))
assert contexts == ["base:allocation"], contexts
h.set_export_name("other")
try:
    h.opt_info()
    sys.exit("an unknown export was found")
except nbd.Error:
    pass
h.set_export_name("disk")
h.opt_info()
size = h.get_size()
h.opt_go()
assert h.get_size() == size == 40 << 20
assert h.is_read_only() and h.can_multi_conn() and h.can_df() and h.can_cache() and h.can_flush()
assert not (h.can_fua() or h.can_trim() or h.can_zero())
# What the binding would refuse itself, so that the server has to.
h.set_strict_mode(0)
def refused(what, errno):
    try:
        what()
    except nbd.Error as e:
        assert e.errno == errno, (e.errno, errno)
        return
    sys.exit("not refused: " + errno)
refused(lambda: h.pwrite(b"x" * 512, 0), "EPERM")
refused(lambda: h.trim(512, 0), "EPERM")
refused(lambda: h.zero(512, 0), "EPERM")
refused(lambda: h.pread(512, size), "EINVAL")
refused(lambda: h.pread(512, size - 1), "EINVAL")
refused(lambda: h.pread(512, (3 << 20) + 300000), "EIO")
refused(lambda: h.pread((32 << 20) + 1, 0), "EOVERFLOW")
assert len(h.pread(0, 0)) == 0
assert h.pread(1000, (1 << 20)) == bytearray(1000)
h.cache(1 << 20, 0)
h.flush()
chunks = []
data = h.pread_structured(4 << 20, 8 << 20, lambda b, o, s, e: chunks.append((o, len(b), s)))
assert sum(c[1] for c in chunks) == 4 << 20 and all(c[2] == nbd.READ_DATA for c in chunks)
one = []
assert data == h.pread_structured(4 << 20, 8 << 20, lambda b, o, s, e: one.append(o), nbd.CMD_FLAG_DF)
assert one == [8 << 20], one
entries = []
h.block_status(size, 0, lambda m, o, e, err: entries.extend(e))
assert entries == [1 << 20, 0, 1 << 20, 3, 38 << 20, 0], entries
h.shutdown()
"#;
    let mut python = command(["/usr/bin/python3", "-c", script, &s.uri]);
    let out = peer("python3", &mut python);
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(!errors.contains("No module named"), "install the Debian package python3-libnbd");
    assert!(out.status.success(), "{errors}");
    s.check_alive();
}

#[test]
fn nbdfuse_mounts_it() {
    assert!(
        Path::new("/dev/fuse").exists(),
        "there is no /dev/fuse: load the module fuse, or give it to the container"
    );
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path());
    let s = serve(&image);
    let mount = dir.path().join("mount");
    std::fs::create_dir(&mount).unwrap();
    let file = mount.join("disk");
    let child = command(["nbdfuse", "-r", file.to_str().unwrap(), &s.uri]).spawn();
    let mut child = child.unwrap_or_else(|e| panic!("nbdfuse does not run ({e}): install nbdfuse and fuse3"));
    wait_for(|| file.exists(), "nbdfuse (packages nbdfuse and fuse3)");
    let same = std::fs::read(&file).unwrap() == std::fs::read(&image).unwrap();
    // It unmounts on this signal.
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    child.wait().unwrap();
    assert!(same);
}

#[test]
fn the_nbd_crate_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path());
    let s = serve(&image);
    let mut stream = UnixStream::connect(&s.path).unwrap();
    let export = nbd::client::handshake(&mut stream, b"disk").unwrap();
    assert_eq!((export.size, export.readonly), ((20 << 20) + 1536, true));
    let mut client = nbd::client::NbdClient::new(&mut stream, &export);
    let plain = File::open(&image).unwrap();
    for (at, len) in [(0, 512), (1_000_001, 70_000), (20 << 20, 1536), (4096, 1 << 20)] {
        let (mut got, mut expected) = (vec![0; len], vec![0; len]);
        client.seek(SeekFrom::Start(at)).unwrap();
        client.read_exact(&mut got).unwrap();
        plain.read_exact_at(&mut expected, at).unwrap();
        assert!(got == expected, "{len} bytes from {at} on");
    }
    client.seek(SeekFrom::Start(0)).unwrap();
    let refused = client.write_all(&[1; 512]).and_then(|()| client.flush());
    assert!(refused.is_err());
    s.check_alive_on(&image);
}

impl Running {
    /// Proves that the server still serves the bytes of `image`.
    fn check_alive_on(&self, image: &Path) {
        let mut c = self.structured();
        c.request(0, READ, 1, 777, 1000);
        assert_eq!(c.read_reply(1, 777, 1000).unwrap(), std::fs::read(image).unwrap()[777..1777]);
    }
}
