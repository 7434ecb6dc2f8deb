"""A current API server for custom resources (apiextensions-apiserver), beside a real control plane."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from manager.config import RestConfig
from manager.testing.controlplane import ControlPlane, assets, free_port


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """A real kube-apiserver without controllers; the test is skipped where there are no binaries."""
    if assets() is None:
        pytest.skip("KUBEBUILDER_ASSETS is unset: a real kube-apiserver is needed")
    with ControlPlane.start(controllers=False) as running:
        yield running


@pytest.fixture(scope="module")
def apiextensions(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestConfig]:
    """A current apiextensions-apiserver that trusts the real kube-apiserver for who may do what."""
    folder = assets()
    binary = folder / "apiextensions-apiserver" if folder else None
    if folder is None or binary is None or not os.access(binary, os.X_OK):
        pytest.skip("KUBEBUILDER_ASSETS names no folder with apiextensions-apiserver")
    data = tmp_path_factory.mktemp("apiextensions")
    started: list[subprocess.Popen[bytes]] = []

    def spawn(name: str, *args: str) -> None:
        with (data / f"{name}.log").open("wb") as log:
            started.append(subprocess.Popen([str(folder / name), *args], stdout=log, stderr=log))

    client, peer, port = free_port(), free_port(), free_port()
    kubeconfig = str(plane.kubeconfig)
    try:
        spawn(
            "etcd",
            f"--data-dir={data / 'etcd'}",
            f"--listen-client-urls=http://127.0.0.1:{client}",
            f"--advertise-client-urls=http://127.0.0.1:{client}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-cluster=default=http://127.0.0.1:{peer}",
            "--unsafe-no-fsync",
        )
        spawn(
            "apiextensions-apiserver",
            f"--etcd-servers=http://127.0.0.1:{client}",
            f"--secure-port={port}",
            "--bind-address=127.0.0.1",
            f"--cert-dir={data / 'certs'}",
            f"--kubeconfig={kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            "--authentication-tolerate-lookup-failure",
            "--authentication-skip-lookup",
            "--enable-priority-and-fairness=false",
            "--disable-admission-plugins=MutatingAdmissionPolicy,ValidatingAdmissionPolicy",
        )
        config = replace(plane.rest_config(), server=f"https://127.0.0.1:{port}")
        _wait(config, started, data)
        yield config
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait(20)


def _wait(config: RestConfig, processes: list[subprocess.Popen[bytes]], data: Path) -> None:
    deadline = time.monotonic() + 60
    argv = ["curl", "--silent", "--insecure", "--header", f"Authorization: Bearer {config.token}"]
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    while True:
        done = subprocess.run([*argv, config.server + path], capture_output=True, text=True, check=False)
        if done.returncode == 0 and json.loads(done.stdout or "{}").get("kind") == "CustomResourceDefinitionList":
            return
        if time.monotonic() > deadline or any(process.poll() is not None for process in processes):
            log = (data / "apiextensions-apiserver.log").read_text(errors="replace")[-2000:]
            raise RuntimeError(f"apiextensions-apiserver did not start: {done.stdout} {log}")
        time.sleep(0.1)
