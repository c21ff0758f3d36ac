/* The normal random numbers of torch.randn, on CUDA and on the CPU.
 *
 * Generators: Philox 4x32-10 (Salmon et al. 2011) and MT19937 (Matsumoto and Nishimura 1998).
 * On the CPU uniforms and angles are rounded to float as in torch; logarithm, sine, cosine and the
 * product are computed here in double from additions, multiplications, divisions and square
 * roots alone, which IEEE 754 defines exactly. So every machine gives the same bytes. */
#include "base/base.h"

#include <math.h>
#include <string.h>

/* ---- elementary functions ----------------------------------------------------------------- */

static const double PI = 3.14159265358979323846;

/* The natural logarithm of a positive, normal number; relative error about 1e-15. */
static double logarithm(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    int exponent = (int)(bits >> 52) - 1023;
    bits = (bits & 0x000fffffffffffff) | 0x3ff0000000000000;
    double m;
    memcpy(&m, &bits, sizeof m);
    if (m > 1.4142135623730951) {
        m *= 0.5;
        exponent += 1;
    }
    /* ln m = 2 artanh(s), |s| <= 0.1716: the series to s^21. */
    double s = (m - 1) / (m + 1);
    double square = s * s;
    double sum = 0;
    for (int n = 21; n >= 1; n -= 2) {
        sum = sum * square + 1.0 / n;
    }
    return exponent * 0.69314718055994530942 + 2 * s * sum;
}

/* Sine and cosine of an angle in [0, 7]; absolute error about 1e-15. */
static void sine_cosine(double angle, double *sine, double *cosine)
{
    int quadrant = (int)(angle * (2 / PI) + 0.5);
    /* pi/2 in two parts, the first with few enough bits for an exact product. */
    double r = (angle - quadrant * 1.5707963267341256) - quadrant * 6.077100506506192e-11;
    double square = r * r;
    double s = 0, c = 0;
    for (int n = 16; n >= 2; n -= 2) {
        s = (1 - s) * square / (n * (n + 1));
        c = (1 - c) * square / (n * (n - 1));
    }
    s = r * (1 - s);
    c = 1 - c;
    switch (quadrant & 3) {
    case 0:
        *sine = s;
        *cosine = c;
        break;
    case 1:
        *sine = c;
        *cosine = -s;
        break;
    case 2:
        *sine = -s;
        *cosine = -c;
        break;
    default:
        *sine = -c;
        *cosine = s;
        break;
    }
}

/* ---- MT19937 ------------------------------------------------------------------------------ */

enum { WORDS = 624, SHIFT = 397 };

static void mt19937_seed(random_state *state)
{
    state->words[0] = (uint32_t)state->seed;
    for (uint32_t i = 1; i < WORDS; ++i) {
        uint32_t before = state->words[i - 1];
        state->words[i] = 1812433253u * (before ^ before >> 30) + i;
    }
    state->next_word = WORDS;
}

static void mt19937_refill(random_state *state)
{
    uint32_t *words = state->words;
    for (unsigned i = 0; i < WORDS; ++i) {
        uint32_t mixed = (words[i] & 0x80000000) | (words[(i + 1) % WORDS] & 0x7fffffff);
        words[i] = words[(i + SHIFT) % WORDS] ^ mixed >> 1 ^ ((mixed & 1) ? 0x9908b0df : 0);
    }
    state->next_word = 0;
}

uint32_t random_mt19937_word(random_state *state)
{
    if (state->next_word >= WORDS) {
        mt19937_refill(state);
    }
    uint32_t word = state->words[state->next_word++];
    word ^= word >> 11;
    word ^= word << 7 & 0x9d2c5680;
    word ^= word << 15 & 0xefc60000;
    return word ^ word >> 18;
}

/* ---- torch.randn on the CPU --------------------------------------------------------------- */

enum { BLOCK = 16 };

/* Sixteen normals from the next sixteen words: eight radii, then eight angles. */
static void block_from_uniforms(float values[BLOCK])
{
    for (int i = 0; i < BLOCK / 2; ++i) {
        float remainder = 1.0f - values[i]; /* in (0, 1], exact */
        float angle = (float)(2 * PI) * values[i + BLOCK / 2];
        double radius = sqrt(-2 * logarithm(remainder));
        double sine, cosine;
        sine_cosine(angle, &sine, &cosine);
        values[i] = (float)(radius * cosine);
        values[i + BLOCK / 2] = (float)(radius * sine);
    }
}

static float mt19937_uniform(random_state *state)
{
    return (float)(random_mt19937_word(state) & 0xffffff) * 0x1p-24f;
}

static double mt19937_uniform_double(random_state *state)
{
    uint64_t high = random_mt19937_word(state);
    uint64_t word = high << 32 | random_mt19937_word(state);
    return (double)(word & 0x1fffffffffffff) * 0x1p-53;
}

/* Fewer than sixteen values: pairs in double; the second of a pair is kept for the next call. */
static void cpu_normal_few(random_state *state, float *values, size_t count)
{
    for (size_t i = 0; i < count; ++i) {
        if (state->has_spare) {
            state->has_spare = false;
            values[i] = (float)state->spare;
            continue;
        }
        double angle = 2 * PI * mt19937_uniform_double(state);
        double radius = sqrt(-2 * logarithm(1 - mt19937_uniform_double(state)));
        double sine, cosine;
        sine_cosine(angle, &sine, &cosine);
        values[i] = (float)(radius * cosine);
        state->spare = radius * sine;
        state->has_spare = true;
    }
}

static void cpu_normal(random_state *state, float *values, size_t count)
{
    if (count < BLOCK) {
        cpu_normal_few(state, values, count);
        return;
    }
    for (size_t i = 0; i < count; ++i) {
        values[i] = mt19937_uniform(state);
    }
    for (size_t i = 0; i + BLOCK <= count; i += BLOCK) {
        block_from_uniforms(values + i);
    }
    if (count % BLOCK != 0) {
        float *last = values + count - BLOCK;
        for (int i = 0; i < BLOCK; ++i) {
            last[i] = mt19937_uniform(state);
        }
        block_from_uniforms(last);
    }
}

/* ---- torch.randn on CUDA ------------------------------------------------------------------ */

/* The first two of the four words that Philox makes of a counter and a key. */
static void philox(uint32_t counter[4], uint32_t key0, uint32_t key1)
{
    for (int round = 0; round < 10; ++round) {
        uint64_t product0 = (uint64_t)counter[0] * 0xd2511f53;
        uint64_t product1 = (uint64_t)counter[2] * 0xcd9e8d57;
        uint32_t next0 = (uint32_t)(product1 >> 32) ^ counter[1] ^ key0;
        uint32_t next2 = (uint32_t)(product0 >> 32) ^ counter[3] ^ key1;
        counter[0] = next0;
        counter[1] = (uint32_t)product1;
        counter[2] = next2;
        counter[3] = (uint32_t)product0;
        key0 += 0x9e3779b9;
        key1 += 0xbb67ae85;
    }
}

/* curand forms uniform and angle in float and uses the card's approximate sine, so a card's own
 * values lie about 1e-6 around these (more where the radius is almost 0). */
static void cuda_normal(random_state *state, float *values, size_t count)
{
    for (size_t i = 0; i < count; ++i) {
        uint32_t words[4] = {(uint32_t)state->draws, (uint32_t)(state->draws >> 32), (uint32_t)i,
                             (uint32_t)((uint64_t)i >> 32)};
        philox(words, (uint32_t)state->seed, (uint32_t)(state->seed >> 32));
        double uniform = words[0] * 0x1p-32 + 0x1p-33;
        double angle = 2 * PI * (words[1] * 0x1p-32 + 0x1p-33);
        double sine, cosine;
        sine_cosine(angle, &sine, &cosine);
        values[i] = (float)(sqrt(-2 * logarithm(uniform)) * sine);
    }
    state->draws += count > 0; /* an empty draw launches nothing */
}

/* ---- the interface ------------------------------------------------------------------------ */

void random_seed(random_state *state, random_generator generator, int64_t seed)
{
    *state = (random_state){.generator = generator, .seed = (uint64_t)seed};
    mt19937_seed(state);
}

void random_normal(random_state *state, float *values, size_t count)
{
    if (state->generator == RANDOM_CUDA) {
        cuda_normal(state, values, count);
    } else {
        cpu_normal(state, values, count);
    }
}
