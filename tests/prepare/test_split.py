"""Which images are in train, val and test: copies and groups stay together, and what is said of the splits."""

import hashlib
import random
from collections import Counter, defaultdict

import pytest

from vtabflow.contracts.specs import FolderDecoding, FolderLayout, FolderSettings, SplitFractions
from vtabflow.errors import UserError
from vtabflow.prepare.folders.entry import Entry, File, Layout, ListedFile
from vtabflow.prepare.folders.split import Division, divide

SHARE = {"train": 0.6, "val": 0.2, "test": 0.2}


def image(name: str, label: str = "", content: str = "", group: str | None = None, split: str = "") -> File:
    """An image of the class that its folder is called after, and of a content of its own, unless they are given."""
    parts = tuple(name.split("/"))
    entry = Entry(split, label or parts[-2], ListedFile(parts, 1, name), group)
    return File(entry, hashlib.sha256((content or name).encode()).hexdigest()[:32], 8, 8, False)


def images(count: int, label: str, split: str = "", copies: int = 1) -> list[File]:
    top = f"{split}/" if split else ""
    return [
        image(f"{top}{label}/{number}.png", content=f"{label}{split}{number // copies}", split=split)
        for number in range(count)
    ]


def divided(files: list[File], role="task", fractions=(0.6, 0.2, 0.2), near=None, minimum=None, seed=0) -> Division:
    classes = tuple(sorted({file.entry.label for file in files}))
    layout = Layout("class folders", tuple(file.entry for file in files), classes, {})
    split = SplitFractions(seed, fractions)
    settings = FolderSettings("in", "skip", split, role, FolderLayout(min_per_class=minimum))
    return divide(layout, files, settings, near or {})


def said(files: list[File], **options) -> dict[str, str]:
    return {remark.kind: remark.text for remark in divided(files, **options).remarks}


def counts(found: Division) -> dict[str, dict[str, int]]:
    return {split: dict(Counter(file.entry.label for file in files)) for split, files in found.files.items()}


def sides(found: Division, what) -> dict:
    """What an image has -> the splits in which it is."""
    places = defaultdict(set)
    for split, files in found.files.items():
        for file in files:
            places[what(file)].add(split)
    return places


def test_ten_copies_of_four_pictures_of_two_classes():
    """Any whole pictures are 10, 20, ... images of 40: 20, 10 and 10 come nearest to 24, 8 and 8."""
    for seed in range(3):
        found = divided([*images(40, "cat", copies=10), *images(40, "dog", copies=10)], seed=seed)
        assert counts(found) == {
            "train": {"cat": 20, "dog": 20},
            "val": {"cat": 10, "dog": 10},
            "test": {"cat": 10, "dog": 10},
        }
        assert all(len(splits) == 1 for splits in sides(found, lambda file: file.digest).values())
        assert [remark.kind for remark in found.remarks] == ["copies", "1k-images"]
        assert found.remarks[0].text == "72 of 80 images are copies of another; copies stay in one split"


def test_twenty_three_pictures_three_times():
    files = [*images(69, "cat", copies=3), *images(69, "dog", copies=3)]
    found = divided(files)
    assert all(len(splits) == 1 for splits in sides(found, lambda file: file.digest).values())
    for split, share in SHARE.items():
        for label, count in counts(found)[split].items():
            assert count % 3 == 0 and abs(count - share * 69) < 3, (split, label)


def test_images_that_are_all_different_meet_the_fractions_of_each_class():
    number = {"a": 3, "b": 4, "c": 5, "d": 17, "e": 50}
    found = counts(divided([file for label, count in number.items() for file in images(count, label)]))
    assert found == {
        "train": {"a": 1, "b": 2, "c": 3, "d": 11, "e": 30},
        "val": {"a": 1, "b": 1, "c": 1, "d": 3, "e": 10},
        "test": {"a": 1, "b": 1, "c": 1, "d": 3, "e": 10},
    }


def test_the_frames_of_a_track_stay_together():
    rng = random.Random(0)
    files = [
        image(f"{label}/{track:02}_{frame:02}.png", group=f"{label}/{track}")
        for label in "abc"
        for track in range(20)
        for frame in range(rng.randint(1, 30))
    ]
    total = Counter(file.entry.label for file in files)
    found = divided(files)
    assert all(len(splits) == 1 for splits in sides(found, lambda file: file.entry.group).values())
    for split, share in SHARE.items():
        for label in "abc":
            # The smallest tracks come last: what is missing is less than one of them.
            assert abs(counts(found)[split][label] - share * total[label]) <= 5, (split, label)
    # Large tracks are not all in train: half of the frames in test are of tracks as long as those of train.
    length = Counter(file.entry.group for file in files)
    longest = {split: max(length[file.entry.group] for file in found.files[split]) for split in SHARE}
    assert min(longest.values()) >= 20


def test_what_is_connected_stays_together():
    """Group 1 and group 2 share a picture, group 2 and group 3 a near copy: all are one."""
    chain = [
        image("a/0.png", group="1"),
        image("a/1.png", group="1", content="shared"),
        image("a/2.png", group="2", content="shared"),
        image("a/3.png", group="2", content="seen"),
        image("a/4.png", group="3", content="seen again"),
        image("a/5.png", group="3"),
    ]
    near = {chain[3].digest: "cluster", chain[4].digest: "cluster"}
    for seed in range(5):
        splits = sides(divided([*chain, *images(20, "a"), *images(20, "b")], near=near, seed=seed), lambda file: file)
        assert len(set().union(*(splits[file] for file in chain))) == 1


def test_groups_may_have_several_classes():
    rng = random.Random(1)
    files = [
        image(f"{label}/{patient}_{slice_}.png", group=str(patient))
        for patient in range(30)
        for slice_ in range(4)
        for label in [rng.choice("ab")]
    ]
    found = divided(files)
    assert all(len(splits) == 1 for splits in sides(found, lambda file: file.entry.group).values())
    total = Counter(file.entry.label for file in files)
    for split, share in SHARE.items():
        for label in "ab":
            assert abs(counts(found)[split][label] - share * total[label]) <= 4


def test_the_draw_depends_on_seed_and_content_alone():
    files = [*images(40, "cat", copies=2), *images(30, "dog"), *images(9, "eel", copies=3)]
    one = divided(files)
    shuffled = files[:]
    random.Random(0).shuffle(shuffled)
    assert divided(shuffled).files == one.files
    renamed = [
        image(f"{file.entry.label}/new{number}.png", content="x" + str(number)) for number, file in enumerate(files)
    ]
    renamed = [File(new.entry, file.digest, 8, 8, False) for new, file in zip(renamed, files, strict=True)]
    digests = {split: [file.digest for file in members] for split, members in one.files.items()}
    assert {split: [file.digest for file in members] for split, members in divided(renamed).files.items()} == digests
    assert divided(files, seed=1).files != one.files


def test_a_relabelled_image_moves_no_other_within_given_splits():
    files = [file for split in SHARE for label in "abc" for file in images(12, label, split)]
    one = divided(files)
    moved = [
        image("train/c/renamed.png", content="atrain3", split="train") if file.entry.name == "train/a/3.png" else file
        for file in files
    ]
    two = divided(moved)
    for split in SHARE:
        assert [file.digest for file in one.files[split]] == [file.digest for file in two.files[split]]
    changed = [
        (a, b) for a, b in zip(one.files["train"], two.files["train"], strict=True) if a.entry.label != b.entry.label
    ]
    assert len(changed) == 1


def test_every_class_is_in_every_drawn_split_however_large_its_groups():
    """Tracks of 10, 10 and 1 frames: a rule that only counts images would put both long ones into train."""
    rng = random.Random(2)
    for seed in range(30):
        sizes = [rng.choice([1, 2, 10, 25]) for _ in range(rng.randint(3, 6))]
        files = [image(f"a/{i}_{j}.png", group=str(i)) for i, size in enumerate(sizes) for j in range(size)]
        found = counts(divided([*files, *images(5, "b")], seed=seed))
        assert all(found[split].get("a") for split in SHARE), sizes


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([*images(40, "a", copies=20), *images(9, "b")], r"class a has too few different images \(2 in 40 files\)"),
        (
            [*images(9, "b"), *(image(f"a/{i}.png", group=str(i % 2)) for i in range(40))],
            "class a has 40 images in 2 groups that stay together: add groups until there are 3",
        ),
        (
            [*images(9, "b"), *(image(f"a/{i}.png", group="g") for i in range(40))],
            "class a has 40 images in 1 group that stay together",
        ),
        ([*images(5, "a"), *images(2, "b")], r"class b has too few readable images \(2\): add some until there are 3"),
        (images(5, "a"), "has one class, a"),
        (
            # Three patients, and those of b are each in two of them.
            [
                image(f"{label}/{patient}_{i}.png", group=patient)
                for patient, labels in {"1": "abc", "2": "ab", "3": "ac", "4": "bc"}.items()
                for label in labels
                for i in range(4)
            ],
            "class . leaves no image for (train|val|test), since too many of its images stay together",
        ),
    ],
)
def test_what_cannot_be_divided_is_named(files, message):
    with pytest.raises(UserError, match=f"^in:? .*{message}" if message.startswith("has") else f"^in: {message}"):
        divided(files)


def test_copies_of_a_given_split_stay_in_train():
    """val/ has ten images of train/a: they must not get into the test split that is drawn here."""
    train = [*images(40, "a", "train"), *images(40, "b", "train")]
    val = [image(f"val/a/{i}.png", content=f"atrain{i}", split="val") for i in range(10)]
    val += images(10, "b", "val")
    for seed in range(5):
        found = divided([*train, *val], seed=seed)
        assert counts(found)["test"] == {"a": 10, "b": 10}
        assert not {file.digest for file in found.files["test"]} & {file.digest for file in val}
    assert said([*train, *val])["val-in-train"].startswith("10 of 20 val images are in train too, such as val/a/")


def test_an_upstream_set_keeps_copies_together_too():
    files = [*images(300, "a", copies=10), *images(100, "b")]
    found = divided(files, role="upstream")
    assert {split: len(members) for split, members in found.files.items()} == {"train": 380, "val": 20, "test": 0}
    assert all(len(splits) == 1 for splits in sides(found, lambda file: file.digest).values())
    one = images(20, "a", copies=20)
    with pytest.raises(UserError, match="the folder leaves no image for val"):
        divided(one, role="upstream")


# ---- what is said


def given(**number: int) -> list[File]:
    """Classes a and b in given splits, so many images of each class."""
    return [file for split, count in number.items() for label in "ab" for file in images(count, label, split)]


def test_clean_splits_have_no_remarks():
    assert said(given(train=400, val=100, test=5)) == {}


def test_test_images_that_are_in_train_or_val():
    shared = [
        image("test/a/x.png", content="atrain3", split="test"),
        image("test/b/y.png", content="bval1", split="test"),
    ]
    base = given(train=400, val=100, test=5)
    assert said([*base, shared[0]]) == {
        "test-in-train": "1 of 11 test images is in train too, such as test/a/x.png (train/a/3.png)"
    }
    found = divided([*base, *shared]).remarks[0]
    assert found.text.startswith("2 of 12 test images are in train or val too, such as ") and found.count == 2
    assert set(found.examples) == {"test/a/x.png (train/a/3.png)", "test/b/y.png (val/b/1.png)"}


def test_a_test_set_that_is_mostly_training_images_is_refused():
    train = given(train=400, val=100)
    test = [image(f"test/a/{i}.png", content=f"atrain{i}", split="test") for i in range(6)]
    new = images(5, "b", "test")
    with pytest.raises(UserError, match=r"^in: 6 of 11 test images are in train too, such as .* leave test out"):
        divided([*train, *test, *new])
    assert divided([*train, *test[:5], *new]).remarks[0].count == 5


def test_a_val_split_that_is_a_copy_of_train():
    train = given(train=400, test=9)
    val = [
        image(f"val/{file.entry.name}", content=f"{file.entry.label}train{n % 400}", split="val")
        for n, file in enumerate(train[:800])
    ]
    text = said([*train, *val])["val-in-train"]
    assert text.startswith("800 of 800 val images are in train too, such as val/train/")


def test_a_picture_in_two_classes():
    files = [*images(600, "cat"), *images(600, "dog")]
    files += [
        image("dog/zzz.png", content="cat0"),
        image("dog/zzy.png", content="cat1"),
        image("cat/q.png", content="cat2"),
    ]
    found = {remark.kind: remark for remark in divided(files).remarks}
    assert found["two-classes"].text == ("2 images are in more than one class, such as cat/0.png and dog/zzz.png")
    assert found["two-classes"].count == 2 and found["copies"].count == 3
    files = [*given(train=400, val=100, test=5), image("test/b/x.png", content="atrain3", split="test")]
    assert said(files)["two-classes"] == "1 image is in more than one class, such as test/b/x.png and train/a/3.png"


def test_classes_without_an_image_in_val_or_test():
    files = [file for label in "abcdefgh" for file in images(100, label, "train")]
    files += [file for label in "abcdef" for file in images(40, label, "val")]
    files += images(5, "a", "test")
    found = {remark.kind: remark for remark in divided(files).remarks}
    assert found["val-classes"].text == "2 of 8 classes have no image in val (g, h)"
    assert found["test-classes"].text == "7 of 8 classes have no image in test (b, c, d, e, f, ...)"
    assert found["test-classes"].count == 7 and found["test-classes"].examples == ("b", "c", "d", "e", "f")
    assert list(found) == ["val-classes", "test-classes", "1k-val-classes"]


def test_a_class_that_is_missing_from_a_small_val_is_said_once():
    assert said([*given(train=400, val=100, test=5), *images(1, "c", "train")]).keys() == {
        "val-classes",
        "test-classes",
    }


def test_a_small_class_of_train_that_is_in_no_drawn_test():
    """One image of b, and val is given: it is trained on, and test, which is drawn, has none."""
    files = [*images(1000, "a", "train"), *images(1, "b", "train"), *images(300, "a", "val"), *images(30, "b", "val")]
    assert said(files)["test-classes"] == "1 of 2 classes has no image in test, which was drawn from train (b)"


def test_classes_that_the_budget_1k_leaves_out():
    """Caltech-101 had 32 of 102 classes without an image among the first 200 of val."""
    files = [file for n in range(150) for file in images(20, f"c{n:03}")]
    found = divided(files)
    for split, rows in (("val", 200), ("train", 800)):
        present = {file.entry.label for file in found.files[split][:rows]}
        remark = next((remark for remark in found.remarks if remark.kind == f"1k-{split}-classes"), None)
        assert (remark.count if remark else 0) == 150 - len(present)
        if remark:
            first = next(label for label in found.classes if label not in present)
            assert remark.text.startswith(f"{remark.count} of 150 classes ") and f"({first}" in remark.text
            assert f"among the first {rows} of {split}, which budget 1k uses" in remark.text
    assert any(remark.kind == "1k-val-classes" for remark in found.remarks)


def test_a_budget_of_1k_with_fewer_than_1000_images():
    files = [file for label in "abcdefghij" for file in images(120, label)]
    assert said(files) == {
        "1k-images": "budget 1k uses 720 of train and 200 of val, where it is 800 and 200 if there are enough"
    }
    found = divided(files).remarks[0]
    assert found.count == 920
    assert said(given(train=400, val=20, test=9)) == {
        "1k-images": "budget 1k uses 800 of train and 40 of val, where it is 800 and 200 if there are enough"
    }


def test_groups_and_near_copies_across_given_splits():
    base = given(train=400, val=100, test=5)
    tracks = [
        image("train/a/t1_0.png", group="t1", split="train"),
        image("test/a/t1_1.png", group="t1", split="test"),
        image("test/a/t2_0.png", group="t2", split="test"),
    ]
    assert said([*base, *tracks]) == {
        "test-group-in-train": "1 of 12 test images has images of the same group in train, such as test/a/t1_1.png "
        "(train/a/t1_0.png)"
    }
    near = {tracks[0].digest: "c", tracks[1].digest: "c", base[0].digest: "d"}
    plain = [image(file.entry.name, split=file.entry.split) for file in tracks]
    assert said([*base, *plain], near=near) == {
        "test-looks-like-train": "1 of 12 test images looks like images of train, such as test/a/t1_1.png "
        "(train/a/t1_0.png)"
    }
    # A copy of the same bytes is a copy and no near copy.
    copy = image("test/a/copy.png", content="train/a/t1_0.png", split="test")
    assert said([*base, plain[0], copy], near=near).keys() == {"test-in-train"}


def test_the_line_says_that_nobody_has_looked_for_near_copies():
    files = [*images(50, "a"), *images(50, "b")]
    layout = Layout("class folders", tuple(file.entry for file in files), ("a", "b"), {})
    settings = FolderSettings(
        "in", "skip", SplitFractions(0, (0.6, 0.2, 0.2)), "task", decoding=FolderDecoding(near_copies=True)
    )
    assert divide(layout, files, settings).line.endswith("split here, seeded, before near copies are joined")
    assert divide(layout, files, settings, {}).line.endswith("split here, seeded")


def test_small_classes_are_left_out_by_name():
    files = [*images(600, "a"), *images(600, "b"), *images(2, "c"), *images(10, "d", copies=10)]
    found = divided(files, minimum=3)
    assert found.classes == ("a", "b") and found.remarks[0].text == "2 classes are left out for too few images (c, d)"
    assert len(found.left_out) == 12
    assert set(found.left_out.values()) == {"is of a class with fewer than 3 images in train"}
    assert sum(map(len, found.files.values())) == 1200
    with pytest.raises(UserError, match="has one class, a"):
        divided([*images(9, "a"), *images(2, "b")], minimum=3)


def test_the_line():
    files = [file for n in range(10) for file in images(340, f"c{n}")]
    assert divided(files).line == ("10 classes, 3,400 images; train 2,040, val 680, test 680, split here, seeded")
    assert divided(given(train=400, test=5)).line == (
        "2 classes, 810 images; train 600, val 200, test 10, val drawn from train, seeded"
    )
    assert divided(given(train=400, val=4, test=5)).line == (
        "2 classes, 818 images; train 800, val 8, test 10, as given"
    )
