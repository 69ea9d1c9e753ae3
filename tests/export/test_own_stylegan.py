"""README's section for those who bring a StyleGAN, followed word for word in a shell."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

README = Path(__file__).parents[2] / "export/README.md"
CHECKPOINT = Path(__file__).parents[1] / "data/checkpoints/stylegan2_ada_32.pkl"
DRAWING = "#   draw on to-draw/*.png"


def commands() -> tuple[str, str]:
    """What README has the reader run before and after drawing."""
    section = README.read_text(encoding="utf-8").partition("\n## Bring your own StyleGAN\n")[2]
    block = re.search(r"```sh\n(.*?)```", section, flags=re.DOTALL)
    assert block is not None
    before, drawing, after = block[1].partition(DRAWING)
    assert drawing, "the place where a person draws is not marked any more"
    return before, "#" + after


def draw(picture: Path) -> None:
    """Labels as LabelMe writes them beside a picture."""
    with Image.open(picture) as image:
        width, height = image.size
    shapes: list[dict[str, object]] = [
        {"label": "cat", "shape_type": "polygon", "points": [[4, 4], [width - 6, 5], [width // 2, height - 5]]},
        {"label": "nose", "shape_type": "point", "points": [[width / 2, height / 3]]},
    ]
    content: dict[str, object] = {
        "version": "5.5.0",
        "flags": {},
        "shapes": [{"group_id": None, "flags": {}, **shape} for shape in shapes],
        "imagePath": picture.name,
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }
    picture.with_suffix(".json").write_text(json.dumps(content), encoding="utf-8")


def run(script: str, folder: Path) -> str:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-euc", script],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_section_leads_from_a_checkpoint_to_a_labelled_set(tmp_path: Path) -> None:
    shutil.copy(CHECKPOINT, tmp_path / "network-snapshot.pkl")
    before, after = commands()
    assert "StyleGAN2" in run(before, tmp_path)
    pictures = sorted((tmp_path / "to-draw").glob("[0-9][0-9].png"))
    assert len(pictures) == 16
    for picture in pictures:
        draw(picture)
    run(f"trap 'kill %1' EXIT\n{after}", tmp_path)

    made = json.loads((tmp_path / "my-set/annotations.json").read_text(encoding="utf-8"))
    assert len(made["images"]) == 1000
    assert {category["name"] for category in made["categories"]} >= {"cat"}
