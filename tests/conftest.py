"""What holds for every test."""

import torch

# Several threads in each of several test processes only wait for one another.
torch.set_num_threads(1)
