# SPDX-License-Identifier: Apache-2.0
"""One job, wherever it runs: its specification, its manifest, what follows from both, and how it is submitted."""
