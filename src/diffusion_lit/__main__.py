"""All commands by one name: diffusion-lit COMMAND ..., or python -m diffusion_lit COMMAND ..."""

import runpy
import sys
from contextlib import suppress

from diffusion_lit.command_line.catalogue import COMMANDS
from diffusion_lit.command_line.help import answer, header_of
from diffusion_lit.command_line.output import outlive_readers
from diffusion_lit.command_line.suggestion import similar

__all__ = ["main"]

OTHERS = {
    "completion": 'Print what makes bash or zsh complete: eval "$(diffusion-lit completion bash)"',
    "schema": "Print the JSON Schema by which editors complete and check configuration files",
}


def main() -> None:
    """Run the command that the first argument names; without one, list them."""
    outlive_readers()
    name, *arguments = sys.argv[1:] or ["help"]
    if name == "complete":
        from diffusion_lit.command_line.completion import complete

        print("\n".join(complete(" ".join(arguments))))
    elif name == "completion":
        from diffusion_lit.command_line.completion import SCRIPTS

        if len(arguments) != 1 or arguments[0] not in SCRIPTS:
            sys.exit('usage: diffusion-lit completion bash|zsh; then eval "$(diffusion-lit completion bash)"')
        print(SCRIPTS[arguments[0]], end="")
    elif name == "schema":
        from diffusion_lit.command_line.schema import text

        print(text(), end="")
    elif name in COMMANDS:
        sys.argv[1:] = arguments
        with suppress(ValueError):  # of a topic that there is not, which the command itself reports
            if answer(name, arguments):
                return
        runpy.run_module(f"diffusion_lit.{name}", run_name="__main__", alter_sys=True)
    elif name in ("help", "-h", "--help"):
        print(overview())
    elif name == "--version":
        from diffusion_lit import __version__

        print(f"diffusion-lit {__version__}")
    else:
        meant = (
            f"did you mean {close[0]}?" if (close := similar(name, COMMANDS)) else f"there are {', '.join(COMMANDS)}"
        )
        sys.exit(f"\nerror: diffusion-lit has no command {name}: {meant}")


def overview() -> str:
    """The commands with a line each."""
    lines = {**{name: header_of(name) for name in COMMANDS}, **OTHERS}
    listed = "\n".join(f"  {name:12}{line}" for name, line in lines.items())
    return f"""Train, sample and evaluate image diffusion models.

diffusion-lit COMMAND KEY=VALUE ... (or python -m diffusion_lit.COMMAND)

{listed}

diffusion-lit COMMAND --help says what a command takes; diffusion-lit train trains a first model in minutes."""


if __name__ == "__main__":
    main()
