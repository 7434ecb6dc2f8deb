"""Which instance type is taken when nobody names one, prices, and what the catalogue says of instance types."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.catalog import Sku, preset, presets, sku, skus
from api.quantity import GIB
from api.sizing import ModelFacts, PriceBook, Wish, choose, choose_for_tuning, cost, packaged_prices, unusable

TODAY = date(2026, 11, 1)
PHI = ModelFacts.of(preset("phi-3-mini-4k-instruct"))
LLAMA = ModelFacts.of(preset("llama-3.3-70b-instruct"))


def book(**prices: float) -> PriceBook:
    rows = [{"instanceType": name, "region": "here", "onDemand": amount} for name, amount in prices.items()]
    return PriceBook.from_obj({"prices": rows})


def test_the_lowest_price_wins() -> None:
    """Of the types that hold the model, the cheapest is taken, and the others say what they would cost."""
    found = choose(PHI, skus(), packaged_prices(), Wish(), TODAY)

    assert found.best is not None
    assert (found.best.sku.instance_type, found.best.per_hour, found.by) == (
        "Standard_NV36ads_A10_v5",
        3.2,
        "price",
    )
    reasons = {item.instance_type: item.reason for item in found.passed}
    assert reasons["Standard_NC24ads_A100_v4"] == "fits on 1 node for 3.67 per hour"
    assert reasons["Standard_ND96isr_H200_v5"] == "fits on 1 node; no price is known for it"
    assert reasons["Standard_NC6s_v3"] == "retired by the cloud on 2025-09-30"
    assert "AMD" in reasons["Standard_NG32ads_V620_v1"]


def test_one_node_before_several() -> None:
    """Three cheap nodes are passed over for one dearer one, and the reason says so."""
    found = choose(LLAMA, skus(), packaged_prices(), Wish(), TODAY)

    assert found.best is not None
    assert (found.best.sku.instance_type, found.best.sizing.nodes) == ("Standard_NC80adis_H100_v5", 1)
    reasons = {item.instance_type: item.reason for item in found.passed}
    assert reasons["Standard_NC24ads_A100_v4"].startswith("fits on 3 nodes for 11.02 per hour; one node")


def test_without_prices_the_least_memory() -> None:
    """Where no price is known the least GPU memory that fits is taken, and that is said."""
    found = choose(PHI, skus(), PriceBook(), Wish(), TODAY)

    assert found.best is not None
    assert (found.by, found.best.per_hour) == ("memory", None)
    assert found.best.sizing.total_gpu_memory == 24 * GIB
    assert "GiB of GPU memory" in found.passed[0].reason


def test_a_users_prices_go_first() -> None:
    """A price of the user's own decides, and the packaged ones fill in the rest."""
    mine = book(Standard_NC40ads_H100_v5=1.0).over(packaged_prices())

    found = choose(PHI, skus(), mine, Wish(), TODAY)

    assert found.best is not None
    assert (found.best.sku.instance_type, found.best.per_hour) == ("Standard_NC40ads_H100_v5", 1.0)


def test_region_and_spot() -> None:
    """A region without a price is a price that is not known; spot prices are other prices."""
    prices = packaged_prices()

    assert prices.find("standard_nc24ads_a100_v4", "westeurope") is None
    found = prices.find("Standard_NC24ads_A100_v4", "eastus")
    assert found is not None
    assert (cost(2, found), cost(2, found, spot=True)) == (7.346, 0.888866)
    assert cost(1, None) is None
    assert choose(PHI, skus(), prices, Wish(spot=True), TODAY).best.per_hour == pytest.approx(0.444433)  # type: ignore[union-attr]


def test_a_longer_context_changes_the_choice() -> None:
    """What a request must have decides what holds it."""
    model = ModelFacts.of(preset("phi-3-mini-128k-instruct"))

    short = choose(model, skus(), packaged_prices(), Wish(), TODAY).best
    long = choose(model, skus(), packaged_prices(), Wish(context=131_072), TODAY).best

    assert short is not None
    assert long is not None
    assert (short.sku.instance_type, long.sku.instance_type) == (
        "Standard_NV36ads_A10_v5",
        "Standard_NC24ads_A100_v4",
    )


def test_another_cloud() -> None:
    """Only the wanted cloud's types are looked at."""
    found = choose(PHI, skus(), PriceBook(), Wish(cloud="aws"), TODAY)

    assert found.best is not None
    assert found.best.sku.cloud == "aws"
    assert all(sku(item.instance_type).cloud == "aws" for item in found.passed)  # type: ignore[union-attr]


def test_old_gpus_on_request() -> None:
    """A GPU without bfloat16 is chosen only for who allows it, and is much cheaper."""
    found = choose(PHI, skus(), packaged_prices(), Wish(old_gpus=True), TODAY)

    assert found.best is not None
    assert (found.best.sku.instance_type, found.best.per_hour) == ("Standard_NC4as_T4_v3", 0.526)


@pytest.mark.parametrize(
    ("name", "method", "instance_type", "comfortable"),
    [
        ("falcon-7b", "qlora", "Standard_NV36ads_A10_v5", True),
        ("phi-3-mini-4k-instruct", "lora", "Standard_NC24ads_A100_v4", True),
        ("phi-3-medium-4k-instruct", "qlora", "Standard_NC24ads_A100_v4", True),
    ],
)
def test_choosing_for_tuning(name: str, method: str, instance_type: str, comfortable: bool) -> None:
    """For tuning the cheapest type with what upstream asks for goes first."""
    found = choose_for_tuning(preset(name), method, skus(), packaged_prices(), Wish(), TODAY)

    assert (found[0].sku.instance_type, found[0].fit.comfortable) == (instance_type, comfortable)
    assert choose_for_tuning(preset("falcon-7b-instruct"), method, skus(), packaged_prices(), Wish(), TODAY) == ()


def test_nothing_fits() -> None:
    """A model that no type holds gets no choice, and each type its reason."""
    giant = ModelFacts("giant", 100_000 * GIB, 1_000_000, 4096, 80, 64, 8, distributed=False)

    found = choose(giant, skus(), packaged_prices(), Wish(), TODAY)

    assert found.best is None
    assert len(found.passed) == len([item for item in skus() if item.cloud == "azure"])


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(presets()), st.sampled_from(["azure", "aws"]), st.integers(1, 8192))
def test_a_choice_is_usable(item, cloud: str, context: int) -> None:
    """Whatever is chosen fits, may be chosen, and costs no more than any other single node."""
    model = ModelFacts.of(item)
    wish = Wish(cloud=cloud, context=min(context, model.context_limit))

    found = choose(model, skus(), packaged_prices(), wish, TODAY)

    for option in found.options:
        assert option.sizing.fits
        assert unusable(option.sku, model, TODAY) is None
    alone = [o.per_hour for o in found.options if o.sizing.nodes == 1 and o.per_hour is not None]
    if found.best is not None and found.best.sizing.nodes == 1 and alone and found.best.per_hour is not None:
        assert found.best.per_hour == min(alone)


# ------------------------------------------------------------------------------ prices


@pytest.mark.parametrize(
    ("obj", "message"),
    [
        (None, 'no list named "prices"'),
        ({"prices": {}}, 'no list named "prices"'),
        ({"prices": [3]}, r"prices\[0\] is not an object"),
        ({"prices": [{"region": "x"}]}, r"prices\[0\] has no instanceType"),
        ({"prices": [{"instanceType": "a"}]}, r"prices\[0\] has no region"),
        ({"prices": [{"instanceType": "a", "region": "x", "spot": "1"}]}, r"prices\[0\].spot is not an amount"),
        ({"prices": [{"instanceType": "a", "region": "x", "onDemand": -1}]}, "is not an amount"),
        ({"prices": [{"instanceType": "a", "region": "x", "onDemand": float("nan")}]}, "is not an amount"),
        ({"prices": [{"instanceType": "a", "region": "x", "onDemand": True}]}, "is not an amount"),
    ],
)
def test_a_broken_price_file_says_where(obj: object, message: str) -> None:
    """A price file that cannot be read names the row and what is wrong."""
    with pytest.raises(ValueError, match=message):
        PriceBook.from_obj(obj)


def test_packaged_prices_can_be_cited() -> None:
    """Every packaged price has a date and a source, is of a type that the catalogue knows, and is positive."""
    prices = packaged_prices().prices

    assert len(prices) > 25
    for item in prices:
        assert item.source.startswith("https://")
        assert item.date
        assert sku(item.instance_type) is not None
        assert item.on_demand is not None
        assert item.on_demand > 0
        assert item.spot is None or 0 < item.spot < item.on_demand


# ------------------------------------------------------------------------------ instance types


@pytest.mark.parametrize(
    ("name", "day", "retired"),
    [
        ("Standard_NC6s_v3", date(2025, 9, 29), False),
        ("Standard_NC6s_v3", date(2025, 9, 30), True),
        ("Standard_NV12s_v3", date(2026, 9, 1), False),
        ("Standard_NC24ads_A100_v4", date(2030, 1, 1), False),
    ],
)
def test_retirement_has_a_day(name: str, day: date, retired: bool) -> None:
    """A type can be had until the day on which its cloud retires it."""
    found = sku(name)

    assert found is not None
    assert found.is_retired(day) == retired
    assert bool(found.retired) == bool(found.retired_source)


def test_what_is_never_chosen() -> None:
    """Parts of GPUs, Arm machines, foreign and old GPUs and misspelt names are passed over with a reason."""
    reasons = {item.instance_type: unusable(item, None, TODAY) for item in skus()}

    assert reasons["Standard_NV6ads_A10_v5"] == "it has a part of a GPU only"
    assert reasons["g5g.xlarge"] == "its processor is arm64"
    assert "Trainium" in (reasons["trn1.2xlarge"] or "")
    assert "spelled Standard_ND96asr_v4" in (reasons["Standard_ND96asr_A100_v4"] or "")
    assert "only where it is named" in (reasons["Standard_NC4as_T4_v3"] or "")
    assert reasons["Standard_NC24ads_A100_v4"] is None


def test_what_a_program_sees() -> None:
    """The driver reports less than the name says; where that was measured, it counts."""
    h200, a100 = sku("Standard_ND96isr_H200_v5"), sku("Standard_NC24ads_A100_v4")

    assert isinstance(h200, Sku)
    assert isinstance(a100, Sku)
    assert h200.visible_gpu_memory == 143_771 * 1024**2 < h200.per_gpu_memory
    assert a100.visible_gpu_memory == a100.per_gpu_memory
