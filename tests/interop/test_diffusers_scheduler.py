"""diffusers' schedulers and ours: the same betas, the same processes, and no option that is ignored."""

import inspect
import json
from typing import Any

import pytest
import torch
from hydra.utils import instantiate

from diffusion_lit.interop.diffusers_sampler import sampler_overrides, sampling_config
from diffusion_lit.interop.diffusers_scheduler import OUR_COSINE, config_from, process_settings
from diffusion_lit.schedule import CosineSchedule
from tests.analytic import build

diffusers = pytest.importorskip("diffusers")
CHAINS = ("DDPMScheduler", "DDIMScheduler", "DPMSolverMultistepScheduler", "EulerDiscreteScheduler")
BETAS = {
    "linear": {"beta_schedule": "linear"},
    "linear, 400": {"beta_schedule": "linear", "beta_start": 1e-3, "beta_end": 0.05, "num_train_timesteps": 400},
    "scaled_linear": {"beta_schedule": "scaled_linear"},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "cosine, 4000": {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 4000},
    "sigmoid": {"beta_schedule": "sigmoid", "beta_end": 0.03},
    "trained": {"trained_betas": [0.1, 0.3, 0.7, 0.98, 0.99], "num_train_timesteps": 5},
}


def written(scheduler: Any) -> dict[str, Any]:
    """scheduler_config.json."""
    found: dict[str, Any] = json.loads(scheduler.to_json_string())
    return found


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind in CHAINS for name in BETAS if name != "sigmoid" or kind == "DDPMScheduler"],
)
def test_the_betas_are_diffusers(kind: str, name: str) -> None:
    theirs = getattr(diffusers, kind)(**BETAS[name])
    ours = instantiate(process_settings(written(theirs), "x")["schedule"])
    torch.testing.assert_close(ours.betas.float(), theirs.betas, rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", BETAS)
def test_the_end_is_made_noise_alike(name: str) -> None:
    given = {**BETAS[name], "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    theirs = diffusers.DDPMScheduler(**BETAS[name])
    found = process_settings(written(diffusers.DDPMScheduler(**given)), "x")
    rescale = diffusers.schedulers.scheduling_ddim.rescale_zero_terminal_snr
    ours = instantiate(found["schedule"]).betas
    plain = instantiate({**found["schedule"], "zero_terminal_snr": False}).betas
    torch.testing.assert_close(ours, rescale(plain), rtol=0, atol=1e-7)
    assert float(ours[-1]) == 1 and theirs.betas[-1] < 1


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_a_prediction_means_the_same(prediction: str) -> None:
    """x_0 and a step of DDIM from the same output, at some times."""
    theirs = diffusers.DDIMScheduler(prediction_type=prediction, clip_sample=False)
    theirs.set_timesteps(1000)
    found = process_settings(written(theirs), "x")
    schedule, parameterization = instantiate(found["schedule"]), instantiate(found["parameterization"])
    generator = torch.Generator().manual_seed(0)
    x_t, output = (torch.randn(2, 3, 4, 4, generator=generator) for _ in range(2))
    for step in (1, 300, 1000):
        t = torch.full((2, 1, 1, 1), step / 1000)
        assert schedule.c_noise(t).flatten().tolist() == [step - 1, step - 1]
        c_skip, c_out, c_in = parameterization(schedule.alpha(t), schedule.sigma(t))
        x_0 = c_skip * x_t + c_out * output
        assert torch.allclose(c_in, torch.ones(1))
        expected = theirs.step(output, step - 1, x_t).pred_original_sample
        torch.testing.assert_close(x_0, expected, rtol=1e-4, atol=1e-4)


def test_files_of_before_prediction_type_say_what_is_predicted() -> None:
    for value, ours in ((True, "Eps"), (False, "X0")):
        found = process_settings({"_class_name": "DDPMScheduler", "predict_epsilon": value}, "x")
        assert found["parameterization"]["_target_"] == f"diffusion_lit.parameterization.{ours}Parameterization"


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_is_the_same_process(shift: float) -> None:
    theirs = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    found = process_settings(written(theirs), "x")
    schedule, parameterization = instantiate(found["schedule"]), instantiate(found["parameterization"])
    t = torch.linspace(1, 1e-3, 1000, dtype=torch.float64)  # where theirs lie before the shift
    torch.testing.assert_close(schedule.sigma(t).float(), theirs.sigmas[:1000], rtol=0, atol=1e-6)
    torch.testing.assert_close(schedule.c_noise(t).float(), theirs.timesteps, rtol=0, atol=1e-3)
    one = torch.full((1, 1, 1, 1), 0.25)
    x_t, output = torch.randn(1, 3, 4, 4), torch.randn(1, 3, 4, 4)
    c_skip, c_out, _ = parameterization(schedule.alpha(one), schedule.sigma(one))
    torch.testing.assert_close(c_skip * x_t + c_out * output, x_t - schedule.sigma(one) * output)
    config = config_from(found["schedule"], found["parameterization"], None)
    assert config["shift"] == shift and process_settings(config, "x") == found
    bare = process_settings({"_class_name": config["_class_name"]}, "x")
    assert bare["schedule"]["shift"] == diffusers.FlowMatchEulerDiscreteScheduler().config.shift == 1
    unsaid = {"_target_": bare["schedule"]["_target_"]}
    assert config_from(unsaid, found["parameterization"], None)["shift"] == 1
    assert torch.equal(instantiate(unsaid).sigma(t), instantiate(bare["schedule"]).sigma(t))


REFUSED = {
    "_class_name": "VQDiffusionScheduler",
    "prediction_type": "flow_prediction",
    "beta_schedule": "laplace",
    "use_flow_sigmas": True,
    "timestep_type": "continuous",
    "shift_terminal": 0.1,
    "a_new_option": 1,
    "num_train_timesteps": "1000",
    "trained_betas": [0.1, "x"],
}


@pytest.mark.parametrize("key", REFUSED)
def test_what_has_no_equal_is_refused_by_name(key: str) -> None:
    config = written(diffusers.DDPMScheduler()) | {key: REFUSED[key]}
    with pytest.raises(ValueError, match=f"x.*{'VQDiffusion' if key == '_class_name' else key}"):
        process_settings(config, "x")


def test_betas_of_another_chain_are_refused() -> None:
    config = {"_class_name": "DDPMScheduler", "trained_betas": [0.1, 0.2]}
    for count in ({}, {"num_train_timesteps": 3}):
        with pytest.raises(ValueError, match=r"x: num_train_timesteps is \d+, and trained_betas has 2 of them"):
            process_settings(config | count, "x")


@pytest.mark.parametrize("name", ["linear", "scaled_linear", "cosine", "quadratic", "sigmoid", "sqrt"])
@pytest.mark.parametrize("changed", [{}, {"shift": 2.0}, {"zero_terminal_snr": True}])
def test_a_chain_of_ours_goes_out_and_comes_back(name: str, changed: dict[str, Any]) -> None:
    ours = build("schedule", name, **changed)
    plain = build("schedule", name, **{**changed, "zero_terminal_snr": False})
    settings = {"_target_": f"{type(ours).__module__}.{type(ours).__name__}", **changed}
    parameterization = {"_target_": "diffusion_lit.parameterization.VParameterization"}
    config = config_from(settings, parameterization, plain.betas.tolist())
    theirs = diffusers.DDPMScheduler.from_config(config)
    torch.testing.assert_close(theirs.betas.double(), ours.betas, rtol=0, atol=1e-7 if not changed else 1e-5)
    again = process_settings(written(theirs), "x")
    assert torch.equal(instantiate(again["schedule"]).betas, ours.betas)
    assert again["parameterization"] == parameterization
    assert ("trained_betas" in config) == (bool(changed.get("shift")) or name not in ("linear", "scaled_linear"))


def test_improved_ddpm_s_cosine_has_a_name() -> None:
    settings = {"_target_": "diffusion_lit.schedule.CosineSchedule", "clip_min": 1e-9, "clip_max": 0.999}
    betas = instantiate(settings).betas.tolist()
    config = config_from(settings, {"_target_": "diffusion_lit.parameterization.EpsParameterization"}, betas)
    assert config["beta_schedule"] == "squaredcos_cap_v2" and "trained_betas" not in config
    defaults = inspect.signature(CosineSchedule.__init__).parameters
    assert {name: defaults[name].default for name in OUR_COSINE} == OUR_COSINE


@pytest.mark.parametrize(
    ("schedule", "parameterization"),
    [
        ("VPSchedule", "EpsParameterization"),
        ("EDMSchedule", "EDMParameterization"),
        ("FlowSchedule", "VParameterization"),
    ],
)
def test_what_diffusers_lacks_is_refused(schedule: str, parameterization: str) -> None:
    settings = (f"diffusion_lit.schedule.{schedule}", f"diffusion_lit.parameterization.{parameterization}")
    with pytest.raises(ValueError, match=f"diffusers cannot express .*({schedule}|{parameterization})"):
        config_from(*({"_target_": target} for target in settings), None)


def test_how_diffusers_samples() -> None:
    """The last of an older file, and each kind."""
    old = {"_class_name": "DDPMScheduler", "timestep_values": None, "variance_type": "fixed_large", "clip_sample": True}
    assert process_settings(old, "x")["schedule"]["beta_max"] == 0.02
    assert sampler_overrides(old) == [
        *("sampler=ddpm", "sampler.variance=large", "sampler.clip=1", "sampler.spacing=leading")
    ]
    ours = sampling_config("learned", None) | {"_class_name": "DDPMScheduler"}
    assert sampler_overrides(ours) == [
        *("sampler=ddpm", "sampler.variance=learned", "sampler.clip=null", "sampler.spacing=trailing")
    ]
    solver = written(diffusers.EulerDiscreteScheduler(use_karras_sigmas=True))
    assert sampler_overrides(solver) == ["sampler=euler", "sampler.clip=null", "sampler.spacing=karras"]
    ours = sampling_config("small", 0.8) | {"_class_name": "DDPMScheduler"}
    assert sampler_overrides(ours) == [
        *("sampler=ddpm", "sampler.variance=small", "sampler.clip=0.8", "sampler.spacing=trailing")
    ]
    for changed in ({"steps_offset": 1}, {"set_alpha_to_one": False}):
        with pytest.raises(ValueError, match=next(iter(changed))):
            sampler_overrides(written(diffusers.DDIMScheduler(**changed)))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("DDPMScheduler", "sampler=ddpm sampler.variance=small sampler.clip=1 sampler.spacing=leading"),
        ("DDIMScheduler", "sampler=ddim sampler.clip=1 sampler.spacing=leading"),
        ("DPMSolverMultistepScheduler", "timestep_spacing is linspace"),
        ("EulerDiscreteScheduler", "timestep_spacing is linspace"),
    ],
)
def test_what_a_file_does_not_say_is_diffusers_default(name: str, expected: str) -> None:
    """Of how it draws, or why nothing here draws so, and of what the model is."""
    whole, bare = written(getattr(diffusers, name)()), {"_class_name": name}
    for config in (whole, bare):
        try:
            assert sampler_overrides(config) == expected.split()
        except ValueError as error:
            assert str(error) == expected
    assert process_settings(whole, "x") == process_settings(bare, "x")


@pytest.mark.parametrize(
    ("name", "changed", "expected"),
    [
        ("DDIMScheduler", {"clip_sample_range": 2.5, "timestep_spacing": "trailing"}, "clip=2.5 spacing=trailing"),
        ("DDIMScheduler", {"clip_sample": False}, "clip=null spacing=leading"),
        ("DDIMScheduler", {"thresholding": True, "clip_sample_range": 2.5}, "clip=1 spacing=leading"),
        (
            "DPMSolverMultistepScheduler",
            {"thresholding": True, "timestep_spacing": "trailing"},
            "clip=1 spacing=trailing",
        ),
    ],
)
def test_where_diffusers_clips_and_steps(name: str, changed: dict[str, Any], expected: str) -> None:
    found = sampler_overrides(written(getattr(diffusers, name)(**changed)))
    assert found[1:] == [f"sampler.{option}" for option in expected.split()]


@pytest.mark.parametrize(
    "changed",
    [
        *({"solver_order": 3}, {"algorithm_type": "sde-dpmsolver++"}, {"solver_type": "heun"}),
        *({"final_sigmas_type": "sigma_min"}, {"lambda_min_clipped": -5.1}, {"use_exponential_sigmas": True}),
        *({"use_karras_sigmas": True}, {"rescale_betas_zero_snr": True}, {"timestep_spacing": "leading"}),
        *({"use_beta_sigmas": True}, {"use_lu_lambdas": True}, {"timestep_spacing": "middle"}),
        {"sample_max_value": 2.0, "thresholding": True},
    ],
)
def test_how_no_sampler_of_ours_draws_is_named(changed: dict[str, Any]) -> None:
    config = written(diffusers.DPMSolverMultistepScheduler(timestep_spacing="trailing"))
    with pytest.raises(ValueError, match=f"{next(iter(changed))}.* {next(iter(changed.values()))}"):
        sampler_overrides(config | changed)
