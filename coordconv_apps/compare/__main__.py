"""Paired comparison of coordinate arms: `python -m coordconv_apps.compare APP --config FILE [flags]`.

Every arm is trained and tested with every seed, from the same config except for `model.coords` and `seed_everything`,
in processes of the application's own command line. With `--over model.game pong breakout` the comparison is repeated
for each of these values. Finished runs are kept: the same command resumes an interrupted comparison, and more seeds,
arms or values are added to it.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from coordconv_apps.utils.extras import required_extra

with required_extra("compare"):
    from coordconv_apps.compare.application import merged_config
    from coordconv_apps.compare.arguments import Settings, parse
    from coordconv_apps.compare.extension import NOTHING, Extension, find_extension
    from coordconv_apps.compare.gpus import job_environments, requested_gpus, visible_gpus
    from coordconv_apps.compare.html_page import write_comparison_page
    from coordconv_apps.compare.jobs import Job, Plan
    from coordconv_apps.compare.output_folder import claim_folder, lock_folder
    from coordconv_apps.compare.processes import run_jobs, stop_signals
    from coordconv_apps.compare.report_files import write_report
    from coordconv_apps.compare.results import Result, collect
    from coordconv_apps.compare.tables import aligned, metric_cells, overview_cells, sections, table_note
    from coordconv_apps.compare.verdict import verdict
    from coordconv_apps.report.page import PAGE, pages_wanted
    from coordconv_apps.utils.errors import (
        UserError,
        as_storage_error,
        debugging,
        discard_output,
        one_line,
        output_failed,
    )


def compare(settings: Settings) -> int:
    """Run the remaining jobs of a comparison, and write its report.

    Returns:
        The exit status: 0; or 1 if a run, the application's extension of the report or `report.html` failed; or 128
        plus the signal's number if it was interrupted.
    """
    plan = settings.plan
    environments = _environments(settings)
    with lock_folder(plan.out) as lock:
        claim_folder(plan, settings.fresh)
        left = [job for job in settings.jobs if plan.stages(job)]
        kept = len(settings.jobs) - len(left)
        again = f", {kept} finished before" if kept else ""
        width = f", {len(environments)} at a time" if len(environments) > 1 else ""
        runs = "1 run" if len(settings.jobs) == 1 else f"{len(settings.jobs)} runs"
        print(f"{runs} of {settings.app} in {plan.out}{width}{again}", flush=True)
        with stop_signals() as stop:
            failures = run_jobs(plan, left, environments, lock, stop)
        if stop:
            done = sum(not plan.stages(job) for job in settings.jobs)
            line = f"interrupted: {done} of {len(settings.jobs)} runs finished; {_again(settings)} resumes them"
            try:
                print(line, flush=True)
            except OSError:  # as in `... | tee log`, where Ctrl-C ends both
                discard_output()
            return 128 + stop[-1]
        results = [collect(plan, job, failures.get(job, "")) for job in settings.jobs]
        complete = _report(settings, results)
    return 0 if complete and not failures else 1


def _environments(settings: Settings) -> Sequence[Mapping[str, str]]:
    """Return the environment variables of each slot; raise `ValueError` if the application rejects its arguments."""
    plan = settings.plan
    left = [job for job in settings.jobs if settings.fresh or plan.stages(job)]
    gpus_per_job = _gpus_per_job(plan, left) if left else 1
    return job_environments(settings.parallel, visible_gpus(os.environ), gpus_per_job, os.environ)


def _gpus_per_job(plan: Plan, jobs: Sequence[Job]) -> int | None:
    """Return the largest number of GPUs that a job requests, or None if a job names its GPUs."""
    asked = {job.value: job for job in reversed(jobs)}  # the application checks each value before the first training
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # each takes seconds
        configs = list(pool.map(lambda job: merged_config(plan, job), asked.values()))
    wanted = [requested_gpus(config.get("trainer", {}).get("devices")) for config in configs]
    numbers = [number for number in wanted if number is not None]
    return max(numbers) if len(numbers) == len(wanted) else None


def _report(settings: Settings, results: Sequence[Result]) -> bool:
    """Write and print the report; return whether it is complete."""
    plan = settings.plan
    files, extension, extension_error = _write(settings, results)
    page, undrawn = _write_page(settings, results, extension)
    lines = []
    for section in sections(results, extension.rows, plan.over):
        table = aligned(metric_cells(section.results, section.rows))
        shown = [table, "", table_note(section.results), "", *verdict(section.results)]
        lines += shown if plan.over is None else [section.heading, *shown, ""]
    if plan.over is not None:  # last, so that a terminal still shows it
        lines.append(aligned(overview_cells(results, plan.over)))
    print("\n" + "\n".join([*lines, *extension.notes]) + "\n")
    for result in results:
        if result.error:
            print(f"failed:   {result.job.name}: {result.error} (log: {plan.log(result.job)})")
    if any(result.error for result in results):
        print(f"          {_again(settings)} runs the failed ones again")
    if extension_error:
        print(f"failed:   {plan.module}.comparison, so the report is without its extension: {extension_error}")
    if undrawn:
        print(f"failed:   {plan.out / PAGE}: {undrawn}")
    print(f"table:    {files[0]}\nruns:     {files[1]}")
    for file in files[2:]:
        print(f"figure:   {file}")
    if page is not None:
        print(f"report:   {page} (open it in a browser: tables, curves, pictures of all arms)")
    return not extension_error and not undrawn


def _write(settings: Settings, results: Sequence[Result]) -> tuple[list[Path], Extension, str]:
    """Write the report, then once more with the application's extension; return files, extension and its error."""
    files = write_report(settings, results, NOTHING)
    try:
        extension = find_extension(settings.plan.module, results)
        if extension is not NOTHING:
            files = write_report(settings, results, extension)
    except Exception as error:  # no error in an extension may lose the report of hours of training
        if debugging():
            raise
        return files, NOTHING, f"{type(error).__name__}: {one_line(error)}"
    return files, extension, ""


def _write_page(settings: Settings, results: Sequence[Result], extension: Extension) -> tuple[Path | None, str]:
    """Write `report.html`, unless the user does without; return the file and the error that prevented it."""
    if not pages_wanted():
        return None, ""
    try:
        page = write_comparison_page(settings, results, extension)
    except Exception as error:  # the other files of the report are there
        if debugging():
            raise
        return None, f"{type(error).__name__}: {one_line(error)}"
    return page, ""


def _again(settings: Settings) -> str:
    """Name the command that continues the comparison: `--fresh` would delete the runs that are finished."""
    return "the same command without --fresh" if settings.fresh else "the same command"


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; return the status of `compare`.

    A user's mistake and a full disk are printed as one line, and the status is 2 or 3.
    """
    try:
        return compare(parse(args))
    except (UserError, ValueError, OSError) as error:
        if debugging():
            raise
        if output_failed(error):
            discard_output()
        reported = as_storage_error(error) or error
        print(f"error: {one_line(reported)}", file=sys.stderr)
        return reported.exit_status if isinstance(reported, UserError) else 2


if __name__ == "__main__":
    sys.exit(main())
