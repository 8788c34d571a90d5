"""The JSON routes against the tables in numpy."""

import json

import numpy as np
import pytest

from cflightning_serve import BundleError, Scorer, UnsupportedError
from cflightning_serve.http.serving.state import ServerState
from cflightning_serve.http.settings import Limits, Settings


def ask(client, path, status=200, **body):
    reply = client.post(path, json=body)
    assert reply.headers["content-type"] == "application/json"
    assert reply.status_code == status, reply.text
    if status != 200:
        assert set(reply.json()) == {"error"} and set(reply.json()["error"]) == {"code", "message"}
        return reply.json()["error"]["code"], reply.json()["error"]["message"]
    return reply.json()


@pytest.fixture(params=["client", "string_client"])
def served(request):
    tables = request.getfixturevalue("tables" if request.param == "client" else "string_tables")
    return request.getfixturevalue(request.param), tables


def titles(tables, items):
    return [(tables.titles or {}).get(str(item)) for item in items]


def test_recommend(served):
    client, tables = served
    user, out = tables.user_ids.tolist()[1], tables.item_ids.tolist()[:2]
    answer = ask(client, "/recommend", user=user, k=4, exclude=out)
    items = [one["item"] for one in answer["items"]]
    assert items == tables.recommend(user, 4, out)
    assert [one["title"] for one in answer["items"]] == titles(tables, items)
    np.testing.assert_allclose([one["score"] for one in answer["items"]], tables.score([user] * 4, items), atol=1e-5)
    assert answer["known_user"] is True
    assert ask(client, "/recommend", user=user, k=4, exclude=out) == answer  # from memory
    assert set(answer) == {"items", "known_user"}


def test_whole_numbers_may_have_a_point(client):
    assert ask(client, "/recommend", user=10.0, k=4.0, exclude=[0.0]) == ask(
        client, "/recommend", user=10, k=4, exclude=[0]
    )


def test_recommend_to_a_stranger(served):
    client, tables = served
    stranger = 11 if tables.user_ids.dtype == np.int64 else "nobody"
    answer = ask(client, "/recommend", user=stranger)
    assert answer["known_user"] is False
    assert [one["item"] for one in answer["items"]] == tables.recommend(stranger, 10)


def test_recommend_more_than_there_is(served):
    client, tables = served
    answer = ask(client, "/recommend", user=tables.user_ids.tolist()[0], k=1000, exclude=tables.item_ids.tolist()[1:])
    assert [one["item"] for one in answer["items"]] == tables.item_ids.tolist()[:1]


def test_score(served):
    client, tables = served
    stranger = 11 if tables.user_ids.dtype == np.int64 else "nobody"
    users, items = [*tables.user_ids.tolist()[:3], stranger], [*tables.item_ids.tolist()[:3], stranger]
    scores = ask(client, "/score", pairs=list(zip(users, items, strict=True)))["scores"]
    assert [(one["user"], one["item"]) for one in scores] == list(zip(users, items, strict=True))
    np.testing.assert_allclose([one["score"] for one in scores], tables.score(users, items), atol=1e-5)
    for side in ("known_user", "known_item"):
        assert [one[side] for one in scores] == [True] * 3 + [False]
    assert ask(client, "/score", pairs=[]) == {"scores": []}


def test_similar(served):
    client, tables = served
    item = tables.item_ids.tolist()[2]
    answer = ask(client, "/similar", item=item, k=3)["items"]
    cosines = dict(zip(tables.item_ids.tolist(), tables.cosines(item), strict=True))
    del cosines[item]
    expected = sorted(cosines, key=cosines.get, reverse=True)[:3]
    assert [one["item"] for one in answer] == expected
    np.testing.assert_allclose([one["similarity"] for one in answer], [cosines[one] for one in expected], atol=1e-5)
    assert [one["title"] for one in answer] == titles(tables, expected)


def test_similar_to_a_stranger(served):
    client, tables = served
    stranger = 11 if tables.user_ids.dtype == np.int64 else "nobody"
    code, message = ask(client, "/similar", 404, item=stranger)
    assert code == "unknown_id" and repr(stranger) in message


def test_choices_are_served_as_well(choice_bundle, choice_tables, start):
    with start(ServerState(Settings(choice_bundle))) as client:
        user = int(choice_tables.user_ids[0])
        answer = ask(client, "/recommend", user=user, k=3)["items"]
    assert [one["item"] for one in answer] == choice_tables.recommend(user, 3)
    expected = choice_tables.score([user] * 3, [one["item"] for one in answer])
    np.testing.assert_allclose([one["score"] for one in answer], expected, atol=1e-4)


def test_fold_in(full_client, tables):
    items = tables.item_ids.tolist()
    answer = ask(full_client, "/fold-in", ratings=[[items[0], 5], [11, 2.5]], k=3, exclude=[items[1]])
    expected = Scorer.recommend(full_client.scorer, 2**62, 3, [items[0], items[1]]).items.tolist()
    assert [one["item"] for one in answer["items"]] == expected
    assert answer["unknown_items"] == [11]


def test_explain(full_client, tables):
    user, item = tables.user_ids.tolist()[0], tables.item_ids.tolist()[0]
    answer = ask(full_client, "/explain", user=user, item=item)
    seen, ratings = full_client.scorer.history(user)
    assert answer["contributions"] == [
        {"item": one, "title": titles(tables, [one])[0], "rating": rating, "contribution": 0.25}
        for one, rating in zip(seen.tolist(), ratings.tolist(), strict=True)
    ]
    assert (answer["score"], answer["base"], answer["rest"]) == (3.5, 0.5, -0.5)
    assert len(answer["nearest"]) == 3 and set(answer["nearest"][0]) == {"item", "title", "similarity"}
    by_ratings = ask(full_client, "/explain", item=item, ratings=[[tables.item_ids.tolist()[3], 4.5]])
    assert [(one["item"], one["rating"]) for one in by_ratings["contributions"]] == [(tables.item_ids.tolist()[3], 4.5)]


def test_an_item_rated_twice_keeps_both_ratings(full_client, tables):
    one, other = tables.item_ids.tolist()[:2]
    answer = ask(full_client, "/explain", item=one, ratings=[[other, 5], [one, 3], [other, 1.5]])
    assert [(row["item"], row["rating"]) for row in answer["contributions"]] == [(other, 5), (one, 3), (other, 1.5)]


def test_explain_needs_one_of_two(full_client):
    assert ask(full_client, "/explain", 422, item=0)[0] == "input"
    assert ask(full_client, "/explain", 422, item=0, user=10, ratings=[])[0] == "input"
    assert ask(full_client, "/explain", 422, item=0, user=None)[0] == "input"
    assert ask(full_client, "/explain", 422, item=0, user=10, ratings=None)[0] == "input"


def test_filters_reach_the_scorer_and_only_those_that_are_given(full_client):
    full_client.scorer.filters.clear()
    given = {
        "exclude_seen": False,
        "allow": [0, 3],
        "deny": [],
        "categories": ["Drama"],
        "min_count": 2,
        "diversity": 0.5,
    }
    ask(full_client, "/recommend", user=10, **given)
    ask(full_client, "/recommend", user=10)
    assert full_client.scorer.filters == [given, {}]


@pytest.mark.parametrize(
    ("path", "body", "reason"),
    [
        ("/recommend", {}, "user: Field required"),
        ("/recommend", {"user": "a"}, "user ids: must be integers"),
        ("/recommend", {"user": 1.5}, "user: Input should be a valid integer or Input should be a valid string"),
        ("/recommend", {"user": True}, "user: "),
        ("/recommend", {"user": None}, "user: "),
        ("/recommend", {"user": [10]}, "user: "),
        ("/recommend", {"user": 2**63}, "must fit into 64 bits"),
        ("/recommend", {"user": 10, "k": 0}, "k: "),
        ("/recommend", {"user": 10, "k": "5"}, "k: "),
        ("/recommend", {"user": 10, "k": 1001}, "k: must not exceed 1,000"),
        ("/recommend", {"user": 10, "exclude": 5}, "exclude: "),
        ("/recommend", {"user": 10, "exclude": ["a"]}, "excluded item ids: must be integers"),
        ("/recommend", {"user": 10, "exclude": [None]}, "exclude.0: "),
        ("/recommend", {"user": 10, "exlude": []}, "exlude: Extra inputs"),
        ("/recommend", {"user": 10, "diversity": 2}, "diversity: "),
        ("/score", {"pairs": [[10]]}, "pairs.0"),
        ("/score", {"pairs": [[10, 0, 1]]}, "pairs.0"),
        ("/score", {"pairs": [[10, "0"]]}, "item ids: must be integers"),
        ("/score", {"pairs": {}}, "pairs: "),
        ("/similar", {"item": 0, "k": -1}, "k: "),
        ("/fold-in", {"ratings": [[0, "5"]]}, "ratings.0.1: "),
        ("/fold-in", {"ratings": [[0, 1e300]]}, "ratings.0.1: "),
        ("/fold-in", {"ratings": [[0]]}, "ratings.0"),
        ("/explain", {"user": 10}, "item: Field required"),
    ],
)
def test_questions_that_make_no_sense(full_client, path, body, reason):
    code, message = ask(full_client, path, 422, **body)
    assert code in ("input", "limit")
    assert reason in message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"nothing",
        b'{"user": 10} x',
        b"\xff\xfe",
        b'{"user": "\\ud800"}',
        b"[" * 100_000,
        b'{"user": ' + b"9" * 5000 + b"}",
        b'{"user": 10, "k": NaN}',
    ],
)
def test_bodies_that_are_no_question(client, body):
    reply = client.post("/recommend", content=body, headers={"Content-Type": "application/json"})
    assert reply.status_code in (400, 422)
    assert reply.json()["error"]["code"] in ("json", "input")
    assert len(reply.content) < 1000


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/score", {"pairs": [[]] * 100}),
        *(("/recommend", {"user": 1, name: [{}] * 100}) for name in ("exclude", "allow", "deny", "categories")),
        ("/fold-in", {"ratings": [[]] * 100}),
        ("/fold-in", {"ratings": [], "exclude": [{}] * 100}),
        ("/explain", {"item": 1, "ratings": [[]] * 100}),
        ("/v2/models/cflightning/infer", {"inputs": [{}] * 100}),
        ("/v2/models/cflightning/infer", {"inputs": [], "outputs": [{}] * 100}),
        ("/v2/models/cflightning/infer", {"inputs": [{"name": "", "datatype": "", "shape": [{}] * 100}]}),
    ],
)
def test_of_a_list_of_mistakes_the_first_is_told(client, path, body):
    reply = client.post(path, json=body)  # each mistake costs a kilobyte until the answer is sent
    assert reply.status_code == 422
    assert "more" not in reply.text and ".1." not in reply.text


def test_string_ids_of_any_kind(string_client):
    for user in ("", "\x00", "a" * 10_000, "zoë", "𝕏", '"\\\n'):
        answer = ask(string_client, "/score", pairs=[[user, "i1"]])["scores"][0]
        assert (answer["user"], answer["known_user"]) == (user, user == "zoë")


def test_a_list_may_not_be_longer_than_the_limit(bundle, start):
    with start(ServerState(Settings(bundle, limits=Limits(ids=3, k=2)))) as client:
        ask(client, "/score", pairs=[[10, 0]] * 3)
        assert ask(client, "/score", 422, pairs=[[10, 0]] * 4)[0] == "limit"
        assert ask(client, "/recommend", 422, user=10, k=2, exclude=[1, 2, 3, 4])[0] == "limit"
        assert ask(client, "/recommend", 422, user=10)[0] == "limit"  # the default is ten
        described = client.get("/openapi.json").json()["components"]["schemas"]["Recommend"]["properties"]
        assert described["k"]["maximum"] == 2 and described["exclude"]["maxItems"] == 3


def test_large_questions_are_answered_in_a_thread(client, tables):
    pairs = [[int(user), int(item)] for user in tables.user_ids for item in tables.item_ids] * 120
    scores = ask(client, "/score", pairs=pairs)["scores"]
    assert len(scores) > 9_000
    expected = tables.score(*np.array(pairs[:77]).T)
    np.testing.assert_allclose([one["score"] for one in scores[:77]], expected, atol=1e-5)


def test_what_a_bundle_cannot_answer_is_said(bundle, start, complete_scorer):
    scorer = complete_scorer(Scorer.load(bundle))

    def fold_in(*_, **__):
        raise UnsupportedError(f"{bundle.resolve()}: has no graph that answers 'fold_in'")

    scorer.fold_in = fold_in
    with start(ServerState(Settings(bundle), scorer)) as client:
        code, message = ask(client, "/fold-in", 422, ratings=[])
    assert code == "unsupported"
    assert "has no graph" in message and str(bundle.parent) not in message


def test_a_fault_of_the_bundle_is_the_servers(bundle, start, complete_scorer, caplog):
    scorer = complete_scorer(Scorer.load(bundle))

    def broken(*_, **__):
        raise BundleError("/a/secret/place: the graph failed")

    scorer.recommend = broken
    with start(ServerState(Settings(bundle), scorer)) as client:
        code, message = ask(client, "/recommend", 503, user=10)
    assert (code, "secret" in message) == ("bundle", False)
    assert "secret" in caplog.text


def test_a_fault_of_the_program_shows_no_trace(bundle, start, complete_scorer, caplog):
    scorer = complete_scorer(Scorer.load(bundle))

    def broken(*_, **__):
        raise ZeroDivisionError("secret")

    scorer.recommend = broken
    with start(ServerState(Settings(bundle), scorer)) as client:
        reply = client.post("/recommend", json={"user": 10})
        assert client.post("/similar", json={"item": 0}).status_code == 200
    assert reply.status_code == 500
    assert reply.json() == {"error": {"code": "internal", "message": "the server failed; its log has the reason"}}
    assert "ZeroDivisionError" in caplog.text


def test_numbers_have_the_digits_of_float32(client):
    text = client.post("/recommend", json={"user": 10}).text
    assert all(len(str(one["score"])) <= 12 for one in json.loads(text)["items"])
