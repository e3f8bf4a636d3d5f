// SPDX-License-Identifier: Apache-2.0
// The view of results: manifests with their outputs, two side by side.

import {
  airflowLink,
  amount,
  bytes,
  counted,
  duration,
  empty,
  facts,
  h,
  keyed,
  path,
  percent,
  phaseBar,
  replace,
  state,
  verdict,
  when,
} from "./parts.js";
import { RUN, identity } from "./selection.js";
import { PAGE, ours } from "./server.js";

export function resultsView() {
  const chosen = h("div", { class: "chosen" });
  const refused = h("p", { class: "problem", role: "alert" });
  const list = h("ul", { class: "cards" });
  let shown = [];
  let jobs = [];
  const key = (job) => `${job.dag_id}/${job.run_id}/${job.task_id}/${job.map_index}`;
  function files(result) {
    const link = (file) =>
      String(new URL(`api/download?${new URLSearchParams({ ...identity(result), key: file.key })}`, PAGE));
    const pictures = result.files.filter((file) => file.picture).slice(0, 12);
    return h(
      "div",
      {},
      pictures.length
        ? h(
            "div",
            { class: "pictures" },
            pictures.map((file) =>
              h("a", { href: link(file), download: true }, h("img", { src: link(file), alt: `Output ${file.key}` })),
            ),
          )
        : null,
      h(
        "ul",
        { class: "files" },
        result.files.map((file) =>
          h(
            "li",
            {},
            file.uri
              ? h("span", { title: file.sha256 ? `SHA-256 ${file.sha256}` : null }, `${file.uri}${file.key}`)
              : h(
                  "a",
                  { href: link(file), download: true, title: file.sha256 ? `SHA-256 ${file.sha256}` : null },
                  file.key.split("/").slice(1).join("/") || file.key,
                ),
            h("span", { class: "number" }, bytes(file.size)),
          ),
        ),
      ),
      result.files.length ? null : h("p", { class: "faint" }, "No outputs."),
      result.files_left_out
        ? h("p", { class: "faint" }, `and ${result.files_left_out} more at ${result.output_uri}`)
        : null,
      result.unstaged.map((file) =>
        h(
          "p",
          { class: "problem" },
          `${file.key ?? file.path ?? "A file"} was not staged out: ${file.reason ?? file.problem ?? ""}`,
        ),
      ),
    );
  }
  const short = (text) => (/^\S{41,}$/.test(text) ? h("span", { title: text }, `${text.slice(0, 12)}…`) : text);
  const number = (name, found) =>
    /(^|[_ .])bytes$/.test(name)
      ? bytes(found)
      : /(^|[_ .])seconds$/.test(name)
        ? duration(found)
        : /(^|[_ .])efficiency$/.test(name)
          ? percent(found)
          : Number.isInteger(found)
            ? String(found)
            : String(Number(found.toPrecision(4)));
  const value = (name, found) =>
    Array.isArray(found)
      ? found.map(String).join(", ")
      : typeof found === "number"
        ? number(name, found)
        : typeof found === "object" && found !== null
          ? Object.entries(found)
              .map(([inner, one]) => `${inner} ${typeof one === "object" ? "…" : one}`)
              .join(", ")
          : found === null
            ? ""
            : short(String(found));
  // Nested values one level deep become facts of their own: "energy_gev: min 127, max 164" reads better than JSON.
  // The value has its unit already.
  const label = (name) => name.replaceAll("_", " ").replace(/(\S) (bytes|seconds)$/, "$1");
  const shownFacts = (found) =>
    Object.entries(found)
      .filter(([, each]) => typeof each !== "object" || (each !== null && Object.keys(each).length))
      .slice(0, 40)
      .map(([name, each]) => [
        label(name),
        typeof each === "object" && each !== null && !Array.isArray(each)
          ? h(
              "span",
              {},
              Object.entries(each)
                .slice(0, 8)
                .map(([inner, one]) =>
                  h(
                    "span",
                    { class: "pair" },
                    h("span", { class: "faint" }, `${label(inner)} `),
                    value(inner === "cpu" || inner === "wall" || name === "seconds" ? "seconds" : inner, one),
                  ),
                ),
            )
          : value(name, each),
      ]);
  // What was tried before, and why the job ran where it did.
  function story(result) {
    const placed = result.placed;
    if (!placed || !(placed.attempts.length || placed.reasons.length)) return null;
    const tried = placed.attempts.map((one) =>
      h(
        "li",
        {},
        h("strong", {}, one.target),
        one.outcome === "waits" ? " kept it waiting: " : " failed it: ",
        one.why,
      ),
    );
    const taken = h(
      "li",
      {},
      h("strong", {}, result.target),
      placed.policy ? ` chosen by ${placed.policy}: ` : " chosen: ",
      placed.reasons.join("; "),
    );
    return [
      h("h3", {}, "Placement"),
      h("ol", { class: "story", "aria-label": "How it came to its target" }, tried, taken),
    ];
  }
  function card(result) {
    return h(
      "article",
      { class: "result", "aria-label": `Result of ${result.object || result.task_id}` },
      h(
        "div",
        { class: "head" },
        h("h2", {}, path(result.object || result.task_id)),
        h(
          "button",
          {
            type: "button",
            class: "quiet",
            onclick: () => drop(result),
            "aria-label": `Close the result of ${result.object || result.task_id}`,
          },
          "Close",
        ),
      ),
      h("p", {}, state(result.state), " ", airflowLink(result.url, "task in Airflow")),
      verdict(result.proof),
      result.error ? h("p", { class: "problem" }, `${result.error.stage}: ${result.error.message}`) : null,
      phaseBar(result.phases),
      story(result),
      h("h3", {}, "Outputs"),
      files(result),
      h("h3", {}, "Job"),
      facts([
        ["Target", result.target],
        ["Node", result.node],
        ["Device", result.device],
        ["Job", result.job_id],
        ["SLURM job", result.slurm_job_id],
        ["Exit code", result.exit_code === null ? "" : String(result.exit_code)],
        ["CPU efficiency", result.efficiency === null ? "" : percent(result.efficiency)],
        ["Cost", result.cost === null ? "" : amount(result.cost)],
        ["Outputs at", result.output_uri],
      ]),
      Object.keys(result.metrics).length ? [h("h3", {}, "Metrics"), facts(shownFacts(result.metrics))] : null,
      Object.keys(result.resources).length ? [h("h3", {}, "Resources"), facts(shownFacts(result.resources))] : null,
      h(
        "details",
        {},
        h("summary", {}, "Manifest"),
        h("pre", { tabindex: "0" }, JSON.stringify(result.manifest, null, 2)),
      ),
    );
  }
  function drop(result) {
    shown = shown.filter((one) => key(one) !== key(result));
    draw();
  }
  function draw() {
    replace(chosen, shown.length ? [h("div", { class: shown.length > 1 ? "compare" : "" }, shown.map(card))] : []);
    choices();
  }
  const drawCards = keyed(list, (job) =>
    h(
      "li",
      {},
      h(
        "button",
        {
          type: "button",
          class: "card",
          "aria-pressed": String(job.opened),
          onclick: () => (job.opened ? drop(job) : add(identity(job))),
        },
        h("span", { class: "card-title" }, path(job.object || job.task_id)),
        h(
          "span",
          { class: "card-facts" },
          state(job.state),
          h("span", {}, job.target),
          h("span", {}, counted(job.outputs, "output")),
          when(job.end),
        ),
      ),
    ),
  );
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
    element: h(
      "section",
      {},
      refused,
      chosen,
      h(
        "div",
        { class: "head" },
        h("h2", {}, "Newest results"),
        h("p", { class: "faint" }, "Choose one, or two to compare them side by side."),
      ),
      list,
      nothing,
    ),
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
