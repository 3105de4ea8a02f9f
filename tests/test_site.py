"""The documentation: links lead somewhere, references name code, generated pages have every setting."""

import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import api_pages
import configuration
import pytest
import readme
from code_links import PACKAGE, REFERENCE, REPOSITORY, find_lines, link_code
from yaml import BaseLoader, load

from diffusion_lit import __version__
from tests.launch import ROOT

DOCS = sorted((ROOT / "docs").glob("*.md"))
OWN = re.compile(
    rf"(?:{REPOSITORY}/(?:blob|tree)|https://raw\.githubusercontent\.com/diffusion-lit/diffusion-lit)/main/([^#)\s]+)"
)
LINK = re.compile(r"\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)$", re.MULTILINE)


@cache
def pages() -> dict[str, str]:
    """Every page of the site by its name below docs/."""
    written = {path.name: path.read_text() for path in DOCS}
    return written | readme.read_pages() | configuration.make_pages() | api_pages.make_pages()


def without_code(markdown: str) -> str:
    return re.sub(r"```.*?```|`[^`\n]*`", "", markdown, flags=re.DOTALL)


@cache
def anchors(page: str) -> set[str]:
    """What can follow `#` in a link to a page: its headings, as mkdocs and GitHub name them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", pages()[page], flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


def links(markdown: str) -> list[str]:
    return [inline or defined for inline, defined in LINK.findall(without_code(markdown))]


@pytest.mark.parametrize("page", sorted(pages()))
def test_every_link_within_the_site_leads_somewhere(page: str) -> None:
    for link in links(readme.rewrite_links(pages()[page])):
        if link.startswith(("http://", "https://")):
            for path in OWN.findall(link):
                assert (ROOT / path).exists(), link
            continue
        name, _, anchor = link.partition("#")
        target = (Path(page).parent / name).as_posix() if name else page
        assert target in pages() or (ROOT / "docs" / target).is_file(), f"{page}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{page}: {link}, which has {sorted(anchors(target))}"


def test_the_readme_links_as_pypi_can_follow() -> None:
    """Absolute, and to what is in this repository under the name."""
    text = (ROOT / "README.md").read_text()
    found = links(text)
    assert len(found) > 15
    for link in found:
        assert link.startswith("https://"), link
        for path in OWN.findall(link):
            assert (ROOT / path).exists(), link
            if "#" in link:
                assert link.partition("#")[2] in anchors(Path(path).name), link
    labels = set(re.findall(r"^\[([^\]]+)\]: ", text, re.MULTILINE))
    assert set(re.findall(r"\[((?:docs|examples)/[^\]]+)\](?!:)", without_code(text))) == labels


def test_every_reference_to_code_names_some() -> None:
    references = {path.name: REFERENCE.findall(path.read_text()) for path in DOCS}
    for found in references.values():
        for path, symbol in found:
            first, last = find_lines(path, symbol)
            lines = (PACKAGE / path).read_text().splitlines()
            assert symbol.rpartition(".")[2] in lines[first - 1] and first <= last
    assert len(references["theory.md"]) > 60
    named = {path for path, _ in references["theory.md"]}
    for group in ("schedule", "parameterization", "density", "weighting", "loss", "sampler"):
        members = {f"{group}/{path.stem}.py" for path in (ROOT / "conf" / group).glob("*.yaml")}
        assert members <= named, members - named
    assert link_code("`schedule/base.py:Schedule`").startswith(
        f"[`schedule/base.py:Schedule`]({REPOSITORY}/blob/main/src/"
    )


@pytest.mark.parametrize("reference", ["schedule/gone.py:Schedule", "schedule/base.py:Schedule.gone"])
def test_a_reference_to_nothing_fails_the_build(reference: str) -> None:
    with pytest.raises(ValueError, match="gone"):
        link_code(f"see `{reference}`")


def leaves(value: Any, key: str = "") -> dict[str, Any]:
    """What is no mapping, or an empty one, by its dotted key."""
    if isinstance(value, dict) and value:
        parts = [leaves(inner, f"{key}.{name}" if key else str(name)) for name, inner in value.items()]
        return {leaf: found for part in parts for leaf, found in part.items()}
    return {key: value}


def test_the_reference_has_every_setting_of_every_file() -> None:
    """By the keys that YAML itself finds; experiments are shown whole."""
    for path in (ROOT / "conf").rglob("*.yaml"):
        group = path.relative_to(ROOT / "conf").parent.as_posix()
        if group.startswith("hydra") or group == "experiment":
            continue  # what Hydra itself is told; files that are shown whole
        page = pages()[f"configuration/{'commands' if group == '.' else group}.md"]
        content = load(path.read_text(), BaseLoader) or {}
        content = {key: value for key, value in content.items() if key not in ("defaults", "hydra")}
        shown = set(re.findall(r"^\| `([^`]+)`", page, re.MULTILINE))
        assert all(any(key == s or s.endswith(f".{key}") for s in shown) for key in leaves(content) if key), path
    assert "| `callback.ema.decay` | `" in pages()["configuration/callback.md"]
    assert "| `optimizer.lr` | `0.001` |" in pages()["configuration/optimizer.md"]
    assert "| `resume` | `null` |" in pages()["configuration/commands.md"]
    assert (
        "experiment: " not in pages()["configuration/experiment.md"]
        and "```yaml" in pages()["configuration/experiment.md"]
    )


def test_every_group_and_every_entry_of_the_navigation_is_a_page() -> None:
    entries: list[str] = []

    def visit(value: Any) -> None:
        if isinstance(value, str):
            entries.append(value)
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            visit(inner)

    visit(load((ROOT / "mkdocs.yml").read_text(), BaseLoader)["nav"])
    assert [entry for entry in entries if entry not in pages()] == []
    assert {page for page in pages() if "/" in page} <= set(entries)


def test_the_package_says_where_it_lives() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["urls"]["Repository"] == REPOSITORY
    assert all(url.startswith("https://") for url in project["urls"].values())
    citation = load((ROOT / "CITATION.cff").read_text(), BaseLoader)
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()  # what the format requires
    assert citation["cff-version"] == "1.2.0" and citation["version"] == __version__
    assert all(author.keys() <= {"name", "given-names", "family-names", "website"} for author in citation["authors"])
    assert (citation["license"], citation["repository-code"]) == (project["license"], REPOSITORY)


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="pip install '.[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    theory = (tmp_path / "site" / "theory" / "index.html").read_text()
    assert theory.count("<math") > 60 and "arithmatex" not in theory and theory.count("#L") > 60
