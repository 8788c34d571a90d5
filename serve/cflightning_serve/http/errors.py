"""Every error as JSON with a reason: ``{"error": {"code", "message"}}``; under ``/v2`` a string, as its protocol is."""

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

_LONGEST = 500
_CODES: tuple[tuple[type[ServeError], int, str], ...] = (  # the first that fits
    (UnknownIdError, 404, "unknown_id"),
    (UnsupportedError, 422, "unsupported"),
    (InputError, 422, "input"),
)
_TYPES = ("int", "str", "function-before[_whole(), int]")  # which of an id's types pydantic tried
_PLACE = re.compile(r"^[^:]*[/\\][^:]*: ")  # a folder of the server's, which is nobody's business
_HTTP_CODES = {404: "no_such_route", 405: "method", 413: "too_large"}


class Refusal(Exception):
    """A request that is not answered.

    Args:
        status: of HTTP.
        code: one word for programs.
        message: for people.
        headers: of the reply.
    """

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, dict(headers or {})

    def forget(self) -> None:
        """Let go of where it was raised: the frames hold the request, and whoever keeps the refusal would keep that."""
        self.__traceback__ = self.__context__ = self.__cause__ = None

    def response(self, path: str) -> Response:
        """The reply to a request of ``path``."""
        message = self.message if len(self.message) <= _LONGEST else f"{self.message[:_LONGEST]}..."
        told = message if path.startswith("/v2") else {"code": self.code, "message": message}
        return Response(json.dumps({"error": told}), self.status, self.headers, "application/json")


class ErrorDetail(BaseModel):
    """Why a request was not answered."""

    code: str
    message: str


class ErrorReply(BaseModel):
    """What every route answers where it cannot answer."""

    error: ErrorDetail


def as_refusal(error: Exception) -> Refusal:
    """What a client is told of an error: of its own mistakes everything, of the server's nothing but that they are."""
    if isinstance(error, Refusal):
        return error
    for kind, status, code in _CODES:
        if isinstance(error, kind):
            return Refusal(status, code, _PLACE.sub("", str(error)))
    if isinstance(error, RequestValidationError):  # of what stands in the address
        return _invalid(error.errors())
    if isinstance(error, ValidationError):
        return _invalid(error.errors(include_url=False, include_context=False, include_input=False))
    if isinstance(error, HTTPException):
        code = _HTTP_CODES.get(error.status_code, "request")
        return Refusal(error.status_code, code, f"{error.detail}; /openapi.json lists what there is", error.headers)
    if isinstance(error, NotFiniteError):
        log.warning("%s", error)
        return not_finite()
    if isinstance(error, BundleError):
        log.error("%s", error)
        return Refusal(503, "bundle", "the bundle cannot answer; the server's log says why")
    if isinstance(error, ClientDisconnect):
        return Refusal(400, "disconnected", "the client went away before its body was complete")
    log.error("a request failed", exc_info=error)
    return Refusal(500, "internal", "the server failed; its log says why")


def not_finite() -> Refusal:
    """Say that there is no answer: the tables hold NaN or infinity, or the question held immense numbers."""
    return Refusal(422, "not_finite", "the bundle's answer to this question is no finite number; export it again")


def add_handlers(app: FastAPI) -> None:
    """Make an application answer with refusals, whatever is raised."""

    async def refuse(request: Request, error: Exception) -> Response:
        return as_refusal(error).response(request.url.path)

    for kind in (Refusal, ServeError, ValidationError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, refuse)


def _invalid(found: Sequence[Any]) -> Refusal:
    if found[0]["type"] == "json_invalid":
        return Refusal(400, "json", f"the body must be JSON: {found[0]['msg']}")
    reasons: dict[str, list[str]] = {}
    for one in found:
        # An id is an integer or a string, each with an error of its own, at one place.
        place = ".".join(str(part) for part in one["loc"] if part not in _TYPES)
        reasons.setdefault(place or "body", []).append(one["msg"])
    told = [f"{place}: {' or '.join(dict.fromkeys(texts))}" for place, texts in list(reasons.items())[:3]]
    more = f"; and {len(reasons) - 3} more" if len(reasons) > 3 else ""
    return Refusal(422, "input", "; ".join(told) + more)
