"""The application as a whole: unknown routes, health checks, CORS, and the OpenAPI document."""

import pytest

from cflightning_serve.http.api_keys import ApiKeys
from cflightning_serve.http.serving.state import ServerState
from cflightning_serve.http.settings import Settings


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/docs", 404),
        ("POST", "/recommend/", 404),
        ("GET", "/recommend", 405),
        ("PUT", "/score", 405),
        ("POST", "/metrics", 405),
        ("DELETE", "/v2", 405),
        ("PATCH", "/v2", 405),
    ],
)
def test_unknown_routes_and_methods_are_errors(client, method, path, status):
    response = client.request(method, path)
    assert response.status_code == status
    assert "openapi" in str(response.json()["error"])
    if status == 405:
        assert response.headers["allow"]


@pytest.mark.parametrize("path", ["/v2/health/live", "/v2/health/ready"])
def test_health_checks_are_answered_without_key_and_for_any_host(bundle, start, tmp_path, path):
    file = tmp_path / "keys"
    file.write_text("0123456789abcdef")
    file.chmod(0o600)
    with start(ServerState(Settings(bundle, keys=ApiKeys(file)))) as client:
        assert client.get(path).status_code == 200
        assert client.get(path, headers={"Host": "10.1.2.3:8000"}).status_code == 200
        head = client.head(path)
        assert (head.status_code, head.content) == (200, b"")


def test_pages_of_allowed_origins_may_send_requests(bundle, client, start):
    preflight = {
        "Origin": "https://shop.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type, x-api-key",
    }
    assert client.options("/recommend", headers=preflight).status_code == 405
    with start(ServerState(Settings(bundle, origins=("https://shop.example",)))) as shared:
        response = shared.options("/recommend", headers=preflight)
        assert response.status_code == 200
        assert response.headers["access-control-allow-origin"] == "https://shop.example"
        for body, status in (({"user": 10}, 200), ({}, 422)):  # errors can be read as well
            response = shared.post("/recommend", json=body, headers={"Origin": "https://shop.example"})
            assert response.status_code == status
            assert response.headers["access-control-allow-origin"] == "https://shop.example"
        response = shared.post("/recommend", json={"user": 10}, headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in response.headers


def test_the_openapi_document_has_the_api_key(bundle, start, client, tmp_path):
    key = "0123456789abcdef"
    (tmp_path / "keys").write_text(key)
    (tmp_path / "keys").chmod(0o600)
    assert "security" not in client.get("/openapi.json").json()
    with start(ServerState(Settings(bundle, keys=ApiKeys(tmp_path / "keys")))) as keyed:
        document = keyed.get("/openapi.json", headers={"X-API-Key": key}).json()
    assert document["security"] == [{"bearer": []}, {"key": []}]
