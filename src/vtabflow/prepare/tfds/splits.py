"""How the splits of a task are cut from those of TFDS: VTAB's integer rules, applied to the builder's own counts.

Source: google-research/task_adaptation at d7630d3, task_adaptation/data/*.py; docs/protocol.md#splits.
"""

from collections.abc import Callable, Mapping

from vtabflow.contracts.protocol import ROWS_1K
from vtabflow.prepare.store import SPLITS

Part = tuple[str, int, int]  # TFDS split, first example, one past the last
Parts = dict[str, Part]


def parts(rule: str, counts: Mapping[str, int]) -> Parts:
    """The store's "train", "val" and "test", each a (TFDS split, start, stop) in TFDS' hash order.

    Args:
        rule: a name of RULES.
        counts: the examples of each TFDS split that the rule uses.
    """
    return RULES[rule](counts)


def expressions(rule: str, counts: Mapping[str, int]) -> dict[str, str]:
    """All seven splits of VTAB in TFDS' slice language: train, val, trainval, test, train800, val200, train800val200.

    A train or val with fewer than 800 or 200 examples is taken whole.
    """
    found = parts(rule, counts)
    small = {
        split: (name, start, min(stop, start + ROWS_1K[split]))
        for split, (name, start, stop) in found.items()
        if split in ROWS_1K
    }
    texts = {split: _text(part, counts) for split, part in found.items()}
    train, val = found["train"], found["val"]
    adjacent = train[0] == val[0] and train[2] == val[1]
    trainval = _text((train[0], train[1], val[2]), counts) if adjacent else f"{texts['train']}+{texts['val']}"
    train800, val200 = (_text(small[split], counts) for split in ("train", "val"))
    return {
        "train": texts["train"],
        "val": texts["val"],
        "trainval": trainval,
        "test": texts["test"],
        "train800": train800,
        "val200": val200,
        "train800val200": f"{train800}+{val200}",
    }


def _text(part: Part, counts: Mapping[str, int]) -> str:
    split, start, stop = part
    if (start, stop) == (0, counts[split]):
        return split
    first = str(start) if start else ""
    # An empty slice keeps its end, which TFDS would otherwise read as "to the last".
    last = str(stop) if stop < counts[split] or start == stop else ""
    return f"{split}[{first}:{last}]"


def _percent(*shares: int, test: str | None) -> Callable[[Mapping[str, int]], Parts]:
    """Cut TFDS' train by integer floor: `shares` percent for train (and val); the last split gets the rest.

    With two shares the rest is test; with one it is val, and test is the TFDS split `test`.
    """

    def cut(counts: Mapping[str, int]) -> Parts:
        total = counts["train"]
        bounds = [0]
        for share in shares:
            bounds.append(bounds[-1] + total * share // 100)
        bounds.append(total)
        found = {
            split: ("train", start, stop)
            for split, start, stop in zip(SPLITS, bounds[:-1], bounds[1:], strict=False)  # one share gives no test
        }
        return found if test is None else {**found, "test": (test, 0, counts[test])}

    return cut


def _given(counts: Mapping[str, int]) -> Parts:
    return {
        "train": ("train", 0, counts["train"]),
        "val": ("validation", 0, counts["validation"]),
        "test": ("test", 0, counts["test"]),
    }


def _halves(counts: Mapping[str, int]) -> Parts:
    # TFDS rounds test[:50%] to the closest example, halves to the even one; Python's round does the same.
    half = round(counts["test"] * 50 / 100)
    return {
        "train": ("train", 0, counts["train"]),
        "val": ("test", 0, half),
        "test": ("test", half, counts["test"]),
    }


RULES: dict[str, Callable[[Mapping[str, int]], Parts]] = {
    "given": _given,
    "90/10": _percent(90, test="test"),
    "80/20": _percent(80, test="test"),
    "60/20/20": _percent(60, 20, test=None),
    "80/10/10": _percent(80, 10, test=None),
    "90/10, validation as test": _percent(90, test="validation"),
    "given train, halves of test": _halves,
}
