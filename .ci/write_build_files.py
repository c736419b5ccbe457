"""Writes the BUILD files of l2l_keras and tests, from what their modules import.

  python .ci/write_build_files.py

A folder with Python files is a Bazel package. A module is a `py_library` of its name (a package's
`__init__` that of its folder), a `*_test.py` a `py_test`, a command also a `py_binary`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOP, LATE, PACKAGE, AROUND = range(4)
"""Imports of other modules: at the top, in a function, of a package, of the packages around."""


def build_files() -> dict[Path, str]:
    """Returns the text of every BUILD file by its path relative to the root."""
    files = [path for top in ("l2l_keras", "tests") for path in ROOT.glob(f"{top}/**/*.py")]
    modules = sorted(path.relative_to(ROOT) for path in files)
    graph = dependencies(modules)
    return {
        folder / "BUILD": build_file(folder, {m: graph[m] for m in modules if m.parent == folder})
        for folder in dict.fromkeys(module.parent for module in modules)
    }


def dependencies(modules: list[Path]) -> dict[Path, set[Path]]:
    """Returns the modules that each module needs, without cycles, which Bazel forbids.

    A late import that would close a cycle is left out: its caller has the other module, too.
    """
    edges = sorted((where, m, other) for m in modules for where, other in needs(m, modules))
    graph: dict[Path, set[Path]] = {module: set() for module in modules}
    for _, module, other in edges:
        if module not in reachable(graph, other):
            graph[module].add(other)
    return graph


def needs(module: Path, modules: list[Path]) -> Iterator[tuple[int, Path]]:
    """Yields where a module's imports are, and the modules imported."""
    around = {folder / "__init__.py" for folder in module.parents}
    for where, name in imports(module):
        stem = Path(*name.split("."))
        for other in (stem.with_suffix(".py"), stem / "__init__.py"):
            if other in modules:
                yield AROUND if other in around else where, other
    if module.name == "__init__.py":  # It may import them by name.
        yield from ((PACKAGE, m) for m in modules if m.parent == module.parent and m != module)
    if module.name.endswith("_test.py"):
        conftests = (folder / "conftest.py" for folder in module.parents)
        always = (Path("l2l_keras/__init__.py"), *conftests)
        yield from ((TOP, other) for other in always if other in modules)


def imports(module: Path) -> Iterator[tuple[int, str]]:
    """Yields where and what a module imports, except under `if TYPE_CHECKING`."""
    pending: list[tuple[int, ast.AST]] = [(TOP, ast.parse((ROOT / module).read_text("utf-8")))]
    while pending:
        where, node = pending.pop()
        if isinstance(node, ast.Import):
            yield from ((where, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield where, node.module
            yield from ((where, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            package = ".".join(module.parent.parts)
            yield from ((LATE, f"{package}.{name}") for name in ast.literal_eval(node.value))
        elif not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            where = LATE if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) else where
            pending += [(where, child) for child in ast.iter_child_nodes(node)]


def reachable(graph: dict[Path, set[Path]], start: Path) -> set[Path]:
    """Returns a module and all that it needs."""
    found, pending = {start}, [start]
    while pending:
        new = graph[pending.pop()] - found
        found |= new
        pending += new
    return found


def build_file(folder: Path, modules: dict[Path, set[Path]]) -> str:
    """Returns the BUILD file of a folder, given its modules and what each needs."""
    files = data_of(folder)
    targets = [filegroup(files)] if files else []
    for module, others in modules.items():
        source = (ROOT / module).read_text("utf-8")
        deps = sorted((label(other, folder) for other in others), key=lambda d: d.replace(":", "!"))
        of_all = module.name == "__init__.py" or folder / "__init__.py" not in modules
        data = [":files"] if files and of_all else []
        if module.name.endswith("_test.py"):
            # Bazel's sandbox does not hold the whole checkout: such tests are for pytest.
            tags = ["manual"] if "Path(__file__).resolve().parents" in source else []
            data = [*data, "//:pyproject.toml"]
            targets.append(target("py_test", module, size="large", data=data, tags=tags, deps=deps))
        else:
            targets.append(target("py_library", module, data=data, deps=deps))
        if '\nif __name__ == "__main__":\n    console()' in source:
            deps = [f":{module.stem}", "//l2l_keras"]
            name = f"l2l_{module.stem}"
            targets.append(target("py_binary", module, name=name, main=module.name, deps=deps))
    rules = sorted({text.partition("(")[0] for text in targets} - {"filegroup"})
    loads = [f'load("@rules_python//python:{rule}.bzl", "{rule}")' for rule in rules]
    head = f'"""{folder}: written by .ci/write_build_files.py."""'
    package = 'package(default_visibility = ["//visibility:public"])'
    return "\n\n".join([head, "\n".join(loads), package, *targets]) + "\n"


def data_of(folder: Path) -> list[str]:
    """Returns patterns of a folder's other files, in it and in folders below without modules."""
    patterns = set()
    for path in (ROOT / folder).rglob("*.*"):
        package = next(around for around in path.parents if any(around.glob("*.py")))
        if package == ROOT / folder and path.is_file() and path.suffix not in (".py", ".pyc"):
            depth = len(path.relative_to(package).parts) - 1
            patterns.add("*/" * depth + "*" + path.suffix)
    return sorted(patterns)


def filegroup(patterns: list[str]) -> str:
    """Returns the target of a folder's other files."""
    return f'filegroup(\n    name = "files",\n    srcs = glob({listed(patterns)}),\n)'


def listed(values: list[str]) -> str:
    """Returns a list as buildifier writes it: several values on lines of their own."""
    if len(values) == 1:
        return f'["{values[0]}"]'
    return "\n".join(["[", *(f'        "{value}",' for value in values), "    ]"])


def label(module: Path, folder: Path) -> str:
    """Returns the label of a module's target, as BUILD files in a folder write it."""
    name = module.parent.name if module.name == "__init__.py" else module.stem
    if module.parent == folder:
        return f":{name}"
    package = f"//{module.parent.as_posix()}"
    return package if module.name == "__init__.py" else f"{package}:{name}"


def target(rule: str, module: Path, **arguments: str | list[str]) -> str:
    """Returns a target of a module; arguments without values are left out."""
    named = {"name": label(module, module.parent)[1:], "srcs": [module.name], **arguments}
    lines = []
    for key in dict.fromkeys(["name", *({"size"} & set(named)), *named]):
        value = named[key]
        if isinstance(value, str):
            lines.append(f'    {key} = "{value}",')
        elif value:
            lines.append(f"    {key} = {listed(value)},")
    return "\n".join([f"{rule}(", *lines, ")"])


if __name__ == "__main__":
    for build in [*ROOT.glob("l2l_keras/**/BUILD"), *ROOT.glob("tests/**/BUILD")]:
        build.unlink()
    for build, text in build_files().items():
        (ROOT / build).write_text(text, "utf-8")
