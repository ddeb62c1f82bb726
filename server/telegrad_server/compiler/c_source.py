"""The C of a group's kernel: loops over rows, and in each the levels between one reduction and the next.

A kernel is called for a range of *units*, equal pieces of its rows that threads may share: ``p`` holds the addresses of
operands, results, and room for partial sums. How many units there are, and in which order anything is added up, follows
from types alone. Where a value of a row is needed after a reduction it is kept in a buffer; a loop without reductions
has none. Sums over columns are added up row after row, a partial sum for each unit, and these in order by ``_end``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from telegrad.ir import types as t
from telegrad.ir.types import DType, Shape, product
from telegrad.ir.value import Node, Value
from telegrad.ops.elementwise import Constant
from telegrad.ops.reduce import Max, Sum
from telegrad.ops.shape import BroadcastTo, Reshape

from telegrad_server.compiler.expressions import C_TYPES, Term, Writer, constant, printed
from telegrad_server.compiler.fused import Fused
from telegrad_server.compiler.layout import Strides
from telegrad_server.compiler.trips import UNIT_ROWS

UNIT_ELEMENTS = 8192
"""What a unit has at least where there are rows enough: 32 KiB of each operand."""

MOST_PARTIALS, PARTIAL_ROWS = 16, 64
"""Partial sums of columns: at most so many, each of at least so many rows."""


class Kernel(NamedTuple):
    """A kernel's text, in which its name is KERNEL, and how to call it."""

    text: str
    units: int
    partials: tuple[int, ...]
    """The bytes of each array of partial sums."""

    elements: int
    """The elements of its index space times its ops: how much work it is."""

    is_by_rows: bool
    """Whether a unit is `UNIT_ROWS` rows of a trip that is cut by rows."""


def kernel(op: Fused, strides: Sequence[Strides], *, rows: int = 0) -> Kernel:
    """The kernel for a group whose operands are laid out so, in elements. With ``rows`` it is of a trip that is cut by
    so many, and is cut as the trip is where it can be."""
    return _kernel(op, tuple(strides), rows)


@lru_cache(maxsize=1 << 12)
def _kernel(op: Fused, strides: tuple[Strides, ...], rows: int) -> Kernel:
    return _Printer(op, strides).kernel(rows)


class _Access(NamedTuple):
    """How an operand is read: its number, its type, and its stride along each dimension of the index space."""

    number: int
    dtype: DType
    strides: tuple[int, ...]
    is_row: bool


class _Printer:
    """Prints one kernel."""

    def __init__(self, op: Fused, strides: tuple[Strides, ...]) -> None:
        self._op = op
        self._body = op.body
        self._strides = strides
        self._number = {v: i for i, v in enumerate(op.body.inputs)}
        self._behind: dict[Value, Value] = {}
        self._nodes: list[Node] = []
        for node in op.body.body:
            if isinstance(node.op, Reshape | BroadcastTo):
                self._behind[Value(node)] = self._source(node.inputs[0])
            elif not isinstance(node.op, Constant):
                self._nodes.append(node)
        self._columns = max([product(n.types[0].shape) for n in self._nodes if self._is_column_sum(n)], default=0)
        self._read_dims()
        self._set_levels()

    def _source(self, v: Value) -> Value:
        return self._behind.get(v, v)

    def _is_reduction(self, node: Node) -> bool:
        return isinstance(node.op, Sum | Max)

    def _is_column_sum(self, node: Node) -> bool:
        return isinstance(node.op, Sum) and self._reduces_first(node.op, node.inputs[0].shape)

    def _reduces_first(self, op: Sum, shape: Shape) -> bool:
        axes = [a for a, size in enumerate(shape) if size != 1]
        return bool(axes) and axes[-1] not in op.axes

    def _is_row(self, v: Value) -> bool:
        return bool(self._op.length) and v.type.size != self._op.size and not self._is_column_sum(v.node)

    # ---- the index space

    def _shape_of_use(self, node: Node) -> Shape:
        return node.inputs[0].shape if self._is_reduction(node) else node.types[0].shape

    def _read_dims(self) -> None:
        """Cut the index space where any operand's strides need it, and join what all walk through in one go."""
        size, length = self._op.size, self._op.length
        cuts = {1, size, length or 1, self._columns or 1}
        uses: list[tuple[Value, Shape, int]] = []
        for node in self._nodes:
            shape = self._shape_of_use(node)
            scale = length if length and product(shape) != size else 1
            for v in node.inputs:
                if v in self._number:
                    uses.append((v, shape, scale))
                    step = scale
                    for axis in reversed(shape):
                        step *= axis
                        cuts.add(step)
        ordered = sorted(cuts)
        units = ordered[:-1]
        found: dict[tuple[Value, Shape, int], list[int]] = {use: self._walk(use, units) for use in uses}
        inner_limits = {length or 1, self._columns or 1} - {1}
        kept: list[int] = []  # the dims that begin a run, from the innermost outwards
        for j in range(len(units)):
            joins = kept and units[j] not in inner_limits
            if joins:
                k = kept[-1]
                joins = all(w[j] == w[k] * (units[j] // units[k]) for w in found.values())
            if not joins:
                kept.append(j)
        self._units = [units[j] for j in kept]
        self._sizes = [b // a for a, b in zip(self._units, [*self._units[1:], size], strict=True)] if units else []
        self._access: dict[tuple[Value, Shape], _Access] = {}
        for (v, shape, scale), walk in found.items():
            strides = tuple([walk[j] for j in kept])
            self._access[v, shape] = _Access(self._number[v], v.dtype, strides, scale != 1)
        self._inner = length or self._columns
        if not self._inner:
            self._inner = self._sizes[0] if self._sizes else 1
        self._is_flat = not length and not self._columns and len(self._units) <= 1
        self._rows = size // self._inner

    def _walk(self, use: tuple[Value, Shape, int], units: Sequence[int]) -> list[int]:
        """The operand's stride along each dimension."""
        v, shape, scale = use
        own = self._strides[self._number[v]]
        lead = len(shape) - len(own)
        walk = [0] * len(units)
        step = scale
        for axis in range(len(shape) - 1, -1, -1):
            stride = 0 if axis < lead or v.shape[axis - lead] == 1 else own[axis - lead]
            for j, unit in enumerate(units):
                if step <= unit < step * shape[axis]:
                    walk[j] = stride * (unit // step)
            step *= shape[axis]
        return walk

    # ---- levels

    def _set_levels(self) -> None:
        """The level at which each value is computed: a reduction's result is one above what it reduces."""
        soonest: dict[Value, int] = {}
        for node in self._nodes:
            level = max([soonest.get(self._source(v), 0) for v in node.inputs], default=0)
            soonest[Value(node)] = level + 1 if self._is_reduction(node) and not self._is_column_sum(node) else level
        self._level = dict(soonest)
        users: dict[Value, list[Node]] = {}
        for node in self._nodes:
            for v in node.inputs:
                users.setdefault(self._source(v), []).append(node)
        for node in reversed(self._nodes):
            out = Value(node)
            if self._is_row(out) or self._is_reduction(node) or out in self._body.outputs:
                continue
            wanted = [
                soonest[out] if self._is_reduction(user) and not self._is_column_sum(user) else self._level[Value(user)]
                for user in users.get(out, [])
            ]
            self._level[out] = min(wanted, default=soonest[out])
        for node in self._nodes:  # a column sum is taken where its operand is computed
            if self._is_column_sum(node):
                self._level[Value(node)] = self._level.get(self._source(node.inputs[0]), 0)
        self._users = users

    # ---- text

    def kernel(self, rows: int) -> Kernel:
        """The kernel, cut by so many rows of a trip where it can be."""
        op, body = self._op, self._body
        sums = [node for node in self._nodes if self._is_column_sum(node)]
        is_by_rows = rows > 0 and not sums and (self._is_flat or (op.size // rows) % self._inner == 0)
        if is_by_rows:
            units, per_unit = (
                -(-rows // UNIT_ROWS),
                UNIT_ROWS * (op.size // rows) // (1 if self._is_flat else self._inner),
            )
        elif self._is_flat:
            units, per_unit = -(-op.size // UNIT_ELEMENTS), UNIT_ELEMENTS
        elif sums:
            units = 1 if self._rows <= PARTIAL_ROWS else min(MOST_PARTIALS, -(-self._rows // PARTIAL_ROWS))
            per_unit = -(-self._rows // units)
            units = -(-self._rows // per_unit)
        else:
            per_unit = max(1, UNIT_ELEMENTS // self._inner)
            units = -(-self._rows // per_unit)
        self._writer = Writer()
        self._terms: dict[Value, Term] = {}
        self._buffers: dict[Value, str] = {}
        self._declared: list[str] = []
        self._pointers: dict[_Access, str] = {}
        self._scalars: dict[_Access, Term] = {}
        self._head: list[str] = []
        self._result = {v: len(body.inputs) + k for k, v in enumerate(body.outputs)}
        self._partial = {
            Value(node): self._result[Value(node)] if units == 1 else len(body.inputs) + len(body.outputs) + k
            for k, node in enumerate(sums)
        }
        inside = self._row_text()
        q = self._columns
        lines = ["void KERNEL(char *const *p, long first, long last) {", *self._declared]
        lines.append("for (long u = first; u < last; u++) {")
        if self._is_flat:
            lines.append(
                f"long from = u * {per_unit}, end = from + {per_unit} < {op.size} ? from + {per_unit} : {op.size};"
            )
        else:
            for node in sums:
                k = self._partial[Value(node)]
                lines.append(f"float *s{k} = (float *)p[{k}] + u * {q};")
                lines.append(f"for (long c = 0; c < {q}; c++) s{k}[c] = 0.0f;")
            lines.append(f"long end = (u + 1) * {per_unit} < {self._rows} ? (u + 1) * {per_unit} : {self._rows};")
            lines.append(f"for (long r = u * {per_unit}; r < end; r++) {{")
        lines += [*self._head, *inside, "}" if self._is_flat else "}\n}", "}"]
        lines.append("void KERNEL_end(char *const *p, long first, long last) {")
        if sums and units > 1:
            for node in sums:
                k, out = self._partial[Value(node)], self._result[Value(node)]
                lines.append(f"float *y{k} = (float *)p[{out}], *s{k} = (float *)p[{k}];")
                lines.append(f"for (long c = 0; c < {q}; c++) y{k}[c] = s{k}[c];")
                lines.append(f"for (long u = 1; u < {units}; u++)\n#pragma omp simd")
                lines.append(f"for (long c = 0; c < {q}; c++) y{k}[c] += s{k}[u * {q} + c];")
        lines.append("}")
        partials = (4 * q * units,) * (len(sums) if units > 1 else 0)
        return Kernel("\n".join(lines) + "\n", units, partials, op.size * len(self._nodes), is_by_rows)

    def _row_text(self) -> list[str]:
        lines: list[str] = []
        for level in range(max(self._level.values(), default=0) + 1):
            scalars = [n for n in self._nodes if self._level[Value(n)] == level and self._is_row(Value(n))]
            for node in scalars:
                if not self._is_reduction(node):
                    self._writer.lines = lines
                    self._print(node, lines, {})
                    self._store_row(node, lines)
            self._loop(level, lines)
            for node in self._nodes:
                if self._is_reduction(node) and not self._is_column_sum(node) and self._level[Value(node)] == level + 1:
                    self._reduce(node, lines)
                    self._store_row(node, lines)
        return lines

    def _store_row(self, node: Node, lines: list[str]) -> None:
        out = Value(node)
        if out in self._result:
            lines.append(f"(({C_TYPES[out.dtype]} *)p[{self._result[out]}])[r] = {self._terms[out].text};")

    def _reduce(self, node: Node, lines: list[str]) -> None:
        x = self._source(node.inputs[0])
        word = "row_sum" if isinstance(node.op, Sum) else "row_max"
        if x in self._number:
            access = self._access[node.inputs[0], node.inputs[0].shape]
            if self._inner_index(access) == "c":
                where = self._pointer(access)
            else:
                where = self._new_buffer(t.float32)
                lines.append(f"for (long c = 0; c < {self._inner}; c++) {where}[c] = {self._element(access)};")
        else:
            where = self._buffers[x]
        self._writer.lines = lines
        self._terms[Value(node)] = self._writer.local(f"{word}({where}, {self._inner})", t.float32)

    def _loop(self, level: int, lines: list[str]) -> None:
        """The loop over the elements of a row at one level."""
        nodes = [n for n in self._nodes if self._level[Value(n)] == level and not self._is_row(Value(n))]
        if not nodes:
            return
        inside: list[str] = []
        local: dict[Value | _Access, Term] = {}
        self._writer.lines = inside
        for node in nodes:
            if self._is_column_sum(node):
                term = self._operand(node.inputs[0], node, inside, local)
                k = self._partial[Value(node)]
                inside.append(f"s{k}[c] += {term.text};")
                continue
            self._print(node, inside, local)
            out = Value(node)
            term = local[out]
            buffer = ""
            if any(
                self._level[Value(u)] > level or (self._is_reduction(u) and not self._is_column_sum(u))
                for u in self._users.get(out, [])
            ):
                buffer = self._buffers[out] = self._row_of(out) if out in self._result else self._new_buffer(out.dtype)
            elif out in self._result:
                buffer = self._row_of(out)
            if buffer:
                inside.append(f"{buffer}[c] = {term.text};")
        begin = "from; c < end" if self._is_flat else f"0; c < {self._inner}"
        lines += ["#pragma omp simd", f"for (long c = {begin}; c++) {{", *inside, "}"]

    def _print(self, node: Node, lines: list[str], local: dict[Value | _Access, Term]) -> None:
        out = Value(node)
        terms = [self._operand(v, node, lines, local) for v in node.inputs]
        term = printed(node.op, self._writer, terms)
        if self._is_row(out):
            self._terms[out] = term
        else:
            local[out] = term

    def _operand(self, v: Value, node: Node, lines: list[str], local: dict[Value | _Access, Term]) -> Term:
        source = self._source(v)
        if isinstance(source.node.op, Constant):
            return constant(source.node.op.value, source.dtype)
        if source in self._terms:
            return self._terms[source]
        if source in self._number:
            access = self._access[v, self._shape_of_use(node)]
            if access.is_row or self._inner_index(access) == "0":
                return self._scalar(access)
            if access not in local:
                local[access] = self._load(self._element(access), access.dtype, lines)
            return local[access]
        if source not in local:
            local[source] = self._load(f"{self._buffers[source]}[c]", source.dtype, lines)
        return local[source]

    def _load(self, text: str, dtype: DType, lines: list[str]) -> Term:
        before, self._writer.lines = self._writer.lines, lines
        term = self._writer.local(text, dtype)
        self._writer.lines = before
        return term

    def _scalar(self, access: _Access) -> Term:
        """An operand that has one element for the row, read before its first loop."""
        found = self._scalars.get(access)
        if found is None:
            found = self._scalars[access] = self._load(f"{self._pointer(access)}[0]", access.dtype, self._head)
        return found

    def _new_buffer(self, dtype: DType) -> str:
        name = f"b{len(self._declared)}"
        self._declared.append(f"{C_TYPES[dtype]} {name}[{self._inner}] __attribute__((aligned(64)));")
        return name

    def _row_of(self, out: Value) -> str:
        """A pointer to the row of a result."""
        k = self._result[out]
        at = "" if self._is_flat else f" + r * {self._inner}"
        line = f"{C_TYPES[out.dtype]} *y{k} = ({C_TYPES[out.dtype]} *)p[{k}]{at};"
        if line not in self._head:
            self._head.append(line)
        return f"y{k}"

    def _pointer(self, access: _Access) -> str:
        """A pointer to the operand's first element of the row."""
        if access not in self._pointers:
            name = self._pointers[access] = f"a{len(self._pointers)}"
            type = C_TYPES[access.dtype]
            steps = [f"(const {type} *)p[{access.number}]"]
            for unit, size, stride in zip(self._units, self._sizes, access.strides, strict=True):
                if unit >= self._inner and stride and not self._is_flat:
                    per = unit // self._inner
                    at = "r" if per == 1 else f"r / {per}"
                    at = at if unit * size == self._op.size else f"{at} % {size}"
                    steps.append(f"({at}) * {stride}L")
            self._head.append(f"const {type} *{name} = {' + '.join(steps)};")
        return self._pointers[access]

    def _element(self, access: _Access) -> str:
        return f"{self._pointer(access)}[{self._inner_index(access)}]"

    def _inner_index(self, access: _Access) -> str:
        """Where the element of the loop is, counted from the row's first."""
        steps: list[str] = []
        inner = [
            d for d in zip(self._units, self._sizes, access.strides, strict=True) if self._is_flat or d[0] < self._inner
        ]
        for unit, size, stride in inner:
            if stride:
                at = "c" if unit == 1 else f"c / {unit}"
                at = at if unit * size == (self._op.size if self._is_flat else self._inner) else f"{at} % {size}"
                steps.append(at if at == "c" and stride == 1 else f"({at}) * {stride}L")
        return " + ".join(steps) or "0"
