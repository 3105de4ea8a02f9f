"""An exponential moving average of the weights, used for everything but training itself."""

from diffusion_lit.callback.average import WeightAverage

__all__ = ["EMA"]


class EMA(WeightAverage):
    """An average with d = min(decay, (1 + n) / (10 + n)) at the n-th step (see `WeightAverage`).

    The warm-up of d lets the average forget the initial weights early on.

    Args:
        decay: d after warm-up, in [0, 1): the average spans about the last 1 / (1 - d) steps.
        name: as in `WeightAverage`.

    Raises:
        ValueError: if `decay` is outside [0, 1), or `name` does not begin with ema.
    """

    def __init__(self, decay: float = 0.9999, name: str = "ema") -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"callback.ema.decay must lie in [0, 1), got {decay}; 0.999 to 0.9999 is usual")
        super().__init__(name)
        self.decay = decay

    def decay_at(self, n: int) -> float:
        return min(self.decay, (1 + n) / (10 + n))

    @property
    def length(self) -> str:
        return f"{self.decay:g}"
