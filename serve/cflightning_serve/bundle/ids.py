"""Raw ids and counts: validation of arguments and conversion to the arrays that graphs take."""

import re
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeAlias, TypeGuard

import numpy as np
import numpy.typing as npt

from cflightning_serve.bundle.manifest import IdType
from cflightning_serve.errors import InputError

IdArray: TypeAlias = npt.NDArray[Any]
"""Raw ids: int64 [n], or object [n] of str."""


class SupportsArray(Protocol):
    """An object that ``numpy.asarray`` converts: numpy arrays, columns of pandas and polars."""

    def __array__(self) -> IdArray: ...


RawId: TypeAlias = int | str | np.integer[npt.NBitBase]
"""One raw id, as in the ratings table."""
RawIds: TypeAlias = Sequence[RawId] | SupportsArray
"""Raw ids in one dimension: list, tuple, range, numpy array, pandas Series."""

_ACCEPTED: dict[IdType, tuple[type, ...]] = {"int64": (int, np.integer), "string": (str,)}
_REFUSED = (bool, np.timedelta64)  # integers to Python and numpy
_EXPECTED: dict[IdType, str] = {"int64": "integers", "string": "strings"}
_MAX_QUOTED_CHARACTERS = 60
_INTEGER = re.compile(r"\s*[+-]?[0-9]{1,30}\s*")


def to_id_array(ids: object, id_type: IdType, name: str) -> tuple[IdArray, bool]:
    """Convert one id or several to an array.

    Args:
        ids: one id, or ids in one dimension; may be empty.
        id_type: type of these ids in the bundle.
        name: "user" or "item", for messages.

    Returns:
        The ids, int64 [n] or object [n] of str, and whether the argument was a single id.

    Raises:
        InputError: an id has another type (bool, float or NaN; str for integers, int for strings), does not fit into 64
            bits, or the array has more than one dimension.
    """
    if type(ids) is int or isinstance(ids, str):
        return _from_list([ids], id_type, name), True
    if isinstance(ids, (list, tuple)):
        return _from_list(ids, id_type, name), False
    array = np.asarray(ids)
    if array.ndim > 1:
        raise InputError(f"{name} ids: must be one id or an array in one dimension, got shape {list(array.shape)}")
    is_single = array.ndim == 0
    array = array.reshape(-1)
    if id_type == "int64" and array.dtype.kind in "iu" and array.dtype != np.uint64:
        return array.astype(np.int64, copy=False), is_single
    # An empty array may have any dtype; other dtypes are checked id by id.
    return _from_list(array.tolist(), id_type, name), is_single


def parse_id_texts(texts: Sequence[str], id_type: IdType, where: str) -> list[int | str]:
    """Convert ids that were given as text, on the command line, in a URL or a CSV file, to the bundle's id type.

    Raises:
        InputError: an id is not an integer, in a bundle of integer ids.
    """
    if id_type == "string":
        return list(texts)
    for text in texts:
        if not _INTEGER.fullmatch(text):
            raise InputError(f"{where}: ids are integers in this bundle, got {text[:_MAX_QUOTED_CHARACTERS]!r}")
    return [int(text) for text in texts]


def to_id_list(ids: object, id_type: IdType, name: str) -> IdArray:
    """Convert several ids to an array [n]; refuse a single id, which is usually a list without its brackets.

    Raises:
        InputError: ids of the wrong type, or a single id.
    """
    array, is_single = to_id_array(ids, id_type, name)
    if is_single:
        raise InputError(f"{name} ids: must be a list or an array, got one id; put it in a list")
    return array


def as_collection(ids: Iterable[object]) -> object:
    """Convert a set, dict or iterator of ids to a list; return lists, tuples and arrays unchanged."""
    return ids if isinstance(ids, (list, tuple)) or hasattr(ids, "__array__") else list(ids)


def to_exclusions(exclude: object, id_type: IdType, num_users: int, is_single: bool) -> list[IdArray]:
    """Convert excluded items to one array of ids for each user.

    Args:
        exclude: item ids if the request is for a single user, otherwise one iterable of item ids for each user.
        id_type: type of item ids in the bundle.
        num_users: number of users of the request.
        is_single: whether the request is for a single user instead of an array.

    Raises:
        InputError: ``exclude`` has another form or length, or an id has the wrong type.
    """
    lists = list(exclude) if isinstance(exclude, Iterable) and not is_single else [exclude]
    if len(lists) != num_users:
        raise InputError(
            f"exclude: must be one list of item ids for each of the {num_users} users, got {len(lists)}; "
            "give an empty list to exclude nothing"
        )
    arrays = []
    for position, ids in enumerate(lists):
        if not is_iterable_of_ids(ids):
            must = "a list of item ids" if is_single else f"one list of item ids for each of the {num_users} users"
            where = "" if is_single else f" at position {position}"
            raise InputError(f"exclude: must be {must}, got {ids!r}{where}")
        arrays.append(to_id_array(as_collection(ids), id_type, "excluded item")[0])
    return arrays


def is_iterable_of_ids(ids: object) -> TypeGuard[Iterable[object]]:
    """Return whether an argument is iterable and not a string, which would iterate over its characters."""
    return isinstance(ids, Iterable) and not isinstance(ids, (str, bytes))


def check_positive_integer(name: str, value: object) -> int:
    """Return a count as ``int``.

    Raises:
        InputError: the value is not an integer from 1.
    """
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
        raise InputError(f"{name}: must be an integer from 1, got {value!r}")
    return int(value)


def _from_list(ids: Sequence[Any], id_type: IdType, name: str) -> IdArray:
    for type_ in set(map(type, ids)):
        if not issubclass(type_, _ACCEPTED[id_type]) or issubclass(type_, _REFUSED):
            raise _wrong_type(ids, type_, id_type, name)
    if id_type == "string":
        return np.array(ids, dtype=object)
    try:
        return np.array(ids, dtype=np.int64)
    except OverflowError:
        first = next(value for value in ids if not -(2**63) <= int(value) < 2**63)
        raise InputError(f"{name} ids: must fit into 64 bits, got {first}") from None


def _wrong_type(ids: Sequence[object], type_: type, id_type: IdType, name: str) -> InputError:
    position = next(n for n, value in enumerate(ids) if type(value) is type_)
    quoted = repr(ids[position])
    if len(quoted) > _MAX_QUOTED_CHARACTERS:
        quoted = f"{quoted[: _MAX_QUOTED_CHARACTERS - 3]}..."
    got = f"{type_.__name__} {quoted}"
    if len(ids) > 1:
        count = sum(type(value) is type_ for value in ids)
        got += f" at position {position} ({count} of {len(ids)} are of this type)"
    if id_type == "string" and issubclass(type_, (int, np.integer)) and type_ is not bool:
        hint = f"ids are strings in this bundle: pass '{ids[position]}'"
    elif id_type == "int64" and issubclass(type_, str):
        hint = "ids are integers in this bundle: convert with int()"
    elif id_type == "int64" and issubclass(type_, float):
        hint = "drop missing ids, which turn a column into floats, and convert with astype('int64')"
    else:
        hint = "pass one id, or a list or an array of ids"
    return InputError(f"{name} ids: must be {_EXPECTED[id_type]}, got {got}; {hint}")
