"""Regular expressions of adapters and settings, matched in bounded time.

An expression comes with an adapter from anywhere, and Python's `re` can take for ever on a few
bytes of one: ``([a-z.0-9]+)+!`` tries every way to cut a path into pieces. Here such an expression
is followed by sets of places instead: every place in the path that a part of the expression can
reach, once. That takes time in the length of the expression times the square of the path's, and
finds a match exactly where `re` does. Short expressions without repeats inside of repeats, which
is nearly all, are left to `re` itself.

Back references, conditions, atomic groups and possessive repeats depend on how a match was found
and not only on whether there is one. They are refused, and so is what is longer than an expression
for module names is.
"""

from __future__ import annotations

import re
import re._constants as ops  # type: ignore[import-not-found]  # no public home since Python 3.11
import re._parser as parser  # type: ignore[import-not-found]
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from lorafit.errors import ConfigError

LONGEST_EXPRESSION = 5_000
"""Characters of an expression."""
LONGEST_PATH = 1_000
"""Characters of a path that an expression is tried on; module paths have about a hundred."""
REPEATS = 3
"""Most repeats of an expression that `re` is given: it takes time in the path's length to the
power of their number."""
CHOICES = 4
"""Most choices (``a|b``, ``a?``) of one: it takes time in two to the power of their number."""
STEPS = 20_000
"""Most places that are looked at in one path; an expression for module names needs hundreds."""
MOST = 64
"""Most expressions, other than plain names, of one adapter."""

Places = frozenset[int]


class ExpressionError(ConfigError):
    """An expression that is none, or that is not matched here; the message says why."""


def check(expressions: Iterable[str]) -> None:
    """Refuses expressions of one adapter that cannot be matched, before any is tried.

    Raises:
        ExpressionError: One is wrong, or there are too many.
    """
    written = [one for one in expressions if not _NAME.fullmatch(one)]
    if len(written) > MOST:
        raise ExpressionError(
            f"{len(written):,} regular expressions; at most {MOST} are read beside plain names"
        )
    for one in written:
        _matcher(one)


def fullmatch(expression: str, path: str) -> bool:
    """Whether an expression matches the whole of a module path.

    Raises:
        ExpressionError: It is not a regular expression, or one that is refused.
    """
    return _matcher(expression)(path)


def names(pattern: str, path: str) -> bool:
    """PEFT's rule for ``rank_pattern`` and its like: the last parts of a path, by an expression.

    Raises:
        ExpressionError: As `fullmatch`.
    """
    if _NAME.fullmatch(pattern):
        return re.fullmatch(rf"(.*\.)?({pattern})", path) is not None
    return fullmatch(rf"(.*\.)?({pattern})", path)


@lru_cache(maxsize=4096)
def _matcher(expression: str) -> Callable[[str], bool]:
    if len(expression) > LONGEST_EXPRESSION:
        raise ExpressionError(
            f"{_shown(expression)} has {len(expression):,} characters; the longest regular "
            f"expression that is read has {LONGEST_EXPRESSION:,}"
        )
    try:
        tree = parsed(expression)
        compiled = re.compile(expression)
    except (re.error, OverflowError, RecursionError, MemoryError) as error:
        raise ExpressionError(
            f"{_shown(expression)} is not a regular expression: {error}"
        ) from None
    walk = Walk(tree.state.flags)
    try:
        walk.check(tree)
    except ExpressionError as error:
        raise ExpressionError(f"{_shown(expression)}: {error}") from None
    plain = walk.repeats <= REPEATS and walk.choices <= CHOICES and not walk.nested

    def matches(path: str) -> bool:
        if len(path) > LONGEST_PATH:
            raise ExpressionError(f"a module path of {len(path):,} characters: {_shown(path)}")
        if plain:
            return compiled.fullmatch(path) is not None
        try:
            return len(path) in Walk(tree.state.flags, path).ends(tree, 0)
        except RecursionError:
            raise ExpressionError(f"{_shown(expression)} is nested too deeply") from None
        except _TooLongError:
            raise ExpressionError(f"{_shown(expression)} takes too long to match") from None

    return matches


def parsed(expression: str) -> Any:
    """The tree of an expression, as `re` has it."""
    return parser.parse(expression)


class Walk:
    """Where the parts of an expression can end, in one path.

    Attributes:
        repeats: How many repeats `check` found.
        choices: How many choices.
        nested: Whether it found a repeat of something that is not one character.
    """

    def __init__(self, flags: int, path: str = "") -> None:
        self.path, self.flags = path, flags
        self.repeats = self.choices = 0
        self.nested = False
        self._known: dict[tuple[int, int], Places] = {}
        self._steps = 0

    def check(self, tree: Any) -> None:
        """Counts what takes time, and refuses what is not matched here."""
        for kind, value in tree:
            if kind is ops.BRANCH:
                self.choices += 1
                for part in value[1]:
                    self.check(part)
            elif kind is ops.SUBPATTERN:
                if value[1] or value[2]:
                    raise ExpressionError("flags for a part of an expression are not matched here")
                self.check(value[3])
            elif kind in (ops.MAX_REPEAT, ops.MIN_REPEAT):
                low, high, part = value
                if (low, high) == (0, 1):
                    self.choices += 1
                else:
                    self.repeats += 1
                    self.nested |= len(part) != 1 or part[0][0] not in _SINGLE
                self.check(part)
            elif kind in (ops.ASSERT, ops.ASSERT_NOT):
                self.check(value[1])
            elif kind not in _SINGLE and kind is not ops.AT:
                name = str(kind).lower().replace("_", " ")
                raise ExpressionError(f"{_REFUSED.get(kind, name)} are not matched here")

    def ends(self, tree: Any, start: int) -> Places:
        """Every place that a sequence of parts can end at, from one place."""
        key = (id(tree), start)
        if key not in self._known:
            places: Places = frozenset({start})
            for kind, value in tree:
                places = frozenset(end for at in places for end in self._part(kind, value, at))
                if not places:
                    break
            self._known[key] = places
        return self._known[key]

    def _part(self, kind: Any, value: Any, at: int) -> Iterable[int]:
        self._steps += 1
        if self._steps > STEPS:
            raise _TooLongError
        if kind in _SINGLE:
            return (at + 1,) if self._takes(kind, value, at) else ()
        if kind is ops.SUBPATTERN:
            return self.ends(value[3], at)
        if kind is ops.BRANCH:
            return (end for part in value[1] for end in self.ends(part, at))
        if kind in (ops.MAX_REPEAT, ops.MIN_REPEAT):
            low, high, part = value
            return self._repeated(low, high, part, at)
        if kind is ops.AT:
            return (at,) if self._is_at(value, at) else ()
        return (at,) if self._holds(value, at) is (kind is ops.ASSERT) else ()

    def _repeated(self, low: Any, high: Any, part: Any, at: int) -> Places:
        """After more repeats than there are characters nothing new is reached."""
        most = len(self.path) + 1
        reached = frozenset({at})
        found = reached if low == 0 else frozenset[int]()
        for times in range(1, min(int(high), max(int(low), most) + most) + 1):
            following = frozenset(end for place in reached for end in self.ends(part, place))
            if not following or (times > low and following <= found):
                break
            reached = following
            if times >= min(int(low), most):
                found |= following
        return found

    def _holds(self, value: Any, at: int) -> bool:
        """Whether what stands ahead of a place, or behind it, matches."""
        direction, part = value
        if direction > 0:
            return bool(self.ends(part, at))
        width = part.getwidth()[0]  # the same as the widest, or it would not have been compiled
        return at >= width and at in self.ends(part, at - width)

    def _is_at(self, where: Any, at: int) -> bool:
        if where in (ops.AT_BEGINNING, ops.AT_BEGINNING_STRING):
            return at == 0
        if where in (ops.AT_END, ops.AT_END_STRING):
            return at == len(self.path)
        before = at > 0 and _is_word(self.path[at - 1])
        after = at < len(self.path) and _is_word(self.path[at])
        return (before != after) is (where is ops.AT_BOUNDARY)

    def _takes(self, kind: Any, value: Any, at: int) -> bool:
        """Whether one character is what a part that stands for one asks for."""
        if at >= len(self.path):
            return False
        one = self.path[at]
        if kind is ops.ANY:
            return one != "\n" or bool(self.flags & re.DOTALL)
        spelled = {one, one.lower(), one.upper()} if self.flags & re.IGNORECASE else {one}
        if kind is ops.LITERAL:
            return any(ord(c) == value for c in spelled if len(c) == 1)
        if kind is ops.NOT_LITERAL:
            return not any(ord(c) == value for c in spelled if len(c) == 1)
        members = [entry for entry in value if entry[0] is not ops.NEGATE]
        found = any(_among(entry, c) for entry in members for c in spelled if len(c) == 1)
        return found is (len(members) == len(value))


class _TooLongError(Exception):
    """Too many places were looked at."""


_NAME = re.compile(r"\^?(?:[\w.-]|\\[.-])+")
"""A name, with dots that may be escaped: an expression that takes no time."""
_SINGLE = frozenset({ops.ANY, ops.IN, ops.LITERAL, ops.NOT_LITERAL})
_REFUSED = {
    ops.GROUPREF: "back references",
    ops.GROUPREF_EXISTS: "conditions",
    ops.ATOMIC_GROUP: "atomic groups",
    ops.POSSESSIVE_REPEAT: "possessive repeats",
}


def _among(entry: tuple[Any, Any], one: str) -> bool:
    kind, value = entry
    if kind is ops.LITERAL:
        return ord(one) == int(value)
    if kind is ops.RANGE:
        return int(value[0]) <= ord(one) <= int(value[1])
    tests: dict[Any, Callable[[str], bool]] = {
        ops.CATEGORY_DIGIT: str.isdecimal,
        ops.CATEGORY_SPACE: str.isspace,
        ops.CATEGORY_WORD: _is_word,
        ops.CATEGORY_NOT_DIGIT: lambda c: not c.isdecimal(),
        ops.CATEGORY_NOT_SPACE: lambda c: not c.isspace(),
        ops.CATEGORY_NOT_WORD: lambda c: not _is_word(c),
    }
    return bool(tests[value](one))


def _shown(text: str) -> str:
    return f'"{text if len(text) <= 60 else text[:57] + "..."}"'


def _is_word(one: str) -> bool:
    return one.isalnum() or one == "_"
