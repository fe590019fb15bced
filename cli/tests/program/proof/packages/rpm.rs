//! Databases that rpm made, in each of its ways to keep them.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::*;

const PACKAGES: usize = 12;
const FILES: usize = 60;
/// A database with interior pages, and headers in chains of them, in an ext4 with the files.
const SIZE: &str = "24M";

fn run(program: &str, package: &str, args: &[&str]) -> Vec<u8> {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|e| panic!("{program} of the Debian package {package}: {e}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Packages with files of all sorts, built by rpmbuild.
struct Built {
    tree: Tree,
    packages: Vec<String>,
}

impl Built {
    fn new() -> Self {
        let tree = Tree::new();
        let top = tree.0.path("top");
        let root = text(&tree.0.path("tree"));
        let mut spec = String::from(
            "Name: many\nVersion: 1\nRelease: 1\nSummary: s\nLicense: l\nBuildArch: noarch\n%description\nd\n",
        );
        let mut lists = String::new();
        for n in 0..PACKAGES {
            writeln!(spec, "%package p{n}\nSummary: s\n%description p{n}\nd").unwrap();
            writeln!(lists, "%files p{n}\n/usr/share/p{n}").unwrap();
            for file in 0..FILES {
                let name = format!("usr/share/p{n}/a name that is long, so that headers are, too, {file}");
                tree.file(&name, format!("{n} {file}"));
            }
        }
        tree.file("etc/many.conf", "as installed").file("usr/bin/many", "many").file("usr/lib/odd", "odd");
        tree.file("var/log/many", "a ghost").file("usr/lib/link-to", "x");
        symlink("odd", tree.0.path("tree/usr/lib/link")).unwrap();
        write!(
            spec,
            "%install\ncp -a {root}/. %{{buildroot}}/\n%files\n%config /etc/many.conf\n/usr/bin/many\n%verify(not \
             filedigest) /usr/lib/odd\n%ghost /var/log/many\n/usr/lib/link\n/usr/lib/link-to\n{lists}"
        )
        .unwrap();
        let path = tree.0.path("many.spec");
        fs::write(&path, spec).unwrap();
        let topdir = format!("_topdir {}", text(&top));
        run("rpmbuild", "rpm", &["-bb", "--quiet", "--define", &topdir, &text(&path)]);
        let built = fs::read_dir(top.join("RPMS/noarch")).unwrap();
        let packages: Vec<_> = built.map(|entry| text(&entry.unwrap().path())).collect();
        assert_eq!(packages.len(), PACKAGES + 1);
        tree.remove("var/log/many");
        Self { tree, packages }
    }

    /// Their database, as rpm makes it.
    fn database(&self) -> PathBuf {
        let dir = self.tree.0.path("db");
        fs::create_dir(&dir).unwrap();
        let dbpath = text(&dir);
        let args = ["--dbpath", &dbpath, "--define", "_db_backend sqlite", "--justdb", "--nodeps", "--noscripts", "-i"];
        let packages: Vec<&str> = self.packages.iter().map(String::as_str).collect();
        run("rpm", "rpm", &[&args[..], &packages].concat());
        dir.join("rpmdb.sqlite")
    }

    /// The same as SUSE keeps it, which Debian's rpm does not write.
    fn ndb(headers: &[Vec<u8>]) -> Vec<u8> {
        const PAGE: usize = 4096;
        let int = |n: usize| u32::try_from(n).unwrap().to_le_bytes();
        let mut file = [b"RpmP".as_slice(), &int(0), &int(1), &int(1), &int(headers.len() + 1)].concat();
        file.resize(32, 0);
        // The first slot is free: its package was removed.
        file.extend([b"Slot".as_slice(), &[0; 12]].concat());
        let mut frames = Vec::new();
        for (n, header) in headers.iter().enumerate() {
            let mut frame = [b"BlbS".as_slice(), &int(n + 1), &int(7), &int(header.len())].concat();
            frame.extend(header);
            frame.resize((frame.len() + 12).next_multiple_of(16) - 12, 0);
            let mut sum = adler2::Adler32::new();
            sum.write_slice(&frame);
            frame.extend([sum.checksum().to_le_bytes(), int(header.len()), *b"BlbE"].concat());
            let place = (PAGE + frames.len()) / 16;
            file.extend([*b"Slot", int(n + 1), int(place), int(frame.len() / 16)].concat());
            frames.extend(frame);
        }
        while file.len() < PAGE {
            file.extend([b"Slot".as_slice(), &[0; 12]].concat());
        }
        [file, frames].concat()
    }

    /// The headers of rpm's own database, one in a line, in hex.
    fn headers(database: &Path) -> Vec<Vec<u8>> {
        let script = "import sqlite3, sys\nfor (blob,) in sqlite3.connect(sys.argv[1]).execute('SELECT blob FROM \
                      Packages ORDER BY hnum'):\n print(blob.hex())\n";
        let lines = String::from_utf8(run("python3", "python3", &["-c", script, &text(database)])).unwrap();
        lines.lines().map(|line| hex::decode(line).unwrap()).collect()
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        self.tree.file(&format!("var/lib/rpm/{name}"), bytes);
    }

    /// What it came to: files that match, are another, are gone, were to be changed; and packages.
    fn counts(report: &Value) -> [u64; 5] {
        let database = &report["packages"]["databases"][0];
        assert_eq!(database["kind"], "rpm");
        ["matched", "differing", "missing", "changed_config", "packages"].map(|name| database[name].as_u64().unwrap())
    }

    fn verify(&self, code: i32) -> Value {
        self.tree.verify_in(SIZE, code)
    }
}

fn number(n: usize) -> u64 {
    u64::try_from(n).unwrap()
}

#[test]
fn every_way_of_rpm_to_keep_its_headers_is_read() {
    let built = Built::new();
    let sound = [number(PACKAGES * FILES + 4), 0, 0, 0, number(PACKAGES + 1)];
    let file = built.database();
    let (bytes, headers) = (fs::read(&file).unwrap(), Built::headers(&file));
    built.put("rpmdb.sqlite", &bytes);
    let report = built.verify(0);
    assert_eq!((Built::counts(&report), report["verdict"].as_str()), (sound, Some("restorable")), "{report:#}");

    // What is changed, by what it is.
    built.tree.file("usr/bin/many", "MANY").file("etc/many.conf", "changed").file("usr/lib/odd", "else");
    built.tree.remove("usr/share/p3/a name that is long, so that headers are, too, 7");
    let report = built.verify(0);
    assert_eq!(Built::counts(&report), [sound[0] - 4, 1, 1, 2, sound[4]], "{report:#}");
    assert_eq!(paths(&report, "contents.packages.differs"), ["/usr/bin/many"]);
    assert_eq!(
        paths(&report, "contents.packages.missing"),
        ["/usr/share/p3/a name that is long, so that headers are, too, 7"]
    );
    built.tree.file("usr/bin/many", "many").file("etc/many.conf", "as installed").file("usr/lib/odd", "odd");
    built.tree.file("usr/share/p3/a name that is long, so that headers are, too, 7", "3 7");

    // A change that is in the log alone: a package that was removed.
    let script = "import os, sqlite3, sys\nc = sqlite3.connect(sys.argv[1])\nc.execute('PRAGMA journal_mode=WAL')\n\
                  c.execute('PRAGMA wal_autocheckpoint=0')\nc.execute('DELETE FROM Packages WHERE hnum = 2')\n\
                  c.commit()\nos._exit(0)\n";
    run("python3", "python3", &["-c", script, &text(&file)]);
    let log = fs::read(file.with_file_name("rpmdb.sqlite-wal")).unwrap();
    assert!(log.len() > 4096);
    built.put("rpmdb.sqlite", &fs::read(&file).unwrap());
    built.put("rpmdb.sqlite-wal", &log);
    assert_eq!(Built::counts(&built.verify(0))[4], sound[4] - 1, "the log's last state counts");
    built.put("rpmdb.sqlite-wal", &log[..log.len() - 1]);
    assert_eq!(Built::counts(&built.verify(0))[4], sound[4], "a change that is not whole was never made");
    built.tree.remove("var/lib/rpm/rpmdb.sqlite-wal");
    built.tree.remove("var/lib/rpm/rpmdb.sqlite");

    built.put("Packages.db", &Built::ndb(&headers));
    assert_eq!(Built::counts(&built.verify(0)), sound, "ndb");
    built.tree.remove("var/lib/rpm/Packages.db");

    // rpm of today does not write these any more: what it wrote is put into one by Berkeley DB itself.
    let mut dump = String::from("VERSION=3\nformat=bytevalue\ntype=hash\nHEADER=END\n");
    for (n, header) in headers.iter().enumerate() {
        writeln!(dump, " {n:08x}\n {}", hex::encode(header)).unwrap();
    }
    dump += "DATA=END\n";
    let path = built.tree.0.path("dump");
    fs::write(&path, dump).unwrap();
    let dump = path;
    for order in ["1234", "4321"] {
        let path = built.tree.0.path(&format!("tree/var/lib/rpm/Packages-{order}"));
        let order = format!("db_lorder={order}");
        run("db5.3_load", "db5.3-util", &["-f", &text(&dump), "-c", &order, &text(&path)]);
        fs::rename(&path, path.with_file_name("Packages")).unwrap();
        assert_eq!(Built::counts(&built.verify(0)), sound, "Berkeley DB, {order}");
    }
}

#[test]
fn a_database_that_is_damaged_says_so() {
    let built = Built::new();
    let file = built.database();
    let sqlite = fs::read(&file).unwrap();
    let ndb = Built::ndb(&Built::headers(&file));
    for (name, bytes) in [("rpmdb.sqlite", &sqlite), ("Packages.db", &ndb)] {
        // The end, which a table or a header lies in; and the kind of file.
        for changed in [bytes[..bytes.len() / 2].to_vec(), [b"other", &bytes[5..]].concat()] {
            built.put(name, &changed);
            let report = built.verify(4);
            assert_eq!(paths(&report, "contents.packages.unread"), [format!("/var/lib/rpm/{name}")], "{report:#}");
        }
        // Bytes of its structures, in turn.
        for n in 0..12 {
            let mut changed = bytes.clone();
            let at = (n * 977) % (changed.len() / 2);
            changed[at..at + 8].fill(if n % 2 == 0 { 0xff } else { 0 });
            built.put(name, &changed);
            let run = built.tree.run_in(SIZE);
            assert!(matches!(run.code, Some(0 | 4)), "{name}, {n}: {}", run.stderr);
        }
        built.tree.remove(&format!("var/lib/rpm/{name}"));
    }
}
