//! Pages as a browser shows them: on a desktop, on a phone and on paper, without a word in its console, without asking for
//! anything, and no wider than the window.
//!
//! The browser is Chromium, spoken to over the pipes of its DevTools (`--remote-debugging-pipe`: a JSON text and a NUL each
//! way), so that nothing has to run in the page. `UNLUKS_CHROMIUM` names its program, if it is none of the usual ones.

mod browser;
mod terminal;

use std::fs;
use std::path::PathBuf;

use crate::common::{Golden, peer, root, text, unluks};
use browser::{Browser, Shown, Window};

/// A folder with images, and the pages of them.
struct Pages {
    golden: Golden,
}

/// Nothing in it to break a line at, markup, controls, and marks of direction.
const HOSTILE: &str = "a<b onload=\"x\">&'\u{202e}gnp\u{2066}\u{feff}\n\u{9b}31m";

impl Pages {
    fn new() -> Self {
        Self { golden: Golden::unpack("l2-ext4") }
    }

    /// The page of a golden image under another name.
    fn of(&self, name: &str, called: &str, code: i32, more: &[&str]) -> PathBuf {
        let image = Golden::unpack(name);
        let path = self.golden.path(called);
        fs::copy(&image.image, &path).unwrap();
        let page = self.golden.path(&format!("{name}.html"));
        let (file, key, out) = (text(&path), text(&image.key), text(&page));
        let run = unluks(&[&["verify", &file, "--key-file", &key, "--report", &out, "--force"], more].concat());
        assert_eq!(run.code, Some(code), "{name}: {}", run.stderr);
        page
    }

    /// The page of all images of the folder.
    fn summary(&self) -> PathBuf {
        let (dir, key, out) = (self.golden.path("many"), text(&self.golden.key), self.golden.path("summary.html"));
        fs::create_dir(&dir).unwrap();
        let image = fs::read(&self.golden.image).unwrap();
        fs::write(dir.join("sound.img"), &image).unwrap();
        fs::write(dir.join(format!("{HOSTILE}{}.img", "w".repeat(150))), &image[..image.len() / 2]).unwrap();
        fs::copy(Golden::unpack("l2-argon2id").image, dir.join("other.img")).unwrap();
        let reports = text(&self.golden.path("reports"));
        let args = ["verify", "--batch", &text(&dir), "--key-file", &key, "--reports", &reports, "--html"];
        let run = unluks(&args);
        assert_eq!(run.code, Some(4), "{}", run.stderr);
        fs::write(&out, run.stdout).unwrap();
        out
    }
}

#[test]
fn pages_fit_a_desktop_a_phone_and_paper_and_nothing_is_said_in_the_console() {
    let pages = Pages::new();
    let sums = pages.golden.path("sums");
    let (image, key) = (text(&pages.golden.image), text(&pages.golden.key));
    fs::write(&sums, unluks(&["hash", &image, "/", "--key-file", &key]).stdout).unwrap();
    let long = format!("{HOSTILE}{}.img", "w".repeat(150));
    let words = ["--case", "2026-17", "--note", HOSTILE, "--examiner", &"e".repeat(300)];
    let all = [
        pages.of("l2-ext4", "sound.img", 0, &["--files", &text(&sums), "--packages"]),
        pages.of("l2-primary-zeroed", "findings.img", 0, &["--hash", "image:sha512", "--hash", "blake3"]),
        pages.of("l2-integrity-tag-flipped", &long, 4, &words),
        pages.of("l2-both-damaged", "headers.img", 4, &[]),
        pages.summary(),
    ];
    let mut browser = Browser::start();
    for page in &all {
        for window in [Window::DESKTOP, Window::PHONE, Window::PAPER] {
            let shown = browser.show(page, window);
            assert_eq!(shown.fault(window), None, "{page:?}, {window:?}");
        }
        let pdf = browser.pdf(page);
        assert!(pdf.starts_with(b"%PDF-") && pdf.len() > 5000, "{page:?}");
    }

    // What is looked for is seen: a script, a picture from elsewhere, a style of somebody else's, and what is too wide.
    let page = fs::read_to_string(&all[0]).unwrap();
    let spoilt = pages.golden.path("spoilt.html");
    let mut with = |what: &str| -> Shown {
        fs::write(&spoilt, page.replace("</body>", &format!("{what}</body>"))).unwrap();
        browser.show(&spoilt, Window::PHONE)
    };
    for what in
        ["<script>1</script>", "<img src=\"http://127.0.0.1:9/\">", "<p style=\"color:red\">", "<b onclick=\"1\">"]
    {
        let shown = with(what);
        assert!(!shown.said.is_empty(), "{what}");
        assert!(shown.fault(Window::PHONE).is_some(), "{what}");
    }
    let wide = with("<svg width=\"500\" height=\"1\"></svg>");
    assert!(wide.said.is_empty() && wide.width > 390 && wide.fault(Window::PHONE).is_some(), "{wide:?}");
}

/// Makes the pictures in docs/ again, by `cargo test -p unluks-cli --all-features --test program pictures -- --ignored`.
#[test]
#[ignore = "writes into docs/"]
fn pictures_for_the_documentation() {
    let pages = Pages::new();
    let place = |name: &str| root().join("docs").join(name);
    let mut browser = Browser::start();
    let draw = |browser: &mut Browser, page: &PathBuf, window: Window, height: u32, name: &str| {
        browser.show(page, window);
        let out = place(name);
        fs::write(&out, browser.picture(window, height)).unwrap();
        let args = ["--force", "--skip-if-larger", "--ext", ".png", "--speed", "1", "64", &text(&out)];
        let run = peer("pngquant", "pngquant", &args);
        assert!(matches!(run.code, Some(0 | 98)), "{}", run.stderr);
    };
    // In a folder of its own the path is the name alone.
    let dir = pages.golden.path("site");
    fs::create_dir(&dir).unwrap();
    let of = |name: &str, called: &str, more: &[&str]| {
        let image = Golden::unpack(name);
        fs::copy(&image.image, dir.join(called)).unwrap();
        let page = dir.join(format!("{called}.html"));
        let mut command = std::process::Command::new(crate::common::UNLUKS);
        command.current_dir(&dir).args(["verify", called, "-q", "--report", &text(&page), "--key-file"]);
        assert!(command.arg(&image.key).args(more).status().unwrap().code().is_some());
        page
    };
    let words = ["--case", "2026-17", "--evidence", "volume of web-3", "--examiner", "A. Example"];
    let sound = of("l2-ext4", "web-3.img", &words);
    let damaged = of("l2-integrity-tag-flipped", "db-1.img", &["--case", "2026-18", "--examiner", "A. Example"]);
    draw(&mut browser, &sound, Window::PICTURE, 1490, "verify-restorable.png");
    draw(&mut browser, &damaged, Window::PICTURE, 1350, "verify-not-restorable.png");
    draw(&mut browser, &damaged, Window::PHONE, 1500, "verify-phone.png");

    // The terminal, 100 columns wide.
    for (command, image, name) in [
        ("inspect volume.img", "l2-ext4", "inspect.png"),
        ("scan disk.img --map", "gpt", "scan.png"),
        ("verify volume.img --key-file volume.key", "l2-ext4", "verify.png"),
    ] {
        let image = Golden::unpack(image);
        for called in ["volume.img", "disk.img"] {
            fs::copy(&image.image, dir.join(called)).unwrap();
        }
        fs::copy(&image.key, dir.join("volume.key")).unwrap();
        let line = format!("stty cols 100 rows 50; TERM=xterm {} {command}", crate::common::UNLUKS);
        let mut shell = std::process::Command::new("script");
        let printed = shell.current_dir(&dir).args(["-qec", &line, "/dev/null"]).output().unwrap().stdout;
        // What a bar leaves behind it is wiped from the screen.
        let printed = String::from_utf8(printed).unwrap();
        let printed = printed.rsplit("\u{1b}[2K").next().unwrap();
        let page = dir.join("terminal.html");
        fs::write(&page, terminal::page(&format!("unluks {command}"), printed)).unwrap();
        let lines = u32::try_from(printed.lines().count()).unwrap() + 1;
        draw(&mut browser, &page, Window::PICTURE, lines * 19 + 28, name);
    }
}
