"""Texts for messages, cut to a maximum length."""

from __future__ import annotations


def truncate(text: str, length: int) -> str:
    """Return the first `length` characters of a text, with an ellipsis if there are more."""
    return text if len(text) <= length else f"{text[:length]}…"


def truncate_start(text: str, length: int) -> str:
    """Return the last `length` characters of a text, such as the end of a path, with an ellipsis if there are more."""
    return text if len(text) <= length else f"…{text[-length:]}"


def quote_untrusted(value: object, length: int = 60) -> str:
    """Return the first characters of an untrusted text in quotes; of another value, the name of its type."""
    return repr((value if isinstance(value, str) else type(value).__name__)[:length])
