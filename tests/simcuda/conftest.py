"""The tests in ``on_device`` run on the simulated device only: ``make test-simcuda``."""

import os

from tests.simcuda.build import ON

collect_ignore = [] if os.environ.get(ON) else ["on_device"]
