"""Parts that routes share: request fields and their limits, access to the server's state, error descriptions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, TypeVar, cast

from fastapi import Depends, Request, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict
from typing_extensions import TypeAliasType

from cflightning_serve.http.errors import ApiError, ErrorResponse
from cflightning_serve.http.serving.state import ServerState
from cflightning_serve.http.settings import Limits

T = TypeVar("T")


def _whole(value: object) -> object:
    """Convert 5.0 to 5: JSON has one kind of number."""
    return int(value) if type(value) is float and value.is_integer() else value


Whole = BeforeValidator(_whole)
"""Validator that accepts whole numbers with a decimal point."""
_Id = Annotated[int, Strict(), Whole] | Annotated[str, Strict()]
# Named types are schemas of their own in OpenAPI, which `openapi` replaces by the types of the loaded bundle.
UserId = TypeAliasType("UserId", _Id)
ItemId = TypeAliasType("ItemId", _Id)
Rating = TypeAliasType("Rating", Annotated[float, Field(ge=-1e9, le=1e9, allow_inf_nan=False)])
Count = Annotated[int, Strict(), Field(ge=1, description="maximum number of items"), Whole]
UserCount = Annotated[int, Strict(), Field(ge=1, description="maximum number of users"), Whole]
# Validation stops at the first error: half a million of them would take seconds and a gigabyte.
Many = Annotated[list[T], Field(fail_fast=True)]


class RequestBody(BaseModel):
    """Base of request bodies. Unknown fields are errors, and no value is converted: "5" is not a number."""

    model_config = ConfigDict(extra="forbid", strict=True, regex_engine="rust-regex")

    def check_limits(self, limits: Limits) -> None:
        """Check the length of every list, and the field ``k``.

        Raises:
            ApiError: a limit is exceeded.
        """
        for name, value in self:
            if name == "k" and value > limits.k:
                raise ApiError(422, "limit", f"k: must not exceed {limits.k:,}, got {value}")
            if type(value) is list and len(value) > limits.ids:
                raise ApiError(422, "limit", f"a list must not hold more than {limits.ids:,} ids, got {len(value):,}")


def _get_state(request: Request) -> ServerState:
    return cast(ServerState, request.app.state.server)


State = Annotated[ServerState, Depends(_get_state)]
"""Parameter of a handler that FastAPI fills with the server's state."""

ResponseDescriptions = dict[int | str, dict[str, Any]]
"""HTTP status -> description, as FastAPI takes it."""


def describe_errors(model: type[BaseModel], **changes: str) -> ResponseDescriptions:
    """Describe the error responses of a route for OpenAPI.

    Args:
        model: schema of an error response.
        **changes: ``status_404="..."`` adds or replaces a description.
    """
    reasons = {
        400: "The body is not valid JSON, or the request is not valid HTTP",
        401: "The API key is missing or wrong",
        413: "The body is too large",
        415: "The content type is not JSON, or the content encoding is not gzip",
        421: "The host is not a name of this server",
        422: "The request is invalid, or the bundle cannot answer it",
        429: "Too many wrong API keys",
        503: "Too many requests, or not answered in time; try again",
    }
    reasons |= {int(name.removeprefix("status_")): text for name, text in changes.items()}
    return {status: {"model": model, "description": text} for status, text in sorted(reasons.items())}


ERRORS = describe_errors(ErrorResponse)
"""Error responses of JSON routes."""
UNKNOWN_ITEM: ResponseDescriptions = {404: {"model": ErrorResponse, "description": "Training has not seen the item"}}
"""Additional error response of routes about one item."""
UNKNOWN_ID: ResponseDescriptions = {
    404: {"model": ErrorResponse, "description": "Training has not seen the item or the user"}
}
"""Additional error response of routes about one item and one user."""


def json_response(text: str) -> Response:
    """Return a response with a JSON text."""
    # A title from a damaged table may have a lone surrogate, which cannot be encoded.
    return Response(text.encode(errors="replace"), media_type="application/json")


def as_ids(ids: Iterable[int | str]) -> list[int]:
    """Return ids as a list of one type for the type checker; the scorer checks that all have the bundle's type."""
    return cast(list[int], list(ids))


def split_ratings(ratings: Sequence[tuple[int | str, float]]) -> tuple[list[int], list[float]]:
    """Split pairs of item and rating into two lists."""
    return as_ids(item for item, _ in ratings), [rating for _, rating in ratings]
