#include "canvas.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const float pi = 3.14159265f;

uint64_t random_bits(struct random *random)
{
    uint64_t z = (random->state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

float random_between(struct random *random, float low, float high)
{
    return low + (high - low) * (float)(random_bits(random) >> 40) * 0x1p-24f;
}

int random_below(struct random *random, int count)
{
    return (int)((random_bits(random) >> 32) * (uint64_t)count >> 32);
}

bool random_chance(struct random *random, float probability)
{
    return random_between(random, 0, 1) < probability;
}

bool canvas_create(struct canvas *canvas, int width, int height, enum canvas_style style)
{
    *canvas = (struct canvas){.width = width,
                              .height = height,
                              .columns = width * CANVAS_SAMPLES,
                              .rows = height * CANVAS_SAMPLES,
                              .style = style,
                              .stroke = 1.6f,
                              .wobble = 0.5f,
                              .hand = 1};
    canvas->samples =
        calloc((size_t)canvas->columns * (size_t)canvas->rows * 3, sizeof *canvas->samples);
    return canvas->samples != NULL;
}

void canvas_destroy(struct canvas *canvas)
{
    free(canvas->samples);
    *canvas = (struct canvas){0};
}

struct colour colour_rgb(int r, int g, int b)
{
    return (struct colour){(float)r / 255, (float)g / 255, (float)b / 255};
}

struct colour colour_mix(struct colour a, struct colour b, float share_of_b)
{
    float keep = 1 - share_of_b;
    return (struct colour){a.r * keep + b.r * share_of_b, a.g * keep + b.g * share_of_b,
                           a.b * keep + b.b * share_of_b};
}

struct colour colour_scale(struct colour a, float factor)
{
    return (struct colour){a.r * factor, a.g * factor, a.b * factor};
}

struct paint paint_flat(struct colour colour)
{
    return (struct paint){colour, colour, {0, 0}, {0, 1}, 1};
}

static void put(struct canvas *canvas, int column, int row, const struct paint *paint)
{
    float x = ((float)column + 0.5f) / CANVAS_SAMPLES, y = ((float)row + 0.5f) / CANVAS_SAMPLES;
    float along_x = paint->to.x - paint->from.x, along_y = paint->to.y - paint->from.y;
    float length = along_x * along_x + along_y * along_y;
    float share = 0;
    if (length > 0)
        share = ((x - paint->from.x) * along_x + (y - paint->from.y) * along_y) / length;
    share = fminf(1, fmaxf(0, share));
    struct colour colour = colour_mix(paint->first, paint->second, share);
    float *sample = canvas->samples + ((size_t)row * (size_t)canvas->columns + (size_t)column) * 3;
    sample[0] += (colour.r - sample[0]) * paint->alpha;
    sample[1] += (colour.g - sample[1]) * paint->alpha;
    sample[2] += (colour.b - sample[2]) * paint->alpha;
}

void canvas_clear(struct canvas *canvas, struct paint paint)
{
    if (canvas->style == CANVAS_SKETCH)
        paint = paint_flat((struct colour){1, 1, 1});
    for (int row = 0; row < canvas->rows; row++)
        for (int column = 0; column < canvas->columns; column++)
            put(canvas, column, row, &paint);
}

static int ascending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void fill(struct canvas *canvas, const struct point *points, size_t count,
                 const struct paint *paint)
{
    float top = points[0].y, bottom = points[0].y;
    for (size_t i = 1; i < count; i++) {
        top = fminf(top, points[i].y);
        bottom = fmaxf(bottom, points[i].y);
    }
    float *crossings = malloc(count * sizeof *crossings);
    if (!crossings) {
        canvas->failed = true;
        return;
    }
    int first_row = (int)fmaxf(0, floorf(top * CANVAS_SAMPLES));
    int last_row = (int)fminf((float)canvas->rows - 1, ceilf(bottom * CANVAS_SAMPLES));
    for (int row = first_row; row <= last_row; row++) {
        float y = ((float)row + 0.5f) / CANVAS_SAMPLES;
        size_t found = 0;
        for (size_t i = 0; i < count; i++) {
            struct point a = points[i], b = points[(i + 1) % count];
            if ((a.y <= y) != (b.y <= y))
                crossings[found++] = a.x + (y - a.y) / (b.y - a.y) * (b.x - a.x);
        }
        qsort(crossings, found, sizeof *crossings, ascending);
        for (size_t i = 0; i + 1 < found; i += 2) {
            int column = (int)fmaxf(0, ceilf(crossings[i] * CANVAS_SAMPLES - 0.5f));
            float end = fminf((float)canvas->columns - 1,
                              ceilf(crossings[i + 1] * CANVAS_SAMPLES - 0.5f) - 1);
            for (; (float)column <= end; column++)
                put(canvas, column, row, paint);
        }
    }
    free(crossings);
}

static void capsule(struct canvas *canvas, struct point a, struct point b, float width,
                    const struct paint *paint)
{
    enum { arc = 6 };
    struct point outline[2 * arc + 2];
    float angle = atan2f(b.y - a.y, b.x - a.x), radius = width / 2;
    for (int i = 0; i <= arc; i++) {
        float turn = angle - pi / 2 + pi * (float)i / arc;
        outline[i] = (struct point){b.x + radius * cosf(turn), b.y + radius * sinf(turn)};
        turn += pi;
        outline[arc + 1 + i] = (struct point){a.x + radius * cosf(turn), a.y + radius * sinf(turn)};
    }
    fill(canvas, outline, 2 * arc + 2, paint);
}

static const struct colour black = {0.05f, 0.05f, 0.05f};

/* A pen stroke that strays from the line by a smooth random wave. */
static void pen_stroke(struct canvas *canvas, const struct point *points, size_t count, bool closed)
{
    struct random random = {canvas->hand};
    float phase_x = random_between(&random, 0, 6.28f), phase_y = random_between(&random, 0, 6.28f);
    float pace = random_between(&random, 0.10f, 0.22f);
    canvas->hand = random_bits(&random);
    struct paint ink = paint_flat(black);
    struct point previous = {0, 0};
    float travelled = 0;
    size_t last = closed ? count : count - 1;
    for (size_t i = 0; i <= last; i++) {
        struct point a = points[i % count];
        if (i > 0) {
            struct point before = points[i - 1];
            travelled += hypotf(a.x - before.x, a.y - before.y);
        }
        /* the wave's share fades in and out, so that a closed outline meets its own beginning */
        float fade = closed ? fminf(1, fminf((float)i, (float)(last - i)) * 0.34f) : 1;
        float reach = canvas->wobble * fade;
        struct point here = {a.x + reach * sinf(phase_x + pace * travelled),
                             a.y + reach * sinf(phase_y + pace * 1.3f * travelled)};
        if (i > 0)
            capsule(canvas, previous, here, canvas->stroke, &ink);
        previous = here;
    }
}

void canvas_polygon(struct canvas *canvas, const struct point *points, size_t count,
                    struct paint paint, bool outline)
{
    if (canvas->style == CANVAS_PAINT) {
        fill(canvas, points, count, &paint);
    } else if (outline) {
        struct paint paper = paint_flat((struct colour){1, 1, 1});
        fill(canvas, points, count, &paper);
        pen_stroke(canvas, points, count, true);
    }
}

void canvas_line(struct canvas *canvas, const struct point *points, size_t count, float width,
                 struct paint paint)
{
    if (canvas->style == CANVAS_SKETCH) {
        pen_stroke(canvas, points, count, false);
        return;
    }
    for (size_t i = 0; i + 1 < count; i++)
        capsule(canvas, points[i], points[i + 1], width, &paint);
}

/* Calls for every sample of a soft ellipse with its strength, 1 in the middle and 0 at the rim. */
static void soft_ellipse(struct canvas *canvas, struct point centre, float radius_x, float radius_y,
                         struct colour light, float depth)
{
    if (canvas->style == CANVAS_SKETCH)
        return;
    int first_row = (int)fmaxf(0, (centre.y - radius_y) * CANVAS_SAMPLES);
    int last_row = (int)fminf((float)canvas->rows - 1, (centre.y + radius_y) * CANVAS_SAMPLES);
    int first = (int)fmaxf(0, (centre.x - radius_x) * CANVAS_SAMPLES);
    int last = (int)fminf((float)canvas->columns - 1, (centre.x + radius_x) * CANVAS_SAMPLES);
    for (int row = first_row; row <= last_row; row++)
        for (int column = first; column <= last; column++) {
            float x = (((float)column + 0.5f) / CANVAS_SAMPLES - centre.x) / radius_x;
            float y = (((float)row + 0.5f) / CANVAS_SAMPLES - centre.y) / radius_y;
            float inside = 1 - (x * x + y * y);
            if (inside <= 0)
                continue;
            float *sample =
                canvas->samples + ((size_t)row * (size_t)canvas->columns + (size_t)column) * 3;
            float strength = inside * inside;
            sample[0] = sample[0] * (1 - depth * strength) + light.r * strength;
            sample[1] = sample[1] * (1 - depth * strength) + light.g * strength;
            sample[2] = sample[2] * (1 - depth * strength) + light.b * strength;
        }
}

void canvas_glow(struct canvas *canvas, struct point centre, float radius_x, float radius_y,
                 struct colour light)
{
    soft_ellipse(canvas, centre, radius_x, radius_y, light, 0);
}

void canvas_shadow(struct canvas *canvas, struct point centre, float radius_x, float radius_y,
                   float depth)
{
    soft_ellipse(canvas, centre, radius_x, radius_y, (struct colour){0, 0, 0}, depth);
}

void canvas_resolve(const struct canvas *canvas, uint8_t *bytes)
{
    for (int y = 0; y < canvas->height; y++)
        for (int x = 0; x < canvas->width; x++)
            for (int channel = 0; channel < 3; channel++) {
                float sum = 0;
                for (int row = 0; row < CANVAS_SAMPLES; row++)
                    for (int column = 0; column < CANVAS_SAMPLES; column++) {
                        size_t at = (size_t)(y * CANVAS_SAMPLES + row) * (size_t)canvas->columns +
                                    (size_t)(x * CANVAS_SAMPLES + column);
                        sum += fminf(1, canvas->samples[at * 3 + (size_t)channel]);
                    }
                float value = sum / (CANVAS_SAMPLES * CANVAS_SAMPLES) * 255 + 0.5f;
                bytes[((size_t)y * (size_t)canvas->width + (size_t)x) * 3 + (size_t)channel] =
                    (uint8_t)fminf(255, fmaxf(0, value));
            }
}
