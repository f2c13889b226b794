/* The loops of the rotation for one float type: REAL, with NAME(x) the name of x for it, REAL4 for four of them, and
 * BITS for the unsigned integer of its width.
 *
 * Every transform is orthonormal and computed in a fixed order, without contraction: on integers that `rotation.py`
 * promises to rotate exactly, it does.
 */

/* A 4-point Hadamard transform across four runs of `width` values, into four others. */
INLINE void NAME(four)(const REAL *a, const REAL *b, const REAL *c, const REAL *d, REAL *restrict p, REAL *restrict q,
                       REAL *restrict r, REAL *restrict s, int64_t width, REAL scale)
{
    for (int64_t k = 0; k < width; k++) {
        const REAL plus = a[k] + b[k], minus = a[k] - b[k], upper = c[k] + d[k], lower = c[k] - d[k];
        p[k] = (plus + upper) * scale;
        q[k] = (minus + lower) * scale;
        r[k] = (plus - upper) * scale;
        s[k] = (minus - lower) * scale;
    }
}

/* A 64-point transform across rows `step` apart, at most TILE values of each, in place. */
INLINE void NAME(rows64)(REAL *rows, int64_t step, int64_t width)
{
    REAL left[64 * TILE], right[64 * TILE];
    for (int i = 0; i < 16; i++) {
        const REAL *from = rows + i * step;
        REAL *to = left + i * TILE;
        NAME(four)(from, from + 16 * step, from + 32 * step, from + 48 * step, to, to + 16 * TILE, to + 32 * TILE,
                   to + 48 * TILE, width, (REAL)0.125);
    }
    for (int i = 0; i < 16; i++) {
        const int at = (i / 4 * 16 + i % 4) * TILE;
        const REAL *from = left + at;
        REAL *to = right + at;
        NAME(four)(from, from + 4 * TILE, from + 8 * TILE, from + 12 * TILE, to, to + 4 * TILE, to + 8 * TILE,
                   to + 12 * TILE, width, (REAL)1);
    }
    for (int i = 0; i < 16; i++) {
        const REAL *from = right + 4 * i * TILE;
        REAL *to = rows + 4 * i * step;
        NAME(four)(from, from + TILE, from + 2 * TILE, from + 3 * TILE, to, to + step, to + 2 * step, to + 3 * step,
                   width, (REAL)1);
    }
}

/* The transform of each column of a grid of (4096, columns), in place. */
EXPORTED void NAME(lepton_transform)(REAL *grid, int64_t columns)
{
    for (int digit = 0; digit < 2; digit++) { /* of the row's number, to the base of 64 */
        const int64_t step = digit ? 64 * columns : columns, next = digit ? columns : 64 * columns;
        for (REAL *rows = grid; rows < grid + 64 * next; rows += next) {
            int64_t column = 0;
            for (; column + TILE <= columns; column += TILE)
                NAME(rows64)(rows + column, step, TILE);
            if (column < columns)
                NAME(rows64)(rows + column, step, columns - column);
        }
    }
}

/* A 4-point transform of the values of one vector. */
INLINE REAL4 NAME(within)(REAL4 v)
{
    v = v * (REAL4){1, -1, 1, -1} + SHUFFLE(v, 1, 0, 3, 2);
    return v * (REAL4){1, 1, -1, -1} + SHUFFLE(v, 2, 3, 0, 1);
}

/* A transform of each `side` neighbours, 16 or 4, of the first `count` values of a row, in place. */
INLINE void NAME(neighbours)(REAL *row, int64_t count, int side)
{
    REAL4 v[4];
    if (side == 4) {
        for (REAL *at = row; at < row + count; at += 4) {
            memcpy(v, at, sizeof v[0]);
            v[0] = NAME(within)(v[0] * (REAL)0.5);
            memcpy(at, v, sizeof v[0]);
        }
        return;
    }
    for (REAL *at = row; at < row + count; at += 16) {
        memcpy(v, at, sizeof v);
        const REAL4 plus = v[0] + v[1], minus = v[0] - v[1], upper = v[2] + v[3], lower = v[2] - v[3];
        v[0] = NAME(within)((plus + upper) * (REAL)0.25);
        v[1] = NAME(within)((minus + lower) * (REAL)0.25);
        v[2] = NAME(within)((plus - upper) * (REAL)0.25);
        v[3] = NAME(within)((minus - lower) * (REAL)0.25);
        memcpy(at, v, sizeof v);
    }
}

/* A transform of the last columns of a row at the largest stride, side * width of them; the others are copied. */
INLINE void NAME(strided)(const REAL *row, REAL *target, int64_t columns, int side)
{
    REAL spare[16 * TILE];
    const int64_t width = columns / side, first = columns - side * width;
    memcpy(target, row, (size_t)first * sizeof(REAL));
    for (int64_t column = 0; column < width; column += TILE) {
        const int64_t count = width - column < TILE ? width - column : TILE;
        const REAL *from = row + first + column;
        REAL *to = target + first + column;
        if (side == 4) {
            NAME(four)(from, from + width, from + 2 * width, from + 3 * width, to, to + width, to + 2 * width,
                       to + 3 * width, count, (REAL)0.5);
            continue;
        }
        for (int i = 0; i < 4; i++, from += width) {
            REAL *half = spare + i * TILE;
            NAME(four)(from, from + 4 * width, from + 8 * width, from + 12 * width, half, half + 4 * TILE,
                       half + 8 * TILE, half + 12 * TILE, count, (REAL)0.25);
        }
        for (int i = 0; i < 4; i++, to += 4 * width) {
            const REAL *half = spare + 4 * i * TILE;
            NAME(four)(half, half + TILE, half + 2 * TILE, half + 3 * TILE, to, to + width, to + 2 * width,
                       to + 3 * width, count, (REAL)1);
        }
    }
}

/* `from` with the signs of the bits from bit `at` on, where 1 is minus. */
INLINE void NAME(turn)(const REAL *from, REAL *to, const uint64_t *signs, int64_t at, int64_t count)
{
    BITS value;
    int64_t k = 0;
    for (; k + 32 <= count; k += 32) {
        const BITS minus = bits_at(signs, at + k, 32);
        for (int i = 0; i < 32; i++) {
            memcpy(&value, from + k + i, sizeof value);
            value ^= minus >> i << (8 * sizeof value - 1);
            memcpy(to + k + i, &value, sizeof value);
        }
    }
    const BITS minus = k < count ? bits_at(signs, at + k, count - k) : 0;
    for (int64_t i = 0; k + i < count; i++) {
        memcpy(&value, from + k + i, sizeof value);
        value ^= minus >> i << (8 * sizeof value - 1);
        memcpy(to + k + i, &value, sizeof value);
    }
}

/* `source` with the signs of as many bits, into another array. */
EXPORTED void NAME(lepton_turn)(const REAL *source, const uint64_t *signs, REAL *target, int64_t count)
{
    NAME(turn)(source, target, signs, 0, count);
}

/* The transform of each block of descending powers of two, the binary digits of `count`, 16 to 2048, in place. */
EXPORTED void NAME(lepton_blocks)(REAL *values, int64_t count)
{
    for (int64_t size = 2048; size >= 16; size /= 2) {
        if (!(count & size))
            continue;
        for (int64_t half = 1; half < size; half *= 2)
            for (REAL *low = values; low < values + size; low += 2 * half)
                for (int64_t k = 0; k < half; k++) {
                    const REAL a = low[k], b = low[k + half];
                    low[k] = a + b;
                    low[k + half] = a - b;
                }
        const REAL scale = (REAL)(1.0 / sqrt((double)size));
        for (int64_t k = 0; k < size; k++)
            values[k] *= scale;
        values += size;
    }
}

/* Signs, neighbours, second signs, strides: (4096, columns) into another grid. `row` has room for `columns` values. */
EXPORTED void NAME(lepton_mix)(const REAL *source, const uint64_t *signs, const uint64_t *second, REAL *target,
                               REAL *row, int64_t columns, int64_t side)
{
    for (int64_t at = 0; at < 4096 * columns; at += columns) {
        NAME(turn)(source + at, row, signs, at, columns);
        NAME(neighbours)(row, columns / side * side, (int)side);
        NAME(turn)(row, row, second, at, columns);
        NAME(strided)(row, target + at, columns, (int)side);
    }
}

/* The inverse of `lepton_mix`. */
EXPORTED void NAME(lepton_unmix)(const REAL *source, const uint64_t *signs, const uint64_t *second, REAL *target,
                                 REAL *row, int64_t columns, int64_t side)
{
    for (int64_t at = 0; at < 4096 * columns; at += columns) {
        NAME(strided)(source + at, row, columns, (int)side);
        NAME(turn)(row, row, second, at, columns);
        NAME(neighbours)(row, columns / side * side, (int)side);
        NAME(turn)(row, target + at, signs, at, columns);
    }
}
