"""Holds the files around the code to the code: BUILD files, changelog, packaging."""

import ast
import importlib.metadata
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")  # pytest brings it on Python 3.10.

ROOT = Path(__file__).resolve().parents[1]
# Imported names that differ from the names of their distributions.
DISTRIBUTIONS = {
    "absl": "absl-py",
    "sklearn": "scikit-learn",
    "tensorflow_datasets": "tensorflow-datasets",
}


def sources() -> list[Path]:
    """Python files of the package and its tests, relative to the root."""
    files = [*ROOT.glob("l2l_keras/**/*.py"), *ROOT.glob("tests/**/*.py")]
    return sorted(path.relative_to(ROOT) for path in files)


def label(path: Path) -> str:
    """Bazel label of a file's target: a package's `__init__` is named as its folder."""
    folder = path.parent
    return f"//{folder.as_posix()}:{folder.name if path.stem == '__init__' else path.stem}"


def module_path(module: str) -> Path | None:
    """File of one of our modules, or None where there is none of that name."""
    stem = Path(*module.split("."))
    for path in (stem.with_suffix(".py"), stem / "__init__.py"):
        if (ROOT / path).is_file():
            return path
    return None


def imports(path: Path) -> Iterator[str]:
    """Names of the modules that a file imports, anywhere but under `if TYPE_CHECKING`."""
    pending: list[ast.AST] = [ast.parse((ROOT / path).read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending.extend(node.orelse)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            submodules = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (name for name in submodules if module_path(name))
        else:
            pending.extend(ast.iter_child_nodes(node))


def public_submodules(path: Path) -> Iterator[str]:
    """Names of the modules in a package's `__all__`, which it may import only when used."""
    for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            for name in ast.literal_eval(node.value):
                yield ".".join([*path.parent.parts, name])


def expected_dependencies(path: Path) -> set[str]:
    """Labels that a file's target must depend on."""
    modules = {*imports(path), *(public_submodules(path) if path.stem == "__init__" else ())}
    needed = {found for module in modules if (found := module_path(module))}
    # A package cannot depend on the packages around it, which depend on it: a late import of one
    # works because whoever runs the code has that one, too.
    needed -= {folder / "__init__.py" for folder in path.parents}
    if path.stem.endswith("_test"):
        needed.add(Path("l2l_keras/__init__.py"))
        conftests = {folder / "conftest.py" for folder in path.parents}
        needed |= {conftest for conftest in conftests if (ROOT / conftest).is_file()}
    return {label(file) for file in needed - {path}}


def targets(folder: Path) -> dict[str, dict[str, ast.expr]]:
    """Targets of a folder's BUILD file: rule and arguments by label."""
    found = {}
    for statement in ast.parse((ROOT / folder / "BUILD").read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
            call = statement.value
            arguments = {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
            if "name" in arguments:
                name = ast.literal_eval(arguments["name"])
                found[f"//{folder.as_posix()}:{name}"] = {"rule": call.func, **arguments}
    return found


def full_label(text: str, folder: Path) -> str:
    """Spells a label out: `:base` or `//l2l_keras/rules` as `//folder:name`."""
    if text.startswith(":"):
        return f"//{folder.as_posix()}{text}"
    return text if ":" in text else f"{text}:{text.rpartition('/')[2]}"


@pytest.mark.parametrize("path", sources(), ids=str)
def test_every_python_file_has_a_build_target(path):
    folder = path.parent
    assert (ROOT / folder / "BUILD").is_file(), f"{folder}/BUILD is missing."
    target = targets(folder).get(label(path))
    assert target is not None, f"{folder}/BUILD has no target {label(path)} for {path.name}."

    is_test = path.stem.endswith("_test")
    assert ast.unparse(target["rule"]) == ("py_test" if is_test else "py_library")
    assert path.name in ast.literal_eval(target["srcs"])
    listed = ast.literal_eval(target["deps"]) if "deps" in target else []
    assert {full_label(text, folder) for text in listed} == expected_dependencies(path)
    if is_test:  # Bazel runs the file; without this, it would pass without running a test.
        ending = "    raise SystemExit(pytest.main([__file__]))\n"
        assert (ROOT / path).read_text(encoding="utf-8").endswith(ending)


def test_build_files_name_no_missing_file():
    for build in [*ROOT.glob("l2l_keras/**/BUILD"), *ROOT.glob("tests/**/BUILD")]:
        for name, target in targets(build.parent.relative_to(ROOT)).items():
            if isinstance(target.get("srcs"), ast.List):
                for source in ast.literal_eval(target["srcs"]):
                    if not source.startswith(("//", ":")):
                        assert (build.parent / source).is_file(), f"{name} names {source}."


def test_build_files_load_the_python_rules_they_use():
    for build in [ROOT / "BUILD", *ROOT.glob("l2l_keras/**/BUILD"), *ROOT.glob("tests/**/BUILD")]:
        text = build.read_text(encoding="utf-8")
        used = {rule for rule in ("py_library", "py_test", "py_binary") if f"\n{rule}(" in text}
        assert used <= set(re.findall(r'^load\(.*"(\w+)"\)$', text, re.MULTILINE)), build


@pytest.fixture(name="project", scope="module")
def project_fixture():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_changelog_has_a_section_for_the_next_or_current_version(project):
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## \[(.+?)\]", text, flags=re.MULTILINE)
    assert sections and sections[0] in ("Unreleased", project["version"])


def test_versions_agree(project):
    import l2l_keras

    assert l2l_keras.__version__ == project["version"]
    module = (ROOT / "MODULE.bazel").read_text(encoding="utf-8")
    assert f'version = "{project["version"]}",' in module


def test_entry_points_resolve(project):
    assert project["scripts"]
    for name, reference in project["scripts"].items():
        entry_point = importlib.metadata.EntryPoint(name, reference, "console_scripts")
        assert callable(entry_point.load())


def test_every_foreign_import_of_the_package_is_declared(project):
    requirements = [*project["dependencies"]]
    for extra in ("jax", "torch"):
        requirements += project["optional-dependencies"][extra]
    declared = {re.match(r"[\w-]+", requirement)[0] for requirement in requirements}
    for path in sources():
        if path.parts[0] == "l2l_keras":
            for module in imports(path):
                top = module.partition(".")[0]
                if top not in sys.stdlib_module_names and top != "l2l_keras":
                    assert DISTRIBUTIONS.get(top, top) in declared, f"{path} imports {top}."


def test_nothing_imports_private_keras():
    for path in sources():
        assert not [name for name in imports(path) if name.startswith("keras.src")], str(path)


@pytest.mark.parametrize("preset", ["general", "general-fast"])
def test_cards_and_published_tables_agree(preset):
    card = json.loads((ROOT / "l2l_keras/presets" / preset / "card.json").read_text("utf-8"))
    published = (ROOT / "docs/results.md").read_text("utf-8")
    assert set(card["testbed"]) == {"100", "1000", "10000"}
    for length, figures in card["testbed"].items():
        steps = f"{int(length):,}"
        numbers = [str(figure) for figure in figures.values()]
        assert f"| `{preset}` | {steps} | {' | '.join(numbers)} |" in published
        table = published.partition(f"`{preset}`, {steps} steps:\n")[2]
        means = re.search(r"\n\| all 17 \(geometric mean\)(.*)", table)[1]
        found = [float(n) for n in re.findall(r"[\d.]+", means.replace("below 1:", ""))]
        assert found == [float(number.rstrip("%")) for number in numbers]


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
