"""Schedules from settings, optimisers, checkpoints, the upstream's batches, the probe."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from vtabflow.contracts.results import UsedSubset
from vtabflow.contracts.specs import SubsetDraw, SubsetFile, UpstreamSpec
from vtabflow.errors import UserError
from vtabflow.methods.augment import resized, standardise
from vtabflow.networks import registry
from vtabflow.prepare.store import open_store
from vtabflow.pretrain import checkpoint, loop
from vtabflow.pretrain.loop import Watch, build_schedule
from vtabflow.pretrain.optimisers import build_optimiser
from vtabflow.pretrain.probe import features, fit, probe
from vtabflow.pretrain.upstream import BatchSampler, Upstream, draw_subset, read_subset
from vtabflow.runtime.files import digest, sha256

CPU = torch.device("cpu")
CORNERS = UpstreamSpec(dataset="corners", folder="there", receipt="", task="corners", classes=4)


def test_schedule_values():
    """The step of a decay point still has the old rate, as in fine-tuning (docs/protocol.md#finetuning)."""
    made = build_schedule(
        {"learning_rate": 0.8, "warmup": 0.04, "decay_at": [0.5, 0.75], "decay_factor": 0.1, "decay": "steps"}, 100
    )
    values = [made.rate(step) for step in range(100)]
    np.testing.assert_allclose(values[:6], [0, 0.2, 0.4, 0.6, 0.8, 0.8])
    np.testing.assert_allclose([values[i] for i in (50, 51, 75, 76, 99)], [0.8, 0.08, 0.08, 0.008, 0.008])
    thirds = {"learning_rate": 1.0, "warmup": 0, "decay_at": [0.3333333333, 0.6666666667], "decay_factor": 0.5}
    made = build_schedule({**thirds, "decay": "steps"}, 60)
    assert [made.rate(step) for step in (0, 20, 21, 40, 41)] == [1, 1, 0.5, 0.5, 0.25]


def test_exponential_and_cosine_decay():
    smooth = {"learning_rate": 2.0, "warmup": 0.1, "decay_at": [], "decay_factor": 0.01}
    falling = build_schedule({**smooth, "warmup": 0, "decay": "exponential"}, 50)
    np.testing.assert_allclose([falling.rate(s) for s in (0, 25, 50)], [2.0, 0.2, 0.02])
    np.testing.assert_allclose(falling.rate(8) / falling.rate(7), 0.01 ** (1 / 50))
    cosine = build_schedule({**smooth, "decay": "cosine"}, 50)
    np.testing.assert_allclose([cosine.rate(s) for s in (0, 1, 5, 50)], [0, 0.4, 2.0, 0], atol=1e-12)
    np.testing.assert_allclose(cosine.rate(20), 1 + np.cos(np.pi * 15 / 45))


def test_weight_decay_is_on_kernels_only():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    made = build_optimiser(
        net.parameters(), {"optimiser": "sgd", "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 1e-2}
    )
    decayed = {id(p) for group in made.param_groups if group["weight_decay"] for p in group["params"]}
    assert decayed == {id(net[0].weight), id(net[3].weight)}
    assert sum(len(group["params"]) for group in made.param_groups) == len(list(net.parameters()))


def test_sgd_is_momentum_with_l2():
    p = nn.Parameter(torch.tensor([[2.0]]))
    made = build_optimiser([p], {"optimiser": "sgd", "learning_rate": 0.1, "momentum": 0.5, "weight_decay": 0.2})
    value, velocity = 2.0, 0.0
    for _ in range(3):
        p.grad = torch.tensor([[1.0]])
        made.step()
        velocity = 0.5 * velocity + 1.0 + 0.2 * value
        value -= 0.1 * velocity
    assert p.item() == pytest.approx(value, rel=1e-6)


def test_adam_reads_its_betas_and_other_optimisers_are_refused():
    p = nn.Parameter(torch.zeros(1))
    made = build_optimiser([p], {"optimiser": "adam", "learning_rate": 1e-3, "beta1": 0.5})
    assert made.param_groups[0]["betas"] == (0.5, 0.999) and made.param_groups[0]["eps"] == 1e-8
    made = build_optimiser([p], {"optimiser": "adamw", "learning_rate": 1e-3, "beta2": 0.95, "epsilon": 1e-6})
    assert made.param_groups[0]["betas"] == (0.9, 0.95) and made.param_groups[0]["eps"] == 1e-6
    with pytest.raises(UserError, match="lamb"):
        build_optimiser([p], {"optimiser": "lamb", "learning_rate": 1e-3})


def test_a_stream_is_whole_permutations_cut_into_batches():
    rows = np.arange(100, 110)
    order = BatchSampler(rows, 4, 7, "images")
    stream = np.concatenate([order[t] for t in range(10)])
    for epoch in range(4):
        assert sorted(stream[10 * epoch : 10 * epoch + 10]) == list(rows)
    assert list(stream[:10]) != list(stream[10:20])
    fresh = BatchSampler(rows, 4, 7, "images")
    assert np.array_equal(fresh[8], stream[32:36]) and np.array_equal(fresh[0], stream[:4])
    assert not np.array_equal(BatchSampler(rows, 10, 8, "images")[0], stream[:10])
    assert not np.array_equal(BatchSampler(rows, 10, 7, "other")[0], stream[:10])


def test_a_batch_can_be_larger_than_a_stream():
    batch = BatchSampler(np.arange(3), 8, 0)[0]
    assert len(batch) == 8 and sorted(batch[:3]) == [0, 1, 2] == sorted(batch[3:6])


def test_streams_have_orders_of_their_own_that_follow_from_the_seed(upstream_folder):
    store, streams = open_store(upstream_folder), {"a": "images", "b": "images"}
    up, other = (Upstream(store, CORNERS, streams, 8, seed, CPU) for seed in (0, 1))
    batches = [tuple(sampler[0]) for sampler in (*up.samplers.values(), *other.samplers.values())]
    assert len(set(batches)) == 4


def test_subset_has_the_same_number_of_each_class():
    labels = np.random.default_rng(0).integers(0, 5, 1000)
    chosen = draw_subset(labels, 5, 0.1, 3)
    assert np.bincount(labels[chosen]).tolist() == [20] * 5
    assert len(set(chosen)) == 100 and np.array_equal(chosen, draw_subset(labels, 5, 0.1, 3))
    assert not np.array_equal(chosen, draw_subset(labels, 5, 0.1, 4))
    rare = np.array([0] * 50 + [1] * 2)
    assert np.bincount(rare[draw_subset(rare, 2, 0.5, 0)]).tolist() == [13, 2]


def test_streams_carry_the_labels_that_they_declare(upstream_folder):
    store = open_store(upstream_folder)
    spec = replace(CORNERS, subset=SubsetDraw(0.2, 0))
    up = Upstream(store, spec, {"a": "images", "b": "labels", "c": "subset"}, 8, 0, CPU)
    batch = up.draw(3)
    assert batch["a"][1] is None
    for name in ("b", "c"):
        images, labels = batch[name]
        rows = up.samplers[name][3]
        assert np.array_equal(images.numpy(), store.images("train")[rows])
        assert np.array_equal(labels.numpy(), store.labels("corners", "train")[rows])
    assert up.subset.images == 24 and set(np.concatenate([up.samplers["c"][t] for t in range(3)])) == set(
        up.samplers["c"].indices
    )
    assert up.files == ["train.npy", "labels/corners.train.npy"]


def test_the_labelled_subset_can_be_listed_in_a_file(upstream_folder, tmp_path):
    """By example id or by file name; the batches, its digest, and lists with mistakes."""
    store, path = open_store(upstream_folder), tmp_path / "list.txt"
    names = ["train-7", "train-3", "", "train-3", "train-90"]
    path.write_text("\n".join(names))
    given = SubsetFile(str(path), sha256(path))
    spec = replace(CORNERS, subset=given)
    up = Upstream(store, spec, {"few": "subset"}, 6, 0, CPU)
    assert up.subset_ids == ("train-3", "train-7", "train-90") and sorted(set(up.samplers["few"][0])) == [3, 7, 90]
    assert up.subset == UsedSubset(3, digest(list(up.subset_ids)), file=given.file, sha256=given.sha256)
    found, out = read_subset(given, ["a/train-3", "b/train-7", "a/train-90", "c/x"])
    assert found.tolist() == [0, 1, 2] and out == 0
    for ids in (["a/train-3", "b/train-3", "train-7", "train-90"], ["train-7", "train-90"]):
        with pytest.raises(UserError, match="1 of its 3 lines, such as train-3,"):
            read_subset(given, ids)
    with pytest.raises(UserError, match="has changed since the study was planned"):
        read_subset(replace(given, sha256="0" * 64), names)
    path.write_text("\n")
    with pytest.raises(UserError, match="nothing in it"):
        read_subset(replace(given, sha256=sha256(path)), names)


def test_a_list_may_name_images_that_are_held_out(upstream_folder, tmp_path, capsys):
    """S4L drew its list from all of ImageNet: what is held out is counted and never trained on."""
    store, path = open_store(upstream_folder), tmp_path / "list.txt"
    path.write_text("\n".join(["train-7", store.ids("val")[5], "train-3", store.ids("val")[0]]))
    given = SubsetFile(str(path), sha256(path))
    spec = replace(CORNERS, subset=given)
    up = Upstream(store, spec, {"few": "subset"}, 2, 0, CPU)
    assert up.subset_ids == ("train-3", "train-7") and up.subset.held_out == 2
    assert "2 of its images are held out, 2 are used" in capsys.readouterr().out
    path.write_text(store.ids("val")[5])
    with pytest.raises(UserError, match="nothing in it"):
        Upstream(store, replace(spec, subset=replace(given, sha256=sha256(path))), {"few": "subset"}, 2, 0, CPU)


class NoLabels:
    """A store whose labels must not be read."""

    def __init__(self, store):
        self.manifest, self.images, self.ids = store.manifest, store.images, store.ids

    def labels(self, task, split):
        raise AssertionError("labels were read")


def test_methods_without_labels_never_read_them(upstream_folder):
    up = Upstream(NoLabels(open_store(upstream_folder)), CORNERS, {"images": "images"}, 8, 0, CPU)
    assert up.draw(0)["images"][1] is None and up.files == ["train.npy"] and up.classes is None


def test_missing_labels_and_missing_subset_are_refused(upstream_folder):
    store = open_store(upstream_folder)
    with pytest.raises(UserError, match="there has no labels for other"):
        Upstream(store, replace(CORNERS, task="other"), {"a": "labels"}, 8, 0, CPU)
    with pytest.raises(UserError, match="subset"):
        Upstream(store, CORNERS, {"a": "subset"}, 8, 0, CPU)


def test_a_checkpoint_is_replaced_whole(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, {"key": "k", "value": torch.ones(3)})

    def broken(state, stream):
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(Exception, match="No space left"):
        checkpoint.save(tmp_path, {"key": "k", "value": torch.zeros(3)})
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.NAME]
    assert torch.equal(checkpoint.load(tmp_path, "k")["value"], torch.ones(3))


def test_another_keys_checkpoint_and_a_broken_one_are_not_used(tmp_path, capsys):
    assert checkpoint.load(tmp_path, "k") is None
    checkpoint.save(tmp_path, {"key": "other"})
    assert checkpoint.load(tmp_path, "k") is None
    (tmp_path / checkpoint.NAME).write_bytes(b"not a checkpoint")
    assert checkpoint.load(tmp_path, "k") is None
    assert "starting from the beginning" in capsys.readouterr().out


def test_a_checkpoint_runs_no_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (exec, ("raise SystemExit('ran')",))

    torch.save({"key": "k", "evil": Evil()}, tmp_path / checkpoint.NAME)
    assert checkpoint.load(tmp_path, "k") is None


def test_ridge_is_that_of_its_normal_equations_and_finds_a_plane():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(300, 6, dtype=torch.float64, generator=g) * torch.tensor([1, 10, 0.1, 1, 1, 1]) + 3
    y = ((x - 3)[:, 2] * 10 + (x - 3)[:, 0] > 0).long()
    scores = fit(x, y, 2)
    assert (scores(x).argmax(1) == y).double().mean() > 0.95
    torch.testing.assert_close(scores(x).sum(1), torch.ones(300, dtype=torch.float64))
    # A representation is judged the same whatever its scale.
    torch.testing.assert_close(fit(x * 100, y, 2)(x * 100), scores(x), atol=1e-4, rtol=0)


def test_probe_of_a_random_network_and_without_labels(upstream_folder):
    store = open_store(upstream_folder)
    result = probe(registry.build("resnet-small", 0), store, "corners", 16, CPU)
    assert (result.n_train, result.n_test, result.classes) == (120, 40, 4) and 0 <= result.accuracy <= 1
    assert probe(registry.build("resnet-small", 0), store, "other", 16, CPU) is None


def test_the_probe_leaves_the_network_as_it_is(upstream_folder):
    """In training mode batch norms would change, and with them the encoder."""
    trunk = registry.build("resnet-small", 0).train()
    before = {name: value.clone() for name, value in trunk.state_dict().items()}
    probe(trunk, open_store(upstream_folder), "corners", 16, CPU)
    assert all(torch.equal(value, before[name]) for name, value in trunk.state_dict().items())


def test_features_are_those_of_plain_or_standardised_images(upstream_folder):
    trunk, images = registry.build("resnet-small", 0).eval(), np.array(open_store(upstream_folder).images("train")[:6])
    x = resized(torch.from_numpy(images), 16)
    with torch.inference_mode():
        for standardised, expected in ((False, trunk(x)), (True, trunk(standardise(x)))):
            found = features(trunk, images, 16, CPU, standardised, batch=4)
            torch.testing.assert_close(found, expected.double(), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(trunk(x), trunk(standardise(x)), atol=1e-3)


def test_the_first_steps_do_not_count_for_the_speed(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(loop.time, "monotonic", lambda: now[0])
    watch = Watch(CPU, 100.0)
    for step in range(25):
        now[0] += 30 if step < 5 else 0.5
        watch.step()
    assert watch.steps_per_second() == 2 and watch.seconds() == 260
    watch.saved()
    now[0] += 7
    assert watch.since_saved() == 7
