# SPDX-License-Identifier: Apache-2.0
"""One fake of an outside system each, as strict as the real one."""
