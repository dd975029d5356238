"""Triplet losses that pull views of one image together and push those of other images away.

Both take the distances between all views of a batch, (N, N), whose rows come image by image: `views` of the first
image, then those of the second. So the identity of row i is i // views. (google-research/s4l
semi_supervised/exemplar.py at 8f1cf05 swaps two arguments and takes i % views.)
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from vtabflow.methods.augment import square_root


def squared_distances(embeddings: Tensor) -> Tensor:
    """Squared Euclidean distances (N, N) of (N, d), in float32 also under autocast."""
    with torch.autocast(embeddings.device.type, enabled=False):
        x = embeddings.float()
        # Distances do not see the mean. Without it, those of a collapsed batch (all rows alike) are zero and not the
        # difference of two ones, whose rounding of 1e-7 would be a distance of 3e-4.
        x = x - x.detach().mean(0)
        square = x.square().sum(1)
        return (square[:, None] + square - 2 * (x @ x.T)).clamp(min=0)


def semi_hard(squared: Tensor, views: int, margin: float) -> Tensor:
    """Mean over pairs (anchor, other view of its image) of max(0, margin + d(anchor, other) - d(anchor, negative)).

    `squared` are squared distances (N, N), as in tf.contrib's triplet_semihard_loss. The negative is the nearest that
    is farther than the positive, or the farthest of all where none is. One pass over N x N for each of the other
    views: 4,096 rows of 8 views take 64 MiB a copy.
    """
    rows = torch.arange(len(squared), device=squared.device)
    image = rows // views
    steps = torch.arange(1, views, device=squared.device)
    positives = image[:, None] * views + (rows[:, None] + steps) % views
    positive = squared.gather(1, positives)
    with torch.no_grad():
        own = image[:, None] == image
        farthest = squared.masked_fill(own, -1).argmax(1)
        chosen = []
        for near in positive.unbind(1):
            least, at = squared.masked_fill(own | (squared <= near[:, None]), torch.inf).min(1)
            chosen.append(torch.where(least.isinf(), farthest, at))
    negative = squared.gather(1, torch.stack(chosen, 1))
    return F.relu(margin + positive - negative).mean()


def batch_hard(squared: Tensor, views: int) -> Tensor:
    """Mean over anchors of softplus(d(anchor, farthest view of its image) - d(anchor, nearest of another)), Euclidean.

    The soft margin of Hermans et al. 2017 (arXiv:1703.07737). ln 2 on a collapsed batch; clamped, because the root's
    gradient at zero is infinite.
    """
    distance = square_root(squared.clamp(min=1e-12))
    image = torch.arange(len(squared), device=squared.device) // views
    own = image[:, None] == image
    positive = distance.masked_fill(~own, 0).max(1).values
    negative = distance.masked_fill(own, torch.inf).min(1).values
    return F.softplus(positive - negative).mean()


def retrieval(squared: Tensor, views: int) -> Tensor:
    """Fraction of views whose nearest other view is of their own image, without a gradient: recorded, not minimised."""
    image = torch.arange(len(squared), device=squared.device) // views
    nearest = squared.detach().clone().fill_diagonal_(torch.inf).argmin(1)
    return (image[nearest] == image).float().mean()
