"""The devices of this machine, for tests that hold on all of them."""

import torch

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
EVERY_DEVICE = "device", DEVICES
"""Arguments of ``pytest.mark.parametrize``. ``make test-simcuda`` runs such tests on a simulated CUDA device."""
