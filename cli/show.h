/* Pictures in the terminal. */
#ifndef ONESTEP_CLI_SHOW_H
#define ONESTEP_CLI_SHOW_H

#include "image/image.h"

/* Draws a picture on stderr with the protocol that the terminal knows: kitty's, or iTerm2's. The
 * environment tells which; ONESTEP_SHOW=kitty or iterm2 decides otherwise. A terminal of neither
 * kind is an error. */
onestep_status show_picture(const onestep_image *image, onestep_error *error) MUST_USE;
/* Whether there is a protocol to draw with. */
bool show_possible(void);

#endif
