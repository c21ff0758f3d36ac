/* "Did you mean ...?": edit distance in which neighbouring letters may also be exchanged (Damerau
 * and Levenshtein, in its optimal string alignment form). */
#include "base/base.h"

#include <string.h>

enum { LONGEST = 64 };

/* Case and the kind of separator are no reason to miss a name. */
static char fold(char letter)
{
    if (letter >= 'A' && letter <= 'Z') {
        return (char)(letter - 'A' + 'a');
    }
    return letter == '-' || letter == ' ' ? '_' : letter;
}

static unsigned minimum(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

/* Both at most LONGEST bytes. */
static unsigned edit_distance(const char *a, size_t a_length, const char *b, size_t b_length)
{
    unsigned rows[3][LONGEST + 1];
    unsigned *before = rows[0], *above = rows[1], *row = rows[2];
    for (unsigned j = 0; j <= b_length; ++j) {
        row[j] = j;
    }
    for (unsigned i = 1; i <= a_length; ++i) {
        unsigned *recycled = before;
        before = above;
        above = row;
        row = recycled;
        row[0] = i;
        for (unsigned j = 1; j <= b_length; ++j) {
            bool same = fold(a[i - 1]) == fold(b[j - 1]);
            row[j] = minimum(above[j - 1] + !same, minimum(above[j], row[j - 1]) + 1);
            if (i > 1 && j > 1 && fold(a[i - 1]) == fold(b[j - 2]) &&
                fold(a[i - 2]) == fold(b[j - 1])) {
                row[j] = minimum(row[j], before[j - 2] + 1);
            }
        }
    }
    return row[b_length];
}

/* A name cut short is one step from the whole. */
static bool begins_with(const char *name, const char *word, size_t length)
{
    for (size_t i = 0; i < length; ++i) {
        if (fold(name[i]) != fold(word[i])) {
            return false;
        }
    }
    return length >= 3;
}

const char *nearest_name(const char *word, const char *const *candidates, size_t count)
{
    size_t length = strnlen(word, LONGEST + 1);
    if (length > LONGEST) {
        return NULL;
    }
    const char *best = NULL;
    unsigned best_distance = 0;
    for (size_t i = 0; i < count; ++i) {
        size_t candidate_length = strnlen(candidates[i], LONGEST + 1);
        if (candidate_length > LONGEST) {
            continue;
        }
        unsigned distance = edit_distance(word, length, candidates[i], candidate_length);
        if (length < candidate_length && begins_with(candidates[i], word, length)) {
            distance = 1;
        }
        /* A third of the longer name may differ. */
        size_t allowed = size_maximum(size_maximum(length, candidate_length) / 3, 1);
        if (distance <= allowed && distance < size_maximum(length, candidate_length) &&
            (best == NULL || distance < best_distance)) {
            best = candidates[i];
            best_distance = distance;
        }
    }
    return best;
}
