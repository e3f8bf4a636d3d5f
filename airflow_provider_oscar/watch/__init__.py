# SPDX-License-Identifier: Apache-2.0
"""How new objects are watched for, without the Airflow classes that users name.

The :mod:`arguments <airflow_provider_oscar.watch.arguments>` of a watcher make its *source*, one of
:mod:`~airflow_provider_oscar.watch.sources`, which lists a place in pages and, with
:mod:`~airflow_provider_oscar.watch.notifications`, shows single objects in between. The *producer* runs one source for
all watchers of that place in the triggerer. Each *watcher* decides by its *strategy* which objects of a page are new to
it and what it has to remember; that goes to its *state store* when Airflow has stored the events, not before.
"""
