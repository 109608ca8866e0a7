"""Values of every kind that a tool can return, and strategies that make more of them."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import ipaddress
import pathlib
import re
import uuid
import zoneinfo
from typing import Any, ClassVar, Generic, NamedTuple, TypedDict, TypeVar

from hypothesis import strategies as st
from pydantic import (
    AnyUrl,
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    PrivateAttr,
    RootModel,
    TypeAdapter,
    computed_field,
    field_validator,
    model_validator,
)
from pydantic.dataclasses import dataclass as pydantic_dataclass

T = TypeVar("T")


class Aliased(BaseModel):
    order_id: str = Field(alias="orderId")
    other: str = Field(default="x", serialization_alias="otherName", validation_alias="other-name")


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")

    net: int

    @computed_field
    @property
    def gross(self) -> int:
        return self.net * 2


class Cents(BaseModel):
    cents: int

    @field_validator("cents", mode="before")
    @classmethod
    def from_dollars(cls, value: Any) -> Any:
        return value * 100


class Counted(BaseModel):
    count: int = 0

    @model_validator(mode="after")
    def count_up(self) -> Counted:
        self.__dict__["count"] += 1
        return self


class Animal(BaseModel):
    name: str


class Dog(Animal):
    tricks: list[str] = []


class Owner(BaseModel):
    pet: Animal
    pets: list[Animal] = []


class Hiding(BaseModel):
    shown: int
    hidden: str = Field(default="", exclude=True)
    _note: str = PrivateAttr(default="none")


class Numbers(BaseModel):
    number: float
    raw: bytes = b""


class Page(BaseModel, Generic[T]):
    items: list[T]
    next: Page[T] | None = None


class Open(BaseModel):
    model_config = ConfigDict(extra="allow", arbitrary_types_allowed=True)

    base: Any = None


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)

    x: int


class Names(RootModel[list[str]]):
    pass


class Moments(BaseModel):
    at: datetime.datetime
    on: datetime.date | None = None
    took: datetime.timedelta | None = None


class Color(enum.Enum):
    RED = "red"
    BLUE = ("blue", 1)


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Word(str, enum.Enum):  # noqa: UP042 - its text is not its value
    YES = "yes"


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


class Pair(NamedTuple):
    left: Any
    right: Any = None


class Ticket(TypedDict, total=False):
    title: str
    due: datetime.date


@dataclasses.dataclass
class Line:
    sku: str
    price: decimal.Decimal
    at: datetime.datetime | None = None
    color: Color = Color.RED
    tags: set[str] = dataclasses.field(default_factory=set)
    parts: list[Line] = dataclasses.field(default_factory=list)
    VERSION: ClassVar[int] = 1

    @functools.cached_property
    def computed(self) -> str:
        return self.sku.upper()


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    a: int
    b: tuple[int, ...] = ()


@dataclasses.dataclass(eq=False)
class Identity:
    a: int


@dataclasses.dataclass
class Total:
    lines: dataclasses.InitVar[list[int]]
    total: int = dataclasses.field(init=False)

    def __post_init__(self, lines: list[int]) -> None:
        self.total = sum(lines)
        self.average = self.total / max(len(lines), 1)


@pydantic_dataclass
class Checked:
    cents: int

    @field_validator("cents", mode="before")
    @classmethod
    def from_dollars(cls, value: Any) -> Any:
        return value * 100


@dataclasses.dataclass
class Box(Generic[T]):
    content: T


class Outer:
    class Inner(BaseModel):
        x: int


class Money(decimal.Decimal):
    """A subclass that only its own constructor makes: it is not kept."""


class Label(str):
    """A text of its own kind."""


class Basket(list[Any]):
    """A list of its own kind, with a name."""


def hiding() -> Hiding:
    value = Hiding(shown=1, hidden="two")
    value._note = "three"  # pyright: ignore[reportPrivateUsage] - the test is about it
    return value


def basket() -> Basket:
    value = Basket([1, (2, 3)])
    value.name = "b"  # type: ignore[attr-defined]
    return value


def opened() -> Open:
    return Open.model_validate({"base": (1, 2), "more": {1: {2, 3}}, "type": "x"})


NAN = float("nan")
PARIS = zoneinfo.ZoneInfo("Europe/Paris")
NOON = datetime.datetime(2026, 1, 2, 12, 0, 0, 5, tzinfo=datetime.UTC)

MODELS: list[Any] = [
    Aliased.model_validate({"orderId": "7"}),
    Strict(net=5),
    Cents(cents=5),
    Counted(),
    Owner(pet=Dog(name="rex", tricks=["sit"]), pets=[Dog(name="b"), Animal(name="c")]),
    hiding(),
    Numbers(number=NAN),
    Numbers(number=float("-inf"), raw=b"\xff\xfe\x00"),
    Page[int](items=[1, 2]),
    Page[Page[str] | None](items=[None, Page[str](items=["a"])]),
    Page[dict[str, Line]](items=[{"a": Line("x", decimal.Decimal("1.10"))}], next=Page[dict[str, Line]](items=[])),
    Page(items=[1]),
    opened(),
    Frozen(x=1),
    Names(["a", "b"]),
    Moments(at=NOON, on=NOON.date(), took=datetime.timedelta(days=-1, microseconds=3)),
    TypeAdapter(Moments).validate_json('{"at": "2026-01-02T03:04:05.678+02:00"}'),
    Cents.model_construct(cents="not a number"),
    Outer.Inner(x=1),
    Open(base=HttpUrl("https://example.com/a?b=c#d"), url=AnyUrl("ftp://x/y")),  # type: ignore[call-arg]
]

OTHERS: list[Any] = [
    Line("a", decimal.Decimal("NaN"), NOON, Color.BLUE, {"x", "y"}, [Line("b", decimal.Decimal("2.50"))]),
    Slotted(1, (2, 3)),
    Identity(5),
    Total([1, 2]),
    Checked(5),
    Box[int](3),
    Pair(1, Pair(None, {1})),
    Ticket(title="t", due=NOON.date()),
    Color.RED, Level.HIGH, Word.YES, Rights.READ, Rights.READ | Rights.WRITE,
    decimal.Decimal("1.10"), fractions.Fraction(1, 3), 1 + 2j, NAN, float("inf"), -0.0,
    NOON, NOON.replace(tzinfo=None), NOON.replace(tzinfo=PARIS), NOON.time(), NOON.date(),
    datetime.datetime(2026, 10, 25, 2, 30, tzinfo=PARIS, fold=1),
    datetime.time(1, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=-3))),
    datetime.timedelta(seconds=1), PARIS,
    uuid.UUID(int=7), pathlib.PurePosixPath("/a/b"), pathlib.Path("x"), pathlib.PureWindowsPath("c:\\x"),
    ipaddress.ip_address("10.0.0.1"), ipaddress.ip_network("fe80::/10"), re.compile("a+", re.IGNORECASE),
    b"\xff\x00", bytearray(b"a"), range(1, 9, 2),
    (1, (2,)), {1, 2, 3}, frozenset({(1, 2), ("a", "b")}), {1: "one", (1, 2): {"x": None}, None: 1},
    {"$type": "shop.Nothing", "value": (1,)}, {"fields": 1, "$type": "structure"}, [{"$type": "dict"}],
    collections.OrderedDict(b=1, a=(2,)), collections.Counter("abca"), collections.deque([1, 2], maxlen=3),
    collections.defaultdict(list, {"a": [1]}),
    Label("text"), basket(),
    10**5000, "", None, True, [], {},
]  # fmt: skip


def describe(value: Any) -> str:
    """Return all that there is in a value: types, attributes and parts, the order of sets apart."""
    if isinstance(value, (set, frozenset)):
        return f"{type(value)}{sorted(describe(part) for part in value)}"
    if isinstance(value, dict):
        inner = ", ".join(f"{describe(key)}: {describe(part)}" for key, part in value.items())
        return f"{type(value)}{{{inner}}}"
    if isinstance(value, (list, tuple, collections.deque)):
        return f"{type(value)}[{', '.join(describe(part) for part in value)}] {getattr(value, 'name', '')}"
    parts: dict[str, Any] = {}
    if hasattr(type(value), "__dataclass_fields__") or hasattr(type(value), "model_fields"):
        names = (
            "__pydantic_extra__",
            "__pydantic_private__",
            "__pydantic_fields_set__",
            *getattr(value, "__slots__", ()),
        )
        parts = {
            name: getattr(value, name)
            for name in names
            if hasattr(value, name) and name not in ("__dict__", "__weakref__")
        }
        parts |= {name: part for name, part in getattr(value, "__dict__", {}).items() if not name.startswith("__")}
    if parts:
        return f"{type(value)}({', '.join(f'{name}={describe(part)}' for name, part in parts.items())})"
    return f"{type(value)} {value.bit_length() if isinstance(value, int) and value.bit_length() > 9999 else value!r}"


ZOO: list[Any] = [*MODELS, *OTHERS, MODELS, OTHERS, {"all": OTHERS, "models": (MODELS,)}]

TEXT = st.text(max_size=8)
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.binary(max_size=8)
    | st.decimals() | st.fractions() | st.uuids() | st.dates() | st.timedeltas()
    | st.datetimes(timezones=st.none() | st.just(datetime.UTC) | st.just(PARIS)) | st.times()
    | st.complex_numbers() | st.ip_addresses()
    | st.sampled_from([*Color, *Level, *Word, *Rights, pathlib.PurePosixPath("/x")])
)  # fmt: skip
HASHABLE = st.integers() | TEXT | st.booleans() | st.dates() | st.tuples(st.integers(), TEXT)


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return (
        st.lists(inner, max_size=3)
        | st.dictionaries(TEXT | st.just("$type"), inner, max_size=3)
        | st.dictionaries(HASHABLE, inner, max_size=3)
        | st.tuples(inner, inner)
        | st.sets(HASHABLE, max_size=3)
        | st.frozensets(HASHABLE, max_size=3)
        | st.builds(lambda value: Open(base=value, more=[value]), inner)  # type: ignore[call-arg]
        | st.builds(lambda value: Page[Any](items=[value]), inner)
        | st.builds(lambda value: Box(value), inner)  # noqa: PLW0108 - builds would guess the types
        | st.builds(lambda value: Pair(value), inner)  # noqa: PLW0108 - the same
        | st.builds(lambda value: Line("a", decimal.Decimal(1), parts=[value]), inner)
        | st.builds(lambda value: Numbers.model_construct(number=value), inner)
        | st.builds(lambda value: collections.deque([value], 4), inner)
    )


VALUES = st.recursive(SCALARS, _containers, max_leaves=10)
