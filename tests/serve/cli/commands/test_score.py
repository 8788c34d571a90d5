"""The command ``score``."""

import io
import json
import subprocess
import sys

import pytest


def test_scores_are_printed_as_a_table(run, bundle, scorer, one_line):
    code, out, err = run("score", bundle, "--user", 30, "--item", 0, 3, 12345)
    assert code == 0
    header, *rows = [line.split() for line in out.splitlines()]
    assert header == ["user", "item", "score", "user", "known", "item", "known", "title"]
    assert rows[0] == ["30", "0", f"{scorer.score(30, 0):.3f}", "yes", "yes", "Film", "1", "(1901)"]
    assert rows[2][:5] == ["30", "12345", f"{scorer.score(30, 12345):.3f}", "yes", "no"]
    assert one_line(err) == "cflightning_serve: item 12345 is unknown: scored as the average item\n"


def test_scores_are_printed_as_json(run, bundle, scorer):
    _, out, _ = run("score", bundle, "--user", 30, "--item", 0, 3, "--json")
    pairs = json.loads(out)["pairs"]
    assert [pair["score"] for pair in pairs] == pytest.approx(scorer.score(30, [0, 3]), rel=1e-7)
    assert list(pairs[0]) == ["user", "item", "score", "user_known", "item_known", "title"]
    assert len(str(pairs[0]["score"])) <= 11  # as many digits as a float32 has


def test_pairs_are_read_from_a_file(run, bundle, scorer, tmp_path):
    file = tmp_path / "pairs.csv"
    file.write_text('item,rating,user\n0,5,10\n"3",4,20\n\n6,,99\n', encoding="utf-8-sig")
    code, out, err = run("score", bundle, "--pairs", file, "--json")
    assert (code, err) == (0, "")
    pairs = json.loads(out)["pairs"]
    assert [(pair["user"], pair["item"], pair["user_known"]) for pair in pairs] == [(10, 0, 1), (20, 3, 1), (99, 6, 0)]
    assert [pair["score"] for pair in pairs] == pytest.approx(scorer.score([10, 20, 99], [0, 3, 6]))


def test_pairs_are_read_from_standard_input(run, bundle, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("user,item\n10,0\n"))
    code, out, _ = run("score", bundle, "--pairs", "-")
    assert code == 0
    assert out.splitlines()[1].split()[:2] == ["10", "0"]


def test_a_file_without_pairs(run, bundle, tmp_path):
    (tmp_path / "none.csv").write_text("user,item\n")
    code, out, err = run("score", bundle, "--pairs", tmp_path / "none.csv")
    assert (code, err) == (0, "")
    assert out.split() == ["user", "item", "score", "user", "known", "item", "known", "title"]
    assert json.loads(run("score", bundle, "--pairs", tmp_path / "none.csv", "--json")[1]) == {
        "unit": "rating",
        "pairs": [],
    }


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
def test_an_invalid_file_of_pairs_is_refused(run, bundle, tmp_path, text, match, one_line):
    (tmp_path / "pairs.csv").write_bytes(text)
    code, _, err = run("score", bundle, "--pairs", tmp_path / "pairs.csv")
    assert code == 2
    assert match in one_line(err)


def test_a_byte_order_mark_in_standard_input_is_ignored(bundle, environment):
    command = [sys.executable, "-m", "cflightning_serve", "score", str(bundle), "--pairs", "-"]
    done = subprocess.run(
        command, input=b"\xef\xbb\xbfuser,item\r\n10,0\r\n", env=environment, capture_output=True, check=True
    )
    assert done.stderr == b""
    assert done.stdout.splitlines()[1].split()[:2] == [b"10", b"0"]


def test_columns_of_scores_are_named_by_their_unit(run, bundle, mixed_bundle, choice_bundle):
    headings = {}
    for folder in (bundle, mixed_bundle, choice_bundle):
        _, scores, score_notes = run("score", folder, "--user", 30, "--item", 0)
        _, recommendations, notes = run("recommend", folder, "--user", 30)
        headings[folder.name] = scores.split()[2], recommendations.splitlines()[1].split()[2]
        assert notes == ""
        assert ("no unit" in score_notes) == (folder == choice_bundle)
    assert headings == {"int": ("score", "score"), "mixed": ("score", "choice"), "choice": ("choice", "choice")}


def test_json_has_the_unit_and_the_same_keys(run, mixed_bundle):
    scores = json.loads(run("score", mixed_bundle, "--user", 30, "--item", 0, "--json")[1])
    assert scores["unit"] == "rating"
    assert "score" in scores["pairs"][0]
    recommendations = json.loads(run("recommend", mixed_bundle, "--user", 30, "--json")[1])
    assert recommendations["unit"] == "choice"
    assert list(recommendations["users"][0]["items"][0]) == ["item", "score", "title"]


def test_notes_on_unknown_ids_depend_on_the_unit(run, mixed_bundle, choice_bundle):
    note = "user 99999 is unknown: the items with the highest mean scores are recommended\n"
    assert run("recommend", mixed_bundle, "--user", 99_999)[2].endswith(note)
    assert "unknown: scored as the average item" in run("score", mixed_bundle, "--user", 30, "--item", 99_999)[2]
    assert "unknown: the score has no meaning" in run("score", choice_bundle, "--user", 30, "--item", 99_999)[2]
