# SPDX-License-Identifier: Apache-2.0
"""Keep OSCAR services as they are defined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator

from airflow_provider_oscar._airflow import airflow_errors
from airflow_provider_oscar.core.errors import DefinitionError
from airflow_provider_oscar.core.fdl import from_fdl
from airflow_provider_oscar.core.services import ServiceDefinition
from airflow_provider_oscar.hooks.oscar.hook import OscarHook

if TYPE_CHECKING:
    from airflow.sdk import Context


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
        script of this provider.
    :param fill_in: returns what takes the place of a text of the file, for templates.
    :param absolute_scripts: read an absolute path as such if there is none below ``folder``; for people at a terminal.
    :raises DefinitionError: if the FDL is not valid or a script cannot be read.
    """
    base = folder.resolve()

    def read_script(path: str) -> str:
        if path == SUPERVISOR_SCRIPT:
            from airflow_provider_oscar.jobs.builder import SupervisorHook

            return SupervisorHook().service_script()
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

    return from_fdl(text, read_script, fill_in=fill_in)


class OscarServiceOperator(BaseOperator):
    """Makes OSCAR services be as defined, or deletes them.

    Applying compares with what the server has and creates, updates or does nothing. It never deletes: OSCAR
    deletes a service's buckets, with every object in them, together with the service.

    :param fdl: YAML text of an FDL with one or more services; a ``.yaml`` file name relative to the DAG is read
        as a template. Scripts it names are read relative to ``script_folder``; the name ``@supervisor`` stands for
        the script of this provider, which ``OscarJobOperator(command=…)`` needs.
    :param definition: instead of ``fdl``, one definition made in Python.
    :param service: instead of both, for ``action="delete"``: the name alone.
    :param action: ``apply`` or ``delete``.
    :param delete_buckets: must be True for ``delete``, since that deletes the buckets as well.
    :param script_folder: folder of the scripts an FDL names; default is the DAG's folder.
    :param oscar_conn_id: connection of type ``oscar``.
    :raises DefinitionError: in the DAG file, if the arguments contradict each other.
    """

    template_fields: Sequence[str] = ("fdl", "service", "oscar_conn_id")
    template_ext: Sequence[str] = (".yaml", ".yml")
    template_fields_renderers: ClassVar[dict[str, str]] = {"fdl": "yaml"}
    ui_color = "#d7ecf7"

    def __init__(
        self,
        *,
        fdl: str = "",
        definition: ServiceDefinition | None = None,
        service: str = "",
        action: str = "apply",
        delete_buckets: bool = False,
        script_folder: str = "",
        oscar_conn_id: str = OscarHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if action not in ("apply", "delete"):
            raise DefinitionError(f"action of task {self.task_id!r} is {action!r}; expected 'apply' or 'delete'")
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
        self.oscar_conn_id = oscar_conn_id

    def execute(self, context: Context) -> dict[str, str]:
        """Apply or delete; return what was done, by service name."""
        with airflow_errors():
            hook = OscarHook(self.oscar_conn_id)
            done: dict[str, str] = {}
            if self.action == "apply":
                for definition in self._definitions():
                    done[definition.name] = hook.run(hook.apply_service(definition))
            else:
                for name in [self.service] if self.service else [each.name for each in self._definitions()]:
                    done[name] = "deleted" if hook.run(hook.delete_service(name)) else "absent"
            for name, what in done.items():
                self.log.info("OSCAR service %s (connection %r): %s", name, self.oscar_conn_id, what)
            return done

    def _definitions(self) -> list[ServiceDefinition]:
        if self.definition is not None:
            return [self.definition]
        dag = self.get_dag()
        return load_fdl(self.fdl, Path(self.script_folder or (dag.folder if dag else ".")))
