"""`--help` and `diffusion-lit`: what there is to choose, and what each setting means."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from diffusion_lit.__main__ import main
from diffusion_lit.command_line.catalogue import COMMANDS, CONFIG_FOLDER, chosen_settings, groups_of, members, read
from diffusion_lit.command_line.described import describe
from diffusion_lit.command_line.help import answer, help_of, summary_of, topic_help

GROUPS = sorted(folder.name for folder in CONFIG_FOLDER.iterdir() if folder.is_dir() and folder.name != "hydra")


@pytest.mark.parametrize("group, name", [(group, name) for group in GROUPS for name in members(group)])
def test_every_member_has_a_line(group: str, name: str) -> None:
    assert re.fullmatch(r"[^\n]{8,150}", summary_of(group, name)), "begin the file with a comment, or its class's file"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_has_all_groups_and_settings_with_their_defaults(command: str) -> None:
    text = help_of(command)
    assert max(map(len, text.splitlines())) <= 120 and "${hydra.help" not in text
    for group, chosen in groups_of(command).items():
        listed = re.search(rf"^  {group}\n((?:  [ *] .*\n?| {{8,}}.*\n?)*)", text, re.MULTILINE)
        assert listed, group
        lines = {name: mark for mark, name in re.findall(r"^  ([ *]) (\w+)  +\S", listed[1], re.MULTILINE)}
        assert lines == {name: "*" if name in chosen else " " for name in members(group)}
    for key, setting in read(CONFIG_FOLDER / f"{command}.yaml").settings.items():
        if "." not in key:
            assert re.search(rf"^  {key}=", text, re.MULTILINE)
            assert setting.comment, f"say in conf/{command}.yaml what {key} means"


def test_a_member_is_explained_with_kinds_defaults_and_units() -> None:
    heun = topic_help("sample", "sampler=heun")
    assert heun.startswith("sampler=heun: Heun's method") and "Karras et al. 2022" in heun
    assert "sampler.num_steps=25  (a whole number or null)\n      how many steps; null takes all T" in heun
    assert "sampler.scaled=false  (true or false)" in heun and "two network calls each" in heun  # its own, the file's
    assert "S_noise, the standard deviation of the noise added" in heun  # of the class above it
    schedule = topic_help("train", "cosine")
    assert "schedule.shift=1.0  (a number)\n      divides alpha / sigma" in schedule  # as another class says
    adam = topic_help("train", "optimizer=adamw")
    assert "optimizer.lr=0.001  (a number)" in adam and "+optimizer.amsgrad=false" in adam
    assert "logger.wandb.log_model=false" in topic_help("train", "logger=wandb")
    assert "model.channels=64" in topic_help("train", "model=small")  # which starts from another file
    group = topic_help("train", "sampler")
    assert "  * ddim" in group and "sampler.eta=0.0" in group
    assert topic_help("train", "optimizer.lr") == "  optimizer.lr=0.001  (a number)"
    for wrong, words in {
        "sampler=hein": "did you mean sampler=heun",
        "optimizer.lrr": "did you mean optimizer.lr",
    }.items():
        with pytest.raises(ValueError, match=words):
            topic_help("train", wrong)


def test_settings_are_those_of_the_chosen_members() -> None:
    settings = chosen_settings("train", [("experiment", "ddpm_cifar10"), ("sampler", ["heun"])])
    assert settings["sampler.scaled"].value is False and "sampler.eta" not in settings
    assert settings["data.dataset"].value == "CIFAR10" and settings["optimizer.lr"].value == 2e-4


def test_a_class_is_described_without_being_imported() -> None:
    code = """import sys
from diffusion_lit.command_line.help import answer
assert answer("train", ["--help"]) and answer("sample", ["--help", "sampler"])
assert not {"torch", "lightning", "hydra", "omegaconf"} & set(sys.modules)"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    strategy = describe("lightning.pytorch.strategies.DDPStrategy")
    assert strategy and strategy.is_open and "process_group_backend" in strategy.arguments
    assert describe("no_such_package.Thing") is None and describe("diffusion_lit.sampler.NoSampler") is None
    assert not answer("train", ["seed=1"])


def test_the_commands_are_listed_and_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["diffusion-lit"])
    main()
    listed = capsys.readouterr().out
    assert all(
        re.search(rf"^  {name} +\S.{{20}}", listed, re.MULTILINE) for name in (*COMMANDS, "completion", "schema")
    )
    monkeypatch.setattr(sys, "argv", ["diffusion-lit", "sample", "--help"])
    main()
    assert capsys.readouterr().out == help_of("sample") + "\n"
    for typed, words in {"trian": "did you mean train", "zzz": "there are evaluate"}.items():
        monkeypatch.setattr(sys, "argv", ["diffusion-lit", typed])
        with pytest.raises(SystemExit, match=words):
            main()
