/* Coloured things on coloured grounds: "a blue bird on a yellow ground". */
#ifndef TOYWORLD_THINGS_H
#define TOYWORLD_THINGS_H

#include "canvas.h"

enum { COLOUR_COUNT = 10 };
extern const char *const colour_names[COLOUR_COUNT];
struct colour colour_of(int index);

int thing_count(void);

/* What one picture shows; everything in it follows from these numbers. */
struct thing_picture {
    int thing, colour, ground;
    uint64_t pose; /* seed of position, size, tilt and details */
};

/* Where the thing stands: its middle and half its size in pixels, its tilt in radians. */
struct thing_pose {
    float x, y, size, tilt;
    bool mirrored;
};

/* Any thing in two different colours. */
struct thing_picture thing_picture_random(struct random *random);
/* Draws on a fresh canvas of any size. */
void thing_picture_draw(struct canvas *canvas, const struct thing_picture *picture);
/* The pose in a picture of this size. */
struct thing_pose thing_picture_pose(int width, int height, const struct thing_picture *picture);
/* Writes the caption; returns its length as snprintf does. */
int thing_picture_caption(const struct thing_picture *picture, char *text, size_t size);

#endif
