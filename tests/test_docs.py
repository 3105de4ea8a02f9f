"""What the documentation shows works as it stands."""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from diffusion_lit.agreement import fit_model_to_data
from diffusion_lit.sampler import DPMpp2MSampler
from diffusion_lit.schedule import Schedule
from tests.analytic import MixtureDenoiser, build
from tests.documents import blocks
from tests.launch import ROOT, config


def mixture(schedule: Schedule) -> MixtureDenoiser:
    means = torch.tensor([[0.5, -0.4, 0.1, 0.3], [-0.3, 0.2, -0.6, 0.4]]).view(2, 1, 2, 2)
    return MixtureDenoiser(schedule, means, torch.tensor([0.3, 0.4]), torch.tensor([0.6, 0.4]))


def test_the_schedule_that_extending_shows_is_complete() -> None:
    [code], [config] = blocks("docs/extending.md", "python"), blocks("docs/extending.md", "yaml")
    names: dict[str, Any] = {}
    exec(code, names)
    settings = OmegaConf.create(config)
    logit = names[str(settings.pop("_target_")).rpartition(".")[2]]
    assert set(settings) == set(inspect.signature(logit.__init__).parameters) - {"self"}
    schedule = logit(**settings)
    t = torch.linspace(0.001, 0.999, 500, dtype=torch.float64)
    assert (schedule.log_snr(t).diff() < 0).all()
    torch.testing.assert_close(schedule.time(schedule.log_snr(t)), t)
    torch.testing.assert_close(schedule.snr(t), build("schedule", "flow").snr(t))  # its claim about k = 1
    generator = torch.Generator().manual_seed(0)
    x_0 = DPMpp2MSampler(20)(mixture(schedule), lambda: torch.randn(500, 1, 2, 2, generator=generator))
    expected = torch.tensor([0.18, -0.16, -0.18, 0.34])
    assert (x_0.mean(0).flatten() - expected).abs().max() < 5 * 0.55 / 500**0.5  # 5 standard errors


def recipes() -> dict[str, str]:
    """The README's named recipes; of alternatives, the first."""
    rows = re.findall(r"^\| ([\w -]+) \| `(schedule=[^`]*)`", (ROOT / "README.md").read_text(), re.MULTILINE)
    return dict(rows)


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_of_the_readme_fits_together(name: str, tmp_path: Path) -> None:
    """It is built, and so checked, as a run is; one loss, and one step of its sampler."""
    cfg = config(tmp_path, *recipes()[name].split())
    fit_model_to_data(cfg, instantiate(cfg.data))
    module, sampler = instantiate(cfg.module), instantiate(cfg.sampler)
    sampler.check(module.denoiser)
    x_0 = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)).mul(255).round() / 127.5 - 1
    loss = module.loss(module.denoiser, x_0).loss
    assert loss.shape == (4,) and loss.isfinite().all()
    t, s = sampler.times(module.denoiser.schedule)[:2].float().view(2, 1, 1, 1, 1).expand(2, 4, 1, 1, 1)
    with torch.no_grad():
        walk = sampler.walk(module.denoiser.eval(), noise=lambda: x_0)
        x_s = sampler.step(walk, walk.schedule.sigma(t) * x_0, t, s)
    assert x_s.isfinite().all()


def test_the_readme_has_its_recipes() -> None:
    assert {"DDPM", "Improved DDPM", "VP-SDE", "EDM", "flow matching"} <= set(recipes())


@pytest.mark.parametrize("name", ["linear", "flow"])
def test_the_page_on_sampling_inverts_and_measures_images(name: str) -> None:
    code = next(block for block in blocks("docs/sampling.md", "python") if "ode_likelihood" in block)
    denoiser = mixture(build("schedule", name))
    x_0 = denoiser.sample(8, torch.Generator().manual_seed(1))
    names: dict[str, Any] = {"torch": torch, "denoiser": denoiser, "x_0": x_0, "label": None}
    torch.manual_seed(0)
    exec(code, names)
    torch.testing.assert_close(names["again"], x_0, rtol=0, atol=0.05)
    bits = -denoiser.log_density(x_0, torch.zeros(8, 1, 1, 1, dtype=torch.float64)) / 4 / 0.6931 + 6.994
    assert abs(names["likelihood"].mean - float(bits.mean())) < 4 * names["likelihood"].standard_error
    assert float(names["bound"].total.mean()) > float(bits.mean()) - 0.05


def test_no_source_file_is_longer_than_a_sitting() -> None:
    """200 lines, but for networks."""
    files = [path for path in (ROOT / "src").rglob("*.py") if path.parent.name != "model"]
    long = {path.name: count for path in files if (count := len(path.read_text().splitlines())) > 200}
    assert len(files) > 80 and not long, long
