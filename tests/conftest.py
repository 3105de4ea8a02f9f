"""What holds for all tests, and for the processes that they start."""

import os
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]

torch.set_num_threads(1)  # on images this small, threads only wait for each other, and the tests run side by side
os.environ["OMP_NUM_THREADS"] = "1"
# This checkout's source, whatever is installed; and the tests, of which loading processes unpickle classes.
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
