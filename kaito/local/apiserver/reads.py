"""Get and list: snapshots, selectors, pages, and the meaning of a resource version in a read.

In: a resource type, a namespace and the options of a request. Out: objects at the request's version and the
list's metadata, or a StatusError (Expired when the history is gone, Timeout for a revision from the future).
A page token names a revision and a key; later pages are read at that revision, so that a long list is one
consistent snapshot however much is written meanwhile.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

import orjson

from kaito.local.apiserver.conversion import from_storage
from kaito.local.apiserver.errors import StatusError, bad_request, expired, invalid, not_found, too_large_revision
from kaito.local.apiserver.fielderrors import FieldError, forbidden, not_supported
from kaito.local.apiserver.fielderrors import invalid as invalid_field
from kaito.local.apiserver.registry import ResourceType
from kaito.local.apiserver.requests import Options
from kaito.local.apiserver.selection import Selection
from kaito.local.apiserver.storage import Compacted, Record, Storage
from manager.types import Obj

__all__ = ["Page", "check_revision", "check_watch_options", "get", "list_page"]

_GONE_PAGE = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list "
    "without the continue parameter, or use the continue token in this response to retrieve the remainder of "
    "the results. Continuing with the provided token results in an inconsistent list - objects that were "
    "created, modified, or deleted between the time the first chunk was returned and now may show up in the list."
)


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list; ``records`` are stored objects, ``objects`` the same at the request's version."""

    records: list[Record]
    meta: Obj


def get(storage: Storage, resource: ResourceType, namespace: str, name: str) -> Record:
    """One stored object.

    Raises:
        StatusError: 404.
    """
    record = storage.get(resource.storage_key, namespace, name)
    if record is None:
        raise not_found(resource, name)
    return record


def check_revision(text: str) -> int:
    """A resource version as a number; 0 for none.

    Raises:
        StatusError: 400 for anything else.
    """
    if not text:
        return 0
    if not text.isdecimal():
        raise bad_request(
            f'resourceVersion: Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax'
        )
    return int(text)


def _option_error(*problems: FieldError) -> StatusError:
    return invalid("meta.k8s.io", "ListOptions", "", problems)


def check_watch_options(options: Options) -> None:
    """Refuse the combinations that a real server refuses."""
    match = options.resource_version_match
    if options.send_initial_events is None:
        if match:
            raise _option_error(
                forbidden(
                    "resourceVersionMatch",
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                )
            )
        return
    if not match:
        raise _option_error(
            forbidden(
                "resourceVersionMatch", "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
            )
        )
    if match != "NotOlderThan":
        raise _option_error(not_supported("resourceVersionMatch", match, ["NotOlderThan"]))
    if not options.bookmarks and options.send_initial_events:
        raise _option_error(
            invalid_field(
                "allowWatchBookmarks", False, "sendInitialEvents requires setting allowWatchBookmarks to true"
            )
        )


def _check_list_options(options: Options) -> None:
    match = options.resource_version_match
    problems = []
    if options.send_initial_events is not None:
        problems.append(forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"))
    if match:
        if not options.resource_version:
            problems.append(
                forbidden(
                    "resourceVersionMatch", "resourceVersionMatch is forbidden unless resourceVersion is provided"
                )
            )
        if options.continue_token:
            problems.append(
                forbidden("resourceVersionMatch", "resourceVersionMatch is forbidden when continue is provided")
            )
        if match not in ("Exact", "NotOlderThan"):
            problems.append(not_supported("resourceVersionMatch", match, ["Exact", "NotOlderThan", ""]))
        elif match == "Exact" and options.resource_version == "0":
            problems.append(
                forbidden(
                    "resourceVersionMatch", 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
                )
            )
    if problems:
        raise _option_error(*problems)
    if options.continue_token and options.resource_version not in ("", "0"):
        raise bad_request("specifying resource version is not allowed when using continue")


def list_page(
    storage: Storage, resource: ResourceType, namespace: str | None, selection: Selection, options: Options
) -> Page:
    """One page of objects.

    Raises:
        StatusError: 400, 410 or 504.
    """
    _check_list_options(options)
    asked = check_revision(options.resource_version)
    if asked > storage.revision:
        raise too_large_revision(asked, storage.revision)
    limit = options.limit if options.resource_version != "0" or options.continue_token else 0
    after: tuple[str, str] | None = None
    revision = storage.revision
    if options.continue_token:
        token_revision, after = _decode_token(options.continue_token)
        revision = token_revision or revision
    elif asked and (
        options.resource_version_match == "Exact" or (not options.resource_version_match and limit > 0)
    ):
        revision = asked
    try:
        records = storage.all_at(resource.storage_key, namespace, revision)
    except Compacted:
        raise _expired(storage, revision, after) from None
    if after is not None:
        records = [r for r in records if (r.namespace, r.name) > after]
    if selection:
        name = selection.name
        if name is not None:
            records = [r for r in records if r.name == name]
        records = [r for r in records if selection.matches(from_storage(resource, r.obj))]
    meta: Obj = {"resourceVersion": str(revision)}
    if 0 < limit < len(records):
        if not selection:
            meta["remainingItemCount"] = len(records) - limit
        records = records[:limit]
        meta["continue"] = _encode_token(revision, records[-1])
    return Page(records, meta)


def _expired(storage: Storage, revision: int, after: tuple[str, str] | None) -> StatusError:
    if after is None:
        return expired(f"The resourceVersion for the provided list is too old. ({revision})")
    error = expired(_GONE_PAGE)
    token = base64.urlsafe_b64encode(orjson.dumps({"v": "meta.k8s.io/v1", "rv": 0, "start": list(after)}))
    error.list_meta = {"continue": token.decode().rstrip("=")}
    return error


def _encode_token(revision: int, last: Record) -> str:
    token = {"v": "meta.k8s.io/v1", "rv": revision, "start": [last.namespace, last.name]}
    return base64.urlsafe_b64encode(orjson.dumps(token)).decode().rstrip("=")


def _decode_token(token: str) -> tuple[int, tuple[str, str]]:
    try:
        decoded = orjson.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        namespace, name = decoded["start"]
        return int(decoded["rv"]), (str(namespace), str(name))
    except (ValueError, KeyError, TypeError, binascii.Error) as error:
        raise bad_request("continue key is not valid") from error
