"""VTAB's boundaries, from the official counts and from others, and TFDS' own reading of the expressions."""

import pytest

from vtabflow.planning.tasks import vtab
from vtabflow.prepare.tfds.datasets import datasets
from vtabflow.prepare.tfds.splits import RULES, expressions, parts

# docs/protocol.md#splits, from the released code: train, val, trainval, test, train800, val200, train800val200.
GIVEN = ("train", "validation", "train+validation", "test", "train[:800]", "validation[:200]")
TABLE = {
    "caltech101": ("train[:2754]", "train[2754:]", "train", "test", "train[:800]", "train[2754:2954]"),
    "cifar100": ("train[:45000]", "train[45000:]", "train", "test", "train[:800]", "train[45000:45200]"),
    "dtd": GIVEN,
    "oxford-flowers102": GIVEN,
    "oxford-iiit-pet": ("train[:2944]", "train[2944:]", "train", "test", "train[:800]", "train[2944:3144]"),
    "sun397": GIVEN,
    "svhn": ("train[:65931]", "train[65931:]", "train", "test", "train[:800]", "train[65931:66131]"),
    "patch-camelyon": GIVEN,
    "eurosat": (
        "train[:16200]",
        "train[16200:21600]",
        "train[:21600]",
        "train[21600:]",
        "train[:800]",
        "train[16200:16400]",
    ),
    "resisc45": (
        "train[:18900]",
        "train[18900:25200]",
        "train[:25200]",
        "train[25200:]",
        "train[:800]",
        "train[18900:19100]",
    ),
    "diabetic-retinopathy": GIVEN,
    "clevr": ("train[:63000]", "train[63000:]", "train", "validation", "train[:800]", "train[63000:63200]"),
    "dmlab": GIVEN,
    "kitti": GIVEN,
    "dsprites": (
        "train[:589824]",
        "train[589824:663552]",
        "train[:663552]",
        "train[663552:]",
        "train[:800]",
        "train[589824:590024]",
    ),
    "smallnorb": ("train", "test[:12150]", "train+test[:12150]", "test[12150:]", "train[:800]", "test[:200]"),
}
# The second table of the same section: train, val, test. sun397 has one less than VTAB's with TFDS 4.9.10.
COUNTS = {
    "caltech101": (2754, 306, 6084),
    "cifar100": (45000, 5000, 10000),
    "dtd": (1880, 1880, 1880),
    "oxford-flowers102": (1020, 1020, 6149),
    "oxford-iiit-pet": (2944, 736, 3669),
    "sun397": (76127, 10875, 21750),
    "svhn": (65931, 7326, 26032),
    "patch-camelyon": (262144, 32768, 32768),
    "eurosat": (16200, 5400, 5400),
    "resisc45": (18900, 6300, 6300),
    "diabetic-retinopathy": (35126, 10906, 42670),
    "clevr": (63000, 7000, 15000),
    "dmlab": (65550, 22628, 22735),
    "kitti": (6347, 423, 711),
    "dsprites": (589824, 73728, 73728),
    "smallnorb": (24300, 12150, 12150),
}
OTHER_COUNTS = [
    {"train": 1003, "validation": 137, "test": 25},
    {"train": 999, "validation": 250, "test": 27},
    {"train": 7, "validation": 3, "test": 2},
    {"train": 1, "validation": 1, "test": 1},
]


def test_the_tables_have_every_dataset_of_vtab():
    assert list(datasets()) == list(dict.fromkeys(task.dataset for task in vtab().values()))
    assert set(TABLE) == set(COUNTS) == set(datasets())
    assert {dataset.split for dataset in datasets().values()} == set(RULES)


@pytest.mark.parametrize("dataset", datasets())
def test_the_official_boundaries(dataset):
    known = datasets()[dataset]
    found = expressions(known.split, known.counts)
    assert tuple(found.values()) == (*TABLE[dataset], f"{TABLE[dataset][4]}+{TABLE[dataset][5]}")
    assert list(found) == ["train", "val", "trainval", "test", "train800", "val200", "train800val200"]
    cut = parts(known.split, known.counts)
    assert tuple(stop - start for _, start, stop in cut.values()) == COUNTS[dataset]
    assert list(cut) == ["train", "val", "test"]


def test_percentages_are_floors():
    assert parts("90/10", {"train": 1009, "test": 5})["train"] == ("train", 0, 908)  # 908.1
    assert parts("80/20", {"train": 1009, "test": 5})["val"] == ("train", 807, 1009)  # 807.2
    # Each share by itself: 60% of 1009 is 605.4 and 20% is 201.8, so val ends at 806 and not at 80%, 807.
    assert parts("60/20/20", {"train": 1009}) == {
        "train": ("train", 0, 605),
        "val": ("train", 605, 806),
        "test": ("train", 806, 1009),
    }
    assert parts("80/10/10", {"train": 1009})["val"] == ("train", 807, 907)
    # 29 * 90 / 100 is 26.1 and never passes through a binary fraction.
    assert parts("90/10", {"train": 10**15 + 9, "test": 1})["train"][2] == 900000000000008


def test_a_short_val_takes_nothing_from_test():
    found = expressions("60/20/20", {"train": 500})
    assert found["val200"] == "train[300:400]" and found["train800"] == "train[:300]"
    assert found["train800val200"] == "train[:300]+train[300:400]"
    given = expressions("given", {"train": 12, "validation": 7, "test": 3})
    assert given["train800val200"] == "train+validation"
    assert expressions("90/10", {"train": 2000, "test": 3})["val200"] == "train[1800:]"


@pytest.mark.parametrize("counts", [*OTHER_COUNTS, *(dataset.counts for dataset in datasets().values())], ids=str)
@pytest.mark.parametrize("rule", RULES)
def test_tfds_reads_the_expressions_as_we_do(rule, counts):
    """TFDS' slices, with its own rounding of test[:50%], give the ranges of `parts`."""
    splits_lib = pytest.importorskip("tensorflow_datasets.core.splits")
    naming = pytest.importorskip("tensorflow_datasets.core.naming")
    counts = {"train": 30, "validation": 20, "test": 10, **counts}
    template = naming.ShardedFileTemplate(data_dir="/none", dataset_name="none", filetype_suffix="tfrecord")
    known = splits_lib.SplitDict(
        [
            splits_lib.SplitInfo(name=name, shard_lengths=[count], num_bytes=0, filename_template=template)
            for name, count in counts.items()
        ]
    )

    def ranges(expression: str) -> list[tuple[str, int, int]]:
        found = []
        for one in expression.split("+"):
            for read in splits_lib.ReadInstruction.from_spec(one).to_absolute(known):
                last = counts[read.splitname] if read.to is None else read.to
                found.append((read.splitname, read.from_ or 0, last))
        return found

    cut, found = parts(rule, counts), expressions(rule, counts)
    for split in ("train", "val", "test"):
        assert ranges(found[split]) == [cut[split]]
    train, val = cut["train"], cut["val"]
    joined = [(train[0], train[1], val[2])] if train[0] == val[0] else [train, val]
    assert ranges(found["trainval"]) == joined
    small = [(train[0], train[1], min(train[2], train[1] + 800)), (val[0], val[1], min(val[2], val[1] + 200))]
    assert [ranges(found["train800"]), ranges(found["val200"])] == [[small[0]], [small[1]]]
    assert ranges(found["train800val200"]) == small
    if rule == "given train, halves of test":
        assert ranges("test[:50%]") == [val] and ranges("test[50%:]") == [cut["test"]]
