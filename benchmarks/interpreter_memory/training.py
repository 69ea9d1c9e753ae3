"""The worker: trains an interpreter on synthetic taps and says how much memory its process took at most."""

import time

import torch

from benchmarks.interpreter_memory.settings import MemorySettings
from benchmarks.interpreter_memory.synthetic import fill_synthetic, stylegan1_taps
from benchmarks.processes.memory import peak_rss_bytes
from benchmarks.processes.worker import Answer, answer_requests
from benchmarks.reporting.files import Document
from labelmint_export.interpreter.ensemble import InterpreterConfig
from labelmint_export.interpreter.features import FeaturePool
from labelmint_export.interpreter.training import InterpreterTraining, train_on_pool


def train(settings: MemorySettings) -> Document:
    """Train once.

    Returns:
        Peak of the process after each stage, bytes, and how long stages took, ready for JSON.
    """
    stages = [_stage("imports", 0.0)]
    taps = stylegan1_taps(settings.side)
    began = time.perf_counter()
    pool = FeaturePool(taps, settings.side, settings.num_pictures)
    annotated = fill_synthetic(
        pool, taps, seed=settings.seed, num_classes=settings.num_classes, num_keypoints=settings.num_keypoints
    )
    stages.append(_stage("taps", time.perf_counter() - began))
    config = InterpreterConfig(
        taps=taps,
        label_resolution=settings.side,
        num_classes=settings.num_classes,
        num_keypoints=settings.num_keypoints,
    )
    began = time.perf_counter()
    train_on_pool(pool, annotated, config, InterpreterTraining(max_steps=settings.steps, seed=settings.seed))
    stages.append(_stage("training", time.perf_counter() - began))
    return {
        "num_features": pool.num_features,
        "num_members": config.num_members,
        "hidden_widths": list(config.hidden_widths),
        "num_keypoint_members": config.num_keypoint_members if settings.num_keypoints else 0,
        "stages": stages,
        "peak_rss_bytes": peak_rss_bytes(),
    }


def _stage(name: str, seconds: float) -> Document:
    return {"name": name, "seconds": round(seconds, 2), "peak_rss_bytes": peak_rss_bytes()}


def _prepare() -> tuple[Document, Answer]:
    def answer(request: Document) -> Document:
        torch.set_num_threads(int(request.pop("threads")) or torch.get_num_threads())
        return train(MemorySettings(**request))

    return {}, answer


if __name__ == "__main__":
    answer_requests(_prepare)
