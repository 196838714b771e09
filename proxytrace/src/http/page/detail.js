// One upstream: its history, addresses, routes and last records.

const HOUR = 60;

const MAX_RECORDS = 100;

const detail = {
  // Which, as [proxy, upstream]; null for none.
  of: null,
  // What was fetched of it.
  known: null,

  open(proxy, upstream) {
    location.hash = `#/${encodeURIComponent(proxy)}/${encodeURIComponent(upstream)}`;
  },

  close() {
    location.hash = "#/";
  },

  // What the address of the page asks for.
  read() {
    const parts = location.hash.startsWith("#/") ? location.hash.slice(2).split("/") : [];
    let of = null;
    try {
      of = parts.length === 2 ? parts.map(decodeURIComponent) : null;
    } catch {
      // No address that we made.
    }
    const before = detail.of;
    detail.of = of;
    if (JSON.stringify(of) !== JSON.stringify(before)) detail.known = null;
    document.getElementById("overview").hidden = Boolean(of);
    document.getElementById("proxies").hidden = Boolean(of);
    document.getElementById("detail").hidden = !of;
    return before;
  },

  async fetch(now) {
    const of = detail.of;
    if (!of) return;
    const [proxy, upstream] = of;
    const [minutes, records, status, routes] = await Promise.all([
      lines(`/minutes?since=${since(now, HOUR)}`),
      lines(`/records?since=${since(now, HOUR)}`),
      fetch("/status", { cache: "no-store" }).then((answer) => answer.json()),
      fetch("/routes", { cache: "no-store" }).then((answer) => (answer.ok ? answer.json() : [])),
    ]);
    if (detail.of !== of) return;
    const own = status.upstreams.find((one) => one.proxy === proxy && one.upstream === upstream);
    const names = upstream.split(",");
    detail.known = {
      cells: trends(minutes, now, HOUR).get(keyOf(proxy, upstream)) ?? Array(HOUR).fill(null),
      reloads: records.filter((record) => record.kind === "reload" && record.proxy === proxy),
      records: records.filter((record) => record.proxy === proxy && (record.upstream === upstream || record.kind === "reload")),
      addresses: own?.addresses ?? [],
      routes: routes
        .filter((view) => view.proxy === proxy)
        .flatMap((view) => view.routes.filter((route) => route.upstreams.some((at) => names.includes(view.upstreams[at]?.name)))),
    };
  },

  show(status) {
    const section = document.getElementById("detail");
    if (!detail.of) {
      section.replaceChildren();
      return;
    }
    const [proxy, upstream] = detail.of;
    const own = status.upstreams.find((one) => one.proxy === proxy && one.upstream === upstream);
    if (!section.firstChild) {
      const back = element("button", { type: "button", id: "back" }, "Back to all upstreams");
      back.addEventListener("click", detail.close);
      section.append(back, element("h2", { id: "detail-name", tabindex: "-1" }), element("div", { id: "detail-body" }));
    }
    const since = own?.state_since ? ` since ${clock(own.state_since, status.time)}` : "";
    setText(document.getElementById("detail-name"), `${upstream} of ${proxy}: ${own ? own.state + since : "not connected to any more"}`);
    renew(document.getElementById("detail-body"), detailParts(own, status));
  },
};

function detailParts(own, status) {
  const [proxy, upstream] = detail.of;
  const parts = [];
  const findings = status.findings.filter((finding) => isAbout(finding, proxy, [upstream, ...(own?.shares ?? [])]));
  if (findings.length) parts.push(element("ul", { class: "findings" }, ...findings.map(findingItem)));
  if (own?.reload) {
    const { old, new: newest } = own.reload;
    const of = (counts) => `${goneWrong(counts)} of ${counts.attempts ?? 0} failed`;
    parts.push(element("p", {}, `Old workers: ${of(old)}; new workers: ${of(newest)}.`));
  }
  if (!detail.known) return [...parts, element("p", {}, "asks the agent for its history")];
  const { cells, reloads, records, addresses, routes } = detail.known;
  const wrong = cells.reduce((all, cell) => all + (cell?.wrong ?? 0), 0);
  const tried = cells.reduce((all, cell) => all + (cell?.attempts ?? 0), 0);
  parts.push(element("h3", {}, "The last hour"));
  parts.push(element("p", { id: "chart-words" }, `${tried} connects, ${wrong} of them went wrong; ${reloads.length} ${reloads.length === 1 ? "reload" : "reloads"}`));
  parts.push(history(cells, reloads, status.time));
  parts.push(element("p", { class: "legend" }, "Below in red what went wrong, above what went well; broken lines are reloads."));
  parts.push(minutesTable(cells, status.time));
  parts.push(element("h3", {}, "Addresses"), addressTable(addresses));
  parts.push(element("h3", {}, "Routes that lead there"));
  parts.push(list(routes.map(routeWords), "none that is known"));
  parts.push(element("h3", {}, "Last records, the newest first"));
  parts.push(list(records.reverse().slice(0, MAX_RECORDS).map((record) => recordWords(record, status.time)), "nothing happened in the last hour"));
  records.reverse();
  return parts;
}

function minutesTable(cells, now) {
  const last = Math.floor(new Date(now) / 60000);
  const rows = cells.flatMap((cell, place) => {
    if (!cell) return [];
    const time = new Date((last - cells.length + 1 + place) * 60000).toLocaleTimeString("en-GB").slice(0, 5);
    return [[time, cell.attempts, cell.wrong]];
  });
  return element("details", {}, element("summary", {}, "The same as a table"), grid(["Minute", "Connects", "Failed"], rows));
}

function addressTable(addresses) {
  const rows = addresses.map((to) => {
    const words = [!to.declared && "no line of the configuration names it", causes(to.counts)];
    return [to.address, to.counts.attempts ?? 0, to.counts.established ?? 0, goneWrong(to.counts), words.filter(Boolean).join("; ")];
  });
  return grid(["Address", "Connects", "Succeeded", "Failed", "Causes"], rows);
}

function grid(titles, rows) {
  const cell = (name) => (text, place) => element(name, typeof rows[0]?.[place] === "number" ? { class: "number" } : {}, text);
  const head = element("thead", {}, element("tr", {}, ...titles.map((title, place) => cell("th")(title, place))));
  const body = element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map(cell("td")))));
  return element("div", { class: "scroll", tabindex: "0" }, element("table", {}, head, body));
}

function list(lines, otherwise) {
  const items = (lines.length ? lines : [otherwise]).map((line) => element("li", {}, line));
  return element("ul", { class: "lines" }, ...items);
}

function routeWords(route) {
  const server = [...route.server_names, ...route.listen].join(" ") || "-";
  return `${server} ${route.location.join(" ")}  ${route.directive} ${route.target}  ${route.place}`;
}

function recordWords(record, now) {
  const what = record.kind === "reload" ? `reload ${record.result ?? "accepted"}`
    : record.kind === "finding" ? `${record.state}: ${record.sentence ?? record.finding}`
    : record.cause ?? record.outcome ?? record.kind;
  const times = record.times > 1 ? `×${record.times} until ${clock(record.until, now)}` : "";
  const took = record.duration_us === undefined ? "" : `after ${duration(record.duration_us)}`;
  return [clock(record.time, now), what, record.kind === "finding" ? "" : record.address, took, times].filter(Boolean).join("  ");
}
