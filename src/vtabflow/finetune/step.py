"""The finetune step: the cells of one job in one process. Torch is imported only when a cell is still to be made."""

import traceback
from collections.abc import Sequence
from pathlib import Path

from vtabflow.contracts.results import Receipt
from vtabflow.contracts.specs import CellSpec, JobSpec
from vtabflow.contracts.typed_json import to_json
from vtabflow.errors import RunError, UserError
from vtabflow.runtime.files import write_json


def run(spec: JobSpec) -> None:
    """Make the cells of a job that do not exist yet, then write the job's receipt.

    A cell that fails for numeric reasons is recorded as failed. One that cannot be made (a store that is refused,
    weights of another architecture, too little memory, any unexpected error) is printed and the others go on: it has
    no score, so that it is tried again once the cause is found.

    Raises:
        UserError, RunError: the first of these errors, with the name of its cell; then no receipt is written.
    """
    missing = [cell for cell in spec.cells if not is_complete(cell)]
    if missing:
        make_all(missing)
    write_json(spec.receipt, to_json(Receipt(spec.key, "results/scores", made=bool(missing))))


def make_all(cells: Sequence[CellSpec]) -> None:
    """Make the cells, grouped by images so that each set is loaded once; no result depends on the order."""
    from vtabflow.finetune.cell import CellResources, make

    resources = CellResources(cells[0].portable)
    # Sentences, not exceptions: an exception would keep its cell's network and batches in memory.
    failed: list[tuple[type[UserError] | type[RunError], str]] = []
    for cell in sorted(cells, key=lambda cell: (cell.store.folder, cell.budget)):
        try:
            make(cell, resources)
            continue
        except (UserError, RunError) as error:
            failed.append((type(error), f"cell {cell.name}: {error}"))
        except Exception as error:
            traceback.print_exc()
            failed.append((RunError, f"cell {cell.name}: {type(error).__name__}: {error}; the log shows where"))
        print(f"not made: {failed[-1][1]}", flush=True)
        resources.free_memory()  # After the block: within it the exception still holds what is to be freed.
    if failed:
        kind, sentence = failed[0]
        raise kind(f"{sentence} ({len(failed)} of {len(cells)} cells failed, the others are finished)")


def is_complete(cell: CellSpec) -> bool:
    """Whether the cell's result exists: its score.json is written last."""
    return (Path(cell.folder) / "score.json").is_file()
