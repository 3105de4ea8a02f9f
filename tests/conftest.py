"""One thread a process: on images this small, threads only wait for each other, and the tests run side by side."""

import torch

torch.set_num_threads(1)
