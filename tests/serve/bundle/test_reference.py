"""``manifest.reference``: read strictly, and not missed."""

import json

import pytest

from cflightning_serve import BundleError, Manifest
from cflightning_serve.bundle.reference import Reference

GOOD = {"edges": [1.5, 2, 3.25], "shares": [0.2, 0.3, 0.25, 0.25], "k": 10}


def written(bundles, folder, reference):
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    bundles.seal(folder, manifest | {"reference": reference})
    return Manifest.read(folder)


def test_what_it_says(bundles, copy):
    manifest = written(bundles, copy, {"score": GOOD | {"k": 1}, "recommend": GOOD, "later": 5})
    assert manifest.reference == {
        "score": Reference((1.5, 2.0, 3.25), (0.2, 0.3, 0.25, 0.25), 1),
        "recommend": Reference((1.5, 2.0, 3.25), (0.2, 0.3, 0.25, 0.25), 10),
    }
    assert written(bundles, copy, None).reference == {}
    assert written(bundles, copy, {}).reference == {}


def test_bundles_without_it(scorer):
    assert scorer.manifest.reference == {}


@pytest.mark.parametrize(
    "change",
    [{"edges": []}, {"edges": [1, 1, 2]}, {"edges": [2, 1, 3]}, {"edges": [1, 2]}, {"edges": [1, "2", 3]},
     {"edges": None}, {"edges": [True, 2, 3]}, {"shares": [0.2, 0.3, 0.25, 0.2]}, {"shares": [1.2, -0.2, 0, 0]},
     {"shares": {}}, {"k": 0}, {"k": 1.0}, {"k": None}, {"edges": [1, 2, 10**400]}],
)  # fmt: skip
def test_what_it_may_not_say(bundles, copy, change):
    with pytest.raises(BundleError, match='"reference" must be'):
        written(bundles, copy, {"recommend": GOOD | change})


@pytest.mark.parametrize("reference", [[], 5, "x", {"score": []}, {"score": None}])
def test_what_it_may_not_be(bundles, copy, reference):
    with pytest.raises(BundleError, match='"reference" must be'):
        written(bundles, copy, reference)
