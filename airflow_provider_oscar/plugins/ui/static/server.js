// SPDX-License-Identifier: Apache-2.0
// What the page asks: its own addresses, and Airflow's public API.

export const PAGE = new URL(".", window.location.href);
export const AIRFLOW = new URL("../../", PAGE);

export async function ask(url, options = {}) {
  const answer = await fetch(url, { credentials: "same-origin", ...options }).catch(() => {
    throw new Error("Airflow does not answer.");
  });
  const body = await answer.json().catch(() => ({}));
  if (answer.ok) return body;
  const words =
    typeof body.detail === "string"
      ? body.detail
      : `Airflow answered with error ${answer.status}${answer.statusText ? ` (${answer.statusText})` : ""}.`;
  const error = new Error(
    answer.status === 401
      ? "You are not logged in any more. Load the page again to log in."
      : answer.status === 403
        ? "Your role in Airflow does not allow you to see this."
        : words,
  );
  error.status = answer.status;
  throw error;
}
export const ours = (name, parameters = {}) => ask(new URL(`api/${name}?${new URLSearchParams(parameters)}`, PAGE));
export const airflow = (name, method, body) =>
  ask(new URL(`api/v2/${name}`, AIRFLOW), {
    method,
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
