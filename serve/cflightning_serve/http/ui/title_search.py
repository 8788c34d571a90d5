"""Finding items by a part of their title."""

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate, islice

_ARTICLE = "the|an?|l[ae]s?|l'|gli|il?|els?|los|d(?:er|ie|as)|een|den?|het"
_MOVED = re.compile(rf"^([^(]*), ({_ARTICLE})(?= \(|$)")  # "Matrix, The (1999)"
_ACCENT = re.compile(r"[\u0300-\u036f]")
_APART = re.compile(r"[\W_]+")
_LEADING = re.compile(r"^(the|an?) (?=.)")
_YEAR = re.compile(r"\(\d{4}\)\s*$")
_LOOKED_AT = 20_000
"""Titles at most whose words are compared one by one: tens of milliseconds."""


class Titles:
    """The titles of a catalogue, the most popular first, as one text that is searched at once.

    Args:
        titles: in the order in which equally good finds are to be listed.
    """

    def __init__(self, titles: Iterable[str]) -> None:
        keys = [normal(title) for title in titles]
        self._text = "\n" + "\n".join(keys) + "\n"
        self._starts = list(accumulate((len(key) + 1 for key in keys), initial=1))
        """Where each title begins, and behind the last one."""

    def find(self, query: str, limit: int) -> list[int]:
        """Find titles that contain the query, or every word of it in any order.

        Titles that begin with the query come first, then those with a word that does, then the rest; the
        popular first among each. Case, accents, punctuation and a leading article make no difference.

        Args:
            query: as typed; all titles answer an empty one.
            limit: how many positions at most.

        Returns:
            Positions in the titles, at most ``limit``.
        """
        if not query.strip():
            return list(range(min(limit, len(self._starts) - 1)))
        found: dict[int, None] = {}  # in order, each once
        for position in self._candidates(normal(query)):
            found[position] = None
            if len(found) == limit:
                break
        return list(found)

    def _candidates(self, key: str) -> Iterator[int]:
        """Positions, the best first, some more than once."""
        if not key:
            return
        for opening in ("\n", " ", ""):
            yield from self._holding(opening + key)
        words = key.split(" ")
        for position in islice(self._holding(max(words, key=len)), _LOOKED_AT) if len(words) > 1 else ():
            title = self._text[self._starts[position] : self._starts[position + 1]]
            if all(word in title for word in words):
                yield position

    def _holding(self, part: str) -> Iterator[int]:
        """Positions of the titles that contain ``part``, each once."""
        at = self._text.find(part)
        while at >= 0:
            position = bisect_right(self._starts, at + part.startswith("\n")) - 1
            yield position
            at = self._text.find(part, self._starts[position + 1] - 1)  # from the line feed behind it


def normal(text: str) -> str:
    """Bring a title or a query into the form in which they are compared.

    >>> normal("Café des Rêves, The (1999)")
    'cafe des reves 1999'
    """
    lower = text.casefold()
    if not lower.isascii():
        lower = _ACCENT.sub("", unicodedata.normalize("NFKD", lower))
    moved = _MOVED.sub(r"\2 \1", lower, count=1) if ", " in lower else lower
    words = _APART.sub(" ", moved).strip()
    # Other languages' articles stay: "Die Hard" is no German.
    return _LEADING.sub("", words) or " ".join(lower.split())


def are_films(titles: Iterable[str]) -> bool:
    """Whether most of the titles end as those of films do: "(1999)"."""
    dated = [_YEAR.search(title) is not None for title in titles]
    return 2 * sum(dated) > len(dated)
