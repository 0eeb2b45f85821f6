"""What the process imports that `tests.helpers.forked` forks commands from: packages take seconds to import."""

import importlib

import torch

for package in ("classification", "coordconv_apps.coordinates", "detection", "generative", "rl"):
    for module in ("data", "pictures", "tasks"):
        importlib.import_module(f"{package}.{module}")
for module in ("coordconv_apps.cli.app", "tests.toy.tasks"):
    importlib.import_module(module)

torch.set_num_threads(1)  # a fork has one thread only
