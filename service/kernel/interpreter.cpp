// The interpreter of a bundle on a processor: from the taps of one picture to labels, divergence and heatmaps.
//
// The first layer is applied where a tap lives and its sums are brought to the pixels (a linear layer commutes with
// bilinear resizing). What would be planes of M x hidden units at full resolution exists only for 64 pixels of one
// member at a time: sums, rectification, layers 2 and 3, vote and divergence of these are one visit, in the first cache.
//
//   levels up to H / 4   projected whole. All but the finest are added on a grid that keeps every knot of their sum
//                        (see labelmint_export.interpreter.knots); a row of pixels takes one line of that grid and one of
//                        the finest level.
//   the level of H / 2   projected row by row as the picture is walked down; four rows are kept.
//   levels of H and up   projected pixel by pixel, on top of the sums of the others. Those above H are averaged to H.
//
// A member visits up to four rows of pixels before the next member's turn: these lie between the same two lines of knots, so
// that lines and weights are still near when the next row asks for them. What is read together lies together: a row of a
// level, or a line of the grid, holds its samples for all units one after another.
//
// Pixels are computed in groups of 64, ordered by their column modulo 4 ("phase"): within a phase neighbours lie as far
// apart as knots do, so interpolation is a weighted sum of consecutive vectors, without a gather.
//
// The file is compiled several times, for several instruction sets (see build.py). It calls nothing, allocates nothing and
// starts no threads; the caller gives scratch memory and splits the work. A result does not depend on the split.
//
// Legend: H = W label resolution, U hidden units of all members, q = H / 4, r level, K channels, C classes.

#include <cstdint>
#include <immintrin.h>

#ifndef LM_SUFFIX
#error "compile with build.py"
#endif
#define LM_JOIN2(name, suffix) name##_##suffix
#define LM_JOIN(name, suffix) LM_JOIN2(name, suffix)
#define LM_EXPORT(name) extern "C" __attribute__((visibility("default"))) LM_JOIN(name, LM_SUFFIX)

extern "C" {

struct LmEnsemble {
    int32_t members, width1, width2, outputs;  // widths and outputs are padded to multiples of 4
    const void *weight2;                       // [members][width2 / 4][width1 in words][4]
    const float *bias2;                        // [members][width2]
    const float *weight3;                      // [members][outputs / 4][width2][4]
    const float *bias3;                        // [members][outputs]
};

struct LmPlan {
    int32_t size, units, num_classes, num_keypoints, vote_rule;
    int32_t num_coarse, half_channels, num_full;
    int32_t coarse_resolution[12], coarse_channels[12];
    int32_t full_channels[4], full_ratio[4];
    const void *coarse_weight[12];  // [units / 4][channels in words][4]
    const void *half_weight;
    const void *full_weight;
    const float *bias;  // [units]
    LmEnsemble classifiers, regressors;
};

struct LmPicture {
    const float *coarse[12];  // [channels][r][r]
    const float *half;
    const float *full[4];
    float *planes[12];   // [r][units][r]: projected levels
    float *knots;        // [q + 1][units][knot_stride]: the sum of all coarse levels but that of q
    uint8_t *label;      // [H][W]
    float *uncertainty;  // [H][W]
    float *heatmaps;     // [num_keypoints][H][W]
};

}  // extern "C"

namespace {

constexpr int MAX_SIZE = 8192;
constexpr int GROUP = 64, PHASES = 4, LANES = LM_LANES, COLUMNS = GROUP / PHASES;
constexpr int ROWS = 4;       // that a member visits at a time
constexpr int HALF_ROWS = 4;  // of the half level that these lie between
constexpr int MAJORITY = 0, MEAN_PROBABILITY = 1;  // 2 is the mean of the logits

typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef float LooseFloats __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));

inline Floats load(const float *p) { return *reinterpret_cast<const LooseFloats *>(p); }
inline void store(float *p, Floats x) { *reinterpret_cast<LooseFloats *>(p) = x; }
inline Floats all(float x) { return x - Floats{}; }
inline Ints all_ints(int32_t x) { return x - Ints{}; }

// --- arithmetic of layers 1 and 2: words of one or two channels ------------------------------------------------------

#if LM_BF16

// A word is a pair of bfloat16, the even channel in the lower half.
constexpr int CHANNELS_OF_WORD = 2;
typedef uint32_t Word;

inline __m512i rounded(Floats x) {
    return _mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(reinterpret_cast<__m512>(x))));
}

inline void put_words(Word *to, Floats even, Floats odd) {
    _mm512_storeu_si512(to, _mm512_or_si512(rounded(even), _mm512_slli_epi32(rounded(odd), 16)));
}

struct Words {
    __m512bh value;
    explicit Words(const Word *p) : value(reinterpret_cast<__m512bh>(_mm512_loadu_si512(p))) {}
};

inline Floats add_products(Floats sum, Words act, Word weight) {
    const __m512bh w = reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(weight)));
    return reinterpret_cast<Floats>(_mm512_dpbf16_ps(reinterpret_cast<__m512>(sum), act.value, w));
}

#else

constexpr int CHANNELS_OF_WORD = 1;
typedef float Word;

struct Words {
    Floats value;
    explicit Words(const Word *p) : value(load(p)) {}
};

inline Floats add_products(Floats sum, Words act, Word weight) { return sum + act.value * weight; }

#endif

inline int words_of(int channels) { return (channels + CHANNELS_OF_WORD - 1) / CHANNELS_OF_WORD; }

// out[4][GROUP] = finish(out + weight[num][4] x act[num][GROUP]), num words
template <typename Act, typename Weight, typename Multiply, typename Finish>
inline void multiply(float *out, const Act *act, const Weight *weight, int num, Multiply step, Finish finish) {
    constexpr int VECTORS = LANES == 16 ? 4 : 2;  // as many sums as registers hold
    for (int first = 0; first < GROUP; first += VECTORS * LANES) {
        Floats sum[4][VECTORS];
        for (int u = 0; u < 4; ++u)
            for (int v = 0; v < VECTORS; ++v) sum[u][v] = load(out + u * GROUP + first + v * LANES);
        for (int k = 0; k < num; ++k)
            for (int v = 0; v < VECTORS; ++v)
                for (int u = 0; u < 4; ++u) sum[u][v] = step(sum[u][v], act + k * GROUP + first + v * LANES, weight[4 * k + u]);
        for (int u = 0; u < 4; ++u)
            for (int v = 0; v < VECTORS; ++v) store(out + u * GROUP + first + v * LANES, finish(sum[u][v]));
    }
}

inline Floats larger(Floats a, Floats b) { return a < b ? b : a; }
inline Floats same(Floats x) { return x; }
inline Floats rectified(Floats x) { return larger(x, Floats{}); }

template <typename Finish>
inline void multiply_words(float *out, const Word *act, const Word *weight, int num, Finish finish) {
    multiply(out, act, weight, num, [](Floats sum, const Word *a, Word w) { return add_products(sum, Words(a), w); }, finish);
}

inline void multiply_floats(float *out, const float *act, const float *weight, int num) {
    multiply(out, act, weight, num, [](Floats sum, const float *a, float w) { return sum + load(a) * w; }, same);
}

// --- packing: floats of a group to words ------------------------------------------------------------------------------

// Two channels (odd may be null) of a group to one or two rows of words; returns the next row.
inline Word *pack(Word *to, const float *even, const float *odd) {
#if LM_BF16
    for (int i = 0; i < GROUP; i += LANES) put_words(to + i, load(even + i), odd ? load(odd + i) : Floats{});
    return to + GROUP;
#else
    for (int i = 0; i < GROUP; i += LANES) store(to + i, load(even + i));
    if (!odd) return to + GROUP;
    for (int i = 0; i < GROUP; i += LANES) store(to + GROUP + i, load(odd + i));
    return to + 2 * GROUP;
#endif
}

// Channels [first, last) of a source of groups, `fetch(channel, float[GROUP])`, to rows of words.
template <typename Fetch>
inline void pack_channels(Word *to, int channels, Fetch fetch) {
    alignas(64) float even[GROUP], odd[GROUP];
    for (int k = 0; k < channels; k += 2) {
        fetch(k, even);
        const bool pair = k + 1 < channels;
        if (pair) fetch(k + 1, odd);
        to = pack(to, even, pair ? odd : nullptr);
    }
}

// --- functions ----------------------------------------------------------------------------------------------------------

// e^x for x <= 0 (Cephes, expf; Moshier 1992); 0 below -87, NaN for NaN.
inline Floats exponential(Floats x) {
    const Floats bounded = larger(x, all(-87.0f));
    const Ints whole = __builtin_convertvector(bounded * 1.44269504088896341f - 0.5f, Ints);  // towards zero: x <= 0
    const Floats n = __builtin_convertvector(whole, Floats);
    Floats r = bounded - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    Floats p = all(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    const Ints scale = (whole + 127) << 23;
    const Floats result = p * (Floats)scale;
    return x < all(-87.0f) ? Floats{} : result;
}

// Natural logarithm of positive normal numbers (Cephes, logf); NaN for NaN.
inline Floats logarithm(Floats x) {
    const Ints bits = (Ints)x;
    Ints exponent = ((bits >> 23) & 255) - 126;
    const Ints mantissa_bits = (bits & 0x007fffff) | 0x3f000000;
    Floats m = (Floats)mantissa_bits;  // [0.5, 1)
    const Ints low = m < all(0.707106781186547524f);
    exponent = exponent + low;  // true is -1
    m = (low ? m + m : m) - 1.0f;
    const Floats z = m * m;
    Floats p = all(7.0376836292e-2f);
    p = p * m - 1.1514610310e-1f;
    p = p * m + 1.1676998740e-1f;
    p = p * m - 1.2420140846e-1f;
    p = p * m + 1.4249322787e-1f;
    p = p * m - 1.6668057665e-1f;
    p = p * m + 2.0000714765e-1f;
    p = p * m - 2.4999993993e-1f;
    p = p * m + 3.3333331174e-1f;
    const Floats e = __builtin_convertvector(exponent, Floats);
    Floats y = p * m * z - e * 2.12194440e-4f - z * 0.5f;
    y = m + y + e * 0.693359375f;
    return x != x ? x : y;
}

// --- sizes of scratch memory -----------------------------------------------------------------------------------------

inline int rounded_up(int x, int step) { return (x + step - 1) / step * step; }

struct Sizes {
    int q, stride, knot_stride, half_stride, row_groups, half_groups, full_words, half_words, max_width1, max_width2, outputs;
    explicit Sizes(const LmPlan &plan)
        : q(plan.size / 4),
          stride(rounded_up(q, COLUMNS) + 2 * COLUMNS),
          knot_stride(rounded_up(q + 1, COLUMNS)),
          half_stride(rounded_up(2 * q, GROUP)),
          row_groups(rounded_up(plan.size, GROUP) / GROUP),
          half_groups(half_stride / GROUP),
          half_words(words_of(plan.half_channels)) {
        int full_channels = 0;
        for (int i = 0; i < plan.num_full; ++i) full_channels += plan.full_channels[i];
        full_words = words_of(full_channels);
        const LmEnsemble &c = plan.classifiers, &r = plan.regressors;
        max_width1 = c.width1 > r.width1 ? c.width1 : r.width1;
        max_width2 = c.width2 > r.width2 ? c.width2 : r.width2;
        outputs = c.outputs > r.outputs ? c.outputs : r.outputs;
    }
};

// Memory that a walk over rows needs, cut from one piece.
struct Scratch {
    float *evens, *odds, *half_evens, *half_odds;  // [max_width1][stride] each: knots and half-level samples of a row
    float *ring[HALF_ROWS];                        // [units][half_stride]: projected rows of the half level
    Word *full[ROWS], *half, *hidden;              // words of a row of taps, and of a group of hidden units
    float *layer1, *layer2, *logits;
    // Of a whole row: [C][W] or [W]; votes are sums of logits for that rule.
    float *votes[ROWS], *mean[ROWS], *entropy[ROWS], *heat[ROWS];
    int64_t used;

    Scratch(const LmPlan &plan, const Sizes &s, char *memory) : used(0) {
        const int64_t pixels = static_cast<int64_t>(s.row_groups) * GROUP;
        const int64_t lines = static_cast<int64_t>(s.max_width1) * s.stride;
        evens = cut<float>(memory, lines);
        odds = cut<float>(memory, lines);
        half_evens = cut<float>(memory, plan.half_channels ? lines : 0);
        half_odds = cut<float>(memory, plan.half_channels ? lines : 0);
        for (float *&row : ring) row = cut<float>(memory, plan.half_channels ? static_cast<int64_t>(plan.units) * s.half_stride : 0);
        for (Word *&row : full) row = cut<Word>(memory, pixels * s.full_words);
        half = cut<Word>(memory, static_cast<int64_t>(GROUP) * s.half_words);
        hidden = cut<Word>(memory, static_cast<int64_t>(GROUP) * words_of(s.max_width1));
        layer1 = cut<float>(memory, 4 * GROUP);
        layer2 = cut<float>(memory, static_cast<int64_t>(s.max_width2) * GROUP);
        logits = cut<float>(memory, static_cast<int64_t>(s.outputs) * GROUP);
        for (float *&row : votes) row = cut<float>(memory, pixels * plan.num_classes);
        for (float *&row : mean) row = cut<float>(memory, pixels * plan.num_classes);
        for (float *&row : entropy) row = cut<float>(memory, pixels);
        for (float *&row : heat) row = cut<float>(memory, pixels * plan.regressors.outputs);
    }

    template <typename T>
    T *cut(char *memory, int64_t count) {
        T *piece = reinterpret_cast<T *>(memory + used);
        used += (count * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
        return piece;
    }
};

// --- the coarse levels ---------------------------------------------------------------------------------------------------

// One group of 64 flattened pixels of a level, all units.
void project_group(const LmPlan &plan, const LmPicture &picture, int level, int group, Word *act) {
    const int r = plan.coarse_resolution[level], channels = plan.coarse_channels[level], area = r * r;
    const int first = group * GROUP, count = area - first < GROUP ? area - first : GROUP;
    const float *taps = picture.coarse[level] + first;
    pack_channels(act, channels, [&](int k, float *to) {
        const float *from = taps + static_cast<int64_t>(k) * area;
        for (int i = 0; i < count; ++i) to[i] = from[i];
        for (int i = count; i < GROUP; ++i) to[i] = 0.0f;
    });
    const int num = words_of(channels);
    const Word *weight = static_cast<const Word *>(plan.coarse_weight[level]);
    float *planes = picture.planes[level];
    alignas(64) float out[4 * GROUP];
    for (int u = 0; u < plan.units; u += 4, weight += 4 * num) {
        for (float &x : out) x = 0.0f;
        multiply_words(out, act, weight, num, same);
        for (int p = 0; p < count;) {  // a piece of a row at a time
            const int row = (first + p) / r, x = (first + p) % r, length = r - x < count - p ? r - x : count - p;
            for (int i = 0; i < 4; ++i) {
                float *to = planes + (static_cast<int64_t>(row) * plan.units + u + i) * r + x;
                for (int j = 0; j < length; ++j) to[j] = out[i * GROUP + p + j];
            }
            p += length;
        }
    }
}

// Where a position on a level of `r` samples lies between two of them.
struct Blend {
    int low, high;
    float t;
    Blend(float position, int r) {
        low = position < 0.0f ? 0 : static_cast<int>(position);
        t = position < 0.0f ? 0.0f : position - static_cast<float>(low);
        high = low + 1 < r ? low + 1 : r - 1;
    }
};

// Pixel `y` of `size` on a level of `r` rows.
inline Blend blend_pixel(int y, int size, int r) {
    return Blend((static_cast<float>(y) + 0.5f) * static_cast<float>(r) / static_cast<float>(size) - 0.5f, r);
}

// Sum of the bias and of the levels below q of units [first, last) on line y of the knot grid of q / 2, which has q + 1
// points a side.
void merge_line(const LmPlan &plan, const LmPicture &picture, const Sizes &s, int y, int first, int last, float *spare) {
    float *line = spare + COLUMNS, *knots = spare + 2 * s.stride, *finer = spare + 3 * s.stride;
    const int coarsest = plan.num_coarse && plan.coarse_resolution[0] < s.q ? plan.coarse_resolution[0] : 0;
    for (int unit = first; unit < last; ++unit) {
        float *to = picture.knots + (static_cast<int64_t>(y) * plan.units + unit) * s.knot_stride;
        if (!coarsest) {
            for (int x = 0; x <= s.q; ++x) to[x] = plan.bias[unit];
            continue;
        }
        for (int x = 0; x <= coarsest; ++x) knots[x] = plan.bias[unit];
        for (int r = coarsest, level = 0; r < s.q; r *= 2) {  // knots[r + 1] -> finer[2 r + 1]
            float *next = 2 * r == s.q ? to : finer;
            for (int j = 0; j < r; ++j) {
                next[2 * j] = knots[j];
                next[2 * j + 1] = 0.5f * (knots[j] + knots[j + 1]);
            }
            next[2 * r] = knots[r];
            if (level < plan.num_coarse && plan.coarse_resolution[level] == r) {
                const float *plane = picture.planes[level++];
                const Blend at(static_cast<float>(y) * static_cast<float>(r) / static_cast<float>(s.q) - 0.5f, r);
                const float *a = plane + (static_cast<int64_t>(at.low) * plan.units + unit) * r;
                const float *b = plane + (static_cast<int64_t>(at.high) * plan.units + unit) * r;
                for (int j = 0; j < r; ++j) line[j] = a[j] + at.t * (b[j] - a[j]);
                line[-1] = line[0];
                line[r] = line[r - 1];
                for (int j = 0; j < r; ++j) {
                    next[2 * j] += 0.5f * (line[j - 1] + line[j]);
                    next[2 * j + 1] += line[j];
                }
                next[2 * r] += line[r];
            }
            float *const old = knots;
            knots = finer;
            finer = old;
        }
    }
}

// --- rows of pixels ----------------------------------------------------------------------------------------------------

class RowWalk {
   public:
    RowWalk(const LmPlan &plan, const LmPicture &picture, char *memory)
        : plan_(plan), picture_(picture), s_(plan), m_(plan, s_, memory), held_{-1, -1, -1, -1} {
        // Lanes beyond the picture are computed and thrown away; they must hold numbers.
        for (int64_t i = 0; i < static_cast<int64_t>(s_.max_width1) * s_.stride; ++i) {
            m_.evens[i] = m_.odds[i] = 0.0f;
            if (plan.half_channels) m_.half_evens[i] = m_.half_odds[i] = 0.0f;
        }
        finest_ = -1;
        for (int level = 0; level < plan.num_coarse; ++level)
            if (plan.coarse_resolution[level] == s_.q) finest_ = level;
    }

    // Label rows [first, last), at most ROWS of them with the same y / ROWS.
    bool label_rows(int first, int last) {
        for (int y = first; y < last; ++y) {
            pack_full_row(y);
            if (plan_.half_channels) {
                const Blend half = blend_half(y);
                hold(half.low);
                hold(half.high);
            }
            clear(y % ROWS);
        }
        int unit = 0;
        for (int m = 0; m < plan_.classifiers.members; ++m, unit += plan_.classifiers.width1)
            for (int y = first; y < last; ++y) {
                spread(y, unit, plan_.classifiers.width1);
                for (int g = 0; g < s_.row_groups; ++g) {
                    run_member(plan_.classifiers, m, unit, y % ROWS, g, m_.logits, GROUP);
                    count_member(y % ROWS, g);
                }
            }
        for (int m = 0; m < plan_.regressors.members; ++m, unit += plan_.regressors.width1)
            for (int y = first; y < last; ++y) {
                spread(y, unit, plan_.regressors.width1);
                for (int g = 0; g < s_.row_groups; ++g)
                    run_member(plan_.regressors, m, unit, y % ROWS, g, m_.heat[y % ROWS] + g * GROUP, s_.row_groups * GROUP);
            }
        bool finite = true;
        for (int y = first; y < last; ++y) finite = write(y) && finite;
        return finite;
    }

   private:
    const LmPlan &plan_;
    const LmPicture &picture_;
    const Sizes s_;
    Scratch m_;
    int held_[HALF_ROWS];  // rows of the half level in the ring, at their number modulo HALF_ROWS
    int finest_;           // index of the level of q, or -1

    Blend blend_half(int y) const { return blend_pixel(y, plan_.size, 2 * s_.q); }

    void pack_full_row(int y) {
        if (!plan_.num_full) return;
        const int size = plan_.size;
        int channels = 0;
        for (int i = 0; i < plan_.num_full; ++i) channels += plan_.full_channels[i];
        for (int g = 0; g < s_.row_groups; ++g) {
            const int first = g * GROUP, count = size - first < GROUP ? size - first : GROUP;
            pack_channels(m_.full[y % ROWS] + static_cast<int64_t>(g) * GROUP * s_.full_words, channels, [&](int k, float *to) {
                int source = 0;
                while (k >= plan_.full_channels[source]) k -= plan_.full_channels[source++];
                const int ratio = plan_.full_ratio[source], r = size * ratio;
                const float *plane = picture_.full[source] + static_cast<int64_t>(k) * r * r;
                if (ratio == 1) {
                    const float *row = plane + static_cast<int64_t>(y) * r + first;
                    for (int i = 0; i < count; ++i) to[(i % PHASES) * COLUMNS + i / PHASES] = row[i];
                } else {  // bilinear, align_corners false: the mean of the four samples around the pixel's centre
                    const float *row = plane + static_cast<int64_t>(y * ratio + ratio / 2 - 1) * r;
                    for (int i = 0; i < count; ++i) {
                        const float *at = row + (first + i) * ratio + ratio / 2 - 1;
                        to[(i % PHASES) * COLUMNS + i / PHASES] = 0.25f * ((at[0] + at[1]) + (at[r] + at[r + 1]));
                    }
                }
                for (int i = count; i < GROUP; ++i) to[(i % PHASES) * COLUMNS + i / PHASES] = 0.0f;
            });
        }
    }

    // Project row `row` of the half level, its even samples before its odd ones, unless it is there.
    void hold(int row) {
        int &held = held_[row % HALF_ROWS];
        if (held == row) return;
        held = row;
        const int q = s_.q, r = 2 * q, channels = plan_.half_channels;
        float *ring = m_.ring[row % HALF_ROWS];
        alignas(64) float out[4 * GROUP];
        for (int g = 0; g < s_.half_groups; ++g) {
            pack_channels(m_.half, channels, [&](int k, float *to) {
                const float *from = picture_.half + (static_cast<int64_t>(k) * r + row) * r;
                for (int i = 0; i < GROUP; ++i) {
                    const int place = g * GROUP + i;
                    to[i] = place >= r ? 0.0f : from[place < q ? 2 * place : 2 * (place - q) + 1];
                }
            });
            const Word *weight = static_cast<const Word *>(plan_.half_weight);
            for (int u = 0; u < plan_.units; u += 4, weight += 4 * s_.half_words) {
                for (float &x : out) x = 0.0f;
                multiply_words(out, m_.half, weight, s_.half_words, same);
                for (int i = 0; i < 4; ++i) {
                    float *to = ring + static_cast<int64_t>(u + i) * s_.half_stride + g * GROUP;
                    for (int p = 0; p < GROUP; p += LANES) store(to + p, load(out + i * GROUP + p));
                }
            }
        }
    }

    void clear(int row) {
        const int64_t pixels = static_cast<int64_t>(s_.row_groups) * GROUP;
        for (int64_t i = 0; i < pixels * plan_.num_classes; ++i) m_.votes[row][i] = m_.mean[row][i] = 0.0f;
        for (int64_t i = 0; i < pixels; ++i) m_.entropy[row][i] = 0.0f;
        for (int64_t i = 0; i < pixels * plan_.regressors.outputs; ++i) m_.heat[row][i] = 0.0f;
    }

    // What all levels below H give to one row, for `width` units from `unit` on: knots and samples of the half level.
    void spread(int y, int unit, int width) {
        const int q = s_.q, units = plan_.units;
        const Blend half = blend_half(y);
        const float position = (static_cast<float>(y) + 0.5f) * 0.25f;  // on the knot grid of q / 2, which has q + 1 points
        const int low = static_cast<int>(position);
        const float t = position - static_cast<float>(low);
        const Blend fine = blend_pixel(y, plan_.size, q);
        alignas(64) float line[MAX_SIZE / 4 + 2];
        for (int u = 0; u < width; ++u) {
            float *evens = m_.evens + static_cast<int64_t>(u) * s_.stride, *odds = m_.odds + static_cast<int64_t>(u) * s_.stride;
            const float *a = picture_.knots + (static_cast<int64_t>(low) * units + unit + u) * s_.knot_stride;
            const float *b = a + static_cast<int64_t>(units) * s_.knot_stride;
            for (int j = 0; j <= q; ++j) evens[j] = a[j] + t * (b[j] - a[j]);
            for (int j = 0; j < q; ++j) odds[j] = 0.5f * (evens[j] + evens[j + 1]);
            if (finest_ >= 0) {
                const float *plane = picture_.planes[finest_];
                const float *c = plane + (static_cast<int64_t>(fine.low) * units + unit + u) * q;
                const float *d = plane + (static_cast<int64_t>(fine.high) * units + unit + u) * q;
                for (int j = 0; j < q; ++j) line[j + 1] = c[j] + fine.t * (d[j] - c[j]);
                line[0] = line[1];
                line[q + 1] = line[q];
                for (int j = 0; j <= q; ++j) evens[j] += 0.5f * (line[j] + line[j + 1]);
                for (int j = 0; j < q; ++j) odds[j] += line[j + 1];
            }
            if (plan_.half_channels) {
                const float *c = m_.ring[half.low % HALF_ROWS] + static_cast<int64_t>(unit + u) * s_.half_stride;
                const float *d = m_.ring[half.high % HALF_ROWS] + static_cast<int64_t>(unit + u) * s_.half_stride;
                float *half_evens = m_.half_evens + static_cast<int64_t>(u) * s_.stride;
                float *half_odds = m_.half_odds + static_cast<int64_t>(u) * s_.stride + 1;  // one before the first is used
                for (int j = 0; j < q; ++j) half_evens[j] = c[j] + half.t * (d[j] - c[j]);
                for (int j = 0; j < q; ++j) half_odds[j] = c[q + j] + half.t * (d[q + j] - c[q + j]);
                half_odds[-1] = half_evens[0];
                half_evens[q] = half_odds[q - 1];
            }
        }
    }

    // Layers 1 to 3 of member `m` on group `g` of a row; adds to out[outputs][stride].
    void run_member(const LmEnsemble &ensemble, int m, int unit, int row, int g, float *out, int stride) {
        const int width1 = ensemble.width1, width2 = ensemble.width2, num = words_of(width1);
        const Word *weight1 = static_cast<const Word *>(plan_.full_weight) + static_cast<int64_t>(unit) * s_.full_words;
        const Word *act = m_.full[row] + static_cast<int64_t>(g) * GROUP * s_.full_words;
        Word *hidden = m_.hidden;
        for (int u = 0; u < width1; u += 4, weight1 += 4 * s_.full_words) {
            for (int i = 0; i < 4; ++i) interpolate(u + i, g, m_.layer1 + i * GROUP);
            multiply_words(m_.layer1, act, weight1, s_.full_words, rectified);
            hidden = pack(hidden, m_.layer1, m_.layer1 + GROUP);
            hidden = pack(hidden, m_.layer1 + 2 * GROUP, m_.layer1 + 3 * GROUP);
        }
        const Word *weight2 = static_cast<const Word *>(ensemble.weight2) + static_cast<int64_t>(m) * width2 * num;
        for (int j = 0; j < width2; j += 4, weight2 += 4 * num) {
            float *to = m_.layer2 + j * GROUP;
            for (int i = 0; i < 4; ++i)
                for (int p = 0; p < GROUP; p += LANES) store(to + i * GROUP + p, all(ensemble.bias2[m * width2 + j + i]));
            multiply_words(to, m_.hidden, weight2, num, rectified);
        }
        const float *weight3 = ensemble.weight3 + static_cast<int64_t>(m) * ensemble.outputs * width2;
        alignas(64) float sums[4 * GROUP];
        for (int c = 0; c < ensemble.outputs; c += 4, weight3 += 4 * width2) {
            for (int i = 0; i < 4; ++i)
                for (int p = 0; p < GROUP; p += LANES) store(sums + i * GROUP + p, all(ensemble.bias3[m * ensemble.outputs + c + i]));
            multiply_floats(sums, m_.layer2, weight3, width2);
            for (int i = 0; i < 4; ++i)
                for (int p = 0; p < GROUP; p += LANES) {
                    float *to = out + static_cast<int64_t>(c + i) * stride + p;
                    const Floats sum = load(sums + i * GROUP + p);
                    store(to, out == m_.logits ? sum : load(to) + sum);
                }
        }
    }

    // Sum of all levels below H at the pixels of a group, by phase.
    inline void interpolate(int u, int g, float *to) const {
        const float *evens = m_.evens + static_cast<int64_t>(u) * s_.stride + g * COLUMNS;
        const float *odds = m_.odds + static_cast<int64_t>(u) * s_.stride + g * COLUMNS;
        const float *half_evens = m_.half_evens + static_cast<int64_t>(u) * s_.stride + g * COLUMNS;
        const float *half_odds = m_.half_odds + static_cast<int64_t>(u) * s_.stride + g * COLUMNS + 1;
        for (int j = 0; j < COLUMNS; j += LANES) {
            const Floats e = load(evens + j), o = load(odds + j), next = load(evens + j + 1);
            Floats x0 = 0.75f * e + 0.25f * o, x1 = 0.25f * e + 0.75f * o;
            Floats x2 = 0.75f * o + 0.25f * next, x3 = 0.25f * o + 0.75f * next;
            if (plan_.half_channels) {
                const Floats before = load(half_odds + j - 1), he = load(half_evens + j), ho = load(half_odds + j);
                const Floats after = load(half_evens + j + 1);
                x0 += 0.25f * before + 0.75f * he;
                x1 += 0.75f * he + 0.25f * ho;
                x2 += 0.25f * he + 0.75f * ho;
                x3 += 0.75f * ho + 0.25f * after;
            }
            store(to + j, x0);
            store(to + COLUMNS + j, x1);
            store(to + 2 * COLUMNS + j, x2);
            store(to + 3 * COLUMNS + j, x3);
        }
    }

    // Vote, mean probability and entropy of the member whose logits lie ready.
    void count_member(int row, int g) {
        const int classes = plan_.num_classes, width = s_.row_groups * GROUP;
        for (int p = 0; p < GROUP; p += LANES) {
            const int at = g * GROUP + p;
            Floats largest = load(m_.logits + p);
            Ints winner = Ints{};
            for (int c = 1; c < classes; ++c) {
                const Floats x = load(m_.logits + c * GROUP + p);
                const Ints better = x > largest;
                winner = better ? all_ints(c) : winner;
                largest = better ? x : largest;
            }
            Floats sum = Floats{}, weighted = Floats{};
            for (int c = 0; c < classes; ++c) {
                const Floats x = load(m_.logits + c * GROUP + p), below = x - largest;
                const Floats e = exponential(below);
                float *votes = m_.votes[row] + c * width + at;
                store(votes, load(votes) + (plan_.vote_rule != MAJORITY ? x : winner == all_ints(c) ? all(1.0f) : Floats{}));
                store(m_.logits + c * GROUP + p, e);
                sum += e;
                weighted += e * below;
            }
            const Floats share = 1.0f / sum;
            for (int c = 0; c < classes; ++c) {
                float *mean = m_.mean[row] + c * width + at;
                store(mean, load(mean) + load(m_.logits + c * GROUP + p) * share);
            }
            store(m_.entropy[row] + at, load(m_.entropy[row] + at) + (logarithm(sum) - weighted * share));
        }
    }

    bool write(int y) {
        const int size = plan_.size, classes = plan_.num_classes, width = s_.row_groups * GROUP, row = y % ROWS;
        const float members = static_cast<float>(plan_.classifiers.members);
        bool finite = true;
        for (int g = 0; g < s_.row_groups; ++g) {
            alignas(64) float divergence[GROUP];
            alignas(64) int32_t winners[GROUP];
            for (int p = 0; p < GROUP; p += LANES) {
                const int at = g * GROUP + p;
                const float *score = plan_.vote_rule == MEAN_PROBABILITY ? m_.mean[row] : m_.votes[row];
                Floats largest = load(score + at), entropy = Floats{};
                Ints winner = Ints{};
                for (int c = 0; c < classes; ++c) {
                    const Floats x = load(score + c * width + at);
                    const Ints better = x > largest;
                    winner = better ? all_ints(c) : winner;
                    largest = better ? x : largest;
                    const Floats mean = load(m_.mean[row] + c * width + at) / members;
                    entropy -= mean * logarithm(larger(mean, all(1e-30f)));
                }
                store(divergence + p, larger(entropy - load(m_.entropy[row] + at) / members, Floats{}));
                *reinterpret_cast<Ints *>(winners + p) = winner;
            }
            for (int i = 0; i < GROUP; ++i) {
                const int x = g * GROUP + i, at = (i % PHASES) * COLUMNS + i / PHASES;
                if (x >= size) break;
                picture_.label[static_cast<int64_t>(y) * size + x] = static_cast<uint8_t>(winners[at]);
                picture_.uncertainty[static_cast<int64_t>(y) * size + x] = divergence[at];
                finite = finite && divergence[at] - divergence[at] == 0.0f;
                for (int k = 0; k < plan_.num_keypoints; ++k) {
                    const float value = m_.heat[row][static_cast<int64_t>(k) * width + g * GROUP + at];
                    picture_.heatmaps[(static_cast<int64_t>(k) * size + y) * size + x] = value;
                    finite = finite && value - value == 0.0f;
                }
            }
        }
        return finite;
    }
};

}  // namespace

// Bytes of scratch memory for one call of `lm_rows` (and of any other call), beginning at a multiple of 64.
LM_EXPORT(int64_t lm_scratch_bytes)(const LmPlan *plan) {
    const Sizes sizes(*plan);
    const Scratch scratch(*plan, sizes, nullptr);
    int64_t largest = scratch.used > 16 * sizes.stride ? scratch.used : 16 * sizes.stride;
    for (int level = 0; level < plan->num_coarse; ++level) {
        const int64_t bytes = static_cast<int64_t>(words_of(plan->coarse_channels[level])) * GROUP * 4;
        largest = bytes > largest ? bytes : largest;
    }
    return largest;
}

// Floats of one unit on a line of the knot grid; there are q + 1 lines.
LM_EXPORT(int32_t lm_knot_stride)(const LmPlan *plan) { return Sizes(*plan).knot_stride; }

// Project groups [first, last) of 64 pixels of one coarse level.
LM_EXPORT(void lm_project)(const LmPlan *plan, const LmPicture *picture, int32_t level, int32_t first, int32_t last, char *scratch) {
    for (int g = first; g < last; ++g) project_group(*plan, *picture, level, g, reinterpret_cast<Word *>(scratch));
}

// Add up the levels below q of units [first, last); they must have been projected.
LM_EXPORT(void lm_merge)(const LmPlan *plan, const LmPicture *picture, int32_t first, int32_t last, char *scratch) {
    const Sizes sizes(*plan);
    for (int y = 0; y <= sizes.q; ++y) merge_line(*plan, *picture, sizes, y, first, last, reinterpret_cast<float *>(scratch));
}

// Label rows [first, last); everything before must be done. Returns whether all of it is finite.
LM_EXPORT(int32_t lm_rows)(const LmPlan *plan, const LmPicture *picture, int32_t first, int32_t last, char *scratch) {
    RowWalk walk(*plan, *picture, scratch);
    bool finite = true;
    for (int y = first; y < last;) {
        const int end = (y / ROWS + 1) * ROWS < last ? (y / ROWS + 1) * ROWS : last;
        finite = walk.label_rows(y, end) && finite;
        y = end;
    }
    return finite;
}
