"""Whose bundle it is: the digest that its manifest must have, or the key that must have signed it.

The manifest holds the digest of every file, so that who vouches for it vouches for the whole bundle.
"""

import hashlib
import hmac
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cflightning_serve.bundle.files import read_bytes
from cflightning_serve.errors import BundleError, InputError

if TYPE_CHECKING:
    import argparse

SIGNATURE = "manifest.json.sig"
"""File beside the manifest: the 64 bytes of its Ed25519 signature."""
_SIGNED = 64
_LARGEST_KEY = 1 << 16


@dataclass(frozen=True)
class Trust:
    """The manifests that are trusted. Made by :meth:`of`."""

    digest: str | None = None
    """SHA-256 of the file, hex; None for any."""
    key: bytes | None = None
    """Ed25519 public key, 32 bytes, whose signature lies beside it; None for nobody's."""

    @classmethod
    def of(cls, digest: str | None = None, key: str | os.PathLike[str] | None = None) -> "Trust | None":
        """Trust what callers ask for; None where they ask for nothing.

        Args:
            digest: SHA-256 of the file ``manifest.json`` in hex, as ``sha256sum`` prints it.
            key: PEM file of an Ed25519 public key.

        Raises:
            InputError: the digest is none, or the key cannot be read.
        """
        if digest is None and key is None:
            return None
        if digest is not None and not re.fullmatch("[0-9a-fA-F]{64}", digest):
            raise InputError(
                f"digest: must be the 64 hex digits that `sha256sum manifest.json` prints, got {digest[:80]!r}"
            )
        return cls(None if digest is None else digest.lower(), None if key is None else _read_key(Path(key)))

    def check(self, path: Path, data: bytes) -> None:
        """Hold a manifest against what is trusted.

        Args:
            path: of the manifest; its signature lies beside it.
            data: bytes of the manifest.

        Raises:
            BundleError: it is another one, or is not signed by the key.
        """
        if self.digest is not None:
            got = hashlib.sha256(data).hexdigest()
            if not hmac.compare_digest(got, self.digest):
                raise BundleError(f"{path}: must have the sha256 {self.digest}, which is required, has {got}")
        if self.key is not None:
            _check_signature(self.key, path, data)


def add_trust_options(parser: "argparse.ArgumentParser") -> None:
    """Add the options that say whose bundle is trusted."""
    parser.add_argument("--require-digest", metavar="SHA256", help="what `sha256sum BUNDLE/manifest.json` must print")
    parser.add_argument(
        "--trusted-key", metavar="FILE", help="Ed25519 public key (PEM) that must have signed manifest.json"
    )


def trust_of(options: "argparse.Namespace") -> Trust | None:
    """Trust what the options ask for.

    Raises:
        InputError: the digest is none, or the key cannot be read.
    """
    return Trust.of(options.require_digest, options.trusted_key)


def _check_signature(key: bytes, path: Path, data: bytes) -> None:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    signature = read_bytes(path.with_name(SIGNATURE), most=_LARGEST_KEY)
    try:
        if len(signature) != _SIGNED:
            raise InvalidSignature
        Ed25519PublicKey.from_public_bytes(key).verify(signature, data)
    except InvalidSignature:
        raise BundleError(
            f"{path}: {SIGNATURE} must be its Ed25519 signature by the trusted key, is not; take the bundle from its "
            "maker again, or sign it (BUNDLE.md)"
        ) from None


def _read_key(path: Path) -> bytes:
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ModuleNotFoundError as error:
        raise InputError(f"trusted key: needs {error.name}; pip install 'cflightning-serve[signed]'") from error
    must = f"{path}: must be an Ed25519 public key as PEM, made by: openssl pkey -in PRIVATE -pubout"
    try:
        with path.open("rb") as file:
            key = load_pem_public_key(file.read(_LARGEST_KEY))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; give the file of the trusted key") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InputError(f"{must}, is none") from error
    if not isinstance(key, Ed25519PublicKey):
        raise InputError(f"{must}, is a key of another kind")
    return key.public_bytes_raw()
