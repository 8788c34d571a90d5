"""JSON read piece by piece, so that other threads run in between: Python runs no other while it parses a document.

Each piece, some thousand values of one array or object, is cut off by a regular expression and read by :mod:`json`.
"""

import re
from collections.abc import Callable
from typing import Any

_MANY = 1024
"""Values of a piece, about a millisecond."""
_STRING = r'"(?:[^"\\]++|\\.)*+"'
_SCALAR = rf"(?:{_STRING}|[^\s\"\[\]{{}},:]++)"
_SPACE = re.compile(r"[ \t\n\r]*+")
_KEY = re.compile(_STRING, re.DOTALL)
_ONE = re.compile(_SCALAR, re.DOTALL)
_VALUES = re.compile(rf"(?:\s*+{_SCALAR}\s*+,){{1,{_MANY}}}+", re.DOTALL)
_PAIRS = re.compile(rf"(?:\s*+{_STRING}\s*+:\s*+{_SCALAR}\s*+,){{1,{_MANY}}}+", re.DOTALL)


def parse_incrementally(text: str, parse: Callable[[str], Any], pause: Callable[[], None]) -> Any:
    """Read a JSON document.

    Args:
        text: the document.
        parse: reads a document in one go.
        pause: called after each piece; may raise.

    Returns:
        What ``parse`` would return for the whole text.

    Raises:
        ValueError: the text is no JSON.
        RecursionError: it is nested too deeply.
    """
    reader = _Reader(text, parse, pause)
    value, at = reader.value(reader.skip(0))
    if reader.skip(at) != len(text):
        raise ValueError(f"something follows the document at {at}")
    return value


class _Reader:
    def __init__(self, text: str, parse: Callable[[str], Any], pause: Callable[[], None]) -> None:
        self._text, self._parse, self._pause = text, parse, pause

    def skip(self, at: int) -> int:
        """Where the white space from a place on ends."""
        space = _SPACE.match(self._text, at)
        return space.end() if space else at

    def value(self, at: int) -> tuple[Any, int]:
        """The value that begins at a place, and where it ends."""
        first = self._text[at : at + 1]
        if first == "[":
            return self._array(at + 1)
        if first == "{":
            return self._object(at + 1)
        one = _ONE.match(self._text, at)
        if one is None:
            raise ValueError(f"a value must stand at {at}")
        return self._parse(one[0]), one.end()

    def _array(self, at: int) -> tuple[list[Any], int]:
        values: list[Any] = []
        at = self.skip(at)
        if self._text[at : at + 1] == "]":
            return values, at + 1
        while True:
            while run := _VALUES.match(self._text, at):
                values += self._parse(f"[{run[0][:-1]}]")
                at = run.end()
                self._pause()
            value, at = self.value(self.skip(at))
            values.append(value)
            at = self.skip(at) + 1
            if self._ends("]", at - 1):
                return values, at

    def _object(self, at: int) -> tuple[dict[str, Any], int]:
        pairs: dict[str, Any] = {}
        at = self.skip(at)
        if self._text[at : at + 1] == "}":
            return pairs, at + 1
        while True:
            while run := _PAIRS.match(self._text, at):
                pairs |= self._parse(f"{{{run[0][:-1]}}}")
                at = run.end()
                self._pause()
            key = _KEY.match(self._text, self.skip(at))
            if key is None:
                raise ValueError(f"a key must stand at {at}")
            colon = self.skip(key.end())
            if self._text[colon : colon + 1] != ":":
                raise ValueError(f"a colon must stand at {colon}")
            pairs[self._parse(key[0])], at = self.value(self.skip(colon + 1))
            at = self.skip(at) + 1
            if self._ends("}", at - 1):
                return pairs, at

    def _ends(self, end: str, at: int) -> bool:
        """Whether what is read ends there, or goes on behind a comma."""
        mark = self._text[at : at + 1]
        if mark not in (",", end) or not mark:
            raise ValueError(f"a comma or {end} must stand at {at}")
        return mark == end
