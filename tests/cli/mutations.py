"""Mutated command lines and configs of an application, made of its own arguments and the configs that it ships."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from coordconv_apps.data.datamodule import DataModule
from coordconv_apps.training.task import Task

Main = Callable[[Sequence[str]], None]


@dataclass(frozen=True)
class Application:
    """An application, and the flags with which a training of it takes a moment."""

    package: str
    main: Main
    tasks: Mapping[str, type[Task]]  # by the name of the shipped config
    data: type[DataModule]
    small: tuple[str, ...]
    small_of: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # more of them, by the name of a config

    def flags(self, config: str) -> tuple[str, ...]:
        """Return the flags with which a training with a config takes a moment."""
        return (*self.small, *self.small_of.get(config, ()))

    def arguments(self, config: str) -> dict[str, Any]:
        """Return the types of all arguments of task and data by their flags' names."""
        sections = {"model": self.tasks[config], "data": self.data}
        return {
            f"{section}.{name}": hint
            for section, owner in sections.items()
            for name, hint in get_type_hints(owner.__init__).items()
            if name != "return"
        }


@dataclass(frozen=True)
class Mutation:
    """One wrong command.

    Attributes:
        flags: What is added to the command line.
        culprits: Words of which the message has at least one.
        config: Content of the config file; None for the shipped one.
        surely_wrong: Whether it must be refused before anything is written; otherwise it may also run.
    """

    config_name: str
    flags: tuple[str, ...]
    culprits: tuple[str, ...]
    config: bytes | None = None
    surely_wrong: bool = True

    def __str__(self) -> str:
        content = "" if self.config is None else f" with a config of {self.config[:300]!r}"
        return f"fit {self.config_name} {' '.join(map(ascii, self.flags))}{content}"


def mutations(application: Application, shipped: Mapping[str, str], seed: int = 0) -> Iterator[Mutation]:
    """Yield mutations of an application without end, always the same ones.

    Args:
        application: The application.
        shipped: The text of each config that it ships.
        seed: Seed of the choices.
    """
    rng = random.Random(f"{application.package} {seed}")
    makers = [_typo, _wrong_type, _changed_config, _extreme, _broken_flag, _wrong_type, _changed_config]
    for make in itertools.cycle(makers):
        name = rng.choice(sorted(application.tasks))
        yield make(rng, application, name, shipped[name])


# ------------------------------------------------------------------- command line

_TRAINER: dict[str, Any] = {
    "trainer.max_epochs": int | None,
    "trainer.max_steps": int,
    "trainer.limit_train_batches": int | float | None,
    "trainer.log_every_n_steps": int | None,
    "trainer.accumulate_grad_batches": int,
    "trainer.gradient_clip_val": int | float | None,
    "trainer.enable_progress_bar": bool | None,
    "trainer.deterministic": bool | Literal["warn"] | None,
    "seed_everything": int,
    "allow_random_weights": bool,
}

_VALUES = ("x y", "1.5", "[1, 2]", "{a: 1}", "null", "true", "3", "", "ünï", "[[]]", "1_x", "-", "0x1g", "'x'")


def _typo(rng: random.Random, application: Application, name: str, text: str) -> Mutation:
    arguments = {**application.arguments(name), **_TRAINER}
    while True:
        key = rng.choice(sorted(arguments))
        place = rng.randrange(len(key) - 1)
        wrong = rng.choice(
            [
                key[:place] + key[place + 1 :],
                key[:place] + key[place + 1] + key[place] + key[place + 2 :],
                key[:place] + key[place] + key[place:],
                key[:-1],
                key.upper(),
                key.replace("_", "-"),
                key.replace(".", "_"),
                key.replace("e", "é"),
                key + "\N{ZERO WIDTH SPACE}",
                "." + key,
                key + ".x",
            ]
        )
        if wrong not in arguments and wrong not in ("model", "data", "trainer"):
            value = rng.choice(["3", "0.5", "xy", "true"])
            flags = rng.choice([(f"--{wrong}={value}",), (f"--{wrong}", value)])
            return Mutation(name, flags, (wrong.lstrip("."), ascii(wrong).strip("'"), key))


def allows(hint: Any, value: object) -> bool:  # noqa: ANN401  # any type
    """Return whether a type allows a value that YAML has loaded, as the command line understands types."""
    origin, parts = get_origin(hint), get_args(hint)
    if hint is Any or hint is object:
        return True
    if origin is Literal:
        return str(value) in map(str, parts)
    if origin in (Union, UnionType):
        return any(allows(part, value) for part in parts)
    if isinstance(origin, type):  # list, tuple, dict
        return isinstance(value, list | dict)  # what is in them is not looked at
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is str:
        return not isinstance(value, list | dict | NoneType)
    return isinstance(value, hint) if isinstance(hint, type) else True


def _wrong_type(rng: random.Random, application: Application, name: str, text: str) -> Mutation:
    arguments = {**application.arguments(name), **_TRAINER}
    while True:
        key, value = rng.choice(sorted(arguments)), rng.choice(_VALUES)
        if any(flag.startswith(f"--{key}=") for flag in application.flags(name)):  # it would be overridden
            continue
        loaded, in_file = yaml.safe_load(value) if value else value, value and rng.random() < 0.3
        if allows(arguments[key], loaded) or (not in_file and allows(arguments[key], value)):
            continue
        if in_file:
            return Mutation(name, (), (key,), _set(text, key, loaded))
        return Mutation(name, rng.choice([(f"--{key}={value}",), (f"--{key}=3", f"--{key}={value}")]), (key,))


_EXTREMES = {
    int: (
        "0",
        "-1",
        "-7",
        "1000000000000",
        "9223372036854775808",
        "1" + "0" * 30,
        "2147483648",
        "-9223372036854775809",
    ),
    float: ("0.0", "-1.0", ".nan", ".inf", "-.inf", "1e38", "1e308", "1.0e+400", "1.0e-320", "-0.0", "1.0000001"),
    str: ("", "/", "..", "~", "a\nb", "x" * 5000, "/dev/zero", "/dev/full", ".", "\udcff", "\x1b[31m", " "),
    list: ("[]", "[1]", "[.nan, .nan]", "[3, 1]", "[-1, -1]", "[1.0e+308, 1.0e+308]", "[0, 0]", "[0.5, 0.5, 0.5]"),
    dict: ("{}", "{a: .nan}", "{a: 1.0e+400}", "{'': 1}"),
}


def _extreme(rng: random.Random, application: Application, name: str, text: str) -> Mutation:
    arguments = application.arguments(name)
    while True:
        key = rng.choice(sorted(arguments))
        kinds = [get_origin(kind) or kind for kind in (arguments[key], *get_args(arguments[key]))]
        kinds = [list if kind in (tuple, Sequence) else kind for kind in kinds if isinstance(kind, type)]
        if not (values := [value for kind in kinds for value in _EXTREMES.get(kind, ())]):
            continue
        value = rng.choice(values)
        return Mutation(name, (f"--{key}={value}",), (key, value or key), surely_wrong=False)


def _broken_flag(rng: random.Random, application: Application, name: str, text: str) -> Mutation:
    key = rng.choice(sorted(application.arguments(name)))
    section = key.partition(".")[0]
    cases: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
        ((f"--{key}",), (key,)),
        ((f"--{key}", "--trainer.max_steps=1"), (key,)),
        ((f"-{key}=3",), (key,)),
        ((f"—{key}=3",), (key,)),  # a dash of a word processor
        ((f"{key}=3",), (key,)),
        ((f"--{key}.=3",), (key,)),
        ((f"--{key} =3",), (key,)),
        ((f"--={key}",), (key,)),
        (("--",), ("--", "not understood")),
        (("fit",), ("fit",)),
        ((f"--{section}=no_such.yaml",), (section, "no_such.yaml")),
        ((f"--{section}=[1, 2]",), (section,)),
        ((f"--{section}={{lr",), (section,)),
        ((f"--{section}={{{key.partition('.')[2]}x: 1}}",), (key,)),
        (("--model=no.such.Task",), ("no.such.Task",)),
        (("--model=os.system",), ("os.system",)),
        (("--model=torch.nn.Linear",), ("torch.nn.Linear",)),
        (("--model=GNA",), ("GNA",)),
        (("--model=",), ("model",)),
        (("--model={class_path: [1]}",), ("model", "class_path")),
        (("--model={class_path: no.Such}",), ("no.Such",)),
        (("--model={init_args: 3}",), ("model", "init_args")),
        (("--model=.",), ("model",)),
        (("--trainer.callbacks=no.Such",), ("no.Such", "callbacks")),
        (("--trainer.callbacks={class_path: os.system}",), ("os.system", "callbacks")),
        (("--trainer.callbacks=[EarlyStopping]",), ("EarlyStopping",)),
        (("--trainer.callbacks=[3]",), ("callbacks",)),
        (("--trainer.logger=no.Such",), ("no.Such", "logger")),
        (("--trainer.strategy=no_such",), ("no_such",)),
        (("--trainer.strategy=",), ("strategy",)),
        (("--trainer.accelerator=no_such",), ("no_such",)),
        (("--trainer.accelerator=cpu", "--trainer.devices=1000000"), ("devices",)),
        (("--trainer.devices=0",), ("devices",)),
        (("--trainer.devices=-5",), ("devices",)),
        (("--trainer.num_nodes=0",), ("num_nodes",)),
        (("--trainer.num_nodes=-1",), ("num_nodes",)),
        (("--trainer.num_nodes=2",), ("num_nodes",)),
        (("--trainer.precision=3",), ("precision",)),
        (("--trainer.max_time=soon",), ("max_time",)),
        (("--trainer.max_time={days: x}",), ("max_time",)),
        (("--trainer.profiler=no_such",), ("profiler",)),
        (("--trainer.max_epochs=-2",), ("max_epochs",)),
        (("--trainer.max_steps=-2",), ("max_steps",)),
        (("--trainer.limit_val_batches=-1",), ("limit_val_batches",)),
        (("--trainer.limit_train_batches=1.5",), ("limit_train_batches",)),
        (("--trainer.accumulate_grad_batches=0",), ("accumulate_grad_batches",)),
        (("--trainer.check_val_every_n_epoch=0",), ("check_val_every_n_epoch",)),
        (("--trainer.log_every_n_steps=-1",), ("log_every_n_steps",)),
        (("--trainer.gradient_clip_algorithm=no",), ("gradient_clip_algorithm",)),
        (("--trainer.detect_anomaly=maybe",), ("detect_anomaly",)),
        (("--seed_everything=-1",), ("seed_everything",)),
        (("--seed_everything=4294967296",), ("seed_everything",)),
        (("--seed_everything=1.5",), ("seed_everything",)),
        (("--name=",), ("name",)),
        (("--name=../up",), ("name",)),
        (("--name=.",), ("name",)),
        (("--name=" + "n" * 300,), ("name", "n" * 300)),
        (("--name=\x1b[31m/",), ("name",)),
        (("--runs_dir=",), ("runs_dir",)),
        (("--runs_dir=/dev/null",), ("runs_dir", "/dev/null")),
        (("--runs_dir=" + "d" * 300,), ("runs_dir", "d" * 300)),
        (("--runs_dir=~no_such_user/runs",), ("runs_dir",)),
        (("--ckpt_path=no.ckpt",), ("no.ckpt",)),
        (("--ckpt_path=best",), ("best",)),
        (("--ckpt_path=" + "c" * 5000,), ("ckpt_path",)),
        (("--ckpt_path=/dev/zero",), ("/dev/zero",)),
        (("--ckpt_path=/",), ("ckpt_path",)),
        (("--config=",), ("config",)),
        (("--config=no.yaml",), ("no.yaml",)),
        (("--config=/dev/zero",), ("/dev/zero",)),
        (("--config=/",), ("config",)),
        (("--config={lr",), ("config",)),
        (("--config",), ("config",)),
        (("--confg=no.yaml",), ("confg",)),
        (("--conf=no.yaml",), ("conf",)),
        (("--seed=1",), ("seed",)),
        (("--print_confg",), ("print_confg",)),
    ]
    flags, culprits = rng.choice(cases)
    return Mutation(name, flags, culprits)


# -------------------------------------------------------------------- config file


def _set(text: str, key: str, value: object) -> bytes:
    """Change one value in the text of a config."""
    config = yaml.safe_load(text)
    *sections, last = key.replace("model.", "model.init_args.").split(".")
    place = config
    for section in sections:
        place = place.setdefault(section, {})
    place[last] = value
    return yaml.safe_dump(config, allow_unicode=True).encode()


def _changed_config(rng: random.Random, application: Application, name: str, text: str) -> Mutation:
    config = yaml.safe_load(text)
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    values = [i for i, line in enumerate(lines) if line.startswith("  ") and not line.rstrip().endswith(":")]
    at = rng.choice(values)
    key = lines[at].split(":")[0].strip()
    section = rng.choice(["model", "data", "trainer"])
    file = (f"{name}.yaml",)

    def changed(new: str) -> bytes:
        return "\n".join([*lines[:at], new, *lines[at + 1 :], ""]).encode()

    def section_as(value: object) -> bytes:
        return yaml.safe_dump({**config, section: value}).encode()

    def init_args_as(value: object) -> bytes:
        return yaml.safe_dump({**config, "model": {**config["model"], "init_args": value}}).encode()

    whole = text.encode()
    cut = rng.randrange(len(whole) // 2)
    cases: list[tuple[bytes, tuple[str, ...]]] = [
        (b"", ()),  # an empty file is no mistake
        (b"[1, 2]\n", file),
        (b"3\n", file),
        (b"text\n", file),
        (b"null\n", ()),
        (bytes(100), file),
        (b"\xff\xfe" + bytes(range(128, 256)), file),
        (text.encode("utf-16"), ()),
        (b"\xef\xbb\xbf" + whole, ()),
        (whole[: len(whole) // 2] + b"\xff" + whole[len(whole) // 2 :], (*file, "#")),
        (whole + b"\n\t- : ]\n", file),
        (whole + b"model: {}\n", (*file, "model")),
        (whole + b"extra: 3\n", ("extra",)),
        (whole + b"3: 3\n", ("3",)),
        (whole + b"[a]: 3\n", (*file, "a")),
        (whole + b"? {a: 1}\n: 3\n", file),
        (whole + b"'': 3\n", file),
        (whole + b"model.lr: 3\n", ("model",)),
        (whole + b"fit: {trainer: {max_epochs: 1}}\n", ("fit",)),
        (whole + b"subcommand: test\n", ("subcommand",)),
        (whole + b"ckpt_path: no.ckpt\n", ("no.ckpt",)),
        (whole + b"ckpt_path: [a]\n", ("ckpt_path",)),
        (whole + b"name: {a: 1}\n", ("name",)),
        (whole + b"name: a/b\n", ("name",)),
        (whole + b"runs_dir: null\n", ()),  # the command line has another one
        (whole + b"config: other.yaml\n", ("config",)),
        (whole + b"---\nmodel: 3\n", file),
        (whole + b"x: !!python/object/apply:os.system [echo]\n", file),
        (whole + b"x: !unknown 3\n", file),
        (whole + b"x: *nothing\n", (*file, "nothing")),
        (whole + b"x: &a [*a]\n", (*file, "a")),
        (whole + b"<<: 3\n", file),
        (b"{" * 60 + b"}" * 60, file),
        (changed(lines[at].replace(":", "", 1)), (*file, key)),
        (changed(lines[at].replace(":", "=", 1)), (*file, key)),
        (changed(lines[at].replace(":", ": [", 1).partition("#")[0]), (*file, key)),
        (changed(lines[at].partition(":")[0] + ": {"), (*file, key)),
        (changed(lines[at].partition(":")[0] + ": 'a"), (*file, key)),
        (changed(lines[at].partition(":")[0] + ": {a: {b: 1}}"), (key,)),
        (changed(lines[at].replace("  ", "\t", 1)), file),
        (changed(" " + lines[at]), (*file, key)),
        (changed(lines[at].lstrip()), (*file, key)),
        (changed(lines[at].replace(key, key + "x", 1)), (f"{key}x",)),
        (changed(lines[at].replace(key, key.upper(), 1)), (key.upper(),)),
        (changed(lines[at] + "\n" + lines[at].partition(":")[0] + ": 3"), (*file, key)),
        (whole[:cut], ()),
        (section_as(None), ()),
        (section_as(3), (section,)),
        (section_as("no_such.yaml"), (section, "no_such.yaml")),
        (section_as([1]), (section,)),
        (section_as([config.get(section)]), (section,)),
        (section_as({section: config.get(section)}), (section,)),
        (init_args_as(None), ()),
        (init_args_as([1]), ("init_args", "model")),
        (init_args_as(3), ("init_args", "model")),
        (init_args_as({3: 4}), ("3",)),
        (yaml.safe_dump({**config, "model": {"class_path": "no.Such"}}).encode(), ("no.Such",)),
        (yaml.safe_dump({**config, "model": {"class_path": 3}}).encode(), ("class_path", "model")),
        (yaml.safe_dump({**config, "model": {"class_path": None}}).encode(), ()),
        (yaml.safe_dump({**config, "model": config["model"]["init_args"]}).encode(), ()),
        (yaml.safe_dump({**config, "trainer": {"callbacks": [{"class_path": "no.Such"}]}}).encode(), ("no.Such",)),
        (yaml.safe_dump({**config, "trainer": {"callbacks": {"init_args": 3}}}).encode(), ("callbacks",)),
        (yaml.safe_dump({**config, "seed_everything": "seven"}).encode(), ("seed_everything",)),
        (yaml.safe_dump({**config, "seed_everything": None}).encode(), ("seed_everything",)),
    ]
    content, culprits = rng.choice(cases)
    return Mutation(name, (), culprits, content, surely_wrong=bool(culprits))
