"""The command line's answers: each as text for people, as one document for JSON, and notes on what is unknown."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from cflightning_serve.bundle.manifest import Unit
from cflightning_serve.cli.format import table
from cflightning_serve.cli.parse import parse_ids, read_ids
from cflightning_serve.inference.results import TopK, number
from cflightning_serve.scorer import Scorer


class Answer(NamedTuple):
    """What one command has to say."""

    text: str
    document: dict[str, Any]
    """JSON values only; the keys are the same for every bundle."""
    notes: Sequence[str] = ()


def score(scorer: Scorer, user: str | None, items: Sequence[str] | None, pairs: str | None) -> Answer:
    """Score the items of one user, or the pairs of a CSV file.

    Args:
        scorer: the bundle's scorer.
        user: user id as typed, when ``pairs`` is None.
        items: item ids as typed, when ``pairs`` is None.
        pairs: path of a CSV file with the columns user and item; ``-`` is standard input.

    Raises:
        InputError: an id has the wrong type, or the file cannot be read or lacks a column.
    """
    if pairs is None:
        asked_items = parse_ids(items or (), scorer.manifest.item_ids, "--item")
        asked_users = parse_ids([user or ""], scorer.manifest.user_ids, "--user") * len(asked_items)
    else:
        columns = {"user": scorer.manifest.user_ids, "item": scorer.manifest.item_ids}
        asked_users, asked_items = read_ids(pairs, columns)
    answers = zip(
        asked_users,
        asked_items,
        map(number, scorer.score(asked_users, asked_items)),
        scorer.knows_user(asked_users).tolist(),
        scorer.knows_item(asked_items).tolist(),
        scorer.titles(asked_items),
        strict=True,
    )
    keys = ("user", "item", "score", "user_known", "item_known", "title")
    document = [dict(zip(keys, answer, strict=True)) for answer in answers]
    unit = scorer.manifest.units["score"]
    text = table(
        ("user", "item", heading(unit), "user known", "item known", "title"), [tuple(row.values()) for row in document]
    )
    rated = unit == "rating"
    notes = [] if rated else ["the bundle knows no ratings: only the order of a user's choices means something"]
    notes += unknown("user", [row["user"] for row in document if not row["user_known"]], "scored as the average user")
    instead = "scored as the average item" if rated else "the score says nothing"
    notes += unknown("item", [row["item"] for row in document if not row["item_known"]], instead)
    return Answer(text, {"unit": unit, "pairs": document}, notes)


def recommend(
    scorer: Scorer, users: Sequence[str], k: int, exclude: Sequence[str], wishes: Mapping[str, Any] | None = None
) -> Answer:
    """List the best items for each user.

    Args:
        scorer: the bundle's scorer.
        users: user ids as typed.
        k: how many items for each.
        exclude: item ids as typed, left out for every user.
        wishes: further arguments of :meth:`Scorer.recommend`; ids of ``allow`` and ``deny`` as typed.

    Raises:
        InputError: an id has the wrong type, or ``k`` is below one.
    """
    asked = parse_ids(users, scorer.manifest.user_ids, "--user")
    left_out = parse_ids(exclude, scorer.manifest.item_ids, "--exclude")
    further = dict(wishes or {})
    for name in ("allow", "deny"):
        if further.get(name) is not None:
            further[name] = parse_ids(further[name], scorer.manifest.item_ids, f"--{name}")
    best = scorer.recommend(asked, k, exclude=[left_out] * len(asked), **further)
    known = scorer.knows_user(asked).tolist()
    document = [
        {"user": user, "known": knows, "items": _listed(scorer, top, "score")}
        for user, knows, top in zip(asked, known, best, strict=True)
    ]
    unit = scorer.manifest.units["recommend"]
    text = "\n\n".join(_block(f"user {one['user']}", one["items"], "score", heading(unit)) for one in document)
    strangers = [user for user, knows in zip(asked, known, strict=True) if not knows]
    most = "liked by most" if unit == "rating" else "that the average user would choose"
    return Answer(text, {"unit": unit, "users": document}, unknown("user", strangers, f"these are the items {most}"))


def similar(scorer: Scorer, items: Sequence[str], k: int) -> Answer:
    """List the nearest items of each item.

    Args:
        scorer: the bundle's scorer.
        items: item ids as typed.
        k: how many for each.

    Raises:
        UnknownIdError: an item was not seen in training.
        InputError: an id has the wrong type, or ``k`` is below one.
    """
    asked = parse_ids(items, scorer.manifest.item_ids, "--item")
    nearest = scorer.similar_items(asked, k)
    document: list[dict[str, Any]] = [
        {"item": item, "title": title, "similar": _listed(scorer, top, "similarity")}
        for item, title, top in zip(asked, scorer.titles(asked), nearest, strict=True)
    ]
    text = "\n\n".join(
        _block(f"item {one['item']}{in_words(one['title'])}", one["similar"], "similarity") for one in document
    )
    return Answer(text, {"items": document})


def listed(scorer: Scorer, items: Any, values: Iterable[Any], measure: str) -> list[dict[str, Any]]:
    """Items with a number each and their titles, as JSON has them."""
    ids = items if isinstance(items, list) else items.tolist()
    return [
        {"item": item, measure: number(value), "title": title}
        for item, value, title in zip(ids, values, scorer.titles(ids), strict=True)
    ]


def _listed(scorer: Scorer, top: TopK, measure: str) -> list[dict[str, Any]]:
    return listed(scorer, top.items, top.scores, measure)


def _block(heading: str, listed: Sequence[dict[str, Any]], measure: str, column: str | None = None) -> str:
    if not listed:
        return f"{heading}: nothing is left"
    rows = [(place, one["item"], one[measure], one["title"]) for place, one in enumerate(listed, 1)]
    return f"{heading}\n{table(('#', 'item', column or measure, 'title'), rows)}"


def heading(unit: Unit) -> str:
    """What the column of scores is called: a choice must not be taken for a rating."""
    return "score" if unit == "rating" else unit


def in_words(title: str | None) -> str:
    """The title in brackets, if there is one."""
    return "" if title is None else f" ({title})"


def unknown(what: str, ids: Sequence[Any], therefore: str) -> list[str]:
    """A note on ids that are not known, or none."""
    different = list(dict.fromkeys(ids))
    if not different:
        return []
    first = ", ".join(map(str, different[:3]))
    if len(different) == 1:
        return [f"{what} {first} is unknown: {therefore}"]
    more = ", ..." if len(different) > 3 else ""
    return [f"{len(different)} {what}s are unknown ({first}{more}): {therefore}"]
