# SPDX-License-Identifier: Apache-2.0
"""TaskFlow forms of the operators: ``@task.interlink`` and ``@task.placement``."""
