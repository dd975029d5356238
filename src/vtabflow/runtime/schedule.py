"""Learning rate as a function of the step, for pre-training and fine-tuning alike."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Learning rate over `steps`, with a linear warm-up.

    decay: "steps" is piecewise constant, times `decay_factor` at each of `decay_at` (protocol.md section 3.1);
    "exponential" falls evenly to `decay_factor` times the rate (methods.md M2-M5); "cosine" falls to zero along half a
    cosine after the warm-up (the modern self-supervised methods). `warmup` and `decay_at` are fractions of `steps`,
    rounded to whole steps.
    """

    learning_rate: float
    steps: int
    warmup: float = 0.0
    decay_at: tuple[float, ...] = ()
    decay_factor: float = 0.1
    decay: str = "steps"

    def rate(self, step: int) -> float:
        """The rate of a step counted from 0. With a decay at 300, step 300 has the old rate and 301 the new; warm-up
        starts at 0.
        """
        warmup = round(self.warmup * self.steps)
        if self.decay == "exponential":
            share = self.decay_factor ** (step / self.steps)
        elif self.decay == "cosine":
            share = (1 + math.cos(math.pi * max(0, step - warmup) / max(1, self.steps - warmup))) / 2
        else:
            share = self.decay_factor ** sum(step > round(fraction * self.steps) for fraction in self.decay_at)
        return self.learning_rate * share * (min(1.0, step / warmup) if warmup else 1.0)
