/* FNV-1a 64 of one payload, bit-sliced: a template that _checksum.h includes once per processor tier.
 *
 * Parameters: WALRUS_SLICED(name) gives the tier's names, WALRUS_SLICED_TARGET the attribute of its
 * functions, WALRUS_SLICED_CLMUL whether four carry-less products at once are to be had.
 *
 * Why this is exact. With H(i) the state before byte b(i), s(i) its low byte and x(i) = s(i) ^ b(i),
 * the xor changes nothing but the low byte, so H(i) ^ b(i) = H(i) + (x(i) - s(i)), and
 *
 *     H(n) = P^n * H(0) + sum of (x(i) - s(i)) * P^(n - i)          a dot product
 *     s(i + 1) = x(i) * 0xB3 mod 256                                the only serial part
 *
 * 0xB3 = 1 + 2 + 16 + 32 + 128 is odd, so bit k of s(i + 1) is x_k(i) xor a function of lower bits
 * of x(i): taken bit plane by bit plane from below, that bit over all positions is a prefix-xor.
 *
 * A chunk is 256 positions, four words of 64. It goes through: transposition into planes; plane by
 * plane the solution for s; the states at every 8th position, from where 32 lanes take 8 plain
 * steps each to have all of s and x as bytes; the dot product in 16-bit limbs. Zeros in front of a
 * payload change nothing but s, which is corrected by a power of P.
 */

#define WALRUS_INLINE WALRUS_SLICED_TARGET static inline __attribute__((always_inline))

#define XOR(a, b) _mm256_xor_si256(a, b)
#define AND(a, b) _mm256_and_si256(a, b)
#define OR(a, b) _mm256_or_si256(a, b)
/* The carry of an addition; `a` is the operand that is known last. */
#define CARRY(a, b, c) OR(AND(b, c), AND(a, OR(b, c)))

/* In each word, bit i becomes the xor of bits 0 to i. */
WALRUS_INLINE __m256i WALRUS_SLICED(prefix)(__m256i word)
{
#if WALRUS_SLICED_CLMUL
    const __m256i ones = _mm256_set1_epi64x(-1);
    return _mm256_unpacklo_epi64(_mm256_clmulepi64_epi128(word, ones, 0x00),
                                 _mm256_clmulepi64_epi128(word, ones, 0x01));
#else
    word = XOR(word, _mm256_slli_epi64(word, 1));
    word = XOR(word, _mm256_slli_epi64(word, 2));
    word = XOR(word, _mm256_slli_epi64(word, 4));
    word = XOR(word, _mm256_slli_epi64(word, 8));
    word = XOR(word, _mm256_slli_epi64(word, 16));
    return XOR(word, _mm256_slli_epi64(word, 32));
#endif
}

/* One plane of s from the changes of its bit from position to position. `carry` is the bit at the
 * first position, and becomes the one behind the last: an upper half of the index into the tables. */
WALRUS_INLINE __m256i WALRUS_SLICED(solve)(__m256i changes, unsigned *carry)
{
    const __m256i sums = WALRUS_SLICED(prefix)(changes);
    const unsigned index = (unsigned)_mm256_movemask_pd(_mm256_castsi256_pd(sums)) | *carry;
    *carry = walrus_sliced_carry[index];
    return XOR(_mm256_slli_epi64(sums, 1), _mm256_load_si256((const __m256i *)walrus_sliced_flips[index]));
}

/* Exchange bits between two vectors: those of `low` shifted up with those of `high` under the mask. */
WALRUS_INLINE void WALRUS_SLICED(exchange)(__m256i *low, __m256i *high, int shift, __m256i mask)
{
    const __m256i differing = AND(XOR(_mm256_srli_epi16(*low, shift), *high), mask);
    *high = XOR(*high, differing);
    *low = XOR(*low, _mm256_slli_epi16(differing, shift));
}

/* One round of a transposition: vectors whose numbers differ in `bit` are interleaved by bytes. */
WALRUS_INLINE void WALRUS_SLICED(interleave)(const __m256i from[8], __m256i to[8], int bit)
{
    for (int number = 0; number < 8; number++)
        if (!(number & bit)) {
            to[number] = _mm256_unpacklo_epi8(from[number], from[number | bit]);
            to[number | bit] = _mm256_unpackhi_epi8(from[number], from[number | bit]);
        }
}

/* From 256 bytes make columns (byte g of column t is byte 8 g + t) and planes (bit i of plane k is
 * bit k of byte i). */
WALRUS_INLINE void WALRUS_SLICED(transpose)(const uint8_t *data, __m256i columns[8], __m256i planes[8])
{
    const __m256i mask4 = _mm256_set1_epi8(0x0F), mask2 = _mm256_set1_epi8(0x33), mask1 = _mm256_set1_epi8(0x55);
    __m256i one[8], other[8];
    for (int number = 0; number < 8; number++)
        one[number] = _mm256_inserti128_si256(
            _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(data + 16 * number))),
            _mm_loadu_si128((const __m128i *)(data + 128 + 16 * number)), 1);
    WALRUS_SLICED(interleave)(one, other, 4);
    WALRUS_SLICED(interleave)(other, one, 2);
    WALRUS_SLICED(interleave)(one, other, 1);
    WALRUS_SLICED(interleave)(other, one, 4);
    /* The rounds leave the bits of a vector's number rotated. */
    for (int t = 0; t < 8; t++)
        columns[t] = planes[t] = one[((t & 1) << 2) | (t >> 1)];
    for (int number = 0; number < 4; number++)
        WALRUS_SLICED(exchange)(&planes[number], &planes[number + 4], 4, mask4);
    for (int number = 0; number < 8; number++)
        if (!(number & 2))
            WALRUS_SLICED(exchange)(&planes[number], &planes[number + 2], 2, mask2);
    for (int number = 0; number < 8; number += 2)
        WALRUS_SLICED(exchange)(&planes[number], &planes[number + 1], 1, mask1);
}

/* What is known of x and of x * 0xB3 while the planes of a chunk are solved. */
typedef struct {
    __m256i x[8], triple[8];
    __m256i carry3, carry17; /* into the next bit of 3 x, and of 17 (3 x) */
    __m256i starts;          /* the bytes of s at positions 0, 8, 16, ... as far as solved */
} WALRUS_SLICED(solution);

/* Solve plane k, of one chunk or of two that follow each other; the second only waits for a carry. */
WALRUS_INLINE void WALRUS_SLICED(solve_plane)(WALRUS_SLICED(solution) *known, const __m256i planes[8], int k,
                                              unsigned *carry)
{
    __m256i changes = planes[k];
    if (k >= 1)
        changes = XOR(changes, XOR(known->x[k - 1], known->carry3));
    if (k >= 4)
        changes = XOR(changes, XOR(known->triple[k - 4], known->carry17));
    if (k == 7)
        changes = XOR(changes, known->x[0]);
    const __m256i s = WALRUS_SLICED(solve)(changes, carry);
    const __m256i x = XOR(s, planes[k]);
    known->x[k] = x;
    known->starts = OR(known->starts, _mm256_slli_epi16(AND(s, _mm256_set1_epi8(1)), k));
    /* 3 x = x + (x << 1), with the carry from bit to bit; 51 x = 3 x + (3 x << 4), the same. */
    known->triple[k] = k == 0 ? x : XOR(x, XOR(known->x[k - 1], known->carry3));
    if (k >= 4)
        known->carry17 = CARRY(known->triple[k], known->triple[k - 4], known->carry17);
    if (k >= 1)
        known->carry3 = CARRY(x, known->x[k - 1], known->carry3);
}

/* The sum of (x - s) * P^(256 - i) over a chunk, from s at every 8th position. */
WALRUS_INLINE uint64_t WALRUS_SLICED(dot)(__m256i s, const __m256i columns[8])
{
    const __m256i low_products = _mm256_broadcastsi128_si256(_mm_load_si128((const __m128i *)walrus_sliced_products[0]));
    const __m256i high_products = _mm256_broadcastsi128_si256(_mm_load_si128((const __m128i *)walrus_sliced_products[1]));
    const __m256i nibble = _mm256_set1_epi8(15), difference = _mm256_set1_epi16((short)0xFF01);
    __m256i sums[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};

    for (int t = 0; t < 8; t++) {
        const __m256i x = XOR(s, columns[t]);
        const __m256i low = _mm256_maddubs_epi16(_mm256_unpacklo_epi8(x, s), difference);
        const __m256i high = _mm256_maddubs_epi16(_mm256_unpackhi_epi8(x, s), difference);
        for (int limb = 0; limb < 4; limb++) {
            const __m256i *weights = (const __m256i *)walrus_sliced_weights[t][limb];
            sums[limb] = _mm256_add_epi32(sums[limb], _mm256_madd_epi16(low, _mm256_load_si256(weights)));
            sums[limb] = _mm256_add_epi32(sums[limb], _mm256_madd_epi16(high, _mm256_load_si256(weights + 1)));
        }
        s = _mm256_add_epi8(_mm256_shuffle_epi8(low_products, AND(x, nibble)),
                            _mm256_shuffle_epi8(high_products, AND(_mm256_srli_epi16(x, 4), nibble)));
    }
    /* |x - s| <= 255 and |limb| <= 2^15, so 256 products stay below 2^31. */
    const __m256i halves = _mm256_hadd_epi32(_mm256_hadd_epi32(sums[0], sums[1]), _mm256_hadd_epi32(sums[2], sums[3]));
    const __m128i limbs = _mm_add_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1));
    const uint64_t lower = (uint64_t)_mm_cvtsi128_si64(limbs), upper = (uint64_t)_mm_extract_epi64(limbs, 1);
    return (uint64_t)(int64_t)(int32_t)lower + ((uint64_t)((int64_t)lower >> 32) << 16) + (upper << 32) +
           ((upper >> 32) << 48);
}

/* Go over one chunk, or with `two` over a second as well; `length` is that of the first without its
 * leading zeros. Two chunks at once take little longer than one: the planes wait for each other. */
WALRUS_INLINE uint64_t WALRUS_SLICED(chunks)(const uint8_t *first, const uint8_t *second, int two, size_t length,
                                             unsigned carries[8], uint64_t state)
{
    __m256i columns[2][8], planes[2][8];
    WALRUS_SLICED(solution) known[2];
    WALRUS_SLICED(transpose)(first, columns[0], planes[0]);
    if (two)
        WALRUS_SLICED(transpose)(second, columns[1], planes[1]);
    for (int chunk = 0; chunk <= two; chunk++)
        known[chunk].starts = known[chunk].carry3 = known[chunk].carry17 = _mm256_setzero_si256();
#pragma GCC unroll 8
    for (int k = 0; k < 8; k++)
        for (int chunk = 0; chunk <= two; chunk++)
            WALRUS_SLICED(solve_plane)(&known[chunk], planes[chunk], k, &carries[k]);
    state = state * walrus_sliced_powers[length] + WALRUS_SLICED(dot)(known[0].starts, columns[0]);
    if (two)
        state = state * walrus_sliced_powers[256] + WALRUS_SLICED(dot)(known[1].starts, columns[1]);
    return state;
}

/* Copy `256 - zeros` bytes to the end of `chunk` and fill its beginning with zeros. Reads 16 bytes at
 * a time, none of them outside of the payload, which has at least 16. */
WALRUS_INLINE void WALRUS_SLICED(fill)(uint8_t *chunk, const uint8_t *data, size_t zeros)
{
    const size_t edge = zeros >> 4;
    for (size_t piece = 0; piece < 16; piece++) {
        const uint8_t *from = piece > edge ? data + (16 * piece - zeros) : walrus_sliced_slide + 32;
        _mm_store_si128((__m128i *)(chunk + 16 * piece), _mm_loadu_si128((const __m128i *)from));
    }
    const __m128i slide = _mm_loadu_si128((const __m128i *)(walrus_sliced_slide + 16 - (zeros & 15)));
    _mm_store_si128((__m128i *)(chunk + 16 * edge), _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)data), slide));
}

WALRUS_SLICED_TARGET static uint64_t WALRUS_SLICED(fnv)(const uint8_t *data, size_t length, uint64_t state)
{
    uint8_t filled[256] __attribute__((aligned(32)));
    unsigned carries[8];

    if (length < WALRUS_SLICED_MIN)
        return walrus_fnv_plain(data, length, state);
    const size_t over = length & 255;
    if (over <= (length > 512 ? WALRUS_SLICED_PLAIN_MAX_LONG : WALRUS_SLICED_PLAIN_MAX)) {
        state = walrus_fnv_plain(data, over, state);
        data += over;
        length -= over;
    }
    const size_t head = ((length - 1) & 511) + 1, zeros = (0 - head) & 255;
    const uint8_t *first = data;
    /* P has order 64 modulo 256: the low byte from which `zeros` zero bytes lead to that of `state`. */
    const uint8_t low = (uint8_t)(state * walrus_sliced_powers[(64 - zeros) & 63]);
    for (int k = 0; k < 8; k++)
        carries[k] = ((unsigned)low >> k & 1) << 4;
    if (zeros) {
        WALRUS_SLICED(fill)(filled, data, zeros);
        first = filled;
    }
    if (head <= 256)
        state = WALRUS_SLICED(chunks)(first, first, 0, 256 - zeros, carries, state);
    else
        state = WALRUS_SLICED(chunks)(first, data + 256 - zeros, 1, 256 - zeros, carries, state);
    for (size_t at = head; at < length; at += 512)
        state = WALRUS_SLICED(chunks)(data + at, data + at + 256, 1, 256, carries, state);
    return state;
}

#undef WALRUS_INLINE
#undef XOR
#undef AND
#undef OR
#undef CARRY
#undef WALRUS_SLICED
#undef WALRUS_SLICED_TARGET
#undef WALRUS_SLICED_CLMUL
