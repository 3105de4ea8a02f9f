"""Processes that a launcher has started: one run, or one message, and none that waits for the others."""

from pathlib import Path

import pytest

from diffusion_lit.checkpoint import load_checkpoint
from diffusion_lit.trainer import check_processes
from tests.launch import TINY, config, run_launched

TWO = ("trainer.devices=2", "data.batch_size=30", "trainer.max_steps=1", "callback.fid=null")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that both processes see, with a run of theirs in `run`."""
    folder = tmp_path_factory.mktemp("shared")
    ended = run_launched("train", *TINY, *TWO, "hydra.run.dir=run", folders=[folder, folder])
    assert [code for code, _ in ended] == [0, 0], ended
    assert load_checkpoint(folder / "run")["global_step"] == 1
    assert not list((folder / "run").glob(".*.partial"))
    return folder


@pytest.mark.parametrize(
    "args, sees, message",
    [
        (["hydra.run.dir=new"], False, "do not see the run folder {shared}/new that the first process has on"),
        (
            ["hydra.run.dir=new", "resume=run"],
            False,
            "do not see the checkpoint run/checkpoints/last.ckpt that the first",
        ),
        (["hydra.run.dir=run"], True, "{shared}/run holds a run already"),
        (["hydra.run.dir=new", "resume=none"], True, "none does not exist"),
    ],
)
def test_what_one_process_refuses_all_refuse(
    args: list[str], sees: bool, message: str, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As two nodes, of which the second does not see the first one's folder, or both do."""
    monkeypatch.setattr("diffusion_lit.distributed.ranks.PATIENCE", 0.2)
    ended = run_launched("train", *TINY, *TWO, *args, folders=[shared, shared if sees else tmp_path])
    for code, said in ended:
        assert code == 1 and message.format(shared=shared) in said and "Traceback" not in said, said
        assert sees or "1 of 2 processes, on " in said


def test_several_nodes_take_a_launcher(tmp_path: Path) -> None:
    """Lightning would let each node decide by itself what to resume, and where to write."""
    cfg = config(tmp_path, "trainer.num_nodes=2", "trainer.devices=4")
    with pytest.raises(ValueError, match="torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d"):
        check_processes(cfg.trainer)
