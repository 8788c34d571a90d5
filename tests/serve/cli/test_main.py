"""The command line: tables, JSON, notes, exit codes; in process, and a few times for real."""

import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from cflightning_serve import __version__
from cflightning_serve.cli.format import format_table
from cflightning_serve.cli.main import main


@pytest.fixture
def run(capsys):
    """Exit code, standard output and standard error of one command."""

    def run(*words):
        try:
            code = main([str(word) for word in words])
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return run


def one_line(text):
    assert text.startswith("cflightning_serve: ")
    assert text.count("\n") == 1
    assert text.endswith("\n")
    assert "Traceback" not in text
    return text


# Answers --------------------------------------------------------------------------------------------------------------


def test_recommend_as_a_table(run, bundle, scorer, tables):
    code, out, err = run("recommend", bundle, "--user", 30, "--k", 3)
    assert (code, err) == (0, "")
    heading, header, *rows = out.splitlines()
    assert heading == "user 30"
    assert header.split() == ["#", "item", "score", "title"]
    best = scorer.recommend(30, 3)
    for place, (row, item, score) in enumerate(zip(rows, best.items, best.scores, strict=True), 1):
        assert row.split(maxsplit=3)[:3] == [str(place), str(item), f"{score:.3f}"]
        assert row.endswith(tables.titles.get(str(item), ""))
    assert len({len(row.split("Film")[0]) for row in rows if "Film" in row}) == 1  # aligned


def test_recommend_as_json(run, bundle, tables):
    code, out, err = run("recommend", bundle, "--user", 30, 99999, "--k", 2, "--exclude", -3, 0, "--json")
    assert (code, err) == (0, "")
    answer = json.loads(out)
    assert list(answer) == ["unit", "users"]
    assert [(user["user"], user["known"]) for user in answer["users"]] == [(30, True), (99999, False)]
    for user in answer["users"]:
        assert [one["item"] for one in user["items"]] == tables.recommend(user["user"], 2, [-3, 0])
        assert all(list(one) == ["item", "score", "title"] for one in user["items"])


def test_an_unknown_user_is_said_to_be_one(run, bundle):
    code, out, err = run("recommend", bundle, "--user", 99999)
    assert code == 0
    assert out.startswith("user 99999\n")
    note = "user 99999 is unknown: the items with the highest mean ratings are recommended"
    assert one_line(err) == f"cflightning_serve: {note}\n"
    *_, err = run("recommend", bundle, "--user", 1, 2, 3, 4, 10, 1)
    assert "4 users are unknown (1, 2, 3, ...): the items" in one_line(err)


def test_nothing_left_to_recommend(run, bundle, tables):
    code, out, _ = run("recommend", bundle, "--user", 30, "--exclude", *tables.item_ids)
    assert (code, out) == (0, "user 30: no items left\n")


def test_string_ids_stay_strings(run, string_bundle, string_tables):
    code, out, err = run("recommend", string_bundle, "--user", "001", "--k", 2, "--json")
    assert (code, err) == (0, "")
    user = json.loads(out)["users"][0]
    assert user["user"] == "001"
    assert user["items"][0]["title"] is None
    assert [one["item"] for one in user["items"]] == string_tables.recommend("001", 2)
    code, out, err = run("recommend", string_bundle, "--user", "zoë")
    assert out.startswith("user zoë\n")
    assert "title" not in out
    assert "user 1 is unknown" in run("recommend", string_bundle, "--user", "1")[2]


def test_score(run, bundle, scorer):
    code, out, err = run("score", bundle, "--user", 30, "--item", 0, 3, 12345)
    assert code == 0
    header, *rows = [line.split() for line in out.splitlines()]
    assert header == ["user", "item", "score", "user", "known", "item", "known", "title"]
    assert rows[0] == ["30", "0", f"{scorer.score(30, 0):.3f}", "yes", "yes", "Film", "1", "(1901)"]
    assert rows[2][:5] == ["30", "12345", f"{scorer.score(30, 12345):.3f}", "yes", "no"]
    assert one_line(err) == "cflightning_serve: item 12345 is unknown: scored as the average item\n"


def test_score_as_json_is_what_python_says(run, bundle, scorer):
    _, out, _ = run("score", bundle, "--user", 30, "--item", 0, 3, "--json")
    pairs = json.loads(out)["pairs"]
    assert [pair["score"] for pair in pairs] == pytest.approx(scorer.score(30, [0, 3]), rel=1e-7)
    assert list(pairs[0]) == ["user", "item", "score", "user_known", "item_known", "title"]
    assert len(str(pairs[0]["score"])) <= 11  # as many digits as a float32 has


def test_pairs_from_a_file(run, bundle, scorer, tmp_path):
    file = tmp_path / "pairs.csv"
    file.write_text('item,rating,user\n0,5,10\n"3",4,20\n\n6,,99\n', encoding="utf-8-sig")
    code, out, err = run("score", bundle, "--pairs", file, "--json")
    assert (code, err) == (0, "")
    pairs = json.loads(out)["pairs"]
    assert [(pair["user"], pair["item"], pair["user_known"]) for pair in pairs] == [(10, 0, 1), (20, 3, 1), (99, 6, 0)]
    assert [pair["score"] for pair in pairs] == pytest.approx(scorer.score([10, 20, 99], [0, 3, 6]))


def test_pairs_from_standard_input(run, bundle, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("user,item\n10,0\n"))
    code, out, _ = run("score", bundle, "--pairs", "-")
    assert code == 0
    assert out.splitlines()[1].split()[:2] == ["10", "0"]


def test_no_pairs_at_all(run, bundle, tmp_path):
    (tmp_path / "none.csv").write_text("user,item\n")
    code, out, err = run("score", bundle, "--pairs", tmp_path / "none.csv")
    assert (code, err) == (0, "")
    assert out.split() == ["user", "item", "score", "user", "known", "item", "known", "title"]
    assert json.loads(run("score", bundle, "--pairs", tmp_path / "none.csv", "--json")[1]) == {
        "unit": "rating",
        "pairs": [],
    }


def test_similar(run, bundle, scorer):
    code, out, err = run("similar", bundle, "--item", 0, 30, "--k", 2)
    assert code == 2  # 30 is unknown
    assert "items must be known" in one_line(err)
    code, out, err = run("similar", bundle, "--item", 0, 27, "--k", 2)
    assert (code, err) == (0, "")
    first, second = out.split("\n\n")
    assert first.startswith("item 0 (Film 1 (1901))\n")
    assert second.startswith("item 27\n")
    answer = json.loads(run("similar", bundle, "--item", 0, "--k", 2, "--json")[1])
    (item,) = answer["items"]
    assert (item["item"], item["title"]) == (0, "Film 1 (1901)")
    assert [one["item"] for one in item["similar"]] == scorer.similar_items(0, 2).items.tolist()
    assert list(item["similar"][0]) == ["item", "similarity", "title"]


def test_info(run, bundle, string_bundle):
    code, out, err = run("info", bundle)
    assert (code, err) == (0, "")
    facts = dict(line.split(None, 1) for line in out.splitlines() if line)
    assert facts["bundle"] == str(bundle)
    assert facts["rmse"].split(None, 1) == ["0.875", "root mean squared error of predicted ratings; lower is better"]
    assert facts["users"].startswith("7 known")
    assert facts["rows"].startswith("none: recommendations include seen items")
    assert facts["score"] == "predicted ratings"
    assert "0.5 to 5" in out
    facts = json.loads(run("info", string_bundle, "--json")[1])
    assert facts["item_ids"] == "string"
    assert facts["known_items"] == 11
    assert facts["titles"] is False
    assert facts["metrics"] == {"test/rmse": 0.875}
    assert facts["rows"] == "none"


def test_info_shows_few_figures_and_counts_the_others(run, bundles, tables, tmp_path):
    parts = {"rmse": 0.9, "rmse_low": 0.8, "rmse_high": 1.0, "ndcg@10": 0.5, "ndcg@20": 0.6, "own": 7.0}
    metrics = {f"test/{name}": value for name, value in parts.items()} | {"val/ndcg@10": 0.25}
    metrics |= {f"test/recall@{k}": k / 100 for k in range(5, 100)}
    folder = bundles.write_bundle(tmp_path / "bundle", bundles.replace(bundles.make_rich(tables), metrics=metrics))
    code, out, _ = run("info", folder)
    assert code == 0
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line}
    assert rows["rmse"][1:4] == ["0.9", "[0.8,", "1]"]
    assert rows["ndcg@10"][1:3] == ["0.5", "0.25"]
    assert rows["recall@5"][1] == "0.05"
    assert out.endswith("96 more metrics: --json\n")  # ndcg@20, own and the recall of other lists
    assert len(out.splitlines()) < 25
    assert "every user's training rows" in " ".join(rows["rows"])


def test_info_of_a_model_without_a_rating_range(bundles, run, copy):
    raw = json.loads((copy / "manifest.json").read_text("utf-8"))
    bundles.seal(copy, raw | {"rating_range": None})
    assert "rating range  none\n" in run("info", copy)[1]
    assert json.loads(run("info", copy, "--json")[1])["rating_range"] is None


def test_what_is_shown_as_zero_has_no_sign():
    shown = format_table(("adds",), [(1.0,), (-1e-5,), (-0.0006,), (float("nan"),), (-0.0,)])
    assert shown.split() == ["adds", "1.000", "0.000", "-0.001", "nan", "0.000"]


def test_titles_cannot_steer_the_terminal(bundles, tables, run, tmp_path):
    titles = {str(item): "\x1b[31mred\nline" for item in tables.item_ids}
    folder = bundles.write_bundle(tmp_path / "evil", bundles.Tables(**{**vars(tables), "titles": titles}))
    _, out, _ = run("recommend", folder, "--user", 30, "--k", 1)
    assert "?[31mred?line" in out
    assert (
        json.loads(run("recommend", folder, "--user", 30, "--json")[1])["users"][0]["items"][0]["title"] == titles["0"]
    )


# Errors ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["recommend", "B", "--user", "abc"], "--user: ids are integers in this bundle, got 'abc'"),
        (["recommend", "B", "--user", "1.0"], "got '1.0'"),
        (["recommend", "B", "--user", "1_0"], "got '1_0'"),
        (["recommend", "B", "--user", "٣"], "got '٣'"),
        (["recommend", "B", "--user", "9" * 20], "must fit into 64 bits"),
        (["recommend", "B", "--user", "9" * 9999], "ids are integers"),
        (["recommend", "B", "--user", "1", "--k", "0"], "k: must be an integer from 1, got 0"),
        (["recommend", "B", "--user", "1", "--k", "x"], "argument --k: invalid int value: 'x'"),
        (["recommend", "B", "--user", "1", "--threads", "0"], "threads: must be an integer from 1"),
        (["recommend", "B", "--user", "1", "--exclude", "x"], "--exclude: ids are integers"),
        (["recommend", "B"], "required: --user"),
        (["recommend"], "required: BUNDLE"),
        ([], "required: COMMAND"),
        (["guess", "B"], "invalid choice: 'guess'"),
        (["score", "B"], "needs --user and --item, or only --pairs"),
        (["score", "B", "--user", "1"], "needs --user and --item, or only --pairs"),
        (["score", "B", "--pairs", "-", "--user", "1", "--item", "2"], "needs --user and --item, or only --pairs"),
        (["score", "B", "--pairs", "-", "--item", "2"], "needs --user and --item, or only --pairs"),
        (["score", "B", "--pairs", "/nowhere.csv"], "/nowhere.csv: cannot be read: No such file"),
        (["similar", "B", "--item", "99999"], "items must be known"),
    ],
)
def test_a_wrong_question_is_one_line_and_code_2(run, bundle, words, match):
    code, out, err = run(*(bundle if word == "B" else word for word in words))
    assert (code, out) == (2, "")
    assert match in one_line(err)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (b"", "must name the columns user and item, got nothing"),
        (b"user;item\n1;2\n", "must name the columns user and item, got user;item"),
        (b"user,item\n10,0\n10,x\n", "line 3: column item: ids are integers in this bundle, got 'x'"),
        (b"user,item\n10\n", "line 2: column item: must be an id, is missing"),
        (b"user,item\n,5\n", "line 2: column user: ids are integers in this bundle, got ''"),
        (b'user,item\n"10,5\n', "must be CSV in UTF-8"),
        (b"user,item\n\xff,5\n", "must be CSV in UTF-8"),
    ],
)
def test_pairs_that_cannot_be_read(run, bundle, tmp_path, text, match):
    (tmp_path / "pairs.csv").write_bytes(text)
    code, _, err = run("score", bundle, "--pairs", tmp_path / "pairs.csv")
    assert code == 2
    assert match in one_line(err)


@pytest.mark.parametrize("words", [["info"], ["recommend", "--user", "1"], ["similar", "--item", "1"]])
def test_a_bad_bundle_is_code_1(run, copy, words):
    (copy / "weights.bin").write_bytes(b"")
    code, out, err = run(words[0], copy, *words[1:])
    assert (code, out) == (1, "")
    assert "weights.bin: must have" in one_line(err)
    code, _, err = run(words[0], copy / "absent", *words[1:])
    assert code == 1
    assert "does not exist" in one_line(err)


def test_digests_are_left_out_when_asked(run, copy):
    data = bytearray((copy / "weights.bin").read_bytes())
    data[0] ^= 1
    (copy / "weights.bin").write_bytes(data)
    assert run("info", copy)[0] == 1
    assert run("info", copy, "--no-verify")[0] == 0
    assert run("recommend", copy, "--user", 10, "--no-verify", "--threads", 2)[0] == 0


# Ids that begin with a minus ------------------------------------------------------------------------------------------


@pytest.fixture
def dashed(bundles, string_tables, tmp_path):
    """Tables whose ids look like options, and their bundle."""
    users = np.array(["-5ccd", "--help", "-x1"] + [f"u{n}" for n in range(len(string_tables.user_ids) - 3)], object)
    items = np.array(["-i0", "--json"] + [f"i{n}" for n in range(2, len(string_tables.item_ids))], object)
    tables = bundles.replace(string_tables, user_ids=users, item_ids=items, titles=None)
    return tables, bundles.write_bundle(tmp_path / "dashed", tables)


def test_ids_may_look_like_options(run, dashed):
    tables, folder = dashed
    words = ["--user=-5ccd", "--user=--help", "--user", "u0", "u1", "--exclude=-i0", "--exclude=--json", "--json"]
    code, out, err = run("recommend", folder, *words, "--k", 3)
    assert (code, err) == (0, "")
    answers = {one["user"]: [item["item"] for item in one["items"]] for one in json.loads(out)["users"]}
    wanted = ["-5ccd", "--help", "u0", "u1"]
    assert answers == {user: tables.recommend(user, 3, ["-i0", "--json"]) for user in wanted}
    code, out, _ = run("score", folder, "--user=-x1", "--item=-i0", "--item=--json", "--json")
    assert [(one["user"], one["item"]) for one in json.loads(out)["pairs"]] == [("-x1", "-i0"), ("-x1", "--json")]
    assert [one["item"] for one in json.loads(run("similar", folder, "--item=-i0", "--json")[1])["items"]] == ["-i0"]


@pytest.mark.parametrize("words", [["--user", "-5ccd"], ["--user", "u0", "-5ccd"]])
def test_an_id_that_is_taken_for_an_option_is_answered_with_the_way(run, dashed, words):
    code, _, err = run("recommend", dashed[1], *words)
    assert code == 2
    assert "--user=-5ccd" in one_line(err)


def test_help_and_version(run):
    code, out, _ = run("--help")
    assert code == 0
    assert "recommend BUNDLE --user 42 --k 10" in out
    for command in ("score", "recommend", "similar", "info"):
        code, out, _ = run(command, "--help")
        assert code == 0
        assert f"example:\n  python -m cflightning_serve {command} BUNDLE" in out
    assert run("--version")[:2] == (0, f"cflightning_serve {__version__}\n")


# For real -------------------------------------------------------------------------------------------------------------


def process(*words, environment, **options):
    return subprocess.run(
        [sys.executable, "-m", "cflightning_serve", *map(str, words)],
        env=environment,
        capture_output=True,
        check=False,
        **options,
    )


def test_as_a_process(bundle, scorer, environment):
    done = process("recommend", bundle, "--user", 30, "--k", 3, "--json", environment=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    items = [one["item"] for one in json.loads(done.stdout)["users"][0]["items"]]
    assert items == scorer.recommend(30, 3).items.tolist()
    done = process("score", bundle, "--pairs", "-", environment=environment, input=b"user,item\n30,x\n")
    assert done.returncode == 2
    assert one_line(done.stderr.decode()).endswith("-: line 2: column item: ids are integers in this bundle, got 'x'\n")


@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "<&- 1>&- 2>&-"])
def test_streams_that_are_closed_are_no_failure(bundle, tmp_path, environment, closed):
    out = tmp_path / "lists.csv"
    (tmp_path / "users.csv").write_text("user\n10\n99999\n")
    words = f"-m cflightning_serve batch {bundle} --users {tmp_path / 'users.csv'} --out {out} --k 3 --no-exclude-seen"
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} {words} {closed}"], env=environment, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert out.read_text().startswith("user,rank,item,score\n10,1,")
    command = f"{sys.executable} -m cflightning_serve recommend {bundle} --user 99999 {closed}"
    done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, check=False)
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr


def test_an_answer_that_cannot_be_written_is_one_line(bundle, environment):
    command = f"{sys.executable} -m cflightning_serve recommend {bundle} --user 10 > /dev/full"
    done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, check=False)
    assert done.returncode == 1
    assert (
        one_line(done.stderr.decode()) == "cflightning_serve: the output cannot be written: No space left on device\n"
    )


def test_a_mark_before_standard_input_is_no_part_of_it(bundle, environment):
    done = process("score", bundle, "--pairs", "-", environment=environment, input=b"\xef\xbb\xbfuser,item\r\n10,0\r\n")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.splitlines()[1].split()[:2] == [b"10", b"0"]


def test_a_terminal_without_the_letters(string_bundle, environment):
    done = process(
        "recommend",
        string_bundle,
        "--user",
        "zoë",
        environment=environment | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
    )
    assert done.returncode == 0
    assert done.stdout.startswith(b"user zo?")


def test_a_reader_that_has_seen_enough(bundle, environment):
    end, start = os.pipe()
    os.close(end)
    with os.fdopen(start, "wb") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "cflightning_serve", "recommend", str(bundle), "--user", "30"],
            env=environment,
            stdout=closed,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, b"")
