"""Where guidance acts, by which model, what it leaves alone, and every sampler under it."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from diffusion_lit.condition import NO_CLASS, UNCONDITIONAL, Condition
from diffusion_lit.denoiser import BaseDenoiser, Denoiser, Prediction
from diffusion_lit.guidance import GuidedDenoiser, guided
from diffusion_lit.parameterization import EpsParameterization, VParameterization
from diffusion_lit.random import ImageNoise
from diffusion_lit.sampler import DDPMSampler
from diffusion_lit.schedule import CosineSchedule, FlowSchedule, LinearSchedule, Schedule
from tests.analytic import Fake, build, members

PARAMETERIZATIONS = members("parameterization")
SAMPLERS = members("sampler")
SCHEDULES = members("schedule")
VIEWS = ("x_0", "eps", "v", "score", "output")


class Network(Fake):
    """A smooth function of everything it is given, that keeps count of what it was asked.

    Args:
        num_classes: how many; None is unconditional.
        learn_variance: whether a second half of the output is the variance.
        quality: sets one such network apart from another.
        heeds_label: whether the label changes the output.
        resolution: of the images, which have two channels.
    """

    def __init__(
        self,
        num_classes: int | None = 10,
        learn_variance: bool = False,
        quality: float = 1.0,
        heeds_label: bool = True,
        resolution: int = 3,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.learn_variance = learn_variance
        self.quality = quality
        self.heeds_label = heeds_label
        self.image_shape = (2, resolution, resolution)
        self.asked: list[tuple[int, list[int] | None]] = []

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition = UNCONDITIONAL) -> Tensor:
        self.asked.append((len(x), None if condition.label is None else condition.label.tolist()))
        about = c_noise.view(-1, 1, 1, 1) / 100
        if condition.label is not None and self.heeds_label:
            about = about + condition.label.view(-1, 1, 1, 1)
        output = self.quality * torch.sin(x + about)
        return torch.cat([output, torch.cos(3 * x + about)], 1) if self.learn_variance else output


def model(network: Network, schedule: Schedule | None = None, parameterization: str = "v") -> tuple[Network, Denoiser]:
    return network, Denoiser(
        network, schedule or build("schedule", "cosine"), build("parameterization", parameterization)
    )


def question(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Condition]:
    """Noisy images, a time for each and their classes."""
    x_t = torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = torch.tensor([0.05, 0.4, 0.7, 0.95], dtype=torch.float64).view(-1, 1, 1, 1)
    return x_t.to(dtype), t.to(dtype), Condition(torch.tensor([3, 0, 9, 3]))


def noise_levels(schedule: Schedule, t: Tensor) -> list[float]:
    """sigma / alpha of each image."""
    return (schedule.sigma(t) / schedule.alpha(t)).flatten().tolist()


def assert_same(actual: Prediction, expected: Prediction, rows: Sequence[int] = range(4)) -> None:
    """In every view of the model's answer, to rounding."""
    for name in VIEWS:
        given, wanted = (getattr(p, name)[list(rows)] for p in (actual, expected))
        torch.testing.assert_close(given, wanted, rtol=1e-12, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("name", SCHEDULES)
def test_an_interval_guides_each_image_by_its_own_noise(name: str) -> None:
    """Inside as without an interval, outside as without guidance, in one batch."""
    schedule = build("schedule", name)
    _, denoiser = model(Network(), schedule)
    x_t, t, condition = question()
    levels = noise_levels(schedule, t)
    assert levels == sorted(levels)
    interval = [(levels[0] + levels[1]) / 2, (levels[2] + levels[3]) / 2]
    actual = GuidedDenoiser(denoiser, 3.0, interval=interval)(x_t, t, condition)
    assert_same(actual, GuidedDenoiser(denoiser, 3.0)(x_t, t, condition), [1, 2])
    assert_same(actual, denoiser(x_t, t, condition), [0, 3])
    assert not torch.allclose(actual.x_0[1:3], denoiser(x_t, t, condition).x_0[1:3])


def test_an_interval_has_its_upper_end_but_not_its_lower() -> None:
    """(low, high]: an image at either, and one at t = 1 of a path without signal, where sigma / alpha is infinite."""
    schedule = FlowSchedule()
    _, denoiser = model(Network(), schedule)
    x_t, t, condition = question()
    t = torch.tensor([0.25, 0.5, 0.75, 1.0], dtype=torch.float64).view(-1, 1, 1, 1)
    levels = (-schedule.log_snr(t) / 2).exp().flatten().tolist()
    plain, guided = denoiser(x_t, t, condition), GuidedDenoiser(denoiser, 2.0)(x_t, t, condition)
    for interval, inside in (
        ([levels[0], levels[1]], [1]),
        ([levels[0], levels[2]], [1, 2]),
        ([0.0, levels[0]], [0]),
        ([levels[2], float("inf")], [3]),
        ([levels[2], 1e9], []),
        ([0.0, float("inf")], [0, 1, 2, 3]),
    ):
        actual = GuidedDenoiser(denoiser, 2.0, interval=interval)(x_t, t, condition)
        assert_same(actual, guided, inside)
        assert_same(actual, plain, [i for i in range(4) if i not in inside])


def test_the_other_model_is_only_asked_where_there_is_guidance() -> None:
    """Outside for the whole batch: one forward of half the size, with the labels; and none of a guide."""
    network, denoiser = model(Network())
    x_t, t, condition = question()
    low, high = noise_levels(denoiser.schedule, t)[1:3]
    for interval, num in (([low / 2, high * 2], 8), ([low / 2, low * 1.01], 8), ([low * 1.01, high * 0.99], 4)):
        network.asked.clear()
        GuidedDenoiser(denoiser, 2.0, interval=interval)(x_t, t, condition)
        labels = [3, 0, 9, 3] + ([NO_CLASS] * 4 if num == 8 else [])
        assert network.asked == [(num, labels)]
    worse, by = model(Network(quality=0.5))
    for interval, num in (([low / 2, high * 2], 1), ([low * 1.01, high * 0.99], 0)):
        network.asked.clear()
        worse.asked.clear()
        actual = GuidedDenoiser(denoiser, 2.0, by, interval)(x_t, t, condition)
        assert (len(network.asked), len(worse.asked)) == (1, num)
        if num == 0:
            assert torch.equal(actual.x_0, denoiser(x_t, t, condition).x_0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_interval_that_holds_everything_changes_nothing(dtype: torch.dtype) -> None:
    """To the last bit, also for a scale that float32 rounds."""
    _, denoiser = model(Network())
    x_t, t, condition = question(dtype)
    everywhere = GuidedDenoiser(denoiser, 3.3, interval=[0, float("inf")])(x_t, t, condition)
    assert everywhere.x_0.dtype == everywhere.output.dtype == dtype
    assert torch.equal(everywhere.x_0, GuidedDenoiser(denoiser, 3.3)(x_t, t, condition).x_0)


@pytest.mark.parametrize("guidance", [0.0, 0.5, 1.0, 2.5])
@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_a_guide_is_a_worse_model_of_the_same_images(parameterization: str, guidance: float) -> None:
    """worse + w (better - worse) in every view, with the label for both; a third network knows no classes."""
    x_t, t, condition = question()
    for num_classes, given in ((10, condition), (10, UNCONDITIONAL), (None, UNCONDITIONAL)):
        good, better = model(Network(num_classes), parameterization=parameterization)
        bad, worse = model(Network(num_classes, quality=0.7), parameterization=parameterization)
        actual = GuidedDenoiser(better, guidance, worse)(x_t, t, given)
        asked = (4, None if given.label is None else given.label.tolist())
        assert good.asked == bad.asked == [asked]
        p, q = better(x_t, t, given), worse(x_t, t, given)
        for name in VIEWS:
            expected = getattr(q, name) + guidance * (getattr(p, name) - getattr(q, name))
            torch.testing.assert_close(getattr(actual, name), expected, rtol=1e-9, atol=1e-9)


def test_a_guide_may_have_another_parameterization() -> None:
    """What counts is x_0: each model's output is in its own terms, and v of the guided x_0 is the guided v."""
    x_t, t, condition = question()
    _, better = model(Network(), parameterization="v")
    _, worse = model(Network(quality=0.7), parameterization="x0")
    actual = GuidedDenoiser(better, 2.0, worse)(x_t, t, condition)
    for name in ("x_0", "eps", "v", "score"):
        p, q = getattr(better(x_t, t, condition), name), getattr(worse(x_t, t, condition), name)
        torch.testing.assert_close(getattr(actual, name), q + 2 * (p - q), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("by", ["null", "guide", "guide without variance"])
def test_a_learned_variance_is_the_models_own(by: str) -> None:
    """Guidance moves the mean; the variance stays what the better model says with the label, to the last bit."""
    _, denoiser = model(Network(learn_variance=True), parameterization="eps")
    learns = by != "guide without variance"
    worse = None if by == "null" else model(Network(learn_variance=learns, quality=0.5), parameterization="eps")[1]
    x_t, t, condition = question()
    guided, plain = GuidedDenoiser(denoiser, 3.0, worse), denoiser(x_t, t, condition)
    actual = guided(x_t, t, condition)
    assert guided.learns_variance
    assert actual.variance is not None and plain.variance is not None
    assert torch.equal(actual.variance, plain.variance)
    s = t / 2
    for variance in ("small", "large", "learned"):
        assert torch.equal(actual.log_variance(s, variance), plain.log_variance(s, variance))
    assert not torch.allclose(actual.x_0, plain.x_0)
    assert actual.output.shape == x_t.shape
    noise = ImageNoise(0, range(3), (2, 3, 3))
    images = DDPMSampler(5, variance="learned", clip=1.0)(guided, noise, Condition(torch.arange(3)))
    assert images.isfinite().all()
    _, fixed = model(Network(learn_variance=False))
    assert not GuidedDenoiser(fixed, 2.0).learns_variance
    with pytest.raises(ValueError, match="variance=learned needs a network with an output for it"):
        DDPMSampler(5, variance="learned").check(GuidedDenoiser(fixed, 2.0))


def test_guidance_stands_in_for_its_model() -> None:
    network = Network(learn_variance=True)
    _, denoiser = model(network)
    guide = GuidedDenoiser(denoiser, 2.0)
    assert guide.schedule is denoiser.schedule and guide.space is denoiser.space
    assert (guide.num_classes, guide.image_shape, guide.learns_variance) == (10, (2, 3, 3), True)
    assert guided(denoiser, 1) is denoiser
    made = guided(denoiser, 2.0, model(Network())[1], [0.1, 2])
    assert isinstance(made, GuidedDenoiser)
    assert (made.guidance, made.interval, made.denoiser) == (2.0, [0.1, 2], denoiser)


@pytest.mark.parametrize("interval", [[], [1.0], [0.1, 1, 2], [2.0, 1.0], [1.0, 1.0], [-0.5, 1.0], [float("nan"), 1.0]])
def test_an_invalid_interval_is_refused(interval: list[float]) -> None:
    _, denoiser = model(Network())
    with pytest.raises(ValueError, match=r"guidance_interval must be \[low, high\] with 0 <= low < high") as error:
        GuidedDenoiser(denoiser, 2.0, interval=interval)
    assert str(interval) in str(error.value)


@pytest.mark.parametrize("guidance", [-0.1, float("nan")])
def test_an_invalid_scale_is_refused(guidance: float) -> None:
    _, denoiser = model(Network())
    for by in (None, model(Network(quality=0.5))[1]):
        with pytest.raises(ValueError, match=f"guidance must not be negative, got {guidance}"):
            GuidedDenoiser(denoiser, guidance, by)


def test_a_model_without_classes_needs_a_guide() -> None:
    _, denoiser = model(Network(None))
    with pytest.raises(ValueError, match=r"guidance=2.0 needs a class-conditional model.*give a second model as guide"):
        GuidedDenoiser(denoiser, 2.0)
    GuidedDenoiser(denoiser, 2.0, model(Network(None, quality=0.5))[1])


def test_without_a_guide_labels_are_needed() -> None:
    _, denoiser = model(Network())
    x_t, t, _ = question()
    with pytest.raises(ValueError, match="guidance pushes towards a class: give labels"):
        GuidedDenoiser(denoiser, 2.0)(x_t, t)


@pytest.mark.parametrize(
    ("network", "schedule", "named"),
    [
        (Network(5), CosineSchedule(), "number of classes"),
        (Network(None), CosineSchedule(), "number of classes"),
        (Network(resolution=4), CosineSchedule(), "image shape"),
        (Network(), LinearSchedule(), "schedule"),
        (Network(), CosineSchedule(500), "schedule"),
        (Network(), CosineSchedule(shift=2), "schedule"),
        (Network(), CosineSchedule(s=0.009), "schedule"),
        (Network(), CosineSchedule(clip_max=0.999), "schedule"),
        (Network(), CosineSchedule(zero_terminal_snr=True), "schedule"),
        (Network(5, resolution=4), LinearSchedule(), "image shape and another number of classes and another schedule"),
    ],
    ids=["classes", "no classes", "image", "linear", "T", "shift", "offset", "clip_max", "zero_terminal_snr", "all"],
)
def test_a_guide_that_speaks_of_something_else_is_refused(network: Network, schedule: Schedule, named: str) -> None:
    """And named for what differs. The two last schedules differ from the model's in the last step more than before."""
    _, denoiser = model(Network(), CosineSchedule())
    with pytest.raises(ValueError, match=f"the guide has another {named} than the model it is to guide"):
        GuidedDenoiser(denoiser, 2.0, Denoiser(network, schedule, VParameterization()))


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_guide_trained_alike_is_accepted(name: str) -> None:
    """Another object of the same settings, and another parameterization."""
    one, other = (build("schedule", name) for _ in range(2))
    by = Denoiser(Network(quality=0.5), other, VParameterization())
    network = Network()
    better = Denoiser(network, one, VParameterization() if name == "flow" else EpsParameterization())
    x_t, t, condition = question()
    assert GuidedDenoiser(better, 2.0, by)(x_t, t, condition).x_0.isfinite().all()


def sampled(sampler: str, denoiser: BaseDenoiser, condition: Condition) -> Tensor:
    """Three images by a sampler as it comes, in a few steps."""
    return build("sampler", sampler, num_steps=5)(denoiser, ImageNoise(0, range(3), (2, 3, 3)), condition)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_takes_guidance(sampler: str) -> None:
    """Of each kind: it changes the images and keeps them finite."""
    _, denoiser = model(Network())
    _, worse = model(Network(quality=0.7))
    condition = Condition(torch.tensor([1, 4, 7]))
    plain = sampled(sampler, denoiser, condition)
    high = noise_levels(denoiser.schedule, torch.tensor([0.9]))[0]
    for guide in (
        GuidedDenoiser(denoiser, 2.0),
        GuidedDenoiser(denoiser, 2.0, worse),
        GuidedDenoiser(denoiser, 2.0, interval=[0.1, high]),
    ):
        images = sampled(sampler, guide, condition)
        assert images.isfinite().all()
        assert float((images - plain).abs().mean()) > 1e-3


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_where_both_models_agree_guidance_changes_nothing(sampler: str) -> None:
    """To the last bit: a network deaf to labels, a model that guides itself, and an interval never entered."""
    _, deaf = model(Network(heeds_label=False))
    _, denoiser = model(Network())
    condition = Condition(torch.tensor([1, 4, 7]))
    plain, free = sampled(sampler, denoiser, condition), sampled(sampler, deaf, condition)
    assert torch.equal(sampled(sampler, GuidedDenoiser(deaf, 7.5), condition), free)
    assert torch.equal(sampled(sampler, GuidedDenoiser(deaf, 7.5, deaf), UNCONDITIONAL), free)
    assert torch.equal(sampled(sampler, GuidedDenoiser(denoiser, 7.5, denoiser), condition), plain)
    assert torch.equal(sampled(sampler, GuidedDenoiser(denoiser, 7.5, interval=[1e8, 1e9]), condition), plain)
    assert not torch.equal(plain, free)


class SignalOf(Schedule):
    """The noise of one schedule under the signal of another."""

    def __init__(self, noise: Schedule, signal: Schedule) -> None:
        super().__init__()
        self.of_noise, self.of_signal = noise, signal

    def log_snr(self, t: Tensor) -> Tensor:
        return self.of_noise.log_snr(t)

    def time(self, log_snr: Tensor) -> Tensor:
        return self.of_noise.time(log_snr)

    def alpha(self, t: Tensor) -> Tensor:
        return self.of_signal.alpha(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.of_noise.sigma(t)


@pytest.mark.parametrize("differs", ["alpha", "sigma"])
def test_a_guide_is_refused_where_only_signal_or_only_noise_differs(differs: str) -> None:
    """EDM's signal is 1 whatever its noise."""
    one = build("schedule", "edm")
    other = SignalOf(one, LinearSchedule()) if differs == "alpha" else build("schedule", "edm", sigma_max=40.0)
    t = torch.linspace(0, 1, 11)
    assert torch.equal(one.alpha(t), other.alpha(t)) == (differs != "alpha")
    assert torch.equal(one.sigma(t), other.sigma(t)) == (differs != "sigma")
    with pytest.raises(ValueError, match="the guide has another schedule than the model"):
        GuidedDenoiser(model(Network(), one)[1], 2.0, model(Network(), other)[1])
