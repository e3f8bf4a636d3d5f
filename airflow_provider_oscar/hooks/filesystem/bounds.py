# SPDX-License-Identifier: Apache-2.0
"""What clients of file systems read at most, which read all that comes by themselves."""

from __future__ import annotations

#: Bytes of a listing: a page of a web server, of which a thousand files are looked at, or one of Onedata's API.
LISTING_LIMIT = 4 * 1024 * 1024
#: Bytes of a file that is read at once, which are more than any caller asks for.
FILE_LIMIT = 80 * 1024 * 1024
#: Bytes that are read at a time.
PIECE = 64 * 1024


class RefusedAnswerError(Exception):
    """An answer that is not read; the hook says of what."""
