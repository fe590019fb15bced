//! A headless Chromium, and what it says of a page.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use base64::Engine;
use serde_json::{Value, json};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a page is looked at through: its width in CSS pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    width: u32,
    is_phone: bool,
    media: &'static str,
}

impl Window {
    pub const DESKTOP: Self = Self { width: 1280, is_phone: false, media: "screen" };
    /// As wide as the pictures in docs/.
    pub const PICTURE: Self = Self { width: 980, ..Self::DESKTOP };
    pub const PHONE: Self = Self { width: 390, is_phone: true, media: "screen" };
    /// A4 less 14 mm at each side, at 96 pixels an inch.
    pub const PAPER: Self = Self { width: 688, is_phone: false, media: "print" };
}

/// A page as it was shown.
#[derive(Debug)]
pub struct Shown {
    /// What stands in the console, and what was thrown.
    pub said: Vec<String>,
    /// What was asked for, beside the page.
    pub asked: Vec<String>,
    /// How wide the page is with all that is in it.
    pub width: u64,
    pub height: u64,
}

impl Shown {
    /// What is not as it should be.
    pub fn fault(&self, window: Window) -> Option<String> {
        let is_wide = self.width > u64::from(window.width);
        (is_wide || self.height < 300 || !self.said.is_empty() || !self.asked.is_empty()).then(|| format!("{self:?}"))
    }
}

/// The browser.
pub struct Browser {
    child: Child,
    input: ChildStdin,
    messages: Receiver<Value>,
    session: Option<String>,
    events: Vec<Value>,
    last: u64,
    _profile: tempfile::TempDir,
}

fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("UNLUKS_CHROMIUM") {
        return path.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let names = ["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"];
    let mut found = names.iter().flat_map(|name| std::env::split_paths(&path).map(move |dir| dir.join(name)));
    found.find(|path| path.is_file()).unwrap_or_else(|| {
        panic!("no Chromium is installed: apt-get install chromium-headless-shell, or UNLUKS_CHROMIUM=PATH")
    })
}

impl Browser {
    pub fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let program = program();
        let mut command = Command::new("sh");
        // Its pipes are those with the numbers 3 and 4.
        command.args(["-c", "exec \"$@\" 3<&0 4>&1 0</dev/null 1>/dev/null 2>&1", "sh"]).arg(&program);
        command.args(["--headless", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--no-first-run"]);
        command.args(["--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"]);
        command.arg(format!("--user-data-dir={}", profile.path().display())).arg("about:blank");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            for message in BufReader::new(output).split(0).map_while(Result::ok) {
                if sender.send(serde_json::from_slice(&message).unwrap()).is_err() {
                    break;
                }
            }
        });
        let events = Vec::new();
        let mut browser = Self { child, input, messages, session: None, events, last: 0, _profile: profile };
        let target = browser.ask("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        browser.session = Some(browser.ask("Target.attachToTarget", attach)["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Log", "Runtime", "Network"] {
            browser.ask(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    fn next(&mut self) -> Value {
        let message = self.messages.recv_timeout(PATIENCE);
        message.unwrap_or_else(|e| panic!("Chromium says nothing ({e}); {:?}", self.child.try_wait()))
    }

    /// Calls a method, and gives what comes of it.
    fn ask(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let mut message = json!({ "id": self.last, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        self.input.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            let mut answer = self.next();
            if answer["id"] == self.last {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].take();
            }
            self.events.push(answer);
        }
    }

    /// Opens a page, and says what became of it.
    pub fn show(&mut self, page: &Path, window: Window) -> Shown {
        let Window { width, is_phone, media } = window;
        let metrics = json!({ "width": width, "height": 844, "deviceScaleFactor": 1, "mobile": is_phone });
        self.ask("Emulation.setDeviceMetricsOverride", metrics);
        self.ask("Emulation.setEmulatedMedia", json!({ "media": media }));
        self.ask("Page.navigate", json!({ "url": "about:blank" }));
        self.until_loaded();
        self.ask("Log.clear", json!({}));
        self.events.clear();
        let url = format!("file://{}", page.display());
        let answer = self.ask("Page.navigate", json!({ "url": url }));
        assert!(answer["errorText"].is_null(), "{url}: {answer}");
        self.until_loaded();
        // Whatever is said before this answer has come before it.
        let size = self.ask("Page.getLayoutMetrics", json!({}))["cssContentSize"].take();
        let of = |method: &'static str| self.events.iter().filter(move |event| event["method"] == method);
        let said = of("Log.entryAdded").chain(of("Runtime.consoleAPICalled")).chain(of("Runtime.exceptionThrown"));
        let asked = of("Network.requestWillBeSent").map(|event| event["params"]["request"]["url"].as_str().unwrap());
        Shown {
            said: said.map(|event| event["params"].to_string()).collect(),
            asked: asked.filter(|asked| *asked != url).map(str::to_owned).collect(),
            width: size["width"].as_u64().unwrap(),
            height: size["height"].as_u64().unwrap(),
        }
    }

    fn until_loaded(&mut self) {
        while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            let event = self.next();
            self.events.push(event);
        }
        self.events.retain(|event| event["method"] != "Page.loadEventFired");
    }

    /// The page as it is printed.
    pub fn pdf(&mut self, page: &Path) -> Vec<u8> {
        self.show(page, Window::PAPER);
        decoded(&self.ask("Page.printToPDF", json!({ "preferCSSPageSize": true })))
    }

    /// A PNG of the upper part of what is shown.
    pub fn picture(&mut self, window: Window, height: u32) -> Vec<u8> {
        let clip = json!({ "x": 0, "y": 0, "width": window.width, "height": height, "scale": 1 });
        let wanted = json!({ "format": "png", "clip": clip, "captureBeyondViewport": true });
        decoded(&self.ask("Page.captureScreenshot", wanted))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It ends with its own processes where it is asked; what is left of it is ended.
        let _ = self.input.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        while std::time::Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn decoded(answer: &Value) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD.decode(answer["data"].as_str().unwrap()).unwrap()
}
