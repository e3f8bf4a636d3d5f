# SPDX-License-Identifier: Apache-2.0
"""The 3DGAN pipeline, end to end on one machine: what ``make demo`` and ``make up`` run.

``scenario`` plays the scientists who drop files, ``results`` judges what came out by manifest, ``report`` shows it.
"""
