# SPDX-License-Identifier: Apache-2.0
"""YAML that does not grow: a few hundred bytes of aliases of aliases can stand for more values than a machine holds."""

from __future__ import annotations

from typing import Any, TextIO

import yaml

#: Values that a document may stand for when its aliases are followed; one without aliases may have more. The largest
#: public FDL has 200. go-yaml, by which ``oscar-cli`` and ``kubectl`` read, bounds aliases as well.
VALUE_LIMIT = 100_000


class BoundedLoader(yaml.SafeLoader):
    """PyYAML's safe loader that refuses documents which aliases make huge, or which hold themselves.

    :raises yaml.constructor.ConstructorError: with the line.
    """

    def compose_document(self) -> yaml.Node | None:
        """Compose, and measure before anything is made of it."""
        node = super().compose_document()
        if node is not None:
            self._check(node)
        return node

    def _check(self, root: yaml.Node) -> None:
        sizes: dict[int, int] = {}
        entered = set[int]()
        waiting = [root]
        while waiting:
            node = waiting[-1]
            children = _children(node)
            if id(node) not in entered:
                entered.add(id(node))
                for child in children:
                    if id(child) in entered and id(child) not in sizes:
                        raise _refusal("a value holds itself", child)
                waiting.extend(child for child in children if id(child) not in sizes)
                continue
            waiting.pop()
            sizes[id(node)] = 1 + sum(sizes[id(child)] for child in children)
            if sizes[id(node)] > max(VALUE_LIMIT, len(sizes)):
                raise _refusal(f"aliases make more than {VALUE_LIMIT} values of it", node)


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    if isinstance(node, yaml.MappingNode):
        return [each for pair in node.value for each in pair]
    return []


def _refusal(problem: str, node: yaml.Node) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def load_yaml(source: str | bytes | TextIO) -> Any:
    """Return the one document of a source, as ``yaml.safe_load`` does, within bounds.

    :param source: the text, or an open file.
    :raises ValueError: when it is not YAML, nests too deeply, or stands for more than it may.
    """
    try:
        return yaml.load(source, Loader=BoundedLoader)  # noqa: S506 - it derives from SafeLoader
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    except RecursionError:
        raise ValueError("it nests too deeply") from None
