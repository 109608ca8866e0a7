"""Values of the standard library and of pydantic that one text or a few numbers describe."""

from __future__ import annotations

import base64
import datetime
import decimal
import fractions
import ipaddress
import pathlib
import re
import uuid
import zoneinfo
from collections.abc import Callable
from typing import Any, cast

from pydantic.networks import AnyUrl, PostgresDsn
from pydantic_core import TzInfo

from timestep.client.class_names import find_class, name_of_class

Json = Any
MultiHostUrl: Any = PostgresDsn.__base__

_TEXT: dict[str, tuple[type, Callable[[Any], Json], Callable[[Json], Any]]] = {
    "builtins:int": (int, hex, lambda data: int(data, 16)),  # one with more digits than Python reads
    "builtins:float": (float, repr, float),  # one that is not finite
    "builtins:complex": (complex, repr, complex),
    "builtins:bytes": (bytes, lambda value: base64.b64encode(value).decode(), base64.b64decode),
    "builtins:bytearray": (
        bytearray,
        lambda value: base64.b64encode(value).decode(),
        lambda data: bytearray(base64.b64decode(data)),
    ),
    "builtins:range": (range, lambda value: [value.start, value.stop, value.step], lambda data: range(*data)),
    "decimal:Decimal": (decimal.Decimal, str, decimal.Decimal),
    "fractions:Fraction": (fractions.Fraction, str, fractions.Fraction),
    "uuid:UUID": (uuid.UUID, str, uuid.UUID),
    "datetime:date": (datetime.date, datetime.date.isoformat, datetime.date.fromisoformat),
    "datetime:timedelta": (
        datetime.timedelta,
        lambda value: [value.days, value.seconds, value.microseconds],
        lambda data: datetime.timedelta(*data),
    ),
    "re:Pattern": (re.Pattern, lambda value: [value.pattern, value.flags], lambda data: re.compile(*data)),
    "zoneinfo:ZoneInfo": (zoneinfo.ZoneInfo, lambda value: value.key, zoneinfo.ZoneInfo),
    **{
        f"pathlib:{kind.__name__}": (kind, str, kind)
        for kind in (
            pathlib.PurePosixPath,
            pathlib.PureWindowsPath,
            pathlib.PosixPath,
            pathlib.WindowsPath,
        )
    },
    **{
        f"ipaddress:{kind.__name__}": (kind, str, kind)
        for kind in (
            ipaddress.IPv4Address,
            ipaddress.IPv6Address,
            ipaddress.IPv4Network,
            ipaddress.IPv6Network,
            ipaddress.IPv4Interface,
            ipaddress.IPv6Interface,
        )
    },
}
_NAMES = {kind: name for name, (kind, _, _) in _TEXT.items()}
_TIMES = {datetime.datetime: "datetime:datetime", datetime.time: "datetime:time"}
_KINDS_OF_TIMES: dict[str, Any] = {name: kind for kind, name in _TIMES.items()}

SCALARS: tuple[type, ...] = (*_NAMES, *_TIMES, AnyUrl, MultiHostUrl)
"""Their types; of an address its subclasses too."""


def scalar_node(value: Any) -> dict[str, Json] | None:
    """Return the fields of a scalar's node; None when it is none."""
    kind = type(value)
    if (name := _NAMES.get(kind)) is not None:
        if kind is re.Pattern and not isinstance(value.pattern, str):
            return None
        return {"$type": name, "value": _TEXT[name][1](value)}
    if (name := _TIMES.get(kind)) is not None:
        return {"$type": name, **_time_fields(value)}
    if isinstance(value, (AnyUrl, MultiHostUrl)):
        return {"$type": name_of_class(kind), "value": str(value)}
    return None


def is_scalar_name(name: str) -> bool:
    """Whether a node of this type name is a scalar of the standard library."""
    return name in _TEXT or name in _KINDS_OF_TIMES


def scalar_of(fields: dict[str, Json]) -> Any:
    """Return the scalar of a node of the standard library."""
    name = fields["$type"]
    if name in _TEXT:
        return _TEXT[name][2](fields["value"])
    value = _KINDS_OF_TIMES[name].fromisoformat(fields["value"])
    if "zone" in fields:
        value = value.replace(tzinfo=zoneinfo.ZoneInfo(fields["zone"]))
    elif fields.get("is_pydantic"):
        value = value.replace(tzinfo=TzInfo(value.utcoffset().total_seconds()))
    return value.replace(fold=fields.get("fold", 0))


def url_of(fields: dict[str, Json]) -> Any:
    """Return the address of a node."""
    return cast("Any", find_class(fields["$type"]))(fields["value"])


def _time_fields(value: Any) -> dict[str, Json]:
    """Return a time: its text, and what the text does not say of its time zone."""
    fields: dict[str, Json] = {"value": value.isoformat()}
    if isinstance(value.tzinfo, zoneinfo.ZoneInfo) and value.tzinfo.key:
        fields = {"value": value.replace(tzinfo=None).isoformat(), "zone": value.tzinfo.key}
    elif isinstance(value.tzinfo, TzInfo):
        fields["is_pydantic"] = True
    return fields | ({"fold": 1} if value.fold else {})
