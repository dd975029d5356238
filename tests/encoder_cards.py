"""card.json of encoders that tests write."""

from dataclasses import replace
from typing import Any

from vtabflow.contracts.results import EncoderCard, EncoderInput

CARD = EncoderCard(
    method="rotation",
    display="Rotation",
    family="self-supervised",
    network="resnet-small",
    features=64,
    sha256={},
    parameters=1,
    input=EncoderInput(16, -1.0, 1.0, None, None, standardise=False),
    seeded=False,
    precision="float32",
    status="ok",
    reason=None,
    losses={},
    curve=(),
    seconds=1.0,
    images_per_second=None,
    resumed=0,
    upstream=None,
    probe=None,
    peak_memory_bytes=0,
    versions={},
    machine={},
    spec={},
)


def encoder_card(**values: Any) -> EncoderCard:
    """A card with these values; the others are those of a small encoder that was trained without a fault."""
    return replace(CARD, **values)
