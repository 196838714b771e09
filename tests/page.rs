//! The agent's page in a real browser, during an outage, and what it says next to what others say at the same moment.

use std::fs;
use std::process::Command;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use nix::sys::signal::Signal;
use proxytrace_tests::backend::{Backend, Manner};
use proxytrace_tests::browser::Browser;
use proxytrace_tests::nginx::server;
use proxytrace_tests::proxytrace::Agent;
use proxytrace_tests::scratch;
use serde_json::{Value, json};

use crate::lookout::{AFTER, BEFORE, Lookout, api};
use crate::secured::HUNTER2;

fn agent(scene: &Lookout, more: &[&str]) -> Agent {
    Agent::start(&[&["--process", scene.nginx.name()], more].concat())
}

/// The set, with an agent that has the page at its listener as well.
pub(crate) fn with_page(http: &str) -> Lookout {
    let scene = Lookout::begin(http);
    let agent = agent(&scene, &["--page"]);
    Lookout { agent, ..scene }
}

fn output(mut command: Command) -> String {
    String::from_utf8(command.output().expect("run proxytrace").stdout).expect("UTF-8")
}

/// The contrast of every kind of text with what is behind it.
const CONTRASTS: &str = r"(() => {
  const parts = (colour) => colour.match(/[\d.]+/g).map(Number);
  const light = (colour) => {
    const [r, g, b] = parts(colour).map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    const colour = getComputedStyle(node).backgroundColor;
    return (parts(colour)[3] ?? 1) > 0 || !node.parentElement ? colour : behind(node.parentElement);
  };
  const kinds = ['h1', '#connection', '.severity', '#proxies li', 'th button', 'td.name button', '.state', '.causes', 'footer', '#pause', '#filter'];
  return kinds.flatMap((kind) => [...document.querySelectorAll(kind)].map((node) => {
    const [one, other] = [light(getComputedStyle(node).color), light(behind(node))];
    return [kind, (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05)];
  }));
})()";

/// What the row of an upstream says, by column.
fn row(browser: &Browser, upstream: &str) -> Value {
    let script = format!(
        "Object.fromEntries([...[...document.querySelectorAll('#table tbody tr')].find((row) => \
         row.querySelector('button').textContent === {}).cells].map((cell) => [cell.dataset.label, cell.textContent]))",
        json!(upstream)
    );
    browser.value(&script)
}

#[test]
fn an_outage_is_seen_sorted_filtered_and_looked_into_by_keyboard() {
    let web = format!(
        "upstream web {{\nserver 127.0.0.1:8090;\n}} {}",
        server(
            "location / { proxy_pass http://api; proxy_next_upstream off; } location /web { proxy_pass http://web; }"
        )
    );
    let with = |address: &str| format!("upstream api {{\nserver {address};\n}} {web}");
    let scene = with_page(&with(BEFORE));
    let _api = Backend::start(&scene.netns, BEFORE, Manner::AnswerAndClose);
    let _web = Backend::start(&scene.netns, "127.0.0.1:8090", Manner::AnswerAndClose);
    scene.gets(12, 200);
    (0..30).for_each(|_| assert_eq!(scene.nginx.get("/web"), 200));
    let browser = Browser::open(1280, 800);
    let origin = format!("http://127.0.0.1:{}/", scene.agent.port());
    browser.go(&origin);
    browser.until("document.getElementById('headline')?.textContent === 'nothing is wrong'");
    browser.until("document.querySelectorAll('#table tbody tr').length === 2");

    scene.nginx.reload(&with(AFTER));
    scene.gets(8, 502);
    scene.raised("misrouted", AFTER);
    // It is told, nobody loads it again.
    browser.until("document.getElementById('headline').textContent === '1 thing is wrong'");
    assert!(browser.text("#findings li.critical").contains(AFTER));
    let api = row(&browser, "api");
    assert_eq!(
        (&api["State"], &api["Failed"], &api["Causes"]),
        (&"down".into(), &"40%".into(), &"refused 8".into())
    );
    assert_eq!((&api["Old workers"], &api["New workers"]), (&"0 of 12".into(), &"8 of 8".into()));
    let names =
        "[...document.querySelectorAll('#table tbody button')].map((button) => button.textContent).join()";
    assert_eq!(browser.value(names), "api,web", "what is worst comes first");

    // By keyboard alone: to the button that sorts, to the filter, to a row and back.
    let focus = |what: &str| {
        for _ in 0..40 {
            if browser.value(&format!("document.activeElement.matches({})", json!(what))) == true {
                return;
            }
            browser.press("Tab");
        }
        panic!("tab does not lead to {what}");
    };
    focus("[data-sort=rate]");
    browser.press("Enter");
    assert_eq!(browser.value(names), "web,api");
    assert_eq!(browser.value("document.querySelector('th[aria-sort]').textContent"), "Conn/s");
    browser.press("/");
    browser.until("document.activeElement.id === 'filter'");
    browser.types("ap");
    assert_eq!(browser.value(names), "api");
    browser.until("document.getElementById('count').textContent === '1 of 2 are shown'");
    focus("#table tbody button");
    browser.press("Enter");
    browser.until("document.getElementById('detail-name')?.textContent.startsWith('api of ')");
    browser.until("document.activeElement.id === 'detail-name'");
    browser.until("document.querySelector('#detail svg .bad') !== null && document.querySelector('#detail svg .reload') !== null");
    let detail = browser.text("#detail");
    for part in [
        "misrouted",
        "Old workers: 0 of 12 failed; new workers: 8 of 8 failed",
        BEFORE,
        AFTER,
        "proxy_pass http://api",
        "reload accepted",
        "refused",
    ] {
        assert!(detail.contains(part), "{part} is not in {detail}");
    }
    browser.press("Escape");
    browser.until(
        "!document.getElementById('overview').hidden && document.activeElement.dataset.key?.includes('api')",
    );

    browser.press("Enter");
    browser.until("document.activeElement.id === 'detail-name'");
    browser.press("/");
    browser.until("!document.getElementById('overview').hidden && document.activeElement.id === 'filter'");

    // Whatever somebody likes, words are told from what is behind them (WCAG 2.2, 1.4.3).
    for scheme in ["dark", "light"] {
        browser.prefer(scheme);
        let contrasts = browser.value(CONTRASTS);
        assert!(contrasts.as_array().is_some_and(|all| all.len() > 5), "{contrasts}");
        for contrast in contrasts.as_array().into_iter().flatten() {
            assert!(contrast[1].as_f64().is_some_and(|ratio| ratio >= 4.5), "{scheme}: {contrast}");
        }
    }

    // On a phone nothing is wider than the screen.
    browser.resize(390, 844, true);
    browser.until("document.documentElement.scrollWidth <= innerWidth");

    let requests = browser.requests();
    assert!(
        requests.len() > 3 && requests.iter().all(|url| url.starts_with(&origin) || url == "data:,"),
        "{requests:?}"
    );
    assert_eq!(browser.complaints(), [""; 0]);
}

/// Every two seconds something is new: what one is about to click or is on by keyboard is not taken away, in the table and in what is
/// looked into. And what is asked for while it is paused is shown.
#[test]
fn what_is_at_hand_stays_and_a_paused_page_is_looked_into() {
    let scene = with_page(&api(BEFORE));
    scene.gets(2, 502);
    let browser = Browser::open(900, 700);
    browser.go(&format!("http://127.0.0.1:{}/", scene.agent.port()));
    browser.until("document.querySelectorAll('#table tbody tr').length === 1");
    let until_new = || {
        browser.value("window.words = document.getElementById('connection').textContent");
        browser.until("document.getElementById('connection').textContent !== window.words");
    };
    browser.value("(window.kept = document.querySelector('#table tbody .causes')).textContent");
    scene.gets(2, 502);
    browser.until("document.querySelector('#table tbody .causes').textContent === 'refused 4'");
    assert_eq!(browser.value("document.querySelector('#table tbody .causes') === window.kept"), true);

    browser.value("document.querySelector('[data-key]').click()");
    browser.until("document.querySelector('#detail summary') !== null");
    browser.value("(window.kept = document.querySelector('#detail summary')).focus()");
    browser.press("Enter");
    browser.until("document.querySelector('#detail details').open");
    scene.gets(2, 502);
    until_new();
    browser.until("document.querySelector('#chart-words').textContent.startsWith('6 connects')");
    assert_eq!(browser.value("document.activeElement === window.kept"), true);
    assert_eq!(browser.value("document.querySelector('#detail details').open"), true);

    browser.press("Escape");
    browser.until("document.getElementById('detail').hidden");
    browser.value("document.getElementById('pause').click()");
    browser.until("document.getElementById('connection').textContent.startsWith('paused at ')");
    browser.value("document.querySelector('[data-key]').click()");
    browser.until("document.querySelector('#detail svg') !== null");
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn it_is_there_again_after_the_agent_was_restarted() {
    let scene = Lookout::begin(&api(BEFORE));
    let port = scratch::free_port();
    let listen = format!("127.0.0.1:{port}");
    let arguments = ["--process", scene.nginx.name(), "--page"];
    let first = Agent::secured_at(&listen, port, &arguments);
    scene.gets(2, 502);
    let browser = Browser::open(900, 600);
    browser.go(&format!("http://localhost:{port}/"));
    browser.until("document.querySelectorAll('#table tbody tr').length === 1");
    first.signal(Signal::SIGTERM);
    browser
        .until("document.getElementById('connection').textContent.startsWith('the agent does not answer')");
    assert_eq!(row(&browser, "api")["Causes"], "refused 2", "what was known stays");
    drop(first);
    let _second = Agent::secured_at(&listen, port, &arguments);
    scene.gets(3, 502);
    browser.until("document.getElementById('connection').textContent.startsWith('as of ')");
    browser.until("document.querySelector('#table tbody .causes')?.textContent === 'refused 3'");
    assert_eq!(browser.complaints(), [""; 0]);
}

/// Names are whatever somebody wrote into a configuration.
#[test]
fn names_that_are_html_are_text() {
    const NAME: &str = "<img/src=x/onerror=hacked=1>";
    let http = format!(
        "upstream \"evil<b>\u{202e}\" {{ server {BEFORE}; }} {}",
        server(
            "location / { proxy_pass \"http://evil<b>\u{202e}\"; proxy_next_upstream off; } \
             location \"/<img src=x onerror=hacked=1>\" { proxy_pass \"http://evil<b>\u{202e}\"; } \
             location /unix { proxy_pass \"http://unix:/tmp/<img src=x onerror=hacked=1>.sock:/\"; }"
        )
    );
    let scene = with_page(&http);
    scene.gets(3, 502);
    assert_eq!(scene.nginx.get("/unix"), 502);
    let browser = Browser::open(1000, 700);
    browser.go(&format!("http://127.0.0.1:{}/", scene.agent.port()));
    browser.until("document.querySelectorAll('#table tbody tr').length >= 2");
    browser.until("document.querySelectorAll('#findings li').length >= 1");
    let text = browser.text("body");
    assert!(text.contains("evil<b>\\u{202e}") && text.contains("onerror=hacked=1"), "{NAME}: {text}");
    for name in ["evil", "onerror"] {
        browser.value(&format!("[...document.querySelectorAll('[data-key]')].find((one) => one.textContent.includes({})).click()", json!(name)));
        browser.until("document.querySelector('#detail svg') !== null");
        let detail = browser.text("#detail");
        assert!(detail.contains("proxy_pass") && detail.contains("onerror=hacked=1"), "{detail}");
        browser.press("Escape");
        browser.until("document.getElementById('detail').hidden");
    }
    // An address of the page that somebody else made.
    browser.value("location.hash = '#/<img src=x onerror=hacked=1>/%3Cimg src=x onerror=hacked=1%3E'");
    browser
        .until("document.getElementById('detail-name')?.textContent.includes('not connected to any more')");
    assert_eq!(browser.value("document.querySelectorAll('img, b').length"), 0);
    assert_eq!(browser.value("typeof hacked"), "undefined");
    // And if text became a script by mistake, it would not run.
    browser.value("document.body.appendChild(document.createElement('div')).innerHTML = '<img src=x onerror=\"window.hacked=1\">'");
    browser.until("new Promise((done) => setTimeout(() => done(typeof hacked === 'undefined'), 500))");
    assert!(
        browser.complaints().iter().any(|what| what.contains("Content Security Policy")),
        "{:?}",
        browser.complaints()
    );
}

#[test]
fn the_listener_has_the_page_only_where_that_was_asked_for_and_for_names_that_are_its_own() {
    let scene = Lookout::begin(&api(BEFORE));
    let plain = &scene.agent;
    assert!(plain.get("/").body.starts_with("proxytrace: /metrics"), "{}", plain.get("/").body);
    for path in ["/events", "/status", "/records", "/minutes"] {
        assert_eq!(plain.get(path).status, 404, "{path}");
    }
    // The socket always has it.
    let page = plain.ask("/");
    assert!(page.status == 200 && page.body.contains("<title>proxytrace</title>"), "{}", page.body);
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");

    let open = agent(&scene, &["--page", "--page-host", "proxy1.example.com"]);
    let status = |path: &str, host: &str| open.get_with(path, &[("Host", host)]).status;
    for host in ["localhost", "127.0.0.1:9947", "[::1]", "proxy1.example.com"] {
        assert_eq!(status("/", host), 200, "{host}");
        assert_eq!(status("/status", host), 200, "{host}");
    }
    for path in ["/", "/status", "/records", "/minutes", "/routes", "/findings", "/events"] {
        let refused = open.get_with(path, &[("Host", "evil.example")]);
        assert!(refused.status == 421 && refused.body.contains("--page-host"), "{path}: {}", refused.body);
    }
    // Prometheus and probes call it as they like.
    for path in ["/metrics", "/healthz", "/readyz"] {
        assert_eq!(status(path, "proxies.internal"), 200, "{path}");
    }
    assert_eq!(open.get_with("/records?all=1", &[("Host", "localhost")]).status, 403);
}

#[test]
fn whoever_has_no_password_has_no_page() {
    let scene = Lookout::begin(&api(BEFORE));
    let directory = scratch::directory();
    let file = directory.path().join("web.yml");
    fs::write(&file, format!("basic_auth_users: {{alice: {HUNTER2}}}\n")).expect("write web.yml");
    let file = file.to_str().expect("UTF-8");
    let agent = Agent::secured(&["--process", scene.nginx.name(), "--page", "--web-config", file]);
    let right = format!("Basic {}", STANDARD.encode("alice:hunter2"));
    for path in ["/", "/status", "/minutes"] {
        assert_eq!(agent.get(path).status, 401, "{path}");
        assert_eq!(agent.get_with(path, &[("Authorization", &right)]).status, 200, "{path}");
    }
    assert_eq!(agent.get("/events").status, 401);
}

/// One host, one moment, one truth.
#[test]
fn status_top_the_page_and_the_metrics_agree_during_an_outage() {
    let scene = with_page(&api(BEFORE));
    let _backend = Backend::start(&scene.netns, BEFORE, Manner::AnswerAndClose);
    scene.gets(12, 200);
    scene.nginx.reload(&api(AFTER));
    scene.gets(8, 502);
    scene.raised("misrouted", AFTER);

    // Metrics.
    let of = |metric: &str, labels: &[(&str, &str)]| {
        scene.count(metric, &[&[("upstream", "api")], labels].concat())
    };
    let attempts = of("proxytrace_connect_attempts_total", &[]);
    let refused = of("proxytrace_connect_failures_total", &[("cause", "refused")]);
    let failed = of("proxytrace_connect_failures_total", &[]);
    let findings = scene.count("proxytrace_finding_active", &[]);
    assert_eq!((attempts, refused, failed, findings), (20, 8, 8, 1));

    // What `status` says.
    let status: Value =
        serde_json::from_str(&output(scene.agent.asked_by(&["status", "--json"]))).expect("JSON");
    let upstream = &status["upstreams"][0];
    let sum = |member: &str, cause: Option<&str>| -> u64 {
        let counts = upstream["addresses"].as_array().expect("addresses").iter().map(|to| &to["counts"]);
        counts
            .map(|counts| cause.map_or(&counts[member], |cause| &counts[member][cause]).as_u64().unwrap_or(0))
            .sum()
    };
    assert_eq!((sum("attempts", None), sum("failures", Some("refused"))), (attempts, refused));
    let recent = &upstream["recent"];
    assert_eq!(
        (recent["attempts"].as_u64(), recent["failures"]["refused"].as_u64()),
        (Some(attempts), Some(refused))
    );
    assert_eq!(status["findings"].as_array().map(Vec::len), Some(1));
    let sentence = status["findings"][0]["sentence"].as_str().expect("a sentence");
    let part = format!("{}%", 100 * failed / attempts);

    // What `top` shows.
    let top = output(scene.agent.asked_by(&["top", "--once"]));
    let line = top.lines().find(|line| line.starts_with("api ")).expect("a row");
    assert!(line.contains("down") && line.contains(&part), "{top}");
    for words in [
        "1 thing is wrong".to_owned(),
        format!("refused {refused}"),
        format!("new workers: {failed} of {failed} failed"),
    ] {
        assert!(top.contains(&words), "{words}: {top}");
    }

    // What the page shows.
    let browser = Browser::open(1200, 800);
    browser.go(&format!("http://127.0.0.1:{}/", scene.agent.port()));
    browser.until("document.querySelectorAll('#table tbody tr').length === 1");
    let row = row(&browser, "api");
    assert_eq!(
        (&row["State"], &row["Failed"], &row["Causes"]),
        (&upstream["state"], &part.into(), &format!("refused {refused}").into())
    );
    assert_eq!(row["New workers"], format!("{failed} of {failed}"));
    assert_eq!(browser.value("document.querySelector('#findings li').lastChild.textContent"), sentence);
    browser.value("document.querySelector('[data-key]').click()");
    browser.until("document.querySelector('#detail table') !== null");
    let detail = browser.text("#detail");
    assert!(
        detail.contains(&format!("{attempts} connects, {failed} of them went wrong; 1 reload")),
        "{detail}"
    );
}
