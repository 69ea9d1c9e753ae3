"""A pickle machine that imports nothing.

Python's own unpickler looks names up in modules and calls what it finds. This one looks names up in a table that its
caller passes, and calls only functions of this package, with arguments that they check. There is no way from a pickle's
bytes to any other code, so the list of what may be read is the table, not a list of what is forbidden.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NoReturn, TypeAlias

from labelmint_export.checkpoints.limits import ADVICE, MAX_KEY_LENGTH, Budget
from labelmint_export.checkpoints.opcodes import OpcodeReader, get_opcode_name
from labelmint_export.errors import CheckpointError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AllowedGlobal:
    """What a name in a pickle stands for.

    Attributes:
        label: The name, for messages.
        call: Makes a value from the arguments of REDUCE; None for a name that can only be mentioned.
        can_be_new: Whether NEWOBJ without arguments may make a value too.
        build: Gives a value its state, and returns the value or what takes its place; None if it takes no state.
        storage_dtype: Element type of a torch storage class, empty for everything else.
    """

    label: str
    call: Callable[[tuple[object, ...], Budget], object] | None = None
    can_be_new: bool = False
    build: Callable[[object, object, Budget], object] | None = None
    storage_dtype: str = ""


AllowList: TypeAlias = Mapping[tuple[str, str], AllowedGlobal]


def run_pickle(
    view: memoryview,
    position: int,
    allowed: AllowList,
    budget: Budget,
    load_persistent: Callable[[object], object] | None = None,
) -> tuple[object, int]:
    """Read one pickle.

    Args:
        view: Bytes that hold the pickle.
        position: Where it begins.
        allowed: What its global names stand for.
        budget: Pays for it.
        load_persistent: Turns a persistent id into a value; None if there must be none.

    Returns:
        The value, which may still hold parts that are no plain values (see `records.check_plain`), and the position
        behind the pickle.

    Raises:
        CheckpointError: The pickle is malformed, or needs what is not allowed.
    """
    machine = _Machine(OpcodeReader(view, position, budget), allowed, budget, load_persistent)
    return machine.run(), machine.reader.position


class _Machine:
    """The stack, the marks and the memo of one pickle."""

    def __init__(
        self,
        reader: OpcodeReader,
        allowed: AllowList,
        budget: Budget,
        load_persistent: Callable[[object], object] | None,
    ) -> None:
        self.reader = reader
        self._allowed = allowed
        self._budget = budget
        self._load_persistent = load_persistent
        self._code = 0
        self._stack: list[object] = []
        self._marked: list[list[object]] = []
        self._memo: dict[int, object] = {}
        # By id: values that may get a state, how, and the memo's places that hold them. The entries keep the values
        # alive, so an id is never used again.
        self._builders: dict[int, tuple[object, Callable[[object, object, Budget], object]]] = {}
        self._memo_places: dict[int, list[int]] = {}

    def run(self) -> object:
        while True:
            self._code, argument = self.reader.read_opcode()
            if self._code == ord("."):  # STOP
                if len(self._stack) != 1 or self._marked:
                    self._refuse(f"leaves {len(self._stack)} values and {len(self._marked)} marks, expected one value")
                return self._stack[0]
            _ACTIONS[self._code](self, argument)

    def _refuse(self, problem: str) -> NoReturn:
        name = get_opcode_name(self._code)
        raise CheckpointError(
            f"the pickle's {name} before byte {self.reader.position} {problem}; {ADVICE}", field="pickle"
        )

    def _pop(self) -> object:
        if not self._stack:
            self._refuse("finds no value on the stack")
        return self._stack.pop()

    def _top(self) -> object:
        if not self._stack:
            self._refuse("finds no value on the stack")
        return self._stack[-1]

    def _pop_to_mark(self) -> list[object]:
        if not self._marked:
            self._refuse("finds no mark")
        values, self._stack = self._stack, self._marked.pop()
        return values

    def push(self, value: object) -> None:
        self._stack.append(value)

    def check_protocol(self, argument: object) -> None:
        if argument not in {2, 3, 4, 5}:
            self._refuse(f"announces protocol {argument}, expected 2 to 5")

    def mark(self, _: object) -> None:
        self._marked.append(self._stack)
        self._stack = []

    # --- containers ---------------------------------------------------------------------------------------------------

    def push_short_tuple(self, _: object) -> None:
        length = self._code - 0x84
        if len(self._stack) < length:
            self._refuse("finds too few values on the stack")
        values = tuple(self._stack[-length:])
        self._stack[-length:] = [values]

    def append(self, values: list[object]) -> None:
        target = self._top()
        if type(target) is not list:
            self._refuse(f"appends to {type(target).__name__}, expected list")
        target.extend(values)

    def add(self, values: list[object]) -> None:
        target = self._top()
        if type(target) is not set:
            self._refuse(f"adds to {type(target).__name__}, expected set")
        target.update(self._check_key(value) for value in values)

    def set_items(self, values: list[object]) -> None:
        target = self._top()
        if type(target) is not dict:
            self._refuse(f"sets items of {type(target).__name__}, expected dict")
        target.update(self.make_dict(values))

    def make_dict(self, values: list[object]) -> dict[object, object]:
        if len(values) % 2:
            self._refuse("has a key without a value")
        return {self._check_key(key): value for key, value in zip(values[::2], values[1::2], strict=True)}

    def set_item(self, _: object) -> None:
        value, key = self._pop(), self._pop()
        self.set_items([key, value])

    def _check_key(self, key: object) -> object:
        """Check a dict's key or a set's member: cheap to hash, and no two chosen to collide."""
        if not is_key(key):
            self._refuse(
                f"uses {type(key).__name__} as a key, expected an integer of 64 bits or a string of at most "
                f"{MAX_KEY_LENGTH} characters"
            )
        return key

    # --- memo ---------------------------------------------------------------------------------------------------------

    def memoize(self, index: int) -> None:
        value = self._top()
        self._memo[index] = value
        if id(value) in self._builders:
            self._memo_places.setdefault(id(value), []).append(index)

    def get(self, index: object) -> None:
        if index not in self._memo:
            self._refuse(f"gets memo {index}, which was not put")
        assert isinstance(index, int)
        self._stack.append(self._memo[index])

    # --- globals and what is made by them -----------------------------------------------------------------------------

    def push_global(self, names: object) -> None:
        assert isinstance(names, tuple)
        module, name = names
        if not (isinstance(module, str) and isinstance(name, str)):
            self._refuse("names a global by what is no string")
        found = self._allowed.get((module, name))
        if found is None:
            raise CheckpointError(
                f"the pickle asks for {f'{module}.{name}'[:200]!r}, which is not among the names that snapshots need; "
                "it was not imported; export the weights to a state dict with the program that made the file",
                field="global",
            )
        self._stack.append(found)

    def push_stack_global(self, _: object) -> None:
        name, module = self._pop(), self._pop()
        self.push_global((module, name))

    def _make(self, function: object, arguments: object) -> None:
        if not isinstance(function, AllowedGlobal) or function.call is None:
            label = function.label if isinstance(function, AllowedGlobal) else type(function).__name__
            self._refuse(f"calls {label}, which cannot be called")
        if type(arguments) is not tuple:
            self._refuse(f"calls {function.label} with {type(arguments).__name__}, expected tuple")
        value = function.call(arguments, self._budget)
        if function.build is not None:
            self._builders[id(value)] = (value, function.build)
        self._stack.append(value)

    def reduce(self, _: object) -> None:
        arguments, function = self._pop(), self._pop()
        self._make(function, arguments)

    def make_new(self, _: object) -> None:
        arguments, function = self._pop(), self._pop()
        if not (
            isinstance(function, AllowedGlobal) and function.can_be_new and type(arguments) is tuple and not arguments
        ):
            label = function.label if isinstance(function, AllowedGlobal) else type(function).__name__
            self._refuse(f"makes an object of {label}, which cannot be made so")
        self._make(function, arguments)

    def build(self, _: object) -> None:
        state, target = self._pop(), self._top()
        if id(target) not in self._builders:
            self._refuse(f"gives a state to {type(target).__name__}, which takes none")
        built = self._builders[id(target)][1](target, state, self._budget)
        if built is target:
            return
        self._stack[-1] = built
        # Taken away, so that giving states does not go through the same places again and again.
        for index in self._memo_places.pop(id(target), ()):
            if self._memo[index] is target:
                self._memo[index] = built

    def load_persistent(self, _: object) -> None:
        if self._load_persistent is None:
            self._refuse("refers to data outside the pickle, where there are none")
        self._stack.append(self._load_persistent(self._pop()))


def is_key(value: object) -> bool:
    """Tell whether a value may be a dict's key or a set's member."""
    if type(value) is str:
        return len(value) <= MAX_KEY_LENGTH
    return value is None or type(value) is bool or (type(value) is int and value.bit_length() <= 64)


def _index(argument: object) -> int:
    assert isinstance(argument, int)
    return argument


_ACTIONS: dict[int, Callable[[_Machine, object], None]] = {
    ord("\x80"): _Machine.check_protocol,
    ord("\x95"): lambda _machine, _: None,  # FRAME
    ord("("): _Machine.mark,
    **dict.fromkeys(b"KMJI\x8a\x8bG\x8cX\x8dCB\x8e\x96UT", _Machine.push),  # numbers and strings
    ord("N"): lambda machine, _: machine.push(None),
    ord("\x88"): lambda machine, _: machine.push(True),
    ord("\x89"): lambda machine, _: machine.push(False),
    ord("}"): lambda machine, _: machine.push({}),
    ord("]"): lambda machine, _: machine.push([]),
    ord(")"): lambda machine, _: machine.push(()),
    ord("\x8f"): lambda machine, _: machine.push(set()),
    ord("\x91"): lambda machine, _: machine.push(frozenset(map(machine._check_key, machine._pop_to_mark()))),
    ord("t"): lambda machine, _: machine.push(tuple(machine._pop_to_mark())),
    ord("l"): lambda machine, _: machine.push(machine._pop_to_mark()),
    ord("d"): lambda machine, _: machine.push(machine.make_dict(machine._pop_to_mark())),
    **dict.fromkeys(b"\x85\x86\x87", _Machine.push_short_tuple),
    ord("a"): lambda machine, _: machine.append([machine._pop()]),
    ord("e"): lambda machine, _: machine.append(machine._pop_to_mark()),
    ord("\x90"): lambda machine, _: machine.add(machine._pop_to_mark()),
    ord("s"): _Machine.set_item,
    ord("u"): lambda machine, _: machine.set_items(machine._pop_to_mark()),
    ord("\x94"): lambda machine, _: machine.memoize(len(machine._memo)),
    **dict.fromkeys(b"qr", lambda machine, index: machine.memoize(_index(index))),
    **dict.fromkeys(b"hj", _Machine.get),
    ord("c"): _Machine.push_global,
    ord("\x93"): _Machine.push_stack_global,
    ord("R"): _Machine.reduce,
    ord("\x81"): _Machine.make_new,
    ord("b"): _Machine.build,
    ord("Q"): _Machine.load_persistent,
}
