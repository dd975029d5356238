"""The table of the 19 tasks in docs/fidelity.md: builder, version, splits, counts, label rule, as Markdown.

    python tools/vtab_table.py

Makes and prepares the miniature of every dataset in a temporary folder (tests/miniatures, through TFDS' own builders);
the last columns say what came out. Needs `make tfds`; about a minute.
"""

import importlib
import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests"), str(ROOT / "tests/prepare")]

from test_vtab import spec_of  # noqa: E402

from miniatures.place import Places  # noqa: E402
from vtabflow.prepare import step  # noqa: E402
from vtabflow.prepare.datasets import DATASETS, Dataset  # noqa: E402
from vtabflow.prepare.labels import RULES  # noqa: E402
from vtabflow.prepare.splits import expressions, parts  # noqa: E402
from vtabflow.prepare.tasks import VTAB  # noqa: E402


def sizes(dataset: Dataset, counts: dict[str, int]) -> str:
    """Examples of train, val and test."""
    found = parts(dataset.split_rule, counts)
    return " / ".join(f"{stop - start:,}" for _, start, stop in (found[name] for name in ("train", "val", "test")))


def obtained(dataset: Dataset) -> str:
    """What the store of the miniature holds: examples of train, val and test."""
    with tempfile.TemporaryDirectory() as folder:
        places = Places.under(Path(folder))
        importlib.import_module(f"miniatures.{dataset.id.replace('-', '_')}").make(places)
        spec = spec_of(dataset.id, places, Path(folder))
        step.run(spec)
        counts = json.loads(Path(spec["manifest"]).read_text())["counts"]
    return " / ".join(f"{counts[split]:,}" for split in ("train", "val", "test"))


def main() -> None:
    made: dict[str, str] = {}
    print("| task | builder, version | train; val; test | VTAB's counts | miniature's | label | classes |")
    print("|---|---|---|---:|---:|---|---:|")
    for task, display, _, name, classes in VTAB:
        dataset = DATASETS[name]
        made.setdefault(name, obtained(dataset))
        cut = expressions(dataset.split_rule, dataset.counts)
        row = [
            display,
            f"`{'/'.join(filter(None, [dataset.builder, dataset.config]))}` {dataset.version}",
            "; ".join(f"`{cut[split]}`" for split in ("train", "val", "test")),
            sizes(dataset, dataset.counts),
            made[name],
            "TFDS' own" if RULES[task].__name__ == "given" else f"`{RULES[task].__name__}`",
            str(classes),
        ]
        print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
