"""When make installs: by what the lock file says, never by file times. Here pip and uv only note their calls."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

TOOL = '#!/bin/sh\necho "$(basename "$0") $*" >> "{log}"\n'


class Clone:
    def __init__(self, folder: Path, makefile: Path):
        folder.mkdir()
        self.folder = folder
        shutil.copy(makefile, folder)
        for name in ("requirements.lock", "requirements-tfds.lock", "pyproject.toml"):
            (folder / name).write_text(f"{name}, version 1\n")

    def make(self, venv: Path, mark: str = ".made") -> list[str]:
        """What was installed: the last words of the calls of pip and uv."""
        log = venv / "log"
        log.write_text("")
        subprocess.run(
            ["make", "-s", f"VENV={venv}", f"{venv}/{mark}"], cwd=self.folder, check=True, capture_output=True
        )
        return [line.split()[-1] for line in log.read_text().splitlines()]

    def hurry(self, seconds: int) -> None:
        """Other file times, as a fresh clone has."""
        for path in self.folder.iterdir():
            os.utime(path, (path.stat().st_atime, path.stat().st_mtime + seconds))


def environment(folder: Path) -> Path:
    (folder / "bin").mkdir(parents=True)
    for name in ("python", "uv"):
        tool = folder / "bin" / name
        tool.write_text(TOOL.format(log=folder / "log"))
        tool.chmod(0o755)
    return folder


@pytest.fixture
def clone(tmp_path, root) -> Clone:
    return Clone(tmp_path / "first", root / "Makefile")


@pytest.fixture
def second(tmp_path, root) -> Clone:
    return Clone(tmp_path / "second", root / "Makefile")


PACKAGES = ["uv==0.13.9", "requirements.lock"]


def test_an_environment_of_ones_own(clone):
    venv = environment(clone.folder / ".venv")
    assert clone.make(venv) == [*PACKAGES, "."]
    clone.hurry(1000)
    assert clone.make(venv) == []
    clone.hurry(-5000)
    assert clone.make(venv) == []
    (clone.folder / "requirements.lock").write_text("requirements.lock, version 2\n")
    clone.hurry(-9000)
    assert clone.make(venv) == [*PACKAGES, "."], "a changed lock is installed, however old the file"
    assert clone.make(venv) == []
    assert clone.make(venv, ".tfds") == ["requirements-tfds.lock"]
    clone.hurry(20000)
    assert clone.make(venv, ".tfds") == []
    (clone.folder / "requirements.lock").write_text("requirements.lock, version 3\n")
    assert clone.make(venv, ".tfds") == [*PACKAGES, ".", "requirements-tfds.lock"]


def test_an_environment_that_clones_share(clone, second, tmp_path):
    """The second clone neither installs again what is there, nor makes the environment's vtabflow its own."""
    venv = environment(tmp_path / "shared")
    assert clone.make(venv) == [*PACKAGES, "."]
    (venv / "bin/vtabflow").write_text("#!/bin/sh\n")
    (venv / "bin/vtabflow").chmod(0o755)
    second.hurry(1000)
    assert second.make(venv) == []
    (second.folder / "requirements.lock").write_text("requirements.lock, version 2\n")
    assert second.make(venv) == PACKAGES
    assert clone.make(venv) == PACKAGES, "and back"


def test_caches_lie_in_the_project_where_the_home_cannot_be_written(clone, monkeypatch):
    venv = environment(clone.folder / ".venv")
    (venv / "bin/uv").write_text(f'#!/bin/sh\necho "cache=$XDG_CACHE_HOME" >> "{venv}/log"\n')
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/proc/nohome")
    assert f"cache={clone.folder}/scratch/cache" in clone.make(venv)
    (venv / ".made").unlink()
    monkeypatch.setenv("HOME", str(clone.folder))
    assert clone.make(venv)[-1] == "cache="
