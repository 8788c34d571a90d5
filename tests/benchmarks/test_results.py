"""RESULTS.md and its tables, without other libraries installed."""

import argparse
import sys
from pathlib import Path

import numpy as np
import pytest

from cflightning.data.splits.split import TEST


@pytest.fixture
def benchmarks(monkeypatch):
    """Lets benchmarks import each other as scripts of one folder."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    yield
    for name in set(sys.modules) - before:
        if name in ("results", "bench_peers") or name.split(".")[0] == "peers":
            del sys.modules[name]


@pytest.fixture
def write_section(benchmarks):
    from results import write_section

    return write_section


def test_sections_are_made_replaced_and_left_alone(write_section, tmp_path):
    path = tmp_path / "RESULTS.md"
    write_section("one", "first\n", path)
    write_section("two", r"| \1 \g<0> |", path)
    write_section("one", "second", path)
    text = path.read_text()
    assert "first" not in text
    assert (
        "<!-- begin one -->\nsecond\n<!-- end one -->\n\n<!-- begin two -->\n| \\1 \\g<0> |\n<!-- end two -->\n" in text
    )
    assert text.startswith("# ")
    write_section("one", "second", path)
    assert path.read_text() == text
    assert [file.name for file in tmp_path.iterdir()] == ["RESULTS.md"]


def test_what_people_wrote_around_sections_stays(write_section, tmp_path):
    path = tmp_path / "RESULTS.md"
    path.write_text("Mine.\n\n<!-- begin a -->\nold\n<!-- end a -->\nBelow.\n")
    write_section("a", "new", path)
    assert path.read_text() == "Mine.\n\n<!-- begin a -->\nnew\n<!-- end a -->\nBelow.\n"


@pytest.mark.parametrize("text", ["<!-- begin a -->\n", "<!-- end a --> <!-- begin a -->", "<!-- begin a -->" * 2])
def test_broken_marks_are_refused_and_the_file_kept(write_section, tmp_path, text):
    path = tmp_path / "RESULTS.md"
    path.write_text(text)
    with pytest.raises(ValueError, match="'a'"):
        write_section("a", "new", path)
    assert path.read_text() == text


def test_a_table_of_peers(benchmarks):
    import bench_peers as bench
    from peers.common import Recipe
    from peers.libmf import BAR

    memory = {"memory_before": 100.0, "memory_peak": 1234.0}
    reached = {"epochs": 4, "seconds": 0.5}
    rows = [
        bench.Row("cflightning, command line", Recipe("fused", epochs=10), {"rmse": 0.84, "seconds": 1.0,
                  "memory_peak": 600.0, "reached": reached, "versions": {"cflightning": "1.2"}}),
        bench.Row("cflightning, command line", Recipe(bench.DEFAULTS, epochs=10), {"rmse": 0.845, "seconds": 1.0,
                  "memory_peak": 600.0, "reached": None, "share": 0.95}),
        bench.Row("LIBMF", Recipe("other", epochs=40), {"rmse": 0.86, "seconds": 2.0, "reached": None, **memory}),
        bench.Row("LIBMF", Recipe(BAR, epochs=40), {"rmse": 0.85, "seconds": 2.0, "reached": None, **memory}),
        bench.Row("implicit", Recipe("ALS", epochs=15, warning="no ratings"), {"rmse": None, "seconds": 12.3} | memory),
        bench.Row("other", Recipe("x"), problem="could not be installed: no such thing"),
    ]  # fmt: skip
    options = argparse.Namespace(threads=2, repeats=3)
    text = bench.render(bench.PROTOCOLS["ml-1m"], rows, options, "make bench")
    assert "| cflightning, command line: fused | 1.00 | .8400 | 10 | 9,001,890 | 0.50 (4) | 600 |" in text
    assert f"line: {bench.DEFAULTS} | 1.00 | .8450 | 10 | 8,551,796 | not reached | 600 |" in text
    assert f"| LIBMF: {BAR} | 2.00 | .8500 | 40 | 18,003,780 | not reached | 100 → 1,234 |" in text
    assert "| implicit: ALS (no ratings) | 12 | – | 15 | 1,097,791 | – | 100 → 1,234 |" in text
    assert "| other: x | could not be installed: no such thing |" in text
    assert "**0.25** (bar ≤ 0.4, stretch ≤ 0.2)" in text
    assert f"Lowest RMSE: cflightning, {bench.DEFAULTS} .8450, LIBMF .8500." in text
    assert "clipped to\n1…5." in text
    assert "clipped to\n0.5…5." in bench.render(bench.PROTOCOLS["small"], rows[2:], options, "make bench")
    assert "cflightning 1.2." in text
    assert len({line.count("|") for line in text.splitlines() if line.startswith("|")}) == 1


LINES = [(user, item, (user * 7 + item * 3) % 11) for user in range(1, 9) for item in range(1, 8)]


def small_copy(folder, protocol):
    """Write a few rows in the files of a protocol."""
    folder.mkdir()
    head = ["userId,movieId,rating,timestamp"] * protocol.header
    rows = [f"{user}::{item:07d}::{rating}::9" for user, item, rating in LINES]
    if not protocol.names:
        rows = [f"{user}::{item}::{max(rating, 1) / 2}::9" for user, item, rating in LINES]
    if not protocol.header:
        (folder / "movies.dat").write_text("".join(f"{item:07d}::Title (2001)::\n" for item in range(1, 8)))
    rows = [row.replace("::", protocol.separator) for row in rows]
    (folder / protocol.files[0]).write_text("\n".join(head + rows) + "\n", newline="\r\n" if head else "\n")


def compare_rows(folder, name):
    """Compare the rows of a protocol with those that cflightning reads; return the sizes of both parts."""
    from peers.protocols import PROTOCOLS
    from peers.split import split

    from cflightning import RatingsDataModule

    data, (train, test) = RatingsDataModule(str(folder / PROTOCOLS[name].folder)), split(folder, PROTOCOLS[name])
    for part, rows in ((train, data.split.parts != TEST), (test, data.split.parts == TEST)):
        mine = data.table.frame[rows].sort_values(["user", "item"])
        order = np.lexsort((part.item, part.user))
        for column, values in part._asdict().items():
            assert mine[column].tolist() == values[order].tolist()
    return len(train.rating), len(test.rating)


@pytest.mark.parametrize("name", ["small", "movietweetings"])
def test_peers_get_the_rows_that_a_path_alone_trains_on(benchmarks, tmp_path, name):
    from peers.protocols import PROTOCOLS

    small_copy(tmp_path / PROTOCOLS[name].folder, PROTOCOLS[name])
    assert compare_rows(tmp_path, name) == (51, 5)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("name", ["ml-1m", "small", "movietweetings"])
def test_peers_get_the_real_rows_that_a_path_alone_trains_on(benchmarks, real_data, name):
    from peers.protocols import PROTOCOLS

    assert compare_rows(real_data, name)[0] == PROTOCOLS[name].ratings


def test_predictions_are_held_to_the_scale_of_the_data(benchmarks):
    from peers.common import rmse

    predicted, rating = np.array([-3.0, 12.0, 4.0]), np.array([0.0, 10.0, 4.0])
    assert rmse(predicted, rating, (0, 10)) == 0
    assert rmse(predicted, rating, (1, 5)) > 1
    with pytest.raises(ValueError, match="1 predictions"):
        rmse(np.array([np.nan]), rating[:1], (0, 10))


def test_errors_are_told_without_folders(benchmarks):
    from bench_peers import text_of

    assert text_of("Traceback\n  File\nOSError: /home/me/x/lib.so: not | found\n\n") == "OSError: lib.so: not / found"
    assert text_of("ERROR: see https://index.example/simple/thing/ for more") == "ERROR: see  for more"
    assert text_of("") == "no message"


def test_the_shortest_fit_that_reaches_the_target(benchmarks):
    from peers.common import growing, measure

    errors = {1: 0.99, 2: 0.95, 3: 0.92, 4: 0.94, 5: 0.96}
    found = measure(lambda epochs: epochs, errors.get, epochs=5, target=0.93, repeats=3)
    assert found["rmse"] == 0.96
    assert found["reached"]["epochs"] == 3
    assert found["memory_before"] > 0 and found["memory_peak"] > 1
    assert measure(lambda epochs: epochs, errors.get, epochs=5, target=0.9, repeats=1)["reached"] is None
    assert "reached" not in measure(lambda epochs: epochs, lambda _: None, epochs=5, target=0.9, repeats=1)
    assert list(growing(7)) == [1, 2, 3, 4, 5, 6, 7]
    assert list(growing(2)) == [1, 2]
