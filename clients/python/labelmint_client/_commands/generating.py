"""`labelmint generate`: streams samples into a data set on disk."""

import dataclasses
import itertools
import time
from dataclasses import dataclass
from pathlib import Path

from labelmint_client._commands.progress import ProgressBar
from labelmint_client._commands.settings import GenerateSettings, SelectionSettings
from labelmint_client._commands.sheet_samples import SheetSamples
from labelmint_client._contact_sheet import SheetTitle, render_contact_sheet
from labelmint_client._errors import InvalidArgumentError, ServerFaultError
from labelmint_client._model import Model
from labelmint_client._request import Field
from labelmint_client._sample import Sample
from labelmint_client._sync import Client
from labelmint_client._sync_stream import SampleStream
from labelmint_client._writers.atomic import atomic_file
from labelmint_client._writers.dataset import DatasetWriter
from labelmint_client._writers.earlier import ResumePoint
from labelmint_client._writers.layout import CONTACT_SHEET_NAME
from labelmint_client._writers.spec import DatasetSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a run wrote.

    Attributes:
        out: Folder of the data set.
        num_samples: Samples in it.
        num_new: Samples that this run added.
        elapsed_s: From the first request to the last file of a sample, seconds.
    """

    out: Path
    num_samples: int
    num_new: int
    elapsed_s: float

    def text(self) -> str:
        """Say it in a line."""
        if not self.num_samples:
            return f"no address of the range gave a sample; the data set in {self.out} is empty"
        if not self.num_new:
            return f"{self.num_samples} samples were in {self.out} already; nothing to do"
        rate = self.num_new / self.elapsed_s
        return (
            f"{self.num_new} labelled samples in {self.elapsed_s:.1f} s: {rate:.1f} samples/s; "
            f"{self.num_samples} are in {self.out}"
        )


def generate_dataset(client: Client, settings: GenerateSettings) -> Outcome:
    """Stream samples into a folder.

    Args:
        client: Connected to the server.
        settings: What to write.

    Returns:
        What was written.

    Raises:
        ClientError: The server refuses or fails, or the folder cannot be written. Nothing is created before the first
            sample came; later, what is on disk can be continued with `resume`.
    """
    model = client.get_model(settings.model or _only_model(client))
    spec = _spec(model, settings)
    writer = DatasetWriter(settings.out, spec)
    point = writer.prepare(resume=settings.resume, overwrite=settings.overwrite)
    if point is not None and point.is_complete:
        return Outcome(out=settings.out, num_samples=point.num_samples, num_new=0, elapsed_s=0.0)
    num_before = 0 if point is None else point.num_samples
    sheet = SheetSamples(num_before, _total(spec, settings))
    started = time.perf_counter()
    if point is not None and not _is_more_due(spec, settings, point):
        # The last run was interrupted between the last sample and the end.
        num_new, next_index = 0, point.next_index
        writer.begin(point.numerics_id)
    else:
        stream = _open_stream(client, model, settings, point)
        num_new, next_index = _write_samples(stream, writer, sheet, spec, settings, num_before)
    elapsed_s = time.perf_counter() - started
    if settings.contact_sheet and num_before + num_new:
        shown = sheet.choose(writer.indices(), lambda index: _ask_again(client, model, settings, writer, index))
        _write_sheet(shown, spec, settings, num_before + num_new)
    num_samples = writer.finish(next_index)
    return Outcome(out=settings.out, num_samples=num_samples, num_new=num_new, elapsed_s=elapsed_s)


def _only_model(client: Client) -> str:
    models = client.list_models()
    names = [model.name for model in models if model.is_ready] or [model.name for model in models]
    if len(names) == 1:
        return names[0]
    raise InvalidArgumentError(
        f"the server at {client.address} has the models {', '.join(names) or '(none)'}; choose one with --model",
        field="model",
    )


def _spec(model: Model, settings: GenerateSettings) -> DatasetSpec:
    request = dataclasses.asdict(settings.selection)
    del request["count"], request["max_scanned"]
    if request["truncation_psi"] is None:
        # What the server uses, in the shortest form of a float32.
        request["truncation_psi"] = float(f"{model.manifest.truncation.default_psi:.7g}")
    request["min_class_areas"] = request["min_class_areas"] or {}
    return DatasetSpec(
        model=model,
        formats=settings.formats,
        request=request | settings.wire.pixel_record(),
        count=settings.selection.count,
        uncertainty_maps=settings.uncertainty_maps,
    )


def _open_stream(client: Client, model: Model, settings: GenerateSettings, point: ResumePoint | None) -> SampleStream:
    selection, wire = settings.selection, settings.wire
    count = selection.count
    if point is not None and count is not None:
        count -= point.num_samples
    fields: list[Field] = ["image", "mask"]
    if model.keypoint_names:
        fields.append("keypoints")
    if settings.uncertainty_maps or settings.contact_sheet:
        fields.append("uncertainty_map")
    return client.generate(
        model.name,
        seed=selection.seed,
        count=count,
        start_index=selection.start_index if point is None else point.next_index,
        end_index=selection.end_index,
        shard_index=selection.shard_index,
        num_shards=selection.num_shards,
        truncation_psi=selection.truncation_psi,
        class_index=selection.class_index,
        max_uncertainty_quantile=selection.max_uncertainty_quantile,
        max_uncertainty=selection.max_uncertainty,
        min_class_areas=selection.min_class_areas,
        max_scanned=selection.max_scanned,
        fields=fields,
        image_codec=wire.image_codec,
        mask_codec=wire.mask_codec,
        jpeg_quality=wire.jpeg_quality,
        jpeg_subsampling=wire.jpeg_subsampling,
        max_message_bytes=wire.max_message_bytes,
        digest=model.digest,
        numerics_id=point.numerics_id if point is not None and wire.pin_numerics else None,
        pin_numerics=wire.pin_numerics,
    )


def _ask_again(client: Client, model: Model, settings: GenerateSettings, writer: DatasetWriter, index: int) -> Sample:
    """Get a sample of the data set once more."""
    selection = SelectionSettings(
        seed=settings.selection.seed,
        count=1,
        truncation_psi=settings.selection.truncation_psi,
        class_index=settings.selection.class_index,
    )
    there = ResumePoint(num_samples=0, next_index=index, numerics_id=writer.numerics_id, is_complete=False)
    with _open_stream(client, model, dataclasses.replace(settings, selection=selection), there) as stream:
        return next(stream)


def _write_samples(
    stream: SampleStream,
    writer: DatasetWriter,
    sheet: SheetSamples,
    spec: DatasetSpec,
    settings: GenerateSettings,
    num_before: int,
) -> tuple[int, int]:
    """Write what comes; returns the number of samples and the address to go on with."""
    bar = ProgressBar(
        stream,
        description=spec.model.name,
        total=_total(spec, settings),
        initial=num_before,
        is_shown=settings.progress,
    )

    def pass_over() -> None:
        # All that came before this message was read, and so written.
        writer.pass_over(stream.next_index)
        bar.show_rejected()

    stream.on_progress = pass_over
    with stream, bar:
        try:
            first = next(stream, None)
            writer.begin(stream.numerics_id)
            for sample in stream if first is None else itertools.chain([first], stream):
                writer.write(sample, stream.next_index)
                if settings.contact_sheet:
                    sheet.offer(sample)
                bar.count()
        except ServerFaultError as error:
            if error.next_index is not None and error.next_index > stream.next_index:
                writer.leave_out(error.next_index - 1)
            raise
        return stream.num_samples, stream.next_index


def _is_more_due(spec: DatasetSpec, settings: GenerateSettings, point: ResumePoint) -> bool:
    selection = settings.selection
    if point.num_samples == selection.count:
        return False
    end = selection.end_index
    return end is None or spec.num_addresses(point.next_index) < spec.num_addresses(end)


def _total(spec: DatasetSpec, settings: GenerateSettings) -> int | None:
    selection = settings.selection
    if selection.end_index is None:
        return selection.count
    num_addresses = spec.num_addresses(selection.end_index)
    if selection.count is not None:
        return min(selection.count, num_addresses)
    filtered = selection.max_uncertainty is not None or selection.max_uncertainty_quantile is not None
    return None if filtered or selection.min_class_areas else num_addresses


def _write_sheet(samples: list[Sample], spec: DatasetSpec, settings: GenerateSettings, num_samples: int) -> None:
    title = SheetTitle(
        seed=settings.selection.seed, truncation_psi=spec.request["truncation_psi"], num_samples=num_samples
    )
    picture = render_contact_sheet(samples, spec.model, title)
    with atomic_file(settings.out / CONTACT_SHEET_NAME) as file:
        picture.save(file, "PNG")
