/* Sums of scaled outer products, with `MULTIPLY_ADD4` for x y + z of four doubles; included by `kernels.c` for each
 * `TARGET`. */

/* One row of a tile: a value of `left` times all of `right`. */
#define ADD_ROW(x, j)                                                  \
    const float64x4 x = {left[j], left[j], left[j], left[j]};          \
    x##0 = MULTIPLY_ADD4(x, first, x##0), x##1 = MULTIPLY_ADD4(x, second, x##1)

/* To a tile of `total`, of `high` rows that begin `stride` apart and `wide` columns: the sum over `depth` of HIGH values
 * of `left`, whose rows are OUTPUTS_AT_ONCE apart, times WIDE of `right`. The sums stay in registers. */
static TARGET void NAME(add_tile)(const double *restrict left, const double *restrict right, int64_t depth,
                                  double *restrict total, int64_t stride, int64_t high, int64_t wide)
{
    float64x4 a0 = {0}, a1 = {0}, b0 = {0}, b1 = {0}, c0 = {0}, c1 = {0};
    float64x4 d0 = {0}, d1 = {0}, e0 = {0}, e1 = {0}, f0 = {0}, f1 = {0};
    for (int64_t i = 0; i < depth; i++, left += OUTPUTS_AT_ONCE, right += WIDE) {
        float64x4 first, second;
        memcpy(&first, right, sizeof first);
        memcpy(&second, right + 4, sizeof second);
        ADD_ROW(a, 0);
        ADD_ROW(b, 1);
        ADD_ROW(c, 2);
        ADD_ROW(d, 3);
        ADD_ROW(e, 4);
        ADD_ROW(f, 5);
    }
    const float64x4 sums[HIGH * WIDE / 4] = {a0, a1, b0, b1, c0, c1, d0, d1, e0, e1, f0, f1};
    double tile[HIGH][WIDE];
    memcpy(tile, sums, sizeof tile);
    for (int64_t j = 0; j < high; j++, total += stride)
        if (wide == WIDE)
            for (int k = 0; k < WIDE; k++)
                total[k] += tile[j][k];
        else
            for (int64_t k = 0; k < wide; k++)
                total[k] += tile[j][k];
}

/* To `weight`, (outputs, width), the sum over rows of gradient, factor and input, and to `bias`, (outputs,), that of
 * gradient and factor; either may be NULL. So many rows and outputs are taken at once that they stay in the cache. */
static TARGET void NAME(add_outer)(const float *restrict inputs, const float *restrict gradients,
                                   const double *restrict factors, int64_t rows, int64_t width, int64_t outputs,
                                   double *restrict weight, double *restrict bias)
{
    _Alignas(64) double left[OUTPUTS_AT_ONCE * ROWS_AT_ONCE], right[WIDE * ROWS_AT_ONCE];
    for (int64_t row = 0; row < rows; row += ROWS_AT_ONCE) {
        const int64_t depth = rows - row < ROWS_AT_ONCE ? rows - row : ROWS_AT_ONCE;
        for (int64_t output = 0; output < outputs; output += OUTPUTS_AT_ONCE) {
            const int64_t here = outputs - output < OUTPUTS_AT_ONCE ? outputs - output : OUTPUTS_AT_ONCE;
            for (int64_t i = 0; i < depth; i++) {
                const float *from = gradients + (row + i) * outputs + output;
                double *to = left + i * OUTPUTS_AT_ONCE;
                for (int64_t j = 0; j < here; j++)
                    to[j] = (double)from[j] * factors[row + i];
                for (int64_t j = 0; bias && j < here; j++)
                    bias[output + j] += to[j];
                for (int64_t j = here; j % HIGH; j++)
                    to[j] = 0.0;
            }
            for (int64_t column = 0; weight && column < width; column += WIDE) {
                const int64_t wide = width - column < WIDE ? width - column : WIDE;
                for (int64_t i = 0; i < depth; i++) {
                    const float *from = inputs + (row + i) * width + column;
                    for (int k = 0; k < WIDE; k++)
                        right[i * WIDE + k] = k < wide ? from[k] : 0.0f;
                }
                for (int64_t j = 0; j < here; j += HIGH)
                    NAME(add_tile)(left + j, right, depth, weight + (output + j) * width + column, width,
                                   here - j < HIGH ? here - j : HIGH, wide);
            }
        }
    }
}

#undef ADD_ROW
