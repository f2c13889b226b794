/* Gaussian noise of uniform words, with `MULTIPLY_ADD` for x y + z; included by `kernels.c` for each `TARGET`. */

/* A pair of independent Gaussians (Box and Muller 1958) of two uniform words, without a branch: logarithm, sine and
 * cosine are their series where these converge fast, and right to 3e-14 of the radius. */
INLINE TARGET void NAME(pair)(uint64_t of_radius, uint64_t of_angle, double deviation, double *first, double *second)
{
    const uint64_t one = 0x3ff0000000000000u, mantissa = 0x000fffffffffffffu, root_half = 0x3fe6a09e667f3bcdu;
    const double to_integer = 0x1.8p52;
    /* ln u of u in (0, 1]: u = 2^e m, m in [sqrt(1/2), sqrt(2)), and ln m = 2 artanh((m - 1) / (m + 1)). */
    const uint64_t shifted = as_bits(2.0 - as_double(of_radius >> 12 | one)) - root_half + one;
    const double e = as_double(shifted >> 52 | 0x4330000000000000u) - (0x1p52 + 1023.0);
    const double m = as_double((shifted & mantissa) + root_half);
    const double s = (m - 1.0) / (m + 1.0), z = s * s;
    double p = 1.0 / 17;
    p = MULTIPLY_ADD(p, z, 1.0 / 15);
    p = MULTIPLY_ADD(p, z, 1.0 / 13);
    p = MULTIPLY_ADD(p, z, 1.0 / 11);
    p = MULTIPLY_ADD(p, z, 1.0 / 9);
    p = MULTIPLY_ADD(p, z, 1.0 / 7);
    p = MULTIPLY_ADD(p, z, 1.0 / 5);
    p = MULTIPLY_ADD(p, z, 1.0 / 3);
    const double half_logarithm = MULTIPLY_ADD(e, 0.5 * 0.69314718055994530942, MULTIPLY_ADD(s * z, p, s));
    const double radius = deviation * sqrt(-4.0 * half_logarithm);
    /* The angle, in turns, is a number of quarters and at most an eighth either way. */
    const double turns = as_double(of_angle >> 12 | one) - 1.0;
    const double quarters = MULTIPLY_ADD(4.0, turns, to_integer);
    const uint64_t quarter = as_bits(quarters);
    const double t = MULTIPLY_ADD(-0.25, quarters - to_integer, turns) * 6.28318530717958647693, w = t * t;
    double sine = 1.0 / 6227020800.0, cosine = -1.0 / 87178291200.0;
    cosine = MULTIPLY_ADD(cosine, w, 1.0 / 479001600.0);
    sine = MULTIPLY_ADD(sine, w, -1.0 / 39916800.0);
    cosine = MULTIPLY_ADD(cosine, w, -1.0 / 3628800.0);
    sine = MULTIPLY_ADD(sine, w, 1.0 / 362880.0);
    cosine = MULTIPLY_ADD(cosine, w, 1.0 / 40320.0);
    sine = MULTIPLY_ADD(sine, w, -1.0 / 5040.0);
    cosine = MULTIPLY_ADD(cosine, w, -1.0 / 720.0);
    sine = MULTIPLY_ADD(sine, w, 1.0 / 120.0);
    cosine = MULTIPLY_ADD(cosine, w, 1.0 / 24.0);
    sine = MULTIPLY_ADD(sine, w, -1.0 / 6.0);
    cosine = MULTIPLY_ADD(cosine, w, -0.5);
    const uint64_t sine_bits = as_bits(MULTIPLY_ADD(t * w, sine, t));
    const uint64_t cosine_bits = as_bits(MULTIPLY_ADD(w, cosine, 1.0));
    const uint64_t swapped = 0 - (quarter & 1), sign = 0x8000000000000000u;
    *first = radius * as_double(((sine_bits & swapped) | (cosine_bits & ~swapped)) ^ ((quarter + 1) << 62 & sign));
    *second = radius * as_double(((cosine_bits & swapped) | (sine_bits & ~swapped)) ^ (quarter << 62 & sign));
}

/* A pair's words, and its values, lie `pairs` apart. */
static TARGET void NAME(gaussians)(const uint64_t *restrict words, int64_t pairs, double deviation,
                                   double *restrict values)
{
    for (int64_t k = 0; k < pairs; k++)
        NAME(pair)(words[k], words[pairs + k], deviation, values + k, values + pairs + k);
}

/* Weights less `rate` times the sum of `total` and noise; of an odd count's last pair the second value is dropped. */
static TARGET void NAME(descend)(const uint64_t *restrict words, double deviation, const double *restrict total,
                                 int64_t count, double rate, float *restrict weights)
{
    const int64_t pairs = (count + 1) / 2, whole = count / 2;
    double first, second;
    for (int64_t k = 0; k < whole; k++) {
        NAME(pair)(words[k], words[pairs + k], deviation, &first, &second);
        weights[k] -= (float)((total[k] + first) * rate);
        weights[pairs + k] -= (float)((total[pairs + k] + second) * rate);
    }
    if (whole < pairs) {
        NAME(pair)(words[whole], words[pairs + whole], deviation, &first, &second);
        weights[whole] -= (float)((total[whole] + first) * rate);
    }
}
