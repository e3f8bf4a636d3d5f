# SPDX-License-Identifier: Apache-2.0
"""Deferrable sensors over the same cores as the triggers."""
