"""Tests of the wheel: that it holds the package, and (slow) that it runs once installed."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(*command, cwd, **environment):
    """Runs a command outside the repository and returns what it printed."""
    inherited = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    finished = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, f"{command}\n{finished.stdout}\n{finished.stderr}"
    return finished.stdout


@pytest.fixture(name="wheel", scope="module")
def wheel_fixture(tmp_path_factory):
    """The wheel, built from a copy, because a build leaves files that later builds read."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(
        ROOT / "l2l_keras", source / "l2l_keras", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("LICENSE", "README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, source)
    run(
        *(sys.executable, "-m", "build", "--wheel", "--no-isolation"),
        *("--outdir", folder, source),
        cwd=folder,
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_wheel_holds_the_package_and_nothing_else(wheel):
    package = ROOT / "l2l_keras"
    files = {
        *package.glob("**/*.py"),
        *package.glob("presets/*/*.json"),
        *package.glob("presets/*/*.npz"),
        *package.glob("evaluation/testbed/baselines/*.npz"),
        *package.glob("studies/words/*.json"),
        package / "studies/page.html",
        package / "py.typed",
    }
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        description = archive.read(metadata).decode()
    assert names == {file.relative_to(ROOT).as_posix() for file in files}
    assert any(name.endswith(".npz") for name in names)
    assert "License-Expression: Apache-2.0" in description


@pytest.mark.slow
def test_installed_wheel_runs(wheel, tmp_path):
    # Only the wheel is installed. A .pth file gives it the dependencies of this environment, but
    # not its editable installs.
    environment = tmp_path / "environment"
    run(sys.executable, "-m", "venv", environment, cwd=tmp_path)
    binaries = environment / ("Scripts" if os.name == "nt" else "bin")
    python = binaries / "python"
    run(python, "-m", "pip", "install", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    site_packages = "import sysconfig; print(sysconfig.get_path('purelib'))"
    installed = Path(run(python, "-c", site_packages, cwd=tmp_path).strip())
    (installed / "dependencies.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")

    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3"}
    program = """
import l2l_keras
print(l2l_keras.__file__)
for name in l2l_keras.list_presets():
    optimizer = l2l_keras.LearnedOptimizer.from_preset(name)
    print(name, type(optimizer).__name__)
"""
    origin, *presets = run(python, "-c", program, cwd=tmp_path, **quiet).splitlines()
    assert Path(origin).resolve().is_relative_to(installed.resolve())
    shipped = {path.parent.name for path in (ROOT / "l2l_keras" / "presets").glob("*/*.npz")}
    assert {line.split()[0] for line in presets} == shipped
    assert all(line.endswith(" LearnedOptimizer") for line in presets)

    for command in ("l2l-meta-train", "l2l-evaluate", "l2l-benchmark", "l2l-explain"):
        assert "\nFlags:\n" in run(binaries / command, "--help", cwd=tmp_path, **quiet)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
