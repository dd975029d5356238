"""From-Scratch: the network's random initialisation, the baseline of every method."""

from vtabflow.methods.base import Method


class FromScratch(Method):
    """No pre-training: the seed of each downstream run draws the weights anew (docs/methods/from-scratch.md)."""

    id = "from-scratch"
    display = "From-Scratch"
    family = "from-scratch"
    source = "random"
    streams = {}
    update_order = ()
    published = True
    reference = "Zhai et al. 2019 (VTAB), arXiv:1910.04867"
