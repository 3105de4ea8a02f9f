"""What several processes of one run agree on before they train, however they were started."""

import os
import platform
import threading
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["be_parent", "check_seen", "from_first_rank", "join", "launched_by", "outlive_nobody"]

AGREED = "DIFFUSION_LIT_AGREED_"
PATIENCE = 10.0  # seconds until a file that the first rank has written must be seen over a network file system


def launched_by() -> str | None:
    """Who started the processes of this run: `torchrun`, `srun`, or None where this process starts the others itself.

    The variables that SLURM leaves in a shell, or in the body of a batch script, do not make a process one of several:
    only those of a job step, which srun starts, do.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return "torchrun"
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1 and "SLURM_STEP_ID" in os.environ:
        return "srun"
    return None


def is_first() -> bool:
    """Whether this process is its run's first."""
    if launched_by() == "srun":
        return os.environ["SLURM_PROCID"] == "0"
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", 0))) == 0 and os.environ.get("NODE_RANK", "0") == "0"


def join() -> None:
    """Connect the processes that a launcher has started; without one, nothing.

    Raises:
        ValueError: if SLURM was not asked for processes by node, as Lightning needs them.
        RuntimeError: torch's, if not all of them appear in time.
    """
    if (launcher := launched_by()) is None:
        return
    import torch
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    try:
        environment = SLURMEnvironment() if launcher == "srun" else TorchElasticEnvironment()
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    os.environ.setdefault("MASTER_ADDR", environment.main_address)
    os.environ.setdefault("MASTER_PORT", str(environment.main_port))
    torch.distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
        rank=environment.global_rank(),
        world_size=environment.world_size(),
    )


def from_first_rank(name: str, make: Callable[[], str]) -> str:
    """What `make` gives on the first rank, on all ranks: no rank decides by what it happens to see.

    Processes that Lightning starts later inherit it in their environment; those of a launcher are connected already.

    Args:
        name: of what is decided.
        make: called on the first rank alone.

    Raises:
        ValueError, OSError: what `make` raises, on all ranks of a launcher: none waits for a rank that has ended.
    """
    if launched_by() is not None:
        from diffusion_lit.distributed.collective import decided

        return decided(make)
    if is_first() or AGREED + name not in os.environ:
        os.environ[AGREED + name] = make()
    return os.environ[AGREED + name]


def check_seen(own: Path, named: str, settings: str) -> None:
    """Check that all processes of a launcher, which may be on several machines, see what the first has chosen.

    Args:
        own: where this process looks for it.
        named: what it is and where, in the first rank's words.
        settings: that name another, for the message.

    Raises:
        ValueError: on all ranks, if it is not there on one; it names the machines.
    """
    if launched_by() is None:
        return
    from diffusion_lit.distributed.collective import gathered_objects

    deadline = time.monotonic() + PATIENCE
    while not (seen := own.exists()) and time.monotonic() < deadline:
        time.sleep(0.1)
    answers = gathered_objects((platform.node(), seen))
    blind = [host for host, seen in answers if not seen]
    if blind:
        raise ValueError(
            f"{len(blind)} of {len(answers)} processes, on {', '.join(sorted(set(blind)))}, do not see {named} that "
            f"the first process has on {answers[0][0]}: all nodes of a run must see the same files. Start it in a "
            f"folder that they share, or name one with {settings}"
        )


def be_parent() -> None:
    """Tell the processes that Lightning starts for this one's run who that is; of a launcher's, the launcher is it."""
    if launched_by() is None:
        from_first_rank("PARENT", lambda: str(os.getpid()))


def outlive_nobody() -> None:
    """End this process soon after the one that started it for its own run: a rank alone waits for ever.

    Who that was is not asked of the system, which names another if it has ended meanwhile: importing takes seconds.
    """
    if "LOCAL_RANK" not in os.environ or is_first():
        return
    named = None if launched_by() else os.environ.get(f"{AGREED}PARENT")
    parent = os.getppid() if named is None else int(named)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
