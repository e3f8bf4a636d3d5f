# SPDX-License-Identifier: Apache-2.0
"""The provider's page in Airflow: flow, placements, jobs, results and health.

:mod:`.views` turns rows into what is shown and knows no Airflow; :mod:`.store` reads a bounded number of rows from
Airflow's database; :mod:`.api` answers HTTP behind Airflow's own authorisation; ``static/`` is what the browser runs.
"""
