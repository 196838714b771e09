// What the agent says, as rows and sums.

const sum = (counts) => Object.values(counts ?? {}).reduce((all, one) => all + one, 0);

// Attempts that failed, and connections that broke.
const goneWrong = (counts) => sum(counts.failures) + sum(counts.broken);

// The causes that happened, the most frequent first.
function causes(counts) {
  const all = [...Object.entries(counts.failures ?? {}), ...Object.entries(counts.broken ?? {})];
  all.sort((one, other) => other[1] - one[1]);
  return all.map(([name, count]) => `${name} ${count}`).join(", ");
}

// A key for an upstream of a proxy.
const keyOf = (proxy, upstream) => JSON.stringify([proxy, upstream]);

const STATES = ["down", "failing", "ok", "quiet"];

function rowsOf(status) {
  const seconds = (new Date(status.time) - new Date(status.recent_since)) / 1000;
  // What is counted in a row of several upstreams has none of its own.
  return status.upstreams.filter((of) => !of.all_shared).map((of) => ({
    key: keyOf(of.proxy, of.upstream),
    of,
    state: STATES.indexOf(of.state),
    attempts: of.recent.attempts ?? 0,
    wrong: goneWrong(of.recent),
    waiting: of.waiting?.connections ?? 0,
    resent: of.recent.syn_retransmits ?? 0,
    seconds,
  }));
}

const by = (value) => (one, other) => {
  const [a, b] = [value(one), value(other)];
  return a < b ? -1 : a > b ? 1 : 0;
};
const most = (value) => by((row) => -(value(row) ?? -1));

// What rows can be sorted by; the first is how it begins.
const SORTS = {
  state: (one, other) => one.state - other.state || other.wrong - one.wrong || other.waiting - one.waiting || other.attempts - one.attempts,
  upstream: by((row) => row.of.upstream),
  proxy: by((row) => row.of.proxy),
  rate: most((row) => row.attempts),
  failed: most((row) => row.wrong),
  waiting: most((row) => row.waiting),
  resent: most((row) => row.resent),
  p50: most((row) => row.of.connect_p50_us),
  p99: most((row) => row.of.connect_p99_us),
};

function passes(row, filter) {
  const words = filter.toLowerCase();
  return [row.of.upstream, row.of.proxy, row.of.state].some((text) => text.toLowerCase().includes(words));
}

// Whether a finding is about one of these upstreams, or about one among others.
const isAbout = (finding, proxy, upstreams) =>
  finding.proxy === proxy && [finding.upstream, ...(finding.evidence.upstreams ?? [])].some((name) => upstreams.includes(name));

const isWrong = (finding) => finding.severity !== "info";

// Lines of JSON; what a newer agent says that is not understood is left out.
async function lines(path) {
  const answer = await fetch(path, { cache: "no-store" });
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  const text = await answer.text();
  return text.split("\n").filter(Boolean).flatMap((line) => {
    try {
      return [JSON.parse(line)];
    } catch {
      return [];
    }
  });
}

const since = (now, minutes) => new Date(new Date(now) - minutes * 60000).toISOString();

// Of each upstream, what was counted in each of the last minutes, the newest last; null where nothing was.
function trends(minutes, now, count) {
  const last = Math.floor(new Date(now) / 60000);
  const trends = new Map();
  for (const minute of minutes) {
    const place = count - 1 - (last - Math.floor(new Date(minute.time) / 60000));
    if (place < 0 || place >= count) continue;
    const key = keyOf(minute.proxy, minute.upstream);
    const cells = trends.get(key) ?? Array(count).fill(null);
    const cell = cells[place] ?? { attempts: 0, wrong: 0 };
    cells[place] = { attempts: cell.attempts + (minute.attempts ?? 0), wrong: cell.wrong + goneWrong(minute) };
    trends.set(key, cells);
  }
  return trends;
}
