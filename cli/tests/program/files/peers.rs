//! The same with images that mkfs makes.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::stdout;
use crate::common::{UNLUKS, peer, text, unluks};

fn make(dir: &Path, program: &str, package: &str, size: u64, args: &[&str]) -> PathBuf {
    let path = dir.join("image");
    fs::File::create(&path).unwrap().set_len(size).unwrap();
    let made = peer(program, package, &[args, &[&text(&path)]].concat());
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    path
}

fn plant(tree: &Path) {
    fs::create_dir_all(tree.join("dir/below")).unwrap();
    fs::write(tree.join("dir/file"), vec![7; 300_000]).unwrap();
    fs::write(tree.join("dir/below/a\nline \\ and b"), "odd").unwrap();
    fs::write(tree.join("dir/\u{202e}txt.\u{1b}[31m"), "odd").unwrap();
    let holes = fs::File::create(tree.join("holes")).unwrap();
    holes.set_len(20 << 20).unwrap();
    holes.write_all_at(b"end", (20 << 20) - 3).unwrap();
    fs::write(tree.join("program"), "#!").unwrap();
    fs::set_permissions(tree.join("program"), fs::Permissions::from_mode(0o751)).unwrap();
    symlink("dir/file", tree.join("link")).unwrap();
    symlink("/etc/passwd", tree.join("out")).unwrap();
    assert_eq!(peer("mkfifo", "coreutils", &[text(&tree.join("fifo"))]).code, Some(0));
}

#[test]
fn a_copy_is_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, out, sums) = (dir.path().join("tree"), dir.path().join("out"), dir.path().join("sums"));
    plant(&tree);
    let tree_text = text(&tree);
    let image = make(dir.path(), "mkfs.ext4", "e2fsprogs", 40 << 20, &["-q", "-d", &tree_text]);
    let (image, out_text) = (text(&image), text(&out));
    let copied = unluks(&["cp", "-r", "--preserve", "--links", &image, "/", &out_text]);
    assert_eq!(copied.code, Some(0), "{}", copied.stderr);
    assert!(copied.stderr.contains("/fifo is left out"), "{}", copied.stderr);
    fs::remove_dir(out.join("lost+found")).unwrap();
    fs::remove_file(tree.join("fifo")).unwrap();
    let differ = peer("diff", "diffutils", &["-r", "--no-dereference", &tree_text, &out_text]);
    assert_eq!((differ.code, differ.stdout.len()), (Some(0), 0), "{}", String::from_utf8_lossy(&differ.stdout));
    assert_eq!(out.join("program").metadata().unwrap().permissions().mode() & 0o7777, 0o751);
    // mkfs keeps whole seconds.
    assert_eq!(out.join("program").metadata().unwrap().mtime(), tree.join("program").metadata().unwrap().mtime());
    assert!(out.join("holes").metadata().unwrap().blocks() < 1024, "holes stay holes");
    // sha256sum takes the hashes, odd names and all.
    fs::write(&sums, unluks(&["hash", &image, "/"]).stdout).unwrap();
    let script = format!("cd {out_text} && sha256sum --strict --check --quiet {}", text(&sums));
    let checked = peer("sh", "dash", &["-c", &script]);
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    // Links are followed within the image, and there is no such file in it.
    assert_eq!(unluks(&["cat", &image, "/link"]).stdout, vec![7; 300_000]);
    assert!(unluks(&["cat", &image, "/out"]).stderr.contains("no such file"));
    assert!(stdout(&unluks(&["ls", "-l", &image, "/link"])).ends_with("link -> dir/file\n"));
}

#[test]
fn subvolumes_of_btrfs_are_directories() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    plant(&tree);
    let image = make(dir.path(), "mkfs.btrfs", "btrfs-progs", 120 << 20, &["-q", "--rootdir", &text(&tree)]);
    let image = text(&image);
    assert_eq!(unluks(&["cat", &image, "/dir/file"]).stdout, vec![7; 300_000]);
    assert_eq!(stdout(&unluks(&["find", &image, "--kind", "d"])), "/\n/dir\n/dir/below\n");
}

/// The child of a process that has one.
fn child_of(parent: u32) -> Option<u32> {
    fs::read_dir("/proc").unwrap().find_map(|entry| {
        let pid: u32 = entry.unwrap().file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let above: u32 = stat.rsplit(") ").next()?.split(' ').nth(1)?.parse().ok()?;
        (above == parent).then_some(pid)
    })
}

#[test]
fn a_reader_is_fenced_in_and_its_end_is_an_error_of_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fs::File::create(tree.join("holes")).unwrap().set_len(1 << 30).unwrap();
    let image = make(dir.path(), "mkfs.ext4", "e2fsprogs", 40 << 20, &["-q", "-d", &text(&tree)]);
    let mut command = Command::new(UNLUKS);
    command.args(["cat", &text(&image), "/holes"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut program = command.spawn().unwrap();
    let mut out = program.stdout.take().unwrap();
    // The first bytes are there: it reads, and is kept waiting from now on.
    out.read_exact(&mut [0; 1000]).unwrap();
    let reader = child_of(program.id()).unwrap();
    let status = fs::read_to_string(format!("/proc/{reader}/status")).unwrap();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).unwrap_or_default();
    assert_eq!((field("Seccomp:"), field("NoNewPrivs:")), ("2", "1"), "{status}");
    let limits = fs::read_to_string(format!("/proc/{reader}/limits")).unwrap();
    let of = |name: &str| {
        limits.lines().find_map(|line| line.strip_prefix(name)).unwrap().split_whitespace().next().unwrap().to_owned()
    };
    let space: u64 = of("Max address space").parse().unwrap();
    assert!(space < 1 << 30 && of("Max open files") == "0", "{limits}");
    let environment = fs::read(format!("/proc/{reader}/environ")).unwrap_or_default();
    assert!(environment.is_empty(), "{}", String::from_utf8_lossy(&environment));

    assert_eq!(peer("kill", "procps", &["-9", &reader.to_string()]).code, Some(0));
    let started = Instant::now();
    std::io::copy(&mut out, &mut std::io::sink()).unwrap();
    let status = program.wait().unwrap();
    let mut said = String::new();
    program.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(status.code(), Some(4), "{said}");
    assert!(said.contains("the reader of the ext4 file system gave up: its process ended by signal 9"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[test]
fn hostile_names_and_links_stay_in_the_copy() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, out) = (dir.path().join("tree"), dir.path().join("deep/out"));
    fs::create_dir_all(tree.join("sub")).unwrap();
    fs::create_dir(dir.path().join("deep")).unwrap();
    fs::write(tree.join("sub/aaaevil"), "evil").unwrap();
    fs::write(tree.join("good"), "good").unwrap();
    // A link to a directory outside, and behind it, by its name, a directory: what is in that must not go through the link.
    symlink(dir.path(), tree.join("escape")).unwrap();
    fs::create_dir(tree.join("escapf")).unwrap();
    fs::write(tree.join("escapf/evil"), "evil").unwrap();
    let image = make(dir.path(), "mkfs.ext2", "e2fsprogs", 8 << 20, &["-q", "-d", &text(&tree)]);
    let mut bytes = fs::read(&image).unwrap();
    let mut change = |from: &[u8], to: &[u8]| {
        let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
        bytes[at..at + to.len()].copy_from_slice(to);
    };
    change(b"aaaevil", b"../evil");
    change(b"escapf", b"escape");
    fs::write(&image, &bytes).unwrap();
    let copied = unluks(&["cp", "-r", "--links", "--force", &text(&image), "/", &text(&out)]);
    assert_eq!(copied.code, Some(4), "{}", copied.stderr);
    assert_eq!(fs::read(out.join("good")).unwrap(), b"good");
    let outside: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(outside.len(), 3, "{outside:?}");
    assert_eq!(fs::read_dir(dir.path().join("deep")).unwrap().count(), 1);
}

/// Attributes in an inode, in a block, and in inodes of their own, set by debugfs.
#[test]
fn extended_attributes_of_ext_are_as_debugfs_set_them() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir_all(tree.join("dir")).unwrap();
    fs::write(tree.join("file"), "file").unwrap();
    fs::write(tree.join("bare"), "bare").unwrap();
    let large: Vec<u8> = (0..20_000u32).map(|n| n.to_le_bytes()[0] | 1).collect();
    fs::write(dir.path().join("large"), &large).unwrap();
    for features in ["metadata_csum,ea_inode", "^metadata_csum,ea_inode", "metadata_csum,ea_inode,inline_data"] {
        let args = ["-q", "-F", "-b", "4096", "-O", features, "-d", &text(&tree)];
        let image = make(dir.path(), "mkfs.ext4", "e2fsprogs", 20 << 20, &args);
        let many: String = (0..30).map(|n| format!("ea_set /file user.number{n:02} {n:030}\n")).collect();
        let script = dir.path().join("script");
        let commands = format!(
            "ea_set /file user.small value\nea_set /file security.selinux system_u:object_r:etc_t:s0\\000\n{many}ea_set -f \
             {} /file user.large\nea_set /dir trusted.of \"a directory\"\n",
            text(&dir.path().join("large"))
        );
        fs::write(&script, commands).unwrap();
        let done =
            Command::new("/usr/sbin/debugfs").args(["-w", "-f", &text(&script), &text(&image)]).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let run = unluks(&["ls", "--xattrs", "--json", &text(&image), "/"]);
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{features}");
        let out = String::from_utf8(run.stdout).unwrap();
        let lines: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let schema = fs::read_to_string(crate::common::root().join("docs/files.schema.json")).unwrap();
        let schema = jsonschema::validator_for(&serde_json::from_str(&schema).unwrap()).unwrap();
        assert!(lines.iter().all(|line| schema.is_valid(line)), "{features}: {out}");
        let of = |path: &str| {
            let line = lines.iter().find(|line| line["path"] == path).unwrap();
            let all = line["xattrs"].as_array().unwrap().iter();
            let pair = |x: &serde_json::Value| {
                (x["name"].as_str().unwrap().to_owned(), hex::decode(x["value_hex"].as_str().unwrap()).unwrap())
            };
            all.map(pair).collect::<std::collections::BTreeMap<String, Vec<u8>>>()
        };
        let file = of("/file");
        assert_eq!(file["user.small"], b"value", "{features}");
        assert_eq!(file["user.number29"], format!("{:030}", 29).into_bytes(), "{features}");
        // debugfs takes a block of it, which only an inode of its own has room for.
        assert!(file["user.large"].len() == 4096 && large.starts_with(&file["user.large"]), "{features}");
        assert_eq!((file.len(), of("/bare").len()), (33, 0), "{features}: {:?}", file.keys());
        assert_eq!(of("/dir")["trusted.of"], b"a directory", "{features}");
        let listed = unluks(&["ls", "--xattrs", &text(&image), "/dir"]);
        assert_eq!(String::from_utf8(listed.stdout).unwrap(), "");
        let listed = String::from_utf8(unluks(&["ls", "--xattrs", &text(&image), "/file"]).stdout).unwrap();
        assert!(listed.contains("\n    user.small=\"value\"\n"), "{listed}");
    }
}
