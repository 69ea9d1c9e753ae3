"""Scores that an engine knows already are those of the samples, however its batches are cut."""

import dataclasses
from pathlib import Path

import numpy as np

from labelmint.addresses import latents
from labelmint.bundle import open_bundle
from labelmint_service.engine import EngineBatch, LatentInputs, load_engine
from labelmint_service.models.served import serve_bundle
from tests.service.calls import TIMEOUT_S, collect, make_request
from tests.service.scripted_engine import ScriptedEngine
from tests.serving import serving


class KnowingEngine(ScriptedEngine):
    """Says that a sample's score is the size of its first latent."""

    def run(self, inputs: LatentInputs) -> EngineBatch:
        return dataclasses.replace(super().run(inputs), scores=np.abs(inputs.z[:, 0]))


def test_scores_of_the_engine_reach_the_caller_and_the_filter(bundles: dict[str, Path]) -> None:
    bundle = open_bundle(bundles["tiny"])
    model = serve_bundle(bundle, KnowingEngine(load_engine(bundle)))
    sizes = np.abs(latents(7, np.arange(40, dtype=np.uint64), 8)[:, 0])
    with serving([model]) as running:
        everything = collect(running.stub().Generate(make_request(max_accepted=40), timeout=TIMEOUT_S))
        request = make_request(max_accepted=None, endless=True, end_index=40)
        request.filter.max_uncertainty = 0.5
        kept = collect(running.stub().Generate(request, timeout=TIMEOUT_S))
    assert everything.indices == list(range(40))
    assert everything.arrays["uncertainty"].tolist() == sizes.tolist()
    assert kept.indices == np.flatnonzero(sizes <= 0.5).tolist()
    assert 5 < len(kept.indices) < 35
