"""Titles are found as a slow search finds them, whatever the accents, articles and order of words."""

import numpy as np
import pytest

from cflightning_serve.http.ui.title_search import Titles, are_films, normal

TITLES = (
    "Toy Story (1995)",
    "Matrix, The (1999)",
    "Die Hard (1988)",
    "Story of Us, The (1999)",
    "Star Wars: Episode V - The Empire Strikes Back (1980)",
    "Cité des enfants perdus, La (City of Lost Children, The) (1995)",
    "???",
    "History Toys",
    "Straße, Die (1923)",
    "A",
    "L'Avventura, (1960)",
)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("toy", [0, 7]),
        ("TOY  STORY", [0, 7]),
        ("story", [3, 0, 7]),  # begins with it, has a word that does, has it inside
        ("the story", [3, 0, 7]),
        ("the matr", [1]),
        ("matrix", [1]),
        ("die h", [2]),
        ("hard", [2]),
        ("star wars e", [4]),
        ("star-wars episode v", [4]),
        ("empire star", [4]),
        ("strikes zzz", []),
        ("cite", [5]),
        ("la cité", [5]),
        ("CITÉ", [5]),
        ("lost child", [5]),
        ("strasse", [8]),
        ("die straße", [8]),
        ("avventura", [10]),
        ("?", [6]),
        ("1999", [1, 3]),
        ("\n", list(range(11))),
        ("toy\nstory", [0, 7]),
        ("zzz", []),
        ("\u0301", []),
    ],
)
def test_what_is_found(query, found):
    assert Titles(TITLES).find(query, 20) == found


def test_an_empty_query_finds_all_in_order():
    assert Titles(TITLES).find("  ", 3) == [0, 1, 2]
    assert Titles(TITLES).find("", 99) == list(range(len(TITLES)))


def test_an_empty_catalogue():
    assert Titles([]).find("", 5) == []
    assert Titles([]).find("a", 5) == []


def slow(keys, key):
    """By its definition: rank every title, sort."""

    def rank(title):
        if title.startswith(key):
            return 0
        if f" {key}" in title:
            return 1
        if key in title:
            return 2
        return 3 if all(word in title for word in key.split(" ")) else None

    ranked = [(rank(title), position) for position, title in enumerate(keys) if rank(title) is not None]
    return [position for _, position in sorted(ranked)]


def test_against_a_slow_search():
    rng = np.random.default_rng(0)
    words = ["ab", "b", "abc", "ca", "the", "an", "bb"]
    titles = [" ".join(rng.choice(words, rng.integers(1, 5))) for _ in range(300)]
    index = Titles(titles)
    keys = [normal(title) for title in titles]
    for _ in range(200):
        query = " ".join(rng.choice([*words, "c", "bc", "x"], rng.integers(1, 3)))
        expected = slow(keys, normal(query))
        assert index.find(query, 1000) == expected, query
        assert index.find(query, 7) == expected[:7], query


def test_words_in_any_order_are_looked_for_among_the_popular(monkeypatch):
    monkeypatch.setattr("cflightning_serve.http.ui.title_search._LOOKED_AT", 3)
    titles = ["long a", "long b", "b long", "long c", "c long"]
    assert Titles(titles).find("b long", 9) == [2, 1]
    assert Titles(titles).find("long c", 9) == [3]  # the last title lies beyond
    assert Titles(titles).find("c", 9) == [4, 3]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("The The", "the"),
        ("the", "the"),
        ("An American Tail", "american tail"),
        ("Another Day", "another day"),
        ("!!!", "!!!"),
        ("", ""),
        ("Ōkami (1998)", "okami 1998"),
        ("東京物語 (1953)", "東京物語 1953"),
        ("snake_case", "snake case"),
        ("avventura, l' (1960)", "l avventura 1960"),
    ],
)
def test_normal(text, key):
    assert normal(text) == key


def test_films_are_told_by_their_years():
    assert are_films(TITLES)
    assert not are_films(["A (1999)", "B", "C"])
    assert not are_films([])
    assert not are_films(["Chair (2000) oak"])
