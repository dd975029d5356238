"""What a training returns. Imports no torch, so that the step can look for an existing encoder quickly."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from vtabflow.contracts.results import Probe, UsedUpstream

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Outcome:
    """How a run ended. losses: {"start": first step, "end": mean of the last steps}; curve: losses along the way."""

    status: Literal["ok", "stopped", "failed"] = "ok"
    reason: str | None = None
    steps: int = 0
    losses: dict[str, dict[str, float]] = field(default_factory=dict)
    curve: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    images_per_second: float | None = None
    resumed: int = 0


@dataclass(frozen=True)
class Trained:
    """An outcome and what belongs to it; the defaults are those of a network that is only initialised.

    Attributes:
        standardise: whether the trunk's input images have mean 0 and standard deviation 1 each.
        samples: generated images (N, 3, H, W) in [-1, 1].
        subset_ids: example ids of the labelled subset.
    """

    outcome: Outcome
    upstream: UsedUpstream | None = None
    probe: Probe | None = None
    standardise: bool = False
    samples: "Tensor | None" = None
    subset_ids: tuple[str, ...] = ()
