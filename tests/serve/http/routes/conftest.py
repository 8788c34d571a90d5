"""Requests to JSON routes."""

import pytest


@pytest.fixture(scope="session")
def post():
    """Posts JSON: post(client, path, status=200, **body) -> body of the response, or code and message of its error."""

    def send(client, path, status=200, **body):
        response = client.post(path, json=body)
        assert response.headers["content-type"] == "application/json"
        assert response.status_code == status, response.text
        if status == 200:
            return response.json()
        assert set(response.json()) == {"error"} and set(response.json()["error"]) == {"code", "message"}
        return response.json()["error"]["code"], response.json()["error"]["message"]

    return send


@pytest.fixture(params=["client", "string_client"])
def served(request):
    """Client and tables of a bundle with integer ids and titles, and of one with string ids without titles."""
    tables = request.getfixturevalue("tables" if request.param == "client" else "string_tables")
    return request.getfixturevalue(request.param), tables


@pytest.fixture(scope="session")
def unknown_id():
    """Returns an id that training has not seen: unknown_id(tables)."""
    return lambda tables: 11 if tables.user_ids.dtype == "int64" else "nobody"


@pytest.fixture(scope="session")
def titles_of():
    """Returns the titles of items: titles_of(tables, items)."""
    return lambda tables, items: [(tables.titles or {}).get(str(item)) for item in items]
