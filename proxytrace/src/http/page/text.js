// Text: what others have named is shown, and never obeyed.

// As escape.rs does: what leaves no mark and changes how the rest is read is written as an escape.
const INVISIBLE = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|\udb40[\udc00-\udc7f]/gu;

function printable(text) {
  return String(text).replace(INVISIBLE, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
}

// An element with attributes, and children that are elements or text.
function element(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

const SVG = "http://www.w3.org/2000/svg";

function drawn(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) {
      made.setAttribute(name, value === true ? "" : value);
    }
  }
  made.append(...children.map((child) => (child instanceof Node ? child : printable(child))));
  return made;
}

// Gives `parent` these children, and keeps each node that it can: whoever is on one by keyboard, clicks one or selects its text stays
// there.
function renew(parent, children) {
  const before = [...parent.childNodes];
  children.forEach((fresh, place) => {
    const old = before[place];
    if (!old) parent.append(fresh);
    else if (old.nodeName !== fresh.nodeName) old.replaceWith(fresh);
    else if (!old.isEqualNode(fresh)) {
      if (!(old instanceof Element)) {
        old.data = fresh.data;
        return;
      }
      for (const name of old.getAttributeNames()) {
        // What somebody has opened stays open.
        if (name !== "open" && !fresh.hasAttribute(name)) old.removeAttribute(name);
      }
      for (const { name, value } of fresh.attributes) {
        if (old.getAttribute(name) !== value) old.setAttribute(name, value);
      }
      renew(old, [...fresh.childNodes]);
    }
  });
  before.slice(children.length).forEach((node) => node.remove());
}

// The time of day, or the day where it is another one.
function clock(time, now) {
  const [at, today] = [new Date(time), new Date(now)];
  return at.toDateString() === today.toDateString()
    ? at.toLocaleTimeString("en-GB")
    : at.toLocaleDateString("en-GB", { day: "numeric", month: "short" });
}

function ago(time, now) {
  const seconds = Math.max(0, Math.round((new Date(now) - new Date(time)) / 1000));
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} days`;
}

// As `proxytrace status` writes it.
function duration(us) {
  if (us === undefined || us === null) return "-";
  if (us < 1e3) return `${us} us`;
  if (us < 1e5) return `${(us / 1e3).toFixed(1)} ms`;
  if (us < 1e6) return `${Math.floor(us / 1e3)} ms`;
  if (us < 1e8) return `${(us / 1e6).toFixed(2)} s`;
  return `${Math.floor(us / 1e6)} s`;
}

function rate(count, seconds) {
  if (!count || seconds <= 0) return "-";
  const each = count / seconds;
  return each < 10 ? each.toFixed(2) : each < 100 ? each.toFixed(1) : each.toFixed(0);
}

// Less than all is never 100 %, and some are never none.
function percent(wrong, all) {
  if (!wrong) return "-";
  const whole = Math.max(wrong, all);
  return `${Math.min(Math.max(Math.round((100 * wrong) / whole), 1), wrong < whole ? 99 : 100)}%`;
}
