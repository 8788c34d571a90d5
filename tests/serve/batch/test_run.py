"""Recommendations for all users in a file: contents, parts, shards, interruptions and full disks."""

import csv
import os
import re
import resource
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from cflightning_serve import InputError, Scorer
from cflightning_serve.batch.run import Shard, write_recommendations


def read_rows(path):
    """Read a file of any format: [(user, rank, item, score)]."""
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        assert table.column_names == ["user", "rank", "item", "score"]
        return list(zip(*(column.to_pylist() for column in table.columns), strict=True))
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["user", "rank", "item", "score"]
    return [(user, int(rank), item, float(score)) for user, rank, item, score in rows]


def expected_rows(scorer, users, k, text):
    as_written = str if text else (lambda one: one)
    return [
        (as_written(user), rank, as_written(item), score)
        for user, top in zip(users, scorer.recommend(users, k), strict=True)
        for rank, (item, score) in enumerate(zip(top.items.tolist(), top.scores.tolist(), strict=True), 1)
    ]


def assert_rows(got, expected):
    assert [row[:3] for row in got] == [row[:3] for row in expected]
    np.testing.assert_allclose([row[3] for row in got], [row[3] for row in expected], rtol=1e-6, atol=1e-6)


def stop_before_joining(scorer, out, size, **options):
    """Limit the size of files below that of the joined file, as a full disk does; return the message of the error."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, hard))
    try:
        with pytest.raises(InputError) as caught:
            write_recommendations(scorer, out, 4, **options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    return str(caught.value)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("threads", [1, 3])
def test_files_contain_the_recommendations_of_all_users(rich, tmp_path, suffix, threads):
    scorer, tables = rich
    out = tmp_path / f"lists{suffix}"
    assert write_recommendations(scorer, out, 4, threads=threads, part_size=3) == out
    assert_rows(read_rows(out), expected_rows(scorer, tables.user_ids.tolist(), 4, suffix == ".csv"))
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    if threads == 1:  # blocks of other sizes are rounded otherwise
        exact = np.concatenate([scorer.recommend_many(tables.user_ids[n : n + 3], 4).scores for n in (0, 3, 6)])
        assert np.array([row[3] for row in read_rows(out)], np.float32).tolist() == exact.tolist()  # no digit is lost


def test_shards_together_contain_all_users(rich, tmp_path):
    scorer, tables = rich
    users = tables.user_ids.tolist()
    for of in (1, 3, 9):
        paths = [
            write_recommendations(scorer, tmp_path / "lists.csv", 2, shard=Shard.parse(f"{n}/{of}"))
            for n in range(1, of + 1)
        ]
        assert len(set(paths)) == of
        assert_rows([row for path in paths for row in read_rows(path)], expected_rows(scorer, users, 2, text=True))
    assert paths[0].name == "lists-00001-of-00009.csv"
    assert read_rows(paths[0]) == []  # nine shards of seven users


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_stopped_run_continues(rich, tmp_path, suffix):
    scorer, tables = rich
    out, requests = tmp_path / f"lists{suffix}", []

    class Stopping:
        manifest, users = scorer.manifest, staticmethod(scorer.users)

        def recommend_many(self, users, k, *, exclude_seen):
            requests.append(users.tolist())
            if len(requests) == 3:
                raise KeyboardInterrupt
            return scorer.recommend_many(users, k, exclude_seen=exclude_seen)

    with pytest.raises(KeyboardInterrupt):
        write_recommendations(Stopping(), out, 4, part_size=2)
    assert not out.exists()
    write_recommendations(Stopping(), out, 4, part_size=2)
    users = tables.user_ids.tolist()
    assert requests == [users[0:2], users[2:4], users[4:6], users[4:6], users[6:]]
    assert_rows(read_rows(out), expected_rows(scorer, users, 4, suffix == ".csv"))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_run_killed_anywhere_continues_to_the_same_bytes(rich, tmp_path, suffix):
    scorer, _ = rich
    out, folder, kept = tmp_path / f"lists{suffix}", tmp_path / f"lists{suffix}.parts", tmp_path / "kept"
    expected = write_recommendations(scorer, out, 4, part_size=2).read_bytes()
    out.unlink()
    stop_before_joining(scorer, out, len(expected), part_size=2)
    folder.rename(kept)
    temporary = f".lists{suffix}-0123456789abcdef"
    states = {
        "nothing but the folder": lambda: folder.mkdir(),
        "while the settings were written": lambda: (
            folder.mkdir(),
            (folder / ".settings.json-0123456789abcdef").touch(),
        ),
        "while a part was written": lambda: (
            shutil.copytree(kept, folder),
            (folder / f"000001{suffix}").rename(folder / f".000001{suffix}-0123456789abcdef"),
        ),
        "while the parts were joined": lambda: (
            shutil.copytree(kept, folder),
            (folder / temporary).write_bytes(b"half"),
        ),
        "before the parts were removed": lambda: (shutil.copytree(kept, folder), out.write_bytes(expected)),
        "while the parts were removed": lambda: (
            shutil.copytree(kept, folder),
            (folder / f"000000{suffix}").unlink(),
            out.write_bytes(expected),
        ),
        "all but the folder removed": lambda: (folder.mkdir(), out.write_bytes(expected)),
    }
    for make in states.values():
        make()
        assert write_recommendations(scorer, out, 4, part_size=2).read_bytes() == expected
        assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", out.name]
        out.unlink()


def test_two_processes_cannot_write_the_same_parts(rich, tmp_path):
    scorer, _ = rich
    out = tmp_path / "lists.csv"

    class Twice:
        manifest, users = scorer.manifest, staticmethod(scorer.users)

        def recommend_many(self, users, k, *, exclude_seen):
            with pytest.raises(InputError, match="another process is writing this output"):
                write_recommendations(scorer, out, 4)
            return scorer.recommend_many(users, k, exclude_seen=exclude_seen)

    write_recommendations(Twice(), out, 4)
    assert [path.name for path in tmp_path.iterdir()] == ["lists.csv"]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_run_continues_after_a_full_disk(rich, tmp_path, suffix):
    scorer, _ = rich
    expected = write_recommendations(scorer, tmp_path / f"expected{suffix}", 4, part_size=2).read_bytes()
    out = tmp_path / f"lists{suffix}"
    message = stop_before_joining(scorer, out, len(expected), part_size=2)
    assert re.search(r"cannot be written: .*MB more are needed.*\(4 of 4\) are kept", message)
    assert "\n" not in message
    assert not out.exists()
    assert write_recommendations(scorer, out, 4, part_size=2).read_bytes() == expected


def test_files_have_the_permissions_of_the_umask(rich, tmp_path):
    before = os.umask(0o077)
    try:
        assert write_recommendations(rich[0], tmp_path / "lists.csv", 4).stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)


def test_parts_of_another_run_are_refused(rich, bundles, tmp_path):
    scorer, tables = rich
    out = tmp_path / "lists.csv"
    folder = tmp_path / "lists.csv.parts"
    expected = write_recommendations(scorer, out, 4).read_bytes()
    stop_before_joining(scorer, out, len(expected))
    assert (folder / "000000.csv").is_file()
    other = Scorer.load(bundles.write_bundle(tmp_path / "other", bundles.make_rich(bundles.make_tables(seed=77))))
    for change, call in (
        ("k", lambda: write_recommendations(scorer, out, 5)),
        ("exclude_seen", lambda: write_recommendations(scorer, out, 4, exclude_seen=False)),
        ("users", lambda: write_recommendations(scorer, out, 4, users=tables.user_ids[:2])),
        ("bundle", lambda: write_recommendations(other, out, 4)),
    ):
        with pytest.raises(InputError, match=rf"parts of another run: .*{change}"):
            call()
    (folder / "settings.json").unlink()
    with pytest.raises(InputError, match="must be empty"):
        write_recommendations(scorer, out, 4)


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "a/b", "1/0", "-1/3", "1/3/5", ""])
def test_invalid_shards_are_refused(text):
    with pytest.raises(InputError, match="--shard"):
        Shard.parse(text)


def test_invalid_arguments_are_refused(rich, tmp_path):
    scorer, _ = rich
    with pytest.raises(InputError, match=r"must end in \.csv or \.parquet"):
        write_recommendations(scorer, tmp_path / "lists.txt", 3)
    with pytest.raises(InputError, match="must be a folder"):
        write_recommendations(scorer, tmp_path / "no" / "lists.csv", 3)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match="must be a file, is a folder"):
        write_recommendations(scorer, tmp_path / "folder.csv", 3)
    assert not (tmp_path / "folder.csv.parts").exists()
    (tmp_path / "lists.csv.parts").write_text("a file")
    with pytest.raises(InputError, match="cannot be created"):
        write_recommendations(scorer, tmp_path / "lists.csv", 3)
    for wrong in ({"k": 0}, {"k": 3, "threads": 0}, {"k": 3, "users": [1.5]}):
        with pytest.raises(InputError):
            write_recommendations(scorer, tmp_path / "more.csv", **wrong)
