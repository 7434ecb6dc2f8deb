"""From the bytes of an AdmissionReview to the bytes of its answer, by handlers, validators and defaulters."""

from __future__ import annotations

import base64
import json
from typing import Any

import jsonpatch
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter

from manager.errors import Conflict, ConnectionFailed, Invalid
from manager.types import Obj, Resource
from manager.webhooks.admission import (
    BODY_LIMIT,
    AdmissionEndpoint,
    Handler,
    Warnings,
    chain,
    mutate_path,
    mutating,
    validate_path,
    validating,
)
from manager.webhooks.diff import diff
from manager.webhooks.review import AdmissionRequest, Denied, Response, allowed, denied, errored, patched

V1, BETA = "admission.k8s.io/v1", "admission.k8s.io/v1beta1"


def review(version: str = V1, **request: Any) -> bytes:
    given = {"uid": "u-1", "operation": "CREATE", "kind": {"group": "g", "version": "v1", "kind": "Thing"}}
    return orjson.dumps({"kind": "AdmissionReview", "apiVersion": version, "request": given | request})


async def ask(handler: Handler, body: bytes = b"", content_type: str = "application/json", **request: Any) -> Obj:
    """The whole review that comes back; the HTTP status is always 200."""
    status, answer = await AdmissionEndpoint(handler).answer(body or review(**request), content_type)
    assert status == 200
    found: Obj = orjson.loads(answer)
    return found


def patch_of(answer: Obj) -> list[Obj]:
    found: list[Obj] = json.loads(base64.b64decode(answer["response"]["patch"]))
    return found


def passing(_: AdmissionRequest) -> Response:
    return allowed()


# ------------------------------------------------------------------ H1, H2, H3: the wire


@pytest.mark.acceptance("FW-H01")
@pytest.mark.parametrize(
    ("body", "content_type", "message"),
    [
        (b"", "application/json", "request body is empty"),
        (review(), "application/foo", "contentType=application/foo, expected application/json"),
        (review(), "", "contentType=, expected application/json"),
        (b"{", "application/json", "the body is no JSON"),
        (b"[]", "application/json", "the body is no AdmissionReview"),
        (b"{}", "application/json", "the review has no request"),
        (b'{"request": 1}', "application/json", "the review has no request"),
        (b'{"kind": "Pod", "request": {}}', "application/json", "kind=Pod, expected AdmissionReview"),
        (review(object=[1]), "application/json", "the request's object is no object"),
    ],
)
async def test_what_is_no_review_is_a_bad_request(body: bytes, content_type: str, message: str) -> None:
    """The answer is a review with code 400 and no uid, under HTTP 200."""
    status, answer = await AdmissionEndpoint(passing).answer(body, content_type)

    response = orjson.loads(answer)["response"]
    assert status == 200
    assert (response["uid"], response["allowed"], response["status"]["code"]) == ("", False, 400)
    assert message in response["status"]["message"]


@pytest.mark.acceptance("FW-H01")
def test_a_body_over_the_limit_is_told_so() -> None:
    """The review says 413 and the limit, which is 7 MiB."""
    _, answer = AdmissionEndpoint(passing).refuse(413, f"request entity is too large; limit is {BODY_LIMIT} bytes")

    status = orjson.loads(answer)["response"]["status"]
    assert status["code"] == 413
    assert status["message"] == "request entity is too large; limit is 7340032 bytes"


@pytest.mark.acceptance("FW-H02")
@pytest.mark.parametrize(
    ("asked", "answered"), [(V1, V1), (BETA, BETA), ("", V1), ("admission.k8s.io/v9", V1), ("apps/v1", V1)]
)
async def test_the_answer_has_the_version_of_the_question(asked: str, answered: str) -> None:
    """v1 and v1beta1 are answered in kind, anything else as v1."""
    answer = await ask(passing, body=review(asked))

    assert (answer["apiVersion"], answer["kind"]) == (answered, "AdmissionReview")
    assert answer["response"] == {"uid": "u-1", "allowed": True, "status": {"metadata": {}, "code": 200}}


@pytest.mark.acceptance("FW-H02")
async def test_content_type_parameters_and_case_do_not_matter() -> None:
    """``application/json; charset=utf-8`` is JSON."""
    answer = await ask(passing, content_type="Application/JSON; charset=utf-8")

    assert answer["response"]["allowed"]


@pytest.mark.acceptance("FW-H03")
@pytest.mark.parametrize(
    ("response", "status"),
    [
        (Response(True), {"metadata": {}, "code": 200}),
        (Response(False), {"metadata": {}, "code": 403}),
        (Response(True, {"code": 201, "message": "m"}), {"metadata": {}, "code": 201, "message": "m"}),
        (denied("no"), {"metadata": {}, "code": 403, "reason": "Forbidden", "message": "no"}),
        (errored(500, "ouch"), {"metadata": {}, "code": 500, "message": "ouch"}),
    ],
    ids=["allowed", "denied", "own code", "denied()", "errored()"],
)
async def test_a_status_is_completed_and_never_overwritten(response: Response, status: Obj) -> None:
    """The uid is the request's; the code is the verdict's unless the handler gave one."""
    answer = await ask(lambda _: response)

    assert answer["response"]["uid"] == "u-1"
    assert answer["response"]["status"] == status


@pytest.mark.acceptance("FW-H03")
async def test_patches_warnings_and_audit_annotations_are_serialised() -> None:
    """The patch is a base64 JSON patch with its type; empty ones are left out entirely."""
    operations = [{"op": "add", "path": "/a", "value": 1}]
    full = Response(True, patch=operations, warnings=["w"], audit_annotations={"k": "v"})

    answer = (await ask(lambda _: full))["response"]
    bare = (await ask(lambda _: patched([])))["response"]

    assert json.loads(base64.b64decode(answer["patch"])) == operations
    assert answer["patchType"] == "JSONPatch"
    assert (answer["warnings"], answer["auditAnnotations"]) == (["w"], {"k": "v"})
    assert not bare.keys() & {"patch", "patchType", "warnings", "auditAnnotations"}


@pytest.mark.acceptance("FW-H03")
async def test_a_handler_finds_everything_in_the_request() -> None:
    """User, operation, dry run, old object, options and names are those of the review."""
    seen: list[AdmissionRequest] = []

    async def look(request: AdmissionRequest) -> Response:
        seen.append(request)
        return allowed()

    user = {"username": "jane", "groups": ["dev"]}
    sent = {"a": 1, "unknown": {"deep": [1.5, 2**63]}}
    resource = {"group": "g", "version": "v1", "resource": "things"}
    await ask(
        look,
        operation="UPDATE",
        object=sent,
        oldObject={"a": 0},
        userInfo=user,
        dryRun=True,
        options={"kind": "UpdateOptions"},
        name="n",
        namespace="ns",
        resource=resource,
        subResource="status",
    )

    request = seen[0]
    assert (request.uid, request.operation, request.name, request.namespace) == ("u-1", "UPDATE", "n", "ns")
    assert (request.object, request.old_object, request.dry_run) == (sent, {"a": 0}, True)
    assert (request.user, request.resource, request.subresource) == (user, resource, "status")
    assert request.options == {"kind": "UpdateOptions"}


# ------------------------------------------------------------------ H4: bugs


@pytest.mark.acceptance("FW-H04")
async def test_a_bug_is_answered_counted_and_logged() -> None:
    """The API server gets 500 with its uid, in its version; the panics counter grows by one."""
    panics = Counter("panics", "p", registry=CollectorRegistry())

    def broken(_: AdmissionRequest) -> Response:
        raise KeyError("fake panic test")

    status, raw = await AdmissionEndpoint(broken, panicked=panics.inc).answer(review(BETA), "application/json")

    answer = orjson.loads(raw)
    assert (status, answer["apiVersion"], answer["response"]["uid"]) == (200, BETA, "u-1")
    assert answer["response"]["status"] == {
        "metadata": {},
        "code": 500,
        "message": "panic: KeyError: 'fake panic test' [recovered]",
    }
    assert panics._value.get() == 1


@pytest.mark.acceptance("FW-H04")
async def test_an_answer_that_cannot_be_encoded_is_a_bug_too() -> None:
    """A patch with a value that is no JSON does not break the connection."""
    answer = await ask(lambda _: patched([{"op": "add", "path": "/a", "value": object()}]))

    assert answer["response"]["status"]["code"] == 500


# ------------------------------------------------------------------ H5: several handlers


def refusing(_: AdmissionRequest) -> Response:
    return denied("second says no", warnings=["from the refusal"])


def adding(key: str, *warnings: str) -> Handler:
    def handle(request: AdmissionRequest) -> Response:
        return patched([{"op": "add", "path": f"/{key}", "value": key}], warnings=warnings)

    return handle


@pytest.mark.acceptance("FW-H05")
async def test_the_first_refusal_ends_a_chain() -> None:
    """Nobody after it is asked, no patch survives, warnings so far are kept."""
    asked: list[str] = []

    def late(_: AdmissionRequest) -> Response:
        asked.append("late")
        return allowed()

    answer = (await ask(chain(adding("a", "first"), refusing, late), object={}))["response"]

    assert (answer["allowed"], answer["status"]["message"]) == (False, "second says no")
    assert answer["warnings"] == ["first", "from the refusal"]
    assert "patch" not in answer
    assert asked == []


@pytest.mark.acceptance("FW-H05")
async def test_patches_and_warnings_of_a_chain_add_up() -> None:
    """The patches of all, in order, give the object that the last one saw patched."""
    answer = await ask(chain(adding("a", "w1"), adding("b", "w2")), object={"x": 1})

    assert jsonpatch.apply_patch({"x": 1}, patch_of(answer)) == {"x": 1, "a": "a", "b": "b"}
    assert answer["response"]["warnings"] == ["w1", "w2"]


@pytest.mark.acceptance("FW-H05")
async def test_a_response_that_is_given_again_does_not_grow() -> None:
    """A chain changes no response of its handlers."""
    constant = patched([{"op": "add", "path": "/k", "value": 1}], warnings=["once"])
    handler = chain(adding("a", "w"), lambda _: constant)

    answers = [await ask(handler, object={}) for _ in range(3)]

    assert {tuple(answer["response"]["warnings"]) for answer in answers} == {("w", "once")}
    assert [len(patch_of(answer)) for answer in answers] == [2, 2, 2]


@pytest.mark.acceptance("FW-H05")
async def test_each_in_a_chain_sees_what_those_before_it_did() -> None:
    """A defaulter that builds on another's default finds it."""

    class First:
        def default(self, obj: Obj, request: AdmissionRequest) -> Obj:
            return obj | {"size": 3}

    class Second:
        async def default(self, obj: Obj, request: AdmissionRequest) -> Obj:
            return obj | {"double": obj["size"] * 2}

    answer = await ask(chain(mutating(First()), mutating(Second())), object={})

    assert jsonpatch.apply_patch({}, patch_of(answer)) == {"size": 3, "double": 6}


@pytest.mark.acceptance("FW-H05")
async def test_validators_in_a_chain_all_have_their_say() -> None:
    """All allow: allowed, with the warnings of all; the errors of one are its refusal."""
    fine = await ask(chain(validating(Strict([])), validating(Strict(["w"]))), object={"ok": True})
    bad = await ask(chain(validating(Strict(["w"])), validating(Strict([]))), object={"ok": False})

    assert (fine["response"]["allowed"], fine["response"]["warnings"]) == (True, ["w"])
    assert (bad["response"]["allowed"], bad["response"]["status"]["message"]) == (False, "not ok")


# ------------------------------------------------------------------ H6: validators


class Strict:
    """Wants ``ok`` to be true; synchronous and not, to show both."""

    def __init__(self, warnings: list[str], error: Exception | None = None) -> None:
        self.warnings = warnings
        self.error = error or Denied("not ok")

    def validate_create(self, obj: Obj, request: AdmissionRequest) -> Warnings:
        if not obj["ok"]:
            raise self.error
        return self.warnings

    async def validate_update(self, old: Obj, new: Obj, request: AdmissionRequest) -> Warnings:
        if old["ok"] and not new["ok"]:
            raise self.error
        return self.warnings

    async def validate_delete(self, obj: Obj, request: AdmissionRequest) -> Warnings:
        if not obj["ok"]:
            raise self.error
        return None


GOOD, BAD = {"ok": True}, {"ok": False}


@pytest.mark.acceptance("FW-H06")
@pytest.mark.parametrize(
    ("request_", "verdict"),
    [
        ({"operation": "CREATE", "object": GOOD}, True),
        ({"operation": "CREATE", "object": BAD}, False),
        ({"operation": "UPDATE", "object": GOOD, "oldObject": BAD}, True),
        ({"operation": "UPDATE", "object": BAD, "oldObject": GOOD}, False),
        ({"operation": "DELETE", "oldObject": GOOD}, True),
        ({"operation": "DELETE", "oldObject": BAD}, False),
        ({"operation": "CONNECT", "object": BAD}, True),
    ],
)
async def test_each_operation_is_judged_by_its_method(request_: Obj, verdict: bool) -> None:
    """Create sees the object, update both, delete the old one; connections pass. A plain refusal is 403."""
    response = (await ask(validating(Strict([])), **request_))["response"]

    assert response["allowed"] is verdict
    assert response["status"]["code"] == (200 if verdict else 403)
    if not verdict:
        assert (response["status"]["message"], response["status"]["reason"]) == ("not ok", "Forbidden")


@pytest.mark.acceptance("FW-H06")
@pytest.mark.parametrize(
    "missing", [{"operation": "CREATE"}, {"operation": "UPDATE", "object": GOOD}, {"operation": "DELETE"}]
)
async def test_a_review_without_its_object_is_a_bad_request(missing: Obj) -> None:
    """No object to judge: 400, not a bug."""
    response = (await ask(validating(Strict([])), **missing))["response"]

    assert (response["allowed"], response["status"]["code"]) == (False, 400)


@pytest.mark.acceptance("FW-H06")
async def test_an_api_error_is_passed_on_whole() -> None:
    """Code, reason, message and details are those of the Status; warnings of a refusal reach the user."""
    causes = {"causes": [{"field": "spec.x", "message": "m", "reason": "FieldValueInvalid"}]}
    invalid = Strict([], Invalid(422, "Invalid", "spec.x: Invalid value", causes))

    first = (await ask(validating(invalid), object=BAD))["response"]
    second = (await ask(validating(Strict([], Conflict(409, "Conflict", "c"))), object=BAD))["response"]

    assert first["status"] == {
        "metadata": {},
        "status": "Failure",
        "code": 422,
        "reason": "Invalid",
        "message": "spec.x: Invalid value",
        "details": causes,
    }
    assert (second["status"]["code"], second["status"]["reason"]) == (409, "Conflict")


@pytest.mark.acceptance("FW-H06")
async def test_an_error_on_the_way_to_a_judgement_is_no_bug() -> None:
    """An API server that a validator cannot reach is 500 with its words, and counts as no panic."""
    panics: list[int] = []
    handler = validating(Strict([], ConnectionFailed("refused by peer")))
    endpoint = AdmissionEndpoint(handler, panicked=lambda: panics.append(1))

    _, raw = await endpoint.answer(review(object=BAD), "application/json")

    status = orjson.loads(raw)["response"]["status"]
    assert (status["code"], status["message"], panics) == (500, "refused by peer", [])


@pytest.mark.acceptance("FW-H06")
async def test_a_refusal_carries_code_causes_and_warnings() -> None:
    """``Denied`` may say all that a Status says."""
    cause = {"field": "spec.x", "message": "m", "reason": "FieldValueInvalid"}
    error = Denied("bad x", code=422, causes=[cause], warnings=["and y is odd"])

    response = (await ask(validating(Strict([], error)), object=BAD))["response"]

    assert response["status"]["code"] == 422
    assert response["status"]["reason"] == "Invalid"
    assert response["status"]["details"] == {"causes": [cause]}
    assert response["warnings"] == ["and y is odd"]


# ------------------------------------------------------------------ H7: defaulters


class Replicas:
    def default(self, obj: Obj, request: AdmissionRequest) -> Obj:
        obj.setdefault("spec", {}).setdefault("replicas", 2)
        return obj


@pytest.mark.acceptance("FW-H07")
async def test_a_defaulter_patches_its_change_and_nothing_else() -> None:
    """Fields that nobody knows survive, with keys that need escaping; an unchanged object has no patch."""
    sent = {"spec": {"new~er/field": {"a/b": [1, {"c": None}]}}, "status": {"deep": 2**60}}

    changed = await ask(mutating(Replicas()), object=sent)
    same = await ask(mutating(Replicas()), object={"spec": {"replicas": 1}})

    assert patch_of(changed) == [{"op": "add", "path": "/spec/replicas", "value": 2}]
    assert "patch" not in same["response"]


@pytest.mark.acceptance("FW-H07")
@pytest.mark.parametrize(
    "request_", [{"operation": "DELETE", "oldObject": {"a": 1}}, {"operation": "CONNECT", "object": {"a": 1}}]
)
async def test_deletions_and_connections_are_not_defaulted(request_: Obj) -> None:
    """They pass and the defaulter is not called."""

    class Never:
        def default(self, obj: Obj, request: AdmissionRequest) -> Obj:
            raise AssertionError("called")

    answer = await ask(mutating(Never()), **request_)

    assert answer["response"]["allowed"]


@pytest.mark.acceptance("FW-H07")
async def test_a_defaulter_may_refuse_and_must_return_an_object() -> None:
    """A refusal is 403; None is a bug, told as one."""

    class Refusing:
        def default(self, obj: Obj, request: AdmissionRequest) -> Obj:
            raise Denied("no")

    class Forgetful:
        def default(self, obj: Obj, request: AdmissionRequest) -> Obj:
            return None  # type: ignore[return-value]

    assert (await ask(mutating(Refusing()), object={}))["response"]["status"]["code"] == 403
    bug = (await ask(mutating(Forgetful()), object={}))["response"]["status"]
    assert (bug["code"], "returned NoneType" in bug["message"]) == (500, True)


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.sampled_from(["", "a", "~1", "/"])
    | st.floats(-9, 9),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["", "a", "b/c", "~", "~1", "0"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@pytest.mark.acceptance("FW-H07")
@given(_json, _json)
def test_a_diff_applied_gives_the_new_value(old: Any, new: Any) -> None:
    """For any two JSON values, types included: 1, true and 1.0 are three things."""
    operations = diff({"root": old}, {"root": new})

    result = jsonpatch.JsonPatch(operations).apply({"root": old})
    assert orjson.dumps(result, option=orjson.OPT_SORT_KEYS) == orjson.dumps(
        {"root": new}, option=orjson.OPT_SORT_KEYS
    )
    assert diff({"root": new}, {"root": new}) == []


def test_paths_are_those_of_controller_gen() -> None:
    """Dots of the group become dashes, the kind is in lower case; the core group leaves a double dash."""
    workspace = Resource("kaito.sh", "v1alpha1", "workspaces", "Workspace")

    assert mutate_path(workspace) == "/mutate-kaito-sh-v1alpha1-workspace"
    assert validate_path(workspace) == "/validate-kaito-sh-v1alpha1-workspace"
    assert validate_path(Resource("", "v1", "pods", "Pod")) == "/validate--v1-pod"
