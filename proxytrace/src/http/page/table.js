// The table of upstreams.

const MINUTES = 15;

// More rows than anybody reads would only be slow: the filter finds the rest.
const MAX_ROWS = 250;

const side = (counts) => (counts.attempts ? `${goneWrong(counts)} of ${counts.attempts}` : "-");

// Name, label, what stands there, whether it is a number, how wide screens are that have it, and what has a row of its own on a phone.
const COLUMNS = [
  { name: "upstream", label: "Upstream", small: true },
  { name: "proxy", label: "Proxy", wide: true, row: true, text: (row) => row.of.proxy, kind: "proxy" },
  { name: "state", label: "State", small: true },
  { name: "since", label: "Since", widest: true, text: (row, now) => (row.of.state_since ? clock(row.of.state_since, now) : "-") },
  { name: "rate", label: "Conn/s", number: true, small: true, text: (row) => rate(row.attempts, row.seconds) },
  { name: "failed", label: "Failed", number: true, small: true, text: (row) => percent(row.wrong, row.attempts) },
  { name: "waiting", label: "Waiting", number: true, text: (row) => row.waiting || "-" },
  { name: "resent", label: "Resent", number: true, widest: true, text: (row) => row.resent || "-" },
  { name: "p50", label: "p50", number: true, text: (row) => duration(row.of.connect_p50_us) },
  { name: "p99", label: "p99", number: true, text: (row) => duration(row.of.connect_p99_us) },
  { name: "old", label: "Old workers", number: true, wide: true, text: (row) => (row.of.reload ? side(row.of.reload.old) : "-") },
  { name: "new", label: "New workers", number: true, wide: true, text: (row) => (row.of.reload ? side(row.of.reload.new) : "-") },
  { name: "trend", label: `Last ${MINUTES} min`, row: true },
  { name: "causes", label: "Causes", row: true, text: (row) => causes(row.of.recent), kind: "causes" },
];

const table = {
  sort: "state",
  filter: "",

  // Makes the first row, whose buttons sort.
  begin(changed) {
    const head = document.querySelector("#table thead tr");
    for (const column of COLUMNS) {
      const kinds = [column.number && "number", column.wide && "wide", column.widest && "widest", column.small && "sortable-small"];
      const cell = element("th", { scope: "col", class: kinds.filter(Boolean).join(" ") });
      if (SORTS[column.name]) {
        const button = element("button", { type: "button", "data-sort": column.name }, column.label);
        button.addEventListener("click", () => {
          table.sort = column.name;
          changed();
        });
        cell.append(button);
      } else {
        cell.append(column.label);
      }
      head.append(cell);
    }
    // Rows are used again for others.
    document.querySelector("#table tbody").addEventListener("click", (event) => {
      const key = event.target.closest("[data-key]")?.dataset.key;
      if (key) detail.open(...JSON.parse(key));
    });
  },

  show(status, trend) {
    for (const button of document.querySelectorAll("#table thead button")) {
      const order = ["upstream", "proxy", "state"].includes(table.sort) ? "ascending" : "descending";
      const cell = button.parentElement;
      if (button.dataset.sort === table.sort) cell.setAttribute("aria-sort", order);
      else cell.removeAttribute("aria-sort");
    }
    const all = rowsOf(status);
    const rows = all.filter((row) => passes(row, table.filter));
    rows.sort((one, other) => SORTS[table.sort](one, other) || by((row) => row.key)(one, other));
    const body = document.querySelector("#table tbody");
    const focused = document.activeElement?.dataset?.key;
    renew(body, rows.slice(0, MAX_ROWS).map((row) => tableRow(row, status.time, trend)));
    // Whoever is on a row by keyboard stays there.
    if (focused) [...body.querySelectorAll("[data-key]")].find((button) => button.dataset.key === focused)?.focus();
    const shown = Math.min(rows.length, MAX_ROWS);
    const words = shown < all.length ? `${shown} of ${all.length} are shown` : `${all.length} in all`;
    setText(document.getElementById("count"), all.length ? words : "nothing was connected to yet");
  },
};

function tableRow(row, now, trend) {
  const cells = COLUMNS.map((column) => {
    const kinds = [column.number && "number", column.wide && "wide", column.widest && "widest", column.row && "row", column.kind];
    let inside;
    if (column.name === "upstream") {
      inside = element("button", { type: "button", "data-key": row.key }, row.of.upstream);
      kinds.push("name");
    } else if (column.name === "state") {
      inside = element("span", { class: `state ${STATES[row.state] ?? ""}` }, row.of.state);
    } else if (column.name === "trend") {
      inside = spark(trend.get(row.key) ?? Array(MINUTES).fill(null));
    } else {
      inside = column.text(row, now);
      if (inside === "-" || inside === "") kinds.push("empty");
    }
    return element("td", { class: kinds.filter(Boolean).join(" "), "data-label": column.label }, inside);
  });
  return element("tr", { "data-state": row.of.state }, ...cells);
}

// Only what is new: a screen reader would read it again.
function setText(node, text) {
  const shown = printable(text);
  if (node.textContent !== shown) node.textContent = shown;
}
