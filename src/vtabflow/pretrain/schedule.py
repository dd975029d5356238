"""Learning rate as a function of the step: linear warm-up from 0, then steps down at given points."""

from collections.abc import Sequence


def rate(
    step: int, steps: int, base: float, warmup: float = 0.0, decay_at: Sequence[float] = (), decay_factor: float = 0.1
) -> float:
    """Learning rate of `step` (from 0) out of `steps`. `warmup` and `decay_at` are fractions of `steps`, rounded to
    whole steps.

    In warm-up of w steps, step k has base * k / w, so step 0 changes nothing. The factor applies from each decay
    point on.
    """
    warm = round(warmup * steps)
    if step < warm:
        return base * step / warm
    return base * decay_factor ** sum(step >= round(point * steps) for point in decay_at)
