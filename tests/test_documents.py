"""Links of the documents lead somewhere."""

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(
    path.relative_to(ROOT)
    for pattern in ("*.md", "*/*.md", "*/*/*.md", "*/*/*/*.md")
    for path in ROOT.glob(pattern)
    if not any(part.startswith(".") or part == "out" for part in path.relative_to(ROOT).parts)
)


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def links(document: Path) -> list[str]:
    text = without_code((ROOT / document).read_text(encoding="utf-8"))
    found = re.findall(r"\]\(\s*<?([^)\s>]+)>?[^)]*\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    return [link for link in found if not re.match(r"[a-z]+:", link)]


def anchors(document: Path) -> set[str]:
    """Anchors of the headings, as the usual forges make them."""
    headings = re.findall(r"^#+ +(.+?) *$", without_code((ROOT / document).read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_links_lead_to_files_and_headings_that_exist(document: Path) -> None:
    for link in links(document):
        path, _, anchor = unquote(link).partition("#")
        target = (ROOT / document.parent / path).resolve() if path else ROOT / document
        assert target.is_relative_to(ROOT), f"{document} links out of the repository: {link}"
        assert target.exists(), f"{document} links to {link}, which does not exist"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target.relative_to(ROOT)), (
                f"{document} links to {link}, a heading that does not exist"
            )


def test_each_top_level_folder_of_the_project_explains_itself() -> None:
    folders = [ROOT / name for name in ("protos", "export", "service", "clients", "benchmarks", "deploy")]
    filled = [folder for folder in folders if folder.is_dir() and any(folder.iterdir())]
    assert ROOT / "protos" in filled
    assert [folder.name for folder in filled if not (folder / "README.md").is_file()] == []


def test_readme_and_notice_name_the_source_of_the_pictures() -> None:
    for document in ("README.md", "NOTICE"):
        text = (ROOT / document).read_text(encoding="utf-8")
        assert "Johan Melin" in text
        assert "CC BY 4.0" in text
