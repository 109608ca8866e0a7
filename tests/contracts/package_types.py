"""What the installed releases of DBOS and of the Agents SDK have: members, and the types that their source declares."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import textwrap
import types
import typing
from dataclasses import dataclass
from functools import cache
from typing import Any

PACKAGES = ("dbos", "agents")


@dataclass(frozen=True)
class Value:
    """An expression whose value is known: a class, a function, a table, or a module, with the path that it came by."""

    value: Any
    path: str = ""


@dataclass(frozen=True)
class Instance:
    """An expression that is an instance of one of some classes, with the classes of what it contains."""

    classes: tuple[type, ...]
    items: Any = None


MISSING = Value(None)
"""What the release does not have: said once, and not again for what hangs on it."""


def is_foreign(kind: Any) -> bool:
    """Whether something is of one of the packages."""
    values = kind.classes if isinstance(kind, Instance) else [kind.value] if isinstance(kind, Value) else []
    return any(module_of(value).split(".")[0] in PACKAGES for value in values)


def module_of(value: Any) -> str:
    return value.__name__ if isinstance(value, types.ModuleType) else str(getattr(value, "__module__", None))


def name_of(kind: Value | Instance) -> str:
    value = kind.classes[0] if isinstance(kind, Instance) else kind.value
    if isinstance(value, types.ModuleType):
        return value.__name__
    return f"{module_of(value)}.{getattr(value, '__qualname__', type(value).__qualname__)}"


def member_of(owner: Value | Instance, name: str) -> Any:
    """Return what is known of a member; MISSING when there is none."""
    if isinstance(owner, Instance):
        found = [_of_instance(kind, name) for kind in owner.classes]
        return next((kind for kind in found if kind is not MISSING), MISSING)
    value = owner.value
    if not hasattr(value, name):
        if isinstance(value, types.ModuleType) and hasattr(value, "__path__"):
            return _submodule(f"{value.__name__}.{name}")
        return _of_instance(value, name) if isinstance(value, type) else MISSING
    annotation = vars(value).get("__annotations__", {}).get(name) if isinstance(value, types.ModuleType) else None
    if annotation is not None:
        return evaluated(annotation, value)
    member = getattr(value, name)
    return Value(member, f"{owner.path}.{name}" if isinstance(member, types.ModuleType) else "")


def _submodule(name: str) -> Any:
    try:
        return Value(importlib.import_module(name))
    except ImportError:
        return MISSING


def _of_instance(kind: type, name: str) -> Any:
    for each in kind.__mro__:
        annotation = vars(each).get("__annotations__", {}).get(name)
        member = vars(each).get(name)
        if isinstance(member, property):
            return evaluated(inspect.get_annotations(member.fget).get("return"), each)  # type: ignore[arg-type]
        if isinstance(member, (types.FunctionType, classmethod, staticmethod, type)):
            return Value(getattr(each, name))
        if annotation is not None:
            return evaluated(annotation, each)
        if name in vars(each):
            return Value(member) if module_of(type(member)) == "sqlalchemy.sql.schema" else None
        if each.__module__ != "builtins" and name in (assigned := _assigned(each)):
            return evaluated(assigned[name], each)
    return MISSING


@cache
def _assigned(kind: type) -> dict[str, str]:
    """Return the attributes that the methods of a class assign to their instance, with their annotation if any."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    except (OSError, TypeError):
        return {}
    found: dict[str, str] = {}
    for method in (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))):
        parameters = {each.arg: each.annotation for each in (*method.args.args, *method.args.kwonlyargs)}
        for node in ast.walk(method):
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            for target in targets if isinstance(node, (ast.Assign, ast.AnnAssign)) else []:
                if isinstance(target, ast.Attribute) and ast.unparse(target.value) == "self":
                    annotation = getattr(node, "annotation", None)
                    if annotation is None and isinstance(node.value, ast.Name):
                        annotation = parameters.get(node.value.id)
                    found[target.attr] = found.get(target.attr) or (ast.unparse(annotation) if annotation else "")
    return found


def evaluated(annotation: Any, owner: Any) -> Any:
    """Return what an annotation of the packages says, when it can be told."""
    if isinstance(annotation, str):
        try:
            annotation = eval(annotation, _namespace(module_of(owner)))
        except Exception:
            return None
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        kinds = [kind for each in arguments if isinstance(kind := evaluated(each, owner), Instance)]
        classes = tuple(kind for each in kinds for kind in each.classes if kind is not type(None))
        return Instance(classes, kinds[0].items) if classes else None
    if typing.get_origin(annotation) is type:
        return Value(arguments[0]) if isinstance(arguments[0], type) else None
    kind = typing.get_origin(annotation) or annotation
    items = evaluated(arguments[0], owner) if len(arguments) == 1 and kind in (list, set, tuple) else None
    return Instance((kind,), items) if isinstance(kind, type) else None


@cache
def _namespace(module: str) -> dict[str, Any]:
    """Return the names of a module of the packages, with those that it imports for the type checker alone."""
    loaded = importlib.import_module(module)
    names = dict(vars(loaded))
    for node in ast.walk(ast.parse(inspect.getsource(loaded))):
        if isinstance(node, ast.ImportFrom):
            source = importlib.util.resolve_name("." * node.level + (node.module or ""), loaded.__package__)
            for alias in node.names:
                if alias.name not in names and isinstance(kind := _submodule(source), Value) and kind is not MISSING:
                    names.setdefault(alias.asname or alias.name, getattr(kind.value, alias.name, None))
    return names
