"""What is said of how diffusers draws: our images are its images, or it is not said."""

import inspect
import json
import sys
from itertools import count, product
from typing import Any

import pytest
import torch
import yaml
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

from diffusion_lit.command_line.command import CONFIG_FOLDER
from diffusion_lit.interop.diffusers_sampler import EXPECTED, limits_of, sampler_overrides
from diffusion_lit.interop.diffusers_scheduler import process_settings
from tests.analytic import GaussianDenoiser

diffusers = pytest.importorskip("diffusers")

PROCESS = {"prediction_type": "v_prediction", "beta_schedule": "scaled_linear"}
SPACINGS = [{"timestep_spacing": spacing} for spacing in ("leading", "trailing", "linspace")]
CHANGED: dict[str, list[dict[str, Any]]] = {
    "DDIMScheduler": [{}, {"clip_sample": False}, {"clip_sample_range": 0.5}, {"rescale_betas_zero_snr": True}],
    "DDPMScheduler": [{"variance_type": variance} for variance in ("fixed_small", "fixed_small_log", "fixed_large")],
    "DPMSolverMultistepScheduler": [
        *({}, {"thresholding": True}, {"euler_at_final": True}, {"lower_order_final": False}),
        *({"rescale_betas_zero_snr": True}, {"use_karras_sigmas": True}),
        {"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1},
    ],
    "EulerDiscreteScheduler": [
        *({}, {"use_karras_sigmas": True}, {"use_karras_sigmas": True, "sigma_max": 5.0}),
        {"rescale_betas_zero_snr": True},
    ],
}
CASES = [
    (name, {**PROCESS, **spacing, **changed})
    for name, own in CHANGED.items()
    for spacing, changed in product(SPACINGS, own)
]


def drawn_by_both(scheduler: Any, num_steps: int, monkeypatch: pytest.MonkeyPatch) -> tuple[Tensor, Tensor]:
    """Ours and theirs, from the same noise; a ValueError if nothing is said of how it draws."""
    config = json.loads(scheduler.to_json_string())
    said = dict(option.split("=") for option in sampler_overrides(config))
    settings = OmegaConf.load(CONFIG_FOLDER / "sampler" / f"{(name := said.pop('sampler'))}.yaml")
    settings.merge_with({key.removeprefix("sampler."): yaml.safe_load(value) for key, value in said.items()})
    settings.num_steps = num_steps
    denoiser = GaussianDenoiser(instantiate(process_settings(config, "x")["schedule"]), 0.6, 0.5)
    generator = torch.Generator().manual_seed(0)
    draws = [torch.randn(2, 1, 4, 4, generator=generator) for _ in range(num_steps + 1)]
    sampler, own, other = instantiate(settings), count(), count(1)
    ours = sampler(denoiser, lambda: draws[next(own)])

    monkeypatch.setattr(
        sys.modules[type(scheduler).__module__], "randn_tensor", lambda *_, **__: draws[next(other)], raising=False
    )
    scheduler.set_timesteps(num_steps)
    steps = denoiser.schedule.num_timesteps
    start = scheduler.sigmas[0] if name == "euler" else denoiser.schedule.sigma(sampler.times(denoiser.schedule)[0])
    x = draws[0] * start.float()
    clipped = {"use_clipped_model_output": True} if name == "ddim" else {}
    for t in scheduler.timesteps:
        x_t = scheduler.scale_model_input(x, t)
        output = denoiser(x_t, ((t.double() + 1) / steps).view(1, 1, 1, 1)).v.float()
        x = scheduler.step(output, t, x, **clipped).prev_sample
    return ours, x


def is_said(name: str, changed: dict[str, Any]) -> bool:
    """Whether there are settings of ours with which images are a scheduler's."""
    spacing, odd = changed["timestep_spacing"], {"sigma_max", "lambda_min_clipped"} & changed.keys()
    if name in ("DPMSolverMultistepScheduler", "EulerDiscreteScheduler") and (
        "rescale_betas_zero_snr" in changed or odd
    ):
        return False
    if "use_karras_sigmas" in changed:
        return name == "EulerDiscreteScheduler" and spacing == "linspace"
    return spacing == "trailing" or (spacing == "leading" and name != "DPMSolverMultistepScheduler")


@pytest.mark.filterwarnings("ignore:.* ends far from noise")
@pytest.mark.parametrize(("name", "changed"), CASES)
def test_what_is_said_is_so(name: str, changed: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    if changed.get("variance_type") == "fixed_large":  # of which fewer steps end in noise there
        changed = {**changed, "num_train_timesteps": 20, "beta_end": 0.5}
    scheduler = getattr(diffusers, name)(**changed)
    if not is_said(name, changed):
        with pytest.raises(ValueError, match=" is "):
            drawn_by_both(scheduler, 20, monkeypatch)
        return
    ours, theirs = drawn_by_both(scheduler, 20, monkeypatch)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", EXPECTED)
def test_options_are_those_of_the_class(name: str) -> None:
    options = inspect.signature(getattr(diffusers, name).__init__).parameters
    defaults = {key: options[key].default for key in EXPECTED[name]}
    assert defaults == dict(EXPECTED[name])


def test_limits_are_known_where_the_steps_are_not() -> None:
    assert limits_of({"_class_name": "PNDMScheduler"}) == {"clip": None}
    assert limits_of({"_class_name": "DDPMScheduler", "variance_type": "learned"}) == {"clip": 1.0}
    with pytest.raises(ValueError, match="clip_sample_range must be float"):
        limits_of({"_class_name": "DDIMScheduler", "clip_sample_range": "x"})
