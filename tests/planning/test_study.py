"""params.yaml is checked on load: every mistake is one sentence that names the file, the key and the right name."""

import json

import pytest
import yaml
from alter import changed

from vtabflow.errors import UserError
from vtabflow.planning import keys
from vtabflow.planning.study import Study, load
from vtabflow.planning.workflow_config import study_file


def refused(tmp_path, raw) -> str:
    path = tmp_path / "params.yaml"
    path.write_text(raw if isinstance(raw, str) else yaml.safe_dump(raw))
    with pytest.raises(UserError) as error:
        load(path)
    message = str(error.value)
    assert "\n" not in message and str(path) in message
    return message


def test_the_shipped_studies_load(root):
    for path in [root / "params.yaml", *(root / "studies").glob("*.yaml")]:
        assert load(path).study == ("demo" if path.name == "params.yaml" else path.stem)


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        ("finetune.learning_rate", [0.1], ["finetune.learning_rate", "did you mean learning_rates?"]),
        ("finetun", {}, ["unknown key finetun", "did you mean finetune?"]),
        ("prepare.procedural.trian", 900, ["prepare.procedural.trian", "did you mean train?"]),
        ("prepare.folders", {"cats": {"pth": "x"}}, ["prepare.folders.cats.pth", "did you mean path?"]),
        ("methods", ["rotatoin"], ["no method rotatoin", "did you mean rotation?", "sup-100"]),
        ("tasks", ["svnh-standin"], ["no task svnh-standin", "did you mean svhn-standin?"]),
        ("tasks", ["cifar10"], ["no task cifar10", "did you mean cifar100?"]),
        ("tasks", ["svhn-standin", "svhn-standin"], ["svhn-standin is given twice"]),
        ("budgets", ["2k"], ["budgets.0", "'1k' or 'full'"]),
        ("finetune.batch", 0, ["finetune.batch", "greater than or equal to 1"]),
        ("finetune.batch", 12.5, ["finetune.batch", "valid integer"]),
        ("finetune.batch", True, ["finetune.batch", "valid integer"]),
        ("finetune.learning_rates", [], ["finetune.learning_rates", "at least 1 item"]),
        ("finetune.learning_rates", [-0.1], ["finetune.learning_rates.0", "greater than 0"]),
        ("finetune.learning_rates", [float("nan")], ["finetune.learning_rates.0", "finite"]),
        ("finetune.decay_at", [0.6, 0.3], ["finetune.decay_at", "must increase"]),
        ("prepare.split", [0.5, 0.2, 0.2], ["prepare.split", "sum to 1, not 0.9"]),
        ("pretrain.network", "resnet50", ["no network resnet50", "did you mean resnet50v2?"]),
        ("pretrain.per_method", {"vae": {"latnt": 3}}, ["pretrain.per_method.vae.latnt", "did you mean latent?"]),
        (
            "pretrain.per_method",
            {"vae": {"learning_rate": -1}},
            ["pretrain.per_method.vae.learning_rate", "greater than 0"],
        ),
        ("pretrain.per_method", {"vae": {"network": "resnet"}}, ["vae.network", "no network resnet", "resnet50v2"]),
        ("pretrain.per_method", {"vea": {}}, ["no method vea", "did you mean vae?"]),
        (
            "pretrain.per_method",
            {"vae": {"channels": -1}},
            ["pretrain.per_method.vae.channels is -1", "should be from 1"],
        ),
        ("pretrain.per_method", {"rotation": {"crop_area_min": 7.0}}, ["rotation.crop_area_min is 7.0", "0.01 to 1"]),
        ("pretrain.per_method", {"vae": {"latent": "many"}}, ["vae.latent", "'many'", "type of its default 128"]),
        ("pretrain.per_method", {"vae": {"latent": "128"}}, ["vae.latent", "'128'", "type of its default 128"]),
        ("pretrain.per_method", {"vae": {"beta": "small"}}, ["vae.beta", "'small'", "type of its default 1.0"]),
        ("pretrain.per_method", {"vae": {"beta": "nan"}}, ["vae.beta", "'nan'", "type of its default 1.0"]),
        ("pretrain.per_method", {"vae": {"beta": True}}, ["vae.beta", "True", "type of its default 1.0"]),
        ("pretrain.per_method", {"vae": {"beta": "-5e-1"}}, ["vae.beta is -0.5: it should be from 0"]),
        (
            "prepare.image_size",
            48,
            ["prepare.image_size is 48", "vae works at 8, 16, 32", "pretrain.per_method.vae.image_size"],
        ),
        ("pretrain.batch", 1, ["pretrain.batch is 1", "at least 2"]),
        (
            "pretrain.per_method",
            {"rotation": {"batch": 1}},
            ["pretrain.per_method.rotation.batch is 1", "rotation needs at least 2"],
        ),
        ("pretrain.image_size", 50, ["pretrain.image_size is 50", "vae works at 8, 16, 32"]),
        (
            "pretrain.per_method",
            {"vae": {"image_size": 20}},
            ["pretrain.per_method.vae.image_size is 20", "vae works at 8, 16, 32"],
        ),
        ("pretrain.divergence", 1, ["pretrain.divergence", "greater than 1"]),
        ("pretrain.subset", {"fraction": 0.1, "file": 7}, ["pretrain.subset.file"]),
        ("upstream", "svhn-standin", ["svhn-standin is a task too"]),
        ("upstream", "imagenets", ["no dataset imagenet", "upstream-standin"]),
        ("study", "My Study", ["study", "lower-case letters"]),
        ("prepare.folders", {"svhn": {"path": "x"}}, ["svhn is the name of a VTAB task"]),
    ],
)
def test_a_mistake_becomes_one_sentence(tmp_path, smoke, place, value, says):
    message = refused(tmp_path, changed(smoke, place, value))
    for words in says:
        assert words in message


@pytest.mark.parametrize(
    ("method", "size", "batch", "says"),
    [
        ("jigsaw", 16, 64, "prepare.image_size is 16: jigsaw needs at least"),
        ("relative-patch-location", 16, 64, "prepare.image_size is 16: relative-patch-location needs at least"),
        ("cond-biggan", 224, 64, "prepare.image_size is 224: cond-biggan works at 32, 64, 128 px"),
        ("uncond-biggan", 48, 64, "prepare.image_size is 48: uncond-biggan works at"),
        ("bigbigan", 48, 64, "prepare.image_size is 48: bigbigan works at"),
        ("wae-gan", 100, 64, "prepare.image_size is 100: wae-gan works at 8, 16, 32, 64, 128 px"),
        ("exemplar", 32, 1, "pretrain.batch is 1: exemplar needs at least 2"),
        ("semi-exemplar-10", 32, 1, "pretrain.batch is 1: semi-exemplar-10 needs at least 2"),
        ("wae-mmd", 32, 1, "pretrain.batch is 1: wae-mmd needs at least 2"),
        ("uncond-biggan", 32, 3, "pretrain.batch is 3: uncond-biggan needs at least 4"),
    ],
)
def test_what_a_method_cannot_work_with_is_refused_with_the_key_and_the_smallest_value(
    tmp_path, smoke, method, size, batch, says
):
    raw = changed(changed(smoke, "prepare.image_size", size), "pretrain.batch", batch)
    raw["pretrain"].pop("per_method")
    assert says in refused(tmp_path, {**raw, "methods": ["from-scratch", method]})


@pytest.mark.parametrize(
    ("method", "own", "says"),
    [
        ("bigbigan", {"image_size": 256}, "bigbigan.image_size is 256: bigbigan works at 32, 64, 128 px"),
        ("bigbigan", {"image_size": 32, "downscale": 2}, "works at 64, 128, 256 px with its downscale of 2"),
        (
            "mae",
            {"image_size": 30},
            "mae.image_size is 30: mae on vit-small needs a multiple of its patch of 4 px, such as 28 or 32",
        ),
        ("dino", {"image_size": 40, "network": "vit-s16"}, "a multiple of its patch of 16 px, such as 32 or 48"),
        (
            "dino",
            {"network": "resnet-small"},
            "dino.network is resnet-small: dino needs one with patches: vit-s16, vit-small",
        ),
    ],
)
def test_images_that_a_methods_own_network_cannot_take(tmp_path, smoke, method, own, says):
    raw = changed(changed(smoke, "methods", ["from-scratch", method]), "prepare.image_size", 32)
    raw["pretrain"]["per_method"] = {method: own}
    assert says in refused(tmp_path, raw)


def test_a_rate_that_no_parameter_group_reads_is_refused_and_in_no_key(tmp_path, smoke):
    raw = changed(changed(smoke, "methods", ["from-scratch", "bigbigan"]), "prepare.image_size", 32)
    settings = Study.model_validate(raw).method_settings("bigbigan")
    assert settings == Study.model_validate(changed(raw, "pretrain.learning_rate", 0.77)).method_settings("bigbigan")
    raw["pretrain"]["per_method"] = {"bigbigan": {"learning_rate": 0.1}}
    assert "bigbigan has discriminator_rate, generator_rate, encoder_rate; set those" in refused(tmp_path, raw)


@pytest.mark.parametrize("written", ["0.00005", "5e-5", "5e-05", "5.0e-05", "'5e-05'"])
def test_numbers_as_people_and_dvc_write_them(tmp_path, smoke, written):
    """YAML 1.1 takes 5e-05 for a string. Wherever a number is meant it is that number, and in keys too."""
    raw = changed(smoke, "methods", ["from-scratch", "uncond-biggan"])
    raw["pretrain"]["per_method"] = {"uncond-biggan": {"generator_rate": "RATE", "weight_decay": "RATE"}}
    raw["finetune"]["learning_rates"] = ["RATE"]
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(raw).replace("RATE", written))
    study = load(path)
    settings = study.method_settings("uncond-biggan")
    assert settings["generator_rate"] == settings["weight_decay"] == study.finetune.learning_rates[0] == 5e-5
    path.write_text(yaml.safe_dump(raw).replace("RATE", "0.00005"))
    assert keys.plan(study).encoders.keys() == keys.plan(load(path)).encoders.keys()


def test_a_whole_number_for_a_fraction_has_one_key(smoke):
    raw = changed(smoke, "methods", ["from-scratch", "rotation"])
    plans = [
        keys.plan(Study.model_validate(changed(raw, "pretrain.per_method", {"rotation": {"crop_area_min": area}})))
        for area in (1, 1.0, "1e0")
    ]
    assert plans[0].encoders.keys() == plans[1].encoders.keys() == plans[2].encoders.keys()


def test_a_number_that_dvc_writes_into_the_study(tmp_path, smoke):
    """What `dvc exp run -S` does with the file."""
    hydra = pytest.importorskip("dvc.utils.hydra")
    path = tmp_path / "params.yaml"
    raw = changed(smoke, "methods", ["from-scratch", "rotation"])
    path.write_text(yaml.safe_dump(changed(raw, "pretrain.per_method", {"rotation": {"crop_area_min": 0.4}})))
    hydra.apply_overrides(path, ["pretrain.per_method.rotation.crop_area_min=0.025", "+pretrain.learning_rate=0.00005"])
    assert "5e-05" in path.read_text()
    study = load(path)
    assert study.method_settings("rotation")["crop_area_min"] == 0.025 and study.pretrain.learning_rate == 5e-5


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"finetune.batch": 1, "pretrain.network": "resnet50v2"},
            "finetune.batch is 1: resnet50v2, the network of from-scratch, needs at least 2 for images of 32 px",
        ),
        (
            {"prepare.image_size": 30, "pretrain.network": "vit-small"},
            "prepare.image_size is 30: from-scratch on vit-small needs a multiple of its patch of 4 px",
        ),
        (
            {"prepare.image_size": 16, "pretrain.network": "biggan-third"},
            "prepare.image_size is 16: from-scratch on biggan-third needs at least 32 px",
        ),
        (
            {"prepare.image_size": 30, "pretrain.image_size": 32, "methods": ["mae"]},
            "prepare.image_size is 30: mae on vit-small needs a multiple of its patch of 4 px",
        ),
        (
            {"pretrain.image_size": 16, "pretrain.network": "biggan-third", "methods": ["rotation"]},
            "pretrain.image_size is 16: rotation on biggan-third needs at least 32 px",
        ),
    ],
)
def test_what_a_network_cannot_be_trained_on(tmp_path, smoke, changes, says):
    raw = changed(smoke, "methods", ["from-scratch"])
    raw["pretrain"].pop("per_method")
    for place, value in changes.items():
        raw = changed(raw, place, value)
    assert says in refused(tmp_path, raw)


def test_one_image_at_a_time_is_taken_where_it_works(smoke):
    raw = changed(changed(smoke, "finetune.batch", 1), "methods", ["from-scratch"])
    raw["pretrain"].pop("per_method")
    Study.model_validate(raw)  # resnet-small has 4 x 4 places at 32 px
    deep = changed(raw, "pretrain.network", "resnet50v2")
    Study.model_validate(changed(deep, "finetune.evaluation", "linear"))
    Study.model_validate(changed(deep, "prepare.image_size", 33))


def test_what_they_can_take_is_taken(smoke):
    raw = changed(changed(smoke, "methods", ["bigbigan", "mae"]), "prepare.image_size", 32)
    raw["pretrain"]["per_method"] = {
        "bigbigan": {"image_size": 256, "downscale": 2},
        "mae": {"image_size": 64, "network": "vit-s16"},
    }
    assert Study.model_validate(raw).methods == ("bigbigan", "mae")


def test_a_method_can_have_an_image_size_of_its_own(smoke):
    """BigGANs generate images of 128 px; the rest of a study may be at 224."""
    raw = changed(smoke, "prepare.image_size", 224)
    raw |= {"methods": ["rotation", "vae"]}
    raw["pretrain"]["per_method"] = {"vae": {"image_size": 128}}
    study = Study.model_validate(raw)
    assert study.method_settings("vae")["image_size"] == 128 and study.method_settings("rotation")["image_size"] == 224


def test_files_that_are_no_study(tmp_path):
    assert "not YAML" in refused(tmp_path, "study: [demo\n")
    assert "study is given twice in" in (message := refused(tmp_path, "seeds: [0]\nstudy: demo\nstudy: other\n"))
    assert "line 3" in message
    assert "should hold keys" in refused(tmp_path, "- a\n- b\n")
    with pytest.raises(UserError, match="there is no study file"):
        load(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("tasks", "my-land", "tasks is 'my-land': it should be a list, such as [my-land]"),
        ("finetune.learning_rates", 0.1, "it should be a list, such as [0.1]"),
        ("finetune", 3, "finetune is 3: it should hold keys of its own, indented below it"),
        ("study", "My_Birds", "names have lower-case letters, digits and single hyphens"),
    ],
)
def test_mistakes_of_form_are_said_in_words_of_yaml(tmp_path, smoke, key, value, says):
    assert says in refused(tmp_path, changed(smoke, key, value))


@pytest.mark.parametrize(
    ("config", "files", "says"),
    [
        ({"finetune": {"batch": 4}}, [], ["finetune is a setting of the study", "params.yaml", "dvc exp run -S"]),
        ({"param": "studies/smoke.yaml"}, [], ["no key param (did you mean params?)", "--config params=FILE"]),
        ({"params": "params.yaml", "seeds": [1]}, [], ["seeds is a setting of the study"]),
        ({"workflow": 1}, [], ["no key workflow;"]),
        ({"params": None}, [], ["--config params= names no study file"]),
        ({"params": 5}, [], ["--config params=5 names no study file"]),
        ({"params": ""}, [], ["--config params= names no study file"]),
        (None, ["other.yaml"], ["--configfile other.yaml holds a study", "write --config params=other.yaml"]),
        ({"finetune": {"batch": 4}}, ["other.yaml"], ["finetune is a setting of the study"]),
    ],
)
def test_a_configuration_of_snakemake_that_would_change_nothing_is_refused(smoke, config, files, says):
    with pytest.raises(UserError) as error:
        study_file(smoke if config is None else config, files)
    assert all(words in str(error.value) for words in says) and "\n" not in str(error.value)


def test_the_study_file_that_snakemake_is_told():
    assert study_file({}) == "params.yaml"
    assert study_file({"params": "studies/smoke.yaml"}, ["a.yaml"]) == "studies/smoke.yaml"


def test_several_mistakes_are_counted(tmp_path, smoke):
    raw = changed(changed(smoke, "finetune.batch", 0), "study", "A B")
    assert "1 more errors follow" in refused(tmp_path, raw)


def test_whose_word_counts(smoke):
    """The study's settings, over them the method's own, over both params.yaml's per_method."""
    raw = changed(smoke, "pretrain.learning_rate", 0.07)
    study = Study.model_validate(raw)
    assert study.method_settings("rotation")["learning_rate"] == 0.07
    assert study.method_settings("vae")["optimiser"] == "adam"
    assert study.method_settings("vae")["learning_rate"] < 0.07
    study = Study.model_validate(changed(raw, "pretrain.per_method", {"vae": {"learning_rate": 0.002, "steps": 7}}))
    assert study.method_settings("vae")["learning_rate"] == 0.002
    assert study.method_settings("vae")["steps"] == 7
    assert study.method_settings("rotation")["steps"] == 60


def test_the_schema_for_editors_is_the_one_that_is_checked(root):
    written = json.loads((root / "workflow/schemas/params.schema.json").read_text())
    assert written == json.loads(json.dumps(Study.model_json_schema())), "run `make schema`"


def test_the_seeds_study_has_the_settings_of_the_demo(root):
    """So that it shares encoders, stores and the first seed with it."""
    demo, seeds = load(root / "params.yaml"), load(root / "studies/seeds.yaml")
    for name in ("upstream", "prepare", "pretrain", "finetune"):
        assert getattr(seeds, name) == getattr(demo, name)
    assert set(seeds.tasks) <= set(demo.tasks) and set(seeds.methods) <= set(demo.methods)
