"""What is typed after `key=` names the file of that name, and a printed command can be pasted."""

import re
import shlex
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from lightning.fabric.strategies.launchers.subprocess_script import _hydra_subprocess_cmd
from omegaconf import DictConfig, OmegaConf

from diffusion_lit.command_line.command import CONFIG_FOLDER, command
from diffusion_lit.command_line.output import outlive_readers
from diffusion_lit.command_line.shell import PARSER, PATHS, command_line, read_arguments
from tests.launch import read_by_bash, run_forked

# fmt: off
NAMES = [
    "2024_02", "007", "1e3", "true", "données", "写真", "it's", '"', "'x'", "'tis", "a&b", "a b", " a ", "a=b", "a,b",
    "[a]", "[2024] a", "(x)", "choice(a,b)", "a{b}", "a\\", "a\\'b", "my\\ photos", "$x", "#1", "a;b|c", "a\nb", "~",
    "~x", "-m", "@:+*?",
]
# fmt: on
"""Of folders, most of which Hydra's own syntax reads as something else."""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def composed(name: str, *arguments: str) -> DictConfig:
    """The configuration of a command that was typed with these arguments, after a journey through a file."""
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        cfg = compose(name, read_arguments(arguments))
    config = OmegaConf.create(OmegaConf.to_yaml(cfg))
    assert isinstance(config, DictConfig)
    return config


def read(names: list[str], *mode: str) -> list[str]:
    """What paths are that were typed as `names`, all in one configuration."""
    typed = [f"+typed.k{i}.root={name}" for i, name in enumerate(names)]
    arguments = read_arguments([*mode, *typed])
    assert read_arguments(arguments) == arguments, "a process that is started again reads the same"
    config = composed("inspect", *arguments[len(mode) :])
    return [config.typed[f"k{i}"].root for i in range(len(names))]


@pytest.mark.parametrize("mode", [[], ["-m"]], ids=["run", "multirun"])
def test_a_path_is_the_text_that_was_typed(mode: list[str], here: Path) -> None:
    if not mode:
        new = [name for name in NAMES if name not in ("~", "'x'", "[a]")]
        assert read(new) == new
    for name in NAMES:
        Path(name).mkdir()
    assert read(NAMES, *mode) == NAMES


def test_what_is_not_there_may_be_hydras(here: Path) -> None:
    meant = {
        "null": None,
        "'null'": "null",
        '"a,b"': "a,b",
        "${seed} a": "0 a",
        "~/a b": f"{here}/home/a b",
        "[2024_01.tar, it's,'x,y',~/{0..9}.tar]": ["2024_01.tar", "it's", "x,y", f"{here}/home/{{0..9}}.tar"],
    }
    assert read(list(meant)) == list(meant.values())
    Path("null").mkdir()
    assert read(["null"]) == ["null"]
    Path("${seed}").mkdir()
    with pytest.raises(ValueError, match="rename"):
        read_arguments(["out=${seed}"])
    with pytest.raises(ValueError, match="out= is empty, as a variable of the shell is that is not set"):
        read_arguments(["out="])


def test_a_comma_in_a_sweep_separates_jobs(here: Path) -> None:
    swept = read_arguments(["-m", "data.root=2024_01,a b, it's,'x,y'", "out=choice(a,b)", "data.cache=[a,2]"])
    assert swept[1:] == ['data.root="2024_01",a b,"it\'s",\'x,y\'', "out=choice(a,b)", 'data.cache=[a,"2"]']
    Path("a,b").mkdir()
    assert read_arguments(["--multirun", "data.root=a,b"])[1] == 'data.root="a,b"'
    for mode in ("-m", "--multirun", "hydra.mode=MULTIRUN"):
        assert read_arguments([mode, "data.root=a,c"])[1] == "data.root=a,c"


def test_a_name_that_is_not_text_is_refused_and_printed_as_it_is(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"data.root='caf\\udce9' is not UTF-8.*rename it"):
        read_arguments(["data.root=caf\udce9"])
    with open(here / "out", "w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "stderr", None)
        outlive_readers()
        print("caf\udce9", flush=True)
    assert (here / "out").read_bytes() == b"caf\xe9\n"


def test_a_printed_command_can_be_pasted(here: Path) -> None:
    for name in NAMES:
        Path(name).mkdir(exist_ok=True)
    given = {f"+typed.k{i}.root": name for i, name in enumerate(NAMES)}
    dash, module, *arguments = read_by_bash(command_line("inspect", {"split": "val", **given}))
    assert (dash, module, arguments[0]) == ("-m", "diffusion_lit.inspect", "split=val")
    config = composed("inspect", *arguments)
    assert config.split == "val" and [config.typed[f"k{i}"].root for i in range(len(NAMES))] == NAMES


def test_what_cannot_be_read_is_reported_with_the_quoting(here: Path) -> None:
    for typed, value in {"logger.wandb.project=it's": "it's", "logger.wandb.project=données": "données"}.items():
        with pytest.raises(ValueError, match="if the value is text, type ") as caught:
            read_arguments([typed])
        [argument] = read_by_bash(f"python {str(caught.value).rpartition(' type ')[2]}")
        assert composed("train", "logger=[wandb]", argument).logger.wandb.project == value
    done = run_forked("inspect", "seed=it's", cwd=here)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.startswith("\nerror: seed=it's cannot be read as KEY=VALUE")
    done = run_forked("sample", cwd=here)
    assert done.returncode == 1 and "ckpt= is not given" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("mode", [[], ["-m", "seed=1,2"]], ids=["run", "multirun"])
def test_processes_that_lightning_starts_read_the_same(
    mode: list[str], here: Path, own_logging: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They get `sys.argv`, and the run's folder within marks. Jobs of a sweep write to folders of their own."""
    jobs: list[tuple[str, str, int]] = []
    started: list[str] = []
    places: list[str] = []

    @command("inspect")
    def main(cfg: DictConfig) -> None:
        if not started:
            started.extend(_hydra_subprocess_cmd(local_rank=1)[0])
        jobs.append((HydraConfig.get().runtime.output_dir, cfg.data.root, cfg.seed))
        places.append(cfg.out)

    Path("2024_02, 'x'").mkdir()
    monkeypatch.setattr(sys, "argv", ["inspect", *mode, "out=it's \"a\\", "data.root=2024_02, 'x'"])
    main()
    program = 3 if started[1] == "-m" else 2  # python -m MODULE, or python FILE, whose path may have a "=" as well
    monkeypatch.setattr(sys, "argv", ["inspect", *started[program:]])
    main()
    assert jobs[-1] == jobs[0] and len(jobs) == (3 if mode else 2)
    within = "it's \"a\\"
    assert places == ([f"{within}/0", f"{within}/1", f"{within}/0"] if mode else [within, within])
    assert jobs[0][1:] == ("2024_02, 'x'", 1 if mode else 0) and jobs[0][0].startswith(f"{here}/it's \"a\\")


PATHLIKE = re.compile(r"\b(folder|file|path|url|dir)s?\b", re.IGNORECASE)
NO_PATHS = {"cache_gigabytes", "channels", "errors", "max_unreadable", "monitor", "num_classes", "objective"}


def test_every_path_is_known_as_one() -> None:
    """Whatever is called, described or given as a path in conf/; and no group is, whose choices are Hydra's."""
    leaves = set()
    for file in CONFIG_FOLDER.rglob("*.yaml"):
        if file.parent.name == "help":
            continue
        for line in file.read_text().splitlines():
            if found := re.fullmatch(r" *(\w+): ([^#]*?)(?: # (.*))?", line):
                key, value, comment = found[1], found[2], found[3] or ""
                leaves.add(key)
                place = re.search(r"/|\$\{(run_dir|out|output_root|hydra:)", value) and "_target_" not in key
                text = re.search(r"null|[?]{3}|[a-z_]{6}", value)
                if place or PATHLIKE.search(key.replace("_", " ")) or (text and PATHLIKE.search(comment)):
                    assert key in PATHS | NO_PATHS, f"{file}: is {key} a path? Then say so in shell.PATHS"
    groups = {folder.name for folder in CONFIG_FOLDER.iterdir() if folder.is_dir()}
    assert not groups & PATHS
    assert PATHS - leaves <= {"subdir", "output_subdir", "run_dir"}, "nothing is listed that is not there"


def test_a_folder_of_a_sweep_has_a_name_that_file_systems_take(tmp_path: Path) -> None:
    for name in ('data.root="写真/it\'s"' * 30, "a\\b/c"):
        folder = OmegaConf.create({"name": name, "folder": "${folder_name:${name}}"}).folder
        (tmp_path / folder).mkdir()
        assert not set(folder) & set("'\"/\\")


def test_a_key_that_is_taken_away_has_no_value() -> None:
    assert read_by_bash(command_line("evaluate", {"~metrics.kid": None, "seed": 1}))[2:] == ["~metrics.kid", "seed=1"]


@pytest.mark.parametrize("names", [["Würfel", "Kreise"], ["it's", 3], ["été (1)", "a b", "c"], "Würfel", 7])
def test_classes_may_have_any_name(names: list[str | int] | str | int) -> None:
    """A list of names of folders, or numbers, as they are typed; of other settings the message has the right quotes."""
    value = f"[{','.join(map(str, names))}]" if isinstance(names, list) else str(names)
    [read] = read_arguments([f"labels={value}"])
    assert PARSER.parse_override(read).value() == names and read_arguments([read]) == [read]
    if read != f"labels={value}":
        with pytest.raises(ValueError, match="cannot be read as KEY=VALUE") as caught:
            read_arguments([f"logger.wandb.tags={value}"])
        [remedy] = shlex.split(str(caught.value).rpartition(" type ")[2])
        assert PARSER.parse_override(remedy).value() == names
