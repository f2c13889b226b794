/* The inner loops of rotation and rounding. `rotation.py` and `quantizer.py` say what they compute, and compute the
 * same without them; `__init__.py` checks every length before it calls one of these, which check nothing.
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

#define REAL float
#define REAL4 float32x4
#define MASK4 int32x4
#define NAME(x) x##_f32
#include "rotation.h"
#undef REAL
#undef REAL4
#undef MASK4
#undef NAME

#define REAL double
#define REAL4 float64x4
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
