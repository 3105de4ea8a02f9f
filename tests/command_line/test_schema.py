"""The JSON Schema that editors use: it is up to date, takes every file of conf/, and refuses mistakes."""

import json
import re
from typing import Any

import jsonschema
import pytest
from omegaconf import OmegaConf

from diffusion_lit.command_line.catalogue import COMMANDS, CONFIG_FOLDER, groups_of, members, read
from diffusion_lit.command_line.schema import build, text
from tests.launch import ROOT

SCHEMA = build()
WHOLE = [f"{name}.yaml" for name in COMMANDS] + [f"experiment/{name}.yaml" for name in members("experiment")]
ELSEWHERE = ("experiment", "strategy", "sweep")
"""Groups whose members set something of another name."""
MEMBERS = [
    (group, name)
    for group in sorted({group for command in COMMANDS for group in groups_of(command)} - {*ELSEWHERE})
    for name in members(group)
]


def errors(instance: object, part: str | None = None) -> list[str]:
    schema: dict[str, Any] = SCHEMA if part is None else {"$ref": f"#/$defs/{part}", "$defs": SCHEMA["$defs"]}
    return [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(instance)]


def loaded(file: str) -> Any:
    return OmegaConf.to_container(OmegaConf.load(CONFIG_FOLDER / file))


def test_the_schema_is_up_to_date() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    shown = (ROOT / "docs" / "schema.json").read_text()
    assert json.loads(shown) == SCHEMA and shown == text(), "run: diffusion-lit schema > docs/schema.json"


@pytest.mark.parametrize("file", WHOLE)
def test_a_file_that_users_write_names_the_schema_and_fits_it(file: str) -> None:
    head = (CONFIG_FOLDER / file).read_text().removeprefix("# @package _global_\n")  # which Hydra wants first
    [place] = re.findall(r"\A# yaml-language-server: \$schema=(\S+)\n", head)
    assert (CONFIG_FOLDER / file).parent.joinpath(place).resolve() == ROOT / "docs" / "schema.json"
    assert errors(loaded(file)) == []
    assert "yaml-language-server" not in " ".join(read(CONFIG_FOLDER / file).about)


def test_every_member_fits_its_part() -> None:
    assert len(MEMBERS) > 60
    assert {member: said for member in MEMBERS if (said := errors(loaded("/".join(member) + ".yaml"), member[0]))} == {}


# fmt: off
WRONG = [
    {"optimizer": {"lr": "fast"}}, {"optimzer": {}}, {"sampler": {"num_step": 3}}, {"seed": "x"}, {"defaults": 3},
    {"callback": {"fid": {"num_samples": 1.5}}}, {"trainer": {"max_step": 1}}, {"model": {"channels": "8"}},
    {"callback": {"mine": 3}}, {"schedule": "cosine"}, {"data": {"batch_size": True}},
]
RIGHT = [
    {"model": {"_target_": "mine.Net", "width": 3}}, {"callback": {"fid": None}}, {"model": {"num_classes": None}},
    {"model": {"resolution": "auto"}}, {"optimizer": {"lr": "${lr}"}}, {"callback": {"mine": {"_target_": "mine.C"}}},
    {"trainer": {"max_steps": None, "devices": "auto"}}, {"logger": {"wandb": {"tags": ["a"], "entity": "me"}}},
]
# fmt: on


@pytest.mark.parametrize("instance", WRONG, ids=str)
def test_what_is_wrong_is_marked(instance: dict[str, Any]) -> None:
    assert errors(instance)


@pytest.mark.parametrize("instance", RIGHT, ids=str)
def test_what_is_right_is_not(instance: dict[str, Any]) -> None:
    assert errors(instance) == []
