// Charts. Whatever they show, words say as well.

// Which part went wrong in each minute.
function spark(cells) {
  const width = 6;
  const height = 18;
  const bars = cells.flatMap((cell, place) => {
    if (!cell || cell.attempts + cell.wrong === 0) return [];
    const part = cell.wrong / Math.max(cell.attempts, cell.wrong);
    const high = cell.wrong ? Math.max(3, part * height) : 2;
    const attributes = { x: place * width, y: height - high, width: width - 1, height: high, class: cell.wrong ? "bad" : "good" };
    return [drawn("rect", attributes)];
  });
  const wrong = cells.filter((cell) => cell?.wrong).length;
  const label = wrong ? `failures in ${wrong} of the last ${cells.length} minutes` : `no failure in the last ${cells.length} minutes`;
  return drawn("svg", { width: cells.length * width, height, role: "img", "aria-label": label }, ...bars);
}

// One hour of an upstream: what succeeded and what went wrong, and reloads on the axis of time.
function history(cells, reloads, now) {
  const [width, height, top, left] = [900, 180, 18, 46];
  const step = (width - left) / cells.length;
  const last = Math.floor(new Date(now) / 60000);
  const highest = Math.max(1, ...cells.map((cell) => (cell ? Math.max(cell.attempts, cell.wrong) : 0)));
  const scale = (height - top) / highest;
  const chart = drawn("svg", { viewBox: `0 0 ${width} ${height + 40}`, class: "chart", role: "img", "aria-labelledby": "chart-words" });
  cells.forEach((cell, place) => {
    if (!cell) return;
    const x = left + place * step;
    const wrong = cell.wrong * scale;
    const good = Math.max(0, cell.attempts - cell.wrong) * scale;
    const bar = (y, high, kind) => drawn("rect", { x, y, width: Math.max(1, step - 2), height: high, class: kind });
    if (good > 0) chart.append(bar(height - wrong - good, good, "good"));
    if (wrong > 0) chart.append(bar(height - wrong, wrong, "bad"));
  });
  chart.append(drawn("line", { x1: left, y1: height, x2: width, y2: height, class: "axis" }));
  chart.append(drawn("text", { x: 0, y: top }, `${highest}/min`), drawn("text", { x: 0, y: height }, "0"));
  for (let minute = 0; minute <= cells.length; minute += 15) {
    const time = new Date((last - cells.length + 1 + minute) * 60000).toLocaleTimeString("en-GB").slice(0, 5);
    const x = Math.min(left + minute * step, width - 36);
    chart.append(drawn("text", { x, y: height + 16 }, time));
  }
  for (const reload of reloads) {
    const x = left + (new Date(reload.time) / 60000 - (last - cells.length + 1)) * step;
    if (x < left) continue;
    chart.append(drawn("line", { x1: x, y1: 0, x2: x, y2: height + 22, class: "reload" }));
    chart.append(drawn("text", { x: Math.min(x, width - 50), y: height + 34 }, reload.result === "rejected" ? "rejected" : "reload"));
  }
  return chart;
}
