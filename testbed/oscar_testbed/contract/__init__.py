# SPDX-License-Identifier: Apache-2.0
"""One set of cases put to the embedded platform and to the real systems; what they answer, in a comparable form."""
