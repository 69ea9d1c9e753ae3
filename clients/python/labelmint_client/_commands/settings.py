"""Settings of the commands, which `arguments` makes of the command line."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from labelmint_client._request import ChromaSubsampling, ImageCodec, MaskCodec
from labelmint_client._security import Tls
from labelmint_client._writers.spec import Format

AdminAction = Literal["list", "load", "unload", "set-alias", "remove-alias"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SecuritySettings:
    """How a server is reached.

    Attributes:
        tls: None for plain text.
        token: That of the environment; None if there is none, or a file.
        token_file: File that holds a token, or None.
    """

    tls: Tls | None = None
    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectionSettings:
    """Which samples are wanted; the arguments of `Client.generate` of the same names.

    Attributes:
        seed: uint64.
        count: Samples wanted; None for all up to end_index.
        start_index: First address.
        end_index: Exclusive end of the addresses, or None.
        shard_index: Only addresses congruent to this modulo num_shards.
        num_shards: Number of shards.
        truncation_psi: None for the model's default.
        class_index: None to draw it.
        max_uncertainty_quantile: Filter by calibrated quantile, or None.
        max_uncertainty: Filter by image score, nats, or None.
        min_class_areas: Filter by area of classes.
        max_scanned: Give up after so many indices, or None.
    """

    seed: int
    count: int | None = None
    start_index: int = 0
    end_index: int | None = None
    shard_index: int = 0
    num_shards: int = 1
    truncation_psi: float | None = None
    class_index: int | None = None
    max_uncertainty_quantile: float | None = None
    max_uncertainty: float | None = None
    min_class_areas: Mapping[str, float] | None = None
    max_scanned: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class WireSettings:
    """How samples travel; the arguments of `Client.generate` of the same names.

    Attributes:
        image_codec: How images travel.
        mask_codec: How masks travel.
        jpeg_quality: None for the server's default.
        jpeg_subsampling: Chroma subsampling of JPEG.
        max_message_bytes: None for the server's default.
        pin_numerics: Whether a resumed data set must come from the engine that it began with.
    """

    image_codec: ImageCodec = "raw"
    mask_codec: MaskCodec = "raw"
    jpeg_quality: int | None = None
    jpeg_subsampling: ChromaSubsampling = "444"
    max_message_bytes: int | None = None
    pin_numerics: bool = True

    def pixel_record(self) -> dict[str, Any]:
        """List what the pixels of the images depend on. Any: JSON values."""
        if self.image_codec != "jpeg":
            return {"image_codec": "lossless"}
        return {
            "image_codec": "jpeg",
            "jpeg_quality": self.jpeg_quality,
            "jpeg_subsampling": self.jpeg_subsampling,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerateSettings:
    """What `labelmint generate` writes.

    Attributes:
        model: Name of the model; None for the only one there is.
        out: Folder of the data set.
        formats: Forms of the labels.
        selection: Which samples.
        wire: How they travel.
        uncertainty_maps: Whether the maps are stored.
        contact_sheet: Whether a contact sheet is drawn.
        resume: Go on with what the folder holds.
        overwrite: Replace what the folder holds.
        progress: Whether a progress bar is shown.
    """

    model: str | None
    out: Path
    formats: tuple[Format, ...]
    selection: SelectionSettings
    wire: WireSettings = WireSettings()
    uncertainty_maps: bool = False
    contact_sheet: bool = False
    resume: bool = False
    overwrite: bool = False
    progress: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoSettings:
    """What `labelmint demo` shows.

    Attributes:
        out: Folder of the data set.
        count: Samples to stream.
        seed: uint64.
        bundle: Bundle to serve; None for the embedded one.
        progress: Whether a progress bar is shown.
        start_timeout_s: How long the server may take to start, seconds.
        stop_timeout_s: How long it may take to stop, seconds.
    """

    out: Path
    count: int
    seed: int
    bundle: Path | None
    progress: bool
    start_timeout_s: float = 120.0
    stop_timeout_s: float = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class AdminSettings:
    """What `labelmint admin` does.

    Attributes:
        action: What to do.
        model: NAME, NAME@VERSION or NAME@ALIAS.
        alias: The alias to move.
        version: What it is to stand for.
        limit_s: Time that streams get; None for the setting of the server.
        timeout_s: How long the answer may take, seconds.
        as_json: Whether to print JSON.
    """

    action: AdminAction
    timeout_s: float
    model: str = ""
    alias: str = ""
    version: str = ""
    limit_s: float | None = None
    as_json: bool = False
