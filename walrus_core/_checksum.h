/* Checksum kernels of the compiled twin: FNV-1a 64, CRC-32C and the 64-bit mix.
 *
 * What they compute is defined by the plain loops here and in _hot_py.py; everything faster is
 * chosen at run time by what the processor can do and compared with the plain loops by the tests.
 * Loads are spelled so that hosts of either byte order give the same results.
 * walrus_checksum_setup() runs once, when the module is imported, before any other function.
 */
#ifndef WALRUS_CHECKSUM_H
#define WALRUS_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define WALRUS_FNV_BASIS UINT64_C(0xCBF29CE484222325)
#define WALRUS_FNV_PRIME UINT64_C(0x00000100000001B3)

#if (defined(__x86_64__) || defined(__amd64__)) && (defined(__GNUC__) || defined(__clang__))
#define WALRUS_X86 1
#include <immintrin.h>
#else
#define WALRUS_X86 0
#endif

#if defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)
#define WALRUS_ARM_CRC 1
#include <arm_acle.h>
#else
#define WALRUS_ARM_CRC 0
#endif

#if defined(_MSC_VER) || (defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__)
#define WALRUS_LITTLE_ENDIAN 1
#else
#define WALRUS_LITTLE_ENDIAN 0
#endif

/* --- little-endian loads and stores, at any alignment ----------------------------------------- */

static inline uint64_t walrus_load64(const uint8_t *from)
{
    uint64_t value = 0;
#if WALRUS_LITTLE_ENDIAN
    memcpy(&value, from, sizeof value);
#else
    for (int place = 7; place >= 0; place--)
        value = (value << 8) | from[place];
#endif
    return value;
}

static inline void walrus_store64(uint8_t *to, uint64_t value)
{
#if WALRUS_LITTLE_ENDIAN
    memcpy(to, &value, sizeof value);
#else
    for (int place = 0; place < 8; place++, value >>= 8)
        to[place] = (uint8_t)value;
#endif
}

/* --- mix -------------------------------------------------------------------------------------- */

static inline uint64_t walrus_mix64(uint64_t value)
{
    value ^= value >> 30;
    value *= UINT64_C(0xBF58476D1CE4E5B9);
    value ^= value >> 27;
    value *= UINT64_C(0x94D049BB133111EB);
    return value ^ (value >> 31);
}

/* True where all bytes are zero. */
static int walrus_is_zero(const uint8_t *data, size_t length)
{
    size_t at = 0;
    while (length - at >= 64) {
        uint64_t any = 0;
        for (int place = 0; place < 64; place += 8)
            any |= walrus_load64(data + at + place);
        if (any)
            return 0;
        at += 64;
    }
    for (; at < length; at++)
        if (data[at])
            return 0;
    return 1;
}

/* --- FNV-1a 64 -------------------------------------------------------------------------------- */

/* The definition. 4 cycles a byte, all of it the latency of one multiply after another. */
static uint64_t walrus_fnv_plain(const uint8_t *data, size_t length, uint64_t state)
{
    for (size_t at = 0; at < length; at++)
        state = (state ^ data[at]) * WALRUS_FNV_PRIME;
    return state;
}

static uint64_t walrus_fnv(const uint8_t *data, size_t length, uint64_t state)
{
    return walrus_fnv_plain(data, length, state);
}

/* One of several payloads whose checksums are wanted; `state` is where it starts and what it becomes. */
typedef struct {
    const uint8_t *data;
    size_t length;
    uint64_t state;
} walrus_lane;

#define WALRUS_FNV_LANES 4

/* Four at a time: independent chains fill the multiplier that one chain leaves idle. A lane that has
 * come to its end takes the next job. When fewer than four are left, idle lanes repeat the first one's
 * bytes into states that nobody reads, which costs nothing. */
static void walrus_fnv_lanes(walrus_lane *jobs, size_t count)
{
    walrus_lane *active[WALRUS_FNV_LANES];
    size_t next = 0, running = 0;

    for (;;) {
        while (running < WALRUS_FNV_LANES && next < count)
            active[running++] = &jobs[next++];
        if (running == 0)
            return;
        if (running == 1) {
            active[0]->state = walrus_fnv(active[0]->data, active[0]->length, active[0]->state);
            return;
        }
        size_t common = active[0]->length;
        for (size_t lane = 1; lane < running; lane++)
            if (active[lane]->length < common)
                common = active[lane]->length;
        const uint8_t *data0 = active[0]->data, *data1 = active[1]->data;
        const uint8_t *data2 = running > 2 ? active[2]->data : data0, *data3 = running > 3 ? active[3]->data : data0;
        uint64_t state0 = active[0]->state, state1 = active[1]->state;
        uint64_t state2 = running > 2 ? active[2]->state : 0, state3 = running > 3 ? active[3]->state : 0;
        for (size_t at = 0; at < common; at++) {
            state0 = (state0 ^ data0[at]) * WALRUS_FNV_PRIME;
            state1 = (state1 ^ data1[at]) * WALRUS_FNV_PRIME;
            state2 = (state2 ^ data2[at]) * WALRUS_FNV_PRIME;
            state3 = (state3 ^ data3[at]) * WALRUS_FNV_PRIME;
        }
        const uint64_t states[WALRUS_FNV_LANES] = {state0, state1, state2, state3};
        size_t kept = 0;
        for (size_t lane = 0; lane < running; lane++) {
            walrus_lane *job = active[lane];
            job->state = states[lane];
            job->data += common;
            job->length -= common;
            if (job->length)
                active[kept++] = job;
        }
        running = kept;
    }
}

/* --- CRC-32C ---------------------------------------------------------------------------------- */

/* All of these work on the register itself; walrus_crc32c() inverts it before and after. */

#define WALRUS_CRC_POLYNOMIAL UINT32_C(0x82F63B78)

static uint32_t walrus_crc_table[8][256];

static uint32_t walrus_crc_plain(const uint8_t *data, size_t length, uint32_t value)
{
    while (length >= 8) {
        uint64_t word = walrus_load64(data) ^ value;
        value = 0;
        for (int place = 0; place < 8; place++, word >>= 8)
            value ^= walrus_crc_table[7 - place][word & 0xFF];
        data += 8;
        length -= 8;
    }
    while (length--)
        value = walrus_crc_table[0][(value ^ *data++) & 0xFF] ^ (value >> 8);
    return value;
}

static void walrus_crc_setup_table(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t value = byte;
        for (int bit = 0; bit < 8; bit++)
            value = (value >> 1) ^ (value & 1 ? WALRUS_CRC_POLYNOMIAL : 0);
        walrus_crc_table[0][byte] = value;
    }
    for (int slice = 1; slice < 8; slice++)
        for (int byte = 0; byte < 256; byte++) {
            uint32_t value = walrus_crc_table[slice - 1][byte];
            walrus_crc_table[slice][byte] = (value >> 8) ^ walrus_crc_table[0][value & 0xFF];
        }
}

#if WALRUS_X86

/* Three chains of WALRUS_CRC_STRIPE bytes each hide the latency of the crc32 instruction. */
#define WALRUS_CRC_STRIPE_LONG 2048
#define WALRUS_CRC_STRIPE 256

/* x^(8 * bytes - 33) modulo the polynomial, reflected: the factor that moves a register over
 * `bytes` zero bytes when the product is reduced by one more crc32 step over 64 bits. */
static uint32_t walrus_crc_shift_one, walrus_crc_shift_two;
static uint32_t walrus_crc_shift_long_one, walrus_crc_shift_long_two;

static uint32_t walrus_crc_power(uint64_t bits)
{
    uint32_t value = UINT32_C(0x80000000);
    while (bits--)
        value = (value >> 1) ^ (value & 1 ? WALRUS_CRC_POLYNOMIAL : 0);
    return value;
}

__attribute__((target("sse4.2,pclmul"))) static inline uint64_t walrus_crc_move(uint32_t value, uint32_t factor)
{
    __m128i product = _mm_clmulepi64_si128(_mm_cvtsi32_si128((int)value), _mm_cvtsi32_si128((int)factor), 0);
    return (uint64_t)_mm_cvtsi128_si64(product);
}

__attribute__((target("sse4.2,pclmul"))) static inline uint32_t
walrus_crc_three(const uint8_t *data, size_t stripe, uint32_t value, uint32_t shift_one, uint32_t shift_two)
{
    uint64_t first = value, second = 0, third = 0;
    for (size_t at = 0; at < stripe; at += 8) {
        first = _mm_crc32_u64(first, walrus_load64(data + at));
        second = _mm_crc32_u64(second, walrus_load64(data + stripe + at));
        third = _mm_crc32_u64(third, walrus_load64(data + 2 * stripe + at));
    }
    uint64_t moved = walrus_crc_move((uint32_t)first, shift_two) ^ walrus_crc_move((uint32_t)second, shift_one);
    return (uint32_t)_mm_crc32_u64(0, moved) ^ (uint32_t)third;
}

__attribute__((target("sse4.2,pclmul"))) static uint32_t walrus_crc_x86(const uint8_t *data, size_t length,
                                                                        uint32_t value)
{
    while (length >= 3 * WALRUS_CRC_STRIPE_LONG) {
        value = walrus_crc_three(data, WALRUS_CRC_STRIPE_LONG, value, walrus_crc_shift_long_one,
                                 walrus_crc_shift_long_two);
        data += 3 * WALRUS_CRC_STRIPE_LONG;
        length -= 3 * WALRUS_CRC_STRIPE_LONG;
    }
    while (length >= 3 * WALRUS_CRC_STRIPE) {
        value = walrus_crc_three(data, WALRUS_CRC_STRIPE, value, walrus_crc_shift_one, walrus_crc_shift_two);
        data += 3 * WALRUS_CRC_STRIPE;
        length -= 3 * WALRUS_CRC_STRIPE;
    }
    uint64_t wide = value;
    for (; length >= 8; data += 8, length -= 8)
        wide = _mm_crc32_u64(wide, walrus_load64(data));
    value = (uint32_t)wide;
    for (; length; data++, length--)
        value = _mm_crc32_u8(value, *data);
    return value;
}

#endif

#if WALRUS_ARM_CRC

static uint32_t walrus_crc_arm(const uint8_t *data, size_t length, uint32_t value)
{
    for (; length >= 8; data += 8, length -= 8)
        value = __crc32cd(value, walrus_load64(data));
    for (; length; data++, length--)
        value = __crc32cb(value, *data);
    return value;
}

#endif

static uint32_t (*walrus_crc_best)(const uint8_t *, size_t, uint32_t) = walrus_crc_plain;

/* CRC-32C of data, continued from the CRC `state`. */
static inline uint32_t walrus_crc32c(const uint8_t *data, size_t length, uint32_t state)
{
    return ~walrus_crc_best(data, length, ~state);
}

static void walrus_crc_lanes(walrus_lane *jobs, size_t count)
{
    for (size_t job = 0; job < count; job++)
        jobs[job].state = walrus_crc32c(jobs[job].data, jobs[job].length, (uint32_t)jobs[job].state);
}

/* --- set up ----------------------------------------------------------------------------------- */

static void walrus_checksum_setup(void)
{
    walrus_crc_setup_table();
#if WALRUS_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul")) {
        walrus_crc_shift_one = walrus_crc_power(8 * WALRUS_CRC_STRIPE - 33);
        walrus_crc_shift_two = walrus_crc_power(16 * WALRUS_CRC_STRIPE - 33);
        walrus_crc_shift_long_one = walrus_crc_power(8 * WALRUS_CRC_STRIPE_LONG - 33);
        walrus_crc_shift_long_two = walrus_crc_power(16 * WALRUS_CRC_STRIPE_LONG - 33);
        walrus_crc_best = walrus_crc_x86;
    }
#endif
#if WALRUS_ARM_CRC
    walrus_crc_best = walrus_crc_arm;
#endif
}

#endif
