"""The command line's answers about new users and reasons; see ``answers``."""

from collections.abc import Sequence
from typing import Any

from cflightning_serve.bundle.manifest import Manifest
from cflightning_serve.cli.commands import Answer, heading, in_words, listed, unknown
from cflightning_serve.cli.format import table
from cflightning_serve.cli.parse import parse_ids
from cflightning_serve.errors import InputError
from cflightning_serve.scorer import Scorer


def fold_in(
    scorer: Scorer,
    ratings: str | None,
    liked: Sequence[str] | None,
    k: int,
    exclude: Sequence[str],
    items: Sequence[str],
) -> Answer:
    """Recommend to a new user.

    Args:
        scorer: the bundle's scorer.
        ratings: ``ITEM:RATING,...`` as typed; None where ``liked`` is given.
        liked: item ids as typed.
        k: how many items.
        exclude: item ids as typed, left out.
        items: item ids as typed, whose scores are shown, too.

    Raises:
        InputError: ids or ratings of the wrong type, or ``k`` below one.
    """
    given, values = _given(scorer.manifest, ratings, liked)
    left_out = parse_ids(exclude, scorer.manifest.item_ids, "--exclude")
    asked = parse_ids(items, scorer.manifest.item_ids, "--item")
    found = scorer.fold_in(given, values, k, exclude=left_out, score=asked)
    best = listed(scorer, found.items, found.scores, "score")
    unit = scorer.manifest.units
    rows = [(place, one["item"], one["score"], one["title"]) for place, one in enumerate(best, 1)]
    parts = [table(("#", "item", heading(unit["recommend"]), "title"), rows) if rows else "nothing is left"]
    scored = listed(scorer, asked, found.asked, "score")
    if scored:
        rows = [(one["item"], one["score"], one["title"]) for one in scored]  # type: ignore[misc]
        parts.append(table(("item", heading(unit["score"]), "title"), rows))
    strangers = [item for item, known in zip(given, found.known.tolist(), strict=True) if not known]
    document = {"unit": unit["recommend"], "items": best, "scores": scored, "unknown_items": strangers}
    return Answer("\n\n".join(parts), document, unknown("item", strangers, "it has no say"))


def explain(scorer: Scorer, user: str | None, item: str, ratings: str | None, liked: Sequence[str] | None) -> Answer:
    """Say what each rated item adds to the score of an item.

    Args:
        scorer: the bundle's scorer.
        user: user id as typed; None for somebody known by ratings alone.
        item: item id as typed.
        ratings: ``ITEM:RATING,...`` as typed; None for none.
        liked: item ids as typed.

    Raises:
        UnknownIdError: the user or the item was not seen in training.
        InputError: ids or ratings of the wrong type.
    """
    who = None if user is None else parse_ids([user], scorer.manifest.user_ids, "--user")[0]
    [target] = parse_ids([item], scorer.manifest.item_ids, "--item")
    given, values = (None, None) if ratings is None and liked is None else _given(scorer.manifest, ratings, liked)
    found = scorer.explain(who, target, items=given, ratings=values)
    order = abs(found.contributions).argsort(kind="stable")[::-1]
    reasons = listed(scorer, found.items[order], found.contributions[order], "contribution")
    nearest = listed(scorer, found.nearest.items, found.nearest.similarities, "similarity")
    title = scorer.title(target)
    document: dict[str, Any] = {
        "item": target,
        "title": title,
        "score": found.score,
        "logit": found.logit,
        "base": found.base,
        "rest": found.rest,
        "contributions": reasons,
        "nearest": nearest,
    }
    unit = heading(scorer.manifest.units["recommend"])
    rows: list[tuple[Any, ...]] = [("everybody", "", found.base, None)]
    rows += [("rated", str(one["item"]), one["contribution"], one["title"]) for one in reasons]
    rows += [("rest", "", found.rest, None), ("sum", "", found.logit, None)]
    parts = [
        f"item {target}{in_words(title)}: {unit} {found.score:.3f}",
        table(("from", "item", "adds", "title"), rows),
    ]
    if nearest:
        near = [(one["item"], one["similarity"], one["title"]) for one in nearest]
        parts.append(table(("nearest", "similarity", "title"), near))
    return Answer("\n\n".join(parts), document)


def _given(
    manifest: Manifest, ratings: str | None, liked: Sequence[str] | None
) -> tuple[list[Any], list[float] | None]:
    """Items and their ratings; ids may hold colons, ratings follow the last one."""
    if ratings is None:
        return parse_ids(liked or (), manifest.item_ids, "--liked"), None
    items, values = [], []
    for pair in filter(None, ratings.split(",")):
        item, colon, value = pair.rpartition(":")
        try:
            values.append(float(value))
        except ValueError:
            colon = ""
        if not colon:
            raise InputError(f"--ratings: must be ITEM:RATING,ITEM:RATING,..., got {pair!r}")
        items.append(item)
    return parse_ids(items, manifest.item_ids, "--ratings"), values
