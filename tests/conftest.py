"""What holds for every test."""

import os

import torch

# Several threads in each of several test processes only wait for one another.
torch.set_num_threads(1)

# Pages are drawn by their own tests: drawing one takes longer than most of the trainings here.
os.environ.setdefault("COORDCONV_REPORT", "0")
