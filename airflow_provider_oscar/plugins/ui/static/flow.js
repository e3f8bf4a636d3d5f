// SPDX-License-Identifier: Apache-2.0
// The view of what is watched: each place, and the way of its newest objects.

import {
  ago,
  airflowLink,
  counted,
  duration,
  empty,
  facts,
  h,
  keyed,
  path,
  replace,
  state,
  way,
  when,
} from "./parts.js";
import { AIRFLOW, ours } from "./server.js";

const sameText = (uri, name) => {
  try {
    return decodeURIComponent(uri) === decodeURIComponent(name);
  } catch {
    return uri === name;
  }
};

export function flowView() {
  const places = h("div", { class: "places" });
  const nothing = h("div");
  const line = (event) =>
    h(
      "li",
      {},
      path(event.object || event.partition_key),
      way(event.steps),
      event.state
        ? airflowLink(
            event.url ||
              new URL(`dags/${encodeURIComponent(event.dag_id)}/runs/${encodeURIComponent(event.run_id)}`, AIRFLOW)
                .pathname,
            state(event.state),
          )
        : h("span", { class: "faint" }, "no job yet"),
      when(event.at),
    );
  function place(one) {
    const said = one.status;
    const failing = said.failing_since || null;
    return h(
      "article",
      { class: "place" },
      h(
        "div",
        { class: "head" },
        h("h2", {}, one.name),
        failing
          ? h("span", { class: "state state-failed" }, h("span", { class: "dot", "aria-hidden": "true" }), "Failing")
          : one.triggered
            ? h("span", { class: "state state-success" }, h("span", { class: "dot", "aria-hidden": "true" }), "Watched")
            : h(
                "span",
                { class: "state state-queued" },
                h("span", { class: "dot", "aria-hidden": "true" }),
                "No triggerer has it",
              ),
      ),
      sameText(one.uri, one.name) ? null : h("p", { class: "faint uri" }, one.uri),
      failing
        ? h(
            "p",
            { class: "problem" },
            `${said.error || "It fails"} (${counted(said.failures ?? 1, "attempt")}, the first ${ago(failing)})`,
          )
        : null,
      facts(
        [
          ["Last report", said.last_listing ? when(said.last_listing) : ""],
          ["Last event", when(one.last_event)],
          ["Lag", said.last_event && typeof said.lag === "number" ? duration(said.lag) : ""],
          ["Seen", said.emitted],
          ["Waiting to be complete", said.waiting || ""],
          ["There before, not reported", said.skipped_at_start || ""],
          ["Left out by the filter", said.filtered || ""],
          ["Not readable", (said.skipped ?? 0) + (said.unreadable ?? 0) || ""],
          ["Feeds", one.consumers.join(", ")],
        ].map(([name, found]) => [name, typeof found === "number" ? found.toLocaleString() : found]),
      ),
      one.events.length
        ? h("ul", { class: "events" }, one.events.slice(0, 8).map(line))
        : h("p", { class: "faint" }, "No object yet."),
    );
  }
  const drawPlaces = keyed(places, place);
  return {
    element: h("section", {}, places, nothing),
    async update() {
      const found = await ours("flow");
      drawPlaces(found.places);
      replace(
        nothing,
        found.places.length
          ? []
          : [
              empty(
                "Nothing is watched",
                "An asset with a watcher appears here while a DAG that is not paused is scheduled by it.",
              ),
            ],
      );
    },
  };
}
