"""The repository's own documents as pages of the site, so that each text is written once."""

import re

from code_links import REPOSITORY, ROOT

__all__ = ["read_pages", "rewrite_links"]

FILES = {"changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}
"""Page -> the file that it is."""
OWN = re.compile(rf"({re.escape(REPOSITORY)}/blob|https://raw\.githubusercontent\.com/[\w-]+/[\w-]+)/main/docs/")


def rewrite_links(markdown: str) -> str:
    """Links to the repository's own documents as links within the site; those to its other files lead there."""
    markdown = OWN.sub("", markdown).replace("](docs/", "](")
    return markdown.replace("](../", f"]({REPOSITORY}/blob/main/").replace(
        "](examples/", f"]({REPOSITORY}/blob/main/examples/"
    )


def read_pages() -> dict[str, str]:
    """All such pages, by name."""
    return {name: rewrite_links((ROOT / file).read_text(encoding="utf-8")) for name, file in FILES.items()}
