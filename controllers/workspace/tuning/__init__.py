"""What tunes a Workspace's model: a Job, its settings, and what its pod says.

In: an observation and a target. Out, through :func:`controllers.workspace.tuning.steps.tuning_run`: the actions
of one reconcile and what the status says. Pure. One idea a module: ``settings`` (the training configuration),
``command`` (the program's words), ``volumes``, ``job`` (the manifest, and when it is outdated), ``runs`` (how a
pod ended), ``status`` (what is told), ``fitting`` (GPUs), ``steps``, which puts them together.
"""
