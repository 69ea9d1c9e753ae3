"""Settings of one generator training."""

from collections.abc import Mapping
from dataclasses import dataclass

from labelmint_export.errors import TrainingError
from labelmint_export.generator import GeneratorConfig
from labelmint_export.ranges import require_at_least, require_between, require_positive, require_seed


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Everything that decides the numbers of a training, so that a resumed one goes on as if never stopped."""

    generator: GeneratorConfig
    """Shape of the generator."""
    discriminator_channels: Mapping[int, int]
    """Feature maps of the discriminator at each resolution from 4."""
    seed: int = 0
    """Of initial weights, latents and the order of the pictures, 0 to 2**64 - 1."""
    batch_size: int = 16
    """Pictures a step, at least 1."""
    learning_rate: float = 0.0025
    """Adam's, for both networks (betas 0 and 0.99), above 0."""
    r1_gamma: float = 0.3
    """Weight of the R1 penalty, half of which times the squared gradient of D at real pictures joins D's loss. A larger
    one calms a training that does not settle, and makes pictures less sharp. At least 0, which switches it off."""
    r1_interval: int = 16
    """Steps between two R1 penalties, at least 1; each then counts as many times."""
    path_length_weight: float = 2.0
    """Weight of the path-length penalty, which keeps steps in w and changes of the picture in proportion. At least 0,
    which switches it off."""
    path_length_interval: int = 8
    """Steps between two path-length penalties, at least 1; each then counts as many times."""
    path_length_shrink: int = 2
    """The path-length penalty is computed on 1 / this of a batch, at least 1: it takes much memory."""
    style_mixing: float = 0.9
    """Share of pictures painted with two styles, the second from a random layer on, 0 to 1."""
    ada_target: float = 0.6
    """Wanted mean sign of D on real pictures, 0 to 1: where it is higher, D knows its pictures by heart and they are
    augmented more often. 0 switches the augmentation off."""
    ada_interval: int = 4
    """Steps between two moves of the augmentation probability, at least 1."""
    ada_speed_images: int = 200_000
    """Pictures in which the augmentation probability may go from 0 to 1, above 0."""
    ema_images: int = 10_000
    """Half-life of the averaged generator, the one that is kept, in pictures, above 0."""
    ema_rampup: float = 0.05
    """The half-life is at most this share of the pictures seen so far, so that the average soon forgets the first ones.
    At least 0; at 0 nothing is averaged."""
    w_avg_beta: float = 0.998
    """Decay, each step, of the running mean of w, to which truncation pulls. 0 to 1."""
    autoencoder_images: int = 0
    """Pictures at the start from which synthesis learns as the decoder of an autoencoder alone, in place of a
    discriminator's pupil. At least 0."""
    reconstruction_rate: float = 0.0
    """Learning rate of the reconstructions between adversarial steps, relative to learning_rate, at least 0, which
    switches them off."""
    reconstruction_interval: int = 4
    """Adversarial steps between two reconstructions, at least 1."""
    kl_weight: float = 1e-4
    """What the autoencoder pays for a nat of its latent, in the units of its picture distance, at least 0. A larger one
    blurs pictures, and makes w easier to draw."""
    code_images: int = 0
    """Pictures, after those of the autoencoder, in which synthesis learns with a w of its own, a code, for each picture
    of the set: sharper than an autoencoder. At least 0."""
    coded_pictures: int = 20_000
    """Pictures of the set that have a code: the first ones, as many whole batches as there are. At least 1."""
    code_rate: float = 0.05
    """Learning rate of the codes, units of w, above 0. A code that moves fast finds its place, but hides from synthesis
    what is fine: a later stage takes a fifth."""
    prior_steps: int = 10_000
    """Steps in which the mapping learns where the pictures are, after autoencoder and codes and before the first
    adversarial step. At least 1."""
    compute_dtype: str = "bfloat16"
    """dtype of the feature maps outside the regularisers: float32, bfloat16, or float16 (no loss scaling)."""

    @property
    def has_encoder(self) -> bool:
        """Whether an encoder looks at the pictures at any time."""
        return self.autoencoder_images > 0 or self.reconstruction_rate > 0 or self.code_images > 0

    @property
    def first_code_image(self) -> int:
        """Pictures seen when the stage of codes begins: those of the autoencoder, in whole batches."""
        return -(-self.autoencoder_images // self.batch_size) * self.batch_size

    @property
    def unfitted_images(self) -> int:
        """Pictures at the start that synthesis sees before the mapping learns anything."""
        return self.autoencoder_images + self.code_images

    def reconstructs_at(self, step: int) -> bool:
        """Whether the autoencoder learns at a step, counted from 0."""
        images = step * self.batch_size
        if images < self.unfitted_images:
            return images < self.autoencoder_images
        return self.reconstruction_rate > 0 and step % self.reconstruction_interval == 0

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            TrainingError: A field is out of range.
        """
        require_at_least(
            self,
            1,
            "batch_size",
            "r1_interval",
            "path_length_interval",
            "path_length_shrink",
            "ada_interval",
            "reconstruction_interval",
            "coded_pictures",
            "prior_steps",
        )
        require_positive(self, "learning_rate", "code_rate", "ada_speed_images", "ema_images")
        require_at_least(
            self,
            0,
            "r1_gamma",
            "path_length_weight",
            "ema_rampup",
            "autoencoder_images",
            "reconstruction_rate",
            "code_images",
            "kl_weight",
        )
        require_between(self, 0, 1, "style_mixing", "ada_target", "w_avg_beta")
        require_seed(self.seed)
        if self.compute_dtype not in ("float32", "bfloat16", "float16"):
            raise TrainingError(
                f"compute_dtype is {self.compute_dtype!r}, expected float32, bfloat16 or float16", field="compute_dtype"
            )
        if self.generator.c_dim:
            raise TrainingError(
                f"c_dim is {self.generator.c_dim}, expected 0: pictures come without classes that a generator could "
                "learn",
                field="c_dim",
            )
        if self.generator.image_channels != 3:
            raise TrainingError(
                f"image_channels is {self.generator.image_channels}, expected 3; the pictures of `render` have colours",
                field="image_channels",
            )
        if self.generator.architecture != "skip":
            raise TrainingError(
                f"architecture is {self.generator.architecture!r}, expected 'skip': training grows by adding colours",
                field="architecture",
            )
        if self.unfitted_images and self.generator.z_dim != self.generator.w_dim:
            raise TrainingError(
                f"z_dim is {self.generator.z_dim}, expected {self.generator.w_dim} like w_dim: the mapping of an "
                "autoencoder learns paths from one to the other",
                field="z_dim",
            )
        missing = [r for r in self.generator.block_resolutions if self.discriminator_channels.get(r, 0) < 1]
        if missing:
            raise TrainingError(
                f"discriminator_channels names no positive width for resolution {missing[0]}",
                field="discriminator_channels",
            )
