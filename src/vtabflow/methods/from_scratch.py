"""No pre-training: the encoder is the network's random initialisation, the baseline that every other method has to
beat.
"""

from vtabflow.methods.base import Method


class FromScratch(Method):
    """Draws nothing from the upstream and has no losses; the seed of each downstream run draws its initialisation
    anew.
    """

    id = "from-scratch"
    display = "From-Scratch"
    family = "from-scratch"
    streams = {}
    update_order = ()
    published = True
    reference = "Zhai et al. 2019 (VTAB), arXiv:1910.04867"
