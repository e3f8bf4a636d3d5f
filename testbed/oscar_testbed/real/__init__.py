# SPDX-License-Identifier: Apache-2.0
"""The stack: the outside systems themselves, on one machine, as plain processes."""
