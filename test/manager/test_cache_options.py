"""What a cache holds of each kind: the table of precedence (behaviour C3), without a server."""

from __future__ import annotations

import pytest

from manager.cache_options import ByResource, CacheOptions, Selection
from manager.errors import ConfigError, NotCached
from manager.resources import CONFIGMAPS, NODES, SECRETS
from manager.transforms import keep_everything, strip_managed_fields

IN_NAMESPACE = Selection(label_selector="from=namespace-of-kind")
OF_KIND = "from=kind"
BY_DEFAULT_NAMESPACE = Selection(label_selector="from=default-namespace")
BY_DEFAULT = Selection(label_selector="from=default")


@pytest.mark.acceptance("FW-C03")
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (CacheOptions(), [(None, None)]),
        (CacheOptions(default=BY_DEFAULT), [(None, "from=default")]),
        (CacheOptions(default_namespaces={}), [(None, None)]),
        (
            CacheOptions(default_namespaces={"b": Selection(), "a": Selection()}, default=BY_DEFAULT),
            [("a", "from=default"), ("b", "from=default")],
        ),
        (
            CacheOptions(default_namespaces={"a": BY_DEFAULT_NAMESPACE}, default=BY_DEFAULT),
            [("a", "from=default-namespace")],
        ),
        (
            CacheOptions(default_namespaces={"a": Selection(label_selector="")}, default=BY_DEFAULT),
            [("a", "")],
        ),
        (
            CacheOptions(by_resource={CONFIGMAPS: ByResource()}, default=BY_DEFAULT),
            [(None, "from=default")],
        ),
        (
            CacheOptions(by_resource={CONFIGMAPS: ByResource(label_selector=OF_KIND)}, default=BY_DEFAULT),
            [(None, "from=kind")],
        ),
        (
            CacheOptions(by_resource={SECRETS: ByResource(label_selector=OF_KIND)}, default=BY_DEFAULT),
            [(None, "from=default")],
        ),
        (
            CacheOptions(
                by_resource={CONFIGMAPS: ByResource(namespaces={"a": IN_NAMESPACE}, label_selector=OF_KIND)},
                default_namespaces={"a": BY_DEFAULT_NAMESPACE},
                default=BY_DEFAULT,
            ),
            [("a", "from=namespace-of-kind")],
        ),
        (
            CacheOptions(
                by_resource={CONFIGMAPS: ByResource(namespaces={"a": Selection()}, label_selector=OF_KIND)},
                default_namespaces={"a": BY_DEFAULT_NAMESPACE},
                default=BY_DEFAULT,
            ),
            [("a", "from=kind")],
        ),
        (
            CacheOptions(
                by_resource={CONFIGMAPS: ByResource(namespaces={"a": Selection()})},
                default_namespaces={"a": BY_DEFAULT_NAMESPACE, "b": Selection()},
                default=BY_DEFAULT,
            ),
            [("a", "from=default-namespace")],
        ),
        (
            CacheOptions(
                by_resource={CONFIGMAPS: ByResource(namespaces={"a": Selection()})},
                default_namespaces={"b": BY_DEFAULT_NAMESPACE},
                default=BY_DEFAULT,
            ),
            [("a", "from=default")],
        ),
        (
            CacheOptions(by_resource={CONFIGMAPS: ByResource()}, default_namespaces={"a": BY_DEFAULT_NAMESPACE}),
            [("a", "from=default-namespace")],
        ),
        (
            CacheOptions(
                by_resource={CONFIGMAPS: ByResource(label_selector="")},
                default_namespaces={"a": Selection()},
                default=BY_DEFAULT,
            ),
            [("a", "")],
        ),
        (
            CacheOptions(
                by_resource={CONFIGMAPS: ByResource(namespaces={})},
                default_namespaces={"a": BY_DEFAULT_NAMESPACE},
            ),
            [(None, None)],
        ),
    ],
    ids=[
        "nothing configured",
        "default for all",
        "no default namespaces",
        "default namespaces, selector from the default",
        "default namespace before default",
        "empty selector of a default namespace",
        "kind without own wishes",
        "kind before default",
        "another kind's wishes",
        "namespace of kind before all",
        "kind before default namespace",
        "default namespace for a namespace of the kind",
        "default for a namespace of the kind",
        "kind takes the default namespaces",
        "empty selector of the kind before default",
        "kind with no namespaces: everywhere",
    ],
)
def test_what_one_level_leaves_open_the_next_decides(
    options: CacheOptions, expected: list[tuple[str | None, str | None]]
) -> None:
    """Kind and namespace, then kind, then namespace, then default; an empty selector is a decision."""
    found = [(scope.namespace, scope.label_selector) for scope in options.scopes(CONFIGMAPS)]

    assert found == expected


@pytest.mark.acceptance("FW-C03")
def test_labels_fields_and_transform_are_decided_one_by_one() -> None:
    """A level that says something of one leaves the others to the next."""
    options = CacheOptions(
        by_resource={CONFIGMAPS: ByResource(namespaces={"a": Selection(field_selector="metadata.name=x")})},
        default_namespaces={"a": Selection(label_selector="a=b")},
        default=Selection(transform=keep_everything, label_selector="c=d", field_selector="metadata.name=y"),
    )
    (scope,) = options.scopes(CONFIGMAPS)

    assert (scope.query_fields, scope.label_selector) == ("metadata.name=x", "a=b")
    assert scope.transform is keep_everything
    assert CacheOptions().scopes(CONFIGMAPS)[0].transform is strip_managed_fields


@pytest.mark.acceptance("FW-C04")
@pytest.mark.parametrize("level", ["default", "kind"])
def test_the_entry_for_all_namespaces_means_the_others(level: str) -> None:
    """They are asked for by excluding those that are named, besides what else is selected."""
    namespaces = {"": Selection(field_selector="metadata.name=x"), "b": Selection(), "a": Selection()}
    if level == "default":
        options = CacheOptions(default_namespaces=namespaces)
    else:
        options = CacheOptions(by_resource={CONFIGMAPS: ByResource(namespaces=namespaces)})
    others, a, b = options.scopes(CONFIGMAPS)

    assert (others.query_namespace, a.query_namespace, b.query_namespace) == (None, "a", "b")
    assert others.query_fields == "metadata.namespace!=a,metadata.namespace!=b,metadata.name=x"
    assert [[scope.covers(name) for scope in (others, a, b)] for name in ("a", "b", "c")] == [
        [False, True, False],
        [False, False, True],
        [True, False, False],
    ]


@pytest.mark.acceptance("FW-C04")
def test_the_entry_for_all_namespaces_alone_means_all() -> None:
    """Nothing is excluded."""
    (scope,) = CacheOptions(default_namespaces={"": Selection()}).scopes(CONFIGMAPS)

    assert (scope.query_namespace, scope.query_fields) == (None, None)


@pytest.mark.acceptance("FW-C03")
def test_a_field_selector_that_names_the_namespace_asks_there() -> None:
    """A list of one namespace needs fewer permissions than one of all."""
    (scope,) = CacheOptions(default=Selection(field_selector="metadata.namespace=a")).scopes(CONFIGMAPS)
    assert scope.query_namespace == "a"
    (scope,) = CacheOptions(default=Selection(field_selector="metadata.namespace!=a")).scopes(CONFIGMAPS)
    assert scope.query_namespace is None


@pytest.mark.acceptance("FW-C03")
def test_namespaces_of_a_cluster_scoped_kind_are_an_error_and_defaults_do_not_concern_it() -> None:
    """It would be a list that no server answers."""
    with pytest.raises(ConfigError, match="nodes are cluster-scoped"):
        CacheOptions(by_resource={NODES: ByResource(namespaces={"a": Selection()})})
    (scope,) = CacheOptions(default_namespaces={"a": BY_DEFAULT_NAMESPACE}, default=BY_DEFAULT).scopes(NODES)

    assert (scope.namespace, scope.label_selector) == (None, "from=default")


def test_a_selector_that_makes_no_sense_is_told_at_once() -> None:
    """Not by a list that fails for ever."""
    with pytest.raises(ConfigError, match="a=b=c"):
        Selection(label_selector="a=b=c")


@pytest.mark.acceptance("FW-C09")
def test_a_namespace_that_is_left_out_has_no_scope() -> None:
    """The error names what is there."""
    options = CacheOptions(default_namespaces={"a": Selection(), "b": BY_DEFAULT_NAMESPACE})
    assert options.scope_in(CONFIGMAPS, "b").label_selector == "from=default-namespace"
    with pytest.raises(NotCached, match="configmaps of namespace c are not in this cache, only those of a, b"):
        options.scope_in(CONFIGMAPS, "c")
    with_others = CacheOptions(default_namespaces={"a": Selection(), "": BY_DEFAULT_NAMESPACE})

    assert with_others.scope_in(CONFIGMAPS, "c").label_selector == "from=default-namespace"
