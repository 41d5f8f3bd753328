"""The passes as Triton programs, unrolled over l and m when they are compiled.

A program has one tile of channels in registers, of one row: of one end of an edge (`into_frames`),
of one degree at an atom, over whose edges it loops in the fixed order of `Ends` (`into_space`), or
of an edge (`gate`, `gate_backward`). It reads all of a degree before it writes any, so that many
loads are on their way at once. Sums are in the precision of the features: no tensor cores, hence
no TF32, and no atomic additions, hence the same bits in every run.

Features per |m| are tuples of pointers to (signs, E, L+1-m, ENDS * C), matrices are packed
(E, sum (2l+1)^2), weights (E, sum of the L+1-m, ENDS * C). What is in capitals is known when a
kernel is compiled: L and M, the largest degree and |m|; C channels; ENDS of an edge, 1 or 2; TILE.
Of a degree there are the rows m = -w..w, w = min(l, M), and the weights of |m| = 0..w.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["edges"])
def into_frames(
    nodes: tl.tensor,  # (N, S, C), or (E, S, C) without atoms
    atoms: tl.tensor,  # (ENDS * E,) rows of nodes; None: those of the edges
    packed: tl.tensor,
    weights: tl.tensor,  # None: no factors
    parts: tl.tuple,  # to be written
    edges: tl.tensor,
    L: tl.constexpr,
    M: tl.constexpr,
    C: tl.constexpr,
    ENDS: tl.constexpr,
    TILE: tl.constexpr,
):
    """``part_m[+-, e, l-m] = w_m[e, l-m] (D_l x)[l+-m]``, x being the features at an end of e."""
    row, channel, inside = _place(C, TILE)
    end, edge = row % ENDS, row // ENDS
    at = edge if atoms is None else tl.load(atoms + end * edges + edge)
    x_at = nodes + at * ((L + 1) * (L + 1) * C) + channel
    column = end * C + channel
    for l in tl.static_range(L + 1):
        x = _rows(x_at + l * l * C, 2 * l + 1, C, inside)
        factors = _factors(weights, edge, column, inside, l, M, L, ENDS * C)
        for m in tl.static_range(-min(l, M), min(l, M) + 1):
            turned = _dot(_row(packed, edge, l, m, L), x, 2 * l + 1)
            if weights is not None:
                turned *= factors[_abs(m)]
            here = _framed_row(edge, edges, l, m, L) * (ENDS * C) + column
            tl.store(parts[_abs(m)] + here, turned, inside)


@triton.jit(do_not_specialize=["edges"])
def into_space(
    parts: tl.tuple,
    packed: tl.tensor,
    weights: tl.tensor,  # None: no factors
    nodes: tl.tensor,  # (N, S, C) that the weights multiplied; None without weights
    order: tl.tensor,  # rows end * E + edge by atom; None: every edge for itself
    starts: tl.tensor,  # (N + 1,) where those of an atom begin
    out: tl.tensor,  # (N, S, C), or (E, S, C) without order; to be written
    slopes: tl.tensor,  # gradients of the weights, to be written; None without weights
    edges: tl.tensor,
    L: tl.constexpr,
    M: tl.constexpr,
    C: tl.constexpr,
    ENDS: tl.constexpr,
    TILE: tl.constexpr,
):
    """``out_l[n] = sum over the edges e of n: D_l^T (w y)_l[e]``, y per |m|.

    With weights also their gradients, if y are gradients of what `into_frames` gave.
    """
    row, channel, inside = _place(C, TILE)
    degree, atom = row % (L + 1), row // (L + 1)
    for l in tl.static_range(L + 1):
        if degree == l:
            at = atom * ((L + 1) * (L + 1) * C) + l * l * C + channel
            x = () if nodes is None else _rows(nodes + at, 2 * l + 1, C, inside)
            total = _zeros(2 * l + 1, TILE, out.dtype.element_ty)
            if order is None:
                total = _added(
                    total, atom, 0, x, parts, packed, weights, slopes,
                    edges, channel, inside, l, L, M, C, ENDS,
                )  # fmt: skip
            else:
                for place in range(tl.load(starts + atom), tl.load(starts + atom + 1)):
                    which = tl.load(order + place)
                    end = (which >= edges).to(tl.int64)
                    total = _added(
                        total, which - end * edges, end, x, parts, packed, weights, slopes,
                        edges, channel, inside, l, L, M, C, ENDS,
                    )  # fmt: skip
            for k in tl.static_range(2 * l + 1):
                tl.store(out + at + k * C, total[k], inside)


@triton.jit
def _added(
    total: tl.tuple,
    edge: tl.tensor,
    end: tl.tensor,
    x: tl.tuple,
    parts: tl.tuple,
    packed: tl.tensor,
    weights: tl.tensor,
    slopes: tl.tensor,
    edges: tl.tensor,
    channel: tl.tensor,
    inside: tl.tensor,
    l: tl.constexpr,
    L: tl.constexpr,
    M: tl.constexpr,
    C: tl.constexpr,
    ENDS: tl.constexpr,
):
    """``total + D_l^T (w y)`` of one end of an edge; writes the slopes of its weights."""
    w: tl.constexpr = min(l, M)
    column = end * C + channel
    y = _framed(parts, edge, edges, column, inside, l, M, L, ENDS * C)
    factors = _factors(weights, edge, column, inside, l, M, L, ENDS * C)
    found = ()
    for m in tl.static_range(w + 1):
        turn = _row(packed, edge, l, m, L)
        slope = y[w + m] if weights is None else y[w + m] * _dot(turn, x, 2 * l + 1)
        grown = y[w + m] if weights is None else y[w + m] * factors[m]
        total = _add_times(total, turn, grown, 2 * l + 1)
        if m > 0:
            turn = _row(packed, edge, l, -m, L)
            if weights is not None:
                slope = tl.fma(y[w - m], _dot(turn, x, 2 * l + 1), slope)
            grown = y[w - m] if weights is None else y[w - m] * factors[m]
            total = _add_times(total, turn, grown, 2 * l + 1)
        found = found + (slope,)
    if weights is not None:
        for m in tl.static_range(w + 1):
            at = _weight_row(edge, l, m, L) * (ENDS * C) + column
            tl.store(slopes + at, found[m], inside)
    return total


@triton.jit(do_not_specialize=["edges"])
def gate(
    parts: tl.tuple,
    gates: tl.tensor,  # (E, L * C)
    out: tl.tuple,  # to be written
    edges: tl.tensor,
    L: tl.constexpr,
    M: tl.constexpr,
    C: tl.constexpr,
    TILE: tl.constexpr,
):
    """Every (m, l) times sigmoid of itself (l = 0) or tanh of the gate of l."""
    edge, channel, inside = _place(C, TILE)
    for l in tl.static_range(L + 1):
        rows = _framed(parts, edge, edges, channel, inside, l, M, L, C)
        factor = _gate_factor(rows, gates, edge, channel, inside, l, L, C)
        for m in tl.static_range(-min(l, M), min(l, M) + 1):
            here = _framed_row(edge, edges, l, m, L) * C + channel
            tl.store(out[_abs(m)] + here, rows[min(l, M) + m] * factor, inside)


@triton.jit(do_not_specialize=["edges"])
def gate_backward(
    grads: tl.tuple,
    parts: tl.tuple,
    gates: tl.tensor,
    out: tl.tuple,  # gradients of the parts, to be written
    slopes: tl.tensor,  # of the gates, to be written
    edges: tl.tensor,
    L: tl.constexpr,
    M: tl.constexpr,
    C: tl.constexpr,
    TILE: tl.constexpr,
):
    """Gradients of `gate`."""
    edge, channel, inside = _place(C, TILE)
    for l in tl.static_range(L + 1):
        rows = _framed(parts, edge, edges, channel, inside, l, M, L, C)
        given = _framed(grads, edge, edges, channel, inside, l, M, L, C)
        factor = _gate_factor(rows, gates, edge, channel, inside, l, L, C)
        slope = _dot(given, rows, 2 * min(l, M) + 1)
        if l == 0:  # of x sigmoid(x): the factor, and x times its slope
            at = _framed_row(edge, edges, 0, 0, L) * C + channel
            within = slope * (factor * (1 - factor))
            tl.store(out[0] + at, tl.fma(given[0], factor, within), inside)
        else:
            at = (edge * L + l - 1) * C + channel
            tl.store(slopes + at, slope * (1 - factor * factor), inside)
            for m in tl.static_range(-min(l, M), min(l, M) + 1):
                here = _framed_row(edge, edges, l, m, L) * C + channel
                tl.store(out[_abs(m)] + here, given[min(l, M) + m] * factor, inside)


@triton.jit
def _gate_factor(
    rows: tl.tuple,
    gates: tl.tensor,
    edge: tl.tensor,
    channel: tl.tensor,
    inside: tl.tensor,
    l: tl.constexpr,
    L: tl.constexpr,
    C: tl.constexpr,
):
    """Of one degree: sigmoid of its only row, or tanh of its gate."""
    if l == 0:
        factor = tl.sigmoid(rows[0])
    else:  # tanh, which the interpreter lacks, of a sigmoid
        gate_at = gates + (edge * L + l - 1) * C + channel
        factor = 2 * tl.sigmoid(2 * tl.load(gate_at, inside)) - 1
    return factor


@triton.jit
def _place(C: tl.constexpr, TILE: tl.constexpr):
    """Row of a program, the channels of its tile, and which of these there are."""
    tiles: tl.constexpr = (C + TILE - 1) // TILE
    program = tl.program_id(0).to(tl.int64)  # rows times channels can be more than 2^31
    channel = (program % tiles).to(tl.int32) * TILE + tl.arange(0, TILE)
    return program // tiles, channel, channel < C


@triton.constexpr_function
def _abs(m: int) -> int:
    return abs(m)


@triton.jit
def _framed_row(
    edge: tl.tensor, edges: tl.tensor, l: tl.constexpr, m: tl.constexpr, L: tl.constexpr
):
    """Place of (sign of m, edge, l) in features of |m| that are (signs, E, L+1-|m|)."""
    signed = edge + edges if m < 0 else edge
    return signed * (L + 1 - _abs(m)) + l - _abs(m)


@triton.jit
def _weight_row(edge: tl.tensor, l: tl.constexpr, m: tl.constexpr, L: tl.constexpr):
    """Place of (edge, m, l) in weights that are (E, sum of the L+1-m)."""
    return edge * ((L + 1) * (L + 2) // 2) + m * (L + 1) - m * (m - 1) // 2 + l - m


@triton.jit
def _row(packed: tl.tensor, edge: tl.tensor, l: tl.constexpr, m: tl.constexpr, L: tl.constexpr):
    """The 2l+1 numbers of row m of an edge's matrix of degree l."""
    before = l * (2 * l - 1) * (2 * l + 1) // 3  # numbers of smaller degrees
    every = (L + 1) * (2 * L + 1) * (2 * L + 3) // 3
    at = packed + edge * every + before + (l + m) * (2 * l + 1)
    numbers = ()
    for k in tl.static_range(2 * l + 1):
        numbers = numbers + (tl.load(at + k),)
    return numbers


@triton.jit
def _rows(at: tl.tensor, number: tl.constexpr, C: tl.constexpr, inside: tl.tensor):
    """Rows of C numbers that follow each other."""
    rows = ()
    for k in tl.static_range(number):
        rows = rows + (tl.load(at + k * C, inside),)
    return rows


@triton.jit
def _framed(
    parts: tl.tuple,
    edge: tl.tensor,
    edges: tl.tensor,
    column: tl.tensor,
    inside: tl.tensor,
    l: tl.constexpr,
    M: tl.constexpr,
    L: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Rows m = -w..w of degree l."""
    w: tl.constexpr = min(l, M)
    rows = ()
    for m in tl.static_range(-w, w + 1):
        here = _framed_row(edge, edges, l, m, L) * WIDTH + column
        rows = rows + (tl.load(parts[_abs(m)] + here, inside),)
    return rows


@triton.jit
def _factors(
    weights: tl.tensor,
    edge: tl.tensor,
    column: tl.tensor,
    inside: tl.tensor,
    l: tl.constexpr,
    M: tl.constexpr,
    L: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Weights of |m| = 0..w of degree l."""
    rows = ()
    if weights is not None:
        for m in tl.static_range(min(l, M) + 1):
            at = _weight_row(edge, l, m, L) * WIDTH + column
            rows = rows + (tl.load(weights + at, inside),)
    return rows


@triton.jit
def _zeros(number: tl.constexpr, TILE: tl.constexpr, dtype: tl.constexpr):
    rows = ()
    for _ in tl.static_range(number):
        rows = rows + (tl.zeros([TILE], dtype),)
    return rows


@triton.jit
def _dot(numbers: tl.tuple, rows: tl.tuple, number: tl.constexpr):
    """Sum of products, one by one."""
    total = numbers[0] * rows[0]
    for k in tl.static_range(1, number):
        total = tl.fma(numbers[k], rows[k], total)
    return total


@triton.jit
def _add_times(total: tl.tuple, numbers: tl.tuple, row: tl.tensor, number: tl.constexpr):
    """Each of the rows plus a number times a row."""
    sums = ()
    for k in tl.static_range(number):
        sums = sums + (tl.fma(numbers[k], row, total[k]),)
    return sums
