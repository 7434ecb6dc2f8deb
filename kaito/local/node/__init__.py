"""The node agent of the embedded cluster: pods become local processes.

`agent.py` composes; `cloud.py` makes instances, `nodes.py` registers them; `pods.py` runs one pod with the
pure `decide.py` and `status.py`; `runtime.py` and `shim.py` run containers; `kubelet_api.py` serves logs,
exec and attach; `proxy.py` makes ClusterIPs reachable. It is a development tool: nothing isolates a
container from this machine.
"""
