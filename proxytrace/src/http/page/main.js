// Follows the agent, and shows what it says.

// The newest that was told, and what is on the screen: another one while it is paused.
let told = null;
let shown = null;
let isPaused = false;
let minutes = new Map();
// Whether the filter is to be at hand once all upstreams are shown.
let wantsFilter = false;

const SELDOM = 10000;

function findingItem(finding) {
  const seen = finding.seen
    ? ` (As the agent saw it until ${clock(finding.seen, finding.seen)}, before it was restarted; nothing to the contrary was seen since.)`
    : "";
  return element("li", { class: finding.severity }, element("span", { class: "severity" }, finding.severity), finding.sentence + seen);
}

function proxyItem(proxy, now) {
  const old = proxy.old_workers ? `, ${proxy.old_workers} of them of an earlier configuration` : "";
  const reloaded = proxy.reloaded ? `reloaded ${clock(proxy.reloaded, now)} (${ago(proxy.reloaded, now)} ago)` : "no reload was seen";
  const more = [proxy.rejected && `, ${proxy.rejected} reloads rejected`, proxy.crashes && `, ${proxy.crashes} workers crashed`];
  const workers = proxy.workers === 1 ? "1 worker" : `${proxy.workers} workers`;
  const words = ` ${workers}${old}; ${reloaded}${more.filter(Boolean).join("")}`;
  return element("li", {}, element("strong", {}, proxy.proxy), words);
}

function show() {
  if (!shown) return;
  const wrong = shown.findings.filter(isWrong).length;
  const state = wrong === 0 ? (shown.started === false ? "not all is known yet" : shown.proxies.length ? "nothing is wrong" : "no proxy runs")
    : wrong === 1 ? "1 thing is wrong" : `${wrong} things are wrong`;
  setText(document.getElementById("headline"), state);
  document.title = wrong ? `(${wrong}) proxytrace` : "proxytrace";
  const findings = document.getElementById("findings");
  findings.hidden = shown.findings.length === 0 || Boolean(detail.of);
  renew(findings.firstElementChild, shown.findings.map(findingItem));
  renew(document.querySelector("#proxies ul"), shown.proxies.map((proxy) => proxyItem(proxy, shown.time)));
  if (detail.of) detail.show(shown);
  else table.show(shown, minutes);
}

// Whether what is on the screen is what is.
function note(words, isLost) {
  const connection = document.getElementById("connection");
  connection.classList.toggle("lost", isLost);
  setText(connection, words);
}

function take(status) {
  told = status;
  if (!isPaused) shown = status;
  note(isPaused ? `paused at ${clock(shown.time, shown.time)}` : `as of ${clock(status.time, status.time)}; the agent watches since ${clock(status.since, status.time)}`, isPaused);
  show();
}

function follow() {
  const events = new EventSource("/events");
  events.addEventListener("status", (event) => take(JSON.parse(event.data)));
  events.addEventListener("trouble", (event) => note(event.data, true));
  events.addEventListener("error", () => {
    note("the agent does not answer; what is shown is old. Asks again", true);
    // Where it answered with an error, the browser would not.
    if (events.readyState === EventSource.CLOSED) setTimeout(follow, 2000);
  });
}

// What is asked for now and then. What cannot be had now is there the next time.
async function fetchMore() {
  if (!told) return;
  try {
    // What was asked for while it is paused is shown, once.
    if (isPaused && (!detail.of || detail.known)) return;
    if (detail.of) await detail.fetch(told.time);
    else minutes = trends(await lines(`/minutes?since=${since(told.time, MINUTES)}`), told.time, MINUTES);
  } catch {
    return;
  }
  show();
}

function moved() {
  const before = detail.read();
  document.getElementById("detail").replaceChildren();
  show();
  if (detail.of) {
    document.getElementById("detail-name")?.focus();
  } else if (wantsFilter) {
    wantsFilter = false;
    document.getElementById("filter").focus();
  } else if (before) {
    const key = keyOf(...before);
    [...document.querySelectorAll("[data-key]")].find((button) => button.dataset.key === key)?.focus();
  }
  fetchMore();
}

document.getElementById("filter").addEventListener("input", (event) => {
  table.filter = event.target.value;
  show();
});

document.getElementById("pause").addEventListener("click", (event) => {
  isPaused = !isPaused;
  event.target.setAttribute("aria-pressed", String(isPaused));
  if (told) take(told);
});

document.addEventListener("keydown", (event) => {
  const isTyping = event.target instanceof HTMLInputElement;
  if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    wantsFilter = Boolean(detail.of);
    if (wantsFilter) detail.close();
    else document.getElementById("filter").focus();
  } else if (event.key === "Escape" && isTyping) {
    event.target.value = "";
    table.filter = "";
    event.target.blur();
    show();
  } else if (event.key === "Escape" && detail.of) {
    detail.close();
  }
});

table.begin(show);
window.addEventListener("hashchange", moved);
moved();
follow();
setInterval(fetchMore, SELDOM);
// The first minutes as soon as anything is known.
const first = setInterval(() => {
  if (!told) return;
  clearInterval(first);
  fetchMore();
}, 200);
