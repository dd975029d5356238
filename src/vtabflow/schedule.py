"""Learning rate as a function of the step, for pre-training and fine-tuning alike."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Learning rate over `steps`: piecewise constant, with a linear warm-up. protocol.md section 3.1.

    `warmup` and `decay_at` are fractions of `steps`, rounded to whole steps.
    """

    learning_rate: float
    steps: int
    warmup: float = 0.0
    decay_at: tuple[float, ...] = ()
    decay_factor: float = 0.1

    def rate(self, step: int) -> float:
        """The rate of a step counted from 0. With a decay at 300, step 300 has the old rate and 301 the new; warm-up
        starts at 0.
        """
        decays = sum(step > round(fraction * self.steps) for fraction in self.decay_at)
        warmup = round(self.warmup * self.steps)
        return self.learning_rate * self.decay_factor**decays * (min(1.0, step / warmup) if warmup else 1.0)
