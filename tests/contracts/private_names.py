"""Find every name of DBOS and of the Agents SDK that a module uses, in its syntax tree, and look it up in the release.

Nothing of Timestep is imported: a seam that the installed release breaks is read all the same, to its end. Types follow
from imports, annotations and the packages' own source; a private name whose owner stays unknown is a problem too.
"""

from __future__ import annotations

import ast
import importlib
import json
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cache
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

from package_types import MISSING, PACKAGES, Instance, Value, evaluated, is_foreign, member_of, module_of, name_of

CHECKS = ("check", "check_attributes", "check_columns")
"""Methods of `Release`."""

PRIVATE = re.compile(r"_[a-z]\w*")
BY_NAME = {
    "_client": (
        "agents.models.openai_responses.OpenAIResponsesModel",
        "agents.models.openai_chatcompletions.OpenAIChatCompletionsModel",
        "ollama.AsyncClient",
    ),
    "_api_key_provider": ("openai.AsyncOpenAI",),
}
"""Names that are looked for on whatever has them, and who has them."""


@dataclass(frozen=True, kw_only=True)
class Use:
    """A name of a package that a module uses; `problem` says what is wrong with it in the installed release."""

    line: int
    name: str
    is_private: bool
    problem: str = ""


@dataclass(frozen=True)
class Ours:
    """A function or class of Timestep, or with `is_instance` an instance of the class."""

    node: ast.AST
    names: Names
    is_instance: bool = False


@dataclass(frozen=True)
class Keys:
    """A dict that the code writes out."""

    nodes: tuple[ast.Constant, ...]


@dataclass
class Names:
    """The names of a module or function, and what is known of each; None when it is not known."""

    kinds: dict[str, Any] = field(default_factory=dict)
    outer: Names | None = None

    def find(self, name: str) -> Any:
        """Return what is known of a name, in this scope or one around it."""
        if name in self.kinds:
            return self.kinds[name]
        return self.outer.find(name) if self.outer is not None else None


def is_private(name: str) -> bool:
    """Whether a part of a dotted name is private."""
    return name == "run_internal" or PRIVATE.fullmatch(name) is not None


def uses_of(path: Path, root: Path) -> list[Use]:
    """Return the names of the packages that a module below `root` uses, in the order of its lines."""
    return sorted(_reader_of(path, root).uses, key=lambda use: (use.line, use.name))


@cache
def _reader_of(path: Path, root: Path) -> Reader:
    return Reader(path, root)


class Reader(ast.NodeVisitor):
    """Reads a module and notes what it uses."""

    def __init__(self, path: Path, root: Path) -> None:
        self.root, self.names, self.uses = root, Names(), set[Use]()
        self._class: Ours | None = None
        self._seen: set[int] = set()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                self.names.kinds[node.name] = Ours(node, self.names)
        self.visit(tree)
        for text in _private_texts([tree]):
            if id(text) not in self._seen:
                self._note(text, text.value, "is a text, of what it is the name is not known")

    # What is there, and what is known of it.

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            module = self._module(alias.name, node)
            if alias.asname is not None or "." not in alias.name:
                self.names.kinds[alias.asname or alias.name] = module

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        source = node.module or ""
        module = self._module(source, node)
        for alias in node.names:
            kind = self._member(module, alias.name, node) if isinstance(module, Value) else None
            if source.startswith("timestep."):
                kind = self._of_timestep(source, alias.name)
            self.names.kinds[alias.asname or alias.name] = kind

    def _module(self, name: str, node: ast.AST) -> Any:
        package = name.split(".", maxsplit=1)[0]
        if package == "timestep":
            return None
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            if package in PACKAGES:
                self._note(node, name, str(error))
            return MISSING
        if package in PACKAGES and any(map(is_private, name.split("."))):
            self._note(node, name)
        return Value(module, name)

    def _of_timestep(self, module: str, name: str) -> Any:
        path = self.root.joinpath(*module.split(".")).with_suffix(".py")
        return _reader_of(path, self.root).names.find(name) if path.is_file() else None

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        outside, names = self._class, self.names
        self._class = Ours(node, names, is_instance=True)
        names.kinds[node.name] = Ours(node, names)
        self.names = Names(outer=names)
        self.generic_visit(node)
        self._class, self.names = outside, names

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.names.kinds[node.name] = Ours(node, self.names)
        for each in [*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults)]:
            self.visit(each)
        self.names = Names(outer=self.names)
        for each in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]:
            is_self = self._class is not None and each.arg in ("self", "cls") and each.annotation is None
            self.names.kinds[each.arg] = self._class if is_self else self._annotated(each.annotation, self.names)
        for statement in node.body:
            self.visit(statement)
        assert self.names.outer is not None
        self.names = self.names.outer

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815 - the names are those of the syntax tree

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        for target in node.targets:
            self._bind(target, node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.generic_visit(node)
        if isinstance(node.target, ast.Name):
            known = self._kind(node.value) if node.value is not None else None
            self.names.kinds[node.target.id] = self._annotated(node.annotation, self.names) or known

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.generic_visit(node)
        self._bind(node.target, node.value)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        for value in node.values:
            self.visit(value)
            match value:
                case ast.Call(func=ast.Name(id="isinstance"), args=[ast.Name(id=name), kind]):
                    self.names.kinds[name] = self._annotated(kind, self.names) or self.names.find(name)

    def visit_With(self, node: ast.With) -> None:
        for item in node.items:
            self.visit(item.context_expr)
            if isinstance(item.optional_vars, ast.Name):
                self.names.kinds[item.optional_vars.id] = None
        for statement in node.body:
            self.visit(statement)

    def visit_For(self, node: ast.For) -> None:
        self.visit(node.iter)
        elements = node.iter.elts if isinstance(node.iter, ast.Tuple) else [None]
        for element in elements:  # what is written out is read once for each
            if element is None:
                self._bind_items(node.target, node.iter)
            else:
                self._bind(node.target, element)
            for statement in [*node.body, *node.orelse]:
                self.visit(statement)

    def visit_ListComp(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> None:
        self.names = Names(outer=self.names)
        for generator in node.generators:
            self.visit(generator.iter)
            self._bind_items(generator.target, generator.iter)
            for condition in generator.ifs:
                self.visit(condition)
        for each in (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,):
            self.visit(each)
        assert self.names.outer is not None
        self.names = self.names.outer

    visit_SetComp = visit_GeneratorExp = visit_DictComp = visit_ListComp  # noqa: N815

    def _bind(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Name):
            self.names.kinds[target.id] = self._kind(value)
        elif isinstance(target, ast.Attribute) and isinstance(owner := self._kind(target.value), Ours):
            owner.names.kinds[f"{getattr(owner.node, 'name', '')}.{target.attr}"] = self._kind(value)
        elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
            for each, its in zip(target.elts, value.elts, strict=True):
                self._bind(each, its)
        elif isinstance(target, ast.Tuple):
            for each in target.elts:
                if isinstance(each, ast.Name):  # it keeps the type that it was declared with
                    self.names.kinds.setdefault(each.id, None)

    def _bind_items(self, target: ast.expr, iterable: ast.expr) -> None:
        kind = self._kind(iterable)
        for each in ast.walk(target):
            if isinstance(each, ast.Name):
                self.names.kinds[each.id] = None
        if isinstance(target, ast.Name) and isinstance(kind, Instance):
            self.names.kinds[target.id] = kind.items

    # What is used.

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.visit(node.value)
        owner = self._kind(node.value)
        if is_foreign(owner):
            self._member(owner, node.attr, node)
        elif is_private(node.attr) and not isinstance(owner, (Ours, Value)):
            self._note(node, node.attr, f"the type of {ast.unparse(node.value)!r} is not known")

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        function = self._kind(node.func)
        owners = [kind for each in node.args if is_foreign(kind := self._kind(each)) or kind is MISSING]
        for text in _private_texts(node.args):
            if id(text) in self._seen:
                continue
            self._seen.add(id(text))
            if owners and text.value not in BY_NAME:
                self._member(owners[0], text.value, text)
            elif text.value in BY_NAME:
                for owner in BY_NAME[text.value]:
                    module, _, name = owner.rpartition(".")
                    kind = Instance((getattr(importlib.import_module(module), name),))
                    problem = "" if member_of(kind, text.value) is not MISSING else "it is not there"
                    self._note(text, f"{owner}.{text.value}", problem)
            else:
                self._note(text, text.value, "is a text, of what it is the name is not known")
        if isinstance(function, Value) and is_foreign(function):
            self._keywords(function.value, node)
        match node.func:
            case ast.Attribute(value=ast.Name(id=release), attr=check) if release.endswith("RELEASE"):
                if check in CHECKS:
                    self._checked(check, node)

    def _keywords(self, function: Any, node: ast.Call) -> None:
        """Look for the names of arguments that are private, or in a dict that is written out."""
        given: list[tuple[ast.AST, str]] = [(each.value, each.arg) for each in node.keywords if each.arg is not None]
        for each in node.keywords:
            kind = self._kind(each.value) if each.arg is None else None
            if isinstance(kind, Keys):
                self._seen |= {id(key) for key in kind.nodes}
                given += [(key, key.value) for key in kind.nodes]
        try:
            parameters = signature(function).parameters.values()
        except (TypeError, ValueError):
            return
        if any(each.kind is Parameter.VAR_KEYWORD for each in parameters):
            return
        names = {each.name for each in parameters}
        for place, name in given:
            problem = "" if name in names else "there is no such argument"
            self._note(place, f"{function.__module__}.{function.__qualname__}({name}=)", problem, names=name)

    def _checked(self, check: str, node: ast.Call) -> None:
        """Repeat a check of the module itself, on the parameters of a function or the columns of a table."""
        kind, expected = self._kind(node.args[0]), node.args[1]
        if isinstance(expected, ast.Name):
            expected = self.names.find(expected.id)
        if kind is MISSING:
            return
        if not isinstance(kind, (Value, Instance)) or not isinstance(expected, ast.expr):
            self._note(node, ast.unparse(node.args[0]), "this check cannot be repeated")
            return
        wanted, flags = ast.literal_eval(expected), {each.arg: ast.literal_eval(each.value) for each in node.keywords}
        if check == "check_attributes":
            for name in wanted:
                self._member(kind, name, node)
            return
        assert isinstance(kind, Value)
        if check == "check_columns":
            name, found = f"the table {kind.value.name}", [column.name for column in kind.value.c]
            fits = set(wanted) == set(found) if flags.get("are_all") else set(wanted) <= set(found)
        else:
            name, found = f"{module_of(kind.value)}.{kind.value.__qualname__}", list(signature(kind.value).parameters)
            fits = wanted == found if flags.get("are_all", True) else set(wanted) <= set(found)
        if not fits:
            self._note(node, name, f"it has {found}, expected {sorted(wanted)}")

    def _member(self, owner: Any, name: str, node: ast.AST) -> Any:
        """Return what is known of a member of something of the packages; note that it is used."""
        if owner is MISSING:
            return MISSING
        found = member_of(owner, name)
        is_added = isinstance(getattr(node, "ctx", None), ast.Store) and not is_private(name)
        if is_foreign(owner):
            path = owner.path if isinstance(owner, Value) else ""
            problem = "" if found is not MISSING or is_added else "it is not there"
            self._note(node, f"{name_of(owner)}.{name}", problem, names=f"{path}.{name}")
        return found

    def _note(self, node: ast.AST, name: str, problem: str = "", *, names: str | None = None) -> None:
        """Note a use; it is private when a part of `names` is, of the whole name when absent."""
        private = any(map(is_private, (name if names is None else names).split(".")))
        self.uses.add(Use(line=getattr(node, "lineno", 0), name=name, is_private=private, problem=problem))

    def _kind(self, node: ast.expr | None) -> Any:  # noqa: PLR0911 - one for each kind of expression
        match node:
            case ast.Name():
                return self.names.find(node.id)
            case ast.Attribute():
                return self._kind_of_attribute(node)
            case ast.Call():
                return self._kind_of_call(node)
            case ast.Await() | ast.NamedExpr():
                return self._kind(node.value)
            case ast.Dict() if node.keys and all(isinstance(key, ast.Constant) for key in node.keys):
                return Keys(tuple(key for key in node.keys if isinstance(key, ast.Constant)))
            case ast.List() | ast.Set():
                return node
            case ast.BoolOp() | ast.IfExp():
                parts = node.values if isinstance(node, ast.BoolOp) else [node.body, node.orelse]
                return next((kind for each in parts if (kind := self._kind(each)) is not None), None)
            case _:
                return None

    def _kind_of_attribute(self, node: ast.Attribute) -> Any:
        owner = self._kind(node.value)
        if isinstance(owner, Ours):
            return self._of_ours(owner, node.attr)
        if owner is MISSING or not isinstance(owner, (Value, Instance)):
            return owner if owner is MISSING else None
        return member_of(owner, node.attr)

    def _kind_of_call(self, node: ast.Call) -> Any:
        function = self._kind(node.func)
        if isinstance(function, Ours) and isinstance(function.node, ast.ClassDef):
            return Ours(function.node, function.names, is_instance=True)
        if isinstance(function, Ours) and isinstance(function.node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return self._annotated(function.node.returns, function.names)
        if not isinstance(function, Value) or function is MISSING:
            return function if function is MISSING else None
        if isinstance(function.value, type):
            return Instance((function.value,))
        if getattr(function.value, "__module__", "") == "copy" and node.args:  # a copy is what it is a copy of
            return self._kind(node.args[0])
        return evaluated(getattr(function.value, "__annotations__", {}).get("return"), function.value)

    def _of_ours(self, owner: Ours, name: str) -> Any:
        """Return what is known of an attribute of a class of Timestep: what its constructor assigns, or a method."""
        for node in ast.walk(owner.node):
            match node:
                case ast.FunctionDef(name=found) | ast.AsyncFunctionDef(name=found) if found == name:
                    return Ours(node, owner.names)
        return owner.names.find(f"{getattr(owner.node, 'name', '')}.{name}")

    def _annotated(self, annotation: ast.expr | None, names: Names) -> Any:
        match annotation:
            case ast.Constant(value=str() as text):
                return self._annotated(ast.parse(text, mode="eval").body, names)
            case ast.BinOp():
                sides = [self._annotated(each, names) for each in (annotation.left, annotation.right)]
                classes = [each for side in sides if isinstance(side, Instance) for each in side.classes]
                ours = [side for side in sides if isinstance(side, Ours)]
                return Instance(tuple(classes)) if classes else ours[0] if ours else None
            case ast.Subscript():
                return self._annotated(annotation.value, names)
            case ast.Name() | ast.Attribute():
                outside, self.names = self.names, names
                kind = self._kind(annotation)
                self.names = outside
                return _instance_of(kind)
            case _:
                return None


def _instance_of(kind: Any) -> Any:
    if isinstance(kind, Ours):
        return Ours(kind.node, kind.names, is_instance=True)
    is_class = isinstance(kind, Value) and isinstance(kind.value, type)
    return kind if kind is MISSING else Instance((kind.value,)) if is_class else None


def _private_texts(nodes: Iterable[ast.AST]) -> Iterator[ast.Constant]:
    for node in (each for outer in nodes for each in ast.walk(outer)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and PRIVATE.fullmatch(node.value):
            yield node


if __name__ == "__main__":  # in a process of its own, where nothing of the packages is replaced yet
    root, *modules = map(Path, sys.argv[1:])
    print(json.dumps({str(module): [asdict(use) for use in uses_of(module, root)] for module in modules}))
