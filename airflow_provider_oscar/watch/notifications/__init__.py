# SPDX-License-Identifier: Apache-2.0
"""The ways on which stores tell of new objects; each is a channel, and one listener keeps any of them open."""
