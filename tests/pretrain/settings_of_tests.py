"""Pre-training settings of the tests, and specs with other ones."""

from dataclasses import replace

from vtabflow.contracts.specs import PretrainSettings

COMMON = PretrainSettings(
    steps=12,
    batch=16,
    optimiser="sgd",
    learning_rate=0.05,
    momentum=0.9,
    weight_decay=1e-4,
    warmup=0.1,
    decay="steps",
    decay_at=(0.5, 0.8),
    decay_factor=0.1,
    precision="auto",
    divergence=100.0,
)


def with_settings(spec, **settings):
    """The spec with other settings, common or the method's own."""
    common = {name: value for name, value in settings.items() if hasattr(COMMON, name)}
    own = {name: value for name, value in settings.items() if name not in common}
    return replace(spec, settings=replace(spec.settings, **common, method=spec.settings.method | own))
