"""When a page has to be made again: without a page, with gaps, and after a failed cell was run again."""

from pathlib import Path

import pytest
from report_fakes import METHODS, TASKS, page_spec, write_score, write_scores

from vtabflow.report import step
from vtabflow.report.completeness import shows_all
from vtabflow.runtime.files import read_json, write_json


@pytest.fixture
def spec(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return page_spec(methods=METHODS[:1], tasks=TASKS[:2], budgets=("1k",), seeds=(0,))


def test_a_page_with_gaps_is_not_complete(spec):
    assert not shows_all(spec)
    write_score(spec, spec.cells[0], 0.5)
    step.run(spec)
    assert not shows_all(spec)
    write_score(spec, spec.cells[1], 0.5)
    assert not shows_all(spec)  # the score is there, and not yet on the page
    step.run(spec)
    assert shows_all(spec)


def test_a_failed_cell_that_was_run_again_makes_a_complete_page_old(spec, tmp_path, monkeypatch):
    write_scores(spec, lambda cell: None if cell == spec.cells[0] else 0.5)
    step.run(spec)
    assert shows_all(spec)
    write_score(spec, spec.cells[0], None, "no memory")
    assert not shows_all(spec)  # the same number of failed cells, for another reason
    step.run(spec)
    assert shows_all(spec)
    write_score(spec, spec.cells[0], 0.5)
    assert not shows_all(spec)
    step.run(spec)
    monkeypatch.chdir("/")
    assert shows_all(spec, tmp_path)


@pytest.mark.parametrize("name", ["card.json", "score.json"])
def test_an_unreadable_card_or_score_makes_a_page_incomplete(spec, name):
    write_scores(spec, lambda cell: None)
    step.run(spec)
    Path(spec.folder if name == "card.json" else spec.cells[0].folder, name).write_text('{"key": ')
    assert not shows_all(spec)


def test_cards_without_a_version_are_read(spec):
    write_scores(spec, lambda cell: 0.5)
    step.run(spec)
    path = Path(spec.folder, "card.json")
    write_json(path, {name: value for name, value in read_json(path).items() if name != "version"})
    assert shows_all(spec)
