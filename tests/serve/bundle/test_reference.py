"""Reference distributions in the manifest."""

import json

import pytest

from cflightning_serve import BundleError, Manifest
from cflightning_serve.bundle.reference import Reference

VALID = {"edges": [1.5, 2, 3.25], "shares": [0.2, 0.3, 0.25, 0.25], "k": 10}


def read_with(bundles, folder, reference):
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    bundles.seal(folder, manifest | {"reference": reference})
    return Manifest.read(folder)


def test_distributions_are_parsed(bundles, copy):
    manifest = read_with(bundles, copy, {"score": VALID | {"k": 1}, "recommend": VALID, "later": 5})
    assert manifest.reference == {
        "score": Reference((1.5, 2.0, 3.25), (0.2, 0.3, 0.25, 0.25), 1),
        "recommend": Reference((1.5, 2.0, 3.25), (0.2, 0.3, 0.25, 0.25), 10),
    }
    assert read_with(bundles, copy, None).reference == {}
    assert read_with(bundles, copy, {}).reference == {}


def test_older_bundles_have_none(scorer):
    assert scorer.manifest.reference == {}


@pytest.mark.parametrize(
    "change",
    [{"edges": []}, {"edges": [1, 1, 2]}, {"edges": [2, 1, 3]}, {"edges": [1, 2]}, {"edges": [1, "2", 3]},
     {"edges": None}, {"edges": [True, 2, 3]}, {"shares": [0.2, 0.3, 0.25, 0.2]}, {"shares": [1.2, -0.2, 0, 0]},
     {"shares": {}}, {"k": 0}, {"k": 1.0}, {"k": None}, {"edges": [1, 2, 10**400]}],
)  # fmt: skip
def test_an_invalid_distribution_is_refused(bundles, copy, change):
    with pytest.raises(BundleError, match='"reference" must be'):
        read_with(bundles, copy, {"recommend": VALID | change})


@pytest.mark.parametrize("reference", [[], 5, "x", {"score": []}, {"score": None}])
def test_a_value_of_another_type_is_refused(bundles, copy, reference):
    with pytest.raises(BundleError, match='"reference" must be'):
        read_with(bundles, copy, reference)
