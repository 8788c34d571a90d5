"""Questions and answers of the JSON routes: what is checked of the one, and what OpenAPI says of both."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict
from pydantic.json_schema import SkipJsonSchema
from typing_extensions import TypeAliasType


def _whole(value: Any) -> Any:
    """To JSON, 5.0 is an integer."""
    return int(value) if type(value) is float and value.is_integer() else value


_Whole = BeforeValidator(_whole)
_Id = Annotated[int, Strict(), _Whole] | Annotated[str, Strict()]
# Named, so that OpenAPI has them once: there each becomes the type that the bundle's ids have.
UserId = TypeAliasType("UserId", _Id)
ItemId = TypeAliasType("ItemId", _Id)
Count = Annotated[int, Strict(), Field(ge=1, description="how many items"), _Whole]
Rating = TypeAliasType("Rating", Annotated[float, Field(ge=-1e9, le=1e9, allow_inf_nan=False)])

_One = TypeVar("_One")
# To the first mistake: half a million of them would take seconds and a gigabyte to tell.
_Many = Annotated[list[_One], Field(fail_fast=True)]


class _Question(BaseModel):
    # A name that nobody knows is a mistake in spelling. Nothing is converted: "5" is no count.
    model_config = ConfigDict(extra="forbid", strict=True, regex_engine="rust-regex")


class Recommend(_Question):
    """Who is to be shown something, and what may not or must be among it."""

    user: UserId
    k: Count = 10
    exclude: _Many[ItemId] = []
    exclude_seen: bool | None = Field(None, description="leave out what the user has rated; by default where known")
    allow: _Many[ItemId] | None = Field(None, description="nothing but these")
    deny: _Many[ItemId] | None = Field(None, description="none of these, now or ever")
    categories: _Many[str] | None = Field(None, description="nothing but items of one of these")
    min_count: Annotated[int, Strict(), Field(ge=0), _Whole] | None = Field(
        None, description="nothing that fewer have rated"
    )
    diversity: float | None = Field(None, ge=0, le=1, description="0 the best items, 1 the most different ones")


class Score(_Question):
    """Pairs of a user and an item."""

    pairs: _Many[tuple[UserId, ItemId]]


class Similar(_Question):
    """An item whose neighbours are wanted."""

    item: ItemId
    k: Count = 10


class FoldIn(_Question):
    """What somebody rated who need not be known."""

    ratings: _Many[tuple[ItemId, Rating]]
    k: Count = 10
    exclude: _Many[ItemId] = []


class Explain(_Question):
    """An item, and whom it is to be explained to: a known user, or somebody by ratings."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["user"]}, {"required": ["ratings"]}]})

    item: ItemId
    user: UserId | SkipJsonSchema[None] = None
    ratings: _Many[tuple[ItemId, Rating]] | SkipJsonSchema[None] = None


class Recommended(BaseModel):
    """An item of a list."""

    item: ItemId
    title: str | None
    score: float


class Recommendations(BaseModel):
    """The best items, best first."""

    items: list[Recommended]
    known_user: bool


class ScoredPair(BaseModel):
    """A pair and what is predicted of it."""

    user: UserId
    item: ItemId
    score: float
    known_user: bool
    known_item: bool


class Scores(BaseModel):
    """As asked, in the same order."""

    scores: list[ScoredPair]


class Neighbour(BaseModel):
    """An item like another."""

    item: ItemId
    title: str | None
    similarity: float


class Neighbours(BaseModel):
    """The nearest items, nearest first; similarities are cosines."""

    items: list[Neighbour]


class FoldedIn(BaseModel):
    """The best items for somebody with these ratings, and which of the rated items nobody knows."""

    items: list[Recommended]
    unknown_items: list[ItemId]


class Contribution(BaseModel):
    """What one rated item adds to the score, before it is scaled into the rating range."""

    item: ItemId
    title: str | None
    rating: float | None
    contribution: float


class Explanation(BaseModel):
    """Contributions, base and rest add up to the score before it is scaled into the rating range."""

    score: float
    base: float
    rest: float
    contributions: list[Contribution]
    nearest: list[Neighbour]
