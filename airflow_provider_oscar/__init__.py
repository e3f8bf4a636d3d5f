# SPDX-License-Identifier: Apache-2.0
"""Apache Airflow provider for OSCAR, interLink and dCache.

Nothing is imported here: Airflow loads provider metadata while ``import airflow`` runs, so this
package must stay importable without Airflow and without delay.
"""

__version__ = "0.1.0"
