# SPDX-License-Identifier: Apache-2.0
"""Starts upstream's own release programs, where the user has them; each is looked for by name and optional."""
