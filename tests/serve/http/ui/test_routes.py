"""Files of the page, and its routes for catalogue, title search and map."""

import asyncio
import gc
import re
import weakref
from importlib.resources import files

import httpx
import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the page needs the extra `http`")

from cflightning_serve.errors import UnsupportedError
from cflightning_serve.http.serving.executor import Executor
from cflightning_serve.http.ui.catalogue import CatalogueIndex
from cflightning_serve.http.ui.routes import page_router

STATIC = files("cflightning_serve.http.ui").joinpath("static")
NAMES = sorted(file.name for file in STATIC.iterdir())


@pytest.fixture
def tiny(make_scorer):
    """Makes a scorer of four items, the third one the most popular; one has no title."""

    def make(**more):
        vectors = np.array([[1.0, 0, 0], [0, 2, 0], [-1, 0, 0], [0, -2, 0.1]])
        options = {
            "ids": [7, -3, 5, 2**60],
            "titles": ["B", "Älter", "C", None],
            "counts": [3, 3, 9, 1],
            "vectors": vectors,
        }
        return make_scorer(**options | more)

    return make


# Files ----------------------------------------------------------------------------------------------------------------


def test_the_page_may_only_load_from_its_own_server(ask, make_scorer):
    response = ask(make_scorer(), "/")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(part.strip().split(" ", 1) for part in response.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert {"script-src", "style-src", "connect-src", "img-src"} <= {
        name for name, sources in policy.items() if sources == "'self'"
    }
    assert "unsafe" not in response.headers["content-security-policy"]
    assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("name", NAMES)
def test_each_file_is_served_with_an_etag(ask, make_scorer, name):
    response = ask(make_scorer(), f"/static/{name}")
    assert response.status_code == 200
    assert response.content == STATIC.joinpath(name).read_bytes()
    again = ask(make_scorer(), f"/static/{name}", headers={"If-None-Match": response.headers["etag"]})
    assert again.status_code == 304
    assert again.content == b""
    head = ask(make_scorer(), f"/static/{name}", "HEAD")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(response.content))


@pytest.mark.parametrize(
    "name", ["no.js", "..%2Fpage.py", "../page.py", "%2e%2e/__init__.py", "", "app.js/x", "APP.JS"]
)
def test_other_paths_are_not_served(ask, make_scorer, name):
    assert ask(make_scorer(), f"/static/{name}").status_code == 404


def test_the_files_refer_to_each_other_and_to_no_other_server():
    text = {name: STATIC.joinpath(name).read_text("utf-8") for name in NAMES}
    for name, content in text.items():
        urls = re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"']*", content)
        assert all(url.startswith("http://www.w3.org/") for url in urls), (name, urls)  # XML namespaces
        assert len(content.splitlines()) <= 250, name
        for file in re.findall(r'from "\./([^"]+)"', content) + re.findall(r'"static/([^"]+)"', content):
            assert file in NAMES, (name, file)
        for imported, file in re.findall(r'import \{ ([^}]+) \} from "\./([^"]+)"', content):
            for identifier in imported.split(", "):
                assert re.search(rf"^export \w+ {identifier}\b", text[file], re.MULTILINE), (name, identifier)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", "".join(text.values()))
    assert " style=" not in text["index.html"]  # the policy forbids it
    ids = re.findall(r'\bid="([^"]+)"', text["index.html"])
    assert len(ids) == len(set(ids))
    for name in (name for name in NAMES if name.endswith(".js")):
        assert set(re.findall(r'byId\("([^"]+)"\)', text[name])) <= set(ids), name


# About ----------------------------------------------------------------------------------------------------------------


def test_about(ask, make_scorer, tiny):
    assert ask(make_scorer(), "/about").json() == {
        "items": 360,
        "what": "film",
        "item_ids": "int64",
        "titles": True,
        "rating_range": [0.5, 5.0],
        "unit": "rating",
    }
    about = ask(tiny(rating_range=None, unit="choice", titles=None), "/about").json()
    assert (about["items"], about["what"], about["titles"]) == (4, "item", False)
    assert (about["rating_range"], about["unit"]) == (None, "choice")


# Items ----------------------------------------------------------------------------------------------------------------


def test_items_are_listed_by_popularity(ask, tiny):
    items = ask(tiny(), "/items").json()["items"]
    assert items == [
        {"item": 5, "title": "C", "count": 9},
        {"item": 7, "title": "B", "count": 3},  # equal counts are in the order of the catalogue
        {"item": -3, "title": "Älter", "count": 3},
        {"item": 2**60, "title": None, "count": 1},
    ]
    assert ask(tiny(), "/items", params={"limit": 2}).json()["items"] == items[:2]
    assert ask(tiny(), "/items", params={"query": "alt"}).json()["items"] == items[2:3]
    assert ask(tiny(), "/items", params={"query": str(2**60)[:6]}).json()["items"] == items[3:]
    assert ask(tiny(), "/items", params={"query": "nothing"}).json() == {"items": []}


def test_items_of_string_ids_without_titles_and_counts(ask, tiny):
    scorer = tiny(ids=["x1", "007", "zoë", "b"], titles=None, counts=None)
    items = ask(scorer, "/items").json()["items"]
    assert [one["item"] for one in items] == ["x1", "007", "zoë", "b"]
    assert all(one["title"] is None and one["count"] is None for one in items)
    assert [one["item"] for one in ask(scorer, "/items", params={"query": "ZOE"}).json()["items"]] == ["zoë"]


def test_an_empty_catalogue(ask, tiny):
    scorer = tiny(ids=[], titles=None, counts=[], vectors=np.zeros((0, 3)))
    assert ask(scorer, "/items").json() == {"items": []}
    assert ask(scorer, "/map").json() == {"items": []}
    assert ask(scorer, "/about").json()["what"] == "item"


@pytest.mark.parametrize("params", [{"limit": 0}, {"limit": 101}, {"limit": "x"}, {"query": "a" * 201}])
def test_invalid_parameters_are_refused(ask, tiny, params):
    assert ask(tiny(), "/items", params=params).status_code == 422


# Map ------------------------------------------------------------------------------------------------------------------


def test_the_map_has_the_most_popular_items(ask, stub, make_scorer, films):
    titles, counts, vectors, biases = films
    points = ask(stub.make_app(make_scorer(), biases, map_items=50), "/map").json()["items"]
    rows = np.argsort(-counts, kind="stable")[:50]
    assert [one["item"] for one in points] == (rows + 1).tolist()
    assert [one["title"] for one in points] == [titles[row] for row in rows]
    assert [one["count"] for one in points] == counts[rows].tolist()
    centred = vectors[rows] - vectors[rows].mean(0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    coordinates = np.array([[one["x"], one["y"]] for one in points])
    np.testing.assert_allclose(np.abs(coordinates), np.abs(left[:, :2] * values[:2]), atol=1e-4)


def test_other_items_are_projected_on_the_same_map(ask, stub, tiny):
    points = ask(tiny(), "/map").json()["items"]
    some = ask(tiny(), "/map?item=-3&item=99&item=5").json()["items"]
    assert [one["item"] for one in some] == [-3, 5]  # the unknown one is left out
    for one in some:
        same = next(other for other in points if other["item"] == one["item"])
        assert (one["x"], one["y"], one["title"]) == (same["x"], same["y"], same["title"])
    beside = ask(stub.make_app(tiny(), np.zeros(4), map_items=3), f"/map?item={2**60}").json()["items"]
    assert [one["item"] for one in beside] == [2**60]


@pytest.mark.parametrize("text", ["x", "1.5", "", "1" * 40, "٣", "1e3"])
def test_an_id_that_is_not_an_integer_is_refused(ask, tiny, text):
    response = ask(tiny(), "/map", params={"item": text})
    assert response.status_code == 422
    assert "integers" in response.json()["error"]["message"]


def test_a_bundle_without_factors_has_no_map(ask, tiny):
    scorer = tiny()
    scorer.has_factors = False
    response = ask(scorer, "/map")
    assert response.status_code == 422
    assert response.json()["error"]["code"] == "unsupported"
    assert ask(scorer, "/items").status_code == 200
    with pytest.raises(UnsupportedError):
        CatalogueIndex(scorer).map_points(scorer)


# Cache per bundle -----------------------------------------------------------------------------------------------------


def app_of(current):
    from fastapi import FastAPI

    app = FastAPI()
    app.include_router(page_router(lambda: current[0], Executor()))
    return app


def test_a_reload_shows_the_new_catalogue_and_frees_the_old_one(ask, tiny):
    current = [tiny()]
    app = app_of(current)
    assert ask(app, "/items?limit=1").json()["items"][0]["item"] == 5
    old = weakref.ref(current[0])
    current[0] = tiny(ids=[1, 2, 3, 4])
    assert ask(app, "/items?limit=1").json()["items"][0]["item"] == 3
    assert [one["item"] for one in ask(app, "/map").json()["items"]] == [3, 1, 2, 4]
    gc.collect()
    assert old() is None


def test_the_map_is_computed_once_at_its_first_use(ask, make_scorer):
    scorer = make_scorer()
    app = app_of([scorer])
    ask(app, "/items")
    assert scorer.factor_calls == 0

    async def all_at_once():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://page") as client:
            return await asyncio.gather(*(client.get("/map") for _ in range(4)))

    first, *others = [response.json() for response in asyncio.run(all_at_once())]
    assert scorer.factor_calls == 1
    assert all(other == first for other in others)


def test_the_routes_are_in_the_openapi_description(ask, tiny):
    paths = ask(app_of([tiny()]), "/openapi.json").json()["paths"]
    assert {"/about", "/items", "/map"} == set(paths)


# Real bundles ---------------------------------------------------------------------------------------------------------


def test_real_bundles(ask, rich):
    scorer, tables = rich
    app = app_of([scorer])
    about = ask(app, "/about").json()
    assert about["items"] == len(tables.item_ids)
    assert about["rating_range"] == (list(tables.rating_range) if tables.rating_range else None)
    assert about["unit"] == tables.units["recommend"]
    order = np.argsort(-np.array(tables.counts), kind="stable")
    items = ask(app, "/items?limit=100").json()["items"]
    assert [one["item"] for one in items] == tables.item_ids[order].tolist()
    assert [one["count"] for one in items] == np.array(tables.counts)[order].tolist()
    titles = tables.titles or {}
    assert [one["title"] for one in items] == [titles.get(str(one["item"])) for one in items]

    vectors = tables.recommender.item_vectors[1:][order].astype(np.float64)
    left, values, _ = np.linalg.svd(vectors - vectors.mean(0), full_matrices=False)
    points = ask(app, "/map").json()["items"]
    coordinates = np.array([[one["x"], one["y"]] for one in points])
    np.testing.assert_allclose(np.abs(coordinates), np.abs(left[:, :2] * values[:2]), atol=2e-4)
    some = [str(items[3]["item"]), str(items[0]["item"]), "424242"]
    beside = ask(app, "/map", params={"item": some}).json()["items"]
    assert [(one["item"], one["x"], one["y"]) for one in beside] == [
        (points[n]["item"], points[n]["x"], points[n]["y"]) for n in (3, 0)
    ]


def test_a_bundle_without_catalogue_is_unsupported(scorer):
    with pytest.raises(UnsupportedError):
        CatalogueIndex(scorer)
