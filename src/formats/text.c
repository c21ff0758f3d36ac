#include "formats/text.h"

#include <string.h>

/* The length of the UTF-8 sequence at `text`, or 0. */
static size_t sequence_length(const uint8_t *text, size_t length)
{
    uint8_t first = text[0];
    if (first < 0x80) {
        return first == 0 ? 0 : 1;
    }
    size_t needed;
    uint8_t low = 0x80, high = 0xBF; /* of the second byte */
    if (first >= 0xC2 && first <= 0xDF) {
        needed = 2;
    } else if (first >= 0xE0 && first <= 0xEF) {
        needed = 3;
        low = first == 0xE0 ? 0xA0 : low;
        high = first == 0xED ? 0x9F : high;
    } else if (first >= 0xF0 && first <= 0xF4) {
        needed = 4;
        low = first == 0xF0 ? 0x90 : low;
        high = first == 0xF4 ? 0x8F : high;
    } else {
        return 0;
    }
    if (length < needed || text[1] < low || text[1] > high) {
        return 0;
    }
    for (size_t i = 2; i < needed; i++) {
        if ((text[i] & 0xC0) != 0x80) {
            return 0;
        }
    }
    return needed;
}

bool text_is_utf8(const char *text, size_t length)
{
    for (size_t i = 0; i < length;) {
        size_t step = sequence_length((const uint8_t *)text + i, length - i);
        if (step == 0) {
            return false;
        }
        i += step;
    }
    return true;
}

const char *text_shown(char buffer[TEXT_SHOWN], const char *text, size_t length)
{
    size_t out = 0;
    size_t i = 0;
    while (i < length) {
        size_t step = sequence_length((const uint8_t *)text + i, length - i);
        bool keep = step > 0 && (uint8_t)text[i] >= 0x20 && text[i] != 0x7F;
        /* U+0080..U+009F are control characters too. */
        keep = keep && !(step == 2 && (uint8_t)text[i] == 0xC2 && (uint8_t)text[i + 1] < 0xA0);
        step = size_maximum(step, 1);
        if (out + (keep ? step : 1) > TEXT_SHOWN - 4) {
            memcpy(buffer + out, "...", 3);
            out += 3;
            break;
        }
        if (keep) {
            memcpy(buffer + out, text + i, step);
            out += step;
        } else {
            buffer[out++] = '?';
        }
        i += step;
    }
    buffer[out] = '\0';
    return buffer;
}
