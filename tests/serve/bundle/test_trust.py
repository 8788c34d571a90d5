"""A required digest or signature detects changes that come with updated digests."""

import hashlib
import json
import shutil
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cflightning_serve import BundleError, InputError, Scorer


def write_key(path, private):
    path.write_bytes(private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path


@pytest.fixture
def private():
    return Ed25519PrivateKey.generate()


@pytest.fixture
def public(private, tmp_path):
    return write_key(tmp_path / "public.pem", private)


def sign(folder, private):
    (folder / "manifest.json.sig").write_bytes(private.sign((folder / "manifest.json").read_bytes()))


def digest(folder):
    return hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()


def change_manifest(bundles, folder):
    """Change the manifest and update its digest."""
    raw = json.loads((folder / "manifest.json").read_text("utf-8"))
    bundles.write_manifest(folder, raw | {"model": "Another"})
    return folder


def test_another_digest_than_the_required_one_is_refused(bundles, copy):
    required = digest(copy)
    scorer = Scorer.load(copy, digest=required)
    assert scorer.manifest.file_sha256 == required
    assert Scorer.load(copy, digest=required.upper(), verify=False)
    change_manifest(bundles, copy)
    with pytest.raises(BundleError, match=f"manifest.json: must have the required sha256 {required}, has "):
        Scorer.load(copy, digest=required)
    assert Scorer.load(copy)


@pytest.mark.parametrize("text", ["", "abc", "0" * 63, "x" * 64, "0" * 5000])
def test_an_invalid_digest_is_refused(bundle, text):
    with pytest.raises(InputError, match="digest: must be 64 hex digits, the output of `sha256sum manifest.json`"):
        Scorer.load(bundle, digest=text)


def test_a_signed_bundle_is_refused_after_a_change(bundles, copy, private, public):
    sign(copy, private)
    assert Scorer.load(copy, trusted_key=public)
    assert Scorer.load(copy)
    change_manifest(bundles, copy)
    with pytest.raises(
        BundleError, match=r"manifest.json.sig must be its Ed25519 signature by the trusted key, is not"
    ):
        Scorer.load(copy, trusted_key=public, verify=False)


@pytest.mark.parametrize("signature", [b"", b"\0" * 64, b"\0" * 63, b"\0" * 65, b"\0" * 100_000])
def test_an_invalid_signature_is_refused(copy, public, signature):
    (copy / "manifest.json.sig").write_bytes(signature)
    with pytest.raises(BundleError, match=r"manifest\.json"):
        Scorer.load(copy, trusted_key=public)


def test_a_signature_by_another_key_is_refused(copy, public):
    sign(copy, Ed25519PrivateKey.generate())
    with pytest.raises(BundleError, match="by the trusted key, is not"):
        Scorer.load(copy, trusted_key=public)


def test_a_missing_signature_is_refused(copy, public):
    with pytest.raises(BundleError, match=r"manifest.json.sig: must be a file of the bundle, is missing"):
        Scorer.load(copy, trusted_key=public)


def test_invalid_keys_are_refused(copy, tmp_path):
    with pytest.raises(InputError, match="absent.pem: cannot be read: No such file"):
        Scorer.load(copy, trusted_key=tmp_path / "absent.pem")
    (tmp_path / "text.pem").write_text("no key")
    with pytest.raises(InputError, match=r"text.pem: must be an Ed25519 public key in PEM format.*; is not"):
        Scorer.load(copy, trusted_key=tmp_path / "text.pem")
    other = write_key(tmp_path / "other.pem", generate_private_key(SECP256R1()))
    with pytest.raises(InputError, match=r"other.pem: must be .*; is another kind of key"):
        Scorer.load(copy, trusted_key=other)


def test_the_commands_of_the_specification_sign_a_bundle(repository, copy, tmp_path):
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    text = (repository / "serve" / "BUNDLE.md").read_text("utf-8")
    lines = [line for line in text.splitlines() if line.startswith("openssl ")]
    assert len(lines) == 3
    for line in lines:
        words = line.replace("BUNDLE/", f"{copy}/").split()
        subprocess.run([openssl, *words[1:]], check=True, cwd=tmp_path, timeout=60)
    assert Scorer.load(copy, trusted_key=tmp_path / "PUBLIC.pem")


def test_the_command_line_has_options_for_both(bundles, copy, private, public, environment):
    sign(copy, private)
    required = digest(copy)

    def run(*options):
        command = [sys.executable, "-m", "cflightning_serve", "info", str(copy), *options]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)

    done = run("--require-digest", required, "--trusted-key", str(public))
    assert done.returncode == 0, done.stderr
    assert required in done.stdout
    change_manifest(bundles, copy)
    for options in (("--require-digest", required), ("--trusted-key", str(public))):
        done = run(*options)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert "manifest.json" in done.stderr
    assert run("--require-digest", "abc").returncode == 2
