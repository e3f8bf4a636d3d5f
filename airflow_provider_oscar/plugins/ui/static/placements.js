// SPDX-License-Identifier: Apache-2.0
// The view of placements: decisions with their reasons, and what jobs took at each target.

import { boxPlots, duration, empty, h, path, phaseBar, replace, state, table, when } from "./parts.js";
import { ours } from "./server.js";

export function placementsView() {
  const plots = h("div");
  const rows = table(
    [
      { title: "Decided", class: "tight", cell: (one) => when(one.at) },
      { title: "Object", class: "wide", cell: (one) => path(one.object) },
      { title: "Target", class: "tight target", cell: (one) => h("strong", {}, one.target) },
      {
        title: "Because",
        class: "prose",
        cell: (one) =>
          h(
            "div",
            {},
            one.reasons.map((reason) => h("p", {}, reason)),
            rejected(one),
          ),
      },
      { title: "Expected", class: "right", cell: (one) => expected(one) },
      { title: "Took", cell: (one) => phaseBar(one.took) },
      { title: "Outcome", class: "tight", cell: (one) => state(one.state) },
    ],
    "Placement decisions, newest first",
  );
  const nothing = h("div");
  const rejected = (one) =>
    Object.entries(one.rejected).map(([name, why]) => h("p", { class: "faint" }, `not ${name}: ${why}`));
  function expected(one) {
    const total = one.predicted.total ?? Object.values(one.predicted).reduce((sum, value) => sum + value, 0);
    return Object.keys(one.predicted).length
      ? h("span", { class: "number" }, duration(total))
      : h("span", { class: "faint", title: "The policy predicts nothing" }, "–");
  }
  let drawn = "";
  return {
    element: h("section", {}, plots, rows.element, nothing),
    async update() {
      const { placements, boxes } = await ours("placements");
      if (JSON.stringify(boxes) !== drawn) {
        drawn = JSON.stringify(boxes);
        replace(
          plots,
          boxes.length
            ? [
                h(
                  "div",
                  { class: "head" },
                  h("h2", {}, "What jobs took"),
                  h(
                    "p",
                    { class: "faint" },
                    "Seconds per target, over the newest jobs that succeeded: box from quartile to quartile, line at the median, whiskers to the extremes.",
                  ),
                ),
                boxPlots(boxes),
              ]
            : [],
        );
      }
      rows.update(placements);
      rows.element.hidden = !placements.length;
      replace(
        nothing,
        placements.length
          ? []
          : [
              empty(
                "No decisions yet",
                "PlacementBranchOperator and @task.placement leave their decisions here, with reasons.",
              ),
            ],
      );
    },
  };
}
