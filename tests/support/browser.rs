//! A real browser: Chromium without a window, told what to do by the protocol of its developer tools, through pipes. It reaches this
//! host only.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::child::{Captured, Guarded};
use crate::{scratch, wait};

/// How long it may take for an answer.
const ANSWER: Duration = Duration::from_secs(60);

/// A page in a browser, which is gone when this is dropped.
pub struct Browser {
    child: Guarded,
    /// What it is told.
    pipe: RefCell<ChildStdin>,
    said: Receiver<Value>,
    next: Cell<u64>,
    session: String,
    /// What happened in the page, and is not looked at yet.
    events: RefCell<VecDeque<Value>>,
    requests: RefCell<Vec<String>>,
    complaints: RefCell<Vec<String>>,
    _stderr: Captured,
    _profile: TempDir,
}

impl Browser {
    /// An empty page of that size.
    #[must_use]
    #[track_caller]
    pub fn open(width: u32, height: u32) -> Self {
        let profile = scratch::directory();
        let mut command = Command::new("sh");
        // It hears of what to do at descriptor 3, and answers at 4.
        command.args([
            "-c",
            r#"exec "$0" "$@" 3<&0 4>&1 0</dev/null 1>&2"#,
            "chromium",
            "--remote-debugging-pipe",
        ]);
        command.args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
        ]);
        command.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
        command.args([
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
            "--lang=en-GB",
        ]);
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        command.arg(format!("--window-size={width},{height}"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = Guarded::spawn(&mut command);
        let inner = child.inner();
        let pipe = inner.stdin.take().expect("a pipe");
        let stdout = inner.stdout.take().expect("a pipe");
        let stderr = Captured::from(inner.stderr.take().expect("a pipe"));
        let (sender, said) = channel();
        thread::spawn(move || {
            let mut stdout = BufReader::new(stdout);
            let mut message = Vec::new();
            while matches!(stdout.read_until(0, &mut message), Ok(1..)) {
                message.pop();
                let Ok(value) = serde_json::from_slice(&message) else { return };
                if sender.send(value).is_err() {
                    return;
                }
                message.clear();
            }
        });
        let mut browser = Self {
            child,
            pipe: RefCell::new(pipe),
            said,
            next: Cell::new(1),
            session: String::new(),
            events: RefCell::default(),
            requests: RefCell::default(),
            complaints: RefCell::default(),
            _stderr: stderr,
            _profile: profile,
        };
        let target = browser.ask("Target.createTarget", &json!({"url": "about:blank"}));
        let attached =
            browser.ask("Target.attachToTarget", &json!({"targetId": target["targetId"], "flatten": true}));
        browser.session = attached["sessionId"].as_str().expect("a session").to_owned();
        for domain in ["Page", "Runtime", "Network", "Log"] {
            browser.ask(&format!("{domain}.enable"), &json!({}));
        }
        browser.resize(width, height, false);
        browser
    }

    /// Goes there.
    #[track_caller]
    pub fn go(&self, url: &str) {
        let answer = self.ask("Page.navigate", &json!({"url": url}));
        assert!(answer["errorText"].is_null(), "{url}: {answer}");
    }

    /// As large as a window, or as a phone.
    #[track_caller]
    pub fn resize(&self, width: u32, height: u32, is_phone: bool) {
        let scale = if is_phone { 2 } else { 1 };
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            &json!({"width": width, "height": height, "deviceScaleFactor": scale, "mobile": is_phone}),
        );
    }

    /// As somebody wants it who likes it dark, or light.
    #[track_caller]
    pub fn prefer(&self, scheme: &str) {
        self.ask(
            "Emulation.setEmulatedMedia",
            &json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]}),
        );
    }

    /// The value of an expression there.
    #[track_caller]
    pub fn value(&self, expression: &str) -> Value {
        let answer = self.ask(
            "Runtime.evaluate",
            &json!({"expression": expression, "returnByValue": true, "awaitPromise": true}),
        );
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    #[track_caller]
    pub fn until(&self, expression: &str) {
        let is_true = wait::within(wait::patient(Duration::from_secs(20)), || {
            self.value(expression).as_bool().unwrap_or(false).then_some(())
        });
        if is_true.is_none() {
            let text = self.value("document.body.innerText");
            panic!(
                "not so in the page: {expression}\n{}\n{:?}",
                text.as_str().unwrap_or_default(),
                self.complaints()
            );
        }
    }

    /// The text of what a selector means.
    #[track_caller]
    #[must_use]
    pub fn text(&self, selector: &str) -> String {
        let text = self.value(&format!("document.querySelector({}).innerText", json!(selector)));
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Presses a key: a character, or the name of another.
    #[track_caller]
    pub fn press(&self, key: &str) {
        let (code, text) = match key {
            "Tab" => (9, None),
            "Enter" => (13, Some("\r")),
            "Escape" => (27, None),
            key => (key.chars().next().map_or(0, |c| u32::from(c.to_ascii_uppercase())), Some(key)),
        };
        let mut event = json!({"type": "keyDown", "key": key, "windowsVirtualKeyCode": code});
        if let Some(text) = text {
            event["text"] = text.into();
        }
        self.ask("Input.dispatchKeyEvent", &event);
        self.ask(
            "Input.dispatchKeyEvent",
            &json!({"type": "keyUp", "key": key, "windowsVirtualKeyCode": code}),
        );
    }

    /// Types a text.
    #[track_caller]
    pub fn types(&self, text: &str) {
        self.ask("Input.insertText", &json!({"text": text}));
    }

    /// Keeps a picture of it.
    #[track_caller]
    pub fn picture(&self, path: &Path) {
        let answer = self.ask("Page.captureScreenshot", &json!({"format": "png"}));
        let bytes = STANDARD.decode(answer["data"].as_str().expect("a picture")).expect("base64");
        fs::write(path, bytes).expect("keep a picture");
    }

    /// Every address that it asked for.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.look();
        self.requests.borrow().clone()
    }

    /// What went wrong in scripts, and what a policy refused.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        self.look();
        self.complaints.borrow().clone()
    }

    /// Sorts out what has happened.
    fn look(&self) {
        self.events.borrow_mut().extend(self.said.try_iter());
        for event in self.events.borrow_mut().drain(..) {
            let parameters = &event["params"];
            match event["method"].as_str().unwrap_or_default() {
                "Network.requestWillBeSent" => {
                    let url = parameters["request"]["url"].as_str().unwrap_or_default();
                    self.requests.borrow_mut().push(url.to_owned());
                }
                "Runtime.exceptionThrown" => self.complaints.borrow_mut().push(parameters.to_string()),
                // That an agent is restarted shows as network errors.
                "Log.entryAdded" if parameters["entry"]["source"] != "network" => {
                    self.complaints.borrow_mut().push(parameters["entry"].to_string());
                }
                _ => {}
            }
        }
    }

    #[track_caller]
    fn ask(&self, method: &str, parameters: &Value) -> Value {
        let id = self.next.replace(self.next.get() + 1);
        let mut message = json!({"id": id, "method": method, "params": parameters});
        if !self.session.is_empty() {
            message["sessionId"] = self.session.as_str().into();
        }
        let mut pipe = self.pipe.borrow_mut();
        pipe.write_all(message.to_string().as_bytes())
            .and_then(|()| pipe.write_all(&[0]))
            .expect("tell the browser");
        pipe.flush().expect("tell the browser");
        let begun = Instant::now();
        loop {
            let left = wait::patient(ANSWER).saturating_sub(begun.elapsed());
            match self.said.recv_timeout(left) {
                Ok(answer) if answer["id"] == id => {
                    assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                    return answer["result"].clone();
                }
                Ok(event) => self.events.borrow_mut().push_back(event),
                Err(RecvTimeoutError::Timeout) => panic!("no answer to {method}"),
                Err(RecvTimeoutError::Disconnected) => panic!("the browser has ended: {:?}", self.child),
            }
        }
    }
}
