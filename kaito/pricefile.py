"""Reading a user's price file: YAML or JSON in the shape of the packaged prices, before these."""

from __future__ import annotations

from pathlib import Path

from api.sizing import PriceBook, packaged_prices
from kaito.errors import CliError

FORMAT = """{currency: USD, date: 2026-11-01, source: our contract,
 prices: [{instanceType: Standard_NC24ads_A100_v4, region: westeurope, onDemand: 3.40, spot: 0.55}]}"""


def prices(path: Path | None) -> PriceBook:
    """The packaged prices, and those of the file before them.

    Raises:
        CliError: the file cannot be used (exit code 2).
    """
    if path is None:
        return packaged_prices()
    import yaml

    help_ = f"its format is YAML or JSON like this:\n{FORMAT}"
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CliError(f"--prices {path} cannot be read: {error.strerror}", exit_code=2) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CliError(f"--prices {path} is neither YAML nor JSON", help_, exit_code=2) from error
    try:
        return PriceBook.from_obj(found).over(packaged_prices())
    except ValueError as error:
        raise CliError(f"--prices {path}: {error}", help_, exit_code=2) from error
