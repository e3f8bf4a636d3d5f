# SPDX-License-Identifier: Apache-2.0
"""Params that DAGs of this provider have in common, for Airflow's trigger form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from airflow.sdk import Param

from airflow_provider_oscar.core.checks import check_value
from airflow_provider_oscar.placement.targets import PlacementTarget, by_name, get_target

#: Value of the placement param that leaves the choice to the policy.
AUTOMATIC = "auto"


def object_param() -> Param:
    """Return the param ``object_uri``, by which a run started by hand names the object it is about."""
    return Param(
        None,
        type=["null", "string"],
        title="Object",
        pattern=r"^(s3://[^/\s]+/\S*[^/\s]|dcache://[^/\s]*/\S*[^/\s])$",
        examples=["s3://bucket/in/electrons-100-200.h5", "dcache:///data/in/photons.h5"],
        description="For a run by hand: the file to process, as s3://bucket/key or dcache://conn_id/path "
        "(dcache:///path uses the connection dcache_default). Blanks and special characters percent-encoded.",
    )


def placement_param(targets: Sequence[PlacementTarget], titles: Mapping[str, str] | None = None) -> Param:
    """Return the param ``target``, by which whoever starts a run may insist on one target.

    :param targets: what there is to choose from.
    :param titles: what the form shows for the name of a target; its name by default.
    :raises DefinitionError: if two targets have the same name or there is none, or a title is of none of them.
    """
    known = by_name(targets)
    check_value(titles, Mapping | None, "titles of placement_param")
    for name in titles or ():
        get_target(name, known)
    names = list(known)
    shown = {name: (titles or {}).get(name, name) for name in names}
    return Param(
        AUTOMATIC,
        enum=[AUTOMATIC, *names],
        title="Placement",
        values_display={AUTOMATIC: "Let the policy decide", **shown},
        description="Where the object is processed. A forced place is used even if the policy prefers another.",
    )
