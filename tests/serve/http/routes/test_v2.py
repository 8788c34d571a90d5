"""The Open Inference Protocol v2, as seen by a client of the protocol."""

import json
import struct

import numpy as np
import pytest

from cflightning_serve.http.errors import ApiError
from cflightning_serve.http.routes.v2_tensors import ELEMENT_TYPES, from_json
from cflightning_serve.http.serving.executor import INLINE_LIMIT, Executor
from cflightning_serve.http.serving.state import ServerState
from cflightning_serve.http.settings import Limits, Settings

DTYPES = {"INT64": "<i8", "FP32": "<f4", "BOOL": "?"}


def tensor(name, values, datatype="INT64"):
    return {"name": name, "shape": [len(values)], "datatype": datatype, "data": values}


def infer(client, model, inputs, status=200, **more):
    response = client.post(f"/v2/models/{model}/infer", json={"inputs": inputs, **more})
    assert response.status_code == status, response.text
    if status != 200:
        assert set(response.json()) == {"error"} and type(response.json()["error"]) is str
        return response.json()["error"]
    return {one["name"]: np.array(one["data"]).reshape(one["shape"]) for one in response.json()["outputs"]}


def recommend(users, k=3, rows=(), items=(), datatype="INT64"):
    """Inputs of the model that recommends; items[n] is excluded for the user at rows[n]."""
    return [tensor("user", users, datatype), tensor("k", [k]), tensor("exclude_user", list(rows)),
            tensor("exclude_item", list(items), datatype)]  # fmt: skip


def test_health_and_metadata(client, scorer):
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    version = scorer.manifest.sha256[:12]
    for model in ("cflightning", "cflightning-score", "cflightning-recommend", "cflightning-similar"):
        about = client.get(f"/v2/models/{model}").json()
        assert (about["name"], about["versions"]) == (model, [version])
        assert client.get(f"/v2/models/{model}/versions/{version}").json() == about
        assert client.get(f"/v2/models/{model}/ready").json() == {"name": model, "ready": True}
        assert client.get(f"/v2/models/{model}/versions/{version}/ready").status_code == 200
    score = client.get("/v2/models/cflightning-score").json()
    assert score["inputs"] == [{"name": name, "datatype": "INT64", "shape": [-1]} for name in ("user", "item")]
    assert score["outputs"] == [
        {"name": "score", "datatype": "FP32", "shape": [-1]}, {"name": "known", "datatype": "BOOL", "shape": [-1, 2]}
    ]  # fmt: skip


def test_string_ids_have_the_datatype_bytes(string_client, string_tables):
    inputs = string_client.get("/v2/models/cflightning").json()["inputs"]
    assert {one["name"]: one["datatype"] for one in inputs} == {
        "user": "BYTES", "k": "INT64", "exclude_user": "INT64", "exclude_item": "BYTES"
    }  # fmt: skip
    answer = infer(string_client, "cflightning", recommend(["zoë", "nobody"], datatype="BYTES"))
    assert answer["item"][0].tolist() == string_tables.recommend("zoë", 3)
    assert answer["known"].tolist() == [True, False]


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models/x",
        "/v2/models/cflightning-",
        "/v2/models/cflightning-fold_in/ready",
        "/v2/models/cflightning/versions/1",
        "/v2/models/cflightning/versions/1/ready",
        "/v2/x",
    ],
)
def test_unknown_models_and_versions_are_not_found(client, path):
    response = client.get(path)
    assert response.status_code == 404
    assert type(response.json()["error"]) is str
    assert client.post(f"{path}/infer", json={"inputs": []}).status_code == 404


def test_scores(client, tables):
    users, items = tables.user_ids[:4].tolist(), tables.item_ids[:4].tolist()
    answer = infer(client, "cflightning-score", [tensor("item", items), tensor("user", users)])
    np.testing.assert_allclose(answer["score"], tables.score(users, items), atol=1e-5)
    assert answer["known"].all() and answer["known"].shape == (4, 2)
    nothing = infer(client, "cflightning-score", [tensor("item", []), tensor("user", [])])
    assert nothing["score"].shape == (0,) and nothing["known"].shape == (0, 2)


def test_recommend_with_exclusions_and_fillers(client, tables):
    users, items = tables.user_ids[:2].tolist(), tables.item_ids.tolist()
    answer = infer(client, "cflightning-recommend", recommend(users, 100, [1] * 3, items[:3]))
    assert answer["item"].shape == (2, len(items))
    assert answer["item"][1].tolist()[:-3] == tables.recommend(users[1], 100, items[:3])
    lowest = float(np.finfo(np.float32).min)
    assert answer["score"][1].tolist()[-3:] == [lowest] * 3  # JSON has no infinity


def test_similar_items_by_version(client, tables, scorer):
    item = int(tables.item_ids[0])
    model = f"cflightning-similar/versions/{scorer.manifest.sha256[:12]}"
    answer = infer(client, model, [tensor("item", [item]), tensor("k", [1])])
    cosines = tables.cosines(item)
    cosines[0] = -1
    assert answer["similar"].item() == tables.item_ids[cosines.argmax()]


def test_requested_outputs_and_ids_are_returned(client):
    response = client.post(
        "/v2/models/cflightning/infer",
        json={"id": "é1", "inputs": recommend([10]), "outputs": [{"name": "known"}, {"name": "item"}],
              "parameters": {"whatever": 1}},
    ).json()  # fmt: skip
    assert response["id"] == "é1" and response["model_name"] == "cflightning"
    assert [one["name"] for one in response["outputs"]] == ["known", "item"]
    assert infer(client, "cflightning", recommend([10]), outputs=[]) == {}


def binary(client, model, arrays, **request):
    """Send every tensor behind the JSON, as Triton's client does."""
    inputs, tail = [], b""
    for name, values in arrays.items():
        if isinstance(values, np.ndarray):
            blob, datatype = values.astype("<i8").tobytes(), "INT64"
        else:
            blob, datatype = b"".join(struct.pack("<I", len(one)) + one for one in values), "BYTES"
        inputs.append({"name": name, "shape": [len(values)], "datatype": datatype,
                       "parameters": {"binary_data_size": len(blob)}})  # fmt: skip
        tail += blob
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}, **request}).encode()
    return client.post(
        f"/v2/models/{model}/infer", content=head + tail, headers={"Inference-Header-Content-Length": str(len(head))}
    )


def binary_outputs(response):
    size = int(response.headers["inference-header-content-length"])
    tail, outputs = response.content[size:], {}
    for one in json.loads(response.content[:size])["outputs"]:
        blob, tail = tail[: one["parameters"]["binary_data_size"]], tail[one["parameters"]["binary_data_size"] :]
        if one["datatype"] == "BYTES":
            values = []
            while blob:
                (length,) = struct.unpack("<I", blob[:4])
                values.append(blob[4 : 4 + length].decode())
                blob = blob[4 + length :]
        else:
            values = np.frombuffer(blob, DTYPES[one["datatype"]])
        outputs[one["name"]] = np.reshape(values, one["shape"])
    assert tail == b""
    return outputs


def test_tensors_can_be_bytes(client, string_client, tables, string_tables):
    none = np.empty(0, np.int64)
    feeds = {"user": tables.user_ids[:2], "k": np.array([20]), "exclude_user": none + 1, "exclude_item": none}
    answer = binary_outputs(binary(client, "cflightning", feeds))
    assert answer["item"][1].tolist() == tables.recommend(tables.user_ids[1], 20)
    assert answer["score"].dtype == np.float32 and answer["known"].tolist() == [True, True]
    feeds |= {"user": ["zoë".encode()], "exclude_user": np.array([0]), "exclude_item": [b"i0"]}
    answer = binary_outputs(binary(string_client, "cflightning", feeds))
    assert answer["item"][0].tolist()[:-1] == string_tables.recommend("zoë", 20, ["i0"])
    assert answer["score"][0, -1] == -np.inf


def test_input_as_bytes_and_output_as_json(client, tables):
    feeds = {"item": tables.item_ids[:3], "user": tables.user_ids[:3]}
    outputs = [{"name": "score"}, {"name": "known", "parameters": {"binary_data": False}}]
    response = binary(client, "cflightning-score", feeds, parameters={}, outputs=outputs)
    scores = response.json()["outputs"][0]["data"]
    np.testing.assert_allclose(scores, tables.score(tables.user_ids[:3], tables.item_ids[:3]), atol=1e-5)


def test_long_responses_are_computed_in_a_thread(bundle, tables, start):
    class RecordingExecutor(Executor):
        """An executor that records the cost of each computation."""

        def __init__(self):
            super().__init__()
            self.costs = []

        async def run(self, cost, function):
            self.costs.append(cost)
            return await super().run(cost, function)

    executor = RecordingExecutor()
    with start(ServerState(Settings(bundle), executor=executor)) as client:
        for count, in_thread in ((3, False), (5_000, True)):
            user, item = [np.full(count, ids[0]).tolist() for ids in (tables.user_ids, tables.item_ids)]
            request = {"inputs": [tensor("user", user), tensor("item", item)], "id": "a"}
            body = client.post("/v2/models/cflightning-score/infer", json=request).json()
            assert len(body["outputs"][0]["data"]) == count and body["id"] == "a"
            assert (executor.costs[-1] > INLINE_LIMIT) is in_thread


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"length": "x"}, "must be the bytes of JSON"),
        ({"length": "99999"}, "must be the bytes of JSON"),
        ({"length": "9" * 5000}, "must be the bytes of JSON"),
        ({"sizes": [16, 24]}, "binary_data_size must fit"),
        ({"sizes": [16, -8]}, "binary_data_size must fit"),
        ({"sizes": [16, 8]}, "does not fit 1 elements"),
        ({"sizes": [15, 17]}, "not a multiple"),
        ({"tail": b"more"}, "belong to no input"),
        ({"data": [1, 2]}, "binary_data_size must fit"),
    ],
)
def test_bytes_that_do_not_fit_the_tensors_are_refused(client, change, reason):
    sizes = change.get("sizes", [16, 16])
    inputs = [{"name": name, "shape": [2], "datatype": "INT64", "parameters": {"binary_data_size": size}}
              for name, size in zip(("user", "item"), sizes, strict=True)]  # fmt: skip
    if "data" in change:
        inputs[0]["data"] = change["data"]
    head = json.dumps({"inputs": inputs}).encode()
    headers = {"Inference-Header-Content-Length": change.get("length", str(len(head)))}
    content = head + np.arange(4).tobytes() + change.get("tail", b"")
    response = client.post("/v2/models/cflightning-score/infer", content=content, headers=headers)
    assert response.status_code == 400
    assert reason in response.json()["error"]


@pytest.mark.parametrize("blob", [b"\x05\0\0\0ab", b"\x01\0", b"\xff\xff\xff\xff", b"\x01\0\0\0\xff"])
def test_damaged_strings_are_refused(string_client, blob):
    inputs = [{"name": name, "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(blob)}}
              for name in ("user", "item")]  # fmt: skip
    head = json.dumps({"inputs": inputs}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    response = string_client.post("/v2/models/cflightning-score/infer", content=head + blob * 2, headers=headers)
    assert response.status_code == 400


USER, ITEM = tensor("user", [10, 20]), tensor("item", [0, 3])


@pytest.mark.parametrize(
    ("model", "inputs", "reason"),
    [
        ("score", [], "inputs: must be user, item, got none"),
        ("score", [USER], "inputs: must be user, item, got user"),
        ("score", [USER, USER, ITEM], "inputs: must be user, item"),
        ("score", [USER, tensor("item", [0])], "user, item: must be of one length"),
        ("score", [USER, {**ITEM, "shape": [3]}], "does not fit 2 elements"),
        ("score", [USER, {**ITEM, "shape": [-2]}], "does not fit 2 elements"),
        ("score", [USER, {**ITEM, "datatype": "INT32"}], "datatype must be INT64, got INT32"),
        ("score", [USER, tensor("item", [0, 1.5])], "data must be INT64, got float"),
        ("score", [USER, tensor("item", [0, True])], "data must be INT64, got bool"),
        ("score", [USER, tensor("item", [0, None])], "data must be INT64, got NoneType"),
        ("score", [USER, tensor("item", [0, 2**63])], "data must fit into INT64"),
        ("score", [USER, {**ITEM, "data": [[[[[[0, 1]]]]]]}], "must not be nested"),
        ("score", [USER, {"name": "item", "shape": [2], "datatype": "INT64"}], "needs data"),
        ("recommend", recommend([10], 0), "k: must be one number from 1"),
        ("recommend", recommend([10], 1001), "k: must be one number from 1"),
        ("recommend", [*recommend([10])[:1], tensor("k", [1, 2]), *recommend([10])[2:]], "k: must hold 1, got 2"),
        ("recommend", recommend([10], 3, [1], [0]), "exclude_user: must be positions"),
        ("recommend", recommend([10], 3, [-1], [0]), "exclude_user: must be positions"),
        ("recommend", recommend([10], 3, [0], []), "must be of one length"),
    ],
)
def test_tensors_that_do_not_fit_the_model_are_refused(client, model, inputs, reason):
    assert reason in infer(client, f"cflightning-{model}", inputs, 400)


@pytest.mark.parametrize("value", [1e39, -1e39, float("inf"), 10**30 * 10**30])
def test_numbers_beyond_float32_are_refused(value):
    with pytest.raises(ApiError, match="must be finite"):
        from_json("rating", ELEMENT_TYPES["tensor(float)"], [3, value])


def test_unknown_outputs_are_refused(client):
    assert "the model has score, known" in infer(
        client, "cflightning-score", [USER, ITEM], 400, outputs=[{"name": "x"}]
    )


def test_requests_of_another_form_are_refused(client):
    for body in ({}, {"inputs": {}}, {"inputs": [{**USER, "shape": [2, 1]}]}, {"inputs": [{**USER, "shape": ["2"]}]}):
        response = client.post("/v2/models/cflightning/infer", json=body)
        assert response.status_code == 422 and type(response.json()["error"]) is str
    assert (
        client.post(
            "/v2/models/cflightning/infer", content=b"{", headers={"Content-Type": "application/json"}
        ).status_code
        == 400
    )
    assert client.get("/v2/models/cflightning/infer").status_code == 405


def test_the_table_of_a_request_is_limited(bundle, start):
    with start(ServerState(Settings(bundle, limits=Limits(ids=20, cells=100)))) as client:
        assert infer(client, "cflightning", recommend([10] * 8))["item"].shape == (8, 3)
        assert "ask for 8 or fewer" in infer(client, "cflightning", recommend([10] * 9), 400)
        assert "more than 20" in infer(
            client, "cflightning-score", [tensor("user", [1] * 21), tensor("item", [1] * 21)], 400
        )


def test_the_name_of_the_model_can_be_set(bundle, start):
    with start(ServerState(Settings(bundle, name="films"))) as client:
        assert client.get("/v2/models/films-score/ready").status_code == 200
        assert client.get("/v2/models/cflightning/ready").status_code == 404
