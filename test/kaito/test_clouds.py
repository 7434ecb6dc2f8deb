"""Which cloud a command speaks to, and as whom."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kaito.clouds import azure_settings, make_provider, rates
from kaito.errors import CliError
from provisioner.byo import ByoProvider
from provisioner.local import LocalProvider

CLUSTER = {"ARM_SUBSCRIPTION_ID": "s", "ARM_RESOURCE_GROUP": "g", "AZURE_CLUSTER_NAME": "c"}


def test_at_a_terminal_the_identity_library_finds_whoever_is_logged_in() -> None:
    """Three variables name the cluster; in a pod, without a federated token, they are too few."""
    assert azure_settings(CLUSTER, terminal=True).credential == "default"
    assert azure_settings(CLUSTER | {"DEPLOYMENT_MODE": "managed"}, terminal=True).credential == "default"
    assert azure_settings(CLUSTER | {"AZURE_CREDENTIAL": "managed"}, terminal=True).credential == "managed"
    with pytest.raises(CliError) as caught:
        azure_settings(CLUSTER)
    assert caught.value.exit_code == 2
    assert "AZURE_FEDERATED_TOKEN_FILE" in caught.value.message
    assert "kaito-azure" in caught.value.next_step


def test_clouds_by_their_names() -> None:
    """There are three; another one is told with what there is."""
    assert isinstance(make_provider("byo"), ByoProvider)
    assert isinstance(make_provider("local"), LocalProvider)
    with pytest.raises(CliError, match="gcp: unknown cloud") as caught:
        make_provider("gcp")
    assert caught.value.next_step == "choose of local, azure, byo"


def test_rates_are_the_catalogues_and_a_persons_own(tmp_path: Path) -> None:
    """GPUs of the catalogue; prices of the packaged book, or before it those of a file; nothing is made up."""
    own = tmp_path / "prices.json"
    row = {"instanceType": "Standard_NC6s_v3", "region": "westeurope", "onDemand": 1.5}
    own.write_text(json.dumps({"currency": "EUR", "prices": [row]}))

    assert rates().gpus_of("Standard_NC48ads_A100_v4") == 2
    assert rates().gpus_of("Standard_XX") is None
    assert rates().per_hour("Standard_NC6s_v3", False) == (3.06, "USD")
    assert rates(own).per_hour("Standard_NC6s_v3", False) == (1.5, "EUR")
    assert rates(own).per_hour("Standard_NC6s_v3", True) is None
    assert rates().per_hour("Standard_XX", False) is None
