"""Training without Hydra: objects put together by hand, and Lightning's own Trainer.

Every part is a class that can be used alone. What the `train` command adds is the run's folder: checkpoints, resuming,
figures, pictures, and checks of what the parts must agree on.

    python examples/plain_objects.py            writes plain_objects.png after a minute or two on a CPU
"""

from functools import partial

import torch
from lightning.pytorch import Trainer, seed_everything
from PIL import Image
from torch import Tensor

from diffusion_lit import Denoiser, DiffusionModule
from diffusion_lit.callback import EMA, averaged_weights
from diffusion_lit.data import DigitsData
from diffusion_lit.density import UniformDensity
from diffusion_lit.generate import generate
from diffusion_lit.loss import MSELoss
from diffusion_lit.lr_schedule import WarmupLR
from diffusion_lit.model import UNet
from diffusion_lit.parameterization import VParameterization
from diffusion_lit.picture.grid import picture_of
from diffusion_lit.picture.image import as_array
from diffusion_lit.sampler import DDIMSampler
from diffusion_lit.schedule import CosineSchedule
from diffusion_lit.weighting import UnitWeighting


def main(max_steps: int = 500, channels: int = 32) -> Tensor:
    """Train on 8 x 8 digits; two images of each, uint8 [20, 1, 8, 8]."""
    seed_everything(0)
    data = DigitsData(batch_size=64)
    network = UNet(
        resolution=data.resolution,
        image_channels=data.channels,
        num_classes=data.num_classes,
        channels=channels,
        channel_multipliers=(1, 2),
        num_res_blocks=1,
        attention_resolutions=(4,),
        num_groups=8,
    )
    denoiser = Denoiser(network, CosineSchedule(), VParameterization())
    module = DiffusionModule(
        denoiser,
        loss=MSELoss(UniformDensity(), UnitWeighting()),
        optimizer=partial(torch.optim.AdamW, lr=1e-3, betas=(0.9, 0.99)),
        lr_schedule=WarmupLR(num_steps=100),
        label_dropout=0.1,  # so that guidance works
    )
    trainer = Trainer(
        accelerator="cpu",
        max_steps=max_steps,
        max_epochs=-1,
        gradient_clip_val=1.0,
        callbacks=[EMA(decay=0.99)],
        logger=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,  # the data module shares images out itself
    )
    trainer.fit(module, data)
    labels = [i % 10 for i in range(20)]
    with torch.inference_mode(), averaged_weights(trainer, module):
        return generate(denoiser, DDIMSampler(num_steps=50), range(20), labels, seed=0)


if __name__ == "__main__":
    images = main()
    picture = picture_of(images, labels=[i % 10 for i in range(20)], names=None, columns=10)
    Image.fromarray(as_array(picture)).save("plain_objects.png")
