"""Relative paths in the copy of a project that DVC makes for an experiment."""

from pathlib import Path

import pytest

from vtabflow.runtime.experiments import copied_project, located


@pytest.mark.parametrize(
    ("folder", "project"),
    [
        ("/home/me/study/.dvc/tmp/exps/tmpab12", "/home/me/study"),
        ("/home/me/study/.dvc/tmp/exps/standalone/tmpab12", "/home/me/study"),
        ("/home/me/study/.dvc/tmp/exps/tmpab12/sub/study", "/home/me/study"),
        ("/a/.dvc/tmp/exps/t1/.dvc/tmp/exps/t2", "/a/.dvc/tmp/exps/t1"),
        ("/home/me/study/.dvc/tmp/exps", None),
        ("/home/me/study", None),
        ("/home/me/dvc/tmp/exps/tmpab12", None),
    ],
)
def test_the_project_of_a_copy(folder, project):
    assert copied_project(Path(folder)) == (None if project is None else Path(project))


def test_a_path_is_found_from_the_project_unless_the_copy_has_it(tmp_path, monkeypatch):
    project = tmp_path / "study"
    copy = project / ".dvc/tmp/exps/tmpab12"
    copy.mkdir(parents=True)
    (tmp_path / "birds").mkdir()
    for folder in (project, copy):
        (folder / "subset.txt").write_text(str(folder))
    monkeypatch.chdir(copy)
    assert located("../birds").samefile(tmp_path / "birds")
    assert located("subset.txt").read_text() == str(copy)
    assert located("data/manual") == project / "data/manual"
    assert located(tmp_path / "nothing") == tmp_path / "nothing"
    monkeypatch.chdir(project)
    assert located("../nothing") == Path("../nothing")
