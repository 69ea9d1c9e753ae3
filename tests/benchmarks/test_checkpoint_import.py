"""Time and memory of reading and exporting a checkpoint."""

from pathlib import Path

import pytest
import torch

from benchmarks.checkpoint_import.__main__ import draw_summary, judge_stages
from benchmarks.checkpoint_import.files import save_checkpoint
from benchmarks.checkpoint_import.measuring import export, read
from benchmarks.workloads.shapes import STYLEGAN2_CHANNELS
from labelmint_export.generator import Generator, GeneratorConfig


def test_both_stages_of_a_small_checkpoint_are_measured(tmp_path: Path) -> None:
    save_checkpoint({4: 6, 8: 5}, tmp_path / "x.pt", latent_width=8)
    stages = {"read": read(tmp_path / "x.pt"), "export": export(tmp_path / "x.pt")}
    for stage, before in (("read", "imports_rss_bytes"), ("export", "reading_rss_bytes")):
        assert stages[stage]["peak_rss_bytes"] >= stages[stage][before] > 2**26
    assert stages["export"]["num_bytes"] > 4 * stages["read"]["num_parameters"] > 4000
    assert "| read" in draw_summary({"stages": judge_stages(stages)})


@pytest.mark.parametrize(
    ("seconds", "num_bytes", "reached"), [(19.9, 1.4e9, True), (20.1, 1.4e9, False), (1, 2e9, False)]
)
def test_a_stage_reaches_its_target_if_time_and_memory_do(seconds: float, num_bytes: float, reached: bool) -> None:
    judged = judge_stages({"read": {"seconds": seconds, "peak_rss_bytes": num_bytes}})
    assert judged["read"]["reaches_target"] is reached


def test_size_is_the_published_one() -> None:
    with torch.device("meta"):
        generator = Generator(
            GeneratorConfig(resolution=1024, channels=STYLEGAN2_CHANNELS, z_dim=512, w_dim=512, mapping_layers=8)
        )
    assert 30_000_000 < sum(parameter.numel() for parameter in generator.parameters()) < 30_500_000
