"""The report step: from the scores of a study to one page, its figures and its tables."""

from pathlib import Path
from typing import Any

from vtabflow.errors import UserError
from vtabflow.runtime.files import read_json, write_json, write_with

Spec = dict[str, Any]
TABLES = ("scores.csv", "summary.csv", "plots.csv")


def run(spec: Spec) -> None:
    """Make the page of a study in spec["folder"]: tables, figures, index.html, and card.json last.

    A page of an unfinished study is made too; its card says `complete: false`, it gets no receipt, and the next run makes it again.
    A page with failed cells counts as complete, and is made again when one of them has another result than it shows.

    Raises:
        RunError: a score cannot be read, or a file cannot be written.
    """
    folder, receipt = Path(spec["folder"]), Path(spec["receipt"])
    if _is_made(spec):
        write_json(receipt, {"key": spec["key"], "folder": spec["folder"], "made": False})
        print(f"report: {folder} is there", flush=True)
        return
    counted = _make(spec)
    if counted["missing"]:
        receipt.unlink(missing_ok=True)
        print(f"report: {folder} is a page of an unfinished study: {counted['missing']} cells are missing", flush=True)
        return
    write_json(receipt, {"key": spec["key"], "folder": spec["folder"], "made": True})
    print(
        f"report: {folder} is made" + (f"; {counted['failed']} cells failed" if counted["failed"] else ""), flush=True
    )


def _is_made(spec: Spec) -> bool:
    path = Path(spec["folder"]) / "card.json"
    if not path.exists():
        return False
    card = read_json(path)
    if not card["complete"]:
        return False
    if not card["cells"]["failed"]:
        return True
    from vtabflow.report import scores

    return card["state"] == scores.state(scores.read_cells(spec))


def _make(spec: Spec) -> dict[str, int]:
    # pandas, Altair and vl-convert take seconds to import: not for a page that is there
    from vtabflow.report import figures, page, scores
    from vtabflow.report.stats import Results

    folder = Path(spec["folder"])
    cells = scores.read_cells(spec)
    counted = scores.counts(cells)
    results = Results(spec, cells)
    drawn = []
    for figure in figures.figures(spec, results, spec["settings"]["theme"]):
        svg = figures.svg(figure)
        _write(folder / "figures" / f"{figure.name}.png", figures.png(svg))
        _write(folder / "figures" / f"{figure.name}.svg", svg.encode())
        drawn.append(page.Drawn(figure, svg))
    _write(folder / "index.html", page.render(spec, results, drawn, counted).encode())
    summary = scores.summary_table(results)
    for name, table in zip(TABLES, (scores.scores_table(cells), summary, scores.plots_table(summary)), strict=True):
        _write(folder / name, table.to_csv(index=False, lineterminator="\n").encode())
    write_json(folder / "summary.json", scores.summary_json(spec, results, counted))
    card = {
        "key": spec["key"],
        "study": spec["study"],
        "cells": counted,
        "complete": not counted["missing"],
        "state": scores.state(cells),
    }
    card |= {"figures": [item.figure.name for item in drawn], "spec": spec}
    write_json(folder / "card.json", card)
    return counted


def publish(spec: Spec) -> None:
    """Make the page the study's current one: copy it from its keyed folder to the folder above, and its summary to results/metrics/<study>.json.

    Each file is replaced by rename, index.html after what it links to, so that there is always a whole page.

    Raises:
        UserError: the page has not been made.
    """
    folder = Path(spec["folder"])
    if not (folder / "card.json").exists():
        raise UserError(f"there is no page in {folder}; make it with `vtabflow report` and publish it then")
    current = folder.parent
    figures = {f"{name}.{ending}" for name in read_json(folder / "card.json")["figures"] for ending in ("png", "svg")}
    for name in [*sorted(f"figures/{figure}" for figure in figures), *TABLES, "summary.json"]:
        _write(current / name, (folder / name).read_bytes())
    # The current page lies one folder higher than the keyed one, so its links out of the folder climb one step less.
    _write(current / "index.html", (folder / "index.html").read_bytes().replace(b'href="../', b'href="'))
    for old in (current / "figures").iterdir():
        if old.suffix in {".png", ".svg"} and old.name not in figures:
            old.unlink()
    _write(current.parent.parent / "metrics" / f"{spec['study']}.json", (folder / "summary.json").read_bytes())
    for old in current.glob(".current/*"):
        old.unlink()
    _write(current / ".current" / spec["key"], b"")  # what Snakemake asks for: which page is the current one
    print(f"report: {current / 'index.html'} is the current page of {spec['study']}", flush=True)


def _write(path: Path, data: bytes) -> None:
    write_with(path, lambda stream: stream.write(data))
