"""A checkpoint's config imports no code: it may come from a stranger."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from coordconv_apps.cli.checkpoint_config import trusted_config
from coordconv_apps.utils.errors import UserError
from rl.__main__ import main as reinforcement_learning
from tests.helpers.refusals import refusal
from tests.toy.__main__ import main
from tests.toy.tasks import DotTask

FROM_HOME = os.path.relpath(__file__, Path.home())
PLAIN = "lightning.pytorch.callbacks.EMAWeightAveraging"
PLANTED = "raise SystemExit('the planted module was imported')"

SAVED: list[tuple[dict[str, Any], str]] = [
    ({"trainer": {"callbacks": [{"class_path": "planted.Callback"}]}}, "trainer.callbacks.class_path=planted.Callback"),
    ({"trainer": {"callbacks": ["planted.Callback"]}}, "trainer.callbacks=planted.Callback"),
    ({"trainer": {"callbacks": '[{"class_path": "planted.B"}]'}}, "trainer.callbacks.class_path=planted.B"),
    ({"trainer": {"callbacks": "[a, planted.C]"}}, "trainer.callbacks=planted.C"),
    ({"trainer": {"callbacks": "!!set {planted.D}"}}, "trainer.callbacks=planted.D"),
    ({"trainer": {"callbacks": {"planted.E"}}}, "trainer.callbacks=planted.E"),
    ({"trainer": {"callbacks": [__file__]}}, f"trainer.callbacks={__file__}"),
    ({"trainer": {"callbacks": f"~/{FROM_HOME}"}}, f"trainer.callbacks=~/{FROM_HOME}"),
    ({"trainer": {"callbacks": f"file://{__file__}"}}, f"trainer.callbacks=file://{__file__}"),
    ({"trainer": {"strategy": "planted.Strategy"}}, "trainer.strategy=planted.Strategy"),
    ({"trainer": {"logger": {"class_path": "planted.a.Logger"}}}, "trainer.logger.class_path=planted.a.Logger"),
    ({"model": {"init_args": {"x": {"a": {"class_path": "planted.A"}}}}}, "model.x.a.class_path=planted.A"),
    (
        {"trainer": {"callbacks": [{"class_path": PLAIN, "init_args": {"multi_avg_fn": "planted.f"}}]}},
        "trainer.callbacks.multi_avg_fn=planted.f",
    ),
    (
        {"trainer": {"callbacks": [{"class_path": PLAIN, "init_args": {"theme": "planted.C"}}]}},
        "trainer.callbacks.theme=planted.C",
    ),
    ({"model": {"dict_kwargs": {"game": "planted:x"}}}, "model.game=planted:x"),
    ({"trainer": {"callbacks+": ["planted.C"]}}, "trainer.callbacks=planted.C"),
    ({"trainer": {"callbacks+": "ModelCheckpoint"}}, "trainer.callbacks=ModelCheckpoint"),
    ({"trainer": {"callbacks": "ModelCheckpoint"}}, "trainer.callbacks=ModelCheckpoint"),
    ({"trainer": {"logger": [{"class_path": "CSVLogger"}]}}, "trainer.logger.class_path=CSVLogger"),
    (
        {"trainer": {"strategy": {"class_path": "lightning.pytorch.strategies.DDPStrategy"}}},
        "trainer.strategy.class_path=lightning.pytorch.strategies.DDPStrategy",
    ),
    (
        {
            "trainer": {
                "callbacks": {"class_path": "lightning.pytorch.callbacks.Timer", "init_args": {"x.class_path": "F"}}
            }
        },
        "trainer.callbacks.x.class_path=F",
    ),
    ({"model": {"init_args": {"game": "planted:Game-v0"}}}, "model.game=planted:Game-v0"),
    ({"model": {"init_args": {"game": "planted: x"}}}, "model.game=planted: x"),  # a mapping for YAML
    ({"model": {"init_args": {"game": "{planted:x: 1}"}}}, "model.game={planted:x: 1}"),
    ({"model": {"init_args": {"x": {"a": {"class_path": "torch.nn.Linear"}}}}}, "model.x.a.class_path=torch.nn.Linear"),
    ({"data": {"x": [{"class_path": "os.system"}]}}, "data.x.class_path=os.system"),
]


def check(saved: dict[str, Any], typed: str = "", given: tuple[str, ...] = ()) -> dict[str, Any]:
    return trusted_config(saved, given, Path("a.ckpt"), {"game"}, typed)


@pytest.mark.parametrize(("saved", "named"), SAVED, ids=[named for _, named in SAVED])
def test_code_of_others_is_refused_unless_the_user_names_it(saved: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=f"^--ckpt_path=a.ckpt: its {named} may run code or write anywhere"):
        check(saved)
    name = named.partition("=")[2]
    check(saved, f"--some.flag={name}")
    with pytest.raises(UserError, match="may run code"):
        check(saved, f"--some.flag=a{name} --other={name}.b")  # other names


def test_code_that_the_command_line_replaces_is_left_out() -> None:
    given = ("trainer.callbacks", "trainer.strategy", "data.x", "model.init_args.game", "model.init_args.x")
    for saved, named in SAVED:
        if named.startswith(("trainer.callbacks", "trainer.strategy", "data")):
            assert check(saved, given=given) == {section: {} for section in saved}
            continue
        with pytest.raises(UserError, match="may run code or write anywhere"):
            check(saved, given=given)
    # jsonargparse takes a key with a dot for one within another argument.
    hidden = {"trainer": {"callbacks": None, "callbacks.class_path": "planted.Callback"}}
    with pytest.raises(
        UserError, match=r"its trainer\.callbacks\.class_path=planted\.Callback may run code or write anywhere"
    ):
        check(hidden, given=given)


def test_plain_callbacks_and_the_class_of_the_task_are_used() -> None:
    callbacks = [{"class_path": "lightning.pytorch.callbacks.EarlyStopping", "init_args": {"monitor": "val/a.b"}}]
    model = {"class_path": "rl.PPO", "init_args": {"game": "CarRacing-v3", "file": "planted.pt", "where": "a.b"}}
    check({"trainer": {"callbacks": callbacks, "strategy": "ddp", "devices": "0,1"}, "model": model, "data": {}})


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[dict[str, Any]], None]], list[str]]:
    """Plants a module on the path, and in the checkpoint of a training what names it."""
    (tmp_path / "planted.py").write_text(PLANTED)
    monkeypatch.syspath_prepend(str(tmp_path))
    main(["fit", f"--runs_dir={tmp_path}", "--trainer.max_epochs=1"])

    def plant(change: Callable[[dict[str, Any]], None]) -> list[str]:
        path = tmp_path / "toy" / "default" / "version_0" / "checkpoints" / "last.ckpt"
        checkpoint = torch.load(path, weights_only=True)
        change(checkpoint["run"]["config"])
        torch.save(checkpoint, path)
        return [f"--runs_dir={tmp_path}", "--ckpt_path=last", "--trainer.max_epochs=2"]

    return plant


def test_no_command_imports_what_a_checkpoint_names(
    planted: Callable[[Callable[[dict[str, Any]], None]], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    args = planted(lambda config: config["trainer"].update(callbacks=[{"class_path": "planted.Callback"}]))
    assert "may run code or write anywhere" in refusal(capsys, main, ["fit", *args])
    with pytest.raises(SystemExit, match="the planted module was imported"):
        main(["fit", *args, "--trainer.callbacks=planted.Callback"])
    main(["test", *args[:2]])  # uses no callbacks of the training
    main(["fit", *args, "--trainer.callbacks=null"])
    monkeypatch.setattr(DotTask, "import_args", frozenset({"trouble"}))
    args = planted(lambda config: config["model"]["init_args"].update(trouble="planted:Game-v0"))
    for command in ("fit", "validate", "test", "predict", "export"):
        assert "model.trouble=planted:Game-v0 may run code or write anywhere" in refusal(capsys, main, [command, *args])
    args = planted(lambda config: config["model"].update(class_path="planted.tasks.Task"))
    error = refusal(capsys, main, ["test", *args])
    assert "this is a checkpoint of planted.tasks.Task, a task of another application: python -m planted" in error
    args = planted(lambda config: config.update(trainer='{"callbacks": ["planted.Callback"]}'))
    assert "not a readable checkpoint" in refusal(capsys, main, ["fit", *args])


def test_a_value_for_an_argument_of_any_type_is_no_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    game = ["--model.game=CartPole-v1", "--model.arguments={a: {class_path: collections.Counter}}"]
    told = refusal(capsys, reinforcement_learning, ["fit", f"--runs_dir={tmp_path}", "--config=quickstart", *game])
    assert "model.arguments={'a': {'class_path': 'collections.Counter'" in told


def test_the_next_command_names_the_code_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    task = "class Mine(ToyTask):\n    import_args = frozenset({'trouble'})\n"
    (tmp_path / "mine.py").write_text(f"from tests.toy.tasks import ToyTask\n\n\n{task}")
    monkeypatch.syspath_prepend(str(tmp_path))
    named = ["--model=mine.Mine", "--model.trouble=mine:Game-v0"]
    main(["fit", f"--runs_dir={tmp_path}", "--trainer.max_epochs=1", *named])
    (following,) = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("  next ")]
    assert following[-2:] == named
    main(following[4:])
    assert "test/distance" in capsys.readouterr().out
