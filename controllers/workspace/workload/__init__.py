"""What serves a Workspace: its pods, what controls them, and when that may change.

In: an observation and a target. Out: manifests as plain dicts, and through :func:`controllers.workspace.workload.
steps.workload_steps` the actions of one reconcile. Pure, and the same for the same input. One idea a module:
``command`` (the server's words), ``pod`` and ``volumes`` (a preset's pod), ``template`` (a user's pod),
``placement`` (where pods may run), ``mounts`` (what adapters need of a pod), ``render`` (Deployment or
StatefulSet), ``replacing`` (how pods are replaced) and ``steps``, which puts them together.
"""
