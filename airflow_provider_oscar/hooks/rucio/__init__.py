# SPDX-License-Identifier: Apache-2.0
"""Rucio's catalogue: which files a dataset or container has."""
