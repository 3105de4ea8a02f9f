"""`python -m tests.evaluation.begin FOLDER`: begin to compute features, which another process may be at."""

import logging
import sys
from pathlib import Path

from diffusion_lit.evaluation.feature_folder import FeatureFolder

logging.basicConfig(level=logging.INFO, force=True)
FeatureFolder(Path(sys.argv[1]), {"images": "x"}, 3).begin().release()
