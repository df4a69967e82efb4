"""What a visitor wants made, as he said it: plain values, kept as JSON beside what came of it.

A *source* is a file or folder as a visitor names it: relative to the root folder, an upload, or an
address. `sdconv.page.requests` turns an order into the requests of the command line.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from converter.errors import InputError

BOTH, EXPORT, COMPILE = "both", "export", "compile"
"""Which steps: checkpoint to artifacts, checkpoint to bundle, bundle to artifacts."""

FORMATS = ("onnx", "torchscript", "both")

LONGEST = 4000
"""Characters of a text that is taken from a visitor."""
MOST = 100
"""Entries of a list."""


@dataclass(frozen=True)
class Order:
    """Everything that can be asked for. Empty texts and None stand for the usual choice.

    `loras` are pairs of a source and its scales as ``-l`` takes them behind the colon, `embeddings`
    pairs of a source and its name in prompts. `parts` maps ``unet``, ``vae``, ... to sources.
    `sizes` and `precision` (by target) are texts as the command line takes them. `bundle` is where
    the second step alone begins: a folder below the root, or ``job:`` and the id of an export.
    `prompt` is drawn for the report; `emulator_minutes` is the most that one artifact may take.
    """

    steps: str = BOTH
    checkpoint: str = ""
    bundle: str = ""
    parts: Mapping[str, str] = field(default_factory=dict)
    controlnets: tuple[str, ...] = ()
    controlnet_base: str = ""
    loras: tuple[tuple[str, str], ...] = ()
    embeddings: tuple[tuple[str, str], ...] = ()
    variant: str = ""
    ema: bool = False
    clip_skip: int | None = None
    prediction: str = ""
    zero_terminal_snr: bool = False
    allow_unused: bool = False
    components: tuple[str, ...] = ()
    profile: str = ""
    batch: int | None = None
    format: str = "onnx"
    targets: tuple[str, ...] = ()
    sizes: str = ""
    precision: Mapping[str, str] = field(default_factory=dict)
    effort: str = "normal"
    prompt: str = ""
    emulator_minutes: float = 10

    def sources(self) -> list[str]:
        """Every source of files, each once, in the order in which they are read."""
        named = [self.checkpoint, *self.parts.values(), *self.controlnets, self.controlnet_base]
        named += [source for source, _ in (*self.loras, *self.embeddings)]
        return [*dict.fromkeys(source for source in named if source)]

    def with_sources(self, changed: Callable[[str], str]) -> "Order":
        """The same order with every source replaced."""

        def new(source: str) -> str:
            return changed(source) if source else source

        return replace(
            self,
            checkpoint=new(self.checkpoint),
            parts={part: new(source) for part, source in self.parts.items()},
            controlnets=tuple(map(new, self.controlnets)),
            controlnet_base=new(self.controlnet_base),
            loras=tuple((new(source), scales) for source, scales in self.loras),
            embeddings=tuple((new(source), name) for source, name in self.embeddings),
        )

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values, without what is as usual."""
        usual = asdict(Order())
        return {name: value for name, value in asdict(self).items() if value != usual[name]}

    @classmethod
    def from_json(cls, data: object) -> "Order":
        """Read what `to_json` wrote, or what a program sends; InputError for anything else."""
        if not isinstance(data, Mapping):
            raise InputError("an order is a JSON object: see the page's README for its fields")
        known = {f.name: f for f in fields(cls)}
        values: dict[str, Any] = {}
        for name, value in data.items():
            if name not in known:
                raise InputError(f"an order has no field {name!r}: choose among {', '.join(known)}")
            usual = getattr(cls(), name)
            values[name] = _read(name, value, usual)
        order = cls(**values)
        for name, chosen, choices in (
            ("steps", order.steps, (BOTH, EXPORT, COMPILE)),
            ("format", order.format, FORMATS),
        ):
            if chosen not in choices:
                raise InputError(f"{name} {chosen!r}: choose one of {', '.join(choices)}")
        return order


def _read(name: str, value: object, usual: object) -> object:
    """A field's value, of the type that the usual one has."""
    wanted, read = _KINDS.get(name) or _BY_USUAL[type(usual)]
    try:
        return read(value)
    except (TypeError, ValueError) as e:
        raise InputError(f"{name}: {value!r} is not {wanted}") from e


def _checked(*kinds: type) -> Callable[[object], object]:
    def read(value: object) -> object:
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise TypeError
        return value

    return read


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > LONGEST or "\0" in value:
        raise TypeError
    return value


def _items(value: object) -> Iterable[Any]:
    if not isinstance(value, list | tuple) or len(value) > MOST:
        raise TypeError
    return value


def _texts(value: object) -> tuple[str, ...]:
    return tuple(map(_text, _items(value)))


def _pairs(value: object) -> tuple[tuple[str, str], ...]:
    pairs = [_texts(pair) for pair in _items(value)]
    return tuple((first, second) for first, second in pairs)


def _table(value: object) -> dict[str, str]:
    if not isinstance(value, Mapping) or len(value) > MOST:
        raise TypeError
    return {_text(key): _text(item) for key, item in value.items()}


def _count(value: object) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError
    return value


_Reader = tuple[str, Callable[[object], object]]
_COUNT: _Reader = ("a whole number or null", _count)
_PAIRS: _Reader = ("a list of pairs of texts", _pairs)
_KINDS: dict[str, _Reader] = {
    "clip_skip": _COUNT,
    "batch": _COUNT,
    "loras": _PAIRS,
    "embeddings": _PAIRS,
    "emulator_minutes": ("a number", _checked(int, float)),
}
_BY_USUAL: dict[type, _Reader] = {
    str: ("a text", _text),
    bool: ("true or false", _checked(bool)),
    tuple: ("a list of texts", _texts),
    dict: ("an object of texts", _table),
}
