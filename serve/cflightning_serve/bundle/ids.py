"""What callers give -> the arrays that the graphs take, checked on the way."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from cflightning_serve.bundle.manifest import IdType
from cflightning_serve.errors import InputError


class SupportsArray(Protocol):
    """What ``numpy.asarray`` turns into an array by itself: numpy arrays, columns of pandas and polars."""

    def __array__(self) -> npt.NDArray[Any]: ...


RawId: TypeAlias = int | str | np.integer[Any]
"""One raw id, as it stood in the ratings table."""
RawIds: TypeAlias = Sequence[int] | Sequence[str] | SupportsArray
"""Raw ids in one dimension: list, tuple, range, numpy array, pandas Series."""
IdArray: TypeAlias = npt.NDArray[Any]
"""int64 [n], or object [n] of str."""

_ACCEPTED: dict[IdType, tuple[type, ...]] = {"int64": (int, np.integer), "string": (str,)}
_REFUSED = (bool, np.timedelta64)  # Python and numpy count these among the integers
_EXPECTED: dict[IdType, str] = {"int64": "integers", "string": "strings"}


def to_id_array(ids: object, kind: IdType, what: str) -> tuple[IdArray, bool]:
    """Turn one id or many into an array.

    Args:
        ids: one id, or ids in one dimension; any length, zero included.
        kind: element type of these ids in the bundle.
        what: "user" or "item", for messages.

    Returns:
        The ids, int64 [n] or object [n] of str, and whether it was one id rather than an array.

    Raises:
        InputError: an id is of another type (bool, float and NaN, str for integers, int for strings), does not fit
            into 64 bits, or the array has more than one dimension.
    """
    if type(ids) is int or isinstance(ids, str):
        return _from_list([ids], kind, what), True
    if isinstance(ids, (list, tuple)):
        return _from_list(ids, kind, what), False
    array = np.asarray(ids)
    if array.ndim > 1:
        raise InputError(f"{what} ids: must be one id or an array in one dimension, got shape {list(array.shape)}")
    one = array.ndim == 0
    array = array.reshape(-1)
    if kind == "int64" and array.dtype.kind in "iu" and array.dtype != np.uint64:
        return array.astype(np.int64, copy=False), one
    # An empty array or column has whatever type its maker fancied; the rest is judged id by id.
    return _from_list(array.tolist(), kind, what), one


def exclusions(exclude: Iterable[Any], kind: IdType, users: int, one: bool) -> list[IdArray]:
    """Turn what is to be left out into one array of item ids for each user.

    Args:
        exclude: item ids where the question is about one user, otherwise one iterable of item ids for each user.
        kind: element type of item ids in the bundle.
        users: how many users the question is about.
        one: whether it is about one user rather than an array.

    Raises:
        InputError: ``exclude`` has another form or length, or an id is of the wrong type.
    """
    lists = list(exclude) if isinstance(exclude, Iterable) and not one else [exclude]
    if len(lists) != users:
        raise InputError(
            f"exclude: must hold one list of item ids for each of the {users} users, got {len(lists)}; "
            "give an empty list where nothing is to be left out"
        )
    arrays = []
    for number, ids in enumerate(lists):
        if isinstance(ids, str) or not isinstance(ids, Iterable):
            where = "be a list of item ids" if one else f"hold one list of item ids for each of the {users} users"
            raise InputError(f"exclude: must {where}, got {ids!r}{'' if one else f' at position {number}'}")
        plain = ids if isinstance(ids, (list, tuple)) or hasattr(ids, "__array__") else list(ids)
        arrays.append(to_id_array(plain, kind, "excluded item")[0])
    return arrays


def check_positive_integer(name: str, value: int) -> int:
    """Check a count.

    Raises:
        InputError: ``value`` is no integer, or below one.
    """
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < 1:
        raise InputError(f"{name}: must be an integer from 1, got {value!r}")
    return int(value)


def _from_list(ids: Sequence[Any], kind: IdType, what: str) -> IdArray:
    for type_ in set(map(type, ids)):
        if not issubclass(type_, _ACCEPTED[kind]) or issubclass(type_, _REFUSED):
            raise _wrong_type(ids, type_, kind, what)
    if kind == "string":
        return np.array(ids, dtype=object)
    try:
        return np.array(ids, dtype=np.int64)
    except OverflowError:
        got = next(one for one in ids if not -(2**63) <= int(one) < 2**63)
        raise InputError(f"{what} ids: must fit into 64 bits, got {got}") from None


def _wrong_type(ids: Sequence[Any], type_: type, kind: IdType, what: str) -> InputError:
    position = next(n for n, one in enumerate(ids) if type(one) is type_)
    value = repr(ids[position])
    got = f"{type_.__name__} {value if len(value) <= 60 else value[:57] + '...'}"
    if len(ids) > 1:
        got += f" at position {position} ({sum(type(one) is type_ for one in ids)} of {len(ids)} are of this type)"
    if kind == "string" and issubclass(type_, (int, np.integer)) and type_ is not bool:
        hint = f"; ids are strings in this bundle: pass '{ids[position]}'"
    elif kind == "int64" and issubclass(type_, str):
        hint = "; ids are integers in this bundle: convert with int()"
    elif kind == "int64" and issubclass(type_, float):
        hint = "; drop missing ids, which turn a column into floats, and convert with astype('int64')"
    else:
        hint = "; pass one id, or a list or an array of ids"
    return InputError(f"{what} ids: must be {_EXPECTED[kind]}, got {got}{hint}")
