# SPDX-License-Identifier: Apache-2.0
"""Keep OSCAR services as they are defined."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from airflow.sdk import BaseHook, BaseOperator
from airflow.sdk.exceptions import AirflowNotFoundException
from msgspec.structs import replace

from airflow_provider_oscar._airflow import airflow_errors
from airflow_provider_oscar.base_arguments import OperatorArguments, check_rendered, checks_arguments
from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.fdl import from_fdl
from airflow_provider_oscar.core.service_difference import difference
from airflow_provider_oscar.core.services import ServiceDefinition
from airflow_provider_oscar.core.words import require_word
from airflow_provider_oscar.hooks.oscar.federation import get_members
from airflow_provider_oscar.hooks.oscar.hook import OscarHook
from airflow_provider_oscar.jobs.oscar import is_oscar_connection
from airflow_provider_oscar.jobs.sealing import with_key
from airflow_provider_oscar.jobs.start_script import service_script
from airflow_provider_oscar.jobs.wrapping import WRAP, wrapped
from airflow_provider_oscar.placement.services import services_for

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_oscar.hooks.http.flows import Flow
    from airflow_provider_oscar.placement.targets import PlacementTarget


#: Name of a script in an FDL that means: the script of this provider's supervisor.
SUPERVISOR_SCRIPT = "@supervisor"


def load_fdl(
    text: str,
    folder: Path,
    *,
    fill_in: Callable[[str], str] = lambda value: value,
    absolute_scripts: bool = False,
) -> list[ServiceDefinition]:
    """Return the services of an FDL; operator and ``airflow oscar services apply`` both read it here.

    :param text: YAML text of the FDL.
    :param folder: where the scripts lie that it names, absolute paths too, as for oscar-cli; ``@supervisor`` is the
        script of this provider, ``@wrap infer.sh`` the script ``infer.sh`` whose exit code counts.
    :param fill_in: returns what takes the place of a text of the file, for templates.
    :param absolute_scripts: read an absolute path as such if there is none below ``folder``; for people at a terminal.
    :raises DefinitionError: if the FDL is not valid or a script cannot be read.
    """
    base = folder.resolve()

    def read_script(path: str) -> str:
        if path == SUPERVISOR_SCRIPT:
            return service_script()
        if path.startswith(WRAP):
            return WRAP + read_script(path.removeprefix(WRAP).strip())
        script = (base / path.lstrip("/")).resolve()
        if not script.is_relative_to(base):
            raise DefinitionError(f"the script {path!r} that the FDL names leads out of {str(folder)!r}")
        if absolute_scripts and path.startswith("/") and not script.exists():
            script = Path(path)
        try:
            return script.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DefinitionError(
                f"cannot read the script {path!r} that the FDL names, in {str(folder)!r} ({error}); put it there (or "
                f"set script_folder), or name the script {SUPERVISOR_SCRIPT!r} for the one of this provider"
            ) from error

    found = from_fdl(text, read_script, fill_in=fill_in)
    return [
        wrapped(replace(each, script=each.script.removeprefix(WRAP))) if each.script.startswith(WRAP) else each
        for each in found
    ]


def member_connection(
    definition: ServiceDefinition, among: Sequence[ServiceDefinition], clusters: Mapping[str, str], default: str
) -> str:
    """Return the connection of the cluster that a service of an FDL is meant for.

    A file for one cluster goes to the connection of the task, whatever the file calls the cluster, unless clusters are
    mapped. In a file for several, each cluster is mapped, or has a connection of its own name.

    :param definition: the service.
    :param among: all services of the file.
    :param clusters: cluster id to connection.
    :param default: the connection of the task.
    :raises DefinitionError: for a cluster that is not mapped.
    """
    cluster = definition.cluster_id
    if cluster in clusters:
        return clusters[cluster]
    if not cluster or (not clusters and len({each.cluster_id for each in among}) == 1):
        return default
    try:
        conn_type = BaseHook.get_connection(cluster).conn_type
    except AirflowNotFoundException:
        conn_type = None
    if conn_type != OscarHook.conn_type:
        raise DefinitionError(
            f"the FDL has services for several clusters, or clusters are mapped, and {cluster!r} of service "
            f"{definition.name!r} has no connection; say clusters={{{cluster!r}: '<connection id>'}} (on the command "
            f"line --cluster {cluster}=CONN_ID), or make a connection of type oscar of that name"
        )
    return cluster


def apply_services(
    definitions: Sequence[ServiceDefinition],
    *,
    clusters: Mapping[str, str],
    conn_id: str,
    dry_run: bool = False,
) -> dict[str, str]:
    """Make services be as defined, those of the supervisor with their key.

    Return what was done, by name, or ``cluster/name`` where names repeat.

    Every cluster is known before the first service is sent, and what cannot work together is refused.

    :param definitions: in the order in which they are sent.
    :param clusters: cluster id to connection.
    :param conn_id: connection of services without a cluster.
    :param dry_run: compare alone.
    """
    definitions = [with_key(each) for each in definitions]
    connections = [member_connection(each, definitions, clusters, conn_id) for each in definitions]
    hooks = {connection: OscarHook(connection) for connection in connections}
    for connection, hook in hooks.items():
        _check_together(
            hook, [each for each, place in zip(definitions, connections, strict=True) if place == connection]
        )
    for definition, connection in zip(definitions, connections, strict=True):
        _check_paths(hooks[connection], definition)
        _check_members(hooks[connection], definition, clusters)
    done: dict[str, str] = {}
    unfinished: list[tuple[OscarHook, ServiceDefinition]] = []
    for number, (definition, connection) in enumerate(zip(definitions, connections, strict=True)):
        hook = hooks[connection]
        others = [
            each
            for each, place in zip(definitions, connections, strict=True)
            if place == connection and each is not definition
        ]
        label = _label(definition, definitions)
        if dry_run:
            theirs = hook.run(hook.get_service(definition.name))
            found = difference(definition, theirs) if theirs is not None else {}
            done[label] = "would be created" if theirs is None else "unchanged"
            if found:
                shown = "; ".join(f"{name}: {other!r} -> {mine!r}" for name, (mine, other) in found.items())
                done[label] = f"would be updated ({shown})"
        else:
            claimed = {bucket for each in others for bucket in each.input_buckets}
            later = zip(definitions[number + 1 :], connections[number + 1 :], strict=True)
            read_later = {bucket for each, place in later if place == connection for bucket in each.input_buckets}
            first = definition.without_outputs(read_later)
            if first != definition and hook.run(_is_unfinished(hook, definition)):
                # Services in a circle: the buckets of the readers are made with the readers.
                unfinished.append((hook, definition))
                definition = first
            done[label] = hook.run(hook.apply_service(definition, claimed=claimed))
    for hook, definition in unfinished:
        hook.run(hook.apply_service(definition))
    return done


def _label(definition: ServiceDefinition, among: Sequence[ServiceDefinition]) -> str:
    """What a service is called in the result: its name, with its cluster where the name is there again."""
    once = sum(each.name == definition.name for each in among) == 1
    return definition.name if once else f"{definition.cluster_id}/{definition.name}"


def _check_together(hook: OscarHook, services: Sequence[ServiceDefinition]) -> None:
    """Refuse services of one server that would overwrite each other, or of which only the first could be made.

    :param services: in the order in which they are sent.
    """
    by_name: dict[str, ServiceDefinition] = {}
    for each in services:
        if (other := by_name.setdefault(each.name, each)) is not each:
            raise DefinitionError(
                f"the service {each.name!r} of the clusters {other.cluster_id!r} and {each.cluster_id!r} would be "
                f"applied twice at {hook.display_name}, each in the other's place; give the clusters different "
                "connections, or the services different names"
            )
    readers: dict[str, str] = {}
    for each in services:
        for bucket in each.input_buckets:
            first = readers.setdefault(bucket, each.name)
            if first != each.name and hook.run(_is_refused(hook, each)):
                raise DefinitionError(
                    f"services {first!r} and {each.name!r} both have an input in the bucket {bucket!r}, which OSCAR "
                    f"makes for one of them alone since 3.6; give {each.name!r} a bucket of its own, and let what it "
                    "reads be written there"
                )


def _check_paths(hook: OscarHook, definition: ServiceDefinition) -> None:
    """Refuse outputs over which OSCAR 3.6 to 4.0 breaks down when it has made the service (``createBuckets``)."""
    paths = definition.paths_without_folder
    version = hook.run(hook.get_version()) if paths else None
    if version is not None and (3, 6) <= version < (4, 1):
        raise DefinitionError(
            f"{hook.display_name}: OSCAR {version[0]}.{version[1]} breaks down over the output {paths[0]!r} of service "
            f"{definition.name!r}, which has no folder below it, and leaves half a service; write one too, such as "
            f"{paths[0]}/results"
        )


def _check_members(hook: OscarHook, definition: ServiceDefinition, clusters: Mapping[str, str]) -> None:
    """Refuse a new federated service of which a member has one already, as far as there are connections to look.

    OSCAR makes it at the members as well; if one refuses, it deletes the service at all of them, whoever made it
    (``RollbackFederationCreate`` of 4.1.2), and the buckets with it.
    """
    members = get_members(definition.to_api(), endpoint=hook.api.endpoint)
    if not members or hook.run(hook.get_service(definition.name)) is not None:
        return
    for member in members:
        conn_id = clusters.get(member.cluster_id, member.cluster_id)
        if not is_oscar_connection(conn_id):
            continue
        other = OscarHook(conn_id)
        if other.run(other.get_service(member.service)) is not None:
            raise DefinitionError(
                f"{hook.display_name}: OSCAR would make the federated service {definition.name!r} at its member "
                f"{member.cluster_id!r} too, where there is a service {member.service!r} already, and which it would "
                "then delete with its buckets; delete that one first, or give the member another service_name"
            )


def _is_refused(hook: OscarHook, definition: ServiceDefinition) -> Flow[bool]:
    """Whether a service whose bucket is there cannot be made: it is new, and the server makes buckets once."""
    if (yield from hook.get_service(definition.name)) is not None:
        return False
    version = yield from hook.get_version()
    return version is None or version >= (3, 6)


def _is_unfinished(hook: OscarHook, definition: ServiceDefinition) -> Flow[bool]:
    """Whether a service is not there, or not as defined."""
    theirs = yield from hook.get_service(definition.name)
    return theirs is None or bool(difference(definition, theirs))


class OscarServiceOperator(BaseOperator):
    """Makes OSCAR services be as defined, or deletes them.

    Applying compares with what the server has and creates, updates or does nothing. It never deletes: OSCAR
    deletes a service's buckets, with every object in them, together with the service.

    :param fdl: YAML text of an FDL with one or more services, or the name of a ``.yaml`` file relative to the DAG.
        Templates in its values are filled in after it was read, so that a value cannot add fields. Scripts it names
        are read relative to ``script_folder``; the name ``@supervisor`` stands for the script of this provider, which
        ``OscarJobOperator(command=…)`` needs; ``@wrap infer.sh`` is ``infer.sh``, whose exit code counts for an
        ``OscarJobOperator`` with ``payload`` or ``event_format``.
    :param definition: instead of ``fdl``, one definition made in Python.
    :param service: instead of both, for ``action="delete"``: the name alone.
    :param action: ``apply`` or ``delete``.
    :param delete_buckets: must be True for ``delete``, since that deletes the buckets as well.
    :param script_folder: folder of the scripts an FDL names; default is the DAG's folder.
    :param clusters: for an FDL with services for several clusters: cluster id to connection of type ``oscar``. A
        cluster that is not in it needs a connection of its own name. (templated)
    :param dry_run: compare alone, and return what would be done with each field that differs.
    :param targets: placement targets of kind ``oscar``: the one service of ``fdl`` or ``definition`` is applied once
        for each, as ``<service>-<target>``, on the target's node and with its SLURM options. Refused where OSCAR
        offloads nothing, since the jobs would silently run in the cloud.
    :param images: with ``targets``: name of a target to its image.
    :param oscar_conn_id: connection of type ``oscar``.
    :raises DefinitionError: in the DAG file, if the arguments contradict each other.
    """

    template_fields: Sequence[str] = ("service", "clusters", "oscar_conn_id")
    ui_color = "#d7ecf7"

    @checks_arguments
    def __init__(
        self,
        *,
        fdl: str = "",
        definition: ServiceDefinition | None = None,
        service: str = "",
        action: str = "apply",
        delete_buckets: bool = False,
        script_folder: str = "",
        clusters: Mapping[str, str] | None = None,
        dry_run: bool = False,
        targets: Sequence[PlacementTarget] = (),
        images: Mapping[str, str] | None = None,
        oscar_conn_id: str = OscarHook.default_conn_name,
        **kwargs: Unpack[OperatorArguments],
    ) -> None:
        super().__init__(**kwargs)
        if images and not targets:
            raise DefinitionError(f"images of task {self.task_id!r} are for its targets, of which there are none")
        require_word(action, ("apply", "delete"), f"action of task {self.task_id!r}")
        if sum(bool(given) for given in (fdl, definition, service)) != 1 or (service and action == "apply"):
            raise DefinitionError(
                f"task {self.task_id!r} needs exactly one of fdl and definition (or, to delete, service)"
            )
        if action == "delete" and not delete_buckets:
            raise DefinitionError(
                f"task {self.task_id!r} would delete services, and OSCAR deletes their input and output buckets with "
                "all objects; say delete_buckets=True if that is meant"
            )
        self.fdl = fdl
        self.definition = definition
        self.service = service
        self.action = action
        self.delete_buckets = delete_buckets
        self.script_folder = script_folder
        self.clusters = clusters or {}
        self.only_compare = dry_run
        self.targets = tuple(targets)
        self.images = dict(images or {})
        self.oscar_conn_id = oscar_conn_id

    def execute(self, context: Context) -> dict[str, str]:
        """Apply or delete; return what was done, by service name."""
        with airflow_errors():
            check_rendered(self)
            definitions = [] if self.service else self._placed(self._definitions(context))
            if self.action == "apply":
                done = apply_services(
                    definitions, clusters=self.clusters, conn_id=self.oscar_conn_id, dry_run=self.only_compare
                )
            else:
                done = self._delete(definitions)
            for name, what in done.items():
                self.log.info("OSCAR service %s (connection %r): %s", name, self.oscar_conn_id, what)
            return done

    def _placed(self, definitions: list[ServiceDefinition]) -> list[ServiceDefinition]:
        """Return the services for the targets, if there are any."""
        if not self.targets:
            return definitions
        if len(definitions) != 1:
            raise DefinitionError(
                f"task {self.task_id!r} has targets for one workload, but its FDL has {len(definitions)} services"
            )
        made = services_for(definitions[0], self.targets, images=self.images)
        offloaded = [each.name for each in made if each.interlink_node_name]
        hook = OscarHook(member_connection(definitions[0], definitions, self.clusters, self.oscar_conn_id))
        if self.action == "apply" and offloaded and not hook.run(hook.offloads()):
            raise DefinitionError(
                f"{hook.display_name}: this OSCAR offloads nothing (interLink_available is false), so the services "
                f"{', '.join(offloaded)} would run in the cloud; register the virtual node, label it "
                "type=virtual-kubelet for an OSCAR before 4.1, which finds none without, and restart OSCAR, which "
                "looks for nodes when it starts"
            )
        return made

    def _delete(self, definitions: Sequence[ServiceDefinition]) -> dict[str, str]:
        wanted = [
            (
                _label(each, definitions),
                each.name,
                member_connection(each, definitions, self.clusters, self.oscar_conn_id),
            )
            for each in definitions
        ]
        done: dict[str, str] = {}
        for label, name, connection in wanted or [(self.service, self.service, self.oscar_conn_id)]:
            hook = OscarHook(connection)
            done[label] = "deleted" if hook.run(hook.delete_service(name)) else "absent"
        return done

    def _definitions(self, context: Context) -> list[ServiceDefinition]:
        if self.definition is not None:
            return [self.definition]
        dag = self.get_dag()
        folder = Path(dag.folder if dag else ".")
        text = self.fdl
        if text.strip().endswith((".yaml", ".yml")) and "\n" not in text.strip():
            try:
                text = (folder / text.strip()).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise DefinitionError(
                    f"task {self.task_id!r} cannot read the FDL {self.fdl!r} in {str(folder)!r} ({error})"
                ) from error
        jinja = self.get_template_env(dag)

        def fill_in(value: str) -> str:
            return str(self.render_template(value, context, jinja)) if "{" in value else value

        return load_fdl(text, Path(self.script_folder or folder), fill_in=fill_in)
