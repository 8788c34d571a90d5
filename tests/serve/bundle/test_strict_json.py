"""Incremental JSON parsing gives the same values and errors as parsing at once."""

import json

import numpy as np
import pytest

from cflightning_serve.bundle.strict_json import parse_incrementally


def parse(text):
    return parse_incrementally(text, json.loads, lambda: None)


def random_value(rng, depth=0):
    """Create a value of any type."""
    kind = int(rng.integers(8 if depth < 4 else 5))
    texts = ["", "a", '"', "\\", ",", "]}", "é\u2028", "\n\t", "\U0001f600", '",":', "[1, 2]"]
    if kind < 2:
        return "".join(rng.choice(texts, int(rng.integers(4))))
    if kind == 2:
        return int(rng.integers(-(2**60), 2**60))
    if kind == 3:
        return float(rng.normal()) * 10.0 ** int(rng.integers(-30, 30))
    if kind == 4:
        return [True, False, None][int(rng.integers(3))]
    length, depth = (2500, 4) if depth < 2 and rng.random() < 0.1 else (int(rng.integers(6)), depth + 1)
    if kind in (5, 6):
        return [random_value(rng, depth) for _ in range(length)]
    return {f"{n}{rng.choice(texts)}": random_value(rng, depth) for n in range(length)}


def test_documents_in_any_layout_have_the_same_value():
    rng = np.random.default_rng(0)
    for n in range(150):
        value = random_value(rng)
        text = json.dumps(value, ensure_ascii=n % 2 == 0, indent=[None, 1, "\t"][n % 3])
        parsed = parse(f"  {text}\n")
        assert parsed == value and type(parsed) is type(value)
        if isinstance(value, dict):
            assert list(parsed) == list(value)


def test_damaged_documents_have_the_same_value_or_error():
    rng = np.random.default_rng(1)
    outcomes = {True: 0, False: 0}
    for n in range(3000):
        text = json.dumps(random_value(rng, 2))
        at = int(rng.integers(len(text) + 1))
        mark = str(rng.choice(list('[]{},:"\\ 0e.-\n')))
        text = [text[:at], text[:at] + mark + text[at:], text[:at] + text[at + 1 :]][n % 3]
        try:
            expected = json.loads(text)
        except ValueError:
            with pytest.raises(ValueError):
                parse(text)
            outcomes[False] += 1
        else:
            assert parse(text) == expected
            outcomes[True] += 1
    assert min(outcomes.values()) > 300


INVALID = ["", " ", "[", "[1", "[1,", "[1,]", "[,1]", '{"a"', '{"a":', '{"a":1', '{"a":1,', '{"a":1,}', "{1:2}", "1 2"]


@pytest.mark.parametrize("text", [*INVALID, "\x0c1", "[1\x0b]", "[\u00a01]"])
def test_invalid_json_is_refused(text):
    for read in (json.loads, parse):
        with pytest.raises(ValueError):
            read(text)


def test_the_last_of_repeated_keys_counts():
    text = '{"a": 1, "b": 2, "a": {"c": 3}, "b": 4}'
    assert parse(text) == json.loads(text)


def test_deep_nesting_is_a_recursion_error():
    with pytest.raises(RecursionError):
        parse("[" * 100_000)


@pytest.mark.parametrize("layout", [{"separators": (",", ":")}, {"indent": 2}])
def test_pieces_are_short(layout):
    """Other threads wait while a piece is parsed."""
    titles = {str(n): f'The "{n}" of them, é ({n})' for n in range(50_000)}
    catalogue = {"item": list(range(50_000)), "count": [7] * 50_000, "categories": {"x": list(range(50_000))}}
    for document in (titles, catalogue, [f"B{n}" for n in range(50_000)]):
        lengths, pauses = [], []

        def parse(text, lengths=lengths):
            lengths.append(len(text))
            return json.loads(text)

        text = json.dumps(document, **layout)
        assert parse_incrementally(text, parse, lambda pauses=pauses: pauses.append(1)) == document
        assert max(lengths) < 100_000
        assert len(pauses) >= 40
