"""The probability-flow ODE, to a tolerance instead of in a number of steps."""

from dataclasses import KW_ONLY, dataclass

from torch import Tensor

from diffusion_lit.ode import angle, at_angle, integrate, velocity
from diffusion_lit.sampler.base import Sampler, Walk


@dataclass
class ODESampler(Sampler):
    """dx / d angle = v by adaptive Runge-Kutta steps of order 5 (Song et al. 2021, section 4.3, arXiv:2011.13456).

    From t_min, the least time that the network knows, the last step takes x_0 as it is. Each image has its own step
    sizes, and so does not depend on its batch. A clipped x_0 is not smooth, and takes more steps.

    Args, besides those of `Sampler`:
        num_steps: where the walk is reported; the solver's own steps lie between.
        rtol, atol: relative and absolute error of a step; a ValueError unless positive.
    """

    num_steps: int | None = 1
    _: KW_ONLY
    rtol: float = 1e-4
    atol: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rtol <= 0 or self.atol <= 0:
            raise ValueError(f"rtol and atol must be positive, got rtol={self.rtol}, atol={self.atol}; 1e-4 is usual")

    def step(self, walk: Walk, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        schedule, shape = walk.schedule, x_t.shape

        def derivative(phi: Tensor, y: Tensor) -> Tensor:
            t, inside = at_angle(schedule, phi, y.view(shape))
            return velocity(phi, y.view(shape), walk.predict(inside, t).x_0).flatten(1)

        end = s.clamp(min=schedule.t_min)
        first, last = (angle(schedule, time.flatten()) for time in (t, end))
        y = integrate(derivative, (x_t / schedule.scale(t)).flatten(1), first, last, self.rtol, self.atol)
        x_s = y.view(shape) * schedule.scale(end)
        return x_s if (s > 0).all() else walk.predict(x_s, end).x_0
