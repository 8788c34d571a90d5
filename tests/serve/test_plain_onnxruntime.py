"""The graphs answer without the package, as ``serve/BUNDLE.md`` specifies."""

import numpy as np
import onnxruntime as ort
import pytest


@pytest.fixture(params=["bundle", "string_bundle"])
def bare(request):
    folder = request.getfixturevalue(request.param)
    tables = request.getfixturevalue("tables" if request.param == "bundle" else "string_tables")

    def ask(graph, **feeds):
        session = ort.InferenceSession(folder / f"{graph}.onnx", providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, feeds), strict=True))

    return ask, tables


def test_bare_score(bare):
    ask, tables = bare
    stranger = tables.user_ids[:1] * 2  # an id twice over: 20 -> unknown as an item, "000000" unknown as a user
    users = np.concatenate([tables.user_ids, stranger])
    items = np.concatenate([tables.item_ids[: len(tables.user_ids)], stranger])
    answer = ask("score", user=users, item=items)
    np.testing.assert_allclose(answer["score"], tables.score(users, items), atol=1e-5)
    assert answer["known"].tolist() == [
        [user in tables.user_ids, item in tables.item_ids] for user, item in zip(users, items, strict=True)
    ]
    nothing = ask("score", user=users[:0], item=items[:0])
    assert nothing["score"].shape == (0,)
    assert nothing["known"].shape == (0, 2)


def test_bare_recommend(bare):
    ask, tables = bare
    users = tables.user_ids[:3]
    answer = ask(
        "recommend",
        user=users,
        k=np.array([100]),
        exclude_user=np.array([0, 2, 2, 2]),
        exclude_item=tables.item_ids[[1, 0, 5, 5]],
    )
    assert answer["item"].shape == answer["score"].shape == (3, len(tables.item_ids))
    assert answer["known"].tolist() == [True] * 3
    for n, out in enumerate([tables.item_ids[[1]], [], tables.item_ids[[0, 5]]]):
        kept = answer["score"][n] > -np.inf
        assert answer["item"][n][kept].tolist() == tables.recommend(users[n], 100, list(out))
        np.testing.assert_allclose(
            answer["score"][n][kept], tables.score([users[n]] * kept.sum(), answer["item"][n][kept]), atol=1e-5
        )


def test_bare_similar(bare):
    ask, tables = bare
    answer = ask("similar", item=tables.item_ids[:2], k=np.array([100]))
    assert answer["similar"].shape == (2, len(tables.item_ids))
    assert answer["similar"][:, -1].tolist() == tables.item_ids[:2].tolist()  # the item itself comes last
    assert (answer["similarity"][:, -1] == -np.inf).all()
    assert answer["known"].tolist() == [True, True]
