/* The inner loops of rotation, rounding, Gaussian noise and clipping. `rotation.py`, `quantizer.py` and the client's
 * `noise.py` and `clipping.py` say what they compute, and compute the same without them; `__init__.py` checks every
 * length before it calls one of these, which check nothing.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__) && defined(__GLIBC__)
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))
/* Clang names such functions otherwise, before version 16. */
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__clang__)
#define EXPORTED __attribute__((target_clones("avx2", "default")))
#else
#define EXPORTED
#endif

/* Which sources this was built from, so that a stale build is never used. */
const char *lepton_source(void)
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
#undef NAME

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

/* Sums of a tile that stay in registers, four doubles each; rows and outputs whose parts stay in the second cache. */
#define HIGH 6
#define WIDE 8
#define ROWS_AT_ONCE 128
#define OUTPUTS_AT_ONCE 72

#if defined(__x86_64__) && defined(__GLIBC__)
/* What is computed here is secret, and goes to nobody who would have to compute it again: its last bits may differ. */
#define TARGET __attribute__((target("avx2,fma")))
#define MULTIPLY_ADD __builtin_fma
#define MULTIPLY_ADD4 _mm256_fmadd_pd
#define NAME(x) x##_fused
#include "gaussians.h"
#include "products.h"
#undef TARGET
#undef MULTIPLY_ADD
#undef MULTIPLY_ADD4
#undef NAME
#ifndef FUSED
#define FUSED (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
#endif
#else
#define FUSED 0
#define gaussians_fused gaussians_plain
#define descend_fused descend_plain
#define add_outer_fused add_outer_plain
#endif

#define TARGET
#define MULTIPLY_ADD(x, y, z) ((x) * (y) + (z))
#define MULTIPLY_ADD4 MULTIPLY_ADD
#define NAME(x) x##_plain
#include "gaussians.h"
#include "products.h"

void lepton_gaussians(const uint64_t *words, int64_t pairs, double deviation, double *values)
{
    (FUSED ? gaussians_fused : gaussians_plain)(words, pairs, deviation, values);
}

void lepton_descend(const uint64_t *words, double deviation, const double *total, int64_t count, double rate,
                    float *weights)
{
    (FUSED ? descend_fused : descend_plain)(words, deviation, total, count, rate, weights);
}

/* Eight sums, so that additions need not wait for each other. */
INLINE double square_of(const float *values, int64_t count)
{
    double sums[8] = {0}, rest = 0.0;
    int64_t k = 0;
    for (; k + 8 <= count; k += 8)
        for (int lane = 0; lane < 8; lane++)
            sums[lane] += (double)values[k + lane] * (double)values[k + lane];
    for (; k < count; k++)
        rest += (double)values[k] * (double)values[k];
    return rest + ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7]));
}

/* To `squares`, squared norms of what each row adds to a Linear layer's gradient: g a^T for its weight, g for its bias. */
EXPORTED void lepton_add_outer_squares(const float *restrict inputs, const float *restrict gradients, int64_t rows,
                                       int64_t width, int64_t outputs, int64_t weight, int64_t bias,
                                       double *restrict squares)
{
    for (int64_t row = 0; row < rows; row++) {
        const double of_gradients = square_of(gradients + row * outputs, outputs);
        if (weight)
            squares[row] += of_gradients * square_of(inputs + row * width, width);
        if (bias)
            squares[row] += of_gradients;
    }
}

/* Rows and inputs whose squares are at hand at once, 64 KiB, and outputs for which they are added up. */
#define ROWS_SQUARED 64
#define INPUTS_SQUARED 128
#define OUTPUTS_SQUARED 16

/* To `squares`, what `lepton_add_outer_squares` adds for the weight, over those values alone where `mask` is 1. */
EXPORTED void lepton_add_masked_squares(const float *restrict inputs, const float *restrict gradients,
                                        const uint8_t *restrict mask, int64_t rows, int64_t width, int64_t outputs,
                                        double *restrict squares)
{
    double turned[INPUTS_SQUARED][ROWS_SQUARED], sums[OUTPUTS_SQUARED][ROWS_SQUARED];
    int64_t counted[INPUTS_SQUARED];
    for (int64_t row = 0; row < rows; row += ROWS_SQUARED) {
        const int64_t high = rows - row < ROWS_SQUARED ? rows - row : ROWS_SQUARED;
        for (int64_t input = 0; input < width; input += INPUTS_SQUARED) {
            const int64_t wide = width - input < INPUTS_SQUARED ? width - input : INPUTS_SQUARED;
            memset(turned, 0, sizeof turned);
            for (int64_t i = 0; i < high; i++)
                for (int64_t k = 0; k < wide; k++) {
                    const double value = inputs[(row + i) * width + input + k];
                    turned[k][i] = value * value;
                }
            for (int64_t output = 0; output < outputs; output += OUTPUTS_SQUARED) {
                const int64_t here = outputs - output < OUTPUTS_SQUARED ? outputs - output : OUTPUTS_SQUARED;
                for (int64_t j = 0; j < here; j++) {
                    int64_t count = 0;
                    for (int64_t k = 0; k < wide; k++) {
                        counted[count] = k;
                        count += mask[(output + j) * width + input + k];
                    }
                    for (int64_t i = 0; i < high; i += 16) {
                        float64x4 a = {0}, b = {0}, c = {0}, d = {0};
                        for (int64_t k = 0; k < count; k++) {
                            const double *from = turned[counted[k]] + i;
                            float64x4 p, q, r, s;
                            memcpy(&p, from, sizeof p), memcpy(&q, from + 4, sizeof q);
                            memcpy(&r, from + 8, sizeof r), memcpy(&s, from + 12, sizeof s);
                            a += p, b += q, c += r, d += s;
                        }
                        double *to = sums[j] + i;
                        memcpy(to, &a, sizeof a), memcpy(to + 4, &b, sizeof b);
                        memcpy(to + 8, &c, sizeof c), memcpy(to + 12, &d, sizeof d);
                    }
                }
                for (int64_t i = 0; i < high; i++) {
                    const float *from = gradients + (row + i) * outputs + output;
                    for (int64_t j = 0; j < here; j++)
                        squares[row + i] += (double)from[j] * (double)from[j] * sums[j][i];
                }
            }
        }
    }
}

/* `add_outer` of `products.h`. */
void lepton_add_outer(const float *inputs, const float *gradients, const double *factors, int64_t rows, int64_t width,
                      int64_t outputs, double *weight, double *bias)
{
    (FUSED ? add_outer_fused : add_outer_plain)(inputs, gradients, factors, rows, width, outputs, weight, bias);
}
