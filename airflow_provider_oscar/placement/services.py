# SPDX-License-Identifier: Apache-2.0
"""One workload, several OSCAR services: the definition of one, and a service for each placement target.

On OSCAR a target is a service: node, SLURM options and resources belong to the definition, and no job can change them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from airflow_provider_oscar.core.errors import DefinitionError, quoted
from airflow_provider_oscar.core.services import SERVICE_NAME_LIMIT, ServiceDefinition
from airflow_provider_oscar.placement.targets import PlacementTarget

_QUANTITIES = ("cpu", "memory")


def services_for(
    definition: ServiceDefinition, targets: Sequence[PlacementTarget], *, images: Mapping[str, str] | None = None
) -> list[ServiceDefinition]:
    """Return a service for each target, named ``<service>-<target>``.

    A target with a ``node`` gets a service that is offloaded there, with the target's SLURM options; one without runs
    in the cloud, without those of the definition. ``gpu`` among the capabilities asks for a GPU, ``cpu`` and
    ``memory`` among the resources replace the definition's. Inputs stay with none of them, since each would run every
    file that comes there.

    :param definition: the workload.
    :param targets: of kind ``oscar``; others are left out.
    :param images: target's name to image, where it needs another one than the definition's: a ``.sif``, or one for
        GPUs.
    :raises DefinitionError: if no target is of that kind, an image is for none of them, or a name gets too long.
    """
    own = [target for target in targets if target.kind == "oscar"]
    if not own:
        raise DefinitionError(f"service {definition.name!r}: none of its targets is of kind 'oscar'")
    given = dict(images or {})
    if unknown := sorted(given.keys() - {target.name for target in own}):
        raise DefinitionError(
            f"service {definition.name!r}: there is no target {quoted(unknown[0])} of kind 'oscar' for its image; "
            f"expected {', '.join(target.name for target in own)}"
        )
    return [_service(definition, target, given.get(target.name, "")) for target in own]


def _service(definition: ServiceDefinition, target: PlacementTarget, image: str) -> ServiceDefinition:
    name = f"{definition.name}-{target.name}"
    if len(name) > SERVICE_NAME_LIMIT:
        raise DefinitionError(
            f"service {quoted(name)} would have {len(name)} characters, OSCAR takes {SERVICE_NAME_LIMIT}; shorten the "
            "name of the workload or of the target"
        )
    kept = {key: value for key, value in definition.annotations.items() if not key.startswith("slurm-job.vk.io/")}
    slurm = target.slurm.to_annotations() if target.slurm else {}
    if target.node and not slurm:
        slurm = {key: value for key, value in definition.annotations.items() if key not in kept}
    # interLink's plugin takes CPUs and memory of the batch job from the limits of the pod.
    limits = {**(target.slurm.limits() if target.slurm else {}), **target.resources}
    quantities = {key: str(value) for key, value in limits.items() if key in _QUANTITIES}
    return replace(
        definition,
        name=name,
        image=image or definition.image,
        cpu=quantities.get("cpu", definition.cpu),
        memory=quantities.get("memory", definition.memory),
        # On a virtual node the GPU is SLURM's to give; asked of Kubernetes as well, the pod would wait forever.
        enable_gpu=not target.node and "gpu" in target.capabilities,
        interlink_node_name=target.node,
        annotations={**kept, **slurm},
        inputs=(),
    )
