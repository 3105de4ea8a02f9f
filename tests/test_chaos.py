"""A short campaign of `make chaos`, and what its long ones have found."""

import errno
import io
import os
import random
import shutil
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from filelock import FileLock
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader

from diffusion_lit import files, training
from diffusion_lit.callback import EMA, LastCheckpoint
from diffusion_lit.checkpoint import damage
from diffusion_lit.data import DigitsData
from diffusion_lit.run import folder as run_folder
from diffusion_lit.run.checkpoint_files import CheckpointFiles
from diffusion_lit.terminal.interruption import Interrupted, Interruption
from tests.chaos import DAMAGES, FAULTS, VARIANTS, Campaign, Reference, Variant, checkpoints, table, unequal
from tests.launch import TINY, run_forked, train_in

SHORT = Variant(more=("trainer.max_steps=5", "callback.fid.num_samples=5", "sampler.num_steps=2"))
QUIET = (
    "callback.fid=null",
    "callback.sample_grid=null",
    "callback.best_checkpoint=null",
    "trainer.log_every_n_steps=1",
)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[Variant, Reference]:
    campaign = Campaign(tmp_path_factory.mktemp("undisturbed"), random.Random(0))
    campaign.reference(SHORT)
    return campaign.references


@pytest.mark.slow  # as `make chaos` does for minutes; the tests below cut runs at chosen places
def test_runs_that_are_killed_lose_nothing(undisturbed: dict[Variant, Reference], tmp_path: Path) -> None:
    campaign = Campaign(tmp_path, random.Random(1), references=undisturbed)
    while campaign.tally["kills"] < 3:
        campaign.chain(SHORT)
        assert not campaign.lost
    assert campaign.tally["compared with the undisturbed run: equal to the bit"] == campaign.chains


@pytest.mark.parametrize("fault", ["full", *(pytest.param(fault, marks=pytest.mark.slow) for fault in FAULTS[1:])])
def test_a_fault_is_a_message_and_spoils_nothing(
    fault: str, undisturbed: dict[Variant, Reference], tmp_path: Path
) -> None:
    campaign = Campaign(tmp_path, random.Random(2), references=undisturbed)
    campaign.fault(SHORT, fault)
    assert not campaign.lost


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_every_kind_of_run_survives(variant: Variant, tmp_path: Path) -> None:
    campaign = Campaign(tmp_path, random.Random(3))
    campaign.chain(variant)
    campaign.fault(variant, "NaN in a gradient")
    assert not campaign.lost


@pytest.mark.slow
def test_sweeps_prepared_sets_and_foreign_folders(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path, random.Random(4))
    campaign.sweep()
    campaign.prepare()
    campaign.refusals(SHORT)
    assert not campaign.lost


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train_in(folder, "trainer.max_steps=2", *QUIET)
    return folder


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_is_noticed(kind: str, run: Path, tmp_path: Path) -> None:
    file, draw = tmp_path / "last.ckpt", random.Random(5)
    file.write_bytes((run / "checkpoints" / "last.ckpt").read_bytes())
    DAMAGES[kind](file, draw)
    assert damage(file) is not None


def test_a_flipped_byte_is_noticed_or_means_nothing(run: Path, tmp_path: Path) -> None:
    """Wherever in the file: in a weight, in the names, in the padding between them."""
    file, draw, noticed = tmp_path / "last.ckpt", random.Random(6), 0
    expected = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    del expected["optimizer_states"], expected["ema"]  # of the same kind as the weights, and read as often
    CheckpointFiles().save_checkpoint(expected, file)
    whole = file.read_bytes()
    for _ in range(30):
        data = bytearray(whole)
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        file.write_bytes(data)
        if damage(file) is not None:
            noticed += 1
        else:
            assert not list(unequal(torch.load(file, weights_only=True), expected, ""))
    assert noticed > 10


class Fails(Callback):
    """Raises in the validation after a step, or at the end."""

    def __init__(self, step: int, at_end: bool = False) -> None:
        self.step, self.at_end = step, at_end

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step == self.step and not self.at_end:
            raise RuntimeError("cut")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.at_end:  # before any figure of the end
            trainer.callbacks.insert(0, trainer.callbacks.pop(trainer.callbacks.index(self)))  # type: ignore[attr-defined]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.at_end:
            raise RuntimeError("cut")


def test_a_run_by_images_that_is_cut_in_its_last_validation_takes_no_further_step(tmp_path: Path) -> None:
    options = ("trainer.max_steps=null", "trainer.max_images=280", *QUIET)
    train_in(tmp_path / "whole", *options)
    cut = ("+callback.cut._target_=tests.test_chaos.Fails", "+callback.cut.step=5")
    with pytest.raises(RuntimeError, match="cut"):
        train_in(tmp_path / "a", *options, *cut)
    train_in(tmp_path / "b", f"resume={tmp_path / 'a'}", "+callback.cut=null", *QUIET)
    ends = [torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True) for name in ("whole", "b")]
    assert ends[0]["global_step"] == ends[1]["global_step"] == 5
    assert table(tmp_path / "whole") == table(tmp_path / "b")


def test_the_last_figures_of_a_run_that_is_cut_before_them_are_made_by_a_resume(tmp_path: Path) -> None:
    options = ("trainer.max_steps=4", "trainer.log_every_n_steps=1")
    cut = ("+callback.cut._target_=tests.test_chaos.Fails", "+callback.cut.step=4", "+callback.cut.at_end=true")
    train_in(tmp_path / "whole", *options)
    with pytest.raises(RuntimeError, match="cut"):
        train_in(tmp_path / "a", *options, *cut)
    assert 4 not in table(tmp_path / "a")["fid/pixels_21"]
    train_in(tmp_path / "b", f"resume={tmp_path / 'a'}", "+callback.cut=null")
    assert table(tmp_path / "whole") == table(tmp_path / "b")
    assert (tmp_path / "b" / "samples" / "step_0000004.png").is_file()
    assert train_in(tmp_path / "c", f"resume={tmp_path / 'b'}") is None  # and now it is finished
    train_in(tmp_path / "longer", f"resume={tmp_path / 'b'}", "trainer.max_steps=6")
    train_in(tmp_path / "at_once", "trainer.max_steps=6", *options[1:])
    ends = [torch.load(tmp_path / n / "checkpoints" / "last.ckpt", weights_only=True) for n in ("longer", "at_once")]
    assert not list(unequal(ends[0]["state_dict"], ends[1]["state_dict"], ""))


def test_a_resumed_run_measures_fid_when_the_undisturbed_one_does(tmp_path: Path) -> None:
    """Not by how long ago the process began."""
    options = ("callback.fid.every_n_steps=4", "callback.sample_grid=null", "trainer.val_check_interval=2")
    train_in(tmp_path / "whole", "trainer.max_steps=8", *options)
    train_in(tmp_path / "a", "trainer.max_steps=5", *options)
    train_in(tmp_path / "b", "trainer.max_steps=8", f"resume={tmp_path / 'a' / 'checkpoints' / 'best.ckpt'}", *options)
    assert sorted(table(tmp_path / "whole")["fid/pixels_21"]) == [4, 8]
    assert table(tmp_path / "whole")["fid/pixels_21"] == table(tmp_path / "b")["fid/pixels_21"]


@pytest.mark.slow
def test_a_run_that_is_cut_at_the_end_of_an_epoch_begins_the_next_with_loading_processes_too(tmp_path: Path) -> None:
    options = ("data.num_workers=2", *QUIET)
    train_in(tmp_path / "whole", "trainer.max_steps=6", *options)
    train_in(tmp_path / "a", "trainer.max_steps=4", *options)
    train_in(tmp_path / "b", "trainer.max_steps=6", f"resume={tmp_path / 'a'}", *options)
    ends = [torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True) for name in ("whole", "b")]
    assert not list(unequal(ends[0]["state_dict"], ends[1]["state_dict"], ""))


class Spoiled(EMA):
    """An average that is not finite."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        super().on_train_batch_end(trainer, pl_module, *args)
        next(iter(self.average.values())).fill_(torch.nan)


def test_an_average_that_is_added_after_the_guard_is_looked_at_too(tmp_path: Path) -> None:
    slow = "+callback.slow={_target_: tests.test_chaos.Spoiled, decay: 0.1, name: ema_slow}"
    with pytest.raises(FloatingPointError, match="ema_slow in the checkpoint would not be finite"):
        train_in(tmp_path, "trainer.max_steps=2", slow, *QUIET)
    assert not checkpoints(tmp_path.parent / tmp_path.name) and not list(tmp_path.glob("checkpoints/*"))


def test_a_signal_that_comes_while_a_file_is_written_stops_the_run_then() -> None:
    with Interruption() as interruption:
        interruption.held = True
        os.kill(os.getpid(), signal.SIGUSR1)
        with pytest.raises(Interrupted) as caught:
            interruption.release()
    assert caught.value.exit_code == 128 + signal.SIGUSR1


class StoppedData(DigitsData):
    """Asked to stop while Hydra builds it."""

    def __post_init__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        super().__post_init__()


class StoppedLoader(DataLoader[Any]):
    """Asked to stop while its iterator, and with it the loading processes, are made."""

    def __iter__(self) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)


class StoppedLoading(DigitsData):
    def train_dataloader(self) -> Any:
        loader = super().train_dataloader()
        loader.__class__ = StoppedLoader
        return loader


def test_a_signal_while_loading_processes_are_started_is_no_error(tmp_path: Path) -> None:
    done = run_forked("train", *TINY, "data._target_=tests.test_chaos.StoppedLoading", cwd=tmp_path)
    assert done.returncode == 128 + signal.SIGTERM and "Traceback" not in done.stderr, done.stderr


def test_a_signal_within_torch_s_writing_is_a_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch would report that its file ends at the wrong place."""

    class Stopped(io.FileIO):
        pieces = 0

        def write(self, data: Any) -> int:
            self.pieces += 1
            if self.pieces == 30:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().write(data)

    monkeypatch.setattr(files, "open", Stopped, raising=False)
    checkpoint = {str(i): torch.zeros(1000) for i in range(20)}
    with Interruption(), pytest.raises(Interrupted):
        CheckpointFiles().save_checkpoint(checkpoint, tmp_path / "last.ckpt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number, words", [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "cannot be written")])
def test_a_disk_that_takes_nothing_is_a_message(
    number: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where not even a first byte can be written."""

    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files, "open", refuse, raising=False)
    with pytest.raises(ValueError, match=words):
        CheckpointFiles().save_checkpoint({}, tmp_path / "new" / "last.ckpt")


def test_a_signal_while_a_run_is_built_is_no_error(tmp_path: Path) -> None:
    done = run_forked("train", *TINY, "data._target_=tests.test_chaos.StoppedData", cwd=tmp_path)
    assert done.returncode == 128 + signal.SIGTERM and "Traceback" not in done.stderr, done.stderr
    assert "stopped by SIGTERM, before there was anything to save" in done.stderr


def test_what_a_killed_process_left_is_removed_at_the_next_start(run: Path, tmp_path: Path) -> None:
    left = [run / name for name in (".metrics.csv.7.partial", "checkpoints/.last.ckpt.7.partial")]
    for file in left:
        file.write_bytes(b"half")
    with FileLock(run / ".lock"):  # it is still being trained, for all that can be known
        train_in(tmp_path / "a", "trainer.max_steps=3", f"resume={run}")
        assert all(file.is_file() for file in left)
    train_in(tmp_path / "b", "trainer.max_steps=3", f"resume={run}")
    assert not any(file.is_file() for file in left)


def test_a_checkpoint_replaced_while_it_is_resumed_from_is_refused(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its settings and figures would be of one step, and its weights of another."""
    source = Path(shutil.copytree(run, tmp_path / "run"))
    train_in(tmp_path / "further", "trainer.max_steps=3", *QUIET, f"resume={source}")
    claim = training.claim_for_all

    def replace_and_claim(*args: Any) -> Any:
        shutil.copy(tmp_path / "further" / "checkpoints" / "last.ckpt", source / "checkpoints")
        return claim(*args)

    monkeypatch.setattr(training, "claim_for_all", replace_and_claim)
    with pytest.raises(ValueError, match=r"was of step 2 when .* is of step 3 now: another process is training there"):
        train_in(tmp_path / "beside", "trainer.max_steps=4", *QUIET, f"resume={source}")
    assert not (tmp_path / "beside" / "checkpoints").exists()


def test_a_folder_that_is_removed_while_it_is_trained_in_is_named(tmp_path: Path, caplog: Any) -> None:
    run = tmp_path / "run"

    def write(path: Path, weights_only: bool) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    trainer: Any = SimpleNamespace(global_step=1, is_global_zero=True, loggers=[], save_checkpoint=write)
    callback = LastCheckpoint(str(run / "checkpoints"), every_n_steps=1)
    callback.saved_step = 0
    for _ in range(2):
        callback.save(trainer)
    assert not caplog.messages
    shutil.rmtree(run)
    callback.save(trainer)
    callback.save(trainer)
    assert [str(run) in message and "removed or moved" in message for message in caplog.messages] == [True]
    assert (run / "checkpoints" / "last.ckpt").is_file()


def test_a_folder_whose_process_was_just_killed_is_let_go(run: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """Its loading processes hold the lock for a few seconds more."""
    run = Path(shutil.copytree(run, tmp_path / "run"))  # which is trained on here, and no further by other tests
    lock = FileLock(run / ".lock", thread_local=False)
    lock.acquire()
    monkeypatch.setattr(run_folder, "LOCK_PATIENCE", 0.1)
    with pytest.raises(ValueError, match="another process is training"):
        train_in(run, "trainer.max_steps=3", f"resume={run}")
    monkeypatch.undo()
    letting_go = threading.Timer(0.5, lock.release)
    letting_go.start()
    assert train_in(run, "trainer.max_steps=3", f"resume={run}") is not None
    letting_go.join()


def test_a_folder_in_a_checkpoint_s_place_is_named_before_training(run: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "last.ckpt").mkdir(parents=True)
    (tmp_path / "checkpoints" / "best.ckpt").write_bytes((run / "checkpoints" / "last.ckpt").read_bytes())
    with pytest.raises(ValueError, match=r"last\.ckpt is a folder, where a checkpoint goes: move it,"):
        train_in(tmp_path, "trainer.max_steps=3", f"resume={tmp_path}")
