"""The averaged weights: the recursion itself, and where they are seen."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from diffusion_lit.callback import EMA, averaged_weights
from diffusion_lit.callback.average import chosen_average

pytestmark = [
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
    pytest.mark.filterwarnings("ignore:predict returned None"),
]


class Line(LightningModule):
    """One weight, pulled towards 1; notes what it sees of itself."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.layer.weight)
        self.register_buffer("count", torch.tensor(7))
        self.trained: list[float] = []
        self.seen: dict[str, list[float]] = {"val": [], "test": [], "predict": []}

    def weight(self) -> float:
        return float(self.layer.weight.detach())

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return (self.layer(batch) - batch).square().mean()

    def on_train_batch_end(self, *_: Any) -> None:
        self.trained.append(self.weight())

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.seen["val"].append(self.weight())

    def test_step(self, batch: Tensor, batch_idx: int) -> None:
        self.seen["test"].append(self.weight())

    def predict_step(self, batch: Tensor, batch_idx: int) -> None:
        self.seen["predict"].append(self.weight())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def loader() -> DataLoader[Tensor]:
    return DataLoader(torch.ones(4, 1), batch_size=1)


def trainer(folder: Path, *callbacks: Callback, **options: Any) -> Trainer:
    settings: dict[str, Any] = {
        "max_epochs": 1,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    return Trainer(default_root_dir=folder, callbacks=list(callbacks), **{**settings, **options})


def recursion(weights: list[float], decay: float, start: float = 0.0) -> float:
    """The definition, one line."""
    average = start
    for n, w in enumerate(weights, start=1):
        d = min(decay, (1 + n) / (10 + n))
        average = d * average + (1 - d) * w
    return average


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.999])
def test_equals_the_recursion_and_is_seen_by_all_but_training(tmp_path: Path, decay: float) -> None:
    module, ema = Line(), EMA(decay)
    fit = trainer(tmp_path, ema)
    fit.fit(module, loader(), loader())
    expected = recursion(module.trained, decay)
    assert float(ema.average["layer.weight"]) == pytest.approx(expected, rel=1e-5)
    assert module.seen["val"] == pytest.approx([expected] * 4, rel=1e-5)
    assert module.weight() == module.trained[-1]
    fit.test(module, loader(), verbose=False)
    fit.predict(module, loader())
    assert module.seen["test"] == module.seen["predict"] == pytest.approx([expected] * 4, rel=1e-5)
    assert module.weight() == module.trained[-1]
    assert list(ema.average) == ["layer.weight"]  # no buffers


def test_one_update_an_optimizer_step(tmp_path: Path) -> None:
    module, ema = Line(), EMA(0.5)
    trainer(tmp_path, ema, accumulate_grad_batches=2).fit(module, loader())
    assert ema.num_updates == 2
    assert float(ema.average["layer.weight"]) == pytest.approx(recursion(module.trained[1::2], 0.5), rel=1e-5)


def test_a_checkpoint_holds_both_and_resuming_and_testing_find_them(tmp_path: Path) -> None:
    module, ema = Line(), EMA(0.9)
    fit = trainer(tmp_path, ema)
    fit.fit(module, loader())
    fit.save_checkpoint(tmp_path / "a.ckpt")
    saved = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert float(saved["state_dict"]["layer.weight"]) == module.weight()
    assert float(saved["ema"]["layer.weight"]) == float(ema.average["layer.weight"]) != module.weight()

    resumed, again = Line(), EMA(0.9)
    trainer(tmp_path, again, max_epochs=2).fit(resumed, loader(), ckpt_path=tmp_path / "a.ckpt")
    expected = recursion(module.trained + resumed.trained, 0.9)
    assert float(again.average["layer.weight"]) == pytest.approx(expected, rel=1e-5)

    averaged = [float(saved["ema"]["layer.weight"])] * 4
    for stage in ("validate", "test", "predict"):
        fresh = Line()
        getattr(trainer(tmp_path, EMA(0.9)), stage)(fresh, loader(), ckpt_path=tmp_path / "a.ckpt")
        assert fresh.seen["val" if stage == "validate" else stage] == averaged
        assert fresh.weight() == module.weight()


class Fails(Callback):
    def on_validation_batch_end(self, *_: Any) -> None:
        raise RuntimeError("in the middle of validation")


def test_an_exception_leaves_the_raw_weights(tmp_path: Path) -> None:
    module = Line()
    with pytest.raises(RuntimeError, match="in the middle"):
        trainer(tmp_path, EMA(0.9), Fails()).fit(module, loader(), loader())
    assert module.weight() == module.trained[-1]


class SavesWhileSwapped(Callback):
    def __init__(self, path: Path) -> None:
        self.path = path

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        trainer.save_checkpoint(self.path)


def test_a_checkpoint_written_during_validation_has_the_raw_weights_too(tmp_path: Path) -> None:
    module = Line()
    trainer(tmp_path, EMA(0.9), SavesWhileSwapped(tmp_path / "a.ckpt")).fit(module, loader(), loader())
    saved = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert float(saved["state_dict"]["layer.weight"]) == module.trained[-1]
    assert float(saved["ema"]["layer.weight"]) == pytest.approx(recursion(module.trained, 0.9), rel=1e-5)


def test_averaged_weights_swaps_and_restores(tmp_path: Path) -> None:
    module, ema = Line(), EMA(0.9)
    fit = trainer(tmp_path, ema)
    fit.fit(module, loader())
    module.train()
    with pytest.raises(KeyError), averaged_weights(fit, module):
        assert module.weight() == float(ema.average["layer.weight"])
        assert not module.training
        with averaged_weights(fit, module):
            pass
        assert module.weight() == float(ema.average["layer.weight"])
        raise KeyError
    assert module.weight() == module.trained[-1]
    assert module.training


def test_the_average_named_ema_stands_in_for_the_weights_or_else_the_first(tmp_path: Path) -> None:
    slow, plain, fast = EMA(0.99, "ema_slow"), EMA(0.9), EMA(0.5, "ema_fast")
    assert chosen_average(trainer(tmp_path)) is None
    for callbacks, chosen in (([slow, plain, fast], plain), ([slow, fast], slow), ([fast, slow], fast)):
        assert chosen_average(trainer(tmp_path, *callbacks)) is chosen


def test_bf16_weights_are_averaged_in_float32(tmp_path: Path) -> None:
    module, ema = Line().to(torch.bfloat16), EMA(0.999)
    ema.align(module)
    assert ema.average["layer.weight"].dtype == torch.float32


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_an_invalid_decay_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match=str(decay)):
        EMA(decay)


def test_a_checkpoint_without_an_average_is_refused_with_the_remedy(tmp_path: Path) -> None:
    module = Line()
    fit = trainer(tmp_path)
    fit.fit(module, loader())
    fit.save_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=r"callback\.ema=null"):
        trainer(tmp_path, EMA(0.9), max_epochs=2).fit(Line(), loader(), ckpt_path=tmp_path / "a.ckpt")
