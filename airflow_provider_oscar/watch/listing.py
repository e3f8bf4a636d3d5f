# SPDX-License-Identifier: Apache-2.0
"""One listing of a watched place, for those who want what is there now and not what is new."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping
from importlib import import_module

from airflow_provider_oscar.core.errors import DefinitionError, PermanentError, counted, quoted
from airflow_provider_oscar.core.filters import Sentinels
from airflow_provider_oscar.core.objects import ObjectEvent
from airflow_provider_oscar.core.patterns import SlowPatternError
from airflow_provider_oscar.watch.arguments.base import WatchArguments
from airflow_provider_oscar.watch.sources.notified import NotifiedSource


def watch_arguments(classpath: str, kwargs: Mapping[str, object]) -> WatchArguments | None:
    """Return the arguments of a watcher by what Airflow stores of its trigger; None if it is another's trigger.

    :param classpath: of the trigger.
    :param kwargs: its arguments.
    """
    if not classpath.startswith("airflow_provider_oscar."):
        return None
    module, _, name = classpath.rpartition(".")
    arguments = getattr(getattr(import_module(module), name)(**kwargs), "arguments", None)
    return arguments if isinstance(arguments, WatchArguments) else None


async def list_objects(
    arguments: WatchArguments, takes: Callable[[ObjectEvent], bool]
) -> AsyncGenerator[list[ObjectEvent], None]:
    """Yield what is at a place now and what its watcher would report, page by page.

    With a sentinel, what it has not released is left out, and all comes at the end.

    :param arguments: of the watcher.
    :param takes: a further condition.
    :raises PermanentError: if entries of the listing cannot be read, or keys take the filter's regular expression too
        long, so that objects may be missing.
    :raises OscarProviderError: if the place cannot be listed.
    """
    source = arguments.source()
    listing = source.source if isinstance(source, NotifiedSource) else source
    sentinels = Sentinels(arguments.sentinel) if arguments.sentinel else None
    held: list[ObjectEvent] = []
    unreadable = 0
    slow: list[SlowPatternError] = []

    def wanted(found: ObjectEvent) -> bool:
        try:
            return takes(found) and arguments.filter.accepts(found)
        except SlowPatternError as error:
            slow.append(error)
            return False

    try:
        async with contextlib.aclosing(listing.full_listing()) as pages:
            async for page in pages:
                unreadable += page.unreadable
                if sentinels is not None:
                    sentinels.note(page.events)
                chosen = [each for each in page.events if wanted(each)]
                if sentinels is None:
                    yield chosen
                else:
                    held += [each for each in chosen if not sentinels.is_one(each)]
    finally:
        await source.aclose()
    if sentinels is not None:
        yield [each for each in held if sentinels.released(each) is not None]
    if unreadable:
        raise PermanentError(
            f"{unreadable} entries of {arguments.display_name()} cannot be read, so objects may be missing; all others "
            "were taken in"
        )
    if slow:
        raise PermanentError(
            f"{counted(len(slow), 'object')} of {arguments.display_name()} cannot be judged; all others were taken in. "
            f"The first: {slow[0]}"
        )


def require_watcher(arguments: WatchArguments | None, asset: str) -> WatchArguments:
    """Return the arguments, or say that an asset has no watcher of ours.

    :raises DefinitionError: if there are none.
    """
    if arguments is None:
        raise DefinitionError(
            f"asset {quoted(asset)} has no watcher of this provider, so there is no place to list; name the asset of a "
            "NewObjects(...) with a place"
        )
    return arguments
