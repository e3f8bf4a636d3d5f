// SPDX-License-Identifier: Apache-2.0
// What the address of the page selects: a run or a task, when Airflow shows it on their tabs.

export const PARAMETERS = new URLSearchParams(window.location.search);
export const RUN =
  PARAMETERS.get("dag_id") && PARAMETERS.get("run_id")
    ? { dag_id: PARAMETERS.get("dag_id"), run_id: PARAMETERS.get("run_id") }
    : null;
export const TASK =
  RUN && PARAMETERS.get("task_id")
    ? { ...RUN, task_id: PARAMETERS.get("task_id"), map_index: PARAMETERS.get("map_index") || "-1" }
    : null;

export const identity = (job) => ({
  dag_id: job.dag_id,
  run_id: job.run_id,
  task_id: job.task_id,
  map_index: String(job.map_index),
});
