/* What the CPU can do and how large its caches are. */
#include "base/base.h"

#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#else
#include <stdlib.h>
#endif

#if defined(__x86_64__)

typedef struct cpuid_answer {
    unsigned eax, ebx, ecx, edx;
} cpuid_answer;

static cpuid_answer ask(unsigned leaf, unsigned subleaf)
{
    cpuid_answer answer = {0};
    if (leaf <= (unsigned)__get_cpuid_max(leaf & 0x80000000, NULL)) {
        __cpuid_count(leaf, subleaf, answer.eax, answer.ebx, answer.ecx, answer.edx);
    }
    return answer;
}

static bool bit(unsigned value, unsigned position)
{
    return (value >> position & 1) != 0;
}

/* The register states that the system saves for us. */
static uint64_t enabled_states(void)
{
    unsigned low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

static cpu_level detect_level(bool *avx_vnni)
{
    cpuid_answer basic = ask(1, 0);
    cpuid_answer extended = ask(7, 0);
    if (!bit(basic.ecx, 27)) { /* OSXSAVE */
        return CPU_LEVEL_PLAIN;
    }
    uint64_t states = enabled_states();
    const uint64_t avx_states = 0x6, avx512_states = 0xe6; /* XMM YMM; + masks and ZMM */
    bool fma = bit(basic.ecx, 12), avx = bit(basic.ecx, 28), f16c = bit(basic.ecx, 29);
    bool avx2 = bit(extended.ebx, 5);
    if ((states & avx_states) != avx_states || !avx || !avx2 || !fma || !f16c) {
        return CPU_LEVEL_PLAIN;
    }
    const unsigned more = extended.eax >= 1 ? ask(7, 1).eax : 0;
    *avx_vnni = bit(more, 4);
    bool f = bit(extended.ebx, 16), dq = bit(extended.ebx, 17), bw = bit(extended.ebx, 30),
         vl = bit(extended.ebx, 31);
    if ((states & avx512_states) != avx512_states || !f || !dq || !bw || !vl) {
        return *avx_vnni ? CPU_LEVEL_AVX_VNNI : CPU_LEVEL_AVX2;
    }
    if (!bit(extended.ecx, 11)) {
        return CPU_LEVEL_AVX512;
    }
    return bit(more, 5) ? CPU_LEVEL_AVX512_BF16 : CPU_LEVEL_AVX512_VNNI;
}

/* Leaf 4 (Intel) and leaf 0x8000001d (AMD) describe one cache a subleaf in the same form. */
static bool read_caches(cpu_features *features, unsigned leaf)
{
    bool found = false;
    for (unsigned i = 0; i < 16; ++i) {
        cpuid_answer cache = ask(leaf, i);
        unsigned kind = cache.eax & 0x1f, level = cache.eax >> 5 & 7;
        if (kind == 0) {
            break;
        }
        if (kind == 2) {
            continue; /* instructions only */
        }
        size_t ways = (cache.ebx >> 22) + 1, partitions = (cache.ebx >> 12 & 0x3ff) + 1,
               line = (cache.ebx & 0xfff) + 1, sets = (size_t)cache.ecx + 1;
        size_t bytes = ways * partitions * line * sets;
        if (level == 1) {
            features->l1_bytes = bytes;
        } else if (level == 2) {
            features->l2_bytes = bytes;
        } else if (level == 3) {
            features->l3_bytes = bytes;
        }
        found = true;
    }
    return found;
}

static void read_model(char model[64])
{
    unsigned words[12];
    for (unsigned i = 0; i < 3; ++i) {
        cpuid_answer part = ask(0x80000002 + i, 0);
        memcpy(words + (size_t)4 * i, &part, sizeof part);
    }
    char text[sizeof words + 1];
    memcpy(text, words, sizeof words);
    text[sizeof words] = '\0';
    /* Padded with spaces in front (Intel) or behind, and doubled ones between. */
    size_t length = 0;
    for (const char *c = text; *c != '\0'; ++c) {
        bool printable = *c > ' ' && *c < 0x7f;
        if (printable) {
            model[length++] = *c;
        } else if (length > 0 && model[length - 1] != ' ') {
            model[length++] = ' ';
        }
    }
    while (length > 0 && model[length - 1] == ' ') {
        --length;
    }
    model[length] = '\0';
}

void cpu_features_detect(cpu_features *features)
{
    *features = (cpu_features){0};
    features->level = detect_level(&features->avx_vnni);
    if (!read_caches(features, 0x8000001d)) {
        (void)read_caches(features, 4);
    }
    read_model(features->model);
}

#else

static size_t read_cache_number(unsigned index, const char *name, char *text, size_t capacity)
{
    text[0] = '\0';
    size_t number = 0;
    char *path = string_format(NULL, "/sys/devices/system/cpu/cpu0/cache/index%u/%s", index, name);
    uint8_t *bytes = NULL;
    size_t size;
    if (path != NULL && file_read(path, 4096, &bytes, &size, NULL) == ONESTEP_OK) {
        char *end;
        number = strtoull((char *)bytes, &end, 10);
        number <<= *end == 'K' ? 10 : *end == 'M' ? 20 : 0;
        size_t copied = size_minimum(size, capacity - 1);
        memcpy(text, bytes, copied);
        text[copied] = '\0';
    }
    memory_free(bytes);
    memory_free(path);
    return number;
}

void cpu_features_detect(cpu_features *features)
{
#if defined(__aarch64__)
    *features = (cpu_features){.level = CPU_LEVEL_NEON};
#else
    *features = (cpu_features){.level = CPU_LEVEL_PLAIN};
#endif
    for (unsigned i = 0; i < 16; ++i) {
        char text[32];
        size_t bytes = read_cache_number(i, "size", text, sizeof text);
        size_t level = read_cache_number(i, "level", text, sizeof text);
        (void)read_cache_number(i, "type", text, sizeof text);
        if (level == 0) {
            break;
        }
        if (text[0] == 'I') {
            continue; /* instructions only */
        }
        size_t *sizes[] = {&features->l1_bytes, &features->l2_bytes, &features->l3_bytes};
        if (level <= 3) {
            *sizes[level - 1] = bytes;
        }
    }
}

#endif

bool cpu_level_runs(const cpu_features *features, cpu_level level)
{
    if (level == CPU_LEVEL_PLAIN || level == features->level) {
        return true;
    }
    if (level == CPU_LEVEL_NEON || features->level == CPU_LEVEL_NEON) {
        return false;
    }
    return level == CPU_LEVEL_AVX_VNNI ? features->avx_vnni : level < features->level;
}

const char *cpu_level_name(cpu_level level)
{
    switch (level) {
    case CPU_LEVEL_PLAIN:
        return "plain";
    case CPU_LEVEL_NEON:
        return "neon";
    case CPU_LEVEL_AVX2:
        return "avx2";
    case CPU_LEVEL_AVX_VNNI:
        return "avxvnni";
    case CPU_LEVEL_AVX512:
        return "avx512";
    case CPU_LEVEL_AVX512_VNNI:
        return "avx512vnni";
    case CPU_LEVEL_AVX512_BF16:
        return "avx512bf16";
    }
    return "unknown";
}
