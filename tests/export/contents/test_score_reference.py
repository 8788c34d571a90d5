"""The distribution of scores in the manifest is that of the bundle's answers."""

import json
from itertools import pairwise

import numpy as np
import pytest

from cflightning_export.contents.score_reference import deciles
from cflightning_serve import Scorer


def shares(edges, scores):
    """Shares of the bins (-inf, e1], (e1, e2], ..., counted one by one."""
    bounds = [-np.inf, *edges, np.inf]
    return [np.mean([low < one <= high for one in scores]) for low, high in pairwise(bounds)]


def test_deciles_of_known_numbers():
    found = deciles(np.arange(100, dtype=np.float32))
    assert found == {"edges": [9, 19, 29, 39, 49, 59, 69, 79, 89], "shares": [0.1] * 10}


@pytest.mark.parametrize("scores", [[5.0], [5.0] * 50, [1.0, 2.0], [1.0] * 90 + [2.0] * 10])
def test_equal_scores_share_a_bin(scores):
    found = deciles(np.array(scores, np.float32))
    assert found["edges"] == sorted(set(found["edges"]))
    assert found["shares"] == pytest.approx(shares(found["edges"], scores))


@pytest.mark.slow
def test_the_manifest_has_the_distribution_of_the_answers(bundle):
    said = json.loads((bundle / "manifest.json").read_text("utf-8"))["reference"]
    scorer = Scorer.load(bundle)
    users = [one for one in range(1, 200) if scorer.knows_user(one)]
    lists = [scorer.recommend(user, 10) for user in users]
    items = scorer.recommend(users[0], 1000).items
    edges = said["recommend"]["edges"]
    # Every user gets recommendations, so their distribution is exact, except for the score of an edge: alone and in a
    # batch it may differ in its last bit, and so fall on either side.
    scores = np.concatenate([top.scores for top in lists])
    assert said["recommend"]["shares"] == pytest.approx(shares(edges, scores), abs=1.5 / len(scores))
    assert said["recommend"]["k"] == 10
    every = np.concatenate([scorer.score(user, items) for user in users])
    assert said["score"]["shares"] == pytest.approx(shares(said["score"]["edges"], every), abs=0.03)
    assert said["score"]["k"] == 1
    assert scorer.manifest.reference["recommend"].edges == tuple(edges)
