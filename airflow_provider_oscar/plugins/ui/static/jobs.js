// SPDX-License-Identifier: Apache-2.0
// The view of jobs: the newest ones, cancelling, and what one run's jobs took.

import {
  airflowLink,
  amount,
  boxPlots,
  duration,
  empty,
  h,
  legend,
  path,
  percent,
  phaseBar,
  replace,
  runningFor,
  state,
  table,
  when,
} from "./parts.js";
import { RUN, identity } from "./selection.js";
import { airflow, ours } from "./server.js";

const LOOKS = 30;
const ACTIVE = new Set([
  "running",
  "deferred",
  "queued",
  "scheduled",
  "up_for_retry",
  "up_for_reschedule",
  "restarting",
]);

export function jobsView(open) {
  let filter = "all";
  let found = [];
  const lists = table(
    [
      { title: "State", class: "tight", cell: (job) => state(job.state) },
      { title: "Object", class: "wide", cell: (job) => path(job.object) },
      {
        title: "Target",
        class: "tight target",
        cell: (job) =>
          h(
            "div",
            {},
            job.target || h("span", { class: "faint" }, "–"),
            job.slurm_job_id ? h("div", { class: "faint" }, `SLURM ${job.slurm_job_id}`) : null,
          ),
      },
      {
        title: "Job",
        class: "wide",
        cell: (job) =>
          h(
            "div",
            {},
            airflowLink(job.url, job.task_id + (job.map_index >= 0 ? ` [${job.map_index}]` : "")),
            job.note ? h("p", { class: job.note.bad ? "problem" : "faint", role: "status" }, job.note.text) : null,
          ),
      },
      {
        title: "Time",
        cell: (job) =>
          job.has_result
            ? phaseBar(job.phases)
            : job.start && !job.end
              ? runningFor(job.start)
              : h(
                  "span",
                  { class: "number" },
                  job.start ? duration((Date.parse(job.end) - Date.parse(job.start)) / 1000) : "–",
                ),
      },
      { title: "CPU", class: "right", cell: (job) => percent(job.efficiency) },
      { title: "Cost", class: "right", cell: (job) => amount(job.cost) },
      { title: "Started", class: "tight", cell: (job) => when(job.start) },
      { title: "", class: "right", cell: actions },
    ],
    "Jobs, newest first",
  );
  const counts = h("div", { class: "counts" });
  const chips = h("div", { class: "chips", role: "group", "aria-label": "Show" });
  const nothing = h("div");
  const comparison = h("div");
  const notes = new Map();

  let compared = "null";

  // A run with jobs at several targets, such as a benchmark: how long its command took at each.
  function compare({ rows, boxes }) {
    const slowest = rows[0].target;
    const columns = [
      ["Jobs", (row) => row.jobs],
      ["Least", (row) => duration(row.least)],
      ["Lower quartile", (row) => duration(row["lower quartile"])],
      ["Median", (row) => duration(row.median)],
      ["Upper quartile", (row) => duration(row["upper quartile"])],
      ["Greatest", (row) => duration(row.greatest)],
      [`Faster than ${slowest}`, (row) => (row.target === slowest ? "–" : `${Math.round(row.faster)} %`)],
    ];
    const lines = table(
      [
        { title: "Target", class: "tight target", cell: (row) => h("strong", {}, row.target) },
        ...columns.map(([title, cell]) => ({
          title,
          class: "right",
          cell: (row) => h("span", { class: "number" }, cell(row)),
        })),
      ],
      "Seconds of the command at each target",
    );
    lines.update(rows.map((row) => ({ ...row, id: row.target })));
    return [
      h(
        "div",
        { class: "head" },
        h("h2", {}, "What this run's jobs took"),
        h(
          "p",
          { class: "faint" },
          "The command at each target, and every phase: box from quartile to quartile, line at the median, whiskers to the extremes.",
        ),
      ),
      lines.element,
      boxPlots(boxes),
    ];
  }
  function actions(job) {
    if (job.has_result)
      return h(
        "button",
        {
          class: "quiet",
          type: "button",
          onclick: () => open("results", identity(job)),
          "aria-label": `Result of ${job.task_id}`,
        },
        "Result",
      );
    if (!job.may_cancel || !ACTIVE.has(job.state) || (job.note && !job.note.refused)) return h("span");
    return h(
      "button",
      {
        class: "quiet danger",
        type: "button",
        onclick: (event) => cancel(event.currentTarget, job),
        "aria-label": `Cancel ${job.task_id}`,
      },
      "Cancel",
    );
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
      await airflow(`dags/${dag}/dagRuns/${run}/taskInstances/${task}${mapped}`, "PATCH", {
        new_state: "failed",
        note: "Cancelled on the OSCAR page",
      });
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
        if (found.state === "succeeded" || found.state === "failed")
          return note(`It had ended: ${found.where} says ${found.state}.`);
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
    const groups = {
      all: found,
      active: found.filter((job) => ACTIVE.has(job.state)),
      succeeded: found.filter((job) => job.state === "success"),
      failed: found.filter((job) => job.state === "failed"),
    };
    const words = { all: "All", active: "Running and waiting", succeeded: "Succeeded", failed: "Failed" };
    replace(
      chips,
      Object.entries(groups).map(([name, jobs]) =>
        h(
          "button",
          { type: "button", class: "chip", "aria-pressed": String(filter === name), onclick: () => choose(name) },
          `${words[name]} `,
          h("span", { class: "number" }, jobs.length),
        ),
      ),
    );
    const targets = [...new Set(groups.active.map((job) => job.target || "not placed yet"))];
    replace(
      counts,
      targets.map((target) =>
        h(
          "span",
          { class: "count" },
          h("b", {}, groups.active.filter((job) => (job.target || "not placed yet") === target).length),
          ` on ${target}`,
        ),
      ),
    );
    lists.update(groups[filter].map((job) => ({ ...job, note: notes.get(job.id) ?? null })));
    lists.element.hidden = !groups[filter].length;
    replace(
      nothing,
      groups[filter].length
        ? []
        : [
            found.length
              ? empty("No such jobs", "None of the newest jobs is in this state.")
              : empty(
                  "No jobs yet",
                  "Jobs appear here as soon as a task of OscarJobOperator, InterLinkPodOperator or KubernetesJobOperator starts.",
                ),
          ],
    );
  }
  return {
    element: h(
      "section",
      {},
      comparison,
      h("div", { class: "bar-of-tools" }, chips, counts, legend()),
      lists.element,
      nothing,
    ),
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
