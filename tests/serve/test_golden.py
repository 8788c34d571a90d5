"""Bundles of every format version load and give the expected results."""

import json
from pathlib import Path

import numpy as np
import pytest

from cflightning_serve import Scorer
from cflightning_serve.bundle.manifest_validation import FORMAT_VERSION

GOLDEN = Path(__file__).parent / "golden"


def test_every_format_has_a_golden_bundle():
    assert [folder.name for folder in sorted(GOLDEN.iterdir())] == [f"v{n + 1}" for n in range(FORMAT_VERSION)]


@pytest.fixture(params=sorted(GOLDEN.iterdir()), ids=lambda folder: folder.name)
def golden(request):
    return Scorer.load(request.param / "bundle"), json.loads((request.param / "expected.json").read_text("utf-8"))


def test_results_are_as_expected(golden):
    scorer, expected = golden
    users, items, scores = zip(*expected["score"], strict=True)
    np.testing.assert_allclose(scorer.score(users, items), scores, rtol=0, atol=2e-5)
    for user, items in expected["recommend"]:
        assert scorer.recommend(user, 5).items.tolist() == items
    assert scorer.manifest.units == expected.get("units", {"score": "rating", "recommend": "rating"})
    for user, scores in expected.get("choices", []):
        np.testing.assert_allclose(scorer.recommend(user, 5).scores, scores, rtol=0, atol=2e-5)
    for user, items in expected["recommend without 661 and 3"]:
        assert scorer.recommend(user, 5, exclude=[661, 3]).items.tolist() == items
    for item, items in expected["similar"]:
        assert scorer.similar_items(item, 3).items.tolist() == items
    assert scorer.titles([1, 2, 3, 50, 661, 1193, 2858]) == expected["titles"]
    assert scorer.knows_user([7, 42, 1001, 2**40, 5]).tolist() == [True] * 4 + [False]


@pytest.mark.parametrize("version", range(1, FORMAT_VERSION + 1))
def test_the_bundle_is_small(version):
    assert sum(path.stat().st_size for path in (GOLDEN / f"v{version}").rglob("*")) < 40_000


@pytest.mark.parametrize("version", range(1, FORMAT_VERSION + 1))
def test_the_script_writes_the_same_bundle(make_golden, bundles, tmp_path, version):
    made = make_golden.make(tmp_path / "again", bundles, version)
    for name in ("expected.json", "bundle/weights.bin", "bundle/titles.json"):
        assert (made / name).read_bytes() == (GOLDEN / f"v{version}" / name).read_bytes(), name
