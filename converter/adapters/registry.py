"""Every kind of adapter that can be merged. A new kind is a file and a line here."""

from converter.adapters import dora
from converter.adapters.base import Kind
from converter.adapters.boft_peft import PEFT_BOFT
from converter.adapters.difference import DIFFERENCES, WHOLE_TENSORS
from converter.adapters.glora import GLORA
from converter.adapters.ia3 import IA3
from converter.adapters.loha import LOHA
from converter.adapters.lokr import LOKR
from converter.adapters.lora import LORA, LORA_BIAS, LORA_EMBEDDING
from converter.adapters.oft import OFT
from converter.adapters.oft_peft import PEFT_OFT, PEFT_OFT_EMBEDDING

KINDS: tuple[Kind, ...] = (
    LORA, LORA_BIAS, LORA_EMBEDDING, LOHA, LOKR, GLORA,
    OFT, PEFT_OFT, PEFT_OFT_EMBEDDING, PEFT_BOFT, IA3, *DIFFERENCES, *WHOLE_TENSORS,
)  # fmt: skip

SHARED = {".alpha": "alpha", **dora.ENDINGS}
"""Endings of parts that go with whatever kind a module has."""


def _endings() -> dict[str, tuple[Kind | None, str]]:
    table: dict[str, tuple[Kind | None, str]] = {e: (None, part) for e, part in SHARED.items()}
    for kind in KINDS:
        for ending, part in kind.endings.items():
            if ending in table:
                owner = table[ending][0]
                raise ValueError(f"{ending} belongs to {owner and owner.name} and {kind.name}")
            table[ending] = kind, part
    return dict(sorted(table.items(), key=lambda item: -len(item[0])))


ENDINGS = _endings()
"""Ending of a key -> (kind, part), the longest first; the kind of a shared part is None."""
