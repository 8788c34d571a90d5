"""Search for items by a part of their title."""

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate, islice

_ARTICLE = "the|an?|l[ae]s?|l'|gli|il?|els?|los|d(?:er|ie|as)|een|den?|het"
_TRAILING_ARTICLE = re.compile(rf"^([^(]*), ({_ARTICLE})(?= \(|$)")  # "Matrix, The (1999)"
_COMBINING_ACCENT = re.compile(r"[\u0300-\u036f]")
_NO_WORD = re.compile(r"[\W_]+")
_LEADING_ARTICLE = re.compile(r"^(the|an?) (?=.)")  # English alone: in "Die Hard", "Die" is not an article
_YEAR = re.compile(r"\(\d{4}\)\s*$")


class TitleIndex:
    """Normalised titles in one text, which is searched as a whole.

    Args:
        titles: titles in order of popularity, which decides between equally good matches.
        max_scanned: titles whose words are compared one by one in a query; the default takes tens of milliseconds.
    """

    def __init__(self, titles: Iterable[str], max_scanned: int = 20_000) -> None:
        normalised = [normalise(title) for title in titles]
        self._max_scanned = max_scanned
        self._text = "\n" + "\n".join(normalised) + "\n"
        self._starts = list(accumulate((len(title) + 1 for title in normalised), initial=1))
        """Offset of each title in the text, and of the end."""

    def search(self, query: str, limit: int) -> list[int]:
        """Find titles that contain the query, or all of its words in any order.

        Titles that start with the query come first, then those with a word that starts with it, then the rest; within
        each group in order of popularity. Case, accents, punctuation and a leading article make no difference.

        Args:
            query: text as typed; an empty one matches all titles.
            limit: maximal number of matches.

        Returns:
            Positions in ``titles``.
        """
        if not query.strip():
            return list(range(min(limit, len(self._starts) - 1)))
        positions: dict[int, None] = {}  # an ordered set
        for position in self._matches(normalise(query)):
            positions[position] = None
            if len(positions) == limit:
                break
        return list(positions)

    def _matches(self, query: str) -> Iterator[int]:
        """Yield the positions of matching titles, best first, with repeats."""
        if not query:
            return
        for prefix in ("\n", " ", ""):
            yield from self._containing(prefix + query)
        words = query.split(" ")
        if len(words) == 1:
            return
        for position in islice(self._containing(max(words, key=len)), self._max_scanned):
            title = self._text[self._starts[position] : self._starts[position + 1]]
            if all(word in title for word in words):
                yield position

    def _containing(self, part: str) -> Iterator[int]:
        """Yield the positions of titles that contain a text, each once."""
        offset = self._text.find(part)
        while offset >= 0:
            position = bisect_right(self._starts, offset + part.startswith("\n")) - 1
            yield position
            offset = self._text.find(part, self._starts[position + 1] - 1)  # on from the line feed after the title


def normalise(text: str) -> str:
    """Convert a title or query to the form in which they are compared.

    >>> normalise("Café des Rêves, The (1999)")
    'cafe des reves 1999'
    """
    lower = text.casefold()
    if not lower.isascii():
        lower = _COMBINING_ACCENT.sub("", unicodedata.normalize("NFKD", lower))
    reordered = _TRAILING_ARTICLE.sub(r"\2 \1", lower, count=1) if ", " in lower else lower
    words = _NO_WORD.sub(" ", reordered).strip()
    return _LEADING_ARTICLE.sub("", words) or " ".join(lower.split())


def are_films(titles: Iterable[str]) -> bool:
    """Return whether most of the titles end with a year in parentheses, as those of films do."""
    has_year = [_YEAR.search(title) is not None for title in titles]
    return 2 * sum(has_year) > len(has_year)
