"""A server that does nothing but send: a list of N objects, and a watch of M events, encoded beforehand.

What reads from it is limited by itself alone. It runs in a process of its own.

Usage: python -m hack.bench.replay PORT_FILE KIND OBJECTS EVENTS    (KIND: bench or pod)
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from hack.bench.workload import bench


def pod(number: int) -> dict[str, Any]:
    """A pod of about 6 KB as a server would send it, managedFields included."""
    env = [{"name": f"SETTING_{index}", "value": f"value-{number}-{index}"} for index in range(12)]
    probe = {
        "httpGet": {"path": "/healthz", "port": 8080, "scheme": "HTTP"},
        "periodSeconds": 10,
        "timeoutSeconds": 1,
    }
    mounts = [
        {"name": f"volume-{index}", "mountPath": f"/mnt/volume-{index}", "readOnly": True} for index in range(4)
    ]
    fields: dict[str, Any] = {
        f'k:{{"name":"SETTING_{index}"}}': {".": {}, "f:name": {}, "f:value": {}} for index in range(12)
    }
    container = {
        "name": "main",
        "image": "registry.example.com/team/service:v1.2.3",
        "args": ["--port=8080", "--log-level=info", f"--shard={number}"],
        "env": env,
        "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
        "resources": {"limits": {"cpu": "2", "memory": "4Gi"}, "requests": {"cpu": "1", "memory": "2Gi"}},
        "volumeMounts": mounts,
        "livenessProbe": probe,
        "readinessProbe": probe,
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "imagePullPolicy": "IfNotPresent",
    }
    conditions = [
        {"type": kind, "status": "True", "lastProbeTime": None, "lastTransitionTime": "2026-01-01T00:00:00Z"}
        for kind in ("Initialized", "Ready", "ContainersReady", "PodScheduled")
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"service-7d9c6b5f4-{number:06d}",
            "generateName": "service-7d9c6b5f4-",
            "namespace": f"namespace-{number % 20}",
            "labels": {"app": "service", "pod-template-hash": "7d9c6b5f4", "shard": str(number % 10)},
            "annotations": {"example.com/checksum": f"{number:064d}", "prometheus.io/scrape": "true"},
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "ownerReferences": [
                {
                    "apiVersion": "apps/v1",
                    "kind": "ReplicaSet",
                    "name": "service-7d9c6b5f4",
                    "uid": "11111111-2222-3333-4444-555555555555",
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
            "managedFields": [
                {
                    "manager": manager,
                    "operation": "Update",
                    "apiVersion": "v1",
                    "time": "2026-01-01T00:00:00Z",
                    "fieldsType": "FieldsV1",
                    "fieldsV1": {"f:spec": {"f:containers": {'k:{"name":"main"}': {"f:env": fields}}}},
                }
                for manager in ("kube-controller-manager", "kubelet")
            ],
        },
        "spec": {
            "containers": [container],
            "volumes": [
                {"name": f"volume-{index}", "configMap": {"name": f"config-{index}", "defaultMode": 420}}
                for index in range(4)
            ],
            "nodeName": f"node-{number % 100}",
            "serviceAccountName": "service",
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst",
            "schedulerName": "default-scheduler",
            "tolerations": [
                {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
                for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
            ],
        },
        "status": {
            "phase": "Running",
            "conditions": conditions,
            "hostIP": "10.0.0.1",
            "podIP": f"10.{number // 65536}.{number // 256 % 256}.{number % 256}",
            "startTime": "2026-01-01T00:00:00Z",
            "containerStatuses": [
                {
                    "name": "main",
                    "ready": True,
                    "restartCount": 0,
                    "image": container["image"],
                    "imageID": "sha256:" + "0" * 64,
                    "containerID": f"containerd://{number:064d}",
                    "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
                    "lastState": {},
                    "started": True,
                }
            ],
            "qosClass": "Burstable",
        },
    }


def stored(kind: str, number: int, version: int) -> dict[str, Any]:
    """The object as a server would send it."""
    obj = pod(number) if kind == "pod" else bench(number)
    obj["metadata"] |= {
        "resourceVersion": str(version),
        "uid": f"00000000-0000-0000-0000-{number:012d}",
        "generation": 1,
    }
    return obj


def application(kind: str, objects: int, events: int) -> web.Application:
    """Answers every list with all objects, and every watch with the events, after which it stays silent."""
    items = [stored(kind, number, number + 1) for number in range(objects)]
    listing = orjson.dumps(
        {"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": str(objects)}, "items": items}
    )
    versions = itertools.count(objects + 1)
    lines = [
        orjson.dumps({"type": "MODIFIED", "object": stored(kind, number % objects, next(versions))}) + b"\n"
        for number in range(events)
    ]
    chunks = [b"".join(lines[start : start + 20]) for start in range(0, events, 20)]

    async def serve(request: web.Request) -> web.StreamResponse:
        if not request.query.get("watch"):
            return web.Response(body=listing, content_type="application/json")
        if request.query.get("sendInitialEvents"):
            body = {"kind": "Status", "code": 422, "reason": "Invalid", "message": "streaming lists are off"}
            return web.json_response(body, status=422)
        response = web.StreamResponse()
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
        await asyncio.sleep(3600)
        return response

    app = web.Application()
    app.router.add_get("/{path:.*}", serve)
    return app


async def main(port_file: Path, kind: str, objects: int, events: int) -> None:
    """Serve on a free port of loopback until ended."""
    runner = web.AppRunner(application(kind, objects, events), access_log=None, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    partial = port_file.with_suffix(".part")
    partial.write_text(str(runner.addresses[0][1]))
    partial.rename(port_file)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
