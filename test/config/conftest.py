"""A current API server for custom resources (apiextensions-apiserver), beside a real control plane."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from manager.config import RestConfig
from manager.testing.controlplane import ControlPlane, assets, has_extensions


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """A real control plane without controllers; the test is skipped where there are no binaries."""
    folder = assets()
    if folder is None:
        pytest.skip("KUBEBUILDER_ASSETS is unset: a real kube-apiserver is needed")
    with ControlPlane.start(controllers=False, extensions=has_extensions(folder)) as running:
        yield running


@pytest.fixture(scope="module")
def apiextensions(plane: ControlPlane) -> RestConfig:
    """A current apiextensions-apiserver that trusts the real kube-apiserver for who may do what."""
    if not plane.extensions_server:
        pytest.skip("KUBEBUILDER_ASSETS names no folder with apiextensions-apiserver")
    return plane.extensions_config()
