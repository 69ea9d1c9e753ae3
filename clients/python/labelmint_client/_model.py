"""What a server says about its models."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from labelmint.v1 import bundle_pb2, service_pb2

_STATE_PREFIX = "VERSION_STATE_"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelVersion:
    """A version of a model; "name@version" asks for it, and so does "name@alias".

    Attributes:
        version: Its name.
        state: "loading", "warming", "ready", "unloading", "failed", or "unloaded" for one that only lies there.
        aliases: What stands for it; "default" is what the name alone asks for, "latest" the newest that is ready.
        digest: sha256 of the bundle's manifest, hex; empty until the version is ready.
        numerics_id: Outputs are bit-identical wherever this id is the same; empty until the version is ready.
        reason: Why it failed, in a few words; empty if it did not. Its operator is told more.
    """

    version: str
    state: str
    aliases: tuple[str, ...]
    digest: str
    numerics_id: str
    reason: str = ""

    @classmethod
    def from_message(cls, message: service_pb2.ModelVersion) -> "ModelVersion":
        """Translate the wire's message."""
        known = service_pb2.VersionState.DESCRIPTOR.values_by_number.get(message.state)
        name = "unknown" if known is None else known.name.removeprefix(_STATE_PREFIX).lower()
        return cls(
            version=message.version,
            state="unloaded" if name == "unspecified" else name,
            aliases=tuple(message.aliases),
            digest=message.digest,
            numerics_id=message.numerics_id,
            reason=message.reason,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSummary:
    """One line of the server's list of models.

    Between name and versions stands what the name alone asks for; all of it is empty while that is not ready.

    Attributes:
        name: What requests call it.
        version: Version its builder gave it.
        digest: sha256 of the bundle's manifest, hex.
        numerics_id: Outputs are bit-identical wherever this id is the same.
        description: One sentence.
        versions: All that the server knows of, newest first, and why one failed.
    """

    name: str
    version: str
    digest: str
    numerics_id: str
    description: str
    versions: tuple[ModelVersion, ...] = ()

    @classmethod
    def from_message(cls, message: service_pb2.ModelSummary) -> "ModelSummary":
        """Translate the wire's message."""
        return cls(
            name=message.name,
            version=message.version,
            digest=message.digest,
            numerics_id=message.numerics_id,
            description=message.description,
            versions=tuple(ModelVersion.from_message(version) for version in message.versions),
        )

    @property
    def is_ready(self) -> bool:
        """Whether the name alone may be asked for."""
        return bool(self.digest)


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """A model as its bundle's manifest describes it.

    Attributes:
        manifest: The whole manifest, for what has no property here.
        numerics_id: Outputs are bit-identical wherever this id is the same.
        numerics: What `numerics_id` is the hash of, as canonical JSON.
    """

    manifest: bundle_pb2.Manifest
    numerics_id: str
    numerics: str

    @classmethod
    def from_message(cls, message: service_pb2.GetModelResponse) -> "Model":
        """Translate the wire's message."""
        return cls(manifest=message.manifest, numerics_id=message.numerics_id, numerics=message.numerics)

    @property
    def name(self) -> str:
        """What requests call it."""
        return self.manifest.name

    @property
    def version(self) -> str:
        """Version its builder gave it."""
        return self.manifest.version

    @property
    def digest(self) -> str:
        """The sha256 of the manifest, hex."""
        return self.manifest.digest

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images, pixels."""
        return self.manifest.frame.image_height, self.manifest.frame.image_width

    @property
    def label_size(self) -> tuple[int, int]:
        """Height and width of the masks, pixels."""
        return self.manifest.frame.label_height, self.manifest.frame.label_width

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each class id of the masks."""
        return tuple(segmentation_class.name for segmentation_class in self.manifest.classes)

    @property
    def palette(self) -> npt.NDArray[np.uint8]:
        """Colour of each class, sRGB uint8 [C, 3]."""
        colours = [(entry.red, entry.green, entry.blue) for entry in self.manifest.classes]
        return np.array(colours, dtype=np.uint8).reshape(-1, 3)

    @property
    def keypoint_names(self) -> tuple[str, ...]:
        """Name of each row of a sample's keypoints; empty if the model has none."""
        return tuple(self.manifest.keypoints.names)

    @property
    def skeleton(self) -> tuple[tuple[int, int], ...]:
        """Pairs of keypoints that a line connects, numbered from 0."""
        return tuple((pair.first, pair.second) for pair in self.manifest.keypoints.skeleton)

    @property
    def licence(self) -> bundle_pb2.Licence:
        """Licence and attribution of weights and data: whoever passes samples on passes this on."""
        return self.manifest.licence
