"""The likeliest mistakes on a command line: each is answered with what to type, before any work starts."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra.errors import HydraException

from diffusion_lit.command_line.catalogue import groups_of
from diffusion_lit.command_line.check import check_settings
from diffusion_lit.command_line.composition import check_choices, explain_composition
from diffusion_lit.command_line.shell import read_arguments
from diffusion_lit.command_line.slips import refuse_slips
from tests.hydra_shortcuts import composed
from tests.launch import run_forked


def answer(command: str, *arguments: str) -> str:
    """What a command says to arguments before it starts its work; empty if nothing is wrong with them."""
    try:
        refuse_slips(command, arguments)
        read = read_arguments(arguments)
        check_choices(command, read)
        try:
            settings = [argument for argument in read if not argument.startswith("hydra")]
            cfg = composed([*settings, "run_dir=x"] if command == "train" else settings, command)
        except (HydraException, ValueError) as error:
            return explain_composition(error, command, read) or f"not explained: {error}"
        lists = {argument.partition("=")[0] for argument in arguments if "=[" in argument}
        check_settings(cfg, command, {g for g, names in groups_of(command).items() if g in lists or len(names) > 1})
    except ValueError as error:
        return str(error)
    return ""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder with a run in it."""
    monkeypatch.chdir(tmp_path)
    Path("RUN").mkdir()
    yield
    assert os.listdir() == ["RUN"], "nothing is written"


SLIPS = {
    # a name that there is not
    ("train", "lr=1e-4"): "lr is not a setting of train: did you mean optimizer.lr?",
    ("train", "optimizer.learning_rate=1"): "did you mean optimizer.lr?",
    (
        "train",
        "+optimizer.learning_rate=1",
    ): "AdamW has no argument learning_rate (optimizer.learning_rate): did you mean",
    ("train", "trainer.max_stepz=5"): "did you mean trainer.max_steps",
    ("train", "model.num_class=5"): "did you mean model.num_classes",
    ("train", "callback.ema.deccay=0.9"): "did you mean callback.ema.decay?",
    (
        "train",
        "experiment=mnist_quick",
        "callback=[default,power_ema]",
    ): "callback.ema has settings (decay) and no _target_: they are of a part that is not chosen. Choose it "
    "with callback=, or leave them out with callback.ema=null",
    ("train", "experiment=mnist_quick", "callback=[default,power_ema]", "callback.ema=null"): "",
    ("train", "batch_size=8"): "did you mean data.batch_size",
    ("train", "epochs=3"): "did you mean trainer.max_epochs?",
    ("train", "shedule=cosine"): "did you mean schedule",
    ("train", "+shedule=cosine"): "did you mean schedule",
    ("train", "data.root=x"): "data.root is not a setting here: data=cifar10, data=fashion_mnist, data=image_folder,",
    ("train", "sampler=heun", "sampler.eta=1"): "sampler.eta is not a setting here: sampler=ddim has it",
    ("train", "schedule.cosine=1"): "choose that member with schedule=cosine",
    ("train", "optimizer.amsgrad=true"): "AdamW takes it: put a + before it, +optimizer.amsgrad=true",
    ("train", "~callback.fidd"): "did you mean callback.fid",
    ("train", "out=DIR"): "did you mean output_root?",
    ("sample", "n_samples=4", "ckpt=RUN"): "did you mean num_samples",
    ("sample", "schedule=cosine", "ckpt=RUN"): "schedule is not a setting of sample: the checkpoint has its own",
    ("prepare", "image_size=64"): "did you mean resolution?",
    # a member that there is not
    ("train", "schedule=cosin"): "schedule has no cosin: did you mean schedule=cosine? There are cosine, ",
    ("train", "logger=[csv,tensorbord]"): "logger has no tensorbord: did you mean logger=tensorboard?",
    ("train", "-m", "schedule=linear,cosin"): "did you mean schedule=cosine?",
    ("train", "experiment=ddpm_cifar10.yml"): "did you mean experiment=ddpm_cifar10?",
    ("train", "schedule=linear,cosine"): "put -m before it",
    ("train", "seed=1,2"): "put -m before it; a list for one run is 'seed=[1,2]'",
    ("train", "+data=cifar10"): "without the + this one takes its place: data=cifar10",
    ("train", "+optimizer.lr=1"): "needs no +: optimizer.lr=1",
    ("train", "schedule=null"): "a group cannot be null",
    # a value of another kind
    ("train", "optimizer.lr=fast"): "optimizer.lr must be a number, got 'fast'; its default is 0.001",
    ("train", "data.batch_size=1.5"): "data.batch_size must be a whole number, got 1.5; its default is 64",
    ("train", "data=cifar10", "data.batch_size=[8,16]"): "data.batch_size must be a whole number, got [8, 16]",
    ("train", "data=image_folder", "data.resolution=48x64"): (
        "data.resolution must be a whole number or a list of whole numbers, got '48x64'"
    ),
    ("train", "trainer.devices=two"): "trainer.devices must be a whole number, a list of whole numbers or auto",
    ("train", "seed=null"): "seed must be a whole number, got null",
    ("train", "trainer.max_steps=1e6"): "got 1000000.0: type trainer.max_steps=1000000",
    ("train", "label_dropout=10%"): "label_dropout must be a number, got '10%': 10% is label_dropout=0.1",
    ("train", "model.channel_multipliers=2"): "model.channel_multipliers must be a list of numbers, got 2",
    ("train", "data.batch_size=true"): "must be a whole number, got true",
    ("train", "model.num_classes=none"): "type model.num_classes=null",
    ("train", "model.num_classes=None"): "model.num_classes=null",
    ("train", "optimizer.lr=nan"): "optimizer.lr must be a number, got nan; its default is 0.001",
    ("train", "trainer.max_minutes=5min"): "trainer.max_minutes must be a number or null, got '5min'",
    ("train", "denoiser.schedule=linear"): "denoiser.schedule must be a part with a _target_ of its own, got 'linear'",
    (
        "train",
        "callback.sample_grid.sampler=null",
    ): "callback.sample_grid.sampler must be a part with a _target_ of its",
    ("sample", "ckpt=RUN", "num_samples=many"): "num_samples must be a whole number, got 'many'",
    ("sample", "ckpt=RUN", "out=null"): "out must be text, got null",
    ("evaluate", "ckpt=RUN", "out=null"): "out must be text, got null",
    ("export", "ckpt=RUN", "out=null"): "out must be text, got null",
    # what is not KEY=VALUE
    ("sample",): "ckpt= is not given: sample needs ckpt=VALUE, a run's folder, or a checkpoint file",
    ("sample", "RUN"): "RUN is not KEY=VALUE: if it is a path, type ckpt=RUN",
    ("sample", "OTHER_RUN"): "OTHER_RUN is not KEY=VALUE: if it is a path, type ckpt=OTHER_RUN",
    ("sample", "C:\\runs\\last.ckpt"): "type 'ckpt=C:\\runs\\last.ckpt'",
    ("sample", "ckpt"): "ckpt needs a value: ckpt=VALUE",
    ("sample", "ckpt", "RUN"): "KEY=VALUE is one word: ckpt=RUN",
    ("sample", "ckpt:RUN"): "ckpt:RUN is not KEY=VALUE: ckpt=RUN",
    ("train", "schedule", "cosine"): "KEY=VALUE is one word: schedule=cosine",
    ("train", "seed", "=", "3"): "seed needs a value",
    ("train", "seed=", "3"): "KEY=VALUE is one word, without spaces: seed=3",
    ("train", "cosine"): "cosine is not KEY=VALUE: schedule=cosine",
    ("train", "schedule.cosine"): "schedule.cosine is not KEY=VALUE: schedule=cosine",
    ("train", "sample"): "sample is a command of its own: python -m diffusion_lit.sample",
    ("train", "help"): "python -m diffusion_lit.train --help",
    ("train", "seed==3"): "seed==3 has one = too many: seed=3",
    ("train", "--learning_rate", "1e-4"): "settings have no dashes, type optimizer.lr=1e-4",
    ("train", "--lr=1e-4"): "settings have no dashes, type optimizer.lr=1e-4",
    ("train", "--batch-size", "8"): "type data.batch_size=8",
    ("train", "--gpus", "4"): "type trainer.devices=4",
    ("train", "-n", "4"): "-n is not an option, and settings are KEY=VALUE, without dashes",
    ("train", "--config", "mine.yaml"): "--config-dir FOLDER experiment=NAME",
    (
        "train",
        "logger=[csv,",
        "tensorboard]",
    ): "a list is one word, without spaces or within quotes: 'logger=[csv,tensorboard]'",
    ("sample", "ckpt=RUN", "labels=[3,1"): "labels=[3,1: a [ is not closed with ]",
    ("sample", "ckpt=RUN", "labels=3]"): "a ] closes what nothing opened",
    ("sample", "ckpt=RUN", "labels='cat"): "a quote ' is not closed",
    ("train", "model.channel_multipliers=(1,2)"): "a list has square brackets: 'model.channel_multipliers=[1,2]'",
    ("train", "CUDA_VISIBLE_DEVICES=0"): "a variable of the environment comes first: CUDA_VISIBLE_DEVICES=0 python -m",
    ("train", "optimizer lr=1"): "'optimizer lr' is not the name of a setting: did you mean optimizer.lr?",
    ("train", "größe=3"): "'größe' is not the name of a setting",
    ("train", "logger=wandb", "logger.wandb.project=it's"): "if the value is text, type",
}


@pytest.mark.parametrize("typed", SLIPS, ids=" ".join)
def test_a_slip_is_answered_with_what_to_type(typed: tuple[str, ...], here: None) -> None:
    assert SLIPS[typed] in answer(*typed)


FINE = [
    ("train",),
    ("train", "experiment=ddpm_cifar10"),
    ("train", "trainer.max_steps=null", "trainer.max_epochs=3", "~callback.fid", "model.num_classes=null"),
    ("train", "+optimizer.amsgrad=true", "optimizer.lr=1", "+trainer.fast_dev_run=true", "guidance=2"),
    ("train", "-m", "schedule=linear,cosine", "seed=choice(1,2)"),
    ("train", "logger=wandb", "+logger.wandb.entity=me", "logger.wandb.tags=[a,b]"),
    ("train", "+metrics@callback.fid=[kid]", "callback.fid.kid.subset_size=10"),
    ("train", "--config-dir", "RUN", "--cfg", "job"),
    ("train", "+model.mine=1", "model._target_=my_package.Mine", "optimizer._target_=my_package.Sign"),
    ("train", "data=memmap", "data.root=a [folder"),
    ("train", "data=stream", "+data.storage_options.endpoint_url=http://x"),
    ("sample", "ckpt=RUN", "labels=[cat,3]", "guidance_interval=[0.2,5]", "format=[grid,npz]", "indices=[1]"),
    ("evaluate", "ckpt=RUN", "steps=[5,10]", "seed=[0,1]", "guidance=[1,2]", "metrics=[fid,kid]"),
    ("prepare", "source=RUN", "out=x", "resolution=8", "hydra.verbose=true"),
    ("inspect", "--info", "defaults"),
]


@pytest.mark.parametrize("typed", FINE, ids=" ".join)
def test_what_is_right_is_not_refused(typed: tuple[str, ...], here: None) -> None:
    command, *arguments = typed
    refuse_slips(command, arguments)
    assert (
        answer(
            command,
            *(a for a in arguments if a not in ("-m", "--config-dir", "RUN", "--cfg", "job", "--info", "defaults")),
        )
        == ""
        or "-m" in typed
    )


def test_a_failed_start_leaves_nothing_behind(tmp_path: Path) -> None:
    for arguments in (["seed=x"], ["schedule=cosin"], ["schedule.beta_max=2"]):
        done = run_forked("train", *arguments, "feature=pixels", cwd=tmp_path)
        assert done.returncode == 1 and done.stderr.startswith("\nerror: ") and "Traceback" not in done.stderr
        assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    for name, setting, remedy in (("train", "output_root=file", "hydra.run.dir=FOLDER"), ("plot", "out=file", "out=F")):
        done = run_forked(name, setting, cwd=tmp_path)
        assert done.returncode == 1 and "Traceback" not in done.stderr and remedy in done.stderr
        assert "file" in done.stderr and "cannot be made (" in done.stderr
