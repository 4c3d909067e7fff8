/* Checksum kernels of the compiled twin: FNV-1a 64, CRC-32C and the 64-bit mix.
 *
 * What they compute is defined by the plain loops here and in _pure/entry.py; everything faster is
 * chosen at run time by what the processor can do and compared with the plain loops by the tests.
 * Loads are spelled so that hosts of either byte order give the same results.
 * Big-endian hosts load byte by byte, which is right and slow.
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
#if defined(__clang__) || __GNUC__ >= 8
#define WALRUS_VPCLMUL 1
#define WALRUS_AVX512 1
#else
#define WALRUS_VPCLMUL 0 /* the compiler does not know the instructions */
#define WALRUS_AVX512 0
#endif
#include <immintrin.h> /* every function that uses more than SSE2 says so in its target attribute */
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

#if WALRUS_X86

/* Below this length the plain loop is as fast; so it is for what is left beyond a multiple of 256 up
 * to the second length, or the third where more chunks follow. */
#define WALRUS_SLICED_MIN 120
#define WALRUS_SLICED_PLAIN_MAX 44
#define WALRUS_SLICED_PLAIN_MAX_LONG 96

static uint64_t walrus_sliced_powers[385]; /* of the prime: up to 256 for these kernels, to 384 for groups */
static int16_t walrus_sliced_weights[8][4][32] __attribute__((aligned(32))); /* powers in signed limbs, see setup */
static uint8_t walrus_sliced_products[2][16] __attribute__((aligned(16))); /* nibbles times 0xB3 */
/* By carry in (bit 4) and parities of four words (bits 0 to 3): which words are flipped by what
 * stands before them, and the carry out (as bit 4). */
static uint64_t walrus_sliced_flips[32][4] __attribute__((aligned(32)));
static uint8_t walrus_sliced_carry[32];
/* From byte 16 - r on, the shuffle that moves 16 bytes up by r; from byte 32 on, zeros. */
static uint8_t walrus_sliced_slide[48];

static void walrus_sliced_setup(void)
{
    walrus_sliced_powers[0] = 1;
    for (int power = 1; power <= 384; power++)
        walrus_sliced_powers[power] = walrus_sliced_powers[power - 1] * WALRUS_FNV_PRIME;
    for (int t = 0; t < 8; t++)
        for (int lane = 0; lane < 32; lane++) {
            /* Unpacking to 16 bits leaves groups of 8 bytes in the order 0-7, 16-23, 8-15, 24-31. */
            int group = (lane & 7) | (lane & 8) << 1 | (lane & 16) >> 1;
            uint64_t weight = walrus_sliced_powers[256 - (8 * group + t)];
            for (int limb = 0; limb < 4; limb++) {
                int16_t digit = (int16_t)(uint16_t)weight;
                walrus_sliced_weights[t][limb][lane] = digit;
                weight = (weight - (uint64_t)(int64_t)digit) >> 16;
            }
        }
    for (int nibble = 0; nibble < 16; nibble++) {
        walrus_sliced_products[0][nibble] = (uint8_t)(nibble * 0xB3);
        walrus_sliced_products[1][nibble] = (uint8_t)((nibble << 4) * 0xB3);
        walrus_sliced_slide[nibble] = 0x80;
        walrus_sliced_slide[16 + nibble] = (uint8_t)nibble;
    }
    for (int index = 0; index < 32; index++) {
        int carry = index >> 4;
        for (int word = 0; word < 4; word++) {
            walrus_sliced_flips[index][word] = carry ? UINT64_MAX : 0;
            carry ^= (index >> word) & 1;
        }
        walrus_sliced_carry[index] = (uint8_t)(carry << 4);
    }
}

#define WALRUS_SLICED(name) walrus_sliced_##name
#define WALRUS_SLICED_TARGET __attribute__((target("avx2")))
#define WALRUS_SLICED_CLMUL 0
#include "_fnv_sliced.h"

#if WALRUS_VPCLMUL
#define WALRUS_SLICED(name) walrus_sliced_clmul_##name
#define WALRUS_SLICED_TARGET __attribute__((target("avx2,pclmul,vpclmulqdq")))
#define WALRUS_SLICED_CLMUL 1
#include "_fnv_sliced.h"
#endif

#endif

static uint64_t (*walrus_fnv_best)(const uint8_t *, size_t, uint64_t) = walrus_fnv_plain;

/* FNV-1a 64 of data, continued from `state`. */
static inline uint64_t walrus_fnv(const uint8_t *data, size_t length, uint64_t state)
{
    return walrus_fnv_best(data, length, state);
}

#include "_fnv_lanes.h"

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

/* Three chains hide the latency of the crc32 instruction. They take a third of the data each, up to
 * so many words; below the second number of bytes one chain is as fast. */
#define WALRUS_CRC_WORDS_MAX 256
#define WALRUS_CRC_THREE_MIN 160

/* For a number of words, x^(64 * words - 33) modulo the polynomial, reflected: the factor that moves a
 * register over so many zeros when the product is reduced by one more crc32 step over 64 bits. */
static uint32_t walrus_crc_factors[2 * WALRUS_CRC_WORDS_MAX + 1];

static void walrus_crc_setup_factors(void)
{
    uint32_t value = UINT32_C(0x80000000); /* x^0 */
    for (int bit = 0; bit < 64 - 33; bit++)
        value = (value >> 1) ^ (value & 1 ? WALRUS_CRC_POLYNOMIAL : 0);
    for (int words = 1; words <= 2 * WALRUS_CRC_WORDS_MAX; words++) {
        walrus_crc_factors[words] = value;
        for (int bit = 0; bit < 64; bit++)
            value = (value >> 1) ^ (value & 1 ? WALRUS_CRC_POLYNOMIAL : 0);
    }
}

__attribute__((target("sse4.2,pclmul"))) static inline uint64_t walrus_crc_move(uint64_t value, size_t words)
{
    const __m128i factor = _mm_cvtsi32_si128((int)walrus_crc_factors[words]);
    return (uint64_t)_mm_cvtsi128_si64(_mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)value), factor, 0));
}

__attribute__((target("sse4.2,pclmul"))) static uint32_t walrus_crc_x86(const uint8_t *data, size_t length,
                                                                        uint32_t value)
{
    uint64_t first = value;
    while (length >= WALRUS_CRC_THREE_MIN) {
        const size_t words = length / 24 < WALRUS_CRC_WORDS_MAX ? length / 24 : WALRUS_CRC_WORDS_MAX;
        const uint8_t *end = data + 8 * words;
        uint64_t second = 0, third = 0;
        for (; data < end; data += 8) {
            first = _mm_crc32_u64(first, walrus_load64(data));
            second = _mm_crc32_u64(second, walrus_load64(data + 8 * words));
            third = _mm_crc32_u64(third, walrus_load64(data + 16 * words));
        }
        first = _mm_crc32_u64(0, walrus_crc_move(first, 2 * words) ^ walrus_crc_move(second, words)) ^ third;
        data += 16 * words;
        length -= 24 * words;
    }
    for (; length >= 8; data += 8, length -= 8)
        first = _mm_crc32_u64(first, walrus_load64(data));
    value = (uint32_t)first;
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

/* Choose kernels up to `tier`: 0 the plain loops; 1 AVX2, and the crc32 instruction; 2 VPCLMULQDQ too;
 * 3 vectors of 512 bits, where they come with VNNI: the processors before lose more clock than they win.
 * Returns the tier in use, which is as high as the processor allows. */
static int walrus_checksum_choose(int tier)
{
    int chosen = 0;
#if WALRUS_X86
    walrus_grouped_best = NULL;
#endif
    walrus_fnv_best = walrus_fnv_plain;
    walrus_crc_best = walrus_crc_plain;
#if WALRUS_X86
    __builtin_cpu_init();
    if (tier >= 1 && __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul")) {
        walrus_crc_best = walrus_crc_x86;
        chosen = 1;
    }
    if (tier >= 1 && __builtin_cpu_supports("avx2")) {
        walrus_fnv_best = walrus_sliced_fnv;
        walrus_grouped_best = walrus_grouped_sum;
        walrus_grouped_tile_cost = WALRUS_GROUPED_TILE_COST;
        chosen = 1;
#if WALRUS_VPCLMUL
        if (tier >= 2 && __builtin_cpu_supports("vpclmulqdq") && __builtin_cpu_supports("pclmul")) {
            walrus_fnv_best = walrus_sliced_clmul_fnv;
            chosen = 2;
        }
#endif
#if WALRUS_AVX512
        if (tier >= 3 && chosen == 2 && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vnni")) {
            walrus_grouped_best = walrus_grouped_wide_sum;
            walrus_grouped_tile_cost = WALRUS_GROUPED_WIDE_TILE_COST;
            chosen = 3;
        }
#endif
    }
#endif
#if WALRUS_ARM_CRC
    if (tier >= 1) {
        walrus_crc_best = walrus_crc_arm;
        chosen = 1;
    }
#endif
    return chosen;
}

static void walrus_checksum_setup(void)
{
    walrus_crc_setup_table();
#if WALRUS_X86
    walrus_crc_setup_factors();
    walrus_sliced_setup();
    walrus_grouped_setup();
#endif
    walrus_checksum_choose(3);
}

#endif
