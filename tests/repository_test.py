"""Tests that the files around the code agree with it: BUILD files, changelog, packaging."""

import ast
import importlib.metadata
import re
import runpy
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")  # pytest brings it on Python 3.10.

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [path for top in ("l2l_keras", "tests") for path in (ROOT / top).rglob("*.py")]
# Imported names that differ from the names of their distributions.
DISTRIBUTIONS = {
    "absl": "absl-py",
    "keras_tuner": "keras-tuner",
    "sklearn": "scikit-learn",
    "tensorflow_datasets": "tensorflow-datasets",
}


def imported_modules(path):
    """Yields the names of the modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def test_build_files_are_up_to_date():
    expected = runpy.run_path(str(ROOT / ".ci" / "write_build_files.py"))["build_files"]()
    found = [path for top in ("l2l_keras", "tests") for path in (ROOT / top).rglob("BUILD")]
    current = {path.relative_to(ROOT): path.read_text(encoding="utf-8") for path in found}
    stale = sorted(
        str(path) for path in {*expected, *current} if expected.get(path) != current.get(path)
    )
    assert not stale, "Stale. To write them again: python .ci/write_build_files.py"


def test_bazel_would_run_every_test_file():
    # Bazel runs the file, which without these lines passes without running a test.
    ending = 'if __name__ == "__main__":\n    raise SystemExit(pytest.main([__file__]))\n'
    tests = [path for path in SOURCES if path.stem.endswith("_test")]
    assert not [path for path in tests if not path.read_text(encoding="utf-8").endswith(ending)]


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


def test_every_foreign_import_is_declared(project):
    extras = project["optional-dependencies"]
    of_package = project["dependencies"] + extras["hub"] + extras["jax"] + extras["torch"]
    for folder, requirements in {
        "l2l_keras": of_package,
        "tests": [*of_package, *extras["test"]],
        "tutorials": [*of_package, *extras["test"], *extras["tutorials"]],
    }.items():
        declared = {re.match(r"[\w-]+", requirement)[0] for requirement in requirements}
        known = {*sys.stdlib_module_names, "l2l_keras", "tests", "tomllib"}
        for path in (ROOT / folder).rglob("*.py"):
            imported = {module.partition(".")[0] for module in imported_modules(path)} - known
            missing = {DISTRIBUTIONS.get(name, name) for name in imported} - declared
            assert not missing, path


def test_nothing_imports_private_keras():
    for path in SOURCES:
        assert not [name for name in imported_modules(path) if name.startswith("keras.src")], path


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
