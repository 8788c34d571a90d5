"""Errors of the HTTP API as JSON: ``{"error": {"code", "message"}}``; under ``/v2``, ``{"error": message}``."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from cflightning_serve.errors import (
    BundleError,
    InputError,
    NotFiniteError,
    ServeError,
    UnknownIdError,
    UnsupportedError,
)

log = logging.getLogger(__name__)

_MAX_MESSAGE = 500
"""Characters of an error message; longer ones are cut."""
_MAX_FIELDS = 3
"""Invalid fields that a message lists."""
_CODES: tuple[tuple[type[ServeError], int, str], ...] = (
    (UnknownIdError, 404, "unknown_id"),
    (UnsupportedError, 422, "unsupported"),
    (InputError, 422, "input"),
)
"""Exception class, HTTP status and error code; the first match counts."""
_HTTP_CODES = {404: "no_such_route", 405: "method", 413: "too_large"}
"""HTTP status -> error code, of exceptions that FastAPI raises."""
_UNION_MEMBERS = ("int", "str", "function-before[_whole(), int]")
"""Parts of a pydantic error location that name a member of an id's union type, not a field."""
_SERVER_PATH = re.compile(r"^[^:]*[/\\][^:]*: ")
"""A folder of the server at the start of a message, which clients must not see."""


class ApiError(Exception):
    """An error response.

    Args:
        status: HTTP status.
        code: error code for programs, one word.
        message: text for people.
        headers: additional response headers.
    """

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, dict(headers or {})

    def drop_traceback(self) -> None:
        """Release the frames of the traceback, which keep the request in memory until garbage is collected."""
        self.__traceback__ = self.__context__ = self.__cause__ = None

    def response(self, path: str) -> Response:
        """Return the response to a request for ``path``."""
        message = self.message if len(self.message) <= _MAX_MESSAGE else f"{self.message[:_MAX_MESSAGE]}..."
        error = message if path.startswith("/v2") else {"code": self.code, "message": message}
        return Response(json.dumps({"error": error}), self.status, self.headers, "application/json")


class ErrorDetail(BaseModel):
    """Code and text of an error."""

    code: str
    message: str


class ErrorResponse(BaseModel):
    """Body of an error response."""

    error: ErrorDetail


def to_api_error(error: Exception) -> ApiError:
    """Convert an exception. Clients see the details of their own mistakes; the server's faults are only logged."""
    if isinstance(error, ApiError):
        return error
    for kind, status, code in _CODES:
        if isinstance(error, kind):
            return ApiError(status, code, _SERVER_PATH.sub("", str(error)))
    if isinstance(error, RequestValidationError):  # invalid path or query parameters
        return _validation_error(error.errors())
    if isinstance(error, ValidationError):
        return _validation_error(error.errors(include_url=False, include_context=False, include_input=False))
    if isinstance(error, HTTPException):
        code = _HTTP_CODES.get(error.status_code, "request")
        return ApiError(error.status_code, code, f"{error.detail}; /openapi.json lists all routes", error.headers)
    if isinstance(error, NotFiniteError):
        log.warning("%s", error)
        return not_finite_error()
    if isinstance(error, BundleError):
        log.error("%s", error)
        return ApiError(503, "bundle", "the bundle cannot answer; the server's log has the reason")
    if isinstance(error, ClientDisconnect):
        return ApiError(400, "disconnected", "the client disconnected before its body was complete")
    log.error("a request failed", exc_info=error)
    return ApiError(500, "internal", "the server failed; its log has the reason")


def not_finite_error() -> ApiError:
    """Return the error of a result that is NaN or infinite: the tables are, or the request held immense numbers."""
    return ApiError(422, "not_finite", "the bundle's result for this request is not a finite number; export it again")


def add_exception_handlers(app: FastAPI) -> None:
    """Register handlers that convert every exception of an application to an error response."""

    async def handle(request: Request, error: Exception) -> Response:
        return to_api_error(error).response(request.url.path)

    for kind in (ApiError, ServeError, ValidationError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, handle)


def _validation_error(errors: Sequence[Any]) -> ApiError:
    if errors[0]["type"] == "json_invalid":
        return ApiError(400, "json", f"the body must be JSON: {errors[0]['msg']}")
    reasons: dict[str, list[str]] = {}
    for error in errors:
        # An id is an integer or a string, and each alternative has an error of its own at the same field.
        field = ".".join(str(part) for part in error["loc"] if part not in _UNION_MEMBERS)
        reasons.setdefault(field or "body", []).append(error["msg"])
    shown = [f"{field}: {' or '.join(dict.fromkeys(texts))}" for field, texts in list(reasons.items())[:_MAX_FIELDS]]
    more = f"; and {len(reasons) - _MAX_FIELDS} more" if len(reasons) > _MAX_FIELDS else ""
    return ApiError(422, "input", "; ".join(shown) + more)
