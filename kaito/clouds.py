"""The concrete clouds by their names on the command line: the one place that knows which there are.

In: a name and what a person may say about it. Out: a provider, or a ``CliError`` that names what is missing.
Azure is set up by the environment, under the upstream provisioner's names. At a terminal, unlike in a pod, nobody
has a federated token: there the identity library finds what there is (``az login``, for instance).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from kaito.errors import CliError

if TYPE_CHECKING:
    from controllers.audit import Rates
    from provisioner import CloudProvider
    from provisioner.azure import AzureSettings

PROVIDERS = ("local", "azure", "byo")
LOCAL_URL = "http://127.0.0.1:8089"
_IDENTITY = ("AZURE_CREDENTIAL", "DEPLOYMENT_MODE", "AZURE_FEDERATED_TOKEN_FILE")


def make_provider(
    name: str, *, url: str = LOCAL_URL, token_file: Path | None = None, terminal: bool = False
) -> CloudProvider:
    """The provider of a cloud.

    Raises:
        CliError: there is no such cloud, or its settings cannot be used (exit code 2).
    """
    match name:
        case "local":
            from api import catalog
            from provisioner.local import LocalProvider

            return LocalProvider(url, token_file, gpus_of={sku.instance_type: sku.gpus for sku in catalog.skus()})
        case "azure":
            from provisioner.azure import AzureProvider

            if not terminal:
                # A second of work that no event loop, with leases to renew, should stand still for.
                import_module("provisioner.azure.arm")
            return AzureProvider(azure_settings(terminal=terminal))
        case "byo":
            from provisioner.byo import ByoProvider

            return ByoProvider()
    raise CliError(f"--provider={name}: unknown cloud", f"choose of {', '.join(PROVIDERS)}", exit_code=2)


def azure_settings(env: Mapping[str, str] | None = None, *, terminal: bool = False) -> AzureSettings:
    """The cluster that the environment names.

    Raises:
        CliError: variables are missing or wrong (exit code 2).
    """
    from provisioner.azure import AzureSettings, InvalidSettings

    given = dict(os.environ if env is None else env)
    if terminal and not any(given.get(key) for key in _IDENTITY):
        given["AZURE_CREDENTIAL"] = "default"
    try:
        return AzureSettings.from_env(given)
    except InvalidSettings as error:
        where = (
            "set the variables: ARM_SUBSCRIPTION_ID, ARM_RESOURCE_GROUP and AZURE_CLUSTER_NAME say which cluster"
            if terminal
            else "set the variables; in a cluster they come from the ConfigMap kaito-azure "
            "(config/manager/azure.yaml) and from the service account's annotation"
        )
        raise CliError(f"azure: {error}", where, exit_code=2) from error


def rates(prices: Path | None = None, region: str | None = None) -> Rates:
    """GPUs from the catalogue and prices from the packaged book, or a person's own before it.

    Raises:
        CliError: the price file cannot be used (exit code 2).
    """
    from api import catalog
    from controllers.audit import Rates
    from kaito.pricefile import prices as price_book

    book = price_book(prices)

    def gpus_of(instance_type: str) -> int | None:
        sku = catalog.sku(instance_type)
        return sku.gpus if sku else None

    def per_hour(instance_type: str, spot: bool) -> tuple[float, str] | None:
        price = book.find(instance_type, region)
        amount = price.per_hour(spot=spot) if price else None
        return None if price is None or amount is None else (amount, price.currency)

    return Rates(gpus_of, per_hour)
