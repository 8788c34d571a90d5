"""TitleIndex are found as a slow search finds them, whatever the accents, articles and order of words."""

import numpy as np
import pytest

from cflightning_serve.http.ui.title_search import TitleIndex, are_films, normalise

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
    ("query", "positions"),
    [
        ("toy", [0, 7]),
        ("TOY  STORY", [0, 7]),
        ("story", [3, 0, 7]),  # title starts with it, a word starts with it, contains it
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
def test_matches_in_order_of_rank(query, positions):
    assert TitleIndex(TITLES).search(query, 20) == positions


def test_an_empty_query_matches_all_in_order():
    assert TitleIndex(TITLES).search("  ", 3) == [0, 1, 2]
    assert TitleIndex(TITLES).search("", 99) == list(range(len(TITLES)))


def test_an_empty_catalogue_has_no_matches():
    assert TitleIndex([]).search("", 5) == []
    assert TitleIndex([]).search("a", 5) == []


def search_slowly(titles, query):
    """The definition: rank every title, sort."""

    def rank(title):
        if title.startswith(query):
            return 0
        if f" {query}" in title:
            return 1
        if query in title:
            return 2
        return 3 if all(word in title for word in query.split(" ")) else None

    ranked = [(rank(title), position) for position, title in enumerate(titles) if rank(title) is not None]
    return [position for _, position in sorted(ranked)]


def test_agreement_with_the_slow_search():
    rng = np.random.default_rng(0)
    words = ["ab", "b", "abc", "ca", "the", "an", "bb"]
    titles = [" ".join(rng.choice(words, rng.integers(1, 5))) for _ in range(300)]
    index = TitleIndex(titles)
    normalised = [normalise(title) for title in titles]
    for _ in range(200):
        query = " ".join(rng.choice([*words, "c", "bc", "x"], rng.integers(1, 3)))
        expected = search_slowly(normalised, normalise(query))
        assert index.search(query, 1000) == expected, query
        assert index.search(query, 7) == expected[:7], query


def test_words_in_any_order_are_searched_in_a_limited_number_of_titles():
    titles = ["long a", "long b", "b long", "long c", "c long"]
    index = TitleIndex(titles, max_scanned=3)
    assert index.search("b long", 9) == [2, 1]
    assert index.search("long c", 9) == [3]  # the last title is beyond the limit
    assert index.search("c", 9) == [4, 3]


@pytest.mark.parametrize(
    ("text", "expected"),
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
def test_normalise(text, expected):
    assert normalise(text) == expected


def test_films_are_recognised_by_years():
    assert are_films(TITLES)
    assert not are_films(["A (1999)", "B", "C"])
    assert not are_films([])
    assert not are_films(["Chair (2000) oak"])
