"""ConversionReviews: the matrix of hub and spokes, and every way to fail."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from manager.errors import ManagerError
from manager.types import Obj
from manager.webhooks.conversion import ConversionError, Conversions

G, K = "example.com", "Widget"


def widget(version: str, **fields: Any) -> Obj:
    return {
        "apiVersion": f"{G}/{version}",
        "kind": K,
        "metadata": {"name": "w", "uid": "u", "labels": {"a": "b"}},
        **fields,
    }


def moved(source: str, target: str) -> Any:
    def convert(obj: Obj) -> Obj:
        obj[target] = obj.pop(source)
        return obj

    return convert


@pytest.fixture
def conversions() -> Conversions:
    """v2 is the hub; the same number is called ``one``, ``two`` and ``three``."""
    made = Conversions()
    made.hub(G, K, "v2")
    made.spoke(G, K, "v1", to_hub=moved("one", "two"), from_hub=moved("two", "one"))
    made.spoke(G, K, "v3", to_hub=moved("three", "two"), from_hub=moved("two", "three"))
    return made


FIELD = {"v1": "one", "v2": "two", "v3": "three"}


@pytest.mark.acceptance("FW-H08")
@pytest.mark.parametrize("source", FIELD)
@pytest.mark.parametrize("target", FIELD)
def test_every_version_becomes_every_other(conversions: Conversions, source: str, target: str) -> None:
    """Spoke to hub, hub to spoke, spoke to hub to spoke; to itself is an error. The argument stays as it was."""
    given = widget(source, **{FIELD[source]: 7})
    before = orjson.dumps(given)
    if source == target:
        with pytest.raises(ConversionError, match="not allowed between same type"):
            conversions.convert(given, f"{G}/{target}")
        return

    assert conversions.convert(given, f"{G}/{target}") == widget(target, **{FIELD[target]: 7})
    assert orjson.dumps(given) == before


@pytest.mark.acceptance("FW-H08")
def test_a_direct_converter_wins_over_the_hub(conversions: Conversions) -> None:
    """Where both ways exist, the one that was written for the purpose is taken."""
    conversions.converter(G, K, "v1", "v3", lambda obj: obj | {"direct": True})

    assert conversions.convert(widget("v1", one=1), f"{G}/v3")["direct"]


@pytest.mark.acceptance("FW-H08")
@pytest.mark.parametrize(
    ("obj", "desired", "message"),
    [
        (widget("v1", one=1), "other.com/v2", "from group 'example.com' to group 'other.com'"),
        (widget("v9"), f"{G}/v2", "no conversion is known"),
        (widget("v1", one=1), f"{G}/v9", "no conversion is known"),
        (widget("v1") | {"kind": "Gadget"}, f"{G}/v2", "no conversion is known"),
        ({"kind": K}, f"{G}/v2", "without apiVersion or kind"),
        ({"apiVersion": f"{G}/v1"}, f"{G}/v2", "without apiVersion or kind"),
    ],
)
def test_what_cannot_be_converted_says_why(conversions: Conversions, obj: Obj, desired: str, message: str) -> None:
    """Another group, an unknown version or kind, half an object."""
    with pytest.raises(ConversionError, match=message):
        conversions.convert(obj, desired)


@pytest.mark.acceptance("FW-H08")
def test_metadata_may_change_in_labels_and_annotations_only() -> None:
    """Anything else would be refused by the API server."""

    def relabelled(obj: Obj) -> Obj:
        obj["metadata"] |= {"labels": {"x": "y"}, "annotations": {"n": "1"}}
        return obj

    def renamed(obj: Obj) -> Obj:
        obj["metadata"]["name"] = "other"
        return obj

    conversions = Conversions()
    conversions.converter(G, K, "v1", "v2", relabelled)
    conversions.converter(G, K, "v1", "v3", renamed)

    assert conversions.convert(widget("v1"), f"{G}/v2")["metadata"]["labels"] == {"x": "y"}
    with pytest.raises(ConversionError, match="changed metadata"):
        conversions.convert(widget("v1"), f"{G}/v3")


@pytest.mark.acceptance("FW-H08")
def test_what_does_not_fit_together_is_refused_when_composed(conversions: Conversions) -> None:
    """Two hubs, a spoke without a hub, the hub as a spoke, a conversion twice or to itself."""
    with pytest.raises(ManagerError, match="cannot be a second one"):
        conversions.hub(G, K, "v1")
    with pytest.raises(ManagerError, match="needs a hub"):
        conversions.spoke(G, "Gadget", "v1", to_hub=dict, from_hub=dict)
    with pytest.raises(ManagerError, match="needs a hub"):
        conversions.spoke(G, K, "v2", to_hub=dict, from_hub=dict)
    with pytest.raises(ManagerError, match="there is a conversion"):
        conversions.converter(G, K, "v1", "v2", dict)
    with pytest.raises(ManagerError, match="to itself"):
        conversions.converter(G, K, "v1", "v1", dict)


async def asked(conversions: Conversions, *objects: Obj, desired: str = f"{G}/v2") -> Obj:
    request = {"uid": "u-9", "desiredAPIVersion": desired, "objects": list(objects)}
    body = orjson.dumps({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "request": request})
    status, answer = await conversions.answer(body, "application/json")
    assert status == 200
    found: Obj = orjson.loads(answer)
    assert (found["apiVersion"], found["kind"]) == ("apiextensions.k8s.io/v1", "ConversionReview")
    assert found["response"]["uid"] == "u-9"
    response: Obj = found["response"]
    return response


@pytest.mark.acceptance("FW-H08")
async def test_a_review_is_answered_in_order(conversions: Conversions) -> None:
    """Success, the uid, and every object where it was; also for more than one burst, and for none."""
    many = [widget("v1", one=number) for number in range(120)]

    response = await asked(conversions, *many)
    nothing = await asked(conversions)

    assert response["result"] == {"status": "Success"}
    assert [obj["two"] for obj in response["convertedObjects"]] == list(range(120))
    assert (nothing["convertedObjects"], nothing["result"]["status"]) == ([], "Success")


@pytest.mark.acceptance("FW-H08")
async def test_one_failure_fails_the_review(conversions: Conversions) -> None:
    """No object comes back, and the message says which rule was broken."""
    response = await asked(conversions, widget("v1", one=1), widget("v9"))

    assert response["convertedObjects"] == []
    assert response["result"]["status"] == "Failure"
    assert "from v9 to v2" in response["result"]["message"]


@pytest.mark.acceptance("FW-H08")
async def test_a_bug_in_a_converter_is_a_failure_and_counted(conversions: Conversions) -> None:
    """The review fails with the error's words; the panics counter grows."""
    panics: list[int] = []
    conversions.panicked = lambda: panics.append(1)

    response = await asked(conversions, widget("v1"))  # has no field "one"

    assert response["result"]["status"] == "Failure"
    assert "panic: KeyError" in response["result"]["message"]
    assert panics == [1]


@pytest.mark.acceptance("FW-H08")
@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"{}", b'{"request": null}', b'{"request": {"uid": "u"}}', b'{"request": {"objects": 1}}'],
)
async def test_what_is_no_conversion_review_is_http_400(conversions: Conversions, body: bytes) -> None:
    """An unreadable body and a missing request."""
    status, _ = await conversions.answer(body, "application/json")

    assert status == 400
