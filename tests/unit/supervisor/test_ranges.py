# SPDX-License-Identifier: Apache-2.0
"""Ranges cover an object once, and digests of ranges in any order are those of the file."""

from __future__ import annotations

import hashlib
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oscar.supervisor.ranges import Adler32, ByteRange, Digests, ranges_of


@given(size=st.integers(0, 5000), step=st.integers(1, 700), least=st.integers(0, 3000))
def test_ranges_cover_every_byte_once(size, step, least):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OSCAR_SUPERVISOR_RANGES_FROM", str(least))
        patch.setenv("OSCAR_SUPERVISOR_RANGE_SIZE", str(step))
        found = ranges_of(size)
    if size < max(least, 1):
        assert [(each.start, each.end, each.header()) for each in found] == [(0, None, {})]
        return
    assert [number for each in found for number in range(each.start, each.end)] == list(range(size))
    assert all(each.header() == {"Range": f"bytes={each.start}-{each.end - 1}"} for each in found)


def test_an_object_of_no_known_size_is_one_range():
    (only,) = ranges_of(None)
    only.at = 7
    assert (only.missing, only.header()) == (True, {"Range": "bytes=7-"})


@given(
    data=st.binary(max_size=400),
    step=st.integers(1, 90),
    chunk=st.integers(1, 40),
    order=st.randoms(use_true_random=False),
)
def test_digests_do_not_depend_on_the_order_of_the_ranges(tmp_path_factory, data, step, chunk, order):
    path = tmp_path_factory.mktemp("d") / "file"
    path.write_bytes(b"\0" * len(data))
    ranges = [ByteRange(start, min(start + step, len(data))) for start in range(0, len(data), step)]
    digest, adler = hashlib.sha256(), Adler32()
    digests = Digests(str(path), ranges or [ByteRange()], [digest, adler])
    open_ranges = list(ranges)
    with path.open("r+b") as file:
        while open_ranges:
            part = order.choice(open_ranges)
            piece = data[part.at : min(part.at + chunk, part.end)]
            file.seek(part.at)
            file.write(piece)
            file.flush()
            part.at += len(piece)
            digests.add(part.at - len(piece), piece)
            open_ranges = [each for each in open_ranges if each.missing]
    digests.finish()
    assert digest.hexdigest() == hashlib.sha256(data).hexdigest()
    assert adler.hexdigest() == f"{zlib.adler32(data):08x}"
