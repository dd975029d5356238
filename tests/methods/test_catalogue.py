"""Finding methods without importing them."""

import re
import subprocess
import sys

import pytest

from vtabflow.errors import UserError
from vtabflow.planning import catalogue

COMMON = {
    "steps",
    "batch",
    "optimiser",
    "learning_rate",
    "momentum",
    "weight_decay",
    "warmup",
    "decay_at",
    "decay_factor",
    "decay",
    "divergence",
    "image_size",
    "precision",
}


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_listing_imports_no_torch_and_loading_only_the_methods_file():
    code = (
        "import sys\nfrom vtabflow.planning import catalogue\n"
        "assert len(catalogue.methods()) >= 18\nassert 'torch' not in sys.modules\n"
        "catalogue.load('rotation')\nassert 'torch' in sys.modules\n"
        "found = {m for m in sys.modules if m.startswith('vtabflow.methods.')}\n"
        "assert found == {'vtabflow.methods.' + m for m in ('base', 'augment', 'batch_rng', 'rotation')}, found\n"
    )
    result = run(code)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("method", catalogue.methods())
def test_what_is_read_is_what_the_class_says(method):
    info, cls = catalogue.info(method), catalogue.load(method)
    for field in catalogue.LITERALS:
        if field != "settings":
            assert getattr(info, field) == getattr(cls, field), field
    assert info.settings == cls.own_defaults()
    assert info.id == method and info.reference
    assert set(info.defaults) <= COMMON
    numbers = {name for name, value in info.settings.items() if not isinstance(value, bool | str)}
    assert set(info.ranges) == numbers, "every number has a range"
    assert not set(info.settings) & COMMON, "a method's own settings have names of their own"


# Ids, display names and families of the VTAB study.
STUDY = {
    "from-scratch": ("From-Scratch", "from-scratch"),
    "vae": ("VAE", "generative"),
    "wae-mmd": ("WAE-MMD", "generative"),
    "wae-gan": ("WAE-GAN", "generative"),
    "wae-ukl": ("WAE-UKL", "generative"),
    "uncond-biggan": ("Uncond-BigGAN", "generative"),
    "cond-biggan": ("Cond-BigGAN", "generative"),
    "bigbigan": ("BigBiGAN", "generative"),
    "relative-patch-location": ("Rel.Pat.Loc", "self-supervised"),
    "jigsaw": ("Jigsaw", "self-supervised"),
    "rotation": ("Rotation", "self-supervised"),
    "exemplar": ("Exemplar", "self-supervised"),
    "semi-rotation-10": ("Semi-Rotation-10%", "semi-supervised"),
    "semi-exemplar-10": ("Semi-Exemplar-10%", "semi-supervised"),
    "sup-10": ("Sup-10%", "supervised"),
    "sup-100": ("Sup-100%", "supervised"),
    "sup-rotation-100": ("Sup-Rotation-100%", "supervised"),
    "sup-exemplar-100": ("Sup-Exemplar-100%", "supervised"),
}
EXTRAS = {"simclr": "SimCLR", "byol": "BYOL", "dino": "DINO", "mae": "MAE"}
# What the study lets each learn from; unsupervised ones never see a class.
LABELS = {
    "all labels": {"sup-100", "sup-rotation-100", "sup-exemplar-100", "cond-biggan"},
    "a labelled subset": {"sup-10", "semi-rotation-10", "semi-exemplar-10"},
}


def test_the_methods_of_the_study_and_the_extras():
    known = catalogue.methods()
    assert {name: (info.display, info.family) for name, info in known.items() if info.published} == STUDY
    for name, display in EXTRAS.items():  # and any that were added
        assert (known[name].display, known[name].family) == (display, "self-supervised") and not known[name].published
    assert {name for name, info in known.items() if info.published and info.uses_labels} == set.union(*LABELS.values())


def test_the_command_prints_the_table_of_methods():
    shown = subprocess.run([sys.executable, "-m", "vtabflow", "methods"], capture_output=True, text=True, check=True)
    first, beside = re.split(r"Other methods \(\d+\)", shown.stdout)
    assert first.startswith("The methods of the study (18)")
    for name, (display, family) in STUDY.items():
        (line,) = [line for line in first.splitlines() if line.startswith(f"{name} ")]
        info = catalogue.info(name)
        learns = next(
            (label for label, names in LABELS.items() if name in names), "images" if info.streams else "nothing"
        )
        for word in (display, family, info.network("resnet50v2"), learns, info.reference):
            assert word in line
    assert [name for name in EXTRAS if f"{name} " not in beside] == []


def test_unknown_method_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="did you mean rotation"):
        catalogue.info("rotaton")


BASE = """
class Method:
    id = ''
    display = ''
    family = ''
    source = 'trained'
    streams = {}
    defaults = {}
    settings = {}
    sizes = ()
    smallest_size = 1
    smallest_batch = 2
    networks = {}
    update_order = ('main',)
    needs = {}
    published = False
    reference = ''
"""
ONE = """
from vtabflow.methods.base import Method


class One(Method):
    id = 'one'
    display = 'One'
    family = 'supervised'
    streams = {'a': 'labels'}
    settings = {'x': 1}
"""


def folder(path, **files):
    for name, text in {"base": BASE, **files}.items():
        (path / f"{name}.py").write_text(text)
    return path


def test_inheritance_within_a_file_and_between_files(tmp_path):
    two = "\n\nclass Two(One):\n    id = 'two'\n    streams: dict = {'a': 'subset'}\n"
    three = "from vtabflow.methods.one import Two as Start\n\n\n"
    three += "class Three(Start):\n    id = 'three'\n    settings = {'y': (2, 0, 5)}\n"
    four = "from vtabflow.methods.three import Three\n\n\n"
    four += "class Four(Three):\n    id = 'four'\n    settings = {'x': (3, 2, 4), 'y': 7}\n"
    other = "class Helper:\n    id = 'no'\n"
    found = catalogue.methods(folder(tmp_path, one=ONE + two, three=three, four=four, other=other))
    assert sorted(found) == ["four", "one", "three", "two"]
    assert (
        found["two"].settings == {"x": 1} and found["two"].streams == {"a": "subset"} and found["two"].display == "One"
    )
    assert found["three"].settings == {"x": 1, "y": 2} and found["three"].ranges == {"y": (0, 5)}
    assert found["four"].settings == {"x": 3, "y": 7} and found["four"].ranges == {"x": (2, 4)}
    assert found["three"].streams == {"a": "subset"}
    assert found["three"].module == "vtabflow.methods.three" and found["three"].update_order == ("main",)


def test_a_method_that_is_not_trained_may_have_any_family_and_settings(tmp_path):
    random = ONE.replace("{'a': 'labels'}", "{}") + "    source = 'random'\n    update_order = ()\n"
    (info,) = catalogue.methods(folder(tmp_path, one=random)).values()
    assert (info.source, info.family, info.settings) == ("random", "supervised", {"x": 1})


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (ONE.replace("{'x': 1}", "dict(x=1)"), "One.settings must be a literal"),
        (ONE.replace("'one'", "'One!'"), "lower-case"),
        (ONE.replace("'One'", "''"), "display name"),
        (ONE.replace("'supervised'", "'super'"), "family"),
        (ONE.replace("'labels'", "'everything'"), "everything"),
        (ONE + "    source = 'elsewhere'\n", "source is 'elsewhere'; set it to one of"),
        (ONE + "    update_order = ()\n", "a trained method has streams and an update_order"),
        # It may hope that its `build` loads weights: nothing would call it.
        (ONE.replace("{'a': 'labels'}", "{}") + "    update_order = ()\n", "change the source"),
        (ONE + "    source = 'random'\n", "and no other has"),
        (ONE.replace("'x': 1", "'x': (1, 2, 3)"), r"settings\['x'\] is \(1, 2, 3\).*default within the range"),
        (ONE.replace("'x': 1", "'x': (1, 0)"), "default, lowest, highest"),
        (ONE + "    oops oops\n", "line"),
        (ONE + "\n\nclass Again(One):\n    pass\n", "both declare"),
    ],
)
def test_a_file_that_breaks_the_rules_is_named(tmp_path, text, match):
    with pytest.raises(UserError, match=match) as error:
        catalogue.methods(folder(tmp_path, one=text))
    assert "one" in str(error.value)
