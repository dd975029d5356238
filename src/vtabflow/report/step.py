"""The report step: from the scores of a study to one page, its figures and its tables."""

from pathlib import Path

from vtabflow.contracts.results import CellCounts, PageCard, Receipt
from vtabflow.contracts.specs import PageSpec
from vtabflow.contracts.typed_json import from_json, to_json
from vtabflow.errors import UserError
from vtabflow.report.completeness import shows_all
from vtabflow.runtime.files import read_json, write_json, write_with

TABLES = ("scores.csv", "summary.csv", "plots.csv", "skipped.csv")


def run(spec: PageSpec) -> None:
    """Make the page of a study in `spec.folder`: tables, figures, index.html, and card.json last.

    A page of an unfinished study is made too; its card says `complete: false`, it gets no receipt, and the next run
    makes it again. A page with failed cells counts as complete, and is made again when one of them has another result
    by now.

    Raises:
        RunError: a score cannot be read, or a file cannot be written.
    """
    receipt = Path(spec.receipt)
    if shows_all(spec):
        write_json(receipt, to_json(Receipt(spec.key, spec.folder, made=False)))
        print(f"report: {spec.folder} exists already", flush=True)
        return
    counts = _make(spec)
    if counts.missing:
        receipt.unlink(missing_ok=True)
        print(f"report: {spec.folder} is the page of an unfinished study; missing cells: {counts.missing}", flush=True)
        return
    write_json(receipt, to_json(Receipt(spec.key, spec.folder, made=True)))
    print(f"report: made {spec.folder}" + (f"; failed cells: {counts.failed}" if counts.failed else ""), flush=True)


def _make(spec: PageSpec) -> CellCounts:
    # pandas, SciPy, Altair and vl-convert take seconds to import: only for a page that has to be made
    from vtabflow.report import figures, page, scores
    from vtabflow.report.balance import with_balanced_accuracy
    from vtabflow.report.cells import count_cells, read_cells, state
    from vtabflow.report.images import read_images
    from vtabflow.report.stats import Results

    folder = Path(spec.folder)
    cells = with_balanced_accuracy(read_cells(spec))
    counts = count_cells(cells)
    results = Results(spec, cells)
    images = read_images(spec, results.task_display)
    rendered = []
    for figure in figures.figures(spec, results):
        svg = figures.svg(figure)
        _write(folder / "figures" / f"{figure.name}.png", figures.png(svg))
        _write(folder / "figures" / f"{figure.name}.svg", svg.encode())
        rendered.append(page.RenderedFigure(figure, svg))
    _write(folder / "index.html", page.render(spec, results, images, rendered, counts).encode())
    summary = scores.summary_table(results)
    tables = scores.scores_table(cells), summary, scores.plots_table(summary), scores.skipped_table(images)
    for name, table in zip(TABLES, tables, strict=True):
        _write(folder / name, table.to_csv(index=False, lineterminator="\n").encode())
    write_json(folder / "summary.json", scores.summary_json(spec, results, counts))
    card = PageCard(
        key=spec.key,
        study=spec.study,
        cells=counts,
        complete=not counts.missing,
        state=state(cells),
        figures=tuple(item.figure.name for item in rendered),
        spec=to_json(spec),
    )
    write_json(folder / "card.json", to_json(card))
    return counts


def publish(spec: PageSpec) -> None:
    """Make the page the study's current one.

    It is copied from its keyed folder to the folder above, and its summary to results/metrics/<study>.json. Each file
    is replaced by rename, index.html after what it links to, so that a reader always finds a whole page.

    Raises:
        UserError: the page has not been made.
    """
    folder = Path(spec.folder)
    path = folder / "card.json"
    if not path.exists():
        raise UserError(f"there is no page in {folder}; make it with `vtabflow report`, then publish it")
    card = from_json(PageCard, read_json(path), str(path))
    current = folder.parent
    figures = {f"{name}.{ending}" for name in card.figures for ending in ("png", "svg")}
    for name in [*sorted(f"figures/{figure}" for figure in figures), *TABLES, "summary.json"]:
        _write(current / name, (folder / name).read_bytes())
    # The current page lies one folder higher than the keyed one: its links out of the folder need one `../` less.
    _write(current / "index.html", (folder / "index.html").read_bytes().replace(b'href="../', b'href="'))
    for old in (current / "figures").iterdir():
        if old.suffix in {".png", ".svg"} and old.name not in figures:
            old.unlink()
    _write(current.parent.parent / "metrics" / f"{spec.study}.json", (folder / "summary.json").read_bytes())
    for old in current.glob(".current/*"):
        old.unlink()
    _write(current / ".current" / spec.key, b"")  # Snakemake's target: which page is the current one
    print(f"report: {current / 'index.html'} is the current page of {spec.study}", flush=True)


def _write(path: Path, data: bytes) -> None:
    write_with(path, lambda stream: stream.write(data))
