"""Names as typed, looked up in the catalogues: what is found, or an error that ends in what to type."""

from __future__ import annotations

from api import catalog
from api.catalog import Preset, Sku
from api.errors import UnknownPreset
from kaito.errors import CliError


def known_preset(name: str) -> Preset:
    """The preset of this name, alias or id.

    Raises:
        CliError: there is none (exit code 2).
    """
    try:
        return catalog.preset(name)
    except UnknownPreset as error:
        step = error.next_step
        if "/" in name:
            step += ", or download the model and give its folder with --from"
        raise CliError(error.message, step, exit_code=2) from error


def known_sku(instance_type: str, option: str) -> Sku:
    """The instance type of this name.

    Raises:
        CliError: the catalogue does not know it (exit code 2).
    """
    found = catalog.sku(instance_type)
    if found is None:
        near = catalog.suggest_skus(instance_type)
        step = f"did you mean {' or '.join(near)}?" if near else "kaito skus list has them all"
        where = f"{option} {instance_type}: " if option else ""
        raise CliError(f"{where}the catalogue has no instance type {instance_type}", step, exit_code=2)
    return found
