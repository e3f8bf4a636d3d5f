// SPDX-License-Identifier: Apache-2.0
// The view of health: Airflow's parts, placement targets, connections, and what the systems behind them say.

import { amount, duration, empty, h, mark, path, replace, table, when } from "./parts.js";
import { AIRFLOW, airflow, ask, ours } from "./server.js";

const LOOK_AGAIN = 60000;
const CIRCUITS = {
  closed: ["success", "Takes work"],
  open: ["failed", "Open: gets no work"],
  "half-open": ["up_for_retry", "Half open: one job tries it"],
};
const none = () => h("span", { class: "faint" }, "–");

function targetsTable() {
  return table(
    [
      { title: "Target", class: "tight target", cell: (one) => h("strong", {}, one.name) },
      {
        title: "Circuit",
        cell: (one) =>
          h(
            "div",
            {},
            mark(...(CIRCUITS[one.circuit] ?? ["queued", one.circuit])),
            one.until
              ? h(
                  "p",
                  { class: "faint" },
                  `tried again at ${new Date(one.until).toLocaleTimeString(undefined, { timeStyle: "long" })}`,
                )
              : null,
          ),
      },
      {
        title: "Newest jobs",
        class: "tight",
        cell: (one) => h("span", { class: "number" }, `${one.succeeded} of ${one.jobs} succeeded`),
      },
      {
        title: "Median time",
        class: "right",
        cell: (one) => h("span", { class: "number" }, duration(one.median_seconds)),
      },
      { title: "Median cost", class: "right", cell: (one) => amount(one.median_cost) },
      {
        title: "As predicted",
        class: "right",
        cell: (one) =>
          one.within_interval === null
            ? none()
            : h(
                "div",
                {},
                h("span", { class: "number" }, `${Math.round(one.within_interval * 100)} %`),
                h("p", { class: "faint" }, `lately ${Math.round(one.lately * 100)} %`),
              ),
      },
      { title: "Last", class: "tight", cell: (one) => when(one.last) },
    ],
    "Placement targets",
  );
}

function servicesTable() {
  return table(
    [
      { title: "Service", class: "tight", cell: (one) => h("strong", {}, one.name) },
      { title: "Connection", class: "tight", cell: (one) => one.conn_id },
      { title: "Image", class: "wide", cell: (one) => path(one.image) },
      { title: "CPU", class: "right", cell: (one) => one.cpu || none() },
      { title: "Memory", class: "right", cell: (one) => one.memory || none() },
      { title: "Node", class: "tight", cell: (one) => one.interlink_node_name || none() },
    ],
    "OSCAR services",
  );
}

function nodesTable() {
  return table(
    [
      { title: "Node", class: "tight", cell: (one) => h("strong", {}, one.name) },
      { title: "Connection", class: "tight", cell: (one) => one.conn_id },
      {
        title: "State",
        class: "prose",
        cell: (one) => (one.ready ? mark("success", "Ready") : mark("failed", one.unready_reason || "Not ready")),
      },
      { title: "CPU", class: "right", cell: (one) => one.cpu || none() },
      { title: "Memory", class: "right", cell: (one) => one.memory || none() },
      {
        title: "Accelerators",
        cell: (one) =>
          Object.entries(one.accelerators)
            .map(([name, count]) => `${count} × ${name}`)
            .join(", ") || none(),
      },
      { title: "Partitions", cell: (one) => one.partitions.join(", ") || none() },
    ],
    "Virtual nodes",
  );
}

function partsTable(title) {
  const further = (one) => Object.entries(one).filter(([name]) => !["id", "conn_id", "name"].includes(name));
  return table(
    [
      { title: "Name", class: "tight", cell: (one) => h("strong", {}, one.name) },
      { title: "Connection", class: "tight", cell: (one) => one.conn_id },
      {
        title: "",
        class: "wide",
        cell: (one) =>
          further(one)
            .map(([name, value]) => `${name}: ${value}`)
            .join(", ") || none(),
      },
    ],
    title,
  );
}

const TABLES = { "OSCAR services": servicesTable, "Virtual nodes": nodesTable };

function connectionsTable(answers, show) {
  function answer(one) {
    if (!one.answer) return h("span", { class: "faint" }, "not checked");
    return mark(
      one.answer.status === true ? "success" : one.answer.status === null ? "running" : "failed",
      h("span", {}, one.answer.message),
    );
  }
  async function check(one) {
    answers.set(one.conn_id, { status: null, message: "asking" });
    show();
    try {
      answers.set(
        one.conn_id,
        await airflow("connections/test", "POST", { connection_id: one.conn_id, conn_type: one.conn_type }),
      );
    } catch (error) {
      answers.set(one.conn_id, {
        status: false,
        message:
          error.status === 403
            ? "Not allowed: testing needs the right to add connections, and [core] test_connection = Enabled."
            : error.message,
      });
    }
    show();
  }
  return table(
    [
      { title: "Connection", cell: (one) => h("strong", {}, one.conn_id) },
      { title: "Type", cell: (one) => one.conn_type },
      { title: "Address", class: "wide", cell: (one) => path(one.host) },
      { title: "Check", class: "prose", cell: (one) => answer(one) },
      {
        title: "",
        class: "right",
        cell: (one) =>
          h(
            "button",
            { type: "button", class: "quiet", onclick: () => check(one), "aria-label": `Check ${one.conn_id}` },
            "Check",
          ),
      },
    ],
    "Connections",
  );
}

export function healthView() {
  const answers = new Map();
  const parts = h("div", { class: "parts" });
  const targets = targetsTable();
  const lists = connectionsTable(answers, () => show());
  const boxes = { targets: h("div"), connections: h("div"), systems: h("div") };
  const kinds = new Map();
  let found = [];
  let drawn = "";
  let looked = 0;

  function fill(box, title, list, rows, nothing) {
    list.update(rows);
    const shown = rows.length ? list.element : nothing;
    if (box.lastChild !== shown) replace(box, [h("h2", {}, title), shown]);
  }
  function show(refused = "") {
    const rows = found.map((one) => ({ ...one, id: one.conn_id, answer: answers.get(one.conn_id) ?? null }));
    fill(
      boxes.connections,
      "Connections",
      lists,
      rows,
      refused
        ? h("p", { class: "faint" }, refused)
        : empty("No connections", "There are none of our types that you may see. Admin > Connections adds one."),
    );
  }
  // Rarely, and each system apart from the others: one that hangs leaves the rest of the page as it is.
  async function lookAtSystems() {
    const asked = found.filter((one) => one.parts_title);
    if (!asked.length || Date.now() - looked < LOOK_AGAIN) return;
    const titles = [...new Set(asked.map((one) => one.parts_title))].sort();
    for (const title of titles)
      if (!kinds.has(title)) {
        const kind = { box: h("div"), list: (TABLES[title] ?? partsTable)(title) };
        kinds.set(title, kind);
        boxes.systems.append(kind.box);
        replace(kind.box, [h("h2", {}, title), h("p", { class: "faint" }, "Asking the systems…")]);
      }
    looked = Date.now();
    const told = await Promise.all(
      asked.map(async (one) => {
        try {
          return { ...one, ...(await ours("system", { conn_id: one.conn_id })) };
        } catch (error) {
          return { ...one, parts: [], error: error.message };
        }
      }),
    );
    for (const title of titles) {
      const mine = told.filter((each) => each.parts_title === title);
      const rows = mine.flatMap((each) =>
        each.parts.map((one) => ({ ...one, conn_id: each.conn_id, id: `${each.conn_id}/${one.name}` })),
      );
      const problems = mine
        .filter((each) => each.error)
        .map((each) => h("p", { class: "problem" }, `${each.conn_id}: ${each.error}`));
      fill(
        kinds.get(title).box,
        title,
        kinds.get(title).list,
        rows,
        problems.length ? h("div", {}, problems) : h("p", { class: "faint" }, "None that you may see."),
      );
    }
  }
  return {
    element: h(
      "section",
      { class: "health" },
      h("h2", {}, "Airflow"),
      parts,
      boxes.targets,
      boxes.connections,
      boxes.systems,
    ),
    async update() {
      let refused = "";
      const hidden = (error) => {
        if (error.status !== 403) throw error;
        refused = "Your role in Airflow does not allow you to see connections.";
        return { connections: [] };
      };
      const [own, airflows, placed] = await Promise.all([
        ours("health").catch(hidden),
        ask(new URL("api/v2/monitor/health", AIRFLOW)).catch(() => ({})),
        ours("targets"),
      ]);
      found = own.connections;
      show(refused);
      fill(
        boxes.targets,
        "Placement targets",
        targets,
        placed.targets.map((one) => ({ ...one, id: one.name })),
        h("p", { class: "faint" }, "No placement has learned from a job yet; a placement task with learn=True does."),
      );
      lookAtSystems();
      const words = Object.entries(airflows).map(([name, part]) => [
        name.replaceAll("_", " "),
        part?.status ?? "unknown",
      ]);
      if (JSON.stringify(words) === drawn) return;
      drawn = JSON.stringify(words);
      replace(
        parts,
        words.map(([name, status]) =>
          mark(status === "healthy" ? "success" : status === "unknown" ? "queued" : "failed", `${name}: ${status}`),
        ),
      );
    },
  };
}
