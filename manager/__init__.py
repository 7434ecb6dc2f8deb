"""A level-triggered controller framework for Kubernetes, in asyncio. README.md beside this file says how to use
it.

In: the API server's lists and watches. Out: calls of reconcilers, each with the key of one object that may not be
as it should be. It knows no custom resource and no cloud. The parts, in the order in which an event meets them:
``reflector`` and ``store`` (a true local copy), ``informer`` and ``cache`` (who hears of changes), ``sources``,
``predicates`` and ``handlers`` (what makes work), ``queue`` (what is next), ``controller`` (what follows from an
outcome), ``manager`` (start, stop, leadership, probes, metrics).

The names below are loaded with their modules when they are used: importing the package is free, and a program that
asks for ``Client`` alone pays for no metrics and no web server. ``manager.resources`` has the built-in kinds,
``manager.predicates`` and ``manager.handlers`` the functions that a builder takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from manager import lazy

if TYPE_CHECKING:
    from manager.builder import BuilderError, ControllerBuilder
    from manager.cache import Cache
    from manager.cache_options import ByResource, CacheOptions, Selection
    from manager.cached import CachedClient
    from manager.changes import Generic
    from manager.channel import Channel, ChannelSource
    from manager.client import Client, FieldValidation, ObjectList, PatchType
    from manager.cluster import Cluster
    from manager.config import RestConfig
    from manager.controller import Controller, ControllerDefaults, Reconciler
    from manager.ensure import Ensured, Operation, Renamed, create_or_patch, create_or_update
    from manager.errors import (
        AlreadyExists,
        ApiError,
        ApplyConflict,
        CacheError,
        CacheNotStarted,
        CacheNotSynced,
        ConfigError,
        Conflict,
        ConnectionFailed,
        Forbidden,
        Gone,
        IndexMissing,
        InformerStopped,
        Invalid,
        InvalidRequest,
        ManagerError,
        NotCached,
        NotFound,
        ServerError,
        StaleCache,
        TerminalError,
        TooManyRequests,
        Unauthorized,
    )
    from manager.events import EventRecorder
    from manager.finalizers import Finalized, Finalizers, has_finalizer, with_finalizer, without_finalizer
    from manager.handlers import MapFunction
    from manager.informer import Added, Deleted, Event, Informer, Registration, Updated
    from manager.kubeconfig import load_config
    from manager.leader import LeaderElection
    from manager.lifecycle import RunFailed
    from manager.manager import LeaderLost, Manager, SecureMetrics
    from manager.ownership import (
        AlreadyOwned,
        OwnershipError,
        has_controller_reference,
        has_owner_reference,
        with_controller_reference,
        with_owner_reference,
        without_controller_reference,
        without_owner_reference,
    )
    from manager.patches import json_patch, merge_patch, private_copy
    from manager.predicates import Predicate
    from manager.rest_metrics import RestMetrics
    from manager.retry import DEFAULT_BACKOFF, DEFAULT_RETRY, Backoff, retry_on_conflict
    from manager.runnables import Group
    from manager.selectors import LabelSelector, parse_label_selector
    from manager.signals import run_until_signal, stop_on_signals
    from manager.sources import FuncSource, InformerSource, KindSource, Source
    from manager.store import Store
    from manager.throttle import RateLimit
    from manager.transforms import strip_managed_fields
    from manager.types import Obj, Request, Resource, Result

__all__ = [
    "DEFAULT_BACKOFF",
    "DEFAULT_RETRY",
    "Added",
    "AlreadyExists",
    "AlreadyOwned",
    "ApiError",
    "ApplyConflict",
    "Backoff",
    "BuilderError",
    "ByResource",
    "Cache",
    "CacheError",
    "CacheNotStarted",
    "CacheNotSynced",
    "CacheOptions",
    "CachedClient",
    "Channel",
    "ChannelSource",
    "Client",
    "Cluster",
    "ConfigError",
    "Conflict",
    "ConnectionFailed",
    "Controller",
    "ControllerBuilder",
    "ControllerDefaults",
    "Deleted",
    "Ensured",
    "Event",
    "EventRecorder",
    "FieldValidation",
    "Finalized",
    "Finalizers",
    "Forbidden",
    "FuncSource",
    "Generic",
    "Gone",
    "Group",
    "IndexMissing",
    "Informer",
    "InformerSource",
    "InformerStopped",
    "Invalid",
    "InvalidRequest",
    "KindSource",
    "LabelSelector",
    "LeaderElection",
    "LeaderLost",
    "Manager",
    "ManagerError",
    "MapFunction",
    "NotCached",
    "NotFound",
    "Obj",
    "ObjectList",
    "Operation",
    "OwnershipError",
    "PatchType",
    "Predicate",
    "RateLimit",
    "Reconciler",
    "Registration",
    "Renamed",
    "Request",
    "Resource",
    "RestConfig",
    "RestMetrics",
    "Result",
    "RunFailed",
    "SecureMetrics",
    "Selection",
    "ServerError",
    "Source",
    "StaleCache",
    "Store",
    "TerminalError",
    "TooManyRequests",
    "Unauthorized",
    "Updated",
    "create_or_patch",
    "create_or_update",
    "has_controller_reference",
    "has_finalizer",
    "has_owner_reference",
    "json_patch",
    "load_config",
    "merge_patch",
    "parse_label_selector",
    "private_copy",
    "retry_on_conflict",
    "run_until_signal",
    "stop_on_signals",
    "strip_managed_fields",
    "with_controller_reference",
    "with_finalizer",
    "with_owner_reference",
    "without_controller_reference",
    "without_finalizer",
    "without_owner_reference",
]

__getattr__, __dir__ = lazy.names(
    __name__,
    {
        "builder": (
            "BuilderError",
            "ControllerBuilder",
        ),
        "cache": ("Cache",),
        "cache_options": (
            "ByResource",
            "CacheOptions",
            "Selection",
        ),
        "changes": ("Generic",),
        "channel": (
            "Channel",
            "ChannelSource",
        ),
        "cached": ("CachedClient",),
        "client": (
            "Client",
            "FieldValidation",
            "ObjectList",
            "PatchType",
        ),
        "cluster": ("Cluster",),
        "config": ("RestConfig",),
        "controller": (
            "Controller",
            "ControllerDefaults",
            "Reconciler",
        ),
        "ensure": (
            "Ensured",
            "Operation",
            "Renamed",
            "create_or_patch",
            "create_or_update",
        ),
        "errors": (
            "AlreadyExists",
            "ApiError",
            "ApplyConflict",
            "CacheError",
            "CacheNotStarted",
            "CacheNotSynced",
            "ConfigError",
            "Conflict",
            "ConnectionFailed",
            "Forbidden",
            "Gone",
            "IndexMissing",
            "InformerStopped",
            "Invalid",
            "InvalidRequest",
            "ManagerError",
            "NotCached",
            "NotFound",
            "ServerError",
            "StaleCache",
            "TerminalError",
            "TooManyRequests",
            "Unauthorized",
        ),
        "events": ("EventRecorder",),
        "finalizers": (
            "Finalized",
            "Finalizers",
            "has_finalizer",
            "with_finalizer",
            "without_finalizer",
        ),
        "handlers": ("MapFunction",),
        "informer": (
            "Added",
            "Deleted",
            "Event",
            "Informer",
            "Registration",
            "Updated",
        ),
        "kubeconfig": ("load_config",),
        "leader": ("LeaderElection",),
        "lifecycle": ("RunFailed",),
        "manager": (
            "LeaderLost",
            "Manager",
            "SecureMetrics",
        ),
        "ownership": (
            "AlreadyOwned",
            "OwnershipError",
            "has_controller_reference",
            "has_owner_reference",
            "with_controller_reference",
            "with_owner_reference",
            "without_controller_reference",
            "without_owner_reference",
        ),
        "patches": (
            "json_patch",
            "merge_patch",
            "private_copy",
        ),
        "predicates": ("Predicate",),
        "runnables": ("Group",),
        "throttle": ("RateLimit",),
        "rest_metrics": ("RestMetrics",),
        "retry": (
            "DEFAULT_BACKOFF",
            "DEFAULT_RETRY",
            "Backoff",
            "retry_on_conflict",
        ),
        "selectors": (
            "LabelSelector",
            "parse_label_selector",
        ),
        "signals": (
            "run_until_signal",
            "stop_on_signals",
        ),
        "sources": (
            "FuncSource",
            "InformerSource",
            "KindSource",
            "Source",
        ),
        "store": ("Store",),
        "transforms": ("strip_managed_fields",),
        "types": (
            "Obj",
            "Request",
            "Resource",
            "Result",
        ),
    },
)
