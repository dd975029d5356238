"""The finetune step: a pack of cells in one process. Torch is imported only when a cell is still to be made."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from vtabflow.errors import UserError
from vtabflow.files import write_json


def run(spec: dict[str, Any]) -> None:
    """Make the cells of a pack that are not there yet, then write the pack's receipt.

    A cell that fails for numeric reasons is recorded as failed and the others go on. A UserError (a store that is
    refused, weights of another architecture) names its cell and ends the job at once; the cells finished before it
    stay finished.
    """
    waiting = [cell for cell in spec["cells"] if not is_complete(cell)]
    if waiting:
        from vtabflow.finetune.cell import make
        from vtabflow.finetune.workshop import Workshop

        workshop = Workshop()
        with _terminable():
            # Grouped by images, so that each set is loaded once. No result depends on the order.
            for cell in sorted(waiting, key=lambda cell: (cell["store"]["folder"], cell["budget"])):
                try:
                    make(cell, workshop)
                except UserError as error:
                    raise UserError(f"cell {name(cell)}: {error}") from error
    write_json(spec["receipt"], {"key": spec["pack"], "folder": "results/scores", "made": bool(waiting)})


def is_complete(cell: dict[str, Any]) -> bool:
    """Whether the cell's result is there: its score.json is written last."""
    return (Path(cell["folder"]) / "score.json").is_file()


def name(cell: dict[str, Any]) -> str:
    """How messages call a cell: method/task/budget/seed."""
    return f"{cell['method']}/{cell['task']}/{cell['budget']}/{cell['seed']}"


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM (a scheduler's time limit) ends Python as Ctrl-C does: files being written are withdrawn, finished
    trials stay.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
