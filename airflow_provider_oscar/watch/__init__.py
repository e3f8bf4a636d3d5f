# SPDX-License-Identifier: Apache-2.0
"""How new objects are watched for, without the Airflow classes that users name.

A *source* (``s3``, ``dcache``) lists a place and hands out pages. The *producer* runs one source for all
watchers of that place in the triggerer. Each watcher's *view* decides which objects of a page are new to
it and what it has to remember; that memory is written when Airflow has stored the events, not before.
"""
