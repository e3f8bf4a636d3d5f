# SPDX-License-Identifier: Apache-2.0
"""The arguments of watchers as values, one module a kind of place, and the sources that follow from them."""
