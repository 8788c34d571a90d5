"""Fixtures of the tests of graphs."""

import numpy as np
import pytest

from cflightning_export.fold_in.prior import estimate_prior
from cflightning_export.fold_in.spec import new_users

from ..fold_in_data import ITEMS, SCALES, item_ids, make_svdpp_terms, make_tables


@pytest.fixture(params=[*SCALES, "sigmoid, svdpp", "identity, svdpp"])
def spec(request):
    """Fold-in of new users from ratings, for each link, and with an SVD++ term."""
    name, _, with_svdpp = request.param.partition(", ")
    tables = make_tables()
    terms = make_svdpp_terms() if with_svdpp else None
    prior = estimate_prior(tables, "user", SCALES[name], np.full(ITEMS, 30), terms)
    return new_users(tables, item_ids(strings="range" in name), SCALES[name], prior)
