# SPDX-License-Identifier: Apache-2.0
"""Apache Airflow provider for OSCAR, interLink and dCache; what DAG authors import.

Names are imported when they are asked for: Airflow loads provider metadata while ``import airflow`` runs, so this
package must stay importable without Airflow and without delay.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_oscar.assets import dcache_asset, oscar_asset, s3_asset
    from airflow_provider_oscar.core.batches import OffloadBatch
    from airflow_provider_oscar.core.filters import ObjectFilter
    from airflow_provider_oscar.core.objects import ObjectEvent
    from airflow_provider_oscar.core.pod_options import PodOptions
    from airflow_provider_oscar.core.services import ServiceDefinition
    from airflow_provider_oscar.core.slurm import SlurmOptions
    from airflow_provider_oscar.decorators.collection import task
    from airflow_provider_oscar.decorators.interlink import interlink_command_task, interlink_task
    from airflow_provider_oscar.decorators.kubernetes import kubernetes_job_task
    from airflow_provider_oscar.decorators.oscar import oscar_task
    from airflow_provider_oscar.decorators.placement import placement_task
    from airflow_provider_oscar.ingest import NewObjects, get_object, get_objects
    from airflow_provider_oscar.jobs.options import RunOptions
    from airflow_provider_oscar.operators.backfill import BackfillObjectsOperator
    from airflow_provider_oscar.operators.dcache import DCacheBringOnlineOperator
    from airflow_provider_oscar.operators.interlink import InterLinkPodOperator
    from airflow_provider_oscar.operators.interlink_batch import InterLinkBatchOperator
    from airflow_provider_oscar.operators.kubernetes import KubernetesJobOperator
    from airflow_provider_oscar.operators.maintenance import InterLinkMaintenanceOperator
    from airflow_provider_oscar.operators.oscar import OscarJobOperator
    from airflow_provider_oscar.operators.oscar_calls import (
        OscarBucketOperator,
        OscarDeleteServiceOperator,
        OscarInvokeOperator,
    )
    from airflow_provider_oscar.operators.oscar_exposed import OscarExposedServiceOperator
    from airflow_provider_oscar.operators.oscar_service import OscarServiceOperator
    from airflow_provider_oscar.operators.placed import PlacedResultOperator, placed
    from airflow_provider_oscar.operators.placed_job import PlacedJobOperator
    from airflow_provider_oscar.operators.placement import PlacementBranchOperator
    from airflow_provider_oscar.operators.placement_of_many import PlacementOfManyOperator
    from airflow_provider_oscar.operators.replay import ReplayObjectsOperator
    from airflow_provider_oscar.params import object_param, placement_param
    from airflow_provider_oscar.placement.learned import CheapestWithinDeadline, FastestFinish, GreenestWithinDeadline
    from airflow_provider_oscar.placement.policies import Explicit, Fallback, Rule, RuleBased
    from airflow_provider_oscar.placement.targets import PlacementTarget
    from airflow_provider_oscar.sensors.interlink import InterLinkNodeSensor
    from airflow_provider_oscar.sensors.objects import (
        DCacheNewObjectSensor,
        FileSystemNewObjectSensor,
        S3NewObjectSensor,
    )
    from airflow_provider_oscar.sensors.oscar import OscarExposedServiceSensor, OscarJobSensor
    from airflow_provider_oscar.triggers.objects import (
        DCacheNewObjectTrigger,
        FileSystemNewObjectTrigger,
        Notifications,
        S3NewObjectTrigger,
    )
    from airflow_provider_oscar.triggers.service_jobs import OscarServiceJobsTrigger

__version__ = "0.1.0"

__all__ = [
    "BackfillObjectsOperator",
    "CheapestWithinDeadline",
    "DCacheBringOnlineOperator",
    "DCacheNewObjectSensor",
    "DCacheNewObjectTrigger",
    "Explicit",
    "Fallback",
    "FastestFinish",
    "FileSystemNewObjectSensor",
    "FileSystemNewObjectTrigger",
    "GreenestWithinDeadline",
    "InterLinkBatchOperator",
    "InterLinkMaintenanceOperator",
    "InterLinkNodeSensor",
    "InterLinkPodOperator",
    "KubernetesJobOperator",
    "NewObjects",
    "Notifications",
    "ObjectEvent",
    "ObjectFilter",
    "OffloadBatch",
    "OscarBucketOperator",
    "OscarDeleteServiceOperator",
    "OscarExposedServiceOperator",
    "OscarExposedServiceSensor",
    "OscarInvokeOperator",
    "OscarJobOperator",
    "OscarJobSensor",
    "OscarServiceJobsTrigger",
    "OscarServiceOperator",
    "PlacedJobOperator",
    "PlacedResultOperator",
    "PlacementBranchOperator",
    "PlacementOfManyOperator",
    "PlacementTarget",
    "PodOptions",
    "ReplayObjectsOperator",
    "Rule",
    "RuleBased",
    "RunOptions",
    "S3NewObjectSensor",
    "S3NewObjectTrigger",
    "ServiceDefinition",
    "SlurmOptions",
    "dcache_asset",
    "get_object",
    "get_objects",
    "interlink_command_task",
    "interlink_task",
    "kubernetes_job_task",
    "object_param",
    "oscar_asset",
    "oscar_task",
    "placed",
    "placement_param",
    "placement_task",
    "s3_asset",
    "task",
]

#: The module of each name, below this package.
_MODULES = {
    "BackfillObjectsOperator": "operators.backfill",
    "CheapestWithinDeadline": "placement.learned",
    "DCacheBringOnlineOperator": "operators.dcache",
    "DCacheNewObjectSensor": "sensors.objects",
    "DCacheNewObjectTrigger": "triggers.objects",
    "Explicit": "placement.policies",
    "Fallback": "placement.policies",
    "FastestFinish": "placement.learned",
    "FileSystemNewObjectSensor": "sensors.objects",
    "FileSystemNewObjectTrigger": "triggers.objects",
    "GreenestWithinDeadline": "placement.learned",
    "InterLinkNodeSensor": "sensors.interlink",
    "InterLinkPodOperator": "operators.interlink",
    "InterLinkBatchOperator": "operators.interlink_batch",
    "InterLinkMaintenanceOperator": "operators.maintenance",
    "KubernetesJobOperator": "operators.kubernetes",
    "NewObjects": "ingest",
    "Notifications": "triggers.objects",
    "ObjectEvent": "core.objects",
    "ObjectFilter": "core.filters",
    "OffloadBatch": "core.batches",
    "OscarBucketOperator": "operators.oscar_calls",
    "OscarDeleteServiceOperator": "operators.oscar_calls",
    "OscarExposedServiceOperator": "operators.oscar_exposed",
    "OscarExposedServiceSensor": "sensors.oscar",
    "OscarInvokeOperator": "operators.oscar_calls",
    "OscarJobOperator": "operators.oscar",
    "OscarJobSensor": "sensors.oscar",
    "OscarServiceJobsTrigger": "triggers.service_jobs",
    "OscarServiceOperator": "operators.oscar_service",
    "PlacedJobOperator": "operators.placed_job",
    "PlacedResultOperator": "operators.placed",
    "PlacementBranchOperator": "operators.placement",
    "PlacementOfManyOperator": "operators.placement_of_many",
    "PlacementTarget": "placement.targets",
    "PodOptions": "core.pod_options",
    "ReplayObjectsOperator": "operators.replay",
    "Rule": "placement.policies",
    "RuleBased": "placement.policies",
    "RunOptions": "jobs.options",
    "S3NewObjectSensor": "sensors.objects",
    "S3NewObjectTrigger": "triggers.objects",
    "ServiceDefinition": "core.services",
    "SlurmOptions": "core.slurm",
    "dcache_asset": "assets",
    "get_object": "ingest",
    "get_objects": "ingest",
    "interlink_command_task": "decorators.interlink",
    "interlink_task": "decorators.interlink",
    "kubernetes_job_task": "decorators.kubernetes",
    "object_param": "params",
    "oscar_asset": "assets",
    "oscar_task": "decorators.oscar",
    "placed": "operators.placed",
    "placement_param": "params",
    "placement_task": "decorators.placement",
    "s3_asset": "assets",
    "task": "decorators.collection",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Show the public names."""
    return sorted((*globals(), *__all__))
