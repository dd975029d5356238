"""Clones to run things in: one in which nothing has run, one with a finished study of 4 cells."""

import shutil

import pytest
from clones import MICRO, Project, copy_project


@pytest.fixture
def micro(tmp_path) -> Project:
    """A clone in which nothing has run, with a study of 4 cells."""
    return copy_project(tmp_path / "clone", MICRO)


@pytest.fixture(scope="session")
def _finished(tmp_path_factory) -> Project:
    project = copy_project(tmp_path_factory.mktemp("finished") / "clone", MICRO)
    assert project.snakemake() == {"prepare": 3, "pretrain": 2, "finetune": 2, "report": 1, "publish": 1}
    return project


@pytest.fixture
def finished(_finished, tmp_path) -> Project:
    """A copy of a clone in which the study of 4 cells has been run."""
    folder = tmp_path / "clone"
    shutil.copytree(_finished.folder, folder, symlinks=True)
    return Project(folder)
