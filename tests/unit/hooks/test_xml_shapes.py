# SPDX-License-Identifier: Apache-2.0
"""What is read by learned shapes is what expat alone would read: the same calls, or the same refusal."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_oscar.core.errors import OscarProviderError, PermanentError
from airflow_provider_oscar.hooks.http.xml import BoundedXml
from airflow_provider_oscar.hooks.http.xml_shapes import ShapedXml

NAMES = frozenset({"Entry", "Key", "Size", "Owner", "Odd"})


class Quick(ShapedXml):
    """Writes down what it hears."""

    entry = "Entry"
    starts = NAMES
    ends = NAMES | {"Token"}

    def __init__(self) -> None:
        super().__init__("test", max_bytes=1_000_000, max_entries=1000, separator=None)
        self.heard: list[tuple[str, ...]] = []
        self.by_expat = 0

    def on_start(self, name: str) -> None:
        """Note a start."""
        self.heard.append((name,))

    def on_end(self, name: str, text: str) -> None:
        """Note an end."""
        self.heard.append((name, text))
        if name == "Entry":
            self.count_entry()

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self.by_expat += name == "Entry"
        super()._start(name, attributes)


class Slow(Quick):
    """The same by expat alone."""

    def feed(self, data: bytes) -> None:
        """Read the next bytes of the document."""
        BoundedXml.feed(self, data)


def read(kind: type[Quick], document: bytes, size: int) -> tuple[list[tuple[str, ...]], type[Exception] | None]:
    reader = kind()
    try:
        for at in range(0, len(document), size):
            reader.feed(document[at : at + size])
        reader.close()
    except OscarProviderError as error:
        return reader.heard, type(error)
    return reader.heard, None


TEXTS = st.sampled_from(
    [
        "",
        " ",
        "a",
        "a b",
        "&amp;",
        "&#34;x&#34;",
        "&#1;",
        "&#x41;",
        "&nope;",
        "&",
        "]]>",
        "é",
        "\r\n",
        "\t",
        ">",
        "\x01",
    ]
)
ODDITIES = st.sampled_from(
    ["", "<!-- c -->", "<![CDATA[<Entry>]]>", "<?pi x?>", "<Odd/>", "<Odd a='>'/>", "<Entry>", "</Entry>", "<", "\n"]
)


@st.composite
def entries(draw):
    key, size = draw(TEXTS), draw(TEXTS)
    inner = draw(
        st.sampled_from(
            [
                f"<Key>{key}</Key><Size>{size}</Size>",
                f"<Size>{size}</Size><Key>{key}</Key>",
                f"<Key>{key}</Key>{size}<Owner><Key>{size}</Key></Owner>",
                f"\n <Key a='1'>{key}</Key>\n <Size/>\n",
            ]
        )
    )
    return f"<Entry>{inner}{draw(st.just('') | st.just('') | ODDITIES)}</Entry>"


@st.composite
def documents(draw):
    plain = "<Entry><Key>k</Key><Size>1</Size></Entry>"
    body = draw(st.lists(entries() | st.just(plain) | ODDITIES, max_size=12))
    head = draw(
        st.sampled_from(["", '<?xml version="1.0"?>', '<?xml version="1.0" encoding="latin-1"?>', "<!DOCTYPE x>"])
    )
    document = f"{head}<List><Token>t</Token>{''.join(body)}</List>".encode()
    cut = draw(st.none() | st.integers(0, len(document)))
    return document[:cut]


PLAIN = b"<List>" + b"<Entry><Key>k</Key><Size>1</Size></Entry>" * 3


@given(document=documents(), size=st.sampled_from([1, 7, 40, 100_000]))
@example(document=PLAIN + b"<Entry><Key>\xff</Key><Size>1</Size></Entry></List>", size=1000)
@example(document=PLAIN + b"<Entry><Key>]]></Key><Size>1</Size></Entry></List>", size=1000)
@example(document=PLAIN + b"<Odd>" + b"<Entry><Key>k</Key><Size>1</Size></Entry>" * 2 + b"</List>", size=1000)
@example(document=PLAIN.replace(b"<List>", b'<List a="') + b'"></List>', size=1000)
def test_shapes_change_nothing(document, size):
    quick, slow = read(Quick, document, size), read(Slow, document, size)
    assert quick[1] is slow[1]
    if slow[1] is None:
        assert quick[0] == slow[0]


def test_entries_alike_go_through_expat_only_until_their_shape_is_known():
    reader = Quick()
    entry = "<Entry><Key>{}</Key><Size>&quot;{}&quot;</Size></Entry>\n"
    reader.feed(("<List>" + "".join(entry.format(f"k{n}", n) for n in range(200)) + "</List>").encode())
    reader.close()
    assert reader.by_expat == 2  # the first, which is read with what comes before it, and the one learned from
    assert reader.heard.count(("Entry", "")) == 200
    assert ("Size", '"199"') in reader.heard


def test_limit_of_entries_holds_for_known_shapes_too():
    reader = Quick()
    with pytest.raises(PermanentError, match="more than 1000 entries"):
        reader.feed(b"<List>" + b"<Entry><Key>k</Key></Entry>" * 2000)


def test_endless_entry_is_not_kept_in_memory():
    reader = Quick()
    reader.feed(b"<List>" + b"<Entry><Key>k</Key></Entry>" * 3 + b"<Entry><Key>")
    for _ in range(20):
        reader.feed(b"x" * 10_000)
    assert len(reader._carry) <= 64 * 1024
