"""The pages of the API: one for each folder of the package, and some for modules that stand alone."""

from code_links import PACKAGE

__all__ = ["MODULES", "make_pages"]

MODULES = {
    "model": ["condition", "denoiser", "guidance", "space", "checkpoint"],
    "likelihood": ["bound", "ode", "likelihood", "inversion"],
    "training": ["module", "training", "trainer", "agreement"],
    "drawing": ["generate", "random", "labels"],
    "commands": ["train", "sample", "evaluate", "export", "prepare", "inspect", "plot", "report"],
}
"""Page -> modules that are described beside the folder of that name, if there is one."""


def make_pages() -> dict[str, str]:
    """All pages of the reference, by name."""
    folders = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
    pages = {}
    for name in sorted({*folders, *MODULES}):
        modules = [f"diffusion_lit.{module}" for module in MODULES.get(name, [])]
        if name in folders:
            files = sorted(path.stem for path in (PACKAGE / name).glob("*.py") if path.stem != "__init__")
            modules += [f"diffusion_lit.{name}.{file}" for file in files]
        blocks = [f"## `{module}`\n\n::: {module}\n" for module in modules]
        pages[f"api/{name}.md"] = "\n".join([f"# {name}\n", *blocks])
    return pages
