"""Training of an interpreter from annotated pictures.

Every member sees its own pixels, shuffled across pictures, and stops early on pictures that it does not learn from:
member m holds back one eighth of the annotated pictures with their recoloured copies, another eighth for each m.

Members learn from standardised features: taps differ in scale, and Adam's equal steps would hardly use the faint ones.
The first layer takes the standardisation in at the end, so that the shape of an interpreter knows nothing of it.

Legend: N pictures, M members, b pixels of a member's batch, D features, C classes, K keypoints.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional
from tqdm import tqdm

from labelmint_export.annotations import AnnotatedSet
from labelmint_export.annotations.schema import IGNORE_LABEL
from labelmint_export.errors import AnnotationError, TrainingError
from labelmint_export.generator import Backbone
from labelmint_export.heatmaps import encode_heatmaps, heatmap_values
from labelmint_export.interpreter.calibration import calibrate_visibility
from labelmint_export.interpreter.ensemble import Interpreter, InterpreterConfig, PixelEnsemble
from labelmint_export.interpreter.features import FeaturePool, StandardisedFeatures, fill_pool
from labelmint_export.interpreter.painting import paint_annotated
from labelmint_export.interpreter.sampling import (
    PixelMasses,
    PixelSampler,
    class_importance,
    class_weights,
    keypoint_importance,
    make_masses,
)
from labelmint_export.ranges import require_at_least, require_positive, require_seed


@dataclass(frozen=True, kw_only=True, slots=True)
class InterpreterTraining:
    """Settings of one training."""

    max_steps: int = 3000
    """Optimiser steps at most; a training ends before if no member gets better on what it does not learn from."""
    pixels_per_member: int = 256
    """Pixels of a step that each member sees."""
    learning_rate: float = 2e-3
    """Adam's at the start; falls along a cosine to a fiftieth."""
    evaluate_steps: int = 100
    """Steps between two looks at the held-back pictures."""
    patience: int = 8
    """Looks without improvement of any member before the training ends."""
    validation_pixels: int = 2048
    """Pixels of the held-back pictures in each look."""
    seed: int = 0
    """Of initial weights and of the choice of pixels, 0 to 2**64 - 1."""

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            TrainingError: A field is out of range.
        """
        require_at_least(self, 1, "max_steps", "pixels_per_member", "evaluate_steps", "patience", "validation_pixels")
        require_positive(self, "learning_rate")
        require_seed(self.seed)


def train_interpreter(
    generator: Backbone, annotated: AnnotatedSet, config: InterpreterConfig, settings: InterpreterTraining
) -> Interpreter:
    """Train an interpreter on annotated GAN pictures.

    Args:
        generator: The one that painted them.
        annotated: Pictures, masks, keypoints and latents; recoloured copies among them are held back with theirs.
        config: Shape of the interpreter.
        settings: How to train.

    Returns:
        The interpreter in evaluation mode, visibility thresholds calibrated.

    Raises:
        AnnotationError: The annotations do not fit the generator or the shape.
        TrainingError: The loss is not finite.
    """
    if annotated.masks.shape[1:] != (config.label_resolution, config.label_resolution):
        raise AnnotationError(
            f"masks are {list(annotated.masks.shape[1:])}, expected {[config.label_resolution] * 2}", field="masks"
        )
    pool = FeaturePool(config.taps, config.label_resolution, len(annotated))
    fill_pool(pool, paint_annotated(generator, annotated))
    return train_on_pool(pool, annotated, config, settings)


def train_on_pool(
    pool: FeaturePool, annotated: AnnotatedSet, config: InterpreterConfig, settings: InterpreterTraining
) -> Interpreter:
    """Train an interpreter on features that were already taken; see `train_interpreter`."""
    torch.manual_seed(settings.seed)
    interpreter = Interpreter(config)
    masks = torch.from_numpy(np.ascontiguousarray(annotated.masks))
    labelled = masks != IGNORE_LABEL
    weight_of_class = class_weights(masks, config.num_classes)

    def class_loss(outputs: torch.Tensor, pixels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        targets = masks.flatten()[pixels].long()
        loss = functional.cross_entropy(outputs.flatten(0, 1), targets.flatten(), weight_of_class, reduction="none")
        return (loss.view_as(weights) * weights).mean(dim=1)

    masses = make_masses(class_importance(masks, config.num_classes), labelled)
    copies = annotated.num_copies
    features = StandardisedFeatures(pool)
    _train_members(interpreter.classifiers, features, masses, class_loss, settings, copies, "classifiers")
    if interpreter.regressors is not None:
        side = config.label_resolution
        keypoints = torch.from_numpy(annotated.keypoints)

        def heatmap_loss(outputs: torch.Tensor, pixels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
            images, inside = pixels // (side * side), pixels % (side * side)
            target = heatmap_values(keypoints[images], inside // side, inside % side, config.sigma_pixels)
            return ((outputs - target).square().sum(dim=2) * weights).mean(dim=1)

        importance = torch.cat(  # picture by picture: K heatmaps of all of them would be large
            [keypoint_importance(encode_heatmaps(one[None], side, side, config.sigma_pixels)) for one in keypoints]
        )
        masses = make_masses(importance, torch.ones_like(labelled))
        _train_members(interpreter.regressors, features, masses, heatmap_loss, settings, copies, "regressors")
    interpreter.eval().requires_grad_(False)
    if interpreter.regressors is not None:
        drawn = len(annotated) // (1 + copies)  # copies say nothing new about what can be seen
        calibrate_visibility(interpreter, pool, torch.from_numpy(annotated.keypoints[:drawn, :, 2] > 0.5))
    return interpreter


def _split(kept_in_row: torch.Tensor, member: int, copies: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Split rows of pixels into those a member learns from and those it is judged on: bool [(1 + R) N, H] each."""
    count = kept_in_row.shape[0] // (1 + copies)
    held = torch.zeros_like(kept_in_row, dtype=torch.bool)
    if count >= 4:
        share = max(1, count // 8)
        for k in range(share):
            held[(member * share + k) % count :: count] = True  # a picture and its copies
    else:  # too few pictures: every eighth row of each
        held[:, member % 8 :: 8] = True
    if not int(kept_in_row[held].sum()) or not int(kept_in_row[~held].sum()):
        everything = torch.ones_like(held)  # so little is labelled that nothing can be held back
        return everything, everything
    return ~held, held


LossOfMembers = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(outputs [M, b, O], pixels [M, b], weights [M, b]) -> loss [M]."""


def _train_members(
    ensemble: PixelEnsemble,
    features: StandardisedFeatures,
    masses: PixelMasses,
    loss_of_members: LossOfMembers,
    settings: InterpreterTraining,
    copies: int,
    name: str,
) -> None:
    members = ensemble.linear1.weight.shape[0]
    random = torch.Generator().manual_seed(settings.seed)
    splits = [_split(masses.kept_in_row, m, copies) for m in range(members)]
    learners = [PixelSampler(masses, learn) for learn, _ in splits]
    validation = _draw([PixelSampler(masses, held) for _, held in splits], settings.validation_pixels, random)
    optimizer = torch.optim.Adam(ensemble.parameters(), lr=settings.learning_rate)
    best = torch.full([members], math.inf)
    best_weights = copy.deepcopy(ensemble.state_dict())
    looks_without_gain = 0
    bar = tqdm(range(1, settings.max_steps + 1), desc=name, unit="step", mininterval=2.0, dynamic_ncols=True)
    for step in bar:
        phase = (step - 1) / settings.max_steps
        optimizer.param_groups[0]["lr"] = settings.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * phase)))
        ensemble.train()
        pixels, weights = _draw(learners, settings.pixels_per_member, random)
        loss = loss_of_members(ensemble(features.look_up(pixels)), pixels, weights).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's method is untyped
        optimizer.step()
        if not math.isfinite(float(loss.detach())):
            raise TrainingError(f"the loss of the {name} is not finite at step {step}", field="learning_rate")
        if step % settings.evaluate_steps == 0 or step == settings.max_steps:
            current = _validate(ensemble, features, validation, loss_of_members)
            better = current < best
            looks_without_gain = 0 if bool(better.any()) else looks_without_gain + 1
            best = torch.where(better, current, best)
            for key, tensor in ensemble.state_dict().items():
                best_weights[key][better] = tensor[better]
            bar.set_postfix(held_back=f"{float(best.mean()):.4f}")
            if looks_without_gain >= settings.patience:
                break
    ensemble.load_state_dict(best_weights)
    ensemble.take_raw(features.mean, features.deviation)


def _draw(samplers: list[PixelSampler], count: int, random: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    drawn = [sampler.draw(count, random) for sampler in samplers]
    return torch.stack([pixels for pixels, _ in drawn]), torch.stack([weights for _, weights in drawn])


@torch.no_grad()
def _validate(
    ensemble: PixelEnsemble,
    features: StandardisedFeatures,
    validation: tuple[torch.Tensor, torch.Tensor],
    loss_of_members: LossOfMembers,
    chunk: int = 256,
) -> torch.Tensor:
    """Loss of each member on its held-back pixels: float32 [M]."""
    ensemble.eval()
    pixels, weights = validation
    sums = torch.zeros(pixels.shape[0])
    for start in range(0, pixels.shape[1], chunk):
        part, share = pixels[:, start : start + chunk], weights[:, start : start + chunk]
        sums += loss_of_members(ensemble(features.look_up(part)), part, share) * part.shape[1]
    return sums / pixels.shape[1]
