// SPDX-License-Identifier: Apache-2.0
// The page: five views over the JSON of /oscar/ui/api, looked at again every few seconds while they are seen.

import { ago, airflowLink, amount, boxPlots, bytes, counted, duration, empty, facts, h, keyed, legend, path, percent, phaseBar, replace, runningFor, state, table, tick, verdict, way, when } from "./parts.js";
import { healthView } from "./health.js";
import { AIRFLOW, PAGE, airflow, ours } from "./server.js";

const EVERY = 5000;
const LOOKS = 30;
const PARAMETERS = new URLSearchParams(window.location.search);
const RUN = PARAMETERS.get("dag_id") && PARAMETERS.get("run_id") ? { dag_id: PARAMETERS.get("dag_id"), run_id: PARAMETERS.get("run_id") } : null;
const TASK = RUN && PARAMETERS.get("task_id") ? { ...RUN, task_id: PARAMETERS.get("task_id"), map_index: PARAMETERS.get("map_index") || "-1" } : null;

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

const identity = (job) => ({ dag_id: job.dag_id, run_id: job.run_id, task_id: job.task_id, map_index: String(job.map_index) });
const ACTIVE = new Set(["running", "deferred", "queued", "scheduled", "up_for_retry", "up_for_reschedule", "restarting"]);

function jobsView() {
  let filter = "all";
  let found = [];
  const lists = table([
    { title: "State", class: "tight", cell: (job) => state(job.state) },
    { title: "Object", class: "wide", cell: (job) => path(job.object) },
    { title: "Target", class: "tight target", cell: (job) => h("div", {}, job.target || h("span", { class: "faint" }, "–"), job.slurm_job_id ? h("div", { class: "faint" }, `SLURM ${job.slurm_job_id}`) : null) },
    { title: "Job", class: "wide", cell: (job) => h("div", {}, airflowLink(job.url, job.task_id + (job.map_index >= 0 ? ` [${job.map_index}]` : "")), job.note ? h("p", { class: job.note.bad ? "problem" : "faint", role: "status" }, job.note.text) : null) },
    { title: "Time", cell: (job) => (job.has_result ? phaseBar(job.phases) : job.start && !job.end ? runningFor(job.start) : h("span", { class: "number" }, job.start ? duration((Date.parse(job.end) - Date.parse(job.start)) / 1000) : "–")) },
    { title: "CPU", class: "right", cell: (job) => percent(job.efficiency) },
    { title: "Cost", class: "right", cell: (job) => amount(job.cost) },
    { title: "Started", class: "tight", cell: (job) => when(job.start) },
    { title: "", class: "right", cell: actions },
  ], "Jobs, newest first");
  const counts = h("div", { class: "counts" });
  const chips = h("div", { class: "chips", role: "group", "aria-label": "Show" });
  const nothing = h("div");
  const comparison = h("div");
  const notes = new Map();

  let compared = "null";

  // A run with jobs at several targets, such as a benchmark: how long its command took at each.
  function compare({ rows, boxes }) {
    const slowest = rows[0].target;
    const columns = [["Jobs", (row) => row.jobs], ["Least", (row) => duration(row.least)], ["Lower quartile", (row) => duration(row["lower quartile"])], ["Median", (row) => duration(row.median)], ["Upper quartile", (row) => duration(row["upper quartile"])], ["Greatest", (row) => duration(row.greatest)], [`Faster than ${slowest}`, (row) => (row.target === slowest ? "–" : `${Math.round(row.faster)} %`)]];
    const lines = table([{ title: "Target", class: "tight target", cell: (row) => h("strong", {}, row.target) }, ...columns.map(([title, cell]) => ({ title, class: "right", cell: (row) => h("span", { class: "number" }, cell(row)) }))], "Seconds of the command at each target");
    lines.update(rows.map((row) => ({ ...row, id: row.target })));
    return [h("div", { class: "head" }, h("h2", {}, "What this run's jobs took"), h("p", { class: "faint" }, "The command at each target, and every phase: box from quartile to quartile, line at the median, whiskers to the extremes.")), lines.element, boxPlots(boxes)];
  }
  function actions(job) {
    if (job.has_result) return h("button", { class: "quiet", type: "button", onclick: () => open("results", identity(job)), "aria-label": `Result of ${job.task_id}` }, "Result");
    if (!job.may_cancel || !ACTIVE.has(job.state) || (job.note && !job.note.refused)) return h("span");
    return h("button", { class: "quiet danger", type: "button", onclick: (event) => cancel(event.currentTarget, job), "aria-label": `Cancel ${job.task_id}` }, "Cancel");
  }
  async function cancel(button, job) {
    if (button.dataset.sure !== "yes") {
      button.dataset.sure = "yes";
      button.textContent = "Really cancel?";
      setTimeout(() => {
        button.dataset.sure = "";
        button.textContent = "Cancel";
      }, 5000);
      return;
    }
    button.disabled = true;
    const note = (text, bad = false, refused = false) => {
      notes.set(job.id, { text, bad, refused });
      show();
    };
    note("Cancelling…");
    const mapped = job.map_index >= 0 ? `/${job.map_index}` : "";
    const [dag, run, task] = [job.dag_id, job.run_id, job.task_id].map(encodeURIComponent);
    try {
      await airflow(`dags/${dag}/dagRuns/${run}/taskInstances/${task}${mapped}`, "PATCH", { new_state: "failed", note: "Cancelled on the OSCAR page" });
    } catch (error) {
      note(`Not cancelled: ${error.message}`, true, true);
      return;
    }
    // What Airflow was told is not yet what happened: the system that runs the job is asked until it is gone.
    let last = "";
    for (let look = 0; look < LOOKS; look += 1) {
      try {
        const found = await ours("backend_status", identity(job));
        if (found.state === "absent") return note(`Cancelled: ${found.where} has it no more.`);
        if (found.state === "succeeded" || found.state === "failed") return note(`It had ended: ${found.where} says ${found.state}.`);
        last = `${found.where} still says ${found.state}`;
      } catch (error) {
        if (error.status === 404) return note("Cancelled before a job was submitted.");
        last = `whether the job is gone is not known (${error.message})`;
      }
      note(`Failed in Airflow; ${last}.`);
      await new Promise((resolve) => setTimeout(resolve, 2000));
    }
    note(`Failed in Airflow, but ${last}. Look at the log of the task, and at the system.`, true);
  }
  function choose(name) {
    filter = name;
    show();
  }
  function show() {
    const groups = { all: found, active: found.filter((job) => ACTIVE.has(job.state)), succeeded: found.filter((job) => job.state === "success"), failed: found.filter((job) => job.state === "failed") };
    const words = { all: "All", active: "Running and waiting", succeeded: "Succeeded", failed: "Failed" };
    replace(chips, Object.entries(groups).map(([name, jobs]) => h("button", { type: "button", class: "chip", "aria-pressed": String(filter === name), onclick: () => choose(name) }, `${words[name]} `, h("span", { class: "number" }, jobs.length))));
    const targets = [...new Set(groups.active.map((job) => job.target || "not placed yet"))];
    replace(counts, targets.map((target) => h("span", { class: "count" }, h("b", {}, groups.active.filter((job) => (job.target || "not placed yet") === target).length), ` on ${target}`)));
    lists.update(groups[filter].map((job) => ({ ...job, note: notes.get(job.id) ?? null })));
    lists.element.hidden = !groups[filter].length;
    replace(nothing, groups[filter].length ? [] : [found.length
      ? empty("No such jobs", "None of the newest jobs is in this state.")
      : empty("No jobs yet", "Jobs appear here as soon as a task of OscarJobOperator, InterLinkPodOperator or KubernetesJobOperator starts.")]);
  }
  return {
    element: h("section", {}, comparison, h("div", { class: "bar-of-tools" }, chips, counts, legend()), lists.element, nothing),
    async update() {
      const answer = await ours("jobs", RUN ?? {});
      found = answer.jobs;
      show();
      if (JSON.stringify(answer.comparison ?? null) === compared) return;
      compared = JSON.stringify(answer.comparison ?? null);
      replace(comparison, answer.comparison ? compare(answer.comparison) : []);
    },
  };
}

function placementsView() {
  const plots = h("div");
  const rows = table([
    { title: "Decided", class: "tight", cell: (one) => when(one.at) },
    { title: "Object", class: "wide", cell: (one) => path(one.object) },
    { title: "Target", class: "tight target", cell: (one) => h("strong", {}, one.target) },
    { title: "Because", class: "prose", cell: (one) => h("div", {}, one.reasons.map((reason) => h("p", {}, reason)), rejected(one)) },
    { title: "Expected", class: "right", cell: (one) => expected(one) },
    { title: "Took", cell: (one) => phaseBar(one.took) },
    { title: "Outcome", class: "tight", cell: (one) => state(one.state) },
  ], "Placement decisions, newest first");
  const nothing = h("div");
  const rejected = (one) => Object.entries(one.rejected).map(([name, why]) => h("p", { class: "faint" }, `not ${name}: ${why}`));
  function expected(one) {
    const total = one.predicted.total ?? Object.values(one.predicted).reduce((sum, value) => sum + value, 0);
    return Object.keys(one.predicted).length ? h("span", { class: "number" }, duration(total)) : h("span", { class: "faint", title: "The policy predicts nothing" }, "–");
  }
  let drawn = "";
  return {
    element: h("section", {}, plots, rows.element, nothing),
    async update() {
      const { placements, boxes } = await ours("placements");
      if (JSON.stringify(boxes) !== drawn) {
        drawn = JSON.stringify(boxes);
        replace(plots, boxes.length ? [h("div", { class: "head" }, h("h2", {}, "What jobs took"), h("p", { class: "faint" }, "Seconds per target, over the newest jobs that succeeded: box from quartile to quartile, line at the median, whiskers to the extremes.")), boxPlots(boxes)] : []);
      }
      rows.update(placements);
      rows.element.hidden = !placements.length;
      replace(nothing, placements.length ? [] : [empty("No decisions yet", "PlacementBranchOperator and @task.placement leave their decisions here, with reasons.")]);
    },
  };
}

function resultsView() {
  const chosen = h("div", { class: "chosen" });
  const refused = h("p", { class: "problem", role: "alert" });
  const list = h("ul", { class: "cards" });
  let shown = [];
  let jobs = [];
  const key = (job) => `${job.dag_id}/${job.run_id}/${job.task_id}/${job.map_index}`;
  function files(result) {
    const link = (file) => String(new URL(`api/download?${new URLSearchParams({ ...identity(result), key: file.key })}`, PAGE));
    const pictures = result.files.filter((file) => file.picture).slice(0, 12);
    return h("div", {},
      pictures.length ? h("div", { class: "pictures" }, pictures.map((file) => h("a", { href: link(file), download: true }, h("img", { src: link(file), alt: `Output ${file.key}` })))) : null,
      h("ul", { class: "files" }, result.files.map((file) => h("li", {}, file.uri ? h("span", { title: file.sha256 ? `SHA-256 ${file.sha256}` : null }, `${file.uri}${file.key}`) : h("a", { href: link(file), download: true, title: file.sha256 ? `SHA-256 ${file.sha256}` : null }, file.key.split("/").slice(1).join("/") || file.key), h("span", { class: "number" }, bytes(file.size))))),
      result.files.length ? null : h("p", { class: "faint" }, "No outputs."),
      result.files_left_out ? h("p", { class: "faint" }, `and ${result.files_left_out} more at ${result.output_uri}`) : null,
      result.unstaged.map((file) => h("p", { class: "problem" }, `${file.key ?? file.path ?? "A file"} was not staged out: ${file.reason ?? file.problem ?? ""}`)));
  }
  const short = (text) => (/^\S{41,}$/.test(text) ? h("span", { title: text }, `${text.slice(0, 12)}…`) : text);
  const number = (name, found) => (/(^|[_ .])bytes$/.test(name) ? bytes(found) : /(^|[_ .])seconds$/.test(name) ? duration(found) : /(^|[_ .])efficiency$/.test(name) ? percent(found) : Number.isInteger(found) ? String(found) : String(Number(found.toPrecision(4))));
  const value = (name, found) => (Array.isArray(found) ? found.map(String).join(", ") : typeof found === "number" ? number(name, found) : typeof found === "object" && found !== null ? Object.entries(found).map(([inner, one]) => `${inner} ${typeof one === "object" ? "…" : one}`).join(", ") : found === null ? "" : short(String(found)));
  // Nested values one level deep become facts of their own: "energy_gev: min 127, max 164" reads better than JSON.
  // The value has its unit already.
  const label = (name) => name.replaceAll("_", " ").replace(/(\S) (bytes|seconds)$/, "$1");
  const told = (found) => Object.entries(found).filter(([, each]) => typeof each !== "object" || (each !== null && Object.keys(each).length)).slice(0, 40).map(([name, each]) => [label(name), typeof each === "object" && each !== null && !Array.isArray(each) ? h("span", {}, Object.entries(each).slice(0, 8).map(([inner, one]) => h("span", { class: "pair" }, h("span", { class: "faint" }, `${label(inner)} `), value(inner === "cpu" || inner === "wall" || name === "seconds" ? "seconds" : inner, one)))) : value(name, each)]);
  // What was tried before, and why the job ran where it did.
  function story(result) {
    const placed = result.placed;
    if (!placed || !(placed.attempts.length || placed.reasons.length)) return null;
    const tried = placed.attempts.map((one) => h("li", {}, h("strong", {}, one.target), one.outcome === "waits" ? " kept it waiting: " : " failed it: ", one.why));
    const taken = h("li", {}, h("strong", {}, result.target), placed.policy ? ` chosen by ${placed.policy}: ` : " chosen: ", placed.reasons.join("; "));
    return [h("h3", {}, "Placement"), h("ol", { class: "story", "aria-label": "How it came to its target" }, tried, taken)];
  }
  function card(result) {
    return h("article", { class: "result", "aria-label": `Result of ${result.object || result.task_id}` },
      h("div", { class: "head" }, h("h2", {}, path(result.object || result.task_id)), h("button", { type: "button", class: "quiet", onclick: () => drop(result), "aria-label": `Close the result of ${result.object || result.task_id}` }, "Close")),
      h("p", {}, state(result.state), " ", airflowLink(result.url, "task in Airflow")),
      verdict(result.proof),
      result.error ? h("p", { class: "problem" }, `${result.error.stage}: ${result.error.message}`) : null,
      phaseBar(result.phases),
      story(result),
      h("h3", {}, "Outputs"), files(result),
      h("h3", {}, "Job"), facts([["Target", result.target], ["Node", result.node], ["Device", result.device], ["Job", result.job_id], ["SLURM job", result.slurm_job_id], ["Exit code", result.exit_code === null ? "" : String(result.exit_code)], ["CPU efficiency", result.efficiency === null ? "" : percent(result.efficiency)], ["Cost", result.cost === null ? "" : amount(result.cost)], ["Outputs at", result.output_uri]]),
      Object.keys(result.metrics).length ? [h("h3", {}, "Metrics"), facts(told(result.metrics))] : null,
      Object.keys(result.resources).length ? [h("h3", {}, "Resources"), facts(told(result.resources))] : null,
      h("details", {}, h("summary", {}, "Manifest"), h("pre", { tabindex: "0" }, JSON.stringify(result.manifest, null, 2))));
  }
  function drop(result) {
    shown = shown.filter((one) => key(one) !== key(result));
    draw();
  }
  function draw() {
    replace(chosen, shown.length ? [h("div", { class: shown.length > 1 ? "compare" : "" }, shown.map(card))] : []);
    choices();
  }
  const drawCards = keyed(list, (job) => h("li", {}, h("button", { type: "button", class: "card", "aria-pressed": String(job.opened), onclick: () => (job.opened ? drop(job) : add(identity(job))) },
    h("span", { class: "card-title" }, path(job.object || job.task_id)), h("span", { class: "card-facts" }, state(job.state), h("span", {}, job.target), h("span", {}, counted(job.outputs, "output")), when(job.end)))));
  function choices() {
    drawCards(jobs.map((job) => ({ ...job, opened: shown.some((one) => key(one) === key(job)) })));
  }
  async function add(job) {
    try {
      const result = await ours("result", job);
      shown = [...shown.filter((one) => key(one) !== key(result)), result].slice(-2);
      refused.textContent = "";
      draw();
      // It opens above the list: whoever chose it far below would not see it come.
      chosen.scrollIntoView({ block: "start" });
    } catch (error) {
      refused.textContent = `The result of ${job.task_id} cannot be shown: ${error.message}`;
    }
  }
  const nothing = h("div");
  let drawn = "";
  return {
    element: h("section", {}, refused, chosen, h("div", { class: "head" }, h("h2", {}, "Newest results"), h("p", { class: "faint" }, "Choose one, or two to compare them side by side.")), list, nothing),
    open: add,
    async update() {
      jobs = (await ours("jobs", RUN ?? {})).jobs.filter((job) => job.has_result);
      if (JSON.stringify(jobs) === drawn) return;
      drawn = JSON.stringify(jobs);
      choices();
      replace(nothing, jobs.length ? [] : [empty("No results yet", "A job has a result when its manifest proves it.")]);
    },
  };
}

const sameText = (uri, name) => {
  try {
    return decodeURIComponent(uri) === decodeURIComponent(name);
  } catch {
    return uri === name;
  }
};

function flowView() {
  const places = h("div", { class: "places" });
  const nothing = h("div");
  const line = (event) => h("li", {}, path(event.object || event.partition_key), way(event.steps), event.state ? airflowLink(event.url || new URL(`dags/${encodeURIComponent(event.dag_id)}/runs/${encodeURIComponent(event.run_id)}`, AIRFLOW).pathname, state(event.state)) : h("span", { class: "faint" }, "no job yet"), when(event.at));
  function place(one) {
    const said = one.status;
    const failing = said.failing_since || null;
    return h("article", { class: "place" },
      h("div", { class: "head" }, h("h2", {}, one.name), failing ? h("span", { class: "state state-failed" }, h("span", { class: "dot", "aria-hidden": "true" }), "Failing") : one.triggered ? h("span", { class: "state state-success" }, h("span", { class: "dot", "aria-hidden": "true" }), "Watched") : h("span", { class: "state state-queued" }, h("span", { class: "dot", "aria-hidden": "true" }), "No triggerer has it")),
      sameText(one.uri, one.name) ? null : h("p", { class: "faint uri" }, one.uri),
      failing ? h("p", { class: "problem" }, `${said.error || "It fails"} (${counted(said.failures ?? 1, "attempt")}, the first ${ago(failing)})`) : null,
      facts([["Last report", said.last_listing ? when(said.last_listing) : ""], ["Last event", when(one.last_event)], ["Lag", said.last_event && typeof said.lag === "number" ? duration(said.lag) : ""], ["Seen", said.emitted], ["Waiting to be complete", said.waiting || ""], ["There before, not reported", said.skipped_at_start || ""], ["Left out by the filter", said.filtered || ""], ["Not readable", (said.skipped ?? 0) + (said.unreadable ?? 0) || ""], ["Feeds", one.consumers.join(", ")]].map(([name, found]) => [name, typeof found === "number" ? found.toLocaleString() : found])),
      one.events.length ? h("ul", { class: "events" }, one.events.slice(0, 8).map(line)) : h("p", { class: "faint" }, "No object yet."));
  }
  const drawPlaces = keyed(places, place);
  return {
    element: h("section", {}, places, nothing),
    async update() {
      const found = await ours("flow");
      drawPlaces(found.places);
      replace(nothing, found.places.length ? [] : [empty("Nothing is watched", "An asset with a watcher appears here while a DAG that is not paused is scheduled by it.")]);
    },
  };
}

const VIEWS = { flow: ["Flow", flowView], placements: ["Placements", placementsView], jobs: ["Jobs", jobsView], results: ["Results", resultsView], health: ["Health", healthView] };
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
function told(error, view) {
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
    say("Not up to date", told(error, view));
  } finally {
    if (asking === view) asking = null;
    if (view === current) panel.removeAttribute("aria-busy");
    tick();
  }
}

tabs.append(...Object.entries(VIEWS).map(([name, [title]]) => h("button", { type: "button", role: "tab", id: `tab-${name}`, "aria-controls": "panel", "data-view": name, onclick: () => open(name) }, title)));
tabs.addEventListener("keydown", (event) => {
  const all = [...tabs.children];
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  const index = event.key === "Home" ? 0 : event.key === "End" ? all.length - 1 : step ? (all.indexOf(document.activeElement) + step + all.length) % all.length : -1;
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
