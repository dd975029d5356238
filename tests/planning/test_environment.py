"""pyproject.toml, requirements.lock and environment.yml say the same."""

import re
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version


@pytest.fixture
def project(root) -> dict:
    return tomllib.loads((root / "pyproject.toml").read_text())["project"]


def read_lock(path) -> dict[str, list[Requirement]]:
    found: dict[str, list[Requirement]] = {}
    for line in path.read_text().splitlines():
        if line and line[0] not in " #":
            requirement = Requirement(line.rstrip(" \\"))
            found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


@pytest.fixture
def locked(root) -> dict[str, list[Requirement]]:
    return read_lock(root / "requirements.lock")


def versions(requirements: list[Requirement]) -> set[str]:
    return {str(r.specifier).removeprefix("==") for r in requirements}


def test_the_lock_fulfils_what_the_project_declares(project, locked):
    for line in [
        *project["dependencies"],
        *project["optional-dependencies"]["dev"],
        *project["optional-dependencies"]["extras"],
    ]:
        requirement = Requirement(line)
        for version in versions(locked[canonicalize_name(requirement.name)]):
            assert Version(version) in requirement.specifier, line


def test_the_lock_of_tfds_is_the_lock_and_more(root, project, locked):
    """`make tfds` adds packages to the environment and changes none that is installed."""
    more = read_lock(root / "requirements-tfds.lock")
    for line in [*project["dependencies"], *project["optional-dependencies"]["tfds"]]:
        requirement = Requirement(line)
        for version in versions(more[canonicalize_name(requirement.name)]):
            assert Version(version) in requirement.specifier, line
    shared = locked.keys() & more.keys()
    assert "torch" in shared and "tensorflow-cpu" not in locked
    assert [name for name in shared if versions(locked[name]) != versions(more[name])] == []


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-tfds.lock"])
def test_every_locked_version_has_hashes_and_no_address_is_named(root, name):
    text = (root / name).read_text()
    entries = re.split(r"\n(?=\S)", text.strip())
    assert len(entries) > 100 and all("--hash=sha256:" in entry for entry in entries if not entry.startswith("#"))
    assert "://" not in text and "index-url" not in text


def test_the_lock_serves_every_python(project, locked):
    """An entry that is for some Pythons only has another for the rest."""
    low, high = re.findall(r"3\.\d+", project["requires-python"])
    pythons = [f"3.{minor}" for minor in range(int(low[2:]), int(high[2:]))]
    assert pythons == ["3.11", "3.12", "3.13"]
    for line in project["dependencies"]:
        name = canonicalize_name(Requirement(line).name)
        for python in pythons:
            env = {"python_version": python, "python_full_version": f"{python}.1", "sys_platform": "linux"}
            assert sum(r.marker is None or r.marker.evaluate(env) for r in locked[name]) == 1, (
                f"{name} on Python {python}"
            )


def test_conda_takes_the_locked_versions(root, project, locked):
    listed = yaml.safe_load((root / "environment.yml").read_text())["dependencies"]
    pip = next(entry["pip"] for entry in listed if isinstance(entry, dict))
    assert pip[-1] == "--editable ."
    given: dict[str, list[Requirement]] = {}
    for line in pip[:-1]:
        given.setdefault(canonicalize_name(Requirement(line).name), []).append(Requirement(line))
    assert set(given) == {canonicalize_name(Requirement(line).name) for line in project["dependencies"]}
    for name, requirements in given.items():
        assert versions(requirements) == versions(locked[name]), name
    python = next(entry for entry in listed if isinstance(entry, str) and entry.startswith("python"))
    assert python.removeprefix("python ") == project["requires-python"]
