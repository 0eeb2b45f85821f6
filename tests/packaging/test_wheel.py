"""What a wheel holds, and what runs where only the packages that it declares are installed."""

from __future__ import annotations

import textwrap
from pathlib import Path

from tests.packaging.environments import isolated_environment, metadata, run_isolated
from tests.packaging.source import PACKAGES, ROOT

EXTRAS = {
    "classification": "classification",
    "coordconv_apps.compare": "compare",
    "coordconv_apps.coordinates": "coordinates",
    "detection": "detection",
    "generative": "generative",
    "rl": "rl",
}


def test_wheel_holds_every_module_and_config(wheel: Path) -> None:
    def files(folder: Path) -> set[str]:
        patterns = ("**/*.py", "**/configs/*.yaml", "**/py.typed", "**/templates/*")
        return {
            str(file.relative_to(folder))
            for package in PACKAGES
            for pattern in patterns
            for file in (folder / package).glob(pattern)
        }

    assert files(wheel) == files(ROOT)
    assert {path.name for path in wheel.iterdir() if path.suffix != ".dist-info"} == set(PACKAGES)


def test_layers_run_with_torch_alone(wheel: Path, tmp_path: Path) -> None:
    code = """
        import importlib.util
        for name in ("numpy", "lightning", "torchvision", "stable_baselines3", "gymnasium", "yaml", "PIL"):
            assert importlib.util.find_spec(name) is None, name
        import torch
        from coordconv_apps import CoordConv2d, fold, to_coordconv
        x = torch.rand(2, 3, 8, 9)
        assert CoordConv2d(3, 4, 3)(x).shape == (2, 4, 6, 7)
        model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 3)).eval()
        expected = model(x)
        to_coordconv(model, "all", coords="xyr")
        assert torch.allclose(model(x), expected, atol=1e-6)
        assert torch.allclose(fold(model, x.shape)(x), model(x), atol=1e-6)
        import coordconv_apps, pkgutil
        assert coordconv_apps.__version__ == sys.argv[1]
        for module in pkgutil.iter_modules(coordconv_apps.nn.__path__, "coordconv_apps.nn."):
            importlib.import_module(module.name)
        print("passed")
    """
    version = f"sys.argv = ['', {metadata(wheel).version!r}]\n"
    result = run_isolated(isolated_environment(tmp_path, wheel), version + textwrap.dedent(code))
    assert result.stdout == "passed\n", result.stderr
    assert not result.returncode, result.stderr


def test_applications_name_their_missing_extra(wheel: Path, tmp_path: Path) -> None:
    code = f"""
        import runpy, warnings
        from coordconv_apps.utils.config_files import shipped_configs
        warnings.simplefilter("ignore")  # torch warns that there is no numpy
        for module in {list(EXTRAS)}:
            config = next(iter(shipped_configs(module)), "any")  # reading it needs a package
            sys.argv = ["-m", "fit", "--config", config]  # as Python has it while it looks for the module
            try:
                runpy.run_module(module, run_name="__main__", alter_sys=True)
            except SystemExit as error:
                print(error.code)
    """
    result = run_isolated(isolated_environment(tmp_path, wheel), textwrap.dedent(code))
    assert result.stdout.split() == ["2"] * len(EXTRAS), result.stderr
    for line, extra in zip(result.stderr.splitlines(), EXTRAS.values(), strict=True):
        assert line.startswith("error: ")
        assert line.endswith(f" is not installed; run: pip install 'coordconv-apps[{extra}]'")


def test_policies_run_with_stable_baselines3_alone(wheel: Path, tmp_path: Path) -> None:
    code = """
        import importlib.util
        for name in ("lightning", "torchvision", "ale_py", "matplotlib"):
            assert importlib.util.find_spec(name) is None, name
        import coordconv_apps.data.loaders
        from stable_baselines3 import A2C
        from rl import CoordConvCnnPolicy, CoordConvNatureCNN
        from rl.policy_files import export_safe, load_safe
        model = A2C(CoordConvCnnPolicy, "CoordConv/Catch-v0", n_steps=4, seed=0).learn(8)
        assert isinstance(model.policy.features_extractor, CoordConvNatureCNN)
        export_safe(model, "policy.zip")
        load_safe("policy.zip")
        print("passed")
    """
    result = run_isolated(isolated_environment(tmp_path, wheel, "sb3"), textwrap.dedent(code))
    assert result.stdout == "passed\n", result.stderr
