//! The pictures of `top` and of the page in docs/: taken during a real outage. With `PROXYTRACE_PICTURES=DIR` it takes as long as one
//! does, and they are kept there.

use std::path::Path;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use proxytrace_tests::backend::{Backend, Manner};
use proxytrace_tests::browser::Browser;
use proxytrace_tests::nginx::server;
use proxytrace_tests::scratch;
use proxytrace_tests::terminal::Terminal;

use crate::lookout::{AFTER, BEFORE, Lookout};
use crate::page::with_page;

const DIRECTORY: &str = "PROXYTRACE_PICTURES";

const OTHERS: &[(&str, &str)] =
    &[("web", "127.0.0.1:8090"), ("search", "127.0.0.1:8091"), ("images", "127.0.0.1:8092")];

fn configuration(api: &str) -> String {
    let upstreams: String =
        OTHERS.iter().map(|(name, address)| format!("upstream {name} {{ server {address}; }}\n")).collect();
    let locations: String = OTHERS
        .iter()
        .map(|(name, _)| format!("location /{name} {{ proxy_pass http://{name}; }}\n"))
        .collect();
    let locations = format!("location / {{ proxy_pass http://api; proxy_next_upstream off; }}\n{locations}");
    format!("upstream api {{\nserver {api};\n}}\n{upstreams}{}", server(&locations))
}

/// Requests to all of them for so long, and each at least once.
fn pass(scene: &Lookout, time: Duration) {
    let begun = Instant::now();
    loop {
        for path in ["/", "/web", "/web", "/search", "/images", "/web"] {
            let _ = scene.nginx.get(path);
        }
        if begun.elapsed() >= time {
            return;
        }
        thread::sleep(Duration::from_millis(300));
    }
}

#[test]
fn the_pictures_in_the_docs_can_be_taken_again() {
    let kept = env::var_os(DIRECTORY);
    let wait = |seconds| if kept.is_some() { Duration::from_secs(seconds) } else { Duration::ZERO };
    let scratch = scratch::directory();
    let directory = kept.as_deref().map_or(scratch.path(), Path::new);
    let scene = with_page(&configuration(BEFORE));
    let manner = Manner::AnswerAndClose;
    let _backends: Vec<_> = OTHERS
        .iter()
        .map(|(_, address)| *address)
        .chain([BEFORE])
        .map(|address| Backend::start(&scene.netns, address, manner))
        .collect();
    pass(&scene, wait(420));
    scene.nginx.reload(&configuration(AFTER));
    scene.gets(3, 502);
    scene.raised("misrouted", AFTER);
    pass(&scene, wait(100));

    let terminal = Terminal::open(100, 16);
    terminal.run(&scene.agent.asked_by(&["top"]));
    terminal.shows_all(&["misrouted", "images", "▁"]);
    fs::write(directory.join("top.txt"), terminal.screen()).expect("keep a picture");
    terminal.types("q");

    let browser = Browser::open(1200, 560);
    browser.go(&format!("http://127.0.0.1:{}/", scene.agent.port()));
    browser.until("document.querySelector('#table svg .bad') !== null");
    let take = |name: &str| {
        browser.picture(&directory.join(name));
        let size = fs::metadata(directory.join(name)).expect("a picture").len();
        assert!(size > 10_000, "{name} has {size} bytes");
    };
    take("page.png");
    browser.prefer("dark");
    browser.resize(1200, 760, false);
    browser.value("document.querySelector('[data-key]').click()");
    browser.until("document.querySelector('#detail svg .reload') !== null");
    browser.value("document.activeElement.blur()");
    take("page-upstream.png");
    browser.press("Escape");
    browser.prefer("light");
    browser.resize(390, 844, true);
    browser.until(
        "!document.getElementById('overview').hidden && document.querySelector('#table svg .bad') !== null",
    );
    browser.until("document.documentElement.scrollWidth <= innerWidth");
    take("page-phone.png");
}
