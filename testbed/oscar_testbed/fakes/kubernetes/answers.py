# SPDX-License-Identifier: Apache-2.0
"""Errors of the Kubernetes API and the ``Status`` objects they are answered with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse, Response

_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    409: "AlreadyExists",
    410: "Expired",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    503: "ServiceUnavailable",
}


class ApiError(Exception):
    """An answer other than success.

    :param status: HTTP status.
    :param message: for the ``Status`` object.
    :param reason: Kubernetes' word, when it is not the usual one of the status.
    """

    def __init__(self, status: int, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


def status_object(status: int, message: str, reason: str = "") -> dict[str, object]:
    """A ``Status`` object, as every error of the API is."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason or _REASONS.get(status, "InternalError"),
        "code": status,
    }


def deleted_object(plural: str, gone: Mapping[str, Any]) -> dict[str, object]:
    """The ``Status`` object that answers the deletion of anything but a pod."""
    meta = gone["metadata"]
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {"name": meta["name"], "kind": plural, "uid": meta["uid"]},
    }


def status_answer(status: int, message: str, reason: str = "") -> Response:
    """The same as an HTTP response."""
    return JSONResponse(status_object(status, message, reason), status_code=status)
