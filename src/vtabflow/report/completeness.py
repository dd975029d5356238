"""Whether a page has to be made again. The planner asks this too: nothing heavy is imported here."""

from pathlib import Path

from vtabflow.contracts.results import PageCard
from vtabflow.contracts.specs import PageSpec
from vtabflow.contracts.typed_json import from_json
from vtabflow.errors import RunError, UserError
from vtabflow.report.cells import read_cells, state
from vtabflow.runtime.files import read_json


def shows_all(spec: PageSpec, root: Path | str = ".") -> bool:
    """Whether the page exists, shows every cell, and no cell that it shows as failed has another result by now.

    Cells that the page shows as ok are not read again: their score.json never changes.
    """
    path = Path(root) / spec.folder / "card.json"
    try:
        card = from_json(PageCard, read_json(path), str(path))
        return card.complete and (not card.cells.failed or card.state == state(read_cells(spec, root)))
    except (OSError, ValueError, UserError, RunError):
        return False  # no page, or a card or score that cannot be read: making the page reports it
