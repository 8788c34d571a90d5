"""What a bundle may say and hold, wherever it was sealed: finite numbers and plain texts, or one message."""

import hashlib
import json

import numpy as np
import pytest

from cflightning_serve import BundleError, Scorer
from cflightning_serve.bundle.sessions import has_nan, may_be_infinite

HUGE = 10**400


def edit(bundles, folder, **changes):
    raw = json.loads((folder / "manifest.json").read_text("utf-8"))
    bundles.seal(folder, raw | changes)


def refused(folder, match, **how):
    with pytest.raises(BundleError, match=match) as caught:
        Scorer.load(folder, eager=True, **how)
    said = str(caught.value).replace(str(folder), "")
    assert len(said) < 400 and said.isprintable(), said
    return said


@pytest.mark.parametrize(
    "limits",
    [[1, HUGE], [-HUGE, HUGE], [1, 1e39], [-3e38, 3e38], [0, 2**200], [HUGE, HUGE]],
    ids=["beyond", "both", "float64", "difference", "integer", "equal"],
)
def test_rating_ranges_that_float32_does_not_hold(bundles, copy, limits):
    edit(bundles, copy, rating_range=limits)
    refused(copy, '"rating_range" must be two float32 numbers, the lower one first')


@pytest.mark.parametrize("key", ["rating_range", "metrics", "reference"])
def test_numbers_that_json_allows_and_floats_do_not(bundles, copy, key):
    """1e999 is JSON, and infinite once it is read."""
    value = {
        "rating_range": [1, 777.25],
        "metrics": {"test/rmse": 777.25},
        "reference": {"score": {"edges": [1, 777.25], "shares": [0.2, 0.3, 0.5], "k": 1}},
    }[key]
    edit(bundles, copy, **{key: value})
    Scorer.load(copy)
    path = copy / "manifest.json"
    for number in ("1e999", "-1e999", str(HUGE)):
        raw = json.loads(path.read_text("utf-8").replace("777.25", number))
        rest = {name: one for name, one in raw.items() if name != "sha256"}
        text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        text = text[:-1] + f',"sha256":"{hashlib.sha256(text.encode()).hexdigest()}"}}'
        path.write_text(text.replace("Infinity", "1e999"), "utf-8")
        refused(copy, f'"{key}"')
        edit(bundles, copy, **{key: value})


@pytest.mark.parametrize("value", [HUGE, 2**63, -HUGE])
@pytest.mark.parametrize("key", ["dim", "num_users", "num_items"])
def test_counts_that_64_bits_do_not_hold(bundles, copy, key, value):
    edit(bundles, copy, **{key: value})
    refused(copy, f'"{key}" must be at (least|most)')


@pytest.mark.parametrize("value", [HUGE, -1])
def test_lengths_of_files_that_are_none(bundles, copy, value):
    files = json.loads((copy / "manifest.json").read_text("utf-8"))["files"]
    edit(bundles, copy, files=files | {"weights.bin": {"bytes": value, "sha256": "0" * 64}})
    refused(copy, '"files" -> "weights.bin" must be')


@pytest.mark.parametrize("text", ["2025-01-01\n12:00 ERROR forged", "\x1b[31m", "x" * 201, "\u2028", "a\0b", "\u202e"])
@pytest.mark.parametrize("key", ["created", "written_by", "model"])
def test_texts_that_would_forge_a_log(bundles, copy, key, text):
    edit(bundles, copy, **{key: text})
    refused(copy, f'"{key}" must be one line of at most 200 printable characters')


def test_names_that_would_forge_a_log(bundles, copy):
    raw = json.loads((copy / "manifest.json").read_text("utf-8"))
    edit(bundles, copy, files=raw["files"] | {"a\nERROR b": {"bytes": 1, "sha256": "0" * 64}})
    refused(copy, '"files" -> .* must be a plain file name')
    edit(bundles, copy, files=raw["files"], metrics={"a\nb": 1.0})
    refused(copy, '"metrics" must be an object with names of one line')
    edit(bundles, copy, metrics={}, graphs=raw["graphs"] | {"a\nb": "gone"})
    refused(copy, '"graphs" -> .* must be a file named in "files"')
    edit(bundles, copy, graphs=raw["graphs"], format_version=HUGE, written_by="me\nERROR forged")
    refused(copy, "written by an unnamed program, is newer than this reader")


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize("text", ['{"0": "\\ud800"}', '{"\\udc00": "a"}'])
def test_titles_that_are_no_unicode(bundles, copy, text, eager):
    (copy / "titles.json").write_text(text)
    bundles.reseal(copy)
    with pytest.raises(BundleError, match=r"titles.json: must be UTF-8 JSON, is not: .*surrogates not allowed"):
        Scorer.load(copy, eager=eager).title(0)


def test_titles_with_escapes_of_whole_characters_are_read(bundles, copy):
    (copy / "titles.json").write_text('{"0": "\\ud83d\\ude00 \\u00e9"}')
    bundles.reseal(copy)
    assert Scorer.load(copy).title(0) == "\U0001f600 é"


def spoil(folder, bundles, number):
    """Put a number into every table."""
    path = folder / "weights.bin"
    table = np.frombuffer(path.read_bytes(), "<f4").copy()
    table[table != 0] = number
    path.write_bytes(table.tobytes())
    bundles.reseal(folder)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("choices", [False, True])
def test_vectors_that_are_not_finite_are_refused_or_every_answer_is_finite(bundles, tmp_path, number, choices):
    folder = bundles.write_bundle(tmp_path / "spoilt", bundles.make_rich(bundles.make_tables(choices=choices)))
    spoil(folder, bundles, number)
    if np.isnan(number):
        refused(folder, "weights.bin: tables must not contain NaN, .* does")
    scorer = Scorer.load(folder, verify=False)  # as if the tables were finite, and sums were not
    answered = 0
    for ask in (
        lambda: scorer.score([10, 20, 5], [0, 3, 0]),
        lambda: scorer.recommend(10).scores,
        lambda: scorer.recommend(10, diversity=0.5).scores,
        lambda: scorer.recommend(10, categories="Drama").scores,
        lambda: scorer.similar_items(0).scores,
        lambda: scorer.lists([10, 20], 3).scores,
        lambda: scorer.factors([0, 3]),
    ):
        try:
            answer = ask()
        except BundleError as error:
            assert "must be finite numbers" in str(error)  # noqa: PT017  # or the answer is finite
        else:
            assert np.isfinite(answer).all()
            answered += 1
    assert answered < 7


@pytest.mark.parametrize("size", [1, 10, 999, 1000, 1001, 5000])
def test_no_number_that_is_not_finite_is_overlooked(size):
    rng = np.random.default_rng(size)
    plain = (rng.normal(size=size) * 10.0 ** rng.integers(-20, 16, size)).astype(np.float32)
    assert not may_be_infinite(plain) and not may_be_infinite(np.zeros(size, np.float32))
    for bits in (0x7F800000, 0xFF800000, 0x7F800001, 0x7FC00000, 0xFFFFFFFF, 0x7FFFFFFF, 0xFFC00000):
        for place in {0, size // 2, size - 1}:
            spoilt = plain.copy()
            spoilt.view(np.uint32)[place] = bits
            assert may_be_infinite(spoilt) and may_be_infinite(spoilt.reshape(1, size, 1))


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_tables_with_nan_are_told_from_tables_with_infinity(kind):
    table = np.array([0, 1, -1, np.inf, -np.inf, np.finfo(kind).max, np.finfo(kind).tiny], kind)
    assert not has_nan(table) and not has_nan(table[:0])
    for sign in (1, -1):
        assert has_nan(np.append(table, kind(sign * np.nan)))
