//! The truth table of the answer, whole: what becomes of requests in each protocol, on fresh and on kept connections. The table is the one
//! of docs/kernel-notes.md, so what stands there is what happens.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::Permissions;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use proxytrace_tests::backend::{Backend, Manner, Next};
use proxytrace_tests::metrics::Metrics;
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{self, Nginx, Options, server};
use proxytrace_tests::speech::Protocol;
use proxytrace_tests::wait::{self, SOON, is_slow, patient};
use proxytrace_tests::{http, scratch, skip};

use crate::lookout::Lookout;

const DOCS: &str = include_str!("../docs/kernel-notes.md");

/// What stands before the table.
const MARK: &str = "<!-- the story `protocols` compares this table with what happens -->\n";

/// nginx's timeouts. What it closes an eighth earlier is a client that leaves, and nginx may be early: it counts from a clock that it
/// reads once a turn, and a machine that is shared stands still for a third of a second.
fn timeout() -> u64 {
    if is_slow() { 10 } else { 4 }
}

/// nginx has that much more time where the processor is emulated. With all that others may take there, a column would take minutes.
fn slowed(time: Duration) -> Duration {
    patient(time).min(time * 5)
}

/// Long enough that nginx is told apart from a client that leaves.
const EARLY: Duration = Duration::from_millis(300);

/// Longer than what is idle may be, in each of the ways in which it ends.
const IDLE: Duration = Duration::from_millis(2500);

/// More than a tick of the kernel's clock, whatever that is.
const TICK: Duration = Duration::from_millis(25);

/// What the table says of what happened, beside causes.
const NOTHING: &str = "-";
const NOT_SEEN: &str = "n";
const UNKNOWN: &str = "?";
const CAUSES: &[(&str, &str)] = &[
    ("C", "closed_before_response"),
    ("R", "reset_before_response"),
    ("T", "response_timeout"),
    ("r", "reset"),
];

/// What happens to a request, or to a connection that is idle.
struct Line {
    what: &'static str,
    /// Of an upstream that has answered so many requests on a connection before.
    manner: fn(u32) -> Manner,
    asked: Asked,
    /// What the client gets.
    status: u16,
    /// Whether the client lacks something.
    is_failure: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// For something.
    Plainly,
    /// With a body of so many bytes.
    With(usize),
    /// And the client leaves.
    AndLeft,
    /// When what is sent does not arrive any more.
    InVain,
    /// Not at all: the connection is idle.
    Nothing,
}

const LINE: Line =
    Line { what: "", manner: |_| Manner::Answer, asked: Asked::Plainly, status: 200, is_failure: false };

/// More than there is room for at an upstream that does not read.
const LARGE: usize = 40_000;
const TOO_LARGE: usize = 400_000;

#[rustfmt::skip]
const LINES: &[Line] = &[
    Line { what: "answered at once", ..LINE },
    Line { what: "answered late", manner: |_| Manner::AnswerAfter(Duration::from_millis(1200)), ..LINE },
    Line { what: "FIN instead of an answer", manner: |n| Manner::AnswerThen(n, Next::Close), status: 502, is_failure: true, ..LINE },
    Line { what: "FIN after TLS has said that it closes", manner: |n| Manner::AnswerThen(n, Next::SayGoodbye), status: 502, is_failure: true, ..LINE },
    Line { what: "RST instead of an answer", manner: |n| Manner::AnswerThen(n, Next::Reset), status: 502, is_failure: true, ..LINE },
    Line { what: "silence, acknowledged; read timeout", manner: |n| Manner::AnswerThen(n, Next::Hold), status: 504, is_failure: true, ..LINE },
    Line { what: "silence, not acknowledged (host gone)", asked: Asked::InVain, status: 504, is_failure: true, ..LINE },
    Line { what: "zero window", manner: |n| Manner::AnswerThen(n, Next::ReadNothing), asked: Asked::With(LARGE), status: 504, is_failure: true },
    Line { what: "the client leaves", manner: |n| Manner::AnswerThen(n, Next::Hold), asked: Asked::AndLeft, status: 0, ..LINE },
    Line { what: "413 before all was asked", manner: |n| Manner::AnswerThen(n, Next::RefuseBody), asked: Asked::With(TOO_LARGE), status: 413, ..LINE },
    Line { what: "RST in the middle of an answer", manner: |n| Manner::AnswerThen(n, Next::BeginThenReset), is_failure: true, ..LINE },
    Line { what: "FIN in the middle of an answer", manner: |n| Manner::AnswerThen(n, Next::BeginThenClose), is_failure: true, ..LINE },
    Line { what: "silence in the middle of an answer", manner: |n| Manner::AnswerThen(n, Next::BeginThenHold), is_failure: true, ..LINE },
    Line { what: "idle, closed by the upstream", manner: |_| Manner::AnswerUntilIdle(slowed(EARLY)), asked: Asked::Nothing, ..LINE },
    Line { what: "idle, reset by the upstream within a second", manner: |_| Manner::ResetWhenIdle(EARLY), asked: Asked::Nothing, ..LINE },
    Line { what: "idle, reset by the upstream later", manner: |_| Manner::ResetWhenIdle(Duration::from_millis(1500)), asked: Asked::Nothing, ..LINE },
    Line { what: "idle, closed by nginx", asked: Asked::Nothing, ..LINE },
];

/// A column of the table.
struct Column {
    name: &'static str,
    protocol: Protocol,
    way: Way,
    /// What a location has, where `{upstream}` is the upstream.
    location: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Tcp,
    /// The same, and sessions of TLS are resumed.
    Resumed,
    Unix,
    Stream,
}

const HTTP: &str = "proxy_pass http://{upstream};";
const TLS: &str = "proxy_ssl_protocols TLSv1.2 TLSv1.3; proxy_pass https://{upstream};";

#[rustfmt::skip]
const HTTP_COLUMN: Column = Column { name: "HTTP/1.1", protocol: Protocol::Http, way: Way::Tcp, location: HTTP };
const FASTCGI_COLUMN: Column = Column {
    name: "FastCGI",
    protocol: Protocol::FastCgi,
    location: "fastcgi_keep_conn on; fastcgi_param REQUEST_METHOD $request_method; fastcgi_pass {upstream};",
    ..HTTP_COLUMN
};
const TLS_1_2_COLUMN: Column =
    Column { name: "TLS 1.2", protocol: Protocol::Tls12, location: TLS, ..HTTP_COLUMN };
const TLS_1_3_COLUMN: Column =
    Column { name: "TLS 1.3", protocol: Protocol::Tls13, location: TLS, ..HTTP_COLUMN };
const GRPC_COLUMN: Column = Column {
    name: "gRPC",
    protocol: Protocol::Http2,
    location: "grpc_pass grpc://{upstream};",
    ..HTTP_COLUMN
};
const UPGRADE_COLUMN: Column = Column {
    name: "`Upgrade`",
    location: "proxy_set_header Upgrade $http_upgrade; proxy_pass http://{upstream};",
    ..HTTP_COLUMN
};

macro_rules! columns {
    ($($name:ident: $column:expr;)+) => {$(
        #[test]
        fn $name() {
            play(&$column);
        }
    )+};
}

columns! {
    http: HTTP_COLUMN;
    fastcgi: FASTCGI_COLUMN;
    tls_1_2: TLS_1_2_COLUMN;
    tls_1_2_resumed: Column { way: Way::Resumed, ..TLS_1_2_COLUMN };
    tls_1_3: TLS_1_3_COLUMN;
    tls_1_3_resumed: Column { way: Way::Resumed, ..TLS_1_3_COLUMN };
    grpc: GRPC_COLUMN;
    a_route_that_upgrades: UPGRADE_COLUMN;
    stream: Column { name: "`stream`", way: Way::Stream, ..HTTP_COLUMN };
    unix: Column { name: "unix", way: Way::Unix, ..HTTP_COLUMN };
}

/// One of the column's, to be played.
struct Cell {
    line: &'static Line,
    is_kept: bool,
    expected: String,
    upstream: String,
    /// As nginx has it, and where a [`Backend`] listens.
    address: String,
}

#[track_caller]
fn play(column: &Column) {
    let is_tls = matches!(column.protocol, Protocol::Tls12 | Protocol::Tls13);
    if (is_tls && !skip::unless_installed("openssl"))
        || (column.way == Way::Stream && !skip::unless_installed(&nginx::module("ngx_stream_module")))
    {
        return;
    }
    let directory = scratch::directory();
    std::fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).expect("open it to nginx");
    let cells = cells(column, directory.path());
    let scene = begin(column, &cells);
    let gone = Mutex::new(BTreeSet::new());
    thread::scope(|scope| {
        for cell in &cells {
            let (netns, nginx) = (&scene.netns, &scene.nginx);
            let gone = &gone;
            scope.spawn(move || cell.play(column, netns, nginx, gone));
        }
    });
    // What a look has found waiting is seen to end by the next.
    wait::until_true("nothing to wait", SOON, || scene.count("proxytrace_requests_unanswered", &[]) == 0);
    let metrics = scene.agent.metrics();
    let mut wrong = String::new();
    let (mut least, mut perhaps) = (0, 0);
    for cell in &cells {
        let mut sign = cell.seen(&metrics, scene.nginx.name());
        if cell.expected.contains(UNKNOWN) && (sign == NOTHING || sign == NOT_SEEN) {
            // By a cell's own counts it cannot be told from what is counted nowhere, where that may be as well.
            if cell.expected.contains(&sign) {
                perhaps += 1;
            } else {
                least += 1;
                sign = UNKNOWN.to_owned();
            }
        }
        if !cell.expected.contains(&sign) {
            let age = if cell.is_kept { "kept" } else { "fresh" };
            let (what, address, expected) = (cell.line.what, &cell.address, &cell.expected);
            let _ = writeln!(wrong, "{what}, {age}, {address}: {sign}, and not {expected}");
        }
    }
    if !wrong.is_empty() {
        let records: Vec<_> = std::iter::from_fn(|| scene.trace.within(Duration::ZERO)).collect();
        // What is wrong comes last: it is what is kept of an output that is too long.
        panic!(
            "{records:#?}\nnginx says: {}\n{}, by docs/kernel-notes.md:\n{wrong}",
            scene.nginx.error_log(),
            column.name,
        );
    }
    let unknown = metrics.count("proxytrace_untracked_total", &[("why", "answer_order_unknown")]);
    assert!(
        (least..=least + perhaps).contains(&unknown),
        "{}: it is not known {unknown} times, and not {least} to {}",
        column.name,
        least + perhaps
    );
}

/// Those of a column that the table has.
fn cells(column: &Column, directory: &Path) -> Vec<Cell> {
    let table = table(column.name);
    let lines = LINES.iter().flat_map(|line| [(line, false), (line, true)]);
    let cells = lines.filter_map(|(line, is_kept)| {
        let expected = table.get(&(line.what.to_owned(), is_kept))?;
        Some((line, is_kept, expected.clone()))
    });
    let cells: Vec<Cell> = cells
        .enumerate()
        .map(|(n, (line, is_kept, expected))| {
            let address = if column.way == Way::Unix {
                format!("unix:{}", directory.join(n.to_string()).display())
            } else {
                format!("127.0.0.1:{}", 9100 + n)
            };
            Cell { line, is_kept, expected, upstream: format!("u{n}"), address }
        })
        .collect();
    assert!(cells.len() > 10, "the table has too little of {}", column.name);
    cells
}

/// A column of the table in the documentation: by what happens, and whether on a kept connection.
fn table(column: &str) -> BTreeMap<(String, bool), String> {
    let (_, table) = DOCS.split_once(MARK).expect("the mark of the table");
    let mut rows = table
        .lines()
        .take_while(|row| row.starts_with('|'))
        .map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>());
    let head = rows.next().expect("a head");
    let at = head.iter().position(|cell| cell == column).unwrap_or_else(|| panic!("no column {column}"));
    let rows = rows.skip(1).map(|row| ((row[0].clone(), row[1] == "kept"), row[at].clone()));
    rows.filter(|(_, cell)| !cell.is_empty()).collect()
}

fn begin(column: &Column, cells: &[Cell]) -> Lookout {
    let (mut blocks, mut locations) = (String::new(), String::new());
    for Cell { upstream, address, is_kept, .. } in cells {
        let keepalive = match (column.way, is_kept) {
            (Way::Stream, _) => String::new(),
            (_, true) => {
                format!("keepalive 4; keepalive_timeout {}s;", slowed(Duration::from_secs(2)).as_secs())
            }
            (_, false) if nginx::keeps_by_default() => "keepalive 0;".to_owned(),
            (_, false) => String::new(),
        };
        let _ = writeln!(blocks, "upstream {upstream} {{ server {address}; {keepalive} }}");
        let location = column.location.replace("{upstream}", upstream);
        let _ = if column.way == Way::Stream {
            writeln!(locations, "server {{ listen unix:{{dir}}/{upstream}; proxy_pass {upstream}; }}")
        } else {
            writeln!(locations, "location = /{upstream} {{ proxy_set_header Connection ''; {location} }}")
        };
    }
    let timeouts = ["proxy", "fastcgi", "grpc"].map(|module| {
        let timeouts =
            ["connect", "send", "read"].map(|what| format!("{module}_{what}_timeout {}s; ", timeout()));
        timeouts.concat() + &format!("{module}_next_upstream off;\n")
    });
    let scene = if column.way == Way::Stream {
        let main = format!(
            "load_module {};\nstream {{ proxy_timeout {}s; {blocks} {locations} }}",
            nginx::module("ngx_stream_module"),
            timeout()
        );
        Lookout::of(
            Netns::new(),
            |netns| Nginx::with(Options { main, ..Options::default() }, netns, &server("")),
            &[],
        )
    } else {
        let http = format!("{} proxy_http_version 1.1; {locations}", timeouts.concat());
        Lookout::begin(&format!("{blocks} {}", server(&http)))
    };
    // Until the configuration is known it is not known either what it means that a connection ends.
    thread::sleep(patient(EARLY));
    scene
}

impl Cell {
    fn play(&self, column: &Column, netns: &Netns, nginx: &Nginx, gone: &Mutex<BTreeSet<u16>>) {
        let start = |manner| match self.address.strip_prefix("unix:") {
            Some(path) => Backend::unix(Path::new(path), manner),
            None => Backend::speaking(column.protocol, netns, &self.address, manner),
        };
        if column.way == Way::Resumed {
            let _backend = start(Manner::AnswerAndClose);
            assert_eq!(Client::new(column, &self.upstream, nginx).ask(0), 200, "{}", self.of(nginx));
        }
        let backend = start((self.line.manner)(self.is_kept.into()));
        let mut client = Client::new(column, &self.upstream, nginx);
        if self.is_kept {
            assert_eq!(client.ask(0), 200, "{}", self.of(nginx));
            thread::sleep(TICK);
        }
        let status = match self.line.asked {
            Asked::Plainly => client.ask(0),
            Asked::With(bytes) => client.ask(bytes),
            Asked::AndLeft => {
                client.begin(0);
                thread::sleep(EARLY);
                0
            }
            Asked::InVain => {
                self.cut(netns, &mut gone.lock().expect("what is gone"));
                client.ask(0)
            }
            Asked::Nothing => {
                thread::sleep(slowed(IDLE));
                200
            }
        };
        drop(client);
        assert!(!self.is_kept || backend.accepted() == 1, "it was not kept: {}", self.of(nginx));
        // How an end is told to a client of `stream`, and what HTTP/2 says in a header, is not what this is about.
        let is_told = column.way != Way::Stream && column.protocol != Protocol::Http2;
        assert!(!is_told || status == self.line.status, "{status}: {}", self.of(nginx));
        // What nginx keeps is idle then, and it closes it.
        thread::sleep(slowed(IDLE));
        drop(backend);
    }

    /// What it is, and what nginx has said of it.
    fn of(&self, nginx: &Nginx) -> String {
        let (log, path) = (nginx.error_log(), format!(" /{} ", self.upstream));
        let said: Vec<_> = log.lines().filter(|line| line.contains(&path)).collect();
        format!("{} (kept: {}); nginx says: {said:#?}", self.line.what, self.is_kept)
    }

    /// From now on no data arrives there, and none from there: what the request was to acknowledge would be sent again, and heard.
    fn cut(&self, netns: &Netns, gone: &mut BTreeSet<u16>) {
        gone.insert(self.address.parse::<SocketAddr>().expect("an address").port());
        let ports = gone.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
        // The handshake does, which has no more than headers.
        let to_and_from =
            ["dport", "sport"].map(|side| format!("tcp {side} {{ {ports} }} ip length > 60 drop"));
        netns.firewall(&to_and_from.join("\n"));
    }

    /// As the table says it.
    fn seen(&self, metrics: &Metrics, proxy: &str) -> String {
        let count = |cause: Option<&str>| {
            let mut labels = vec![("proxy", proxy), ("address", &*self.address)];
            labels.extend(cause.map(|cause| ("cause", cause)));
            metrics.count("proxytrace_connections_broken_total", &labels)
        };
        let causes: Vec<_> = CAUSES.iter().filter(|(_, cause)| count(Some(cause)) == 1).collect();
        match *causes.as_slice() {
            [(letter, _)] if count(None) == 1 => (*letter).to_owned(),
            [] if count(None) == 0 => if self.line.is_failure { NOT_SEEN } else { NOTHING }.to_owned(),
            _ => format!("{} broken: {causes:?}", count(None)),
        }
    }
}

/// Who asks: on a connection for each request, or where connections are passed on, on one.
struct Client<'a> {
    nginx: &'a Nginx,
    path: &'a str,
    stream: Option<UnixStream>,
    last: Option<UnixStream>,
}

impl<'a> Client<'a> {
    fn new(column: &Column, upstream: &'a str, nginx: &'a Nginx) -> Self {
        let stream = (column.way == Way::Stream).then(|| nginx.connect_to(upstream));
        Self { nginx, path: upstream, stream, last: None }
    }

    /// Asks with a body of so many bytes.
    fn begin(&mut self, bytes: usize) {
        let mut one = self.stream.as_ref().map_or_else(|| self.nginx.connect(), clone);
        let body = "x".repeat(bytes);
        let head = format!("POST /{} HTTP/1.0\r\nHost: test\r\nContent-Length: {bytes}\r\n\r\n", self.path);
        // It may be answered, or closed, before all is sent.
        let _ = one.write_all((head + &body).as_bytes());
        self.last = Some(one);
    }

    /// The same, and gives the status of the answer: 0 for none.
    fn ask(&mut self, bytes: usize) -> u16 {
        self.begin(bytes);
        let Some(mut one) = self.last.take() else { return 0 };
        if self.stream.is_none() {
            return http::try_answer(&mut one).map_or(0, |answer| answer.status);
        }
        let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
        while !answer.ends_with(b"\n\r\nok\n") {
            match one.read(&mut buffer) {
                Ok(0) | Err(_) => return 0,
                Ok(read) => answer.extend_from_slice(&buffer[..read]),
            }
        }
        200
    }
}

fn clone(stream: &UnixStream) -> UnixStream {
    stream.try_clone().expect("share a connection")
}
