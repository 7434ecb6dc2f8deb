"""Which linear layers of a model get an adapter.

In: the names of the model's linear modules, the configuration's wish, and the operator's (DEFAULT_TARGET_MODULES).
Out: names, sorted. Pure. The names differ by architecture: Phi-3 has q, k and v in one module ``qkv_proj`` and
gate and up in ``gate_up_proj``; upstream's list for phi-3 names the separate ones, so that only two of its seven
took effect. A separate name stands for the fused module here, so the same list means the same layers for every
model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

# A separate name, and the modules that hold it where it is fused with others.
_FUSED: Final = {
    "q_proj": ("qkv_proj", "query_key_value", "c_attn", "Wqkv"),
    "k_proj": ("qkv_proj", "query_key_value", "c_attn", "Wqkv"),
    "v_proj": ("qkv_proj", "query_key_value", "c_attn", "Wqkv"),
    "gate_proj": ("gate_up_proj",),
    "up_proj": ("gate_up_proj", "dense_h_to_4h", "c_fc", "fc1"),
    "o_proj": ("dense", "out_proj", "c_proj"),
    "down_proj": ("dense_4h_to_h", "fc2", "c_proj"),
}
_HEADS: Final = ("lm_head", "embed_out", "score", "output")
ALL_LINEAR: Final = "all-linear"


class NoTargets(ValueError):
    """A wanted name is no module of the model. ``names`` are those that it has."""

    def __init__(self, wanted: Sequence[str], names: Sequence[str]) -> None:
        self.wanted = tuple(wanted)
        self.names = tuple(names)
        super().__init__(f"no linear module is called {' or '.join(wanted)}")


def choose_targets(linear: Iterable[str], wanted: Sequence[str] | None, default: Sequence[str] = ()) -> list[str]:
    """The last parts of the module names to adapt.

    Args:
        linear: last parts of the names of all linear modules.
        wanted: of the configuration: each must exist, fused or not. None: the default, of which what exists
        counts;
            without one, every linear layer but the head, as QLoRA's authors advise.
    """
    names = sorted(set(linear))
    inner = [name for name in names if name not in _HEADS]
    if wanted is not None and list(wanted) != [ALL_LINEAR]:
        missing = [name for name in wanted if not _find(name, names)]
        if missing:
            raise NoTargets(missing, inner)
        return sorted({found for name in wanted for found in _find(name, names)})
    if wanted is None and default:
        chosen = sorted({found for name in default for found in _find(name, names)})
        if chosen:
            return chosen
    if not inner:
        raise NoTargets([ALL_LINEAR], names)
    return inner


def _find(name: str, names: Sequence[str]) -> list[str]:
    if name in names:
        return [name]
    return [fused for fused in _FUSED.get(name, ()) if fused in names][:1]
