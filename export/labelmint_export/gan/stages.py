"""The stages of a training, and what one step of each does.

A training goes through up to three of them: autoencoder, codes, adversary. Synthesis learns in all; the mapping learns
where the pictures are between the last two.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from labelmint_export.errors import TrainingError
from labelmint_export.gan.autoencoder import reconstruction_step
from labelmint_export.gan.codes import DEVIATION, code_step, make_codes, share_of_rate
from labelmint_export.gan.feeding import Feed
from labelmint_export.gan.losses import LossContext, discriminator_step, generator_step, path_length_step, r1_step
from labelmint_export.gan.prior import Posterior, encode_set, fit_mapping
from labelmint_export.gan.state import TrainState


@dataclass(slots=True)
class Averages:
    """Means since the last log line."""

    sums: dict[str, torch.Tensor] = field(default_factory=dict)
    """float64 [] each, where the values were: reading one from a GPU waits for all that the GPU has yet to do."""
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, value: torch.Tensor) -> None:
        """Count a value in: float [].

        Raises:
            TrainingError: It is not finite. On a GPU `check` says so.
        """
        if value.device.type == "cpu" and not math.isfinite(value):
            raise _diverged(name, float(value))
        total = value.detach().double()
        self.sums[name] = self.sums[name] + total if name in self.sums else total
        self.counts[name] = self.counts.get(name, 0) + 1

    def check(self) -> None:
        """See that all values were finite.

        Raises:
            TrainingError: One was not.
        """
        for name, total in self.sums.items():
            if not math.isfinite(total):
                raise _diverged(name, float(total))

    def take(self) -> dict[str, float]:
        """Give the means, and begin anew."""
        means = {name: float(total) / self.counts[name] for name, total in self.sums.items()}
        self.sums, self.counts = {}, {}
        return means


def _diverged(name: str, value: float) -> TrainingError:
    return TrainingError(
        f"{name} is {value}, expected a finite number: the training has diverged. What it wrote last stays; start from "
        "that with a lower learning_rate (--start-from, and another --out)",
        field="learning_rate",
    )


def check_finite(state: TrainState) -> None:
    """Refuse weights that have left all bounds, before they take the place of those on disk.

    Raises:
        TrainingError: A weight is not finite.
    """
    networks = [state.generator, state.discriminator, *([state.autoencoding.encoder] if state.autoencoding else [])]
    for network in networks:
        for name, tensor in network.state_dict().items():
            if not bool(torch.isfinite(tensor).all()):
                raise _diverged(name, math.nan)


def picture_order(seed: int, count: int, start: int) -> Iterator[int]:
    """Say which picture comes next: every epoch is a permutation that follows from the seed and its number.

    Args:
        seed: Of the training.
        count: Pictures of the set.
        start: Pictures already seen.

    Yields:
        Indices in [0, count).
    """
    epoch, offset = divmod(start, count)
    while True:
        order = np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(count)
        for index in order[offset:]:
            yield int(index)
        epoch, offset = epoch + 1, 0


def _order(state: TrainState, pictures: npt.NDArray[np.uint8]) -> Iterator[int]:
    """Say which pictures come next; codes go through their own, batch by batch, so that no batch holds one twice."""
    if state.codes is not None and not state.mapping_fitted:
        return picture_order(state.config.seed, state.codes.count, state.images_seen - state.config.first_code_image)
    return picture_order(state.config.seed, len(pictures), state.images_before + state.images_seen)


class Course:
    """A training under way: which pictures come next, and what happens with them.

    Args:
        state: Fresh, grown or loaded; changed in place.
        pictures: uint8 [N, H, W, 3].
    """

    def __init__(self, state: TrainState, pictures: npt.NDArray[np.uint8]) -> None:
        self.averages = Averages()
        self._state = state
        self._pictures = pictures
        self._feed = Feed(pictures, state.config.generator.resolution, state.path_length_mean.device)
        self._order = _order(state, pictures)

    def step(self) -> None:
        """Show synthesis the next pictures; where a stage ends, do what stands between it and the next one."""
        state, config = self._state, self._state.config
        if config.code_images and state.images_seen == config.first_code_image:
            _begin_codes(state, self._pictures)
            self._order = _order(state, self._pictures)
        if not state.mapping_fitted and state.images_seen >= config.unfitted_images:
            _fit_mapping(state, self._pictures, self.averages)
        self._learn([next(self._order) for _ in range(config.batch_size)])
        if state.codes is not None and not state.mapping_fitted and state.images_seen >= config.unfitted_images:
            _fit_mapping(state, self._pictures, self.averages)  # the codes know the set: what they leave is a generator
            self._order = _order(state, self._pictures)

    def _learn(self, indices: list[int]) -> None:
        state, config = self._state, self._state.config
        placed = self._feed.place(indices)
        real = self._feed.take(indices, placed)
        if state.images_seen < config.autoencoder_images:
            _reconstruct(state, real, 1.0, self.averages)
        elif state.images_seen < config.unfitted_images:
            _learn_codes(state, placed, real, self.averages)
        else:
            _adversarial_step(state, real, self.averages)
            if config.reconstructs_at(state.step):
                _reconstruct(state, real, config.reconstruction_rate, self.averages)
        state.step += 1
        _average_generator(state)


def _begin_codes(state: TrainState, pictures: npt.NDArray[np.uint8]) -> None:
    """Give each of the first pictures the w that it has already, or else the one that the encoder sees in it."""
    batch, known = state.config.batch_size, state.codes
    count = min(state.config.coded_pictures, len(pictures)) // batch * batch
    if count == 0:
        raise TrainingError(
            f"coded_pictures is {state.config.coded_pictures} and the set has {len(pictures)} pictures, expected at "
            f"least {batch}, a batch",
            field="coded_pictures",
        )
    kept = 0 if known is None else min(known.count, count)
    parts = [] if known is None else [known.w[:kept]]
    if kept < count:
        parts.append(_encode(state, pictures[kept:count]).mean)
    state.codes = make_codes(torch.cat(parts), state.generator, state.config)


def _learn_codes(state: TrainState, indices: torch.Tensor, real: torch.Tensor, averages: Averages) -> None:
    assert state.codes is not None
    config = state.config
    seen = state.images_seen - config.first_code_image
    distance = code_step(
        state.generator,
        state.codes,
        indices,
        real,
        visits=seen // state.codes.count,
        rate_share=share_of_rate(seen / config.code_images),
        config=config,
    )
    averages.add("reconstruction", distance)


def _encode(state: TrainState, pictures: npt.NDArray[np.uint8]) -> Posterior:
    if state.autoencoding is None:
        raise TrainingError(
            "reconstruction_rate is 0, expected more than 0, or autoencoder_images: the networks to start from have "
            "no mapping yet, and only an encoder can teach it",
            field="reconstruction_rate",
        )
    device, dtype = state.path_length_mean.device, getattr(torch, state.config.compute_dtype)
    return encode_set(state.autoencoding.encoder, pictures, device, dtype)


def _fit_mapping(state: TrainState, pictures: npt.NDArray[np.uint8], averages: Averages) -> None:
    """Turn a decoder into a GAN: the mapping learns where the pictures are, the discriminator what to look at."""
    config, mapping = state.config, state.generator.mapping
    if state.codes is None:
        posterior = _encode(state, pictures)
    else:
        posterior = Posterior(state.codes.w, torch.full_like(state.codes.w, DEVIATION))
    dtype = getattr(torch, config.compute_dtype)
    fit = fit_mapping(mapping, posterior, steps=config.prior_steps, compute_dtype=dtype)
    averages.add("flow_loss", torch.tensor(fit.flow_loss, dtype=torch.float64))
    averages.add("mapping_error", torch.tensor(fit.mapping_error, dtype=torch.float64))
    state.ema.mapping.load_state_dict(mapping.state_dict())
    if state.autoencoding is not None:
        state.discriminator.blocks.load_state_dict(state.autoencoding.encoder.blocks.state_dict())
    state.mapping_fitted = True


def _reconstruct(state: TrainState, real: torch.Tensor, rate: float, averages: Averages) -> None:
    assert state.autoencoding is not None
    state.autoencoding.optimizer.zero_grad(set_to_none=True)
    reconstruction = reconstruction_step(
        state.generator,
        state.autoencoding.encoder,
        real,
        kl_weight=state.config.kl_weight,
        w_avg_beta=state.config.w_avg_beta,
        compute_dtype=getattr(torch, state.config.compute_dtype),
    )
    averages.add("reconstruction", reconstruction.distance)
    averages.add("divergence", reconstruction.divergence)
    for group in state.autoencoding.optimizer.param_groups:
        group["lr"] = rate * state.config.learning_rate
    state.autoencoding.optimizer.step()


def _adversarial_step(state: TrainState, real: torch.Tensor, averages: Averages) -> None:
    config = state.config
    device = real.device
    context = LossContext(
        generator=state.generator,
        discriminator=state.discriminator,
        compute_dtype=getattr(torch, config.compute_dtype),
        augment_p=state.adaptive.p,
        style_mixing=config.style_mixing,
    )

    def draw(count: int) -> torch.Tensor:
        return torch.randn([count, config.generator.z_dim], device=device)

    state.discriminator.requires_grad_(False)
    state.generator_optimizer.zero_grad(set_to_none=True)
    loss, fake = generator_step(context, draw(config.batch_size), config.w_avg_beta)
    averages.add("generator_loss", loss)
    state.generator_optimizer.step()
    if config.path_length_weight > 0 and state.step % config.path_length_interval == 0:
        state.generator_optimizer.zero_grad(set_to_none=True)
        z = draw(max(1, config.batch_size // config.path_length_shrink))
        length = path_length_step(
            context, z, state.path_length_mean, config.path_length_weight, config.path_length_interval
        )
        averages.add("path_length", length)
        state.generator_optimizer.step()
    state.discriminator.requires_grad_(True)

    state.discriminator_optimizer.zero_grad(set_to_none=True)
    loss, real_logits = discriminator_step(context, real, fake)
    averages.add("discriminator_loss", loss)
    state.adaptive.observe(real_logits)
    state.discriminator_optimizer.step()
    if config.r1_gamma > 0 and state.step % config.r1_interval == 0:
        state.discriminator_optimizer.zero_grad(set_to_none=True)
        averages.add("r1", r1_step(context, real, config.r1_gamma, config.r1_interval))
        state.discriminator_optimizer.step()

    if (state.step + 1) % config.ada_interval == 0:
        averages.add("sign_real", state.adaptive.update())


@torch.no_grad()
def _average_generator(state: TrainState) -> None:
    seen = state.images_before + state.images_seen
    half_life = min(state.config.ema_images, max(seen * state.config.ema_rampup, 1e-8))
    decay = 0.5 ** (state.config.batch_size / half_life)
    averaged: list[torch.Tensor] = list(state.ema.parameters())
    current: list[torch.Tensor] = list(state.generator.parameters())
    torch._foreach_lerp_(averaged, current, 1.0 - decay)
    torch._foreach_copy_(list(state.ema.buffers()), list(state.generator.buffers()))
