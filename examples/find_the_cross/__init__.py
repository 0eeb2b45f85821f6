"""Find the cross among discs: an application of your own on this project's command line, to copy and change.

    python -m examples.find_the_cross fit --config quickstart --model.coords=xy
    python -m examples.find_the_cross test --name quickstart --ckpt_path best
    python -m examples.find_the_cross export --name quickstart --ckpt_path best
    python -m coordconv_apps.compare examples.find_the_cross --config quickstart --seeds 0 1 2

An application is a package with a data module (``data.py``), a task (``tasks.py``), pictures if you like
(``pictures.py``), a command line (``__main__.py``) and configs. Run folders, checkpoints, exact resuming, several GPUs,
``export`` and ``compare`` come with the core.
"""
