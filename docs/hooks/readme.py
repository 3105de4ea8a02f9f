"""Sections of the README as pages of the site, so that each text is written once."""

import re

from code_links import REPOSITORY, ROOT

__all__ = ["PAGES", "read_pages", "read_section", "rewrite_links"]

PAGES = {
    "sampling.md": ("Draw images", ["Draw images"]),
    "run_folder.md": ("A run: its folder, its checkpoints", ["A run's folder", "What a run says", "Checkpoints"]),
    "resume.md": ("Stop and resume", ["Stop and resume"]),
    "sweeps.md": ("Sweeps", ["Sweeps"]),
}
"""Page -> its title, and the headings of the sections that it is made of."""
FILES = {"changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}
"""Page -> the file that it is."""
OWN = re.compile(rf"({re.escape(REPOSITORY)}/blob|https://raw\.githubusercontent\.com/[\w-]+/[\w-]+)/main/docs/")


def read_section(markdown: str, heading: str) -> str:
    """What stands under a heading of the README, up to the next one of its level or above. A ValueError without it."""
    fenced, level, lines = False, 0, []
    for line in markdown.splitlines():
        fenced ^= line.startswith("```")
        marks, _, title = line.partition(" ")
        is_heading = not fenced and bool(marks) and set(marks) == {"#"}
        if is_heading and level and len(marks) <= level:
            break
        if level:
            lines.append(line)
        elif is_heading and title == heading:
            level = len(marks)
    if not level:
        raise ValueError(f"README.md has no section {heading!r}, which the site shows: see docs/hooks/readme.py")
    return "\n".join(lines).strip()


def rewrite_links(markdown: str) -> str:
    """Links to the repository's own documents as links within the site; those to its other files lead there."""
    markdown = OWN.sub("", markdown).replace("](docs/", "](")
    return markdown.replace("](../", f"]({REPOSITORY}/blob/main/").replace(
        "](examples/", f"]({REPOSITORY}/blob/main/examples/"
    )


def read_pages() -> dict[str, str]:
    """All such pages, by name."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    addresses = "\n".join(re.findall(r"^\[[^\]]+\]: .*$", readme, re.MULTILINE))
    pages = {name: (ROOT / file).read_text(encoding="utf-8") for name, file in FILES.items()}
    for name, (title, headings) in PAGES.items():
        parts = [read_section(readme, heading) for heading in headings]
        if len(headings) > 1:
            parts = [f"## {heading}\n\n{part}" for heading, part in zip(headings, parts, strict=True)]
        pages[name] = "\n\n".join([f"# {title}", *parts, addresses])
    return {name: rewrite_links(text) for name, text in pages.items()}
