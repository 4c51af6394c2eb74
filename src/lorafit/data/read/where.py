"""The row filter: a small expression over columns, such as ``stars >= 4 and lang == 'en'``.

The expression is parsed with `ast`, and only what is listed here is let through:
comparisons, ``and``/``or``/``not``, ``in``, constants, lists of constants, and column names
(in backticks if they are no Python names: `` `star rating` > 3``). There are no calls,
attributes or subscripts, and nothing is passed to ``eval``.

Missing values: ``column == None`` finds them; ``!=`` keeps them (None is different from
'plot', as in Python); ``<``, ``<=``, ``>``, ``>=`` and ``in`` are false for them.
"""

from __future__ import annotations

import ast
import keyword
import operator
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from datasets import ClassLabel, Dataset, DatasetDict, Value

from lorafit.data.columns.values import class_name, column_values, features_of
from lorafit.data.findings import UNKEPT, Findings
from lorafit.errors import DataError, did_you_mean

Row = Mapping[str, Any]
Condition = Callable[[Row], bool]

_LONGEST = 10_000
_DEEPEST = 50
_EXAMPLE = "Write for example: category != 'plot' and stars >= 4"
_TOKEN = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|`(?P<name>[^`]+)`")
_EQUAL: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
}
_ORDER: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def filter_splits(splits: DatasetDict, where: str, findings: Findings = UNKEPT) -> DatasetDict:
    """Keeps the rows of every split for which an expression is true, and says how many.

    Raises:
        DataError: The expression cannot be read, names no column, compares values of
            different types, or leaves a split without rows.
    """
    kept = DatasetDict()
    for split, rows in splits.items():
        expression = Where(where, rows)
        columns = {name: column_values(rows, name) for name in expression.columns}
        chosen = [
            index
            for index in range(len(rows))
            if expression.holds({name: values[index] for name, values in columns.items()})
        ]
        if not chosen:
            seen = " ".join(_seen(name, rows, values) for name, values in columns.items())
            raise DataError(f"where {where}: 0 of {len(rows):,} {split} rows remain. {seen}")
        counts = f"{len(chosen):,} of {len(rows):,}"
        findings.note(f"where {where}: {counts} {split} rows remain")
        kept[split] = rows if len(chosen) == len(rows) else rows.select(chosen)
    return kept


def _seen(name: str, rows: Dataset, values: list[Any]) -> str:
    """The most frequent values of a column, for a filter that matches nothing."""
    feature = features_of(rows)[name]
    quote = _kind(feature) == "text" or isinstance(feature, ClassLabel)

    def shown(value: Any) -> str:
        text = class_name(value, feature)
        text = text if len(text) <= 40 else text[:37] + "..."
        return repr(text) if quote and value is not None else text

    counts = Counter(map(shown, values)).most_common()
    more = f" and {len(counts) - 8:,} more values" if len(counts) > 8 else ""
    listed = ", ".join(f"{text} ({count:,})" for text, count in counts[:8])
    return f'Column "{name}" has {listed}{more}.'


@dataclass(frozen=True)
class _Operand:
    """One side of a comparison: a column, a constant, or a list of constants."""

    kind: str
    """``text``, ``number``, ``bool``, ``None``, ``list`` or an Arrow type."""
    get: Callable[[Row], Any]
    constants: tuple[Any, ...] | None = None
    """The values of a constant or of a list of constants; ``None``: a column."""
    column: str | None = None
    classes: ClassLabel | None = None
    """The names of the classes of a column of class labels."""

    def by_class_name(self) -> _Operand:
        """The same column of class labels, giving names instead of numbers."""
        classes = self.classes

        def get(row: Row) -> Any:
            value = self.get(row)
            return None if value is None else class_name(value, classes)

        return _Operand("text", get, column=self.column)


class Where:
    """A checked expression, bound to the columns and types of one data set.

    Attributes:
        columns: The columns it uses, in the order they appear.
    """

    def __init__(self, text: str, rows: Dataset) -> None:
        """Parses and checks an expression.

        Raises:
            DataError: See `filter_splits`.
        """
        self.text = text
        self.columns: list[str] = []
        self._features = features_of(rows)
        self._backticked: dict[str, str] = {}
        self._holds = self._condition(self._parse(), depth=0)

    def holds(self, row: Row) -> bool:
        """Whether the expression is true for one row (values of ``columns``)."""
        return self._holds(row)

    def _error(self, message: str) -> DataError:
        return DataError(f"where {self.text}: {message}")

    def _parse(self) -> ast.expr:
        if not self.text.strip():
            raise self._error(f"the expression is empty. {_EXAMPLE}")
        if len(self.text) > _LONGEST:
            raise DataError(f"where: an expression has at most {_LONGEST:,} characters.")

        def replace(match: re.Match[str]) -> str:
            if match["name"] is None:  # a string: left alone, so backticks in it are text
                return match[0]
            placeholder = f"backticked_{len(self._backticked)}"
            self._backticked[placeholder] = match["name"]
            return f" {placeholder} "

        try:
            return ast.parse(_TOKEN.sub(replace, self.text).strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise self._error(f"cannot be read: {self._hint(error)}") from error

    def _hint(self, error: BaseException) -> str:
        """What is probably wrong with an expression that does not parse."""
        bare = _TOKEN.sub(" ", self.text)
        if re.search(r"&&|\|\||\b(AND|OR|NOT|IN)\b", bare):
            return "write and, or, not, in."
        if re.search(r"(?<![=!<>])=(?!=)|<>", bare):
            return "write == for equal and != for different."
        for name in self._features:
            if (keyword.iskeyword(name) or not name.isidentifier()) and name in bare:
                return f"write `{name}` in backticks."
        reason = error.msg if isinstance(error, SyntaxError) else "it is nested too deeply"
        return f"{reason}. {_EXAMPLE}"

    def _condition(self, node: ast.expr, depth: int) -> Condition:
        """A part that is true or false."""
        if depth > _DEEPEST:
            raise self._error(f"is nested more than {_DEEPEST} deep.")
        if isinstance(node, ast.BoolOp):
            parts = [self._condition(part, depth + 1) for part in node.values]
            if isinstance(node.op, ast.And):
                return lambda row: all(part(row) for part in parts)
            return lambda row: any(part(row) for part in parts)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            part = self._condition(node.operand, depth + 1)
            return lambda row: not part(row)
        if isinstance(node, ast.Compare):
            return self._comparison(node)
        if isinstance(node, ast.Name):
            column = self._operand(node)
            if column.kind != "bool":
                raise self._error(
                    f"{self._describe(column)}, which is neither true nor false. "
                    "Compare it with something."
                )
            return lambda row: bool(column.get(row))
        raise self._error(f"{ast.unparse(node)} is not a comparison. {_EXAMPLE}")

    def _comparison(self, node: ast.Compare) -> Condition:
        """``a < b``, also chained as in ``1 <= stars < 4``."""
        sides = [self._operand(side) for side in (node.left, *node.comparators)]
        links = [
            self._link(left, op, right)
            for left, op, right in zip(sides, node.ops, sides[1:], strict=False)
        ]
        return lambda row: all(link(row) for link in links)

    def _link(self, left: _Operand, op: ast.cmpop, right: _Operand) -> Condition:
        left, right = self._class_names(left, right), self._class_names(right, left)
        if isinstance(op, ast.In):
            return self._membership(left, right)
        if isinstance(op, ast.NotIn):
            member = self._membership(left, right)
            return lambda row: not member(row)
        for side in (left, right):
            if side.kind not in ("text", "number", "bool", "None"):
                raise self._error(f"{self._describe(side)}, which cannot be compared.")
        if type(op) in _EQUAL:
            equal = _EQUAL[type(op)]
            if isinstance(op, ast.Is | ast.IsNot) and "None" not in (left.kind, right.kind):
                raise self._error("is only compares with None. Write == instead.")
            self._same_kind(left, right)
            return lambda row: equal(left.get(row), right.get(row))
        order = _ORDER[type(op)]
        if "None" in (left.kind, right.kind):
            raise self._error("None has no order. Write == None or != None.")
        self._same_kind(left, right)

        def ordered(row: Row) -> bool:
            one, other = left.get(row), right.get(row)
            return one is not None and other is not None and order(one, other)

        return ordered

    def _membership(self, left: _Operand, right: _Operand) -> Condition:
        """``label in ['a', 'b']``, ``'good' in text``, ``'comedy' in genres``."""
        if right.kind == "list" and right.constants is not None:
            for value in right.constants:
                self._same_kind(left, _constant(value))
            allowed = right.constants
            return lambda row: left.get(row) in allowed
        if right.column is not None and right.kind in ("text", "list"):
            if right.kind == "text":
                self._same_kind(left, right)
            container = right.get

            def contains(row: Row) -> bool:
                values, value = container(row), left.get(row)
                return values is not None and value is not None and value in values

            return contains
        raise self._error(
            f"what follows in has to be a list, but {self._describe(right)}. "
            "Write for example: label in ['fresh', 'rotten']"
        )

    def _operand(self, node: ast.expr) -> _Operand:
        """A side of a comparison."""
        if isinstance(node, ast.Name):
            return self._column(self._backticked.get(node.id, node.id))
        if isinstance(node, ast.List | ast.Tuple | ast.Set):
            values = tuple(self._value(item) for item in node.elts)
            return _Operand("list", lambda _: values, constants=values)
        return _constant(self._value(node))

    def _value(self, node: ast.expr) -> Any:
        """A constant: text, number, True, False or None."""
        if (
            isinstance(node, ast.UnaryOp)
            and isinstance(node.op, ast.USub | ast.UAdd)
            and isinstance(node.operand, ast.Constant)
            and type(node.operand.value) in (int, float)
        ):
            value = node.operand.value
            return -value if isinstance(node.op, ast.USub) else value  # type: ignore[operator]
        if isinstance(node, ast.Constant) and isinstance(
            node.value, str | int | float | bool | None
        ):
            return node.value
        raise self._error(
            f"{ast.unparse(node)} is not allowed. There are columns, 'text', numbers, True, "
            "False, None and lists of these; ==, !=, <, <=, >, >=, in, not in; and, or, not."
        )

    def _column(self, name: str) -> _Operand:
        if name not in self._features:
            hint = did_you_mean(name, self._features)
            if name.lower() in ("true", "false", "none", "null"):
                hint = f" Did you mean {'None' if name.lower() == 'null' else name.capitalize()}?"
            elif not hint:
                hint = f" If it is a value, put it in quotes: '{name}'."
            raise self._error(f'no column "{name}". It has {", ".join(self._features)}.{hint}')
        if name not in self.columns:
            self.columns.append(name)
        feature = self._features[name]
        classes = feature if isinstance(feature, ClassLabel) else None
        return _Operand(_kind(feature), lambda row: row[name], column=name, classes=classes)

    def _class_names(self, side: _Operand, other: _Operand) -> _Operand:
        """A column of class labels, by name where it meets text; the names are checked."""
        if side.classes is None or other.constants is None:
            return side
        names = [value for value in other.constants if isinstance(value, str)]
        if not names:
            return side
        known = side.classes.names
        for name in names:
            if name not in known:
                shown = ", ".join(map(str, known[:20]))
                raise self._error(
                    f'column "{side.column}" has no class "{name}". It has {shown}.'
                    + did_you_mean(name, known)
                )
        return side.by_class_name()

    def _same_kind(self, left: _Operand, right: _Operand) -> None:
        if left.kind == right.kind or "None" in (left.kind, right.kind):
            return
        message = f"{self._describe(left)}, and {self._describe(right)}."
        column, value = (left, right) if left.column else (right, left)
        if column.kind == "text" and value.constants is not None:
            message += f" Put the value in quotes: '{value.constants[0]}'."
        elif column.kind == "number" and value.kind == "text":
            message += " Write the number without quotes."
        elif column.kind == "bool":
            message += " Write True or False."
        raise self._error(message)

    @staticmethod
    def _describe(side: _Operand) -> str:
        if side.column is not None:
            return f'column "{side.column}" holds {side.kind}'
        values = side.constants or ()
        shown = repr(list(values)) if side.kind == "list" else repr(values[0])
        return f"{shown} is {side.kind if side.kind != 'list' else 'a list'}"


def _constant(value: Any) -> _Operand:
    if value is None:
        kind = "None"
    elif isinstance(value, bool):
        kind = "bool"
    else:
        kind = "text" if isinstance(value, str) else "number"
    return _Operand(kind, lambda _: value, constants=(value,))


def _kind(feature: Any) -> str:
    """What a column holds, in the words of the messages."""
    if isinstance(feature, ClassLabel):
        return "number"
    if not isinstance(feature, Value):
        return "an object" if isinstance(feature, dict) else "list"
    dtype = str(feature.dtype)
    if "string" in dtype:
        return "text"
    if dtype == "bool":
        return "bool"
    return "number" if re.match(r"u?int|float|decimal", dtype) else dtype
