"""The finetune step: a pack of cells in one process. Torch is imported only when a cell is still to be made."""

from pathlib import Path
from typing import Any

from vtabflow.errors import RunError, UserError
from vtabflow.runtime.files import write_json


def run(spec: dict[str, Any]) -> None:
    """Make the cells of a pack that are not there yet, then write the pack's receipt.

    A cell that fails for numeric reasons is recorded as failed. One that cannot be made (a store that is refused,
    weights of another architecture, too little memory) is printed and the others go on; at the end the first such
    error is raised, a UserError or a RunError that names its cell, and no receipt is written.
    """
    waiting = [cell for cell in spec["cells"] if not is_complete(cell)]
    if waiting:
        make_all(waiting)
    write_json(spec["receipt"], {"key": spec["pack"], "folder": "results/scores", "made": bool(waiting)})


def make_all(cells: list[dict[str, Any]]) -> None:
    """Make the cells, grouped by images so that each set is loaded once; no result depends on the order."""
    from vtabflow.finetune.cell import make
    from vtabflow.finetune.resources import CellResources

    workshop = CellResources()
    # Sentences, not exceptions: an exception would keep its cell's network and batches in memory.
    failed: list[tuple[type[UserError] | type[RunError], str]] = []
    for cell in sorted(cells, key=lambda cell: (cell["store"]["folder"], cell["budget"])):
        try:
            make(cell, workshop)
            continue
        except (UserError, RunError) as error:
            failed.append((type(error), f"cell {name(cell)}: {error}"))
            print(f"{name(cell)}: not made: {error}", flush=True)
        workshop.tidy()  # After the block: within it the exception still holds what is to be freed.
    if failed:
        kind, sentence = failed[0]
        raise kind(f"{sentence} ({len(failed)} of {len(cells)} cells failed, the others are finished)")


def is_complete(cell: dict[str, Any]) -> bool:
    """Whether the cell's result is there: its score.json is written last."""
    return (Path(cell["folder"]) / "score.json").is_file()


def name(cell: dict[str, Any]) -> str:
    """How messages call a cell: method/task/budget/seed."""
    return f"{cell['method']}/{cell['task']}/{cell['budget']}/{cell['seed']}"
