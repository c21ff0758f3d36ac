/* A small anti-aliased painter: everything is a filled polygon on a supersampled canvas. */
#ifndef TOYWORLD_CANVAS_H
#define TOYWORLD_CANVAS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CANVAS_SAMPLES = 4 }; /* samples a pixel in each direction */

struct point {
    float x, y;
};

struct colour {
    float r, g, b; /* 0..1, display values */
};

/* CANVAS_PAINT fills shapes with colour; CANVAS_SKETCH fills them white and strokes their outline
 * in black, so that what lies in front hides the lines behind it. */
enum canvas_style { CANVAS_PAINT, CANVAS_SKETCH };

struct canvas {
    int width, height; /* pixels */
    int columns, rows; /* samples */
    float *samples;    /* [rows, columns, 3] */
    enum canvas_style style;
    float stroke;  /* pen width of the sketch, pixels */
    float wobble;  /* how far the pen strays, pixels */
    uint64_t hand; /* random state of the pen's wobble */
    bool failed;   /* memory ran out while drawing */
};

struct random {
    uint64_t state;
};

/* Splitmix64: equal on every machine. */
uint64_t random_bits(struct random *random);
/* Uniform in [low, high). */
float random_between(struct random *random, float low, float high);
/* Uniform in 0 .. count-1. */
int random_below(struct random *random, int count);
bool random_chance(struct random *random, float probability);

/* Returns false when memory runs out. */
bool canvas_create(struct canvas *canvas, int width, int height, enum canvas_style style);
void canvas_destroy(struct canvas *canvas);

struct colour colour_rgb(int r, int g, int b);
struct colour colour_mix(struct colour a, struct colour b, float share_of_b);
struct colour colour_scale(struct colour a, float factor);

/* Fills with a linear gradient: first at `from`, second at `to`, constant beyond. Pixel
 * coordinates. */
struct paint {
    struct colour first, second;
    struct point from, to;
    float alpha;
};
struct paint paint_flat(struct colour colour);

void canvas_clear(struct canvas *canvas, struct paint paint);
/* Fills (even-odd) the closed polygon; in a sketch its outline is drawn too unless `outline` is
 * false. */
void canvas_polygon(struct canvas *canvas, const struct point *points, size_t count,
                    struct paint paint, bool outline);
/* A round-ended line of this width in pixels; a single pen stroke in a sketch. */
void canvas_line(struct canvas *canvas, const struct point *points, size_t count, float width,
                 struct paint paint);
/* Adds light that falls off smoothly to nothing at `radius` (pixels). */
void canvas_glow(struct canvas *canvas, struct point centre, float radius_x, float radius_y,
                 struct colour light);
/* Multiplies by 1 - depth in the middle of a soft ellipse. */
void canvas_shadow(struct canvas *canvas, struct point centre, float radius_x, float radius_y,
                   float depth);

/* Averages the samples to bytes [height, width, 3]; `bytes` is the caller's. */
void canvas_resolve(const struct canvas *canvas, uint8_t *bytes);

#endif
