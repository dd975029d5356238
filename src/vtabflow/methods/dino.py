"""DINO: predict from small crops the outputs of a moving average of the network for large ones."""

import warnings

import torch
from lightly.loss.dino_loss import DINOLoss
from lightly.models.modules.heads import DINOProjectionHead
from lightly.utils.scheduler import cosine_schedule
from torch import Tensor, nn

from vtabflow.methods.base import Batch, Method
from vtabflow.methods.batch_rng import BatchRNG
from vtabflow.methods.views import View, random_view
from vtabflow.networks.average import MovingAverage
from vtabflow.networks.vit import as_vit


class DINO(Method):
    """Mean over pairs of different views of the cross-entropy of the student's outputs to the teacher's.

    softmax(s / 0.1) of the student, softmax((t - centre) / 0.04) of the teacher: the teacher on two global crops, the
    student on these and on `local_views` small ones, K outputs each (section 3.1 of the paper; facebookresearch/dino
    main_dino.py; docs/methods/dino.md). It starts near ln K, and is ln K where both outputs are uniform.

    Loss and head are lightly's (at e8d317f). The teacher is the moving average of the student, without gradient, its
    momentum from `teacher_momentum` to 1 along half a cosine; the centre that of its outputs over the batch (and over
    all processes, which lightly averages), with momentum 0.9. At the end the trunk takes over the teacher's weights,
    which the authors evaluate. As published for ViT-S/16: sizes of the head, views, the local crops' size (3/7, here
    rounded up to whole patches: half at 32 px) and share (up to `crop_area_min`), AdamW at 5e-4 for 256 images (in
    proportion to them), 10 of 100 epochs of warm-up; `colour` and `blur` scale the colour jitter and how often it
    blurs. Departing: the head reads the mean of the patch tokens, which is the representation here, where the authors'
    reads the class token; weight decay stays at 0.04 (theirs rises to 0.4); no clipping of gradients, no freezing of
    the last layer in the first epoch; the teacher's temperature is their default, without warm-up. `entropy` (nats) is
    the teacher's: ln K is one kind of collapse, 0 the other.
    """

    id = "dino"
    display = "DINO"
    family = "self-supervised"
    streams = {"images": "images"}
    networks = {"resnet50v2": "vit-s16", "resnet-small": "vit-small"}
    defaults = {
        "optimiser": "adamw",
        "learning_rate": 5e-4,
        "weight_decay": 0.04,
        "warmup": 0.1,
        "decay": "cosine",
    }
    settings = {
        "teacher_momentum": (0.996, 0.0, 1.0),
        "teacher_temperature": (0.04, 0.01, 1.0),
        "student_temperature": (0.1, 0.01, 1.0),
        "local_views": (8, 0, 16),
        "hidden": (2048, 1, 65536),
        "embedding": (256, 1, 65536),
        "prototypes": (65536, 2, 1048576),
        "crop_area_min": (0.4, 0.05, 1.0),
        "colour": (1.0, 0.0, 5.0),
        "blur": (1.0, 0.0, 1.0),
    }
    smallest_size = 8
    needs = {"lightly": "extras"}
    reference = "Caron et al. 2021, arXiv:2104.14294; facebookresearch/dino"

    def build(self) -> None:
        prototypes, patch = self.config["prototypes"], as_vit(self.trunk, self.size).patch
        # Without a graph, the head's normalised weights can be copied. It normalises them torch's old way, with a
        # warning.
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            self.head = DINOProjectionHead(
                self.features, self.config["hidden"], self.config["embedding"], prototypes, norm_last_layer=True
            )
        self.teacher = MovingAverage(nn.Sequential(self.trunk, self.head))
        self.distil = TrainingOnlyCentreLoss(
            prototypes,
            teacher_temp=self.config["teacher_temperature"],
            student_temp=self.config["student_temperature"],
        )
        self.local_size: int = -(-3 * self.size // (7 * patch)) * patch

    def losses(self, group: str, batch: Batch, rng: BatchRNG) -> dict[str, Tensor]:
        images, _ = batch["images"]
        least, colour, blur = self.config["crop_area_min"], self.config["colour"], self.config["blur"]
        jitter, area = (0.4 * colour, 0.4 * colour, 0.2 * colour, 0.1 * colour), (least, 1.0)
        recipes = (View(area, jitter, blur), View(area, jitter, 0.1 * blur, solarise=0.2))
        global_views = torch.cat([random_view(images, self.size, rng, recipe) for recipe in recipes])
        student = list(self.head(self.encode(global_views)).float().chunk(2))
        count = self.config["local_views"]
        if count:
            recipe = View((0.05, least), jitter, 0.5 * blur, covered=0.0)
            local_views = torch.cat([random_view(images, self.local_size, rng, recipe) for _ in range(count)])
            student += self.head(self.encode(local_views)).float().chunk(count)
        with torch.no_grad():
            teacher = self.teacher(global_views).float().chunk(2)
        with torch.autocast(images.device.type, enabled=False):
            with torch.no_grad():
                share = torch.cat(teacher).sub(self.distil.center[0]).div(self.distil.teacher_temp).softmax(1)
                entropy = torch.special.entr(share).sum(1).mean()
            return {"distillation": self.distil(list(teacher), student), "entropy": entropy}

    def after_step(self, step: int) -> None:
        momentum = cosine_schedule(step, self.config["steps"], self.config["teacher_momentum"], 1.0)
        self.teacher.update(nn.Sequential(self.trunk, self.head), momentum)

    def finalize(self) -> None:
        self.trunk.load_state_dict(self.teacher.network.get_submodule("0").state_dict())


class TrainingOnlyCentreLoss(DINOLoss):
    """DINOLoss of lightly, whose centre moves in training only, as a batch norm's statistics do."""

    def update_center(self, teacher_out: Tensor) -> None:
        if self.training:
            super().update_center(teacher_out)
