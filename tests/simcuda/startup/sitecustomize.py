"""Turn the simulation on in every Python process whose environment asks for it. Python imports this when it starts."""

import os
import sys
from pathlib import Path

if os.environ.get("SIM_CUDA"):
    sys.path.append(str(Path(__file__).parents[3]))
    from tests.simcuda.simulated import install

    install()
