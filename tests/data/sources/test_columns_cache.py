"""Cached columns: the same table as without a cache, and never a wrong one."""

import os
import shutil
import stat

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from cflightning import RatingsDataModule
from cflightning.data.sources import columns_cache, load_table, registry
from cflightning.data.sources.table_format import PLAIN_TABLE, TableFormat
from cflightning.data.sources.tables import find_file
from cflightning.data.table import RatingTable


@pytest.fixture(autouse=True)
def _small_sources_too(monkeypatch):
    monkeypatch.setattr(columns_cache, "SMALLEST", 1)


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Reads through a cache of its own; counts how often a source was really read."""
    reads = []
    original = columns_cache.save

    def save(*args):
        reads.append(args)
        return original(*args)

    monkeypatch.setattr(columns_cache, "save", save)

    def load(path, table_format=PLAIN_TABLE, **options):
        return load_table(path=str(path), table_format=table_format, cache=tmp_path / "cache", **options)

    load.reads, load.folder = reads, tmp_path / "cache" / "columns"
    return load


def same(a: RatingTable, b: RatingTable) -> None:
    pd.testing.assert_frame_equal(a.frame, b.frame)
    assert (a.name, a.titles, a.unique) == (b.name, b.titles, b.unique)
    assert (a.test_rows is None) is (b.test_rows is None)
    if a.test_rows is not None:
        np.testing.assert_array_equal(a.test_rows, b.test_rows)


@pytest.mark.parametrize(
    ("edition", "options"),
    [("ml-100k", {"published_split": "u1"}), ("ml-100k", {}), ("ml-1m", {}), ("ml-latest-small", {})],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_the_second_time_it_is_the_same_table(load, movielens, edition, options, zipped):
    path = movielens(edition, zipped=zipped)
    first, second = load(path, **options), load(path, **options)
    assert len(load.reads) == 1
    same(first, second)
    plain = load(path, keep=False, **options)
    assert len(load.reads) == 1
    same(second, columns_cache.replace(plain, unique=True))
    assert second.titles[2] == "Café Müller (2001)"


def test_strings_and_missing_columns(load, tmp_path):
    (tmp_path / "a.csv").write_text("user,item,rating,title\nJörg,007,1,Bond\nanna,7,2,Seven\n")
    first, second = (load(tmp_path / "a.csv", TableFormat(title="title")) for _ in range(2))
    assert len(load.reads) == 1
    same(first, second)
    assert second.frame.to_numpy().tolist() == [["Jörg", "007", 1.0], ["anna", "7", 2.0]]
    assert second.titles == {"007": "Bond", "7": "Seven"}


def test_other_content_or_options_are_another_table(load, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("user,item,rating\n1,2,3\n")
    load(path)
    path.write_text("user,item,rating\n1,2,4\n")
    assert load(path).rating.tolist() == [4]
    path.write_text("1,2,5\n")
    assert load(path, TableFormat(column_names="user,item,rating")).rating.tolist() == [5]
    assert load(path, TableFormat(column_names="item,user,rating")).user.values.tolist() == [2]
    assert len(load.reads) == 4


def test_a_list_of_titles_that_changed_is_another_table(load, movielens, tmp_path):
    shutil.copytree(movielens("ml-1m"), tmp_path / "ml-1m")
    load(tmp_path / "ml-1m")
    (tmp_path / "ml-1m" / "movies.dat").write_text("1::Another::Drama\n")
    assert load(tmp_path / "ml-1m").titles == {1: "Another"}


def test_a_folder_that_moved_is_named_by_where_it_is(load, movielens, tmp_path):
    path = movielens("ml-100k")
    load(path, published_split="u1")
    shutil.copytree(path, tmp_path / "elsewhere")
    assert load(tmp_path / "elsewhere", published_split="u1").name == f"{tmp_path / 'elsewhere'} (u1)"
    assert len(load.reads) == 1


@pytest.mark.parametrize("first", ["folder", "file"])
def test_a_folder_and_its_file_are_named_by_what_was_given(load, movielens, tmp_path, monkeypatch, first):
    shutil.copytree(movielens("ml-1m"), tmp_path / "x" / "ml-1m")
    monkeypatch.chdir(tmp_path / "x")
    paths = {"folder": "ml-1m", "file": "../x/ml-1m/ratings.dat"}
    names = {which: load(paths[which], keep=False).name for which in paths}
    assert names == {"folder": "ml-1m", "file": "../x/ml-1m"}
    load(paths[first])
    assert {which: load(paths[which]).name for which in paths} == names
    assert len(load.reads) == 1


def test_a_table_beside_is_named_as_it_was_given(load, tmp_path, monkeypatch):
    (tmp_path / "r.csv").write_text("user,item,rating\n1,2,3\n")
    monkeypatch.chdir(tmp_path)
    assert [load("r.csv").name, load("r.csv").name, load(tmp_path / "r.csv").name] == [
        "r.csv",
        "r.csv",
        f"{tmp_path}/r.csv",
    ]


def test_duplicates_are_still_refused(tmp_path, caplog):
    (tmp_path / "a.csv").write_text("user,item,rating\n1,2,3\n1,2,4\n1,3,5\n")
    for _ in range(2):
        with pytest.raises(ValueError, match="1 repeated"):
            _ = RatingsDataModule(str(tmp_path / "a.csv")).table
    assert len(RatingsDataModule(str(tmp_path / "a.csv"), duplicates="last").table) == 2
    assert "columns from the cache" in caplog.text


def unseal(kept):
    """The Arrow table of a cached file, without the digest at its end."""
    return pa.ipc.open_file(pa.BufferReader(kept.read_bytes()[: -columns_cache._SEAL_BYTES])).read_all()


def seal(kept, table):
    """Write a table with a digest that is right, whatever the table holds."""
    with open(kept, "w+b") as out:
        with pa.ipc.new_file(out, table.schema) as writer:
            writer.write_table(table)
        out.flush()
        out.write(columns_cache._seal(kept.stem, columns_cache._digest(out.fileno(), out.tell())))


def damaged(kept, how):
    if how == "cut off":
        kept.write_bytes(kept.read_bytes()[:-40])
    elif how == "something else":
        kept.write_bytes(b"x" * 5000)
    elif how == "empty":
        kept.write_bytes(b"")
    else:
        table = unseal(kept)
        meta = table.schema.metadata
        if how == "code out of range":
            bad = pa.DictionaryArray.from_arrays(pa.array([9] * len(table), pa.int32()), pa.array([1, 2]), safe=False)
            table = table.set_column(0, "user", bad)
        elif how == "ids out of order":
            ids = pa.DictionaryArray.from_arrays(pa.array([0] * len(table), pa.int32()), pa.array([2, 1]))
            table = table.set_column(0, "user", ids)
        elif how == "another type":
            table = table.set_column(2, "rating", table["rating"].cast(pa.float64()))
        elif how == "no metadata":
            meta = {}
        seal(kept, table.replace_schema_metadata(meta))


@pytest.mark.parametrize(
    "how",
    ["cut off", "something else", "empty", "code out of range", "ids out of order", "another type", "no metadata"],
)
def test_a_damaged_file_is_made_anew(load, movielens, how, caplog):
    path = movielens("ml-1m")
    first = load(path)
    [kept] = load.folder.iterdir()
    damaged(kept, how)
    same(first, load(path))
    assert len(load.reads) == 2
    assert "cannot be used" in caplog.text
    same(first, load(path))
    assert len(load.reads) == 2


@pytest.mark.slow
def test_any_changed_byte_and_any_lost_end_is_found(load, movielens):
    path = movielens("ml-1m")
    first = load(path)
    [kept] = load.folder.iterdir()
    sound = kept.read_bytes()
    rng = np.random.default_rng(0)
    damages = []
    for at in rng.integers(0, len(sound), 120):
        changed = bytearray(sound)
        changed[at] ^= 1 << rng.integers(8)
        damages.append(bytes(changed))
    damages += [sound[:end] for end in rng.integers(0, len(sound), 40)]
    damages += [sound + b"x", bytes(len(sound)), b"x" * 31]
    for number, content in enumerate(damages, start=2):
        kept.write_bytes(content)
        assert columns_cache.load(load.folder, kept.stem, path) is None
        same(first, load(path))
        assert len(load.reads) == number


def test_a_cached_file_under_another_name_is_not_taken(load, tmp_path):
    for name, rating in (("a", 3), ("b", 4)):
        (tmp_path / f"{name}.csv").write_text(f"user,item,rating\n1,2,{rating}\n")
        load(tmp_path / f"{name}.csv")
    first, second = sorted(load.folder.iterdir())
    content = first.read_bytes(), second.read_bytes()
    first.write_bytes(content[1])
    second.write_bytes(content[0])
    assert [load(tmp_path / f"{name}.csv").rating.tolist() for name in "ab"] == [[3], [4]]
    assert len(load.reads) == 4


def test_a_file_that_is_cut_off_while_its_table_is_used_does_no_harm(load, movielens):
    path = movielens("ml-1m")
    load(path)
    table = load(path)
    expected = table.frame.copy()
    [kept] = load.folder.iterdir()
    os.truncate(kept, 0)
    assert len(load.reads) == 1
    pd.testing.assert_frame_equal(columns_cache.replace(table).frame, expected)


@pytest.mark.parametrize("back", [False, True])
def test_a_file_that_changes_between_hashing_and_reading_is_not_kept(load, tmp_path, caplog, back):
    path = tmp_path / "a.csv"
    whole = "user,item,rating\n" + "".join(f"{user},1,3\n" for user in range(100))
    path.write_text(whole)
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns

    def changing_file(at):
        data_set = find_file(at)

        def write_and_read():
            path.write_text("user,item,rating\n1,1,3\n2,1,3\n")
            table = data_set.read()
            if back:
                path.write_text(whole)
                os.utime(path, ns=times)
            return table

        return data_set._replace(read=write_and_read)

    registry.register(changing_file)
    try:
        load(path)
    finally:
        registry.unregister(changing_file)
    assert "changed while it was read" in caplog.text
    assert not load.reads
    path.write_text(whole)
    assert len(load(path)) == 100


def test_cached_files_are_for_their_owner_alone(load, movielens, monkeypatch, caplog):
    path = movielens("ml-1m")
    first = load(path)
    [kept] = load.folder.iterdir()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    monkeypatch.setattr(os, "geteuid", lambda: kept.stat().st_uid + 1)
    same(first, load(path))
    assert len(load.reads) == 2
    assert "belongs to another user" in caplog.text


@pytest.mark.parametrize("other", ["link", "pipe", "folder"])
def test_what_is_no_regular_file_is_not_opened(load, movielens, tmp_path, other):
    path = movielens("ml-1m")
    first = load(path)
    [kept] = load.folder.iterdir()
    kept.rename(tmp_path / "elsewhere")
    {"link": lambda: kept.symlink_to(tmp_path / "elsewhere"), "pipe": lambda: os.mkfifo(kept), "folder": kept.mkdir}[
        other
    ]()
    same(first, load(path))
    assert len(load.reads) == 2


def test_a_cache_that_cannot_be_written_is_no_error(movielens, tmp_path, caplog):
    (tmp_path / "cache").write_text("a file, not a folder")
    table = load_table(path=str(movielens("ml-1m")), cache=tmp_path / "cache")
    assert len(table)
    assert "cannot be kept" in caplog.text


def test_small_sources_are_not_kept(load, movielens, monkeypatch):
    monkeypatch.setattr(columns_cache, "SMALLEST", 1_000_000)
    load(movielens("ml-1m"))
    assert not load.folder.exists()


def test_those_not_used_for_longest_make_room(load, tmp_path, monkeypatch):
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.csv").write_text(f"user,item,rating\n1,2,{ord(name)}\n")
    load(tmp_path / "a.csv")
    [kept] = load.folder.iterdir()
    monkeypatch.setattr(columns_cache, "LARGEST", int(2.5 * kept.stat().st_size))
    os.utime(kept, (1, 1))
    load(tmp_path / "b.csv")
    os.utime(next(path for path in load.folder.iterdir() if path != kept), (2, 2))
    load(tmp_path / "a.csv")  # used again, so b is the oldest
    load(tmp_path / "c.csv")
    assert len(load.reads) == 3
    assert len(list(load.folder.iterdir())) == 2
    load(tmp_path / "a.csv")
    assert len(load.reads) == 3
    load(tmp_path / "b.csv")
    assert len(load.reads) == 4
