"""The graphs run without the package, as specified in ``serve/BUNDLE.md``."""

import numpy as np
import onnxruntime as ort
import pytest


@pytest.fixture(params=["bundle", "string_bundle"])
def bare(request):
    folder = request.getfixturevalue(request.param)
    tables = request.getfixturevalue("tables" if request.param == "bundle" else "string_tables")

    def run(graph, **feeds):
        session = ort.InferenceSession(folder / f"{graph}.onnx", providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, feeds), strict=True))

    return run, tables


def test_the_graph_score(bare):
    run, tables = bare
    unknown = tables.user_ids[:1] * 2  # twice an id: unknown as an item or as a user
    users = np.concatenate([tables.user_ids, unknown])
    items = np.concatenate([tables.item_ids[: len(tables.user_ids)], unknown])
    outputs = run("score", user=users, item=items)
    np.testing.assert_allclose(outputs["score"], tables.score(users, items), atol=1e-5)
    assert outputs["known"].tolist() == [
        [user in tables.user_ids, item in tables.item_ids] for user, item in zip(users, items, strict=True)
    ]
    nothing = run("score", user=users[:0], item=items[:0])
    assert nothing["score"].shape == (0,)
    assert nothing["known"].shape == (0, 2)


def test_the_graph_recommend(bare):
    run, tables = bare
    users = tables.user_ids[:3]
    outputs = run(
        "recommend",
        user=users,
        k=np.array([100]),
        exclude_user=np.array([0, 2, 2, 2]),
        exclude_item=tables.item_ids[[1, 0, 5, 5]],
    )
    assert outputs["item"].shape == outputs["score"].shape == (3, len(tables.item_ids))
    assert outputs["known"].tolist() == [True] * 3
    for n, out in enumerate([tables.item_ids[[1]], [], tables.item_ids[[0, 5]]]):
        kept = outputs["score"][n] > -np.inf
        assert outputs["item"][n][kept].tolist() == tables.recommend(users[n], 100, list(out))
        np.testing.assert_allclose(
            outputs["score"][n][kept], tables.score([users[n]] * kept.sum(), outputs["item"][n][kept]), atol=1e-5
        )


def test_the_graph_similar(bare):
    run, tables = bare
    outputs = run("similar", item=tables.item_ids[:2], k=np.array([100]))
    assert outputs["similar"].shape == (2, len(tables.item_ids))
    assert outputs["similar"][:, -1].tolist() == tables.item_ids[:2].tolist()  # the item itself comes last
    assert (outputs["similarity"][:, -1] == -np.inf).all()
    assert outputs["known"].tolist() == [True, True]
