"""``kaito.sh/v1beta1``: the same Workspace under the version that newer clients ask for first.

One shape, no conversion: the classes are those of ``api.v1alpha1``, only the constants differ.
"""

from __future__ import annotations

from typing import ClassVar, Final

from api import v1alpha1
from api.v1alpha1 import GROUP, KIND, PLURAL

VERSION: Final = "v1beta1"
API_VERSION: Final = f"{GROUP}/{VERSION}"


class Workspace(v1alpha1.Workspace):
    """A model to serve or to tune, and the nodes to do it on."""

    API_VERSION: ClassVar[str] = API_VERSION


__all__ = ["API_VERSION", "GROUP", "KIND", "PLURAL", "VERSION", "Workspace"]
