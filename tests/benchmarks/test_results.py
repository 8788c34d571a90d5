"""RESULTS.md and the tables in it, without any peer installed."""

import argparse
import sys
from pathlib import Path

import pytest


@pytest.fixture
def benchmarks(monkeypatch):
    """Benchmarks import each other as scripts of one folder do."""
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
        bench.Row("LIBMF", Recipe(BAR, epochs=40), {"rmse": 0.85, "seconds": 2.0, "reached": None, **memory}),
        bench.Row("implicit", Recipe("ALS", epochs=15, warning="no ratings"), {"rmse": None, "seconds": 12.3} | memory),
        bench.Row("other", Recipe("x"), problem="could not be installed: no such thing"),
    ]  # fmt: skip
    options = argparse.Namespace(threads=2, repeats=3)
    text = bench.render(bench.PROTOCOLS["ml-1m"], rows, 1_000_000, options, "make bench")
    assert "| cflightning, command line: fused | 1.00 | .8400 | 10 | 10,000,000 | 0.50 (4) | 600 |" in text
    assert f"| LIBMF: {BAR} | 2.00 | .8500 | 40 | 20,000,000 | not reached | 100 → 1,234 |" in text
    assert "| implicit: ALS (no ratings) | 12 | – | 15 | 1,219,512 | – | 100 → 1,234 |" in text
    assert "| other: x | could not be installed: no such thing |" in text
    assert "**0.25** (bar ≤ 0.4, stretch ≤ 0.2)" in text
    assert "cflightning 1.2." in text
    assert len({line.count("|") for line in text.splitlines() if line.startswith("|")}) == 1


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
