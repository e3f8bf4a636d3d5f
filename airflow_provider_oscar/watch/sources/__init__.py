# SPDX-License-Identifier: Apache-2.0
"""The stores that can be watched: each lists one place, and can look at one object of it."""
