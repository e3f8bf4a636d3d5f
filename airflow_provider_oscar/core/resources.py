# SPDX-License-Identifier: Apache-2.0
"""Resource limits as Kubernetes has them: names and quantities."""

from __future__ import annotations

import re
from collections.abc import Mapping

from airflow_provider_oscar.core.checks import is_template
from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.words import require_word

_RESOURCES = ("cpu", "memory", "ephemeral-storage")
#: Quantities in all forms that Kubernetes takes, and so does OSCAR.
QUANTITY = re.compile(r"\+?(\d+\.?\d*|\.\d+)(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][-+]?\d+)?")
#: Memory of which people mean MiB: of few bytes a virtual node's plugin makes 0, which is all of a node to SLURM.
_FEW_BYTES = re.compile(r"\+?(\d{1,6}(\.\d*)?|\.\d+)m?")
#: Quantities that a virtual node reads as well.
_PLAIN_QUANTITY = re.compile(r"\d+(\.\d+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?")


def check_resources(resources: Mapping[str, str], display_name: str, *, plain: bool = True) -> dict[str, str]:
    """Return resource limits; names are those of Kubernetes, or have a domain, as those of devices do.

    :param resources: quantities by name; a template is not looked into.
    :param display_name: words that say whose they are.
    :param plain: whether a virtual node may have to read the quantities.
    :raises DefinitionError: for an unknown name or no quantity.
    """
    pattern = _PLAIN_QUANTITY if plain else QUANTITY
    for name, quantity in resources.items():
        if "/" not in name and not is_template(name) and not name.startswith("hugepages-"):
            require_word(name, _RESOURCES, f"{display_name}: a resource")
        if not is_template(quantity) and not (isinstance(quantity, str) and pattern.fullmatch(quantity)):
            raise DefinitionError(
                f"{display_name}: resource {quoted(name)} is {quoted(quantity)}; expected a Kubernetes quantity "
                "as text, for example '2' or '512Mi'"
            )
        check_memory(name, quantity, display_name)
    return dict(resources)


def check_memory(name: str, quantity: str, display_name: str) -> None:
    """Refuse a memory of a few bytes, as SLURM's and Docker's notations of megabytes are read.

    :param name: of the resource.
    :param quantity: of it; a template is not looked into.
    :param display_name: words that say whose it is.
    :raises DefinitionError: with the notation that is meant.
    """
    if name in ("memory", "ephemeral-storage") and _FEW_BYTES.fullmatch(quantity) and quantity.strip("0.+m"):
        raise DefinitionError(
            f"{display_name}: {name} is {quoted(quantity)}, which is a number of bytes to Kubernetes; write "
            f"'{quantity.rstrip('m')}Mi' for MiB"
        )
