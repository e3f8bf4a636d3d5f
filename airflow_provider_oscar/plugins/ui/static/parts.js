// SPDX-License-Identifier: Apache-2.0
// Small parts of the page: elements, words for values, keyed tables that change only where the data did.

export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const focusable = (element) => [...element.querySelectorAll("a[href], button, summary, [tabindex]")];

// Let a change of elements keep the focus: on the same one, or on the one that took its place.
function keepingFocus(before, change) {
  const focused = before.contains(document.activeElement) ? document.activeElement : null;
  const place = focused ? focusable(before).indexOf(focused) : -1;
  const after = change();
  if (place >= 0) (after.contains(focused) ? focused : focusable(after)[place])?.focus({ preventScroll: true });
}

export function replace(element, children) {
  keepingFocus(element, () => {
    element.replaceChildren(...children.flat().filter(Boolean));
    return element;
  });
}

const SVG = "http://www.w3.org/2000/svg";

export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined || Number.isNaN(seconds)) return "–";
  if (seconds > 0 && seconds < 0.1) return `${Math.max(Math.round(seconds * 1000), 1)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.round((seconds % 3600) / 60)} min`;
}

export function bytes(count) {
  if (count === null || count === undefined) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let index = 0;
  let value = count;
  while (value >= 1000 && index < units.length - 1) {
    value /= 1000;
    index += 1;
  }
  return `${index && value < 10 ? value.toFixed(1) : Math.round(value)} ${units[index]}`;
}

export function percent(share) {
  return typeof share === "number"
    ? h("span", { class: "number" }, `${Math.round(share * 100)} %`)
    : h("span", { class: "faint" }, "–");
}

// A cost, in whatever unit the targets' cost_per_hour has.
export function amount(value) {
  if (typeof value !== "number") return h("span", { class: "faint" }, "–");
  const words =
    value === 0 || value >= 0.1
      ? value.toFixed(2)
      : value >= 0.0001
        ? value.toFixed(1 - Math.floor(Math.log10(value)))
        : "< 0.0001";
  return h("span", { class: "number", title: String(value) }, words);
}

// How long ago, in the one unit that tells it: the title has the moment.
export function ago(text, now = Date.now()) {
  if (!text) return "never";
  const seconds = Math.round(Math.max((now - Date.parse(text)) / 1000, 0));
  if (seconds < 2) return "just now";
  if (seconds < 90) return `${seconds} s ago`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h ago`;
  return `${Math.round(seconds / 86400)} days ago`;
}

// A moment as the reader's clock shows it, with its zone: people of several sites read one page.
export const moment = (at) => new Date(at).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "long" });

export function when(text) {
  if (!text) return h("span", { class: "faint" }, "–");
  return h("time", { datetime: text, title: moment(text) }, ago(text));
}

export const counted = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

const WORDS = {
  success: "Succeeded",
  failed: "Failed",
  running: "Running",
  deferred: "Waiting",
  queued: "Queued",
  scheduled: "Scheduled",
  up_for_retry: "Will retry",
  upstream_failed: "Upstream failed",
  up_for_reschedule: "Waiting",
  restarting: "Restarting",
};

export function state(name) {
  if (!name) return h("span", { class: "faint" }, "–");
  return h(
    "span",
    { class: `state state-${name}` },
    h("span", { class: "dot", "aria-hidden": "true" }),
    WORDS[name] ?? name,
  );
}

export function mark(kind, ...words) {
  return h("span", { class: `state state-${kind}` }, h("span", { class: "dot", "aria-hidden": "true" }), ...words);
}

const VERDICTS = {
  proven: "success",
  refuted: "failed",
  observed: "up_for_retry",
  unsigned: "up_for_retry",
  unknown: "queued",
};

// What a result is worth: a manifest that verifies, or the reason why it proves nothing.
export function verdict(proof) {
  if (!proof) return null;
  return h(
    "p",
    { class: `verdict verdict-${proof.state}`, role: proof.state === "refuted" ? "alert" : "note" },
    mark(VERDICTS[proof.state] ?? "queued", h("span", {}, proof.words)),
  );
}

// The steps an object took, on one line, with the time from each to the next.
export function way(steps) {
  const reached = steps.filter((step) => step.state === "done").length;
  let before = null;
  return h(
    "ol",
    { class: "way", "aria-label": `${reached} of ${steps.length} steps done` },
    steps.map((step) => {
      const at = step.at ? Date.parse(step.at) : null;
      const took = at !== null && before !== null ? duration(Math.max((at - before) / 1000, 0)) : "";
      if (at !== null) before = at;
      const words = step.state === "broken" ? ", failed" : step.state === "open" ? ", not yet" : "";
      return h(
        "li",
        { class: step.state, title: at === null ? null : moment(at) },
        h("span", { class: "step" }, step.name, words ? h("span", { class: "unseen" }, words) : null),
        took ? h("span", { class: "took number" }, `+${took}`) : null,
      );
    }),
  );
}

// A URI as people write it; what decodes to control or direction characters stays encoded, since it would lie.
export function readable(uri) {
  try {
    const text = decodeURIComponent(uri);
    return /\p{C}/u.test(text) ? uri : text;
  } catch {
    return uri;
  }
}

// A name that is long in the middle: its start and end stay visible, the whole is in the title and for copying.
export function path(uri) {
  if (!uri) return h("span", { class: "faint" }, "–");
  const text = readable(uri);
  const cut = text.lastIndexOf("/", text.length - 2) + 1;
  return h(
    "span",
    { class: "path", title: uri },
    cut ? h("span", { class: "path-head" }, text.slice(0, cut)) : null,
    h("span", {}, text.slice(cut)),
  );
}

// Airflow shows the page in a frame that may not open windows: its own router goes where the link says.
export function airflowLink(url, ...children) {
  return h(
    "a",
    {
      href: url,
      onclick: (event) => {
        if (window.parent === window || event.metaKey || event.ctrlKey) return;
        event.preventDefault();
        window.parent.history.pushState({}, "", url);
        window.parent.dispatchEvent(new window.parent.PopStateEvent("popstate"));
      },
    },
    ...children,
  );
}

// How long something runs already.
export function runningFor(start) {
  const element = h("span", { class: "number", "data-since": start });
  element.textContent = duration((Date.now() - Date.parse(start)) / 1000);
  return element;
}

// Let what depends on the clock say what is true now, in rows that did not change.
export function tick(root = document) {
  for (const element of root.querySelectorAll("time[datetime]")) {
    const words = ago(element.dateTime);
    if (element.textContent !== words) element.textContent = words;
  }
  for (const element of root.querySelectorAll("[data-since]"))
    element.textContent = duration((Date.now() - Date.parse(element.dataset.since)) / 1000);
}

// Elements of a list that are kept: one is made again only if what it shows changed, so focus, selection and scrolling stay.
export function keyed(parent, make) {
  const known = new Map();
  return (rows) => {
    const seen = new Set();
    let before = parent.firstChild;
    for (const row of rows) {
      seen.add(row.id);
      const text = JSON.stringify(row);
      const old = known.get(row.id);
      let element = old?.element;
      if (!old || old.text !== text) {
        element = make(row);
        if (old) {
          if (before === old.element) before = element;
          keepingFocus(old.element, () => {
            old.element.replaceWith(element);
            return element;
          });
        }
        known.set(row.id, { element, text });
      }
      if (element !== before) parent.insertBefore(element, before);
      else before = before.nextSibling;
    }
    for (const [id, { element }] of known) {
      if (!seen.has(id)) {
        element.remove();
        known.delete(id);
      }
    }
  };
}

// A table whose rows are kept.
export function table(columns, caption) {
  const body = h("tbody");
  const element = h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h(
      "table",
      {},
      h("caption", { class: "unseen" }, caption),
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          columns.map((column) => h("th", { scope: "col", class: column.class }, column.title)),
        ),
      ),
      body,
    ),
  );
  const update = keyed(body, (row) =>
    h(
      "tr",
      {},
      columns.map((column) => h("td", { class: column.class, "data-title": column.title }, column.cell(row))),
    ),
  );
  return { element, update };
}

export function empty(title, ...words) {
  return h("div", { class: "empty" }, h("h2", {}, title), h("p", {}, ...words));
}

export function facts(pairs) {
  return h(
    "dl",
    { class: "facts" },
    pairs
      .filter(([, value]) => value !== null && value !== undefined && value !== "")
      .map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
  );
}

const PHASES = ["queued", "stage-in", "run", "stage-out"];

// Where a job's time went, as one bar.
export function phaseBar(phases) {
  const known = PHASES.filter((name) => typeof phases?.[name] === "number");
  const total = known.reduce((sum, name) => sum + phases[name], 0);
  if (!total) return h("span", { class: "faint" }, "–");
  const words = known.map((name) => `${name} ${duration(phases[name])}`).join(", ");
  const picture = svg("svg", {
    viewBox: "0 0 100 10",
    preserveAspectRatio: "none",
    class: "bar",
    role: "img",
    "aria-label": words,
  });
  let x = 0;
  for (const name of known) {
    const width = (phases[name] / total) * 100;
    picture.append(svg("rect", { x, y: 0, width, height: 10, class: `phase phase-${name}` }));
    x += width;
  }
  return h("span", { class: "phases", title: words }, picture, h("span", { class: "number" }, duration(total)));
}

export function legend() {
  return h(
    "ul",
    { class: "legend", "aria-label": "Colours of the phases" },
    PHASES.map((name) => h("li", {}, h("span", { class: `swatch phase-${name}` }), name)),
  );
}

// Box plots of what jobs took, one panel per phase, one box per target, all on a scale of their own panel.
export function boxPlots(boxes) {
  const targets = [...new Set(boxes.map((box) => box.target))];
  return h(
    "div",
    { class: "plots" },
    PHASES.filter((phase) => boxes.some((box) => box.phase === phase)).map((phase) => {
      const of = new Map(boxes.filter((box) => box.phase === phase).map((box) => [box.target, box]));
      const top = Math.max(...[...of.values()].map((box) => box.max)) || 1;
      const height = targets.length * 34 + 26;
      const scale = (value) => 126 + (value / top) * 180;
      const words = [...of.values()]
        .map(
          (box) =>
            `${box.target}: median ${duration(box.median)}, from ${duration(box.min)} to ${duration(box.max)}, ${counted(box.count, "job")}`,
        )
        .join("; ");
      const picture = svg("svg", {
        viewBox: `0 0 320 ${height}`,
        role: "img",
        "aria-label": `${phase}. ${words}`,
        class: "plot",
      });
      targets.forEach((target, index) => {
        const y = index * 34 + 20;
        const label = svg("text", { x: 118, y: y + 4, class: "plot-label", "text-anchor": "end" });
        label.textContent = target.length > 18 ? `${target.slice(0, 17)}…` : target;
        picture.append(label);
        const box = of.get(target);
        if (!box) return;
        picture.append(
          svg("line", { x1: scale(box.min), x2: scale(box.max), y1: y, y2: y, class: "whisker" }),
          svg("rect", {
            x: scale(box.q1),
            width: Math.max(scale(box.q3) - scale(box.q1), 2),
            y: y - 8,
            height: 16,
            rx: 2,
            class: `box phase-${phase}`,
          }),
          svg("line", { x1: scale(box.median), x2: scale(box.median), y1: y - 8, y2: y + 8, class: "median" }),
        );
      });
      const least = svg("text", { x: 126, y: height - 4, class: "plot-tick" });
      least.textContent = "0";
      const most = svg("text", { x: 306, y: height - 4, class: "plot-tick", "text-anchor": "end" });
      most.textContent = duration(top);
      picture.append(svg("line", { x1: 126, x2: 306, y1: height - 16, y2: height - 16, class: "axis" }), least, most);
      return h("figure", {}, h("figcaption", {}, phase), picture);
    }),
  );
}
