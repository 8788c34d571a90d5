"""Authenticity of a bundle: the digest that its manifest must have, or the key that must have signed it.

The manifest holds the digest of every file, so trust in the manifest extends to the whole bundle.
"""

import hashlib
import hmac
import os
import re
from dataclasses import dataclass
from pathlib import Path

from cflightning_serve.bundle.files import read_bytes
from cflightning_serve.errors import BundleError, InputError

SIGNATURE_FILE = "manifest.json.sig"
"""Name of the file beside the manifest that holds its Ed25519 signature."""
SIGNATURE_BYTES = 64
MAX_KEY_BYTES = 1 << 16
"""Size limit of signature and key files, in bytes."""


@dataclass(frozen=True)
class Trust:
    """Conditions that a manifest must meet. Created by :meth:`parse`."""

    digest: str | None = None
    """SHA-256 of the file ``manifest.json``, hex; None for any."""
    key: bytes | None = None
    """Ed25519 public key, 32 bytes, that must have signed the manifest; None for no signature."""

    @classmethod
    def parse(cls, digest: str | None = None, key_file: str | os.PathLike[str] | None = None) -> "Trust | None":
        """Create the conditions from a caller's options; None if there are none.

        Args:
            digest: SHA-256 of the file ``manifest.json`` in hex, as printed by ``sha256sum``.
            key_file: PEM file of an Ed25519 public key.

        Raises:
            InputError: the digest is not one, or the key cannot be read.
        """
        if digest is None and key_file is None:
            return None
        if digest is not None and not re.fullmatch("[0-9a-fA-F]{64}", digest):
            raise InputError(
                f"digest: must be 64 hex digits, the output of `sha256sum manifest.json`, got {digest[:80]!r}"
            )
        return cls(
            None if digest is None else digest.lower(), None if key_file is None else _read_public_key(Path(key_file))
        )

    def check(self, path: Path, data: bytes) -> None:
        """Check a manifest against the conditions.

        Args:
            path: the manifest; its signature lies beside it.
            data: its bytes.

        Raises:
            BundleError: the digest differs, or the key has not signed the manifest.
        """
        if self.digest is not None:
            digest = hashlib.sha256(data).hexdigest()
            if not hmac.compare_digest(digest, self.digest):
                raise BundleError(f"{path}: must have the required sha256 {self.digest}, has {digest}")
        if self.key is not None:
            _check_signature(self.key, path, data)


def _check_signature(key: bytes, path: Path, data: bytes) -> None:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    signature = read_bytes(path.with_name(SIGNATURE_FILE), limit=MAX_KEY_BYTES)
    try:
        if len(signature) != SIGNATURE_BYTES:
            raise InvalidSignature
        Ed25519PublicKey.from_public_bytes(key).verify(signature, data)
    except InvalidSignature:
        raise BundleError(
            f"{path}: {SIGNATURE_FILE} must be its Ed25519 signature by the trusted key, is not; get the bundle from "
            "its author again, or sign it (BUNDLE.md)"
        ) from None


def _read_public_key(path: Path) -> bytes:
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ModuleNotFoundError as error:
        raise InputError(f"trusted key: needs {error.name}; pip install 'cflightning-serve[signed]'") from error
    must = f"{path}: must be an Ed25519 public key in PEM format, created by: openssl pkey -in PRIVATE -pubout"
    try:
        with path.open("rb") as file:
            key = load_pem_public_key(file.read(MAX_KEY_BYTES))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; give the file of the trusted key") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InputError(f"{must}; is not") from error
    if not isinstance(key, Ed25519PublicKey):
        raise InputError(f"{must}; is another kind of key")
    return key.public_bytes_raw()
