# SPDX-License-Identifier: Apache-2.0
"""What HTTP libraries log of requests, without what a reader of the log could use.

At level DEBUG botocore logs each signature it makes and the request it is good for, which together are a presigned URL;
others log URLs with their query, and headers. Airflow's own masking knows the fields of connections alone, and neither
signatures nor the macaroons that a store makes.
"""

from __future__ import annotations

import logging
import re

#: Loggers whose lines hold URLs, headers or signatures.
LOGGERS = (
    "botocore.auth",
    "botocore.endpoint",
    "botocore.hooks",
    "botocore.httpsession",
    "botocore.parsers",
    "botocore.retryhandler",
    "botocore.signers",
    "botocore.utils",
    "fsspec.http",
    "httpcore.connection",
    "httpcore.http11",
    "httpcore.http2",
    "httpcore.proxy",
    "httpx",
    "kubernetes.client.rest",
    "urllib3.connection",
    "urllib3.connectionpool",
    "urllib3.poolmanager",
    "urllib3.util.retry",
)
HIDDEN = "***"
_PATTERNS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # Parameters of URLs, and fields of forms.
        r"((?:x-amz-security-token|x-(?:amz|goog)-credential|signature|authz|sig|[a-z_]*token|passw(?:or)?d|secret"
        r"|api_?key|macaroon)=)[^&\s'\"]+",
        # The login of a URL.
        r"(://)[^/\s@'\"]+(?=@)",
        # Bodies: keys that a store's token service makes, and tokens in JSON.
        r"(<(?:SecretAccessKey|SessionToken)>)[^<]+",
        r"([\"'](?:[a-z]*_?token|macaroon|secretAccessKey)[\"']\s*:\s*)[\"'][^\"']+[\"']",
        # Headers: as text, as a pair of Python's, and as a line of a canonical request. A value may hold blanks.
        r"((?:authorization|x-[a-z-]*(?:token|password|secret|key)|set-cookie|cookie)['\"]?\s*[:,]\s*)"
        r"(?:b?'[^']*'|b?\"[^\"]*\"|[^\r\n,}\]]+)",
        # What botocore.auth says.
        r"(signature:\s*)[0-9a-f]{20,}",
        r"('?(?:policy|x-amz-signature)'?\s*:\s*)'[^']+'",
    )
)


def redacted(text: str) -> str:
    """Return a line without secrets.

    :param text: of a log.
    """
    for pattern in _PATTERNS:
        text = pattern.sub(rf"\g<1>{HIDDEN}", text)
    return text


class Redaction(logging.Filter):
    """Lets every record pass, its message redacted."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact one record.

        :param record: of a library.
        """
        try:
            text = record.getMessage()
        except (TypeError, ValueError):
            return True  # its handler will say that it cannot be formatted
        record.msg, record.args = redacted(text), ()
        return True


_REDACTION = Redaction()


def redact_logs() -> None:
    """See to it that the libraries' loggers redact; may be called any number of times."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(_REDACTION)
