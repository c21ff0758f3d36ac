/* One street seen from its middle, by day, by night or in rain. */
#ifndef TOYWORLD_STREET_H
#define TOYWORLD_STREET_H

#include "canvas.h"

/* STREET_CLEAR is STREET_DAY seen through the window pane of STREET_RAIN. */
enum street_weather { STREET_DAY, STREET_NIGHT, STREET_RAIN, STREET_CLEAR };

/* Equal seeds give the same street in every weather. Whatever one weather shows can be told from
 * the others: curtained windows are the lit ones, the moon stands where the sun stood, a star
 * shines where a small bird flew; rain runs down the fine scratches of the pane. */
void street_draw(struct canvas *canvas, uint64_t seed, enum street_weather weather);

#endif
