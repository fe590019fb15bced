//! `unluks verify --files` and `--packages`: files in an image, and the hashes that they must have.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::common::{Golden, Run, root, sha256, text, unluks};

fn verify(image: &Path, key: &Path, more: &[&str]) -> Run {
    let (image, key) = (text(image), text(key));
    unluks(&[&["verify", &image, "--key-file", &key], more].concat())
}

/// The report, which the schema has nothing against.
fn report(run: &Run) -> Value {
    let report: Value = serde_json::from_slice(&run.stdout).unwrap_or_else(|e| panic!("{e}: {}", run.stderr));
    let schema = fs::read(root().join("docs/verify.schema.json")).unwrap();
    let schema = jsonschema::validator_for(&serde_json::from_slice(&schema).unwrap()).unwrap();
    let faults: Vec<String> = schema.iter_errors(&report).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(faults.is_empty(), "{faults:?}");
    report
}

/// The findings of a code, by the path of their file.
fn paths<'a>(report: &'a Value, code: &str) -> Vec<&'a str> {
    let findings = report["findings"].as_array().unwrap();
    findings.iter().filter(|f| f["code"] == code).map(|f| f["path"].as_str().unwrap()).collect()
}

#[test]
fn a_manifest_proves_the_files_that_it_names() {
    let golden = Golden::unpack("l2-ext4");
    let manifest = golden.path("sums");
    let named = text(&manifest);
    let (image, key) = (text(&golden.image), text(&golden.key));
    let sums = unluks(&["hash", &image, "/", "--key-file", &key]).stdout;
    fs::write(&manifest, &sums).unwrap();
    let page = text(&golden.path("page.html"));
    let ask = |more: &[&str]| verify(&golden.image, &golden.key, &[&["--files", &named, "--json"], more].concat());

    let run = ask(&["--report", &page]);
    let sound = report(&run);
    assert_eq!((run.code, sound["verdict"].as_str()), (Some(0), Some("restorable")), "{}", run.stderr);
    let files = &sound["files"];
    let counts = ["lines", "matched", "matched_bytes", "differing", "missing", "unread", "not_listed"];
    let of = |files: &Value| counts.map(|name| files[name].as_u64().unwrap());
    assert_eq!(of(files), [1, 1, 6, 0, 0, 0, 0]);
    assert_eq!(files["sha256"], sha256(&sums));
    assert_eq!(sound["coverage"]["listed_bytes"], 6);
    assert_eq!(sound["coverage"]["file_data_proven"], true, "the manifest names all of them");
    let page = fs::read_to_string(page).unwrap();
    assert!(page.contains("Files that a hash was known of") && page.contains("1 file, 6 bytes"));

    // Other programs' lines of the same file, and what is not so.
    let right = text(&golden.path("hello"));
    assert_eq!(unluks(&["cp", &image, "/hello.txt", &right, "--key-file", &key]).code, Some(0));
    let sum = sha256(&fs::read(&right).unwrap());
    let wrong = format!("{}{}", if sum.starts_with('0') { '1' } else { '0' }, &sum[1..]);
    let lines = format!(
        "# by hand\nSHA256 (./hello.txt) = {sum}\n{wrong} */hello.txt\n{sum}  lost+found\n\\{sum}  a\\nb\n{sum}  \
         hello.txt/x\n"
    );
    fs::write(&manifest, lines).unwrap();
    let run = ask(&[]);
    let bad = report(&run);
    assert_eq!((run.code, bad["verdict"].as_str()), (Some(4), Some("not-restorable")), "{}", run.stderr);
    assert_eq!(of(&bad["files"]), [5, 1, 6, 1, 3, 0, 0], "{bad:#}");
    assert_eq!(paths(&bad, "contents.files.differs"), ["/hello.txt"]);
    assert_eq!(paths(&bad, "contents.files.missing"), ["/lost+found", "/a\nb", "/hello.txt/x"]);
    let differs = bad["findings"].as_array().unwrap().iter().find(|f| f["code"] == "contents.files.differs").unwrap();
    assert_eq!((differs["found"].as_str(), differs["expected"].as_str()), (Some(&*sum), Some(&*wrong)));

    // What is no manifest is none of the image's faults, and a manifest is no output.
    fs::write(&manifest, "hello\n").unwrap();
    let run = ask(&[]);
    assert_eq!(run.refusal_fault(&[2]), None, "{}", run.stderr);
    assert!(run.stderr.contains("line 1"), "{}", run.stderr);
    fs::write(&manifest, &sums).unwrap();
    let over = verify(&golden.image, &golden.key, &["--files", &named, "--report", &named, "--force"]);
    assert!(over.code == Some(2) && over.stderr.contains("the manifest"), "{}", over.stderr);
}

#[test]
fn what_a_manifest_does_not_name_is_counted() {
    let golden = Golden::unpack("l2-ext4");
    let manifest = golden.path("sums");
    fs::write(&manifest, format!("{}  nothing\n", "a".repeat(32))).unwrap();
    let run = verify(&golden.image, &golden.key, &["--files", &text(&manifest), "--json"]);
    let report = report(&run);
    assert_eq!((run.code, report["files"]["not_listed"].as_u64()), (Some(4), Some(1)), "{report:#}");
    assert_eq!(report["coverage"]["file_data_proven"], false);
    let said = report["coverage"]["statements"].to_string();
    assert!(said.contains("it says nothing of 1 regular file, of 6 bytes"), "{said}");
}

#[cfg(feature = "peer-tests")]
mod packages {
    use std::io::Write;
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use base64::Engine;
    use digest::Digest;

    use super::*;

    mod rpm;

    const DATA: usize = 1032 * 512;

    /// A tree of files that becomes an ext4 in a container with the null cipher: what is inside is what it holds.
    struct Tree(Golden);

    impl Tree {
        fn new() -> Self {
            let tree = Self(Golden::unpack("l1-null"));
            fs::create_dir(tree.0.path("tree")).unwrap();
            tree
        }

        fn file(&self, path: &str, bytes: impl AsRef<[u8]>) -> &Self {
            let path = self.0.path("tree").join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
            self
        }

        fn remove(&self, path: &str) {
            fs::remove_file(self.0.path("tree").join(path)).unwrap();
        }

        /// What `--packages` says of it.
        fn verify(&self, code: i32) -> Value {
            self.verify_in("4M", code)
        }

        /// The same in an ext4 of another size.
        fn verify_in(&self, size: &str, code: i32) -> Value {
            let run = self.run_in(size);
            assert_eq!(run.code, Some(code), "{}{}", run.stderr, String::from_utf8_lossy(&run.stdout));
            report(&run)
        }

        fn run_in(&self, size: &str) -> Run {
            let (disk, image) = (self.0.path("ext4"), self.0.path("packages.img"));
            let _ = fs::remove_file(&disk);
            let tree = text(&self.0.path("tree"));
            let args = ["-q", "-F", "-b", "1024", "-d", &tree, &text(&disk), size];
            let made = Command::new("/usr/sbin/mkfs.ext4").args(args).status();
            assert!(made.unwrap_or_else(|e| panic!("mkfs.ext4 of the Debian package e2fsprogs: {e}")).success());
            let mut bytes = fs::read(&self.0.image).unwrap();
            bytes.truncate(DATA);
            bytes.extend(fs::read(&disk).unwrap());
            fs::write(&image, bytes).unwrap();
            verify(&image, &self.0.key, &["--packages", "--json"])
        }
    }

    fn md5(bytes: &str) -> String {
        hex::encode(md5::Md5::digest(bytes))
    }

    fn q1(bytes: &str) -> String {
        let sha1 = sha1(bytes);
        format!("Q1{}", base64::engine::general_purpose::STANDARD.encode(sha1))
    }

    /// By sha1sum, so that it is not this repository's own hash that is compared with itself.
    fn sha1(bytes: &str) -> Vec<u8> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        let out = Command::new("sha1sum").arg(file.path()).output().unwrap().stdout;
        hex::decode(&out[..40]).unwrap()
    }

    #[test]
    fn dpkg_proves_its_files_through_links_and_diversions() {
        let tree = Tree::new();
        let sums =
            format!("{}  bin/hello\n{}  usr/bin/sh\n{}  boot/vmlinuz\n", md5("hello"), md5("bash"), md5("kernel"));
        let status = format!(
            "Package: hello\nStatus: install ok installed\nConffiles:\n /etc/hello.conf {}\n /etc/old {} obsolete\n\n",
            md5("conf"),
            md5("old")
        );
        tree.file("usr/bin/hello", "hello")
            .file("usr/bin/sh", "dash")
            .file("usr/bin/sh.distrib", "bash")
            .file("etc/hello.conf", "conf")
            .file("home/notes", "mine")
            .file("var/lib/dpkg/status", status)
            .file("var/lib/dpkg/diversions", "/usr/bin/sh\n/usr/bin/sh.distrib\ndash\n")
            .file("var/lib/dpkg/info/hello:amd64.md5sums", sums);
        fs::create_dir(tree.0.path("tree/boot")).unwrap();
        symlink("usr/bin", tree.0.path("tree/bin")).unwrap();
        let sound = tree.verify(0);
        let counts = ["packages", "matched", "matched_bytes", "changed_config", "differing", "missing", "elsewhere"];
        let of = |report: &Value| counts.map(|name| report["packages"]["databases"][0][name].as_u64().unwrap());
        assert_eq!(of(&sound), [1, 3, 13, 0, 0, 0, 1], "{sound:#}");
        assert_eq!(
            (sound["verdict"].as_str(), sound["coverage"]["package_bytes"].as_u64()),
            (Some("restorable"), Some(13))
        );
        // The notes, dash's own, and the database.
        assert_eq!(sound["packages"]["not_proven"], 5);
        let covered = &sound["coverage"];
        let sum: u64 = ["checksummed_bytes", "unchecked_bytes", "free_bytes"]
            .iter()
            .map(|name| covered[name].as_u64().unwrap())
            .sum();
        assert_eq!(Some(sum), covered["plaintext_bytes"].as_u64());

        tree.file("usr/bin/hello", "hellO").file("etc/hello.conf", "mine");
        tree.remove("usr/bin/sh.distrib");
        let changed = tree.verify(0);
        assert_eq!(of(&changed), [1, 0, 0, 1, 1, 1, 1], "{changed:#}");
        assert_eq!(changed["verdict"], "restorable-with-findings");
        assert_eq!(paths(&changed, "contents.packages.differs"), ["/bin/hello"]);
        assert_eq!(paths(&changed, "contents.packages.missing"), ["/usr/bin/sh.distrib"]);
        assert_eq!(paths(&changed, "contents.packages.config"), ["/etc/hello.conf"]);
    }

    #[test]
    fn apk_and_pacman_prove_theirs() {
        let tree = Tree::new();
        let installed = format!(
            "P:busybox\nF:bin\nR:busybox\nZ:{}\nR:sh\nZ:{}\nF:etc\nR:x\nZ:{}\n\n",
            q1("box"),
            q1("busybox"),
            q1("config")
        );
        let mtree = format!(
            "#mtree\n/set type=file uid=0\n./.PKGINFO sha256digest={0}\n./usr type=dir\n./usr/a\\040b size=1 \
             sha256digest={0}\n",
            sha256(b"pac")
        );
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        packed.write_all(mtree.as_bytes()).unwrap();
        // As in a subvolume of btrfs, but for its file system.
        tree.file("@/lib/apk/db/installed", installed)
            .file("@/bin/busybox", "box")
            .file("@/etc/x", "changed")
            .file("@/usr/a b", "pac")
            .file("@/var/lib/pacman/local/pac-1/mtree", packed.finish().unwrap())
            .file("@/var/lib/pacman/local/pac-1/files", "%FILES%\nusr/\n\n");
        symlink("busybox", tree.0.path("tree/@/bin/sh")).unwrap();
        let report = tree.verify(0);
        let databases = report["packages"]["databases"].as_array().unwrap();
        let said: Vec<_> = databases
            .iter()
            .map(|d| (d["kind"].as_str().unwrap(), d["path"].as_str().unwrap(), d["matched"].as_u64().unwrap()))
            .collect();
        let wanted = [("apk", "/@/lib/apk/db/installed", 2), ("pacman", "/@/var/lib/pacman/local", 1)];
        assert_eq!((said, report["verdict"].as_str()), (wanted.to_vec(), Some("restorable")), "{report:#}");
        assert_eq!(report["coverage"]["package_bytes"], 6);
        assert_eq!(paths(&report, "contents.packages.config"), ["/@/etc/x"]);

        // A database that is damaged says so itself.
        tree.file("@/var/lib/pacman/local/pac-1/mtree", "no gzip").file("@/lib/apk/db/installed", "P:b\n\0\0\0noise\n");
        let damaged = tree.verify(4);
        assert_eq!(paths(&damaged, "contents.packages.damaged"), ["/@/lib/apk/db/installed"]);
        assert_eq!(paths(&damaged, "contents.packages.unread"), ["/@/var/lib/pacman/local"]);
    }
}
