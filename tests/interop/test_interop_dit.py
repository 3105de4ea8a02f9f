"""The public DiT and diffusers', against what their own code gives for the same weights."""

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiTTransformer2DModel
from hydra.utils import instantiate
from torch import Tensor

from diffusion_lit.condition import NO_CLASS, Condition
from diffusion_lit.denoiser import Denoiser
from diffusion_lit.interop import diffusers_dit, dit, dit_weights
from diffusion_lit.model import DiT
from diffusion_lit.position import sin_cos_positions
from tests.networks import randomise

FIXTURE = json.loads((Path(__file__).parents[1] / "fixtures" / "dit.json").read_text())
"""What the public code gave; its field `made` says how."""
CASES: list[dict[str, Any]] = FIXTURE["cases"]

Settings = dict[str, Any]


def public_settings(config: dict[str, Any]) -> Settings:
    """The settings of a network whose size none of their models has."""
    names = {"input_size": "resolution", "in_channels": "image_channels", "hidden_size": "channels"}
    names |= {"learn_sigma": "learn_variance"}
    return dit_weights.SETTINGS | {names.get(name, name): value for name, value in config.items()}


def public_state(case: dict[str, Any]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {name: shape for name, shape in sorted(case["shapes"].items()) if name != "pos_embed"}
    state = {name: 0.1 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    _, patches, channels = case["shapes"]["pos_embed"]
    return state | {"pos_embed": sin_cos_positions(side := round(patches**0.5), side, channels)[None]}


def loaded(settings: Settings, weights: dict[str, Tensor]) -> DiT:
    network = instantiate(settings)
    network.load_state_dict(weights)
    return network.eval()


def picked(values: Tensor) -> Tensor:
    return values.detach().flatten()[torch.linspace(0, values.numel() - 1, 40).long()]


def close(values: Tensor, expected: list[float], scale: float = 1.0) -> None:
    torch.testing.assert_close(picked(values), torch.tensor(expected), rtol=0, atol=1e-5 * scale)


@pytest.fixture(scope="module")
def networks() -> list[DiT]:
    settings = [public_settings(case["config"]) for case in CASES]
    return [loaded(s, dit.weights_from(public_state(case), s)) for s, case in zip(settings, CASES, strict=True)]


def inputs(case: dict[str, Any]) -> tuple[Tensor, Tensor, Condition]:
    config = case["config"]
    x = torch.randn(3, config["in_channels"], 8, 8, generator=torch.Generator().manual_seed(1))
    label = torch.tensor(case["labels"])
    return x, torch.tensor(case["steps"]), Condition(label.masked_fill(label == config["num_classes"], NO_CLASS))


@pytest.mark.parametrize("case", [0, 1])
def test_the_public_code_gives_the_same_output(case: int, networks: list[DiT]) -> None:
    x, steps, condition = inputs(CASES[case])
    close(public_state(CASES[case])["pos_embed"], CASES[case]["positions"])
    close(networks[case](x, steps.float(), condition), CASES[case]["output"])


def test_the_public_code_takes_the_same_reverse_steps(networks: list[DiT]) -> None:
    """Means, learned variances and clean images of p(x_{t-1} | x_t), of steps 1, 501 and 1000."""
    settings, case = dit.process_settings({}), CASES[0]
    schedule = instantiate(settings["schedule"])
    np.testing.assert_allclose(schedule.betas[[0, 1, 500, 999]], case["betas"], rtol=1e-12)
    denoiser = Denoiser(networks[0], schedule, instantiate(settings["parameterization"]))
    x_t, steps, condition = inputs(case)
    t, s = ((steps.double() + i).view(-1, 1, 1, 1) / 1000 for i in (1, 0))
    p = denoiser(x_t, t.float(), condition)
    close(p.x_0, case["process"]["pred_xstart"], scale=max(map(abs, case["process"]["pred_xstart"])))
    close(p.log_variance(s.float(), "learned"), case["process"]["log_variance"])
    close(schedule.posterior(p.x_0, x_t, s.float(), t.float())[0], case["process"]["mean"])


def test_settings_that_are_left_out_are_the_network_s_defaults() -> None:
    defaults = {name: p.default for name, p in inspect.signature(DiT.__init__).parameters.items()}
    assert {name: defaults[name] for name in dit_weights.SETTINGS if name != "_target_"} == {
        name: value for name, value in dit_weights.SETTINGS.items() if name != "_target_"
    }
    assert set(defaults) - {"self", "resolution", "image_channels"} == set(dit_weights.SETTINGS) - {"_target_"}


def test_flags_say_the_network() -> None:
    given = dit.network_settings({"model": "DiT-B/4", "image-size": "512", "--num-classes": "10", "seed": "1"})
    assert (given["channels"], given["patch_size"], given["resolution"], given["num_classes"]) == (768, 4, 64, 10)
    assert dit.network_settings({})["channels"] == 1152 and dit.network_settings({})["resolution"] == 32
    for size, *expected in (("S", 384, 12, 6), ("B", 768, 12, 12), ("L", 1024, 24, 16), ("XL", 1152, 28, 16)):
        given = dit.network_settings({"model": f"DiT-{size}/8"})  # table 1 of the paper
        assert [given[name] for name in ("channels", "depth", "num_heads", "patch_size")] == [*expected, 8]


@pytest.mark.parametrize(
    "flags, words",
    [
        ({"model": "SiT-XL/2"}, ["SiT-XL/2", "DiT-XL/2"]),
        ({"image_size": 100}, ["100", "multiple of 8"]),
        ({"num_classes": "ten"}, ["num_classes", "'ten'"]),
        ({"patch_size": 2}, ["patch_size", "image_size"]),
    ],
)
def test_other_flags_are_refused_by_name(flags: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ValueError) as error:
        dit.network_settings(flags)
    assert all(word in str(error.value) for word in words)


def test_other_weights_than_the_public_ones_are_refused_by_name() -> None:
    settings, state = public_settings(CASES[0]["config"]), public_state(CASES[0])
    positions = state["pos_embed"]
    drifted = dit.weights_from(state | {"pos_embed": positions + 1e-5}, settings)  # as their average does
    assert drifted.keys() == dit.weights_from({k: v for k, v in state.items() if k != "pos_embed"}, settings).keys()
    for changed, words in (
        ({"settings": {"depth": 3}}, "13 are missing, such as blocks.2|10 are missing, such as blocks.2"),
        ({"settings": {"depth": 1}}, "not among them, such as blocks.1"),
        ({"state": {"pos_embed": positions + 0.01}}, "learned positions"),
        ({"state": {"pos_embed": positions * 1.01}}, "learned positions"),
        ({"state": {"pos_embed": positions[:, :4]}}, r"\(1, 4, 32\), and \(1, 16, 32\)"),
        ({"settings": {"num_classes": 8}}, "8 rows, and num_classes=8 needs 9"),
    ):
        with pytest.raises(ValueError, match=words):
            dit.weights_from(state | changed.get("state", {}), settings | changed.get("settings", {}))


SMALL = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2, "sample_size": 8, "num_embeds_ada_norm": 5}


@pytest.mark.parametrize(
    "options",
    [
        {"out_channels": 8},
        {"patch_size": 4, "norm_eps": 1e-6, "in_channels": 3, "num_attention_heads": 4, "attention_head_dim": 4},
    ],
)
def test_diffusers_gives_the_same_output_and_gets_its_network_back(options: dict[str, Any]) -> None:
    theirs = DiTTransformer2DModel(**SMALL | options).eval()
    randomise(theirs)
    state = theirs.state_dict()
    share = {name: state[name.replace("blocks.1.", "blocks.0.")] for name in state if ".emb." in name}
    theirs.load_state_dict(state | share)
    state = theirs.state_dict()

    settings = diffusers_dit.network_settings(theirs.config)
    ours = loaded(settings, diffusers_dit.weights_from(state, settings))
    x = torch.randn(3, theirs.config.in_channels, 8, 8, generator=torch.Generator().manual_seed(1))
    steps, label = torch.tensor([0, 501, 999]), torch.tensor([0, 4, 5])
    expected = theirs(x, steps, label).sample
    given = ours(x, steps.float(), Condition(label.masked_fill(label == 5, NO_CLASS)))
    torch.testing.assert_close(given, expected, rtol=0, atol=1e-5)
    assert expected.std() > 0.1

    config = diffusers_dit.config_from(settings)
    again = DiTTransformer2DModel.from_config(config).config
    assert {name: again[name] for name in theirs.config if name != "out_channels" and name[0] != "_"} == {
        name: value for name, value in theirs.config.items() if name != "out_channels" and name[0] != "_"
    }
    assert again["out_channels"] == expected.shape[1]
    assert diffusers_dit.network_settings(json.loads(json.dumps(config))) == settings
    back = diffusers_dit.weights_to(ours.state_dict(), settings)
    assert back.keys() == state.keys() and all(torch.equal(back[name], weight) for name, weight in state.items())
    assert len({weight.data_ptr() for weight in back.values()}) == len(back)  # safetensors takes no shared memory
    once_more = diffusers_dit.weights_from(back, settings)
    assert all(torch.equal(once_more[name], weight) for name, weight in ours.state_dict().items())


def test_the_published_file_of_diffusers_is_dit_xl() -> None:
    """config.json of facebook/DiT-XL-2-256, which still goes by the name of Transformer2DModel."""
    config = {
        "_class_name": "Transformer2DModel", "_diffusers_version": "0.12.0.dev0", "activation_fn": "gelu-approximate",
        "attention_bias": True, "attention_head_dim": 72, "cross_attention_dim": None, "dropout": 0.0, "in_channels": 4,
        "norm_elementwise_affine": False, "norm_num_groups": 32, "norm_type": "ada_norm_zero", "num_layers": 28,
        "num_embeds_ada_norm": 1000, "num_attention_heads": 16, "num_vector_embeds": None, "out_channels": 8,
        "only_cross_attention": False, "patch_size": 2, "sample_size": 32, "upcast_attention": False,
        "use_linear_projection": False,
    }  # fmt: skip
    expected = dit.network_settings({}) | {"frequency_shift": 1.0, "mlp_norm_eps": 1e-5}
    assert diffusers_dit.network_settings(config) == expected


@pytest.mark.parametrize(
    "options, words",
    [
        ({"_class_name": "UNet2DModel"}, "UNet2DModel, not DiTTransformer2DModel"),
        ({"dropout": 0.1}, "dropout=0.1"),
        ({"activation_fn": "geglu"}, "activation_fn='geglu'"),
        ({"attention_bias": False}, "attention_bias=False"),
        ({"norm_elementwise_affine": True}, "norm_elementwise_affine=True"),
        ({"norm_type": "ada_norm_single"}, "norm_type='ada_norm_single'"),
        ({"out_channels": 5}, "out_channels=5"),
        ({"num_embeds_ada_norm": None}, "num_embeds_ada_norm .* None"),
        ({"num_layers": "many"}, "num_layers .* 'many'"),
        ({"caption_channels": 4096}, "caption_channels=4096"),
        ({"qk_norm": True}, "qk_norm=True is not an option"),
    ],
)
def test_configurations_of_diffusers_that_ours_cannot_express(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        diffusers_dit.network_settings(SMALL | options)


OURS = dit_weights.SETTINGS | {"resolution": 8, "image_channels": 4, "num_classes": 5, "frequency_shift": 1.0}


@pytest.mark.parametrize(
    "options, words",
    [
        ({"frequency_shift": 0.0}, r"frequency_shift=0.0 .* model.frequency_shift=1.0"),
        ({"mlp_ratio": 2.0}, "mlp_ratio=2.0"),
        ({"augmentation_dim": 9}, "augmentation_dim=9"),
        ({"num_classes": None}, "num_classes=null"),
        ({"resolution": [8, 16]}, r"resolution=\[8, 16\]"),
    ],
)
def test_settings_of_ours_that_diffusers_cannot_express(options: dict[str, Any], words: str) -> None:
    diffusers_dit.config_from(OURS)
    with pytest.raises(ValueError, match=words):
        diffusers_dit.config_from(OURS | options)
    with pytest.raises(ValueError, match=words):
        diffusers_dit.weights_to({}, OURS | options)


def test_other_weights_than_those_of_diffusers_are_refused_by_name() -> None:
    """Both ways; positions, which older files have, must be the fixed ones."""
    settings = diffusers_dit.network_settings(SMALL)
    ours = instantiate(settings).state_dict()
    theirs = diffusers_dit.weights_to(ours, settings)
    for convert, state, name in (
        (diffusers_dit.weights_from, theirs, "proj_out_2.bias"),
        (diffusers_dit.weights_to, ours, "last.linear.bias"),
    ):
        with pytest.raises(ValueError, match=f"1 are missing, such as {name}$"):
            convert({key: weight for key, weight in state.items() if key != name}, settings)
        with pytest.raises(ValueError, match=r"1 are not among them, such as more$"):
            convert({**state, "more": torch.zeros(1)}, settings)
    positions = sin_cos_positions(4, 4, 16)[None]
    taken = diffusers_dit.weights_from({**theirs, "pos_embed.pos_embed": positions}, settings)
    assert taken.keys() == ours.keys() and all(torch.equal(taken[name], weight) for name, weight in ours.items())
    with pytest.raises(ValueError, match=r"pos_embed\.pos_embed is not the fixed sines and cosines"):
        diffusers_dit.weights_from({**theirs, "pos_embed.pos_embed": positions + 0.01}, settings)


def test_blocks_with_embeddings_of_their_own_cannot_be_expressed() -> None:
    theirs = DiTTransformer2DModel(**SMALL)
    with pytest.raises(ValueError, match=r"blocks.1.norm1.emb.* differs from .*blocks.0.norm1.emb"):
        diffusers_dit.weights_from(theirs.state_dict(), diffusers_dit.network_settings(theirs.config))
