"""Writes `tenantry.sync` from the asynchronous API: `python -m scripts.sync`; `--check` says whether it is current.

Only signatures, types and docstrings are carried over. What a method does stays where it is: the generated one runs
the asynchronous one on the loop of its session.
"""

from __future__ import annotations

import ast
import copy
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "tenantry"

# module -> its classes that have a synchronous twin
CLASSES = {
    "tenants": (
        "TenantManager",
        "TenantFlags",
        "BoundSettings",
        "Members",
        "Invitations",
        "APIKeys",
        "Support",
    ),
    "data": ("DataManager",),
    "insights": ("Insights",),
    "sdk": ("TenantHandle", "SupportHandle", "SystemHandle", "MultiTenantSDK"),
}
TWINS = {name: module for module, names in CLASSES.items() for name in names}
ROOT_CLASS = "MultiTenantSDK"
# What opens and closes the SDK, and the method of the session that does it.
LIFE = {"initialize": "open", "close": "close"}
# What may be called before the SDK is open.
ANYTIME = {"on", "add_join_check", "add_within_hook", "add_after_hook", "get_metrics"}
# Blocks that give one connection, which is for the thread that opened them.
PINNED = {"transaction"}
# What runs a function of the caller's in a block, in the caller's own thread, as often as it takes.
REPEATED = {"run_transaction": "transaction"}
# What only an event loop can use; synchronous code binds a session of its own, with `sdk.bind`.
LEFT_OUT = {("TenantHandle", "session")}
# What the asynchronous object is called in the calls that are passed on to it; no parameter may be called so.
SELF = "it"

HEADER = '"""{doc}\n\nWritten by `python -m scripts.sync`; do not edit.\n"""\n\nfrom __future__ import annotations\n\n'
DOCS = {
    "tenants": "The tenants, for synchronous code.",
    "data": "Reading and writing the rows of one tenant, for synchronous code.",
    "insights": "What queries cost and what makes them cheaper, for synchronous code.",
    "sdk": "The SDK, for synchronous code.",
}
WORDS = (
    (r"\basync (with|for)\b", r"\1"),
    (r"\bawait ", ""),
)

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Unknown(Exception):
    """The asynchronous API has something of which no rule here says what becomes of it."""


def main(arguments: Sequence[str]) -> int:
    """Write the files; with ``--check`` only say which are stale."""
    stale = []
    for module in CLASSES:
        path = PACKAGE / "sync" / f"{module}.py"
        text = formatted(generated(module, sources(module)))
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(path)
            if "--check" not in arguments:
                path.write_text(text, encoding="utf-8")
    if "--check" not in arguments:
        return 0
    for path in stale:
        print(f"{path.relative_to(ROOT)} is not what the asynchronous API says; run: python -m scripts.sync")
    return 1 if stale else 0


def formatted(text: str) -> str:
    """Return the text as ruff formats and sorts it."""
    ruff = str(Path(sys.executable).parent / "ruff")
    name = ("--stdin-filename", str(PACKAGE / "sync" / "generated.py"))
    for command in (("check", "--quiet", "--fix", "--select", "I", *name, "-"), ("format", *name, "-")):
        done = subprocess.run(
            [ruff, *command], input=text, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
        )
        text = done.stdout
    return text


def sources(module: str) -> dict[str, str]:
    """Return the text of a module, or of each module of a package, by its dotted name."""
    folder = PACKAGE / module
    files = sorted(folder.glob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
    names = {path: f"{module}.{path.stem}" if folder.is_dir() else module for path in files}
    return {name: path.read_text(encoding="utf-8") for path, name in names.items() if path.stem != "__init__"}


def generated(module: str, texts: Mapping[str, str]) -> str:
    """Return the module that is the synchronous twin of ``module``, made of the given texts."""
    trees = {name: ast.parse(text) for name, text in texts.items()}
    found = {
        node.name: node for tree in trees.values() for node in tree.body if isinstance(node, ast.ClassDef)
    }
    classes = [Twin(_whole(found[name], found)).node() for name in CLASSES[module]]
    for twin in classes:
        ast.fix_missing_locations(twin)
    imports = _imports(module, trees, classes)
    return (
        HEADER.format(doc=DOCS[module])
        + "\n".join(imports)
        + "\n\n\n"
        + "\n\n\n".join(map(ast.unparse, classes))
    )


def _whole(node: ast.ClassDef, found: Mapping[str, ast.ClassDef]) -> ast.ClassDef:
    """Return a class with what it inherits from others of its package, each of which holds some of its calls."""
    bases = [found[name] for name in map(ast.unparse, node.bases) if name in found]
    whole = copy.copy(node)
    inherited = [item for base in bases for item in _whole(base, found).body if isinstance(item, Function)]
    doc, own = node.body[:1], node.body[1:]
    whole.body = [*doc, *(item for item in inherited if item.name != "__init__"), *own]
    return whole


class Twin:
    """The synchronous twin of one class."""

    def __init__(self, source: ast.ClassDef) -> None:
        self._source = source
        self._overloaded: set[str] = set()

    def node(self) -> ast.ClassDef:
        """Return the class."""
        doc = ast.get_docstring(self._source)
        if doc is None:
            raise Unknown(f"{self._source.name} has no docstring")
        body: list[ast.stmt] = [_doc(doc)]
        for item in self._source.body:
            if isinstance(item, Function):
                body += self._method(item)
        twin = copy.copy(self._source)
        twin.bases, twin.body = [_expression(self._base())], body
        return twin

    def _base(self) -> str:
        return "Root" if self._source.name == ROOT_CLASS else f"Bound[asynchronous.{self._source.name}]"

    def _method(self, source: Function) -> Iterator[ast.stmt]:
        if source.name == "__init__":
            yield from self._constructor(source)
        elif source.name in ("__aenter__", "__aexit__"):
            yield self._edge(source)
        elif not source.name.startswith("_") and (self._source.name, source.name) not in LEFT_OUT:
            yield self._public(source)

    # -- construction

    def _constructor(self, source: Function) -> Iterator[ast.stmt]:
        if self._source.name == ROOT_CLASS:
            yield _function(source, f"self._stand_for(asynchronous.{ROOT_CLASS}({_arguments(source)}))")
            return
        types = {argument.arg: argument.annotation for argument in source.args.args}
        for statement in source.body:
            name, annotation = _attribute(statement, types)
            if name is not None and not name.startswith("_"):
                yield self._property(name, annotation)

    def _property(self, name: str, annotation: ast.expr | None) -> ast.stmt:
        if annotation is None:
            raise Unknown(f"{self._source.name}.{name} has no type")
        kind = ast.unparse(annotation)
        body = self._wrapped(kind, name) or f"self._known().{name}"
        decorator = "cached_property" if kind in TWINS else "property"
        doc = f"What the asynchronous class has as ``{name}``."
        return ast.parse(
            f'@{decorator}\ndef {name}(self) -> {kind}:\n    """{doc}"""\n    return {body}'
        ).body[0]

    def _edge(self, source: Function) -> ast.stmt:
        """Return ``__enter__`` or ``__exit__``."""
        if self._source.name == ROOT_CLASS:
            return _function(
                source, f"self._session.{'open' if source.name == '__aenter__' else 'close'}()", edge=True
            )
        return _function(
            source, f"self._run(lambda {SELF}: {SELF}.{source.name}({_arguments(source)}))", edge=True
        )

    # -- methods

    def _public(self, source: Function) -> ast.stmt:
        decorators = {ast.unparse(decorator) for decorator in source.decorator_list}
        if "overload" in decorators:
            self._overloaded.add(source.name)
            return _function(source, None)
        returns = "" if source.returns is None else ast.unparse(source.returns)
        call = f"{SELF}.{source.name}" + ("" if "property" in decorators else f"({_arguments(source)})")
        if "asynccontextmanager" in decorators:
            return self._block(source, call)
        if "contextmanager" in decorators:
            return self._own_thread(source)
        if "classmethod" in decorators:
            arguments = _arguments(source)
            return _function(
                source, f"cls._standing_for(asynchronous.{self._source.name}.{source.name}({arguments}))"
            )
        if self._source.name == ROOT_CLASS and source.name in LIFE:
            return _function(source, f"self._session.{LIFE[source.name]}()")
        if returns.startswith("Stream["):
            return _function(source, f"Stream(self, lambda {SELF}: {call})")
        if source.name in REPEATED:
            return self._repeated(source)
        if isinstance(source, ast.AsyncFunctionDef):
            return self._waiting(source, call, returns)
        if "Async" in returns or "Await" in returns or not decorators <= {"property"}:
            raise Unknown(f"{self._source.name}.{source.name}: no rule for {sorted(decorators)} -> {returns}")
        if source.name in ANYTIME:
            return _function(source, f"self._anytime(lambda {SELF}: {call})")
        if "property" in decorators:
            return _function(source, self._wrapped(returns, source.name) or f"self._ready().{source.name}")
        call = call.removeprefix(f"{SELF}.")
        return _function(source, self._wrapped(returns, call) or f"self._now(lambda {SELF}: {SELF}.{call})")

    def _waiting(self, source: Function, call: str, returns: str) -> ast.stmt:
        if returns in TWINS or "Async" in returns:
            raise Unknown(f"{self._source.name}.{source.name}: no rule for a coroutine -> {returns}")
        if source.name not in self._overloaded:
            return _function(source, f"self._run(lambda {SELF}: {call})")
        body = f"self._pass_on(lambda {SELF}: {call})"
        if returns in ("None", "Any"):
            return _function(source, body)
        return _function(source, f"result: {returns} = {body}", then="return result")

    def _repeated(self, source: Function) -> ast.stmt:
        """Return what runs a synchronous function in the blocks of the twin."""
        twin = copy.deepcopy(source)
        for argument in (*twin.args.args, *twin.args.kwonlyargs):
            if argument.annotation is not None:
                plain = re.sub(r"Awaitable\[(\w+)\]", r"\1", ast.unparse(argument.annotation))
                argument.annotation = _expression(plain)
        passed = [item.arg for item in twin.args.kwonlyargs if item.arg != "attempts"]
        block = f"self.{REPEATED[source.name]}({', '.join(f'{name}={name}' for name in passed)})"
        return _function(twin, f"run_again(lambda: {block}, work, attempts)")

    def _block(self, source: Function, call: str) -> ast.stmt:
        found = re.fullmatch(r"AsyncIterator\[(\w+)\]", ast.unparse(source.returns) if source.returns else "")
        if found is None or found[1] not in TWINS:
            raise Unknown(f"{self._source.name}.{source.name} is a block of something without a twin")
        pinned = source.name in PINNED
        body = f"Block(self, lambda {SELF}: {call}, {found[1]}, pinned={pinned})"
        return _function(source, body, returns=f"AbstractContextManager[{found[1]}]")

    def _own_thread(self, source: Function) -> ast.stmt:
        """Return a block that was synchronous already: it stays in its thread, and only what it awaits leaves it."""
        found = re.fullmatch(r"Iterator\[(\w+)\]", ast.unparse(source.returns) if source.returns else "")
        if found is None or found[1] in TWINS:
            raise Unknown(f"{self._source.name}.{source.name} is a block of something that needs a twin")
        return _function(
            source,
            f"self._{source.name}({_arguments(source)})",
            returns=f"AbstractContextManager[{found[1]}]",
        )

    def _wrapped(self, kind: str, found: str) -> str | None:
        """Return what makes the twin of ``found``, if its type has one."""
        if kind not in TWINS:
            return None
        return f"{kind}(self._session, lambda: self._target().{found}, self._pin)._checked()"


def _function(
    source: Function,
    body: str | None,
    *,
    then: str = "",
    returns: str | None = None,
    edge: bool = False,
) -> ast.stmt:
    """Return a synchronous function with the signature and docstring of ``source``."""
    decorators = [
        item
        for item in source.decorator_list
        if ast.unparse(item) not in ("asynccontextmanager", "contextmanager")
    ]
    returned = source.returns if returns is None else _expression(returns)
    made = ast.FunctionDef(source.name, source.args, [], decorators, returned, lineno=source.lineno)
    doc = ast.get_docstring(source)
    made.body = [] if doc is None else [_doc(doc)]
    if body is None:
        made.body.append(ast.Expr(ast.Constant(...)))
        return made
    silent = made.returns is None or ast.unparse(made.returns) == "None"
    if edge:
        made.name = source.name.replace("__a", "__")
        then = "return self" if source.name == "__aenter__" else ""
        silent = silent or bool(then)
    made.body += ast.parse(body if silent or then else f"return {body}").body
    made.body += ast.parse(then).body
    return made


def _arguments(source: Function) -> str:
    """Return what passes every parameter on."""
    args = source.args
    if SELF in {node.arg for node in ast.walk(args) if isinstance(node, ast.arg)}:
        raise Unknown(f"{source.name} has a parameter {SELF!r}; choose another word for SELF")
    positional = [argument.arg for argument in (*args.posonlyargs, *args.args)][1:]
    passed = [*positional, *([f"*{args.vararg.arg}"] if args.vararg else [])]
    passed += [f"{argument.arg}={argument.arg}" for argument in args.kwonlyargs]
    return ", ".join([*passed, *([f"**{args.kwarg.arg}"] if args.kwarg else [])])


def _attribute(statement: ast.stmt, types: dict[str, ast.expr | None]) -> tuple[str | None, ast.expr | None]:
    """Return name and type of the attribute that a statement of a constructor sets."""
    target: ast.expr | None = None
    annotation: ast.expr | None = None
    if isinstance(statement, ast.AnnAssign):
        target, annotation = statement.target, statement.annotation
    elif isinstance(statement, ast.Assign):
        target = statement.targets[0]
        if isinstance(statement.value, ast.Name):
            annotation = types.get(statement.value.id)
    return (target.attr, annotation) if isinstance(target, ast.Attribute) else (None, None)


def _doc(text: str) -> ast.stmt:
    for pattern, replacement in WORDS:
        text = re.sub(pattern, replacement, text)
    lines = text.splitlines()
    indented = [lines[0], *(f"    {line}" if line else "" for line in lines[1:])]
    if len(lines) > 1:
        indented.append("    ")
    return ast.Expr(ast.Constant("\n".join(indented)))


def _expression(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


# -- imports


def _imports(module: str, trees: Mapping[str, ast.Module], classes: Sequence[ast.ClassDef]) -> list[str]:
    """Return the imports that the twins need: those of the sources, and what the sources define."""
    used = {node.id for twin in classes for node in ast.walk(twin) if isinstance(node, ast.Name)}
    lines = [f"from tenantry import {module} as asynchronous"]
    for owner in {TWINS[name] for name in used & TWINS.keys()} - {module}:
        names = sorted(name for name in used if TWINS.get(name) == owner)
        lines.append(f"from tenantry.sync.{owner} import {', '.join(names)}")
    helpers = dict.fromkeys(("Block", "Bound", "Root", "run_again"), "tenantry.sync.bound")
    helpers["Stream"] = "tenantry.sync.streams"
    helpers |= {"AbstractContextManager": "contextlib", "cached_property": "functools"}
    lines += [f"from {source} import {name}" for name, source in helpers.items() if name in used]
    used -= TWINS.keys() | helpers.keys()
    for name, tree in trees.items():
        for node in tree.body:
            lines += _import_of(name, node, used)
    return list(dict.fromkeys(lines))


def _import_of(module: str, node: ast.stmt, used: set[str]) -> Iterator[str]:
    if isinstance(node, ast.ImportFrom):
        for alias in node.names:
            if (alias.asname or alias.name) in used:
                yield ast.unparse(ast.ImportFrom(node.module, [alias], 0))
    elif isinstance(node, ast.Import):
        for alias in node.names:
            if (alias.asname or alias.name) in used:
                yield ast.unparse(ast.Import([alias]))
    else:
        yield from (f"from tenantry.{module} import {name}" for name in _defined(node) if name in used)


def _defined(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    return []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
