"""A graph of a bundle bound to memory of a device: its inputs and outputs lie where the kernels look for them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime

from labelmint.bundle import Bundle
from labelmint.graphs import BATCH_DIMENSION
from labelmint_service.engine.fused.gpu.device import DeviceArray, SessionPlace
from labelmint_service.engine.sessions import Provider, check_signature, open_session, output_dtypes
from labelmint_service.errors import EngineRunError, EngineStartError
from labelmint_service.structured_logs import log_event

_log = logging.getLogger(__name__)


class DeviceGraph:
    """One graph of a bundle, on a device, for batches of one size.

    Args:
        bundle: Verified bundle.
        relative: Path of the graph inside it.
        provider: What runs it.
        place: How onnxruntime works on the device.
        batch_size: Rows of a run.

    Raises:
        EngineStartError: The graph does not load.

    Attributes:
        is_recorded: Whether the provider records the graph's launches and replays them.
        output_dtypes: As `sessions.output_dtypes` gives them.
    """

    def __init__(self, bundle: Bundle, relative: str, provider: Provider, place: SessionPlace, batch_size: int) -> None:
        self._relative = relative
        self._place = place
        options = bundle.manifest.runtime.onnxruntime
        fixed = {BATCH_DIMENSION: batch_size}
        plain = {**provider.options, **place.private_options}
        self.is_recorded = bool(place.graph_options)
        try:
            recorded = Provider(onnxruntime_name=provider.onnxruntime_name, options={**plain, **place.graph_options})
            self._session = open_session(bundle, relative, options, recorded, fixed_dimensions=fixed)
        except EngineStartError as error:
            if not place.graph_options:
                raise
            # onnxruntime records only what runs on the GPU as a whole. Without recording the results are the same.
            log_event(_log, logging.WARNING, "graph.not_recorded", error=error, graph=relative)
            self.is_recorded = False
            unrecorded = Provider(onnxruntime_name=provider.onnxruntime_name, options=plain)
            self._session = open_session(bundle, relative, options, unrecorded, fixed_dimensions=fixed)
        self.output_dtypes = output_dtypes(self._session)
        self._binding = self._session.io_binding()
        self._run_options = onnxruntime.RunOptions()
        # What comes next waits on the same stream; the host need not.
        self._run_options.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def bind(self, inputs: Mapping[str, DeviceArray], outputs: Mapping[str, DeviceArray]) -> None:
        """Say where inputs and outputs lie, for all runs.

        Raises:
            EngineStartError: The graph has other inputs, or no such output.
        """
        dtypes = {name: array.dtype.name for name, array in outputs.items()}
        check_signature(self._session, self._relative, set(inputs), dtypes)
        for name, array in inputs.items():
            self._binding.bind_input(name, *self._where(array))
        for name, array in outputs.items():
            self._binding.bind_output(name, *self._where(array))

    def run(self) -> None:
        """Run on what lies at the inputs.

        Raises:
            EngineRunError: The run failed.
        """
        try:
            self._session.run_with_iobinding(self._binding, self._run_options)
        except Exception as error:  # onnxruntime's errors share no base class
            raise EngineRunError(f"onnxruntime failed with {type(error).__name__} in {self._relative!r}") from error

    def _where(self, array: DeviceArray) -> tuple[str, int, Any, list[int], int]:  # Any: a dtype of numpy
        element = np.bool_ if array.dtype == np.bool_ else array.dtype.type
        ordinal = int(self._place.private_options.get("device_id", "0"))
        return self._place.provider, ordinal, element, list(array.shape), array.address
