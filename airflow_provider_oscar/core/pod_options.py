# SPDX-License-Identifier: Apache-2.0
"""What a user adds to the pod of a job: variables, volumes, containers, metadata, or a whole template.

Values are Kubernetes' own, as dictionaries or as objects of the Kubernetes client. What is ours in the pod wins:
:mod:`~airflow_provider_oscar.core.pod_merge` puts both together and refuses what a virtual node would lose.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeAlias

from airflow_provider_oscar.core.errors import DefinitionError, quoted

#: One object of Kubernetes, as its API takes it.
PodPart: TypeAlias = Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class PodOptions:
    """Additions to the pod of a job; each text may hold templates.

    :param env: further ``EnvVar`` of the job's container, ``valueFrom`` included; the command sees them.
    :param env_from: ``EnvFromSource``: all keys of a Secret or ConfigMap as variables.
    :param volumes: ``Volume``; on a virtual node emptyDir, configMap, secret, projected, and hostPath with a type.
    :param volume_mounts: ``VolumeMount`` of the job's container.
    :param image_pull_secrets: names of Secrets for private registries; on ordinary nodes only.
    :param labels: of the pod; ours win.
    :param annotations: of the pod; what follows from ``SlurmOptions`` is set there alone.
    :param containers: further ``Container``; they start with the job's, and are ended when its result is there.
    :param init_containers: ``Container`` that run to their end before, in order.
    :param service_account: name; its token is not mounted.
    :param tolerations: further ``Toleration``.
    :param node_selector: further labels of the node.
    :param priority_class: name of a ``PriorityClass``.
    :param pod_template_dict: a whole pod to begin with; its container ``job``, ``base``, or the only one, becomes the
        job's.
    :param pod_template_file: path of a YAML file with such a pod, instead of ``pod_template_dict``.
    :raises DefinitionError: for both templates, or a value of another kind.
    """

    env: Sequence[PodPart] = ()
    env_from: Sequence[PodPart] = ()
    volumes: Sequence[PodPart] = ()
    volume_mounts: Sequence[PodPart] = ()
    image_pull_secrets: Sequence[str] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    containers: Sequence[PodPart] = ()
    init_containers: Sequence[PodPart] = ()
    service_account: str = ""
    tolerations: Sequence[PodPart] = ()
    node_selector: Mapping[str, str] = field(default_factory=dict)
    priority_class: str = ""
    pod_template_dict: PodPart = field(default_factory=dict)
    pod_template_file: str = ""

    def __post_init__(self) -> None:
        if self.pod_template_dict and self.pod_template_file:
            raise DefinitionError("PodOptions has both pod_template_dict and pod_template_file; give one")
        for each in fields(self):
            value = plain(getattr(self, each.name))
            expected = type(plain(_DEFAULTS[each.name]))
            if not isinstance(value, expected):
                raise DefinitionError(
                    f"PodOptions.{each.name} is {quoted(value)}; expected a {_WORDS[expected]} as in Kubernetes"
                )
            object.__setattr__(self, each.name, value)

    @property
    def has_template(self) -> bool:
        """A pod template is given."""
        return bool(self.pod_template_dict or self.pod_template_file)

    def rendered(self, render: Callable[[str], object]) -> PodOptions:
        """Return the options with every text rendered.

        :param render: renders one text.
        """
        made: dict[str, Any] = {each.name: _rendered(getattr(self, each.name), render) for each in fields(self)}
        return replace(self, **made)

    def to_dict(self) -> dict[str, object]:
        """Return what differs from the default, JSON-able."""
        return {each.name: value for each in fields(self) if (value := getattr(self, each.name))}


_WORDS: Mapping[type, str] = {list: "list", dict: "mapping", str: "text"}
_DEFAULTS: Mapping[str, object] = {
    **dict.fromkeys(("env", "env_from", "volumes", "volume_mounts", "image_pull_secrets"), ()),
    **dict.fromkeys(("containers", "init_containers", "tolerations"), ()),
    **{name: {} for name in ("labels", "annotations", "node_selector", "pod_template_dict")},
    **dict.fromkeys(("service_account", "priority_class", "pod_template_file"), ""),
}


def plain(value: object) -> object:
    """Return a value as lists, dictionaries and scalars; objects of the Kubernetes client by their API's names.

    The client is not imported for it: its models say how their fields are called (``attribute_map``).
    """
    names = getattr(value, "attribute_map", None)
    if isinstance(names, Mapping) and hasattr(value, "openapi_types"):
        given = {str(api): getattr(value, attribute, None) for attribute, api in names.items()}
        return {name: plain(each) for name, each in given.items() if each is not None}
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value


def _rendered(value: object, render: Callable[[str], object]) -> object:
    if isinstance(value, str):
        return str(render(value)) if "{" in value else value
    if isinstance(value, Mapping):
        return {name: _rendered(each, render) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rendered(each, render) for each in value]
    return value
