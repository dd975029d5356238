"""Frozen dataclasses to JSON and back: what one step writes, another reads, with its fields and types checked."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, TypeVar

from vtabflow.errors import UserError

T = TypeVar("T")


def to_json(value: Any) -> Any:
    """The JSON form of a dataclass: objects for dataclasses and mappings, lists for tuples, scalars as they are."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    return value


def from_json(kind: type[T], data: Any, where: str) -> T:
    """The dataclass that parsed JSON describes.

    Args:
        kind: the dataclass.
        data: parsed JSON.
        where: what to call the data in messages, usually the file's path.

    Raises:
        UserError: a field that is missing, unknown or of another type, or another version of the format.

    Example:
        >>> from_json(Receipt, {"key": "0123", "folder": "results/x", "made": True}, "receipt.json").made
        True
    """
    return typing.cast(T, _parse(kind, data, where, ""))


@cache
def _fields(kind: type) -> dict[str, tuple[Any, bool]]:
    """Field -> (type, whether it must be given) of a dataclass."""
    hints = typing.get_type_hints(kind)
    missing = dataclasses.MISSING
    return {
        field.name: (hints[field.name], field.default is missing and field.default_factory is missing)
        for field in dataclasses.fields(kind)
    }


def _parse(kind: Any, data: Any, where: str, path: str) -> Any:
    if kind is Any:
        return data
    if dataclasses.is_dataclass(kind):
        return _parse_dataclass(typing.cast(type, kind), data, where, path)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _parse_union(arguments, data, where, path)
    if origin is Literal:
        return data if data in arguments else _refuse(where, path, data, " or ".join(map(repr, arguments)))
    if origin is tuple:
        return _parse_tuple(arguments, data, where, path)
    if origin is dict:
        if not isinstance(data, Mapping):
            _refuse(where, path, data, "an object")
        return {key: _parse(arguments[1], item, where, f"{path}.{key}") for key, item in data.items()}
    if kind is float and type(data) in (int, float):
        return float(data)
    # bool is an int to Python; here it is not.
    return data if type(data) is kind else _refuse(where, path, data, getattr(kind, "__name__", str(kind)))


def _parse_tuple(kinds: tuple[Any, ...], data: Any, where: str, path: str) -> tuple[Any, ...]:
    if not isinstance(data, (list, tuple)):
        _refuse(where, path, data, "a list")
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = kinds[:1] * len(data)
    if len(kinds) != len(data):
        _refuse(where, path, data, f"a list of {len(kinds)}")
    return tuple(
        _parse(kind, item, where, f"{path}[{i}]") for i, (kind, item) in enumerate(zip(kinds, data, strict=True))
    )


def _parse_dataclass(kind: type, data: Any, where: str, path: str) -> Any:
    if isinstance(data, kind):
        return data
    if not isinstance(data, Mapping):
        _refuse(where, path, data, f"an object ({kind.__name__})")
    fields = _fields(kind)
    place = f" in {path.lstrip('.')}" if path else ""
    version = getattr(kind, "version", None)
    if version is not None and data.get("version", version) != version:
        raise UserError(
            f"{where} is of version {data['version']!r} of {kind.__name__} and this code reads version {version}: "
            "use the code that wrote it, or remove the file and run again"
        )
    missing = [name for name, (_, required) in fields.items() if required and name not in data]
    unknown = [name for name in data if name not in fields]
    if missing or unknown:
        what = f"the field {missing[0]!r} is missing" if missing else f"the field {unknown[0]!r} is not known"
        raise UserError(
            f"{where}: {what}{place} ({kind.__name__}); another version of vtabflow wrote it, or it was edited: "
            "remove the file and run again"
        )
    return kind(**{name: _parse(fields[name][0], item, where, f"{path}.{name}") for name, item in data.items()})


def _parse_union(kinds: tuple[Any, ...], data: Any, where: str, path: str) -> Any:
    """None, a scalar, or the dataclass whose fields the data has."""
    if data is None and type(None) in kinds:
        return None
    objects = [kind for kind in kinds if dataclasses.is_dataclass(kind)]
    if objects and isinstance(data, Mapping):
        fitting = [kind for kind in objects if _fits(kind, data)]
        return _parse(fitting[0] if fitting else objects[0], data, where, path)
    for kind in kinds:
        if type(data) in _json_types(kind):
            return _parse(kind, data, where, path)
    names = " or ".join(getattr(kind, "__name__", str(kind)) for kind in kinds)
    return _refuse(where, path, data, names)


def _json_types(kind: Any) -> tuple[type, ...]:
    """The types that parsed JSON can have where `kind` is expected."""
    origin = typing.get_origin(kind) or kind
    if origin is Literal:
        return tuple(type(value) for value in typing.get_args(kind))
    return {float: (float, int), tuple: (list, tuple), dict: (dict,)}.get(origin, (origin,))


def _fits(kind: Any, data: Mapping[str, Any]) -> bool:
    fields = _fields(kind)
    return set(data) <= set(fields) and all(name in data for name, (_, required) in fields.items() if required)


def _refuse(where: str, path: str, data: Any, expected: str) -> typing.NoReturn:
    text = repr(data)
    raise UserError(
        f"{where}: {path.lstrip('.') or 'the content'} is {text[:60]}{'...' if len(text) > 60 else ''} and should be "
        f"{expected}; remove the file and run again"
    )
