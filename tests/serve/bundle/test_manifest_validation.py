"""Every reason to refuse a manifest, and its message."""

import hashlib
import json
import re

import pytest

from cflightning_serve import BundleError, Scorer

HUGE = 10**400


def refused(folder, match, **options):
    """Assert that a bundle is refused with a message of one short line; return the message."""
    with pytest.raises(BundleError, match=match) as caught:
        Scorer.load(folder, **options)
    message = str(caught.value).replace(str(folder), "")
    assert isinstance(caught.value, ValueError)
    assert len(message) < 400 and message.isprintable(), message
    return message


def edit(bundles, folder, changes):
    """Change keys of the manifest, or remove those with the value ``...``, and update its digest."""
    raw = json.loads((folder / "manifest.json").read_text("utf-8"))
    bundles.seal(folder, {key: value for key, value in (raw | changes).items() if value is not ...})
    return folder


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"not JSON", b"\xff\xfe{", b'{"a": NaN}', b'{"a": Infinity}', b"[" * 100_000],
    ids=["empty", "truncated", "words", "not UTF-8", "NaN", "Infinity", "deep"],
)
def test_a_file_that_is_not_json_is_refused(copy, text):
    (copy / "manifest.json").write_bytes(text)
    refused(copy, "manifest.json: must be UTF-8 JSON, is not: ")


@pytest.mark.parametrize(("text", "type_"), [("[]", "array"), ("1", "integer"), ("null", "null"), ("true", "boolean")])
def test_json_that_is_not_an_object_is_refused(copy, text, type_):
    (copy / "manifest.json").write_text(text)
    refused(copy, f"manifest.json: must be one JSON object, is of type {type_}")


def test_json_of_something_else_is_refused(copy):
    (copy / "manifest.json").write_text('{"name": "an npm package"}')
    refused(copy, '"format" must be "cflightning-bundle", is None; this is not the manifest of a bundle')


def test_a_newer_format_is_refused_before_other_keys_are_read(copy):
    raw = {"format": "cflightning-bundle", "format_version": 3, "written_by": "cflightning 9.1"}
    (copy / "manifest.json").write_text(json.dumps(raw))
    message = refused(copy, "format 3, written by cflightning 9.1, is newer than this reader")
    assert "formats up to 2; upgrade cflightning-serve" in message


@pytest.mark.parametrize("version", [0, -1, "1", 1.0, True, None])
def test_an_invalid_version_is_refused(bundles, copy, version):
    edit(bundles, copy, {"format_version": version})
    refused(copy, '"format_version" must be an integer from 1')


def test_an_edited_manifest_is_refused(copy):
    path = copy / "manifest.json"
    path.write_text(path.read_text().replace("0.875", "0.675"))
    refused(copy, "its own sha256 differs from its contents: damaged or edited by hand")


@pytest.mark.parametrize("digest", [None, 1, "", "0" * 64])
def test_a_wrong_digest_of_the_manifest_is_refused(copy, digest):
    raw = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(raw | {"sha256": digest}))
    refused(copy, "sha256")


def test_unknown_keys_are_ignored(bundles, copy):
    graphs = json.loads((copy / "manifest.json").read_text("utf-8"))["graphs"]
    edit(bundles, copy, {"note": "später", "graphs": graphs | {"explain": "score.onnx"}})
    assert Scorer.load(copy).score(10, 0)


KEYS = "format_version written_by created model dim ids num_users num_items rating_range metrics graphs titles files"


@pytest.mark.parametrize("key", KEYS.split())
def test_a_missing_key_is_refused(bundles, copy, key):
    edit(bundles, copy, {key: ...})
    refused(copy, f'"{key}" must be ')


@pytest.mark.parametrize("key", KEYS.split())
def test_a_value_of_the_wrong_type_is_refused(bundles, copy, key):
    edit(bundles, copy, {key: True})
    message = refused(copy, f'"{key}" must be ')
    assert re.search(r"is (boolean|True)", message)


ENTRY = {"bytes": 1, "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"dim": -1}, '"dim" must be at least 0, is -1'),
        ({"num_users": 0}, '"num_users" must be at least 1, is 0'),
        ({"num_items": 1.0}, '"num_items" must be integer, is number'),
        ({"ids": {"user": "int64"}}, '"ids" -> "item" must be "int64" or "string", is None'),
        ({"ids": {"user": "int32", "item": "int64"}}, '"ids" -> "user" must be "int64" or "string", is \'int32\''),
        ({"ids": {"user": [], "item": "int64"}}, '"ids" -> "user" must be'),
        ({"rating_range": [1]}, '"rating_range" must be two float32 numbers'),
        ({"rating_range": [5, 1]}, '"rating_range" must be two float32 numbers, the lower one first'),
        ({"rating_range": ["1", "5"]}, '"rating_range" must be two float32 numbers'),
        ({"rating_range": [False, True]}, '"rating_range" must be two float32 numbers'),
        ({"rating_range": "1-5"}, '"rating_range" must be array or null, is string'),
        ({"metrics": {"test/rmse": "0.9"}}, '"metrics" -> "test/rmse" must be a number, is string'),
        ({"metrics": []}, '"metrics" must be object, is array'),
        ({"comparison": []}, '"comparison" must be object or null, is array'),
        ({"comparison": {"validation": 1}}, '"comparison" -> "validation" must be object, is integer'),
        (
            {"comparison": {"validation": {"ease": None}}},
            '"comparison" -> "validation" -> "ease" must be a number, is null',
        ),
        (
            {"comparison": {"validation": {"a\nb": 1}}},
            '"comparison" -> "validation" must be an object with names of one',
        ),
        ({"comparison": {"chosen": "a\nb"}}, '"comparison" -> "chosen" must be one line of at most 200 printable'),
        ({"comparison": {"chosen": None}}, '"comparison" -> "chosen" must be one line'),
        ({"comparison": {"test": []}}, '"comparison" -> "test" must be object, is array'),
        ({"comparison": {"test": {"a\nb": {}}}}, '"comparison" -> "test" must be an object with names of one line'),
        ({"comparison": {"test": {"ease": 0.5}}}, '"comparison" -> "test" -> "ease" must be object, is number'),
        (
            {"comparison": {"test": {"ease": {"ndcg@10": True}}}},
            '"comparison" -> "test" -> "ease" -> "ndcg@10" must be a number, is boolean',
        ),
        ({"graphs": {"score": "score.onnx", "similar": "similar.onnx"}}, '"graphs" -> "recommend" must be present'),
        (
            {"graphs": dict.fromkeys(("score", "recommend", "similar"), "gone.onnx")},
            'a file named in "files", is \'gone',
        ),
        ({"graphs": dict.fromkeys(("score", "recommend", "similar"), 1)}, 'must be a file named in "files", is 1'),
        (
            {"graphs": {graph: [] for graph in ("score", "recommend", "similar")}},
            'must be a file named in "files", is \\[\\]',
        ),
        ({"titles": "gone.json"}, '"titles" must be a file named in "files"'),
        ({"files": {"weights.bin": 3}}, '"files" -> "weights.bin" must be {"bytes": integer, "sha256": string}'),
        ({"files": {"weights.bin": {"bytes": "3", "sha256": ""}}}, '"files" -> "weights.bin" must be'),
        ({"files": {"weights.bin": {"bytes": 3}}}, '"files" -> "weights.bin" must be'),
        *(
            ({"files": {name: ENTRY}}, "must be a plain file name inside the folder")
            for name in ("../weights.bin", "/etc/passwd", "a/b", "a\\b", "C:weights.bin", "..", ".", "", "a\0b")
        ),
    ],
)
def test_an_invalid_value_is_refused(bundles, copy, change, match):
    edit(bundles, copy, change)
    refused(copy, match, verify=False)


@pytest.mark.parametrize(
    "limits",
    [[1, HUGE], [-HUGE, HUGE], [1, 1e39], [-3e38, 3e38], [0, 2**200], [HUGE, HUGE]],
    ids=["beyond", "both", "float64", "difference", "integer", "equal"],
)
def test_rating_ranges_beyond_float32_are_refused(bundles, copy, limits):
    edit(bundles, copy, {"rating_range": limits})
    refused(copy, '"rating_range" must be two float32 numbers, the lower one first')


@pytest.mark.parametrize("key", ["rating_range", "metrics", "reference", "comparison"])
def test_numbers_beyond_float64_are_refused(bundles, copy, key):
    """1e999 is valid JSON, and is parsed as infinity."""
    valid = {
        "rating_range": [1, 777.25],
        "metrics": {"test/rmse": 777.25},
        "reference": {"score": {"edges": [1, 777.25], "shares": [0.2, 0.3, 0.5], "k": 1}},
        "comparison": {"test": {"ease": {"novelty@10": 777.25}}},
    }[key]
    edit(bundles, copy, {key: valid})
    Scorer.load(copy)
    path = copy / "manifest.json"
    for number in ("1e999", "-1e999", str(HUGE)):
        raw = json.loads(path.read_text("utf-8").replace("777.25", number))
        rest = {name: value for name, value in raw.items() if name != "sha256"}
        text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        text = text[:-1] + f',"sha256":"{hashlib.sha256(text.encode()).hexdigest()}"}}'
        path.write_text(text.replace("Infinity", "1e999"), "utf-8")
        refused(copy, f'"{key}"')
        edit(bundles, copy, {key: valid})


@pytest.mark.parametrize("value", [HUGE, 2**63, -HUGE])
@pytest.mark.parametrize("key", ["dim", "num_users", "num_items"])
def test_counts_beyond_64_bits_are_refused(bundles, copy, key, value):
    edit(bundles, copy, {key: value})
    refused(copy, f'"{key}" must be at (least|most)')


@pytest.mark.parametrize("value", [HUGE, -1])
def test_invalid_lengths_of_files_are_refused(bundles, copy, value):
    files = json.loads((copy / "manifest.json").read_text("utf-8"))["files"]
    edit(bundles, copy, {"files": files | {"weights.bin": {"bytes": value, "sha256": "0" * 64}}})
    refused(copy, '"files" -> "weights.bin" must be')


@pytest.mark.parametrize("text", ["2025-01-01\n12:00 ERROR forged", "\x1b[31m", "x" * 201, "\u2028", "a\0b", "\u202e"])
@pytest.mark.parametrize("key", ["created", "written_by", "model"])
def test_texts_that_could_forge_log_lines_are_refused(bundles, copy, key, text):
    edit(bundles, copy, {key: text})
    refused(copy, f'"{key}" must be one line of at most 200 printable characters')


def test_names_that_could_forge_log_lines_are_refused(bundles, copy):
    raw = json.loads((copy / "manifest.json").read_text("utf-8"))
    edit(bundles, copy, {"files": raw["files"] | {"a\nERROR b": {"bytes": 1, "sha256": "0" * 64}}})
    refused(copy, '"files" -> .* must be a plain file name')
    edit(bundles, copy, {"files": raw["files"], "metrics": {"a\nb": 1.0}})
    refused(copy, '"metrics" must be an object with names of one line')
    edit(bundles, copy, {"metrics": {}, "graphs": raw["graphs"] | {"a\nb": "gone"}})
    refused(copy, '"graphs" -> .* must be a file named in "files"')
    edit(bundles, copy, {"graphs": raw["graphs"], "format_version": HUGE, "written_by": "me\nERROR forged"})
    refused(copy, "written by an unnamed program, is newer than this reader")


def test_units_of_each_kind_of_bundle(scorer, choice_scorer, mixed_scorer):
    manifests = [case.manifest for case in (scorer, choice_scorer, mixed_scorer)]
    assert [(manifest.format_version, *manifest.units.items()) for manifest in manifests] == [
        (1, ("score", "rating"), ("recommend", "rating")),
        (2, ("score", "choice"), ("recommend", "choice")),
        (2, ("score", "rating"), ("recommend", "choice")),
    ]
    assert choice_scorer.manifest.rating_range is None
    assert mixed_scorer.manifest.rating_range == (0.5, 5.0)


@pytest.mark.parametrize(
    ("units", "match"),
    [
        (..., '"units" must be present, is missing'),
        (None, '"units" must be object, is null'),
        ("rating", '"units" must be object, is string'),
        (["rating", "choice"], '"units" must be object, is array'),
        ({}, '"units" -> "score" must be "rating" or "choice", is None'),
        ({"score": "rating"}, '"units" -> "recommend" must be "rating" or "choice", is None'),
        ({"score": "stars", "recommend": "choice"}, '"units" -> "score" must be "rating" or "choice", is \'stars\''),
        ({"score": "rating", "recommend": ["choice"]}, '"units" -> "recommend" must be .*, is .*choice'),
        ({"score": "rating", "recommend": 1}, '"units" -> "recommend" must be "rating" or "choice", is 1'),
        ({"score": True, "recommend": "choice"}, '"units" -> "score" must be "rating" or "choice", is True'),
    ],
)
def test_invalid_units_are_refused(bundles, mixed_tables, tmp_path, units, match):
    folder = edit(bundles, bundles.write_bundle(tmp_path / "bundle", mixed_tables), {"units": units})
    with pytest.raises(BundleError, match=match):
        Scorer.load(folder)


def test_units_of_other_questions_are_ignored(bundles, mixed_tables, tmp_path):
    folder = bundles.write_bundle(tmp_path / "bundle", mixed_tables)
    edit(bundles, folder, {"units": mixed_tables.units | {"explain": "words"}})
    assert Scorer.load(folder).manifest.units == mixed_tables.units


def test_format_1_has_no_units(bundles, copy):
    assert Scorer.load(edit(bundles, copy, {"units": {"recommend": "choice"}})).manifest.units["recommend"] == "rating"


def test_format_2_can_have_ratings_only(bundles, copy, tables):
    edit(bundles, copy, {"format_version": 2, "units": {"score": "rating", "recommend": "rating"}})
    assert Scorer.load(copy).recommend(10, 3).items.tolist() == tables.recommend(10, 3)
