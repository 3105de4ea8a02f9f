"""The solver against scipy's, row by row, and the probability-flow ODE in the angle of every schedule."""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import RK45, solve_ivp
from torch import Tensor

from diffusion_lit import ode
from diffusion_lit.ode import angle, integrate, time_of
from diffusion_lit.schedule import DiscreteSchedule
from tests.analytic import GaussianDenoiser, build, members
from tests.repeats import slow_but

SCHEDULES = members("schedule")


def van_der_pol(u: Tensor, y: Tensor) -> Tensor:
    x, v = y.unbind(1)
    return torch.stack([v, 2 * (1 - x**2) * v - x], 1)


def predator_and_prey(u: Tensor, y: Tensor) -> Tensor:
    x, z = y.unbind(1)
    return torch.stack([1.5 * x - x * z, x * z - 3 * z], 1)


def driven_pendulum(u: Tensor, y: Tensor) -> Tensor:
    x, v = y.unbind(1)
    return torch.stack([v, -torch.sin(x) - 0.1 * v + torch.cos(1.3 * u).to(y.dtype)], 1)


def lorenz(u: Tensor, y: Tensor) -> Tensor:
    a, b, c = y.unbind(1)
    return torch.stack([10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c], 1)


SYSTEMS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], list[float], float]] = {
    "van_der_pol": (van_der_pol, [2.0, 0.0], 6.0),
    "predator_and_prey": (predator_and_prey, [2.0, 1.0], 4.0),
    "driven_pendulum": (driven_pendulum, [0.5, 0.0], 10.0),
    "lorenz": (lorenz, [1.0, 1.0, 1.0], 1.5),
}


def times(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def solved(name: str, tolerance: float) -> tuple[Tensor, int]:
    """The end of a system's only row, and how many steps it took."""
    derivative, start, end = SYSTEMS[name]
    calls: list[bool] = []

    def counted(u: Tensor, y: Tensor) -> Tensor:
        calls.append(True)
        return derivative(u, y)

    y = integrate(counted, times(*start)[None], times(0), times(end), tolerance, tolerance)
    return y[0], (len(calls) - 1) // 6


def by_scipy(name: str, method: str, tolerance: float) -> Tensor:
    derivative, start, end = SYSTEMS[name]

    def f(u: float, y: np.ndarray) -> np.ndarray:
        return derivative(times(u), torch.from_numpy(y)[None])[0].numpy()

    return torch.from_numpy(solve_ivp(f, (0, end), start, method, rtol=tolerance, atol=tolerance).y[:, -1])


def test_the_pair_is_that_of_dormand_and_prince() -> None:
    """Scipy counts the error with the other sign."""
    assert np.allclose(ode.NODES[:5], RK45.C[1:], rtol=1e-15)
    for row, expected in zip(ode.STAGES[:5], RK45.A[1:], strict=True):
        assert np.allclose(row, expected[: len(row)], rtol=1e-15)
        assert not expected[len(row) :].any()
    assert np.allclose(ode.STAGES[5], RK45.B, rtol=1e-15)
    assert np.allclose(np.abs(ode.ERROR), np.abs(RK45.E), rtol=1e-14)
    assert len({float(np.sign(a * b)) for a, b in zip(ode.ERROR, RK45.E, strict=True) if a}) == 1


@pytest.mark.parametrize("name", slow_but(("predator_and_prey", "driven_pendulum"), SYSTEMS))
def test_errors_fall_with_the_tolerance(name: str) -> None:
    """Within 300 tolerances at the end of the path (the worst, Lorenz's, strays by e^1.4), and in proportion to them.

    A step of order 5 is taken 10^0.2 times as often for a tenth of the tolerance.
    """
    truth = by_scipy(name, "DOP853", 1e-13)
    tolerances = [1e-3, 1e-5, 1e-7, 1e-9, 1e-11]
    ends, steps = zip(*(solved(name, tolerance) for tolerance in tolerances), strict=True)
    errors = [float((end - truth).abs().max() / (1 + truth.abs().max())) for end in ends]
    assert all(error < 300 * tolerance for error, tolerance in zip(errors, tolerances, strict=True)), errors
    assert all(after < before / 10 for before, after in pairwise(errors)), errors
    slope = math.log(steps[4] / steps[1]) / math.log(tolerances[1] / tolerances[4])
    assert slope == pytest.approx(0.2, abs=0.03), steps


@pytest.mark.parametrize("name", SYSTEMS)
def test_it_is_as_exact_as_scipys_solver_of_the_same_pair(name: str) -> None:
    """At the same tolerance, errors within a factor of 20: only the choice of steps differs."""
    truth = by_scipy(name, "DOP853", 1e-13)
    ours, scipys = (float((y - truth).abs().max()) for y in (solved(name, 1e-6)[0], by_scipy(name, "RK45", 1e-6)))
    assert scipys / 20 < ours < scipys * 20


@pytest.mark.parametrize("name", ["predator_and_prey", "driven_pendulum"])
def test_there_and_back_again(name: str) -> None:
    """Backwards as exactly as forwards; the other two systems forget where they started."""
    derivative, start, end = SYSTEMS[name]
    y = times(*start)[None]
    there = integrate(derivative, y, times(0), times(end), 1e-10, 1e-10)
    assert float((there - y).abs().max()) > 0.1
    back = integrate(derivative, there, times(end), times(0), 1e-10, 1e-10)
    torch.testing.assert_close(back, y, rtol=0, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_closed_forms(dtype: torch.dtype) -> None:
    """Decay, growth to a limit, a rotation and a quadrature, one to a row, some of them backwards in u."""
    start, end = times(0, 1, 2, -1), times(2, -1, 0, 3)

    def derivative(u: Tensor, y: Tensor) -> Tensor:
        assert u.dtype == torch.float64
        rows = [-1.5 * y[0], y[1] * (1 - y[1]), torch.stack([-y[2, 1], y[2, 0]]), u[3].cos().to(dtype) * y.new_ones(2)]
        return torch.stack(rows)

    y = torch.tensor([[1.0, -2.0], [0.5, 0.9], [0.6, 0.8], [0.0, 4.0]], dtype=dtype)
    y_1 = y[1].double()
    expected = torch.stack(
        [
            y[0].double() * math.exp(-3),
            y_1 / (y_1 + (1 - y_1) * math.exp(2)),
            times(0.6 * math.cos(2) + 0.8 * math.sin(2), 0.8 * math.cos(2) - 0.6 * math.sin(2)),
            y[3].double() + math.sin(3) - math.sin(-1),
        ]
    )
    tolerance = 1e-6 if dtype == torch.float32 else 1e-11
    actual = integrate(derivative, y, start, end, tolerance, tolerance)
    assert actual.dtype == dtype
    torch.testing.assert_close(actual.double(), expected, rtol=0, atol=30 * tolerance)


RATES = times(0.1, 1, 10, 300, 3, 50)
STARTS, ENDS = times(0, 2, 0, 0.5, 1, 1), times(3, 0, 1, 1, 1, 1.2)


def relaxation(rows: list[int]) -> Callable[[Tensor, Tensor], Tensor]:
    """Towards a moving point, each row at its own rate: from hardly stiff to very."""

    def derivative(u: Tensor, y: Tensor) -> Tensor:
        return -RATES[rows, None].to(y.dtype) * (y - torch.sin(3 * u[:, None] + y / 2).to(y.dtype))

    return derivative


@pytest.mark.parametrize("num", [1, 3, 50])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_is_the_same_alone_as_with_others(dtype: torch.dtype, num: int) -> None:
    """Bit for bit, whatever the others' stiffness, length, direction and number; one of them goes nowhere."""
    rows = list(range(len(RATES)))
    y = torch.randn(len(rows), num, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)

    def solve(rows: list[int]) -> Tensor:
        return integrate(relaxation(rows), y[rows], STARTS[rows], ENDS[rows], 1e-5, 1e-5)

    together = solve(rows)
    assert torch.equal(together[4], y[4])  # it ends where it starts
    for row in rows:
        assert torch.equal(solve([row])[0], together[row]), row
    for some in ([3, 0], [5, 4, 3], [1, 2, 5, 0]):
        assert torch.equal(solve(some), together[some]), some


def test_rows_have_steps_of_their_own() -> None:
    """An easy row asks nothing new once it has arrived, while a stiff one goes on for hundreds of steps."""
    asked: list[Tensor] = []

    def derivative(u: Tensor, y: Tensor) -> Tensor:
        asked.append(u.clone())
        return relaxation([0, 3])(u, y)

    integrate(derivative, torch.ones(2, 2).double(), times(0, 0), times(1, 1), 1e-6, 1e-6)
    easy, stiff = torch.stack(asked).unbind(1)
    assert len(easy.unique()) < 100 < len(stiff.unique()) / 5
    assert float(easy.min()) == float(stiff.min()) == 0
    assert float(easy.max()) == float(stiff.max()) == 1  # never beyond the end


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_derivative_that_stops_being_finite_is_named(value: float) -> None:
    """In any row, at the start and later."""
    for when in (0.0, 0.7):

        def derivative(u: Tensor, y: Tensor, when: float = when) -> Tensor:
            wrong = (u >= when) & (torch.arange(len(u)) == 1)
            return torch.where(wrong[:, None], value, -y)

        with pytest.raises(FloatingPointError, match="is not finite; does the model give NaN"):
            integrate(derivative, torch.ones(3, 2), times(0, 0, 0), times(1, 1, 1), 1e-5, 1e-5)


def test_a_step_too_long_to_stay_finite_is_taken_again_shorter() -> None:
    """dy/du = -400 y^3 from 8, whose solution is 1 / sqrt(1 / 64 + 800 u): a first step of 1 / 20 overflows."""
    y = integrate(lambda u, y: -400 * y**3, 8 * torch.ones(1, 1).double(), times(0), times(1), 1e-8, 1e-8)
    assert float(y) == pytest.approx((1 / 64 + 800) ** -0.5, rel=1e-6)


def test_too_many_steps_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stiff row needs 1e5 steps; one with a pole on its way never gets past it."""
    assert ode.MAX_STEPS == 10_000
    monkeypatch.setattr(ode, "MAX_STEPS", 200)
    y = torch.zeros(1, 1).double()
    with pytest.raises(FloatingPointError, match="took over 200 steps; raise rtol and atol"):
        integrate(lambda u, y: -1e5 * (y - torch.sin(u)[:, None]), y, times(0), times(1), 1e-6, 1e-6)
    with pytest.raises(FloatingPointError, match=r"took over 200 steps|not finite"):
        integrate(lambda u, y: y**2, torch.ones(1, 1).double(), times(0), times(2), 1e-6, 1e-6)


@pytest.mark.parametrize("name", SCHEDULES)
def test_angle_and_time_invert_each_other(name: str) -> None:
    """From 0 to pi / 2, rising: on a discrete schedule's steps, between them, and at both ends."""
    schedule = build("schedule", name)
    t = torch.cat([torch.linspace(0, 1, 1777, dtype=torch.float64), times(schedule.t_min, 1e-5, 0.9999)]).sort().values
    phi = angle(schedule, t)
    assert phi.dtype == torch.float64
    assert float(phi[0]) == 0
    assert float(phi[-1]) <= math.pi / 2
    assert (phi.diff() > 0).all()
    torch.testing.assert_close(time_of(schedule, phi), t, rtol=1e-9, atol=1e-12)
    grid = torch.linspace(0, float(phi[-1]), 1001, dtype=torch.float64)
    torch.testing.assert_close(angle(schedule, time_of(schedule, grid)), grid, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
def test_angle_is_that_of_alpha_and_sigma(name: str) -> None:
    schedule = build("schedule", name)
    t = times(0, schedule.t_min, 0.03, 0.3, 0.5, 0.77, 0.999, 1)
    torch.testing.assert_close(angle(schedule, t), torch.atan2(schedule.sigma(t), schedule.alpha(t)), rtol=1e-9, atol=0)


def middles(name: str) -> tuple[Tensor, float]:
    """Times [B, 1, 1, 1] about which a schedule is smooth for a small distance to either side."""
    schedule = build("schedule", name)
    t = times(0.0105, 0.1005, 0.3005, 0.5005, 0.8005, 0.9505)
    if isinstance(schedule, DiscreteSchedule):
        t = ((t * schedule.num_timesteps).floor() + 0.5) / schedule.num_timesteps
    return t.view(-1, 1, 1, 1), 1e-6


@pytest.mark.parametrize("name", SCHEDULES)
def test_v_is_the_exact_flows_derivative_by_the_angle(name: str) -> None:
    """On the Gaussian, whose flow is known: x_t keeps its quantile. By a central difference, on the scale of v."""
    schedule = build("schedule", name)
    denoiser = GaussianDenoiser(schedule, 0.3, 0.5)
    t, step = middles(name)
    quantile = torch.tensor([-2.0, -0.3, 0.0, 1.5], dtype=torch.float64).view(1, 1, 2, 2)

    def flow(t: Tensor) -> Tensor:
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        return alpha * 0.3 + (alpha**2 * 0.25 + sigma**2).sqrt() * quantile

    def scaled(t: Tensor) -> Tensor:
        return flow(t) / torch.hypot(schedule.alpha(t), schedule.sigma(t))

    numeric = (scaled(t + step) - scaled(t - step)) / (angle(schedule, t + step) - angle(schedule, t - step))
    p, phi = denoiser(flow(t), t), angle(schedule, t)
    torch.testing.assert_close(torch.cos(phi) * p.eps - torch.sin(phi) * p.x_0, numeric, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close((torch.cos(phi) * scaled(t) - p.x_0) / torch.sin(phi), numeric, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", SCHEDULES)
def test_v_is_the_drift_of_the_papers_ode(name: str) -> None:
    """dx/dt = f x - g^2 score / 2, f = d log alpha / dt, g^2 = d sigma^2 / dt - 2 f sigma^2 (Song et al. 2021, eq. 13).

    At any x, not only on the flow; x is hypot(alpha, sigma) times the angle's, which changes with time, too.
    """
    schedule = build("schedule", name)
    denoiser = GaussianDenoiser(schedule, 0.3, 0.5)
    t, step = middles(name)
    x = torch.randn(len(t), 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def rate(f: Callable[[Tensor], Tensor]) -> Tensor:
        return (f(t + step) - f(t - step)) / (2 * step)

    p = denoiser(x, t)
    drift = rate(lambda t: schedule.alpha(t).log())
    diffusion = rate(lambda t: schedule.sigma(t) ** 2) - 2 * drift * schedule.sigma(t) ** 2
    expected = drift * x - diffusion * p.score / 2

    def scale(t: Tensor) -> Tensor:
        return torch.hypot(schedule.alpha(t), schedule.sigma(t))

    phi = angle(schedule, t)
    v = torch.cos(phi) * p.eps - torch.sin(phi) * p.x_0
    actual = rate(scale) * x / scale(t) + scale(t) * v * rate(lambda t: angle(schedule, t))
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
