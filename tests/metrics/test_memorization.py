"""Models that copy, models that do not, and models that draw something else."""

import weakref
from collections.abc import Iterator

import numpy as np
import pytest
import scipy.stats
import torch
from pytest import approx
from torch import Tensor

from diffusion_lit.evaluation.figures import Compared, measure
from diffusion_lit.evaluation.report import direction
from diffusion_lit.metrics import (
    Authenticity,
    CTScore,
    FeatureLikelihoodDivergence,
    Metric,
    NearestNeighbour,
    closest_pairs,
)
from diffusion_lit.metrics.ct_score import rank_sum_score
from diffusion_lit.metrics.mixture import ImageMixture
from tests.metrics.features import Given, compared, normal

TRAINING, HELD_OUT = normal(0, 400, 6), normal(1, 400, 6)
HONEST, COPIES, FOREIGN = normal(2, 400, 6), TRAINING + 1e-3 * normal(3, 400, 6), normal(2, 400, 6) + 3


def figures(metric: Metric, generated: Tensor) -> dict[str, float]:
    assert metric.needs_training
    return {name: figure.value for name, figure in metric.measure(compared(generated, HELD_OUT, TRAINING)).items()}


def test_authenticity() -> None:
    assert figures(Authenticity(Given()), COPIES) == figures(Authenticity(Given()), TRAINING) == {"authenticity": 0}
    assert 50 < figures(Authenticity(Given()), HONEST)["authenticity"] < 90
    assert figures(Authenticity(Given()), FOREIGN)["authenticity"] > 90


def test_ct_score() -> None:
    """Standard normal where nothing is copied, but for images that cells share."""
    assert abs(figures(CTScore(Given()), HONEST)["ct_score"]) < 3
    assert figures(CTScore(Given()), COPIES)["ct_score"] < -10
    assert figures(CTScore(Given(), num_cells=1), FOREIGN)["ct_score"] > 10


def test_a_figure_of_memorization_is_best_where_new_real_images_have_it() -> None:
    """Neither lower nor higher is better: bad images are no copies. The honest are nearer to it than either."""
    metrics = {
        "authenticity": Authenticity(Given()),
        "nearest_neighbour": NearestNeighbour(Given(), quantile=0.1),
        "ct_score": CTScore(Given()),
        "feature_likelihood_divergence": FeatureLikelihoodDivergence(Given()),
    }
    sets = compared(HONEST, HELD_OUT, TRAINING)
    assert sets.training is not None
    features = Compared({"x": sets.generated}, {"x": sets.real}, {"x": sets.training})
    found = {name: figure["better"] for name, figure in measure(metrics, dict.fromkeys(metrics, "x"), features).items()}
    targets = {"authenticity": 50, "copied": 0.1, "closeness": 1, "ct_score": 0, "fld_gap": 0}
    assert found == targets | {"fld": "lower"}
    sides = [{k: v for m in metrics.values() for k, v in figures(m, x).items()} for x in (HONEST, COPIES, FOREIGN)]
    for name in ("authenticity", "copied", "closeness", "ct_score"):
        honest, *others = (abs(side[name] - targets[name]) for side in sides)
        assert honest < min(others), name
    words = [direction(found[name]) for name in ("authenticity", "copied", "ct_score", "fld")]
    assert words == ["best near 50", "best near 0.1", "best near 0", "lower is better"] and direction("<b>") == ""


def test_rank_sum_score() -> None:
    """SciPy's U, with ties."""
    x, y = (normal(0, 40) * 3).round(), (normal(1, 30) * 3 + 1).round()
    u = scipy.stats.mannwhitneyu(x, y).statistic
    expected = (u - (600 - 0.5)) / np.sqrt(40 * 30 * 71 / 12)
    assert rank_sum_score(x, y) == approx(expected, rel=1e-9)


def test_cells_without_images_do_not_count() -> None:
    """As if they were not there; where all are such, there is no figure."""
    both = CTScore(Given(), num_cells=2).measure(compared(HONEST, HELD_OUT, torch.cat([TRAINING, TRAINING + 100])))
    assert both["ct_score"].value == approx(figures(CTScore(Given(), num_cells=1), HONEST)["ct_score"])
    with pytest.raises(ValueError, match="none of 3 cells has held-out images and more than 20 of the 12 generated"):
        figures(CTScore(Given()), HONEST[:12])


def test_settings_that_count_cells() -> None:
    with pytest.raises(ValueError, match="num_cells and num_components must be at least 1"):
        CTScore(Given(), num_cells=0)


def test_feature_likelihood_divergence() -> None:
    """Lower is better, and neither copies nor foreign images are good."""
    metric = FeatureLikelihoodDivergence(Given())
    honest, copies, foreign = (figures(metric, x)["fld"] for x in (HONEST, COPIES, FOREIGN))
    assert honest < 5 < copies and foreign > 20
    honest, copies, foreign = (figures(metric, x)["fld_gap"] for x in (HONEST, COPIES, FOREIGN))
    assert -15 < honest < 5 and copies < 5 * honest and -15 < foreign < 5


def test_features_that_do_not_vary_are_harmless() -> None:
    """Such as pixels in a corner."""
    sets = [torch.cat([x, torch.ones(len(x), 1)], dim=1) for x in (HONEST, HELD_OUT, TRAINING)]
    figure = FeatureLikelihoodDivergence(Given()).measure(compared(*sets))["fld"]
    assert np.isfinite(figure.value)


def test_distances_that_memory_does_not_hold_are_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffusion_lit.metrics.mixture.BATCH_SIZE", 150)
    held = ImageMixture(HONEST).fit(TRAINING, np.random.RandomState(0))
    monkeypatch.setattr("diffusion_lit.metrics.mixture.HELD", 400 * 400 - 1)
    living: list[weakref.ref[Tensor]] = []
    batches = ImageMixture.batches

    def counted(self: ImageMixture, x: Tensor) -> Iterator[Tensor]:
        for batch in batches(self, x):
            living.append(weakref.ref(batch))
            yield batch
            del batch
            assert sum(one() is not None for one in living) <= 2, "that of before, and the next"

    monkeypatch.setattr(ImageMixture, "batches", counted)
    again = ImageMixture(HONEST).fit(TRAINING, np.random.RandomState(0))
    assert again.log_variances.equal(held.log_variances) and len(living) > 3 * 7


def test_gradient_of_the_mixture() -> None:
    """Against automatic differentiation."""
    mixture = ImageMixture(HONEST[:5].double())
    squares = torch.cdist(TRAINING[:9].double(), mixture.centres).square()
    log_variances, log_weights = normal(4, 5).double().requires_grad_(), normal(5, 5).double()
    logs = mixture.log_terms(squares, log_variances, log_weights)
    (-logs.logsumexp(1).mean() / 6).backward()
    loss, gradient = mixture.loss_and_gradient(squares, log_variances.detach(), log_weights)
    assert log_variances.grad is not None
    torch.testing.assert_close(gradient, log_variances.grad)
    weights, scales = log_weights.exp(), (log_variances / 2).exp().detach()
    density = sum(
        w
        * torch.distributions.MultivariateNormal(c, s**2 * torch.eye(6).double()).log_prob(TRAINING[:9].double()).exp()
        for w, c, s in zip(weights, mixture.centres, scales, strict=True)
    )
    assert isinstance(density, Tensor) and loss == approx(-float(density.log().mean()) / 6)


def test_nearest_neighbour() -> None:
    metric = NearestNeighbour(Given(), quantile=0.1)
    honest, copies, foreign = (figures(metric, x) for x in (HONEST, COPIES, FOREIGN))
    assert honest["copied"] == approx(0.1, abs=0.05) and honest["closeness"] == approx(1, abs=0.1)
    assert copies["copied"] == 1 and copies["closeness"] > 100
    assert foreign["copied"] < 0.01 and foreign["closeness"] < 0.5
    with pytest.raises(ValueError, match=r"quantile must lie in \(0, 1\)"):
        NearestNeighbour(Given(), quantile=1)


def test_copies_are_seen_where_held_out_images_are_copies_too() -> None:
    """A tenth of the held-out images are training images: nearer than them nothing can be."""
    held_out = torch.cat([TRAINING[:40], HELD_OUT[40:]])
    found = NearestNeighbour(Given()).measure(compared(TRAINING, held_out, TRAINING))
    assert found["copied"].value == 1 and found["closeness"].value == approx(1e6)
    for generated, closeness in ((TRAINING, 1), (HONEST, 0)):  # all of them are
        found = NearestNeighbour(Given()).measure(compared(generated, TRAINING, TRAINING))
        assert found["closeness"].value == closeness


def test_closest_pairs() -> None:
    generated = HONEST.clone()
    generated[7], generated[3] = TRAINING[20], TRAINING[11] + 1e-3
    pairs, distances = closest_pairs(generated, TRAINING, 3)
    assert pairs[:2].tolist() == [[7, 20], [3, 11]]
    assert distances[0] == 0 and (distances.diff() >= 0).all() and len(distances) == 3
