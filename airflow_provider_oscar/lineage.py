# SPDX-License-Identifier: Apache-2.0
"""What a job read and wrote, as OpenLineage datasets; used when Airflow's OpenLineage provider is installed.

Names follow OpenLineage's naming of object stores: namespace ``s3://bucket``, name the key; for dCache the namespace is
``dcache://conn_id``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.objects import split_uri

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage

#: Outputs that are datasets of their own; of more, the place where they lie is the dataset.
OUTPUTS_NAMED = 50


class DatasetName(NamedTuple):
    """Names a dataset.

    :param namespace: the store.
    :param name: of the object, or of the place, within the store.
    """

    namespace: str
    name: str


def input_datasets(manifest: Mapping[str, object]) -> list[DatasetName]:
    """Return what a job read.

    :param manifest: as the operators return it.
    """
    source = manifest.get("input")
    return _named(str(source["uri"])) if isinstance(source, Mapping) and source.get("uri") else []


def output_datasets(manifest: Mapping[str, object]) -> list[DatasetName]:
    """Return what a job wrote: each output, or their place if there are many.

    :param manifest: as the operators return it.
    """
    location = _named(str(manifest.get("output_uri") or ""))
    listed = manifest.get("outputs")
    outputs = listed if isinstance(listed, list) else []
    written = [each for each in outputs if isinstance(each, Mapping) and each.get("key")]
    if not location or not written:
        return []
    # Each place has a name of its own; most jobs have one.
    locations = {uri: _named(uri)[0] if uri else location[0] for uri in {_elsewhere(each): None for each in written}}
    if len(written) > OUTPUTS_NAMED:
        return list(dict.fromkeys(locations.values()))
    return [_below(locations[_elsewhere(each)], str(each["key"])) for each in written]


def _elsewhere(output: Mapping[str, object]) -> str:
    """Where an output is that went to another place by its name; empty if it did not, or nobody can read where."""
    uri = str(output.get("uri") or "")
    return uri if _named(uri) else ""


def _below(location: DatasetName, key: str) -> DatasetName:
    # Paths of dCache are absolute, keys of S3 have no slash at their beginning.
    below = "" if location.name == "/" and location.namespace.startswith("s3:") else f"{location.name.rstrip('/')}/"
    return DatasetName(location.namespace, below + key)


def _named(uri: str) -> list[DatasetName]:
    try:
        source, authority, path = split_uri(uri)
    except DefinitionError:
        return []
    return [DatasetName(f"{source.value}://{authority}", path.rstrip("/") or "/")]


def operator_lineage(manifest: Mapping[str, object]) -> OperatorLineage:
    """Return the lineage of a job in the form of Airflow's OpenLineage provider, which must be installed.

    :param manifest: as the operators return it.
    """
    from airflow.providers.common.compat.openlineage.facet import Dataset
    from airflow.providers.openlineage.extractors import OperatorLineage

    return OperatorLineage(
        inputs=[Dataset(namespace=each.namespace, name=each.name) for each in input_datasets(manifest)],
        outputs=[Dataset(namespace=each.namespace, name=each.name) for each in output_datasets(manifest)],
    )
