"""The lists of all users: selection against sorting, files against single answers, stopping and going on, shards."""

import csv
import json
import os
import resource
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

import cflightning_serve.batch.run as module
from cflightning_serve import InputError, Scorer, UnsupportedError
from cflightning_serve.batch.progress import progress_bar
from cflightning_serve.batch.run import Shard, write_recommendations
from cflightning_serve.cli.main import main
from cflightning_serve.inference.bulk import recommend_in_bulk
from cflightning_serve.inference.top_k import top_k_indices

# Selection ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["normal", "ties", "negative ties", "zeros of both signs", "little left"])
@pytest.mark.parametrize(
    ("n", "m", "k"),
    [(5, 3706, 100), (3, 10, 4), (3, 10, 40), (4, 1000, 124), (4, 1000, 125), (0, 10, 3), (3, 7, 1), (2, 0, 3)],
)
def test_best_places_are_those_of_a_stable_sort(n, m, k, kind):
    rng = np.random.default_rng(n + m + k)
    values = rng.normal(size=(n, m)).astype(np.float32)
    if "ties" in kind:
        values = np.round(values)
        values = -np.abs(values) if "negative" in kind else values
    elif kind == "zeros of both signs":
        values = np.where(values > 0, np.float32(0), np.float32(-0.0))
    elif kind == "little left":
        values[rng.random((n, m)) < 0.97] = -np.inf
    places, counts = top_k_indices(values, k)
    assert places.shape == (n, min(k, m))
    for row, found, count in zip(values, places, counts, strict=True):
        order = [place for place in np.argsort(-row.astype(float), kind="stable") if row[place] > -np.inf]
        assert found[:count].tolist() == order[:k]


@pytest.mark.parametrize("exclude_seen", [None, True, False])
def test_lists_are_those_of_recommend(rich, exclude_seen):
    scorer, tables = rich
    strange = 99_999 if tables.user_ids.dtype == np.int64 else "nobody"
    users = [*tables.user_ids[::-1], strange, tables.user_ids[0]]
    for k in (1, 4, 100):
        lists = recommend_in_bulk(
            scorer.graphs,
            lambda: scorer.catalogue,
            users,
            k,
            exclude_seen=exclude_seen,
            block_size=3 * len(tables.item_ids),
        )
        tops = scorer.recommend(users, k, exclude_seen=exclude_seen)
        assert lists.counts.tolist() == [len(top.items) for top in tops]
        assert lists.items.tolist() == [item for top in tops for item in top.items.tolist()]
        np.testing.assert_allclose(lists.scores, np.concatenate([top.scores for top in tops]), rtol=1e-5, atol=1e-6)
    nothing = scorer.lists([], 3)
    assert [len(part) for part in nothing] == [0, 0, 0]


def test_equal_scores_stand_in_the_order_of_the_catalogue(bundles, tables, tmp_path):
    flat = bundles.replace(tables, item_vectors=np.zeros_like(tables.item_vectors), item_bias=np.zeros(12, np.float32))
    scorer = Scorer.load(bundles.write_bundle(tmp_path / "bundle", bundles.make_rich(flat)))
    asked = {"exclude_seen": False}
    first = tables.item_ids[:5].tolist()
    assert scorer.recommend(10, 5, **asked).items.tolist() == first
    assert (
        scorer.recommend(10, 5, deny=[tables.item_ids[1]], **asked).items.tolist()
        == tables.item_ids[[0, 2, 3, 4, 5]].tolist()
    )
    assert scorer.lists([10], 5, **asked).items.tolist() == first


def test_bundles_of_older_versions(scorer, tables):
    lists = scorer.lists(tables.user_ids, 3)
    assert lists.items.reshape(-1, 3).tolist() == [top.items.tolist() for top in scorer.recommend(tables.user_ids, 3)]
    with pytest.raises(UnsupportedError):
        scorer.lists(tables.user_ids, 3, exclude_seen=True)


# Files ----------------------------------------------------------------------------------------------------------------


def rows_of(path):
    """What a file holds, whatever its format: [(user, rank, item, score)]."""
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


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("threads", [1, 3])
def test_files_hold_the_lists_of_all_users(rich, tmp_path, suffix, threads):
    scorer, tables = rich
    out = tmp_path / f"lists{suffix}"
    assert write_recommendations(scorer, out, 4, threads=threads, part_size=3) == out
    assert_rows(rows_of(out), expected_rows(scorer, tables.user_ids.tolist(), 4, suffix == ".csv"))
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    if threads == 1:  # blocks of other sizes are rounded otherwise
        exact = np.concatenate([scorer.lists(tables.user_ids[n : n + 3], 4).scores for n in (0, 3, 6)])
        assert np.array([row[3] for row in rows_of(out)], np.float32).tolist() == exact.tolist()  # no digit is lost


def test_shards_make_up_the_whole(rich, tmp_path):
    scorer, tables = rich
    users = tables.user_ids.tolist()
    for of in (1, 3, 9):
        paths = [
            write_recommendations(scorer, tmp_path / "lists.csv", 2, shard=Shard.parse(f"{n}/{of}"))
            for n in range(1, of + 1)
        ]
        assert len(set(paths)) == of
        assert_rows([row for path in paths for row in rows_of(path)], expected_rows(scorer, users, 2, text=True))
    assert paths[0].name == "lists-00001-of-00009.csv"
    assert rows_of(paths[0]) == []  # nine shards of seven users


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_stopped_run_goes_on(rich, tmp_path, suffix):
    scorer, tables = rich
    out, asked = tmp_path / f"lists{suffix}", []

    class Stopping:
        manifest, users = scorer.manifest, staticmethod(scorer.users)

        def lists(self, users, k, *, exclude_seen):
            asked.append(users.tolist())
            if len(asked) == 3:
                raise KeyboardInterrupt
            return scorer.lists(users, k, exclude_seen=exclude_seen)

    with pytest.raises(KeyboardInterrupt):
        write_recommendations(Stopping(), out, 4, part_size=2)
    assert not out.exists()
    write_recommendations(Stopping(), out, 4, part_size=2)
    users = tables.user_ids.tolist()
    assert asked == [users[0:2], users[2:4], users[4:6], users[4:6], users[6:]]
    assert_rows(rows_of(out), expected_rows(scorer, users, 4, suffix == ".csv"))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_wherever_it_was_killed_the_same_bytes_come_of_it(rich, tmp_path, suffix, monkeypatch):
    scorer, _ = rich
    out, folder, kept = tmp_path / f"lists{suffix}", tmp_path / f"lists{suffix}.parts", tmp_path / "kept"
    whole = write_recommendations(scorer, out, 4, part_size=2).read_bytes()
    out.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(module, "join_parts", lambda parts, target: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            write_recommendations(scorer, out, 4, part_size=2)
    folder.rename(kept)
    scratch = f".lists{suffix}-0123456789abcdef"
    states = {
        "nothing but the folder": lambda: folder.mkdir(),
        "while the record was written": lambda: (folder.mkdir(), (folder / ".settings.json-0123456789abcdef").touch()),
        "while a part was written": lambda: (
            shutil.copytree(kept, folder),
            (folder / f"000001{suffix}").rename(folder / f".000001{suffix}-0123456789abcdef"),
        ),
        "while the parts were joined": lambda: (shutil.copytree(kept, folder), (folder / scratch).write_bytes(b"half")),
        "before the parts were removed": lambda: (shutil.copytree(kept, folder), out.write_bytes(whole)),
        "while the parts were removed": lambda: (
            shutil.copytree(kept, folder),
            (folder / f"000000{suffix}").unlink(),
            out.write_bytes(whole),
        ),
        "all but the folder removed": lambda: (folder.mkdir(), out.write_bytes(whole)),
    }
    for make in states.values():
        make()
        assert write_recommendations(scorer, out, 4, part_size=2).read_bytes() == whole
        assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", out.name]
        out.unlink()


def test_two_at_once_do_not_write_the_same_parts(rich, tmp_path):
    scorer, _ = rich
    out = tmp_path / "lists.csv"

    class Twice:
        manifest, users = scorer.manifest, staticmethod(scorer.users)

        def lists(self, users, k, *, exclude_seen):
            with pytest.raises(InputError, match="another process is writing this output"):
                write_recommendations(scorer, out, 4)
            return scorer.lists(users, k, exclude_seen=exclude_seen)

    write_recommendations(Twice(), out, 4)
    assert [path.name for path in tmp_path.iterdir()] == ["lists.csv"]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_full_disk_is_one_line_and_the_same_command_goes_on(rich, tmp_path, suffix):
    scorer, _ = rich
    whole = write_recommendations(scorer, tmp_path / f"whole{suffix}", 4, part_size=2).read_bytes()
    out = tmp_path / f"lists{suffix}"
    largest = max(len(whole) - 1, 1)  # of a file, as on a full disk, for this process alone: parts fit, all do not

    def fill():
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, hard))
        try:
            write_recommendations(scorer, out, 4, part_size=2)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    with pytest.raises(InputError, match=r"cannot be written: .*MB more are needed.*\(4 of 4\) are kept") as raised:
        fill()
    assert "\n" not in str(raised.value)
    assert not out.exists()
    assert write_recommendations(scorer, out, 4, part_size=2).read_bytes() == whole


def test_files_have_the_mode_that_the_umask_says(rich, tmp_path):
    before = os.umask(0o077)
    try:
        assert write_recommendations(rich[0], tmp_path / "lists.csv", 4).stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)


def test_parts_of_other_lists_are_never_mixed(rich, choice_scorer, bundles, tmp_path, monkeypatch):
    scorer, tables = rich
    out = tmp_path / "lists.csv"
    folder = tmp_path / "lists.csv.parts"
    monkeypatch.setattr(module, "join_parts", lambda parts, target: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_recommendations(scorer, out, 4)
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
def test_shards_that_cannot_be(text):
    with pytest.raises(InputError, match="--shard"):
        Shard.parse(text)


def test_files_that_cannot_be(rich, tmp_path):
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


# Command line ---------------------------------------------------------------------------------------------------------


def test_the_command(bundles, tables, tmp_path, capsys):
    folder = bundles.write_bundle(tmp_path / "bundle", bundles.make_rich(tables))
    scorer = Scorer.load(folder)
    command = ["batch", str(folder), "--k", "3"]
    assert main([*command, "--out", str(tmp_path / "a.csv"), "--shard", "2/2", "--threads", "2"]) == 0
    assert capsys.readouterr().out == f"recommendations written to {tmp_path / 'a-00002-of-00002.csv'}\n"
    (tmp_path / "users.csv").write_text("name,user\nx,30\ny,31\n")
    options = ["--users", str(tmp_path / "users.csv"), "--no-exclude-seen", "--json"]
    assert main([*command, "--out", str(tmp_path / "b.parquet"), *options]) == 0
    assert json.loads(capsys.readouterr().out) == {"file": str(tmp_path / "b.parquet")}
    tops = scorer.recommend([30, 31], 3, exclude_seen=False)  # the second one is unknown
    assert [row[2] for row in rows_of(tmp_path / "b.parquet")] == [i for top in tops for i in top.items.tolist()]
    for wrong in (["--out", "x.txt"], ["--out", "x.csv", "--shard", "3"], ["--out", "x.csv", "--users", "none.csv"]):
        assert main([*command, *wrong]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_ctrl_c_is_no_failure_of_the_program(bundles, tables, tmp_path, capsys, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    folder = bundles.write_bundle(tmp_path / "bundle", bundles.make_rich(tables))
    words = ["batch", str(folder), "--k", "3", "--out", str(tmp_path / "lists.csv")]
    with monkeypatch.context() as patch:
        patch.setattr("cflightning_serve.batch.run.write_part", stop)
        assert main(words) == 130
    assert capsys.readouterr().err == "cflightning_serve: stopped; repeat the command to continue\n"
    assert main(words) == 0


def test_wishes_on_the_command_line(bundles, tables, tmp_path, capsys):
    folder = bundles.write_bundle(tmp_path / "bundle", bundles.make_rich(tables))
    scorer = Scorer.load(folder)

    def ask(*options):
        code = main(["recommend", str(folder), "--user", "30", "--k", "4", "--json", *options])
        return code, [one["item"] for one in json.loads(capsys.readouterr().out)["users"][0]["items"]]

    for options, wish in (
        ([], {}),
        (["--no-exclude-seen"], {"exclude_seen": False}),
        (["--allow", "0", "6", "-3"], {"allow": [0, 6, -3]}),
        (["--deny", "0", "3"], {"deny": [0, 3]}),
        (["--category", "Drama", "Crime"], {"categories": ["Drama", "Crime"]}),
        (["--min-count", "2", "--diversity", "0.7"], {"min_count": 2, "diversity": 0.7}),
    ):
        assert ask(*options) == (0, scorer.recommend(30, 4, **wish).items.tolist())
    assert main(["recommend", str(folder), "--user", "30", "--category", "Western"]) == 2
    assert "known are Crime, Drama" in capsys.readouterr().err
    assert main(["recommend", str(folder), "--user", "30", "--allow", "x"]) == 2
    assert "--allow: ids are integers" in capsys.readouterr().err


class Terminal:
    def __init__(self):
        self.text = ""

    def isatty(self):
        return True

    def write(self, text):
        self.text += text

    def flush(self):
        pass


@pytest.mark.parametrize("installed", [True, False])
def test_progress_is_shown_on_a_terminal_alone(monkeypatch, capsys, installed):
    with progress_bar(10, 0, "users") as advance:
        advance(10)
    assert capsys.readouterr().err == ""
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    if not installed:
        monkeypatch.setitem(__import__("sys").modules, "tqdm", None)
    with progress_bar(10, 5, "users") as advance:
        advance(5)
    assert "users" in terminal.text
    assert "10" in terminal.text
