"""NaN, infinity and immense numbers in requests and responses are errors on every route."""

import dataclasses
import json
import math

import pytest

from cflightning_serve import BundleError, Scorer
from cflightning_serve.http.serving.state import ServerState
from cflightning_serve.http.settings import Settings

JSON = {"Content-Type": "application/json"}
IMMENSE = ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e400", "1e39", "1" + "0" * 400, "-1" + "0" * 30]


@pytest.fixture(scope="module")
def explaining(bundles, fold_in_graphs, tables, start, tmp_path_factory):
    """Client of a server of a bundle with catalogue, history, fold-in and explanations."""
    rich = bundles.make_rich(tables)
    folder = bundles.write_bundle(tmp_path_factory.mktemp("bundles") / "all", rich)
    fold_in_graphs.add(folder, rich, bundles)
    with start(ServerState(Settings(folder))) as client:
        yield client


def strict_json(response):
    """Parse a response; NaN and infinity, which are not JSON, fail the test."""
    return json.loads(response.text, parse_constant=lambda word: pytest.fail(f"{word} in {response.text[:200]}"))


@pytest.mark.parametrize("number", IMMENSE)
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/recommend", '{"user": %s}'),
        ("/recommend", '{"user": 10, "k": %s}'),
        ("/recommend", '{"user": 10, "diversity": %s}'),
        ("/recommend", '{"user": 10, "min_count": %s}'),
        ("/recommend", '{"user": 10, "exclude": [%s]}'),
        ("/recommend", '{"user": 10, "allow": [%s]}'),
        ("/score", '{"pairs": [[%s, 0]]}'),
        ("/score", '{"pairs": [[10, %s]]}'),
        ("/similar", '{"item": %s}'),
        ("/fold-in", '{"ratings": [[0, %s]]}'),
        ("/fold-in", '{"ratings": [[%s, 4]]}'),
        ("/explain", '{"item": 0, "ratings": [[3, %s]]}'),
        ("/explain", '{"item": %s, "user": 10}'),
        ("/v2/models/cflightning-fold_in/infer", "fold_in"),
    ],
)
def test_immense_numbers_in_requests(explaining, path, body, number):
    if body == "fold_in":
        inputs = [{"name": "item", "shape": [1], "datatype": "INT64", "data": [0]},
                  {"name": "rating", "shape": [1], "datatype": "FP32", "data": ["%s"]},
                  {"name": "k", "shape": [1], "datatype": "INT64", "data": [2]},
                  {"name": "exclude_item", "shape": [0], "datatype": "INT64", "data": []},
                  {"name": "score_item", "shape": [0], "datatype": "INT64", "data": []}]  # fmt: skip
        body = json.dumps({"inputs": inputs}).replace('"%s"', "%s")
    response = explaining.post(path, content=body % number, headers=JSON)
    assert response.status_code in (200, 400, 404, 422), response.text
    # Large integers may be ids or counts.
    assert "error" in strict_json(response) or number not in IMMENSE[:6], response.text
    assert len(response.text) < 1000


@pytest.fixture(scope="module")
def broken(bundles, tables, start, tmp_path_factory):
    """Client of a server of a bundle in which the vector of user 40 is immense, so that its scores are infinite."""
    vectors = tables.user_vectors.copy()
    vectors[4] = 3e38
    damaged = dataclasses.replace(tables, user_vectors=vectors, rating_range=None)
    folder = bundles.write_bundle(tmp_path_factory.mktemp("bundles") / "immense", damaged)
    with start(ServerState(Settings(folder), Scorer.load(folder))) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "question"),
    [
        ("/recommend", lambda user: {"user": user}),
        ("/score", lambda user: {"pairs": [[10, 0], [user, 0]]}),
        *(
            (
                "/v2/models/cflightning-score/infer",
                lambda user, binary=binary: {
                    "inputs": [
                        {"name": name, "shape": [1], "datatype": "INT64", "data": [one]}
                        for name, one in (("user", user), ("item", 0))
                    ],
                    "parameters": {"binary_data_output": binary},
                },
            )
            for binary in (False, True)
        ),
    ],
)
def test_infinite_scores_are_an_error(broken, path, question):
    assert broken.post(path, json=question(10)).status_code == 200
    response = broken.post(path, json=question(40))
    assert response.status_code == 422
    assert "not a finite number" in str(strict_json(response)["error"])


def test_explain_takes_one_user_for_many_items(explaining, tables):
    def tensor(name, *data, kind="INT64"):
        return {"name": name, "shape": [len(data)], "datatype": kind, "data": list(data)}

    rated = [int(item) for item in tables.item_ids[:3]]
    for users in ([], [10]):
        given = [tensor("item", *rated), tensor("rating", 5, 3, 4, kind="FP32")]
        inputs = [*given, tensor("target", int(tables.item_ids[5])), tensor("user", *users)]
        response = explaining.post("/v2/models/cflightning-explain/infer", json={"inputs": inputs})
        assert response.status_code == 200, response.text
        answer = {one["name"]: one["data"] for one in strict_json(response)["outputs"]}
        assert math.isclose(
            sum(answer["contribution"]) + answer["base"][0] + answer["rest"][0], answer["logit"][0], abs_tol=1e-4
        )


def test_the_table_of_an_explanation_is_limited(explaining):
    count = 10_000
    inputs = [{"name": name, "shape": [count], "datatype": kind, "data": [one] * count}
              for name, kind, one in (("item", "INT64", 0), ("rating", "FP32", 4), ("target", "INT64", 3))]  # fmt: skip
    inputs.append({"name": "user", "shape": [0], "datatype": "INT64", "data": []})
    response = explaining.post("/v2/models/cflightning-explain/infer", json={"inputs": inputs})
    assert response.status_code == 400 and "too many rows at once" in response.text


def test_an_output_named_twice_is_refused(explaining):
    inputs = [{"name": name, "shape": [1], "datatype": "INT64", "data": [10]} for name in ("user", "item")]
    outputs = [{"name": "score"}] * 200
    response = explaining.post("/v2/models/cflightning-score/infer", json={"inputs": inputs, "outputs": outputs})
    assert response.status_code == 400 and "once each" in response.text


def test_a_bundle_with_nan_is_refused_at_the_start(bundles, tmp_path):
    tables = bundles.make_rich(bundles.make_tables(titles=True))
    users, items = tables.user_vectors.copy(), tables.item_vectors.copy()
    users[1] = items[-1] = math.nan
    damaged = dataclasses.replace(tables, user_vectors=users, item_vectors=items)
    folder = bundles.write_bundle(tmp_path / "bundle", damaged)
    with pytest.raises(BundleError, match=r"weights\.bin: tables must not contain NaN"):
        ServerState(Settings(folder))


def test_nan_in_an_unverified_bundle_is_an_error_of_each_route(bundles, tmp_path, start, caplog):
    """The vector of one user is NaN, who is not the user of the first request after loading."""
    tables = bundles.make_rich(bundles.make_tables(titles=True))
    users = tables.user_vectors.copy()
    users[1] = math.nan
    folder = bundles.write_bundle(tmp_path / "bundle", dataclasses.replace(tables, user_vectors=users))
    user = int(tables.user_ids[0])
    infer = {
        "inputs": [
            {"name": "user", "shape": [1], "datatype": "INT64", "data": [user]},
            {"name": "k", "shape": [1], "datatype": "INT64", "data": [3]},
            {"name": "exclude_user", "shape": [0], "datatype": "INT64", "data": []},
            {"name": "exclude_item", "shape": [0], "datatype": "INT64", "data": []},
        ]
    }
    requests = [
        ("/recommend", {"user": user}, 422),
        ("/recommend", {"user": user, "diversity": 0.5, "categories": ["Drama"]}, 422),
        ("/recommend", {"user": int(tables.user_ids[1])}, 200),
        ("/score", {"pairs": [[user, 0], [20, 0]]}, 422),
        ("/similar", {"item": 0}, 200),
        ("/v2/models/cflightning/infer", infer, 422),
        ("/v2/models/cflightning-scores/infer", {"inputs": infer["inputs"][:1]}, 422),
    ]
    with start(ServerState(Settings(folder, verify=False))) as client:
        for path, body, status in requests:
            response = client.post(path, json=body)
            assert response.status_code == status, (path, response.text)
            assert strict_json(response)
        assert client.get("/metrics").status_code == 200
    assert not [record for record in caplog.records if record.exc_info]
    assert "must be finite numbers" in caplog.text
