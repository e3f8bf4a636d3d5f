// SPDX-License-Identifier: Apache-2.0
// The page: five views over the JSON of /oscar/ui/api, looked at again every few seconds while they are seen.

import { h, tick } from "./parts.js";
import { PARAMETERS, TASK } from "./selection.js";
import { flowView } from "./flow.js";
import { healthView } from "./health.js";
import { jobsView } from "./jobs.js";
import { placementsView } from "./placements.js";
import { resultsView } from "./results.js";

const EVERY = 5000;

const panel = document.getElementById("panel");
const live = document.getElementById("live");
const liveText = document.getElementById("live-text");

function follow(theme) {
  const dark = theme === "dark" || (theme !== "light" && window.matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.dataset.theme = dark ? "dark" : "light";
}
const storedTheme = () => {
  try {
    return window.localStorage.getItem("theme");
  } catch {
    return null;
  }
};
follow(storedTheme());
window.addEventListener("storage", () => follow(storedTheme()));
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => follow(storedTheme()));

const VIEWS = {
  flow: ["Flow", flowView],
  placements: ["Placements", placementsView],
  jobs: ["Jobs", () => jobsView(open)],
  results: ["Results", resultsView],
  health: ["Health", healthView],
};
const tabs = document.getElementById("tabs");
const made = {};
let current = "";

const trouble = document.getElementById("trouble");
const loading = h("p", { class: "empty" }, "Loading…");
const answered = new Map();

function say(words, problem = "") {
  live.classList.toggle("bad", Boolean(problem));
  if (liveText.textContent !== words) liveText.textContent = words;
  trouble.hidden = !problem;
  // An alert is read out whenever it changes.
  if (trouble.textContent !== problem) trouble.textContent = problem;
}

// What is wrong, and how old what is seen is.
function problemText(error, view) {
  const since = answered.get(view);
  return `${error.message} ${since ? `What you see is from ${new Date(since).toLocaleTimeString(undefined, { timeStyle: "short" })}. ` : ""}It is asked again every few seconds.`;
}

function show(name) {
  panel.replaceChildren(answered.has(name) ? made[name].element : loading);
}

function open(name, job = null) {
  if (!VIEWS[name]) name = "jobs";
  const before = current;
  current = name;
  if (before !== name) {
    made[name] ??= VIEWS[name][1]();
    show(name);
    panel.setAttribute("aria-busy", String(!answered.has(name)));
    panel.setAttribute("aria-labelledby", `tab-${name}`);
    for (const tab of tabs.children) {
      const selected = tab.dataset.view === name;
      tab.setAttribute("aria-selected", String(selected));
      tab.tabIndex = selected ? 0 : -1;
    }
    if (window.location.hash.slice(1) !== name) window.history.replaceState({}, "", `#${name}`);
  }
  if (job) made[name].open(job);
  refresh();
}

let asking = null;
async function refresh() {
  if (document.hidden || asking === current) return;
  const view = current;
  asking = view;
  try {
    await made[view].update();
    const first = !answered.has(view);
    answered.set(view, Date.now());
    if (view !== current) return;
    if (first) show(view);
    say("Live");
  } catch (error) {
    if (view !== current) return;
    if (!answered.has(view)) panel.replaceChildren();
    say("Not up to date", problemText(error, view));
  } finally {
    if (asking === view) asking = null;
    if (view === current) panel.removeAttribute("aria-busy");
    tick();
  }
}

tabs.append(
  ...Object.entries(VIEWS).map(([name, [title]]) =>
    h(
      "button",
      {
        type: "button",
        role: "tab",
        id: `tab-${name}`,
        "aria-controls": "panel",
        "data-view": name,
        onclick: () => open(name),
      },
      title,
    ),
  ),
);
tabs.addEventListener("keydown", (event) => {
  const all = [...tabs.children];
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  const index =
    event.key === "Home"
      ? 0
      : event.key === "End"
        ? all.length - 1
        : step
          ? (all.indexOf(document.activeElement) + step + all.length) % all.length
          : -1;
  if (index < 0) return;
  event.preventDefault();
  open(all[index].dataset.view);
  all[index].focus();
});
window.addEventListener("hashchange", () => open(window.location.hash.slice(1)));
document.addEventListener("visibilitychange", refresh);
setInterval(refresh, EVERY);
if (PARAMETERS.get("framed") !== "no" && window.parent !== window) document.documentElement.dataset.framed = "yes";
const first = window.location.hash.slice(1) || PARAMETERS.get("view") || "jobs";
open(first, first === "results" ? TASK : null);
