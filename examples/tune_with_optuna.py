"""Tune an application's hyperparameters with Optuna: each trial is a training in this process.

The trials maximise the metric that selects `best.ckpt` (`val/score` in rl). A trial whose score is behind is stopped by
Optuna's pruner at an epoch's end. The study is kept in a file, so that the next call continues it. The last line that
the program prints is the command that trains with the best settings, for as many steps as its config says. The trials
have the other settings of that config for the model and its evaluation.

Run it from the clone, about two minutes a trial on two CPU cores (`pip install optuna`):

    python examples/tune_with_optuna.py --trials 20
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import optuna
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import Callback

from rl import PPO
from rl.data import RLData

MONITOR = PPO.monitor


class ReportToOptuna(Callback):
    """Report the monitored metric of each validation to a trial, and stop the training if the trial is pruned."""

    def __init__(self, trial: optuna.Trial) -> None:
        self.trial = trial
        self.best: float | None = None
        self.pruned = False

    def on_validation_end(self, trainer: Trainer, *unused: object) -> None:
        """Report the metric."""
        if trainer.sanity_checking:
            return
        value = float(trainer.callback_metrics[MONITOR])
        self.best = value if self.best is None else max(self.best, value)
        self.trial.report(value, trainer.current_epoch)
        self.pruned = self.trial.should_prune()
        trainer.should_stop = trainer.should_stop or self.pruned


def objective(trial: optuna.Trial, out: Path, timesteps: int) -> float:
    """Train PPO on Catch with the settings of a trial, and return its best validation score."""
    seed_everything(0)
    task = PPO(
        game="catch",
        coords="xy",
        coord_init="zero",
        total_timesteps=timesteps,
        n_steps=64,
        batch_size=256,
        lr_schedule="linear",
        lr=trial.suggest_float("lr", 1e-4, 3e-3, log=True),
        ent_coef=trial.suggest_float("ent_coef", 1e-4, 0.03, log=True),
        gamma=trial.suggest_float("gamma", 0.9, 0.99),
        n_epochs=trial.suggest_int("n_epochs", 1, 6),
    )
    report = ReportToOptuna(trial)
    folder = out / f"trial_{trial.number}"
    trainer = Trainer(
        default_root_dir=folder,
        max_epochs=-1,
        accelerator="auto",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[report],
    )
    epoch = max(timesteps // 8, 1)
    trainer.fit(
        task, RLData(num_envs=16, steps_per_epoch=epoch, num_eval_envs=16, eval_episodes=32, deterministic=True)
    )
    if report.best is None:
        raise optuna.TrialPruned("no validation")
    trainer.save_checkpoint(folder / "last.ckpt")
    if report.pruned:
        raise optuna.TrialPruned
    return report.best


def main(args: Sequence[str] | None = None) -> optuna.Study:
    """Run the trials; print the best one, and return the study."""
    parser = argparse.ArgumentParser(description="Tune PPO on Catch with Optuna.")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--timesteps", type=int, default=60_000, help="steps of a trial that is not pruned")
    parser.add_argument("--out", type=Path, default=Path("runs/optuna"), help="folder of the trials and the study")
    options = parser.parse_args(args)
    for name in ("trials", "timesteps"):
        if getattr(options, name) < 1:
            parser.error(f"--{name}={getattr(options, name)}: must be at least 1")
    options.out.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name="ppo-catch",
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=0),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2),
        storage=f"sqlite:///{options.out / 'study.db'}",  # the next call continues the study
        load_if_exists=True,
    )
    study.optimize(lambda trial: objective(trial, options.out, options.timesteps), n_trials=options.trials)
    settings = " ".join(f"--model.{name}={value:.4g}" for name, value in study.best_params.items())
    print(f"best of {len(study.trials)} trials: {MONITOR} {study.best_value:.2f} (trial {study.best_trial.number})")
    print(f"python -m rl fit --config rl/configs/quickstart.yaml --model.coords=xy {settings}")
    return study


if __name__ == "__main__":
    main()
