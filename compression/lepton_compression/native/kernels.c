/* The inner loops of rotation, rounding and Gaussian noise. `rotation.py`, `quantizer.py` and the client's `noise.py`
 * say what they compute, and compute the same without them; `__init__.py` checks every length before it calls one of
 * these, which check nothing.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#if defined(__x86_64__) && defined(__GLIBC__)
#define EXPORTED __attribute__((visibility("default"), target_clones("avx2", "default")))
#else
#define EXPORTED __attribute__((visibility("default")))
#endif

/* Which sources this was built from, so that a stale build is never used. */
__attribute__((visibility("default"))) const char *lepton_source(void)
{
    return LEPTON_SOURCE;
}

/* Values of a row transformed at a time: two tiles of 64 rows of float32 are 16 KiB, and stay in the first cache. */
#define TILE 32

typedef int32_t int32x4 __attribute__((vector_size(16)));
typedef int64_t int64x4 __attribute__((vector_size(32)));
typedef float float32x4 __attribute__((vector_size(16)));
typedef double float64x4 __attribute__((vector_size(32)));

#if defined(__clang__)
#define SHUFFLE(v, ...) __builtin_shufflevector(v, v, __VA_ARGS__)
#else
#define SHUFFLE(v, ...) __builtin_shuffle(v, (MASK4){__VA_ARGS__})
#endif

/* At most 32 bits of a stream, from bit `at` on; the lowest bit of a word is its first. */
INLINE uint32_t bits_at(const uint64_t *words, int64_t at, int64_t count)
{
    const uint64_t *word = words + at / 64;
    const int skip = (int)(at % 64);
    return (uint32_t)(skip + count > 64 ? word[0] >> skip | word[1] << (64 - skip) : word[0] >> skip);
}

#define REAL float
#define REAL4 float32x4
#define BITS uint32_t
#define MASK4 int32x4
#define NAME(x) x##_f32
#include "rotation.h"
#undef REAL
#undef REAL4
#undef BITS
#undef MASK4
#undef NAME

#define REAL double
#define REAL4 float64x4
#define BITS uint64_t
#define MASK4 int64x4
#define NAME(x) x##_f64
#include "rotation.h"

/* Reals to levels by `random` fractions of a level; returns how many lay beyond the bound. `difference` holds what a
 * decoder would be off by, in steps. */
EXPORTED int64_t lepton_quantize(const float *restrict rotated, const uint16_t *restrict words, int64_t count,
                                 int64_t offset, int64_t fraction_bits, int64_t middle, float bound, float unit,
                                 int64_t dithered, int64_t *restrict lanes, float *restrict difference)
{
    const int drop = (int)(16 - fraction_bits), bits = (int)fraction_bits;
    const uint16_t added = (uint16_t)offset;
    const int32_t centre = (int32_t)middle, taken = dithered ? -1 : 0;
    const float mean = dithered ? (float)(1 << (bits - 1)) - 0.5f : 0.0f;
    int32_t saturated = 0;
    for (int64_t k = 0; k < count; k++) {
        const int32_t random = (uint16_t)(words[k] + added) >> drop;
        const float scaled = rotated[k] * unit;
        float clipped = scaled > bound ? bound : scaled;
        clipped = clipped < -bound ? -bound : clipped;
        saturated += clipped != scaled;
        const int32_t level = ((int32_t)rintf(clipped) + centre + random) >> bits;
        const int32_t back = (int32_t)((uint32_t)level << bits) - centre - (random & taken);
        lanes[k] = level;
        difference[k] = (float)((double)(scaled - mean) - (double)back);
    }
    return saturated;
}

/* Summed levels to steps: twice the level less its middle, and less what the dither words have added. */
EXPORTED void lepton_dequantize(const int64_t *restrict total, const uint16_t *restrict words,
                                const int64_t *restrict taken, int64_t count, int64_t middle, int64_t fraction_bits,
                                double *restrict steps)
{
    for (int64_t k = 0; k < count; k++) {
        const int64_t exact = (int64_t)((uint64_t)(total[k] * 2 - middle) << fraction_bits);
        steps[k] = (double)(taken ? exact - taken[words[k]] : exact);
    }
}

INLINE double as_double(uint64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

INLINE uint64_t as_bits(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* Pairs of independent Gaussians (Box and Muller 1958) of two uniform words a pair, without a branch: logarithm, sine
 * and cosine are their series where these converge fast, and right to 3e-14 of the radius. */
EXPORTED void lepton_gaussians(const uint64_t *restrict words, int64_t pairs, double deviation, double *restrict values)
{
    const uint64_t one = 0x3ff0000000000000u, mantissa = 0x000fffffffffffffu, root_half = 0x3fe6a09e667f3bcdu;
    const double to_integer = 0x1.8p52;
    for (int64_t k = 0; k < pairs; k++) {
        /* ln u of u in (0, 1]: u = 2^e m, m in [sqrt(1/2), sqrt(2)), and ln m = 2 artanh((m - 1) / (m + 1)). */
        const uint64_t shifted = as_bits(2.0 - as_double(words[k] >> 12 | one)) - root_half + one;
        const double e = as_double(shifted >> 52 | 0x4330000000000000u) - (0x1p52 + 1023.0);
        const double m = as_double((shifted & mantissa) + root_half);
        const double s = (m - 1.0) / (m + 1.0), z = s * s;
        double p = 1.0 / 17;
        p = p * z + 1.0 / 15;
        p = p * z + 1.0 / 13;
        p = p * z + 1.0 / 11;
        p = p * z + 1.0 / 9;
        p = p * z + 1.0 / 7;
        p = p * z + 1.0 / 5;
        p = p * z + 1.0 / 3;
        const double radius = deviation * sqrt(-2.0 * (e * 0.69314718055994530942 + 2.0 * (s + s * z * p)));
        /* The angle, in turns, is a number of quarters and at most an eighth either way. */
        const double turns = as_double(words[pairs + k] >> 12 | one) - 1.0;
        const double quarters = 4.0 * turns + to_integer;
        const uint64_t quarter = as_bits(quarters);
        const double t = (turns - 0.25 * (quarters - to_integer)) * 6.28318530717958647693, w = t * t;
        double sine = 1.0 / 6227020800.0, cosine = -1.0 / 87178291200.0;
        cosine = cosine * w + 1.0 / 479001600.0;
        sine = sine * w - 1.0 / 39916800.0;
        cosine = cosine * w - 1.0 / 3628800.0;
        sine = sine * w + 1.0 / 362880.0;
        cosine = cosine * w + 1.0 / 40320.0;
        sine = sine * w - 1.0 / 5040.0;
        cosine = cosine * w - 1.0 / 720.0;
        sine = sine * w + 1.0 / 120.0;
        cosine = cosine * w + 1.0 / 24.0;
        sine = sine * w - 1.0 / 6.0;
        cosine = cosine * w - 0.5;
        const uint64_t sine_bits = as_bits(t + t * w * sine), cosine_bits = as_bits(1.0 + w * cosine);
        const uint64_t swapped = 0 - (quarter & 1), sign = 0x8000000000000000u;
        const uint64_t first = (sine_bits & swapped) | (cosine_bits & ~swapped);
        const uint64_t second = (cosine_bits & swapped) | (sine_bits & ~swapped);
        values[k] = radius * as_double(first ^ ((quarter + 1) << 62 & sign));
        values[pairs + k] = radius * as_double(second ^ (quarter << 62 & sign));
    }
}
