"""Learning rate as a function of the step, for pre-training and fine-tuning alike."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Learning rate over `steps`, with a linear warm-up.

    Attributes:
        learning_rate: the highest.
        steps: how many.
        warmup: fraction of `steps`, rounded to whole steps, over which the rate rises from 0.
        decay_at: fractions of `steps`, rounded to whole steps, for the decay "steps".
        decay_factor: see `decay`.
        decay: "steps" is piecewise constant, times `decay_factor` at each of `decay_at`, as VTAB fine-tunes
            (google-research/task_adaptation at d7630d3, trainer.py). "exponential" falls evenly to `decay_factor` times
            the rate, as the autoencoders (tolstikhin/wae, wae.py). "cosine" falls to zero along half a cosine after the
            warm-up, as SimCLR, BYOL, DINO and MAE.
    """

    learning_rate: float
    steps: int
    warmup: float = 0.0
    decay_at: tuple[float, ...] = ()
    decay_factor: float = 0.1
    decay: str = "steps"

    def rate(self, step: int) -> float:
        """The rate of a step counted from 0; step 0 of a warm-up has rate 0.

        With a decay at 300, step 300 has the old rate and 301 the new, as TensorFlow's piecewise constant.
        """
        warmup = round(self.warmup * self.steps)
        if self.decay == "exponential":
            factor = self.decay_factor ** (step / self.steps)
        elif self.decay == "cosine":
            factor = (1 + math.cos(math.pi * max(0, step - warmup) / max(1, self.steps - warmup))) / 2
        else:
            factor = self.decay_factor ** sum(step > round(fraction * self.steps) for fraction in self.decay_at)
        return self.learning_rate * factor * (min(1.0, step / warmup) if warmup else 1.0)
