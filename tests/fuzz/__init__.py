# SPDX-License-Identifier: Apache-2.0
"""Coverage-guided fuzzing of the parsers of what servers send; ``make fuzz``."""
