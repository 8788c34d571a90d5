"""Synthetic films, and servers of them for the tests of the page."""

import asyncio
import importlib.util
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def _by_path(name):
    spec = importlib.util.spec_from_file_location(f"page_tests_{name}", HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def stub():
    """The module with the stubs."""
    return _by_path("stub")


@pytest.fixture(scope="session")
def films():
    """TitleIndex [n], counts [n], vectors [n, dim], biases [n] of synthetic films; the first id is 1."""
    return _by_path("films").make_films()


@pytest.fixture
def make_scorer(stub, films):
    """Makes a stub scorer of the films, or of other tables."""
    titles, counts, vectors, _ = films

    def make(ids=None, titles=titles, counts=counts, vectors=vectors, rating_range=(0.5, 5.0), unit="rating"):
        return stub.StubScorer(
            range(1, len(vectors) + 1) if ids is None else ids, titles, counts, vectors, rating_range, unit
        )

    return make


@pytest.fixture
def ask(stub, films):
    """Sends a request to an application in this process: ask(scorer or app, path, ...) -> httpx response."""
    import httpx

    def send(app, path, method="GET", **options):
        app = stub.make_app(app, films[3]) if isinstance(app, stub.StubScorer) else app

        async def request():
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://page") as client:
                return await client.request(method, path, **options)

        return asyncio.run(request())

    return send


@pytest.fixture
def serve():
    """Serves applications on a local port until the test ends: serve(app) -> (URL, stop)."""
    import threading

    import uvicorn

    running = []

    def start(app, port=0):
        server = uvicorn.Server(
            uvicorn.Config(app, port=port, log_level="error", ws="none", timeout_graceful_shutdown=1)
        )
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            thread.join(0.02)
        port = server.servers[0].sockets[0].getsockname()[1]

        def stop():
            server.should_exit = True
            thread.join(10)

        running.append(stop)
        return f"http://127.0.0.1:{port}/", stop

    yield start
    for stop in running:
        stop()


@pytest.fixture(scope="session")
def chromium():
    """A headless Chromium for all tests."""
    import shutil

    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.fail("needs Chromium and its driver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(driver))  # a named driver is not downloaded
    browser.set_script_timeout(20)
    yield browser
    browser.quit()


@pytest.fixture
def visit(chromium):
    """Opens a page: visit(url, width, height, dark=, calm=, touch=) -> browser. Its storage is cleared afterwards."""

    def opened(url, width=1280, height=900, *, dark=False, calm=True, touch=False):
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": touch}
        chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        chromium.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": touch})
        media = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if calm else "no-preference"},
        ]
        chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
        chromium.get(url)
        return chromium

    yield opened
    chromium.execute_cdp_cmd("Storage.clearDataForOrigin", {"origin": "*", "storageTypes": "all"})
    chromium.get("about:blank")
    chromium.get_log("browser")
