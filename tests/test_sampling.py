"""Many images: the same in any batch, process and order, written as they are drawn, and taken up again."""

import io
import json
import os
import shutil
import signal
import sys
import weakref
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor, nn

from diffusion_lit import drawing, precision
from diffusion_lit.command_line.command import CONFIG_FOLDER
from diffusion_lit.data import MemmapData
from diffusion_lit.denoiser import Denoiser
from diffusion_lit.drawing import draw
from diffusion_lit.drawn.archive import save_shards
from diffusion_lit.drawn.folder import SampleFolder
from diffusion_lit.drawn.output import caption_of
from diffusion_lit.drawn.request import indices_of
from diffusion_lit.files import UnwritableError
from diffusion_lit.generate import Setup, generate, sampled
from diffusion_lit.labels import Labels, LabelsInTurn, OnePerWay, ProportionalLabels, UniformLabels, choose_labels
from diffusion_lit.model import UNet
from diffusion_lit.parameterization import VParameterization
from diffusion_lit.picture import title_font
from diffusion_lit.picture.grid import HEADER, choose_columns, image_grid, titles_of
from diffusion_lit.picture.image import save_image
from diffusion_lit.picture.title_font import font_for
from diffusion_lit.provenance import plain_fields
from diffusion_lit.sampler import DDIMSampler, ODESampler
from diffusion_lit.schedule import LinearSchedule
from diffusion_lit.space import PixelSpace
from tests.evaluation.hasty import damaged, train_hastily
from tests.launch import PATIENCE, Forked, holding, read_by_bash, run_forked, run_launched

NUM = 40
DRAWN = ("sampler.eta=1", "sampler.num_steps=2", f"num_samples={NUM}", "format=png")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_hastily(tmp_path_factory)


@pytest.fixture(scope="module")
def whole(run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The images that one process draws without a stop."""
    folder = tmp_path_factory.mktemp("whole")
    done = run_forked("sample", f"ckpt={run}", *DRAWN, f"out={folder}", cwd=folder)
    assert done.returncode == 0, done.stderr
    images = pngs(folder)
    assert len(images) == NUM and len(set(images.values())) == NUM
    return images


def pngs(out: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (out / "png").glob("*.png")}


def tiny() -> Setup:
    torch.manual_seed(0)
    network = UNet(8, 1, channels=8, channel_multipliers=(1, 2), num_groups=4, num_classes=3)
    for parameter in network.parameters():  # the last layers of branches begin at zero
        nn.init.normal_(parameter, std=0.1)
    denoiser = Denoiser(network, LinearSchedule(), VParameterization()).eval()
    labels = choose_labels(None, 3, None, None, 0)
    return Setup(denoiser, DDIMSampler(3, eta=1.0), labels, None, "cpu", 0, "32-true")


class Unrounded(PixelSpace):
    def decode(self, x_0: Tensor) -> Tensor:
        return x_0


def drawn(setup: Setup, indices: range | list[int], batch_size: int = 64) -> Tensor:
    return torch.cat([images for _, images in draw(setup, indices, setup.by_index, 5, batch_size)])


@pytest.mark.parametrize("batch_size", [7, 32, 250])
def test_an_image_is_the_same_to_the_bit_in_any_batch(batch_size: int) -> None:
    setup = tiny()
    setup.denoiser.space = Unrounded()  # bytes would hide most of what differs
    every = drawn(setup, range(40))
    assert torch.equal(drawn(setup, range(40), batch_size), every) and every.unique().numel() > 2000
    assert torch.equal(drawn(setup, [17, 3, 39], batch_size), every[[17, 3, 39]])
    assert torch.equal(drawn(setup, range(5, 38), batch_size), every[5:38])
    alone = generate(setup.denoiser, setup.sampler, [17], setup.by_index, 5)
    torch.testing.assert_close(alone, every[[17]], rtol=0, atol=1e-4)  # it is image 17, rounded otherwise


@pytest.mark.parametrize("count", [2, 3])
def test_processes_of_a_launcher_draw_the_same_files(
    count: int, run: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    ended = run_launched("sample", f"ckpt={run}", *DRAWN, "batch_size=7", "out=out", folders=[tmp_path] * count)
    assert [code for code, _ in ended] == [0] * count, ended
    assert pngs(tmp_path / "out") == whole


def test_the_command_starts_processes_itself(run: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    done = run_forked("sample", f"ckpt={run}", *DRAWN, "devices=2", "out=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert pngs(tmp_path / "out") == whole and done.stdout.count(f"{NUM} images from") == 1


def stopped(run: Path, out: Path, number: int, *options: str) -> tuple[int, str]:
    """The exit code and the words of a `sample` that gets a signal once a batch of images is there."""
    said = out.parent / "said.txt"
    args = [f"ckpt={run}", *DRAWN, *options, f"out={out}"]

    def batch_is_drawn() -> bool:
        return len(list(out.rglob("*.png"))) >= 16

    with said.open("w") as file, holding(SampleFolder, "save", batch_is_drawn, let_go := out.parent / "go"):
        command = [sys.executable, "-m", "diffusion_lit.sample", *args]
        process = Forked(command, out.parent, {**os.environ}, file.fileno(), file.fileno())
        process.until(batch_is_drawn)
        process.send_signal(number)
        let_go.touch()
        code = process.wait(PATIENCE)
    return code, said.read_text()


def test_a_killed_command_goes_on_where_it_was(run: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, _ = stopped(run, out, signal.SIGKILL)
    assert code == -signal.SIGKILL and 16 <= len(pngs(out)) < NUM
    broken, *kept = sorted((out / "png").glob("*.png"))
    broken.write_bytes(broken.read_bytes()[:-20])
    (out / "png" / ".000039.png.1.partial").touch()
    stamps = {file: file.stat().st_mtime_ns for file in kept}
    assert run_forked("sample", f"ckpt={run}", *DRAWN, f"out={out}", cwd=tmp_path).returncode == 0
    assert {file: file.stat().st_mtime_ns for file in kept} == stamps, "what is whole is not drawn again"
    assert pngs(out) == whole and not list(out.rglob(".*"))


def test_a_stopped_command_prints_the_one_that_continues_it(run: Path, tmp_path: Path) -> None:
    number = signal.SIGTERM
    out = tmp_path / "my images, seed=0" / "out"
    out.parent.mkdir()
    code, said = stopped(run, out, number, "format=npz", "num_samples=30")
    assert code == 128 + number and "Traceback" not in said, said
    command = said[said.index("Continue with\n") :].splitlines()[1].strip()
    name, *args = read_by_bash(command)[1:]
    assert name == "diffusion_lit.sample"
    here = len(list(out.glob(".drawn/*.png")))
    assert 16 <= here < 30
    done = run_forked("sample", *args, cwd=tmp_path)
    assert done.returncode == 0 and f"{here} of 30 images are there already" in done.stdout, done
    assert np.load(out / "samples.npz")["arr_0"].shape == (30, 8, 8, 1) and not (out / ".drawn").exists()
    stamp = (out / "samples.npz").stat().st_mtime_ns
    done = run_forked("sample", *args, cwd=tmp_path)
    assert done.returncode == 0 and "30 images are in" in done.stdout and "already: samples.npz" in done.stdout, done
    assert (out / "samples.npz").stat().st_mtime_ns == stamp and not (out / ".drawn").exists()


def test_another_setting_in_the_same_folder_is_refused(run: Path, tmp_path: Path) -> None:
    common = (f"ckpt={run}", "sampler.num_steps=2", "num_samples=2", "format=png", "out=out")
    assert run_forked("sample", *common, cwd=tmp_path).returncode == 0
    before = pngs(tmp_path / "out")
    others = ("seed=3", "sampler=heun", "labels=4", "weights=raw", "precision=bf16-true", "guidance=2")
    done = run_forked("sample", *common, *others, cwd=tmp_path)
    assert done.returncode == 1 and "out=DIR" in done.stderr and "Traceback" not in done.stderr
    for key in ("seed: 0 there, 3 now", "sampler:", "labels:", "weights: ema", "precision: 32-true", "guidance: 1.0"):
        assert f"\n  {key}" in done.stderr, done.stderr
    assert pngs(tmp_path / "out") == before
    done = run_forked("sample", *common, "offset=1", "num_samples=3", "batch_size=1", cwd=tmp_path)
    assert done.returncode == 0 and {**pngs(tmp_path / "out"), **before} == pngs(tmp_path / "out")
    assert sorted(pngs(tmp_path / "out")) == [f"{i:06d}.png" for i in range(4)]


KINDS_OF_LABELS = [LabelsInTurn((3, 1)), UniformLabels(4, 0), ProportionalLabels((5, 2))]


@pytest.mark.parametrize("labels", [*KINDS_OF_LABELS, *(OnePerWay(labels, 4) for labels in KINDS_OF_LABELS)])
def test_a_folder_knows_its_labels_again(labels: Labels) -> None:
    """What is compared with the file's content is as a file has it: with lists in place of tuples, at any depth."""
    assert plain_fields(labels) == json.loads(json.dumps(plain_fields(labels)))


def test_images_of_unknown_settings_are_not_taken_up(tmp_path: Path) -> None:
    (tmp_path / "png").mkdir()
    (tmp_path / "png" / "000000.png").touch()
    with pytest.raises(ValueError, match=r"has png in it, and no sample\.json says how it was drawn"):
        SampleFolder(tmp_path, keep=True).open({"seed": 0}, [0], {"files": []})


@pytest.mark.parametrize("name", ["grid.png", "shards/train/shard-00000.bin"])
def test_files_that_no_such_command_has_made_are_not_replaced(name: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("mine")
    made = [name.split("/")[0]]
    with pytest.raises(
        ValueError, match=rf"has {made[0]} in it, and no sample\.json says how it was drawn: give another"
    ):
        SampleFolder(tmp_path, keep=True).open({"seed": 0}, [0], {"files": made})
    assert not (tmp_path / "sample.json").exists()
    SampleFolder(tmp_path, keep=True).open({"seed": 0}, [0], {"files": ["samples.npz"]})
    assert (tmp_path / name).read_text() == "mine"
    SampleFolder(tmp_path, keep=True).open({"seed": 0}, [0], {"files": made})


def test_what_is_made_of_images_that_are_not_kept_is_made_once(tmp_path: Path) -> None:
    """Of the same images in the same way, and as long as it is there."""
    settings, product = {"seed": 0}, {"files": ["samples.npz"], "indices": [0, 2]}

    def missing(product: dict[str, object]) -> list[int]:
        folder = SampleFolder(tmp_path, keep=False)
        found = folder.open(settings, [0, 1], product)
        for i in found:
            folder.save(i, torch.zeros(1, 2, 2, dtype=torch.uint8))
        if found:
            (tmp_path / "samples.npz").touch()
            folder.close()
        folder.release()
        return found

    assert [missing(product) for _ in range(3)] == [[0, 1], [], []]
    assert [missing(product | {"indices": [0, 1]}) for _ in range(2)] == [[0, 1], []]
    (tmp_path / "samples.npz").unlink()
    assert missing(product | {"indices": [0, 1]}) == [0, 1]


def test_a_folder_is_drawn_into_by_one_command_at_a_time(tmp_path: Path) -> None:
    """Which would remove what the other is writing, for a leftover, and its images once it has put them together."""
    out = tmp_path / "a folder = 1"
    first, second = (SampleFolder(out, keep=False) for _ in range(2))
    assert first.open({"seed": 0}, [0], {"files": []}) == [0]
    with pytest.raises(ValueError, match=r"another command is drawing into .*a folder = 1: wait .* out=DIR"):
        second.open({"seed": 0}, [0], {"files": []})
    first.release()
    assert second.open({"seed": 0}, [0], {"files": []}) == [0]
    second.release()


def test_a_folder_that_is_removed_while_it_is_drawn_into_is_named(tmp_path: Path) -> None:
    """Not made anew, with a part of the images that would be taken for all."""
    folder, image = SampleFolder(tmp_path / "out", keep=True), torch.zeros(1, 2, 2, dtype=torch.uint8)
    folder.open({"seed": 0}, [0, 1], {"files": []})
    folder.save(0, image)
    shutil.rmtree(folder.out)
    with pytest.raises(UnwritableError, match="was removed or moved while images were drawn into it"):
        folder.save(1, image)
    assert not folder.out.exists()


def test_the_lock_of_a_command_that_began_later_stays(tmp_path: Path) -> None:
    """In a folder that was removed under the first."""
    first, second, third = (SampleFolder(tmp_path / "out", keep=True) for _ in range(3))
    first.open({"seed": 0}, [0], {"files": []})
    shutil.rmtree(first.out)
    second.open({"seed": 0}, [0], {"files": []})
    first.release()
    with pytest.raises(ValueError, match="another command is drawing into"):
        third.open({"seed": 0}, [0], {"files": []})
    second.release()
    assert third.open({"seed": 0}, [0], {"files": []}) == [0]
    third.release()


def edm_dataset(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """What EDM's `training/dataset.py` makes of a ZIP file: images in the order of their names, and their labels."""
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".png"))
        images = [np.array(Image.open(io.BytesIO(archive.read(name)))) for name in names]
        labels = dict(json.loads(archive.read("dataset.json"))["labels"])
    return np.stack(images), np.array([labels[name] for name in names], dtype=np.int64)


def test_every_format_has_the_same_images(run: Path, tmp_path: Path) -> None:
    options = ("format=[npz,zip,shards,png,grid]", "caption=true", "labels=[7,2]", "offset=999", "num_samples=40")
    done = run_forked("sample", f"ckpt={run}", "sampler.num_steps=2", *options, "out=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    files = sorted((out / "png").glob("*.png"))
    images, labels = np.stack([np.array(Image.open(file)) for file in files]), [2, 7] * 20  # 999 is odd
    with np.load(out / "samples.npz") as arrays:
        assert arrays["arr_0"].dtype == np.uint8 and np.array_equal(arrays["arr_0"], images[..., None])
        assert arrays["arr_1"].dtype == np.int64 and arrays["arr_1"].tolist() == labels
    with zipfile.ZipFile(out / "samples.zip") as archive:
        assert archive.namelist()[:2] == ["00000/img00000999.png", "00001/img00001000.png"]
    packed, classes = edm_dataset(out / "samples.zip")
    assert np.array_equal(packed, images) and classes.tolist() == labels
    data = MemmapData(root=str(out / "shards"))
    data.setup()
    stored = {split: data.splits[split].fetch(range(len(data.splits[split]))) for split in data.splits}
    rows = {
        (image.numpy().tobytes(), int(label)) for pair in stored.values() for image, label in zip(*pair, strict=True)
    }
    assert rows == {(image.tobytes(), label) for image, label in zip(images, labels, strict=True)}
    assert data.num_classes == 10 and sum(map(len, data.splits.values())) == 40


def test_more_images_take_the_place_of_earlier_shards(tmp_path: Path) -> None:
    files = [tmp_path / f"{i}.png" for i in range(20)]
    for i, file in enumerate(files):
        save_image(torch.full((3, 4, 4), i, dtype=torch.uint8), file)
    for count in (10, 20):
        save_shards(files[:count], None, None, tmp_path / "shards")
        data = MemmapData(root=str(tmp_path / "shards"))
        data.setup()
        assert sum(map(len, data.splits.values())) == count
    (tmp_path / "shards" / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"more in it than a prepared set \(it has thesis\.txt\)"):
        save_shards(files[:10], None, None, tmp_path / "shards")
    assert (tmp_path / "shards" / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["out=taken"], "taken/sample.json cannot be written"),
        (["out=there"], "grid.png is a folder"),
        (["out=there", "format=shards"], "shards is not a prepared set, but not empty either (it has thesis.txt)"),
    ],
)
def test_a_place_that_is_taken_is_found_before_anything_is_drawn(
    options: list[str], words: str, run: Path, tmp_path: Path
) -> None:
    (tmp_path / "taken").touch()
    (tmp_path / "there" / "grid.png").mkdir(parents=True)
    (tmp_path / "there" / "shards").mkdir()
    (tmp_path / "there" / "shards" / "thesis.txt").touch()
    done = run_forked("sample", f"ckpt={run}", *options, cwd=tmp_path)
    assert done.returncode == 1 and words in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert "sampling:" not in done.stderr and not list(tmp_path.rglob(".drawn"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["indices=[1,2]", "num_samples=3"], "num_samples would be ignored"),
        (["indices=[1,2]", "++num_samples=3"], "num_samples would be ignored"),
        (["indices=[1,1]"], "each once"),
        (["indices=[-1]"], "whole numbers from 0"),
        (["offset=-1"], "offset of at least 0"),
        (["format=shards", "num_samples=2"], "at least 3 images"),
        (
            ["num_samples=401"],
            r"format=grid shows 400 images at most, and the others of 401 would .* use format=\[grid,png\]",
        ),
        (["caption=true", "format=[png,npz]"], "caption=true writes below a grid, and would be ignored"),
        (["format=[]"], "grid, png, npy, npz, zip, shards or a list of these"),
    ],
)
def test_what_cannot_be_drawn_is_refused(settings: list[str], words: str) -> None:
    given = OmegaConf.from_dotlist([setting.lstrip("+") for setting in settings])
    cfg = OmegaConf.merge(OmegaConf.load(CONFIG_FOLDER / "sample.yaml"), given)
    assert isinstance(cfg, DictConfig)
    with pytest.raises(ValueError, match=words):
        indices_of(cfg, settings)


def test_nothing_of_earlier_batches_is_kept() -> None:
    alive: list[weakref.ref[Tensor]] = []
    for _, images in draw(tiny(), range(80), None, 0, 16):
        assert sum(ref() is not None for ref in alive) <= 1  # the loop's own name for the last one
        alive.append(weakref.ref(images))
    assert len(alive) == 5


def test_a_batch_that_does_not_fit_is_halved(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    setup, sizes = tiny(), []
    every = drawn(setup, range(20))

    def limited(denoiser: nn.Module, sampler: DDIMSampler, indices: list[int], *args: object) -> Tensor:
        sizes.append(len(indices))
        if len(indices) > limit:
            raise failure
        return sampled(denoiser, sampler, indices, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(drawing, "sampled", limited)
    limit = 4
    for failure in (  # noqa: B007
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ):
        sizes.clear()
        caplog.clear()
        assert (drawn(setup, range(20)).int() - every).abs().max() <= 1
        assert sizes == [16, 8, 4, 4, 4, 4, 4]
        assert [record.getMessage() for record in caplog.records] == [
            "the memory of cpu holds 4 images at a time, and not 16"
        ]
    limit = 0
    with pytest.raises(ValueError, match="not enough memory on cpu to draw one image"):
        drawn(setup, range(2))
    failure = RuntimeError("another")
    with pytest.raises(RuntimeError, match="another"):
        drawn(setup, range(2))


def test_a_network_is_compiled_though_the_batch_it_is_tried_with_does_not_fit() -> None:
    """It is halved when images are drawn."""
    denoiser = tiny().denoiser

    def fail(module: nn.Module, given: object) -> None:
        raise failure

    denoiser.register_forward_pre_hook(fail)
    failure: Exception = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    precision.compile_networks([], denoiser, 4, "cpu")
    failure = RuntimeError("no compiler\nat all")
    with pytest.raises(ValueError, match=r"compile=true: torch cannot compile here \(no compiler\); use compile=false"):
        precision.compile_networks([], denoiser, 4, "cpu")


def test_an_image_that_is_not_finite_is_named() -> None:
    setup = tiny()

    def spoil(denoiser: nn.Module, sampler: DDIMSampler, indices: list[int], *args: object) -> Tensor:
        x_0 = sampled(denoiser, sampler, indices, *args)  # type: ignore[arg-type]
        x_0[[i == 17 for i in indices], 0, 3, 3] = value
        return x_0

    for value in (torch.nan, torch.inf):  # noqa: B007
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(drawing, "sampled", spoil)
            assert len(drawn(setup, range(17))) == 17
            with pytest.raises(ValueError, match=r"image 17 is not finite.*precision=32-true, weights=raw"):
                drawn(setup, range(40))


def test_the_command_names_an_image_that_is_not_finite(run: Path, tmp_path: Path) -> None:
    damaged(run, tmp_path / "x.ckpt")
    done = run_forked("sample", f"ckpt={tmp_path / 'x.ckpt'}", *DRAWN, "out=out", cwd=tmp_path)
    assert done.returncode == 1 and "image 0 is not finite" in done.stderr and "Traceback" not in done.stderr, done
    assert "weights=raw" in done.stderr and not pngs(tmp_path / "out")


@pytest.mark.slow
def test_a_compiled_network_draws_the_same(run: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    done = run_forked("sample", f"ckpt={run}", *DRAWN, "compile=true", "out=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    compiled = pngs(tmp_path / "out")
    for name, image in whole.items():
        pixels, again = (np.array(Image.open(io.BytesIO(data))).astype(int) for data in (image, compiled[name]))
        assert np.abs(pixels - again).max() <= 1, name


def test_only_the_network_runs_in_the_precision() -> None:
    setup, seen = tiny(), []
    exact = drawn(setup, range(4))
    precision.run_network_in(setup.denoiser, "bf16-mixed")  # type: ignore[arg-type]
    setup.denoiser.network.last.register_forward_hook(lambda *call: seen.append(call[2].dtype))  # type: ignore[union-attr]
    setup.denoiser.register_forward_hook(lambda *call: seen.append(call[2].x_0.dtype))
    rounded = drawn(setup, range(4))
    assert seen == [torch.bfloat16, torch.float32] * 3
    assert setup.denoiser.network.time.frequencies.dtype == torch.float32  # type: ignore[union-attr]
    assert 0 < (rounded.float() - exact).abs().mean() < 8
    with pytest.raises(ValueError, match=r"precision must be one of 32-true, .*, or null for the run's own; got fp8"):
        precision.check_precision("fp8")


def test_uniform_labels_are_a_function_of_the_index() -> None:
    labels = choose_labels("uniform", 4, None, None, 1)
    assert labels is not None
    counts = np.bincount([labels[i] for i in range(2000)], minlength=4)
    assert ((counts - 500) ** 2 / 500).sum() < 16.3  # chi-squared with 3 degrees of freedom: 1 in 1000
    again, other = choose_labels("uniform", 4, None, None, 1), choose_labels("uniform", 4, None, None, 2)
    assert again is not None and other is not None and labels[77] == again[77]
    assert [labels[i] for i in range(50)] != [other[i] for i in range(50)]


def test_labels_in_the_proportions_of_the_data() -> None:
    labels = choose_labels("data", 3, None, [60, 0, 20], 0)
    assert labels is not None
    for start in (0, 12345):
        counts = np.bincount([labels[i] for i in range(start, start + 200)], minlength=3)
        assert abs(counts[0] - 150) <= 3 and counts[1] == 0
    for shares in ([60, 0, 20], [900, 90, 9, 1], [1] * 100):
        labels = choose_labels("data", len(shares), None, shares, 0)
        assert labels is not None
        for num in (7, 1000, 10_000):
            found = np.bincount([labels[i] for i in range(num)], minlength=len(shares))
            assert np.abs(found - np.array(shares) * num / sum(shares)).max() <= 3
    with pytest.raises(ValueError, match="labels=data takes the proportions of the training images"):
        choose_labels("data", 3, None, None, 0)
    named = choose_labels("data", 2, ["data", "uniform"], None, 0)
    assert named is not None and named[5] == 0, "a class that is called so"


def test_a_checkpoint_counts_its_classes(run: Path, tmp_path: Path) -> None:
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert sum(checkpoint["class_counts"]) == 288 and len(checkpoint["class_counts"]) == 10
    done = run_forked("sample", f"ckpt={run}", "labels=data", "sampler.num_steps=1", "out=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("labels", "num", "columns"),
    [
        (None, 400, 20),
        (None, 10, 4),
        ([i % 10 for i in range(64)], 64, 10),
        ([3, 1, 4] * 21, 63, 9),
        ([7] * 64, 64, 8),
        ([i % 24 for i in range(400)], 400, 24),
        ([i % 24 for i in range(64)], 64, 8),
        ([i % 1000 for i in range(64)], 64, 8),
    ],
)
def test_a_grid_is_nearly_square_with_columns_for_classes(labels: list[int] | None, num: int, columns: int) -> None:
    assert choose_columns(labels, num) == columns
    titles = titles_of(labels, columns, None)
    if labels is None:
        assert titles is None
    else:
        shown = [titles[i if len(titles) > columns else i % columns] for i in range(num)]  # type: ignore[index, arg-type]
        assert shown == [str(label) for label in labels], "what stands above an image is its class"


def test_titles_have_letters_of_many_languages() -> None:
    """A font that lacks them draws one box for each."""
    images = torch.zeros(1, 1, 48, 48, dtype=torch.uint8)
    drawn = [image_grid(images, 1, [letter])[:, :HEADER] for letter in "üßéłΩЖ"]
    assert all(not torch.equal(a, b) for i, a in enumerate(drawn) for b in drawn[:i])


def test_titles_have_a_font_of_this_machine_that_has_their_letters(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where DejaVu Sans lacks one, the plainest that has them all; where none has, it is said."""
    from matplotlib import get_data_path
    from matplotlib.font_manager import FontEntry, fontManager

    def font(file: str, name: str, style: str = "normal") -> FontEntry:
        return FontEntry(fname=str(folder / file), name=name, style=style, weight=400)

    folder = Path(get_data_path()) / "fonts" / "ttf"
    italic, plain = font("STIXGeneralItalic.ttf", "A", "italic"), font("STIXGeneral.ttf", "B")
    boxes, gone = font("LastResortHE-Regular.ttf", "Last Resort High-Efficiency"), font("removed.ttf", "A")
    monkeypatch.setattr(fontManager, "ttflist", [italic, boxes, gone, plain])
    monkeypatch.setattr(title_font, "BOXES", [])
    for remembered in (title_font.file_for, title_font.others):
        remembered.cache_clear()
    assert Path(font_for("cat Ⓑ", 11).path).name == "STIXGeneral.ttf" and font_for("cat Ⓑ", 11).size == 11
    assert Path(font_for("cat", 11).path).name == "DejaVuSans.ttf" and not caplog.messages
    for _ in range(2):
        assert Path(font_for("Ⓑ 猫", 11).path).name == "DejaVuSans.ttf"
    font_for("写真", 11)
    assert caplog.messages == [
        "no font of this machine has all of Ⓑ猫: boxes are drawn. Install one, such as Noto Sans CJK"
    ]


def test_a_grid_has_room_for_titles_and_a_caption() -> None:
    images = torch.zeros(6, 1, 48, 48, dtype=torch.uint8)
    plain = image_grid(images, 3)
    assert plain.shape == (1, 102, 152)
    assert image_grid(images, 3, list("abc")).shape == (1, 118, 152)
    above = image_grid(images, 3, list("abcdef"))
    assert above.shape == (1, 134, 152) and above[0, :16].max() > 100 and above[0, 66:82].max() > 100
    lines = image_grid(images, 3, caption="step 1000, DDIM in 50 steps, guidance 2, seed 0")
    assert torch.equal(lines[:, :102], plain) and lines.shape[1] in (134, 150) and lines[0, 102:118].max() > 100


def test_a_caption_counts_steps_where_the_sampler_does() -> None:
    cfg, setup = OmegaConf.create({"guidance": 2.0, "seed": 3}), tiny()
    assert caption_of(cfg, setup) == "step 0, DDIM in 3 steps, guidance 2, seed 3"
    assert "DDIM in 1 step, " in caption_of(cfg, replace(setup, sampler=DDIMSampler(1)))
    assert "ODE to 0.0001, " in caption_of(cfg, replace(setup, sampler=ODESampler()))
