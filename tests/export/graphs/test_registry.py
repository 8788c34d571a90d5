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
from cflightning_export.fold_in.spec import new_items, new_users
from cflightning_export.graphs import explain, fold_in, fold_in_autoencoder, fold_in_implicit
from cflightning_export.graphs.base import BundleSource

from ..fold_in_data import (
    DIM,
    SCALES,
    USERS,
    autoencoder_spec,
    implicit_spec,
    item_ids,
    make_svdpp_terms,
    make_tables,
)

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


def make_source(users=None, items=None, implicit=None):
    vocabulary = Vocabulary(Ids(np.arange(USERS)), item_ids())
    return BundleSource(
        BundleNetworks(None, None, {}), vocabulary, fold_in=FoldInSpecs(users, items, implicit, make_tables())
    )


def save(folder, models):
    for name, model in models:
        onnx.save(model, folder / f"{name}.onnx")
    return folder


def refuses(module, folder, source):
    with pytest.raises(ExportError, match="must agree with torch"):
        module.verify(folder, source)


def test_graphs_that_are_wrong_for_liked_ids_alone_fail_the_verification(tmp_path):
    tables = make_tables()
    priors = [estimate_prior(tables, side, SIGMOID) for side in ("user", "item")]
    users = new_users(tables, item_ids(), SIGMOID, priors[0])
    items = new_items(tables, Ids(np.arange(USERS)), SIGMOID, priors[1])
    for case in ({"users": users}, {"items": items}):
        modules = (fold_in, explain) if "users" in case else (fold_in,)
        wrong = {side: spec._replace(liked_level=0.5) for side, spec in case.items()}
        for module in modules:
            module.verify(save(tmp_path, module.build(make_source(**case))), make_source(**case))
            refuses(module, save(tmp_path, module.build(make_source(**wrong))), make_source(**case))


def test_graphs_that_are_wrong_for_weighted_items_alone_fail_the_verification(tmp_path):
    mean_user = np.linspace(-1, 1, DIM, dtype=np.float32)
    for fold_in_users, spec in (
        (fold_in_implicit, implicit_spec()),
        (fold_in_implicit, implicit_spec(length=1.7, unit=2.0, mean_user=mean_user)),
        (fold_in_autoencoder, autoencoder_spec(mean_user)),
    ):
        source = make_source(implicit=spec)
        for module in (fold_in_users, explain):
            module.verify(save(tmp_path, module.build(source)), source)
            for name, model in module.build(source):
                [isnan] = [node.output[0] for node in model.graph.node if node.op_type == "IsNaN"]
                [where] = [node for node in model.graph.node if node.op_type == "Where" and isnan in node.input]
                where.input[2] = where.input[1]  # every weight is 1
                refuses(module, save(tmp_path, [(name, model)]), source)


@pytest.mark.parametrize("table", ["encoder", "vectors", "mean_user"])
def test_graphs_of_a_linear_autoencoder_with_other_tables_fail_the_verification(tmp_path, table):
    source = make_source(implicit=autoencoder_spec(np.linspace(-1, 1, DIM, dtype=np.float32), user_bias=0.3))
    for module in (fold_in_autoencoder, explain):
        for name, model in module.build(source):
            onnx.checker.check_model(model, full_check=True)
            module.verify(save(tmp_path, [(name, model)]), source)
            if module is explain and table == "mean_user":
                continue  # the weights of the synthetic user sum to more than 1
            [tensor] = [tensor for tensor in model.graph.initializer if tensor.name == table]
            values = np.roll(onnx.numpy_helper.to_array(tensor), 1, axis=-1)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
            refuses(module, save(tmp_path, [(name, model)]), source)
