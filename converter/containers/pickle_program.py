"""Read a pickle without running it: an interpreter that has no instruction to import or call.

A pickle is a program for a stack machine (https://docs.python.org/3/library/pickletools.html
decodes it; protocols 0 to 5). Python's own machine imports what a GLOBAL names and calls what a
REDUCE finds, which is how a checkpoint can run a command. This machine only writes both down: a
`Global` is a pair of strings, and what a call would have made is whatever `build` says, by default
a `Placeholder`.
"""

import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import IO, Any

LARGEST_PROGRAM = 16_000_000
"""Bytes. The program of a full Stable Diffusion 1.x checkpoint has 0.3 million."""

MOST_INSTRUCTIONS = 500_000
"""Beyond this a reader would wait seconds; a full training checkpoint has 0.2 million."""


class ProgramError(ValueError):
    """Not a whole pickle, or one that needs more than this machine."""


@dataclass(frozen=True)
class Global:
    """A name that the pickle asks for. It is never imported."""

    module: str
    name: str


@dataclass(frozen=True)
class Placeholder:
    """Stands for an object that only running `origin` could make."""

    origin: object


class Stateful:
    """What `build` may make of a call to be told the state that BUILD would set."""

    def set_state(self, state: object) -> None:
        """Take what is wanted of `state`."""
        raise NotImplementedError


@dataclass(frozen=True)
class PersistentId:
    """A reference to something outside the pickle: for torch, a storage."""

    value: object


Called = Global | PersistentId
"""What a pickle may call: a name, or something outside it."""
Build = Callable[[Called, tuple[Any, ...]], object]


def run(file: IO[bytes], build: Build) -> Any:
    """Read one pickle from `file`, leaving the position behind it, and return its value.

    Raises ProgramError for anything that is not a whole pickle of at most `MOST_INSTRUCTIONS`.
    """
    machine = _Machine(build)
    instructions = islice(pickletools.genops(file), MOST_INSTRUCTIONS)
    opcode = None
    try:
        for opcode, argument, _ in instructions:
            machine.step(opcode.name, argument)
        value = machine.stack[-1]
    except ProgramError:
        raise
    except (ValueError, TypeError, LookupError, OverflowError, struct.error) as e:
        raise ProgramError(f"it is not a whole pickle ({e})") from e
    if opcode is None or opcode.name != "STOP":
        raise ProgramError(f"it has more than {MOST_INSTRUCTIONS} instructions")
    return value


class _Machine:
    """The stack, the marks in it, and the memo."""

    def __init__(self, build: Build) -> None:
        self.build = build
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def step(self, opcode: str, argument: Any) -> None:
        """Execute one instruction."""
        if opcode in VALUES:
            self.push(argument)
        elif opcode in CONSTANTS:
            self.push(CONSTANTS[opcode]())
        elif opcode in ON_STACK:
            ON_STACK[opcode](self)
        elif opcode in WITH_ARGUMENT:
            WITH_ARGUMENT[opcode](self, argument)
        elif opcode not in NOTHING_TO_DO:  # extension codes, buffers outside the pickle
            raise ProgramError(f"its instruction {opcode} is not understood")

    def push(self, value: object) -> None:
        self.stack.append(value)

    def pop(self, count: int) -> list[Any]:
        """Take the uppermost `count` values, the lowest first."""
        if count > len(self.stack):
            raise ProgramError("its stack runs empty")
        taken = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return taken

    def pop_mark(self) -> list[Any]:
        """Take everything above the uppermost mark."""
        taken, self.stack = self.stack, self.marked.pop()
        return taken

    def mark(self) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def put(self, index: int | None) -> None:
        self.memo[len(self.memo) if index is None else int(index)] = self.stack[-1]

    def call(self, function: object, arguments: object) -> None:
        if isinstance(function, Called) and isinstance(arguments, tuple):
            self.stack.append(self.build(function, arguments))
        else:
            self.stack.append(Placeholder(function))

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)

    def update(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, dict):  # a placeholder takes items and forgets them
            pairs = zip(items[::2], items[1::2], strict=True)
            # Tensor names are strings; hashing a tuple of tuples could take forever.
            target.update((key, value) for key, value in pairs if isinstance(key, str))

    def set_state(self) -> None:
        (state,) = self.pop(1)
        target = self.stack[-1]
        if isinstance(target, Stateful):  # any other object forgets it
            target.set_state(state)

    def push_dict(self, items: list[Any]) -> None:
        self.stack.append({})
        self.update(items)

    def push_global(self, module: object, name: object) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise ProgramError("it names a global by something that is no text")
        self.stack.append(Global(module, name))


VALUES = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
    "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
}  # fmt: skip
"""Instructions that push their argument."""

CONSTANTS: dict[str, Callable[[], object]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": lambda: Placeholder("set"),
}
"""Instructions that push what these make."""

ON_STACK: dict[str, Callable[[_Machine], object]] = {
    "MARK": _Machine.mark,
    "POP": lambda m: m.pop(1),
    "POP_MARK": _Machine.pop_mark,
    "DUP": lambda m: m.stack.append(m.stack[-1]),
    "TUPLE": lambda m: m.push(tuple(m.pop_mark())),
    "TUPLE1": lambda m: m.push(tuple(m.pop(1))),
    "TUPLE2": lambda m: m.push(tuple(m.pop(2))),
    "TUPLE3": lambda m: m.push(tuple(m.pop(3))),
    "LIST": lambda m: m.push(m.pop_mark()),
    "DICT": lambda m: m.push_dict(m.pop_mark()),
    "FROZENSET": lambda m: m.push(Placeholder(len(m.pop_mark()))),
    "APPEND": lambda m: m.extend(m.pop(1)),
    "APPENDS": lambda m: m.extend(m.pop_mark()),
    "ADDITEMS": _Machine.pop_mark,
    "SETITEM": lambda m: m.update(m.pop(2)),
    "SETITEMS": lambda m: m.update(m.pop_mark()),
    "BINPERSID": lambda m: m.push(PersistentId(m.pop(1)[0])),
    "STACK_GLOBAL": lambda m: m.push_global(*m.pop(2)),
    "REDUCE": lambda m: m.call(*m.pop(2)),
    "NEWOBJ": lambda m: m.call(*m.pop(2)),
    "NEWOBJ_EX": lambda m: m.call(*m.pop(3)[:2]),
    "OBJ": lambda m: m.push(Placeholder(len(m.pop_mark()))),
    "BUILD": _Machine.set_state,
}
"""Instructions without an argument."""

WITH_ARGUMENT: dict[str, Callable[[_Machine, Any], object]] = {
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.put,
    "GET": lambda m, index: m.push(m.memo[int(index)]),
    "BINGET": lambda m, index: m.push(m.memo[index]),
    "LONG_BINGET": lambda m, index: m.push(m.memo[index]),
    "PERSID": lambda m, name: m.push(PersistentId(name)),
    "GLOBAL": lambda m, name: m.push_global(*name.split(" ", 1)),
    "INST": lambda m, name: m.push(Placeholder((name, len(m.pop_mark())))),
}

NOTHING_TO_DO = {"PROTO", "FRAME", "STOP"}
