"""Validation of ``manifest.json`` against ``serve/BUNDLE.md``."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypeGuard

from cflightning_serve.bundle.files import REMEDY
from cflightning_serve.bundle.reference import FLOAT32_MAX, SCORED_GRAPHS
from cflightning_serve.bundle.strict_json import JSON_TYPE_NAMES, Json, json_type_name
from cflightning_serve.errors import BundleError

FORMAT = "cflightning-bundle"
FORMAT_VERSION = 2
"""Newest format version of this reader; it reads every older one too."""
REQUIRED_GRAPHS = ("score", "recommend", "similar")
"""Keys of ``graphs`` in every bundle."""
_NoneType = type(None)
_KEYS: Mapping[str, tuple[type, ...]] = {
    "format_version": (int,),
    "written_by": (str,),
    "created": (str,),
    "model": (str,),
    "dim": (int,),
    "ids": (dict,),
    "num_users": (int,),
    "num_items": (int,),
    "rating_range": (list, _NoneType),
    "metrics": (dict,),
    "graphs": (dict,),
    "titles": (str, _NoneType),
    "files": (dict,),
    "sha256": (str,),
}
"""Required key -> types of its value; format 2 requires ``units`` as well."""
MAX_TEXT_CHARACTERS = 200
"""Length limit of texts that are shown to people and written to logs."""
MAX_COUNT = 2**63 - 1
_MAX_QUOTED_CHARACTERS = 60


def manifest_digest(manifest: Mapping[str, Json]) -> str:
    """Return the value of the key ``sha256``: SHA-256 of the other keys as canonical JSON, hex."""
    content = {key: value for key, value in manifest.items() if key != "sha256"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def validate_version(path: Path, raw: Mapping[str, Json]) -> None:
    """Check ``format`` and ``format_version``.

    Raises:
        BundleError: the file is not a manifest, or its format is newer than this reader.
    """
    if raw.get("format") != FORMAT:
        raise BundleError(
            f'{path}: "format" must be "{FORMAT}", is {_quote(raw.get("format"))}; this is not the manifest of a bundle'
        )
    version = raw.get("format_version")
    if type(version) is not int or version < 1:
        raise BundleError(f'{path}: "format_version" must be an integer from 1, is {_quote(version)}; {REMEDY}')
    if version > FORMAT_VERSION:
        written_by = raw["written_by"] if _is_line(raw.get("written_by")) else "an unnamed program"
        raise BundleError(
            f"{path}: format {_quote(version)}, written by {written_by}, is newer than this reader, which supports "
            f"formats up to {FORMAT_VERSION}; upgrade cflightning-serve"
        )


def validate_digest(path: Path, raw: Mapping[str, Json]) -> None:
    """Check the manifest's own digest.

    Raises:
        BundleError: the digest is missing or differs from the contents.
    """
    digest = raw.get("sha256")
    if type(digest) is not str:
        raise BundleError(f'{path}: "sha256" must be a string, is of type {json_type_name(digest)}; {REMEDY}')
    if manifest_digest(raw) != digest:
        raise BundleError(f"{path}: its own sha256 differs from its contents: damaged or edited by hand; {REMEDY}")


def validate_contents(path: Path, raw: Mapping[str, Json]) -> None:
    """Check every key but ``reference``, in a manifest with valid version.

    Raises:
        BundleError: a key is missing or its value is invalid.
    """

    def check(valid: bool, key: str, must: str) -> None:
        if not valid:
            raise BundleError(f"{path}: {key} must be {must}; {REMEDY}")

    def check_metrics(key: str, metrics: Json) -> None:
        check(type(metrics) is dict, key, f"object, is {json_type_name(metrics)}")
        for name, value in metrics.items():
            check(_is_line(name), key, f"an object with names of one line, has {_quote(name)}")
            check(type(value) in (int, float), f'{key} -> "{name}"', f"a number, is {json_type_name(value)}")
            check(_is_float32(value), f'{key} -> "{name}"', f"a finite number, is {_quote(value)}")

    is_version_1 = raw["format_version"] == 1
    for key, types in (_KEYS if is_version_1 else {**_KEYS, "units": (dict,)}).items():
        check(key in raw, f'"{key}"', "present, is missing")
        names = " or ".join(JSON_TYPE_NAMES[type_] for type_ in types)
        # The exact type: true is not an integer.
        check(type(raw[key]) in types, f'"{key}"', f"{names}, is {json_type_name(raw[key])}")
    for key, least in (("dim", 0), ("num_users", 1), ("num_items", 1)):
        check(raw[key] >= least, f'"{key}"', f"at least {least}, is {_quote(raw[key])}")
        check(raw[key] <= MAX_COUNT, f'"{key}"', f"at most {MAX_COUNT}, is {_quote(raw[key])}")
    for key in ("written_by", "created", "model"):
        check(_is_line(raw[key]), f'"{key}"', f"one line of at most {MAX_TEXT_CHARACTERS} printable characters")
    for key in ("user", "item"):
        id_type = raw["ids"].get(key)
        check(id_type in ("int64", "string"), f'"ids" -> "{key}"', f'"int64" or "string", is {_quote(id_type)}')
    limits = raw["rating_range"]
    if limits is not None:
        valid = len(limits) == 2 and all(map(_is_float32, limits)) and 0 <= limits[1] - limits[0] <= FLOAT32_MAX
        check(valid, '"rating_range"', f"two float32 numbers, the lower one first, is {_quote(limits)}")
    for graph in () if is_version_1 else SCORED_GRAPHS:
        unit = raw["units"].get(graph)
        valid = type(unit) is str and unit in ("rating", "choice")
        check(valid, f'"units" -> "{graph}"', f'"rating" or "choice", is {_quote(unit)}')
    check_metrics('"metrics"', raw["metrics"])
    comparison = {} if raw.get("comparison") is None else raw["comparison"]
    check(type(comparison) is dict, '"comparison"', f"object or null, is {json_type_name(comparison)}")
    check_metrics('"comparison" -> "validation"', comparison.get("validation", {}))
    must = f"one line of at most {MAX_TEXT_CHARACTERS} printable characters"
    check(_is_line(comparison.get("chosen", "")), '"comparison" -> "chosen"', must)
    baselines = comparison.get("test", {})
    check(type(baselines) is dict, '"comparison" -> "test"', f"object, is {json_type_name(baselines)}")
    for name, metrics in baselines.items():
        check(_is_line(name), '"comparison" -> "test"', f"an object with names of one line, has {_quote(name)}")
        check_metrics(f'"comparison" -> "test" -> "{name}"', metrics)
    for graph in REQUIRED_GRAPHS:
        check(graph in raw["graphs"], f'"graphs" -> "{graph}"', "present, is missing")
    for name, entry in raw["files"].items():
        key = f'"files" -> {_quote_key(name)}'
        valid = type(entry) is dict and type(entry.get("bytes")) is int and type(entry.get("sha256")) is str
        check(valid and 0 <= entry["bytes"] <= MAX_COUNT, key, '{"bytes": integer, "sha256": string}')
        check(_is_plain_name(name), key, "a plain file name inside the folder")
    files = {f'"graphs" -> {_quote_key(graph)}': name for graph, name in raw["graphs"].items()}
    files |= {f'"{key}"': raw[key] for key in ("titles", "catalogue") if raw.get(key) is not None}
    for key, name in files.items():
        check(type(name) is str and name in raw["files"], key, f'a file named in "files", is {_quote(name)}')


def _is_plain_name(name: str) -> bool:
    return name not in ("", ".", "..") and _is_line(name) and not any(mark in name for mark in "/\\:")


def _is_line(text: object) -> bool:
    """Return whether a value is a text that can be logged: one printable line of limited length."""
    return isinstance(text, str) and len(text) <= MAX_TEXT_CHARACTERS and text.isprintable()


def _is_float32(value: object) -> TypeGuard[int | float]:
    """Return whether a value is a finite number within the range of float32."""
    return isinstance(value, (int, float)) and type(value) is not bool and -FLOAT32_MAX <= value <= FLOAT32_MAX


def _quote(value: object) -> str:
    """Return a value for a message, shortened."""
    if type(value) is int and abs(value) > MAX_COUNT:  # Python does not print integers of thousands of digits
        return f"an integer of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= _MAX_QUOTED_CHARACTERS else f"{text[: _MAX_QUOTED_CHARACTERS - 3]}..."


def _quote_key(name: str) -> str:
    return f'"{name}"' if _is_line(name) else _quote(name)
