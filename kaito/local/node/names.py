"""Names of pods, which a cluster's DNS would know, as addresses: there is no DNS here.

In: a text of a container (a word of its command, a variable) and who knows the pods. Out: the text with each name
of the form ``HOSTNAME.SUBDOMAIN.NAMESPACE.svc[.cluster.local]`` replaced by that pod's address. Kubernetes gives
such a name to a pod with ``hostname`` and ``subdomain`` (a StatefulSet's have both) under a headless Service of
the subdomain's name. The processes of our pods resolve by the machine's own resolver, which a user without
privileges cannot teach anything; so a name is written as its address when the process starts, and anew each time
it starts. Names of Services are left as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from kaito.local.node.env import ConfigMissing

_LABEL = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
_POD_NAME = re.compile(
    rf"(?<![-.\w])({_LABEL})\.({_LABEL})\.({_LABEL})\.svc(?:\.cluster\.local)?\.?(?![-.\w])",
)

# (namespace, subdomain, hostname) → the pod's address; None: no such pod has one yet
Known = Callable[[str, str, str], str | None]


def with_addresses(text: str, known: Known) -> str:
    """The text with names of pods replaced.

    Raises:
        ConfigMissing: a pod of that name has no address (yet); the kubelet's DNS would say NXDOMAIN.
    """

    def one(found: re.Match[str]) -> str:
        host, subdomain, namespace = found.groups()
        address = known(namespace, subdomain, host)
        if address is None:
            raise ConfigMissing(f"no pod answers to the name {found[0]} yet")
        return address

    return _POD_NAME.sub(one, text)
