"""Verification of the graphs that fold in and explain."""

import numpy as np
import onnx
import pytest

from cflightning.data.ids import Ids
from cflightning.data.vocabulary import Vocabulary
from cflightning.errors import ExportError
from cflightning_export.contents.networks import BundleNetworks
from cflightning_export.fold_in.plan import FoldInSpecs
from cflightning_export.fold_in.prior import estimate_prior
from cflightning_export.fold_in.spec import new_users
from cflightning_export.graphs import explain, fold_in, fold_in_implicit
from cflightning_export.graphs.base import BundleSource

from ..fold_in_data import SCALES, USERS, implicit_spec, item_ids, make_svdpp_terms, make_tables

SIGMOID = SCALES["sigmoid"]


def test_fold_in_and_explain_of_other_weights_fail_the_verification(tmp_path):
    tables = make_tables()
    prior = estimate_prior(tables, "user", SIGMOID, None, make_svdpp_terms())
    users = new_users(tables, item_ids(), SIGMOID, prior)
    vocabulary = Vocabulary(Ids(np.arange(USERS)), item_ids())
    networks = BundleNetworks(None, None, {})  # not needed
    source = BundleSource(networks, vocabulary, fold_in=FoldInSpecs(users, None, implicit_spec(), tables))
    families = {"fold_in": fold_in, "fold_in_choice": fold_in_implicit, "explain": explain}
    models = {name: dict(module.build(source))[name] for name, module in families.items()}
    for name, model in models.items():
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, tmp_path / f"{name}.onnx")
    for name, model in models.items():
        families[name].verify(tmp_path, source)
        for tensor in model.graph.initializer:
            if tensor.name == "vectors":
                values = onnx.numpy_helper.to_array(tensor)[::-1].copy()
                tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        onnx.save(model, tmp_path / f"{name}.onnx")
        with pytest.raises(ExportError, match=rf"{name}.onnx"):
            families[name].verify(tmp_path, source)
