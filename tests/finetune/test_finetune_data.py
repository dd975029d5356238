"""What the loop is fed: order, input, images in memory and streamed, labels."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from vtabflow.contracts.results import EncoderInput
from vtabflow.errors import UserError
from vtabflow.finetune import data
from vtabflow.finetune.data import ImageSource, LabelledDataset, checked_labels, make_preprocess, shuffled_order
from vtabflow.methods.augment import standardise, to_float

CPU = torch.device("cpu")
UNIT = EncoderInput(16, 0.0, 1.0, None, None, standardise=False)


@pytest.mark.parametrize(("examples", "batch", "steps"), [(10, 3, 20), (5, 12, 4), (8, 8, 3), (1, 4, 2)])
def test_order_is_whole_passes_cut_into_batches(examples, batch, steps):
    order = shuffled_order(examples, batch, steps, 3)
    assert order.shape == (steps * batch,) and order.dtype == torch.int64
    passes = order.split(examples)
    for one in passes[:-1]:
        assert one.sort().values.tolist() == list(range(examples))
    assert len(set(passes[-1].tolist())) == len(passes[-1])
    if examples > 4:
        assert len({tuple(one.tolist()) for one in passes[:-1]}) == len(passes) - 1, "passes are reshuffled"
        assert not torch.equal(order, shuffled_order(examples, batch, steps, 4))
    assert torch.equal(order, shuffled_order(examples, batch, steps, 3))
    # A longer schedule of one seed begins as the shorter one.
    assert torch.equal(order, shuffled_order(examples, batch, 2 * steps, 3)[: steps * batch])


@pytest.mark.parametrize("channels", [1, 3])
def test_what_the_network_sees(channels):
    rng = np.random.default_rng(0)
    raw = rng.integers(0, 256, (2, 16, 16, channels), dtype=np.uint8)
    expected_input = EncoderInput(16, -1.0, 1.0, (0.1, 0.2, 0.3), (0.5, 0.25, 2.0), standardise=False)
    seen = make_preprocess(16, "legacy", expected_input, CPU)(torch.from_numpy(raw.copy()))
    expected = (np.broadcast_to(raw, (2, 16, 16, 3)) / 255.0 * 2.0 - 1.0 - [0.1, 0.2, 0.3]) / [0.5, 0.25, 2.0]
    np.testing.assert_allclose(seen.numpy(), expected.transpose(0, 3, 1, 2), atol=3e-6)
    assert seen.is_contiguous(memory_format=torch.channels_last) and seen.dtype == torch.float32
    unit = make_preprocess(16, "legacy", UNIT, CPU)(torch.from_numpy(raw))
    assert np.array_equal(
        unit.numpy(), np.broadcast_to(raw.astype(np.float32) / np.float32(255), (2, 16, 16, 3)).transpose(0, 3, 1, 2)
    )


def test_preprocessing_standardises_each_image_as_its_pretraining_did():
    """The same numbers as the augmentation's, grey images included."""
    raw = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8))
    expected = EncoderInput(16, -1.0, 1.0, None, None, standardise=True)
    faint = 100 + raw % 2  # a deviation of half a grey level, below the floor that standardise has
    for images in (raw, raw[..., :1], torch.full_like(raw, 7), faint):
        seen = make_preprocess(16, "legacy", expected, CPU)(images)
        torch.testing.assert_close(seen, standardise(to_float(images)), atol=1e-5, rtol=1e-5)


def test_preprocessing_resizes_on_the_byte_scale():
    """2 px to 4 px, legacy: no half-pixel shift, so source coordinates are 0, 0.5, 1, 1.5 and the last is repeated."""
    raw = torch.tensor([[0, 100], [100, 200]], dtype=torch.uint8).reshape(1, 2, 2, 1)
    seen = make_preprocess(4, "legacy", UNIT, CPU)(raw)
    assert seen.shape == (1, 3, 4, 4)
    row = torch.tensor([0.0, 50.0, 100.0, 100.0])
    assert torch.allclose(seen[0, 1] * 255, row[None, :] + row[:, None], atol=1e-4)


def test_images_that_do_not_fit_are_streamed_alike(monkeypatch):
    rng = np.random.default_rng(0)
    parts = [rng.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8) for count in (9, 6)]
    labels = torch.arange(15)
    order = shuffled_order(15, 4, 9, 2)
    resident = LabelledDataset(ImageSource(parts, CPU), labels, lambda raw: raw)
    monkeypatch.setattr(data, "RESIDENT_ON_CPU", 0)
    streamed = LabelledDataset(ImageSource(parts, CPU), labels, lambda raw: raw)
    assert streamed.source.resident is None and resident.source.resident is not None
    joined = np.concatenate(parts)
    for one, other, rows in zip(resident.batches(order, 4), streamed.batches(order, 4), order.split(4), strict=True):
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])
        assert np.array_equal(one[0].numpy(), joined[rows.numpy()])
    val = streamed[9:]
    assert len(val) == 6 and val.labels.tolist() == list(range(9, 15)) and len(streamed[:9]) == 9
    assert val[2:].first == 11
    whole = torch.cat([raw for raw, _ in val.batches(torch.arange(6), 4)])
    assert np.array_equal(whole.numpy(), parts[1])


def test_labels_outside_the_classes_are_refused():
    assert checked_labels(np.array([0, 2, 1]), 3, 2, "x").tolist() == [0, 2]
    for labels, rows in (([0, 3], 2), ([-1, 0], 2), ([0], 2), ([], 0)):
        with pytest.raises(UserError, match="store s"):
            checked_labels(np.array(labels, dtype=np.int64), 3, rows, "store s")


def test_preprocessing_leaves_its_argument_alone():
    """Also where nothing is to be resized and the images are floats already."""
    raw = torch.full((1, 4, 4, 3), 51.0)
    seen = make_preprocess(4, "legacy", replace(UNIT, low=-1.0), CPU)(raw)
    assert torch.allclose(seen, torch.tensor(-0.6)) and torch.equal(raw, torch.full((1, 4, 4, 3), 51.0))
